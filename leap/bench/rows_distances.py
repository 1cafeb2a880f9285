"""Rows about task distances: time and memory of the dual log-determinant, gradients of a Fisher task distance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from leap.bench.memory import peak_memory
from leap.bench.row import Figure, Goal, Row
from leap.bench.timing import Contender
from leap.layout import Layout
from leap.metrics.curvature import fisher_factor, logdet_identity_plus
from leap.metrics.fisher import fisher_diagonal, fisher_task_distance
from leap.randomness import generator

GIB = 2**30


class Size(NamedTuple):
    """Sizes of a row about classifiers of images 3 x side x side."""

    inputs: int = 256
    widths: tuple[int, ...] = (32, 64, 64)
    classes: int = 10
    side: int = 32
    batch: int = 64  # of training


TINY = Size(inputs=8, widths=(4, 4), classes=3, side=8, batch=4)


class Network(nn.Module):
    """3x3 convolutions, each with a rectifier and 2x2 max-pooling, the mean over places and a linear head.

    It normalizes nothing: a row of its logits depends on its own image alone.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        widths = (3, *size.widths)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, size.widths, strict=False))
        self.head = nn.Linear(widths[-1], size.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, C] of images [n, 3, H, W]."""
        for conv in self.convs:
            images = F.max_pool2d(F.relu(conv(images)), 2)
        return self.head(images.mean(dim=(2, 3)))


class Problem(NamedTuple):
    """A classifier and its inputs, with weights and images drawn at random."""

    logits: Callable[[Tensor, Tensor], Tensor]
    theta: Tensor  # [K]
    images: Tensor  # [n, 3, H, W]
    labels: Tensor  # [n]
    module: nn.Module
    layout: Layout


def problem(size: Size, device: str, seed: int = 0) -> Problem:
    """A problem of a size; the same one for the same seed."""
    module = Network(size).to(device)
    layout, stream = Layout.of(module), generator(seed, "benchmark")
    scale = torch.cat([torch.full((p.numel(),), _bound(p)) for p in module.parameters()])
    theta = scale * (2 * torch.rand(layout.n, generator=stream) - 1)
    images = torch.randn(size.inputs, 3, size.side, size.side, generator=stream)
    labels = torch.randint(size.classes, (size.inputs,), generator=stream)

    def logits(point: Tensor, inputs: Tensor) -> Tensor:
        found: Tensor = functional_call(module, layout.unflatten(point), (inputs,))
        return found

    return Problem(logits, theta.to(device), images.to(device), labels.to(device), module, layout)


def _bound(parameter: Tensor) -> float:
    """Width of a uniform draw that keeps the size of activations; biases have the same small one."""
    return float((6 / parameter[0].numel()) ** 0.5) if parameter.dim() > 1 else 0.01


def dual_work(size: Size, device: str) -> Callable[[], object]:
    """The log-determinant of identity plus Fisher, from the network on."""
    made = problem(size, device)
    return lambda: logdet_identity_plus(fisher_factor(made.logits, made.theta, made.images).rows, 1.0)


def product_work(size: Size, device: str) -> Callable[[], object]:
    """A product A A^T in float64, of as many rows as a factor of the Fisher written class by class has."""
    columns = problem(size, device).layout.n
    return lambda: _product(torch.ones(size.inputs * size.classes, columns, dtype=torch.float64, device=device))


def _product(a: Tensor) -> Tensor:
    return a @ a.T


def logdet_row(device: str, size: Size = Size()) -> Row:  # noqa: B008  an immutable tuple
    """Seconds and peak memory of the dual log-determinant, beside one dense product of its size."""
    small = size._replace(inputs=min(size.inputs, 2))
    contenders = [
        Contender("dual log-determinant", dual_work(size, device), warm=dual_work(small, device)),
        Contender("its factor alone", _factor_work(size, device), warm=_factor_work(small, device)),
        Contender("one float64 product", product_work(size, device), warm=product_work(small, device)),
    ]
    figures = [
        Figure("memory, dual log-determinant", "bytes", _memory(dual_work, size, device)),
        Figure("memory, one float64 product", "bytes", _memory(product_work, size, device)),
    ]
    goals = [
        Goal("at most 15 s on 2 cores", "dual log-determinant", "seconds", 15.0, threads=2),
        Goal("at most 2 GiB", "memory, dual log-determinant", "figure", 2.0 * GIB),
    ]
    return Row(contenders, "one float64 product", _setting(size, device), goals, figures)


def _factor_work(size: Size, device: str) -> Callable[[], object]:
    made = problem(size, device)
    return lambda: fisher_factor(made.logits, made.theta, made.images)


def _memory(work: Callable[[Size, str], Callable[[], object]], size: Size, device: str) -> Callable[[], float]:
    return partial(peak_memory, partial(work, size, device), device=device)


def fisher_row(device: str, size: Size = Size()) -> Row:  # noqa: B008
    """Gradient evaluations of a Fisher task distance, and its time, in epochs of training on as many inputs."""
    made = problem(size, device)
    other = problem(size, device, seed=1).theta

    def pair(logits: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        diagonals = [
            fisher_diagonal(logits, theta, made.images, generator=generator(0, name))
            for name, theta in {"source": other, "target": made.theta}.items()
        ]
        return fisher_task_distance(*diagonals)

    def epochs_of_gradients() -> float:
        counter = Counter()
        pair(counter.watch(made.logits))
        return counter.gradients / size.inputs

    contenders = [
        Contender("epoch of training", lambda: train_epoch(made, size.batch)),
        Contender("distance of a pair", lambda: pair(made.logits)),
    ]
    goals = [Goal("at most two epochs of gradient evaluations a pair", "gradients of a pair", "figure", 2.0)]
    figures = [Figure("gradients of a pair", "epochs", epochs_of_gradients)]
    setting = {**_setting(size, device), "training batch": size.batch}
    return Row(contenders, "epoch of training", setting, goals, figures)


def train_epoch(made: Problem, batch: int) -> None:
    """An epoch of plain SGD in float32; the rate is zero, so that every round does the same work."""
    made.module.load_state_dict(made.layout.unflatten(made.theta))
    optimizer = torch.optim.SGD(made.module.parameters(), lr=0.0)
    for images, labels in zip(made.images.split(batch), made.labels.split(batch), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(made.module(images), labels).backward()
        optimizer.step()


def _setting(size: Size, device: str) -> dict[str, Any]:
    weights = Layout.of(Network(size)).n
    return {"weights": weights, "inputs": size.inputs, "classes": size.classes, "side": size.side, "device": device}


class Counter:
    """Counts gradient evaluations: rows of logits whose gradient was carried back to the weights."""

    def __init__(self) -> None:
        self.gradients = 0

    def watch(self, logits: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """The same logits, their backward passes counted; inside `torch.func.vmap` too.

        Example:
            >>> counter = Counter()
            >>> logits = counter.watch(lambda theta, x: x @ theta.view(2, 3))
            >>> _ = torch.func.grad(lambda theta: logits(theta, torch.ones(4, 2)).sum())(torch.ones(6))
            >>> counter.gradients
            4
        """
        return lambda theta, inputs: _Watched.apply(logits(theta, inputs), self)

    def add(self, gradient: Tensor) -> Tensor:
        """Count the rows of a gradient [..., C]; it is handed through."""
        self.gradients += gradient.numel() // gradient.shape[-1]
        return gradient.clone()


class _Passed(torch.autograd.Function):
    """The identity, which under `vmap` is taken of all that is mapped over at once."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.counter = inputs[1]

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, x: Tensor, counter: Counter) -> Any:
        return cls.apply(x.movedim(in_dims[0], 0), counter), 0


class _Watched(_Passed):
    @staticmethod
    def forward(x: Tensor, counter: Counter) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Counted.apply(gradient, ctx.counter), None


class _Counted(_Passed):
    @staticmethod
    def forward(x: Tensor, counter: Counter) -> Tensor:
        return counter.add(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None
