"""The convolution with fewer multiplications against torch's: sizes, derivatives, rounding, and when it serves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from leap import native
from tasks import fused, kernels
from tasks import winograd as room
from tasks.convolve import convolve
from tasks.winograd import Winograd, winograd

SIZES = [  # B, I, O, H, W
    (2, 16, 16, 4, 4), (3, 16, 48, 5, 6), (1, 32, 16, 1, 1), (2, 64, 64, 7, 7), (1, 80, 16, 2, 9), (20, 16, 16, 14, 14),
]  # fmt: skip


@pytest.fixture
def ours(dtype: torch.dtype) -> Winograd:
    found = winograd(torch.zeros(1, 16, 2, 2, dtype=dtype), torch.zeros(16, 16, 3, 3, dtype=dtype))
    if found is None:
        pytest.skip(f"nothing compiles here ({native.compiler()}), or vectors are not of 512 bits")
    return found


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def case(size: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Images, filters and a gradient of the convolution, the images channels last."""
    count, inner, outer, height, width = size
    x = drawn((count, inner, height, width), dtype, 0).contiguous(memory_format=torch.channels_last)
    grad = drawn((count, outer, height, width), dtype, 1).contiguous(memory_format=torch.channels_last)
    return x, drawn((outer, inner, 3, 3), dtype, 2), grad


def transposes(x: Tensor, weight: Tensor, grad: Tensor) -> list[Tensor]:
    """By torch."""
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return list(found[:2])


@pytest.mark.parametrize("size", SIZES)
def test_the_convolution_and_its_two_transposes(size: tuple[int, ...], ours: Winograd, dtype: torch.dtype) -> None:
    x, weight, grad = case(size, dtype)
    found = [ours.image(x, weight), ours.of_image(grad, weight), ours.of_filters(grad, x)]
    exact = [given.double() for given in (x, weight, grad)]
    expected = [F.conv2d(*exact[:2], padding=1), *transposes(*exact)]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == dtype
        # a few roundings of each number, whatever the size
        assert float((one - other).norm() / other.norm()) < (2e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_in_float32_it_rounds_little_more_than_torch(ours: Winograd, dtype: torch.dtype) -> None:
    x, weight, grad = case((20, 64, 64, 14, 14), dtype)
    exact = transposes(x.double(), weight.double(), grad.double())
    found = [ours.of_image(grad, weight), ours.of_filters(grad, x)]
    for one, usual, other in zip(found, transposes(x, weight, grad), exact, strict=True):
        assert 0 < float((one - other).norm()) < 4 * float((usual - other).norm())


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
@pytest.mark.parametrize("size", SIZES[:3])
def test_three_derivatives(size: tuple[int, ...], ours: Winograd, dtype: torch.dtype) -> None:
    x, weight, grad = (given.requires_grad_() for given in case(size, dtype))
    found = []
    for function in (lambda a, b: convolve(a, b, False), lambda a, b: F.conv2d(a, b, padding=1)):
        value = (function(x, weight) * grad).sum()
        own = []
        for order in range(3):
            grads = torch.autograd.grad(value, (x, weight, grad), create_graph=True, materialize_grads=True)
            own += [g.detach() for g in grads]
            # cubes, so that there is a third derivative
            value = sum((g.pow(3) * drawn(tuple(g.shape), dtype, order)).sum() for g in grads)
        found.append(own)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(1 + other.abs().max()))


def test_filters_and_images_in_any_order_of_memory(ours: Winograd, dtype: torch.dtype) -> None:
    x, weight, grad = case((2, 16, 32, 6, 6), dtype)
    expected = convolve(x, weight, False)
    turned = weight.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    assert not turned.is_contiguous() and torch.equal(convolve(x.contiguous(), turned, False), expected)
    leaf = turned.clone(memory_format=torch.preserve_format).requires_grad_()
    (found,) = torch.autograd.grad(convolve(x, leaf, False), leaf, grad.contiguous())
    assert torch.equal(found, ours.of_filters(grad, x))


def test_the_number_of_threads_changes_nothing(ours: Winograd, dtype: torch.dtype) -> None:
    x, weight, grad = case((20, 16, 32, 9, 9), dtype)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append([ours.image(x, weight), ours.of_image(grad, weight), ours.of_filters(grad, x)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_where_it_does_not_serve(ours: Winograd, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, _ = case((2, 16, 16, 4, 4), dtype)
    assert winograd(x, weight) is ours
    assert winograd(x[:0], weight) is None
    assert winograd(x, weight.bfloat16()) is None
    assert winograd(x.to("meta"), weight) is None
    assert winograd(x, torch.zeros(24, 16, 3, 3, dtype=dtype)) is None
    assert winograd(x, torch.zeros(272, 16, 3, 3, dtype=dtype)) is None
    with FlopCounterMode(display=False):
        assert winograd(x, weight) is None
    exact = convolve(x, weight, True)  # rounded to bfloat16: torch's
    assert not torch.equal(exact, convolve(x, weight, False))
    room._winograd.cache_clear()
    monkeypatch.setattr(native, "library", lambda *given: None)
    try:
        assert winograd(x, weight) is None
        torch.testing.assert_close(convolve(x, weight, False), ours.image(x, weight), rtol=1e-4, atol=1e-4)
    finally:
        room._winograd.cache_clear()


def test_what_python_and_c_must_agree_on() -> None:
    """Numbers that stand in both: a limit of an array in C, room that Python makes, an epsilon."""
    folder = Path(room.__file__).parent
    passes, ours = ((folder / name).read_text() for name in ("kernels.c", "winograd.c"))
    assert re.findall(r"#define FEW (\d+)", passes) == [str(fused.FEW)]
    assert re.findall(r"#define GROUPS (\d+)", ours) == [str(room._GROUPS)]
    assert re.findall(r"sqrt\(variance\[c\] \+ (.+?)\)", passes) == ["1e-5"] and kernels.EPSILON == 1e-5
