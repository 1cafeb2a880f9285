"""Walks and meta-training that stop when the validation error no longer falls; starts of a task's own; visits."""

from __future__ import annotations

import pytest
import torch
from families import Waves
from small_multi_cv import small_multi_cv

from leap import learners, optim
from leap.distributed import Alone
from leap.errors import UsageError
from leap.pieces import walk_pieces
from leap.stopping import Patience, early
from leap.trainer import Plan, Trainer
from leap.walk import walk

SGD = optim.sgd(0.05, momentum=0.5)


class Judged(Waves):
    """One surface whose validation error follows a list, by the number of times it was asked for."""

    size = 1

    def __init__(self, errors: list[float]) -> None:
        super().__init__(tasks=1)
        self.errors, self.asked = errors, 0

    def validation_error(self, theta: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return theta.new_tensor([self.errors[self.asked - 1]])


@pytest.mark.parametrize("name", ["leap", "leap-exact", "reptile", "fomaml", "maml", "anil", "meta_sgd"])
def test_a_walk_that_stopped_is_the_walk_of_so_many_steps(name: str) -> None:
    learner = learners.leap(jacobian="exact") if name == "leap-exact" else getattr(learners, name)()
    tasks = Judged([3.0, 2.0, 2.5, 2.0, 1.0])
    stop = early(tasks.validation_error, every=2, limit=2)
    stopped = walk(tasks, tasks.theta0, steps=50, optimizer=SGD, folds={"it": learner}, stop=stop)
    plain = walk(tasks, tasks.theta0, steps=8, optimizer=SGD, folds={"it": learner})
    assert tasks.asked == 4
    for one, other in (
        (stopped.theta, plain.theta),
        (stopped.losses, plain.losses),
        (stopped.aux["first"], plain.aux["first"]),
    ):
        assert torch.equal(one, other)
    torch.testing.assert_close(stopped.results["it"], plain.results["it"], rtol=1e-12, atol=0)


def test_tasks_that_walk_together_do_not_stop_early() -> None:
    tasks = Waves(tasks=2)
    with pytest.raises(ValueError, match="one task, got 2; walk tasks one at a time"):
        walk(tasks, tasks.theta0, steps=3, optimizer=SGD, stop=lambda theta, step: False)


def test_an_error_that_is_not_a_number_is_no_improvement() -> None:
    patience = Patience(3)
    assert [patience.over(error) for error in (float("nan"), 5.0, float("nan"), 5.0, 6.0)] == [False] * 4 + [True]
    assert patience.best == 5.0
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        Patience(0)
    with pytest.raises(ValueError, match="every 0"):
        early(lambda theta: theta, every=0, limit=1)


def test_a_start_of_the_tasks_own_comes_before_everything() -> None:
    class Started(Waves):
        def start(self, theta0: torch.Tensor) -> torch.Tensor:
            return theta0 + torch.arange(len(theta0))[:, None]

    tasks, shift = Started(), torch.arange(3.0, dtype=torch.float64)[:, None]
    found = walk(tasks, tasks.theta0, steps=2, optimizer=SGD, folds={"r": learners.reptile()})
    plain = walk(Waves(), tasks.theta0 + shift, steps=2, optimizer=SGD, folds={"r": learners.reptile()})
    assert torch.equal(found.theta, plain.theta) and torch.equal(found.results["r"], plain.results["r"])
    rates = torch.cat([tasks.theta0, torch.full((6,), 0.05, dtype=torch.float64)])
    both = walk(tasks, rates, steps=2, optimizer=SGD, folds={"it": learners.meta_sgd()})
    alone = walk(tasks, tasks.theta0, steps=2, optimizer=optim.sgd(0.05), folds={"it": learners.reptile()})
    torch.testing.assert_close(both.theta, alone.theta)


def trainer(patience: int | None, learner: str = "reptile", **plan: object) -> Trainer:
    given = {"seed": 0, "inner_steps": 3, "meta_batch": 3, "execution": "sequential", "meta_patience": patience}
    meta = ("SGD", optim.constant, {"lr": 1.0 if learner in ("finetune", "progressive", "hat") else 0.2})
    return Trainer(
        small_multi_cv(), getattr(learners, learner)(), lambda steps: optim.sgd(0.1), meta, Plan(**(given | plan))
    )


@pytest.mark.parametrize("learner", ["reptile", "leap", "finetune", "progressive", "hat"])
def test_meta_training_ends_when_its_validation_error_stays(learner: str) -> None:
    run = trainer(2, learner)
    errors = []
    while not run.converged and len(errors) < 60:
        values = run.meta_step()
        errors.append(values["train/validation_error"])
    assert run.converged and len(errors) < 60
    best, since = float("inf"), 0
    for number, error in enumerate(errors):
        best, since = (error, 0) if error < best else (best, since + 1)
        assert (since >= 2) == (number == len(errors) - 1)


def test_the_validation_error_that_is_logged_is_the_mean_at_the_ends_of_the_walks() -> None:
    run = trainer(5)
    ids, meta = run.draw(0), run.meta_parameters
    from leap.randomness import derive

    seeds = [derive(0, "walk", 0, slot, task) for slot, task in enumerate(ids)]
    expected = []
    for task, seed in zip(ids, seeds, strict=True):
        batch = run.family.batch([task], [seed])
        ended = walk(batch, meta, steps=3, optimizer=optim.sgd(0.1), execution="sequential").theta
        expected.append(float(batch.validation_error(ended)[0]))
    assert run.meta_step()["train/validation_error"] == pytest.approx(sum(expected) / 3, rel=1e-6)
    assert "train/validation_error" not in trainer(None).meta_step()


def test_patience_survives_a_restart() -> None:
    whole, first = trainer(4), trainer(4)
    for _ in range(3):
        whole.meta_step()
        first.meta_step()
    again = trainer(4)
    again.restore(first.step, first.state())
    assert again.patience is not None and first.patience is not None
    assert (again.patience.best, again.patience.since) == (first.patience.best, first.patience.since)
    for run in (whole, again):
        while not run.converged and run.step < 40:
            run.meta_step()
    assert whole.step == again.step and torch.equal(whole.theta, again.theta)


def test_a_walk_may_stop_early_in_meta_training() -> None:
    family = small_multi_cv()
    plan = Plan(seed=0, inner_steps=60, meta_batch=3, execution="sequential", validate_every=1, patience=3)
    meta, ids = family.initial(0), [0, 1, 2]
    pieces = walk_pieces(family, learners.leap(), lambda steps: optim.sgd(0.3), plan, meta, ids, ids)
    taken = [piece.walk.losses.shape[1] for piece in pieces]
    assert len(pieces) == 3 and min(taken) < 60
    for piece, k in zip(pieces, taken, strict=True):
        batch = family.batch(piece.ids, piece.ids)
        alone = walk(
            batch, meta, steps=k, optimizer=optim.sgd(0.3), folds={"it": learners.leap()}, execution="sequential"
        )
        assert torch.equal(alone.results["it"], piece.walk.results["learner"][:, : family.layout.trunk])


def test_what_has_no_validation_error_cannot_stop_by_it() -> None:
    from tasks.quadratic import Quadratic

    plan = Plan(seed=0, inner_steps=2, meta_batch=2, execution="sequential", validate_every=1)
    run = Trainer(
        Quadratic(), learners.reptile(), lambda steps: optim.sgd(0.1), ("SGD", optim.constant, {"lr": 1.0}), plan
    )
    with pytest.raises(UsageError, match="has no validation error to stop early by; leave it out"):
        run.meta_step()


def test_visits_are_taken_by_the_first_process_alone() -> None:
    class Second(Alone):
        place = Alone().place._replace(rank=1, world=2)

    run = Trainer(
        small_multi_cv(), learners.progressive(), lambda steps: optim.sgd(0.1), ("SGD", optim.constant, {"lr": 1.0}),
        Plan(seed=0, inner_steps=1, meta_batch=3, execution="sequential"), Second(),
    )  # fmt: skip
    assert run._share(3) == slice(0, 0)
    assert trainer(None, "progressive")._share(3) == slice(0, 3)
