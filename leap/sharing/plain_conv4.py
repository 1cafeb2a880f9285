"""The network of initialization.safetensors in plain torch: four convolution blocks and a linear head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.Module):
    """Batch normalization by the statistics of the images at hand; there are no running averages.

    Given `rows`, the first `rows` images alone make the statistics that normalize all: put a task's training images
    before its test images, and no test image's prediction depends on another's.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Normalize [B, C, H, W]."""
        if rows is None:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True)
        variance, mean = torch.var_mean(x[:rows], dim=(0, 2, 3), correction=0, keepdim=True)
        scale, shift = self.weight[:, None, None], self.bias[:, None, None]
        return (x - mean) * torch.rsqrt(variance + 1e-5) * scale + shift


class Block(nn.Module):
    """3x3 convolution, normalization, rectifier, 2x2 max-pooling."""

    def __init__(self, channels_in: int, channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        if norm == "batch":
            self.norm: nn.Module = BatchNorm(channels)
        else:
            self.norm = nn.GroupNorm(math.gcd(channels, 8), channels) if norm == "group" else nn.Identity()

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """[B, C, H, W] to [B, channels, H // 2, W // 2]."""
        y = self.conv(x)
        y = self.norm(y, rows) if isinstance(self.norm, BatchNorm) else self.norm(y)
        return F.max_pool2d(F.relu(y), 2)


class Conv4(nn.Module):
    """Four blocks and a head. `norm`: `batch` (the batch's own statistics), `group` or `none`."""

    def __init__(self, classes: int, filters: int, channels: int, size: int, norm: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels if i == 0 else filters, filters, norm) for i in range(4))
        self.head = nn.Linear(filters * (size // 16) ** 2, classes)

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Logits [B, classes] of images [B, channels, size, size]; `rows` as in `BatchNorm`."""
        for block in self.blocks:
            x = block(x, rows)
        return self.head(x.flatten(1))
