"""Returns, advantages and the actor-critic's loss against loops over single numbers in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.actor_critic import (
    Edges,
    actor_critic_loss,
    clip_rewards,
    edges,
    explained_variance,
    gae,
    legal_logits,
    nstep_returns,
    targets,
)

EVENTS = ("nothing", "terminated", "truncated", "life", "life and truncated")


class Rows:
    """A roll-out of one environment: what happened in each row; an end makes the next row invalid."""

    def __init__(self, events: list[str], seed: int = 0, first_valid: bool = True) -> None:
        rng = np.random.default_rng(seed)
        self.rewards, self.values = rng.normal(size=len(events)), rng.normal(size=len(events) + 1)
        self.events, self.valid, ended = [], [], not first_valid
        for event in events:
            self.valid.append(not ended)
            self.events.append("nothing" if ended else event)
            ended = self.events[-1] in ("terminated", "truncated", "life and truncated")

    def column(self, *events: str) -> Tensor:
        return torch.tensor([event in events for event in self.events])

    def edges(self, life_cuts: bool) -> Edges:
        flags = (
            self.column("terminated"), self.column("truncated", "life and truncated"),
            self.column("life", "life and truncated"), torch.tensor(self.valid),
        )  # fmt: skip
        return edges(*(flag.unsqueeze(1) for flag in flags), life_cuts=life_cuts)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.rewards).unsqueeze(1), torch.tensor(self.values).unsqueeze(1)

    def nothing_follows(self, t: int, life_cuts: bool) -> bool:
        return self.events[t] == "terminated" or (life_cuts and self.events[t].startswith("life"))

    def last_of_episode(self, t: int, life_cuts: bool) -> bool:
        return self.nothing_follows(t, life_cuts) or "truncated" in self.events[t]


def naive_return(rows: Rows, t: int, discount: float, life_cuts: bool) -> float:
    """Walk forward from row t until its episode or the roll-out ends."""
    total, factor = 0.0, 1.0
    while True:
        total += factor * rows.rewards[t]
        factor *= discount
        if rows.nothing_follows(t, life_cuts):
            return total
        if rows.last_of_episode(t, life_cuts) or t + 1 == len(rows.events):
            return total + factor * rows.values[t + 1]
        t += 1


def naive_gae(rows: Rows, t: int, discount: float, decay: float, life_cuts: bool) -> float:
    total, factor = 0.0, 1.0
    while True:
        after = 0.0 if rows.nothing_follows(t, life_cuts) else rows.values[t + 1]
        total += factor * (rows.rewards[t] + discount * after - rows.values[t])
        factor *= discount * decay
        if rows.last_of_episode(t, life_cuts) or t + 1 == len(rows.events):
            return total
        t += 1


def all_rollouts(length: int) -> list[Rows]:
    """Every sequence of events, also with a first row that is not valid."""
    found = [
        Rows(list(events), seed, first)
        for seed, events in enumerate(itertools.product(EVENTS, repeat=length))
        for first in (True, False)
    ]
    assert all(any(not rows.valid[t] for rows in found) for t in range(length))
    return found


@pytest.mark.parametrize("life_cuts", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_targets_agree_with_loops_with_every_event_at_every_position(life_cuts: bool, decay: float) -> None:
    found = all_rollouts(4)
    columns = [rows.tensors() for rows in found]
    rewards, values = (torch.cat(parts, dim=1) for parts in zip(*columns, strict=True))
    own = [rows.edges(life_cuts) for rows in found]
    together = Edges(*(torch.cat(parts, dim=1) for parts in zip(*own, strict=True)))
    returns, advantages = nstep_returns(rewards, values, together, 0.9), gae(rewards, values, together, 0.9, decay)
    for column, rows in enumerate(found):
        for t in range(4):
            expected = naive_return(rows, t, 0.9, life_cuts) if rows.valid[t] else rows.values[t]
            assert float(returns[t, column]) == pytest.approx(expected, rel=1e-12, abs=1e-12)
            expected = naive_gae(rows, t, 0.9, decay, life_cuts) if rows.valid[t] else 0.0
            assert float(advantages[t, column]) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def random_rollout(length: int = 12, count: int = 30, seed: int = 0) -> tuple[Tensor, Tensor, Edges]:
    rng = np.random.default_rng(seed)
    found = [Rows(list(rng.choice(EVENTS, length, p=[0.6, 0.1, 0.1, 0.1, 0.1])), column) for column in range(count)]
    rewards, values = (torch.cat(parts, dim=1) for parts in zip(*[rows.tensors() for rows in found], strict=True))
    return rewards, values, Edges(*(torch.cat(p, dim=1) for p in zip(*[r.edges(True) for r in found], strict=True)))


def test_gae_with_lambda_one_is_the_n_step_return() -> None:
    rewards, values, own = random_rollout()
    returns, advantages = nstep_returns(rewards, values, own, 0.95), gae(rewards, values, own, 0.95, 1.0)
    torch.testing.assert_close(advantages + values[:-1], returns, rtol=1e-12, atol=1e-12)
    one, below = targets(rewards, values, own, 0.95, 1.0), targets(rewards, values, own, 0.95, 0.9)
    assert torch.equal(one[0], returns) and torch.equal(one[1], returns - values[:-1])
    assert torch.equal(below[1], gae(rewards, values, own, 0.95, 0.9))
    torch.testing.assert_close(below[0] - values[:-1], below[1])
    assert not torch.allclose(below[0], one[0])


def test_numbers_computed_by_hand() -> None:
    never = torch.zeros(4, 1, dtype=torch.bool)
    rewards, values = torch.tensor([[1.0], [2.0], [0.0], [4.0]]), torch.tensor([[10.0], [20.0], [30.0], [40.0], [50.0]])
    second, third = (torch.tensor([[row == t] for row in range(4)]) for t in (1, 2))
    ran_out = edges(never, second, never, ~third)  # cut off in row 1, so row 2 starts anew
    # row 3: 4 + 50/2; row 1: 2 + V(o_2)/2; row 0: 1 + 17/2; row 2 is none
    assert nstep_returns(rewards, values, ran_out, 0.5).squeeze(1).tolist() == [9.5, 17.0, 30.0, 29.0]
    # a cut is a cut, also where the next row does not say that it starts anew
    cut = edges(never, second, never, ~never)
    assert nstep_returns(rewards, values, cut, 0.5).squeeze(1).tolist() == [9.5, 17.0, 14.5, 29.0]
    assert gae(rewards, values, cut, 0.5, 1.0).squeeze(1).tolist() == [-0.5, -3.0, -15.5, -11.0]
    over = edges(second, never, never, ~third)
    assert nstep_returns(rewards, values, over, 0.5).squeeze(1).tolist() == [2.0, 2.0, 30.0, 29.0]
    # lambda 1/2: delta = 1 + 10 - 10, 2 - 20; row 0: 1 + (-18)/4
    assert gae(rewards, values, over, 0.5, 0.5).squeeze(1).tolist() == [-3.5, -18.0, 0.0, -11.0]
    life = edges(never, never, second, ~never, life_cuts=True)
    assert nstep_returns(rewards, values, life, 0.5).squeeze(1).tolist() == [2.0, 2.0, 14.5, 29.0]
    kept = edges(never, never, second, ~never)
    assert nstep_returns(rewards, values, kept, 0.5).squeeze(1).tolist() == [5.625, 9.25, 14.5, 29.0]


@pytest.mark.parametrize("ended", [True, False])
def test_what_stands_in_a_row_that_is_no_transition_changes_nothing(ended: bool) -> None:
    """Whether the row before it says that it ended or not."""
    shape = (5, 2)
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (5, 6))
    never = torch.zeros(shape, dtype=torch.bool)
    valid, terminated = ~never, never.clone()
    valid[3, 0], terminated[2, 0] = False, ended
    spoiled = rewards.clone()
    spoiled[3, 0] = torch.nan
    moved = never.clone()
    moved[3, 0] = True
    before = edges(terminated, never, never, valid, life_cuts=True)
    after = edges(terminated | moved, moved, moved, valid, life_cuts=True)
    for estimate in (lambda r, e: nstep_returns(r, values, e, 0.9), lambda r, e: gae(r, values, e, 0.9, 0.8)):
        assert torch.equal(estimate(rewards, before), estimate(spoiled, after))


def losses(reduction: str = "mean", seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "logits": normal(4, 3, 5), "values": normal(4, 3), "returns": normal(4, 3), "advantages": normal(4, 3),
        "actions": torch.randint(5, (4, 3), generator=generator),
        "valid": torch.rand(4, 3, generator=generator) < 0.7,
    }  # fmt: skip


WEIGHTS = {"value_weight": 0.3, "entropy_weight": 0.2}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_and_its_gradient_agree_with_a_loop_over_rows(reduction: str) -> None:
    own = losses()
    assert 0 < int(own["valid"].sum()) < 12
    own["logits"].requires_grad_(), own["values"].requires_grad_()
    loss, recorded = actor_critic_loss(**own, **WEIGHTS, reduction=reduction)
    total, parts, count = torch.zeros((), dtype=torch.float64), np.zeros(3), 0
    for t, e in itertools.product(range(4), range(3)):
        if not own["valid"][t, e]:
            continue
        count += 1
        probabilities = own["logits"][t, e].exp() / own["logits"][t, e].exp().sum()
        policy = -probabilities[own["actions"][t, e]].log() * own["advantages"][t, e]
        value = (own["returns"][t, e] - own["values"][t, e]) ** 2
        entropy = -sum(p * p.log() for p in probabilities)
        total = total + policy + 0.3 * value - 0.2 * entropy
        parts += [float(part.detach()) for part in (policy, value, entropy)]
    expected = total / count if reduction == "mean" else total
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    leaves = (own["logits"], own["values"])
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
        assert not ours[~own["valid"]].any() and ours[own["valid"]].any()
    names = ("policy_loss", "value_loss", "entropy")
    assert [float(recorded[name].detach()) for name in names] == pytest.approx(list(parts / count), rel=1e-12)
    assert float(recorded["return_mean"]) == pytest.approx(float(own["returns"][own["valid"]].mean()), rel=1e-12)


def test_rows_that_are_no_transitions_have_no_part_in_the_loss() -> None:
    own = losses()
    before = actor_critic_loss(**own, **WEIGHTS)
    changed = {name: tensor.clone() for name, tensor in own.items()}
    for name in ("logits", "values", "returns", "advantages"):
        changed[name][~own["valid"]] = 77.0
    changed["actions"][~own["valid"]] = 0
    after = actor_critic_loss(**changed, **WEIGHTS)
    assert torch.equal(before[0], after[0])
    assert all(torch.equal(before[1][name], after[1][name]) for name in before[1])
    none = own | {"valid": torch.zeros_like(own["valid"])}
    assert float(actor_critic_loss(**none)[0]) == 0.0


def test_targets_carry_no_gradient() -> None:
    rewards, values, own = random_rollout()
    values.requires_grad_()
    assert not any(found.requires_grad for found in targets(rewards, values, own, 0.9, 0.8))
    assert not nstep_returns(rewards, values, own, 0.9).requires_grad
    parts = losses()
    parts["returns"].requires_grad_(), parts["advantages"].requires_grad_(), parts["logits"].requires_grad_()
    (actor_critic_loss(**parts)[0]).backward()
    assert parts["returns"].grad is None and parts["advantages"].grad is None
    assert bool(parts["logits"].grad.any())


def test_illegal_actions_have_neither_probability_nor_gradient() -> None:
    own = losses()
    own["actions"] = own["actions"] % 3
    wide = own["logits"].clone().requires_grad_()
    narrow = own["logits"][..., :3].clone().requires_grad_()
    ours = actor_critic_loss(**own | {"logits": legal_logits(wide, 3)}, **WEIGHTS)
    theirs = actor_critic_loss(**own | {"logits": narrow}, **WEIGHTS)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-13, atol=0)
    torch.testing.assert_close(ours[1]["entropy"], theirs[1]["entropy"], rtol=1e-13, atol=0)
    (grad,), (expected,) = torch.autograd.grad(ours[0], wide), torch.autograd.grad(theirs[0], narrow)
    torch.testing.assert_close(grad[..., :3], expected, rtol=1e-12, atol=1e-15)
    assert not grad[..., 3:].any()


def test_all_of_it_goes_through_vmap() -> None:
    rewards, values, own = random_rollout(count=12)
    stacked = [x.unflatten(1, (3, 4)).movedim(1, 0) for x in (rewards, values, *own)]

    def one(r: Tensor, v: Tensor, *flags: Tensor) -> tuple[Tensor, Tensor]:
        returns, advantages = targets(r, v, Edges(*flags), 0.9, 0.8)
        logits = legal_logits(torch.stack([r, -r, r * 2], dim=-1), 2)
        loss, _ = actor_critic_loss(logits, v[:-1], torch.zeros_like(flags[0]).long(), returns, advantages, flags[0])
        return advantages, loss

    mapped = torch.func.vmap(one)(*stacked)
    for task in range(3):
        alone = one(*(x[task] for x in stacked))
        torch.testing.assert_close(mapped[0][task], alone[0], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(mapped[1][task], alone[1], rtol=1e-13, atol=1e-13)


def test_explained_variance_knows_its_ends() -> None:
    returns = torch.tensor([[1.0], [3.0], [5.0], [100.0]], dtype=torch.float64)
    valid = torch.tensor([[True], [True], [True], [False]])
    assert float(explained_variance(returns, returns, valid)) == 1.0
    assert float(explained_variance(torch.zeros_like(returns), returns, valid)) == 0.0
    assert float(explained_variance(-returns, returns, valid)) == -3.0
    assert float(explained_variance(returns, torch.ones_like(returns), valid)) == 0.0
    assert explained_variance(returns * torch.nan, returns, valid).isnan()
    assert explained_variance(returns, returns * torch.nan, valid).isnan()


def test_rewards_are_clipped_by_value_or_not_at_all() -> None:
    rewards = torch.tensor([-9.0, -0.5, 0.0, 3.0, 200.0, torch.nan])
    assert clip_rewards(rewards, 5.0)[:5].tolist() == [-5.0, -0.5, 0.0, 3.0, 5.0]
    assert clip_rewards(rewards, 1.0)[:5].tolist() == [-1.0, -0.5, 0.0, 1.0, 1.0]
    assert clip_rewards(rewards, 5.0)[5].isnan() and clip_rewards(rewards, None) is rewards
