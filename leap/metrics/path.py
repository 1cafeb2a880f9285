"""How long the walk from an initialization to a task is: gradient-path length and energy, as folds of the one walk."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from leap.segments import Segment, over_segments, squared_length
from leap.walk import Fold


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
    lengthen the
    path: compare paths of one protocol, or drop the coordinate.

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


def path_energy(*, loss_coordinate: bool = True, last_segment: bool = True) -> Fold:
    r"""Energy of the gradient path: `path_length` with p = 2, squares summed and no root taken.

    .. math:: d_2(\theta^0) = \sum_{i=0}^{K-1} \| \gamma^{i+1} - \gamma^i \|_2^2

    Args, returns and variant: as `path_length`; the unit is squared. By Cauchy-Schwarz `d_1^2 <= K d_2`.
    """
    return _path(lambda square: square, loss_coordinate, last_segment)


def _path(power: Callable[[Tensor], Tensor], loss_coordinate: bool, last_segment: bool) -> Fold:
    def add(total: Tensor, segment: Segment) -> Tensor:
        return total + power(squared_length(segment, loss_coordinate))

    return over_segments(
        lambda theta0: theta0.new_zeros(theta0.shape[:-1]), add, lambda total, end: total, last_segment=last_segment
    )
