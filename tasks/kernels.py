"""The passes over memory that `tasks.fused` is made of, by torch's calls; `tasks.kernels_c` has them as loops in C.

All tensors are channels last. y is [B, C, H, W], a quarter is [B, C, H // 2, W // 2], and `places` tells the corner of
its window that each number of a quarter came from, in a form of its own to each of the two. Images of few channels have
a border of zeros, [B, c, H + 2, W + 2], and their filters are a matrix [9 c, C].
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5
"""What is added to a variance: torch's own."""


class Peaks(NamedTuple):
    """The largest of each window (a quarter), their places, and mean and variance of all numbers of a channel [C]."""

    best: Tensor
    places: Tensor
    mean: Tensor
    variance: Tensor


class Moments(NamedTuple):
    """Gradients of mean and variance [C] of the first `rows` images, and that mean."""

    mean: Tensor
    of_mean: Tensor
    of_variance: Tensor
    rows: int


class Patches(NamedTuple):
    """Mean [9 c] and covariance [9 c, 9 c] of 3x3 patches, in float64."""

    centre: Tensor
    covariance: Tensor


class Gradients(NamedTuple):
    """Of `finish`: of the peaks, a quarter, and of the others, [C]."""

    best: Tensor
    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor


class Kernels(Protocol):
    """What can be asked for."""

    def pool(self, y: Tensor, scale: Tensor, rows: int) -> Peaks:
        """The y in each window whose product with the scale [C] is largest, or y where that is 0; moments of `rows`."""
        ...

    def take(self, y: Tensor, places: Tensor) -> Tensor:
        """y at known places: a quarter."""
        ...

    def spread(self, quarter: Tensor, places: Tensor, y: Tensor, moments: Moments | None) -> Tensor:
        """A quarter at its places, 0 elsewhere; plus `of_mean / n + 2 of_variance (y - mean) / n` in the first rows."""
        ...

    def sums(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Over all but channels: of a and of a b, [C]."""
        ...

    def finish(self, peaks: Peaks, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """The peaks normalized and rectified, and `(variance + epsilon)^(-1/2)`."""
        ...

    def finish_grad(
        self, grad: Tensor, out: Tensor, best: Tensor, mean: Tensor, inverse: Tensor, scale: Tensor
    ) -> Gradients:
        """Gradients of `finish`, whose results are `out` and `inverse`."""
        ...

    def patches(self, x: Tensor) -> Patches:
        """Moments of the 3x3 patches of images."""
        ...

    def peak(self, x: Tensor, filters: Tensor, scale: Tensor, moments: Patches) -> Peaks:
        """`pool` of the 3x3 convolution of images."""
        ...

    def peak_take(self, x: Tensor, filters: Tensor, places: Tensor) -> Tensor:
        """`take` of that convolution."""
        ...

    def peak_filters(self, x: Tensor, quarter: Tensor, places: Tensor) -> Tensor:
        """The transpose of `peak_take` in the filters: [9 c, C]."""
        ...

    def peak_grad(
        self, x: Tensor, filters: Tensor, of_best: Tensor, places: Tensor, moments: Patches, of_mean: Tensor,
        of_variance: Tensor,
    ) -> Tensor:  # fmt: skip
        """Gradient of `peak` in the filters [9 c, C]: `peak_filters` plus `of_moments`."""
        ...


class _Torch:
    """By torch's calls; places are its own, flat in a channel's image. Its methods are described by `Kernels`."""

    def pool(self, y: Tensor, scale: Tensor, rows: int) -> Peaks:
        best, places = self._pool(y, scale)
        return Peaks(best, places, *torch.ops.aten.batch_norm_update_stats(y[:rows], None, None, 0.0))

    def _pool(self, y: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        falling = scale < 0
        if not bool(falling.any()):
            return F.max_pool2d(y, 2, return_indices=True)
        sign = wide(torch.where(falling, -1.0, 1.0).to(y.dtype))
        best, places = F.max_pool2d(y * sign, 2, return_indices=True)
        return best * sign, places

    def take(self, y: Tensor, places: Tensor) -> Tensor:
        flat, index = y.permute(0, 2, 3, 1).flatten(1, 2), places.permute(0, 2, 3, 1)
        return flat.gather(1, index.flatten(1, 2)).view(index.shape).permute(0, 3, 1, 2)

    def spread(self, quarter: Tensor, places: Tensor, y: Tensor, moments: Moments | None) -> Tensor:
        found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            quarter, y, [2, 2], [2, 2], [0, 0], [1, 1], False, places
        )
        if moments is not None:
            mean, of_mean, of_variance, rows = moments
            count = y[:rows, 0].numel()
            slope = of_variance * (2 / count)
            found[:rows].addcmul_(y[:rows], wide(slope)).add_(wide(of_mean / count - slope * mean))
        return found

    def sums(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a.sum((0, 2, 3)), (a * b).sum((0, 2, 3))

    def finish(self, peaks: Peaks, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        inverse = torch.rsqrt(peaks.variance + EPSILON)
        factor = scale * inverse
        return torch.addcmul(wide(shift - peaks.mean * factor), peaks.best, wide(factor)).relu_(), inverse

    def finish_grad(
        self, grad: Tensor, out: Tensor, best: Tensor, mean: Tensor, inverse: Tensor, scale: Tensor
    ) -> Gradients:
        g = torch.ops.aten.threshold_backward(grad, out, 0)
        total, along = self.sums(g, best)
        factor, of_scale = scale * inverse, (along - mean * total) * inverse
        return Gradients(g * wide(factor), -factor * total, -0.5 * factor * inverse * of_scale, of_scale, total)

    def patches(self, x: Tensor) -> Patches:
        samples = _patches(x).double()
        centre = samples.mean(1)
        return Patches(centre, samples @ samples.t() / samples.shape[1] - torch.outer(centre, centre))

    def peak(self, x: Tensor, filters: Tensor, scale: Tensor, moments: Patches) -> Peaks:
        best, places = self._pool(_product(x, filters), scale)
        w = filters.double()
        mean, variance = moments.centre @ w, ((moments.covariance @ w) * w).sum(0)
        return Peaks(best, places, mean.to(x.dtype), variance.to(x.dtype))

    def peak_take(self, x: Tensor, filters: Tensor, places: Tensor) -> Tensor:
        return self.take(_product(x, filters), places)

    def peak_filters(self, x: Tensor, quarter: Tensor, places: Tensor) -> Tensor:
        count, channels, height, width = convolved(x, quarter.shape[1])
        size = (count, channels, height, width)
        like = torch.empty(
            size, dtype=x.dtype, memory_format=torch.channels_last
        )  # read by nobody: size and layout count
        of_y = self.spread(quarter, places, like, None)
        return _patches(x) @ of_y.permute(0, 2, 3, 1).reshape(-1, channels)

    def peak_grad(
        self, x: Tensor, filters: Tensor, of_best: Tensor, places: Tensor, moments: Patches, of_mean: Tensor,
        of_variance: Tensor,
    ) -> Tensor:  # fmt: skip
        return self.peak_filters(x, of_best, places) + of_moments(filters, moments, of_mean, of_variance)


TORCH = _Torch()


def wide(channels: Tensor) -> Tensor:
    """[C] beside [B, C, H, W]."""
    return channels[:, None, None]


def of_moments(filters: Tensor, moments: Patches, of_mean: Tensor, of_variance: Tensor) -> Tensor:
    """What gradients of mean and variance of a convolution mean for its filters [9 c, C]."""
    bent = moments.covariance @ filters.double()
    return (torch.outer(moments.centre, of_mean.double()) + 2 * of_variance * bent).to(filters.dtype)


def _patches(x: Tensor) -> Tensor:
    """3x3 patches: [9 c, B H W]."""
    windows = x.unfold(2, 3, 1).unfold(3, 3, 1)  # [B, c, H, W, 3, 3]
    return windows.permute(1, 4, 5, 0, 2, 3).reshape(9 * x.shape[1], -1)


def _product(x: Tensor, filters: Tensor) -> Tensor:
    """The convolution as a product of matrices."""
    count, channels, height, width = convolved(x, filters.shape[1])
    return (_patches(x).t() @ filters).view(count, height, width, channels).permute(0, 3, 1, 2)


def convolved(x: Tensor, channels: int) -> tuple[int, int, int, int]:
    """The size of the convolution of images with a border."""
    return len(x), channels, x.shape[2] - 2, x.shape[3] - 2
