"""A family that is measured in a moment: Gaussian blobs told apart behind one tanh layer.

The command line reaches it as a user's own file: `tasks: {name: custom, source: "tests/tiny_measurable.py:make"}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leap.layout import Layout
from leap.measure.context import Context
from leap.measure.measuring import Measuring
from leap.measure.paths import Walks
from leap.measure.plan import DISTANCES, Plan
from leap.measure.problem import TaskData
from leap.measure.store import Store
from leap.optim import sgd
from leap.randomness import generator

DIM, BATCH = 6, 8
SPOILS = {
    "empty": lambda task: task._replace(inputs=task.inputs[:0], labels=task.labels[:0]),
    "one class": lambda task: task._replace(labels=0 * task.labels),
    "not finite": lambda task: task._replace(test_inputs=task.test_inputs / 0),
    "label": lambda task: task._replace(test_labels=task.test_labels + 1),
    "length": lambda task: task._replace(labels=task.labels[1:]),
}
"""What can be wrong with a task."""


class Blobs:
    """Tasks "blobs-0", "blobs-1", ...: each draws the centres of its classes from its number.

    Args:
        seed: Of the tasks.
        device: Where data live.
        classes: Of every task.
        train, test: Examples of a task.
        width: Features of the tanh layer.
        norm: `batch` centres features over the batch, so that an input has none of its own.
        held_out: Tasks in the split `test`, the first ones; None: all.
        spoil: What is wrong with the last task, a key of `SPOILS`.
    """

    def __init__(
        self,
        seed: int = 0,
        device: str = "cpu",
        *,
        classes: Sequence[int] = (2, 3, 4),
        train: int = 24,
        test: int = 12,
        width: int = 4,
        norm: str = "none",
        held_out: int | None = None,
        spoil: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.classes, self.width, self.norm, self.dtype = tuple(classes), width, norm, dtype
        self.held_out = len(self.classes) if held_out is None else held_out
        names, rows = ("body.weight", "body.bias", "head.weight", "head.bias"), max(classes)
        trunk = width * (DIM + 1)
        shapes = ((width, DIM), (width,), (rows, width), (rows,))
        self.layout = Layout(names, shapes, trunk, trunk + rows * (width + 1))
        self.data = [self._task(seed, task, train, test, device) for task in range(len(self.classes))]
        if spoil:
            self.data[-1] = SPOILS[spoil](self.data[-1])

    def _task(self, seed: int, task: int, train: int, test: int, device: str) -> TaskData:
        stream, count = generator(seed, "blobs", task), self.classes[task]
        labels = torch.arange(train + test) % count
        centres = 1.2 * torch.randn(count, DIM, generator=stream)
        inputs = (centres[labels] + torch.randn(train + test, DIM, generator=stream)).to(device, self.dtype)
        labels = labels.to(device)
        return TaskData(f"blobs-{task}", inputs[:train], labels[:train], inputs[train:], labels[train:], count)

    def ids(self, which: str) -> range:
        return {"train": range(len(self.classes)), "validation": range(0), "test": range(self.held_out)}[which]

    def name(self, task: int) -> str:
        return self.data[task].name

    def initial(self, seed: int) -> Tensor:
        start = 0.4 * torch.randn(self.layout.n, generator=generator(seed, "initialization"))
        return start.to(self.data[0].inputs)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> BlobBatch:
        return BlobBatch(self, ids, seeds)

    def features(self, trunk: Tensor, inputs: Tensor) -> Tensor:
        weight, bias = trunk.split([self.width * DIM, self.width])
        found = torch.tanh(F.linear(inputs, weight.view(self.width, DIM), bias))
        return found - found.mean(0) if self.norm == "batch" else found

    def dataset(self, task: int) -> TaskData:
        return self.data[task]


class BlobBatch:
    """Tasks that walk together, each on batches drawn with replacement from its seed."""

    def __init__(self, family: Blobs, ids: Sequence[int], seeds: Sequence[int]) -> None:
        self.size, self.layout, self.family, self.ids, self.seeds = len(ids), family.layout, family, ids, seeds
        self.heads, self.head_count = torch.tensor(list(ids)), len(family.classes)

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        data = [self.family.data[task] for task in self.ids]
        rows = [
            torch.randint(len(task.labels), (BATCH,), generator=generator(seed, "batch", step)).to(theta.device)
            for task, seed in zip(data, self.seeds, strict=True)
        ]
        inputs = torch.stack([task.inputs[row] for task, row in zip(data, rows, strict=True)])
        labels = torch.stack([task.labels[row] for task, row in zip(data, rows, strict=True)])
        return inputs.to(theta.dtype), labels, torch.tensor([task.classes for task in data]).to(theta.device)

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        inputs, labels, classes = batch
        logits = self._logits(theta, inputs, classes)
        return F.cross_entropy(logits, labels), {"error": 100 * (logits.argmax(-1) != labels).float().mean()}

    @torch.no_grad()
    def score(self, theta: Tensor) -> dict[str, Tensor]:
        errors, losses = [], []
        for point, task in zip(theta, (self.family.data[i] for i in self.ids), strict=True):
            logits = self._logits(point, task.test_inputs.to(theta.dtype), task.classes)
            errors.append(100 * (logits.argmax(-1) != task.test_labels).to(theta.dtype).mean())
            losses.append(F.cross_entropy(logits, task.test_labels))
        return {"test_error": torch.stack(errors), "test_loss": torch.stack(losses)}

    def _logits(self, theta: Tensor, inputs: Tensor, classes: Any) -> Tensor:
        parts = self.layout.unflatten(theta)
        features = self.family.features(theta[: self.layout.trunk], inputs)
        logits = F.linear(features, parts["head.weight"], parts["head.bias"])
        absent = torch.arange(logits.shape[-1], device=logits.device) >= classes
        return logits.masked_fill(absent, torch.finfo(logits.dtype).min / 2)


def make(seed: int = 0, device: str = "cpu", **options: Any) -> Blobs:
    """The family, as `tasks.source` asks for it."""
    return Blobs(seed, device, **options)


SMALL = {
    "seeds": (0, 1), "epochs": 2.0, "refine_epochs": 1.0, "rate": 0.1, "batch_size": 8, "samples": 8, "dropped": 0.0,
    "tuning_epochs": 2.0, "scratch_epochs": 1.0, "points": 4, "barrier_points": 5, "barrier_steps": 2,
    "barrier_samples": 12, "draws": 2, "betas": (0.3, 1.0, 3.0),
}  # fmt: skip
"""Settings of a measuring (`leap.measure.plan.Plan`, `--measure.*`) that is over in a second."""


def measuring(
    folder: Path,
    family: Blobs | None = None,
    *,
    distances: Sequence[str] = tuple(DISTANCES),
    tasks: Sequence[int] | None = None,
    learned: Tensor | None = None,
    scores: Sequence[str] = (),
    level: float | None = None,
    **changes: Any,
) -> Measuring:
    """A measuring of blobs in a folder, walks of three steps included."""
    family = family or Blobs()
    store = Store(folder, {"changes": repr(changes)})
    store.prepare()
    context = Context(family, Plan(**{**SMALL, **changes}), learned, store)
    starts = {"leap": (family.initial(7), None), "none": (family.initial(0), None)}
    walks = Walks(
        family, starts, lambda steps: sgd(0.1), 3, 0, "test", "sequential", 8 if family.norm == "none" else 0, level
    )
    measured = list(range(len(family.classes))) if tasks is None else tasks
    return Measuring(context, walks, distances, measured, scores)


def entries(document: Mapping[str, Any], name: str) -> Tensor:
    """A matrix of a document [S, T, T], NaN where there is nothing."""
    stack = document["matrices"][name]["values"]
    rows = [[[math.nan if value is None else value for value in row] for row in one] for one in stack]
    return torch.tensor(rows, dtype=torch.float64)
