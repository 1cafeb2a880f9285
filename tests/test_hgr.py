"""Maximal correlation of discrete variables: the singular value decomposition as oracle, closed forms, bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leap.metrics.hgr import (
    ace,
    chi_square,
    divergence_transition_matrix,
    hgr,
    joint_of,
    label_noise_optimum,
    maximal_correlations,
    minimum_error_feature,
    noise_free_optimum,
    optimal_h_score,
)
from leap.metrics.hscore import h_score, transferability
from leap.randomness import generator

COUNTS = [[19, 5, 6], [5, 19, 6], [6, 6, 18]]  # singular values 7/15 and 2/5


def _joint(rows: int, columns: int, seed: int = 0) -> Tensor:
    weights = torch.rand(rows, columns, generator=generator(seed, "joint"), dtype=torch.float64) ** 4
    return weights / weights.sum()


def _oracle(joint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values of the divergence transition matrix."""
    product = (joint.sum(1, keepdim=True) * joint.sum(0)).sqrt()
    return torch.linalg.svd((joint / product - product).T, full_matrices=False)


def _with_values(values: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A joint with uniform marginals and these maximal correlations, if they are small enough for one."""
    draw = generator(seed, "values")

    def functions(count: int) -> Tensor:
        raw = torch.randn(count, len(values), generator=draw, dtype=torch.float64)
        return torch.linalg.qr(torch.cat([torch.ones(count, 1, dtype=torch.float64), raw], 1)).Q[:, 1:]

    b = functions(rows) @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ functions(columns).T
    joint = 1 / (rows * columns) + b / math.sqrt(rows * columns)
    assert joint.min() >= 0
    return joint


def _gaussian(rho: float, nodes: int = 60) -> Tensor:
    """The normal density on a grid of Gauss-Hermite nodes, on which low Hermite functions stay orthonormal."""
    x, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight /= weight.sum()
    exponent = (2 * rho * np.outer(x, x) - rho**2 * (x[:, None] ** 2 + x**2)) / (2 * (1 - rho**2))
    return torch.tensor(weight[:, None] * weight * np.exp(exponent) / math.sqrt(1 - rho**2))


def _trace_score(feature: Tensor, joint: Tensor) -> Tensor:
    """tr(cov(f)^-1 cov(E[f | Y])) under a joint, by the textbook."""
    x, y = joint.sum(1), joint.sum(0)
    centred = feature - x @ feature
    means = (joint.mT @ centred)[y > 0] / y[y > 0, None]
    within = (centred * x[:, None]).mT @ centred
    return torch.linalg.solve(within, (means * y[y > 0, None]).mT @ means).trace()


# The divergence transition matrix


def test_the_matrix_is_its_formula_with_a_row_for_each_y() -> None:
    joint = _joint(4, 3)
    x, y = joint.sum(1), joint.sum(0)
    b = divergence_transition_matrix(joint)
    assert b.shape == (3, 4) and b.dtype == torch.float64
    for i in range(4):
        for j in range(3):
            product = float(x[i] * y[j]) ** 0.5
            assert float(b[j, i]) == pytest.approx(float(joint[i, j]) / product - product, abs=1e-15)
    assert (b @ x.sqrt()).abs().max() < 1e-15 and (y.sqrt() @ b).abs().max() < 1e-15


@pytest.mark.parametrize("kind", ["counts", "list", "numpy", "float32", "huge", "tiny"])
def test_counts_probabilities_and_any_array_will_do(kind: str) -> None:
    forms: dict[str, Any] = {
        "counts": torch.tensor(COUNTS),
        "list": COUNTS,
        "numpy": np.array(COUNTS, dtype=np.uint8),
        "float32": torch.tensor(COUNTS, dtype=torch.float32, requires_grad=True),
        "huge": np.array(COUNTS) * 9e306,
        "tiny": np.array(COUNTS) * 1e-300,
    }
    expected = divergence_transition_matrix(np.array(COUNTS) / 90)
    assert torch.allclose(divergence_transition_matrix(forms[kind]), expected, atol=1e-15, rtol=0)


def test_values_that_never_occur_are_zero_and_change_nothing() -> None:
    joint = _joint(5, 4)
    padded = torch.zeros(7, 6, dtype=torch.float64)
    rows, columns = [0, 2, 3, 4, 6], [1, 2, 4, 5]
    padded[np.ix_(rows, columns)] = joint
    b = divergence_transition_matrix(padded)
    assert torch.equal(b[[0, 3]], torch.zeros(2, 7, dtype=torch.float64)) and bool((b[:, [1, 5]] == 0).all())
    assert torch.allclose(b[columns][:, rows], divergence_transition_matrix(joint), atol=1e-15)
    assert torch.allclose(maximal_correlations(padded, 5)[:3], maximal_correlations(joint, 3), atol=1e-12)
    assert torch.equal(maximal_correlations(padded, 5)[3:], torch.zeros(2, dtype=torch.float64))
    found = ace(padded, 3)
    assert bool((found.f[[1, 5]] == 0).all() and (found.g[[0, 3]] == 0).all())
    assert torch.allclose(found.f[rows].abs(), ace(joint, 3).f.abs(), atol=1e-8)


def test_masses_of_any_size_stay_finite() -> None:
    joint = torch.tensor([[1.0, 1e-200], [1e-250, 1e-300]], dtype=torch.float64)
    assert all(bool(torch.isfinite(v).all()) for v in (divergence_transition_matrix(joint), *ace(joint, 1)))


# ACE


@pytest.mark.parametrize(("rows", "columns", "k"), [(3, 3, 2), (4, 9, 1), (40, 30, 3), (30, 40, 29), (200, 12, 4)])
def test_ace_is_the_singular_value_decomposition(rows: int, columns: int, k: int) -> None:
    joint = _joint(rows, columns, rows)
    left, values, right = _oracle(joint)
    found = ace(joint, k)
    x, y = joint.sum(1), joint.sum(0)
    assert (found.sigma - values[:k]).abs().max() < 1e-10
    assert torch.equal(maximal_correlations(joint, k), found.sigma)
    f, g = found.f * x.sqrt()[:, None], found.g * y.sqrt()[:, None]
    assert ((f * right[:k].T).sum(0).abs() - 1).abs().max() < 1e-8
    assert ((g * left[:, :k]).sum(0).abs() - 1).abs().max() < 1e-8


@pytest.mark.parametrize("case", ["close", "equal", "beyond k", "low rank"])
def test_ace_converges_where_correlations_are_close(case: str) -> None:
    values = {
        "close": [0.02 - 1e-9 * i for i in range(59)],
        "equal": [0.03] * 30,
        "beyond k": [0.03, 0.02, 0.02 - 1e-7] + [0.02 - 2e-7] * 40,
        "low rank": [0.1, 0.1 - 1e-10],
    }[case]
    joint = _with_values(values, 60, 80)
    for k in (1, 2, 5, 20):
        expected = torch.tensor((values + [0.0] * k)[:k], dtype=torch.float64)
        assert (maximal_correlations(joint, k) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("joint", [COUNTS, _joint(9, 6), np.ones((4, 5)), np.eye(5)], ids=["3", "9x6", "none", "all"])
def test_functions_are_white_and_each_the_expectation_of_the_other(joint: Any) -> None:
    p = torch.as_tensor(joint, dtype=torch.float64)
    p = p / p.sum()
    x, y, k = p.sum(1), p.sum(0), min(p.shape) - 1
    f, g, sigma = ace(joint, k)
    assert (x @ f).abs().max() < 1e-12 and (y @ g).abs().max() < 1e-12
    for functions, mass in ((f, x), (g, y)):
        assert (functions.T @ (mass[:, None] * functions) - torch.eye(k)).abs().max() < 1e-12
    assert (f.T @ p @ g - torch.diag(sigma)).abs().max() < 1e-12
    assert (p.T @ f / y[:, None] - g * sigma).abs().max() < 1e-10
    assert (p @ g / x[:, None] - f * sigma).abs().max() < 1e-10


def test_functions_are_the_same_every_time() -> None:
    joint = _joint(40, 30)
    torch.manual_seed(1)
    first = ace(joint, 3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(first, ace(joint, 3), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    for i in range(3):
        weighted = first.f[:, i] * joint.sum(1).sqrt()
        assert weighted[weighted.abs() > 0.5 * weighted.abs().max()][0] > 0


# Closed forms


@pytest.mark.parametrize("eps", [0.0, 0.11, 0.5, 0.8])
def test_a_binary_symmetric_channel(eps: float) -> None:
    joint = [[(1 - eps) / 2, eps / 2], [eps / 2, (1 - eps) / 2]]
    assert float(maximal_correlations(joint, 1)) == pytest.approx(abs(1 - 2 * eps), abs=1e-12)
    assert float(chi_square(joint)) == pytest.approx((1 - 2 * eps) ** 2, abs=1e-12)
    assert float(optimal_h_score(joint)) == pytest.approx(float(label_noise_optimum(2, eps)), abs=1e-12)


@pytest.mark.parametrize("rho", [0.3, 0.6, -0.7])
def test_gaussians_have_the_powers_of_their_correlation(rho: float) -> None:
    joint = _gaussian(rho)
    powers = abs(rho) ** torch.arange(1, 9, dtype=torch.float64)
    assert (maximal_correlations(joint, 8) - powers).abs().max() < 1e-8
    assert float(chi_square(joint)) == pytest.approx(rho**2 / (1 - rho**2), abs=1e-8)


def test_white_functions_of_both_give_the_sum_and_not_the_squared_norm() -> None:
    """The paper equates the two; only with g = E[f | Y], which is not white, are they equal."""
    p = torch.tensor(COUNTS, dtype=torch.float64) / 90
    f, g, sigma = ace(COUNTS, 2)
    assert sigma.tolist() == pytest.approx([7 / 15, 2 / 5], abs=1e-12)
    assert float(hgr(COUNTS, 2, normalise_g=True)) == pytest.approx(13 / 15, abs=1e-12)
    assert float(hgr(COUNTS, 2, normalise_g=False)) == pytest.approx(17 / 45, abs=1e-12)
    assert float(chi_square(COUNTS)) == pytest.approx(17 / 45, abs=1e-12)
    expected = p.T @ f / p.sum(0)[:, None]
    assert float((f.T @ p @ g).trace()) == pytest.approx(13 / 15, abs=1e-12)
    assert float((f.T @ p @ expected).trace()) == pytest.approx(17 / 45, abs=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(5, 8), (8, 5), (2, 30)])
def test_chi_square_is_bounded_and_the_sum_of_squares(rows: int, columns: int) -> None:
    joint = _joint(rows, columns)
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    direct = ((joint - product) ** 2 / product).sum()
    k = min(rows, columns) - 1
    assert float(chi_square(joint)) == pytest.approx(float(direct), abs=1e-12)
    assert float(optimal_h_score(joint, k)) == pytest.approx(float(direct), abs=1e-12)
    assert float(optimal_h_score(joint)) == pytest.approx(float(direct), abs=1e-12)
    assert 0 < float(direct) < k
    assert float(chi_square(joint.T)) == pytest.approx(float(direct), abs=1e-12)
    assert float(chi_square(product)) == pytest.approx(0, abs=1e-12)


# The feature and the H-score


@pytest.mark.parametrize("k", [1, 2, 4])
def test_no_feature_scores_more_than_the_minimum_error_feature(k: int) -> None:
    joint = _joint(12, 5, k)
    best, sigma = minimum_error_feature(joint, k), maximal_correlations(joint, k)
    assert float(_trace_score(best, joint)) == pytest.approx(float(sigma.square().sum()), abs=1e-10)
    assert float(optimal_h_score(joint, k)) == pytest.approx(float(sigma.square().sum()), abs=1e-12)
    draw = generator(k, "features")
    for _ in range(20):
        other = torch.randn(12, k, generator=draw, dtype=torch.float64)
        near = best + 1e-3 * other
        assert max(_trace_score(other, joint), _trace_score(near, joint)) < sigma.square().sum()


def test_the_h_score_of_the_feature_is_the_optimum_and_of_any_feature_below_chi_square() -> None:
    draw = generator(0, "samples")
    x = torch.randint(0, 9, (3000,), generator=draw)
    y = (x + torch.randint(0, 3, (3000,), generator=draw)) // 3
    joint = joint_of(x, y)
    for k in (1, 2, 3):
        score = h_score(minimum_error_feature(joint, k)[x], y)
        assert float(score) == pytest.approx(float(optimal_h_score(joint, k)), abs=1e-9)
        other = torch.randn(9, k, generator=draw)[x]
        assert float(h_score(other, y)) < float(optimal_h_score(joint, k))
    every = torch.nn.functional.one_hot(x)
    assert float(h_score(every, y)) == pytest.approx(float(chi_square(joint)), abs=1e-9)
    assert float(transferability(every, y, optimum=optimal_h_score(joint))) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_labels_without_noise_have_the_number_of_classes_less_one(classes: int) -> None:
    draw = generator(classes, "noise-free")
    y = torch.cat([torch.arange(classes), torch.randint(0, classes, (40,), generator=draw)])
    joint = joint_of(torch.arange(len(y)), y)  # every sample an x of its own
    assert float(chi_square(joint)) == pytest.approx(classes - 1, abs=1e-12)
    assert torch.equal(noise_free_optimum(y), torch.tensor(float(classes - 1), dtype=torch.float64))
    assert float(noise_free_optimum((y * 3 + 1).numpy())) == classes - 1  # empty classes between


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.4, 0.75, 1.0])
def test_symmetric_label_noise(eps: float) -> None:
    clean = torch.arange(4).repeat_interleave(2)
    noise = torch.full((4, 4), eps / 3, dtype=torch.float64).fill_diagonal_(1 - eps)
    joint = noise[clean] / 8
    expected = 3 * (1 - 4 * eps / 3) ** 2
    assert float(label_noise_optimum(4, eps)) == pytest.approx(expected, abs=1e-12)
    assert float(optimal_h_score(joint)) == pytest.approx(expected, abs=1e-12)


# Joints of labels, and what is refused


def test_a_joint_of_labels_counts_pairs() -> None:
    draw = generator(0, "labels")
    x, y = torch.randint(0, 6, (500,), generator=draw), torch.randint(0, 4, (500,), generator=draw)
    y[y == 1] = 3
    joint = joint_of(x.numpy(), y.float())
    assert joint.dtype == torch.float64
    assert joint.tolist() == [[int(((x == i) & (y == j)).sum()) / 500 for j in range(4)] for i in range(6)]


def test_what_is_no_joint_is_refused() -> None:
    for joint, match in (
        ([[0.5, -0.1], [0.3, 0.3]], "negative, got -0.1"),
        (np.zeros((2, 3)), "got 0 in all 6 cells"),
        ([0.5, 0.5], r"matrix .* got shape \[2\]"),
        ([[0.5, math.nan], [0.3, 0.3]], "not finite"),
        ([[0.5, math.inf], [0.3, 0.3]], "not finite"),
    ):
        for measure in (divergence_transition_matrix, chi_square, lambda p: ace(p, 1)):
            with pytest.raises(ValueError, match=match):
                measure(joint)


def test_more_functions_than_there_are_is_an_error_that_names_the_limit() -> None:
    for k in (0, -1, 3):
        with pytest.raises(ValueError, match=rf"at most 2, as the joint is \[3, 5\], got {k}"):
            maximal_correlations(np.ones((3, 5)), k)
        with pytest.raises(ValueError, match=f"at most 2, as 3 values of X and 5 of Y occur, got {k}"):
            ace(np.ones((3, 5)), k)
    with pytest.raises(ValueError, match="at most 1, as 2 values of X and 3 of Y occur"):
        minimum_error_feature([[1, 0, 1], [0, 0, 0], [1, 1, 1]], 2)
    with pytest.raises(TypeError, match=r"integer, got 1\.5"):
        maximal_correlations(COUNTS, 1.5)  # type: ignore[arg-type]


def test_labels_and_shares_out_of_range_are_refused() -> None:
    for x, y, match in (
        ([0, 1], [0, 1, 1], "got 2 and 3"),
        ([], [], "got 0 and 0"),
        ([0, 10**9], [0, 1], "1000000001 x 2 values is too large"),
        ([0, -1], [0, 1], "from 0 on, got -1"),
    ):
        with pytest.raises(ValueError, match=match):
            joint_of(x, y)
    with pytest.raises(ValueError, match="at least 2 classes, got 1 in 3 labels"):
        noise_free_optimum([4, 4, 4])
    with pytest.raises(ValueError, match=r"share in \[0, 1\], got 1.2"):
        label_noise_optimum(3, 1.2)
    with pytest.raises(ValueError, match=r"share in \[0, 1\], got nan"):
        label_noise_optimum(3, math.nan)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        label_noise_optimum(1, 0.2)
