"""Means with intervals: how far a figure would move if the same thing were done with other seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


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
