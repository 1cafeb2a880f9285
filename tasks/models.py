"""Networks for images and regression: no running statistics, no module registered twice, `head` the output layer."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks import fused

Norm = Literal["batch", "group", "none"]


class BatchNorm(nn.Module):
    """Batch normalization by the statistics of the images at hand, with nothing remembered from batch to batch.

    Given `rows`, the first `rows` images alone make the statistics that normalize all: statistics of a task's training
    images can so be applied to its test images, in one pass and without state.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Normalize [B, C, H, W]."""
        if rows is None:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True)
        variance, mean = torch.var_mean(x[:rows], dim=(0, 2, 3), correction=0)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, training=False)


class GroupNorm(nn.GroupNorm):
    """Group normalization behind the same call; an image's statistics are its own, so `rows` does not matter."""

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Normalize [B, C, H, W]; of columns abreast each in its own groups."""
        groups = self.num_groups * (x.shape[1] // self.num_channels)
        return F.group_norm(x, groups, self.weight, self.bias, self.eps)


class NoNorm(nn.Module):
    """The identity behind the same call."""

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Return [B, C, H, W] as it is."""
        return x


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return BatchNorm(channels)
    return GroupNorm(math.gcd(channels, 8), channels) if kind == "group" else NoNorm()


class Block(nn.Module):
    """3x3 convolution, normalization, rectifier, 2x2 max-pooling: the paper's order.

    The rectifier stands behind the pooling, which gives the same numbers (both are monotone) for a quarter of the work.
    With batch normalization on a CPU all four are one block of `tasks.fused`: the same function in half the time.
    """

    def __init__(self, channels_in: int, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm = _norm(norm, channels)

    def forward(self, x: Tensor, rows: int | None = None, plus: Tensor | None = None) -> Tensor:
        """[B, C, H, W] to [B, filters, H // 2, W // 2]; `plus` joins the convolution's output, [B, filters, H, W].

        Parameters of several blocks, joined along their first axis, make blocks side by side (`leap.columns`).
        """
        conv, norm = self.conv, self.norm
        if isinstance(norm, BatchNorm) and conv.bias is not None and fused.applies(x, conv.weight, plus):
            return fused.block(x, conv.weight, conv.bias, norm.weight, norm.bias, rows, plus)
        columns = x.shape[1] // conv.weight.shape[1]
        y = conv(x) if columns == 1 else F.conv2d(x, conv.weight, conv.bias, padding=1, groups=columns)
        return F.relu(F.max_pool2d(norm(y if plus is None else y + plus, rows), 2))


class Conv4(nn.Module):
    """Four convolution blocks and a linear head, `Vinyals et al. 2016 <https://arxiv.org/abs/1606.04080>`_.

    Args:
        classes: Width of the head.
        filters: Channels of every block; 64 in the literature.
        channels: Channels of the images.
        size: Height and width of the images, at least 16.
        norm: `batch` (statistics of the batch), `group`, or `none`.
    """

    def __init__(
        self, classes: int, filters: int = 64, channels: int = 1, size: int = 28, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        if size < 16:
            raise ValueError(f"four poolings need images of at least 16 x 16, got {size} x {size}")
        self.blocks = nn.ModuleList(Block(channels if i == 0 else filters, filters, norm) for i in range(4))
        self.head = nn.Linear(filters * (size // 16) ** 2, classes)

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Logits [B, classes] of images [B, C, H, W]; `rows` as in `BatchNorm`."""
        return self.head(self.features(x, rows))

    def features(self, x: Tensor, rows: int | None = None) -> Tensor:
        """What the head sees, [B, k]."""
        for block in self.blocks:
            x = block(x, rows)
        return x.flatten(1)


class Encoder(nn.Module):
    """3x3 convolutions of stride 2 with rectifiers, 2x2 average-pooling, and a linear head: the network for measuring.

    It normalizes nothing, so a sample's features are its own and curvature is a sum over samples; it is small (23,584
    parameters in the trunk by default), so that curvature is affordable.

    Args:
        classes: Width of the head.
        widths: Channels of the convolutions.
        channels: Channels of the images.
        size: Height and width of the images, at least 2 to the power of `len(widths) + 1`.
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = (16, 32, 64), channels: int = 3, size: int = 32) -> None:
        super().__init__()
        if not widths or size < 2 ** (len(widths) + 1):
            raise ValueError(
                f"{len(widths)} convolutions of stride 2 and a pooling need at least one convolution and images of "
                f"{2 ** (len(widths) + 1)} x {2 ** (len(widths) + 1)}, got {size} x {size}; give other widths"
            )
        pairs = itertools.pairwise((channels, *widths))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        for _ in widths:
            size = (size + 1) // 2
        self.head = nn.Linear(widths[-1] * (size // 2) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, C, H, W]."""
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, [B, k]."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return F.avg_pool2d(x, 2).flatten(1)


class MLP(nn.Module):
    """Fully connected layers with rectifiers, from one input to one output."""

    def __init__(self, hidden: tuple[int, ...] = (40, 40)) -> None:
        super().__init__()
        widths = (1, *hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, 1] of inputs [B, 1]."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x)


def headless(module: nn.Module) -> nn.Module:
    """A copy of a network whose output is what its `head` would see.

    Its other parameters keep their names, so `layout.without_head().unflatten` gives all of them.

    Example:
        >>> module, images = Encoder(5), torch.rand(2, 3, 32, 32)
        >>> torch.equal(headless(module)(images), module.features(images))
        True
    """
    bare = copy.deepcopy(module)
    bare.head = nn.Identity()
    return bare


def initialize(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Initialize linear and convolution layers as torch does, from a generator instead of global state.

    Weights and biases are uniform within 1 / sqrt(fan-in); normalizations start as the identity. In place.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)
    return module
