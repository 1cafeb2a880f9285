r"""Convolution, batch normalization, rectifier and 2x2 max-pooling as one block with few passes over memory, on a CPU.

A plain block passes some twenty times over its largest tensor, and most of its time goes there. Four facts save it:

- Pooling commutes with a monotone map, so it comes first, and normalization and rectifier see a quarter of the numbers.
  Where a channel's scale is negative the map falls, and the least is taken.
- Batch normalization takes the mean away, and with it the convolution's bias, which need not be added at all.
- Of an image of few channels the convolution is a product of patches and a matrix, and mean and variance of what comes
  out follow from those of the patches: :math:`\mu = w^T \bar q,\ \sigma^2 = w^T \mathrm{Cov}(q)\, w`. So they are known
  before it is computed, it can be pooled as it comes, and neither it nor its gradient ever need be in memory.
- Tensors hold the channels of a place side by side (channels last), so that pooling and sums run along vectors.

The passes themselves are loops in C, or torch's calls where nothing compiles (`tasks.kernels_c`, `tasks.kernels`). All
can be differentiated as often as one likes, and the second derivative uses the same passes as the first
(`tasks.convolve`). `torch.func` transforms and forward-mode derivatives take the plain expression (`applies`).

Under autocast to bfloat16 the convolutions and their derivatives, which read one tensor of pictures and one of filters,
round both; all else stays in float32. (Products of patches are left alone: they are no slower.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from tasks.convolve import channels_last, convolve
from tasks.kernels import EPSILON, Gradients, Kernels, Moments, Patches, Peaks, of_moments, wide
from tasks.kernels_c import kernels

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
    groups, by = x.shape[1] // weight.shape[1], kernels(x, scale, shift)
    rows = len(range(len(x))[:rows])  # what a slice takes
    if plus is None and groups == 1 and x.shape[1] <= FEW and not x.requires_grad:
        best, mean, variance = _Peak.apply(weight, scale, F.pad(x.contiguous(), (1, 1, 1, 1)), rows, by)
    else:
        if groups == 1:
            y = convolve(x, weight, halved)
        else:
            y = F.conv2d(channels_last(x, halved), channels_last(weight, halved), padding=1, groups=groups).to(x.dtype)
        if plus is not None:
            y = y.add_(plus)  # nobody else has seen y
        best, mean, variance = _Pool.apply(channels_last(y), scale, rows, by)
    found: Tensor = _Finish.apply(best, mean, variance, bias, scale, shift, by)
    return found


# ---- the convolution of images of few channels, pooled as it comes


class _Peak(torch.autograd.Function):
    """Of filters [C, c, 3, 3] and images with a border: the convolution's peaks, mean and variance."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scale: Tensor, x: Tensor, rows: int, by: Kernels
    ) -> tuple[Tensor, Tensor, Tensor]:
        moments = by.patches(x[:rows])
        best, places, mean, variance = by.peak(x, _matrix(weight), scale, moments)
        ctx.by = by
        ctx.save_for_backward(weight, x, places, *moments)
        return best, mean, variance

    @staticmethod
    def backward(ctx: Any, of_best: Tensor, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor | None, ...]:
        weight, x, places, *moments = ctx.saved_tensors
        matrix, known, of_best = _matrix(weight), Patches(*moments), channels_last(of_best)
        if not torch.is_grad_enabled():  # nobody goes on to differentiate it
            found = ctx.by.peak_grad(x, matrix, of_best, places, known, of_mean, of_variance)
        else:
            found = _PeakFilters.apply(of_best, x, places, ctx.by) + of_moments(matrix, known, of_mean, of_variance)
        return found.t().reshape(weight.shape), None, None, None, None


class _PeakFilters(torch.autograd.Function):
    """A gradient of the convolution at known places as one of its filters, a matrix [9 c, C]."""

    @staticmethod
    def forward(ctx: Any, quarter: Tensor, x: Tensor, places: Tensor, by: Kernels) -> Tensor:
        ctx.by = by
        ctx.save_for_backward(x, places)
        return by.peak_filters(x, quarter, places)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        x, places = ctx.saved_tensors
        return _PeakTake.apply(u.contiguous(), x, places, ctx.by), None, None, None


class _PeakTake(torch.autograd.Function):
    """The convolution with a matrix of filters at known places: the transpose of `_PeakFilters`."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor, places: Tensor, by: Kernels) -> Tensor:
        ctx.by = by
        ctx.save_for_backward(x, places)
        return by.peak_take(x, matrix, places)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        x, places = ctx.saved_tensors
        return _PeakFilters.apply(channels_last(u), x, places, ctx.by), None, None, None


def _matrix(weight: Tensor) -> Tensor:
    return weight.flatten(1).t().contiguous()


# ---- any other convolution y, pooled


class _Pool(torch.autograd.Function):
    """Of y [B, C, H, W]: its peaks, and mean and variance of its first rows."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, scale: Tensor, rows: int, by: Kernels) -> tuple[Tensor, Tensor, Tensor]:
        best, places, mean, variance = by.pool(y, scale, rows)
        ctx.rows, ctx.by = rows, by
        ctx.save_for_backward(y, places, mean)
        return best, mean, variance

    @staticmethod
    def backward(ctx: Any, of_best: Tensor, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor | None, ...]:
        y, places, mean = ctx.saved_tensors
        of_best, mean = channels_last(of_best), mean.detach()
        if not torch.is_grad_enabled():
            of_y = ctx.by.spread(of_best, places, y, Moments(mean, of_mean, of_variance, ctx.rows))
        else:
            of_y = _PoolGrad.apply(of_best, of_mean, of_variance, y, places, mean, ctx.rows, ctx.by)
        return of_y, None, None, None


class _PoolGrad(torch.autograd.Function):
    """Gradient of y, which `Kernels.spread` describes, and the gradients of that by hand."""

    @staticmethod
    def forward(
        ctx: Any, of_best: Tensor, of_mean: Tensor, of_variance: Tensor, y: Tensor,
        places: Tensor, mean: Tensor, rows: int, by: Kernels,
    ) -> Tensor:  # fmt: skip
        ctx.rows, ctx.by = rows, by
        ctx.save_for_backward(of_best, of_mean, of_variance, y, places, mean)
        return by.spread(of_best, places, y, Moments(mean, of_mean, of_variance, rows))

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        of_best, of_mean, of_variance, y, places, mean = ctx.saved_tensors
        rows, by, count, u = ctx.rows, ctx.by, y[: ctx.rows, 0].numel(), channels_last(u)
        if torch.is_grad_enabled():
            plain = functools.partial(_pool_grad, places=places, rows=rows, by=by)
            return (*_further(plain, (of_best, of_mean, of_variance, y), u), None, None, None, None)
        total, along = by.sums(u[:rows], y[:rows])
        slope, level = of_variance * (2 / count), total / count
        of_y = torch.empty_like(u) if rows == len(u) else torch.zeros_like(u)
        torch.mul(u[:rows], wide(slope), out=of_y[:rows]).sub_(wide(slope * level))
        return by.take(u, places), level, (along - mean * total) * (2 / count), of_y, None, None, None, None


def _pool_grad(
    of_best: Tensor, of_mean: Tensor, of_variance: Tensor, y: Tensor, places: Tensor, rows: int, by: Kernels
) -> Tensor:
    """The same in an expression that can be differentiated."""
    part, count = y[:rows], y[:rows, 0].numel()
    slope = of_variance * (2 / count)
    own = wide(of_mean / count) + wide(slope) * (part - wide(part.mean((0, 2, 3))))
    spread: Tensor = _Spread.apply(of_best, places, y.detach(), by)
    return spread + torch.cat([own, torch.zeros_like(y[rows:])])


class _Spread(torch.autograd.Function):
    """A quarter at known places, 0 elsewhere; of `like` the size alone counts."""

    @staticmethod
    def forward(ctx: Any, quarter: Tensor, places: Tensor, like: Tensor, by: Kernels) -> Tensor:
        ctx.by = by
        ctx.save_for_backward(places, like)
        return by.spread(channels_last(quarter), places, like, None)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        places, like = ctx.saved_tensors
        return _Take.apply(channels_last(u), places, like, ctx.by), None, None, None


class _Take(torch.autograd.Function):
    """What stands at known places: the transpose of `_Spread`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, places: Tensor, like: Tensor, by: Kernels) -> Tensor:
        ctx.by = by
        ctx.save_for_backward(places, like)
        return by.take(y, places)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        places, like = ctx.saved_tensors
        return _Spread.apply(u, places, like, ctx.by), None, None, None


# ---- normalization and rectifier of a quarter of the numbers


class _Finish(torch.autograd.Function):
    """Peaks [B, C, h, w], normalized by mean and variance [C], and rectified."""

    @staticmethod
    def forward(
        ctx: Any, best: Tensor, mean: Tensor, variance: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, by: Kernels
    ) -> Tensor:
        out, inverse = by.finish(Peaks(best, best, mean, variance), scale, shift)
        ctx.by = by
        ctx.save_for_backward(best, mean, variance, bias, scale, shift, inverse, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        best, mean, variance, bias, scale, shift, inverse, out = ctx.saved_tensors
        grad = channels_last(grad)
        if not torch.is_grad_enabled():
            found = ctx.by.finish_grad(grad, out, best, mean, inverse, scale)
            of_bias = torch.zeros_like(bias)
        else:
            given = grad, best, mean, variance, scale, shift, inverse, out.detach(), ctx.by
            found = Gradients(*_FinishGrad.apply(*given))
            of_bias = 0 * bias  # a graph of the gradient needs a gradient with a graph
        return found.best, found.mean, found.variance, of_bias, found.scale, found.shift, None


class _FinishGrad(torch.autograd.Function):
    r"""Gradients of `_Finish`, and theirs in turn, by hand.

    With g the gradient where the rectifier is open, M the peaks and `r = (variance + eps)^(-1/2)`, they are
    `scale r g` (M), `-scale r B` with `B = sum g` (mean), `-scale r^3 A / 2` with `A = sum g (M - mean)` (variance),
    `r A` (scale) and `B` (shift).
    """

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, best: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor,
        inverse: Tensor, out: Tensor, by: Kernels,
    ) -> Gradients:  # fmt: skip
        found = by.finish_grad(grad, out, best, mean, inverse, scale)
        ctx.by = by
        ctx.save_for_backward(grad, best, mean, variance, scale, shift, inverse, out, found.scale, found.shift)
        return found

    @staticmethod
    def backward(ctx: Any, *u: Any) -> tuple[Tensor | None, ...]:
        *given, inverse, out, of_scale, total = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_further(_finish_grad, given, u), None, None, None)
        grad, best, mean, _, scale, _ = given
        u_best, u_mean, u_variance, u_scale, u_shift = u
        open_ = torch.ops.aten.threshold_backward(grad, out, 0)
        along = of_scale / inverse
        factor, cube = scale * inverse, inverse.pow(3)
        level, slope = u_shift - u_mean * factor, u_scale * inverse - 0.5 * u_variance * scale * cube
        of_open = torch.addcmul(wide(level - slope * mean), best, wide(slope)).addcmul_(u_best, wide(factor))
        across = ctx.by.sums(open_, channels_last(u_best))[1] - u_mean * total
        of_own_scale = inverse * across - 0.5 * u_variance * cube * along
        of_inverse = scale * across + u_scale * along - 1.5 * u_variance * scale * inverse.square() * along
        of_grad = torch.ops.aten.threshold_backward(of_open, out, 0)
        of_variance = -0.5 * cube * of_inverse
        return of_grad, open_ * wide(slope), -slope * total, of_variance, of_own_scale, None, None, None, None


def _finish_grad(
    grad: Tensor, best: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, ...]:
    """The same in an expression that can be differentiated."""
    factor = scale * torch.rsqrt(variance + EPSILON)
    out = torch.addcmul(wide(shift - mean * factor), best, wide(factor)).relu()
    return torch.autograd.grad(out, (best, mean, variance, scale, shift), grad, create_graph=True)


def _further(function: Callable[..., Any], given: Sequence[Tensor], u: Any) -> tuple[Tensor | None, ...]:
    """u times the derivatives of a function of several tensors, with a graph."""
    # Each by another name: where one was computed from another, that way is not this function's. And what has no
    # gradient is differentiated all the same: one expression for all cases.
    live = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in given]
    return torch.autograd.grad(function(*live), live, u, create_graph=True, allow_unused=True)
