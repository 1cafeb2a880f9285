"""Ways from one solution to another: the straight line, a bent curve, a relaxed string; and what the loss does on them.

Points keep the precision of theta, in which the loss is written; losses and what is made of them are float64, in nats.
The `loss` of this file is that of the target task on one fixed, large batch (or all of it): a scalar, differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]  # theta [K] -> loss [], nats
Kind = Literal["line", "bezier", "string", "initial"]


class Barrier(NamedTuple):
    """What a loss does along a curve, float64 [...], nats."""

    height: Tensor  # largest loss less the start's: at least 0
    start: Tensor
    end: Tensor
    uphill: Tensor  # sum of all rises
    quasi_potential: Tensor  # twice the rises: 2D times the least action along the curve


class Curve(NamedTuple):
    """A way between two points."""

    points: Tensor  # [count, K]
    losses: Tensor  # [count]
    kind: Kind  # initial: what `string` was given, when it found nothing lower
    barrier: Barrier
    reference: Barrier  # of the way that the search began from; `barrier.height` is never above this one's


def line(start: Tensor, end: Tensor, count: int) -> Tensor:
    r"""Evenly spaced points on the straight line, both ends included.

    .. math:: w_i = (1 - t_i)\, a + t_i\, b, \qquad t_i = i / (count - 1)

    Args:
        start: a, [K].
        end: b, [K].
        count: Points, at least 2; 21 to 51 are usual.

    Returns:
        [count, K] in the precision of the ends, whose values the first and last point repeat exactly.

    Raises:
        ValueError: ends that are not two finite vectors of one length, fewer than two points.
        TypeError: ends that are not floating-point tensors.

    Example:
        >>> line(torch.zeros(1), torch.ones(1), 3)[:, 0]
        tensor([0.0000, 0.5000, 1.0000])
    """
    start, end = _ends(start, end, count)
    t = torch.linspace(0, 1, count, dtype=start.dtype, device=start.device)
    return torch.lerp(start, end, t[:, None])


def barrier(losses: Tensor) -> Barrier:
    r"""Height of the hill on a curve, and the sum of all climbs.

    .. math:: \max_i U_i - U_0, \qquad \sum_i \max(0, U_{i+1} - U_i), \qquad 2 \sum_i \max(0, U_{i+1} - U_i)

    Args:
        losses: U at consecutive points, [..., count], nats; count at least 2.

    Returns:
        `Barrier`, each [...].

    Raises:
        ValueError: fewer than two points, or values that are not finite.

    Example:
        >>> hill = barrier(torch.tensor([1.0, 3.0, 2.0, 2.5]))
        >>> float(hill.height), float(hill.uphill), float(hill.quasi_potential)
        (2.0, 2.5, 5.0)

    The height is over the start, not over the mean of the ends as mode-connectivity studies often take it: the cost of
    leaving for the target, in the `dynamics <https://arxiv.org/abs/1810.02440>`_ of Achille, Mbeng and Soatto. Between
    points the loss is unseen, so more points can only find more. Freidlin and Wentzell's quasi-potential assumes small
    temperature; on a curve that is not one of least energy it is an upper bound.
    """
    u = torch.as_tensor(losses, dtype=torch.float64)
    if u.dim() == 0 or u.shape[-1] < 2:
        raise ValueError(f"losses must be [..., count] with at least two points, got shape {tuple(u.shape)}")
    if not bool(torch.isfinite(u).all()):
        raise ValueError(f"losses must be finite, got {u[~torch.isfinite(u)][0].item()}; did training diverge?")
    climb = uphill(u)
    return Barrier(u.amax(-1) - u[..., 0], u[..., 0], u[..., -1], climb, 2 * climb)


def uphill(losses: Tensor) -> Tensor:
    """Sum of the rises along a curve, `sum_i max(0, U_{i+1} - U_i)`; losses [..., count] -> float64 [...], nats.

    Example:
        >>> uphill(torch.tensor([0.0, 2.0, 1.0, 1.5]))
        tensor(2.5000, dtype=torch.float64)
    """
    return torch.as_tensor(losses, dtype=torch.float64).diff(dim=-1).clamp(min=0).sum(-1)


def connect(
    loss: Loss,
    start: Tensor,
    end: Tensor,
    *,
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
    count: int = 21,
    draws: int = 4,
) -> Curve:
    r"""A quadratic Bezier curve of low mean loss from one point to another, or the line where that is no worse.

    .. math:: B(t) = (1-t)^2 a + 2 t (1-t) c + t^2 b, \qquad c = \arg\min_c E_{t \sim U(0, 1)} f(B(t))

    Args:
        loss: theta [K] -> loss [], nats, differentiable.
        start: a, [K].
        end: b, [K].
        steps: Adam steps on c, whose rate falls linearly to zero.
        learning_rate: The first of them, in the unit of the weights.
        generator: Where the t, and the first push off the line, come from; the same one gives the same curve.
        count: Points of the result.
        draws: Values of t a step, one in each of so many equal parts of [0, 1]; each costs a gradient.

    Returns:
        `Curve` with evenly spaced t. Its barrier is the lower of the curve's and the line's on `count` points, so it is
        never above the line's; `kind` says whose it is, `reference` is the line's.

    Raises:
        ValueError: ends as in `line`, steps, draws or rate not positive, a loss that is not a finite scalar.

    Example:
        >>> hill = lambda w: (-4 * w.square().sum()).exp() + w[1] ** 2 / 10
        >>> a, b = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0])
        >>> way = connect(hill, a, b, steps=100, learning_rate=0.1, generator=torch.Generator().manual_seed(0))
        >>> way.kind, bool(way.barrier.height < way.reference.height / 2)
        ('bezier', True)

    `Garipov et al. 2018 <https://arxiv.org/abs/1802.10026>`_. Where theirs is SGD on mini-batches with one t a step,
    this is Adam on a fixed loss with stratified t; c starts at the middle, off the line by a thousandth of its length,
    without which a symmetric hill leaves no way to turn.
    """
    start, end = _ends(start, end, count)
    _check_search(steps, learning_rate)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    push = torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start)
    middle = (start + end) / 2 + 1e-3 * (end - start).norm() * push / push.norm()
    parameter = torch.nn.Parameter(middle)
    optimizer = torch.optim.Adam([parameter], lr=learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        t = (torch.arange(draws) + torch.rand(draws, generator=generator, dtype=torch.float64)) / draws
        points = _bezier(start, parameter.detach(), end, t.to(start))
        share = (2 * t * (1 - t)).to(start)  # dB/dc
        parameter.grad = (share[:, None] * gradients_at(loss, points)).mean(0)
        optimizer.step()
    t = torch.linspace(0, 1, count, dtype=start.dtype, device=start.device)
    straight = line(start, end, count)
    return _better(loss, straight, "line", _bezier(start, parameter.detach(), end, t), "bezier")


def string(loss: Loss, initial: Tensor, *, steps: int, learning_rate: float) -> Curve:
    r"""Relax a curve towards one of least energy, whose top is a saddle: the simplified string method.

    .. math:: w_i \leftarrow w_i - \eta \nabla f(w_i), \quad \text{then spread evenly by arc length}

    Args:
        loss: theta [K] -> loss [], nats, differentiable.
        initial: [count, K], a `line` or the points of `connect`; its ends, which should be minima, stay.
        steps: Rounds, each of `count - 2` gradients.
        learning_rate: eta, below 2 over the largest curvature.

    Returns:
        `Curve`; the initial points (`kind` "initial") where the string's barrier is not lower. `reference` is theirs.

    Raises:
        ValueError: fewer than three points, two neighbours that coincide, steps or rate not positive, a loss that is
            not a finite scalar (lower the rate).

    Example:
        >>> valley = lambda w: (w[0] ** 2 - 1) ** 2 + 10 * (w[1] - 1 + w[0] ** 2) ** 2  # its saddle, of loss 1: (0, 1)
        >>> straight = line(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), 21)
        >>> way = string(valley, straight, steps=200, learning_rate=0.01)
        >>> f"{float(way.reference.height):.2f} to {float(way.barrier.height):.2f}"
        '11.00 to 1.00'

    `E, Ren and Vanden-Eijnden 2007 <https://doi.org/10.1063/1.2720838>`_, with linear interpolation instead of splines.
    Nothing pushes it off a ridge that it starts on: begin with `connect` there.
    """
    if initial.dim() != 2 or len(initial) < 3:
        raise ValueError(f"initial must be [count, K] with at least three points, got shape {tuple(initial.shape)}")
    _ends(initial[0], initial[-1], len(initial))
    _check_search(steps, learning_rate)
    points = initial.detach().clone()
    for _ in range(steps):
        points[1:-1] -= learning_rate * gradients_at(loss, points[1:-1])
        points = _spread(points)
    return _better(loss, initial.detach(), "initial", points, "string")


def _bezier(start: Tensor, control: Tensor, end: Tensor, t: Tensor) -> Tensor:
    t = t[:, None]
    return torch.lerp(torch.lerp(start, control, t), torch.lerp(control, end, t), t)  # de Casteljau: exact at both ends


def _better(loss: Loss, first: Tensor, first_kind: Kind, found: Tensor, kind: Kind) -> Curve:
    before, after = _losses(loss, first), _losses(loss, found)
    reference, hill = barrier(before), barrier(after)
    if bool(hill.height < reference.height):
        return Curve(found, after, kind, hill, reference)
    return Curve(first, before, first_kind, reference, reference)


def _losses(loss: Loss, points: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([_scalar(loss(w)).double() for w in points])


def gradients_at(loss: Loss, points: Tensor) -> Tensor:
    """One after another: the graph of a single evaluation is in memory at a time."""
    rows = []
    with torch.enable_grad():
        for w in points.detach():
            theta = w.clone().requires_grad_()
            rows.append(torch.autograd.grad(_scalar(loss(theta)), theta)[0])
    return torch.stack(rows)


def _scalar(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != ():
        raise ValueError(f"loss must return a scalar Tensor, got {getattr(value, 'shape', type(value).__name__)}")
    if not bool(torch.isfinite(value)):
        raise ValueError(
            f"loss must be finite along the way, got {value.item()}; lower learning_rate, or check the ends"
        )
    return value


def _spread(points: Tensor) -> Tensor:
    """The same broken line with its corners evenly spaced by arc length; its ends stay."""
    lengths = points.double().diff(dim=0).norm(dim=1)
    if bool((lengths == 0).any()):
        raise ValueError("two neighbouring points of the string coincide; begin with ends that differ, or fewer points")
    reached = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    wanted = torch.linspace(0, 1, len(points), dtype=torch.float64, device=points.device) * reached[-1]
    left = (torch.searchsorted(reached, wanted, right=True) - 1).clamp(0, len(points) - 2)
    share = ((wanted - reached[left]) / lengths[left]).to(points)[:, None]
    spread = torch.lerp(points[left], points[left + 1], share)
    return torch.cat([points[:1], spread[1:-1], points[-1:]])


def _check_search(steps: int, learning_rate: float) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")


def _ends(start: Tensor, end: Tensor, count: int) -> tuple[Tensor, Tensor]:
    for name, point in (("start", start), ("end", end)):
        if not isinstance(point, Tensor) or not point.is_floating_point():
            raise TypeError(f"{name} must be a float Tensor [K], got {type(point).__name__}; use layout.flatten(model)")
        if point.dim() != 1 or not bool(torch.isfinite(point).all()):
            raise ValueError(f"{name} must be a finite vector [K], got shape {tuple(point.shape)}: {point}")
    if start.shape != end.shape or start.dtype != end.dtype or len(start) == 0:
        raise ValueError(
            f"start and end must agree in length and precision, got {start.dtype} {tuple(start.shape)} and "
            f"{end.dtype} {tuple(end.shape)}"
        )
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    return start.detach(), end.detach()
