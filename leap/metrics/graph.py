"""Tasks as a graph: what lies near what, in which order to list them, and how sure the picture is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from leap.metrics.correlation import array
from leap.metrics.pairs import either_direction, matrix

Combine = Literal["mean", "min", "max"]


class Clusters(NamedTuple):
    """Agglomerative clustering: the order of the leaves, scipy's linkage [T - 1, 4], and what was added to heights."""

    order: list[int]
    linkage: np.ndarray
    shift: float


class Edge(NamedTuple):
    """An edge of a tree between tasks i < j, with the weight that it was given."""

    i: int
    j: int
    weight: float


class Stability(NamedTuple):
    """The tree of all seeds together, the share of seeds that have each of its edges, and the mean share."""

    tree: list[Edge]
    shares: list[float]
    mean: float


def dissimilarity(m: Any, *, similarity: bool = False, combine: Combine = "mean") -> np.ndarray:
    """One number a pair of tasks, smaller is nearer, whichever direction it was measured in.

    Args:
        m: [T, T] in any unit, NaN where missing. The diagonal is not looked at: a task's distance to itself need not
            be zero.
        similarity: Larger is nearer; the sign is turned.
        combine: What is made of two directions, after that: their mean (the symmetric part), the nearer or the
            farther. `min` of a similarity is 1 - max(T(i, j), T(j, i)) but for the constant. Where one direction is
            missing the other stands for both.

    Returns:
        [T, T], symmetric, in the unit of `m`, NaN on the diagonal and where both directions are missing; it may be
        negative.

    Raises:
        ValueError: not square, fewer than 2 tasks, infinite values, or an unknown `combine`.

    Example:
        >>> dissimilarity([[0, 1], [3, 0]])
        array([[nan,  2.],
               [ 2., nan]])
    """
    if combine not in ("mean", "min", "max"):
        raise ValueError(f"combine must be mean, min or max, got {combine!r}")
    held = -matrix(m) if similarity else matrix(m)
    if np.isinf(held).any():
        raise ValueError("a graph of tasks needs finite distances, got infinity; give NaN where a pair is missing")
    if combine == "mean":
        return either_direction(held)
    return np.fmin(held, held.T) if combine == "min" else np.fmax(held, held.T)


def cluster(m: Any, *, similarity: bool = False, combine: Combine = "mean") -> Clusters:
    r"""Average-linkage clustering, with the leaves ordered so that neighbours are near.

    .. math:: d(A, B) = \frac{1}{|A| |B|} \sum_{i \in A, j \in B} d_{ij}

    Args:
        m: [T, T], as `dissimilarity` takes it; every pair needs a direction.
        similarity, combine: As there.

    Returns:
        Order of the tasks, linkage with heights that are at least 0, and the shift: heights less the shift are in
        the unit of `m` (negated for a similarity). It is 0 unless a distance is negative, when all are raised so that
        the smallest is 0. A constant added to all distances adds itself to all heights and leaves the tree as it is.

    Raises:
        ValueError: as `dissimilarity`, or a pair without any value.

    Example:
        >>> near, far = 1.0, 9.0
        >>> found = cluster([[0, far, near], [far, 0, far], [near, far, 0]])
        >>> found.linkage[:, 2].tolist(), found.order.index(1) in (0, 2)
        ([1.0, 9.0], True)

    Reference: Sokal and Michener 1958 (UPGMA); leaves as Bar-Joseph et al. 2001,
    https://doi.org/10.1093/bioinformatics/17.suppl_1.S22.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    held = dissimilarity(m, similarity=similarity, combine=combine)
    pairs = held[np.triu_indices(len(held), 1)]
    if np.isnan(pairs).any():
        at = next((i, j) for i, j in combinations(range(len(held)), 2) if np.isnan(held[i, j]))
        raise ValueError(f"tasks {at[0]} and {at[1]} have no value in either direction; measure one, or leave one out")
    shift = max(0.0, -float(pairs.min()))
    found = linkage(pairs + shift, method="average", optimal_ordering=True)
    return Clusters([int(leaf) for leaf in leaves_list(found)], found, shift)


def spanning_tree(m: Any, *, similarity: bool = False, combine: Combine = "mean") -> list[Edge]:
    r"""Minimum spanning tree: the T - 1 edges that connect all tasks at the least total weight.

    .. math:: \arg\min_{\text{tree } E} \sum_{(i, j) \in E} d_{ij}

    Args:
        m: [T, T], as `dissimilarity` takes it; a pair without any value has no edge.
        similarity, combine: As there. Transferability papers take weight 1 - max of both directions: similarity,
            `min`.

    Returns:
        Edges by weight, the smallest first. Weights are those of `dissimilarity`; zero and negative ones are edges
        like others (sparse-graph routines take a zero for no edge). Of equal weights the pair named first wins.

    Raises:
        ValueError: as `dissimilarity`, or tasks that missing pairs cut off from the others.

    Example:
        >>> spanning_tree([[0, 0, 5], [0, 0, -1], [5, -1, 0]])
        [Edge(i=1, j=2, weight=-1.0), Edge(i=0, j=1, weight=0.0)]

    Reference: Kruskal 1956, https://doi.org/10.1090/S0002-9939-1956-0078686-7. The tree depends on the order of
    weights alone, so their ranks, from 1, are what scipy is given.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    held = dissimilarity(m, similarity=similarity, combine=combine)
    pairs = [(i, j) for i, j in combinations(range(len(held)), 2) if not np.isnan(held[i, j])]
    order = np.argsort([held[pair] for pair in pairs], kind="stable")
    rank = np.empty(len(pairs))
    rank[order] = np.arange(1, len(pairs) + 1)
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    tree = minimum_spanning_tree(csr_array((rank, (rows, columns)), shape=held.shape)).tocoo()
    if tree.nnz != len(held) - 1:
        raise ValueError(
            f"missing pairs cut the {len(held)} tasks into {len(held) - tree.nnz} parts; measure more pairs"
        )
    edges = sorted(zip(tree.data, tree.row, tree.col, strict=True))
    return [Edge(int(i), int(j), float(held[i, j])) for _, i, j in edges]


def edge_stability(matrices: Sequence[Any] | Any, *, similarity: bool = False, combine: Combine = "mean") -> Stability:
    """How many of the edges of the spanning tree the seeds agree on.

    Args:
        matrices: [S, T, T], one a seed, NaN where missing.
        similarity, combine: As `spanning_tree`.

    Returns:
        The tree of the mean matrix, for each of its edges the share of seeds whose own tree has it, and the mean of
        these shares, 0 to 1.

    Raises:
        ValueError: as `spanning_tree`, or no matrix.

    Example:
        >>> near = [[0, 1, 5], [1, 0, 2], [5, 2, 0]]
        >>> other = [[0, 1, 2], [1, 0, 5], [2, 5, 0]]
        >>> edge_stability([near, near, near, other]).shares
        [1.0, 0.75]
    """
    held = array(matrices)
    if held.ndim != 3 or len(held) == 0:
        raise ValueError(f"matrices must be [S, T, T], a matrix a seed, got shape {held.shape}")
    count = (~np.isnan(held)).sum(axis=0)
    mean = np.where(count > 0, np.nansum(held, axis=0) / np.maximum(count, 1), np.nan)
    tree = spanning_tree(mean, similarity=similarity, combine=combine)
    own = [{edge[:2] for edge in spanning_tree(one, similarity=similarity, combine=combine)} for one in held]
    shares = [sum(edge[:2] in edges for edges in own) / len(own) for edge in tree]
    return Stability(tree, shares, float(np.mean(shares)))
