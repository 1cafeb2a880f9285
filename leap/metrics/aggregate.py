"""Scores of few runs on several games as one number with an interval.

R runs, M games, scores [R, M], larger is better; leading axes [..., R, M] are further such tables. Intervals are
percentiles of a stratified bootstrap: the runs of a game are drawn anew, games stay. So they tell how far other *runs*
on the same games would move a figure, not how far other games would.

Few runs make them too short. Simulated with skewed scores (lognormal) and 95% asked for, the interval of the IQM held
the truth in 75% to 85% of cases with 3 runs, 88% to 93% with 5, 90% to 96% with 10 and with 20; the mean's in 76% to
83%, 81% to 90%, 87% to 93% and 90% to 91%. Where all runs of one method beat all of another, the interval of the
probability of improvement has length zero, whatever the number of runs.

Reference: `Agarwal et al. 2021 <https://arxiv.org/abs/2108.13264>`_. Figures agree with the definitions of the authors'
package (rliable, archived in 2025), which is not needed. Two things are added: runs that share what makes them vary are
drawn in pairs (`paired`), and runs that share a training are drawn together (`together`), since repetitions of one
training are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 2000
FEW = 10  # of that many runs on, intervals of IQM and mean cover about as often as they say
CHUNK = 4_000_000  # numbers drawn at a time, 32 MB

Statistic = Callable[..., np.ndarray]  # scores [..., R, M] (one table or two) -> [...] or [..., P]


class Estimate(NamedTuple):
    """A figure, its interval, and the independent runs and the games behind it; one run has no interval."""

    value: float
    low: float | None
    high: float | None
    runs: int
    games: int

    @property
    def caution(self) -> str:
        """What few runs mean for the interval; empty where there are enough.

        Example:
            >>> Estimate(0.5, 0.4, 0.6, 3, 5).caution
            '3 runs: bootstrap intervals of fewer than 10 are too short'
        """
        if self.runs == 1:
            return "1 run: nobody can say how sure that is"
        return f"{self.runs} runs: bootstrap intervals of fewer than {FEW} are too short" if self.runs < FEW else ""


class Profile(NamedTuple):
    """The share of runs above each threshold [P], with pointwise bands [P]; None where there is one run."""

    thresholds: np.ndarray
    share: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def iqm(scores: Any) -> np.ndarray:
    r"""Interquartile mean: the mean of the middle half of all R M scores.

    .. math:: \frac{1}{n - 2g} \sum_{k=g+1}^{n-g} x_{(k)}, \qquad n = R M, \quad g = \lfloor n / 4 \rfloor

    Shapes: [..., R, M] to [...]. It is `scipy.stats.trim_mean(scores, 0.25, axis=None)`: whole scores are cut off, so
    with n not divisible by 4 a little more than half is left. Less moved by outliers than the mean, and unlike the
    median not indifferent to half of the games.

    Example:
        >>> float(iqm([[0.0, 1.0], [2.0, 100.0]]))
        1.5
    """
    pooled = _pooled(scores)
    cut = pooled.shape[-1] // 4
    kept: np.ndarray = np.sort(pooled, axis=-1)[..., cut : pooled.shape[-1] - cut]
    return kept.mean(axis=-1)


def mean(scores: Any) -> np.ndarray:
    """Mean over runs and games, [..., R, M] to [...].

    Example:
        >>> float(mean([[0.0, 1.0], [2.0, 100.0]]))
        25.75
    """
    found: np.ndarray = _pooled(scores).mean(axis=-1)
    return found


def median(scores: Any) -> np.ndarray:
    """Median over games of the mean over runs, [..., R, M] to [...]: the figure that Atari papers report.

    Example:
        >>> float(median([[0.0, 1.0, 5.0], [2.0, 9.0, 5.0]]))
        5.0
    """
    found: np.ndarray = np.median(_tables(scores).mean(axis=-2), axis=-1)
    return found


def optimality_gap(scores: Any, target: float = 1.0) -> np.ndarray:
    r"""By how much runs miss a target on average, [..., R, M] to [...]: lower is better, nothing counts above it.

    .. math:: \gamma - \frac{1}{R M} \sum_{r,m} \min(x_{rm}, \gamma)

    Example:
        >>> float(optimality_gap([[0.0, 1.0], [0.5, 7.0]]))
        0.375
    """
    found: np.ndarray = target - np.minimum(_pooled(scores), target).mean(axis=-1)
    return found


def improvement(x: Any, y: Any) -> np.ndarray:
    r"""Probability that a run of X scores above a run of Y, mean over games; ties count half.

    .. math:: P(X > Y) = \frac{1}{M} \sum_m \frac{1}{R S} \sum_{r,s}
              \left( [x_{rm} > y_{sm}] + \tfrac12 [x_{rm} = y_{sm}] \right)

    Shapes: [..., R, M] and [..., S, M] to [...]. Within a game it is Mann and Whitney's U over R S. It depends on the
    order of scores within a game alone, so it needs no normalization; 0.5 means no difference. It says how often, not
    how much.

    Example:
        >>> float(improvement([[2.0], [3.0]], [[1.0], [2.0]]))
        0.875
    """
    one, other = _tables(x)[..., :, None, :], _tables(y)[..., None, :, :]
    if one.shape[-1] != other.shape[-1]:
        raise ValueError(f"x and y must be of the same games, got {one.shape[-1]} and {other.shape[-1]}")
    wins = (one > other) + 0.5 * (one == other)
    found: np.ndarray = wins.mean(axis=(-3, -2, -1))
    return found


def human_normalized(scores: Any, random: Any, human: Any) -> np.ndarray:
    r"""Scores on a scale where random play is 0 and a human 1, [..., M] with [M] and [M] to [..., M].

    .. math:: (x - x_\text{random}) / (x_\text{human} - x_\text{random})

    Raises:
        ValueError: a human no better than random play, which leaves no scale.

    Example:
        >>> human_normalized([1.0, 31.0, 16.0], 1.0, 31.0).tolist()
        [0.0, 1.0, 0.5]
    """
    low, high = np.asarray(random, dtype=float), np.asarray(human, dtype=float)
    if not (high > low).all():
        raise ValueError(f"human scores must be above random ones, got {high.tolist()} and {low.tolist()}")
    found: np.ndarray = (np.asarray(scores, dtype=float) - low) / (high - low)
    return found


def random_normalized(scores: Any, random: Any) -> np.ndarray:
    r"""Gain over random play in units of random play, [..., M] with [M] to [..., M]: where no human score is known.

    .. math:: (x - x_\text{random}) / |x_\text{random}|

    Raises:
        ValueError: random play scores 0 (Freeway, Enduro), which is no unit.

    Example:
        >>> random_normalized([148.0, 296.0], 148.0).tolist()
        [0.0, 1.0]
    """
    unit = np.asarray(random, dtype=float)
    if (unit == 0).any():
        raise ValueError(
            f"random scores must not be 0, got {unit.tolist()}; leave such games out, or use human_normalized"
        )
    found: np.ndarray = (np.asarray(scores, dtype=float) - unit) / abs(unit)
    return found


def estimate(
    statistic: Statistic,
    *tables: Any,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    paired: bool = False,
    together: int = 1,
) -> Estimate:
    r"""A statistic of scores with its stratified bootstrap interval (percentiles).

    In every resample and every game of its own, R runs are drawn with replacement from the R runs of that game.

    Args:
        statistic: Of as many tables as are given, as `iqm` or `improvement`; vectorized over leading axes.
        tables: Scores [R, M]; two for a comparison.
        generator: Draws the resamples; `np.random.default_rng(derive(seed, ...))`.
        resamples: How many, at least 100.
        level: Coverage, between 0 and 1.
        paired: Row r of all tables shares what makes it vary (a seed), and is drawn together with the others'.
        together: So many consecutive rows are repetitions of one training, and are drawn as one.

    Returns:
        Value and interval; `runs` counts what is drawn independently, in the smallest table; one has no interval.

    Raises:
        ValueError: scores that are not finite tables [R, M] of the same games, or settings out of range.

    Example:
        >>> scores = np.arange(40.0).reshape(20, 2)
        >>> found = estimate(iqm, scores, generator=np.random.default_rng(0))
        >>> found.value, found.low < 19.5 < found.high, found.runs
        (19.5, True, 20)
    """
    held = _checked(tables, resamples, level, paired, together)
    value = float(statistic(*held))
    runs = min(len(table) for table in held) // together
    if runs < 2:
        return Estimate(value, None, None, runs, held[0].shape[1])
    found = np.concatenate([statistic(*drawn) for drawn in _draws(held, generator, resamples, paired, together)])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), runs, held[0].shape[1])


def paired_difference(x: Any, y: Any, **settings: Any) -> Estimate:
    """Mean over runs and games of x - y, [R, M] both, with its interval; pairs are drawn. `settings` as of `estimate`.

    For one game and few runs `leap.metrics.statistics.difference_interval` (Student's t) is the better interval.

    Example:
        >>> x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
        >>> paired_difference(x, y, generator=np.random.default_rng(0))
        Estimate(value=1.0, low=1.0, high=1.0, runs=2, games=1)
    """
    one, other = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if one.shape != other.shape:
        raise ValueError(f"pairs need tables of one shape, got {list(one.shape)} and {list(other.shape)}")
    return estimate(mean, one - other, **settings)


def performance_profile(
    scores: Any,
    thresholds: Any,
    *,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    together: int = 1,
) -> Profile:
    r"""The share of runs that score above each threshold (run-score distribution), with pointwise bands.

    .. math:: F(\tau) = \frac{1}{R M} \sum_{r,m} [x_{rm} > \tau]

    Args:
        scores: Normalized, [R, M].
        thresholds: [P].
        generator: As in `estimate`, like `resamples`, `level`, `together`.

    Returns:
        Shares between 0 and 1, falling with the threshold. The area under F above 0 is the mean of scores cut at 0.

    Example:
        >>> found = performance_profile([[0.0, 1.0], [0.5, 2.0]], [0.0, 0.75], generator=np.random.default_rng(0))
        >>> found.share.tolist()
        [0.75, 0.5]
    """
    held = _checked([scores], resamples, level, False, together)
    at = np.asarray(thresholds, dtype=float)

    def shares(table: np.ndarray) -> np.ndarray:  # [..., R, M] -> [..., P]; one threshold at a time, to stay small
        return np.stack([(table > tau).mean(axis=(-2, -1)) for tau in at], axis=-1)

    if len(held[0]) // together < 2:
        return Profile(at, shares(held[0]), None, None)
    found = np.concatenate([shares(*drawn) for drawn in _draws(held, generator, resamples, False, together)])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Profile(at, shares(held[0]), low, high)


def _draws(
    tables: Sequence[np.ndarray], generator: np.random.Generator, resamples: int, paired: bool, together: int
) -> Iterator[list[np.ndarray]]:
    """Resampled tables [b, R, M], in chunks of b resamples."""
    chunk = max(1, CHUNK // max(table.size * (len(tables[-1]) if len(tables) > 1 else 1) for table in tables))
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        alone = tables[: 1 if paired else None]
        rows = [_rows(generator, count, len(table), table.shape[1], together) for table in alone]
        rows *= len(tables) if paired else 1
        yield [np.take_along_axis(table[None], drawn, axis=1) for table, drawn in zip(tables, rows, strict=True)]


def _rows(generator: np.random.Generator, count: int, runs: int, games: int, together: int) -> np.ndarray:
    """Rows to take, [count, R, M]: drawn with replacement, for each game of its own, so many `together`."""
    drawn = generator.integers(runs // together, size=(count, runs // together, 1, games))
    return (drawn * together + np.arange(together)[:, None]).reshape(count, runs, games)


def _checked(tables: Sequence[Any], resamples: int, level: float, paired: bool, together: int) -> list[np.ndarray]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    if resamples < 100:
        raise ValueError(f"resamples must be at least 100, got {resamples}; {RESAMPLES} is usual")
    held = [np.asarray(table, dtype=float) for table in tables]
    for table in held:
        if table.ndim != 2:
            raise ValueError(f"scores must be a table [runs, games], got shape {list(table.shape)}")
        if table.size == 0 or not np.isfinite(table).all():
            raise ValueError(
                f"scores must be finite and some, got {table.size} with {(~np.isfinite(table)).sum()} not finite"
            )
        if table.shape[1] != held[0].shape[1] or (paired and len(table) != len(held[0])):
            raise ValueError(
                f"tables do not fit each other: {list(held[0].shape)} and {list(table.shape)}, paired={paired}"
            )
        if together < 1 or len(table) % together:
            raise ValueError(f"{len(table)} runs do not divide into groups of together={together}")
    return held


def _tables(scores: Any) -> np.ndarray:
    found = np.asarray(scores, dtype=float)
    if found.ndim < 2 or found.size == 0:
        raise ValueError(f"scores must be a table [..., runs, games] and not empty, got shape {list(found.shape)}")
    return found


def _pooled(scores: Any) -> np.ndarray:
    found = _tables(scores)
    return found.reshape(*found.shape[:-2], -1)
