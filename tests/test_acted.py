"""What acting computed is what the loss would compute, and is taken at the same point for the same roll-out alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.tiny import TINY
from leap import learners
from leap.batching import losses_at, map_batch, task_of
from leap.optim import rmsprop
from leap.walk import walk
from tasks.actor_critic import actor_critic_loss
from tasks.agents import NETWORKS, Agent, initialize
from tasks.game_batch import GameBatch
from tasks.games import Games
from tasks.screens import new


def games(**settings: Any) -> Games:
    return Games(
        lambda name, count: TINY[name](count), ["catch", "follow"], ["seek"], seed=0, environments=3, unroll=4,
        network="small", **settings,
    )  # fmt: skip


def rolled(family: Games, size: int = 2) -> tuple[GameBatch, Tensor, Any]:
    batch = family.batch(range(size), range(5, 5 + size))
    theta = batch.start(family.initial(0).double().expand(size, -1))
    return batch, theta, batch.sample(theta, 0)


def gradient(family: Games, theta: Tensor, own: Any) -> tuple[Tensor, ...]:
    point = theta.detach().requires_grad_()
    loss, recorded = family.loss(point, own)
    return loss.detach(), *recorded.values(), *torch.autograd.grad(loss, point)


def test_the_loss_of_what_was_played_is_that_of_a_copy_which_nothing_is_known_of() -> None:
    family = games()
    _, theta, drawn = rolled(family)
    for game in (0, 1):
        family.acted.used = False
        own = task_of(drawn, game)
        found = gradient(family, theta[game], own)
        assert family.acted.used
        family.acted.used = False
        computed = gradient(family, theta[game].clone(), own)
        assert not family.acted.used and computed[-1].abs().max() > 1e-3
        for one, other in zip(found, computed, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_whose_output_is_known_have_their_derivatives(network: str) -> None:
    shape = (2, 16, 16) if network == "small" else (2, 84, 84)
    agent = initialize(Agent(shape, 3, network), torch.Generator().manual_seed(0)).double()
    obs = torch.randint(256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    kept: list[Tensor] = []

    def room(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        kept.append(new(shape, dtype))
        return kept[-1]

    with torch.no_grad():
        agent(obs, room)
    parameters = list(agent.parameters())
    directions = [torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(2)) for p in parameters]
    found = []
    for known in (kept, None):
        logits, values = agent(obs, None, known)
        loss, _ = actor_critic_loss(
            logits[None], values[None], torch.tensor([[0, 2]]), torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2) > 0
        )
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        slope = sum((g * d).sum() for g, d in zip(first, directions, strict=True))
        found.append([loss, *first, *torch.autograd.grad(slope, parameters)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_what_is_known_is_not_taken_where_anything_has_changed() -> None:
    def found(change: Any) -> tuple[bool, tuple[Tensor, ...], tuple[Tensor, ...]]:
        family = games()
        _, theta, drawn = rolled(family, 1)
        change(theta, drawn[0])
        at, own = theta[0], task_of(drawn, 0)
        taken = gradient(family, at, own)
        used, family.acted = family.acted.used, None
        return used, taken, gradient(family, at, own)

    def written(theta: Tensor, obs: Tensor) -> None:
        theta.mul_(1.5)

    def repainted(theta: Tensor, obs: Tensor) -> None:
        obs[0, 1] = 0

    for change in (written, repainted):
        used, taken, computed = found(change)
        assert not used and all(torch.equal(a, b) for a, b in zip(taken, computed, strict=True))
    used, taken, computed = found(lambda theta, obs: None)
    assert used
    _, theta, drawn = rolled(family := games(), 1)
    family.loss(theta[0], map_batch(torch.clone, task_of(drawn, 0)))
    assert not family.acted.used


def test_games_evaluated_together_compute_and_soon_keep_nothing() -> None:
    family = games()
    batch, theta, drawn = rolled(family)
    losses = losses_at(batch.loss, theta, drawn, "batched")
    assert not family.acted.used
    torch.testing.assert_close(losses, losses_at(batch.loss, theta, drawn, "sequential"), rtol=1e-11, atol=1e-13)
    family.acted.used = False
    batch.sample(theta, 1)
    assert family.acted is None
    batch, theta, _ = rolled(games(acting="batched"))
    assert batch._family.acted is None


def test_nothing_is_kept_of_tensors_whose_changes_torch_does_not_count() -> None:
    family = games()
    with torch.inference_mode():
        _, theta, drawn = rolled(family)
        assert family.acted is None and family.loss(theta[0], task_of(drawn, 0))[0].isfinite()


def test_walks_take_it_at_every_step_and_end_where_those_do_that_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[bool] = []

    def walked() -> Tensor:
        family = games()
        batch = family.batch([0, 1], [5, 6])
        sample = batch.sample

        def noted(theta: Tensor, step: int) -> Any:
            if step and family.acted is not None:
                used.append(family.acted.used)
            return sample(theta, step)

        monkeypatch.setattr(batch, "sample", noted)
        folds = {"leap": learners.leap("energy")}
        theta0 = family.initial(0).double()
        found = walk(batch, theta0, steps=3, optimizer=rmsprop(1e-3), folds=folds, execution="sequential")
        if family.acted is not None:
            used.append(family.acted.used)
        return found.results["leap"]

    taken = walked()
    assert used == [True] * 4  # the last one is of the roll-out behind the last step
    monkeypatch.setattr(GameBatch, "_room", lambda batch, theta: None)
    torch.testing.assert_close(taken, walked(), rtol=1e-9, atol=1e-12)
    assert len(used) == 4
