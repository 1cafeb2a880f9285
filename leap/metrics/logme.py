"""LogME: how probable labels are under Bayesian linear regression on the features, with the best prior and noise."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.metrics.axes import axes
from leap.metrics.labelled import labelled

NOISE = 1e-12  # least variance of the noise, in mean squares of the labels
GRID = (math.log(1e-16), math.log(1e40), 0.25)  # of log(beta S_0^2 / alpha): from no signal to none but the least noise
HALVINGS = 40  # of two steps of the grid


class Evidence(NamedTuple):
    """Largest evidence by class, and where it is attained."""

    values: Tensor  # [C]  log evidence in nats a sample
    alpha: Tensor  # [C]   precision of the weights, in the features' unit squared; infinite where they are of no use
    beta: Tensor  # [C]    precision of the noise of a one-hot label


def logme(features: Any, labels: Any) -> Tensor:
    r"""Logarithm of the maximum evidence of one-hot labels, a sample, averaged over classes.

    .. math:: \frac1C \sum_c \max_{\alpha, \beta} \frac1n \log N\left( y_c;\, 0,\, F F^\top / \alpha + I / \beta \right)

    Args:
        features: F, [n, k], in any unit; taken as they are, not centred.
        labels: Class of each sample, [n]; C of them occur and y_c, [n], is 1 on those of class c and 0 elsewhere.

    Returns:
        A scalar, float64, in nats a sample; a density, so it may be positive. Larger where features transfer better.
        It does not change under rotations of the features, a common factor, or columns of zeros.

    Raises:
        ValueError: as `labelled`.

    Example:
        >>> labels = torch.arange(3).repeat(10)
        >>> away = torch.tensor([0.1, -0.1]).repeat_interleave(15)[:, None]
        >>> logme(torch.eye(3)[labels] + away, labels) > logme(torch.eye(3)[labels] + 5 * away, labels)
        tensor(True)

    Reference: You et al. 2021, https://arxiv.org/abs/2102.11005.

    Variant: the same evidence, with three differences. The paper's logarithm has D/2 log alpha for D columns beside a
    determinant of all D of them; public code (the authors' `_fit_fixed_point` and its copies) sums the determinant over
    r < D singular values and keeps D, which adds (D - r) / (2 n) log alpha to the score: here columns that add no
    direction add nothing. The maximum is found as such (see `evidence`); the paper's fixed-point iteration is slow
    where alpha grows without limit and stops early in public code. Where features interpolate a label the evidence
    grows without limit as the noise vanishes: the variance of the noise is at least 1e-12 of the label's mean square,
    so such a score is finite, large (up to 14.3 nats above that of features which say
    nothing), and still orders candidates by how small the weights are. No intercept is added and nothing is centred,
    as in the paper: a constant column counts as a feature.
    """
    return evidence(features, labels).values.mean()


def evidence(features: Any, labels: Any) -> Evidence:
    r"""Largest evidence of each class's one-hot label, with its alpha and beta.

    .. math:: L(t) = \max_\beta \tfrac12 \left[ \log \tfrac{\beta}{2 \pi} - \tfrac1n \sum_{i \le r} \log(1 + t S_i^2)
              - \tfrac{\beta}{n} E(t) \right], \quad
              E(t) = |y|^2 - |U^\top y|^2 + \sum_{i \le r} \frac{(U^\top y)_i^2}{1 + t S_i^2}, \quad t = \beta / \alpha

    with F = U S V^T of rank r, so :math:`\beta = n / E(t)` unless that is above its limit.

    Args, raises: as `logme`.

    Returns:
        An `Evidence`; its values are log N(y; 0, F F^T / alpha + I / beta) / n at the alpha and beta it names.

    Example:
        >>> found = evidence([[1.0], [1.0], [0.0], [0.0], [1.0]], [1, 1, 0, 0, 0])
        >>> found.alpha / found.beta, found.beta
        (tensor([   inf, 0.4286], dtype=torch.float64), tensor([1.6667, 6.0000], dtype=torch.float64))

    Reference: You et al. 2021, https://arxiv.org/abs/2102.11005; MacKay 1992, https://doi.org/10.1162/neco.1992.4.3.415.

    Variant: with beta eliminated one number t is left. L and its derivative cost O(r) after one decomposition, so all
    classes are looked at on a grid of log t, t = 0 included, whose steps of 0.25 are finer than any hill of L (its
    terms change over a factor of e or more), and the best point is refined by halving on the sign of the derivative.
    The value is the global maximum to round-off, not a fixed point that depends on the start; at it alpha |m|^2 = gamma
    and beta |F m - y|^2 = n - gamma, the paper's equations.
    """
    data = labelled(features, labels, keep=True)
    classes = torch.arange(data.classes, device=data.labels.device)
    found = axes(data.features, data.labels[:, None] == classes, centre=False)
    r, largest = found.rank, found.values[0]
    model = _Model(
        (found.values[:r] / largest).log() * 2,
        found.coordinates[:r].square(),
        found.residuals,
        data.counts.to(torch.float64),
        len(data.labels),
    )
    u = model.maximum()
    values, beta = model.value(u)
    return Evidence(values, beta * (-u).exp() * largest * largest, beta)


class _Model(NamedTuple):
    """Evidence of all classes as a function of u = log(t S_0^2)."""

    spectrum: Tensor  # [r]     log (S_i / S_0)^2
    squares: Tensor  # [r, C]   (U^T y)^2
    residuals: Tensor  # [C]
    lengths: Tensor  # [C]      |y|^2, the number of samples of a class
    samples: int

    def value(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence a sample and beta, [..., C], of u that is [C], or [g, 1] for all classes alike."""
        gain = u[..., None, :] + self.spectrum[:, None]  # [..., r, C or 1]
        left = gain.neg().sigmoid()
        if u.shape[-1] == 1:
            error = self.residuals + left[..., 0] @ self.squares
        else:
            error = self.residuals + (left * self.squares).sum(-2)
        beta = (self.samples / error).minimum(self.samples / (NOISE * self.lengths))
        complexity = torch.nn.functional.softplus(gain, threshold=40).sum(-2)
        return ((beta / (2 * math.pi)).log() - (complexity + beta * error) / self.samples) / 2, beta

    def slope(self, u: Tensor) -> Tensor:
        """Has the sign of the derivative of the value in u, [C]; beta at its best or at its limit adds nothing."""
        _, beta = self.value(u)
        gain = u + self.spectrum[:, None]
        used = gain.sigmoid()
        return beta * (used * gain.neg().sigmoid() * self.squares).sum(0) - used.sum(0)

    def maximum(self) -> Tensor:
        """Where the value is largest, [C]; minus infinity where no t above 0 is better than 0."""
        low, high, step = GRID
        grid = torch.arange(low, high, step, dtype=torch.float64, device=self.squares.device)
        grid = torch.cat([grid.new_full((1,), -math.inf), grid])
        values = self.value(grid[:, None])[0]
        start = grid[values.argmax(0)]
        below, above = start - step, start + step
        for _ in range(HALVINGS):
            middle = (below + above) / 2
            up = self.slope(middle) > 0
            below, above = torch.where(up, middle, below), torch.where(up, above, middle)
        refined = (below + above) / 2
        return torch.where(self.value(refined)[0] >= self.value(start)[0], refined, start)
