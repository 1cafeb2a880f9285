"""Curves over the steps of a walk, kept in few tensors."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from leap import optim
from leap.curves import FOLDED, Curves
from leap.walk import walk


@pytest.mark.parametrize("steps", [1, FOLDED - 1, FOLDED, FOLDED + 1, 3 * FOLDED, 3 * FOLDED + 7])
def test_the_whole_is_all_steps_in_their_order(steps: int) -> None:
    curves, losses = Curves(), torch.randn(2, steps, generator=torch.Generator().manual_seed(steps))
    for i in range(steps):
        curves.add(losses[:, i], {"error": 2 * losses[:, i]})
    found, recorded = curves.whole()
    assert torch.equal(found, losses) and torch.equal(recorded["error"], 2 * losses)


def test_the_whole_may_be_asked_for_in_between_and_gone_on_from() -> None:
    losses = torch.arange(2.0 * FOLDED + 3).reshape(1, -1)
    curves = Curves()
    for i in range(5):
        curves.add(losses[:, i], {"n": losses[:, i]})
    assert torch.equal(curves.whole()[0], losses[:, :5])
    again = Curves(*curves.whole())
    for i in range(5, losses.shape[1]):
        curves.add(losses[:, i], {"n": losses[:, i]})
        again.add(losses[:, i], {"n": losses[:, i]})
    for found, recorded in (curves.whole(), again.whole()):
        assert torch.equal(found, losses) and torch.equal(recorded["n"], losses)


def test_a_long_walk_holds_few_tensors() -> None:
    """As many a step would weigh more than the numbers in them."""
    most = 0

    def tensors() -> int:
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    class Slope:
        def sample(self, theta: Tensor, step: int) -> None:
            nonlocal most
            if step % 500 == 499:
                most = max(most, tensors())

        def loss(self, theta: Tensor, batch: None) -> tuple[Tensor, dict[str, Tensor]]:
            return theta.sum(), {"half": theta.sum() / 2}

    before = tensors()
    walked = walk(Slope(), torch.zeros(1), steps=3000, optimizer=optim.sgd(1e-3))
    assert walked.losses.shape == walked.aux["half"].shape == (1, 3000)
    assert most - before < 1000
