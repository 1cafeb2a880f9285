"""What is walked, once the learner has had its say: its view of the tasks, its parameters, its change of the update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from leap.batching import EXECUTIONS, count_tasks
from leap.layout import Layout
from leap.optim import Optimizer

if TYPE_CHECKING:
    from leap.walk import Fold, TaskBatch


class Course(NamedTuple):
    """What is walked, and how."""

    tasks: TaskBatch
    theta0: Tensor  # [T, n + e]
    n: int  # length of what walks; what stands behind it belongs to the update
    shared: int  # length of what learners see
    steps: int
    optimizer: Optimizer


def course(tasks: TaskBatch, theta0: Tensor, steps: int, optimizer: Optimizer, folds: Mapping[str, Fold]) -> Course:
    """The course of a walk: a learner's view of the tasks, its own parameters and its change of the update taken in."""
    layout: Layout | None = getattr(tasks, "layout", None)
    count = len(theta0) if theta0.dim() == 2 else _size(tasks, theta0)
    n = layout.n if layout else theta0.shape[-1]
    learner = next((f for f in folds.values() if f.inner or f.extend or f.view), None)
    if learner and learner.extend and theta0.shape[-1] == n:
        theta0 = torch.cat([theta0, learner.extend(theta0, layout, getattr(tasks, "head_count", count))], dim=-1)
    if learner and learner.view:
        tasks, steps = learner.view(tasks, steps, count)
        first = theta0[:1] if theta0.dim() == 2 else theta0[None]
        return Course(tasks, first, first.shape[1], first.shape[1], steps, optimizer)
    if learner and learner.inner:
        optimizer = learner.inner(optimizer, layout)
    elif theta0.shape[-1] != n:
        raise ValueError(f"theta0 must have the layout's {n} entries on its last axis, got shape {tuple(theta0.shape)}")
    theta0 = theta0.expand(count, -1)
    if hasattr(tasks, "start"):
        theta0 = torch.cat([tasks.start(theta0[:, :n]), theta0[:, n:]], dim=1)
    return Course(tasks, theta0, n, layout.shared if layout else n, steps, optimizer)


def _size(tasks: TaskBatch, theta0: Tensor) -> int:
    """T: what the tasks say, else what their first batch shows, else one."""
    size: int | None = getattr(tasks, "size", None)
    if size is None:
        size = count_tasks(tasks.sample(theta0[None], 0))
    return 1 if size is None else size


def check_arguments(theta0: Tensor, steps: int, folds: Mapping[str, Fold], execution: str) -> None:
    """Refuse what `walk` cannot walk."""
    if not isinstance(theta0, Tensor) or not theta0.is_floating_point():
        raise TypeError(f"theta0 must be a float Tensor [n] or [T, n], got {type(theta0).__name__}; use layout.flatten")
    if theta0.dim() not in (1, 2) or theta0.numel() == 0:
        raise ValueError(f"theta0 must be [n] or [T, n] and not empty, got shape {tuple(theta0.shape)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if execution not in EXECUTIONS:
        raise ValueError(f"execution must be one of {EXECUTIONS}, got {execution!r}")
    own = [name for name, fold in folds.items() if fold.inner or fold.extend or fold.view]
    if len(own) > 1:
        raise ValueError(
            f"only one fold may bring its own inner update or view of the tasks, got {own}; walk them apart"
        )
