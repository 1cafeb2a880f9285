"""What every item of work reads: the family, the initialization, the plan and the results of earlier stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leap.errors import UsageError
from leap.measure.network import Learning, Network, Prior
from leap.measure.plan import SCRATCH, Item, Plan
from leap.measure.problem import Measurable, TaskData, check_per_sample, check_task
from leap.measure.store import Store
from leap.optim import Optimizer, cosine, sgd
from leap.randomness import derive


@dataclass
class Context:
    """What work is done on.

    Attributes:
        family: Tasks.
        plan: Settings.
        learned: The learned initialization [n]; None: every seed has a random one of its own.
        store: Results so far.
    """

    family: Measurable
    plan: Plan
    learned: Tensor | None
    store: Store
    _tasks: dict[int, TaskData] = field(default_factory=dict)

    def task(self, task: int) -> TaskData:
        """A task's data, checked once."""
        if task not in self._tasks:
            self._tasks[task] = check_task(self.family.dataset(task))
        return self._tasks[task]

    def trunk(self, seed: int) -> Tensor:
        """The trunk [m] that a repetition starts from."""
        theta = self.family.initial(seed) if self.learned is None else self.learned
        return theta[: self.family.layout.trunk]

    def network(self, *tasks: int) -> Network:
        """One head a task."""
        return Network(self.family, tuple(self.task(task).classes for task in tasks))

    def start(self, network: Network, seed: int) -> Tensor:
        """Where learning begins [n]: the repetition's trunk, heads at zero."""
        return network.start(self.trunk(seed))

    def prior(self, network: Network, seed: int) -> Prior:
        """The prior around zero or around the initialization."""
        start = self.start(network, seed)
        centre = start if self.plan.prior_centre == "initialization" else torch.zeros_like(start)
        return Prior(centre, self.plan.prior_variance, self.plan.beta)

    def learning(self, item: Item, *tasks: int) -> Learning:
        """The tasks of an item as something to walk on."""
        network = self.network(*tasks)
        seed = derive(item.seed, "measure", item.kind, *(self.task(task).name for task in tasks))
        data = [self.task(task) for task in tasks]
        return Learning(network, data, self.prior(network, item.seed), batch_size=self.plan.batch_size, seed=seed)

    def towards_map(self, learning: Learning, epochs: float) -> Optimizer:
        """SGD with momentum, annealed so that it settles at the objective's minimum."""
        steps = max(1, round(epochs * learning.epoch_steps))
        return sgd(self.plan.rate, self.plan.momentum, schedule=cosine(steps))

    def check(self, tasks: Sequence[int], distances: Sequence[str]) -> None:
        """Refuse before the first item what an item would fail at.

        Raises:
            UsageError: tasks of one name or without usable data, a network that has no Fisher information, batches that
                leave no noise to have a temperature.
        """
        names = [self.task(task).name for task in tasks]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"tasks must have names of their own, got {repeated[0]!r} twice")
        if "dynamic" in distances:
            least = min(len(self.task(task).labels) for task in tasks)
            if self.plan.batch_size >= least:
                raise UsageError(
                    f"measure.batch_size is {self.plan.batch_size}, and a task has {least} training examples: gradients"
                    " without noise have no temperature; take smaller batches, or leave out --distances dynamic"
                )
        trunk = self.trunk(self.plan.seeds[0])
        for task in tasks:
            check_per_sample(self.family, trunk, self.task(task).inputs)

    def solution(self, seed: int, task: int) -> Tensor:
        """The MAP point [n] that a solution item left, on the device where the family lives."""
        item = Item("solution", seed, task, task)
        return self.store.load(item).tensors["theta"].to(self.trunk(seed).device)

    def tuned(self, seed: int, target: int, source: int = SCRATCH) -> Tensor:
        """Where a tuning item ended [n]."""
        return self.store.load(Item("tuning", seed, target, source)).tensors["theta"].to(self.trunk(seed).device)
