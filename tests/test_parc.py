"""PARC against numpy and scipy on all pairs, closed forms, and what public code gets wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from leap.metrics import parc as module
from leap.metrics.parc import parc


def problem(
    m: int = 60, k: int = 12, c: int = 4, seed: int = 0, apart: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(m) % c
    centres = apart * torch.randn(c, k, generator=g, dtype=torch.float64)
    scale = torch.linspace(1, 3, k, dtype=torch.float64)  # no two axes of equal variance
    return (centres[labels] + torch.randn(m, k, generator=g, dtype=torch.float64)) * scale, labels


def distances(features: torch.Tensor, labels: torch.Tensor, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper triangles of both matrices by numpy, along the steps of the released code; of labels as they come out."""
    centred = (features - features.mean(0)).numpy()
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    count = min(components, int((size > 1e-6 * size[0]).sum()))
    scores = left[:, :count] * size[:count]
    for column in scores.T:
        column *= np.sign(column[np.abs(column).argmax()])
    scores = scores / scores.std(axis=0)
    upper = np.triu_indices(len(scores), 1)
    one_hot = np.eye(int(labels.max()) + 1)[labels.numpy()]
    return (1 - np.corrcoef(scores))[upper].round(12), (1 - np.corrcoef(one_hot))[upper]


def by_scipy(features: torch.Tensor, labels: torch.Tensor, components: int = 32) -> float:
    one, two = distances(features, labels, components)
    return float(spearmanr(one, two.round(9)).statistic)


@pytest.mark.parametrize(
    ("m", "k", "c", "components"), [(60, 12, 4, 32), (60, 12, 7, 5), (200, 50, 37, 32), (20, 90, 3, 32), (41, 3, 2, 2)]
)
def test_the_score_is_scipys_over_all_pairs(m: int, k: int, c: int, components: int) -> None:
    features, labels = problem(m, k, c)
    expected = by_scipy(features, labels, components)
    assert parc(features, labels, components=components).item() == pytest.approx(expected, abs=1e-12)


def test_more_than_32_axes_are_left_out() -> None:
    features, labels = problem(80, 50, 4)
    assert parc(features, labels).item() == pytest.approx(by_scipy(features, labels, 32), abs=1e-12)
    assert abs(parc(features, labels).item() - parc(features, labels, components=50).item()) > 1e-3


def test_labels_have_two_distances_and_no_round_off() -> None:
    """What ranks the differences between equal distances moves the score; how far, depends on the machine."""
    features, labels = problem(200, 20, 7)
    one, two = distances(features, labels, 32)
    assert len(np.unique(two.round(9))) == 2
    noisy = spearmanr(one, two + 1e-16 * np.random.default_rng(0).normal(size=len(two)).round()).statistic
    assert abs(noisy - by_scipy(features, labels)) > 0.05
    assert parc(features, labels).item() == pytest.approx(by_scipy(features, labels), abs=1e-12)


def test_perfect_order_has_the_closed_form() -> None:
    """Tight groups: every distance within a class is below every one between classes, and no two are equal."""
    for c, each in ((3, 4), (5, 6), (8, 3)):
        g = torch.Generator().manual_seed(c)
        labels = torch.arange(c).repeat_interleave(each)
        centres = torch.randn(c, 20, generator=g, dtype=torch.float64)
        features = centres[labels] + 1e-3 * torch.randn(c * each, 20, generator=g, dtype=torch.float64)
        pairs, apart = c * each * (c * each - 1) / 2, c * (c - 1) / 2 * each**2
        found = parc(features, labels, components=c - 1).item()
        if c == 3:  # over two coordinates a correlation is 1 or -1 only
            assert found == pytest.approx(by_scipy(features, labels, 2), abs=1e-12)
            continue
        assert found == pytest.approx(math.sqrt(3 * apart * (pairs - apart) / (pairs**2 - 1)), abs=1e-12)


def test_labels_that_the_features_do_not_know_score_nothing_on_average() -> None:
    features, labels = problem(60, 12, 4, apart=0.0)
    g = torch.Generator().manual_seed(1)
    found = torch.stack([parc(features, labels[torch.randperm(60, generator=g)]) for _ in range(200)])
    assert abs(found.mean()) < 4 * found.std() / 200**0.5 and found.std() < 0.05


def test_more_separation_is_better() -> None:
    values = [parc(*problem(apart=apart)).item() for apart in (0.0, 0.5, 1.0, 3.0)]
    assert values == sorted(values) and values[0] < 0.05 and values[-1] > 0.4


def test_invariances() -> None:
    features, labels = problem()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    plain = parc(features, labels).item()
    for changed in (features[order], 1e-8 * features[order] + 3e-6, features[order] @ turn, 1e160 * features[order]):
        assert parc(changed, 9 * labels[order] + 4).item() == pytest.approx(plain, abs=1e-9)
    wide = torch.cat([features, features[:, :3], torch.full((60, 2), 7.0)], dim=1)  # of the same rank
    assert parc(wide, labels).item() == pytest.approx(by_scipy(wide, labels), abs=1e-9)


def test_axes_of_round_off_are_left_out() -> None:
    features, labels = problem(k=4)
    noise = 1e-14 * torch.randn(60, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert parc(torch.cat([features, noise], dim=1), labels).item() == pytest.approx(
        parc(features, labels).item(), abs=1e-9
    )


def test_equal_samples_are_tied() -> None:
    features, labels = problem(m=20)
    twice, both = features.repeat(3, 1), labels.repeat(3)
    assert parc(twice, both).item() == pytest.approx(by_scipy(twice, both), abs=1e-12)


def test_a_sample_without_a_direction_is_at_distance_one() -> None:
    """The mean of all samples has only zeros for coordinates: numpy's correlation of it is NaN."""
    features, labels = problem(m=40)
    features = torch.cat([features, features.mean(0, keepdim=True)])
    labels = torch.cat([labels, labels[:1]])
    one, two = (values.copy() for values in distances(features + 0.0, labels, 32))
    at_mean = np.triu_indices(41, 1)[1] == 40
    one[at_mean] = 1
    assert parc(features, labels).item() == pytest.approx(spearmanr(one, two.round(9)).statistic, abs=1e-12)


@pytest.mark.parametrize("apart", [0.5, 1e4])
def test_many_samples_are_counted_in_cells(monkeypatch: pytest.MonkeyPatch, apart: float) -> None:
    """The second is classes that have collapsed: distances within them are around 1e-8."""
    features, labels = problem(700, 6, 5, apart=apart)
    features = features if apart < 1 else features[:, :4] / torch.linspace(1, 2, 4, dtype=torch.float64)
    sorted_ = parc(features, labels).item()
    monkeypatch.setattr(module, "EXACT", 100)
    monkeypatch.setattr(module, "BLOCK", 5000)
    assert parc(features, labels).item() == pytest.approx(sorted_, abs=1e-6 if apart < 1 else 1e-4)


def test_pairs_are_taken_in_blocks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = problem()
    whole = parc(features, labels).item()
    for pairs in (1, 60, 500):
        monkeypatch.setattr(module, "BLOCK", pairs)
        assert parc(features, labels).item() == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("kind", ["list", "numpy", "float32", "grad"])
def test_any_kind_of_array_is_taken(kind: str) -> None:
    features, labels = problem()
    forms: dict[str, Any] = {
        "list": features.tolist(),
        "numpy": features.numpy(),
        "float32": features.float(),
        "grad": features.clone().requires_grad_(),
    }
    found = parc(forms[kind], labels.numpy().astype(np.float32))
    assert found.dtype == torch.float64 and found.dim() == 0 and not found.requires_grad
    assert found.item() == pytest.approx(parc(features, labels).item(), abs=1e-3 if kind == "float32" else 1e-14)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"components": 1}, "components must be at least 2, got 1"),
        ({"labels": [0, 0, 0, 0]}, "at least 2 classes, got 1"),
        ({"labels": [0, 1, 2, 3]}, "a class with two samples, got 4 classes of one sample each"),
        ({"labels": [0, 1]}, "4 rows and 2"),
        ({"features": [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [0.0, 0.0]]}, "vary along 1 line only"),
        ({"features": [[1.0, 2.0]] * 4}, "the same in all 4 samples"),
        ({"features": [[math.nan, 2.0]] * 4}, "not finite"),
    ],
)
def test_what_has_no_score_is_refused(change: dict[str, Any], match: str) -> None:
    features = [[1.0, 2.0], [0.0, 1.0], [3.0, -1.0], [2.0, 2.0]]
    held: dict[str, Any] = {"features": features, "labels": [0, 0, 1, 1]} | change
    with pytest.raises(ValueError, match=match):
        parc(held.pop("features"), held.pop("labels"), **held)


def test_distances_that_are_all_equal_are_refused() -> None:
    with pytest.raises(ValueError, match="all 10 pairs of samples are equally far"):
        module._rank_correlation(torch.tensor([0, 4]), torch.tensor([0, 6]))
