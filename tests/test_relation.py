"""How matrices relate: Mantel's test against all relabellings, intervals, and everything about two matrices at once."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from published import DISTANCE, EPOCHS, NONE
from scipy import stats

from leap.metrics.correlation import pearson, spearman
from leap.metrics.pairs import (
    off_diagonal,
    pooled_spearman,
    symmetric_part,
    within_targets,
)
from leap.metrics.relation import expected, relation
from leap.metrics.selection import selection
from leap.metrics.statistics import bootstrap_interval, mantel
from leap.randomness import generator


def _matrices(count: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two asymmetric matrices that are related."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(count, count))
    return a, a + rng.normal(size=(count, count))


# Mantel's test and intervals


@pytest.mark.parametrize("gaps", [False, True])
def test_mantel_agrees_with_all_relabellings(gaps: bool) -> None:
    a, b = _matrices(5, seed=7)
    b = b + 3 * np.random.default_rng(8).normal(size=b.shape)
    if gaps:
        a[0, 1] = b[3, 2] = NONE

    def correlation(order: tuple[int, ...]) -> float:
        index = list(order)
        x, y = off_diagonal(a[index][:, index], b)
        return float(stats.spearmanr(x, y).statistic)

    every = np.array([correlation(order) for order in permutations(range(5))])
    exact = (every >= every[0] - 1e-12).mean()
    assert 0.01 < exact < 0.99
    found = mantel(a, b, permutations=4000, generator=generator(1))
    assert found.correlation == pytest.approx(every[0], abs=1e-12)
    assert found.p_value == pytest.approx(exact, abs=3.5 * (exact * (1 - exact) / 4000) ** 0.5)


def test_mantel_rejects_unrelated_matrices_as_often_as_it_says() -> None:
    rejected = 0
    for seed in range(300):
        # A hard target and a far source lengthen whole rows and columns, which fools a plain p-value.
        rng = np.random.default_rng(seed)
        a, b = (rng.normal(size=(7, 1)) * 2 + rng.normal(size=(1, 7)) + rng.normal(size=(7, 7)) for _ in range(2))
        rejected += mantel(a, b, permutations=39, generator=generator(seed)).p_value <= 0.1
    assert rejected / 300 == pytest.approx(0.1, abs=0.055)


def test_the_sides_of_mantel() -> None:
    a, b = _matrices(7)

    def p(x: np.ndarray, side: Any) -> float:
        return mantel(x, b, permutations=199, generator=generator(0), alternative=side).p_value

    assert p(a, "greater") == p(-a, "less") == 1 / 200
    assert p(-a, "greater") == 1.0
    assert p(a, "two-sided") == p(-a, "two-sided") < 0.05
    by_value = mantel(a, b, permutations=99, generator=generator(0), method="pearson")
    assert by_value.correlation == pytest.approx(pearson(*off_diagonal(a, b)))


def test_mantel_draws_from_its_generator_and_does_not_depend_on_names() -> None:
    a, b = _matrices(8, seed=3)
    b = b + 3 * np.random.default_rng(5).normal(size=b.shape)
    runs = [mantel(a, b, permutations=300, generator=generator(seed)).p_value for seed in (0, 0, 1, 2, 3)]
    assert runs[0] == runs[1] and len(set(runs)) > 1
    order = np.random.default_rng(2).permutation(8)
    assert mantel(a[order][:, order], b[order][:, order], permutations=1, generator=generator(0)).correlation == (
        pytest.approx(mantel(a, b, permutations=1, generator=generator(0)).correlation, abs=1e-12)
    )


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"permutations": 0}, "at least 1, got 0"),
        ({"alternative": "more"}, "got 'more'"),
        ({"method": "cosine"}, "got 'cosine'"),
        ({"a": np.zeros((4, 4))}, "one value everywhere"),
        ({"a": np.zeros((3, 3))}, "got 3 and 4"),
        ({"a": np.full((4, 4), np.inf), "method": "pearson"}, "infinity"),
    ],
)
def test_mantel_refuses(fields: dict[str, Any], match: str) -> None:
    a, b = _matrices(4)
    held: dict[str, Any] = {"a": a, "b": b, "permutations": 9, "generator": generator(0)}
    with pytest.raises(ValueError, match=match):
        mantel(**(held | fields))


def test_a_bootstrap_interval_covers_a_mean_as_often_as_it_says() -> None:
    inside = []
    for seed in range(200):
        values = np.random.default_rng(seed).normal(3, 2, 40)
        ends = bootstrap_interval(
            lambda i, values=values: values[i].mean(), 40, resamples=300, generator=generator(seed), level=0.9
        )
        assert ends is not None
        inside.append(ends[0] <= 3 <= ends[1])
    assert np.mean(inside) == pytest.approx(0.9, abs=0.07)


def test_a_bootstrap_without_values_has_no_ends_and_wrong_ones_are_refused() -> None:
    assert bootstrap_interval(lambda i: None, 5, resamples=100, generator=generator(0)) is None
    for fields, match in (({"level": 1.0}, "level"), ({"resamples": 10}, "got 5 and 10"), ({"count": 1}, "got 1 and")):
        held: dict[str, Any] = {"count": 5, "resamples": 100, "generator": generator(0)}
        with pytest.raises(ValueError, match=match):
            bootstrap_interval(lambda i: 0.0, **(held | fields))


# Everything about two matrices


def test_a_relation_holds_what_its_parts_say_and_goes_through_json() -> None:
    found = relation(DISTANCE[None], EPOCHS[None], generator=generator(0), resamples=300)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["pairs"] == 55 and found["censored_pairs"] == 0 and found["seeds"] == 1
    assert round(found["pooled"]["spearman"], 2) == 0.66 and round(found["pooled"]["kendall"], 2) == 0.48
    assert found["within"]["by_target"] == within_targets(DISTANCE, EPOCHS)[1] and found["within"]["count"] == 8
    assert found["direction"] == {"agree": 23, "pairs": 27}
    assert found["mantel_p"] < 0.007
    assert found["symmetric"]["spearman"] == pooled_spearman(symmetric_part(DISTANCE), symmetric_part(EPOCHS))
    assert found["symmetric"]["pairs"] == 27
    low, high = found["pooled"]["tasks"]
    assert low < 0.66 < high and high - low > 0.1
    assert found["pooled"]["seeds"] is None and found["ceiling"] == {"pooled": None, "within": None}
    assert relation(DISTANCE[None], EPOCHS[None], generator=generator(0), resamples=300) == found


def test_a_relation_over_seeds_is_that_of_the_means_with_students_interval() -> None:
    rng = np.random.default_rng(0)
    xs, ys = (m + 0.05 * rng.normal(size=(3, 8, 8)) for m in (DISTANCE, DISTANCE + 0.1))
    ys[1, 2, 3] = NONE  # one seed lacks a pair; the others have it
    found = relation(xs, ys, generator=generator(0), permutations=50, resamples=100)
    mean = np.nanmean(ys, axis=0)
    assert found["pooled"]["spearman"] == pytest.approx(pooled_spearman(xs.mean(axis=0), mean))
    assert found["pooled"]["by_seed"] == [pooled_spearman(x, y) for x, y in zip(xs, ys, strict=True)]
    low, high = found["pooled"]["seeds"]
    assert low < np.mean(found["pooled"]["by_seed"]) < high <= 1
    assert 0 < found["ceiling"]["pooled"] < 1
    one = relation(xs, ys[0], generator=generator(0), permutations=50, resamples=100)
    assert one["pooled"]["by_seed"] == [pooled_spearman(x, ys[0]) for x in xs]
    with pytest.raises(ValueError, match=r"as many seeds.*3 and 2"):
        relation(xs, ys[:2], generator=generator(0))


def test_a_relation_does_not_depend_on_how_late_censored_values_were_cut_off() -> None:
    x, y = _matrices(6)
    y = np.exp(y)
    limit = np.sort(y.ravel())[-8]
    found = [
        relation(x, np.minimum(y, limit) * one, generator=generator(0), y_censored=y > limit, resamples=100)
        for one in (np.ones_like(y), np.where(y > limit, 1.5, 1.0))
    ]
    assert found[0] == found[1] and found[0]["censored_pairs"] > 0
    assert found[0]["pooled"]["pearson"] is None
    exact = spearman(*off_diagonal(x, np.where(y > limit, limit * 2, y)))
    assert found[0]["pooled"]["spearman"] == pytest.approx(exact, abs=1e-12)


def test_seeds_of_which_some_were_cut_off_are_summed_up_by_the_median() -> None:
    x, y = _matrices(5)
    ys = np.stack([y, y + 1, y + 5])
    censored = np.zeros_like(ys, dtype=bool)
    censored[2] = True  # one of three: the median is that of the other two and an unknown larger one, y + 1
    found = relation(x, ys, generator=generator(0), y_censored=censored, permutations=20, resamples=100)
    assert found["censored_pairs"] == 0
    assert found["pooled"]["spearman"] == pytest.approx(pooled_spearman(x, y), abs=1e-12)


def test_a_similarity_is_expected_to_fall_with_epochs() -> None:
    side = expected("similarity", "outcome")
    found = relation(-DISTANCE, EPOCHS, generator=generator(0), alternative=side, resamples=100)
    assert round(found["pooled"]["spearman"], 2) == -0.66 and found["mantel_p"] < 0.007
    assert found["direction"] == {"agree": 23, "pairs": 27}
    straight = relation(DISTANCE, EPOCHS, generator=generator(0), resamples=100)
    # As published, the nearest source is the fastest for no target: the symmetric part is what picks neighbours.
    assert found["nearest"] == straight["nearest"] == {"agree": 0, "targets": 8}
    itself = relation(EPOCHS, EPOCHS, generator=generator(0), permutations=20, resamples=100)
    assert itself["nearest"] == {"agree": 8, "targets": 8}
    with pytest.raises(ValueError, match="got 'speed'"):
        expected("speed", "outcome")


def test_a_predictor_of_the_target_alone_has_no_figure_within_targets() -> None:
    hard = np.nanmean(EPOCHS, axis=1, keepdims=True) + np.zeros((8, 8))
    found = relation(hard, EPOCHS, generator=generator(0), permutations=50, resamples=100)
    assert found["pooled"]["spearman"] > 0.8
    assert found["within"]["spearman"] is None and found["within"]["tasks"] is None


# The selection of sources in a relation


def _signed(found: dict[str, Any], sign: int) -> Any:
    return pytest.approx([None if row is None else sign * row for row in found["within"]["by_target"]], abs=1e-12)


def test_the_selection_in_a_relation_is_turned_so_that_positive_is_right() -> None:
    for x, side, sign in ((DISTANCE, "greater", 1), (-DISTANCE, "less", -1)):
        found = relation(x, EPOCHS, generator=generator(0), alternative=side, permutations=20, resamples=100)
        chosen = found["selection"]
        assert chosen["kind"] == ("distance" if sign == 1 else "similarity") and chosen["same_tasks"]
        assert chosen["spearman"]["by_target"] == _signed(found, sign)
        assert chosen["spearman"]["mean"] == pytest.approx(sign * found["within"]["spearman"])
        assert round(chosen["spearman"]["mean"], 2) == 0.58 and chosen["resamples"] == 100
        assert [chosen["top1"]["hits"], chosen["top1"]["targets"]] == list(found["nearest"].values()) == [0, 8]
        direct = selection(x, EPOCHS, kind=chosen["kind"], generator=generator(1), resamples=100)
        assert direct["weighted_tau"]["by_target"] == chosen["weighted_tau"]["by_target"]
        assert direct["regret"]["by_target"] == chosen["regret"]["by_target"]


def test_the_selection_knows_seeds_and_what_was_cut_off() -> None:
    rng = np.random.default_rng(0)
    xs, ys = (m + 0.05 * rng.normal(size=(3, 8, 8)) for m in (DISTANCE, np.nan_to_num(EPOCHS, nan=9.0)))
    cut = ys >= np.sort(ys.ravel())[-40]
    found = relation(xs, ys, generator=generator(0), y_censored=cut, permutations=20, resamples=100)
    chosen = found["selection"]
    assert chosen["seeds"] == 3 and chosen["spearman"]["by_target"] == _signed(found, 1)
    assert chosen["ceiling"]["spearman"] == pytest.approx(found["ceiling"]["within"])
    assert chosen["regret"]["count"] < 8 and json.loads(json.dumps(found, allow_nan=False)) == found
    low, high = chosen["spearman"]["interval"]
    assert low <= chosen["spearman"]["mean"] <= high


def test_a_relation_without_a_figure_within_targets_has_an_empty_selection() -> None:
    hard = np.nanmean(EPOCHS, axis=1, keepdims=True) + np.zeros((8, 8))
    chosen = relation(hard, EPOCHS, generator=generator(0), permutations=20, resamples=100)["selection"]
    assert chosen["spearman"]["mean"] is None and chosen["kendall"]["interval"] is None
    assert chosen["top1"]["rate"] == pytest.approx(chosen["top1"]["chance"])
