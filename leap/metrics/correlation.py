"""Rank correlation of two lists: how far the one orders things as the other does, whatever the scale of either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

LEAST = 3  # values; two are always in perfect order, or in perfect disorder


def spearman(x: Any, y: Any) -> float:
    r"""Spearman's rank correlation.

    .. math:: \rho = \operatorname{corr}(\operatorname{rank} x, \operatorname{rank} y)

    Args:
        x: Numbers, [n], n at least 3, in any unit; infinity is allowed and ranks last (`unbounded`).
        y: As many numbers.

    Returns:
        -1 (opposite order) to 1 (same order), without a unit.

    Raises:
        ValueError: fewer than 3 values, lists of different length, NaN, or a list that has one value everywhere, whose
            order says nothing.

    Example:
        >>> round(spearman([1, 2, 3, 4], [10, 20, 40, 30]), 12)
        0.8

    Reference: Spearman 1904, https://doi.org/10.2307/1412159. Equal values share the mean of their ranks.
    """
    one, two = _checked(x, y)
    return float(rank_correlation(one, two))


def kendall_tau_b(x: Any, y: Any) -> float:
    r"""Kendall's tau-b: of the pairs that neither list ties, how many more are ordered alike than not.

    .. math:: \tau_b = \frac{C - D}{\sqrt{(C + D + T_x)(C + D + T_y)}}

    with C pairs in the same and D in the opposite order, and T tied in one of the lists alone.

    Args, returns, raises: as `spearman`.

    Example:
        >>> round(kendall_tau_b([1, 2, 3, 4], [10, 20, 40, 30]), 4)
        0.6667

    Reference: Kendall 1945, https://doi.org/10.1093/biomet/33.3.239.
    """
    from scipy.stats import kendalltau

    one, two = _checked(x, y)
    return float(kendalltau(ranks(one), ranks(two)).statistic)


def weighted_tau(score: Any, outcome: Any, *, rank: bool | None = True) -> float:
    r"""Kendall's tau in which exchanges near the top weigh more: for picking the best source, its order matters most.

    .. math:: \tau_h = \frac{\langle x, y \rangle}{\|x\| \|y\|}, \quad
              \langle x, y \rangle = \sum_{i<j} \left( \frac1{1+r_i} + \frac1{1+r_j} \right)
              \operatorname{sgn}(x_i - x_j) \operatorname{sgn}(y_i - y_j)

    where `r` counts from 0 at the largest value.

    Args:
        score: Numbers, [n], n at least 3; larger is better. Negate a distance.
        outcome: As many numbers, larger is better (an accuracy).
        rank: True: the mean of the value with ranks by score and that with ranks by outcome, which is symmetric and
            what published tables of transferability use. None: ranks by score alone, equal ones by outcome.

    Returns:
        -1 to 1, without a unit.

    Raises:
        ValueError: as `spearman`.

    Example:
        >>> top, bottom = [4, 3, 2, 1], [1, 2, 3, 4]
        >>> round(weighted_tau(top, [3, 4, 2, 1]), 4), round(weighted_tau(top, [4, 3, 1, 2]), 4)
        (0.52, 0.8133)
        >>> round(weighted_tau(top, bottom), 4)
        -1.0

    Reference: Vigna 2015, https://arxiv.org/abs/1404.3325; as `scipy.stats.weightedtau` with its hyperbolic weights.
    """
    from scipy.stats import weightedtau

    one, two = _checked(score, outcome)
    return float(weightedtau(ranks(one), ranks(two), rank=rank).statistic)


def pearson(x: Any, y: Any) -> float:
    r"""Pearson's correlation of the values themselves; only as good as the scale, and moved by single large values.

    .. math:: r = \frac{\sum_i (x_i - \bar x)(y_i - \bar y)}{\|x - \bar x\| \, \|y - \bar y\|}

    Args, returns, raises: as `spearman`, and infinity is refused.

    Example:
        >>> round(pearson([1, 2, 3], [2, 4, 7]), 4)
        0.9934

    Reference: Pearson 1895, https://doi.org/10.1098/rspl.1895.0041.
    """
    one, two = _checked(x, y)
    for values in (one, two):
        if np.isinf(values).any():
            raise ValueError(
                "Pearson's correlation needs finite values, got infinity; use spearman, which ranks it last"
            )
    return float(linear_correlation(one, two))


def unbounded(values: Any, censored: Any) -> np.ndarray:
    """Values with those that were cut off set to infinity, so that ranks put them last, tied.

    An experiment that was stopped at its limit took longer than the limit: where all have one limit, it took longer
    than any that finished, and how the stopped ones compare is unknown. Where limits differ between tasks this is true
    within a task only; over all pairs a value cut off early then counts as large, which is a choice.

    Args:
        values: Numbers of any shape, larger is slower.
        censored: Booleans of the same shape; None where nothing was cut off.

    Returns:
        float64 of that shape.

    Raises:
        ValueError: shapes that differ.

    Example:
        >>> unbounded([3.0, 30.0], [False, True])
        array([ 3., inf])
    """
    values = array(values)
    if censored is None:
        return values
    marks = np.asarray(censored, dtype=bool)
    if marks.shape != values.shape:
        raise ValueError(f"censored must have the shape of the values, {values.shape}, got {marks.shape}")
    return np.where(marks & ~np.isnan(values), np.inf, values)


def array(values: Any) -> np.ndarray:
    """Numbers as float64, from lists, arrays and tensors of any device; None becomes NaN."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties share their mean; some lists are ranked thousands of times, at a tenth of scipy's overhead."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's correlation of arrays that were checked; NaN where it does not exist (too few, or all equal)."""
    return linear_correlation(ranks(x), ranks(y)) if len(x) >= LEAST else np.nan


def linear_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of arrays that were checked; NaN where it does not exist."""
    if len(x) < LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


CORRELATIONS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "spearman": rank_correlation,
    "pearson": linear_correlation,
}


def _checked(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    one, two = array(x), array(y)
    if one.ndim != 1 or one.shape != two.shape:
        raise ValueError(f"a correlation needs two lists of one length, got shapes {one.shape} and {two.shape}")
    if len(one) < LEAST:
        raise ValueError(f"a rank correlation needs at least {LEAST} values, got {len(one)}; two are always in order")
    for values in (one, two):
        if np.isnan(values).any():
            raise ValueError(
                f"a correlation needs numbers, got NaN at {int(np.isnan(values).argmax())}; leave pairs out"
            )
        if (values == values[0]).all():
            raise ValueError(
                f"a list with one value everywhere has no order, got {values[0]:g} {len(values)} times; "
                "leave it out and say so"
            )
    return one, two
