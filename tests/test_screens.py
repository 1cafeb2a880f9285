"""An agent's passes in C do what torch's do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks.screens import channels_last, rectified


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
