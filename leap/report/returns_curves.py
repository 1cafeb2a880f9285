r"""Learning curves of games: a moving average over episodes, its area, its band and how far walks lie apart.

A walk is one game learned from one initialization with one seed; it left episodes, each with the agent step at its end
and its unclipped score. Its learning curve is a moving average over episodes,

.. math:: m_k = \frac{1}{\min(k, W)} \sum_{i = \max(1, k - W + 1)}^{k} x_i, \qquad W = 500,

held from the end of episode k to the end of the next, as in `Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_
(figure 4: ten seeds, bands of two standard deviations). The paper does not say what its average is before the 500th
episode; here it is over all so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leap.metrics.statistics import Interval

WINDOW = 500  # episodes of the moving average, as in the paper
POINTS = 160  # of a learning curve
SPREAD_SEEDS = 5  # a ratio of two deviations of fewer can be anything
SPREAD_RESAMPLES = 1000


def moving_average(scores: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """The mean of the last `window` scores, or of all so far where there are fewer, [N] to [N].

    Example:
        >>> moving_average(np.array([1.0, 3.0, 5.0, 7.0]), window=2).tolist()
        [1.0, 2.0, 4.0, 6.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    ends = np.arange(1, len(scores) + 1)
    starts = np.maximum(ends - window, 0)
    found: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return found


def level(episodes: np.ndarray, at: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """The learning curve of episodes [N, 3] at agent steps [P]; NaN until the first episode has ended."""
    average = np.concatenate([[np.nan], moving_average(episodes[:, 1], window)])
    found: np.ndarray = average[np.searchsorted(episodes[:, 0], at, side="right")]
    return found


def area(episodes: np.ndarray, budget: float, window: int = WINDOW) -> float:
    r"""Mean height of the learning curve over a budget of agent steps; NaN where no episode ended.

    .. math:: \frac{1}{B} \Big( m_1 a_1 + \sum_{k=1}^{N} m_k (a_{k+1} - a_k) \Big), \qquad a_{N+1} = B

    Episode k ends at agent step a_k. Until the first has ended, the curve is taken to stand at its score.

    Example:
        >>> area(np.array([[10.0, 2.0, 10.0], [30.0, 6.0, 20.0]]), 40)
        2.5
    """
    if len(episodes) == 0:
        return float("nan")
    edges = np.minimum(np.concatenate([[0.0], episodes[1:, 0], [budget]]), budget)
    return float(moving_average(episodes[:, 1], window) @ np.diff(edges) / budget)


@dataclass(frozen=True)
class Band:
    """A learning curve over walks, all [P]: agent steps, mean, standard deviation; NaN until each ended an episode."""

    steps: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def band(steps: np.ndarray, curves: np.ndarray) -> Band | None:
    """The band of learning curves [R, P]; None where there is no walk, or one that ended no episode.

    The deviation is that of a sample (R - 1 below the line), NaN for one walk.
    """
    if len(curves) == 0 or np.isnan(curves[:, -1]).any():
        return None
    deviation = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.full(len(steps), np.nan)
    return Band(steps, curves.mean(axis=0), deviation)


def spread(curves: np.ndarray) -> np.ndarray:
    r"""How far walks lie apart, [..., R, P] to [...]: what half of a band of one standard deviation measures.

    .. math:: \frac{1}{P} \sum_p \sqrt{\frac{1}{R - 1} \sum_r (m_{rp} - \bar m_p)^2}

    A mean over agent steps of the deviation between walks at the same step: what all walks share, their rise, does not
    enter. In the unit of the score.

    Example:
        >>> float(spread(np.array([[0.0, 0.0], [2.0, 4.0]])).__round__(6))  # sqrt(2) and 2 sqrt(2)
        2.12132
    """
    found: np.ndarray = curves.std(axis=-2, ddof=1).mean(axis=-1)
    return found


def spread_ratio(mine: np.ndarray, others: np.ndarray, together: int, stream: np.random.Generator) -> Interval:
    """The spread of curves [R, P] over that of others, with its percentile interval.

    Args:
        mine: Curves without NaN.
        others: The same walks from elsewhere, row by row; their spread is not 0.
        together: So many consecutive rows are repetitions of one training, and are drawn as one.
        stream: Draws rows, of both alike.

    Returns:
        Without `low` and `high` where fewer than SPREAD_SEEDS are independent.
    """
    value, count = float(spread(mine) / spread(others)), len(mine) // together
    if count < SPREAD_SEEDS:
        return Interval(value, None, None, count)
    drawn = stream.integers(count, size=(SPREAD_RESAMPLES, count, 1)) * together + np.arange(together)
    rows = drawn.reshape(SPREAD_RESAMPLES, -1)
    thin = slice(None, None, -(-mine.shape[1] // 40))  # neighbouring points say the same, and cost memory
    one, other = spread(mine[rows, thin]), spread(others[rows, thin])
    low, high = np.quantile(one[other > 0] / other[other > 0], [0.025, 0.975])
    return Interval(value, float(low), float(high), count)
