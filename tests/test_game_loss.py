"""The loss of a game's roll-out: against a loop over single observations, and what may not move it."""

from __future__ import annotations

import math

import pytest
import torch
from small_games import games, named, points
from torch import Tensor

from leap.batching import task_of
from leap.layout import Layout
from tasks.agents import Agent
from tasks.games import Games


def naive_loss(family: Games, theta: Tensor, batch: tuple[Tensor, ...], bound: float | None) -> Tensor:
    """Row by row, from one forward pass an observation; discount 0.9, lambda 1, weights 0.3 and 0.2, mean."""
    own = named(batch)
    logits, values = {}, {}
    steps, count = own["actions"].shape
    for t in range(steps + 1):
        for e in range(count):
            row, value = family.policy(theta, own["obs"][t, e][None], own["legal"])
            logits[t, e], values[t, e] = row[0, : int(own["legal"])], value[0]
    total, kept = torch.zeros((), dtype=theta.dtype), 0
    for e in range(count):
        for t in range(steps):
            if not own["valid"][t, e]:
                continue
            target, factor, at = 0.0, 1.0, t
            while True:
                reward = float(own["reward"][at, e])
                target += factor * (reward if bound is None else max(-bound, min(bound, reward)))
                factor *= 0.9
                if own["terminated"][at, e] or own["life_lost"][at, e]:
                    break
                if own["truncated"][at, e] or at + 1 == steps:
                    target += factor * float(values[at + 1, e].detach())
                    break
                at += 1
            log = logits[t, e].log_softmax(0)
            total = total - log[own["actions"][t, e]] * (target - float(values[t, e].detach()))
            total = total + 0.3 * (target - values[t, e]) ** 2 + 0.2 * (log.exp() * log).sum()
            kept += 1
    return total / kept


@pytest.mark.parametrize("bound", [None, 0.5])
def test_the_loss_and_its_gradient_agree_with_a_loop_over_single_observations(bound: float | None) -> None:
    family = games(
        ("cut", "catch"), discount=0.9, value_weight=0.3, entropy=0.2, life_cuts=True, clip_reward=bound, unroll=6
    )
    batch, theta = family.batch([0, 1], [3, 4]), points(family, 2)
    seen = torch.zeros(4, dtype=torch.bool)
    for step in range(4):
        drawn_now = batch.sample(theta, step)
        for task in (0, 1):
            own = task_of(drawn_now, task)
            seen |= torch.stack([flags.any() for flags in (*own[3:6], ~own[6])])
            ours, theirs = (theta[task].clone().requires_grad_() for _ in range(2))
            loss, expected = batch.loss(ours, own)[0], naive_loss(family, theirs, own, bound)
            torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-11)
            found = torch.autograd.grad(loss, ours)[0], torch.autograd.grad(expected, theirs)[0]
            torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)
    assert seen.tolist() == [True] * 4  # every kind of end, and rows that are no transitions


def test_what_stands_in_a_row_that_is_no_transition_moves_nothing() -> None:
    family = games(("catch",))
    batch, theta = family.batch([0], [3]), points(family, 1)[0]
    own = next(
        own for own in (task_of(batch.sample(theta[None], step), 0) for step in range(9))
        if (~own[6][1:]).any()
    )  # fmt: skip
    row, env = [int(x) for x in (~own[6][1:]).nonzero()[0] + torch.tensor([1, 0])]
    obs, actions, reward, *flags = (part.clone() for part in own)
    obs[row, env], actions[row, env], reward[row, env] = 99, (actions[row, env] + 1) % 3, math.nan
    flags[2][row, env] = True
    gradients = []
    for changed in (own, (obs, actions, reward, *flags)):
        at = theta.clone().requires_grad_()
        gradients.append(torch.autograd.grad(batch.loss(at, changed)[0], at)[0])
    assert torch.equal(*gradients) and gradients[0].any()


def test_a_padded_head_is_a_head_of_the_games_own_width() -> None:
    family = games(("catch",), ("sprint",))  # 3 of 5 actions
    batch = family.batch([0], [3])
    theta = batch.start(points(family, 1))[0]
    own = task_of(batch.sample(theta[None], 0), 0)
    narrow = Agent((3, 16, 16), 3, "small").double()
    layout, split = Layout.of(narrow, own_head=True), family.layout.unflatten(theta)
    assert not split["head.policy.weight"][3:].any()
    cut = layout.flatten({name: v[:3] if name.startswith("head.policy") else v for name, v in split.items()})
    obs = own[0][0]
    logits, values = torch.func.functional_call(narrow, layout.unflatten(cut), (obs,))
    ours = family.policy(theta, obs, own[-1])
    torch.testing.assert_close(ours[0][:, :3], logits)
    torch.testing.assert_close(ours[1], values)
    grad = family.layout.unflatten(torch.func.grad(lambda at: batch.loss(at, own)[0])(theta))
    assert not grad["head.policy.weight"][3:].any() and not grad["head.policy.bias"][3:].any()
    assert grad["head.policy.weight"][:3].any() and grad["head.value.weight"].any()


def test_parameters_without_meaning_act_at_random_and_lose_nan() -> None:
    family = games()
    theta = points(family, 2)
    theta[0, : family.layout.trunk] = math.nan
    batch = family.batch([0, 1], [5, 6])
    found = batch.sample(theta, 0)
    assert batch.loss(theta[0], task_of(found, 0))[0].isnan()
    assert batch.loss(theta[1], task_of(found, 1))[0].isfinite()
    scores = batch.score(theta)["test_return"]
    assert scores[0].isnan() and scores[1].isfinite()
