"""Evaluation: what an initialization is worth on tasks that no learner saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from leap.batching import Execution, losses_at
from leap.errors import UsageError
from leap.metrics.path import path_energy, path_length
from leap.optim import Optimizer
from leap.randomness import derive
from leap.trainer import Family
from leap.walk import Fold, Walk, walk


def area_under_curve(curve: Tensor) -> Tensor:
    r"""Mean height of the piecewise linear curve through K points, [..., K] to [...].

    .. math:: \frac{1}{K-1} \sum_{i=0}^{K-2} \tfrac12 (c_i + c_{i+1})

    A constant curve of 100 percent has area 100. (The released code of Leap divides by K; the paper reports the
    area under the error curve on a scale of 0 to 100.) A single point is its own mean.

    Example:
        >>> area_under_curve(torch.tensor([100.0, 50.0, 0.0]))
        tensor(50.)
    """
    if curve.shape[-1] == 1:
        return curve[..., 0]
    return torch.trapezoid(curve, dim=-1) / (curve.shape[-1] - 1)


def evaluate(
    family: Family,
    meta: Tensor,
    *,
    learner: Fold | None,
    optimizer: Optimizer,
    steps: int,
    seed: int,
    evaluation_seeds: Sequence[int],
    which: str = "test",
    execution: Execution = "batched",
    measures: Mapping[str, Fold] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Walk every task of a split from an initialization, once an evaluation seed, and score the end.

    Args:
        family: Tasks.
        meta: Meta-parameters: an initialization [n], with the learner's own behind it where its inner update needs
            them.
        learner: Whose inner update walks (ANIL's, Meta-SGD's); None: the plain optimizer.
        optimizer: The inner optimizer.
        steps: K.
        seed: Root seed; the batches of a walk depend on it, the evaluation seed and the task alone, so every
            initialization meets the same batches.
        evaluation_seeds: Repetitions.
        which: Split.
        execution: As in `walk`.
        measures: Further folds whose results [T] are wanted, by name.
        progress: Called after every repetition.

    Returns:
        Lists by evaluation seed and task: `test_error`, `test_loss`, `train_error_auc` (or `train_loss_auc`),
        `path_length`, `path_energy`; by seed, task and step: `train_error`, `train_loss`. Errors in percent, losses
        in nats (or the family's own unit); numbers that are not finite become None.
    """
    ids = list(family.ids(which))
    if not ids:
        raise UsageError(f"the split {which!r} holds no tasks, so there is nothing to evaluate; choose another")
    n = family.layout.n
    wanted = {"path_length": path_length(), "path_energy": path_energy(), **(measures or {})}
    folds = dict(wanted)
    if learner and learner.inner:
        folds["learner"] = Fold(
            lambda theta0: None, lambda state, s: None, lambda state, end: end.theta, learner.inner, learner.extend
        )
    else:
        meta = meta[:n]
    rows: list[Mapping[str, Tensor]] = []
    for repetition in evaluation_seeds:
        seeds = [derive(seed, "evaluate", which, repetition, task) for task in ids]
        tasks = family.batch(ids, seeds)
        walked = walk(tasks, meta, steps=steps, optimizer=optimizer, folds=folds, execution=execution)
        rows.append({name: walked.results[name] for name in wanted} | _curves(walked) | _score(tasks, walked, steps))
        progress()
    return {name: _listed(torch.stack([row[name] for row in rows])) for name in rows[0]}


def _curves(walked: Walk) -> dict[str, Tensor]:
    curves = {"train_loss": walked.losses, "train_loss_auc": area_under_curve(walked.losses)}
    if "error" in walked.aux:
        curves |= {"train_error": walked.aux["error"], "train_error_auc": area_under_curve(walked.aux["error"])}
    return curves


def _score(tasks: Any, walked: Walk, steps: int) -> dict[str, Tensor]:
    """The family's own score at theta^K, else the loss on held-out (or fresh) data."""
    if hasattr(tasks, "score"):
        return dict(tasks.score(walked.theta))
    batch = getattr(tasks, "query", tasks.sample)(walked.theta, steps)
    return {"test_loss": losses_at(tasks.loss, walked.theta, batch, "sequential")}


def _listed(values: Tensor) -> Any:
    """Nested lists with None where a number is not finite (JSON has neither NaN nor infinity)."""
    if values.dim() == 0:
        return values.item() if bool(values.isfinite()) else None
    return [_listed(row) for row in values.cpu()] if not bool(values.isfinite().all()) else values.tolist()
