"""Weights drawn from the Gaussian that a complexity is about."""

from __future__ import annotations

import torch
from torch import Tensor

from leap.metrics.checks import matrix_of, positive, vector_of
from leap.metrics.curvature import gram


def posterior_draws(
    weight: Tensor, factor: Tensor, *, beta: float, prior_variance: float, count: int, generator: torch.Generator
) -> Tensor:
    r"""Draws from the post-distribution whose information `leap.metrics.complexity.complexity` counts.

    .. math:: w \sim N(w_0, \Sigma^*), \quad \Sigma^* = \beta \Big( B^\top B + \frac{\beta}{\lambda^2} I \Big)^{-1}
              = \lambda^2 \Big( I + \frac{\lambda^2}{\beta} B^\top B \Big)^{-1}

    Args:
        weight: w_0 [K].
        factor: B [r, K], of the summed curvature.
        beta: Price of a nat.
        prior_variance: lambda^2.
        count: Number of draws.
        generator: Where they come from.

    Returns:
        [count, K] in float64. Directions that the curvature does not see keep the prior's variance.

    Raises:
        TypeError, ValueError: shapes that do not fit, values that are not finite, a price, variance or count that is
            not positive.

    The square root is taken on the side of the rows, with `B B^T = U diag(g) U^T` and `s = lambda^2 g / beta`:
    `lambda (e - B^T U diag((1 - (1 + s)^{-1/2}) / g) U^T B e)` for standard normal e.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> stiff = torch.tensor([[1e6, 0.0]])                                     # the first weight is known
        >>> w = posterior_draws(torch.ones(2), stiff, beta=1.0, prior_variance=1.0, count=1000, generator=draw)
        >>> bool(w[:, 0].std() < 1e-5), round(float(w[:, 1].std()), 1)
        (True, 1.0)

    `Achille, Mbeng and Soatto 2018 <https://arxiv.org/abs/1810.02440>`_, equation 2, with the constants that minimize
    the expected second-order loss plus beta KL.
    """
    centre, rows = vector_of("weight", weight), matrix_of("factor", factor)
    if rows.shape[1] != len(centre):
        raise ValueError(f"factor must have {len(centre)} columns, one a weight, got {tuple(rows.shape)}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    variance = positive("prior_variance", prior_variance)
    signal, basis = torch.linalg.eigh(gram(rows))
    signal = signal.clamp_min(0)
    root = (1 + variance / positive("beta", beta) * signal).rsqrt()
    shrink = torch.where(signal > 0, (1 - root) / signal.clamp_min(torch.finfo(signal.dtype).tiny), 0.0)
    noise = torch.randn(count, len(centre), generator=generator, dtype=torch.float64).to(centre.device)
    seen = noise @ rows.T @ basis  # [count, r]
    return centre + variance**0.5 * (noise - (seen * shrink) @ basis.T @ rows)
