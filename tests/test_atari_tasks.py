"""Which Atari games are pretrained on and which are held out; a roll-out of the real emulator where ale-py is there."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from envs.atari import GAMES, Preprocessing, minimal_actions
from envs.vector import EnvironmentProblem
from leap import learners, optim
from leap.errors import UsageError
from leap.walk import walk
from tasks import atari as tasks_atari
from tasks.atari import HELD_OUT, LARGER, POOL, TRAIN, atari_games, named

ALE = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="needs ale-py (the extra of Atari games)")
TINY_PICTURES = Preprocessing(height=16, width=16, stack=1, noop_max=2)
KNOWN = dict.fromkeys(GAMES, 18) | dict.fromkeys(POOL, 9) | {"kung_fu_master": 14}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of actions without an emulator."""
    monkeypatch.setattr(tasks_atari, "minimal_actions", KNOWN.__getitem__)


@ALE
def test_the_pool_is_the_papers_rule() -> None:
    actions = {game: minimal_actions(game) for game in GAMES}
    assert len(GAMES) == 62 and len(POOL) == 27
    assert set(POOL) == {game for game, count in actions.items() if count <= 10}
    assert all(actions[game] > 10 for game in LARGER)


@pytest.mark.usefixtures("counted")
def test_without_a_choice_the_split_is_the_papers() -> None:
    family = atari_games(seed=0)
    train, test = ([family.name(task) for task in family.ids(which)] for which in ("train", "test"))
    assert tuple(train) == TRAIN and len(train) == 25
    assert tuple(test) == HELD_OUT == ("breakout", "space_invaders")
    assert family.layout.n - family.layout.trunk == 257 * (9 + 1)  # Mnih 2013, a policy as wide as the widest game
    assert (family.environments, family.unroll) == (32, 5)


@pytest.mark.usefixtures("counted")
def test_what_is_held_out_is_not_in_the_pool() -> None:
    family = atari_games(test=["Pong", "RoadRunner"], seed=0)
    names = [family.name(task) for task in family.ids("train")]
    assert "pong" not in names and not set(HELD_OUT) & set(names) and len(names) == 24
    family = atari_games(train=["Breakout"], seed=0)
    assert [family.name(task) for task in family.ids("test")] == ["space_invaders"]
    whole = atari_games(test=[*HELD_OUT, *LARGER], seed=0)
    assert len(whole.ids("train")) == 25 and len(whole.ids("test")) == 7
    assert whole.actions(whole.ids("test")[-1]) == 18
    full = atari_games(["pong"], ["qbert"], seed=0, preprocessing=Preprocessing(full_actions=True))
    assert [full.actions(task) for task in (0, 1)] == [18, 18]


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"train": ["pong", "Breakout"], "test": ["breakout"]},
            "'breakout' is held out for test and trained on as well",
        ),
        ({"train": ["RoadRunner"]}, "road_runner has 18 actions, and the paper pretrains on games with at most 10"),
        ({"train": ["pong", "PONG"]}, "'pong' stands twice"),
        ({"train": []}, "there are no games to train"),
    ],
)
def test_splits_against_the_rules_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        atari_games(**arguments, seed=0)


@pytest.mark.usefixtures("counted")
def test_the_limit_of_actions_can_be_lifted() -> None:
    family = atari_games(["RoadRunner"], ["pong"], seed=0, most_actions=None)
    assert family.names == ("road_runner", "pong")


def test_games_are_known_by_any_writing_and_the_nearest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise EnvironmentProblem("no ale-py")

    monkeypatch.setattr("envs.atari._ale_py", missing)
    assert [named(game) for game in ("SpaceInvaders", "space-invaders", "space_invaders", "UpNDown")] == [
        "space_invaders", "space_invaders", "space_invaders", "up_n_down"
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"no Atari game 'SpaceInvader'\. Did you mean 'space_invaders'\?"):
        named("SpaceInvader")
    with pytest.raises(UsageError, match=r"no Atari game 'xyzzy'\. Known are adventure"):
        named("xyzzy")


def test_a_missing_emulator_is_a_matter_of_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(game: str) -> int:
        raise EnvironmentProblem("Atari games need ale-py")

    monkeypatch.setattr(tasks_atari, "minimal_actions", missing)
    with pytest.raises(UsageError, match="Atari games need ale-py"):
        atari_games(["pong"], ["qbert"], seed=0)


@ALE
def test_two_real_games_walk_together() -> None:
    family = atari_games(
        ["Freeway", "Pong"], ["Krull"], seed=0, preprocessing=TINY_PICTURES, environments=2, unroll=3, network="small",
        threads=1,
    )  # fmt: skip
    results = []
    for _ in range(2):
        batch = family.batch([0, 1], [3, 4])
        walked = walk(
            batch, family.initial(0), steps=3, optimizer=optim.clipped(optim.rmsprop(1e-3, 0.99, 1e-5), 0.5),
            folds={"leap": learners.leap("energy")},
        )  # fmt: skip
        results.append(walked)
    assert walked.losses.isfinite().all() and walked.results["leap"].any()
    assert torch.equal(results[0].theta, results[1].theta)  # begun anew from the same seed
    assert batch.sample(walked.theta, 3)[-1].tolist() == [3, 6]
    family.close()
