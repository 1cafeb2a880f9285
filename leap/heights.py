r"""Heights: what f is in gamma = (theta, f(theta)), for tasks whose loss does not say how far a walk has come.

`Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_ measure paths on the graph of the loss, and do not define f
for their actor-critics. Read literally it is the loss of each step there too (`loss`). But an actor-critic's loss is a
surrogate whose gradient is the point: its values are a new sample at every step, so that their differences weigh the
gradients by noise, and by as much as the units of the loss happen to be. The other heights are ours:

- `average`, a moving average of the loss, with weights that shrink by `decay` a step and sum to one:
  a^n = sum_j decay^{n-j} f^j / sum_j decay^{n-j} (Adam's bias correction, so the first average is the first loss).
- `scaled`, the loss in units of its own standard deviation over the walk so far.
- `return`, minus the mean return that the task records, in units of *its* standard deviation over the walk so far.

The gradient that goes with f is always the step's gradient of the loss, in f's units: it estimates the gradient of what
the average estimates as well, and a policy's gradient estimates, up to a factor, that of minus the return (beside it
stand those of the value and the entropy). Neither a running average nor a running deviation is differentiated.

A deviation is that of the points up to the one at which a segment ends, with divisor n - 1. So a game whose losses and
gradients are c times another's has the same loss term, also where a constant is added, and no game's loss drowns
another's. Where the deviation is zero, or what rounding alone would make it, so is the loss term.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from leap.errors import UsageError

HeightName = Literal["loss", "average", "scaled", "return"]
HEIGHTS: tuple[HeightName, ...] = get_args(HeightName)
DECAY = 0.99  # of the average: over some hundred steps
RETURN = "return_mean"  # what `tasks.actor_critic.actor_critic_loss` records


class Point(Protocol):
    """Where a walk stands: a `leap.walk.Step` or its `End`."""

    @property
    def loss(self) -> Tensor:
        """[T]."""

    @property
    def aux(self) -> Mapping[str, Tensor]:
        """What the loss recorded, [T] each."""


class Height(NamedTuple):
    """f along a walk, told point by point.

    Attributes:
        start: `point at theta^0 -> state`.
        climb: `(state, point at theta^{i+1}) -> (state, rise, factor)`: f^{i+1} - f^i [T], and what the gradient of the
            loss is to be multiplied by to be that of f, [T] or None for 1.
    """

    start: Callable[[Point], Any]
    climb: Callable[[Any, Point], tuple[Any, Tensor, Tensor | None]]


def height(name: HeightName, decay: float | None = None) -> Height | None:
    """A height by name; None for `loss`, which needs nothing kept.

    Args:
        name: `loss`, `average`, `scaled` or `return`.
        decay: Of the average, in [0, 1); None: 0.99. With 0 the average is the loss.

    Raises:
        ValueError: another name, a decay out of range, or one where nothing is averaged.
    """
    if name not in HEIGHTS:
        raise ValueError(f"height must be one of {', '.join(HEIGHTS)}, got {name!r}")
    if decay is not None and name != "average":
        raise ValueError(f"height_decay is the average's, got {decay} with height {name!r}; use height 'average'")
    if decay is not None and not 0 <= decay < 1:
        raise ValueError(f"height_decay must be at least 0 and below 1, got {decay}")
    if name == "loss":
        return None
    if name == "average":
        return average(DECAY if decay is None else decay)
    return scaled(_loss) if name == "scaled" else scaled(_minus_return)


def average(decay: float) -> Height:
    r"""The moving average of the loss, as the step it takes at every point.

    .. math:: a^n = a^{n-1} + \frac{1 - \beta}{1 - \beta^{n+1}} (f(\theta^n) - a^{n-1}), \quad a^0 = f(\theta^0)

    Example:
        >>> from leap.walk import Step
        >>> at = lambda loss: Step(None, torch.tensor([loss]), None, None)
        >>> own = average(0.5)
        >>> state, rise, factor = own.climb(own.start(at(3.0)), at(6.0))  # (3 / 2 + 6) / (1 / 2 + 1) - 3
        >>> rise, factor
        (tensor([2.]), None)
    """

    def start(point: Point) -> tuple[Tensor, int]:
        return point.loss, 1

    def climb(state: tuple[Tensor, int], point: Point) -> tuple[tuple[Tensor, int], Tensor, None]:
        mean, count = state[0], state[1] + 1
        rise = (point.loss - mean) * ((1 - decay) / (1 - decay**count))
        return (mean + rise, count), rise, None

    return Height(start, climb)


def scaled(value: Callable[[Point], Tensor]) -> Height:
    r"""A value in units of its standard deviation so far, by Welford's recursion.

    .. math:: f^{i+1} - f^i = \frac{v^{i+1} - v^i}{s}, \quad s^2 = \frac{1}{i+1} \sum_{j=0}^{i+1} (v^j - \bar v)^2

    Args:
        value: v [T] at a point.

    Example:
        >>> from leap.walk import Step
        >>> at = lambda loss: Step(None, torch.tensor(loss), None, None)
        >>> own = scaled(lambda point: point.loss)
        >>> state, rise, factor = own.climb(own.start(at([3.0, 7.0])), at([5.0, 7.0]))
        >>> rise, factor                                     # the second task's loss does not vary
        (tensor([1.4142, 0.0000]), tensor([0.7071, 0.0000]))
    """

    def start(point: Point) -> tuple[Tensor, Tensor, Tensor, int]:
        first = value(point)
        return first, first, torch.zeros_like(first), 1

    def climb(state: Any, point: Point) -> tuple[tuple[Tensor, Tensor, Tensor, int], Tensor, Tensor]:
        before, mean, squares, count = state
        now, count = value(point), count + 1
        apart = now - mean
        mean = mean + apart / count
        squares = squares + apart * (now - mean)
        deviation = (squares / (count - 1)).sqrt()
        number = torch.finfo(deviation.dtype)
        flat = deviation <= mean.abs() * number.eps + number.tiny
        factor = deviation.reciprocal().masked_fill(flat, 0.0)
        return (now, mean, squares, count), (now - before) * factor, factor

    return Height(start, climb)


def _loss(point: Point) -> Tensor:
    return point.loss


def _minus_return(point: Point) -> Tensor:
    if RETURN not in point.aux:
        raise UsageError(
            f"height 'return' needs tasks that record {RETURN!r}, as actor-critics do (atari, tiny_games); "
            f"they record {', '.join(point.aux) or 'nothing'}. Use height loss, average or scaled"
        )
    return -point.aux[RETURN]
