"""Rows about learners: each beside a loop that a competent user would write for it, over the same batches.

A loop knows modules, `backward` and optimizers, and walks task after task; it ends with the meta-gradient that ours
ends with, up to the order of summation.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leap import l2l, learners
from leap.bench.convolutions import convolutions
from leap.bench.row import Goal, LeftOut, Row
from leap.bench.rows_walk import Workload, plain_paces
from leap.bench.timing import Contender
from leap.optim import sgd
from leap.walk import Fold, TaskBatch, walk

Loop = Callable[[Workload, Tensor], Tensor]


class PlainConv4(nn.Sequential):
    """Conv-4 from torch's own layers, in the textbook's order; parameters named as in the package's network.

    Args:
        classes: Width of the head.
        filters: Channels of every block.
        size: Height and width of the images, which have one channel.
    """

    def __init__(self, classes: int, filters: int = 64, size: int = 28) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_block(1 if i == 0 else filters, filters) for i in range(4)))
        self.flatten = nn.Flatten()
        self.head = nn.Linear(filters * (size // 16) ** 2, classes)


def _block(channels: int, filters: int) -> nn.Sequential:
    block = nn.Sequential()
    block.add_module("conv", nn.Conv2d(channels, filters, 3, padding=1))
    block.add_module("norm", nn.BatchNorm2d(filters, track_running_stats=False))
    block.add_module("relu", nn.ReLU())
    block.add_module("pool", nn.MaxPool2d(2))
    return block


def plain_row(work: Workload) -> Row:
    """Plain training: our walk without any fold, the loop of every tutorial, and what of it are convolutions."""
    theta0 = work.family.initial(0)
    contenders = [
        Contender("plain torch loop", lambda: plain_paces(work, theta0)),
        Contender("walk", work.paces(theta0, {})),
        Contender("convolutions alone", convolutions(work)),
    ]
    goal = Goal("twice the plain loop's speed", "walk", "ratio", 0.5)
    return Row(contenders, "plain torch loop", work.setting, [goal])


def learner_row(name: str, work: Workload) -> Row:
    """A first-order learner, one of `LOOPS`: our meta-gradient, and the reference loop's."""
    theta0, loop = work.family.initial(0), LOOPS[name]
    contenders = [
        Contender("reference loop", lambda: loop(work, theta0)),
        Contender("ours", lambda: meta_gradient(getattr(learners, name)(), work, theta0)),
    ]
    return Row(contenders, "reference loop", work.setting)


def maml_row(work: Workload) -> Row:
    """MAML of second order: our meta-gradient, and learn2learn's.

    Raises:
        LeftOut: learn2learn is not installed.
    """
    need_learn2learn()
    theta0 = work.family.initial(0)
    contenders = [
        Contender("learn2learn", lambda: learn2learn_loop(work, theta0)),
        Contender("ours", lambda: one_by_one(learners.maml(), work, theta0).mean(dim=0)),
    ]
    return Row(contenders, "learn2learn", work.setting, [Goal("twice learn2learn's speed", "ours", "ratio", 0.5)])


def need_learn2learn() -> None:
    """Nothing, where learn2learn is installed.

    Raises:
        LeftOut: it is not.
    """
    try:
        l2l.load()
    except l2l.NotInstalled as error:
        raise LeftOut(str(error)) from error


def meta_gradient(learner: Fold, work: Workload, theta0: Tensor) -> Tensor:
    """The mean meta-gradient [n] of a learner at theta^0 [n]."""
    return work.walk(theta0, {"learner": learner})().results["learner"].mean(dim=0)


def one_by_one(learner: Fold, work: Workload, theta0: Tensor, share: slice = slice(None)) -> Tensor:
    """Meta-gradients [T, n] of a share of the tasks, which walk one by one as with second order (`leap.pieces`)."""
    inner, folds = sgd(work.lr), {"learner": learner}
    walks = [
        walk(data, theta0, steps=work.steps, optimizer=inner, folds=folds, execution=work.execution)
        for data in list(work.each())[share]
    ]
    return torch.cat([walked.results["learner"] for walked in walks])


def leap_loop(work: Workload, theta0: Tensor) -> Tensor:
    """Leap from its paper, algorithm 1 with the stabilizer: every segment adds to the meta-gradient as it is walked."""
    module = work.fresh(theta0)
    start = copy.deepcopy(module.state_dict())
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for data in work.each():
        module.load_state_dict(start)
        optimizer = torch.optim.SGD(module.parameters(), lr=work.lr)
        last: _Point | None = None
        for step in range(work.steps):
            optimizer.zero_grad()
            loss = _loss(module, data.sample(theta0[None], step))
            loss.backward()
            if last is not None:
                _pull_forward(total, module, last, loss.detach())
            last = _Point.of(module, loss)
            optimizer.step()
        with torch.no_grad():
            end = _loss(module, data.sample(theta0[None], work.steps))
        if last is not None:
            _pull_forward(total, module, last, end)
    return _mean(work, total)


class _Point(NamedTuple):
    """Where an inner step began: gamma^i and the gradient there."""

    loss: Tensor
    theta: dict[str, Tensor]
    grad: dict[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module, loss: Tensor) -> _Point:
        named = dict(module.named_parameters())
        theta = {name: p.detach().clone() for name, p in named.items()}
        # gradients need no copy: `zero_grad` lets go of them, and the next `backward` makes new ones
        return cls(loss.detach(), theta, {name: p.grad for name, p in named.items() if p.grad is not None})


@torch.no_grad()
def _pull_forward(total: dict[str, Tensor], module: nn.Module, last: _Point, loss: Tensor) -> None:
    rise = -(loss - last.loss).abs()
    delta = {name: p - last.theta[name] for name, p in module.named_parameters()}
    norm = (rise**2 + sum(d.square().sum() for d in delta.values())).sqrt()
    for name, own in total.items():
        own -= (delta[name] + rise * last.grad[name]) / norm


def reptile_loop(work: Workload, theta0: Tensor) -> Tensor:
    """Reptile: plain training of every task, and the way back from its end to the beginning."""
    module = work.fresh(theta0)
    start = copy.deepcopy(module.state_dict())
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for data in work.each():
        module.load_state_dict(start)
        _train(module, work, data, theta0)
        for name, p in module.named_parameters():
            total[name] += start[name] - p.detach()
    return _mean(work, total)


def fomaml_loop(work: Workload, theta0: Tensor) -> Tensor:
    """First-order MAML: plain training of every task, and the gradient of the query loss where it ends."""
    module = work.fresh(theta0)
    start = copy.deepcopy(module.state_dict())
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for data in work.each():
        module.load_state_dict(start)
        _train(module, work, data, theta0)
        module.zero_grad()
        _loss(module, _query(data, theta0, work.steps)).backward()
        for name, p in module.named_parameters():
            assert p.grad is not None
            total[name] += p.grad
    return _mean(work, total)


def learn2learn_loop(work: Workload, theta0: Tensor) -> Tensor:
    """MAML as learn2learn's own examples write it; its clones keep the graph of the whole walk."""
    module = work.fresh(theta0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of code that nobody maintains
        algorithm = l2l.load().algorithms.MAML(module, lr=work.lr, first_order=False)
        for data in work.each():
            learner = algorithm.clone()
            for step in range(work.steps):
                learner.adapt(_loss(learner, data.sample(theta0[None], step)))
            _loss(learner, _query(data, theta0, work.steps)).backward()
    return _mean(work, {name: p.grad for name, p in module.named_parameters() if p.grad is not None})


LOOPS: dict[str, Loop] = {"leap": leap_loop, "fomaml": fomaml_loop, "reptile": reptile_loop}
"""Reference loops of the first-order learners, `(work, theta^0 [n]) -> mean meta-gradient [n]`."""


def _train(module: nn.Module, work: Workload, data: TaskBatch, theta0: Tensor) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=work.lr)
    for step in range(work.steps):
        optimizer.zero_grad()
        _loss(module, data.sample(theta0[None], step)).backward()
        optimizer.step()


def _loss(module: nn.Module, batch: Any) -> Tensor:
    images, labels = batch  # of one task, [1, B, ...]
    return F.cross_entropy(module(images[0]), labels[0])


def _query(data: TaskBatch, theta0: Tensor, steps: int) -> Any:
    return getattr(data, "query", data.sample)(theta0[None], steps)


def _mean(work: Workload, total: Mapping[str, Tensor]) -> Tensor:
    return work.family.layout.flatten(total) / work.tasks
