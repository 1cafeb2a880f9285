"""When training has converged: time to a threshold, with runs that never got there kept as what they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Convergence(NamedTuple):
    """How long it took, or, when censored, how long it was waited for in vain."""

    time: float
    censored: bool


def time_to_threshold(times: Sequence[float], losses: Sequence[float], threshold: float) -> Convergence:
    r"""Time at which a loss first falls to a threshold, by linear interpolation.

    .. math:: t = t_{i-1} + (t_i - t_{i-1}) \frac{\ell_{i-1} - \tau}{\ell_{i-1} - \ell_i},
              \quad i = \min \{ j : \ell_j \le \tau \}

    Args:
        times: When the loss was taken, rising, from 0 on; epochs or steps.
        losses: The loss then, as many; or an error rate. Values that are not finite count as not reached.
        threshold: tau, in the unit of the losses.

    Returns:
        The time, in the unit of `times`. The first time (0, if the record starts there) when the loss starts at the
        threshold or below; the last time, censored, when it never gets there. After a loss that is not finite there is
        nothing to interpolate from, and the time is that of the first loss at or below the threshold.

    Raises:
        ValueError: nothing recorded, lengths that differ, times that are negative or do not rise, a threshold that is
            not finite.

    Example:
        >>> time_to_threshold([0, 1, 2, 3], [8.0, 4.0, 2.0, 1.0], 3.0)
        Convergence(time=1.5, censored=False)
        >>> time_to_threshold([0, 1, 2, 3], [8.0, 4.0, 2.0, 1.0], 0.5)
        Convergence(time=3.0, censored=True)

    Reference: the fine-tuning times of Achille, Mbeng & Soatto 2018, https://arxiv.org/abs/1810.02440. How the paper
    sets its threshold we could not read there; here it is an argument. Fix one a target, for all its sources, on the
    loss of a fixed set rather than of mini-batches. Stochastic descent ends a noise floor above the minimum, and a
    threshold close to that floor measures the batch size, not the task.
    """
    times, losses = [float(t) for t in times], [float(loss) for loss in losses]
    _check(times, losses, threshold)
    reached = next((i for i, loss in enumerate(losses) if math.isfinite(loss) and loss <= threshold), None)
    if reached is None:
        return Convergence(times[-1], True)
    if reached == 0 or not math.isfinite(losses[reached - 1]):
        return Convergence(times[reached], False)
    before, after = losses[reached - 1], losses[reached]
    # Halved: the difference of two finite losses may overflow, and that of their halves may not.
    share = (before / 2 - threshold / 2) / (before / 2 - after / 2)
    return Convergence(times[reached - 1] + share * (times[reached] - times[reached - 1]), False)


def median_time(results: Sequence[Convergence]) -> Convergence:
    """Median over repetitions that takes a censored run for what it says: at least that long.

    Args:
        results: One a repetition, in one unit.

    Returns:
        The median where the runs settle it. Otherwise censored, with the largest time that it is known to reach: so it
        is when at least half of the runs are censored, and when a run given up early might lie on either side.

    Raises:
        ValueError: no results, or a time that is negative or not finite.

    Example:
        >>> median_time([Convergence(2.0, False), Convergence(4.0, False), Convergence(9.0, True)])
        Convergence(time=4.0, censored=False)
        >>> median_time([Convergence(2.0, False), Convergence(9.0, True), Convergence(9.0, True)])
        Convergence(time=9.0, censored=True)

    Reference: Reid 1981, https://doi.org/10.1093/biomet/68.3.601, on the median of censored data. Leaving censored runs
    out, or taking their last time for the true one, would make hard pairs look easy.
    """
    if not results:
        raise ValueError("a median needs at least one result, got none")
    for result in results:
        _check_time(result.time)
    least = statistics.median(result.time for result in results)
    most = statistics.median(math.inf if result.censored else result.time for result in results)
    return Convergence(float(least), least != most)


def log2_time(result: Convergence, *, resolution: float) -> Convergence:
    r"""The time on a scale of doublings, on which fine-tuning times are drawn; what was censored stays so.

    .. math:: \log_2 \max(t, t_{min})

    Args:
        result: A time.
        resolution: t_min, the smallest time told apart (one step, in the unit of the times), which stands for shorter
            ones: a pair that starts below its threshold has time 0, and no logarithm.

    Returns:
        The logarithm, in doublings of the unit of the times.

    Raises:
        ValueError: a resolution that is not above 0 and finite, a time that is negative or not finite.

    Example:
        >>> log2_time(Convergence(8.0, True), resolution=0.25)
        Convergence(time=3.0, censored=True)
        >>> log2_time(Convergence(0.0, False), resolution=0.25)
        Convergence(time=-2.0, censored=False)
    """
    if not 0 < resolution < math.inf:
        raise ValueError(f"resolution must be above 0 and finite, got {resolution}; one step, in the unit of the times")
    _check_time(result.time)
    return Convergence(math.log2(max(result.time, resolution)), result.censored)


def _check(times: list[float], losses: list[float], threshold: float) -> None:
    if len(times) != len(losses) or not times:
        raise ValueError(f"times and losses must be equally many and at least one, got {len(times)} and {len(losses)}")
    for time in times:
        _check_time(time)
    for before, after in pairwise(times):
        if after <= before:
            raise ValueError(f"times must rise, got {after} after {before}")
    if not math.isfinite(threshold):
        raise ValueError(f"threshold must be finite, got {threshold}")


def _check_time(time: float) -> None:
    if not 0 <= time < math.inf:
        raise ValueError(f"a time must be at least 0 and finite, got {time}")
