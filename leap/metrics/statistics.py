"""Means with intervals, and tests of matrices: how far a figure would move with other seeds, tasks, or by chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from leap.metrics.correlation import CORRELATIONS, ranks
from leap.metrics.pairs import matrix

if TYPE_CHECKING:
    import torch

Alternative = Literal["greater", "less", "two-sided"]


@dataclass(frozen=True)
class Interval:
    """A mean, the interval around it and the number of values behind it; `low` and `high` are None for one value."""

    mean: float
    low: float | None
    high: float | None
    count: int


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    r"""Mean of independent values with Student's t-interval.

    .. math:: \bar x \pm t_{(1 + level)/2,\, n-1}\, s / \sqrt n, \qquad s^2 = \sum_i (x_i - \bar x)^2 / (n - 1)

    Args:
        values: One number a repetition (a training seed), at least one, all finite.
        level: Coverage of the interval, between 0 and 1.

    Returns:
        The interval, in the unit of the values. One value has a mean and no interval.

    Raises:
        ValueError: no values, a value that is not finite, or a level outside (0, 1).

    Example:
        >>> interval = mean_interval([10.0, 12.0, 14.0])
        >>> f"{interval.mean:.1f} [{interval.low:.2f}, {interval.high:.2f}] from {interval.count}"
        '12.0 [7.03, 16.97] from 3'
        >>> mean_interval([10.0])
        Interval(mean=10.0, low=None, high=None, count=1)
    """
    mean, variance = _moments(values, level)
    count = len(values)
    if count == 1:
        return Interval(mean, None, None, 1)
    return _around(mean, math.sqrt(variance / count), count - 1, level, count)


def difference_interval(
    first: Sequence[float], second: Sequence[float], *, paired: bool, level: float = 0.95
) -> Interval:
    r"""Mean of `first` less mean of `second`, with its t-interval.

    Paired, it is `mean_interval` of the differences. Otherwise it is Welch's, which allows unequal variances:

    .. math:: \bar x - \bar y \pm t_{(1 + level)/2,\, \nu} \sqrt{a + b}, \quad a = s_x^2 / n, \quad b = s_y^2 / m,
              \quad \nu = (a + b)^2 / \left( a^2 / (n - 1) + b^2 / (m - 1) \right)

    Args:
        first: One number a repetition.
        second: The same for what it is compared with; in the order of `first`, and as many, when paired.
        paired: True when the i-th values of both share what makes them vary (the seed).
        level: Coverage of the interval, between 0 and 1.

    Returns:
        The interval; without `low` and `high` where there are too few values to have one. `count` is the number of
        pairs, or the smaller of the two numbers of values.

    Raises:
        ValueError: as `mean_interval`, or paired values that are not equally many.

    Example:
        >>> difference_interval([1.0, 2.0], [3.0, 4.0], paired=True)
        Interval(mean=-2.0, low=-2.0, high=-2.0, count=2)
    """
    if paired:
        if len(first) != len(second):
            raise ValueError(f"paired values must be equally many, got {len(first)} and {len(second)}")
        return mean_interval([x - y for x, y in zip(first, second, strict=True)], level)
    (x, x_variance), (y, y_variance) = _moments(first, level), _moments(second, level)
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return Interval(x - y, None, None, min(n, m))
    a, b = x_variance / n, y_variance / m
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1)) if a + b > 0 else float(n + m - 2)
    return _around(x - y, math.sqrt(a + b), freedom, level, min(n, m))


class Mantel(NamedTuple):
    """Correlation of two matrices, how often relabelled tasks give as much, and how many relabellings were drawn."""

    correlation: float
    p_value: float
    permutations: int


def mantel(
    a: Any,
    b: Any,
    *,
    permutations: int,
    generator: torch.Generator,
    alternative: Alternative = "greater",
    method: Literal["spearman", "pearson"] = "spearman",
) -> Mantel:
    r"""Mantel's test: is the correlation of two matrices more than tasks with shuffled names would show?

    .. math:: p = \frac{1 + \#\{\pi : r(a_{\pi\pi}, b) \ge r(a, b)\}}{1 + P}

    Pairs that share a task are not independent, so the p-value of a plain correlation is too small; relabelling rows
    and columns jointly keeps that dependence.

    Args:
        a: [T, T], in any unit, NaN where missing; the diagonal is not looked at. Both directions of a pair count.
        b: The same of another quantity, the same tasks in the same order.
        permutations: P, at least 1; 2000 is usual. The p-value is at least 1 / (P + 1).
        generator: Draws the relabellings.
        alternative: `greater` for a positive association (distance and epochs), `less` for a negative one,
            `two-sided` for either.
        method: Rank correlation, or that of the values.

    Returns:
        The correlation over the pairs that both have, the p-value, P.

    Raises:
        ValueError: matrices of wrong or different shape, fewer than 3 tasks, no relabelling, an unknown alternative or
            method, or matrices whose correlation does not exist.

    Example:
        >>> from leap.randomness import generator
        >>> a = [[0, 1, 2, 3], [2, 0, 4, 5], [3, 5, 0, 7], [4, 6, 8, 0]]
        >>> mantel(a, a, permutations=99, generator=generator(0)).correlation
        1.0

    Reference: Mantel 1967, https://aacrjournals.org/cancerres/article/27/2_Part_1/209. That test is of symmetric
    matrices and Pearson's correlation; asymmetric ones enter here with both directions. Missing pairs stay where they
    are in each matrix and every relabelling is correlated over the pairs that then meet; one without a correlation
    counts as if it had reached the observed one.
    """
    one, two = matrix(a, "a"), matrix(b, "b")
    _check_mantel(one, two, permutations, alternative, method)
    observed = _correlation(one, two, method)
    if math.isnan(observed):
        raise ValueError("a and b have no correlation: fewer than 3 common pairs, or one value everywhere")
    import torch

    orders = np.stack([torch.randperm(len(one), generator=generator).numpy() for _ in range(permutations)])
    found = _relabelled(one, two, orders, method)
    count = sum(math.isnan(value) or _reaches(value, observed, alternative) for value in found)
    return Mantel(observed, (1 + count) / (1 + permutations), permutations)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float | None],
    count: int,
    *,
    resamples: int,
    generator: torch.Generator,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile interval of a statistic over things that could have been others, drawn with replacement.

    Args:
        statistic: Takes indices [count] into the things, some twice, and gives a number; None or NaN where it does not
            exist. For matrices the things are tasks, rows and columns go together, and the statistic leaves out pairs
            of a task with its own copy.
        count: How many things there are.
        resamples: How many draws, at least 100.
        generator: Draws them.
        level: Coverage of the interval, between 0 and 1.

    Returns:
        Its ends in the statistic's unit; None where it did not exist in half of the draws or more.

    Raises:
        ValueError: a level outside (0, 1), fewer than 2 things, or too few resamples.

    Example:
        >>> from leap.randomness import generator
        >>> import numpy as np
        >>> values = np.arange(100.0)
        >>> low, high = bootstrap_interval(lambda i: values[i].mean(), 100, resamples=400, generator=generator(0))
        >>> 40 < low < 46 and 53 < high < 59
        True

    Reference: Efron 1979, https://doi.org/10.1214/aos/1176344552. With few things (8 tasks) such intervals are rather
    too short than too long.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    if count < 2 or resamples < 100:
        raise ValueError(f"a bootstrap needs 2 things and 100 resamples or more, got {count} and {resamples}")
    import torch

    draws = torch.randint(count, (resamples, count), generator=generator).numpy()
    found = np.array([math.nan if (value := statistic(draw)) is None else value for draw in draws])
    found = found[~np.isnan(found)]
    if 2 * len(found) <= resamples:
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def student_quantile(freedom: float, level: float = 0.95) -> float:
    """How many standard errors the two-sided t-interval of this level reaches to each side.

    Example:
        >>> round(student_quantile(2), 3)
        4.303
    """
    from scipy.stats import t  # imported here: half a second that `leap --help` does not have

    return float(t.ppf((1 + level) / 2, freedom))


def _around(mean: float, error: float, freedom: float, level: float, count: int) -> Interval:
    reach = student_quantile(freedom, level) * error
    return Interval(mean, mean - reach, mean + reach, count)


def _moments(values: Sequence[float], level: float) -> tuple[float, float]:
    """Mean and unbiased variance; the variance of one value is 0, which no caller uses."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    if len(values) == 0:
        raise ValueError("an interval needs at least one value, got none")
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"an interval needs finite values, got {value}; leave out what diverged and say so")
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, squares / max(len(values) - 1, 1)


def _check_mantel(one: np.ndarray, two: np.ndarray, permutations: int, alternative: str, method: str) -> None:
    if one.shape != two.shape or len(one) < 3:
        raise ValueError(f"a and b must be of the same three tasks or more, got {len(one)} and {len(two)} tasks")
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}; 2000 is usual")
    if alternative not in ("greater", "less", "two-sided"):
        raise ValueError(f"alternative must be greater, less or two-sided, got {alternative!r}")
    if method not in CORRELATIONS:
        raise ValueError(f"method must be one of {sorted(CORRELATIONS)}, got {method!r}")
    if method == "pearson" and (np.isinf(one).any() or np.isinf(two).any()):
        raise ValueError("Pearson's correlation needs finite values, got infinity; use method='spearman'")


def _correlation(one: np.ndarray, two: np.ndarray, method: str) -> float:
    held = ~np.isnan(one) & ~np.isnan(two)
    return CORRELATIONS[method](one[held], two[held])


def _relabelled(one: np.ndarray, two: np.ndarray, orders: np.ndarray, method: str) -> list[float]:
    """The correlation under every order of tasks."""
    off = ~np.eye(len(one), dtype=bool)
    if np.isnan(one[off]).any() or np.isnan(two[off]).any():
        return [_correlation(one[np.ix_(order, order)], two, method) for order in orders]
    # Without gaps every relabelling has the same values, and so the same ranks, mean and spread: one product is left.
    x, y = (_standard(m, off, method) for m in (one, two))
    return [float((x[np.ix_(order, order)] * y).sum()) for order in orders]


def _standard(m: np.ndarray, off: np.ndarray, method: str) -> np.ndarray:
    """Ranks or values off the diagonal with mean 0 and norm 1; 0 on it."""
    held = ranks(m[off]) if method == "spearman" else m[off]
    held = held - held.mean()
    out = np.zeros_like(m)
    out[off] = held / np.sqrt(held @ held)
    return out


def _reaches(found: float, observed: float, alternative: str) -> bool:
    """Whether a relabelling is as extreme; equal ones count, whatever round-off says."""
    if alternative == "two-sided":
        found, observed = abs(found), abs(observed)
    elif alternative == "less":
        found, observed = -found, -observed
    return found >= observed - 1e-12
