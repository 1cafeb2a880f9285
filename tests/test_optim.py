"""Inner optimizers against torch's, and their derivatives against finite differences."""

import math

import pytest
import torch

from leap import optim

PAIRS = {
    "sgd": (optim.sgd(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd-decay": (optim.sgd(0.1, weight_decay=0.2), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.2)),
    "momentum": (optim.sgd(0.1, 0.9, 0.01), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01)),
    "nesterov": (
        optim.sgd(0.1, 0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "adam": (optim.adam(0.05), lambda p: torch.optim.Adam(p, lr=0.05)),
    "adam-decay": (
        optim.adam(0.05, (0.8, 0.95), 1e-4, 0.1),
        lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
    ),
    "adamw": (
        optim.adam(0.05, weight_decay=0.1, decoupled=True),
        lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    ),
    "rmsprop": (optim.rmsprop(0.05), lambda p: torch.optim.RMSprop(p, lr=0.05)),
    "rmsprop-momentum": (
        optim.rmsprop(0.05, 0.9, 1e-5, 0.1, momentum=0.8),
        lambda p: torch.optim.RMSprop(p, lr=0.05, alpha=0.9, eps=1e-5, weight_decay=0.1, momentum=0.8),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_updates_agree_with_torch(name):
    ours, theirs = PAIRS[name]
    generator = torch.Generator().manual_seed(1)
    theta = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    parameter = torch.nn.Parameter(theta.clone())
    reference = theirs([parameter])
    state = ours.init(theta, theta[:, :0])
    for i in range(6):
        before = parameter.detach().clone()
        grad = torch.randn(3, 7, generator=generator, dtype=torch.float64)
        parameter.grad = grad
        reference.step()
        theta_next, state = ours.update(state, grad, theta, i)
        torch.testing.assert_close(theta_next - theta, parameter.detach() - before, rtol=1e-11, atol=1e-13)
        theta = theta_next


@pytest.mark.parametrize("name", PAIRS)
def test_updates_can_be_differentiated(name):
    optimizer, _ = PAIRS[name]
    theta = torch.tensor([[0.7, -1.2, 0.4]], dtype=torch.float64, requires_grad=True)

    def two_steps(point):
        state = optimizer.init(point, point[:, :0])
        for i in range(2):
            grad = torch.sin(point) + point
            point, state = optimizer.update(state, grad, point, i)
        return point

    assert torch.autograd.gradcheck(two_steps, (theta,))


@pytest.mark.parametrize("make", [optim.adam, optim.rmsprop])
def test_a_gradient_of_zero_has_a_finite_derivative(make):
    optimizer = make(0.1)
    theta = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    moved, _ = optimizer.update(optimizer.init(theta, theta[:, :0]), theta * 0, theta, 0)
    (derivative,) = torch.autograd.grad(moved.sum(), theta)
    assert torch.equal(derivative, torch.ones_like(derivative))


def test_the_schedule_scales_the_rate_of_its_own_step():
    optimizer = optim.sgd(1.0, schedule=optim.cosine(4, floor=0.2))
    one = torch.ones(1, 1)
    moves = [float(one - optimizer.update((), one, one, i)[0]) for i in range(6)]
    expected = [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * min(i, 4) / 4)) for i in range(6)]
    assert moves == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.sgd(-0.1), "lr must be a finite number of at least 0, got -0.1"),
        (lambda: optim.sgd(math.nan), "got nan"),
        (lambda: optim.sgd(0.1, momentum=1.0), r"momentum must be a number in \[0, 1\), got 1.0"),
        (lambda: optim.sgd(0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda: optim.adam(0.1, eps=0.0), "eps must be a finite number above 0"),
        (lambda: optim.adam(0.1, (0.9, 1.5)), "beta2"),
        (lambda: optim.rmsprop(0.1, weight_decay=-1), "weight_decay"),
        (lambda: optim.cosine(0), "steps must be at least 1"),
        (lambda: optim.cosine(5, 1.5), "floor"),
    ],
)
def test_impossible_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
