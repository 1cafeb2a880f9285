"""Games as tasks: what a roll-out holds, how actions are drawn, and that the seed decides all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_games import GAMES, NAMES, Scripted, games, named, points
from torch import Tensor

from envs.tiny import TINY
from envs.vector import VectorEnv
from leap import optim
from leap.errors import UsageError
from leap.testing import check_family
from leap.walk import walk
from tasks.play import Space, drawn

SPACES = {name: Space((3, 16, 16), TINY[name](1).actions) for name in ("catch", "seek", "sprint")}


def test_it_keeps_the_contract_of_families() -> None:
    check_family(games())


def test_a_game_acts_alike_alone_and_in_company() -> None:
    family, theta = games(), points(games(), 2)
    together = family.batch([0, 1], [5, 6]).sample(theta, 0)
    alone = [games().batch([task], [5 + task]).sample(theta[task : task + 1], 0) for task in (0, 1)]
    for name, both, *own in zip(NAMES, together, *alone, strict=True):
        assert torch.equal(both, torch.cat(own)), name


def test_a_rollout_is_what_the_environments_play() -> None:
    """Against the environments themselves, stepped with the same actions from the same seed."""
    seen: dict[str, int] = {}

    class Watched:
        def __init__(self, env: VectorEnv) -> None:
            self._env = env

        def __getattr__(self, name: str) -> Any:
            return getattr(self._env, name)

        def reset(self, seed: int) -> np.ndarray:
            seen[self._env.name] = seed
            return self._env.reset(seed)

    family = games(("short", "cut"), unroll=5, make=lambda name, count: Watched(GAMES[name](count)))
    batch, theta = family.batch([0, 1], [3, 4]), points(family, 2)
    rolls = [named(batch.sample(theta, step)) for step in range(5)]
    assert rolls[0]["legal"].tolist() == [2, 3] and rolls[0]["obs"].shape == (2, 6, 3, 3, 16, 16)
    kinds = {"obs": torch.uint8, "actions": torch.int64, "reward": torch.float32, "valid": torch.bool}
    assert all(rolls[0][name].dtype == kind for name, kind in kinds.items())
    for task, name in enumerate(("short", "cut")):
        env, episodes, acted = GAMES[name](3), [], 0
        obs = env.reset(seen[env.name])
        for roll in rolls:
            own = {key: value[task].numpy() for key, value in roll.items() if key != "legal"}
            assert np.array_equal(own["obs"][0], obs)
            for row in range(5):
                env.send(own["actions"][row])
                step = env.receive()
                obs, acted = step.obs, acted + 3
                episodes += [[acted, episode.score, episode.length] for episode in step.episodes]
                assert np.array_equal(own["obs"][row + 1], obs)
                for key in ("reward", "terminated", "truncated", "life_lost", "valid"):
                    assert np.array_equal(own[key][row], getattr(step, key)), key
        assert batch.outcomes()["episodes"][task] == episodes and len(episodes) > 3
    assert all(torch.cat([roll[key].flatten() for roll in rolls]).any() for key in ("truncated", "life_lost"))
    assert not torch.cat([roll["valid"].flatten() for roll in rolls]).all()
    assert json.loads(json.dumps(batch.outcomes())) == batch.outcomes()


def test_heads_are_fresh_for_every_walk_and_do_not_depend_on_the_other_games() -> None:
    family = games()
    theta = family.initial(0).expand(3, -1)
    started = family.batch([0, 1, 0], [5, 6, 7]).start(theta)
    trunk = family.layout.trunk
    assert torch.equal(started[:, :trunk], theta[:, :trunk])
    assert not torch.equal(started[0, trunk:], started[2, trunk:])
    assert torch.equal(family.batch([0], [5]).start(theta[:1])[0], started[0])
    wider = games(("catch",), ("seek",))
    own, other = (f.layout.unflatten(f.batch([0], [5]).start(f.initial(0)[None])[0]) for f in (family, wider))
    assert torch.equal(own["head.policy.weight"][:3], other["head.policy.weight"][:3])
    assert {name.split(".")[0] for name in family.layout.names} == {"convs", "dense", "head"}
    assert family.layout.n - trunk == (128 + 1) * (5 + 1)  # the dense layer belongs to the encoder


def test_a_seed_decides_everything_and_another_decides_otherwise() -> None:
    family = games()

    def walked(seed: int) -> tuple[Tensor, Any]:
        batch = family.batch([0, 1], [seed, seed + 1])
        return walk(batch, family.initial(0), steps=3, optimizer=optim.adam(1e-2)).theta, batch.outcomes()

    first, again, other = walked(5), walked(5), walked(50)
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert not torch.equal(first[0], other[0])
    theta = points(family, 1)
    same_head = [family.batch([0], [seed]).sample(theta, 0) for seed in (5, 50)]
    assert not torch.equal(same_head[0][0], same_head[1][0]) and not torch.equal(same_head[0][1], same_head[1][1])
    scores = [family.batch([0], [seed]).score(theta)["test_return"] for seed in (5, 5)]
    assert torch.equal(*scores)


def test_the_same_game_twice_has_environments_of_its_own() -> None:
    made = []

    def make(name: str, count: int) -> VectorEnv:
        made.append(name)
        return GAMES[name](count)

    family = games(make=make, spaces=SPACES)
    assert made == []  # until somebody plays
    theta = points(family, 1).expand(3, -1)
    together = named(family.batch([0, 0, 1], [5, 6, 7]).sample(theta, 0))
    assert sorted(made) == ["catch", "catch", "seek"]
    assert not torch.equal(together["obs"][0], together["obs"][1])
    swapped = named(family.batch([0, 0, 1], [6, 5, 7]).sample(theta, 0))
    assert all(torch.equal(together[name][[1, 0, 2]], swapped[name]) for name in NAMES)
    assert len(made) == 3  # kept, and begun anew
    family.close()
    family.batch([0], [5]).sample(theta[:1], 0)
    assert len(made) == 4


def test_actions_are_drawn_from_the_policy() -> None:
    shares = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    logits = (shares + 1e-300).log().expand(40_000, -1)
    counts = torch.bincount(drawn(logits, torch.Generator().manual_seed(0)), minlength=4) / 40_000
    assert (counts - shares).abs().max() < 0.01 and counts[1] == 0
    for bad in (math.nan, math.inf, -math.inf):
        rows = torch.zeros(40_000, 4)
        rows[:, 2] = bad
        counts = torch.bincount(drawn(rows, torch.Generator().manual_seed(0)), minlength=4) / 40_000
        assert (counts - 0.25).abs().max() < 0.01
    assert drawn(torch.zeros(5, 1), torch.Generator().manual_seed(0)).tolist() == [0] * 5
    # a uniform number each, whatever the number of actions: what is drawn next is the same
    streams = [torch.Generator().manual_seed(0) for _ in range(2)]
    drawn(torch.zeros(6, 3), streams[0]), drawn(torch.zeros(6, 18), streams[1])
    assert torch.equal(*(torch.rand(4, generator=stream) for stream in streams))


def test_agent_steps_make_inner_steps() -> None:
    family = games(environments=32, unroll=5)
    assert [family.steps_for(n) for n in (1, 160, 161, 5_000_000)] == [1, 1, 2, 31_250]


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: games(test=("catch",)), "'catch' is held out for test and trained on as well"),
        (lambda: games(train=("catch", "catch")), "'catch' stands twice among the games to train"),
        (lambda: games(test=()), "there are no games to test"),
        (lambda: games(environments=0), "environments must be at least 1, got 0"),
        (lambda: games(unroll=0), "unroll must be at least 1, got 0"),
        (lambda: games(evaluation_episodes=0), "evaluation_episodes must be at least 1"),
        (lambda: games(discount=1.1), r"discount must lie in \[0, 1\], got 1.1"),
        (lambda: games(gae=-0.1), r"gae must lie in \[0, 1\], got -0.1"),
        (lambda: games(clip_reward=0.0), "clip_reward must be above 0, or None"),
        (lambda: games(reduction="max"), "reduction must be 'mean' or 'sum', got 'max'"),
        (lambda: games(network="naturel"), "no network 'naturel'. Did you mean 'nature'"),
        (lambda: games(network="mnih2013"), "leaves nothing of a picture of 16 x 16"),
        (lambda: games().ids("all"), "no split 'all'"),
        (
            lambda: games(make=lambda name, count: Scripted(count) if name == "seek" else GAMES[name](count)),
            "games need pictures of one size",
        ),
        (lambda: games(make=lambda name, count: TINY["catch"](0)), "count must be an integer of at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(attempt: Callable[[], Any], message: str) -> None:
    with pytest.raises((UsageError, ValueError), match=message):
        attempt()


def test_environments_that_are_not_what_was_said_are_refused() -> None:
    family = games(make=lambda name, count: GAMES["sprint"](count), spaces=SPACES)
    with pytest.raises(UsageError, match=r"catch should be 3 environments of .*actions=3.*, got 3 of .*actions=5"):
        family.batch([0], [0]).sample(family.initial(0)[None], 0)
