"""3x3 convolutions with fewer multiplications, as loops in C (winograd.c): F(2x2, 3x3).

`Lavin and Gray 2016 <https://arxiv.org/abs/1509.09308>`_. In float32 its rounding errors are those of a direct
convolution to within a factor of four, by test.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from leap import native

VECTOR = 16  # winograd.c takes channels by so many
MOST = 256  # channels whose blocks stay in a core's own cache
_GROUPS = 4  # as in winograd.c
_ARGUMENTS = {"convolve": (4, 6), "filters": (4, 5)}


class Winograd:
    """A convolution and its two transposes; images [B, I or O, H, W] channels last, filters [O, I, 3, 3] contiguous."""

    def __init__(self, functions: native.Functions) -> None:
        self._call = functions

    def image(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution."""
        return self._convolve(x, weight, len(weight), turned=False)

    def of_image(self, grad: Tensor, weight: Tensor) -> Tensor:
        """Gradient of the image."""
        return self._convolve(grad, weight, weight.shape[1], turned=True)

    def of_filters(self, grad: Tensor, x: Tensor) -> Tensor:
        """Gradient of the filters."""
        count, inner, height, width = x.shape
        outer = grad.shape[1]
        found, parts = x.new_empty(outer, inner, 3, 3), x.new_empty(_GROUPS, 16, inner, outer)
        self._call("filters", (x, grad, parts, found), count, height, width, inner, outer)
        return found

    def _convolve(self, x: Tensor, weight: Tensor, outer: int, *, turned: bool) -> Tensor:
        count, inner, height, width = x.shape
        found = torch.empty((count, outer, height, width), dtype=x.dtype, memory_format=torch.channels_last)
        transformed = x.new_empty(16, inner, outer)
        self._call("convolve", (x, weight, transformed, found), turned, count, height, width, inner, outer)
        return found


def winograd(x: Tensor, weight: Tensor) -> Winograd | None:
    """What convolves these, where it can be had and is quicker: on processors with vectors of 512 bits."""
    usual = (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in native.KINDS
        and x.numel() > 0
        and all(side % VECTOR == 0 and side <= MOST for side in weight.shape[:2])
        and native.unwatched()
    )
    return _winograd(x.dtype) if usual else None


@functools.cache
def _winograd(dtype: torch.dtype) -> Winograd | None:
    found = native.library(Path(__file__).with_name("winograd.c"), *native.KINDS[dtype])
    return Winograd(native.Functions(found, _ARGUMENTS)) if found is not None and found.worthwhile() else None
