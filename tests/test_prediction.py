"""Prediction over tasks: scipy, all permutations and a literal bootstrap as the other opinions, and planted scores."""

from __future__ import annotations

import json
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
from rank_oracles import FIGURES, INF, NONE
from scipy import stats

from leap.metrics.prediction import prediction
from leap.randomness import generator


def _predict(x: Any, y: Any, kind: Any = "similarity", seed: int = 0, **how: Any) -> dict[str, Any]:
    return prediction(x, y, kind=kind, generator=generator(seed), **{"resamples": 100, "permutations": 50, **how})


def _studied(seed: int, tasks: int = 12, seeds: int = 3, noise: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """A score and an outcome that falls with it, a row a seed."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=tasks)
    return truth + noise * rng.normal(size=(seeds, tasks)), noise * rng.normal(size=(seeds, tasks)) - truth


@pytest.mark.parametrize("kind", ["similarity", "distance"])
def test_figures_agree_with_scipy_beside_ties_and_gaps(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 6, 15).astype(float) for _ in range(2))
    x[3] = y[5] = NONE
    y[7] = INF
    found = _predict(x, y, kind)
    held = ~np.isnan(x) & ~np.isnan(y)
    a, b = (x if kind == "similarity" else -x)[held], -y[held]
    for name, figure in FIGURES.items():
        assert found[name]["value"] == pytest.approx(figure(a, b), abs=1e-12)
    assert (found["tasks"], found["seeds"], found["censored"], found["kind"]) == (13, 1, 1, kind)
    assert found["by_seed"] == [found["spearman"]["value"]] and found["ceiling"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_positive_is_a_score_that_predicts_as_it_should() -> None:
    error = np.exp(np.random.default_rng(0).normal(size=9))
    for score, kind in ((-np.log(error), "similarity"), (error**2, "distance")):
        right, wrong = _predict(score, error, kind), _predict(-score, error, kind)
        for name in FIGURES:
            assert right[name]["value"] == pytest.approx(1) and wrong[name]["value"] == pytest.approx(-1)
            assert right[name]["interval"] == pytest.approx([1, 1])
        assert right["p_value"] == 1 / 51 and wrong["p_value"] == 1


def test_seeds_are_averaged_and_each_has_its_own_figure() -> None:
    x, y = _studied(0)
    found = _predict(x, y)
    for name, figure in FIGURES.items():
        assert found[name]["value"] == pytest.approx(figure(x.mean(axis=0), -y.mean(axis=0)), abs=1e-12)
        pairs = [figure(one, two) for one, two in combinations(y, 2)]
        alone = [_predict(-one, two)[name]["value"] for one, two in permutations(y, 2)]
        assert found["ceiling"][name] == pytest.approx(np.mean(alone), abs=1e-12)
        assert name == "weighted_tau" or found["ceiling"][name] == pytest.approx(np.mean(pairs), abs=1e-12)
    assert found["by_seed"] == pytest.approx([stats.spearmanr(a, -b).statistic for a, b in zip(x, y, strict=True)])
    one = _predict(x[0], y)
    assert one["by_seed"] == pytest.approx([stats.spearmanr(x[0], -b).statistic for b in y]) and one["seeds"] == 3
    assert _predict(x, y[0])["ceiling"] is None


def test_noise_does_not_predict_itself() -> None:
    y = np.random.default_rng(0).normal(size=(8, 400))
    assert list(_predict(np.arange(400), y)["ceiling"].values()) == pytest.approx([0, 0, 0], abs=0.05)


@pytest.mark.parametrize("tied", [False, True])
def test_the_p_value_is_that_of_all_permutations(tied: bool) -> None:
    x, y = _studied(1, tasks=6, seeds=1, noise=1.2)
    x, y = (np.round(x), np.round(y)) if tied else (x, y)
    every = np.array([stats.spearmanr(x[0, list(order)], -y[0]).statistic for order in permutations(range(6))])
    exact = (every >= every[0] - 1e-12).mean()
    found = _predict(x, y, permutations=4000)["p_value"]
    assert 0.01 < exact < 0.99 and found == pytest.approx(exact, abs=3.5 * (exact * (1 - exact) / 4000) ** 0.5)


def test_unrelated_scores_are_called_related_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    p = [_predict(*rng.normal(size=(2, 2, 8)), seed=seed, permutations=39)["p_value"] for seed in range(300)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.055)


def test_intervals_are_those_of_a_literal_bootstrap() -> None:
    x, y = _studied(2, tasks=7)
    found = _predict(x, y, level=0.8)
    g = generator(0)
    chosen, seeds = (torch.randint(n, (100, n), generator=g).numpy() for n in (7, 3))
    different = np.array([len(set(s)) for s in seeds])
    for name, figure in FIGURES.items():

        def literal(tasks: np.ndarray, at: np.ndarray, figure: Any = figure) -> float:
            a, b = (m[np.sort(at)].mean(axis=0)[tasks] for m in (x, -y))
            return float(figure(a, b))

        every = np.arange(7)
        alone = np.array([literal(every, s) for s in seeds])
        shift = [alone[different == count].mean() - literal(every, np.arange(3)) for count in different]
        drawn = np.array([literal(at, s) for at, s in zip(chosen, seeds, strict=True)])
        ends = np.clip(np.quantile(drawn - shift, [0.1, 0.9]), -1, 1)
        assert found[name]["interval"] == pytest.approx(ends, abs=1e-9)


def test_intervals_cover_what_a_planted_score_is_worth() -> None:
    worth = {
        name: np.mean([figure(x.mean(axis=0), -y.mean(axis=0)) for x, y in (_studied(s, 25) for s in range(200))])
        for name, figure in FIGURES.items()
    }
    inside: dict[str, list[bool]] = {name: [] for name in FIGURES}
    for seed in range(80):
        found = _predict(*_studied(1000 + seed, 25), seed=seed, level=0.9)
        for name in FIGURES:
            low, high = found[name]["interval"]
            inside[name].append(low <= worth[name] <= high)
            assert low <= found[name]["value"] <= high and high - low < 1
    assert all(np.mean(values) >= 0.85 for values in inside.values())


def test_many_tasks_and_noisy_seeds_leave_the_figure_inside_its_interval() -> None:
    x, y = _studied(0, tasks=100, seeds=10, noise=1.0)
    found = _predict(x, y, resamples=400)
    for name in FIGURES:
        low, high = found[name]["interval"]
        assert low < found[name]["value"] < high < 1 and high - low < 0.25


def test_tasks_cut_off_are_worst_whenever_that_was() -> None:
    x, y = _studied(3, seeds=1)
    cut = y >= np.sort(y[0])[8]
    early, late = (_predict(x, np.where(cut, much, y), outcomes_censored=cut) for much in (y[cut].min(), 99.0))
    assert early == late == _predict(x, np.where(cut, INF, y)) and early["censored"] == 4
    worst = np.where(cut, 99.0, y)[0]
    assert early["kendall"]["value"] == pytest.approx(stats.kendalltau(x[0], -worst).statistic)
    median = _predict(x[0], [y[0], y[0] + 1, y[0]], outcomes_censored=[[False] * 12, [False] * 12, [True] * 12])
    assert median["spearman"]["value"] == pytest.approx(_predict(x, y)["spearman"]["value"]) and not median["censored"]


def test_a_task_without_a_score_is_as_one_that_was_never_there() -> None:
    x, y = _studied(4)
    gap = np.insert(x, 5, NONE, axis=1)
    assert _predict(gap, np.insert(y, 5, 7.0, axis=1)) == _predict(x, y)


def test_draws_come_from_the_generator_in_every_form_of_input() -> None:
    x, y = (m.astype(np.float32) for m in _studied(5))
    found = _predict(x, y)
    assert found == _predict(torch.tensor(x, requires_grad=True), y.tolist()) and found != _predict(x, y, seed=1)
    order = np.random.default_rng(0).permutation(12)
    moved = _predict(x[:, order], y[:, order])
    for name in FIGURES:
        assert moved[name]["value"] == pytest.approx(found[name]["value"], abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"kind": "outcome"}, "distance or similarity, got 'outcome'"),
        ({"scores": np.zeros((2, 2, 5))}, r"scores must be \[S, T\].*\(2, 2, 5\)"),
        ({"scores": np.arange(6.0)}, r"same things, got \(6,\) and \(3, 5\)"),
        ({"scores": np.ones((2, 5))}, "as many seeds.*2 and 3"),
        ({"scores": [1, 2, 3, None, None]}, "at least 4 tasks with a score and an outcome, got 3"),
        ({"scores": np.full(5, 3.0)}, "one value everywhere has no order, got 3 5 times"),
        ({"outcomes": np.full((3, 5), 2.0)}, "one value everywhere has no order, got 2 5 times"),
        ({"outcomes_censored": np.ones((3, 5), dtype=bool)}, "one value everywhere has no order, got inf 5 times"),
        ({"permutations": 0}, "permutations must be at least 1, got 0"),
        ({"level": 0.0}, "level must lie between 0 and 1, got 0.0"),
        ({"resamples": 5}, "100 resamples or more, got 5"),
    ],
)
def test_what_foretells_nothing_is_refused(fields: dict[str, Any], match: str) -> None:
    held: dict[str, Any] = {"scores": np.arange(5.0), "outcomes": np.arange(15.0).reshape(3, 5), "kind": "distance"}
    with pytest.raises(ValueError, match=match):
        prediction(**{**held, "generator": generator(0), **fields})
