"""An agent's passes in C do what torch's do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from tasks.agents import NETWORKS, Agent, initialize
from tasks.screens import VECTOR, Convolution, channels_last, encoded, new, rectified


def pictures(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def by_torch(given: Tensor, dtype: torch.dtype) -> Tensor:
    return given.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "shape", [(2, 4, 5, 7), (3, 3, 84, 84), (1, 1, 4, 4), (2, 5, 3, 3), (40, 4, 84, 84), (0, 4, 5, 5)]
)
def test_every_number_is_where_torch_puts_it(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    given = pictures(*shape)
    found, expected = channels_last(given, dtype), by_torch(given, dtype)
    assert found.dtype == dtype and torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.int32])
def test_what_c_does_not_serve_is_laid_out_all_the_same(kind: torch.dtype) -> None:
    given = pictures(2, 4, 6, 6)
    strided = pictures(4, 6, 6, 4).permute(3, 0, 1, 2)[::2]
    for own, to in ((given, kind), (strided, torch.float32), (given.float(), torch.float64)):
        assert torch.equal(channels_last(own, to), by_torch(own, to))
    mapped = torch.func.vmap(lambda own: channels_last(own, torch.float32))(given.expand(3, 2, 4, 6, 6))
    assert torch.equal(mapped[2], by_torch(given, torch.float32))


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 3, 4, 5), (70, 16, 40, 40)])
@pytest.mark.parametrize("order", ["plain", "channels last", "strided"])
def test_rectifying(shape: tuple[int, ...], order: str, dtype: torch.dtype) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    x.view(-1)[:2] = torch.tensor([torch.nan, -0.0])
    if order == "channels last" and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    if order == "strided":
        x = torch.stack([x, x], dim=-1)[..., 0]
    rows = x.new_full((3 * len(x), *x.shape[1:]), 7.0)
    if order == "channels last" and x.dim() == 4:
        rows = rows.contiguous(memory_format=torch.channels_last)
    own = rows[len(x) : 2 * len(x)]
    assert rectified(x, own) is own
    torch.testing.assert_close(own, x.relu(), rtol=0, atol=0, equal_nan=True)
    assert bool((rows[: len(x)] == 7).all()) and bool((rows[2 * len(x) :] == 7).all())


def layers(dtype: torch.dtype, channels: int, *shapes: tuple[int, int, int, int]) -> list[Convolution]:
    """Convolutions of (filters, kernel, stride, padding) each, with weights that keep numbers near 1."""
    stream, found = torch.Generator().manual_seed(1), []
    for filters, kernel, stride, padding in shapes:
        weight = torch.randn(filters, channels, kernel, kernel, generator=stream, dtype=torch.float64)
        bias = torch.randn(filters, generator=stream, dtype=torch.float64)
        scale = (channels * kernel**2) ** 0.5 * (1 if found else 128)
        found.append(Convolution((weight / scale).to(dtype), bias.to(dtype), stride, padding))
        channels = filters
    return found


def step_by_step(given: Tensor, own: Sequence[Convolution]) -> list[Tensor]:
    found = [given.double()]
    for conv in own:
        found.append(F.conv2d(found[-1], conv.weight.double(), conv.bias.double(), conv.stride, conv.padding).relu())
    return found[1:]


served = pytest.mark.skipif(
    encoded(pictures(1, 1, 4, 4), layers(torch.float32, 1, (16, 2, 1, 0))) is None,
    reason="needs a C compiler and a processor with vectors of 512 bits",
)


@served
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("shape", "shapes"),
    [
        ((3, 4, 84, 84), [(16, 8, 4, 0), (32, 4, 2, 0)]),
        ((2, 4, 84, 84), [(32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)]),
        ((5, 3, 42, 42), [(16, 3, 2, 1), (32, 3, 2, 1), (32, 3, 2, 1)]),
        ((2, 5, 9, 13), [(48, 3, 1, 2), (112, 2, 3, 1)]),  # 7 vectors: by 4, by 2 and by 1
        ((1, 1, 3, 3), [(16, 3, 1, 0)]),
        ((4, 2, 7, 6), [(16, 1, 1, 0), (16, 5, 1, 3), (80, 2, 2, 0)]),
    ],
)
def test_convolutions_are_torchs(
    shape: tuple[int, ...], shapes: list[tuple[int, int, int, int]], threads: int, dtype: torch.dtype
) -> None:
    given, own, kept = pictures(*shape), layers(dtype, shape[1], *shapes), []

    def room(size: Sequence[int], kind: torch.dtype) -> Tensor:
        """Between two others of its kind, which stay as they are."""
        assert kind == dtype
        kept.append(new((3 * size[0], *size[1:]), kind).fill_(7))
        return kept[-1][size[0] : 2 * size[0]]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        last = encoded(given, own, room)
    finally:
        torch.set_num_threads(before)
    tolerance = {"rtol": 1e-12, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    expected = step_by_step(given, own)
    for all_, one in zip(kept, expected, strict=True):
        outside, found = all_[:: 2 * len(given)], all_[len(given) : 2 * len(given)]
        assert bool((all_[: len(given)] == 7).all()) and bool((all_[2 * len(given) :] == 7).all()) and outside.numel()
        torch.testing.assert_close(found.double(), one, **tolerance)
        assert 0.1 < float((found > 0).double().mean()) <= 1
    assert torch.equal(last, kept[-1][len(given) : 2 * len(given)])


@served
def test_rounding_is_that_of_torch() -> None:
    given, own = pictures(16, 4, 84, 84), layers(torch.float32, 4, (32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0))
    exact = step_by_step(given, own)[-1]
    x = by_torch(given, torch.float32)
    for conv in own:
        x = F.conv2d(x, *conv).relu()
    ours, torchs = (float((found.double() - exact).square().mean().sqrt()) for found in (encoded(given, own), x))
    assert 0 < ours < 4 * torchs


@served
def test_a_number_that_is_none_reaches_what_torch_lets_it_reach() -> None:
    given, own = pictures(2, 1, 6, 6), layers(torch.float32, 1, (16, 3, 1, 0), (16, 2, 1, 0))
    own[0].weight[3, 0, 1, 1] = torch.nan
    own[0].bias[5] = torch.inf
    x = by_torch(given, torch.float32)
    for conv in own:
        x = F.conv2d(x, *conv).relu()
    found = encoded(given, own)
    assert bool(x.isnan().any())
    assert torch.equal(found.isnan(), x.isnan())


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # of dual numbers
def test_what_c_does_not_serve_is_left_to_torch() -> None:
    def refused(given: Tensor, own: Sequence[Convolution]) -> bool:
        def room(size: Sequence[int], kind: torch.dtype) -> Tensor:
            raise AssertionError("room is asked for by nobody")

        return encoded(given, own, room) is None

    given, usual = pictures(2, 4, 8, 8), (16, 3, 1, 0)
    plain = layers(torch.float32, 4, usual)
    weight, bias, *steps = plain[0]
    assert refused(given.float(), plain)
    assert refused(given[..., ::2], plain)
    assert refused(given[:0], plain)
    assert refused(pictures(2, 4, 2, 8), plain)  # nothing is left of it
    assert refused(pictures(2, 3, 8, 8), plain)
    assert refused(given, layers(torch.float32, 4, (VECTOR + 8, 3, 1, 0)))
    assert refused(given, layers(torch.float16, 4, usual))
    assert refused(given, [Convolution(weight, bias.double(), *steps)])
    assert refused(given, [Convolution(weight[..., :2], bias, *steps)])  # neither square nor in order
    assert refused(given, [Convolution(weight[..., :2].contiguous(), bias, *steps)])
    assert refused(given, [Convolution(weight, bias[:8], *steps)])
    assert refused(given, [Convolution(weight.clone().requires_grad_(), bias, *steps)])
    with forward_ad.dual_level():
        assert refused(given, [Convolution(weight, forward_ad.make_dual(bias, bias), *steps)])
    mapped = torch.func.vmap(lambda own: torch.tensor(refused(own, plain)))(given.expand(3, 2, 4, 8, 8))
    assert bool(mapped.all())


@pytest.mark.parametrize("network", NETWORKS)
def test_an_agent_that_acts_says_what_one_that_learns_says(network: str, dtype: torch.dtype) -> None:
    shape = (3, 20, 18) if network == "small" else (4, 84, 84)
    agent = initialize(Agent(shape, 5, network), torch.Generator().manual_seed(0)).to(dtype)
    obs = pictures(6, *shape)
    learned = agent(obs)
    with torch.no_grad():
        acted = agent(obs)
    assert learned[0].requires_grad
    tolerance = {"rtol": 1e-11, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-5}
    for one, other in zip(acted, learned, strict=True):
        torch.testing.assert_close(one, other.detach(), **tolerance)
