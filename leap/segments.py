"""Folds over the segments of a walk, from one point of the task manifold to the next.

A point is gamma^i = (theta^i, f(theta^i)). A step knows f only at its own start, so segment i is complete one step
later; the last one needs one extra loss evaluation at theta^K. f is the loss, or another height (`leap.heights`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.heights import Height
from leap.walk import End, Fold, Step


class Segment(NamedTuple):
    """From gamma^i to gamma^{i+1}."""

    number: int
    loss: Tensor  # [T]     the loss at theta^i
    delta: Tensor  # [T, m]  theta^{i+1} - theta^i
    rise: Tensor  # [T]     f(theta^{i+1}) - f(theta^i), each on the batch of its own step
    grad: Tensor  # [T, m]  gradient of the loss at theta^i
    factor: Tensor | None = None  # [T]  what makes it the gradient of f; None: 1


class _Pending(NamedTuple):
    total: Any
    number: int
    theta: Tensor | None
    loss: Tensor | None
    grad: Tensor | None
    height: Any = None


def over_segments(
    start: Callable[[Tensor], Any],
    add: Callable[[Any, Segment], Any],
    finish: Callable[[Any, End], Tensor],
    *,
    last_segment: bool = True,
    records: bool = False,
    height: Height | None = None,
) -> Fold:
    """A fold written over segments: `start(theta^0) -> total`, `add(total, segment) -> total`, `finish(total, end)`.

    Args:
        start: What to begin with.
        add: Takes in a segment.
        finish: The result.
        last_segment: Whether segment K-1, which ends at theta^K, counts.
        records: As in `leap.walk.Fold`.
        height: What f is; None: the loss of each step.
    """

    def begin(theta0: Tensor) -> _Pending:
        return _Pending(start(theta0), -1, None, None, None)

    def complete(state: _Pending, point: Step | End) -> tuple[Any, Any]:
        if state.theta is None or state.loss is None or state.grad is None:
            # before the first step there is no segment
            return state.total, None if height is None else height.start(point)
        if height is None:  # before delta, since at the end of a walk this is where the loss is evaluated
            climbed, rise, factor = None, point.loss - state.loss, None
        else:
            climbed, rise, factor = height.climb(state.height, point)
        # the difference is taken now and not with the step: what `add` reads next is still in the caches
        delta = point.theta - state.theta
        return add(state.total, Segment(state.number, state.loss, delta, rise, state.grad, factor)), climbed

    def step(state: _Pending, s: Step) -> _Pending:
        total, climbed = complete(state, s)
        return _Pending(total, state.number + 1, s.theta, s.loss, s.grad, climbed)

    def end(state: _Pending, last: End) -> Tensor:
        return finish(complete(state, last)[0] if last_segment else state.total, last)

    return Fold(begin, step, end, records=records)


def squared_length(segment: Segment, loss_coordinate: bool) -> Tensor:
    """Squared length [T] of a segment, in parameter space or on the graph of the loss."""
    square = torch.linalg.vector_norm(segment.delta, dim=-1).square()  # one pass, and no vector of squares
    return square + segment.rise.square() if loss_coordinate else square
