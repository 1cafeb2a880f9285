"""Games as tasks: what a roll-out holds, what a walk learns from it, and that the seed decides all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.tiny import BEST, TINY, corridor_values, expert, truncated, with_lives
from envs.vector import Episode, VectorEnv
from leap import learners, optim
from leap.batching import task_of
from leap.errors import RunError, UsageError
from leap.evaluate import evaluate
from leap.layout import Layout
from leap.resumption import Keeper
from leap.testing import check_family, check_learner
from leap.trainer import Plan, Trainer
from leap.walk import Fold, walk
from tasks.agents import Agent
from tasks.games import Games
from tasks.play import Space, drawn

GAMES = TINY | {
    "short": truncated("corridor", 3),
    "lives": with_lives("catch", lives=3, rounds=4),
    "cut": with_lives("catch", lives=3, rounds=9, limit=10),
}


def games(train: tuple[str, ...] = ("catch", "seek"), test: tuple[str, ...] = ("sprint",), **changes: Any) -> Games:
    make = changes.pop("make", lambda name, count: GAMES[name](count))
    options = {
        "seed": 0, "environments": 3, "unroll": 4, "network": "small", "evaluation_episodes": 4, "clip_reward": None
    }  # fmt: skip
    return Games(make, train, test, **(options | changes))


def points(family: Games, tasks: int, seed: int = 0) -> Tensor:
    """Parameters [T, n] whose policies are far from uniform and from each other."""
    generator = torch.Generator().manual_seed(seed)
    rows = family.initial(seed).double().expand(tasks, -1).clone()
    return rows + 0.05 * torch.randn(rows.shape, generator=generator, dtype=torch.float64)


NAMES = ("obs", "actions", "reward", "terminated", "truncated", "life_lost", "valid", "legal")


def named(batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return dict(zip(NAMES, batch, strict=True))


def test_it_keeps_the_contract_of_families() -> None:
    check_family(games())


class Anew:
    """A batch that begins anew at step 0, which a game's own does not: for checks that walk the same tasks twice."""

    def __init__(self, family: Games, ids: list[int], seeds: list[int]) -> None:
        self._make = lambda: family.batch(ids, seeds)
        self._own = self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, ...]:
        if step == 0:
            self._own = self._make()
        return self._own.sample(theta, step)


@pytest.mark.parametrize("name", ["leap", "reptile", "fomaml"])
def test_learners_keep_their_contract_with_games(name: str) -> None:
    """Batched equals sequential in float64, for two games with 3 and 4 actions."""
    family = games()
    check_learner(getattr(learners, name), Anew(family, [0, 1], [5, 6]), family.initial(0).double())


def test_batched_walks_equal_sequential_ones_step_by_step() -> None:
    family = games(("lives", "seek"), life_cuts=True, gae=0.9)
    walked = {}
    for execution in ("batched", "sequential"):
        batch = family.batch([0, 1], [5, 6])
        optimizer = optim.clipped(optim.rmsprop(1e-3, 0.99, 1e-5), 0.5)
        walked[execution] = walk(
            batch, family.initial(0).double(), steps=6, optimizer=optimizer, execution=execution
        )  # fmt: skip
        walked[execution + " episodes"] = batch.outcomes()
    a, b = walked["batched"], walked["sequential"]
    torch.testing.assert_close(a.theta, b.theta, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(a.losses, b.losses, rtol=1e-9, atol=1e-11)
    assert all(torch.allclose(a.aux[name], b.aux[name], rtol=1e-9, atol=1e-11) for name in a.aux)
    assert walked["batched episodes"] == walked["sequential episodes"]
    assert {"policy_loss", "value_loss", "entropy", "explained_variance", "return_mean"} == set(a.aux)


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


SPACES = {name: Space((3, 16, 16), TINY[name](1).actions) for name in ("catch", "seek", "sprint")}


def test_what_was_played_cannot_be_played_again() -> None:
    family, theta = games(), points(games(), 1)
    batch = family.batch([0], [5])
    first = batch.sample(theta, 0)
    assert batch.sample(theta + 1, 0) is first
    second = batch.sample(theta, 1)
    assert torch.equal(second[0][:, 0], first[0][:, -1])  # from where the last left off
    with pytest.raises(UsageError, match=r"inner step 0 was asked for after step 1.*maml.*jacobian: identity, reptile"):
        batch.sample(theta, 0)
    with pytest.raises(UsageError, match="inner step 3 was asked for, but step 2 is the next"):
        batch.sample(theta, 3)
    with pytest.raises(ValueError, match=r"theta must be \[1, n\]"):
        batch.sample(theta.expand(2, -1), 2)


@pytest.mark.parametrize("name", ["maml", "anil", "meta_sgd", "leap-exact"])
def test_learners_that_go_back_are_refused(name: str) -> None:
    learner = learners.leap(jacobian="exact") if name == "leap-exact" else getattr(learners, name)()
    plan = Plan(seed=0, inner_steps=2, meta_batch=1, execution="sequential")
    trainer = Trainer(games(), learner, lambda k: optim.sgd(0.1), ("SGD", optim.constant, {"lr": 1.0}), plan)
    with pytest.raises(UsageError, match="cannot learn games"):
        trainer.meta_step()


def test_a_walk_that_was_overtaken_says_so() -> None:
    family, theta = games(), points(games(), 1)
    first, second = family.batch([0], [5]), family.batch([0], [6])
    first.sample(theta, 0), second.sample(theta, 0)
    with pytest.raises(RunError, match="another walk has taken over the environments of catch"):
        first.sample(theta, 1)
    second.sample(theta, 1)
    second.score(theta)  # in environments of the score's own
    second.sample(theta, 2)


@pytest.mark.parametrize("metric", ["length", "energy"])
def test_leaps_increments_are_those_of_the_stored_walk(metric: str) -> None:
    """Equation 8 over stored theta, loss and gradient; with a clipped RMSProp the gradient is that of f itself."""
    family, stored = games(), []
    batch = family.batch([0, 1], [5, 6])
    optimizer = optim.clipped(optim.rmsprop(3e-3, 0.99, 1e-5), 1e-3)
    keep = Fold(lambda theta0: None, lambda state, s: stored.append(s), lambda state, end: end.loss)
    found = walk(
        batch, family.initial(0).double(), steps=5, optimizer=optimizer,
        folds={"leap": learners.leap(metric), "keep": keep}, execution="sequential",
    )  # fmt: skip
    trunk, p = family.layout.trunk, {"length": 1, "energy": 2}[metric]
    for task in (0, 1):
        thetas = [s.theta[task] for s in stored] + [stored[-1].theta_next[task]]
        losses = [float(s.loss[task]) for s in stored] + [float(found.results["keep"][task])]
        total = torch.zeros(trunk, dtype=torch.float64)
        for i, s in enumerate(stored):
            assert float(s.grad[task].norm()) > 1e-3  # the step was clipped; the increment takes the whole
            delta, rise = thetas[i + 1] - thetas[i], -abs(losses[i + 1] - losses[i])
            length = math.sqrt(float(delta.square().sum()) + rise**2)
            total -= p * (rise * s.grad[task] + delta) * length ** (p - 2)
        torch.testing.assert_close(found.results["leap"][task], total, rtol=1e-10, atol=1e-13)
    assert found.results["leap"].shape == (2, trunk)


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


class Scripted:
    """Environments whose episodes have lengths and scores of their own: environment e ends every e + 2 steps."""

    name, actions, shape = "scripted", 2, (1, 16, 16)

    def __init__(self, count: int) -> None:
        self.count = count

    def reset(self, seed: int) -> np.ndarray:
        self._env = TINY["corridor"](self.count)  # for its order of calls
        self._env.reset(seed)
        self._at, self._number = np.zeros(self.count, int), np.zeros(self.count, int)
        return np.zeros((self.count, *self.shape), np.uint8)

    def send(self, actions: np.ndarray) -> None:
        self._env.send(actions)

    def receive(self) -> Any:
        self._at += 1
        over = self._at == np.arange(self.count) + 2
        episodes = []
        for env in np.flatnonzero(over):
            self._number[env] += 1
            episodes.append((int(env), 10.0 * env + self._number[env], env + 2))
        self._at[over] = 0
        step = self._env.receive()
        return step._replace(
            obs=np.zeros((self.count, *self.shape), np.uint8), episodes=tuple(Episode(*episode) for episode in episodes)
        )

    def close(self) -> None:
        self._env.close()


def test_episodes_of_a_score_are_dealt_out_beforehand() -> None:
    """Else the environments with short episodes would fill the mean."""
    family = games(("scripted",), ("other",), make=lambda name, count: Scripted(count), evaluation_episodes=7)
    score = family.batch([0], [1]).score(family.initial(0)[None])
    # three environments play 3, 2 and 2 episodes: the first ones of each
    assert float(score["test_return"]) == pytest.approx(np.mean([1, 2, 3, 11, 12, 21, 22]))
    assert float(score["test_loss"]) == -float(score["test_return"])


class Spoiled:
    """Rewards without meaning from the tenth step on."""

    def __init__(self, env: VectorEnv) -> None:
        self._env, self._left = env, 10

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def receive(self) -> Any:
        step, self._left = self._env.receive(), self._left - 1
        return step._replace(reward=np.full_like(step.reward, np.nan)) if self._left < 0 else step


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


def test_a_walk_is_taken_up_where_it_was_cut_short(tmp_path: Any) -> None:
    """Environments cannot be kept, so what was played is played again."""

    def walked(cut: bool, execution: str) -> tuple[Any, Any]:
        family = games(("lives", "seek"))

        def attempt(until: int | None) -> Any:
            keeper = Keeper(tmp_path / f"{execution}.safetensors", every=2, say=pytest.fail)
            keeper.open("this", torch.device("cpu"))
            batch = family.batch([0, 1], [5, 6])
            sample = batch.sample

            def killed(theta: Tensor, step: int) -> Any:
                if step == until:
                    raise InterruptedError
                return sample(theta, step)

            batch.sample = killed  # type: ignore[method-assign]
            folds = {"leap": learners.leap()}
            found = walk(
                batch, family.initial(0), steps=7, optimizer=optim.adam(1e-2), folds=folds, keep=keeper,
                execution=execution,
            )  # fmt: skip
            return found, batch.outcomes()

        if cut:
            with pytest.raises(InterruptedError):
                attempt(5)
            family = games(("lives", "seek"))  # as after a restart
        return attempt(None)

    for execution in ("sequential", "batched"):
        again, episodes = walked(True, execution)
        (tmp_path / f"{execution}.safetensors").unlink()
        whole, expected = walked(False, execution)
        assert torch.equal(whole.theta, again.theta) and torch.equal(whole.losses, again.losses)
        assert torch.equal(whole.results["leap"], again.results["leap"])
        assert episodes == expected and len(expected["episodes"][0]) > 0


def test_the_rollout_drawn_last_is_the_same_after_a_restart() -> None:
    family, theta = games(), points(games(), 2)
    batch = family.batch([0, 1], [5, 6])
    batch.remember()
    for step in range(3):
        last = batch.sample(theta, step)
    kept, following = batch.keep(), batch.sample(theta, 3)
    other = games().batch([0, 1], [5, 6])
    other.take_up(kept)
    assert all(torch.equal(a, b) for a, b in zip(last, other.sample(theta, 2), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(following, other.sample(theta, 3), strict=True))
    fresh, untouched = (family.batch([0, 1], [5, 6]) for _ in range(2))
    untouched.remember()
    fresh.take_up(untouched.keep())
    assert torch.equal(fresh.sample(theta, 0)[0][:, 0], games().batch([0, 1], [5, 6]).sample(theta, 0)[0][:, 0])


def test_a_walk_that_is_not_kept_notes_no_actions() -> None:
    batch = games().batch([0], [5])
    batch.sample(points(games(), 1), 0)
    with pytest.raises(ValueError, match=r"call remember\(\) before it"):
        batch.keep()


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
