"""Mean first passage times in one dimension, by exact quadrature in log space."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from leap.metrics.checks import finite, positive_values

# Gauss-Legendre on [0, 1]: exact for polynomials of degree 31 on a panel.
_NODES, _WEIGHTS = (torch.from_numpy(a) / 2 for a in np.polynomial.legendre.leggauss(16))
_NODES = _NODES + 0.5


def log_mean_first_passage_time(
    potential: Callable[[Tensor], Tensor], start: float, end: float, temperature: float, *, wall: float | None = None
) -> Tensor:
    r"""Logarithm of the exact mean time in which a diffusion on the line first reaches `end` from `start`.

    .. math:: T(a \to b) = \frac1D \int_a^b dy\, e^{U(y)/D} \int_{-\infty}^y dz\, e^{-U(z)/D}, \qquad a < b

    and its mirror image for a > b. Behind the start the potential must grow, or a wall stand, to reflect the diffusion.

    Args:
        potential: U, nats, elementwise: float64 [n] -> [n].
        start: a.
        end: b.
        temperature: D, nats.
        wall: Where the inner integral begins instead of infinity, behind the start or on it.

    Returns:
        log T, float64 []; T in the diffusion's time. Minus infinity where a = b.

    Raises:
        ValueError: D not positive, a potential that does not grow behind the start or is not finite between a and b, or
            one so rough that 2048 panels an interval leave a relative error above 1e-9.

    Example:
        >>> round(float(log_mean_first_passage_time(lambda w: (w**2 - 1) ** 2, -1.0, 1.0, 0.01)), 6)
        100.108797

    Quadrature in log space on panels that double in number until the value stands; those behind the start double in
    width. A well narrower than 1/256 of its distance from the start can be missed. Gardiner, Handbook of Stochastic
    Methods, section 5.2.7; the standard formula without change.
    """
    d = float(positive_values("temperature", temperature))
    a, b = float(finite("start", start)), float(finite("end", end))
    if wall is not None and not (-math.inf < wall <= a <= b or b <= a <= wall < math.inf):
        raise ValueError(f"wall must be finite and stand behind the start {a}, seen from the end {b}, got {wall}")
    if a > b:
        return log_mean_first_passage_time(lambda y: potential(-y), -a, -b, d, wall=None if wall is None else -wall)
    if a == b:
        return torch.tensor(-math.inf, dtype=torch.float64)

    def scaled(x: Tensor) -> Tensor:
        return _evaluate(potential, x) / d

    behind = _edges_behind(scaled, a, b - a) if wall is None else sorted({wall, a})
    edges, previous = torch.tensor([*behind, b], dtype=torch.float64), math.inf
    for panels in (2**k for k in range(3, 12)):
        value = _log_nested(scaled, edges, panels)
        if not math.isfinite(value):
            raise ValueError(
                f"potential must be finite between start {a} and end {b}, its time came out as exp({value})"
            )
        if abs(value - previous) < 1e-9 + 1e-14 * abs(value):  # the second part is the round-off of U / D
            return torch.tensor(value - math.log(d), dtype=torch.float64)
        previous = value
    raise ValueError(
        f"the quadrature did not settle at 1e-9 with 2048 panels; raise temperature {d} or smooth potential"
    )


def mean_first_passage_time(
    potential: Callable[[Tensor], Tensor], start: float, end: float, temperature: float, *, wall: float | None = None
) -> Tensor:
    """`log_mean_first_passage_time` exponentiated; infinite where that exceeds 709.

    Example:
        >>> round(float(mean_first_passage_time(lambda w: (w**2 - 1) ** 2, -1.0, 0.0, 0.1)), 2)
        12762.68
    """
    return log_mean_first_passage_time(potential, start, end, temperature, wall=wall).exp()


def _evaluate(potential: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    u = potential(x.reshape(-1))
    if not isinstance(u, Tensor) or u.shape != (x.numel(),):
        raise ValueError(
            f"potential must map [n] to [n], got {getattr(u, 'shape', type(u).__name__)} for [{x.numel()}]"
        )
    bad = u.isnan() | (u == -math.inf)
    if bool(bad.any()):
        raise ValueError(
            f"potential must be a number above -inf, got {u[bad][0].item()} at {x.reshape(-1)[bad][0].item()}"
        )
    return u.double().reshape(x.shape)


def _edges_behind(scaled: Callable[[Tensor], Tensor], a: float, width: float) -> list[float]:
    """Ascending edges of intervals of doubling width that end at a and hold all but e^-50 of the mass behind it."""
    spots = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    edges, masses = [a], []
    for k in range(60):
        left = a - width * (2.0 ** (k + 1) - 1)
        length = edges[-1] - left
        masses.append(float((-scaled(left + length * spots)).logsumexp(0)) + math.log(length / 256))
        edges.append(left)
        if k >= 10 and masses[-1] < max(masses) - 50:  # a thousand widths away at least: wells may lie behind hills
            break
    if not masses[-1] < max(masses) - 36:
        raise ValueError(
            f"potential must grow behind the start {a}, or nothing returns and the mean time is infinite; "
            "add a confining term, or give a wall"
        )
    last = max(k for k, mass in enumerate(masses) if mass >= max(masses) - 50)
    return edges[last + 1 :: -1]


def _log_nested(scaled: Callable[[Tensor], Tensor], edges: Tensor, panels: int) -> float:
    """log of int_a^b dy e^u(y) int_{edges[0]}^y dz e^-u(z), [a, b] being the last interval between edges."""
    share = torch.arange(panels, dtype=torch.float64) / panels
    left = (edges[:-1, None] + edges.diff()[:, None] * share).reshape(-1)
    width = (edges.diff() / panels).repeat_interleave(panels)
    y, weight = left[:, None] + width[:, None] * _NODES, _WEIGHTS.log()
    u = scaled(y)
    mass = (weight - u).logsumexp(1) + width.log()
    sums = torch.nn.functional.pad(mass.logcumsumexp(0), (1, 0), value=-math.inf)
    before = sums[-panels - 1 : -1]  # what lies before each panel of [a, b]
    left, y, u = left[-panels:], y[-panels:], u[-panels:]
    # A rule of its own from the panel's edge to each node: positive weights, so the logarithm exists.
    z = left[:, None, None] + (y - left[:, None])[..., None] * _NODES
    partial = (weight - scaled(z)).logsumexp(2) + (y - left[:, None]).log()
    inner = torch.logaddexp(before[:, None], partial)
    return float((u + inner + weight + width[-panels:, None].log()).reshape(-1).logsumexp(0))
