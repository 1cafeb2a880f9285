"""Pixel-to-pixel tasks: palettes against scikit-learn, scores against the definition pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from leap.metrics.hscore import h_score_report
from leap.metrics.pixels import palette, pixel_h_score
from leap.randomness import generator

# Palettes


def test_colours_that_are_there_are_found() -> None:
    rng = np.random.default_rng(0)
    colours = rng.permutation(np.array([[0, 0, 0], [200, 30, 10], [20, 220, 40], [255, 255, 255], [10, 10, 250]]))
    truth = rng.integers(0, 5, (7, 6, 5))
    found = palette(colours[truth].astype(np.uint8), 16, generator=generator(0))
    assert found.colours.shape == (5, 3) and found.labels.shape == (7, 6, 5) and found.labels.dtype == torch.long
    np.testing.assert_array_equal(found.colours[found.labels].numpy(), colours[truth])
    assert found.colours.sum(1).diff().min() >= 0


def test_noisy_colours_are_their_means() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (10, 20, 20))
    grey = 100.0 * truth + rng.normal(size=truth.shape)
    found = palette(grey, 4, generator=generator(0))
    assert np.array_equal(found.labels.numpy(), truth)
    np.testing.assert_allclose(found.colours[:, 0], [grey[truth == c].mean() for c in range(4)], rtol=1e-12)


def test_frequent_values_count_as_often_as_they_occur() -> None:
    images = np.array([0] * 90 + [10] * 10 + [100] * 20).reshape(1, 12, 10)
    assert palette(images, 2, generator=generator(0)).colours.flatten().tolist() == [1, 100]


def test_the_fit_is_as_good_as_that_of_another_k_means() -> None:
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    images = rng.gamma(2, 40, size=(6, 12, 12, 3)).clip(0, 255).astype(np.uint8)
    found = palette(images, generator=generator(0))
    assert found.colours.shape == (16, 3) and len(found.labels.unique()) == 16
    flat = images.reshape(-1, 3).astype(float)
    loss = ((flat - found.colours.numpy()[found.labels.flatten().numpy()]) ** 2).sum()
    assert loss < 1.03 * KMeans(16, n_init=10, random_state=0).fit(flat).inertia_
    distance = ((flat[:, None] - found.colours.numpy()) ** 2).sum(2)
    assert np.array_equal(distance.argmin(1), found.labels.flatten().numpy())


def test_a_palette_follows_its_seed_and_not_the_layout() -> None:
    images = np.random.default_rng(0).random((4, 20, 20))
    first = palette(images, generator=generator(0))
    assert torch.equal(first.colours, palette(images, generator=generator(0)).colours)
    assert not torch.equal(first.colours, palette(images, generator=generator(1)).colours)
    assert torch.equal(first.labels, palette(torch.tensor(images)[..., None], generator=generator(0)).labels)


def test_more_pixels_than_are_looked_at(monkeypatch: Any) -> None:
    import leap.metrics.pixels as module

    monkeypatch.setattr(module, "SAMPLE", 50)
    monkeypatch.setattr(module, "CHUNK", 7)
    truth = np.random.default_rng(0).integers(0, 3, (5, 20, 20))
    assert np.array_equal(palette(truth * 60, 3, generator=generator(0)).labels.numpy(), truth)


@pytest.mark.parametrize("kind", ["bool", "uint8", "uint16", "int32", "float16", "float32"])
def test_images_of_any_kind(kind: str) -> None:
    images = np.array([[[0, 1], [1, 0]]]).astype(kind)
    found = palette(images, generator=generator(0))
    assert found.colours.flatten().tolist() == [0, 1] and found.labels.tolist() == [[[0, 1], [1, 0]]]


@pytest.mark.parametrize(
    ("images", "colours", "match"),
    [
        (np.zeros((2, 3, 3)), 16, r"one colour, \[0.0\]"),
        (np.eye(3)[None], 1, "at least 2 colours, got 1"),
        (np.eye(3), 16, r"got shape \[3, 3\]"),
        (np.full((1, 2, 2), math.nan), 16, "4 values that are not finite"),
    ],
)
def test_what_has_no_palette_is_refused(images: Any, colours: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        palette(images, colours, generator=generator(0))


# Scores


def h_score_by_definition(f: np.ndarray, y: np.ndarray) -> float:
    total, between = np.atleast_2d(np.cov(f.T, bias=True)), np.zeros((f.shape[1],) * 2)
    for c in np.unique(y):
        gap = f[y == c].mean(0) - f.mean(0)
        between += (y == c).mean() * np.outer(gap, gap)
    return float(np.trace(np.linalg.pinv(total, hermitian=True) @ between))


def draw(m: int = 60, k: int = 5, side: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of pictures, and maps of up to four classes that depend on them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(m, k))
    depth = np.einsum("mk,khw->mhw", features, rng.normal(size=(k, side, side))) + rng.normal(size=(m, side, side))
    return features, np.digitize(depth, [-2, 0, 2])


def test_it_is_the_mean_of_the_scores_of_pixels() -> None:
    features, maps = draw()
    maps[:, 1, 2] = 3  # nothing to predict here
    found = pixel_h_score(features, maps)
    one = [h_score_by_definition(features, maps[:, i, j]) for i in range(4) for j in range(4)]
    np.testing.assert_allclose(found.by_pixel.flatten(), one, atol=1e-10)
    assert found.left_out == 1 and not found.scored[1, 2] and int(found.scored.sum()) == 15
    assert float(found.score) == pytest.approx(sum(one) / 15, rel=1e-10)
    others = np.array([len(np.unique(maps[:, i, j])) - 1 for i in range(4) for j in range(4)])
    null, most = 5 * others / 59, np.minimum(5, others)
    kept = others > 0
    assert float(found.adjusted) == pytest.approx(((one - null)[kept] / (most - null)[kept]).mean(), rel=1e-10)


def test_features_of_every_pixel_are_scored_where_they_are() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 3, (40, 2, 3))
    features = rng.normal(size=(40, 4, 2, 3)) + maps[:, None]
    features[:, :, 0, 1] = 7.1  # a pixel that the network is blind to
    found = pixel_h_score(features, maps)
    for i in range(2):
        for j in range(3):
            expected = h_score_by_definition(features[:, :, i, j], maps[:, i, j]) if (i, j) != (0, 1) else 0.0
            assert float(found.by_pixel[i, j]) == pytest.approx(expected, abs=1e-10)
    assert found.left_out == 1 and not found.scored[0, 1]
    assert float(found.score) == pytest.approx(float(found.by_pixel.sum()) / 5, rel=1e-12)
    everywhere = pixel_h_score(features[:, :, 1:2, 1:2].repeat(2, 2).repeat(3, 3), maps)
    torch.testing.assert_close(everywhere.by_pixel, pixel_h_score(features[:, :, 1, 1], maps).by_pixel)


@pytest.mark.parametrize("k", [5, 90])
@pytest.mark.parametrize("shrinkage", ["ledoit-wolf", 0.3, 1.0])
def test_shrunk_it_is_the_mean_of_the_shrunk_scores_of_pixels(k: int, shrinkage: Any) -> None:
    features, maps = draw(k=k, side=2)
    features = features * np.linspace(1, 3, k) + 5
    found = pixel_h_score(features, maps, shrinkage=shrinkage)
    one = [h_score_report(features, maps[:, i, j], shrinkage=shrinkage) for i in range(2) for j in range(2)]
    np.testing.assert_allclose(found.by_pixel.flatten(), [report.score for report in one], atol=1e-10)
    assert float(found.adjusted) == pytest.approx(np.mean([report.adjusted for report in one]), abs=1e-10)
    dense = pixel_h_score(features[:, :, None, None].repeat(2, 2).repeat(2, 3), maps, shrinkage=shrinkage)
    torch.testing.assert_close(dense.by_pixel, found.by_pixel, rtol=0, atol=1e-10)
    assert float(dense.adjusted) == pytest.approx(float(found.adjusted), abs=1e-10)


def test_closed_forms() -> None:
    """One feature: the share of its variance that is between classes."""
    f = np.array([[0.0], [1.0], [4.0], [5.0]])
    maps = np.array([[[0, 0, 5]], [[0, 1, 5]], [[1, 0, 5]], [[1, 1, 5]]])
    found = pixel_h_score(f, maps)
    np.testing.assert_allclose(found.by_pixel, [[16 / 17, 1 / 17, 0]], atol=1e-12)
    assert float(found.score) == pytest.approx(0.5) and found.left_out == 1
    perfect = np.eye(3)[np.arange(30) % 3]
    assert float(pixel_h_score(perfect, (np.arange(30) % 3)[:, None, None]).score) == pytest.approx(2, abs=1e-12)
    assert float(pixel_h_score(perfect, (np.arange(30) % 3)[:, None, None]).adjusted) == pytest.approx(1, abs=1e-12)


def test_random_features_have_an_adjusted_score_of_nothing() -> None:
    rng = np.random.default_rng(0)
    found = pixel_h_score(rng.normal(size=(50, 20)), rng.integers(0, 4, (50, 20, 20)))
    assert float(found.score) == pytest.approx(20 * 3 / 49, abs=0.05)  # what chance gives
    assert abs(float(found.adjusted)) < 0.03


def test_what_does_not_change_it() -> None:
    features, maps = draw()
    rng = np.random.default_rng(1)
    score = pixel_h_score(features, maps)
    mixed = np.hstack([features, features]) @ np.vstack([rng.normal(size=(5, 5))] * 2) + 100
    for f, y in (
        (mixed, maps),
        (np.hstack([features, features[:, :2], np.ones((60, 1))]), maps),
        (features[::-1].copy(), maps[::-1].copy()),
        (features, 3 - maps),
        (features, 1000 * maps),
        (torch.tensor(features, requires_grad=True), torch.tensor(maps, dtype=torch.uint8)),
    ):
        other = pixel_h_score(f, y)
        torch.testing.assert_close(other.by_pixel, score.by_pixel, rtol=0, atol=1e-9)
        assert float(other.adjusted) == pytest.approx(float(score.adjusted), abs=1e-9)
    more = pixel_h_score(np.hstack([features, rng.normal(size=(60, 3))]), maps)
    assert (more.by_pixel >= score.by_pixel - 1e-12).all()


def test_blocks_have_the_class_that_most_of_their_pixels_have() -> None:
    features, _ = draw(m=4, k=1)
    maps = np.zeros((4, 2, 4), int)
    maps[0] = [[1, 1, 2, 1], [1, 0, 1, 2]]  # three ones; two of either
    maps[1] = [[0, 2, 2, 2], [2, 0, 0, 2]]  # two of either; three twos
    maps[2] = [[2, 2, 0, 1], [2, 2, 2, 0]]
    blocks = np.array([[[1, 1]], [[0, 2]], [[2, 0]], [[0, 0]]])
    found, expected = pixel_h_score(features, maps, superpixels=2), pixel_h_score(features, blocks)
    assert found.by_pixel.shape == (1, 2)
    torch.testing.assert_close(found.by_pixel, expected.by_pixel)
    f, y = draw()
    assert torch.equal(
        pixel_h_score(f, y.repeat(3, 1).repeat(3, 2), superpixels=3).by_pixel, pixel_h_score(f, y).by_pixel
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"superpixels": 3}, "divide the 4 x 4 pixels, got 3"),
        ({"superpixels": 0}, "got 0"),
        ({"label_maps": np.zeros((60, 4, 4), int)}, "none of the 16 pixels"),
        ({"label_maps": np.zeros((60, 4))}, r"label_maps must be \[m, H, W\].*\[60, 4\]"),
        ({"label_maps": np.full((60, 4, 4), -1)}, "label_maps must run from 0 on, got -1"),
        ({"label_maps": np.full((60, 4, 4), 0.5)}, "whole numbers"),
        ({"features": np.zeros((59, 5))}, r"\[60, k\] or \[60, k, 4, 4\].*\[59, 5\]"),
        ({"features": np.zeros((60, 5, 2, 2))}, r"\[60, 5, 2, 2\]"),
        ({"features": np.zeros((60, 5))}, "the same in all 60 samples"),
        ({"features": np.zeros((60, 5, 4, 4))}, "none of the 16 pixels"),
        ({"features": np.full((60, 5), math.nan)}, "not finite"),
        ({"features": np.random.default_rng(0).normal(size=(60, 90))}, "n = 60 and r = 59"),
        ({"features": np.random.default_rng(0).normal(size=(60, 31, 4, 4))}, "n = 60 and r = 31"),
        ({"shrinkage": 2.0}, "shrinkage must be"),
    ],
)
def test_what_has_no_score_is_refused(changes: dict[str, Any], match: str) -> None:
    features, maps = draw()
    with pytest.raises(ValueError, match=match):
        pixel_h_score(**{"features": features, "label_maps": maps, **changes})


def test_words_are_no_numbers() -> None:
    with pytest.raises(TypeError, match="arrays of numbers"):
        palette([["a"]], generator=generator(0))
