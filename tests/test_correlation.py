"""Rank correlation of lists and matrices: closed forms, scipy as the other opinion, and a published study."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from published import DISTANCE, EPOCHS, KIN, NONE, TASKS
from scipy import stats

from leap.metrics.correlation import kendall_tau_b, pearson, spearman, unbounded, weighted_tau
from leap.metrics.pairs import (
    antisymmetric_part,
    antisymmetry_residual,
    direction_agreement,
    nearest,
    neighbour_agreement,
    off_diagonal,
    pooled_spearman,
    self_consistency,
    symmetric_part,
    within_targets,
)
from leap.metrics.statistics import mantel
from leap.randomness import generator


def _matrices(count: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two asymmetric matrices that are related."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(count, count))
    return a, a + rng.normal(size=(count, count))


# Lists


def test_rank_correlations_agree_with_scipy_beside_ties() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 40).astype(float), rng.integers(0, 6, 40).astype(float)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert kendall_tau_b(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    for rank in (True, None):
        assert weighted_tau(x, y, rank=rank) == pytest.approx(stats.weightedtau(x, y, rank=rank).statistic, abs=1e-12)


def test_weighted_tau_is_its_formula_and_its_default_is_symmetric() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=9), rng.normal(size=9)

    def one(order: np.ndarray) -> float:
        place = np.empty(9)
        place[np.argsort(-order)] = np.arange(9)
        weight = 1 / (1 + place[:, None]) + 1 / (1 + place[None, :])
        sx, sy = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
        return float((weight * sx * sy).sum() / np.sqrt((weight * sx**2).sum() * (weight * sy**2).sum()))

    assert weighted_tau(x, y) == pytest.approx((one(x) + one(y)) / 2, abs=1e-12)
    assert weighted_tau(x, y) == pytest.approx(weighted_tau(y, x), abs=1e-12)
    assert weighted_tau(x, y, rank=None) != pytest.approx(weighted_tau(x, y), abs=1e-3)


@pytest.mark.parametrize("measure", [spearman, kendall_tau_b, weighted_tau])
def test_rank_correlations_see_order_alone(measure: Any) -> None:
    x = np.array([0.3, -2.0, 7.0, 1.5, 4.0])
    assert measure(x, np.exp(x)) == pytest.approx(1, abs=1e-12)
    assert measure(x, -(x**3)) == pytest.approx(-1, abs=1e-12)
    assert measure(torch.tensor(x, requires_grad=True), torch.tensor(x).float()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("measure", [spearman, kendall_tau_b, weighted_tau, pearson])
def test_lists_without_an_order_are_refused(measure: Any) -> None:
    for x, y, match in (
        ([1, 2], [1, 2], "at least 3 values, got 2"),
        ([1, 2, 3], [1, 2], r"shapes \(3,\) and \(2,\)"),
        ([5, 5, 5], [1, 2, 3], "got 5 3 times"),
        ([1, 2, 3], [1, 2, NONE], "NaN at 2"),
    ):
        with pytest.raises(ValueError, match=match):
            measure(x, y)
    with pytest.raises(ValueError, match="finite values"):
        pearson([1, 2, float("inf")], [1, 2, 3])


def test_values_that_were_cut_off_are_tied_at_the_top() -> None:
    held = unbounded([3.0, 30.0, 30.0, 7.0, NONE], [False, True, True, False, True])
    assert held.tolist()[:4] == [3.0, np.inf, np.inf, 7.0] and np.isnan(held[4])
    assert spearman(held[:4], [1, 3, 4, 2]) == pytest.approx(stats.spearmanr([1, 3.5, 3.5, 2], [1, 3, 4, 2])[0])
    with pytest.raises(ValueError, match="shape"):
        unbounded([1.0], [True, False])


# The published study


def test_the_published_matrices_give_the_published_correlations() -> None:
    x, y = off_diagonal(DISTANCE, EPOCHS)
    assert len(x) == 55
    figures = (pearson(x, y), pearson(x, np.log2(y)), spearman(x, y), kendall_tau_b(x, y))
    assert [round(value, 2) for value in figures] == [0.67, 0.47, 0.66, 0.48]
    assert pooled_spearman(DISTANCE, EPOCHS) == spearman(x, y)

    rows = np.arange(8) != TASKS.index("mnist")  # as a target; it stays a source
    held = np.where(rows[:, None], EPOCHS, NONE)
    x, y = off_diagonal(DISTANCE, held)
    assert len(x) == 48
    figures = (pearson(x, y), pearson(x, np.log2(y)), spearman(x, y), kendall_tau_b(x, y))
    assert figures == pytest.approx((0.65, 0.65, 0.66, 0.48), abs=0.006)


def test_the_published_matrices_target_by_target() -> None:
    mean, rows = within_targets(DISTANCE, EPOCHS)
    found = {name: round(value, 2) for name, value in zip(TASKS, rows, strict=True) if value is not None}
    assert mean is not None and round(mean, 2) == 0.58
    assert found == {
        "cifar100": 0.93,
        "natural": 0.93,
        "artificial": 0.93,
        "cifar10": 0.79,
        "letters": 0.54,
        "fashion": 0.23,
        "mnist": 0.19,
        "ifashion": 0.11,
    }


def test_the_published_relation_is_unlikely_by_chance() -> None:
    found = mantel(DISTANCE, EPOCHS, permutations=2000, generator=generator(0))
    assert round(found.correlation, 2) == 0.66 and found.permutations == 2000
    assert 0.001 <= found.p_value <= 0.006  # 0.003, within three standard errors of 2000 draws


def test_the_published_asymmetry_is_a_difference_of_complexities() -> None:
    assert antisymmetry_residual(DISTANCE) == pytest.approx(0.0075, abs=1e-9)  # entries are rounded to 0.01
    assert direction_agreement(DISTANCE, EPOCHS) == (23, 27)
    assert neighbour_agreement(DISTANCE, KIN) == (7, 8)
    assert nearest(symmetric_part(DISTANCE))[TASKS.index("letters")] == TASKS.index("artificial")


# Matrices


def test_parts_of_a_matrix_add_up_and_missing_directions_stay_missing() -> None:
    m = np.array([[0, 1, 2], [5, 0, NONE], [4, 8, 0]])
    both = symmetric_part(m) + antisymmetric_part(m)
    np.testing.assert_allclose(both, [[NONE, 1, 2], [5, NONE, NONE], [4, NONE, NONE]])


def test_the_asymmetry_of_differences_leaves_nothing_and_anything_else_does() -> None:
    rng = np.random.default_rng(0)
    near, hard = rng.normal(size=(6, 6)), rng.normal(size=6) * 100
    m = near + near.T + hard[:, None]
    assert antisymmetry_residual(m) < 1e-12
    gap = m.copy()
    gap[0, 1] = NONE
    assert antisymmetry_residual(gap) < 1e-12
    assert antisymmetry_residual(m + np.eye(6)[2][:, None] * np.eye(6)[4]) == pytest.approx(2 / 3, abs=1e-9)


def test_what_depends_on_the_target_alone_gets_nothing_within_targets() -> None:
    hard = np.arange(1.0, 7.0)[:, None] + np.zeros((6, 6))
    epochs = hard + np.random.default_rng(0).normal(size=(6, 6)) * 0.1
    assert pooled_spearman(hard, epochs) > 0.9
    assert within_targets(hard, epochs) == (None, [None] * 6)


def test_self_consistency_is_the_mean_over_pairs_of_seeds() -> None:
    a, b = _matrices()
    pooled, within = self_consistency(np.stack([a, b, a]))
    assert pooled == pytest.approx((1 + 2 * pooled_spearman(a, b)) / 3)
    mean = within_targets(a, b)[0]
    assert mean is not None and within == pytest.approx((1 + 2 * mean) / 3)
    assert self_consistency(a[None]) == (None, None)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: pooled_spearman(np.zeros((2, 3)), np.zeros((2, 3))), r"\[T, T\].*\(2, 3\)"),
        (lambda: pooled_spearman(np.zeros((3, 3)), np.zeros((4, 4))), "3 and 4 tasks"),
        (lambda: pooled_spearman(np.zeros((3, 3)), np.zeros((3, 3))), "no correlation over 6 common pairs"),
        (lambda: antisymmetry_residual([[0, 1], [NONE, 0]]), "both directions"),
        (lambda: neighbour_agreement(np.zeros((3, 3)), [set()]), "each of the 3 tasks, got 1"),
        (lambda: self_consistency(np.zeros((3, 3))), r"\[S, T, T\]"),
    ],
)
def test_wrong_matrices_are_refused(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
