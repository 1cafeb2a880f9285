"""Selection of sources: scipy and all orders of ties as the other opinions, and what does not exist."""

from __future__ import annotations

import json
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
from published import DISTANCE, EPOCHS
from rank_oracles import FIGURES, INF, NONE, scipy_figure

from leap.metrics.pairs import within_targets
from leap.metrics.selection import selection
from leap.randomness import generator

ALL = (*FIGURES, "top1", "top3", "regret")


def _select(x: Any, y: Any, kind: Any = "distance", seed: int = 0, **how: Any) -> dict[str, Any]:
    return selection(x, y, kind=kind, generator=generator(seed), **{"resamples": 100, **how})


def _mean(found: dict[str, Any], name: str) -> float | None:
    return found[name]["rate" if name.startswith("top") else "mean"]


# Figures


@pytest.mark.parametrize("kind", ["distance", "similarity"])
def test_correlations_of_means_over_seeds_agree_with_scipy(kind: str) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 3, 6, 5))
    x[0, 1, 2] = y[1, 4, 3] = NONE
    sign = 1 if kind == "similarity" else -1
    found = _select(x, y, kind)
    a, b = sign * np.nanmean(x, axis=0), -np.nanmean(y, axis=0)
    for name in FIGURES:
        rows = [scipy_figure(one, two, name) for one, two in zip(a, b, strict=True)]
        assert found[name]["by_target"] == pytest.approx(rows, abs=1e-12)
        assert found[name]["mean"] == pytest.approx(np.mean(rows), abs=1e-12) and found[name]["count"] == 6
    assert found["kind"] == kind and (found["targets"], found["candidates"], found["seeds"]) == (6, 5, 3)


def test_positive_is_a_score_that_predicts_as_it_should() -> None:
    y = np.exp(np.random.default_rng(0).normal(size=(7, 6)))
    for good, bad, kind in ((y**3, 1 / y, "distance"), (-np.log(y), y, "similarity")):
        right, wrong = _select(good, y, kind), _select(bad, y, kind)
        for name in FIGURES:
            assert right[name]["mean"] == pytest.approx(1, abs=1e-12)
            assert right[name]["interval"] == pytest.approx([1, 1], abs=1e-12)
            assert wrong[name]["mean"] == pytest.approx(-1, abs=1e-12)
        assert right["top1"]["hits"] == right["top3"]["hits"] == right["top1"]["targets"] == 7
        assert wrong["top1"]["rate"] == wrong["top3"]["rate"] == 0
        assert right["regret"]["mean"] == 0 and wrong["regret"]["by_target"] == pytest.approx(np.ptp(y, axis=1))
    assert _select(y, y, "distance")["kendall"] == _select(-y, y, "similarity")["kendall"]


def test_the_weighted_tau_looks_at_the_best_of_either_kind() -> None:
    y = np.arange(8.0)[None]
    at_best, at_worst = y.copy(), y.copy()
    at_best[0, [0, 1]], at_worst[0, [6, 7]] = [1, 0], [7, 6]
    for kind, sign in (("distance", 1), ("similarity", -1)):
        best, worst = (_select(sign * x, y, kind) for x in (at_best, at_worst))
        assert best["kendall"]["mean"] == worst["kendall"]["mean"]
        assert best["weighted_tau"]["mean"] < worst["weighted_tau"]["mean"] - 0.05


def test_the_hardness_of_a_target_and_the_scale_of_its_scores_count_for_nothing() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 6, 7))
    hard = np.arange(1.0, 7.0)[:, None]
    found, other = _select(x, y), _select(np.exp(x) * hard, y + 100 * hard)
    for name in ALL:
        assert _mean(found, name) == pytest.approx(_mean(other, name), abs=1e-9)
        assert found[name]["interval"] == pytest.approx(other[name]["interval"], abs=1e-9)
    order, columns = np.random.default_rng(2).permutation(6), np.random.default_rng(3).permutation(7)
    moved = _select(x[order][:, columns], y[order][:, columns])
    for name in ALL:
        assert _mean(found, name) == pytest.approx(_mean(moved, name), abs=1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_hits_and_regret_are_those_of_all_orders_of_equal_scores(size: int) -> None:
    rng = np.random.default_rng(4)
    x, y = (rng.integers(0, 3, (25, 5)).astype(float) for _ in range(2))
    x[:, 0][:5] = NONE
    found = _select(x, y)
    hits, chances, regrets = [], [], []
    for a, b in zip(x, y, strict=True):
        a, b = a[~np.isnan(a)], b[~np.isnan(a)]
        if np.ptp(b) == 0:
            continue
        first = [sorted(order, key=a.__getitem__) for order in permutations(range(len(a)))]  # the sort is stable
        hits.append(np.mean([b[order[:size]].min() == b.min() for order in first]))
        regrets.append(np.mean([b[order[0]] for order in first]) - b.min())
        chances.append(np.mean([b[list(some)].min() == b.min() for some in combinations(range(len(a)), size)]))
    held = found[f"top{size}"]
    assert held["targets"] == len(hits) and set(hits) - {0.0, 1.0}
    assert held["hits"] == pytest.approx(sum(hits), abs=1e-9) and held["rate"] == pytest.approx(np.mean(hits))
    assert held["chance"] == pytest.approx(np.mean(chances), abs=1e-12)
    assert [value for value in found["regret"]["by_target"] if value is not None] == pytest.approx(regrets)


def test_the_published_distances_are_a_guide_to_the_fastest_source_in_rank_alone() -> None:
    found = _select(DISTANCE, EPOCHS)
    mean, rows = within_targets(DISTANCE, EPOCHS)
    assert found["same_tasks"] and found["spearman"]["mean"] == pytest.approx(mean)
    assert found["spearman"]["by_target"] == pytest.approx(rows)
    assert found["top1"]["hits"] == 0 and found["top3"]["hits"] == 5
    regret = EPOCHS[0, 7] - EPOCHS[0, 5]  # to cifar10: from the artificial half, where cifar100 is the fastest
    assert found["regret"]["by_target"][0] == pytest.approx(regret)


# What does not exist


def test_a_constant_row_has_no_figure_and_a_constant_score_hits_by_chance() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 5, 6))
    x[1], y[2], x[3, 2:] = 7.0, 7.0, NONE
    found = _select(x, y)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in FIGURES:
        rows = found[name]["by_target"]
        assert [row is None for row in rows] == [False, True, True, True, False] and found[name]["count"] == 2
        assert found[name]["mean"] == pytest.approx((rows[0] + rows[4]) / 2)
    assert found["top1"]["targets"] == found["top3"]["targets"] == found["regret"]["count"] == 3
    lot = _select(np.zeros((5, 6)), np.delete(y, 2, axis=0)[[0, 1, 2, 3, 0]])
    assert lot["top1"]["rate"] == pytest.approx(1 / 6) == lot["top1"]["chance"]
    assert lot["top3"]["rate"] == pytest.approx(1 / 2) == lot["top3"]["chance"]
    assert lot["spearman"] == {"mean": None, "by_target": [None] * 5, "count": 0, "interval": None}


@pytest.mark.parametrize("shape", [(4, 2), (1, 2), (3, 3)])
def test_without_three_candidates_nothing_exists(shape: tuple[int, int]) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, *shape))
    found = _select(x, y, same_tasks=shape == (3, 3))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(_mean(found, name) is None and found[name]["interval"] is None for name in ALL)
    assert found["top1"] == {"hits": 0.0, "targets": 0, "rate": None, "chance": None, "interval": None}


def test_what_was_cut_off_is_worst_whenever_that_was_and_its_regret_is_unknown() -> None:
    x, y = np.exp(np.random.default_rng(0).normal(size=(2, 6, 5)))
    x[0], x[1] = y[0], -y[1]
    limit = np.sort(y, axis=1)[:, 3:4]
    cut = y >= limit
    cut[2] = True
    early, late = (_select(x, np.where(cut, much, y), outcomes_censored=cut) for much in (limit, 99.0))
    infinite = _select(x, np.where(cut, INF, y))
    assert early == late == infinite
    ranked = np.where(cut, 99.0, y)
    rows = [scipy_figure(-a, -b, "kendall") for a, b in zip(x, ranked, strict=True)]
    assert [NONE if row is None else row for row in early["kendall"]["by_target"]] == (
        pytest.approx(rows, abs=1e-12, nan_ok=True)
    )
    assert early["regret"]["by_target"][0] == 0 and early["top1"]["targets"] == 5
    assert early["regret"]["by_target"][1] is None and early["regret"]["by_target"][2] is None


def test_seeds_beside_cut_off_values_are_summed_up_by_the_median() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 4, 5))
    cut = np.zeros((3, 4, 5), dtype=bool)
    cut[2] = True
    found, plain = _select(x, [y, y + 1, y], outcomes_censored=cut), _select(x, y + 1)
    for name in ALL:
        assert _mean(found, name) == pytest.approx(_mean(plain, name))


# Ceiling


def test_the_ceiling_is_the_mean_over_ordered_pairs_of_seeds() -> None:
    y = np.random.default_rng(0).normal(size=(3, 6, 5)) + np.random.default_rng(1).normal(size=(6, 5))
    found = _select(np.zeros((6, 5)), y)["ceiling"]
    pairs = [_select(one, two) for one, two in permutations(y, 2)]
    for name in ALL:
        assert found[name] == pytest.approx(np.mean([_mean(pair, name) for pair in pairs]), abs=1e-12)
    assert _select(y, y[0])["ceiling"] is None


def test_noise_does_not_predict_itself_and_equal_seeds_do() -> None:
    y = np.random.default_rng(0).normal(size=(4, 200, 8))
    found = _select(np.zeros((200, 8)), y)["ceiling"]
    assert [found[name] for name in FIGURES] == pytest.approx([0, 0, 0], abs=0.03)
    assert found["top1"] == pytest.approx(1 / 8, abs=0.03) and found["top3"] == pytest.approx(3 / 8, abs=0.03)
    same = _select(np.zeros((200, 8)), [y[0], y[0]])["ceiling"]
    assert same == pytest.approx(dict.fromkeys(ALL, 1) | {"regret": 0})


# Squares, forms of input, and what is refused


def test_draws_come_from_the_generator_in_every_form_of_input() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 2, 8, 5)).astype(np.float32)
    found = _select(x, y)
    assert found == _select(torch.tensor(x, requires_grad=True), y.tolist()) and found != _select(x, y, seed=1)
    gap = y.tolist()
    gap[0][1][2] = None
    hole = y.copy()
    hole[0, 1, 2] = NONE
    assert _select(x, gap) == _select(x, hole) != found


def test_a_task_is_not_its_own_candidate() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 6, 6))
    free = _select(x, y)
    np.fill_diagonal(y, NONE)
    square = _select(x, y)
    assert not free["same_tasks"] and square["same_tasks"]
    x[range(6), range(6)] = -100
    assert _select(x, y) == square == _select(x, np.nan_to_num(y), same_tasks=True)
    rows = _select(x, y, same_tasks=False)
    assert rows["spearman"]["by_target"] == square["spearman"]["by_target"]
    assert rows["spearman"]["interval"] != square["spearman"]["interval"]


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"kind": "outcome"}, "distance or similarity, got 'outcome'"),
        ({"scores": np.zeros(4)}, r"scores must be \[S, T, C\].*\(4,\)"),
        ({"outcomes": np.zeros((0, 5))}, r"outcomes must be.*\(1, 0, 5\)"),
        ({"scores": np.zeros((5, 4))}, r"same things, got \(5, 4\) and \(3, 4, 5\)"),
        ({"scores": np.zeros((2, 4, 5))}, "as many seeds.*2 and 3"),
        ({"same_tasks": True}, "as many candidates as targets, got 5 and 4"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
        ({"resamples": 99}, "100 resamples or more, got 99"),
        ({"outcomes_censored": [True]}, r"shape of the values, \(3, 4, 5\), got \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], match: str) -> None:
    held: dict[str, Any] = {"scores": np.zeros((4, 5)), "outcomes": np.zeros((3, 4, 5)), "kind": "distance"}
    with pytest.raises(ValueError, match=match):
        selection(**{**held, "generator": generator(0), **fields})
