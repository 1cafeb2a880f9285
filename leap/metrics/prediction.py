"""What one initialization will do on a task: how well a score of its features orders many tasks before any training."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.metrics.correlation import ranks, spearman
from leap.metrics.rank_rows import Draws, Repetitions, compare, correlations, draws, interval, number, repetitions
from leap.metrics.selection import CORRELATED, RANGES, Kind

if TYPE_CHECKING:
    import torch

FEWEST = 4  # tasks; three have six orders, of which one is right by chance


def prediction(
    scores: Any,
    outcomes: Any,
    *,
    kind: Kind,
    generator: torch.Generator,
    outcomes_censored: Any = None,
    permutations: int = 2000,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Any]:
    r"""How well a score of one initialization tells on which of many tasks it ends better.

    With scores a (turned so that larger is better) and outcomes y over tasks, each summed up over seeds,

    .. math:: \rho(a, -y), \qquad p = \frac{1 + \#\{\pi : \rho(a_\pi, -y) \ge \rho(a, -y)\}}{1 + P}

    Positive figures mean that the score predicts as it should, whatever its kind.

    Args:
        scores: [S, T] or [T], a number a task, in any unit; NaN or None where missing.
        outcomes: The same of what was measured, smaller is better (errors, steps, area under the curve); as many
            seeds, of which the i-th belongs to the i-th of the scores, or one of the two a single list. Infinity is
            allowed and counts as cut off.
        kind: `similarity`: a larger score promises a better outcome; `distance`: a smaller one does.
        generator: Draws tasks, seeds and permutations.
        outcomes_censored: Booleans of the outcomes' shape: the value is only a lower limit. Such values are tied as
            the worst, and seeds are then summed up by the median instead of the mean. A missing value stays missing.
        permutations: P, at least 1; the p-value is at least 1 / (P + 1).
        resamples: Draws of the intervals over tasks and seeds, at least 100.
        level: Coverage of the intervals.

    Returns:
        A mapping of numbers, lists and None (where something does not exist):

        - `kind`, `tasks` (that have both), `seeds`, `censored` (tasks cut off), `permutations`, `resamples`, `level`
        - `spearman`, `kendall` (tau-b), `weighted_tau` (exchanges near the best score and the best outcome weigh more):
          `value` and `interval` [low, high]
        - `p_value` of the Spearman correlation, on the side of a score that predicts as it should
        - `by_seed`: the Spearman correlation of each seed
        - `ceiling`: of the three figures the means over pairs of seeds of the outcomes, None for one seed

    Raises:
        ValueError: an unknown kind, shapes that do not fit, fewer than 4 tasks that have both, scores or outcomes with
            one value everywhere, no permutation, a level outside (0, 1), fewer than 100 resamples.

    Example:
        >>> from leap.randomness import generator
        >>> found = prediction([5, 4, 3, 2, 1], [10, 20, 30, 50, 40], kind="similarity", generator=generator(0))
        >>> round(found["spearman"]["value"], 6), round(found["kendall"]["value"], 6), found["ceiling"]
        (0.9, 0.8, None)

    Reference: permutation tests as in Good 2005, https://doi.org/10.1007/b138696; the bootstrap of Efron 1979,
    https://doi.org/10.1214/aos/1176344552. Tasks are permuted, not pairs of seeds and tasks, since the seeds of a task
    are not independent. Intervals are bootstrap percentiles over tasks and seeds together, less what the noise of
    repeated seeds does (`rank_rows.interval`). Tasks with different numbers of classes have scores on different scales,
    which is for the caller to undo before (Ibrahim et al. 2021, https://arxiv.org/abs/2110.06893). How hard a task is
    may alone explain what is found here, so a baseline belongs beside it. The ceiling compares single seeds, as that of
    `leap.metrics.selection.selection`.
    """
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}; 2000 is usual")
    held = repetitions(scores, outcomes, outcomes_censored, kind, axes="T")
    held = Repetitions(*(m[:, None, :] for m in held))  # one row, whose candidates are the tasks
    held = _common(held, kind)
    a, y = (m[0] for m in held.summed())
    drawn = draws(held.scores.shape[2], held.seeds, resamples, generator, level)
    values = _row(*held.summed())
    intervals = _intervals(held, drawn, level, values)
    return {
        "kind": kind,
        "tasks": len(a),
        "seeds": held.seeds,
        "censored": int(np.isinf(y).sum()),
        "permutations": permutations,
        "resamples": resamples,
        "level": level,
        **{name: {"value": values[name], "interval": intervals[name]} for name in CORRELATED},
        "p_value": _p_value(a, -y, permutations, generator),
        "by_seed": [_row(*held.of(np.array([seed])))["spearman"] for seed in range(held.seeds)],
        "ceiling": _ceiling(held.outcomes),
    }


def _common(held: Repetitions, kind: Kind) -> Repetitions:
    """The tasks that have both, once it is known that a correlation exists."""
    a, y = (m[0] for m in held.summed())
    both = ~np.isnan(a) & ~np.isnan(y)
    if both.sum() < FEWEST:
        raise ValueError(f"a prediction needs at least {FEWEST} tasks with a score and an outcome, got {both.sum()}")
    spearman((a if kind == "similarity" else -a)[both], y[both])  # raises for one value everywhere, and names it
    return Repetitions(*(m[..., both] for m in held))


def _row(scores: np.ndarray, outcomes: np.ndarray) -> dict[str, float | None]:
    """The figures of one row [1, T]."""
    every = np.ones((1, scores.shape[1]), dtype=np.intp)
    found = correlations(compare(scores, -outcomes), every)
    return {name: number(values[0, 0]) for name, values in found.items()}


def _intervals(
    held: Repetitions, drawn: Draws, level: float, own: dict[str, float | None]
) -> dict[str, list[float] | None]:
    found, undrawn = ({name: np.full(len(drawn.counts), np.nan) for name in own} for _ in range(2))
    every = np.ones((1, drawn.counts.shape[1]), dtype=np.intp)
    for seeds, which in drawn.groups:
        scores, outcomes = held.of(seeds)
        both = correlations(compare(scores, -outcomes), np.concatenate([every, drawn.counts[which]]))
        for name, values in both.items():
            undrawn[name][which], found[name][which] = values[0, 0], values[1:, 0]
    return {name: interval(drawn, found[name], undrawn[name], own[name], level, RANGES[name]) for name in own}


def _p_value(a: np.ndarray, b: np.ndarray, permutations: int, generator: torch.Generator) -> float:
    """How often tasks in another order go together as much; every order has the same ranks: one product is left."""
    import torch

    orders = np.stack([torch.randperm(len(a), generator=generator).numpy() for _ in range(permutations)])
    x, y = (2 * ranks(values) - len(values) - 1 for values in (a, b))
    reached = x[orders] @ y >= x @ y  # whole numbers, so equal ones are equal
    return float((1 + reached.sum()) / (1 + permutations))


def _ceiling(outcomes: np.ndarray) -> dict[str, float | None] | None:
    if len(outcomes) < 2:
        return None
    found = [_row(-one, two) for one, two in combinations(outcomes, 2)]  # all three figures are symmetric
    held = {name: [value for row in found if (value := row[name]) is not None] for name in CORRELATED}
    return {name: float(np.mean(values)) if values else None for name, values in held.items()}
