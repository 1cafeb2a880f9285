"""Conv4 taken apart, for learners that reach between its blocks (`leap.stages.Staged`)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from leap.layout import Layout
from tasks.models import Block, Conv4


class Conv4Stages:
    """The blocks and the head of a `tasks.models.Conv4`, over the vector of its layout.

    Args:
        module: The network; its own parameters are not used.
        layout: Its layout, `Layout.of(module, own_head=True)`.

    Example:
        >>> module = Conv4(5, filters=3, size=16)
        >>> stages = Conv4Stages(module, Layout.of(module, own_head=True))
        >>> named, x = dict(module.named_parameters()), torch.rand(4, 1, 16, 16)
        >>> expected = module(x)
        >>> for number in range(len(stages.channels)):
        ...     x = stages.stage(number, named, x)
        >>> torch.equal(stages.head(named, x), expected)
        True
    """

    abreast = True
    """A stage takes parameters of several networks joined along their first axis (`leap.columns.Frozen`)."""

    def __init__(self, module: Conv4, layout: Layout) -> None:
        self.layout, self._blocks = layout, [block for block in module.blocks if isinstance(block, Block)]
        self.channels: tuple[int, ...] = tuple(block.conv.out_channels for block in self._blocks)

    def stage(
        self, number: int, named: Mapping[str, Tensor], x: Tensor, rows: int | None = None, plus: Tensor | None = None
    ) -> Tensor:
        """As `leap.stages.Staged.stage`."""
        prefix = f"blocks.{number}."
        own = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
        found: Tensor = functional_call(self._blocks[number], own, (x, rows, plus))
        return found

    def head(self, named: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """As `leap.stages.Staged.head`."""
        return torch.nn.functional.linear(x.flatten(1), named["head.weight"], named["head.bias"])

    def units(self) -> tuple[Tensor, Tensor]:
        """As `leap.stages.Staged.units`.

        Example:
            >>> module = Conv4(5, filters=2, size=16)
            >>> out, into = Conv4Stages(module, Layout.of(module, own_head=True)).units()
            >>> out[:18].unique(), into[:18].unique()   # the first convolution makes units 0 and 1 of the image, 8
            (tensor([0, 1]), tensor([8]))
        """
        first = [0, *itertools.accumulate(self.channels)]
        out, into = [], []
        for name, shape in zip(self.layout.names, self.layout.shapes, strict=True):
            if not name.startswith("blocks."):
                continue
            number = int(name.split(".")[1])
            makes = torch.arange(shape[0]) + first[number]
            reads = torch.tensor([first[-1]])
            if len(shape) > 1 and number > 0:
                reads = torch.arange(shape[1]) + first[number - 1]
            tail = (1,) * (len(shape) - 2)
            out.append(makes.reshape(-1, *(1,) * (len(shape) - 1)).expand(shape).reshape(-1))
            into.append(
                reads.reshape(1, -1, *tail).expand(shape).reshape(-1) if len(shape) > 1 else reads.expand(shape)
            )
        return torch.cat(out), torch.cat(into)
