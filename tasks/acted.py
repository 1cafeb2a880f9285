"""What the network computed while it acted, for the loss of the same roll-out at the same parameters.

An actor-critic acts with the parameters at which it then takes the gradient, so what its layers put out is known when
the loss is asked for, and a third of the gradient's time need not be spent again. The loss stays a function of
parameters and roll-out: what is known is taken only where both are the very tensors that were acted with, and
everything else is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leap import native
from tasks.screens import Room, new


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
        ...     found = acted.room(0, int(step < 0))((4, 5), torch.float32).fill_(step)
        >>> acted.hold(theta, obs)
        >>> [layer.sum(dim=1) for layer in acted.known(theta[0], obs[0])]
        [tensor([ 5.,  5.,  5.,  5., -5., -5., -5., -5.])]
        >>> acted.known(theta[0].clone(), obs[0]) is None
        True
    """

    def __init__(self, games: int, unroll: int) -> None:
        self.used = False
        self._unroll = unroll
        self._layers: list[list[Tensor]] = [[] for _ in range(games)]  # by game, [L E, ...] each
        self._points: list[tuple[_Point, _Point]] = []

    def room(self, game: int, step: int) -> Room:
        """Where the layers of a game, one after another, put what they compute at an agent step."""
        layers, places = self._layers[game], itertools.count()

        def room(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
            count, *own = shape
            if (place := next(places)) == len(layers):
                layers.append(new((self._unroll * count, *own), dtype))
            return layers[place][step * count : (step + 1) * count]

        return room

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
