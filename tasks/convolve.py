"""A 3x3 convolution all of whose derivatives are convolutions too, in channels-last order, rounded or not.

<g, conv(x, w)> is linear in each of x, w and g, and its three partial derivatives are the three functions here. Torch's
own second derivative takes slower ways.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.winograd import Winograd, winograd


def convolve(x: Tensor, weight: Tensor, halved: bool) -> Tensor:
    """3x3, padded to the same size: [B, c, H, W], [C, c, 3, 3] to [B, C, H, W], in the type of x.

    Both factors are rounded to bfloat16 where `halved`, here and in all derivatives. Otherwise the convolution is that
    of `tasks.winograd`, where it serves, or torch's.
    """
    by = None if halved else winograd(x, weight)
    # laid out once, for all derivatives
    weight = channels_last(weight) if by is None else weight.contiguous()
    found: Tensor = Convolve.apply(x, weight, halved, by)
    return found


class Convolve(torch.autograd.Function):
    """The convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, halved: bool, by: Winograd | None) -> Tensor:
        """See `convolve`."""
        ctx.halved, ctx.by = halved, by
        if by is not None:
            given = channels_last(x), weight.contiguous()
            ctx.save_for_backward(x, weight, *given)
            return by.image(*given)
        given = channels_last(x, halved), channels_last(weight, halved)
        ctx.save_for_backward(x, weight, *given)
        return F.conv2d(*given, padding=1).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Both gradients, at once where nobody goes on to differentiate them."""
        x, weight, pictures, filters = ctx.saved_tensors
        of_x, of_weight, *_ = ctx.needs_input_grad
        if of_x and of_weight and not torch.is_grad_enabled():
            if ctx.by is None:
                return (*_backward(grad, pictures, filters, [True, True], ctx.halved), None, None)
            grad = channels_last(grad)
            return ctx.by.of_image(grad, filters), ctx.by.of_filters(grad, pictures), None, None
        return (
            _ToImage.apply(grad, weight, ctx.halved, ctx.by) if of_x else None,
            _ToFilter.apply(grad, x, ctx.halved, ctx.by) if of_weight else None,
            None,
            None,
        )


class _ToImage(torch.autograd.Function):
    """Gradient with respect to the image: [B, C, H, W], [C, c, 3, 3] to [B, c, H, W]."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, halved: bool, by: Winograd | None) -> Tensor:
        ctx.halved, ctx.by = halved, by
        ctx.save_for_backward(grad, weight)
        if by is not None:
            return by.of_image(channels_last(grad), weight.contiguous())
        count, _, height, width = grad.shape
        x = _unfilled((count, weight.shape[1], height, width), grad, halved)
        return _backward(grad, x, weight, [True, False], halved)[0]

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        grad, weight = ctx.saved_tensors
        of_grad, of_weight, *_ = ctx.needs_input_grad
        return (
            Convolve.apply(u, weight, ctx.halved, ctx.by) if of_grad else None,
            _ToFilter.apply(grad, u, ctx.halved, ctx.by) if of_weight else None,
            None,
            None,
        )


class _ToFilter(torch.autograd.Function):
    """Gradient with respect to the filter: [B, C, H, W], [B, c, H, W] to [C, c, 3, 3]."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, halved: bool, by: Winograd | None) -> Tensor:
        ctx.halved, ctx.by = halved, by
        ctx.save_for_backward(grad, x)
        if by is not None:
            return by.of_filters(channels_last(grad), channels_last(x))
        weight = _unfilled((grad.shape[1], x.shape[1], 3, 3), grad, halved)
        return _backward(grad, x, weight, [False, True], halved)[1]

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        grad, x = ctx.saved_tensors
        of_grad, of_x, *_ = ctx.needs_input_grad
        return (
            Convolve.apply(x, u, ctx.halved, ctx.by) if of_grad else None,
            _ToImage.apply(grad, u, ctx.halved, ctx.by) if of_x else None,
            None,
            None,
        )


def _backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: list[bool], halved: bool) -> list[Tensor]:
    """Gradients of image and filter by torch, in the type of `grad`; what is not wanted is no tensor."""
    given = [channels_last(tensor, halved) for tensor in (grad, x, weight)]
    found = torch.ops.aten.convolution_backward(
        *given, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [*wanted, False]
    )
    return [part.to(grad.dtype) if asked else part for part, asked in zip(found, wanted, strict=False)]


def _unfilled(size: tuple[int, ...], like: Tensor, halved: bool) -> Tensor:
    """What torch asks for to know a gradient's size: laid out as by `channels_last`, which so copies nothing."""
    dtype = torch.bfloat16 if halved else like.dtype
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def channels_last(x: Tensor, halved: bool = False) -> Tensor:
    """The same numbers, in bfloat16 where `halved`, with the channels of a place side by side in memory."""
    return x.to(torch.bfloat16 if halved else x.dtype, memory_format=torch.channels_last)
