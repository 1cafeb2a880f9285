"""What the network computed while it acted, for the loss of the same roll-out at the same parameters.

An actor-critic acts with the parameters at which it then takes the gradient, so what its layers put out is known when
the loss is asked for, and a third of the gradient's time need not be spent again. The loss stays a function of
parameters and roll-out: what is known is taken only where both are the very tensors that were acted with, and
everything else is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leap import native
from tasks.screens import rectified


class _Point(NamedTuple):
    """A tensor as it was."""

    tensor: Tensor
    version: int  # torch counts what is written into a tensor

    @classmethod
    def of(cls, tensor: Tensor) -> _Point:
        return cls(tensor, tensor._version)

    def stands_in(self, other: Tensor) -> bool:
        """Whether the other is this very memory, with nothing written into it since."""
        return self.tensor._version == self.version and bool(self.tensor.is_set_to(other.detach()))


class Acted:
    """The layers' outputs of one roll-out of T games, and where they hold.

    Args:
        games: T.
        unroll: L, agent steps of the roll-out.

    Attributes:
        used: Whether a loss took them.

    Example:
        >>> theta, obs = torch.zeros(1, 2), torch.zeros(1, 3, 4, dtype=torch.uint8)
        >>> acted = Acted(games=1, unroll=2)
        >>> for step in (1.0, -1.0):
        ...     found = acted.rectifier(0, int(step < 0))(torch.full((4, 5), step))
        >>> acted.hold(theta, obs)
        >>> [layer.sum(dim=1) for layer in acted.known(theta[0], obs[0])]
        [tensor([5., 5., 5., 5., 0., 0., 0., 0.])]
        >>> acted.known(theta[0].clone(), obs[0]) is None
        True
    """

    def __init__(self, games: int, unroll: int) -> None:
        self.used = False
        self._unroll = unroll
        self._layers: list[list[Tensor]] = [[] for _ in range(games)]  # by game, [L E, ...] each
        self._points: list[tuple[_Point, _Point]] = []

    def rectifier(self, game: int, step: int) -> Callable[[Tensor], Tensor]:
        """Rectifies what the layers of a game compute at an agent step, one after another, into the room kept here."""
        layers, places = self._layers[game], itertools.count()

        def rectify(x: Tensor) -> Tensor:
            if (place := next(places)) == len(layers):
                layers.append(_room(x, self._unroll))
            return rectified(x, layers[place][step * len(x) : (step + 1) * len(x)])

        return rectify

    def hold(self, theta: Tensor, obs: Tensor) -> None:
        """The roll-out is over: theta [T, n] and its observations [T, L + 1, ...]."""
        self._points = [(_Point.of(own), _Point.of(seen)) for own, seen in zip(theta, obs, strict=True)]

    def known(self, theta: Tensor, obs: Tensor) -> Sequence[Tensor] | None:
        """The layers' outputs [L E, ...] of one game at theta [n] for its observations, if they are known."""
        if native.unwatched():
            for (point, seen), layers in zip(self._points, self._layers, strict=False):
                if point.stands_in(theta) and seen.stands_in(obs):
                    self.used = True
                    return layers
        return None


def _room(x: Tensor, steps: int) -> Tensor:
    """For so many tensors like this one, in its order in memory."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    return torch.empty((steps * len(x), *x.shape[1:]), dtype=x.dtype, memory_format=order)
