"""SFDA: how sure a regularised linear discriminant stays of the classes once its doubtful samples are made harder."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from leap.metrics.labelled import Labelled, labelled

STRENGTH = 5.0  # the paper's a, in 1 / the features' unit squared
LEAST = 1e-10  # shrinkage, at least
ROUND_OFF = 1e-16  # variance within classes beside the total, below which it is none


def sfda(features: Any, labels: Any, *, log: bool = False) -> Tensor:
    r"""Self-challenging Fisher discriminant analysis.

    .. math:: \frac1m \sum_i p'(y_i \mid x'_i), \qquad
              x'_i = p(y_i \mid x_i)\, x_i + (1 - p(y_i \mid x_i))\, \bar\mu_{-y_i}

    p is linear discriminant analysis with shrunk covariance within classes, fitted to the samples; x' moves a sample
    it doubts to the mean of the other classes' means; p' is fitted to x', with the same shrinkage:

    .. math:: p(c \mid x) \propto \pi_c\, e^{-\frac12 (x - \mu_c)^\top \tilde S_W^{-1} (x - \mu_c)}, \quad
              \tilde S_W = (1 - \lambda) S_W + \lambda \frac{\mathrm{tr} S_W}{k} I, \quad
              \lambda = \max(e^{-5 \sigma_{max}(S_W)}, 10^{-10})

    Args:
        features: x, [m, k].
        labels: Class of each sample, [m].
        log: Mean of log p' in nats instead of the mean of p', which is the paper's. It tells candidates apart where all
            probabilities round to 1, and minds single failures more.

    Returns:
        A scalar, float64: a mean probability in [0, 1], or at most 0 nats with `log`; larger where features transfer
        better. Unchanged by rotations and shifts of the features; a factor of the features changes the shrinkage
        and so the score.

    Raises:
        ValueError: as `labelled`.

    Example:
        >>> x = torch.tensor([[-3.0], [-2.0], [-1.0], [1.0], [2.0], [3.0]])
        >>> sfda(x, [0, 0, 0, 1, 1, 1])
        tensor(0.9991, dtype=torch.float64)
        >>> sfda(x, [0, 0, 1, 0, 1, 1])
        tensor(0.6417, dtype=torch.float64)
        >>> sfda(x, [0, 1, 1, 0, 0, 1])                            # classes of one mean
        tensor(0.5000, dtype=torch.float64)

    Reference: Shao et al. 2022, https://arxiv.org/abs/2207.03036, and its released code, whose shrinkage this is.

    Variant: the released code takes a second softmax of p before mixing, which leaves at most e / (e + C - 1) of a
    sample, however sure the discriminant is of it; here p itself mixes, as the formula says. The features are not
    changed, where the released code writes the mixed samples over its caller's. The largest eigenvalue is exact: three
    power iterations from the sums of rows divide zero by zero where these vanish, as they do for the two
    probabilities of a binary source. Classes without variance within them are discriminated without doubt
    where their means differ. With fewer samples than features, discriminants fit any labels and the score is near 1,
    which `log` may still tell apart: reduce the features first, or probe on held-out samples.
    """
    data = labelled(features, labels)
    x, size = _in_their_span(data.features)
    k = data.features.shape[1]
    spread = float(torch.linalg.eigvalsh(_covariance_within(x, data))[-1].clamp_min(0))
    shrinkage = max(math.exp(-STRENGTH * spread * size * size), LEAST)
    p = _log_posterior(x, data, k, shrinkage).exp()
    means = _means(x, data)
    others = (means.sum(0) - means) / (data.classes - 1)
    x = torch.lerp(others[data.labels], x, p[:, None])
    found = _log_posterior(x, data, k, shrinkage)
    return found.mean() if log else found.exp().mean()


def _in_their_span(features: Tensor) -> tuple[Tensor, float]:
    """Centred samples [m, min(m, k)] of size 1, rotated so that no direction is empty, and their size."""
    x = features - features.mean(0)
    size = float(x.abs().max())
    x = x / size
    return x if len(x) > x.shape[1] else torch.linalg.qr(x.mT, mode="r").R.mT, size


def _means(x: Tensor, data: Labelled) -> Tensor:
    return x.new_zeros(data.classes, x.shape[1]).index_add(0, data.labels, x) / data.counts[:, None]


def _covariance_within(x: Tensor, data: Labelled) -> Tensor:
    rest = x - _means(x, data)[data.labels]
    return rest.mT @ rest / len(x)


def _log_posterior(x: Tensor, data: Labelled, k: int, shrinkage: float) -> Tensor:
    """Log probability [m] of each sample's own class; k columns, of which x may leave out empty ones."""
    within, means = _covariance_within(x, data), _means(x, data)
    total = (x - x.mean(0)).square().sum() / len(x)
    least = (ROUND_OFF * total).clamp_min(torch.finfo(x.dtype).tiny)
    shrunk = (1 - shrinkage) * within
    shrunk.diagonal().add_(torch.maximum(shrinkage * within.trace(), least) / k)
    root = torch.linalg.cholesky(shrunk)
    middle = means.mean(0)
    fisher = torch.linalg.qr(torch.linalg.solve_triangular(root, (means - middle).mT, upper=False)).Q
    onto = torch.linalg.solve_triangular(root.mT, fisher, upper=True)  # [., C]: what else there is, classes share
    points, centres = (x - middle) @ onto, (means - middle) @ onto
    # Differences first: expanded squares would lose the classes beside a far origin.
    apart = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")
    scores = data.counts.to(x.dtype).log() - apart.square() / 2
    own = data.labels[:, None]
    odds = scores.scatter(1, own, -math.inf).logsumexp(1) - scores.gather(1, own).squeeze(1)  # of the other classes
    return -torch.logaddexp(odds, torch.zeros_like(odds))  # keeps doubts that a softmax would round away
