"""The row of games: both sides play as often, our slices are one walk, and where SB3 is missing the row says so."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from envs.tiny import TINY, truncated
from leap import learners
from leap.bench import rows_atari, sb3
from leap.bench.row import LeftOut, carry_out
from leap.layout import Layout
from leap.optim import clipped, rmsprop
from leap.walk import walk
from tasks.actor_critic import actor_critic_loss, edges, targets
from tasks.agents import NETWORKS, Agent
from tasks.games import Games

SETTINGS = sb3.Settings(unroll=3, style="tf")
SMALL = sb3.Network(NETWORKS["small"].convs, NETWORKS["small"].width)


def games() -> Games:
    return Games(
        lambda name, count: TINY[name](count), ["catch"], ["seek"], seed=0, environments=4, unroll=SETTINGS.unroll,
        value_weight=SETTINGS.value_weight, entropy=SETTINGS.entropy, clip_reward=1.0, network="small",
    )  # fmt: skip


def work(peers: dict[str, Callable[[], Any]], rivals: list[str]) -> rows_atari.Workload:
    return rows_atari.Workload(games, 4, peers, rivals, SETTINGS, slice=2, turn=1, execution="sequential")


class Learner:
    """Stands where SB3's stands."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.learned = seconds, []

    def learn(self, steps: int, reset_num_timesteps: bool) -> None:
        assert not reset_num_timesteps
        self.learned.append(steps)
        time.sleep(self.seconds)


def test_the_row_holds_us_to_the_fastest_rival_and_tells_parts() -> None:
    slow, fast, other = Learner(0.05), Learner(0.01), Learner(0)
    peers = {"slow": lambda: slow, "fast": lambda: fast, "other": lambda: other}
    row = rows_atari.atari_row(work(peers, ["slow", "fast"]))
    assert row.setting["agent steps"] == 2 * 3 * 4
    assert [goal.most for goal in row.goals] == [1 / 1.6] * 2
    found = carry_out(row, seconds=0.01)
    assert found["reference"] == "fast"
    assert slow.learned == [12] * 4  # a slice before, and one that is timed
    parts = {name: spent["seconds"]["value"] for name, spent in found["results"].items() if ": " in name}
    whole = found["results"][rows_atari.WITH]["seconds"]["value"]
    assert sum(parts.values()) == pytest.approx(whole, rel=0.05)
    for part in ("environments", "acting", "learning", "update", "fold"):
        assert parts[f"{rows_atari.WITH}: {part}"] > 0


def test_slices_are_one_walk() -> None:
    plain = work({}, [])
    onward = rows_atari.Onward(plain, 5)
    theta = []
    for _ in range(2):
        assert list(onward.run({"leap": learners.leap("energy")})) == [1]
        theta.append(onward.theta)
    family = games()
    tasks = family.batch([0], [5])
    # RMSProp begins anew with a slice, so the second one is another walk from where the first one ended
    first = walk(tasks, family.initial(5), steps=2, optimizer=plain.optimizer, execution="sequential").theta
    torch.testing.assert_close(theta[0], first, rtol=0, atol=0)
    state = plain.optimizer.init(first, first[:, :0])
    for step in (2, 3):
        point = first[0].clone().requires_grad_()
        loss, _ = family.loss(point, [part[0] for part in tasks.sample(first, step)])
        (grad,) = torch.autograd.grad(loss, point)
        with torch.no_grad():
            first, state = plain.optimizer.update(state, grad[None], first, step)
    torch.testing.assert_close(theta[1], first, rtol=1e-6, atol=1e-8)


def test_without_sb3_the_row_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(LeftOut, match=r"cannot be imported \(No module named 'stable_baselines3'\); pip install"):
        rows_atari.atari_row(work({"SB3": lambda: sb3.a2c(None, None, SETTINGS, 0)}, ["SB3"]))


@pytest.fixture(scope="module")
def installed() -> None:
    try:
        sb3.load()
    except LeftOut as reason:
        pytest.skip(str(reason))


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore")
def test_sb3_learns_with_our_network_and_settings() -> None:
    env = sb3.over([TINY["catch"](1) for _ in range(4)], clip=1.0, seed=0)
    model = sb3.a2c(env, SMALL, SETTINGS, seed=0)
    theirs = {tuple(p.shape) for p in model.policy.parameters()}
    assert theirs == {tuple(p.shape) for p in games().module.parameters()} - {(4, 128), (4,)} | {(3, 128), (3,)}
    assert (model.vf_coef, model.ent_coef, model.gamma, model.max_grad_norm) == (0.25, 0.01, 0.99, 0.5)
    assert type(model.policy.optimizer).__name__ == "RMSpropTFLike"
    before = [p.detach().clone() for p in model.policy.parameters()]
    row = rows_atari.atari_row(work({"SB3": lambda: model}, ["SB3"]))
    carry_out(row, seconds=0.01)
    assert env.steps == model.num_timesteps == 2 * 24  # one to warm, one round
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore")
def test_our_returns_and_loss_are_theirs_on_one_roll_out() -> None:
    env = sb3.over([TINY["catch"](1) for _ in range(4)], clip=1.0, seed=0)
    model = sb3.a2c(env, SMALL, SETTINGS, seed=0)
    model.learn(36)  # the last roll-out is steps 7 to 9, and a game lasts 7
    buffer, policy = model.rollout_buffer, model.policy
    data = next(iter(buffer.get()))
    values, log_prob, entropy = policy.evaluate_actions(data.observations, data.actions.long().flatten())
    theirs = -(data.advantages * log_prob).mean() - SETTINGS.entropy * entropy.mean()
    theirs = theirs + SETTINGS.value_weight * F.mse_loss(data.returns, values.flatten())
    never = torch.zeros(3, 4, dtype=torch.bool)
    over = torch.cat([torch.as_tensor(buffer.episode_starts[1:]) > 0, never[:1]])
    values_then, returns_then, advantages_then = (  # SB3 lays them out by environment
        torch.as_tensor(part.reshape(4, 3).T) for part in (buffer.values, buffer.returns, buffer.advantages)
    )
    # what follows was valued with the parameters before the update, so it is read off the last return
    ahead = (returns_then[-1] - torch.as_tensor(buffer.rewards[-1])) / SETTINGS.discount
    known = torch.cat([values_then, ahead[None]])
    own = edges(over, never, never, ~never)
    returns, advantages = targets(torch.as_tensor(buffer.rewards), known, own, SETTINGS.discount, 1.0)
    assert over.any() and buffer.rewards.any()
    torch.testing.assert_close(returns, returns_then, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(advantages, advantages_then, rtol=1e-5, atol=1e-6)
    features = policy.extract_features(data.observations)
    logits = policy.action_net(features)
    loss, _ = actor_critic_loss(
        logits[None], values.flatten()[None], data.actions.long().flatten()[None], data.returns[None],
        data.advantages[None], torch.ones(1, len(logits), dtype=torch.bool), SETTINGS.value_weight, SETTINGS.entropy,
    )  # fmt: skip
    torch.testing.assert_close(loss, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("style", ["torch", "tf"])
def test_our_updates_are_theirs_on_one_roll_out(style: str) -> None:
    settings = dataclasses.replace(SETTINGS, style=style, norm=0.28)
    model = sb3.a2c(sb3.over([TINY["catch"](1) for _ in range(4)], clip=1.0, seed=0), SMALL, settings, seed=0)
    model.learn(36)
    policy, data = model.policy, next(iter(model.rollout_buffer.get()))
    policy.optimizer = type(policy.optimizer)(policy.parameters(), **policy.optimizer.defaults)  # begun anew, as ours
    agent = Agent((3, 16, 16), 3, "small")

    def theta() -> torch.Tensor:
        """Theirs as ours; both lay layers out in one order, but for the head."""
        theirs = dict(policy.named_parameters())
        body = [p for name, p in theirs.items() if name.startswith("features_extractor")]
        head = [theirs[f"{part}.{kind}"] for part in ("action_net", "value_net") for kind in ("weight", "bias")]
        return torch.cat([p.detach().flatten() for p in (*body, *head)])

    def loss(point: torch.Tensor) -> torch.Tensor:
        logits, values = functional_call(agent, layout.unflatten(point), (data.observations.byte(),))
        rows = (data.actions.long().flatten(), data.returns, data.advantages, torch.ones(len(values), dtype=torch.bool))
        found, _ = actor_critic_loss(
            logits[None], values[None], *(row[None] for row in rows), settings.value_weight, settings.entropy
        )
        return found

    layout = Layout.of(agent)
    assert [layout.shapes[i] for i in range(-4, 0)] == [(3, 128), (3,), (1, 128), (1,)]
    optimizer = clipped(rmsprop(settings.lr, settings.alpha, settings.eps, style=style), settings.norm)
    ours = start = theta()[None]
    state, norms = optimizer.init(ours, ours[:, :0]), []
    for step in range(4):
        grad = torch.func.grad(loss)(ours[0])[None]
        norms.append(float(grad.norm()))
        ours, state = optimizer.update(state, grad, ours, step)
        model.train()
    moved = float((theta() - start).norm())
    assert moved > (1e-2 if style == "torch" else 1e-4) and max(norms) > settings.norm
    assert float((theta() - ours).norm()) < 1e-3 * moved


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore")
def test_games_restart_for_sb3_in_the_step_that_ends_them() -> None:
    singles = [truncated("follow", 4)(1), TINY["catch"](1)]
    env = sb3.over(singles, clip=0.1, seed=3)
    first = env.reset()
    assert first.shape == (2, 3, 16, 16) and first.dtype == np.uint8
    for step in range(1, 15):
        obs, reward, ended, infos = env.step(np.array([0, 0]))
        assert ended.tolist() == [step % 4 == 0, step % 7 == 0]
        assert (np.abs(reward) <= 0.1 + 1e-6).all()
        for row, end in enumerate(ended):
            if end:
                assert infos[row]["TimeLimit.truncated"] == (row == 0)
                assert not np.array_equal(infos[row]["terminal_observation"], obs[row])
    assert [length for _, _, length in env.episodes] == [4, 7, 4, 4, 7]
    assert [step for step, _, _ in env.episodes] == [8, 14, 16, 24, 28]
    assert all(abs(score) == 1 for _, score, length in env.episodes if length == 7)  # unclipped
