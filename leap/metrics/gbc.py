"""GBC: how far apart a target's classes lie in a source's features, as overlaps of Gaussians."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from leap.metrics.labelled import Labelled, labelled
from leap.metrics.principal import principal_coordinates

Covariance = Literal["diagonal", "spherical"]

FLOOR = 1e-4  # of variances, in squared units of the features
ROWS = 4096  # samples looked at together


def gbc(
    features: Any,
    labels: Any,
    *,
    covariance: Covariance = "diagonal",
    components: int | None = None,
    floor: float = FLOOR,
) -> Tensor:
    r"""Gaussian Bhattacharyya coefficient: minus the overlaps of all ordered pairs of classes.

    .. math:: -\sum_{i \neq j} e^{-D_B(i, j)}, \qquad
              D_B = \tfrac18 (\mu_i - \mu_j)^T \Sigma^{-1} (\mu_i - \mu_j)
                    + \tfrac12 \log \frac{|\Sigma|}{\sqrt{|\Sigma_i| |\Sigma_j|}}, \qquad
              \Sigma = \tfrac12 (\Sigma_i + \Sigma_j)

    Args:
        features: [m, k].
        labels: Target classes, [m], whole numbers from 0 on; classes without samples take no part.
        covariance: Of a class: `diagonal`, or `spherical`, one variance for all features, their mean.
        components: Principal coordinates to take first, 64 in the paper. None: the features as they are; with many
            features the distances add up until every overlap is next to 0 and the closest pair decides alone.
        floor: Least variance of a feature within a class, above 0, in squared units of the features; a class with one
            sample has no other variance. It makes the score depend on the scale of features near 0.01 and below.

    Returns:
        A scalar in [-C (C - 1), 0], float64, without unit; larger is better. Its range grows with the number of
        classes: compare targets by `mean_gbc`.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: as `leap.metrics.labelled.labelled`; an unknown covariance, components below 1, a floor that is not
            above 0, features so large that their squares overflow.

    Example:
        >>> features = [[0.0], [2.0], [4.0], [6.0]]                      # means 1 and 5, variances 1: D_B = 16 / 8
        >>> gbc(features, [0, 0, 1, 1])                                  # -2 exp(-2)
        tensor(-0.2707, dtype=torch.float64)

    Reference: Pándy et al. 2022, https://arxiv.org/abs/2111.12780.

    Variant: the paper's sum, with the variances (over n samples, not n - 1) and the floor of the released code, which
    puts it under each feature before a spherical class averages them. Two differences from that code: its spherical
    distance counts the logarithm once in place of k times, as if the determinant of k equal variances were one of them;
    and its default is spherical. Time O(m k + C^2 k), memory O((m + C) k).
    """
    return -_overlaps(features, labels, covariance, components, floor)[0] + 0.0  # 0, not -0


def mean_gbc(
    features: Any,
    labels: Any,
    *,
    covariance: Covariance = "diagonal",
    components: int | None = None,
    floor: float = FLOOR,
) -> Tensor:
    r"""`gbc` divided by the number of ordered pairs of classes: comparable across targets.

    .. math:: -\frac{1}{C (C - 1)} \sum_{i \neq j} e^{-D_B(i, j)}

    Args, raises: as `gbc`.

    Returns:
        A scalar in [-1, 0], float64, without unit: -1 where all classes lie on one another, 0 where none meet.

    Example:
        >>> mean_gbc([[0.0], [2.0], [4.0], [6.0]], [0, 0, 1, 1])         # -exp(-2)
        tensor(-0.1353, dtype=torch.float64)

    Reference: as `gbc`; the division is not in the paper, which compares sources of one target.
    """
    total, classes = _overlaps(features, labels, covariance, components, floor)
    return -total / (classes * (classes - 1)) + 0.0


def _overlaps(
    features: Any, labels: Any, covariance: Covariance, components: int | None, floor: float
) -> tuple[Tensor, int]:
    """Sum of the overlaps over ordered pairs of classes, and the number of classes."""
    if covariance not in ("diagonal", "spherical"):
        raise ValueError(f"covariance must be 'diagonal' or 'spherical', got {covariance!r}")
    if not 0 < floor < float("inf"):
        raise ValueError(f"floor is a variance, above 0 and finite, got {floor}")
    held = labelled(features, labels)
    if components is not None:
        held = held._replace(features=principal_coordinates(held.features, components=components))
    means, variances = _moments(held)
    if not bool(torch.isfinite(4 * means.square() + 4 * variances).all()):
        size = float(held.features.abs().max())
        raise ValueError(f"squares of the features overflow, the largest is {size:.3g}; scale the features down")
    variances = variances.clamp_min(floor)
    if covariance == "spherical":
        variances = variances.mean(1, keepdim=True)
    repeats = means.shape[1] // variances.shape[1]  # a spherical class has its one variance k times
    total = means.new_zeros(())
    for i in range(held.classes - 1):  # one class against those after it: the memory of the means
        total += torch.exp(-_distances(means, variances, repeats, i)).sum()
    return 2 * total, held.classes


def _moments(held: Labelled) -> tuple[Tensor, Tensor]:
    """Mean and variance [C, k] of the features within each class."""
    counts = held.counts.to(torch.float64)[:, None]
    blocks = list(zip(held.features.split(ROWS), held.labels.split(ROWS), strict=True))
    means = held.features.new_zeros(held.classes, held.features.shape[1])
    variances = torch.zeros_like(means)
    for part, own in blocks:
        means.index_add_(0, own, part / counts[own])  # divided first: a sum could overflow
    for part, own in blocks:
        variances.index_add_(0, own, (part - means[own]).square())
    return means, variances / counts


def _distances(means: Tensor, variances: Tensor, repeats: int, i: int) -> Tensor:
    """Bhattacharyya distances of class i from those after it."""
    one, others = variances[i], variances[i + 1 :]
    shift = ((means[i + 1 :] - means[i]).square() / (one + others)).sum(1) / 4
    # log of mean over geometric mean, by what they differ: exactly 0 for equal variances, and never below.
    gap = one - others
    spread = torch.log1p((gap / one) * (gap / others) / 4).sum(1) / 4
    return shift + repeats * spread
