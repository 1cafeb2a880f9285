r"""How far parameters went through a game, beside what that gained: path length and energy a step and a return gained.

The return gained is G = x - b: x the mean score of a walk's last episodes, b the level at which learning of a game
starts, one number for all initializations, so that one which plays well from the first step is not charged for it.
Path length L a return gained is the ratio of means \bar L / \bar G over independent seeds; a mean of ratios would be
whatever the seed that gained least makes of it. Where \bar G is not above 0 there is no such number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leap.metrics.statistics import Interval, mean_interval, student_quantile
from leap.report.returns import Returns
from leap.report.returns_walks import ENERGY, ENERGY_STEP, FINAL, LAST, LENGTH, LENGTH_STEP, Arm


@dataclass(frozen=True)
class Paths:
    """The measures of an initialization on a game; None where a walk has none, or where nothing was gained.

    Attributes:
        gained: Return gained.
        length: Path length an inner step.
        energy: Path energy an inner step.
        length_return: Path length of the whole walk a return gained.
        energy_return: Path energy of the whole walk a return gained.
    """

    gained: Interval | None
    length: Interval | None
    energy: Interval | None
    length_return: Interval | None
    energy_return: Interval | None


def paths(found: Returns, arm: Arm, game: str) -> Paths:
    """The path measures of an initialization on a game, with 95% intervals over seeds."""
    start = start_level(found, game)
    scores = arm.units(game, FINAL)
    known = start is not None and bool(scores) and bool(np.isfinite(scores).all())
    gains = [score - start for score in scores] if start is not None and known else []
    return Paths(
        mean_interval(gains) if gains else None,
        arm.interval(game, LENGTH_STEP),
        arm.interval(game, ENERGY_STEP),
        _per(arm.units(game, LENGTH), gains),
        _per(arm.units(game, ENERGY), gains),
    )


def start_level(found: Returns, game: str) -> float | None:
    """The score at which learning of a game starts.

    Returns:
        What random play scores, where that is known; else the mean over the walks from random initializations of their
        first LAST episodes, and no more than the first half; None where one of them ended none.
    """
    known = found.references.get(game, {}).get("random")
    if known is not None and math.isfinite(known):
        return known
    walks = [walk for arm in found.arms if arm.baseline for walk in arm.walks.get(game, {}).values()]
    first = [walk.episodes[: min(LAST, max(1, len(walk.episodes) // 2)), 1] for walk in walks]
    if not first or not all(len(scores) for scores in first):
        return None
    level = float(np.mean([scores.mean() for scores in first]))
    return level if math.isfinite(level) else None


def ratio_interval(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    r"""Mean of `first` over mean of `second`, paired, with Fieller's 95% interval.

    .. math:: \{ r > 0 : (\bar x - r \bar y)^2 \le t^2 (s_{xx} - 2 r s_{xy} + r^2 s_{yy}) / n \}

    with Student's 97.5% quantile t at n - 1 degrees of freedom, and variances and the covariance s of a sample.

    Args:
        first: One number a seed; negative ratios are impossible, so the interval ends at 0.
        second: The same seeds.

    Returns:
        None where the mean of `second` is not above 0. Without `low` and `high` for one pair, and where the interval of
        the mean of `second` reaches 0: then the ratio has no upper end.

    Example:
        >>> ratio_interval([6.0, 6.0], [3.0, 3.0]), ratio_interval([6.0, 6.0], [3.0, -4.0])
        (Interval(mean=2.0, low=2.0, high=2.0, count=2), None)

    Reference: Fieller 1954, https://doi.org/10.1111/j.2517-6161.1954.tb00159.x.
    """
    x, y = float(np.mean(first)), float(np.mean(second))
    count = len(first)
    if not y > 0:
        return None
    if count < 2:
        return Interval(x / y, None, None, count)
    (xx, xy), (_, yy) = (np.cov(first, second) * student_quantile(count - 1) ** 2 / count).tolist()
    a, b, c = y * y - yy, x * y - xy, x * x - xx
    if a <= 0:
        return Interval(x / y, None, None, count)
    reach = math.sqrt(max(b * b - a * c, 0.0))
    return Interval(x / y, max(0.0, (b - reach) / a), (b + reach) / a, count)


def _per(lengths: Sequence[float], gains: Sequence[float]) -> Interval | None:
    if not gains or not np.isfinite(lengths).all():
        return None
    return ratio_interval(lengths, gains)
