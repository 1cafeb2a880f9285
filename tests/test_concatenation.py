"""Higher-order transfer: what adds to what, and that wide features do not win for their width."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from leap.metrics.concatenation import best_combination, best_pair, concatenated
from leap.metrics.hscore import h_score, h_score_report


def draw(m: int = 80, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Five sources of unequal width; 1 and 3 each see one of the two bits that make a class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, m)
    bits = [(y // 2)[:, None], (y % 2)[:, None]]
    noise = [rng.normal(size=(m, k)) for k in (4, 3, 5, 2, 4)]
    return [noise[0], noise[1] + 2 * bits[0], noise[2] + 0.5 * bits[0], noise[3] + 2 * bits[1], noise[4]], y


def share(x: np.ndarray, y: np.ndarray) -> float:
    """By the definition, for more samples than twice the rank."""
    null, most = np.linalg.matrix_rank(x - x.mean(0)) * 3 / (len(y) - 1), 3
    return (float(h_score(x, y)) - null) / (most - null)


def test_the_best_is_the_best_of_all() -> None:
    sources, y = draw()
    for size in range(1, 6):
        every = {
            members: share(np.hstack([sources[i] for i in members]), y)
            for members in itertools.combinations(range(5), size)
        }
        found = best_combination(sources, y, size)
        assert found.members == max(every, key=lambda members: every[members])
        assert float(found.score) == pytest.approx(every[found.members], rel=1e-10)
        assert found.left_out == 0 and found.members == tuple(sorted(found.members))
        assert found.report.rank < 3 or found.score == found.report.adjusted
    assert best_pair(sources, y).members == best_combination(sources, y, 2).members == (1, 3)


def test_features_that_add_up() -> None:
    """Two bits of four classes: each source is worth one of the three dimensions, both two, their product the third."""
    y = np.arange(40) % 4
    bits = [1.0 * (y // 2)[:, None], 1.0 * (y % 2)[:, None]]
    for features, value in ((bits[0], 1), (bits[1], 1), (concatenated(*bits), 2)):
        assert float(h_score(features, y)) == pytest.approx(value, abs=1e-12)
    assert float(h_score(concatenated(*bits, bits[0] * bits[1]), y)) == pytest.approx(3, abs=1e-12)
    found = best_pair([bits[0], bits[0] + 1, 2 - bits[0], bits[1]], y)
    # Adjusted for rank 2, of 3 dimensions two are had; copies of a bit are perfect for rank 1, and worth one.
    assert found.members == (0, 3) and found.report.rank == 2
    assert float(found.score) == pytest.approx((2 - 6 / 39) / (3 - 6 / 39), abs=1e-12)
    copies = best_pair([bits[0], bits[0] + 1], y)
    assert copies.report.adjusted == 1 and float(copies.score) == pytest.approx((1 - 3 / 39) / (3 - 3 / 39), abs=1e-12)


def test_the_score_is_the_adjusted_coefficient_of_determination() -> None:
    """Two classes: of the regression of a class on the features, by its textbook formula."""
    from sklearn.linear_model import LinearRegression

    sources, y = draw()
    x, y = np.hstack(sources[:2]), y // 2
    r2 = LinearRegression().fit(x, y).score(x, y)
    found = best_pair(sources[:2], y)
    assert float(found.score) == pytest.approx(1 - (1 - r2) * (80 - 1) / (80 - 7 - 1), rel=1e-10)


def test_few_samples_are_shrunk_and_random_features_are_near_chance() -> None:
    sources, y = draw(20)
    found = best_combination(sources, y, 4)
    assert found.report.scarce and found.report.shrinkage > 0 and found.score == found.report.adjusted
    noise = [np.random.default_rng(seed).normal(size=(400, 20)) for seed in range(4)]
    y = np.random.default_rng(9).integers(0, 4, 400)
    for size in (1, 2, 4):
        assert abs(float(best_combination(noise, y, size).score)) < 0.05


def test_the_plain_score_never_falls_and_so_is_not_compared() -> None:
    """Noise of thirty columns has more of an H-score than three columns that do tell classes apart a little."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 3
    useful = rng.normal(size=(100, 3)) + 0.6 * np.eye(3)[y]
    wide = rng.normal(size=(100, 30))
    assert h_score(wide, y) > h_score(useful, y)
    assert best_combination([wide, useful], y, 1).members == (1,)
    together = concatenated(useful, wide)
    assert h_score(together, y) >= max(h_score(wide, y), h_score(useful, y))
    assert h_score_report(together, y).adjusted < h_score_report(useful, y).adjusted


def test_a_dead_source_adds_nothing_and_has_no_score_of_its_own() -> None:
    sources, y = draw()
    dead = np.full((80, 6), 0.3)
    alone = best_combination([dead, *sources], y, 1)
    assert alone.left_out == 1 and alone.members == (1 + best_combination(sources, y, 1).members[0],)
    found = best_pair([dead, sources[1]], y)
    assert float(found.score) == pytest.approx(share(sources[1], y), rel=1e-9)
    with pytest.raises(ValueError, match=r"none of 2 combinations has a score.*the same in all"):
        best_combination([dead, dead], y, 1)


def test_side_by_side() -> None:
    joined = concatenated(np.ones((2, 1), np.float32), torch.tensor([[2.0], [3.0]], requires_grad=True), [[4], [5]])
    assert joined.tolist() == [[1, 2, 4], [1, 3, 5]] and joined.dtype == torch.float64 and not joined.requires_grad


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: concatenated(), "got no source"),
        (lambda: concatenated(np.ones((2, 1)), np.ones((3, 1))), r"same samples, got \[2, 3\] rows"),
        (lambda: concatenated(np.ones((2, 1)), [[math.nan], [1.0]]), "features of source 1 holds 1 values"),
        (lambda: best_combination([np.eye(3)], [0, 1, 1], 2), "from 1 to the 1 candidates, got 2"),
        (lambda: best_combination([np.eye(3)], [0, 1, 1], 0), "got 0"),
        (lambda: best_combination([np.eye(4)[:, :1]], [1, 1, 1, 1], 1), "none of 1 combinations.*at least 2 classes"),
        (lambda: best_combination([np.eye(4)[:, :1]], [0.5, 1, 1, 1], 1), "whole numbers"),
    ],
)
def test_what_cannot_be_combined_is_refused(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
