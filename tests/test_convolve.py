"""The convolution and its derivatives against torch's in float64, of numbers as they are and rounded to bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.convolve import convolve


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(x: Tensor, halved: bool) -> Tensor:
    return (x.detach().bfloat16() if halved else x.detach()).double().requires_grad_()


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def halved(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def close(one: Tensor, other: Tensor, halved: bool) -> None:
    """To one rounding of bfloat16, whose significand has 8 bits; to what sums in float32 lose otherwise."""
    assert one.dtype == torch.float32
    share = 2.0**-8 if halved else 1e-5
    torch.testing.assert_close(one.double(), other, rtol=share, atol=0 if halved else 1e-5)


def test_value_and_gradients_are_those_of_the_rounded_factors(halved: bool) -> None:
    x, weight, grad = drawn(2, 3, 5, 7, seed=0), drawn(4, 3, 3, 3, seed=1), drawn(2, 4, 5, 7, seed=2)
    for tensor in (x, weight):
        tensor.requires_grad_()
    same = [rounded(tensor, halved) for tensor in (x, weight)]
    out, exact = convolve(x, weight, halved), F.conv2d(*same, padding=1)
    # float32 sums within bfloat16's convolution are as good as exact
    close(out.detach(), exact.detach(), halved)
    expected = torch.autograd.grad(exact, same, rounded(grad, halved).detach())
    for graph in (True, False):
        found = torch.autograd.grad(out, [x, weight], grad, create_graph=graph, retain_graph=True)
        for one, other in zip(found, expected, strict=True):
            close(one.detach(), other, halved)
    (alone,) = torch.autograd.grad(convolve(x.detach(), weight, halved), weight, grad)
    close(alone, expected[1], halved)


def test_second_derivatives_too(halved: bool) -> None:
    x, weight, grad = drawn(2, 3, 5, 7, seed=0), drawn(4, 3, 3, 3, seed=1), drawn(2, 4, 5, 7, seed=2)
    u, v = drawn(2, 3, 5, 7, seed=3), drawn(4, 3, 3, 3, seed=4)
    ours = [tensor.requires_grad_() for tensor in (x, weight, grad)]
    same = [rounded(tensor, halved) for tensor in ours]
    found = torch.autograd.grad(convolve(x, weight, halved), ours[:2], grad, create_graph=True)
    second = torch.autograd.grad(found, ours, [u, v])
    exact = torch.autograd.grad(F.conv2d(*same[:2], padding=1), same[:2], same[2], create_graph=True)
    expected = torch.autograd.grad(exact, same, [rounded(tensor, halved).detach() for tensor in (u, v)])
    for one, other in zip(second[:2], expected[:2], strict=True):
        close(one, other, halved)
    # a sum of two convolutions, each of which is rounded
    most = 2 * 2.0**-8 * float(expected[2].abs().max()) if halved else 1e-4
    torch.testing.assert_close(second[2].double(), expected[2], rtol=0, atol=most)
    assert (float((second[2] - expected[2]).abs().max()) > 1e-4) == halved


def test_float64_is_exact() -> None:
    x, weight = drawn(2, 3, 5, 7, seed=0).double(), drawn(4, 3, 3, 3, seed=1).double()
    torch.testing.assert_close(convolve(x, weight, False), F.conv2d(x, weight, padding=1), rtol=1e-12, atol=1e-12)
