"""The parameters of initialization.safetensors in plain torch: a point, whose height a task's bowl tells."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Point(nn.Module):
    """A vector of parameters that stands for itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(dim))

    def forward(self) -> Tensor:
        """The point, [dim]."""
        return self.theta
