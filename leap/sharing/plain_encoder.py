"""The network of initialization.safetensors in plain torch: convolutions of stride 2, a pooling and a linear head."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F


class Encoder(nn.Module):
    """3x3 convolutions of stride 2 with rectifiers, 2x2 average-pooling, and a linear head; nothing is normalized."""

    def __init__(self, classes: int, widths: tuple[int, ...], channels: int, size: int) -> None:
        super().__init__()
        pairs = itertools.pairwise((channels, *widths))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        for _ in widths:
            size = (size + 1) // 2
        self.head = nn.Linear(widths[-1] * (size // 2) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, channels, size, size]."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.head(F.avg_pool2d(x, 2).flatten(1))
