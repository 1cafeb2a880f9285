"""Which source to start from: how well a score orders the candidates of each target, and what following it costs."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from leap.metrics.correlation import LEAST
from leap.metrics.rank_rows import (
    Draws,
    Repetitions,
    compare,
    correlations,
    draws,
    interval,
    number,
    repetitions,
)

if TYPE_CHECKING:
    import torch

Kind = Literal["distance", "similarity"]

CORRELATED = ("spearman", "kendall", "weighted_tau")
TOPS = {"top1": 1, "top3": 3}
# Between what each figure can lie.
RANGES = dict.fromkeys(CORRELATED, (-1.0, 1.0)) | dict.fromkeys(TOPS, (0.0, 1.0)) | {"regret": (0.0, np.inf)}


def selection(
    scores: Any,
    outcomes: Any,
    *,
    kind: Kind,
    generator: torch.Generator,
    outcomes_censored: Any = None,
    same_tasks: bool | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Any]:
    r"""How well a score tells, target by target, which of several candidates ends best.

    For target t with scores :math:`a_t` (turned so that larger is better) and outcomes :math:`y_t` over its candidates

    .. math:: \bar\rho = \frac1{|T|} \sum_t \rho(a_t, -y_t), \qquad
              \text{regret} = \frac1{|T|} \sum_t \bigl( y_{t, \hat c(t)} - \min_c y_{tc} \bigr),
              \quad \hat c(t) = \arg\max_c a_{tc}

    Positive correlations mean that the score predicts as it should, whatever its kind.

    Args:
        scores: [S, T, C] or [T, C], rows targets, columns candidates, in any unit; NaN or None where missing.
        outcomes: The same of what was measured, smaller is better (errors, epochs, area under the curve); as many
            seeds, of which the i-th belongs to the i-th of the scores, or one of the two a single array. Infinity is
            allowed and counts as cut off.
        kind: `similarity`: a larger score promises a better outcome; `distance`: a smaller one does.
        generator: Draws tasks and seeds.
        outcomes_censored: Booleans of the outcomes' shape: the value is only a lower limit. Such values are tied as
            the worst, and seeds are then summed up by the median instead of the mean. A missing value stays missing.
        same_tasks: Whether candidate i is target i. Then no task is its own candidate, and a draw takes tasks as
            targets and candidates together. None: yes if the matrix is square and nothing stands on the diagonal of
            the scores, or of the outcomes.
        resamples: Draws of the intervals, at least 100.
        level: Coverage of the intervals.

    Returns:
        A mapping of numbers, lists and None (where something does not exist), of the means over seeds; a target counts
        with 3 common candidates or more:

        - `kind`, `targets`, `candidates`, `seeds`, `same_tasks`, `resamples`, `level`
        - `spearman`, `kendall` (tau-b), `weighted_tau` (exchanges near the best score and the best outcome weigh more):
          `mean` over targets, `by_target`, `count` of targets that have one, `interval` [low, high]. A row with one
          value everywhere has none
        - `top1`, `top3`: in how many targets the best candidate, or one of equally good ones, is among the 1 or 3 that
          score best: `hits` of `targets` (those in which outcomes differ), `rate`, `chance`, the rate of a pick by lot,
          `interval`. Equal scores are ordered by lot and count with the probability of a hit, so `hits` need not be
          whole, and a constant score has the rate of chance
        - `regret`: how much worse the picked candidate is than the best, in the outcome's unit: `mean`, `by_target`,
          `count`, `interval`; equal best scores count with their mean. None where the pick, or all, were cut off, so
          the mean is of the other targets
        - `ceiling`: of the same six figures the means (rates) when the outcomes of one seed predict those of another,
          None for one seed

    Raises:
        ValueError: an unknown kind, shapes that do not fit, a level outside (0, 1), fewer than 100 resamples.

    Example:
        >>> from leap.randomness import generator
        >>> error = [[1, 2, 3, 4], [4, 3, 2, 1], [2, 1, 3, 4]]
        >>> distance = [[1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 3, 4]]
        >>> found = selection(distance, error, kind="distance", generator=generator(0))
        >>> [round(value, 6) for value in found["spearman"]["by_target"]], found["regret"]["by_target"]
        ([1.0, 1.0, 0.8], [0.0, 0.0, 1.0])
        >>> found["top1"]["hits"], found["top1"]["targets"], found["top1"]["chance"]
        (2.0, 3, 0.25)

    Reference: the setting and the weighted tau are those of You et al. 2021 (LogME), https://arxiv.org/abs/2102.11005;
    Vigna 2015, https://arxiv.org/abs/1404.3325. Intervals are bootstrap percentiles over tasks and seeds together, less
    what the noise of repeated seeds does (`rank_rows.interval`); pairs of a task and its own copy are left out, and
    where candidates are drawn as well, intervals of correlations are rather too wide. Hits and regret are of the
    candidates there are: for them a draw takes targets only, since a draw of candidates holds fewer different ones,
    among which the best is easier to find. With few targets a rate of 0 or 1 may have an interval without width, which
    is no certainty. The ceiling compares single seeds: what one more run of the experiment would predict. A score that
    stands there is as good as a run; one that knew the noise-free outcome could stand above.
    """
    held = repetitions(scores, outcomes, outcomes_censored, kind, axes="T, C")
    held, same = _tasks(held, same_tasks)
    _, targets, candidates = held.scores.shape
    drawn = draws(targets, held.seeds, resamples, generator, level)
    found, chance = _figures(*held.summed())
    intervals = _intervals(held, drawn, same, level, {name: _mean_of(values) for name, values in found.items()})
    return {
        "kind": kind,
        "targets": targets,
        "candidates": candidates,
        "seeds": held.seeds,
        "same_tasks": same,
        "resamples": resamples,
        "level": level,
        **{name: _by_target(found[name], intervals[name]) for name in CORRELATED},
        **{name: _rate(found[name], chance[name], intervals[name]) for name in TOPS},
        "regret": _by_target(found["regret"], intervals["regret"]),
        "ceiling": _ceiling(held.outcomes),
    }


def _tasks(held: Repetitions, same: bool | None) -> tuple[Repetitions, bool]:
    """Without the diagonal, if candidates are the targets."""
    _, targets, candidates = held.scores.shape
    if same and targets != candidates:
        raise ValueError(f"same_tasks needs as many candidates as targets, got {candidates} and {targets}")
    if same is None:
        own = range(min(targets, candidates))
        same = targets == candidates and any(bool(np.isnan(m[:, own, own]).all()) for m in held)
    if not same:
        return held, False
    diagonal = np.eye(targets, dtype=bool)
    return Repetitions(*(np.where(diagonal, np.nan, m) for m in held)), True


def _figures(scores: np.ndarray, outcomes: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All six figures of every target, [T], NaN where they do not exist, and the hits of a pick by lot."""
    every = np.ones((1, scores.shape[1]), dtype=np.intp)
    found = {name: values[0] for name, values in correlations(compare(scores, -outcomes), every).items()}
    picked, chance = _picks(scores, outcomes)
    return found | picked, chance


def _picks(scores: np.ndarray, outcomes: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Probabilities of a hit and regret of every target, [T], and the probabilities of a pick by lot."""
    held = ~np.isnan(scores) & ~np.isnan(outcomes)
    a, y = np.where(held, scores, np.nan), np.where(held, outcomes, np.inf)
    least, most = y.min(axis=1), np.where(held, y, -np.inf).max(axis=1)
    counts = (held.sum(axis=1) >= LEAST) & (most > least)
    best = held & (y == least[:, None])
    above = (a[:, None, :] > a[:, :, None]).sum(axis=2)  # [T, C], candidates that score better
    reach = above + (a[:, None, :] == a[:, :, None]).sum(axis=2)  # and those that score as much, itself among them
    found = {name: _hit(held, best, above, reach, size) for name, size in TOPS.items()}
    chance = {name: _lot(size, best.sum(axis=1), held.sum(axis=1)) for name, size in TOPS.items()}
    picked = held & (above == 0)
    with np.errstate(invalid="ignore"):  # infinity less infinity: unknown
        mean = np.where(picked, y, 0.0).sum(axis=1) / np.maximum(picked.sum(axis=1), 1)
        regret = mean - least
    found["regret"] = np.where(np.isfinite(regret), regret, np.nan)
    found, chance = ({name: np.where(counts, m, np.nan) for name, m in one.items()} for one in (found, chance))
    return found, chance


def _hit(held: np.ndarray, best: np.ndarray, above: np.ndarray, reach: np.ndarray, size: int) -> np.ndarray:
    """The probability that one of the best is among the `size` first by score, equal ones ordered by lot."""
    surely = (best & (reach <= size)).any(axis=1)
    tied = held & (above < size) & (reach > size)  # one group a row at most: those that compete for the last places
    places = size - np.where(tied, above, 0).max(axis=1)
    by_lot = _lot(places, (tied & best).sum(axis=1), tied.sum(axis=1))
    return np.where(surely, 1.0, np.where(tied.any(axis=1), by_lot, 0.0))


def _lot(places: np.ndarray | int, good: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The probability that `places` draws without replacement from `among` things take one of the `good` ones."""
    miss = np.ones(len(among))
    for drawn in range(max(TOPS.values())):
        left = np.maximum(among - good - drawn, 0) / np.maximum(among - drawn, 1)
        miss = np.where(drawn < np.asarray(places), miss * left, miss)
    return 1 - miss


def _intervals(
    held: Repetitions, drawn: Draws, same: bool, level: float, means: dict[str, float | None]
) -> dict[str, list[float] | None]:
    if drawn.counts.shape[1] < 2:
        return dict.fromkeys(means)
    found, undrawn = ({name: np.full(len(drawn.counts), np.nan) for name in means} for _ in range(2))
    for seeds, which in drawn.groups:
        scores, outcomes = held.of(seeds)
        figures, _ = _figures(scores, outcomes)
        values = {name: figure[None] for name, figure in figures.items()}
        if same:
            values |= correlations(compare(scores, -outcomes), drawn.counts[which])
        for name, figure in figures.items():
            mean = _mean_of(figure)
            undrawn[name][which] = np.nan if mean is None else mean
            found[name][which] = _mean(values[name], drawn.counts[which])
    return {
        name: interval(drawn, found[name], undrawn[name], means[name], level, bounds) for name, bounds in RANGES.items()
    }


def _mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means over targets, each as often as it was drawn, of those that have a value; NaN without any, [R]."""
    there = ~np.isnan(values) * counts
    total = there.sum(axis=1)
    return np.where(total > 0, (np.nan_to_num(values) * there).sum(axis=1) / np.maximum(total, 1), np.nan)


def _mean_of(values: np.ndarray) -> float | None:
    held = values[~np.isnan(values)]
    return float(held.mean()) if len(held) else None


def _by_target(values: np.ndarray, ends: list[float] | None) -> dict[str, Any]:
    rows = [number(value) for value in values]
    count = sum(row is not None for row in rows)
    return {"mean": _mean_of(values), "by_target": rows, "count": count, "interval": ends}


def _rate(values: np.ndarray, chance: np.ndarray, ends: list[float] | None) -> dict[str, Any]:
    held = values[~np.isnan(values)]
    return {
        "hits": float(held.sum()),
        "targets": len(held),
        "rate": _mean_of(values),
        "chance": _mean_of(chance),
        "interval": ends,
    }


def _ceiling(outcomes: np.ndarray) -> dict[str, float | None] | None:
    """The figures of every ordered pair of seeds, one as a distance and the other as what is predicted; their means."""
    if len(outcomes) < 2:
        return None
    found = [_figures(-one, two)[0] for one, two in permutations(outcomes, 2)]
    means = {name: [_mean_of(figures[name]) for figures in found] for name in found[0]}
    return {name: _mean_of(np.array(values, dtype=np.float64)) for name, values in means.items()}
