"""How one matrix of pairs of tasks relates to another: everything that a report needs, as one JSON-ready mapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from leap.metrics.correlation import kendall_tau_b, pearson, rank_correlation, unbounded
from leap.metrics.pairs import (
    direction_agreement,
    matrix,
    nearest,
    off_diagonal,
    self_consistency,
    symmetric_part,
    within_targets,
)
from leap.metrics.rank_rows import over_seeds
from leap.metrics.selection import selection
from leap.metrics.statistics import Alternative, bootstrap_interval, mantel, mean_interval

if TYPE_CHECKING:
    import torch

Statistic = Callable[[np.ndarray, np.ndarray], float | None]

# Whether larger means farther, slower or worse (1), or nearer and better (-1).
SIGNS = {"distance": 1, "outcome": 1, "similarity": -1}


def expected(x_kind: str, y_kind: str) -> Alternative:
    """On which side a relation is expected: distances grow with epochs and errors, similarities fall with them.

    Example:
        >>> expected("distance", "outcome"), expected("similarity", "outcome")
        ('greater', 'less')
    """
    for kind in (x_kind, y_kind):
        if kind not in SIGNS:
            raise ValueError(f"a matrix is of kind {', '.join(SIGNS)}, got {kind!r}")
    return "greater" if SIGNS[x_kind] == SIGNS[y_kind] else "less"


def relation(
    x: Any,
    y: Any,
    *,
    generator: torch.Generator,
    x_censored: Any = None,
    y_censored: Any = None,
    alternative: Alternative = "greater",
    permutations: int = 2000,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Any]:
    r"""All that two matrices `M[target, source]` say about each other.

    The figures are those of the means over seeds:

    .. math:: \rho(\bar x, \bar y), \quad \bar x = \tfrac1S \sum_s x_s

    Args:
        x: [S, T, T] or [T, T], what predicts, NaN or None where missing; the diagonal is not looked at.
        y: The same of what is predicted, as many seeds, or one of the two a single matrix.
        generator: Draws relabellings and resamples.
        x_censored, y_censored: Booleans [S, T, T] or [T, T]: the value is only a lower limit. Such values are tied at
            the top of the ranks, and a matrix that has any is summed up over seeds by the median, which they leave
            alone while fewer than half are cut off.
        alternative: The side of the Mantel test; `expected` gives it.
        permutations: Relabellings of the Mantel test.
        resamples: Draws of the intervals over tasks.
        level: Coverage of the intervals.

    Returns:
        A mapping of numbers, lists and None (where something does not exist):

        - `tasks`, `seeds`, `pairs`, `censored_pairs`, `alternative`, `permutations`, `resamples`, `level`
        - `pooled`: `spearman`, `kendall`, `pearson` (None beside censored values), `tasks` [low, high] over resampled
          tasks, `by_seed` and `seeds` [low, high], Student's interval over seeds
        - `within`: `spearman` (mean over targets), `by_target`, `count` of targets that have one, `tasks`, `by_seed`,
          `seeds`
        - `symmetric`: `spearman` of the symmetric parts, `pairs`, `mantel_p`, `tasks`
        - `direction`: `agree` of `pairs`: the larger of two directions is the same in both
        - `nearest`: `agree` of `targets`: the source with the smallest x (largest, if `alternative` is less) is one
          with the smallest y
        - `mantel_p` of the pooled correlation
        - `ceiling`: `pooled` and `within` Spearman between single seeds of y, None for one seed
        - `selection`: what `leap.metrics.selection.selection` says of x as a guide to the source with the smallest y, x
          a similarity if `alternative` is less and a distance otherwise. There, other than above, all correlations of
          an x that predicts as it should are positive

    Raises:
        ValueError: shapes that do not fit, too few pairs, or a matrix with one value everywhere.

    Example:
        >>> from leap.randomness import generator
        >>> x = [[0, 1, 2, 3], [2, 0, 4, 5], [3, 5, 0, 7], [4, 6, 8, 0]]
        >>> found = relation(x, x, generator=generator(0), permutations=20, resamples=100)
        >>> found["pooled"]["spearman"], found["within"]["spearman"], found["direction"]
        (1.0, 1.0, {'agree': 6, 'pairs': 6})
        >>> found["selection"]["top1"]["hits"], found["selection"]["top1"]["targets"], found["nearest"]
        (4.0, 4, {'agree': 4, 'targets': 4})

    Reference: the relation of distance to fine-tuning time of Achille et al. 2019, https://arxiv.org/abs/1904.03292,
    who show a scatter. Here a correlation never comes without its null: relabelled tasks for all pairs, and the mean
    within targets, in which the hardness of a target counts for nothing. Intervals over tasks are bootstrap
    percentiles (pairs of a task with its own copy left out); those over seeds are Student's, since resampling three
    seeds has ten outcomes.
    """
    xs, ys = _stack(x, x_censored, "x"), _stack(y, y_censored, "y")
    if xs.shape[1:] != ys.shape[1:]:
        raise ValueError(f"x and y must be of the same tasks, got {xs.shape[1]} and {ys.shape[1]} tasks")
    both = _Both(over_seeds(xs), over_seeds(ys), _alone(xs, ys), generator, alternative, permutations, resamples, level)
    one, two = off_diagonal(both.a, both.b)
    signed = -both.a if alternative == "less" else both.a
    return {
        "tasks": len(both.a),
        "seeds": max(len(xs), len(ys)),
        "pairs": len(one),
        "censored_pairs": int((np.isinf(one) | np.isinf(two)).sum()),
        "alternative": alternative,
        "permutations": permutations,
        "resamples": resamples,
        "level": level,
        **both.pooled(),
        "within": both.within(),
        "symmetric": both.symmetric(),
        "direction": dict(zip(("agree", "pairs"), direction_agreement(signed, both.b), strict=True)),
        "nearest": _nearest(signed, both.b),
        "ceiling": dict(zip(("pooled", "within"), self_consistency(ys), strict=True)),
        "selection": both.selection(xs, ys),
    }


class _Both(NamedTuple):
    """Two matrices summed up over seeds, every seed's own, and how chance is drawn."""

    a: np.ndarray
    b: np.ndarray
    alone: list[tuple[np.ndarray, np.ndarray]]
    generator: torch.Generator
    alternative: Alternative
    permutations: int
    resamples: int
    level: float

    def pooled(self) -> dict[str, Any]:
        test = mantel(self.a, self.b, **self._drawn())
        one, two = off_diagonal(self.a, self.b)
        finite = bool(np.isfinite(one).all() and np.isfinite(two).all())
        found = {
            "spearman": test.correlation,
            "kendall": kendall_tau_b(one, two),
            "pearson": pearson(one, two) if finite else None,
            **self._intervals(_pooled),
        }
        return {"pooled": found, "mantel_p": test.p_value}

    def within(self) -> dict[str, Any]:
        mean, rows = within_targets(self.a, self.b)
        count = sum(row is not None for row in rows)
        return {"spearman": mean, "by_target": rows, "count": count, **self._intervals(_within)}

    def symmetric(self) -> dict[str, Any]:
        a, b = symmetric_part(self.a), symmetric_part(self.b)
        pairs, value = len(off_diagonal(a, b)[0]) // 2, _pooled(a, b)
        p_value = None if value is None else mantel(a, b, **self._drawn()).p_value
        parts = self._replace(a=a, b=b)
        return {"spearman": value, "pairs": pairs, "mantel_p": p_value, "tasks": parts._over_tasks(_pooled)}

    def selection(self, xs: np.ndarray, ys: np.ndarray) -> dict[str, Any]:
        return selection(
            xs,
            ys,
            kind="similarity" if self.alternative == "less" else "distance",
            generator=self.generator,
            same_tasks=True,
            resamples=self.resamples,
            level=self.level,
        )

    def _drawn(self) -> dict[str, Any]:
        return {"permutations": self.permutations, "generator": self.generator, "alternative": self.alternative}

    def _intervals(self, statistic: Statistic) -> dict[str, Any]:
        by_seed = [statistic(a, b) for a, b in self.alone]
        return {"tasks": self._over_tasks(statistic), "by_seed": by_seed, "seeds": self._student(by_seed)}

    def _over_tasks(self, statistic: Statistic) -> list[float] | None:
        def of(index: np.ndarray) -> float | None:
            chosen = np.ix_(index, index)  # the diagonal is NaN, so pairs of a task with its copy are
            return statistic(self.a[chosen], self.b[chosen])

        ends = bootstrap_interval(of, len(self.a), resamples=self.resamples, generator=self.generator, level=self.level)
        return None if ends is None else list(ends)

    def _student(self, by_seed: list[float | None]) -> list[float] | None:
        values = [value for value in by_seed if value is not None]
        held = mean_interval(values, self.level) if len(values) == len(by_seed) else None
        if held is None or held.low is None or held.high is None:
            return None
        return [max(-1.0, held.low), min(1.0, held.high)]


def _pooled(a: np.ndarray, b: np.ndarray) -> float | None:
    found = rank_correlation(*off_diagonal(a, b))
    return None if np.isnan(found) else found


def _within(a: np.ndarray, b: np.ndarray) -> float | None:
    return within_targets(a, b)[0]


def _nearest(a: np.ndarray, b: np.ndarray) -> dict[str, int]:
    """For how many targets the source that `a` picks is one of the best, over the sources that both have."""
    held = np.where(np.isnan(a) | np.isnan(b), np.nan, 0.0)
    picked = [(row, column) for row, column in enumerate(nearest(a + held)) if column is not None]
    agree = sum(bool(b[row, column] == np.nanmin((b + held)[row])) for row, column in picked)
    return {"agree": agree, "targets": len(picked)}


def _stack(values: Any, censored: Any, name: str) -> np.ndarray:
    """[S, T, T] with infinity where cut off and NaN where missing and on the diagonal."""
    held = unbounded(values, censored)
    held = held[None] if held.ndim == 2 else held
    if held.ndim != 3 or len(held) == 0:
        raise ValueError(f"{name} must be [S, T, T], a matrix a seed, or [T, T], got shape {held.shape}")
    return np.stack([matrix(one, name) for one in held])


def _alone(xs: np.ndarray, ys: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """A pair of matrices a seed; what has one matrix only goes with every seed of the other."""
    if len(xs) != len(ys) and 1 not in (len(xs), len(ys)):
        raise ValueError(f"x and y must have as many seeds, or one of them a single one, got {len(xs)} and {len(ys)}")
    count = max(len(xs), len(ys))
    return [(xs[seed % len(xs)], ys[seed % len(ys)]) for seed in range(count)]
