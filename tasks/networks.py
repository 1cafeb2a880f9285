"""The networks of the built-in families by kind and arguments, made without the data that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from envs.tiny import SHAPE
from leap.sharing.plain_point import Point
from tasks.agents import Agent
from tasks.drawings import SIZE
from tasks.models import MLP, Conv4, Encoder
from tasks.pictures import SIDE

KINDS: Mapping[str, type[nn.Module]] = {"conv4": Conv4, "encoder": Encoder, "mlp": MLP, "agent": Agent, "point": Point}
"""Classes of networks; `point` is the vector that a quadratic bowl is a function of."""
DRAWING = {"channels": 1, "size": SIZE}
"""What alphabets show."""
PICTURE = {"channels": 3, "size": SIDE}
"""What vision data sets show."""
TINY = SHAPE
"""What tiny games show."""


class Network(NamedTuple):
    """A network in words: what `KINDS` calls it, and the arguments of its class, ready for JSON."""

    kind: str
    arguments: Mapping[str, Any]

    def build(self) -> nn.Module:
        """The network, with torch's own random parameters.

        Example:
            >>> sorted(Network("mlp", {"hidden": [3]}).build().state_dict())
            ['head.bias', 'head.weight', 'layers.0.bias', 'layers.0.weight']
        """
        return KINDS[self.kind](**{name: _plain(value) for name, value in self.arguments.items()})

    def told(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {"kind": self.kind, "arguments": dict(self.arguments)}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
