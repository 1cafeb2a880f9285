"""What an agent does before it acts on a CPU, in C (screens.c): so short that torch spends its time on waking threads.

Each function here has its like in torch's calls beside it or where it is used, which serve where C cannot.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from leap import native

Room = Callable[[Sequence[int], torch.dtype], Tensor]
"""Memory for what a layer puts out, by shape and type; in the order `channels_last` where it has four dimensions."""
VECTOR = 16  # `encode` takes filters by so many
_SOURCE = Path(__file__).with_name("screens.c")


class Convolution(NamedTuple):
    """A convolution that a rectifier follows: filters [F, C, k, k] and bias [F]."""

    weight: Tensor
    bias: Tensor
    stride: int
    padding: int

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """What becomes of [B, C, H, W]: [B, F, h, w]."""
        count, _, *sides = shape
        kernel = self.weight.shape[-1]
        return count, len(self.weight), *(1 + (side + 2 * self.padding - kernel) // self.stride for side in sides)


def new(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A `Room` of its own for every layer."""
    order = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=dtype, memory_format=order)


def encoded(pictures: Tensor, layers: Sequence[Convolution], room: Room = new) -> Tensor | None:
    """Bytes [B, C, H, W] through convolutions with a rectifier each, in one pass: the last one's output, in `room`.

    None, and nothing is asked of `room`, where C does not serve: derivatives are wanted, another type or order of
    memory, filters that are no multiple of 16, a processor without vectors of 512 bits.

    Example:
        >>> ones = Convolution(torch.ones(16, 1, 2, 2), torch.zeros(16), stride=2, padding=0)
        >>> found = encoded(torch.ones(1, 1, 4, 4, dtype=torch.uint8), [ones])
        >>> found is None or bool((found == 4).all())
        True
    """
    call = _encoder(layers[0].weight.dtype) if _serves(pictures, layers) else None
    if call is None:
        return None
    through, plan = [pictures], []  # all are held until C has written there
    for own in layers:
        _, *given = through[-1].shape
        through.append(room(own.size(through[-1].shape), own.weight.dtype))
        addresses = (part.data_ptr() for part in (own.weight, own.bias, through[-1]))
        plan.append((*addresses, *given, *own.weight.shape[::3], own.stride, own.padding))
    call("encode", (pictures, torch.tensor(plan)), len(plan), len(pictures))
    return through[-1]


def _serves(pictures: Tensor, layers: Sequence[Convolution]) -> bool:
    if not (native.unwatched() and pictures.is_cpu and pictures.dtype == torch.uint8 and pictures.is_contiguous()):
        return False
    dtype, wanted, shape = layers[0].weight.dtype, torch.is_grad_enabled(), tuple(pictures.shape)
    for own in layers:
        for part in own[:2]:
            if not (part.is_cpu and part.dtype == dtype and part.is_contiguous()) or (wanted and part.requires_grad):
                return False
            if forward_ad.unpack_dual(part).tangent is not None:
                return False
        filters, *window = own.weight.shape
        if filters % VECTOR or len(own.bias) != filters or window != [shape[1], window[-1], window[-1]]:
            return False
        shape = own.size(shape)
    return min(shape) > 0


@functools.cache
def _encoder(dtype: torch.dtype) -> native.Functions | None:
    if dtype not in native.KINDS:
        return None
    found = native.library(_SOURCE, *native.KINDS[dtype])
    return native.Functions(found, {"encode": (2, 2)}) if found is not None and found.worthwhile() else None


def channels_last(pictures: Tensor, dtype: torch.dtype) -> Tensor:
    """Pictures [B, C, H, W] as numbers of another type, in torch's order `channels_last`.

    A pixel's channels lie side by side then, which suits convolutions on a CPU. Bytes take a fifth of the time of
    torch's two passes. No derivatives.

    Example:
        >>> found = channels_last(torch.tensor([[[[1, 2]], [[3, 4]]]], dtype=torch.uint8), torch.float32)
        >>> found.flatten().tolist(), found.stride()
        ([1.0, 2.0, 3.0, 4.0], (4, 1, 4, 2))
    """
    bytes_ = pictures.dtype == torch.uint8 and pictures.is_cpu and pictures.dim() == 4 and pictures.is_contiguous()
    call = _functions(dtype) if bytes_ and native.unwatched() else None
    if call is None:
        return pictures.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).to(dtype)
    found = new(pictures.shape, dtype)
    call("lay", (pictures, found), *pictures.shape[:2], pictures.shape[2:].numel())
    return found


def rectified(x: Tensor, out: Tensor) -> Tensor:
    """max(x, 0), written into `out` and returned; NaN stays. No derivatives.

    Example:
        >>> rectified(torch.tensor([-1.0, 2.0]), torch.empty(2))
        tensor([0., 2.])
    """
    alike = x.is_cpu and out.is_cpu and x.dtype == out.dtype and x.shape == out.shape and x.stride() == out.stride()
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    call = _functions(x.dtype) if alike and dense and native.unwatched() else None
    if call is None:
        return torch.clamp_min(x, 0, out=out)
    call("rectify", (x, out), x.numel())
    return out


@functools.cache
def _functions(dtype: torch.dtype) -> native.Functions | None:
    if dtype not in native.KINDS:
        return None
    return native.functions(_SOURCE, dtype, {"lay": (2, 3), "rectify": (2, 1)})
