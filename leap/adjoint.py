r"""Exact derivatives of a walk's points with respect to its start, in memory that grows with the root of its length.

A walk is a chain of maps `(theta^i, s^i) -> (theta^{i+1}, s^{i+1})`, s the optimizer's state. The adjoint runs it
backwards,

.. math::
    \lambda^i = \left(\frac{\partial(\theta^{i+1}, s^{i+1})}{\partial(\theta^i, s^i)}\right)^T \lambda^{i+1} + (v_i, 0),

one step at a time. The forward pass keeps every ceil(sqrt K)-th point; a segment's points are computed again when the
adjoint reaches it. So at most 2 ceil(sqrt K) points are alive, whatever K (Griewank 1992 with one level), for one more
forward pass. Walks of few tasks save most of that pass: a step that will be gone back through next leaves its graph, as
far as `GRAPHS` allows. MAML of K = 5 on one task computes nothing twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from leap.batching import Execution, evaluate, loss_and_gradient, tasks_from
from leap.optim import Optimizer, State

if TYPE_CHECKING:
    from leap.walk import TaskBatch


GRAPHS = 8
"""Most graphs of one task's step that are alive at once; a walk of more tasks than that holds one step's alone."""


class Link(NamedTuple):
    """A step with its graph: what it began from, and what that became."""

    theta: Tensor
    state: State
    theta_next: Tensor
    state_next: State

    def back(self, theta_bar: Tensor, state_bar: State) -> tuple[Tensor, State]:
        """Cotangents before the step from those after it; the graph is let go."""
        outputs, bars = (self.theta_next, *self.state_next), (theta_bar, *state_bar)
        inputs = (self.theta, *self.state)
        found = torch.autograd.grad(outputs, inputs, bars, allow_unused=True, materialize_grads=True)
        return found[0], tuple(found[1:])


@dataclass
class Record:
    """What the forward pass keeps for the adjoint: the chain's maps, its start, some of its points, its last graphs."""

    tasks: TaskBatch
    optimizer: Optimizer
    execution: Execution
    steps: int
    theta0: Tensor
    extra: Tensor
    keeps: bool
    points: dict[int, tuple[Tensor, State]] = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)

    @property
    def every(self) -> int:
        """Distance between points that are kept."""
        return math.ceil(math.sqrt(self.steps))

    def visit(self, step: int, theta: Tensor, state: State) -> None:
        """Keep the point before `step` if it is one of those to keep."""
        if self.keeps and step % self.every == 0:
            self.points[step] = (theta, state)

    def links_up(self, step: int, stop: int) -> bool:
        """Whether `step` is to leave its graph, where the adjoint will begin before `stop`."""
        return self.keeps and stop - step <= GRAPHS // len(self.theta0)

    def link(
        self, step: int, theta: Tensor, state: State, batch: Any
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor, State]:
        """Take a step and keep its graph: loss, what it recorded, gradient, theta and state after it, all detached."""
        losses, aux, grad, self.links[step] = _link(self, step, theta, state, batch)
        told = {name: value.detach() for name, value in aux.items()}
        after = self.links[step]
        states = tuple(s.detach() for s in after.state_next)
        return losses.detach(), told, grad.detach(), after.theta_next.detach(), states


def pull_back(record: Record, last: Tensor, along: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """The adjoint of a recorded walk.

    Args:
        record: Of a walk of K steps, with its points kept.
        last: Cotangent of theta^K, [T, n].
        along: Cotangents v_i of theta^i, [T, n], by i in 0 .. K-1; missing ones are zero.

    Returns:
        Cotangents of theta^0 [T, n] and of the inner update's own parameters [T, e].

    Raises:
        ValueError: the walk kept no points (its fold did not set `records`).
    """
    if not record.keeps:
        raise ValueError("this walk kept no points to go back through; set records=True on the fold that needs them")
    theta_bar = last
    _, state = record.points[max(record.points)]
    state_bar: State = tuple(torch.zeros_like(s) for s in state)
    stop = record.steps
    for start in sorted(record.points, reverse=True):
        points = _recompute(record, start, stop)
        for i in reversed(range(start, stop)):
            if i in record.links:
                theta_bar, state_bar = record.links.pop(i).back(theta_bar, state_bar)
            else:
                theta_bar, state_bar = _step_back(record, i, *points[i - start], theta_bar, state_bar)
            del points[i - start :]
            if i in along:
                theta_bar = theta_bar + along[i]
        stop = start
    return _start_back(record, theta_bar, state_bar)


def _recompute(record: Record, start: int, stop: int) -> list[tuple[Tensor, State]]:
    """The points from start on whose steps left no graph, computed again from the first; the last ones leave theirs."""
    stop = next((i for i in range(start, stop) if i in record.links), stop)
    theta, state = record.points[start]
    points, room = [(theta, state)], not record.links
    for i in range(start, stop):
        if room and record.links_up(i, stop):
            _, _, _, theta, state = record.link(i, theta, state, record.tasks.sample(theta, i))
        elif i + 1 < stop:
            _, _, grad = loss_and_gradient(record.tasks.loss, theta, record.tasks.sample(theta, i), record.execution)
            with torch.no_grad():
                theta, state = record.optimizer.update(state, grad, theta, i)
        points.append((theta, state))
    return points


def _step_back(
    record: Record, i: int, theta: Tensor, state: State, theta_bar: Tensor, state_bar: State
) -> tuple[Tensor, State]:
    """Cotangents before step i from those after it; sequential execution holds one task's graph at a time."""
    batch = record.tasks.sample(theta, i)
    if record.execution == "batched":
        return _link(record, i, theta, state, batch)[-1].back(theta_bar, state_bar)
    rows = []
    for t in range(len(theta)):
        own = slice(t, t + 1)
        states, bars = tuple(s[own] for s in state), tuple(s[own] for s in state_bar)
        rows.append(_link(record, i, theta[own], states, tasks_from(batch, t, t + 1))[-1].back(theta_bar[own], bars))
    return torch.cat([r[0] for r in rows]), tuple(torch.cat(parts) for parts in zip(*[r[1] for r in rows], strict=True))


def _link(
    record: Record, i: int, theta: Tensor, state: State, batch: Any
) -> tuple[Tensor, dict[str, Tensor], Tensor, Link]:
    """Step i with its graph: loss, what it recorded, gradient, and the link."""
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        state = tuple(s.detach().requires_grad_() for s in state)
        losses, aux = evaluate(record.tasks.loss, theta, batch, record.execution)
        (grad,) = torch.autograd.grad(losses.sum(), theta, create_graph=True)
        theta_next, state_next = record.optimizer.update(state, grad, theta, i)
    return losses, aux, grad, Link(theta, state, theta_next, state_next)


def _start_back(record: Record, theta_bar: Tensor, state_bar: State) -> tuple[Tensor, Tensor]:
    """Through the optimizer's first state, which may depend on theta^0 and on the update's own parameters."""
    with torch.enable_grad():
        theta, extra = record.theta0.detach().requires_grad_(), record.extra.detach().requires_grad_()
        pairs = zip(record.optimizer.init(theta, extra), state_bar, strict=True)
        dependent = [(s, bar) for s, bar in pairs if s.requires_grad]
        if not dependent:
            return theta_bar, torch.zeros_like(extra)
        states, bars = [s for s, _ in dependent], [bar for _, bar in dependent]
        more = torch.autograd.grad(states, (theta, extra), bars, allow_unused=True, materialize_grads=True)
    return theta_bar + more[0], more[1]
