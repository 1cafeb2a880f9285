"""Rank correlations of rows, also of drawn ones, against scipy; and intervals: literal bootstraps, and coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rank_oracles import FIGURES, INF, NONE, scipy_figure

from leap.metrics import rank_rows
from leap.metrics.rank_rows import compare, correlations, draws, over_seeds, repetitions
from leap.metrics.selection import selection
from leap.randomness import generator


def _rows(seed: int, rows: int = 12, columns: int = 8, gaps: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Related rows with ties, infinities and gaps."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, (rows, columns)).astype(float)
    y = np.round(x + rng.normal(0, 2, x.shape))
    y[rng.random(x.shape) < 0.1] = INF
    for m in (x, y):
        m[rng.random(x.shape) < gaps] = NONE
    return x, y


def _select(x: Any, y: Any, kind: Any = "distance", seed: int = 0, **how: Any) -> dict[str, Any]:
    return selection(x, y, kind=kind, generator=generator(seed), **{"resamples": 100, **how})


# Rank correlations of rows


@pytest.mark.parametrize("gaps", [0.0, 0.4])
def test_rows_with_ties_gaps_and_infinities_agree_withscipy_figure(gaps: float) -> None:
    x, y = _rows(0, rows=60, columns=7, gaps=gaps)
    found = correlations(compare(x, y), np.ones((1, 7), dtype=int))
    for name, values in found.items():
        np.testing.assert_allclose(values[0], [scipy_figure(a, b, name) for a, b in zip(x, y, strict=True)], atol=1e-12)
    assert np.isnan(found["kendall"]).any() == (gaps > 0)


def test_drawn_columns_are_columns_with_copies() -> None:
    x, y = _rows(1, rows=5, columns=9)
    drawn = np.random.default_rng(0).integers(0, 9, (40, 9))
    counts = np.stack([np.bincount(one, minlength=9) for one in drawn])
    for name, values in correlations(compare(x, y), counts).items():
        literal = [[scipy_figure(a[one], b[one], name) for a, b in zip(x, y, strict=True)] for one in drawn]
        np.testing.assert_allclose(values, literal, atol=1e-12)


def test_many_draws_in_parts_are_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _rows(2)
    counts = np.random.default_rng(0).integers(0, 3, (50, 8))
    whole = correlations(compare(x, y), counts)
    monkeypatch.setattr(rank_rows, "AT_ONCE", 7 * x.size)
    for name, values in correlations(compare(x, y), counts).items():
        np.testing.assert_allclose(values, whole[name], atol=1e-12)


def test_seeds_are_summed_up_without_what_is_missing() -> None:
    stack = np.array([[1.0, NONE, NONE], [3.0, 4.0, NONE], [8.0, 5.0, NONE]])
    np.testing.assert_array_equal(over_seeds(stack), [4.0, 4.5, NONE])
    np.testing.assert_array_equal(over_seeds(stack, median=True), [3.0, 4.5, NONE])
    np.testing.assert_array_equal(over_seeds(np.where(stack == 8, INF, stack)), [3.0, 4.5, NONE])
    assert np.isnan(over_seeds(np.array([[-INF], [INF]]))).all()


def test_a_draw_of_seeds_is_summed_up_as_all_of_them_are() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 3, 2, 4))
    y[2, 1, 1] = INF  # of the third seed, which the draw does not have
    a, b = repetitions(x, y, None, "distance", axes="T, C").of(np.array([0, 0, 1]))
    np.testing.assert_allclose(a, -(2 * x[0] + x[1]) / 3)
    np.testing.assert_array_equal(b, y[0])


# Intervals


@pytest.mark.parametrize("same", [False, True])
def test_intervals_are_those_of_a_literal_bootstrap(same: bool) -> None:
    rng, tasks, level = np.random.default_rng(3), 6, 0.8
    x, y = rng.normal(size=(2, 3, tasks, tasks)) + 1.5 * rng.normal(size=(tasks, tasks))
    if same:
        x[:, range(tasks), range(tasks)] = NONE
    found = _select(x, y, level=level)
    assert found["same_tasks"] == same
    g = generator(0)
    chosen, seeds = (torch.randint(n, (100, n), generator=g).numpy() for n in (tasks, 3))

    def literal(name: str, at: np.ndarray, columns: np.ndarray, chosen_seeds: np.ndarray) -> float:
        one, two = (-m[np.sort(chosen_seeds)].mean(axis=0)[np.ix_(at, columns)] for m in (x, y))
        rows = [scipy_figure(a, b, name) for a, b in zip(one, two, strict=True)]
        there = [value for value in rows if not np.isnan(value)]
        return float(np.mean(there)) if there else NONE

    every = np.arange(tasks)
    for name in FIGURES:
        value = literal(name, every, every, np.arange(3))
        drawn = [literal(name, at, at if same else every, s) for at, s in zip(chosen, seeds, strict=True)]
        alone = np.array([literal(name, every, every, s) for s in seeds])
        different = np.array([len(set(s)) for s in seeds])  # of three seeds: one, two or all
        shift = np.array([alone[different == count].mean() - value for count in different])
        ends = np.clip(np.nanquantile(drawn - shift, [0.1, 0.9]), -1, 1)
        assert found[name]["interval"] == pytest.approx(ends, abs=1e-9)


def test_hits_and_regret_are_drawn_over_targets_with_all_their_candidates() -> None:
    y = np.random.default_rng(3).normal(size=(9, 9))
    x = y + np.random.default_rng(4).normal(size=(9, 9))
    np.fill_diagonal(y, NONE)
    found = _select(x, y, resamples=200)
    counts = draws(9, 1, 200, generator(0), 0.95).counts
    np.fill_diagonal(x, NONE)
    regret = np.array(found["regret"]["by_target"])
    assert found["regret"]["interval"] == pytest.approx(np.quantile(counts @ regret / 9, [0.025, 0.975]))
    hit = np.nanargmin(x, axis=1) == np.nanargmin(y, axis=1)
    assert found["top1"]["interval"] == pytest.approx(np.quantile(counts @ hit / 9, [0.025, 0.975]))


@pytest.mark.parametrize(("same", "seeds"), [(False, 1), (False, 3), (True, 1)])
def test_intervals_cover_what_a_planted_score_is_worth(same: bool, seeds: int) -> None:
    """Distances between points in the plane, or free ones, seen through noise by a score and by training."""

    def study(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        points, free = rng.normal(size=(14, 2)), rng.normal(size=(14, 9))
        truth = np.linalg.norm(points[:, None] - points, axis=2) if same else free
        return truth + 0.5 * rng.normal(size=truth.shape), truth + rng.normal(size=(seeds, *truth.shape))

    worth = {}
    for name in FIGURES:
        rng, means = np.random.default_rng(0), []
        for _ in range(150):
            x, y = study(rng)
            a, b = -x, -y.mean(axis=0)
            if same:
                np.fill_diagonal(a, NONE)
            means.append(np.nanmean(correlations(compare(a, b), np.ones((1, a.shape[1]), dtype=int))[name]))
        worth[name] = np.mean(means)
    inside: dict[str, list[bool]] = {name: [] for name in FIGURES}
    for seed in range(60):
        x, y = study(np.random.default_rng(1000 + seed))
        found = _select(x, y, seed=seed, same_tasks=same, level=0.9)
        for name in FIGURES:
            low, high = found[name]["interval"]
            inside[name].append(low <= worth[name] <= high)
            assert low <= found[name]["mean"] <= high and (same or low > 0)
    assert all(np.mean(values) >= 0.8 for values in inside.values())


def test_intervals_narrow_with_targets_and_need_two_of_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 8))
    y = x + rng.normal(size=(2, 80, 8))

    def width(count: int) -> float:
        low, high = _select(x[:count], y[:, :count], resamples=400)["weighted_tau"]["interval"]
        return high - low

    assert width(80) < 0.6 * width(10)
    one = _select(x[:1], y[:, :1])
    assert one["spearman"]["interval"] is None and one["spearman"]["count"] == 1
