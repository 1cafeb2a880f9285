"""Pictures laid out in one pass are those that torch lays out in two."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks.screens import channels_last


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
