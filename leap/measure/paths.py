"""The walk from an initialization to held-out tasks, measured on the loss's graph, in parameters and by Fisher-Rao."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from leap.batching import Execution
from leap.evaluate import evaluate
from leap.measure.learning import subset
from leap.measure.plan import Item
from leap.measure.problem import Measurable, measurable
from leap.measure.store import Result
from leap.metrics.convergence import time_to_threshold
from leap.metrics.path import (
    PATH_MEASURES,
    fisher_rao_length,
    path_length_until,
    path_measures,
    softmax_fisher_quadratic,
)
from leap.pieces import Inner
from leap.randomness import derive
from leap.trainer import Family
from leap.walk import Fold, walk

KEPT = (
    *PATH_MEASURES,
    "path_length_until",
    "steps_until",
    "fisher_rao_length",
    "test_error",
    "test_return",
    "return_area",
    "test_loss",
    "train_error_auc",
    "train_loss_auc",
)


@dataclass(frozen=True)
class Walks:
    """How held-out tasks are walked, as in the run's own evaluation.

    Attributes:
        family: Tasks.
        starts: By name, an initialization (with what the learner keeps behind it) and the learner whose inner update
            walks from it; the learned one first.
        inner, steps, seed, which, execution, epochs, validate_every, patience: As in `leap.evaluate.evaluate`.
        fisher_samples: Training examples of each task that the Fisher-Rao length is taken on; 0: it is not, since the
            network's rows depend on each other.
        level: Loss up to which walks are measured beside their whole length, so that initializations of different
            quality can be compared; None: none.
    """

    family: Family
    starts: dict[str, tuple[Tensor, Fold | None]]
    inner: Inner
    steps: int
    seed: int
    which: str
    execution: Execution
    fisher_samples: int = 0
    level: float | None = None
    epochs: float | None = None
    validate_every: int | None = None
    patience: int = 10

    def measure(self, item: Item) -> Result:
        """Walk every task of the split from the item's initialization (`target` counts them), by repetition `seed`."""
        meta, learner = list(self.starts.values())[item.target]
        folds = {"path_measures": path_measures()}
        if self.level is not None:
            folds["path_length_until"] = path_length_until(self.level)
        if self.fisher_samples:
            folds["fisher_rao_length"] = fisher_rao_length(self._fisher_quadratic())
        found = evaluate(
            self.family,
            meta,
            learner=learner,
            inner=self.inner,
            steps=self.steps,
            seed=self.seed,
            evaluation_seeds=[item.seed],
            which=self.which,
            execution=self.execution,
            measures=folds,
            epochs=self.epochs,
            validate_every=self.validate_every,
            patience=self.patience,
        )
        paths = dict(zip(PATH_MEASURES, zip(*found["path_measures"][0], strict=True), strict=True))
        rows = {name: values[0] for name, values in found.items()} | paths
        if "episodes" in rows:
            rows = {name: row for name, row in rows.items() if name not in ("test_loss", "train_loss_auc")}
            rows["return_area"] = [self._area(episodes) for episodes in rows["episodes"]]
        if self.level is not None:
            rows["steps_until"] = [_steps_until(self.level, curve) for curve in rows["train_loss"]]
        return Result({name: _row(rows[name]) for name in KEPT if name in rows}, {})

    def act(self, theta: Tensor, item: Item) -> Result:
        """Learn the item's target by a walk of its own from the trunk that theta [..] begins with, and score the end.

        A target's walks have the same environments, heads and draws whatever the source.
        """
        layout, seed = self.family.layout, derive(self.seed, "acting", item.seed, item.target)
        start = self.family.initial(seed)
        start = torch.cat([theta[: layout.trunk].to(start), start[layout.trunk :]])
        tasks: Any = self.family.batch([item.target], [seed])
        walked = walk(tasks, start, steps=self.steps, optimizer=self.inner(self.steps), execution="sequential")
        (area,) = (self._area(episodes) for episodes in tasks.outcomes()["episodes"])
        scored = tasks.score(walked.theta)["test_return"]
        return Result({}, {"test_return": float(scored), "return_area": math.nan if area is None else area})

    def _area(self, episodes: Sequence[Sequence[float | None]]) -> float | None:
        """Area under a game's learning curve, as the report has it; None where no episode ended or a score is none."""
        from leap.report.returns_curves import area

        told = self.family.told(self.steps)  # type: ignore[attr-defined]  # who tells of episodes tells of their budget
        held = np.array(episodes, dtype=float).reshape(-1, 3)
        found = area(held, float(told["agent_steps"]))
        return found if math.isfinite(found) else None

    def _fisher_quadratic(self) -> Callable[[Tensor, Tensor], Tensor]:
        """`delta^T F delta` of every task, whose classes are the first rows of the common head."""
        family = measurable(self.family)
        forms = []
        for task in self.family.ids(self.which):
            data = family.dataset(task)
            inputs = data.inputs[subset(data, self.fisher_samples, seed=0)]
            forms.append(softmax_fisher_quadratic(_read(family, data.classes), inputs[None], execution="sequential"))

        def quadratic(theta: Tensor, delta: Tensor) -> Tensor:
            rows = zip(forms, theta.split(1), delta.split(1), strict=True)
            return torch.cat([form(point, move) for form, point, move in rows])

        return quadratic


def _read(family: Measurable, classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits [N, classes] of a whole theta [n], whose head [C, width] may be wider than the task."""
    m, width = family.layout.trunk, family.width

    def logits(theta: Tensor, inputs: Tensor) -> Tensor:
        weight, bias = theta[m:].tensor_split([(len(theta) - m) // (width + 1) * width])
        return functional.linear(family.features(theta[:m], inputs), weight.view(-1, width)[:classes], bias[:classes])

    return logits


def _steps_until(level: float, curve: Sequence[float | None]) -> float | None:
    """Inner steps until the training loss first falls to a level; None where it never does."""
    never = next((step for step, loss in enumerate(curve) if loss is None), len(curve))
    known = [loss for loss in curve[:never] if loss is not None]
    if not known:
        return None
    found = time_to_threshold(range(len(known)), known, level)
    return None if found.censored else found.time


def _row(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)
