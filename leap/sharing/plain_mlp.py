"""The network of initialization.safetensors in plain torch: fully connected layers from one input to one output."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Fully connected layers with rectifiers."""

    def __init__(self, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = (1, *hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, 1] of inputs [B, 1]."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x)
