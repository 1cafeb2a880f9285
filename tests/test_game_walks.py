"""Walks over games: the same in any company, only forwards, and taken up where they were cut short."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_games import games, points
from torch import Tensor

from leap import learners, optim
from leap.errors import RunError, UsageError
from leap.resumption import Keeper
from leap.testing import check_learner
from leap.trainer import Plan, Trainer
from leap.walk import Fold, walk
from tasks.game_batch import GameBatch
from tasks.games import Games


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


@pytest.mark.parametrize("steps", [2, 20])
@pytest.mark.parametrize("name", ["maml", "anil", "meta_sgd", "leap-exact"])
def test_learners_that_go_back_are_refused_before_anything_is_played(
    name: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(GameBatch, "sample")
    learner = learners.leap(jacobian="exact") if name == "leap-exact" else getattr(learners, name)()
    plan = Plan(seed=0, inner_steps=steps, meta_batch=1, execution="sequential")
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
