"""What the steps of a walk leave behind, one number a task each, as curves over the steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FOLDED = 256  # a tensor of its own costs about 100 times the number in it; joined by so many, the numbers dominate


class Curves:
    """Losses and what was recorded beside them, in a handful of tensors however many steps there are.

    Args:
        losses: Of the steps before, [T, i], where a walk goes on.
        recorded: What they recorded, [T, i] by name.

    Example:
        >>> curves = Curves()
        >>> for loss in (3.0, 2.0, 1.0):
        ...     curves.add(torch.tensor([loss]), {"error": torch.tensor([10 * loss])})
        >>> curves.whole()
        (tensor([[3., 2., 1.]]), {'error': tensor([[30., 20., 10.]])})
    """

    def __init__(self, losses: Tensor | None = None, recorded: Mapping[str, Tensor] | None = None) -> None:
        self._blocks: list[dict[str, Tensor]] = [] if losses is None else [_named(losses, recorded or {})]
        self._steps: list[dict[str, Tensor]] = []

    def add(self, loss: Tensor, recorded: Mapping[str, Tensor]) -> None:
        """Take in a step: its loss [T] and what it recorded, [T] each, under the names of all other steps."""
        self._steps.append(_named(loss, recorded))
        if len(self._steps) == FOLDED:
            self._fold()

    def whole(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses [T, steps] and what was recorded [T, steps]; of at least one step."""
        self._fold()
        if len(self._blocks) > 1:
            self._blocks = [{name: torch.cat([b[name] for b in self._blocks], dim=1) for name in self._blocks[0]}]
        (found,) = self._blocks
        return found[_LOSS], {name: curve for name, curve in found.items() if name != _LOSS}

    def _fold(self) -> None:
        steps, self._steps = self._steps, []
        if steps:
            self._blocks.append({name: torch.stack([step[name] for step in steps], dim=1) for name in steps[0]})


_LOSS = ""  # no name of what a loss records


def _named(loss: Tensor, recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_LOSS: loss, **recorded}
