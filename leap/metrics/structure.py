"""What a data set lets one learn for how many nats: its structure function, and the part of it that is structure."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from leap.metrics.checks import positive, vector_of


class Structure(NamedTuple):
    """Vertices of a structure function, information ascending, loss strictly descending, convex.

    Attributes:
        information: [V], nats.
        loss: [V], nats, expected and summed over the data set.
    """

    information: Tensor
    loss: Tensor


class StructureComplexity(NamedTuple):
    """Where a structure function has the slope -beta; scalars in nats.

    Attributes:
        total: `min_t S(t) + beta t`, the complexity at this price.
        information: The smallest t that attains it: the nats worth buying, which are the data set's structure.
        loss: S there: what stays unexplained.
    """

    total: Tensor
    information: Tensor
    loss: Tensor


def structure_function(information: Tensor, loss: Tensor) -> Structure:
    r"""Lower convex envelope of the losses that solutions reach with their information.

    .. math:: S(t) = \min_{Q:\, KL(Q \| P) \le t} E_Q L, \qquad C_\beta = \min_t\, S(t) + \beta t

    Args:
        information: KL(Q || P) of every solution found, [P], nats: of different training runs, of the noise that
            different beta make optimal (`sweep`), and of guessing (0 nats, N log C with zero weights).
        loss: Expected loss of each, [P], nats (`leap.metrics.complexity.expected_loss`).

    Returns:
        The vertices. No solution lies below; each vertex is the cheapest solution for some beta.

    Raises:
        TypeError: not floating-point vectors.
        ValueError: different lengths, negative information, values that are not finite.

    An upper bound on the true function, as good as the solutions. The envelope is convex because prices see nothing
    else: by Legendre duality the minima of `loss + beta information` determine it, and it them. Solutions that only a
    bound on the information would choose, between the vertices, are left out.

    Example:
        >>> structure_function(torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([8.0, 7.0, 2.0, 3.0]))
        Structure(information=tensor([0., 2.], dtype=torch.float64), loss=tensor([8., 2.], dtype=torch.float64))

    After Kolmogorov's structure function, `Vereshchagin and Vitanyi 2004 <https://arxiv.org/abs/cs/0204037>`_, which
    `Achille et al. 2019 <https://arxiv.org/abs/1904.03292>`_ define for data sets. Here KL in nats stands for program
    length, and Gaussian solutions that training found for all models.
    """
    t, s = vector_of("information", information), vector_of("loss", loss)
    if len(t) != len(s):
        raise ValueError(f"information and loss must be equally many, got {len(t)} and {len(s)}")
    if float(t.min()) < 0:
        raise ValueError(f"information must not be negative, got {float(t.min())}")
    hull: list[tuple[float, float]] = []
    for point in sorted(zip(t.tolist(), s.tolist(), strict=True)):
        if hull and point[1] >= hull[-1][1]:  # costs as much or more and explains no more
            continue
        while len(hull) >= 2 and _above_chord(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return Structure(*(t.new_tensor(axis) for axis in zip(*hull, strict=True)))


def structure_complexity(curve: Structure, beta: float) -> StructureComplexity:
    r"""Complexity at a price, split into what is worth learning and what is not.

    Args:
        curve: From `structure_function`.
        beta: Price of a nat; 1 for the summed loss weighs both as code lengths, so that the information is the minimal
            sufficient statistic's.

    Returns:
        The vertex where the slope passes -beta: steeper to its left, flatter to its right. Where a whole piece has that
        slope, its left end.

    Raises:
        ValueError: beta not positive.

    Example:
        >>> curve = structure_function(torch.tensor([0.0, 2.0, 5.0]), torch.tensor([8.0, 2.0, 1.0]))
        >>> [float(part) for part in structure_complexity(curve, 1.0)]
        [4.0, 2.0, 2.0]
    """
    totals = curve.loss + positive("beta", beta) * curve.information
    best = int((totals <= totals.min() * (1 + 1e-12)).nonzero()[0])
    return StructureComplexity(totals[best], curve.information[best], curve.loss[best])


def structure_at(curve: Structure, information: Tensor) -> Tensor:
    """The structure function [...] at given nats [...]: linear between vertices, constant beyond the last.

    Below the first vertex it is infinite: no solution is known with so little information.

    Example:
        >>> curve = structure_function(torch.tensor([1.0, 3.0]), torch.tensor([8.0, 2.0]))
        >>> structure_at(curve, torch.tensor([0.0, 2.0, 9.0]))
        tensor([inf, 5., 2.], dtype=torch.float64)
    """
    out = torch.where(information < curve.information[0], torch.inf, curve.loss[-1])
    t = information.to(curve.loss)
    for (a, b), (high, low) in zip(pairwise(curve.information), pairwise(curve.loss), strict=True):
        out = torch.where((a <= t) & (t < b), high + (low - high) * (t - a) / (b - a), out)
    return out


def _above_chord(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
