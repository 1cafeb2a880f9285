"""Random rotation, scaling and translation of images on the device that holds them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Augmentation(NamedTuple):
    """Ranges of the random affine map; the defaults are the paper's (appendix D)."""

    rotation: float = 180.0  # degrees: angles in [-rotation, rotation)
    scale: tuple[float, float] = (0.8, 1.2)
    translation: float = 0.2  # of the image's size, in each direction


def draw_affine(count: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """`count` random maps from output to input coordinates, [count, 2, 3], on the CPU.

    An image rotated by a, scaled by s and moved by t is read at `R(-a) (p - t) / s`, so that ink grows with s.
    """
    angle, size, x, y = torch.rand(4, count, generator=generator)
    angle = (2 * angle - 1) * math.radians(augmentation.rotation)
    low, high = augmentation.scale
    size = low + (high - low) * size
    cos, sin = angle.cos() / size, angle.sin() / size
    move = torch.stack([2 * x - 1, 2 * y - 1], dim=-1) * (2 * augmentation.translation)  # coordinates run from -1 to 1
    linear = torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2))
    return torch.cat([linear, -linear @ move.unsqueeze(-1)], dim=-1)


def apply_affine(images: Tensor, maps: Tensor) -> Tensor:
    """Images [B, C, H, W] read through maps [B, 2, 3], bilinear; what lies outside the page is blank (zero)."""
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
