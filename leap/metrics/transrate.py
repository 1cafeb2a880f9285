"""TransRate: how much shorter a code for the features becomes once the classes are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leap.metrics.labelled import labelled

CONDITION = 1e10  # of I + Z^T Z / (m eps): above it a Gram matrix loses the small singular values


def transrate(features: Any, labels: Any, *, eps: float = 1e-4, class_centred: bool = False) -> Tensor:
    r"""TransRate, the coding rate of features less that of each class.

    .. math:: R(Z) - \sum_c \frac{m_c}{m} R(Z_c), \qquad
              R(Z) = \tfrac12 \log\det\left( I + \frac{Z^\top Z}{m\, \epsilon} \right)

    Args:
        features: Z, [m, k]; they are centred on the mean of all samples here.
        labels: Class of each sample, [m].
        eps: Squared distortion that the code may leave, above 0, in the features' unit squared.
        class_centred: Centre each Z_c on its own mean as well, so that its rate is that of its covariance.

    Returns:
        A scalar, float64, in nats; not negative, larger where features transfer better. Unchanged by rotations and
        shifts of the features, by columns of zeros, and by scaling them by s with eps by s squared; a factor of the
        features alone does change it, so candidates should be of like scale (or each divided by its norm).

    Raises:
        ValueError: eps not above 0 and finite; and as `labelled`.

    Example:
        >>> points, labels = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]), torch.tensor([0, 0, 1, 1])
        >>> transrate(points, labels)                              # classes at +1 and -1: no more than mixed ones
        tensor(0., dtype=torch.float64)
        >>> transrate(points, labels, class_centred=True)          # log(1 + 1 / eps) / 2
        tensor(4.6052, dtype=torch.float64)

    Reference: Huang et al. 2022, https://proceedings.mlr.press/v162/huang22d.html.

    Variant: classes weigh as many samples as they have, as the paper's conditional rate does. Its listing, and public
    code after it, takes the plain mean over classes instead, which for unequal classes can be negative; weighted, the
    score cannot, because the logarithm of the determinant is concave. Without `class_centred` only second moments
    about the common mean count, so that two balanced classes at opposite points score exactly 0, however far apart:
    that is the paper's score, and centring each class is ours. Dual form: the smaller of Z^T Z and Z Z^T, so a
    class costs its samples times k times the smaller of both.
    """
    if not 0 < eps < float("inf"):
        raise ValueError(f"eps must be above 0 and finite, got {eps}; the usual value is 1e-4")
    data = labelled(features, labels)
    z = data.features - data.features.mean(0)
    within = torch.zeros((), dtype=torch.float64, device=z.device)
    for part in z[data.labels.argsort()].split(data.counts.tolist()):
        own = part - part.mean(0) if class_centred else part
        within += len(part) / len(z) * coding_rate(own, eps)
    return (coding_rate(z, eps) - within).clamp_min(0)  # below 0 by round-off alone


def coding_rate(z: Tensor, eps: float) -> Tensor:
    r"""Nats a sample that a code for the rows of z needs: half the log determinant of I + Z^T Z / (m eps).

    Args:
        z: [m, k], float64; not centred here.
        eps: Squared distortion, above 0, in the unit of z squared.

    Returns:
        A scalar, float64, in nats, not negative.

    Example:
        >>> coding_rate(torch.tensor([[3.0], [-3.0]], dtype=torch.float64), 1.0)   # log(1 + 9) / 2
        tensor(1.1513, dtype=torch.float64)

    Reference: Ma et al. 2007, https://doi.org/10.1109/TPAMI.2007.1085. More samples than features are coded through
    Z^T Z, others through Z Z^T; the determinant is the same.
    """
    share = len(z) * eps
    if z.square().sum() / share > CONDITION:
        # Squaring would blur what is small beside the largest direction, though not small beside eps.
        values = torch.linalg.svdvals(torch.linalg.qr(z if len(z) > z.shape[1] else z.mT, mode="r").R)
        log_ratio = 2 * values.log() - torch.as_tensor(share, dtype=z.dtype).log()
        return torch.logaddexp(log_ratio, torch.zeros_like(log_ratio)).sum() / 2
    gram = (z.mT @ z if len(z) > z.shape[1] else z @ z.mT) / share
    gram.diagonal().add_(1)
    return torch.linalg.cholesky(gram).diagonal().log().sum()
