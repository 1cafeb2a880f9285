"""Inner optimizers against torch's, and their derivatives against finite differences."""

import math

import pytest
import torch

from leap import optim
from leap.walk import Fold, walk

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
    "clipped": (optim.clipped(optim.adam(0.05), 1e6), lambda p: torch.optim.Adam(p, lr=0.05)),
}
DIFFERENTIABLE = {name: ours for name, (ours, _) in PAIRS.items()} | {
    "rmsprop-tf": optim.rmsprop(0.05, 0.9, 1e-2, 0.1, momentum=0.8, style="tf"),
    "clipped-sgd": optim.clipped(optim.sgd(0.1, 0.9), 0.5),
    "clipped-not": optim.clipped(optim.sgd(0.1, 0.9), 50.0),
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


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_rmsprop_in_tensorflows_style_agrees_with_a_loop_over_its_entries(momentum):
    generator = torch.Generator().manual_seed(2)
    theta = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    optimizer = optim.rmsprop(0.3, 0.9, 1e-3, momentum=momentum, style="tf", schedule=optim.cosine(5))
    state = optimizer.init(theta, theta[:, :0])
    expected, second, velocity = theta.tolist(), [[1.0] * 3 for _ in range(2)], [[0.0] * 3 for _ in range(2)]
    for i in range(5):
        grad = 0.1 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
        theta, state = optimizer.update(state, grad, theta, i)
        for row in range(2):
            for k in range(3):
                g = float(grad[row, k])
                second[row][k] = 0.9 * second[row][k] + 0.1 * g**2
                velocity[row][k] = momentum * velocity[row][k] + g / math.sqrt(second[row][k] + 1e-3)
                expected[row][k] -= 0.3 * 0.5 * (1 + math.cos(math.pi * i / 5)) * velocity[row][k]
    torch.testing.assert_close(theta, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=1e-13)


def test_the_styles_of_rmsprop_are_far_apart_on_small_gradients():
    grad = torch.full((1, 4), 1e-4, dtype=torch.float64)
    moved = {}
    for style in ("torch", "tf"):
        optimizer, theta = optim.rmsprop(7e-4, 0.99, 1e-5, style=style), torch.zeros_like(grad)
        state = optimizer.init(theta, theta[:, :0])
        for i in range(2000):  # until 1 has decayed
            before = theta
            theta, state = optimizer.update(state, grad, theta, i)
        moved[style] = float((before - theta)[0, 0])
    assert moved["tf"] == pytest.approx(7e-4 / math.sqrt(1e-5) * 1e-4, rel=1e-3)  # gradient descent
    assert moved["torch"] == pytest.approx(7e-4 * 1e-4 / (1e-4 + 1e-5), rel=1e-3)  # nearly lr
    assert 25 < moved["torch"] / moved["tf"] < 30


def test_clipping_agrees_with_torchs_row_by_row():
    generator = torch.Generator().manual_seed(3)
    theta = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    grad = torch.randn(4, 7, generator=generator, dtype=torch.float64) * torch.tensor([[0.01], [0.3], [1.0], [9.0]])
    moved, _ = optim.clipped(optim.sgd(0.1), 1.5).update((), grad, theta, 0)
    for row in range(4):
        parameter = torch.nn.Parameter(theta[row].clone())
        parameter.grad = grad[row].clone()
        length = float(torch.nn.utils.clip_grad_norm_([parameter], 1.5))
        torch.testing.assert_close(moved[row], theta[row] - 0.1 * parameter.grad, rtol=1e-5, atol=1e-9)
        taken = float((theta[row] - moved[row]).norm()) / 0.1
        assert taken == pytest.approx(min(length, 1.5), rel=1e-12)


def test_clipping_keeps_a_state_and_leaves_a_gradient_without_meaning_as_it_is():
    theta = torch.ones(3, 2)
    grad = torch.tensor([[math.nan, 1.0], [math.inf, 1.0], [0.0, 0.0]])
    optimizer = optim.clipped(optim.sgd(0.1, 0.9), 1.0)
    moved, state = optimizer.update(optimizer.init(theta, theta[:, :0]), grad, theta, 0)
    assert moved.isnan().any(dim=1).tolist() == [True, True, False]
    assert torch.equal(moved[2], theta[2]) and state[0].shape == theta.shape


def test_folds_see_the_gradient_as_it_is_and_the_clipped_step():
    class Slope:
        def sample(self, theta, step):
            return None

        def loss(self, theta, batch):
            return 100 * theta.sum(), {}

    watch = Fold(lambda theta0: [], lambda seen, s: [*seen, s], lambda seen, end: torch.cat([s.grad for s in seen]))
    optimizer = optim.clipped(optim.sgd(1.0), 0.5)
    walked = walk(Slope(), torch.zeros(1, 4), steps=2, optimizer=optimizer, folds={"gradients": watch})
    assert torch.equal(walked.results["gradients"], torch.full((2, 4), 100.0))
    assert float(walked.theta.norm()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_updates_can_be_differentiated(name):
    optimizer = DIFFERENTIABLE[name]
    theta = torch.tensor([[0.7, -1.2, 0.4]], dtype=torch.float64, requires_grad=True)

    def two_steps(point):
        state = optimizer.init(point, point[:, :0])
        for i in range(2):
            grad = torch.sin(point) + point
            point, state = optimizer.update(state, grad, point, i)
        return point

    assert torch.autograd.gradcheck(two_steps, (theta,))


@pytest.mark.parametrize("make", [optim.adam, optim.rmsprop, lambda lr: optim.clipped(optim.sgd(lr), 1.0)])
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
        (lambda: optim.rmsprop(0.1, style="keras"), "style must be 'torch' or 'tf', got 'keras'"),
        (lambda: optim.clipped(optim.sgd(0.1), 0.0), "norm must be above 0, got 0.0"),
        (lambda: optim.clipped(optim.sgd(0.1), math.nan), "norm must be above 0, got nan"),
        (lambda: optim.cosine(0), "steps must be at least 1"),
        (lambda: optim.cosine(5, 1.5), "floor"),
    ],
)
def test_impossible_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
