"""Folds over the segments of a walk, from one point of the task manifold to the next.

A point is gamma^i = (theta^i, f(theta^i)). A step knows f only at its own start, so segment i is complete one step
later; the last one needs one extra loss evaluation at theta^K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.walk import End, Fold, Step


class Segment(NamedTuple):
    """From gamma^i to gamma^{i+1}."""

    number: int
    loss: Tensor  # [T]     f(theta^i)
    delta: Tensor  # [T, m]  theta^{i+1} - theta^i
    rise: Tensor  # [T]     f(theta^{i+1}) - f(theta^i), each on the batch of its own step
    grad: Tensor  # [T, m]  gradient of f at theta^i


class _Pending(NamedTuple):
    total: Any
    number: int
    theta: Tensor | None
    loss: Tensor | None
    grad: Tensor | None


def over_segments(
    start: Callable[[Tensor], Any],
    add: Callable[[Any, Segment], Any],
    finish: Callable[[Any, End], Tensor],
    *,
    last_segment: bool = True,
    records: bool = False,
) -> Fold:
    """A fold written over segments: `start(theta^0) -> total`, `add(total, segment) -> total`, `finish(total, end)`.

    Args:
        start: What to begin with.
        add: Takes in a segment.
        finish: The result.
        last_segment: Whether segment K-1, which ends at theta^K, counts.
        records: As in `leap.walk.Fold`.
    """

    def begin(theta0: Tensor) -> _Pending:
        return _Pending(start(theta0), -1, None, None, None)

    def complete(state: _Pending, theta: Tensor, loss: Tensor) -> Any:
        if state.theta is None or state.loss is None or state.grad is None:
            return state.total  # before the first step there is no segment
        # the difference is taken now and not with the step: what `add` reads next is still in the caches
        delta, rise = theta - state.theta, loss - state.loss
        return add(state.total, Segment(state.number, state.loss, delta, rise, state.grad))

    def step(state: _Pending, s: Step) -> _Pending:
        return _Pending(complete(state, s.theta, s.loss), state.number + 1, s.theta, s.loss, s.grad)

    def end(state: _Pending, last: End) -> Tensor:
        return finish(complete(state, last.theta, last.loss) if last_segment else state.total, last)

    return Fold(begin, step, end, records=records)


def squared_length(segment: Segment, loss_coordinate: bool) -> Tensor:
    """Squared length [T] of a segment, in parameter space or on the graph of the loss."""
    square = torch.linalg.vector_norm(segment.delta, dim=-1).square()  # one pass, and no vector of squares
    return square + segment.rise.square() if loss_coordinate else square
