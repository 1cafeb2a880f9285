"""Learning tasks in order to measure them: one walk from a trunk to a solution, and the whole data's loss along it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from leap.errors import RunError
from leap.measure.network import Learning, Network
from leap.measure.problem import TaskData
from leap.metrics.along import along, log_spaced
from leap.optim import Optimizer
from leap.walk import Fold, walk


class Learned(NamedTuple):
    """Where a walk on a task (or on a union of tasks) ended, and how its loss fell."""

    theta: Tensor  # [n]
    losses: Tensor  # [tasks]  summed cross-entropy at theta, nats
    gradient_norm: Tensor  # []  of the whole objective at theta: zero at a MAP point
    epochs: Tensor  # [P]  where the curve was taken
    curve: Tensor  # [P]  mean cross-entropy over all examples, nats


def learn(
    learning: Learning, theta0: Tensor, *, epochs: float, optimizer: Optimizer, points: int = 0
) -> tuple[Learned, dict[str, Tensor]]:
    """Walk from theta0 [n] for a number of epochs.

    Args:
        learning: The task, or the union.
        theta0: Where to start, heads included.
        epochs: Passes over the largest task.
        optimizer: The inner optimizer.
        points: How often the whole data set's loss is taken on the way, at growing distances; both ends count.

    Returns:
        `Learned`, and the results of the walk's folds.

    Raises:
        RunError: learning diverged.
    """
    steps = max(1, round(epochs * learning.epoch_steps))
    at = log_spaced(steps, points) if points else []
    folds: dict[str, Fold] = {}
    if at:
        folds["curve"] = along(lambda theta: _mean_loss(learning, theta[0])[None], at)
    walked = walk(learning, theta0, steps=steps, optimizer=optimizer, folds=folds, execution="sequential")
    theta = walked.theta[0]
    if not bool(theta.isfinite().all()):
        names = " and ".join(task.name for task in learning.tasks)
        first = int((~walked.losses[0].isfinite()).int().argmax())
        raise RunError(
            f"learning {names} diverged (its loss was not finite from about step {first} on); "
            "lower measure.rate or measure.tuning_rate"
        )
    curve = walked.results["curve"][0] if at else theta.new_empty(0)
    learned = Learned(
        theta,
        learning.summed_losses(theta),
        full_gradient(learning, theta).norm(),
        torch.tensor(at, dtype=torch.float64) / learning.epoch_steps,
        curve,
    )
    return learned, walked.results


def full_gradient(learning: Learning, theta: Tensor, chunk: int = 500) -> Tensor:
    """Gradient [n] of the objective over all examples of all tasks."""
    total = torch.zeros_like(theta)
    for head, task in enumerate(learning.tasks):
        for inputs, labels in zip(task.inputs.split(chunk), task.labels.split(chunk), strict=True):
            total += _gradient(learning.network, theta, inputs, labels, head)
    return (
        total / learning.total
        + learning.prior.beta / learning.prior.variance * (theta - learning.prior.centre) / learning.total
    )


def _gradient(network: Network, theta: Tensor, inputs: Tensor, labels: Tensor, head: int) -> Tensor:
    with torch.enable_grad():
        point = theta.detach().requires_grad_()
        loss = F.cross_entropy(network.logits(point, inputs.to(theta.dtype), head), labels, reduction="sum")
        return torch.autograd.grad(loss, point)[0]


def _mean_loss(learning: Learning, theta: Tensor) -> Tensor:
    return learning.summed_losses(theta).sum() / learning.total


def fit_head(network: Network, theta: Tensor, task: TaskData, *, decay: float, steps: int = 200) -> Tensor:
    """The same trunk with the best linear head of its own [n]: multinomial logistic regression on its features.

    Args:
        network: One head.
        theta: [trunk | head]; the head is where the search starts.
        task: Training data.
        decay: Weight decay per example (`beta / (variance N)`), which makes the optimum unique.
        steps: Iterations of L-BFGS at most; the problem is convex.
    """
    with torch.no_grad():
        features = torch.cat(
            [network.family.features(theta[: network.shared], part) for part in task.inputs.split(1000)]
        )
    features, head = features.double(), theta[network.shared :].double().clone().requires_grad_()
    search = torch.optim.LBFGS(
        [head],
        max_iter=steps,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
    )

    def objective() -> Tensor:
        search.zero_grad()
        value = F.cross_entropy(network.read(head, features), task.labels) + decay / 2 * head.square().sum()
        value.backward()
        return value

    search.step(objective)
    return torch.cat([theta[: network.shared], head.detach().to(theta.dtype)])


def subset(task: TaskData, count: int, seed: int) -> Tensor:
    """Positions [count] of a class-balanced subset of the training data: classes take turns, in a derived order."""
    from leap.randomness import generator

    order = torch.randperm(len(task.labels), generator=generator(seed, "subset", task.name))
    labels = task.labels.cpu()[order]
    turns = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        mine = labels == label
        turns[mine] = torch.arange(int(mine.sum()))
    return order[torch.argsort(turns, stable=True)][:count].to(task.labels.device)


def take(task: TaskData, index: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Training inputs and labels at these positions."""
    return task.inputs[index], task.labels[index]
