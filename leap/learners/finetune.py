"""Joint finetuning: train one network on all tasks, each through its own head, then give a new task a fresh head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from leap.batching import tasks_from
from leap.layout import Layout
from leap.walk import Fold, TaskBatch


def finetune() -> Fold:
    r"""Multi-headed joint training as a walk of one joint task, walked on from meta-step to meta-step.

    .. math:: g = \theta^0 - \theta^{KT}

    With meta learning rate 1 the next walk starts where this one ended. Every task takes K steps, in turn: one step
    trains the trunk and one task's head on that task's batch, as the released code of Leap does. So a meta-step costs
    the same gradients as any other learner's, and takes T times as many steps.

    The meta-parameters are `[theta | one head a task]`. theta's own head is not trained: theta alone is the
    trained trunk with a fresh head, which is what evaluation starts from.

    Returns:
        A fold whose result is [1, n + M h] for M tasks in all with heads of h parameters. Tasks without a layout have
        no head of their own, and share everything.
    """
    return Fold(
        start=lambda theta0: None,
        step=lambda state, s: None,
        finish=lambda state, end: end.theta0 - end.theta,
        extend=_heads,
        view=lambda tasks, steps, count: (JointTask(tasks, count), steps * count),
    )


def _heads(theta: Tensor, layout: Layout | None, count: int) -> Tensor:
    """A head for each of `count` tasks; all start from theta's."""
    trunk = layout.trunk if layout else theta.shape[-1]
    return theta[..., trunk:].repeat(*[1] * (theta.dim() - 1), count)


class JointTask:
    """T tasks as one, whose step i is a step on task i mod T through that task's head."""

    size = 1

    def __init__(self, tasks: TaskBatch, count: int) -> None:
        self._tasks, self._count = tasks, count
        self._layout: Layout | None = getattr(tasks, "layout", None)
        heads: Tensor | None = getattr(tasks, "heads", None)
        self._heads = torch.arange(count) if heads is None else heads
        self._drawn: tuple[int, Any] | None = None

    def sample(self, theta: Tensor, step: int) -> tuple[Any, Tensor]:
        """The batch of task `step mod T`, and the row of its head."""
        turn, task = divmod(step, self._count)
        if self._drawn is None or self._drawn[0] != turn:
            self._drawn = (turn, self._tasks.sample(self._points(theta), turn))
        head = self._heads[task : task + 1].to(theta.device)
        return tasks_from(self._drawn[1], task, task + 1), head

    def loss(self, theta: Tensor, batch: tuple[Any, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The task's own loss, at the trunk and its head."""
        own, head = batch
        if self._layout is None:
            return self._tasks.loss(theta, own)
        n, trunk = self._layout.n, self._layout.trunk
        heads = theta[n:].unflatten(0, (-1, n - trunk))
        return self._tasks.loss(torch.cat([theta[:trunk], heads.index_select(0, head.reshape(1))[0]]), own)

    def validation_error(self, theta: Tensor) -> Tensor:
        """The tasks' mean [1] at theta [1, n + M h], each through its own head."""
        found: Tensor = self._tasks.validation_error(self._points(theta))  # type: ignore[attr-defined]
        return found.mean(dim=0, keepdim=True)

    def __getattr__(self, name: str) -> Any:
        """What a walk is kept by, where the tasks keep something (`leap.resumption`)."""
        if name in ("keep", "take_up", "remember"):
            return getattr(self._tasks, name)
        raise AttributeError(name)

    def _points(self, theta: Tensor) -> Tensor:
        """Every task's own [T, n] of theta [1, n + M h]: the trunk that all share, and its head."""
        if self._layout is None:
            return theta.expand(self._count, -1)
        n, trunk = self._layout.n, self._layout.trunk
        heads = theta[0, n:].unflatten(0, (-1, n - trunk))[self._heads.to(theta.device)]
        return torch.cat([theta[:, :trunk].expand(len(heads), -1), heads], dim=1)
