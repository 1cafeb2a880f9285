"""Networks of actor-critics: the papers' shapes, bytes scaled inside, and a generator decides how they begin."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from envs.tiny import TINY
from leap.errors import UsageError
from leap.layout import Layout
from tasks import agents
from tasks.agents import NETWORKS, Agent, Head, initialize, initialize_head
from tasks.games import Games
from tasks.screens import new


@pytest.mark.parametrize(
    ("network", "shape", "encoder"),
    [
        # convolutions, then the dense layer behind 9 x 9, 7 x 7, 6 x 6 and 2 x 2 pixels
        ("mnih2013", (3, 84, 84), 16 * (3 * 64 + 1) + 32 * (16 * 16 + 1) + 256 * (32 * 81 + 1)),
        ("nature", (4, 84, 84), 32 * (4 * 64 + 1) + 64 * (32 * 16 + 1) + 64 * (64 * 9 + 1) + 512 * (64 * 49 + 1)),
        ("small", (4, 42, 42), 16 * (4 * 9 + 1) + 32 * (16 * 9 + 1) + 32 * (32 * 9 + 1) + 128 * (32 * 36 + 1)),
        ("small", (3, 16, 16), 16 * (3 * 9 + 1) + 32 * (16 * 9 + 1) + 32 * (32 * 9 + 1) + 128 * (32 * 4 + 1)),
    ],
)
def test_networks_have_the_papers_shapes_and_the_dense_layer_is_encoder(
    network: str, shape: tuple[int, int, int], encoder: int
) -> None:
    agent = Agent(shape, 6, network)
    layout = Layout.of(agent, own_head=True)
    assert layout.trunk == layout.shared == encoder
    assert layout.n - encoder == (NETWORKS[network].width + 1) * 7
    assert [name for name in layout.names if name.startswith("head.")] == list(layout.names[-4:])
    logits, values = agent(torch.zeros(5, *shape, dtype=torch.uint8))
    assert logits.shape == (5, 6) and values.shape == (5,)


def test_bytes_are_scaled_to_at_most_one() -> None:
    agent = initialize(Agent((3, 84, 84), 4), torch.Generator().manual_seed(0)).double()
    obs = torch.randint(256, (3, 3, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = obs.double() / 255
    for conv in agent.convs:
        x = F.relu(conv(x))
    features = F.relu(agent.dense(x.flatten(1)))
    torch.testing.assert_close(agent.features(obs), features, rtol=1e-12, atol=1e-13)
    logits, values = agent(obs)
    torch.testing.assert_close(logits, features @ agent.head.policy.weight.T + agent.head.policy.bias)
    torch.testing.assert_close(values, (features @ agent.head.value.weight.T + agent.head.value.bias)[:, 0])
    assert obs.dtype == torch.uint8


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_are_orthogonal_with_the_gains_of_their_place(network: str) -> None:
    agent = initialize(Agent((3, 84, 84), 6, network), torch.Generator().manual_seed(0))

    def gain(layer: nn.Module) -> float:
        weight = layer.weight.detach().flatten(1).double()
        weight = weight if weight.shape[0] <= weight.shape[1] else weight.T
        square = weight @ weight.T
        scale = square.diagonal().mean()
        torch.testing.assert_close(square, scale * torch.eye(len(square)).double(), rtol=0, atol=1e-5 * float(scale))
        assert not layer.bias.any()
        return math.sqrt(float(scale))

    gains = [gain(layer) for layer in (*agent.convs, agent.dense, agent.head.policy, agent.head.value)]
    expected = [math.sqrt(2)] * (len(agent.convs) + 1) + [0.01, 1.0]
    assert gains == pytest.approx(expected, rel=1e-4)


def test_a_generator_decides_the_initialization() -> None:
    before = torch.random.get_rng_state()
    rows = []
    for seed in (0, 0, 1):
        agent = Agent((3, 16, 16), 6, "small")
        torch.manual_seed(seed + 7)
        rows.append(Layout.of(agent).flatten(initialize(agent, torch.Generator().manual_seed(seed))))
    torch.random.set_rng_state(before)
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    heads = [initialize_head(Head(8, 3), torch.Generator().manual_seed(seed)).policy.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_fresh_policy_is_nearly_uniform() -> None:
    agent = initialize(Agent((3, 84, 84), 6), torch.Generator().manual_seed(0))
    obs = torch.randint(256, (20, 3, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    shares = agent(obs)[0].softmax(-1)
    assert (shares - 1 / 6).abs().max() < 0.01


def test_it_goes_through_vmap_with_parameters_of_every_task() -> None:
    agent = Agent((3, 16, 16), 4, "small").double()
    layout = Layout.of(agent)
    generator = torch.Generator().manual_seed(0)
    theta = layout.flatten(agent).expand(3, -1) + 0.1 * torch.randn(3, layout.n, generator=generator).double()
    obs = torch.randint(256, (3, 5, 3, 16, 16), dtype=torch.uint8, generator=generator)

    def run(point: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.func.functional_call(agent, layout.unflatten(point), (own,))

    logits, values = torch.func.vmap(run)(theta, obs)
    for task in range(3):
        alone = run(theta[task], obs[task])
        torch.testing.assert_close(logits[task], alone[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(values[task], alone[1], rtol=1e-10, atol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no network 'natur'. Did you mean 'nature'\? Known: \['mnih2013'"):
        Agent((3, 84, 84), 4, "natur")
    with pytest.raises(UsageError, match="'nature' leaves nothing of a picture of 30 x 84; choose 'small'"):
        Agent((3, 30, 84), 4, "nature")


@pytest.mark.parametrize("network", NETWORKS)
def test_the_order_of_pictures_in_memory_changes_no_number(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = initialize(Agent((4, 84, 84), 6, network), torch.Generator().manual_seed(0)).double()
    obs = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    last: list[bool] = []
    convolution = F.conv2d

    def watched(x: torch.Tensor, *others: Any) -> torch.Tensor:
        last.append(x.stride(1) == 1)
        return convolution(x, *others)

    monkeypatch.setattr(F, "conv2d", watched)
    with torch.no_grad():
        in_c = agent.features(obs)
        last.clear()
        monkeypatch.setattr(agents, "encoded", lambda *given: None)
        acting = agent.features(obs)
        noting = agent.features(obs, new)
    learning = agent.features(obs)
    for found in (in_c, noting, learning.detach()):
        torch.testing.assert_close(found, acting, rtol=1e-12, atol=1e-13)
    # channels last where a gradient is to be had, or what acting computes is kept for one
    assert last[:: len(agent.convs)] == [False, True, True]
    together = torch.func.vmap(agent.features)(obs.unsqueeze(1).expand(3, 2, 4, 84, 84))
    torch.testing.assert_close(together[:, 1].detach(), acting, rtol=1e-12, atol=1e-13)


def tiny(acting: str) -> Games:
    return Games(
        lambda name, count: TINY[name](count), ["catch", "seek"], ["sprint"], seed=0, environments=3, unroll=4,
        network="small", acting=acting, evaluation_episodes=3,
    )  # fmt: skip


def test_games_act_alike_together_and_one_by_one() -> None:
    ids, seeds = [0, 1, 2, 0], [1, 2, 3, 4]
    rolled = {}
    for acting in ("sequential", "batched", "auto"):
        family = tiny(acting)
        tasks = family.batch(ids, seeds)
        theta = 4 * tasks.start(family.initial(0).double().expand(4, -1))  # four times: no longer nearly uniform
        calls: list[int] = []
        family.module.register_forward_hook(lambda agent, given, found: calls.append(len(found)))  # noqa: B023
        rolled[acting] = [part for step in range(3) for part in tasks.sample(theta, step)]
        assert len(calls) == 3 * 4 * (1 if acting == "batched" else 4)
    assert len({tuple(part.flatten().tolist()) for part in rolled["batched"][1]}) == 4
    for other in ("batched", "auto"):
        assert all(torch.equal(a, b) for a, b in zip(rolled["sequential"], rolled[other], strict=True))


@pytest.mark.parametrize("policy, threads", [(None, 1), ("ACTIVE", 1), ("passive", 2), ("PASSIVE", 2)])
def test_acting_takes_one_thread_where_others_would_spin_and_gives_them_back(
    policy: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    family, before, seen = tiny("auto"), torch.get_num_threads(), []
    family.module.register_forward_hook(lambda agent, given, found: seen.append(torch.get_num_threads()))
    tasks = family.batch([0], [0])
    try:
        torch.set_num_threads(2)
        theta = tasks.start(family.initial(0)[None])
        tasks.sample(theta, 0)
        tasks.score(theta)
        assert set(seen) == {threads} and torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="one row a game"):
            tasks.sample(theta.expand(2, -1), 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_way_of_acting_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="acting must be one of auto, sequential, batched, got 'vmap'"):
        tiny("vmap")
