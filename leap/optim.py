"""Inner optimizers: pure functions of vectors that agree with torch's and can be differentiated through.

An optimizer is two functions. State goes in, state comes out; every tensor of the state has one row a task, so one
call moves all tasks, and the adjoint of a walk (`leap.adjoint`) can send gradients through state and parameters alike.
The step number is an argument, not state: bias corrections and schedules are plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leap import vectors

State = tuple[Tensor, ...]
Schedule = Callable[[int], float]


class Optimizer(NamedTuple):
    """How an inner step moves the parameters.

    Attributes:
        init: `(theta^0 [T, n], extra [T, e]) -> state`; `extra` are meta-learned parameters of the update itself
            (Meta-SGD's rates), of width zero for ordinary optimizers.
        update: `(state, gradient [T, n], theta [T, n], step) -> (theta_next [T, n], state)`; `step` counts from 0.
    """

    init: Callable[[Tensor, Tensor], State]
    update: Callable[[State, Tensor, Tensor, int], tuple[Tensor, State]]


def constant(step: int) -> float:
    """The schedule that changes nothing."""
    return 1.0


def cosine(steps: int, floor: float = 0.0) -> Schedule:
    r"""Cosine annealing of the learning rate over a walk, `Loshchilov & Hutter 2017 <https://arxiv.org/abs/1608.03983>`_.

    .. math:: \phi(i) = \text{floor} + (1 - \text{floor}) \tfrac12 (1 + \cos(\pi i / K))

    Args:
        steps: K, the length of the walk; from step K on the factor stays at `floor`.
        floor: The last factor, in [0, 1].

    No warm restarts: a walk is one period.

    Example:
        >>> [round(cosine(4)(i), 3) for i in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must lie in [0, 1], got {floor}")
    return lambda step: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def sgd(
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    *,
    nesterov: bool = False,
    schedule: Schedule = constant,
) -> Optimizer:
    r"""Stochastic gradient descent with (heavy-ball or Nesterov) momentum, as `torch.optim.SGD`.

    .. math:: g' = g + \lambda\theta, \quad m \leftarrow \mu m + g', \quad \theta \leftarrow \theta - \eta\,\phi(i)\, m

    Args:
        lr: Learning rate, at least 0.
        momentum: mu in [0, 1); 0 keeps no state.
        weight_decay: lambda, added to the gradient (L2, not decoupled).
        nesterov: Step along `g' + mu m`.
        schedule: Factor of the learning rate at step i.

    Example:
        >>> optimizer = sgd(0.5)
        >>> theta = torch.tensor([[1.0, 2.0]])
        >>> optimizer.update((), theta, theta, 0)[0]
        tensor([[0.5000, 1.0000]])
    """
    _check(lr=lr, weight_decay=weight_decay, momentum=momentum)
    if nesterov and momentum == 0:
        raise ValueError("nesterov needs a momentum above 0, got 0")

    def init(theta: Tensor, extra: Tensor) -> State:
        return (torch.zeros_like(theta),) if momentum else ()

    def update(state: State, grad: Tensor, theta: Tensor, step: int) -> tuple[Tensor, State]:
        if weight_decay:
            grad = grad + weight_decay * theta
        if not momentum:
            return theta - lr * schedule(step) * grad, ()
        velocity = momentum * state[0] + grad
        direction = grad + momentum * velocity if nesterov else velocity
        return theta - lr * schedule(step) * direction, (velocity,)

    return Optimizer(init, update)


def adam(
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    decoupled: bool = False,
    schedule: Schedule = constant,
) -> Optimizer:
    r"""Adam, as `torch.optim.Adam` (`decoupled`: as `torch.optim.AdamW`), Kingma & Ba 2015, Loshchilov & Hutter 2019.

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
        \theta \leftarrow \theta - \eta\phi(i) \frac{m / (1-\beta_1^{i+1})}{\sqrt{v / (1-\beta_2^{i+1})} + \epsilon}

    Args:
        lr: Learning rate, at least 0.
        betas: Decay of the two moments, each in [0, 1).
        eps: Added to the root, above 0.
        weight_decay: Added to the gradient, or with `decoupled` subtracted as `lr * weight_decay * theta`.
        decoupled: Which of the two.
        schedule: Factor of the learning rate at step i.

    Entries whose gradient was always zero do not move, and have derivative zero rather than NaN.
    """
    _check(lr=lr, weight_decay=weight_decay, beta1=betas[0], beta2=betas[1], eps=eps)

    def init(theta: Tensor, extra: Tensor) -> State:
        return torch.zeros_like(theta), torch.zeros_like(theta)

    def update(state: State, grad: Tensor, theta: Tensor, step: int) -> tuple[Tensor, State]:
        rate = lr * schedule(step)
        if weight_decay and decoupled:
            theta = theta - rate * weight_decay * theta
        elif weight_decay:
            grad = grad + weight_decay * theta
        first = betas[0] * state[0] + (1 - betas[0]) * grad
        second = betas[1] * state[1] + (1 - betas[1]) * grad * grad
        scale = _sqrt(second) / math.sqrt(1 - betas[1] ** (step + 1)) + eps
        return theta - rate / (1 - betas[0] ** (step + 1)) * first / scale, (first, second)

    return Optimizer(init, update)


def rmsprop(
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    momentum: float = 0.0,
    style: Literal["torch", "tf"] = "torch",
    schedule: Schedule = constant,
) -> Optimizer:
    r"""RMSProp (Tieleman & Hinton 2012), in the two styles that share its name.

    .. math::
        v \leftarrow \alpha v + (1-\alpha) g^2, \quad
        \theta \leftarrow \theta - \eta\phi(i) \frac{g}{\sqrt v + \epsilon} \ (\text{torch}), \quad
        \theta \leftarrow \theta - \eta\phi(i) \frac{g}{\sqrt{v + \epsilon}} \ (\text{tf})

    Args:
        lr: Learning rate, at least 0.
        alpha: Decay of the second moment, in [0, 1).
        eps: Added outside the root (`torch`) or inside it (`tf`), above 0.
        weight_decay: Added to the gradient.
        momentum: Heavy-ball momentum on the scaled gradient, in [0, 1); 0 keeps no state for it.
        style: `torch`: as `torch.optim.RMSprop`, v = 0 at first; `tf`: as TensorFlow's `RMSPropOptimizer`, with which
            most actor-critics were published, v = 1 at first.
        schedule: Factor of the learning rate at step i; with momentum it scales the whole velocity in both styles.

    The styles are far apart where gradients are small against the root of eps: `tf` is then plain gradient descent at
    rate lr / sqrt(eps), less while v comes down from 1, and `torch` moves every entry by about lr. On an actor-critic's
    averaged loss (Breakout, lr 7e-4, eps 1e-5) their steps differed by a factor of 580.

    Raises:
        ValueError: a style of another name, or a number out of its range.

    Example:
        >>> theta, grad = torch.zeros(1, 1), torch.ones(1, 1)
        >>> for style in ("torch", "tf"):
        ...     optimizer = rmsprop(1.0, alpha=0.75, eps=0.25, style=style)
        ...     optimizer.update(optimizer.init(theta, theta[:, :0]), grad, theta, 0)[0]
        tensor([[-1.3333]])
        tensor([[-0.8944]])
    """
    _check(lr=lr, weight_decay=weight_decay, alpha=alpha, momentum=momentum, eps=eps)
    if style not in ("torch", "tf"):
        raise ValueError(f"style must be 'torch' or 'tf', got {style!r}")

    def init(theta: Tensor, extra: Tensor) -> State:
        second = torch.zeros_like(theta) if style == "torch" else torch.ones_like(theta)
        return (second, torch.zeros_like(theta)) if momentum else (second,)

    def update(state: State, grad: Tensor, theta: Tensor, step: int) -> tuple[Tensor, State]:
        if weight_decay:
            grad = grad + weight_decay * theta
        rate = lr * schedule(step)
        if not torch.is_grad_enabled() and not momentum:
            found = vectors.rmsprop(theta, grad, state[0], rate=rate, alpha=alpha, eps=eps, inside=style == "tf")
            if found is not None:
                return found[0], (found[1],)
            # The same in two new vectors instead of four: their memory costs more than all the arithmetic.
            second = (alpha * state[0]).addcmul_(grad, grad, value=1 - alpha)
            root = second.sqrt().add_(eps) if style == "torch" else (second + eps).sqrt_()
            if schedule is constant:
                return torch.addcdiv(theta, grad, root, value=-rate, out=root), (second,)
            return torch.sub(theta, torch.div(grad, root, out=root).mul_(rate), out=root), (second,)
        second = torch.addcmul(alpha * state[0], grad, grad, value=1 - alpha)
        direction = grad / (_sqrt(second) + eps if style == "torch" else (second + eps).sqrt())
        if not momentum:
            return theta - rate * direction, (second,)
        velocity = momentum * state[1] + direction
        return theta - rate * velocity, (second, velocity)

    return Optimizer(init, update)


def clipped(optimizer: Optimizer, norm: float) -> Optimizer:
    r"""The same update on gradients that are no longer than `norm`: each row is scaled by its global norm.

    .. math:: g' = g \cdot \min(1, c / \|g\|_2)

    Args:
        optimizer: What takes the step.
        norm: c, above 0; over all parameters of a task together, its head's among them.

    As `torch.nn.utils.clip_grad_norm_`, one task a row, without the 1e-6 that it adds to the norm. A gradient with NaN
    or infinity in it stays without meaning, so that its task counts as bad.

    Folds see the gradient as it is. Leap's increment takes the gradient of f itself, as the derivative of the path's
    loss coordinate; what was done to the step (its rate, its moments, this clipping) enters through theta^{i+1} -
    theta^i. The released code of Leap reads whatever gradient a model holds when it is called, so there it depends on
    whether that call stands before or after the clipping.

    Raises:
        ValueError: a norm that is not above 0.

    Example:
        >>> theta = torch.zeros(2, 2)
        >>> clipped(sgd(1.0), 1.0).update((), torch.tensor([[3.0, 4.0], [0.3, 0.4]]), theta, 0)[0]
        tensor([[-0.6000, -0.8000],
                [-0.3000, -0.4000]])
    """
    if not norm > 0:
        raise ValueError(f"norm must be above 0, got {norm}")

    def update(state: State, grad: Tensor, theta: Tensor, step: int) -> tuple[Tensor, State]:
        # the clamp keeps the factor at 1, and its derivative at 0, wherever nothing is to be clipped
        longest = torch.linalg.vector_norm(grad, dim=-1, keepdim=True).clamp_min(norm)
        return optimizer.update(state, grad * (norm / longest), theta, step)

    return Optimizer(optimizer.init, update)


def _sqrt(x: Tensor) -> Tensor:
    """Square root whose derivative at zero is zero: an infinite one times a zero gradient would be NaN."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def _check(**values: float) -> None:
    """Refuse numbers no optimizer can use: rates below 0, decays outside [0, 1), eps not above 0."""
    for name, value in values.items():
        if name in ("lr", "weight_decay"):
            valid, expected = value >= 0 and math.isfinite(value), "a finite number of at least 0"
        elif name == "eps":
            valid, expected = value > 0 and math.isfinite(value), "a finite number above 0"
        else:
            valid, expected = 0 <= value < 1, "a number in [0, 1)"
        if not valid:
            raise ValueError(f"{name} must be {expected}, got {value}")
