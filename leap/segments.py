"""Folds over the segments of a walk, from one point of the task manifold to the next.

A point is gamma^i = (theta^i, f(theta^i)). A step knows f only at its own start, so segment i is complete one step
later; the last one needs one extra loss evaluation at theta^K. f is the loss, or another height (`leap.heights`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap import vectors
from leap.heights import Height
from leap.walk import End, Fold, Step


@dataclass(frozen=True)
class Segment:
    """From gamma^i to gamma^{i+1}."""

    number: int
    loss: Tensor  # [T]     the loss at theta^i
    start: Tensor  # [T, m]  theta^i
    end: Tensor  # [T, m]  theta^{i+1}
    rise: Tensor  # [T]     f(theta^{i+1}) - f(theta^i), each on the batch of its own step
    grad: Tensor  # [T, m]  gradient of the loss at theta^i
    factor: Tensor | None = None  # [T]  what makes it the gradient of f; None: 1

    @functools.cached_property
    def delta(self) -> Tensor:
        """theta^{i+1} - theta^i, [T, m]: a vector that what asks for less can do without."""
        return self.end - self.start

    @functools.cached_property
    def distance(self) -> Tensor:
        """Its norm, [T]."""
        found = vectors.distance(self.start, self.end)
        return torch.linalg.vector_norm(self.delta, dim=-1) if found is None else found


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
        segment = Segment(state.number, state.loss, state.theta, point.theta, rise, state.grad, factor)
        return add(state.total, segment), climbed

    def step(state: _Pending, s: Step) -> _Pending:
        total, climbed = complete(state, s)
        return _Pending(total, state.number + 1, s.theta, s.loss, s.grad, climbed)

    def end(state: _Pending, last: End) -> Tensor:
        return finish(complete(state, last)[0] if last_segment else state.total, last)

    return Fold(begin, step, end, records=records)


def squared_length(segment: Segment, loss_coordinate: bool) -> Tensor:
    """Squared length [T] of a segment, in parameter space or on the graph of the loss."""
    square = segment.distance.square()
    return square + segment.rise.square() if loss_coordinate else square
