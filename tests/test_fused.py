"""The fused block is the plain one: values, first, second and third derivatives, and who takes which."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from leap import native
from leap.layout import Layout
from tasks import fused, models
from tasks.kernels import TORCH
from tasks.kernels_c import kernels
from tasks.models import Conv4


def plain(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor,
    rows: int | None = None, plus: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The block in the textbook's order, from its definition."""
    y = F.conv2d(x, weight, bias, padding=1)
    if plus is not None:
        y = y + plus
    variance, mean = torch.var_mean(y[:rows], dim=(0, 2, 3), correction=0, keepdim=True)
    z = (y - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]
    return F.max_pool2d(F.relu(z), 2)


def inputs(
    channels: int, size: tuple[int, int], *, with_image: bool, filters: int = 6
) -> tuple[list[Tensor], list[Tensor]]:
    """Image, filter, bias, scale (of both signs) and shift in float64, and those of them that have a gradient."""
    stream = torch.Generator().manual_seed(channels)
    shapes = [(5, channels, *size), (filters, channels, 3, 3), (filters,), (filters,), (filters,)]
    given = [torch.randn(shape, generator=stream, dtype=torch.float64) for shape in shapes]
    own = given if with_image else given[1:]
    for tensor in own:
        tensor.requires_grad_()
    return given, own


CASES = [
    (1, (8, 8), False),
    (1, (8, 8), True),
    (3, (7, 9), False),
    (6, (8, 6), True),
    (6, (3, 3), True),
    (6, (2, 2), False),
]


def derivatives(function: Any, given: list[Tensor], own: list[Tensor], rows: int | None, order: int) -> list[Tensor]:
    """The value, and gradients of random projections of gradients up to an order."""
    stream = torch.Generator().manual_seed(9)
    out = function(*given, rows)
    found = [out.detach()]
    value = (out * torch.randn(out.shape, generator=stream, dtype=out.dtype)).sum()
    for _ in range(order):
        # the bias moves nothing, and from the third derivative on it is not even in the graph
        grads = torch.autograd.grad(value, own, create_graph=True, allow_unused=True, materialize_grads=True)
        found += [g.detach() for g in grads]
        value = sum((torch.randn(g.shape, generator=stream, dtype=g.dtype) * g).sum() for g in grads)
    return found


@pytest.fixture(params=[6, 16], ids=["by torch", "in C"])
def filters(request: pytest.FixtureRequest) -> int:
    """So many that the passes over memory are torch's calls, or the loops in C."""
    number: int = request.param
    ours = kernels(torch.zeros(1, 1, 2, 2).double(), torch.zeros(number).double()) is not TORCH
    if number == 16 and not ours:
        pytest.skip(f"nothing compiles here: {native.compiler()}")
    assert ours == (number == 16)
    return number


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_fused_block_and_three_derivatives_are_the_plain_ones(case: Any, rows: int | None, filters: int) -> None:
    channels, size, with_image = case
    given, own = inputs(channels, size, with_image=with_image, filters=filters)
    ours, reference = (derivatives(f, given, own, rows, 3) for f in (fused.block, plain))
    assert (given[3] < 0).any() and (given[3] > 0).any()
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(1 + other.abs().max()))


# torch's own
of_dual_numbers = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("case", CASES)
def test_what_joins_the_convolution_is_normalized_with_it_and_has_a_gradient(
    case: Any, rows: int | None, filters: int
) -> None:
    channels, size, with_image = case
    given, own = inputs(channels, size, with_image=with_image, filters=filters)
    plus = torch.randn(
        5, filters, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    ).requires_grad_()
    ours, reference = (
        derivatives(lambda *g, f=f: f(*g, plus=plus), given, [*own, plus], rows, 2) for f in (fused.block, plain)
    )
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(1 + other.abs().max()))
    with torch.no_grad():
        assert not torch.allclose(fused.block(*given, rows, plus), fused.block(*given, rows))
        assert torch.equal(fused.block(*given, rows, plus), ours[0])


@pytest.mark.parametrize("with_plus", [False, True])
def test_blocks_side_by_side_are_each_its_own(with_plus: bool, filters: int) -> None:
    wide = 3 * filters
    given, _ = inputs(6, (8, 8), with_image=True, filters=wide)
    given[1] = given[1].detach()[:, :2].clone().requires_grad_()  # three blocks of two channels
    plus = torch.randn(5, wide, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    own = [*given, plus] if with_plus else given

    def apart(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        *channels, rows = rest
        parts = zip(x.chunk(3, 1), *(t.chunk(3) for t in (weight, *channels)), plus.chunk(3, 1), strict=True)
        return torch.cat([plain(*part[:-1], rows, part[-1] if with_plus else None) for part in parts], dim=1)

    def together(*arguments: Any) -> Tensor:
        return fused.block(*arguments, plus if with_plus else None)

    ours, reference = (derivatives(f, given, own, 3, 2) for f in (together, apart))
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(1 + other.abs().max()))


@of_dual_numbers
def test_a_tangent_of_what_joins_is_not_lost() -> None:
    given, _ = inputs(6, (8, 8), with_image=False)
    plus = torch.ones(5, 6, 8, 8, dtype=torch.float64)
    assert fused.applies(given[0], given[1], plus)
    assert not fused.applies(given[0], given[1], plus.float())
    with forward_ad.dual_level():
        assert not fused.applies(given[0], given[1], forward_ad.make_dual(plus, plus))


@pytest.mark.parametrize(("rows", "meant"), [(99, 5), (5, 5), (-1, 4)])
@pytest.mark.parametrize("channels", [1, 6])
def test_rows_are_those_of_a_slice(channels: int, rows: int, meant: int, filters: int) -> None:
    given, _ = inputs(channels, (4, 4), with_image=False, filters=filters)
    assert torch.equal(fused.block(*given, rows), fused.block(*given, meant))


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("rows", [None, 3])
def test_derivatives_of_two_blocks_one_behind_the_other(rows: int | None, order: int, filters: int) -> None:
    """The gradient that reaches the first depends on what the first gave: that way must not be counted twice."""
    given, own = inputs(1, (8, 8), with_image=False, filters=filters)
    later, further = inputs(filters, (4, 4), with_image=False, filters=filters)

    def stacked(block: Any) -> Any:
        return lambda *arguments: block(block(*arguments), *later[1:], arguments[-1])

    every = [*own, *further]
    ours, reference = (derivatives(stacked(f), given, every, rows, order) for f in (fused.block, plain))
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(1 + other.abs().max()))


def test_gradients_without_a_graph_are_those_with_one(filters: int) -> None:
    for case in CASES:
        given, own = inputs(case[0], case[1], with_image=case[2], filters=filters)
        seed = torch.randn_like(fused.block(*given))
        one, other = (torch.autograd.grad(fused.block(*given), own, seed, create_graph=c) for c in (False, True))
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def network(dtype: torch.dtype) -> tuple[Conv4, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(4)
    module = models.initialize(Conv4(5, filters=16), stream).to(dtype)
    images = torch.rand(12, 1, 28, 28, generator=stream, dtype=torch.float64).to(dtype)
    return module, images, torch.randint(5, (12,), generator=stream)


def loss_and_gradient(module: Conv4, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    loss = F.cross_entropy(module(images), labels)
    grads = torch.autograd.grad(loss, list(module.parameters()))
    return loss.detach(), torch.cat([g.reshape(-1) for g in grads])


def test_in_float32_it_is_as_close_to_float64_as_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = loss_and_gradient(*network(torch.float64))[1]
    ours = loss_and_gradient(*network(torch.float32))[1].double()
    monkeypatch.setattr(fused, "applies", lambda *tensors: False)
    reference = loss_and_gradient(*network(torch.float64))[1]
    unfused = loss_and_gradient(*network(torch.float32))[1].double()
    assert (exact - reference).norm() < 1e-10 * reference.norm()
    error, usual = (ours - exact).norm(), (unfused - exact).norm()
    assert 0 < error < 3 * usual


def test_moments_survive_a_mean_far_from_zero() -> None:
    """A constant 1000 times the spread: sums of squares in float32 would leave no digit."""
    given = [g.detach() for g in inputs(6, (8, 8), with_image=False)[0]]
    images = (given[0] + 1000).contiguous()
    single = fused.block(*(tensor.float() for tensor in (images, *given[1:])))
    torch.testing.assert_close(single.double(), plain(images, *given[1:]), rtol=0, atol=0.02)


def test_the_network_takes_the_fused_block_where_it_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = fused.block

    def counted(*arguments: Any) -> Tensor:
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(fused, "block", counted)
    images = torch.rand(4, 1, 28, 28)
    Conv4(3, filters=4)(images)
    assert len(calls) == 4
    Conv4(3, filters=4, norm="group")(images)
    Conv4(3, filters=4, norm="none")(images)
    Conv4(3, filters=4).bfloat16()(images.bfloat16())
    with torch.autocast("cpu", dtype=torch.float16):
        Conv4(3, filters=4)(images)
    assert len(calls) == 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Conv4(3, filters=4)(images)
    assert len(calls) == 8


@pytest.mark.parametrize("groups", [1, 2])
def test_under_autocast_the_convolution_rounds_and_nothing_else_does(groups: int) -> None:
    """Small whole numbers, whose convolution bfloat16 holds too: rounding it changes nothing, but the rest would."""
    stream = torch.Generator().manual_seed(5)
    x = torch.randint(-1, 2, (3, 6, 6, 6), generator=stream).float().requires_grad_()
    weight = torch.randint(-1, 2, (4, 6 // groups, 3, 3), generator=stream).float().requires_grad_()
    rest = [torch.rand(4, generator=stream, requires_grad=True) for _ in range(3)]
    exact = fused.block(x, weight, *rest)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = fused.block(x, weight, *rest)
        thirds = fused.block(x / 3, weight, *rest)
    assert halved.dtype == torch.float32 and torch.equal(halved, exact)
    assert not torch.equal(thirds, fused.block(x / 3, weight, *rest))


def test_losses_in_float64_are_left_alone_under_autocast() -> None:
    given, _ = inputs(6, (8, 6), with_image=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one = fused.block(*given)
    assert torch.equal(one, fused.block(*given))


@of_dual_numbers
def test_transforms_take_the_plain_path_and_agree() -> None:
    module, images, labels = network(torch.float64)
    layout = Layout.of(module)
    theta = layout.flatten(module)

    def loss(point: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(module, layout.unflatten(point), (images,)), labels)

    direct = loss_and_gradient(module, images, labels)[1]
    torch.testing.assert_close(grad(loss)(theta), direct, rtol=1e-9, atol=1e-11)
    batched = vmap(grad(loss))(torch.stack([theta, 2 * theta]))
    torch.testing.assert_close(batched[0], direct, rtol=1e-9, atol=1e-11)
    direction = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=theta.dtype)
    torch.testing.assert_close(jvp(loss, (theta,), (direction,))[1], direct @ direction, rtol=1e-9, atol=1e-11)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(theta, direction)
        torch.testing.assert_close(
            forward_ad.unpack_dual(loss(dual)).tangent, direct @ direction, rtol=1e-9, atol=1e-11
        )


def test_the_bias_has_a_gradient_and_it_is_zero() -> None:
    module, images, labels = network(torch.float32)
    F.cross_entropy(module(images), labels).backward()
    for block in module.blocks:
        assert torch.equal(block.conv.bias.grad, torch.zeros_like(block.conv.bias))
        assert block.conv.weight.grad.abs().max() > 0


def test_statistics_of_the_first_rows_do_not_see_the_others() -> None:
    module, images, _ = network(torch.float64)
    other = torch.cat([images[:7], 100 * images[7:]])
    torch.testing.assert_close(module(other, 7)[:7], module(images[:7]), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(module(other)[:7], module(images[:7]))
