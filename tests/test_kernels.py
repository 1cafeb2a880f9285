"""The loops in C against torch's calls: odd sizes, part of the rows, negative scales, equal numbers, NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from leap import native
from tasks import kernels_c
from tasks.kernels import TORCH, Kernels, Moments, Peaks
from tasks.kernels_c import kernels

SIZES = [(5, 16, 8, 8), (3, 32, 7, 9), (2, 16, 2, 2), (4, 48, 3, 3), (1, 16, 5, 4)]
IMAGES = [(5, 1, 8, 8), (3, 3, 7, 9), (2, 4, 20, 20), (1, 2, 2, 3)]


@pytest.fixture
def ours(dtype: torch.dtype) -> Kernels:
    found = asked(dtype, 16)
    if found is TORCH:
        pytest.skip(f"nothing compiles here: {native.compiler()}")
    return found


def asked(dtype: torch.dtype, channels: int, size: tuple[int, ...] = (2, 1, 4, 4)) -> Kernels:
    return kernels(torch.zeros(size, dtype=dtype), torch.zeros(channels, dtype=dtype))


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def close(one: Tensor, other: Tensor) -> None:
    """To what sums of a few hundred numbers of order 1 lose to rounding."""
    share = 2e-5 if one.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(one, other, rtol=share, atol=share)


def corner(places: Tensor, size: tuple[int, ...]) -> Tensor:
    """Torch's places, flat in a channel's image, as numbers of corners."""
    row, column = places // size[3], places % size[3]
    return (row % 2 * 2 + column % 2).to(torch.uint8)


@pytest.mark.parametrize("rows", [None, 1])
@pytest.mark.parametrize("size", SIZES)
def test_pooling_and_back(size: tuple[int, ...], rows: int | None, ours: Kernels, dtype: torch.dtype) -> None:
    count, channels = rows or size[0], size[1]
    y, scale = drawn(size, dtype, 0), drawn((channels,), dtype, 1)
    scale[3] = 0
    assert (scale < 0).any()
    one, other = (by.pool(y, scale, count) for by in (ours, TORCH))
    assert torch.equal(one.best, other.best)
    assert torch.equal(one.places, corner(other.places, size))
    close(one.mean, other.mean)
    close(one.variance, other.variance)
    assert torch.equal(ours.take(y, one.places), TORCH.take(y, other.places))

    quarter = drawn(tuple(one.best.shape), dtype, 2)
    own = [drawn((channels,), dtype, seed) for seed in (3, 4, 5)]
    assert torch.equal(ours.spread(quarter, one.places, y, None), TORCH.spread(quarter, other.places, y, None))
    moments = Moments(*own, count)
    close(ours.spread(quarter, one.places, y, moments), TORCH.spread(quarter, other.places, y, moments))
    for a, b in zip(ours.sums(y, y + 1), TORCH.sums(y, y + 1), strict=True):
        close(a, b)


@pytest.mark.parametrize("size", SIZES)
def test_normalizing_and_back(size: tuple[int, ...], ours: Kernels, dtype: torch.dtype) -> None:
    channels = size[1]
    best, grad = drawn(size, dtype, 0), drawn(size, dtype, 1)
    mean, scale, shift = (drawn((channels,), dtype, seed) for seed in (2, 3, 4))
    peaks = Peaks(best, best, mean, drawn((channels,), dtype, 5).square())
    (out, inverse), (expected, expected_inverse) = (by.finish(peaks, scale, shift) for by in (ours, TORCH))
    close(out, expected)
    close(inverse, expected_inverse)
    assert 0 < (out == 0).double().mean() < 1
    for a, b in zip(*(by.finish_grad(grad, out, best, mean, inverse, scale) for by in (ours, TORCH)), strict=True):
        close(a, b)


@pytest.mark.parametrize("size", IMAGES)
def test_images_of_few_channels_and_back(size: tuple[int, ...], ours: Kernels, dtype: torch.dtype) -> None:
    x = torch.nn.functional.pad(drawn(size, dtype, 0).contiguous(), (1, 1, 1, 1))
    filters, scale = drawn((9 * size[1], 32), dtype, 1), drawn((32,), dtype, 2)
    moments = [by.patches(x) for by in (ours, TORCH)]
    for a, b in zip(*moments, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    one, other = (by.peak(x, filters, scale, m) for by, m in zip((ours, TORCH), moments, strict=True))
    places = corner(other.places, (0, 0, *size[2:]))
    close(one.best, other.best)
    close(one.mean, other.mean)
    close(one.variance, other.variance)
    # equal sums may round to either side; at these sizes none does
    assert torch.equal(one.places, places)
    other_filters = drawn((9 * size[1], 32), dtype, 3)
    close(ours.peak_take(x, other_filters, one.places), TORCH.peak_take(x, other_filters, other.places))
    quarter = drawn(tuple(one.best.shape), dtype, 4)
    close(ours.peak_filters(x, quarter, one.places), TORCH.peak_filters(x, quarter, other.places))
    own = moments[1], drawn((32,), dtype, 5), drawn((32,), dtype, 6)
    found = [by.peak_grad(x, filters, quarter, at, *own) for by, at in ((ours, one.places), (TORCH, other.places))]
    close(*found)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_equal_numbers_and_nan_go_where_torch_sends_them(sign: float, ours: Kernels, dtype: torch.dtype) -> None:
    y = torch.zeros(1, 16, 2, 8, dtype=dtype).contiguous(memory_format=torch.channels_last)
    y[:, :, 1, 2] = sign  # the second window: one is larger in the third corner
    y[:, :, 0, 5] = torch.nan  # the third: NaN in the second corner, a larger number behind it
    y[:, :, 1, 5] = 9 * sign
    y[:, :, 0, 6:] = y[:, :, 1, 6:] = sign  # the last: all equal
    scale = torch.full((16,), sign, dtype=dtype)
    one, other = (by.pool(y, scale, 1) for by in (ours, TORCH))
    assert torch.equal(one.places, corner(other.places, (1, 16, 2, 8)))
    assert torch.equal(one.places[0, 0, 0], torch.tensor([0, 2, 1, 0], dtype=torch.uint8))
    torch.testing.assert_close(one.best, other.best, rtol=0, atol=0, equal_nan=True)
    assert one.mean.isnan().all() and one.variance.isnan().all()
    out, inverse = ours.finish(one, scale, scale)
    assert out.isnan().all()  # through mean and variance, as torch's
    grads = ours.finish_grad(torch.ones_like(out), out, one.best, one.mean, inverse, scale)
    assert all(part.isnan().any() for part in grads if part is not grads.shift)


def test_the_moments_of_a_constant_and_of_a_mean_far_away(ours: Kernels, dtype: torch.dtype) -> None:
    scale = torch.ones(16, dtype=dtype)
    constant = drawn((3, 16, 4, 4), dtype, 0) * 0 + 1000.1
    found = ours.pool(constant, scale, 3)
    assert torch.equal(found.variance, torch.zeros_like(scale))
    assert torch.equal(found.mean, constant[0, :, 0, 0])
    away = drawn((3, 16, 4, 4), torch.float64, 0) + 1000
    exact = away.to(dtype).double().var((0, 2, 3), correction=0)
    found = ours.pool(away.to(dtype), scale, 3)
    torch.testing.assert_close(found.variance.double(), exact, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=0)


def test_the_number_of_threads_changes_nothing(ours: Kernels, dtype: torch.dtype) -> None:
    y, x = drawn((5, 32, 9, 9), dtype, 0), drawn((5, 2, 9, 9), dtype, 1).contiguous()
    scale, filters = drawn((32,), dtype, 2), drawn((18, 32), dtype, 3)

    def everything() -> list[Tensor]:
        peaks, moments = ours.pool(y, scale, 5), ours.patches(x)
        out, inverse = ours.finish(peaks, scale, scale)
        grads = ours.finish_grad(peaks.best, out, peaks.best, peaks.mean, inverse, scale)
        spread = ours.spread(peaks.best, peaks.places, y, Moments(peaks.mean, grads.mean, grads.variance, 5))
        found = ours.peak(x, filters, scale, moments)
        of_filters = ours.peak_filters(x, found.best, found.places)
        return [*peaks, *moments, out, *grads, spread, *ours.sums(y, y), *found, of_filters]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = everything()
        torch.set_num_threads(3)
        together = everything()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_who_takes_which(ours: Kernels, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(dtype, 64) is ours
    assert asked(dtype, 6) is TORCH
    assert asked(dtype, 64, (0, 1, 4, 4)) is TORCH
    assert asked(dtype, 64, (2, 1, 1, 4)) is TORCH
    x, every = torch.zeros(2, 1, 4, 4, dtype=dtype), torch.zeros(64, dtype=dtype)
    assert kernels(x, every, torch.zeros(128, dtype=dtype)[::2]) is TORCH
    assert kernels(x, every, every.to(torch.float64 if dtype == torch.float32 else torch.float32)) is TORCH
    with FlopCounterMode(display=False):  # what runs in C it would not see
        assert asked(dtype, 64) is TORCH
    kernels_c._native.cache_clear()
    monkeypatch.setattr(native, "library", lambda *given: None)
    try:
        assert asked(dtype, 64) is TORCH
    finally:
        kernels_c._native.cache_clear()


def test_a_lack_of_memory_is_told(monkeypatch: pytest.MonkeyPatch, ours: Any, dtype: torch.dtype) -> None:
    monkeypatch.setitem(ours._call._functions, "sums", lambda *given: 1)
    y = drawn((2, 16, 4, 4), dtype, 0)
    with pytest.raises(MemoryError, match="sums found no memory"):
        ours.sums(y, y)
