"""One trunk with a linear head for every task, as one vector; and tasks learned on it, alone or as a tagged union."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from leap.epochs import Order
from leap.layout import Layout
from leap.measure.problem import Measurable, TaskData

Logits = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Network:
    """A family's trunk with own heads: theta = [trunk | head 0 | head 1 | ...], a head being [weight | bias].

    Attributes:
        family: Whose trunk.
        classes: Width of every head.
    """

    family: Measurable
    classes: tuple[int, ...]

    @property
    def shared(self) -> int:
        """Length of the trunk."""
        return self.family.layout.trunk

    @property
    def sizes(self) -> list[int]:
        """Length of the trunk and of each head."""
        return [self.shared, *((self.family.width + 1) * count for count in self.classes)]

    @property
    def n(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    @property
    def layout(self) -> Layout:
        """The layout of this vector; what a walk shares is all of it, since its tasks are learned as one."""
        trunk = self.family.layout.without_head()
        shapes = [s for count in self.classes for s in ((count, self.family.width), (count,))]
        names = [f"head{i}.{part}" for i in range(len(self.classes)) for part in ("weight", "bias")]
        return Layout((*trunk.names, *names), (*trunk.shapes, *shapes), self.shared, self.n)

    def start(self, trunk: Tensor) -> Tensor:
        """The vector [n] of a trunk [m] with all heads at zero: every class equally likely, no head preferred."""
        return torch.cat([trunk[: self.shared], trunk.new_zeros(self.n - self.shared)])

    def alone(self, theta: Tensor, head: int = 0) -> Tensor:
        """[trunk | head], as a network of this one task has it."""
        parts = theta.split(self.sizes)
        return torch.cat([parts[0], parts[1 + head]])

    def logits(self, theta: Tensor, inputs: Tensor, head: int = 0) -> Tensor:
        """Logits [N, C] of one head."""
        parts = theta.split(self.sizes)
        features = self.family.features(parts[0], inputs)
        return self.read(parts[1 + head], features, head)

    def read(self, head_vector: Tensor, features: Tensor, head: int = 0) -> Tensor:
        """Logits [N, C] of a head's own vector on features [N, width]."""
        width = self.family.width
        weight, bias = head_vector.split([self.classes[head] * width, self.classes[head]])
        return F.linear(features, weight.reshape(-1, width), bias)


@dataclass(frozen=True)
class Prior:
    r"""The Gaussian `N(centre, variance I)` and the price beta of a nat: what turns a task into an objective.

    .. math:: U(w) = \frac1N \Big[ \sum_i -\log p_w(y_i | x_i) + \frac{\beta}{2 \lambda^2} |w - c|^2 \Big]
    """

    centre: Tensor  # [n]
    variance: float
    beta: float

    def penalty(self, theta: Tensor) -> Tensor:
        """The last term, times N, in nats."""
        return self.beta / (2 * self.variance) * (theta - self.centre).square().sum(-1)


class Learning:
    """A tagged union of tasks to be learned (a `leap.walk.TaskBatch` with one row).

    Every inner step takes `batch_size` examples of every task, each through its task's own head; losses are weighed by
    the tasks' sizes, so that their mean is the mean over the union. An epoch is a pass over the largest task.

    Args:
        network: One head a task.
        tasks: Their data.
        prior: What the parameters cost.
        batch_size: Examples of each task an inner step.
        seed: Of the order of examples.
    """

    size = 1

    def __init__(
        self, network: Network, tasks: Sequence[TaskData], prior: Prior, *, batch_size: int, seed: int
    ) -> None:
        self.network, self.tasks, self.prior, self.batch_size, self.seed = network, tasks, prior, batch_size, seed
        self.total = sum(len(task.labels) for task in tasks)
        self.epoch_steps = max(1, -(-max(len(task.labels) for task in tasks) // batch_size))
        self._orders = [
            Order(len(task.labels), batch_size, seed, "order", task.name, device=task.labels.device) for task in tasks
        ]

    @property
    def layout(self) -> Layout:
        """The vector's layout."""
        return self.network.layout

    def sample(self, theta: Tensor, step: int) -> list[tuple[Tensor, Tensor]]:
        """Inputs [1, B, ...] and labels [1, B] of every task at inner step `step`."""
        return [self._part(number, task, step) for number, task in enumerate(self.tasks)]

    def loss(self, theta: Tensor, batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The objective U [] in nats an example; beside it the cross-entropy alone."""
        parts = []
        for head, ((inputs, labels), task) in enumerate(zip(batch, self.tasks, strict=True)):
            share = len(task.labels) / self.total
            parts.append(share * F.cross_entropy(self.network.logits(theta, inputs.to(theta.dtype), head), labels))
        cross_entropy = torch.stack(parts).sum()
        return cross_entropy + self.prior.penalty(theta) / self.total, {"cross_entropy": cross_entropy}

    def summed_losses(self, theta: Tensor) -> Tensor:
        """Cross-entropy [tasks] in nats, summed over each task's whole training set."""
        return torch.stack([summed_loss(self.network, theta, task, i) for i, task in enumerate(self.tasks)])

    def _part(self, number: int, task: TaskData, step: int) -> tuple[Tensor, Tensor]:
        index = self._orders[number].batch(step)
        return task.inputs[index][None], task.labels[index][None]


@torch.no_grad()
def summed_loss(network: Network, theta: Tensor, task: TaskData, head: int = 0, chunk: int = 1000) -> Tensor:
    """Cross-entropy [] in nats, summed over the task's training set; in float64."""
    total = torch.zeros((), dtype=torch.float64, device=theta.device)
    for inputs, labels in zip(task.inputs.split(chunk), task.labels.split(chunk), strict=True):
        logits = network.logits(theta, inputs.to(theta.dtype), head)
        total += F.cross_entropy(logits.double(), labels, reduction="sum")
    return total


@torch.no_grad()
def error(network: Network, theta: Tensor, inputs: Tensor, labels: Tensor, head: int = 0, chunk: int = 1000) -> float:
    """Share of examples that are classified wrongly, in percent."""
    parts = zip(inputs.split(chunk), labels.split(chunk), strict=True)
    wrong = sum(int((network.logits(theta, x.to(theta.dtype), head).argmax(-1) != y).sum()) for x, y in parts)
    return 100 * wrong / len(labels)


def error_on_test(network: Network, theta: Tensor, task: TaskData, head: int = 0) -> float:
    """Share of the task's test set that is classified wrongly, in percent."""
    return error(network, theta, task.test_inputs, task.test_labels, head)
