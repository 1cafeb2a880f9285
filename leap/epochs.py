"""The order in which a task's images come: every image once an epoch, in an order of its own each time."""

from __future__ import annotations

import torch
from torch import Tensor

from leap.randomness import generator


class Order:
    """A stream of batches over `count` images, a batch a step; batches go on over the ends of epochs.

    Any step can be asked for again. What is kept are the orders of the last two epochs asked for.

    Args:
        count: Images.
        size: Images a batch.
        seed, stream: Name the randomness of the orders, as in `leap.randomness.generator`; an epoch's number is added.
        device: Where positions are wanted; an epoch's order is sent there once.

    Example:
        >>> order = Order(5, 2, 0, "epoch")     # five images, two a batch, seed 0
        >>> torch.cat([order.batch(step) for step in range(5)]).bincount()   # ten images of two epochs
        tensor([2, 2, 2, 2, 2])
    """

    def __init__(
        self, count: int, size: int, seed: int, *stream: int | str, device: torch.device | str = "cpu"
    ) -> None:
        self._count, self._size, self._seed, self._stream, self._device = count, size, seed, stream, device
        self._epochs: dict[int, Tensor] = {}

    def batch(self, step: int) -> Tensor:
        """Positions [size] of the images of a step."""
        begin, end = step * self._size, (step + 1) * self._size
        first, last = begin // self._count, (end - 1) // self._count
        orders = torch.cat([self._epoch(epoch) for epoch in range(first, last + 1)])
        return orders[begin - first * self._count : end - first * self._count]

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            self._epochs = {e: order for e, order in self._epochs.items() if e == epoch - 1}
            drawn = torch.randperm(self._count, generator=generator(self._seed, *self._stream, epoch))
            self._epochs[epoch] = drawn.to(self._device)
        return self._epochs[epoch]
