"""GBC against the distance of full Gaussians, closed forms, and what the released code gets wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from leap.metrics import gbc as module
from leap.metrics.gbc import gbc, mean_gbc


def problem(
    m: int = 90, k: int = 5, c: int = 4, seed: int = 0, apart: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(m) % c
    means = apart * torch.randn(c, k, generator=g, dtype=torch.float64)
    scale = 0.5 + torch.rand(c, k, generator=g, dtype=torch.float64)
    return means[labels] + scale[labels] * torch.randn(m, k, generator=g, dtype=torch.float64), labels


def bhattacharyya(mean: Any, other_mean: Any, cov: np.ndarray, other_cov: np.ndarray) -> float:
    """Of Gaussians with full covariance, by its definition."""
    both, shift = (cov + other_cov) / 2, np.asarray(mean) - np.asarray(other_mean)
    logs = [np.linalg.slogdet(matrix)[1] for matrix in (both, cov, other_cov)]
    return float(shift @ np.linalg.solve(both, shift) / 8 + (logs[0] - (logs[1] + logs[2]) / 2) / 2)


def by_loops(features: torch.Tensor, labels: torch.Tensor, covariance: str, floor: float = 1e-4) -> float:
    classes, total = {}, 0.0
    for label in set(labels.tolist()):
        own = features[labels == label].numpy()
        variance = np.maximum(own.var(axis=0), floor)
        if covariance == "spherical":
            variance = np.full_like(variance, variance.mean())
        classes[label] = own.mean(axis=0), np.diag(variance)
    for i, (mean, cov) in classes.items():
        for j, (other_mean, other_cov) in classes.items():
            if i != j:
                total -= math.exp(-bhattacharyya(mean, other_mean, cov, other_cov))
    return total


@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_sum_is_the_loop_of_the_paper(covariance: Any, seed: int) -> None:
    features, labels = problem(seed=seed)
    expected = by_loops(features, labels, covariance)
    assert -4 * 3 < expected < -0.1
    assert gbc(features, labels, covariance=covariance).item() == pytest.approx(expected, rel=1e-11)
    assert mean_gbc(features, labels, covariance=covariance).item() == pytest.approx(expected / 12, rel=1e-11)


def test_the_overlap_is_the_integral_of_the_root_of_both_densities() -> None:
    features, labels = problem(k=1, c=2)
    moments = [(float(x.mean()), float(x.var(correction=0))) for x in (features[labels == 0], features[labels == 1])]

    def root(x: float) -> float:
        logs = [-((x - mean) ** 2) / (2 * v) - math.log(2 * math.pi * v) / 2 for mean, v in moments]
        return math.exp(sum(logs) / 2)

    assert mean_gbc(features, labels).item() == pytest.approx(-quad(root, -30, 30, epsabs=1e-12)[0], rel=1e-9)


def test_equal_variances_leave_an_eighth_of_the_squared_distance() -> None:
    noise = torch.tensor([[1.0, -2.0], [-1.0, 2.0]], dtype=torch.float64).repeat(5, 1)  # variances 1 and 4
    features = torch.cat([noise, noise + torch.tensor([3.0, 2.0])])
    labels = torch.arange(20) // 10
    assert gbc(features, labels).item() == pytest.approx(-2 * math.exp(-(9 / 1 + 4 / 4) / 8), rel=1e-12)
    expected = -2 * math.exp(-(9 + 4) / 2.5 / 8)
    assert gbc(features, labels, covariance="spherical").item() == pytest.approx(expected, rel=1e-12)


def test_equal_means_leave_the_determinants() -> None:
    base = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(4, 3)
    features, labels = torch.cat([base, 3 * base]), torch.arange(16) // 8  # variances 1 and 9, in 3 features
    for covariance in ("diagonal", "spherical"):
        expected = -2 * (5 / 3) ** (-3 / 2)  # mean over geometric mean, to the power -k / 2
        assert gbc(features, labels, covariance=covariance).item() == pytest.approx(expected, rel=1e-12)


def test_a_spherical_class_has_its_variance_once_for_each_feature() -> None:
    """The released code counts the logarithm once for all k features."""
    base = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(4, 6)
    features, labels = torch.cat([base, 4 * base + 1]), torch.arange(16) // 8
    diagonal, spherical = gbc(features, labels), gbc(features, labels, covariance="spherical")
    assert spherical.item() == pytest.approx(diagonal.item(), rel=1e-12)
    released = -2 * math.exp(-6 / (4 * 17) - math.log(8.5 / 4) / 2)
    assert abs(released - spherical.item()) > 0.2


def test_identical_classes_overlap_entirely_and_far_ones_not_at_all() -> None:
    half, _ = problem(m=20)
    for c in (2, 3, 7):
        features, labels = half.repeat(c, 1), torch.arange(20 * c) // 20
        assert gbc(features, labels).item() == -c * (c - 1)
        assert mean_gbc(features, labels).item() == -1
        far = gbc(features + 1000.0 * labels[:, None], labels)
        assert far.item() == 0 and not far.signbit()


def test_the_mean_does_not_grow_with_the_number_of_classes() -> None:
    """A third class in the same relation to both: an equilateral triangle."""
    corners = 2 * torch.eye(3, dtype=torch.float64)
    noise = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = (noise - noise.mean(0)) / noise.std(0)
    three = (corners[:, None] + noise).reshape(-1, 3), torch.arange(120) // 40
    two = three[0][:80], three[1][:80]
    assert mean_gbc(*three).item() == pytest.approx(mean_gbc(*two).item(), rel=1e-12)
    assert gbc(*three).item() == pytest.approx(3 * gbc(*two).item(), rel=1e-12)


def test_more_separation_is_better() -> None:
    values = [mean_gbc(*problem(apart=apart)).item() for apart in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert values == sorted(values) and -1 <= values[0] < -0.5 and values[-1] > -0.05


def test_invariances() -> None:
    features, labels = problem()
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([1.0, 3.0, 10.0, 0.5, 2.0], dtype=torch.float64)
    rotation = torch.linalg.qr(problem(m=5, seed=3)[0])[0]
    plain, round_ = gbc(features, labels).item(), gbc(features, labels, covariance="spherical").item()
    assert gbc(features[order].flip(1), 7 * labels[order] + 1).item() == pytest.approx(plain, rel=1e-11)
    assert gbc(features * scale + 5, labels).item() == pytest.approx(plain, rel=1e-11)  # axes may be scaled, not mixed
    assert gbc(features @ rotation, labels).item() != pytest.approx(plain, rel=1e-3)
    turned = gbc(3 * features @ rotation, labels, covariance="spherical")
    assert turned.item() == pytest.approx(round_, rel=1e-11)


def test_a_class_with_one_sample_and_a_constant_feature_have_the_floor() -> None:
    features = torch.tensor([[0.0, 7.0], [2.0, 7.0], [1.01, 7.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    for covariance in ("diagonal", "spherical"):
        assert gbc(features, labels, covariance=covariance).item() == pytest.approx(
            by_loops(features, labels, covariance)
        )
    for floor in (1e-8, 1e-2):
        assert gbc(features, labels, floor=floor).item() == pytest.approx(by_loops(features, labels, "diagonal", floor))
    assert gbc(1e-4 * features, labels).item() != pytest.approx(gbc(features, labels).item(), rel=0.1)


def test_principal_coordinates_are_taken_on_request() -> None:
    from sklearn.decomposition import PCA

    features, labels = problem(k=8)
    reduced = torch.from_numpy(PCA(3, svd_solver="full").fit_transform(features.numpy()))
    assert gbc(features, labels, components=3).item() == pytest.approx(gbc(reduced, labels).item(), rel=1e-9)
    assert gbc(features[:5], labels[:5], components=64).isfinite()  # no more than there are


def test_with_many_features_the_closest_pairs_decide_alone() -> None:
    features, labels = problem(m=400, k=1000, apart=0.5)
    shares = []
    for held in (features, features[:, :10]):
        chosen = [(labels == i) | (labels == j) for i in range(4) for j in range(i)]
        pairs = [gbc(held[rows], labels[rows]).item() for rows in chosen]
        assert sum(pairs) == pytest.approx(gbc(held, labels).item(), rel=1e-9)
        shares.append(min(pairs) / sum(pairs))
    assert -1e-40 < gbc(features, labels).item() < 0
    assert shares[0] > 0.7 and shares[1] < 0.3


def test_samples_are_taken_in_blocks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = problem()
    whole = gbc(features, labels).item()
    monkeypatch.setattr(module, "ROWS", 7)
    assert gbc(features, labels).item() == pytest.approx(whole, rel=1e-12)


def test_a_large_offset_keeps_the_digits() -> None:
    features, labels = problem()
    assert gbc(features + 1e7, labels).item() == pytest.approx(gbc(features, labels).item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["list", "numpy", "float32", "grad"])
def test_any_kind_of_array_is_taken(kind: str) -> None:
    features, labels = problem()
    forms: dict[str, Any] = {
        "list": features.tolist(),
        "numpy": features.numpy(),
        "float32": features.float(),
        "grad": features.clone().requires_grad_(),
    }
    for score in (gbc, mean_gbc):
        found = score(forms[kind], labels.numpy().astype(np.int16))
        assert found.dtype == torch.float64 and found.dim() == 0 and not found.requires_grad
        assert found.item() == pytest.approx(score(features, labels).item(), rel=1e-4 if kind == "float32" else 1e-14)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"covariance": "full"}, "'diagonal' or 'spherical', got 'full'"),
        ({"floor": 0.0}, "floor is a variance, above 0 and finite, got 0.0"),
        ({"floor": math.nan}, "got nan"),
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"labels": [0, 0, 0]}, "at least 2 classes, got 1"),
        ({"labels": [0, 1]}, "3 rows and 2"),
        ({"features": [[1.0]] * 3}, "the same in all 3 samples"),
        ({"features": [[1.0], [math.inf], [2.0]]}, "not finite"),
        ({"features": [[1e200], [-1e200], [1.0]]}, r"overflow, the largest is 1e\+200"),
        ({"features": [[1e200], [1e200], [1.0]]}, r"overflow, the largest is 1e\+200"),
    ],
)
def test_what_has_no_score_is_refused(change: dict[str, Any], match: str) -> None:
    held: dict[str, Any] = {"features": [[1.0], [2.0], [3.0]], "labels": [0, 0, 1]} | change
    with pytest.raises(ValueError, match=match):
        gbc(held.pop("features"), held.pop("labels"), **held)
