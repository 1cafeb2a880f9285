"""Games are learned: alone, meta-trained and evaluated, with scores over whole episodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from small_games import GAMES, Scripted, Spoiled, games
from torch import Tensor

from envs.tiny import BEST, corridor_values, expert
from envs.vector import VectorEnv
from leap import learners, optim
from leap.errors import RunError
from leap.evaluate import evaluate
from leap.trainer import Plan, Trainer
from leap.walk import walk
from tasks.games import Games


def learned(name: str, steps: int, **changes: Any) -> tuple[Games, Tensor, Tensor, list[Any]]:
    family = games((name,), environments=16, unroll=7, evaluation_episodes=40, **changes)
    batch = family.batch([0], [1])
    optimizer = optim.clipped(optim.adam(4e-3), 0.5)
    theta = walk(batch, family.initial(1), steps=steps, optimizer=optimizer, execution="sequential").theta
    return family, theta[0], batch.score(theta)["test_return"], batch.outcomes()["episodes"][0]


def test_the_corridor_is_learned_with_its_values() -> None:
    family, theta, score, episodes = learned("corridor", 150, entropy=0.0)
    assert float(score) == BEST["corridor"]
    assert np.mean([length for _, _, length in episodes[:16]]) > 9  # at first it wanders
    lengths = [length for _, _, length in episodes[-50:]]
    assert np.mean(lengths) < 7.2  # the shortest way is 7
    env = GAMES["corridor"](1)
    seen = [env.reset(0)]
    for _ in range(6):
        env.send(expert("corridor")(seen[-1]))
        seen.append(env.receive().obs)
    _, values = family.policy(theta, torch.from_numpy(np.concatenate(seen)), 2)
    assert np.abs(values.detach().numpy() - corridor_values(0.99)).max() < 0.1


def test_catch_is_learned_to_near_its_best() -> None:
    _, _, score, episodes = learned("catch", 400)
    assert np.mean([s for _, s, _ in episodes[:50]]) < -0.4  # random play misses
    assert float(score) > 0.8 * BEST["catch"]


def test_a_trained_encoder_and_not_its_heads_is_carried_on() -> None:
    family = games()
    plan = Plan(seed=0, inner_steps=2, meta_batch=3, execution="sequential")
    trainer = Trainer(
        family, learners.leap(), lambda k: optim.sgd(0.1), ("Adam", optim.constant, {"lr": 0.01}), plan
    )  # fmt: skip
    before, trunk = trainer.meta_parameters, family.layout.trunk
    logged = trainer.meta_step()
    moved = trainer.meta_parameters != before
    assert moved[:trunk].float().mean() > 0.5 and not moved[trunk:].any()
    assert logged["meta/bad_tasks"] == 0


def test_evaluation_scores_whole_episodes_by_task() -> None:
    family = games(test=("sprint", "corridor"))
    found = evaluate(
        family, family.initial(0), learner=None, inner=lambda k: optim.sgd(0.1), steps=2, seed=0,
        evaluation_seeds=[0, 1], execution="batched",
    )  # fmt: skip
    returns = np.array(found["test_return"])
    assert returns.shape == (2, 2) and (np.abs(returns) <= 1).all()
    assert np.array_equal(found["test_loss"], -returns)
    assert np.array(found["train_loss"]).shape == (2, 2, 2)


def test_episodes_of_a_score_are_dealt_out_beforehand() -> None:
    """Else the environments with short episodes would fill the mean."""
    family = games(("scripted",), ("other",), make=lambda name, count: Scripted(count), evaluation_episodes=7)
    score = family.batch([0], [1]).score(family.initial(0)[None])
    # three environments play 3, 2 and 2 episodes: the first ones of each
    assert float(score["test_return"]) == pytest.approx(np.mean([1, 2, 3, 11, 12, 21, 22]))
    assert float(score["test_loss"]) == -float(score["test_return"])


def test_a_reward_without_meaning_counts_as_a_bad_walk_of_its_game() -> None:
    def make(name: str, count: int) -> VectorEnv:
        return Spoiled(GAMES[name](count)) if name == "seek" else GAMES[name](count)

    plan = Plan(seed=0, inner_steps=4, meta_batch=2, execution="batched")
    options: Any = (learners.leap(), lambda k: optim.sgd(0.1), ("SGD", optim.constant, {"lr": 1.0}))
    logged = Trainer(games(make=make), *options, plan).meta_step()
    assert logged["meta/bad_tasks"] == 1 and math.isfinite(logged["train/loss"])
    strict = Trainer(games(make=make), *options, Plan(**(vars(plan) | {"most_bad": 0.0})))
    with pytest.raises(
        RunError, match=r"1 of 2 walks met NaN or infinity, first in task seek: loss nan at inner step 2"
    ):
        strict.meta_step()
