"""Matrices of pairs of tasks `M[target, source]`: what of two of them agrees, over all pairs and target by target.

A missing pair is NaN. The diagonal, a task and itself, never counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from leap.metrics.correlation import LEAST, array, rank_correlation


def matrix(values: Any, name: str = "matrix") -> np.ndarray:
    """A square matrix of tasks as float64 with NaN on its diagonal; raises ValueError where it is none."""
    held = array(values).copy()
    if held.ndim != 2 or held.shape[0] != held.shape[1] or len(held) < 2:
        raise ValueError(f"{name} must be [T, T] with at least two tasks, rows targets, got shape {held.shape}")
    np.fill_diagonal(held, np.nan)
    return held


def off_diagonal(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of different tasks that both matrices have, as two lists, in both directions.

    Example:
        >>> off_diagonal([[0, 1], [2, 0]], [[0, 5], [float("nan"), 0]])
        (array([1.]), array([5.]))
    """
    one, two = _two(a, b)
    held = ~np.isnan(one) & ~np.isnan(two)
    return one[held], two[held]


def pooled_spearman(a: Any, b: Any) -> float:
    """Spearman's correlation over all ordered pairs; it mixes which targets are hard with which sources are near.

    Args:
        a: [T, T], rows targets, NaN where missing.
        b: The same of another quantity.

    Returns:
        -1 to 1; NaN is never returned.

    Raises:
        ValueError: matrices of different or wrong shape, fewer than 3 common pairs, or all pairs equal.

    Example:
        >>> a = [[0, 1, 2], [3, 0, 4], [5, 6, 0]]
        >>> pooled_spearman(a, a)
        1.0
    """
    x, y = off_diagonal(a, b)
    found = rank_correlation(x, y)
    if np.isnan(found):
        raise ValueError(f"no correlation over {len(x)} common pairs: it needs three and more than one value in each")
    return found


def within_targets(a: Any, b: Any) -> tuple[float | None, list[float | None]]:
    r"""Mean over targets of the rank correlation over their sources: does the one tell which source is best?

    .. math:: \bar\rho = \frac1{|T'|} \sum_{t \in T'} \rho(a_{t,\cdot}, b_{t,\cdot})

    What depends on the target alone, such as how hard it is, gets nothing here.

    Args:
        a: [T, T], rows targets, NaN where missing.
        b: The same of another quantity.

    Returns:
        The mean over the targets that have a value, and every target's; None for a target with fewer than 3 common
        sources or with one value everywhere, and for the mean where no target has one.

    Raises:
        ValueError: matrices of different or wrong shape.

    Example:
        >>> a = [[0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3], [7, 7, 7, 0]]
        >>> mean, by_target = within_targets(a, a)
        >>> f"{mean:.2f}", by_target[3]
        ('1.00', None)
    """
    one, two = _two(a, b)
    held = ~np.isnan(one) & ~np.isnan(two)
    x, y = (_centred_ranks(np.where(held, m, np.nan)) for m in (one, two))
    size = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    exists = (held.sum(axis=1) >= LEAST) & (size > 0)
    found = np.clip((x * y).sum(axis=1) / np.where(exists, size, 1.0), -1.0, 1.0)
    rows = [float(value) if there else None for value, there in zip(found, exists, strict=True)]
    return _mean(rows), rows


def symmetric_part(m: Any) -> np.ndarray:
    """`(M + M^T) / 2`, NaN where a direction is missing and on the diagonal: the part that measures similarity."""
    held = matrix(m)
    return (held + held.T) / 2


def antisymmetric_part(m: Any) -> np.ndarray:
    """`(M - M^T) / 2`, NaN where a direction is missing and on the diagonal."""
    held = matrix(m)
    with np.errstate(invalid="ignore"):  # two unbounded directions have no known difference: NaN, missing
        return np.asarray((held - held.T) / 2)


def antisymmetry_residual(m: Any) -> float:
    r"""How far the asymmetry of a matrix is from a difference of one number a task.

    .. math:: \max_{t \neq s} \bigl| M_{ts} - M_{st} - (c_t - c_s) \bigr|, \quad
              c = \arg\min_c \sum_{t \neq s} \bigl( M_{ts} - M_{st} - (c_t - c_s) \bigr)^2

    Reachability has `R(t | s) - R(s | t) = C(t) - C(s)`, so it leaves nothing here but round-off, and then its
    asymmetry tells how complex tasks are and nothing about pairs.

    Args:
        m: [T, T], rows targets, NaN where missing; pairs that lack a direction are left out.

    Returns:
        The largest residual, in the unit of `m`.

    Raises:
        ValueError: no pair has both directions.

    Example:
        >>> antisymmetry_residual([[0, 1], [3, 0]])
        0.0

    Reference: Achille et al. 2019, https://arxiv.org/abs/1904.03292. The identity is plain algebra.
    """
    part = 2 * antisymmetric_part(m)
    pairs = [(i, j) for i, j in combinations(range(len(part)), 2) if not np.isnan(part[i, j])]
    if not pairs:
        raise ValueError("no pair of tasks has both directions; the antisymmetric part needs M[t, s] and M[s, t]")
    rows = np.zeros((len(pairs), len(part)))
    for place, (i, j) in enumerate(pairs):
        rows[place, i], rows[place, j] = 1, -1
    right = np.array([part[pair] for pair in pairs])
    potential = np.linalg.lstsq(rows, right, rcond=None)[0]
    residual = float(np.abs(right - rows @ potential).max())
    return residual if residual > 1e-12 * np.abs(right).max() else 0.0


def direction_agreement(a: Any, b: Any) -> tuple[int, int]:
    """In how many pairs of tasks the larger of two directions is the same in both matrices, and of how many pairs.

    Pairs that lack a direction, or whose directions are equal in one of the matrices, are left out.

    Example:
        >>> direction_agreement([[0, 1], [2, 0]], [[0, 10], [30, 0]])
        (1, 1)
    """
    one, two = _two(a, b)
    agree = count = 0
    for i, j in combinations(range(len(one)), 2):
        cells = (one[i, j], one[j, i], two[i, j], two[j, i])
        if np.isnan(cells).any() or cells[0] == cells[1] or cells[2] == cells[3]:
            continue
        count += 1
        agree += bool((cells[0] > cells[1]) == (cells[2] > cells[3]))
    return agree, count


def nearest(m: Any) -> list[int | None]:
    """The column with the smallest value of every row, the first of equal ones; None for a row without any value.

    Example:
        >>> nearest([[0, 3, 1], [2, 0, 5], [4, 9, 0]])
        [2, 0, 0]
    """
    held = matrix(m)
    return [None if np.isnan(row).all() else int(np.nanargmin(row)) for row in held]


def neighbour_agreement(m: Any, kin: Sequence[Collection[int]]) -> tuple[int, int]:
    """In how many rows of a distance's symmetric part the nearest task is one of the row's kin, and of how many.

    Args:
        m: [T, T] distance; its symmetric part is taken, of a pair with one direction that direction.
        kin: For every task the tasks that one expects near it; empty: it does not count.

    Returns:
        Rows that agree, rows that count.

    Raises:
        ValueError: not one entry of `kin` a task.

    Example:
        >>> neighbour_agreement([[0, 1, 9], [1, 0, 9], [8, 9, 0]], [{1}, {0}, set()])
        (2, 2)
    """
    held = matrix(m)
    if len(kin) != len(held):
        raise ValueError(f"kin must name the relatives of each of the {len(held)} tasks, got {len(kin)} entries")
    found = nearest(either_direction(held))
    rows = [(near, allowed) for near, allowed in zip(found, kin, strict=True) if near is not None and allowed]
    return sum(near in allowed for near, allowed in rows), len(rows)


def either_direction(m: Any) -> np.ndarray:
    """The symmetric part, where a direction is missing the other one alone; NaN where both are."""
    held = matrix(m)
    return np.where(np.isnan(held), held.T, np.where(np.isnan(held.T), held, (held + held.T) / 2))


def self_consistency(outcomes: Any) -> tuple[float | None, float | None]:
    """How well repetitions predict each other: the ceiling for anything that predicts one of them.

    Args:
        outcomes: [S, T, T], one matrix a seed, NaN where missing.

    Returns:
        Pooled and mean within-target Spearman, each the mean over pairs of seeds; None where it does not exist, as for
        one seed.

    Example:
        >>> a = [[0, 1, 2], [3, 0, 4], [5, 6, 0]]
        >>> self_consistency([a, a])[0]
        1.0
    """
    held = array(outcomes)
    if held.ndim != 3:
        raise ValueError(f"outcomes must be [S, T, T], a matrix a seed, got shape {held.shape}")
    both = list(combinations(held, 2))
    pooled = [rank_correlation(*off_diagonal(a, b)) for a, b in both]
    within = [within_targets(a, b)[0] for a, b in both]
    return _mean([None if np.isnan(value) else value for value in pooled]), _mean(within)


def _mean(values: Sequence[float | None]) -> float | None:
    held = [value for value in values if value is not None]
    return float(np.mean(held)) if held else None


def _centred_ranks(m: np.ndarray) -> np.ndarray:
    """Ranks within each row, ties sharing their mean, less their mean; 0 where missing, [T, T].

    All rows at once, by counting: an interval over tasks asks for thousands of these.
    """
    less = (m[:, None, :] < m[:, :, None]).sum(axis=2)  # [T, T], NaN is never less
    equal = (m[:, None, :] == m[:, :, None]).sum(axis=2)
    held = ~np.isnan(m)
    rank = np.where(held, less + (equal + 1) / 2, 0.0)
    middle = rank.sum(axis=1) / np.maximum(held.sum(axis=1), 1)
    return np.where(held, rank - middle[:, None], 0.0)


def _two(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    one, two = matrix(a, "the first matrix"), matrix(b, "the second matrix")
    if one.shape != two.shape:
        raise ValueError(f"matrices of the same tasks are needed, got {len(one)} and {len(two)} tasks")
    return one, two
