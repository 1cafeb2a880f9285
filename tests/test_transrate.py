"""TransRate: closed forms, invariances, a loop from the paper, and the trap of the published listing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from leap.metrics.transrate import coding_rate, transrate


def draw(m: int = 60, k: int = 5, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes that differ in mean and spread, and in size."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.5, m) - 1, classes - 1)
    labels[:classes] = np.arange(classes)
    return rng.normal(size=(m, k)) * (1 + labels[:, None]) + rng.normal(size=(classes, k))[labels], labels


def rate(z: np.ndarray, eps: float) -> float:
    return 0.5 * float(np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * eps))[1])


def loop(z: np.ndarray, y: np.ndarray, eps: float, centred: bool, weighted: bool = True) -> float:
    """The definition, class by class; unweighted it is the published listing."""
    z = z - z.mean(0)
    parts = [z[y == c] for c in np.unique(y)]
    weights = [len(part) / len(z) if weighted else 1 / len(parts) for part in parts]
    rates = [rate(part - part.mean(0) if centred else part, eps) for part in parts]
    return rate(z, eps) - float(np.dot(weights, rates))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("m", "k"), [(60, 5), (12, 40), (60, 25)])  # 25: more than some classes hold
def test_it_is_its_definition(m: int, k: int, centred: bool) -> None:
    z, y = draw(m, k)
    for eps in (1e-4, 0.3):
        assert float(transrate(z, y, eps=eps, class_centred=centred)) == pytest.approx(loop(z, y, eps, centred), 1e-10)


def test_two_balanced_classes_at_opposite_points_score_nothing() -> None:
    """The degenerate case: the classes' second moments about the common mean are that of all samples."""
    mu = torch.tensor([3.0, -4.0, 12.0])
    points, labels = torch.stack([mu] * 5 + [-mu] * 5) + 7.0, [0] * 5 + [1] * 5
    assert transrate(points, labels) == pytest.approx(0, abs=1e-12)
    assert transrate(1000 * points, labels) == pytest.approx(0, abs=1e-10)
    found = transrate(points, labels, class_centred=True)
    assert float(found) == pytest.approx(0.5 * math.log1p(169 / 1e-4), rel=1e-10)


def test_class_centred_it_is_the_information_of_gaussian_classes() -> None:
    """Two classes of one covariance: half the log of total over within variance, in the one direction that differs."""
    signs = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    points = torch.cat([signs + torch.tensor([10.0, 0.0]), signs - torch.tensor([10.0, 0.0])])
    found = transrate(points, [0] * 4 + [1] * 4, eps=1e-2, class_centred=True)
    assert float(found) == pytest.approx(0.5 * math.log((1 + 101e2) / (1 + 1e2)), rel=1e-12)


def test_unequal_classes_are_weighted_so_that_the_score_is_not_negative() -> None:
    """The plain mean over classes rates a rare, widely spread class like a common one, and falls below zero."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=(980, 4)), 7 * rng.normal(size=(20, 4))])
    y = np.repeat([0, 1], [980, 20])
    assert loop(z, y, 1e-4, False, weighted=False) < -1
    assert float(transrate(z, y)) == pytest.approx(loop(z, y, 1e-4, False), rel=1e-10)
    for seed in range(20):
        assert all(float(transrate(*draw(seed=seed), class_centred=c)) >= 0 for c in (False, True))
        z, y = draw(seed=seed)
        assert transrate(z, y, class_centred=True) >= transrate(z, y)  # means count on one side only


@pytest.mark.parametrize("centred", [False, True])
def test_what_does_not_change_it(centred: bool) -> None:
    z, y = draw()
    score = float(transrate(z, y, class_centred=centred))
    assert score > 0.1
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    order = np.random.default_rng(2).permutation(len(y))
    for features, labels, eps in (
        (z @ q + 3.0, y, 1e-4),
        (np.hstack([z, np.zeros((len(z), 70))]), y, 1e-4),  # the other Gram matrix
        (z[order], y[order], 1e-4),
        (z, 2 - y, 1e-4),
        (z, 5 * y, 1e-4),  # classes without samples
        (10 * z, y, 1e-2),
        (np.concatenate([z, z]), np.concatenate([y, y]), 1e-4),
    ):
        assert float(transrate(features, labels, eps=eps, class_centred=centred)) == pytest.approx(score, rel=1e-10)
    assert float(transrate(z / 100, y, class_centred=centred)) != pytest.approx(score, rel=1e-3)


@pytest.mark.parametrize("tall", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e7])
def test_what_is_small_beside_the_largest_direction_still_counts(scale: float, tall: bool) -> None:
    """Singular values `scale` and 1: squared and added up, the second would be lost beside the first."""
    q = torch.linalg.qr(torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    p = torch.linalg.qr(torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    z = (q * torch.tensor([scale, 1.0], dtype=torch.float64)) @ p.mT
    z = z if tall else z.mT.contiguous()
    m = len(z)
    expected = 0.5 * (math.log1p(1 / m * scale**2) + math.log1p(1 / m))
    assert float(coding_rate(z, 1.0)) == pytest.approx(expected, abs=1e-8)  # z holds that many digits of the 1
    gram = torch.linalg.eigvalsh(z.mT @ z / m)
    assert scale == 1 or abs(float(gram.clamp_min(0).log1p().sum() / 2) - expected) > 1e-6


def test_values_whose_squares_overflow() -> None:
    assert float(transrate([[1e200], [-1e200]], [0, 1])) == pytest.approx(0, abs=1e-10)
    found = transrate([[1e200], [-1e200]], [0, 1], class_centred=True)
    assert float(found) == pytest.approx(200 * math.log(10) + 0.5 * math.log(1e4), rel=1e-12)


def test_inputs_of_any_kind_and_few_samples() -> None:
    z, y = draw()
    score = transrate(z, y)
    assert score.dtype == torch.float64 and score.dim() == 0
    assert float(transrate(torch.tensor(z, requires_grad=True), torch.tensor(y))) == float(score)
    assert float(transrate(z.astype(np.float32), y)) == pytest.approx(float(score), rel=1e-5)
    assert float(transrate([[0.0], [2.0]], [0, 1], eps=1.0, class_centred=True)) == pytest.approx(0.5 * math.log(2))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"eps": 0.0}, "eps must be above 0 and finite, got 0"),
        ({"eps": math.nan}, "eps must be above 0 and finite, got nan"),
        ({"labels": [1, 1, 1]}, "at least 2 classes"),
        ({"features": [[1.0], [1.0], [1.0]]}, "the same in all 3 samples"),
        ({"features": [[1.0], [math.inf], [0.0]]}, "not finite"),
        ({"labels": [0, 1]}, "3 rows and 2"),
    ],
)
def test_what_has_no_score_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        transrate(**{"features": [[1.0], [2.0], [3.0]], "labels": [0, 1, 1], **changes})
