"""Tasks as a graph: trees against exhaustive search, and what must not change them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from published import DISTANCE, NONE, TASKS

from leap.metrics.graph import cluster, dissimilarity, edge_stability, spanning_tree


def _connects(edges: tuple[tuple[int, int], ...], count: int) -> bool:
    groups = [{task} for task in range(count)]
    for i, j in edges:
        one, two = (next(group for group in groups if task in group) for task in (i, j))
        if one is two:
            return False
        groups = [group for group in groups if group not in (one, two)] + [one | two]
    return len(groups) == 1


def _cheapest(weights: np.ndarray) -> set[tuple[int, int]]:
    """The best of all trees."""
    count = len(weights)
    trees = (edges for edges in combinations(combinations(range(count), 2), count - 1) if _connects(edges, count))
    return set(min(trees, key=lambda edges: sum(weights[edge] for edge in edges)))


@pytest.mark.parametrize("seed", range(5))
def test_the_tree_is_the_cheapest_of_all_trees(seed: int) -> None:
    m = np.random.default_rng(seed).normal(size=(5, 5))  # half of the weights are negative
    tree = spanning_tree(m)
    assert {edge[:2] for edge in tree} == _cheapest((m + m.T) / 2)
    assert [edge.weight for edge in tree] == sorted((m + m.T)[edge[:2]] / 2 for edge in tree)


def test_zero_weights_are_edges() -> None:
    tree = spanning_tree(np.zeros((4, 4)))
    assert [edge.weight for edge in tree] == [0, 0, 0] and _connects(tuple(edge[:2] for edge in tree), 4)


def test_a_tree_depends_on_the_order_of_weights_alone() -> None:
    m = np.random.default_rng(0).uniform(size=(6, 6))
    m = m + m.T
    wanted = [edge[:2] for edge in spanning_tree(m)]
    assert [edge[:2] for edge in spanning_tree(m - 100)] == wanted
    assert [edge[:2] for edge in spanning_tree(np.exp(9 * m))] == wanted
    assert [edge[:2] for edge in spanning_tree(-m, similarity=True)] == wanted
    assert [edge[:2] for edge in spanning_tree(m + 7 * np.eye(6))] == wanted  # a distance to oneself is no edge


def test_transferability_takes_the_better_direction() -> None:
    score = np.random.default_rng(1).uniform(size=(5, 5))
    tree = spanning_tree(score, similarity=True, combine="min")
    assert {edge[:2] for edge in tree} == _cheapest(1 - np.maximum(score, score.T))


def test_clusters_are_found_and_stand_together() -> None:
    groups = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    m = np.where(groups[:, None] == groups, 1.0, 5.0) + 0.1 * np.random.default_rng(0).uniform(size=(8, 8))
    found = cluster(m)
    order = groups[found.order]
    assert sorted(found.order) == list(range(8)) and (np.diff(order) != 0).sum() == 2
    assert found.shift == 0


def test_average_linkage_heights_are_means_and_a_constant_only_raises_them() -> None:
    m = np.array([[0.0, 1, 4], [1, 0, 8], [4, 8, 0]])
    assert cluster(m).linkage[:, 2].tolist() == [1, 6]
    lower = cluster(m - 3)
    assert lower.shift == 2 and lower.linkage[:, 2].tolist() == [0, 5]
    assert (lower.linkage[:, 2] - lower.shift).tolist() == [-2, 3]


def test_a_missing_direction_is_replaced_and_a_missing_pair_refused() -> None:
    m = np.array([[0.0, 2, NONE], [4, 0, 9], [NONE, 9, 0]])
    np.testing.assert_allclose(dissimilarity(m), [[NONE, 3, NONE], [3, NONE, 9], [NONE, 9, NONE]])
    assert [edge[:2] for edge in spanning_tree(m)] == [(0, 1), (1, 2)]
    with pytest.raises(ValueError, match="tasks 0 and 2 have no value"):
        cluster(m)
    m[1, 2] = NONE
    assert dissimilarity(m)[1, 2] == 9
    m[2, 1] = NONE
    with pytest.raises(ValueError, match="3 tasks into 2 parts"):
        spanning_tree(m)


def test_the_published_tasks_fall_into_pictures_and_the_rest() -> None:
    found = [TASKS[place] for place in cluster(DISTANCE).order]
    objects = {"cifar10", "cifar100", "natural", "artificial"}
    assert set(found[:4]) == objects or set(found[4:]) == objects
    # Clothes are nearest to clothes, but a chain of single nearest pairs ties them to the whole by one edge.
    assert (2, 3) in {edge[:2] for edge in spanning_tree(DISTANCE)}


def test_edge_stability_counts_seeds() -> None:
    m = np.random.default_rng(0).uniform(size=(6, 6))
    assert edge_stability(np.stack([m] * 3)).mean == 1
    noise = np.random.default_rng(1).normal(size=(4, 6, 6))
    found = edge_stability(m + noise)
    own = [{edge[:2] for edge in spanning_tree(one)} for one in m + noise]
    assert found.shares == [sum(edge[:2] in edges for edges in own) / 4 for edge in found.tree]
    assert found.mean == pytest.approx(np.mean(found.shares)) and found.mean < 1


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: dissimilarity(np.zeros((2, 2)), combine="median"), "got 'median'"),  # type: ignore[arg-type]
        (lambda: cluster(np.zeros((1, 1))), "at least two tasks"),
        (lambda: spanning_tree([[0, np.inf], [1, 0]]), "infinity"),
        (lambda: edge_stability(np.zeros((3, 3))), r"\[S, T, T\]"),
    ],
)
def test_wrong_matrices_are_refused(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
