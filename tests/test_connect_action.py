"""The least action of a curve: nothing downhill, the climb uphill, and what a numerical minimum over speeds gives."""

import math

import pytest
import torch

from leap.metrics.connect import line
from leap.metrics.profile import curve_action


def bowl(w):
    return (w.square() * torch.tensor([1.0, 3.0], dtype=w.dtype)).sum() / 2


def test_gradient_flow_costs_nothing_and_its_reverse_the_climb():
    t = torch.linspace(0, 3, 4001, dtype=torch.float64)
    flow = torch.stack([torch.exp(-t), torch.exp(-3 * t)], dim=1)
    climb = bowl(flow[0]) - bowl(flow[-1])
    assert abs(curve_action(bowl, flow)) < 1e-6
    assert abs(curve_action(bowl, flow.flip(0)) - climb) < 1e-6


def test_it_is_the_minimum_over_the_time_that_a_straight_way_takes():
    start, end = torch.tensor([0.5, 1.0], dtype=torch.float64), torch.tensor([1.0, -0.5], dtype=torch.float64)
    points = line(start, end, 2001)
    gradients = points * torch.tensor([1.0, 3.0])
    lengths = (points[1:] - points[:-1]).norm(dim=1)
    speed = (gradients[1:].norm(dim=1) + gradients[:-1].norm(dim=1)) / 2
    # |wdot - f|^2 / 4 integrated at speed c |grad U|, minimal at c = 1
    rises = bowl(end) - bowl(start)

    def action(c):
        return ((c * speed) * lengths / 4 + speed / c * lengths / 4).sum() + rises / 2

    assert abs(curve_action(bowl, points) - action(1.0)) < 1e-6
    assert action(0.9) > action(1.0) < action(1.1)


@pytest.mark.parametrize("points", [torch.zeros(1, 2), torch.zeros(3)])
def test_too_few_points_are_refused(points):
    with pytest.raises(ValueError, match="points"):
        curve_action(bowl, points)


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        curve_action(lambda w: w.sum() * math.nan, torch.zeros(3, 2))
