"""What a potential does along a curve: its free energy, and the least action of following it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leap.metrics.connect import Barrier, Loss, barrier, gradients_at
from leap.metrics.dynamics import effective_potential


class FreeEnergy(NamedTuple):
    """Effective potential along a curve."""

    profile: Tensor  # [P], nats, up to one constant
    barrier: Barrier


def free_energy_profile(
    losses: Tensor, eigenvalues: Tensor | Sequence[Tensor], temperature: float, *, weight_decay: float = 0.0
) -> FreeEnergy:
    r"""Effective potential at the points of a curve, and its barrier.

    .. math:: F_i = U_i + \frac D2 \sum_j \log(h_{ij} + \gamma)

    Args:
        losses: U at the points, [P], nats: mean losses, with the penalty where there is weight decay.
        eigenvalues: Curvature of the mean loss at each point, from the same data: [P, r], or P tensors [r_p]; shorter
            ones are filled with zeros, which weight decay alone makes possible.
        temperature: D, nats; see `dynamics.sgd_temperature`.
        weight_decay: gamma.

    Returns:
        `FreeEnergy`.

    Raises:
        ValueError: numbers of points that differ, spectra of different length without weight decay, and what
            `dynamics.effective_potential` and `barrier` refuse.

    Example:
        >>> narrow = free_energy_profile(torch.zeros(3), torch.tensor([[1.0], [4.0], [1.0]]), 0.1)
        >>> round(float(narrow.barrier.height), 4)  # no hill, but a strait: (D/2) log 4
        0.0693

    Signs and constants as in `dynamics.effective_potential`. Along a path only curvature across it belongs in the sum;
    in a network one direction among thousands is neglected.
    """
    spectra = list(eigenvalues)
    if losses.dim() != 1 or len(spectra) != len(losses):
        raise ValueError(f"one spectrum a loss is needed, got losses {tuple(losses.shape)} and {len(spectra)} spectra")
    if len({len(h) for h in spectra}) > 1 and not weight_decay > 0:
        raise ValueError(f"spectra must be equally long without weight decay, got {[len(h) for h in spectra]}")
    filled = torch.nn.utils.rnn.pad_sequence([h.double() for h in spectra], batch_first=True)
    profile = effective_potential(losses, filled, temperature, weight_decay=weight_decay)
    return FreeEnergy(profile, barrier(profile))


def curve_action(loss: Loss, points: Tensor) -> Tensor:
    r"""Least action of following a curve, at the best speed, in the limit of low temperature; times that temperature.

    .. math:: D\, S = \tfrac12 \int |\nabla U|\, |dw| + \nabla U \cdot dw

    Args:
        loss: U: theta [K] -> loss [], nats, differentiable.
        points: The curve, [P, K], dense enough for the trapezoidal rule.

    Returns:
        [], float64, nats, at least 0 up to the rule's error: zero where the curve follows the gradient downhill, the
        climb where it goes straight up, more where it runs across the slope. `-S` is the log of the curve's weight.

    Raises:
        ValueError: fewer than two points, a loss that is not a finite scalar.

    Example:
        >>> slope = lambda w: w[0]
        >>> from leap.metrics.connect import line
        >>> up = line(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0]), 5)
        >>> [round(float(curve_action(slope, way)), 6) for way in (up, up.flip(0), up.flip(1))]
        [2.0, 0.0, 1.0]

    The exponent `|wdot|^2 / 2 + |grad U|^2 / 2` of `dynamics.transition_factors` is smallest at `|wdot| = |grad U|`;
    its Laplacian, which the temperature multiplies, is left out. Freidlin and Wentzell's geometric action, halved by
    the convention `dw = -grad U dt + sqrt(2 D) dW`.
    """
    if points.dim() != 2 or len(points) < 2:
        raise ValueError(f"points must be [P, K] with at least two points, got {tuple(points.shape)}")
    gradients = gradients_at(loss, points).double()
    moves = (points[1:] - points[:-1]).double()
    along = ((gradients[1:] + gradients[:-1]) / 2 * moves).sum(-1)
    steepness = (gradients[1:].norm(dim=-1) + gradients[:-1].norm(dim=-1)) / 2
    return (steepness * moves.norm(dim=-1) + along).sum() / 2
