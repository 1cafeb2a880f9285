"""The structure function: its envelope against brute force, and Legendre duality with complexity."""

from __future__ import annotations

import pytest
import torch
from curvature_problems import normal, refused, stream
from torch import Tensor

from leap.metrics.complexity import expected_loss, sweep
from leap.metrics.structure import structure_at, structure_complexity, structure_function


def cloud(seed: int) -> tuple[Tensor, Tensor]:
    draws = torch.rand(2, 60, generator=stream(seed), dtype=torch.float64)
    return draws[0] * 5, draws[1] * 20


@pytest.mark.parametrize("seed", range(5))
def test_the_envelope_lies_below_all_solutions_and_gives_every_minimum(seed: int) -> None:
    information, loss = cloud(seed)
    curve = structure_function(information, loss)
    assert bool((structure_at(curve, information) <= loss + 1e-12).all())
    assert bool((curve.information.diff() > 0).all()) and bool((curve.loss.diff() < 0).all())
    slopes = curve.loss.diff() / curve.information.diff()
    assert bool((slopes.diff() > 0).all())
    for beta in torch.logspace(-3, 4, 30).tolist():
        best = structure_complexity(curve, beta)
        assert float(best.total) == pytest.approx(float((loss + beta * information).min()), rel=1e-12)


def test_the_slope_passes_minus_beta_at_the_vertex() -> None:
    curve = structure_function(*cloud(3))
    slopes = curve.loss.diff() / curve.information.diff()
    for i in range(1, len(curve.loss) - 1):
        for beta in torch.linspace(-float(slopes[i - 1]), -float(slopes[i]), 5)[1:-1].tolist():
            assert float(structure_complexity(curve, beta).information) == float(curve.information[i])
    tie = structure_complexity(structure_function(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([9.0, 3.0, 1.0])), 2.0)
    assert float(tie.information) == 1.0


def test_curve_and_complexity_are_each_others_transform() -> None:
    weight, eigenvalues = normal(8), torch.logspace(-2, 4, 8, dtype=torch.float64)
    betas = torch.logspace(-2, 3, 200, dtype=torch.float64)
    points = sweep(3.0, weight, eigenvalues, betas.tolist(), prior_variance=1.0)
    losses = expected_loss(points, betas)
    curve = structure_function(points.information, losses)
    assert len(curve.loss) == len(betas)  # noise that is best for its own price lies on the envelope, all of it
    for i in (0, 57, 140, 199):
        at = structure_complexity(curve, float(betas[i]))
        torch.testing.assert_close(at.total, points.total[i], rtol=1e-10, atol=0)
        torch.testing.assert_close(at.information, points.information[i], rtol=1e-10, atol=0)
        back = (points.total - betas * points.information[i]).max()  # S(t) = max_beta C_beta - beta t
        torch.testing.assert_close(back, losses[i], rtol=1e-10, atol=0)


def test_solutions_out_of_order_repeated_or_useless_do_not_matter() -> None:
    information, loss = torch.tensor([2.0, 0.0, 2.0, 5.0, 0.0, 1.0]), torch.tensor([2.0, 8.0, 3.0, 9.0, 8.0, 5.0])
    curve = structure_function(information, loss)
    assert curve.information.tolist() == [0.0, 2.0] and curve.loss.tolist() == [8.0, 2.0]  # (1, 5) is on the chord
    alone = structure_function(torch.tensor([1.0]), torch.tensor([4.0]))
    assert structure_at(alone, torch.tensor([0.5, 1.0, 2.0])).tolist() == [float("inf"), 4.0, 4.0]


def test_bad_points_are_refused() -> None:
    two = torch.ones(2)
    refused("equally many", lambda: structure_function(two, torch.ones(3)))
    refused("must not be negative", lambda: structure_function(-two, two))
    refused("not finite", lambda: structure_function(two, two / 0))
    refused("is empty", lambda: structure_function(two[:0], two[:0]))
    refused("one axis", lambda: structure_function(two[None], two), TypeError)
    refused("beta must be positive", lambda: structure_complexity(structure_function(two, two), 0.0))
