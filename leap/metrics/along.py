"""A measurement taken at chosen points of a walk, as a fold: Fisher trace, training loss, distance from the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from leap.metrics.checks import Logits
from leap.metrics.fisher import fisher_trace
from leap.walk import End, Fold, Step


class _Taken(NamedTuple):
    number: int  # of steps seen
    values: tuple[Tensor, ...]


def along(measure: Callable[[Tensor], Tensor], at: Sequence[int]) -> Fold:
    r"""Take a measurement at chosen points of the walk.

    .. math:: \left( \mu(\theta^{i_1}), \mu(\theta^{i_2}), \dots \right), \quad 0 \le i_1 < i_2 < \dots \le K

    Args:
        measure: `theta [T, m] -> [T]`: a number a task. It is called without gradients being recorded, and may turn
            them on for itself.
        at: Inner steps to measure at, rising: 0 is the initialization, K the end of the walk.

    Returns:
        A fold whose result is [T, len(at)], in the measurement's unit. At the other steps it only counts.

    Raises:
        ValueError: no steps, negative ones or ones that do not rise; in the walk, a step beyond its end, or a
            measurement that is not [T].
        TypeError: a step that is no integer.

    Example:
        >>> from leap import optim, walk
        >>> class Slope:                                    # f(theta) = sum(theta): equal steps
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return theta.sum(), {}
        >>> folds = {"norm": along(lambda theta: theta.norm(dim=1), [0, 1, 4])}
        >>> walk.walk(Slope(), torch.zeros(4), steps=4, optimizer=optim.sgd(0.5), folds=folds).results["norm"]
        tensor([[0., 1., 4.]])

    Measure on data that do not change along the walk: the losses the walk itself reports are those of its mini-batches.
    """
    points = _points(at)

    def take(state: _Taken, theta: Tensor) -> tuple[Tensor, ...]:
        if len(state.values) == len(points) or points[len(state.values)] != state.number:
            return state.values
        value = measure(theta)
        if value.shape != theta.shape[:-1]:
            raise ValueError(
                f"measure must return a number a task, {tuple(theta.shape[:-1])}, got {tuple(value.shape)}"
            )
        return (*state.values, value.detach())

    def step(state: _Taken, s: Step) -> _Taken:
        return _Taken(state.number + 1, take(state, s.theta))

    def finish(state: _Taken, end: End) -> Tensor:
        if points[-1] > state.number:
            raise ValueError(f"at must end at the walk's last step {state.number} or before, got {points[-1]}")
        return torch.stack(take(state, end.theta), dim=-1)

    return Fold(lambda theta0: _Taken(0, ()), step, finish)


def fisher_trace_along(
    logits: Logits,
    inputs: Tensor,
    at: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Fold:
    r"""Trace of the model's Fisher information during training.

    .. math:: \operatorname{tr} F(\theta^i), \quad i = i_1, i_2, \dots

    Args:
        logits: `(theta [m], inputs [n, ...]) -> [n, C]`; theta is what the walk shows, so a task's own head must be
            part of the shared vector here or be held by the function.
        inputs: Fixed inputs of each task, [T, n, ...].
        at: As `along`; `log_spaced` gives about twenty.
        generator: None sums over all labels; a generator draws one label an input and point. See `fisher_trace`.
        chunk: As `fisher_trace`.

    Returns:
        A fold whose result is [T, len(at)], float64; unit as `fisher_diagonal`.

    Raises:
        ValueError, TypeError: as `along` and `fisher_trace`.

    Example:
        >>> from leap import optim, walk
        >>> coin = lambda theta, x: torch.stack([theta[0] * x, 0 * x], dim=1)
        >>> class Heads:
        ...     def sample(self, theta, step): return torch.ones(1, 8)
        ...     def loss(self, theta, x): return -coin(theta, x).log_softmax(dim=1)[:, 0].mean(), {}
        >>> folds = {"trace": fisher_trace_along(coin, torch.ones(1, 8), [0, 3])}         # p (1 - p) falls from 1/4
        >>> walk.walk(Heads(), torch.zeros(1), steps=3, optimizer=optim.sgd(2.0), folds=folds).results["trace"]
        tensor([[0.2500, 0.1139]], dtype=torch.float64)

    Reference: Achille, Rovere & Soatto 2019, https://arxiv.org/abs/1711.08856: the trace rises and falls again, and its
    peak marks the critical period.
    """

    def measure(theta: Tensor) -> Tensor:
        if len(inputs) != len(theta):
            raise ValueError(f"inputs are of {len(inputs)} tasks, [T, n, ...], but {len(theta)} tasks walk")
        pairs = zip(theta, inputs, strict=True)
        return torch.stack([fisher_trace(logits, own, x, generator=generator, chunk=chunk) for own, x in pairs])

    return along(measure, at)


def log_spaced(steps: int, count: int) -> list[int]:
    """About `count` inner steps for `along`, each further on by the same factor: dense where a walk is fast.

    Args:
        steps: K, the length of the walk, at least 1.
        count: How many to aim at, at least 3.

    Returns:
        Rising steps from 0 to K, both among them; fewer than `count` where neighbours round to the same step.

    Raises:
        ValueError: steps below 1 or a count below 3.

    Example:
        >>> log_spaced(100, 6)
        [0, 1, 3, 10, 32, 100]
    """
    if steps < 1 or count < 3:
        raise ValueError(f"steps must be at least 1 and count at least 3, got {steps} and {count}")
    return sorted({0, *(round(steps ** (i / (count - 2))) for i in range(count - 1))})


def _points(at: Sequence[int]) -> tuple[int, ...]:
    points = tuple(at)
    for point in points:
        if not isinstance(point, int) or isinstance(point, bool):
            raise TypeError(f"at must hold integers, got {point!r} ({type(point).__name__})")
    rising = all(a < b for a, b in pairwise(points))
    if not points or points[0] < 0 or not rising:
        raise ValueError(f"at must hold at least one step, from 0 on and rising, got {list(points)}")
    return points
