"""How long the walk from an initialization to a task is, as folds of the one walk.

Gradient-path length and energy measure it among parameters or on the graph of the loss, the Fisher-Rao length among
what the network predicts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from leap.batching import EXECUTIONS, Execution, evaluate
from leap.metrics.checks import Logits
from leap.segments import Segment, over_segments, squared_length
from leap.walk import End, Fold, Step


def path_length(*, loss_coordinate: bool = True, last_segment: bool = True) -> Fold:
    r"""Length of the gradient path.

    `Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_, equation 3 with p = 1:

    .. math:: d_1(\theta^0) = \sum_{i=0}^{K-1} \| \gamma^{i+1} - \gamma^i \|_2, \quad \gamma^i = (\theta^i, f(\theta^i))

    Args:
        loss_coordinate: Measure on the graph of the loss; without it, in parameter space alone.
        last_segment: Count the segment that ends at theta^K, as the paper does; it costs one extra loss evaluation.

    Returns:
        A fold whose result is [T]. Unit: that of the parameters; the loss coordinate adds the loss's (nats).

    Consecutive losses are measured on consecutive mini-batches, which costs nothing but lets the batches' noise
    lengthen the path: compare paths of one protocol, or drop the coordinate.

    Example:
        >>> import torch
        >>> from leap import optim, walk
        >>> class Slope:                                    # f(theta) = sum(theta): equal steps of lr * sqrt(n)
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return theta.sum(), {}
        >>> fold = {"length": path_length(loss_coordinate=False)}
        >>> walk.walk(Slope(), torch.zeros(4), steps=10, optimizer=optim.sgd(0.1), folds=fold).results["length"]
        tensor([2.0000])
    """
    return _path(lambda square: square.sqrt(), loss_coordinate, last_segment)


PATH_MEASURES = ("path_length", "path_energy", "path_length_parameters", "path_energy_parameters")
"""Columns of `path_measures`."""


def path_measures(*, last_segment: bool = True) -> Fold:
    """Length and energy of the gradient path, on the graph of the loss and among parameters, for the price of one.

    Args:
        last_segment: As in `path_length`.

    Returns:
        A fold whose result is [T, 4], in the order of `PATH_MEASURES`: what `path_length` and `path_energy` give with
        and without the loss coordinate. Each segment is looked at once, which is most of what a path measure costs.

    Example:
        >>> import torch
        >>> from leap import optim, walk
        >>> class Slope:
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return theta.sum(), {}
        >>> folds = {"all": path_measures()}
        >>> walk.walk(Slope(), torch.zeros(3), steps=2, optimizer=optim.sgd(1.0), folds=folds).results["all"]
        tensor([[ 6.9282, 24.0000,  3.4641,  6.0000]])
    """

    def start(theta0: Tensor) -> Tensor:
        return theta0.new_zeros(*theta0.shape[:-1], 4)

    def add(total: Tensor, segment: Segment) -> Tensor:
        square = squared_length(segment, loss_coordinate=False)
        graph = square + segment.rise.square()
        return total + torch.stack([graph.sqrt(), graph, square.sqrt(), square], dim=-1)

    return over_segments(start, add, lambda total, end: total, last_segment=last_segment)


def path_length_until(level: float, *, loss_coordinate: bool = True) -> Fold:
    r"""Length of the gradient path up to where the loss first falls below a level.

    .. math:: \sum_{i < k} \| \gamma^{i+1} - \gamma^i \|_2, \quad k = \min \{ i : f(\theta^i) < \text{level} \}

    Args:
        level: In the loss's unit (nats).
        loss_coordinate: As in `path_length`.

    Returns:
        A fold whose result is [T], NaN for tasks whose walk never got there: their length is not known, only that
        of the whole walk.

    Raises:
        ValueError: a level that is not finite.

    A walk that learns nothing is short, so whole lengths compare initializations of one quality only; up to a common
    level all have come equally far. The losses are those of the mini-batches, whose noise lets a walk pass the level
    early: compare walks of one protocol.

    Example:
        >>> import torch
        >>> from leap import optim, walk
        >>> class Slope:
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return theta.sum(), {}
        >>> folds = {at: path_length_until(float(at), loss_coordinate=False) for at in ("-0.9", "-9")}
        >>> found = walk.walk(Slope(), torch.zeros(4), steps=10, optimizer=optim.sgd(0.1), folds=folds).results
        >>> found["-0.9"], found["-9"]                       # three steps of 0.2; ten steps end at -4
        (tensor([0.6000]), tensor([nan]))
    """
    if not math.isfinite(level):
        raise ValueError(f"level must be finite, got {level}")

    def start(theta0: Tensor) -> tuple[Tensor, Tensor]:
        return theta0.new_zeros(theta0.shape[:-1]), theta0.new_zeros(theta0.shape[:-1], dtype=torch.bool)

    def add(state: tuple[Tensor, Tensor], segment: Segment) -> tuple[Tensor, Tensor]:
        total, there = state
        there = there | (segment.loss < level)
        return torch.where(there, total, total + squared_length(segment, loss_coordinate).sqrt()), there

    def finish(state: tuple[Tensor, Tensor], end: End) -> Tensor:
        total, there = state
        return torch.where(there | (end.loss < level), total, torch.nan)

    return over_segments(start, add, finish)


def path_energy(*, loss_coordinate: bool = True, last_segment: bool = True) -> Fold:
    r"""Energy of the gradient path: `path_length` with p = 2, squares summed and no root taken.

    .. math:: d_2(\theta^0) = \sum_{i=0}^{K-1} \| \gamma^{i+1} - \gamma^i \|_2^2

    Args, returns and variant: as `path_length`; the unit is squared. By Cauchy-Schwarz `d_1^2 <= K d_2`.
    """
    return _path(lambda square: square, loss_coordinate, last_segment)


def fisher_rao_length(fisher_quadratic: Callable[[Tensor, Tensor], Tensor], *, last_segment: bool = True) -> Fold:
    r"""Length of the gradient path in the Fisher information metric: how far the predictions travel.

    .. math:: d_F(\theta^0) = \sum_{i=0}^{K-1} \sqrt{ \delta_i^T F(\theta^i)\, \delta_i },
              \quad \delta_i = \theta^{i+1} - \theta^i

    Args:
        fisher_quadratic: `(theta [T, m], delta [T, m]) -> [T]`: the quadratic form of each task's Fisher, mean over
            inputs; `softmax_fisher_quadratic` makes one. It may not be negative.
        last_segment: Count the segment that ends at theta^K. Unlike the loss coordinate it costs nothing extra here.

    Returns:
        A fold whose result is [T], in the square root of nats: a short step of length s changes the predictions by a
        Kullback-Leibler divergence of s^2 / 2 an input. It does not depend on how the network is parametrized.

    Raises:
        ValueError: in the walk, a quadratic form that is negative beyond round-off or not [T].

    Example:
        >>> import torch
        >>> from leap import optim, walk
        >>> coin = lambda theta, x: torch.stack([theta[0] * x, 0 * x], dim=1)
        >>> class Push:
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return -theta.sum(), {}
        >>> fold = {"length": fisher_rao_length(softmax_fisher_quadratic(coin, torch.ones(1, 5)))}    # 0.1 sqrt(1/4)
        >>> walk.walk(Push(), torch.zeros(1), steps=1, optimizer=optim.sgd(0.1), folds=fold).results["length"]
        tensor([0.0500], dtype=torch.float64)

    Reference: Rao 1945, https://doi.org/10.1007/978-1-4612-0919-5_16. Every segment is measured where it starts, so the
    sum differs from the length of a curve by terms of the step's order.
    """

    def start(theta0: Tensor) -> _Travelled:
        zero = theta0.new_zeros(theta0.shape[:-1], dtype=torch.float64)
        return _Travelled(zero, zero, zero, zero)

    def step(state: _Travelled, s: Step) -> _Travelled:
        square = fisher_quadratic(s.theta, s.theta_next - s.theta).double()
        if square.shape != state.total.shape:
            raise ValueError(f"fisher_quadratic must return {tuple(state.total.shape)}, got {tuple(square.shape)}")
        least, most = torch.minimum(state.least, square), torch.maximum(state.most, square)
        return _Travelled(state.total + state.latest, square.clamp_min(0).sqrt(), least, most)

    def finish(state: _Travelled, end: End) -> Tensor:
        if (state.least < -1e-6 * state.most).any():  # float32 round-off passes; a NaN of a diverged task does too
            raise ValueError(
                f"fisher_quadratic must not be negative, got {float(state.least.min()):.3g}; pass a Fisher or "
                "Gauss-Newton form, not a Hessian's"
            )
        return state.total + state.latest if last_segment else state.total

    return Fold(start, step, finish)


def softmax_fisher_quadratic(
    logits: Logits, inputs: Tensor, *, execution: Execution = "batched"
) -> Callable[[Tensor, Tensor], Tensor]:
    r"""The quadratic form of a classifier's Fisher, by one forward-mode derivative and without a Jacobian in memory.

    .. math:: \delta^T F(\theta)\, \delta = \frac1n \sum_i \operatorname{Var}_{c \sim p_\theta(\cdot \mid x_i)}
              \left[ (J_i \delta)_c \right], \quad J_i = \partial z(\theta, x_i) / \partial \theta

    Args:
        logits: `(theta [m], inputs [n, ...]) -> z [n, C]`, for one task and row by row. theta is what the walk shows of
            it, the shared part: a task's own head must be held by the function.
        inputs: Fixed inputs of each task, [T, n, ...], in the dtype the network takes; the same along the walk, so
            that mini-batches add no noise. A step costs two forward passes over them: as many as a mini-batch's about
            double the time of a walk.
        execution: As in `walk`: all tasks in one `vmap`, or one after another.

    Returns:
        `(theta [T, m], delta [T, m]) -> [T]`, float64, in nats. The network runs in the walk's precision, and
        the variance is taken in float64.

    Raises:
        ValueError: no inputs, an unknown execution; when called, another number of tasks than the inputs', or fewer
            than two classes.

    Example:
        >>> import torch
        >>> coin = lambda theta, x: torch.stack([theta[0] * x, 0 * x], dim=1)
        >>> form = softmax_fisher_quadratic(coin, torch.tensor([[1.0, 2.0]]))
        >>> form(torch.zeros(1, 1), torch.ones(1, 1))                            # mean of x^2 p (1 - p)
        tensor([0.6250], dtype=torch.float64)

    Reference: Martens 2020, https://arxiv.org/abs/1412.1193, on the Fisher as Gauss-Newton matrix.
    """
    if inputs.dim() < 2 or inputs.numel() == 0:
        raise ValueError(f"inputs must be [T, n, ...] and not empty, got shape {tuple(inputs.shape)}")
    if execution not in EXECUTIONS:
        raise ValueError(f"execution must be one of {EXECUTIONS}, got {execution!r}")
    _load_forward_mode()

    def form(theta: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        delta, own = batch
        z, dz = torch.func.jvp(lambda point: logits(point, own), (theta,), (delta,))[:2]
        if z.dim() != 2 or z.shape[1] < 2:
            raise ValueError(f"logits must return [n, C] with at least two classes, got shape {tuple(z.shape)}")
        p, dz = z.double().softmax(dim=1), dz.double()
        return (p * (dz - (p * dz).sum(dim=1, keepdim=True)).square()).sum(dim=1).mean(), {}

    def quadratic(theta: Tensor, delta: Tensor) -> Tensor:
        if len(theta) != len(inputs):
            raise ValueError(f"inputs are of {len(inputs)} tasks, [T, n, ...], but {len(theta)} tasks walk")
        return evaluate(form, theta, (delta, inputs), execution)[0].detach()

    return quadratic


def _load_forward_mode() -> None:
    """Torch scripts some forward-mode rules at their first use, and then warns of its own use of scripting."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


class _Travelled(NamedTuple):
    total: Tensor  # [T]  without the latest segment
    latest: Tensor  # [T]
    least: Tensor  # [T]  smallest square seen
    most: Tensor  # [T]


def _path(power: Callable[[Tensor], Tensor], loss_coordinate: bool, last_segment: bool) -> Fold:
    def add(total: Tensor, segment: Segment) -> Tensor:
        return total + power(squared_length(segment, loss_coordinate))

    return over_segments(
        lambda theta0: theta0.new_zeros(theta0.shape[:-1]), add, lambda total, end: total, last_segment=last_segment
    )
