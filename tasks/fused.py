r"""Convolution, batch normalization, rectifier and 2x2 max-pooling as one block with few passes over memory, on a CPU.

A plain block passes some twenty times over its largest tensor, and most of its time goes there. Four facts save it:

- Pooling commutes with a monotone map, so it comes first, and normalization and rectifier see a quarter of the numbers.
  Where a channel's scale is negative the map falls, and the least is taken.
- Batch normalization takes the mean away, and with it the convolution's bias, which need not be added at all.
- Of an image of few channels the convolution is a product of patches and a matrix, and mean and variance of what comes
  out follow from those of the patches: :math:`\mu = w^T \bar q,\ \sigma^2 = w^T \mathrm{Cov}(q)\, w`.
- Tensors hold the channels of a place side by side (channels last), so that pooling and sums run along vectors.

All can be differentiated as often as one likes, and the second derivative uses the same kernels as the first
(`tasks.convolve`). `torch.func` transforms and forward-mode derivatives take the plain expression (`applies`).

Under autocast to bfloat16 the convolutions and their derivatives, which read one tensor of pictures and one of filters,
round both; all else stays in float32. (Products of patches are left alone: they are no slower.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from tasks.convolve import Convolve, channels_last

EPSILON = 1e-5
"""What is added to the variance: torch's own."""
FEW = 4
"""Most channels of images whose convolution is computed from patches."""


def applies(x: Tensor, weight: Tensor, plus: Tensor | None = None) -> bool:
    """Whether `block` serves these tensors: on a CPU, of one ordinary type, under no transform.

    Torch itself is asked whether a `torch.func` transform is at work, and a tensor whether it carries a tangent.
    """
    given = (x, weight) if plus is None else (x, weight, plus)
    return (
        x.device.type == weight.device.type == "cpu"
        and all(tensor.dtype == x.dtype for tensor in given)
        and x.dtype in (torch.float32, torch.float64)
        and x.dim() == 4
        and not torch._C._are_functorch_transforms_active()  # there is no public question
        and (not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == torch.bfloat16)
        and not torch.compiler.is_compiling()
        and all(forward_ad.unpack_dual(tensor).tangent is None for tensor in given)
    )


def block(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor,
    rows: int | None = None, plus: Tensor | None = None,
) -> Tensor:  # fmt: skip
    r"""The same as `relu(max_pool2d(batch_norm(conv2d(x, weight, bias, padding=1) + plus, scale, shift), 2))`.

    .. math:: \max\Bigl(0,\ \max_{2 \times 2} \gamma\, \frac{y - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta\Bigr)

    Args:
        x: Images, [B, c, H, W]; or [B, g c, H, W], and then g blocks stand side by side, each with its share of the C.
        weight: Filters, [C, c, 3, 3].
        bias: The convolution's, [C]; it moves nothing, and its gradient is 0.
        scale, shift: gamma and beta of the normalization, [C].
        rows: The first `rows` images make mean and variance; None: all of them.
        plus: What joins the convolution before it is normalized, [B, C, H, W]; None: nothing.

    Returns:
        [B, C, H // 2, W // 2], channels last in memory.

    Where corners of a window are equal, the gradient goes to the first of them, as torch's does. Where gamma is exactly
    0 all are equal to torch, and here it still goes to the largest y.

    Example:
        >>> x, w, one = torch.rand(2, 1, 4, 4), torch.rand(3, 1, 3, 3), torch.ones(3)
        >>> y = F.batch_norm(F.conv2d(x, w, one, padding=1), None, None, one, one, training=True)
        >>> torch.allclose(block(x, w, one, one, one), F.relu(F.max_pool2d(y, 2)), atol=1e-5)
        True
    """
    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return _block(x, weight, bias, scale, shift, rows, plus, x.dtype == torch.float32)
    return _block(x, weight, bias, scale, shift, rows, plus, False)


def _block(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor,
    rows: int | None, plus: Tensor | None, halved: bool,
) -> Tensor:  # fmt: skip
    groups = x.shape[1] // weight.shape[1]
    if plus is None and groups == 1 and x.shape[1] <= FEW and not x.requires_grad:  # moments of patches are y's alone
        y, mean, variance = _of_patches(x, weight, rows)
        found: Tensor = _Finish.apply(y, mean, variance, bias, scale, shift, None)
        return found
    if groups == 1:
        y = Convolve.apply(x, channels_last(weight), halved)  # once, for all derivatives
    else:
        y = F.conv2d(channels_last(x, halved), channels_last(weight, halved), padding=1, groups=groups).to(x.dtype)
    if plus is not None:
        y = y.add_(plus)  # nobody else has seen y
    found = _Finish.apply(y, None, None, bias, scale, shift, len(x) if rows is None else rows)
    return found


def _of_patches(x: Tensor, weight: Tensor, rows: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution [B, C, H, W] of images without a gradient, and its mean and variance [C]."""
    count, channels, height, width = x.shape
    windows = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # [B, c, H, W, 3, 3]
    patches = windows.permute(1, 4, 5, 0, 2, 3).reshape(9 * channels, -1)
    matrix = weight.flatten(1).t().contiguous()  # or its gradient is the slower of two products
    y = (patches.t() @ matrix).view(count, height, width, -1).permute(0, 3, 1, 2)
    samples = (patches if rows is None else patches[:, : rows * height * width]).double()
    centre, w = samples.mean(1), matrix.double()
    covariance = samples @ samples.t() / samples.shape[1] - torch.outer(centre, centre)
    mean, variance = centre @ w, ((covariance @ w) * w).sum(0)
    return y, mean.to(x.dtype), variance.to(x.dtype)


class _Finish(torch.autograd.Function):
    """Normalization, pooling and rectifier of y [B, C, H, W], by given moments [C] or those of the first `rows`."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, mean: Tensor | None, variance: Tensor | None,
        bias: Tensor, scale: Tensor, shift: Tensor, rows: int | None,
    ) -> Tensor:  # fmt: skip
        ctx.rows, given = rows, (mean, variance)
        if mean is None or variance is None:
            mean, variance = _moments(y[:rows])
        best, places = _pool(y, scale)
        inverse = torch.rsqrt(variance + EPSILON)
        factor = scale * inverse
        out = torch.addcmul(_wide(shift - mean * factor), best, _wide(factor)).relu_()
        ctx.save_for_backward(y, *given, bias, scale, shift, best, places, mean, inverse, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, mean, variance, bias, scale, shift, *known = ctx.saved_tensors
        found = _FinishGrad.apply(grad, y, mean, variance, scale, shift, ctx.rows, tuple(known))
        of_y, of_mean, of_variance, of_scale, of_shift = found
        # a graph of the gradient needs a gradient with a graph
        of_bias = 0 * bias if torch.is_grad_enabled() else torch.zeros_like(bias)
        return of_y, of_mean, of_variance, of_bias, of_scale, of_shift, None


class _FinishGrad(torch.autograd.Function):
    r"""Gradients of `_Finish`, and theirs in turn, by hand.

    With g the gradient where the rectifier is open, M the y that won and `r = (variance + eps)^(-1/2)`, they are
    `B = sum g` (shift), `r A` with `A = sum g (M - mean)` (scale), `-scale r B` (mean), `-scale r^3 A / 2` (variance)
    and `scale r g` (M); what belongs to moments of y itself goes on to y.
    """

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, y: Tensor, mean: Tensor | None, variance: Tensor | None,
        scale: Tensor, shift: Tensor, rows: int | None, known: tuple[Tensor, ...],
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        best, places, centre, inverse, out = known
        ctx.rows = rows
        open_ = torch.ops.aten.threshold_backward(grad, out, 0)
        total = _sum(open_)
        along = _sum(open_ * best) - centre * total
        factor = scale * inverse
        of_mean, of_variance = -factor * total, -0.5 * along * factor * inverse.square()
        of_y = _scatter(open_ * _wide(factor), places, y)
        ctx.save_for_backward(grad, y, mean, variance, scale, shift, *known, open_, total, along, of_variance)
        if rows is None:
            return of_y, of_mean, of_variance, along * inverse, total
        _add_moments(of_y, y, rows, centre, of_mean, of_variance)
        return of_y, None, None, along * inverse, total

    @staticmethod
    def backward(ctx: Any, *u: Any) -> tuple[Tensor | None, ...]:
        grad, y, mean, variance, scale, shift, best, places, centre, inverse, out, *own = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_further((grad, y, mean, variance, scale, shift), places, ctx.rows, u), None, None)
        open_, total, along, of_variance = own
        u_y, u_mean, u_variance, u_scale, u_shift = u
        if ctx.rows is not None:
            part, count = u_y[: ctx.rows], y[: ctx.rows, 0].numel()
            u_total = _sum(part)
            u_mean = u_total / count
            u_variance = (_sum(part * y[: ctx.rows]) - centre * u_total) * (2 / count)
        factor, cube = scale * inverse, inverse.pow(3)
        u_best = _select(u_y, places)
        level, slope = u_shift - u_mean * factor, u_scale * inverse - 0.5 * u_variance * scale * cube
        of_open = torch.addcmul(_wide(level - slope * centre), best, _wide(slope)).addcmul_(u_best, _wide(factor))
        across = _sum(u_best * open_) - u_mean * total
        of_scale = inverse * across - 0.5 * u_variance * cube * along
        of_inverse = scale * across + u_scale * along - 1.5 * u_variance * scale * inverse.square() * along
        of_mean, of_var = -slope * total, -0.5 * cube * of_inverse
        of_y = _scatter(open_ * _wide(slope), places, y)
        of_grad = torch.ops.aten.threshold_backward(of_open, out, 0)
        if ctx.rows is None:
            return of_grad, of_y, of_mean, of_var, of_scale, None, None, None
        bend = of_variance * (2 / count)
        _add_moments(of_y, y, ctx.rows, centre, of_mean - bend * u_total, of_var)
        of_y[: ctx.rows].addcmul_(part, _wide(bend))
        return of_grad, of_y, None, None, of_scale, None, None, None


def _add_moments(of_y: Tensor, y: Tensor, rows: int, mean: Tensor, of_mean: Tensor, of_variance: Tensor) -> None:
    """What the gradients of mean and variance of the first rows mean for y, added to its gradient."""
    count = y[:rows, 0].numel()
    slope = of_variance * (2 / count)
    of_y[:rows].addcmul_(y[:rows], _wide(slope)).add_(_wide(of_mean / count - slope * mean))


def _further(
    given: tuple[Tensor | None, ...], places: Tensor, rows: int | None, u: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of `_FinishGrad` that have a graph in turn: from the plain expression of the forward pass."""
    there = [tensor is not None for tensor in given]
    # what has no gradient is differentiated all the same: one expression for all cases
    live = [
        tensor if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in given if tensor is not None
    ]
    grad, y, *moments, scale, shift = live
    mean, variance = moments if rows is None else _moments(y[:rows])
    factor = scale * torch.rsqrt(variance + EPSILON)
    out = torch.addcmul(_wide(shift - mean * factor), _Select.apply(y, places), _wide(factor)).relu()
    first = torch.autograd.grad(out, live[1:], grad, create_graph=True)
    cotangents = [own for own, present in zip(u, there[1:], strict=True) if present]
    second = iter(torch.autograd.grad(first, live, cotangents, create_graph=True, allow_unused=True))
    return tuple(next(second) if present else None for present in there)


def _sum(x: Tensor) -> Tensor:
    return x.sum((0, 2, 3))


def _moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [C] of [B, C, H, W]: by the kernel of torch's own normalization, or with a graph."""
    if not torch.is_grad_enabled():
        found: tuple[Tensor, Tensor] = torch.ops.aten.batch_norm_update_stats(y, None, None, 0.0)
        return found
    mean = y.mean((0, 2, 3))
    return mean, (y - _wide(mean)).square().mean((0, 2, 3))


def _wide(channels: Tensor) -> Tensor:
    return channels[:, None, None]


# ---- pooling: linear once the places of the largest are known


def _pool(y: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """In each window, the y whose product with the scale is largest, and its place."""
    falling = scale < 0
    if not bool(falling.any()):
        return F.max_pool2d(y, 2, return_indices=True)
    sign = _wide(torch.where(falling, -1.0, 1.0).to(y.dtype))
    best, places = F.max_pool2d(y * sign, 2, return_indices=True)
    return best * sign, places


class _Select(torch.autograd.Function):
    """What stands at known places, one in each window: [B, C, H, W] to [B, C, H // 2, W // 2]."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places, y)
        return _select(y, places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        places, y = ctx.saved_tensors
        return _Scatter.apply(grad, places, y.detach()), None


class _Scatter(torch.autograd.Function):
    """The gradient of `_Select`: numbers at known places, 0 elsewhere; of `like` the size alone counts."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, places: Tensor, like: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return _scatter(grad, places, like)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return _Select.apply(u, places), None, None


def _select(y: Tensor, places: Tensor) -> Tensor:
    flat, index = y.permute(0, 2, 3, 1).flatten(1, 2), places.permute(0, 2, 3, 1)
    return flat.gather(1, index.flatten(1, 2)).view(index.shape).permute(0, 3, 1, 2)


def _scatter(grad: Tensor, places: Tensor, like: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        grad, like, [2, 2], [2, 2], [0, 0], [1, 1], False, places
    )
    return found
