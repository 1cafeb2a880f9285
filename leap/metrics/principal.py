"""Principal coordinates: features on the axes along which they vary most."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_coordinates(features: Tensor, *, components: int | None = None, energy: float = 1.0) -> Tensor:
    r"""Coordinates of samples on the principal axes of their features, by falling variance.

    .. math:: S = (F - \bar F) V, \qquad F - \bar F = U \Sigma V^T

    Args:
        features: [m, k], finite, not the same for all samples, m at least 2.
        components: How many axes at most. None: as many as `energy` asks for.
        energy: Share of the variance that the axes must hold, in (0, 1]; the fewest that do are taken.

    Returns:
        [m, p], float64, with mean 0, in the unit of the features. Axes whose spread is below about 1e-6 of the largest
        are left out as round-off, so p is at most the rank.

    Raises:
        ValueError: components below 1, or energy outside (0, 1].

    Example:
        >>> principal_coordinates(torch.tensor([[0.0, 0.0], [0.0, 2.0], [0.0, 7.0]]))
        tensor([[-3.], [-1.], [ 4.]], dtype=torch.float64)

    Reference: Pearson 1901, https://doi.org/10.1080/14786440109462720.

    An axis has two signs; the one is taken that makes the coordinate of largest size positive, which depends on the
    samples alone, not on the basis of the features. Axes of equal variance have no order and no direction of their own.
    By the eigenvectors of the covariance, or of the samples' products where they are fewer than the features: a quarter
    of the time of a decomposition of the features themselves, and what that adds are the axes left out here.
    """
    if components is not None and components < 1:
        raise ValueError(f"components must be at least 1, got {components}")
    if not 0 < energy <= 1:
        raise ValueError(f"energy is a share of the variance, above 0 and at most 1, got {energy}")
    features = features.to(torch.float64)
    size = features.abs().max()  # squares of large features overflow
    # From the first sample, so that a column that is constant is exactly zero, however far from it.
    centred = (features / size).sub_(features[0] / size)
    centred.sub_(centred.mean(0))
    tall = len(centred) >= centred.shape[1]
    variances, vectors = torch.linalg.eigh(centred.mT @ centred if tall else centred @ centred.mT)
    variances, vectors = variances.flip(0), vectors.flip(1)
    rank = int((variances > max(features.shape) * torch.finfo(torch.float64).eps * variances[0]).sum())
    held = variances[:rank].cumsum(0)
    enough = int((held < energy * held[-1]).sum()) + 1
    count = min(rank, enough, components or rank)
    kept, spread = vectors[:, :count], variances[:count].sqrt()
    found = (centred @ kept if tall else kept * spread) * size
    return found * found.gather(0, found.abs().argmax(0, keepdim=True)).sign()
