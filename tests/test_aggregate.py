"""Scores over runs and games: closed forms, invariances, scipy's answers, and intervals that cover as often as told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, trim_mean

from leap.metrics.aggregate import (
    Estimate,
    estimate,
    human_normalized,
    improvement,
    iqm,
    mean,
    median,
    optimality_gap,
    paired_difference,
    performance_profile,
    random_normalized,
)

STATISTICS = (iqm, mean, median, optimality_gap)


def _stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _scores(runs: int, games: int, seed: int = 0) -> np.ndarray:
    return _stream(seed).gamma(2.0, 0.4, size=(runs, games))


# Figures


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (5, 3), (10, 26), (7, 2)])
def test_the_interquartile_mean_is_scipys_trimmed_mean(shape: tuple[int, int]) -> None:
    scores = _scores(*shape)
    assert float(iqm(scores)) == pytest.approx(trim_mean(scores, 0.25, axis=None), rel=1e-12)


def test_figures_of_a_small_table_by_hand() -> None:
    scores = [[0.0, 0.2, 2.0], [0.4, 0.6, 4.0]]  # sorted 0 .2 .4 .6 2 4: one is cut off at each end
    assert float(iqm(scores)) == pytest.approx((0.2 + 0.4 + 0.6 + 2.0) / 4)
    assert float(mean(scores)) == pytest.approx(1.2)
    assert float(median(scores)) == pytest.approx(0.4)  # games' means: .2, .4, 3
    assert float(optimality_gap(scores)) == pytest.approx(1 - (0 + 0.2 + 1 + 0.4 + 0.6 + 1) / 6)
    assert float(optimality_gap(scores, target=5.0)) == pytest.approx(5 - 1.2)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_neither_runs_nor_games_have_an_order_and_leading_axes_are_further_tables(statistic: object) -> None:
    assert callable(statistic)
    scores, stream = _scores(6, 4), _stream(1)
    moved = stream.permuted(scores, axis=0)[:, stream.permutation(4)]  # runs of each game in an order of its own
    assert float(statistic(moved)) == pytest.approx(float(statistic(scores)), rel=1e-12)
    many = stream.normal(size=(2, 3, 6, 4))
    assert np.allclose(statistic(many), [[float(statistic(table)) for table in row] for row in many])


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_means_move_with_the_scale(factor: float, shift: float) -> None:
    scores = _scores(5, 3)
    for statistic in (iqm, mean, median):
        assert float(statistic(factor * scores + shift)) == pytest.approx(factor * float(statistic(scores)) + shift)


def test_one_outlier_moves_the_mean_and_not_the_interquartile_mean() -> None:
    scores = _scores(5, 4)
    wild = scores.copy()
    wild[np.unravel_index(wild.argmax(), wild.shape)] = 1e6
    assert float(iqm(wild)) == pytest.approx(float(iqm(scores)))
    assert float(mean(wild)) > 1e4


@pytest.mark.parametrize("scores", [[1.0, 2.0], 3.0, np.zeros((0, 3))])
def test_what_is_no_table_is_refused(scores: object) -> None:
    with pytest.raises(ValueError, match="got shape"):
        iqm(scores)


# Probability of improvement


def test_the_probability_of_improvement_is_mann_and_whitneys() -> None:
    x, y = np.round(_scores(7, 3), 1), np.round(_scores(5, 3, seed=1), 1)  # rounded: with ties
    expected = np.mean([mannwhitneyu(x[:, m], y[:, m]).statistic / 35 for m in range(3)])
    assert float(improvement(x, y)) == pytest.approx(expected, rel=1e-12)


def test_probabilities_of_improvement_that_are_known() -> None:
    assert float(improvement([[1.0], [2.0]], [[3.0], [4.0]])) == 0.0
    assert float(improvement([[5.0, 0.0]], [[3.0, 0.0]])) == 0.75  # surely better in one game, equal in the other
    assert float(improvement(np.ones((3, 2)), np.ones((4, 2)))) == 0.5


def test_it_sees_the_order_within_a_game_alone() -> None:
    x, y = _scores(6, 3), _scores(6, 3, seed=1)
    forward = float(improvement(x, y))
    assert float(improvement(y, x)) == pytest.approx(1 - forward)
    for grown in (np.exp, np.cbrt, lambda held: 100 * held - 7):
        assert float(improvement(grown(x), grown(y))) == pytest.approx(forward)
    each = np.array([1.0, 50.0, 0.02])  # every game on its own scale
    assert float(improvement(x * each, y * each)) == pytest.approx(forward)


def test_normal_scores_give_the_probability_that_theory_gives() -> None:
    from scipy.stats import norm

    x, y = _stream(0).normal(0.7, 1, (1500, 2)), _stream(1).normal(0, 1, (1500, 2))
    assert float(improvement(x, y)) == pytest.approx(norm.cdf(0.7 / 2**0.5), abs=0.012)


def test_other_games_are_refused() -> None:
    with pytest.raises(ValueError, match="the same games, got 2 and 3"):
        improvement(np.zeros((4, 2)), np.zeros((4, 3)))


# Normalization


def test_normalized_scores() -> None:
    found = human_normalized([[1.0, -20.0], [3.0, 15.0]], [1.0, -20.0], [5.0, 15.0])
    assert found.tolist() == [[0.0, 0.0], [0.5, 1.0]]
    assert random_normalized([-10.0, 5.0], [-20.0, 10.0]).tolist() == [0.5, -0.5]  # more is better below zero as well
    with pytest.raises(ValueError, match="above random ones"):
        human_normalized([1.0], [2.0], [2.0])
    with pytest.raises(ValueError, match="must not be 0"):
        random_normalized([1.0], [0.0])


# Intervals


def test_intervals_cover_as_often_as_they_say() -> None:
    """Skewed scores of ten runs on six games: 300 experiments, 95% asked for; see the module's own figures."""
    place = np.linspace(0, 1, 6)
    experiments = np.exp(0.5 * _stream(3).normal(size=(300, 2, 10, 6))) + place
    truth = float(mean(np.exp(0.5 * _stream(4).normal(size=(200_000, 6))) + place))
    means = [estimate(mean, one, generator=_stream(k), resamples=300) for k, (one, _) in enumerate(experiments)]
    wins = [estimate(improvement, *two, generator=_stream(k), resamples=300) for k, two in enumerate(experiments)]
    assert np.mean([_holds(one, truth) for one in means]) == pytest.approx(0.93, abs=0.04)
    assert np.mean([_holds(one, 0.5) for one in wins]) == pytest.approx(0.94, abs=0.04)


def _holds(one: Estimate, truth: float) -> bool:
    assert one.low is not None and one.high is not None
    return one.low <= truth <= one.high


def test_a_bootstrap_of_means_has_the_standard_error_that_theory_gives() -> None:
    """Games are strata: their own differences add nothing to the interval."""
    scores = _stream(0).normal(size=(400, 3)) + np.array([0.0, 100.0, -50.0])
    found = estimate(mean, scores, generator=_stream(1), resamples=4000)
    assert found.low is not None and found.high is not None
    error = np.sqrt(scores.var(axis=0).mean() / 400 / 3)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_repetitions_of_one_training_count_once() -> None:
    """Copies of runs must not look like more evidence."""
    scores = _scores(8, 2)
    plain = estimate(iqm, scores, generator=_stream(0))
    copies = np.repeat(scores, 5, axis=0)
    naive, honest = (estimate(iqm, copies, generator=_stream(0), together=k) for k in (1, 5))
    assert plain.low is not None and plain.high is not None and naive.low is not None and naive.high is not None
    assert honest.low is not None and honest.high is not None and (plain.runs, naive.runs, honest.runs) == (8, 40, 8)
    assert naive.high - naive.low < 0.6 * (plain.high - plain.low)
    assert honest.high - honest.low == pytest.approx(plain.high - plain.low, rel=0.25)


def test_pairs_are_drawn_together() -> None:
    """Seeds that move both alike cancel: the difference is known, however far runs lie apart."""
    common = _stream(0).normal(0, 100, (10, 3))
    paired = paired_difference(common + 1, common, generator=_stream(1))
    assert (paired.low, paired.high) == (pytest.approx(1.0), pytest.approx(1.0))
    tables = (common + 1, common)

    def behind(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return mean(x) - mean(y)

    loose, tight = (estimate(behind, *tables, generator=_stream(1), paired=pairs) for pairs in (False, True))
    assert loose.low is not None and tight.low is not None and loose.low < -10 and tight.low == pytest.approx(1.0)


def test_seeds_give_the_interval_and_chunks_do_not_change_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = _scores(10, 4)
    first, again, other = (estimate(iqm, scores, generator=_stream(seed)) for seed in (0, 0, 1))
    assert first == again and first.value == other.value and first != other
    monkeypatch.setattr("leap.metrics.aggregate.CHUNK", 100)
    chunked = estimate(iqm, scores, generator=_stream(0))
    assert chunked.low == pytest.approx(first.low, abs=0.03) and chunked.value == first.value


def test_few_runs_say_so() -> None:
    one = estimate(iqm, _scores(1, 5), generator=_stream())
    assert (one.low, one.high, one.runs, one.games) == (None, None, 1, 5) and "nobody can say" in one.caution
    assert estimate(iqm, _scores(3, 5), generator=_stream()).caution.startswith("3 runs")
    assert estimate(iqm, _scores(10, 5), generator=_stream()).caution == ""
    assert estimate(iqm, _scores(30, 5), generator=_stream(), together=10).caution.startswith("3 runs")


@pytest.mark.parametrize(
    ("tables", "settings", "match"),
    [
        ([np.array([[1.0], [np.nan]])], {}, "1 not finite"),
        ([np.zeros(4)], {}, r"got shape \[4\]"),
        ([np.zeros((4, 2))], {"level": 1.0}, "got 1.0"),
        ([np.zeros((4, 2))], {"resamples": 10}, "got 10"),
        ([np.zeros((4, 2))], {"together": 3}, "together=3"),
        ([np.zeros((4, 2)), np.zeros((5, 2))], {"paired": True}, "do not fit"),
        ([np.zeros((4, 2)), np.zeros((4, 3))], {}, "do not fit"),
    ],
)
def test_wrong_input_is_refused(tables: list[np.ndarray], settings: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        estimate(mean, *tables, generator=_stream(), **settings)  # type: ignore[arg-type]


# Profiles


def test_a_profile_falls_and_its_area_is_the_mean() -> None:
    scores = _scores(12, 4)
    thresholds = np.linspace(0, scores.max(), 4001)
    found = performance_profile(scores, thresholds, generator=_stream(), resamples=100)
    assert found.low is not None and found.high is not None
    assert found.share[0] == 1.0 and found.share[-1] == 0.0 and (np.diff(found.share) <= 0).all()
    assert (found.low <= found.share).all() and (found.share <= found.high).all()
    area = ((found.share[1:] + found.share[:-1]) / 2) @ np.diff(thresholds)
    assert area == pytest.approx(float(mean(scores)), rel=1e-3)
    direct = [(scores > tau).mean() for tau in thresholds[::500]]
    assert found.share[::500].tolist() == direct


def test_a_band_is_that_of_a_share() -> None:
    """One game: the share above a threshold is binomial."""
    from scipy.stats import binom

    scores = np.arange(50.0)[:, None]
    found = performance_profile(scores, [29.5], generator=_stream(), resamples=4000)
    assert found.low is not None and found.high is not None and found.share[0] == 0.4
    assert found.low[0] * 50 == pytest.approx(binom.ppf(0.025, 50, 0.4), abs=1)
    assert found.high[0] * 50 == pytest.approx(binom.ppf(0.975, 50, 0.4), abs=1)


def test_one_run_has_no_band() -> None:
    found = performance_profile([[0.2, 0.8]], [0.5], generator=_stream())
    assert found.low is None and found.high is None and found.share.tolist() == [0.5]


# What random play and a human score


def test_the_table_of_atari_scores() -> None:
    from leap.errors import UsageError
    from tasks.atari_scores import SCORES, normalized, references

    assert len(SCORES) == 57 and all(one.human > one.random for one in SCORES.values())
    assert normalized("pong", -20.7) == 0.0 and normalized("pong", 14.6) == 1.0
    assert normalized("space_invaders", 148.0 + 2 * 1520.7) == pytest.approx(2.0)
    assert references(["air_raid", "carnival", "pooyan"]) == {}
    with pytest.raises(UsageError, match="Did you mean 'space_invaders'"):
        normalized("space_invader", 1.0)
