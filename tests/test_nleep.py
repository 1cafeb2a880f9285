"""NLEEP: its principal coordinates, its mixture against sklearn and loops, its bounds, and what public code omits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from leap.metrics import nleep as module
from leap.metrics.leep import label_entropy, nce
from leap.metrics.nleep import nleep
from leap.metrics.principal import principal_coordinates
from leap.randomness import generator


def problem(
    m: int = 200, k: int = 12, c: int = 4, seed: int = 0, apart: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(m) % c
    centres = apart * torch.randn(c, k, generator=g, dtype=torch.float64)
    scale = torch.linspace(1, 3, k, dtype=torch.float64)
    return (centres[labels] + torch.randn(m, k, generator=g, dtype=torch.float64)) * scale, labels


def groups(count: int = 6, each: int = 30, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Far groups of samples, and the group of each."""
    g = torch.Generator().manual_seed(3)
    own = torch.arange(count).repeat_interleave(each)
    centres = 100 * torch.randn(count, k, generator=g, dtype=torch.float64)
    return centres[own] + torch.randn(count * each, k, generator=g, dtype=torch.float64), own


# The score


@pytest.mark.parametrize(("covariance", "kind"), [("diagonal", "diag"), ("full", "full")])
def test_the_score_is_the_loop_of_the_paper(covariance: Any, kind: str) -> None:
    """PCA, mixture, posteriors, and LEEP's three steps, of parts that are not ours."""
    features, labels = problem()
    reduced = PCA(0.8, svd_solver="full").fit_transform(features.numpy())
    reduced /= reduced[:, 0].std()
    reduced *= np.sign(np.take_along_axis(reduced, np.abs(reduced).argmax(0)[None], 0))
    seed = int(torch.randint(2**31 - 1, (), generator=generator(5)))
    mixture = GaussianMixture(20, covariance_type=kind, random_state=seed, max_iter=500).fit(reduced)
    theta, total = mixture.predict_proba(reduced), 0.0
    for i in range(200):
        expected = 0.0
        for v in range(20):
            mass = theta[:, v].sum()
            expected += theta[(labels == labels[i]).numpy(), v].sum() / mass * theta[i, v] if mass else 0
        total += math.log(expected) / 200
    found = nleep(features, labels, generator=generator(5), covariance=covariance).item()
    assert found == pytest.approx(total, abs=1e-6)
    assert found < -0.05  # a mean probability, as where the logarithm is left out, would be positive


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_groups_that_lie_far_apart_give_nce(covariance: Any) -> None:
    features, own = groups()
    for labels in (own // 2, own % 2, torch.arange(180) % 3, (own + torch.arange(180) % 5 // 4) % 3):
        found = nleep(features, labels, generator=generator(0), components=6, covariance=covariance)
        assert found.item() == pytest.approx(nce(own, labels).item(), abs=1e-9)


def test_one_component_knows_nothing() -> None:
    features, labels = problem()
    found = nleep(features, labels, generator=generator(0), components=1)
    assert found.item() == pytest.approx(-label_entropy(labels).item(), abs=1e-12)


@pytest.mark.parametrize("m", [4, 9, 30, 300])
def test_the_score_lies_between_the_negative_entropy_and_zero(m: int) -> None:
    features, labels = problem(m)
    found = nleep(features, labels, generator=generator(0)).item()
    assert -label_entropy(labels).item() - 1e-12 <= found <= 0
    if m < 10:  # one component of five samples
        assert found == pytest.approx(-label_entropy(labels).item(), abs=1e-12)


def test_more_separation_is_better() -> None:
    values = [nleep(*problem(400, apart=apart), generator=generator(0)).item() for apart in (0.0, 0.7, 1.5, 4.0)]
    assert values == sorted(values) and values[0] < -1 and values[-1] > -0.05


def test_few_samples_have_few_components() -> None:
    """On random labels the score stays within about (C - 1) / 10 of the negative entropy; 5 a class follow samples."""
    g = torch.Generator().manual_seed(0)
    gain, greedy = [], []
    for seed in range(20):
        features, labels = problem(60, c=4, apart=0.0, seed=seed)
        labels = labels[torch.randperm(60, generator=g)]
        gain.append(nleep(features, labels, generator=generator(seed)).item() + math.log(4))
        greedy.append(nleep(features, labels, generator=generator(seed), components=20).item() + math.log(4))
    assert 0 < np.mean(gain) < 1.2 * 0.3 and np.mean(greedy) > 1.5 * 0.3


@pytest.mark.parametrize(
    ("samples", "classes", "expected"), [(1000, 10, 50), (200, 10, 40), (20, 2, 4), (9, 2, 1), (2, 2, 1)]
)
def test_the_number_of_components(samples: int, classes: int, expected: int) -> None:
    assert module._components(None, samples, classes) == expected


def test_the_scale_and_place_of_features_do_not_matter() -> None:
    features, labels = problem()
    plain = nleep(features, labels, generator=generator(0)).item()
    for changed in (features * 2.0**-20, features * 2.0**20, features + 1024, 1e160 * features, 1e-160 * features):
        assert nleep(changed, labels, generator=generator(0)).item() == pytest.approx(plain, abs=1e-6)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    assert nleep(features @ turn, labels, generator=generator(0)).item() == pytest.approx(plain, abs=1e-6)
    assert nleep(features, 3 * labels + 1, generator=generator(0)).item() == pytest.approx(plain, abs=1e-9)


def test_the_seed_decides_and_nothing_else_does() -> None:
    features, labels = problem()
    first = nleep(features, labels, generator=generator(0)).item()
    np.random.seed(1)
    torch.manual_seed(1)
    assert nleep(features, labels, generator=generator(0)).item() == first
    assert len({nleep(features, labels, generator=generator(seed)).item() for seed in range(5)}) > 1
    used = generator(0)
    assert nleep(features, labels, generator=used).item() == first
    assert used.get_state().ne(generator(0).get_state()).any()


def test_repeated_samples_and_many_components_are_no_trouble() -> None:
    """Three distinct samples for 15 components: the library warns, and warnings are errors here."""
    features = torch.tensor([[0.0, 0.0], [5.0, 1.0], [1.0, 9.0]]).repeat(40, 1)
    own = torch.arange(120) % 3
    labels = (own + torch.arange(120) // 60) % 3
    found = nleep(features, labels, generator=generator(0))
    assert found.item() == pytest.approx(nce(own, labels).item(), abs=1e-9)


def test_a_mixture_that_is_still_moving_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 1)
    features, labels = problem()
    assert -math.log(4) <= nleep(features, labels, generator=generator(0)).item() < 0


@pytest.mark.parametrize("kind", ["list", "numpy", "float32", "grad"])
def test_any_kind_of_array_is_taken(kind: str) -> None:
    features, labels = groups()[0], groups()[1] // 2
    forms: dict[str, Any] = {
        "list": features.tolist(),
        "numpy": features.numpy(),
        "float32": features.float(),
        "grad": features.clone().requires_grad_(),
    }
    found = nleep(forms[kind], labels.numpy().astype(np.int32), generator=generator(0))
    assert found.dtype == torch.float64 and found.dim() == 0 and not found.requires_grad
    assert found.item() == pytest.approx(nleep(features, labels, generator=generator(0)).item(), abs=1e-3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"components": 0}, r"lie in 1 \.\. 4, the number of samples, got 0"),
        ({"components": 5}, "got 5"),
        ({"energy": 0.0}, "share of the variance, above 0 and at most 1, got 0.0"),
        ({"energy": 80}, "got 80"),
        ({"energy": math.nan}, "got nan"),
        ({"covariance": "diag"}, "'diagonal' or 'full', got 'diag'"),
        ({"labels": [1, 1, 1, 1]}, "at least 2 classes, got 1"),
        ({"labels": [0, 1]}, "4 rows and 2"),
        ({"features": [[1.0]] * 4}, "the same in all 4 samples"),
        ({"features": [[1.0], [math.inf], [2.0], [3.0]]}, "not finite"),
    ],
)
def test_what_has_no_score_is_refused(change: dict[str, Any], match: str) -> None:
    held: dict[str, Any] = {"features": [[1.0], [2.0], [3.0], [4.0]], "labels": [0, 0, 1, 1]} | change
    with pytest.raises(ValueError, match=match):
        nleep(held.pop("features"), held.pop("labels"), generator=generator(0), **held)


# Principal coordinates


@pytest.mark.parametrize(("m", "k"), [(50, 8), (8, 50), (20, 20)])
def test_coordinates_are_sklearns_up_to_sign(m: int, k: int) -> None:
    features, _ = problem(m, k)
    found = principal_coordinates(features)
    expected = PCA(svd_solver="full").fit_transform(features.numpy())[:, : min(m - 1, k)]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.abs(), np.abs(expected), atol=1e-9)
    assert (found.gather(0, found.abs().argmax(0, keepdim=True)) > 0).all()
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(principal_coordinates(features, components=3), found[:, :3], atol=1e-12)


@pytest.mark.parametrize("energy", [0.1, 0.5, 0.8, 0.99])
def test_the_fewest_axes_hold_the_energy(energy: float) -> None:
    features, _ = problem()
    share = PCA(svd_solver="full").fit(features.numpy()).explained_variance_ratio_.cumsum()
    count = principal_coordinates(features, energy=energy).shape[1]
    assert share[count - 1] >= energy and (count == 1 or share[count - 2] < energy)
    assert principal_coordinates(features, energy=energy, components=2).shape[1] == min(2, count)


def test_coordinates_keep_all_distances() -> None:
    for m, k in ((30, 6), (6, 30)):
        features, _ = problem(m, k)
        torch.testing.assert_close(
            torch.cdist(principal_coordinates(features), principal_coordinates(features)),
            torch.cdist(features, features),
            rtol=1e-9,
            atol=1e-6,
        )


def test_what_has_no_spread_has_no_axis() -> None:
    features, _ = problem(77, 3)
    constant = 3e12 / torch.arange(1, 20, dtype=torch.float64).expand(77, -1)  # some have no exact mean
    wide = torch.cat([constant, features, features @ torch.ones(3, 2, dtype=torch.float64)], dim=1)
    assert principal_coordinates(wide).shape == (77, 3)
    for size in (1e-300, 1e150):
        torch.testing.assert_close(principal_coordinates(size * features) / size, principal_coordinates(features))


@pytest.mark.parametrize("change", [{"components": 0}, {"energy": 0.0}, {"energy": 1.1}])
def test_wrong_numbers_of_axes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"got (0|0\.0|1\.1)$"):
        principal_coordinates(problem()[0], **change)
