"""Atari games: what ale-py hands out reaches us whole, in our layout, and nothing that would hang it gets through."""

from __future__ import annotations

import hashlib
import sys
import time
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytest

from envs.atari import GAMES, Preprocessing, atari, known_games, minimal_actions, snake_case
from envs.vector import EnvironmentProblem, Episode, Transition, VectorEnv, spread

needs_ale = pytest.mark.skipif(
    find_spec("ale_py") is None or find_spec("gymnasium") is None,
    reason="ale-py (GPL-2.0, an extra) or gymnasium is not installed",
)
SMALL = Preprocessing(height=42, width=42)
# leap-paper.md 4.1: the games with at most ten actions, which the paper's pool is drawn from
FEW_ACTIONS = {
    3: "freeway skiing",
    4: "atlantis breakout",
    6: "air_raid bowling carnival demon_attack name_this_game pong pooyan qbert space_invaders up_n_down",
    7: "assault",
    8: "gopher phoenix tutankham",
    9: "asterix beam_rider crazy_climber enduro ms_pacman video_pinball",
    10: "amidar time_pilot wizard_of_wor",
}
POOL = {game: count for count, games in FEW_ACTIONS.items() for game in games.split()}
GAME_COUNT, LIVES, ROWS, STEPS = "breakout", 5, 4, 300


class Played(NamedTuple):
    """The same actions through ale-py itself and through us."""

    first: tuple[np.ndarray, np.ndarray]  # observations that reset gave: raw, ours
    raw: list[tuple[Any, ...]]
    ours: list[Transition]


def raw_environment(game: str, count: int, preprocessing: Preprocessing) -> Any:
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        game,
        count,
        grayscale=preprocessing.grayscale,
        stack_num=preprocessing.stack,
        img_height=preprocessing.height,
        img_width=preprocessing.width,
        max_num_frames_per_episode=preprocessing.max_frames,
        repeat_action_probability=preprocessing.sticky,
        reward_clipping=False,
    )


def both(game: str, count: int, preprocessing: Preprocessing, steps: int, seed: int = 0) -> Played:
    raw, ours = raw_environment(game, count, preprocessing), atari(game, count, preprocessing)
    first = raw.reset(seed=spread(seed, count))[0], ours.reset(seed)
    draw = np.random.default_rng(seed)
    played = Played(first, [], [])
    for _ in range(steps):
        actions = draw.integers(0, ours.actions, count)
        ours.send(actions)
        played.raw.append(raw.step(actions))
        played.ours.append(ours.receive())
    ours.close()
    return played


@pytest.fixture(scope="module")
def breakout() -> Played:
    """Random play, in which games end and lives are lost."""
    return both("breakout", ROWS, SMALL, STEPS)


@needs_ale
def test_observations_rewards_and_ends_are_those_of_ale(breakout: Played) -> None:
    assert np.array_equal(*breakout.first)
    for (obs, reward, terminated, truncated, _), ours in zip(breakout.raw, breakout.ours, strict=True):
        assert ours.obs.dtype == np.uint8 and np.array_equal(ours.obs, obs)
        assert ours.reward.dtype == np.float32 and np.array_equal(ours.reward, reward)
        assert np.array_equal(ours.terminated, terminated) and np.array_equal(ours.truncated, truncated)


@needs_ale
def test_rows_of_an_auto_reset_are_no_transitions(breakout: Played) -> None:
    ended = np.zeros(ROWS, bool)
    resets = 0
    for transition, raw in zip(breakout.ours, breakout.raw, strict=True):
        assert np.array_equal(transition.valid, ~ended)
        for flag in (transition.terminated, transition.truncated, transition.life_lost, transition.reward):
            assert not flag[ended].any()
        assert (raw[4]["episode_frame_number"][ended] <= 31).all()  # FIRE and at most 30 frames: a new episode
        resets += ended.sum()
        ended = transition.terminated | transition.truncated
    assert resets >= ROWS


@needs_ale
def test_scores_and_lengths_equal_a_count_by_hand_across_lives(breakout: Played) -> None:
    by_hand = []
    for row in range(ROWS):
        score, length, waiting = 0.0, 0, False
        for _, reward, terminated, truncated, _ in breakout.raw:
            if waiting:
                waiting = False
                continue
            score, length = score + reward[row], length + 1
            if terminated[row] or truncated[row]:
                by_hand.append(Episode(row, score, length))
                score, length, waiting = 0.0, 0, True
    assert len(by_hand) >= ROWS and any(episode.score > 0 for episode in by_hand)
    assert sorted(e for t in breakout.ours for e in t.episodes) == sorted(by_hand)


@needs_ale
def test_a_life_lost_is_flagged_where_the_lives_fall_and_the_game_goes_on(breakout: Played) -> None:
    for row in range(ROWS):
        before, lost = LIVES, 0
        for (*_, info), ours in zip(breakout.raw, breakout.ours, strict=True):
            lives = info["lives"][row]
            fell = bool(lives < before) and not ours.terminated[row]
            assert ours.life_lost[row] == fell
            lost += fell
            if ours.terminated[row]:
                assert lost == LIVES - 1  # the last life is the end of the game, not a life lost
                lost = 0
            before = lives


@needs_ale
def test_rewards_are_not_clipped() -> None:
    played = both("space_invaders", 2, SMALL, 100)
    assert max(t.reward.max() for t in played.ours) >= 5  # the lowest row of invaders


@needs_ale
def test_an_episode_is_truncated_after_the_frames_from_its_first_observation() -> None:
    capped = Preprocessing(height=42, width=42, max_frames=40)
    played = both("breakout", 2, capped, 23).ours
    assert [t.truncated.tolist() for t in played] == [[step in (9, 20)] * 2 for step in range(23)]
    assert [t.valid.tolist() for t in played] == [[step not in (10, 21)] * 2 for step in range(23)]
    assert not any(t.terminated.any() for t in played)
    assert [e.length for t in played for e in t.episodes] == [10] * 4


@needs_ale
@pytest.mark.parametrize(
    ("preprocessing", "shape"),
    [
        (Preprocessing.PAPER, (3, 84, 84)),
        (Preprocessing.COMMUNITY, (4, 84, 84)),
        (Preprocessing(height=30, width=50, grayscale=False, stack=2), (6, 30, 50)),
        (Preprocessing(height=210, width=160, stack=1), (1, 210, 160)),
    ],
)
def test_channels_come_first_the_oldest_frame_before_the_newest(
    preprocessing: Preprocessing, shape: tuple[int, int, int]
) -> None:
    played = both("breakout", 2, preprocessing, 5)
    assert preprocessing.shape == shape
    for raw, ours in [played.first, (played.raw[-1][0], played.ours[-1].obs)]:
        assert ours.shape == (2, *shape) and ours.dtype == np.uint8 and ours.flags.c_contiguous
        for channel in range(shape[0]):
            colour = () if preprocessing.grayscale else (channel % 3,)
            frame = channel if preprocessing.grayscale else channel // 3
            assert np.array_equal(ours[:, channel], raw[(slice(None), frame, ..., *colour)])


def trace(env: VectorEnv, seed: int, steps: int = 60) -> str:
    found = hashlib.sha256(env.reset(seed).tobytes())
    draw = np.random.default_rng(0)
    for _ in range(steps):
        env.send(draw.integers(0, env.actions, env.count))
        transition = env.receive()
        found.update(transition.obs.tobytes() + transition.reward.tobytes())
    return found.hexdigest()


@needs_ale
def test_a_seed_decides_the_trajectories_whatever_the_threads() -> None:
    env = atari("breakout", 3, SMALL, threads=1)
    first = trace(env, 0)
    assert trace(env, 1) != first
    assert trace(env, 0) == first == trace(atari("breakout", 3, SMALL, threads=2), 0)


@needs_ale
def test_neighbouring_seeds_share_no_trajectory() -> None:
    env = atari("breakout", 3, SMALL)
    draw = np.random.default_rng(0)
    actions = [np.full(3, action) for action in draw.integers(0, env.actions, 80)]  # the same in every environment
    seen = []
    for seed in (0, 1):
        env.reset(seed)
        rows = []
        for action in actions:
            env.send(action)
            rows.append(env.receive().obs)
        seen += [np.stack(rows)[:, row].tobytes() for row in range(3)]
    assert len(set(seen)) == 6


@needs_ale
@pytest.mark.parametrize(
    "actions",
    [np.array([0, 4]), np.array([-1, 0]), np.array([0]), np.array([0.0, 1.0]), np.array([[0, 1]])],
    ids=["too large", "negative", "short", "real", "row"],
)
def test_an_illegal_action_is_refused_at_once_and_the_game_goes_on(actions: np.ndarray) -> None:
    env = atari("breakout", 2, SMALL)
    env.reset(0)
    began = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="breakout: actions must"):
        env.send(actions)
    assert time.monotonic() - began < 1
    env.send(np.array([0, 3], np.uint8))  # a type that ale-py would refuse
    assert env.receive().valid.all()


@needs_ale
def test_calls_out_of_order_are_refused_where_ale_would_wait_for_ever() -> None:
    env = atari("breakout", 1, SMALL)
    with pytest.raises(EnvironmentProblem, match="breakout: send before reset"):
        env.send(np.array([0]))
    env.reset(0)
    with pytest.raises(EnvironmentProblem, match="receive without a step under way"):
        env.receive()
    env.send(np.array([0]))
    with pytest.raises(EnvironmentProblem, match="send while a step is under way"):
        env.send(np.array([0]))
    env.close()  # with the step still under way
    env.close()
    with pytest.raises(EnvironmentProblem, match="send after close"):
        env.send(np.array([0]))


@needs_ale
def test_reset_takes_back_a_step_under_way() -> None:
    env = atari("breakout", 2, SMALL)
    first = env.reset(0)
    env.send(np.array([1, 1]))
    assert np.array_equal(env.reset(0), first)
    env.send(np.array([0, 0]))
    again = env.receive()
    env.reset(0)
    env.send(np.array([0, 0]))
    assert np.array_equal(env.receive().obs, again.obs)


@needs_ale
def test_all_eighteen_actions_are_legal_when_asked_for() -> None:
    env = atari("breakout", 2, Preprocessing(height=42, width=42, full_actions=True))
    assert env.actions == 18
    env.reset(0)
    env.send(np.array([17, 12]))
    assert env.receive().valid.all()


@needs_ale
def test_several_games_step_side_by_side() -> None:
    games = [atari(name, 2, SMALL) for name in ("pong", "Breakout", "freeway")]
    alone = atari("breakout", 2, SMALL)
    for env in (*games, alone):
        env.reset(5)
    for _ in range(10):
        for env in (*games, alone):
            env.send(np.array([1, 2]))
        breakout = [env.receive() for env in games][1]
        assert np.array_equal(breakout.obs, alone.receive().obs)


@needs_ale
def test_games_go_by_either_spelling() -> None:
    assert {snake_case(name) for name in ("MsPacman", "ms_pacman", "ms-pacman")} == {"ms_pacman"}
    assert set(GAMES) <= set(known_games()) and len(GAMES) == 62
    env = atari("SpaceInvaders", 1, SMALL)
    assert (env.name, env.count, env.actions, env.shape) == ("space_invaders", 1, 6, (4, 42, 42))


@needs_ale
@pytest.mark.parametrize(
    ("name", "nearest"),
    [("Brekout", "breakout"), ("spaceinvader", "space_invaders"), ("ALE/Pong-v5", "pong"), ("Pacmen", "pacman")],
)
def test_an_unknown_game_gets_the_nearest_names(name: str, nearest: str) -> None:
    with pytest.raises(EnvironmentProblem, match=rf"no Atari game '{name}'; did you mean {nearest}\b"):
        atari(name, 1, SMALL)
    with pytest.raises(EnvironmentProblem, match="no Atari game"):
        minimal_actions(name)


@needs_ale
def test_a_game_unlike_any_gets_the_list_and_one_for_two_players_is_none() -> None:
    with pytest.raises(EnvironmentProblem, match=r"there are adventure, air_raid, .*zaxxon"):
        snake_case("xyzzy")
    with pytest.raises(EnvironmentProblem, match="no Atari game 'combat'"):
        snake_case("combat")


@needs_ale
def test_a_count_or_threads_that_cannot_be_are_refused() -> None:
    with pytest.raises(EnvironmentProblem, match="count must be an integer of at least 1, got 0"):
        atari("pong", 0, SMALL)
    with pytest.raises(EnvironmentProblem, match="threads must be an integer of at least 0"):
        atari("pong", 1, SMALL, threads=-1)
    with pytest.raises(EnvironmentProblem, match="seed must be an integer of at least 0"):
        atari("pong", 1, SMALL).reset(-1)


@needs_ale
def test_nothing_is_emulated_before_reset() -> None:
    atari("pong", 100_000, SMALL)  # its emulators would fill the memory


@needs_ale
@pytest.mark.parametrize("game", ["freeway", "breakout", "pong", "assault", "gopher", "ms_pacman", "amidar"])
def test_minimal_actions_are_those_of_the_paper(game: str) -> None:
    assert minimal_actions(game) == POOL[game]


@needs_ale
@pytest.mark.slow
def test_the_paper_s_rule_finds_27_games() -> None:
    counts = {game: minimal_actions(game) for game in GAMES}
    assert {game: count for game, count in counts.items() if count <= 10} == POOL and len(POOL) == 27
    assert counts["kung_fu_master"] == 14
    assert {counts[game] for game in ("alien", "gravitar", "road_runner", "krull")} == {18}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0}, "height must be an integer of at least 1, got 0"),
        ({"stack": 1.5}, "stack must be an integer of at least 1, got 1.5"),
        ({"frame_skip": 0}, "frame_skip must be"),
        ({"noop_max": -1}, "noop_max must be an integer of at least 0, got -1"),
        ({"sticky": 1.5}, r"sticky is a probability, within 0 \.\.\. 1, got 1.5"),
        ({"sticky": float("nan")}, "sticky is a probability"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvironmentProblem, match=message):
        Preprocessing(**settings)


def test_without_ale_py_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(EnvironmentProblem, match=r"need ale-py and gymnasium, .* pip install 'ale-py>=0\.12\.1'"):
        atari("pong", 1, SMALL)
