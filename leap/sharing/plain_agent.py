"""The network of initialization.safetensors in plain torch: an actor-critic on pictures."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = {
    "mnih2013": ((16, 8, 4, 0), (32, 4, 2, 0)),
    "nature": ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)),
    "small": ((16, 3, 2, 1), (32, 3, 2, 1), (32, 3, 2, 1)),
}
"""Filters, kernel, stride and padding of each convolution, by the network's name."""
WIDTHS = {"mnih2013": 256, "nature": 512, "small": 128}
"""Width of the dense layer behind them."""


class Head(nn.Module):
    """Logits of the actions and a value, each linear in the features."""

    def __init__(self, width: int, actions: int) -> None:
        super().__init__()
        self.policy = nn.Linear(width, actions)
        self.value = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, actions] and values [B] of features [B, width]."""
        return self.policy(features), self.value(features).squeeze(-1)


class Agent(nn.Module):
    """Convolutions, a dense layer, and a head of a policy and a value; `shape` is an observation's [C, H, W]."""

    def __init__(self, shape: tuple[int, int, int], actions: int, network: str) -> None:
        super().__init__()
        channels, height, width = shape
        convs = []
        for filters, kernel, stride, padding in CONVOLUTIONS[network]:
            convs.append(nn.Conv2d(channels, filters, kernel, stride, padding))
            height, width = (1 + (side + 2 * padding - kernel) // stride for side in (height, width))
            channels = filters
        self.convs = nn.ModuleList(convs)
        self.dense = nn.Linear(channels * height * width, WIDTHS[network])
        self.head = Head(WIDTHS[network], actions)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, actions] and values [B] of observations, bytes [B, C, H, W]."""
        x = obs.to(self.dense.weight.dtype) / 255
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.head(F.relu(self.dense(x.flatten(1))))
