"""The passes over memory that `tasks.fused` is made of as loops in C (kernels.c), and who takes them."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from leap import native
from tasks.kernels import TORCH, Gradients, Kernels, Moments, Patches, Peaks, convolved

VECTOR = 16  # kernels.c takes channels by so many


def kernels(x: Tensor, *channels: Tensor) -> Kernels:
    """Those in C where they can be had and take such tensors, torch's otherwise.

    Where something watches torch's calls (a counter of operations, say), they are torch's too.

    Args:
        x: The block's images.
        channels: What it has for each of the channels it gives, [C] each.
    """
    usual = (
        x.numel() > 0  # or nothing is there to be read
        and min(x.shape[2:]) > 1
        and len(channels[0]) % VECTOR == 0
        and all(own.is_contiguous() and own.dtype == x.dtype and own.device == x.device for own in channels)
        and native.unwatched()
    )
    return (_native(x.dtype) or TORCH) if usual else TORCH


@functools.cache
def _native(dtype: torch.dtype) -> Kernels | None:
    found = native.functions(Path(__file__).with_name("kernels.c"), dtype, _ARGUMENTS)
    return None if found is None else _Native(found)


# Of each function of kernels.c: pointers and whole numbers.
_ARGUMENTS = {
    "pool": (6, 5), "take": (3, 4), "spread": (7, 5), "sums": (4, 3), "finish": (7, 3), "finish_grad": (11, 3),
    "patch_moments": (3, 4), "peak": (9, 5), "peak_take": (4, 5), "peak_filters": (9, 6),
}  # fmt: skip


class _Native:
    """By kernels.c; a place is a corner's number, 0 to 3, in a byte. Its methods are described by `Kernels`."""

    def __init__(self, functions: native.Functions) -> None:
        self._call = functions

    def pool(self, y: Tensor, scale: Tensor, rows: int) -> Peaks:
        found = _peaks(y, y.shape)
        self._call("pool", (y, scale, *found), rows, *_sizes(y))
        return found

    def take(self, y: Tensor, places: Tensor) -> Tensor:
        taken = _quarter(y, y.shape)
        self._call("take", (y, places, taken), *_sizes(y))
        return taken

    def spread(self, quarter: Tensor, places: Tensor, y: Tensor, moments: Moments | None) -> Tensor:
        found = torch.empty_like(y, memory_format=torch.channels_last)
        *own, rows = moments or (y, y, y, 0)  # of no rows they are not read
        given = [part.contiguous() for part in own] if rows else own
        self._call("spread", (quarter, places, y, *given, found), rows, *_sizes(y))
        return found

    def sums(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        count, height, width, channels = _sizes(a)
        alone, both = _channels(a, channels), _channels(a, channels)
        self._call("sums", (a, b, alone, both), count, height * width, channels)
        return alone, both

    def finish(self, peaks: Peaks, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        count, height, width, channels = _sizes(peaks.best)
        out, inverse = torch.empty_like(peaks.best), _channels(scale, channels)
        given = (peaks.best, peaks.mean, peaks.variance, scale, shift, out, inverse)
        self._call("finish", given, count, height * width, channels)
        return out, inverse

    def finish_grad(
        self, grad: Tensor, out: Tensor, best: Tensor, mean: Tensor, inverse: Tensor, scale: Tensor
    ) -> Gradients:
        count, height, width, channels = _sizes(best)
        found = Gradients(torch.empty_like(best), *(_channels(scale, channels) for _ in range(4)))
        self._call("finish_grad", (grad, out, best, mean, inverse, scale, *found), count, height * width, channels)
        return found

    def patches(self, x: Tensor) -> Patches:
        count, channels, height, width = convolved(x, x.shape[1])
        size = 9 * channels
        found = Patches(torch.empty(size, dtype=torch.float64), torch.empty(size, size, dtype=torch.float64))
        self._call("patch_moments", (x, *found), count, channels, height, width)
        return found

    def peak(self, x: Tensor, filters: Tensor, scale: Tensor, moments: Patches) -> Peaks:
        size = convolved(x, filters.shape[1])
        found = _peaks(x, size)
        self._call("peak", (x, filters, scale, *moments, *found), *_extents(x, size))
        return found

    def peak_take(self, x: Tensor, filters: Tensor, places: Tensor) -> Tensor:
        size = convolved(x, filters.shape[1])
        taken = _quarter(x, size)
        self._call("peak_take", (x, filters, places, taken), *_extents(x, size))
        return taken

    def peak_filters(self, x: Tensor, quarter: Tensor, places: Tensor) -> Tensor:
        return self._peak_filters(x, quarter, places, None)

    def peak_grad(
        self, x: Tensor, filters: Tensor, of_best: Tensor, places: Tensor, moments: Patches, of_mean: Tensor,
        of_variance: Tensor,
    ) -> Tensor:  # fmt: skip
        own = (filters, *moments, of_mean.contiguous(), of_variance.contiguous())
        return self._peak_filters(x, of_best, places, own)

    def _peak_filters(self, x: Tensor, quarter: Tensor, places: Tensor, others: tuple[Tensor, ...] | None) -> Tensor:
        size = convolved(x, quarter.shape[1])
        found = x.new_empty(9 * x.shape[1], size[1])
        given = others or (x,) * 5  # not read then
        self._call("peak_filters", (x, quarter, places, *given, found), others is not None, *_extents(x, size))
        return found


def _sizes(y: Tensor) -> tuple[int, int, int, int]:
    """B, H, W, C."""
    count, channels, height, width = y.shape
    return count, height, width, channels


def _extents(x: Tensor, size: tuple[int, int, int, int]) -> tuple[int, int, int, int, int]:
    """B, c, H, W, C of a convolution."""
    count, channels, height, width = size
    return count, x.shape[1], height, width, channels


def _peaks(like: Tensor, size: tuple[int, ...]) -> Peaks:
    channels = size[1]
    places = _quarter(like, size, torch.uint8)
    return Peaks(_quarter(like, size), places, _channels(like, channels), _channels(like, channels))


def _quarter(like: Tensor, size: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    count, channels, height, width = size
    return torch.empty(
        (count, channels, height // 2, width // 2), dtype=dtype or like.dtype, memory_format=torch.channels_last
    )


def _channels(like: Tensor, channels: int) -> Tensor:
    return torch.empty(channels, dtype=like.dtype)
