"""What measuring needs of a family: every task as labelled data, and one trunk that all tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from leap.errors import UsageError
from leap.layout import Layout


class TaskData(NamedTuple):
    """A task as a labelled data set, ready for the trunk."""

    name: str
    inputs: Tensor  # [N, ...]  as the network takes them (float, or bytes where it scales them itself), unaugmented
    labels: Tensor  # [N]       0 .. classes - 1
    test_inputs: Tensor  # [N', ...]
    test_labels: Tensor  # [N']
    classes: int


class Measurable(Protocol):
    """A family whose tasks are classification behind one trunk and a linear head.

    A trunk is the first `layout.trunk` entries of an initialization. Heads are made by whoever measures, one a task, so
    that tasks of different width meet in one union.

    A family whose walks learn something else than these data, for which they only stand in (games, as the imitation of
    trained agents), says so by an attribute `stand_in = True`; see `stands_in`.
    """

    @property
    def layout(self) -> Layout:
        """The layout of a whole initialization, [trunk | head]."""

    @property
    def width(self) -> int:
        """Features that a head sees."""

    def ids(self, which: str) -> Sequence[int]:
        """Task ids of a split."""

    def name(self, task: int) -> str:
        """A task's name."""

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n]."""

    def features(self, trunk: Tensor, inputs: Tensor) -> Tensor:
        """Features [N, width] of inputs [N, ...] at a trunk [m]; pure, and under torch.func's transforms."""

    def dataset(self, task: int) -> TaskData:
        """A task as labelled data."""


HOOKS = ("width", "features", "dataset")


def measurable(family: object) -> Measurable:
    """The family, once it is known to have what measuring needs.

    Raises:
        UsageError: it lacks a hook, as families that do not classify do.
    """
    missing = [name for name in HOOKS if not hasattr(family, name)]
    if missing:
        raise UsageError(
            f"{type(family).__name__} cannot be measured beyond its walks: it has no {', '.join(missing)} "
            "(see leap.measure.problem.Measurable); ask for --distances path, or take a family that classifies"
        )
    return family  # type: ignore[return-value]


def stands_in(family: object) -> bool:
    """Whether labelled data stand for tasks that walks learn in another way: then a walk's loss is not one of them."""
    return bool(getattr(family, "stand_in", False))


def check_task(task: TaskData) -> TaskData:
    """The same task, once it is known that a distance of it exists.

    Raises:
        UsageError: it is empty, has one class, labels outside its classes, or values that are not finite.
    """
    for part, inputs, labels in (("train", task.inputs, task.labels), ("test", task.test_inputs, task.test_labels)):
        if len(inputs) != len(labels):
            raise UsageError(f"task {task.name!r} has {len(inputs)} {part} inputs and {len(labels)} labels")
        if len(inputs) == 0:
            raise UsageError(f"task {task.name!r} has no {part} data; every distance needs some")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= task.classes:
            raise UsageError(
                f"task {task.name!r}: {part} labels run from {low} to {high}, expected 0 to {task.classes - 1}"
            )
        if not bool(inputs.isfinite().all()):
            raise UsageError(f"task {task.name!r} has {part} inputs that are not finite; clean the data first")
    if task.classes < 2 or len(task.labels.unique()) < 2:
        raise UsageError(f"task {task.name!r} has {len(task.labels.unique())} class; a distance needs at least 2")
    return task


def check_per_sample(family: Measurable, trunk: Tensor, inputs: Tensor) -> None:
    """Refuse a network that sees more than one input at a time.

    Curvature and Fisher information are sums over samples; batch statistics make them sums over batches.

    Raises:
        UsageError: the features of an input change with the inputs beside it.
    """
    with torch.no_grad():
        alone, together = family.features(trunk, inputs[:1]), family.features(trunk, inputs[:8])[:1]
    gap, size = float((alone - together).abs().max()), float(together.abs().max())
    if not gap <= 1e-3 * max(size, 1e-6):
        raise UsageError(
            f"the network's features of an input depend on the inputs beside it (they moved by {gap:.2g} of {size:.2g})"
            " and have no Fisher information of their own: train with --model.norm group or none, or ask for "
            "--distances path"
        )
