"""Passes of an agent that acts on a CPU, in C (screens.c): so short that torch spends its time on waking threads."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from leap import native

_ARGUMENTS = {"lay": (2, 3), "rectify": (2, 1)}  # pointers and whole numbers


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
    found = torch.empty(pictures.shape, dtype=dtype, memory_format=torch.channels_last)
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
    return native.functions(Path(__file__).with_name("screens.c"), dtype, _ARGUMENTS)
