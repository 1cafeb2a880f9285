"""Contract checks for tasks, families and learners of one's own; each raises AssertionError with a reason."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from leap.batching import loss_and_gradient, map_batch
from leap.optim import sgd
from leap.trainer import Family
from leap.walk import Fold, TaskBatch, walk


def check_tasks(tasks: TaskBatch, theta: Tensor, *, tolerance: float = 1e-9) -> None:
    """Check that tasks keep the contract of `leap.walk.TaskBatch` at theta [T, n] in float64.

    - `sample` with the same step returns the same batch, with T on the first axis of every tensor;
    - `loss` leaves its inputs alone and gives the same loss and gradient for tasks together and one by one;
    - a task's gradient does not depend on the other tasks' parameters.

    Raises:
        AssertionError: naming what is broken.
    """
    assert theta.dtype == torch.float64, f"the check needs float64, got {theta.dtype}"
    batch, again = tasks.sample(theta, 0), tasks.sample(theta, 0)
    leaves, leaves_again = _tensors(batch), _tensors(again)
    same = all(torch.equal(a, b) for a, b in zip(leaves, leaves_again, strict=True))
    assert same, "sample(theta, 0) called twice must return the same batch"
    assert all(len(leaf) == len(theta) for leaf in leaves), "every tensor of a batch has the T tasks on its first axis"
    kept, before = [leaf.clone() for leaf in leaves], theta.clone()
    together = loss_and_gradient(tasks.loss, theta, batch, "batched")
    apart = loss_and_gradient(tasks.loss, theta, batch, "sequential")
    assert torch.equal(theta, before) and all(torch.equal(a, b) for a, b in zip(leaves, kept, strict=True)), (
        "loss must not change its inputs"
    )
    for what, a, b in (("loss", together[0], apart[0]), ("gradient", together[2], apart[2])):
        assert _distance(a, b) <= tolerance, f"{what} differs by {_distance(a, b):.1e} between batched and sequential"
    if len(theta) > 1:
        moved = theta.clone()
        moved[0] += 0.1
        other = loss_and_gradient(tasks.loss, moved, batch, "sequential")
        assert _distance(other[2][1:], apart[2][1:]) <= tolerance, "a task's gradient depends on another task"


def check_family(family: Family) -> None:
    """Check a family: splits are disjoint, seeds decide, and its batches pass `check_tasks`.

    Raises:
        AssertionError: naming what is broken.
    """
    splits = [set(family.ids(which)) for which in ("train", "validation", "test")]
    assert splits[0] and splits[2], "the splits train and test must hold tasks"
    assert not (splits[0] & splits[1] or splits[0] & splits[2] or splits[1] & splits[2]), "splits must be disjoint"
    theta = family.initial(0)
    assert theta.shape == (family.layout.n,), f"initial must be [{family.layout.n}], got {tuple(theta.shape)}"
    assert torch.equal(theta, family.initial(0)), "initial must depend on the seed alone"
    ids = list(family.ids("train"))[:2]
    rows = theta.double().expand(len(ids), -1).clone()
    check_tasks(family.batch(ids, list(range(len(ids)))), rows)
    first, second = (family.batch(ids, list(range(len(ids)))).sample(rows, 0) for _ in range(2))
    same = all(torch.equal(a, b) for a, b in zip(_tensors(first), _tensors(second), strict=True))
    assert same, "two batches of the same ids and seeds must hold the same data"
    assert all(family.name(task) for task in ids), "every task needs a name"


def check_learner(make: Callable[[], Fold], tasks: TaskBatch, theta0: Tensor, *, tolerance: float = 1e-9) -> None:
    """Check a learner on T tasks in float64: its result is the same batched, sequential, and twice in a row.

    Raises:
        AssertionError: naming what is broken.
    """
    assert theta0.dtype == torch.float64, f"the check needs float64, got {theta0.dtype}"

    def result(execution: str) -> Tensor:
        walked = walk(
            tasks, theta0, steps=3, optimizer=sgd(0.05), folds={"learner": make()}, execution=execution  # type: ignore[arg-type]
        )  # fmt: skip
        return walked.results["learner"]

    batched, sequential = result("batched"), result("sequential")
    assert bool(batched.isfinite().all()), "the result must be finite"
    assert not batched.requires_grad, "the result must be detached: a graph would grow over the meta-batch"
    assert torch.equal(batched, result("batched")), "the same walk must give the same result"
    gap = _distance(batched, sequential)
    assert gap <= tolerance, f"the result differs by {gap:.1e} between batched and sequential"


def _tensors(batch: object) -> list[Tensor]:
    found: list[Tensor] = []
    map_batch(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, batch)
    return found


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    scale = max(float(b.abs().max()), 1e-300)
    return float((a - b).abs().max()) / scale
