"""Networks of actor-critics: convolutions, a dense layer, and a `head` of a policy and a value.

All that stands before the head is the encoder, the dense layer included: the paper does not say on which side of the
line it falls, and without it the heads would be most of the network. Observations are bytes [B, C, H, W] and are scaled
to [0, 1] inside.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leap.errors import UsageError
from tasks.screens import Convolution, Room, channels_last, encoded, new, rectified


class Conv(NamedTuple):
    """A convolution followed by a rectifier."""

    filters: int
    kernel: int
    stride: int
    padding: int = 0


class Design(NamedTuple):
    """Convolutions and the width of the dense layer behind them."""

    convs: tuple[Conv, ...]
    width: int


NETWORKS = {
    "mnih2013": Design((Conv(16, 8, 4), Conv(32, 4, 2)), 256),
    "nature": Design((Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3, 1)), 512),
    "small": Design((Conv(16, 3, 2, 1), Conv(32, 3, 2, 1), Conv(32, 3, 2, 1)), 128),
}
"""`mnih2013`: `Mnih et al. 2013 <https://arxiv.org/abs/1312.5602>`_, the network of Leap's experiment, for 84 x 84;
`nature`: Mnih et al. 2015, for 84 x 84; `small`: of neither, for pictures of 16 x 16 to 42 x 42."""


class Head(nn.Module):
    """Logits of the actions and a value, each linear in the features."""

    def __init__(self, width: int, actions: int) -> None:
        super().__init__()
        self.policy = nn.Linear(width, actions)
        self.value = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, A] and values [B] of features [B, width]."""
        return self.policy(features), self.value(features).squeeze(-1)


class Agent(nn.Module):
    """An actor-critic on pictures.

    Args:
        shape: Channels, height and width of an observation.
        actions: Width of the policy.
        network: A name of `NETWORKS`.

    Raises:
        UsageError: no such network, or one whose convolutions leave nothing of so small a picture.

    Example:
        >>> agent = Agent((3, 84, 84), actions=6)
        >>> logits, values = agent(torch.zeros(2, 3, 84, 84, dtype=torch.uint8))
        >>> logits.shape, values.shape
        (torch.Size([2, 6]), torch.Size([2]))
    """

    def __init__(self, shape: tuple[int, int, int], actions: int, network: str = "mnih2013") -> None:
        super().__init__()
        design = named_design(network)
        channels, height, width = shape
        convs = []
        for conv in design.convs:
            convs.append(nn.Conv2d(channels, conv.filters, conv.kernel, conv.stride, conv.padding))
            height, width = (1 + (side + 2 * conv.padding - conv.kernel) // conv.stride for side in (height, width))
            channels = conv.filters
        if min(height, width) < 1:
            raise UsageError(
                f"the network {network!r} leaves nothing of a picture of {shape[1]} x {shape[2]}; choose 'small', or "
                "larger pictures"
            )
        self.convs = nn.ModuleList(convs)
        self.dense = nn.Linear(channels * height * width, design.width)
        self.head = Head(design.width, actions)

    def forward(
        self, obs: Tensor, room: Room | None = None, known: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, A] and values [B] of observations, uint8 [B, C, H, W]; the rest as in `features`."""
        return self.head(self.features(obs, room, known))

    def features(self, obs: Tensor, room: Room | None = None, known: Sequence[Tensor] | None = None) -> Tensor:
        """What the head sees, [B, width].

        Args:
            obs: Observations, uint8 [B, C, H, W].
            room: Where layers, one after another, put what they compute; without derivatives.
            known: What they put there: layers are not computed again, and have their gradient.
        """
        convs, dense = self._convolutions(), self.dense
        if known is not None:
            x = channels_last(obs, dense.weight.dtype)
            for conv, out in zip(convs, known, strict=False):
                x = _Known.apply(out, x, *conv)
            found: Tensor = _Known.apply(known[-1], x.flatten(1), dense.weight, dense.bias, None, None)
            return found
        encoding = encoded(obs, convs, room or new)
        if encoding is None:
            encoding = self._encoded(obs, convs, room)
        return _rectified(F.linear(encoding.flatten(1), dense.weight, dense.bias), room)

    def _encoded(self, obs: Tensor, convs: Sequence[Convolution], room: Room | None) -> Tensor:
        """`tasks.screens.encoded` by torch."""
        dtype = self.dense.weight.dtype
        # A quarter less time for a gradient on a CPU; without one it is no faster.
        ordered = obs.device.type == "cpu" and (torch.is_grad_enabled() or room is not None)
        x = channels_last(obs, dtype) if ordered else obs.to(dtype)
        for conv in convs:
            x = _rectified(F.conv2d(x, *conv), room)
        return x

    def _convolutions(self) -> list[Convolution]:
        found: list[Convolution] = []
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            # Scaling the weights is the same function for a quarter less time than scaling the pictures.
            weight = conv.weight if found else conv.weight / 255
            found.append(Convolution(weight, conv.bias, conv.stride[0], int(conv.padding[0])))
        return found


def _rectified(x: Tensor, room: Room | None) -> Tensor:
    return F.relu(x) if room is None else rectified(x, room(x.shape, x.dtype))


class _Known(torch.autograd.Function):
    """A convolution, or a dense layer where there is no stride, and the rectifier, where their output is known.

    Has derivatives of any order.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(out, x, weight)
        ctx.steps = stride, padding
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (out, x, weight), (stride, padding) = ctx.saved_tensors, ctx.steps
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        need = ctx.needs_input_grad[1:4]
        if stride is None:
            of_x = grad @ weight if need[0] else None
            return None, of_x, grad.T @ x, grad.sum(dim=0), None, None
        found = torch.ops.aten.convolution_backward(
            grad, x, weight, [len(weight)], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, need
        )
        return None, *found, None, None


def named_design(network: str) -> Design:
    """A network of `NETWORKS`.

    Raises:
        UsageError: no such network.
    """
    if network not in NETWORKS:
        near = difflib.get_close_matches(network, NETWORKS, 1, 0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no network {network!r}.{hint} Known: {sorted(NETWORKS)}")
    return NETWORKS[network]


def initialize(agent: Agent, generator: torch.Generator) -> Agent:
    """Initialize all layers from a generator: orthogonal weights and biases of zero, in place.

    The gain is sqrt 2 before the head (a rectifier follows), 0.01 for the policy (nearly uniform at first) and 1 for
    the value, as in Baselines and CleanRL. The papers of these networks do not state theirs.
    """
    for layer in (*agent.convs, agent.dense):
        _orthogonal(layer, math.sqrt(2), generator)
    initialize_head(agent.head, generator)
    return agent


def initialize_head(head: Head, generator: torch.Generator) -> Head:
    """The head's part of `initialize`, in place."""
    _orthogonal(head.policy, 0.01, generator)
    _orthogonal(head.value, 1.0, generator)
    return head


def _orthogonal(layer: nn.Module, gain: float, generator: torch.Generator) -> None:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
