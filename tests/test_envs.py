"""What every environment keeps to, shown on the tiny games: ends, resets, lives, limits, scores, seeds, refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.tiny import BEST, TINY, corridor_values, expert, truncated, with_lives
from envs.vector import EnvironmentProblem, Episode, Order, Statistics, Transition, VectorEnv, check_actions, spread

Policy = Callable[[np.ndarray], np.ndarray]
ON, BACK = np.array([1]), np.array([0])  # in the corridor


def step(env: VectorEnv, actions: np.ndarray) -> Transition:
    env.send(actions)
    return env.receive()


def at_random(env: VectorEnv, seed: int = 0) -> Policy:
    draw = np.random.default_rng(seed)
    return lambda obs: draw.integers(0, env.actions, env.count)


def play(env: VectorEnv, policy: Policy, steps: int, seed: int = 0) -> list[Transition]:
    obs, played = env.reset(seed), []
    for _ in range(steps):
        played.append(step(env, policy(obs)))
        obs = played[-1].obs
    return played


def episodes_of(played: list[Transition]) -> list[Episode]:
    return [episode for transition in played for episode in transition.episodes]


def flags(transition: Transition) -> tuple[bool, bool, bool, bool]:
    """(terminated, truncated, life lost, valid) of the first environment."""
    return (
        bool(transition.terminated[0]),
        bool(transition.truncated[0]),
        bool(transition.life_lost[0]),
        bool(transition.valid[0]),
    )


ENDED, CUT, LIFE, RESET, ONWARD = (
    (True, False, False, True),
    (False, True, False, True),
    (False, False, True, True),
    (False, False, False, False),
    (False, False, False, True),
)
CAUSES: dict[str, Callable[[int], VectorEnv]] = {
    **TINY,
    "catch with lives": with_lives("catch", lives=2, rounds=5),
    "catch cut off": truncated("catch", 3),
    "rally cut off": with_lives("rally", lives=3, rounds=8, limit=20),
}
LENGTHS = {"corridor": {7}, "rally": {56}, "follow": {32}, "seek": set(range(1, 15))}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_expert_has_the_best_score_in_every_episode(name: str, seed: int) -> None:
    env = TINY[name](64)
    episodes = episodes_of(play(env, expert(name), 115, seed))
    assert len(episodes) >= 2 * 64
    assert {episode.score for episode in episodes} == {BEST[name]}
    assert {episode.length for episode in episodes} <= LENGTHS.get(name, {7})


@pytest.mark.parametrize("name", TINY)
def test_chance_is_far_from_the_best_score_and_never_above_it(name: str) -> None:
    env = TINY[name](32)
    scores = [episode.score for episode in episodes_of(play(env, at_random(env), 300))]
    assert max(scores) <= BEST[name]
    assert np.mean(scores) < BEST[name] / 2


def test_the_games_share_a_picture_and_differ_in_their_number_of_actions() -> None:
    games = [make(3) for make in TINY.values()]
    assert {env.shape for env in games} == {(3, 16, 16)}
    assert {env.actions for env in games} == {2, 3, 4, 5}


def test_catch_and_mirror_answer_alike_pictures_with_exchanged_actions() -> None:
    obs = TINY["catch"](64).reset(0)
    assert np.array_equal(obs, TINY["mirror"](64).reset(0))
    exchanged = np.array([0, 2, 1])
    assert np.array_equal(exchanged[expert("catch")(obs)], expert("mirror")(obs))


@pytest.mark.parametrize("name", CAUSES)
def test_every_step_keeps_to_the_protocol(name: str) -> None:
    env = CAUSES[name](16)
    obs = env.reset(3)
    assert obs.dtype == np.uint8 and obs.shape == (16, *env.shape)
    ended = np.zeros(16, bool)
    policy, seen = at_random(env), []
    for _ in range(150):
        transition = step(env, policy(obs))
        obs = transition.obs
        assert obs.dtype == np.uint8 and obs.shape == (16, *env.shape)
        assert transition.reward.dtype == np.float32 and transition.reward.shape == (16,)
        for flag in (transition.terminated, transition.truncated, transition.life_lost, transition.valid):
            assert flag.dtype == bool and flag.shape == (16,)
        assert np.array_equal(transition.valid, ~ended)
        reset = transition.reward[ended], transition.terminated[ended], transition.truncated[ended]
        assert not np.any(reset) and not transition.life_lost[ended].any()
        assert not (transition.terminated & (transition.truncated | transition.life_lost)).any()
        ended = transition.terminated | transition.truncated
        assert [episode.env for episode in transition.episodes] == list(np.flatnonzero(ended))
        seen.append(ended)
    assert np.any(seen)


@pytest.mark.parametrize("name", CAUSES)
def test_scores_and_lengths_equal_a_count_by_hand(name: str) -> None:
    env = CAUSES[name](5)
    played = play(env, at_random(env), 200)
    by_hand = []
    for row in range(5):
        rewards: list[float] = []
        for transition in played:
            if transition.valid[row]:
                rewards.append(float(transition.reward[row]))
            if transition.terminated[row] or transition.truncated[row]:
                by_hand.append(Episode(row, sum(rewards), len(rewards)))
                rewards = []
    assert len(by_hand) > 5
    assert sorted(episodes_of(played)) == sorted(by_hand)


def test_the_step_after_an_end_ignores_its_action() -> None:
    env = TINY["corridor"](1)
    first = env.reset(0)
    for _ in range(6):
        assert flags(step(env, ON)) == ONWARD
    end = step(env, ON)
    assert flags(end) == ENDED and end.reward == 1
    assert end.episodes == (Episode(0, 1.0, 7),)
    assert end.obs[0, 0, 8, 14] == 255  # the player is at the far end: the last picture, not the next first one
    reset = step(env, ON)
    assert flags(reset) == RESET and reset.reward == 0 and reset.episodes == ()
    assert np.array_equal(reset.obs, first)
    onward = step(env, ON)
    assert flags(onward) == ONWARD
    assert onward.obs[0, 0, 8, 2] == 255  # one cell on: the action before it moved nothing


def test_a_limit_cuts_off_in_exactly_its_step() -> None:
    env = truncated("corridor", 4)(1)
    env.reset(0)
    found = [step(env, ON) for _ in range(10)]
    assert [flags(t) for t in found] == 2 * [*[ONWARD] * 3, CUT, RESET]
    assert found[3].episodes == found[8].episodes == (Episode(0, 0.0, 4),)
    assert found[3].obs[0, 0, 8, 8] == 255  # the fourth cell of the way, where the value is to be bootstrapped


def test_an_end_in_the_step_of_the_limit_is_no_truncation() -> None:
    env = truncated("corridor", 7)(1)
    assert [flags(t) for t in play(env, lambda obs: ON, 8)] == [ONWARD] * 6 + [ENDED, RESET]


def test_a_game_that_never_ends_is_only_cut_off() -> None:
    found = play(TINY["follow"](1), expert("follow"), 33 + 32)
    assert [flags(t) for t in found] == [*[ONWARD] * 31, CUT, RESET, *[ONWARD] * 31, CUT]


def away_from_the_ball(obs: np.ndarray) -> np.ndarray:
    return np.where(obs[:, 1, :, :8].any(axis=(1, 2)), 2, 1)  # right of a ball in the left half


def test_a_ball_missed_costs_a_life_and_the_last_one_ends_the_game() -> None:
    env = with_lives("catch", lives=3, rounds=9)(1)
    found = play(env, away_from_the_ball, 22)
    fall = [ONWARD] * 6
    assert [flags(t) for t in found] == [*fall, LIFE, *fall, LIFE, *fall, ENDED, RESET]
    assert found[20].episodes == (Episode(0, -3.0, 21),)
    reserve = [int((t.obs[0, 2, 0] > 0).sum()) // 2 for t in found]
    assert reserve == [2] * 6 + [1] * 7 + [0] * 8 + [2]


def test_after_a_life_the_next_ball_falls_at_once() -> None:
    env = with_lives("catch", lives=2, rounds=9)(1)
    lost = play(env, away_from_the_ball, 7)[-1]
    assert lost.life_lost[0] and lost.obs[0, 1, 0].any()  # a ball in the top row
    assert step(env, np.array([0])).obs[0, 1, 2].any()  # which falls with the next action


def test_a_life_may_be_lost_in_the_step_that_is_cut_off() -> None:
    env = with_lives("catch", lives=3, rounds=9, limit=7)(1)
    cut = play(env, away_from_the_ball, 7)[-1]
    assert flags(cut) == (False, True, True, True)
    assert cut.episodes == (Episode(0, -1.0, 7),)


def test_the_last_ball_of_the_last_round_ends_the_game_without_a_life_lost() -> None:
    env = with_lives("catch", lives=3, rounds=2)(1)
    found = play(env, away_from_the_ball, 14)
    assert flags(found[6]) == LIFE and flags(found[13]) == ENDED


def trace(env: VectorEnv, seed: int, steps: int = 60) -> bytes:
    played = play(env, at_random(env), steps, seed)
    return b"".join(np.concatenate([t.obs.ravel(), t.reward.view(np.uint8), t.valid]).tobytes() for t in played)


@pytest.mark.parametrize("name", sorted(set(TINY) - {"corridor"}))
def test_a_seed_decides_the_trajectories(name: str) -> None:
    env = TINY[name](8)
    first = trace(env, 0)
    assert trace(env, 1) != first
    assert trace(env, 0) == first == trace(TINY[name](8), 0)


def test_reset_forgets_the_episode_under_way() -> None:
    env = with_lives("corridor", lives=1, rounds=2)(1)
    play(env, lambda obs: ON, 9)  # one round over, in the second
    env.send(ON)
    again = play(env, lambda obs: ON, 14)
    assert [flags(t) for t in again] == [ONWARD] * 13 + [ENDED]
    assert episodes_of(again) == [Episode(0, 2.0, 14)]


def test_environments_have_streams_of_their_own() -> None:
    many, few = TINY["catch"](8), TINY["catch"](3)
    assert len({obs.tobytes() for obs in many.reset(0)}) > 4
    catch = expert("catch")
    for a, b in zip(play(many, catch, 50), play(few, catch, 50), strict=True):
        assert np.array_equal(a.obs[:3], b.obs)


def test_starts_are_spread_evenly() -> None:
    obs = TINY["catch"](4096).reset(0)
    ball, paddle = (obs[:, channel, :, ::2].any(axis=1).argmax(axis=1) for channel in (1, 0))
    counts = np.bincount(8 * ball + paddle, minlength=64)
    assert ((counts - 64) ** 2 / 64).sum() < 103  # chi-squared with 63 degrees of freedom: 0.1 % lie above


def test_episodes_of_an_environment_start_differently() -> None:
    first = play(TINY["catch"](1), lambda obs: BACK, 80)
    assert len({t.obs.tobytes() for t in first if not t.valid[0]}) > 5


def test_what_was_received_is_not_written_to_later() -> None:
    env = TINY["rally"](4)
    played = play(env, at_random(env), 1)
    kept = [np.array(part) for part in played[0][:-1]]
    for _ in range(60):
        step(env, np.zeros(4, np.int64))
    assert all(np.array_equal(a, b) for a, b in zip(kept, played[0][:-1], strict=True))


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_the_value_of_the_corridor_is_the_discounted_return_from_each_cell(discount: float) -> None:
    rewards = [float(t.reward[0]) for t in play(TINY["corridor"](1), lambda obs: ON, 7)]
    returns = [sum(discount**i * r for i, r in enumerate(rewards[cell:])) for cell in range(7)]
    np.testing.assert_allclose(corridor_values(discount), returns, rtol=1e-12)


ILLEGAL = {
    "too large": (np.array([0, 1, 3]), r"within 0 \.\.\. 2, got 3 for environment 2"),
    "negative": (np.array([0, -1, 1]), r"got -1 for environment 1"),
    "huge": (np.array([0, 2**64 - 1, 1], np.uint64), "got 18446744073709551615"),
    "short": (np.array([0, 1]), r"shape \(3,\), one for each environment, got \(2,\)"),
    "column": (np.array([[0], [1], [1]]), r"got \(3, 1\)"),
    "real": (np.array([0.0, 1.0, 1.0]), "integers, got an array of float64"),
    "truth": (np.array([True, False, True]), "integers, got an array of bool"),
    "list": ([0, 1, 1], "integers, got list"),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_an_illegal_action_is_refused_before_anything_moves(case: str) -> None:
    actions, message = ILLEGAL[case]
    env, other = TINY["catch"](3), TINY["catch"](3)
    env.reset(0)
    other.reset(0)
    with pytest.raises(EnvironmentProblem, match=message):
        env.send(actions)  # type: ignore[arg-type]
    for _ in range(8):
        a, b = (step(e, np.array([0, 1, 2], np.int8)) for e in (env, other))
        assert np.array_equal(a.obs, b.obs) and a.episodes == b.episodes


def test_actions_are_copied() -> None:
    env, actions = TINY["corridor"](1), np.array([1])
    env.reset(0)
    env.send(actions)
    actions[0] = 0
    assert env.receive().obs[0, 0, 8, 2] == 255


def test_a_step_refused_leaves_the_one_under_way_alone() -> None:
    env = TINY["corridor"](1)
    env.reset(0)
    env.send(ON)
    with pytest.raises(EnvironmentProblem, match="while a step is under way"):
        env.send(BACK)
    assert env.receive().obs[0, 0, 8, 2] == 255


@given(st.lists(st.integers(-3, 12), min_size=1, max_size=6), st.integers(1, 8))
def test_actions_pass_unchanged_or_not_at_all(actions: list[int], legal: int) -> None:
    given_actions = np.array(actions)
    if all(0 <= action < legal for action in actions):
        checked = check_actions(given_actions, len(actions), legal, "game")
        assert checked.dtype == np.int64 and checked.tolist() == actions
    else:
        with pytest.raises(EnvironmentProblem):
            check_actions(given_actions, len(actions), legal, "game")


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        (["send"], "catch: send before reset"),
        (["receive"], "catch: receive before reset"),
        (["reset", "receive"], "receive without a step under way"),
        (["reset", "send", "send"], "send while a step is under way"),
        (["reset", "send", "receive", "receive"], "receive without a step under way"),
        (["reset", "close", "send"], "send after close"),
        (["reset", "close", "reset"], "reset after close"),
    ],
)
def test_calls_out_of_order_are_refused(calls: list[str], message: str) -> None:
    env = TINY["catch"](1)
    given_to = {"send": (np.array([0]),), "reset": (0,), "receive": (), "close": ()}
    for call in calls[:-1]:
        getattr(env, call)(*given_to[call])
    with pytest.raises(EnvironmentProblem, match=message):
        getattr(env, calls[-1])(*given_to[calls[-1]])


def test_a_call_refused_changes_no_state() -> None:
    order = Order("game")
    order.on("reset")
    with pytest.raises(EnvironmentProblem):
        order.on("receive")
    order.on("send")
    order.on("receive")


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "3"])
def test_a_count_is_an_integer_of_at_least_one(count: object) -> None:
    with pytest.raises(EnvironmentProblem, match="count must be an integer of at least 1"):
        TINY["catch"](count)  # type: ignore[arg-type]


def test_variants_with_nothing_to_play_are_refused() -> None:
    for make in (truncated("catch", 0), with_lives("catch", 0, 1), with_lives("catch", 1, 0)):
        with pytest.raises(EnvironmentProblem, match="must be an integer of at least 1, got 0"):
            make(1)
    with pytest.raises(EnvironmentProblem, match=r"no tiny game 'cach'\. Did you mean catch"):
        truncated("cach", 3)


@pytest.mark.parametrize("seed", [-1, 0.5, None, True])
def test_a_seed_is_an_integer_of_at_least_zero(seed: object) -> None:
    with pytest.raises(EnvironmentProblem, match="seed must be an integer of at least 0"):
        TINY["catch"](2).reset(seed)  # type: ignore[arg-type]


def test_seeds_of_environments_do_not_overlap_between_neighbouring_seeds() -> None:
    drawn = [spread(seed, 64) for seed in range(50)]
    assert len(np.unique(drawn)) == 50 * 64
    assert np.min(drawn) >= 1 and np.max(drawn) < 2**31
    assert np.array_equal(spread(7, 3), spread(7, 64)[:3])
    assert spread(2**200, 2).shape == (2,)


def test_scores_beyond_the_precision_of_float32_are_exact() -> None:
    statistics, valid = Statistics(1), np.array([True])
    statistics.add(np.array([2.0**24], np.float32), ~valid, valid)
    statistics.add(np.array([1.0], np.float32), ~valid, valid)
    assert statistics.add(np.array([1.0], np.float32), valid, valid) == (Episode(0, 2.0**24 + 2, 3),)


def test_statistics_leave_out_rows_that_are_no_transition() -> None:
    statistics, yes = Statistics(2), np.array([True, True])
    statistics.add(np.array([1.0, 1.0]), ~yes, yes)
    statistics.add(np.array([5.0, 5.0]), ~yes, np.array([False, True]))
    assert statistics.add(np.array([0.0, 0.0]), yes, np.array([True, False])) == (Episode(0, 1.0, 2),)
    statistics.clear()
    assert statistics.add(np.array([0.0, 0.0]), yes, yes) == (Episode(0, 0.0, 1), Episode(1, 0.0, 1))
