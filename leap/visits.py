"""Learners that keep parameters for every task and visit the tasks one after another (HAT, Progressive Nets).

A turn is an ordinary walk of one task, over a vector of the learner's own making. What it changes is put back before
the next task's turn begins, and the meta-gradient of all turns is where the meta-parameters stood less where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from leap.optim import Optimizer

if TYPE_CHECKING:
    from leap.trainer import Family
    from leap.walk import TaskBatch


class Turn(NamedTuple):
    """One task's turn.

    Attributes:
        tasks: The task alone, over the vector [p] that this turn trains; without a `layout`, so all of it walks.
        theta0: Where it starts, [p].
        optimizer: The inner update as the learner changes it.
    """

    tasks: TaskBatch
    theta0: Tensor
    optimizer: Optimizer


class Visits(NamedTuple):
    """How a learner visits tasks.

    `tasks` is a batch of one task: `int(tasks.heads[0])` is its place among the `tasks.head_count` pretraining tasks.

    Attributes:
        begin: `(family, seed) -> extra [e]`, what stands behind theta [n] in the meta-parameters.
        open: `(meta [n + e], tasks, *, steps, optimizer, seed, new) -> Turn`; a `new` task was held out, and has no
            place among the others.
        close: `(meta, tasks, theta [p] at the end of the turn) -> meta`, another tensor.
    """

    begin: Callable[[Family, int], Tensor]
    open: Callable[..., Turn]
    close: Callable[[Tensor, TaskBatch, Tensor], Tensor]
