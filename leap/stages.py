"""Networks taken apart into stages and a head, for learners that reach between layers (HAT, Progressive Nets)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from leap.layout import Layout


class Staged(Protocol):
    """A network as stages and a head, over the vector [n] of its layout, [trunk | head].

    A stage is a convolution, normalization, rectifier and pooling; the head sees the last stage's output. Parameters
    are given by name, `named = layout.unflatten(theta)`.
    """

    @property
    def layout(self) -> Layout:
        """Where the trunk and the head stand; a task's head is its own."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage's output: one entry a stage."""

    def stage(
        self, number: int, named: Mapping[str, Tensor], x: Tensor, rows: int | None = None, plus: Tensor | None = None
    ) -> Tensor:
        """[B, C, H, W] to [B, channels[number], H // 2, W // 2].

        Args:
            number: Which stage, from 0.
            named: Parameters by name.
            x: Images, or the stage before.
            rows: Only the first so many images make the statistics that normalize all.
            plus: What is added to the convolution's output, [B, channels[number], H, W].
        """

    def head(self, named: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The last stage's output [B, C, H, W] to logits [B, classes]."""

    def units(self) -> tuple[Tensor, Tensor]:
        """Which unit each entry of the trunk makes, and which it reads: int64 [trunk] each.

        Units are channels, numbered through the stages. The number after the last stands for what no task can own:
        the image, and what biases and normalizations read.
        """
