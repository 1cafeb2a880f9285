"""Priors with a variance for every layer: empirical Bayes finds them, whitening turns them into variance 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leap.metrics.checks import matrix_of, positive, vector_of
from leap.metrics.curvature import gram

TOLERANCE = 1e-12  # of the logarithm of a variance
ITERATIONS = 200  # each at least halves the error


def prior_variances(weight: Tensor, factor: Tensor, sizes: Sequence[int], *, beta: float) -> Tensor:
    r"""Variances of the layers' priors by empirical Bayes: those for which the complexity is smallest.

    .. math:: \lambda_l^2 = \frac{\|w_l\|^2 + \mathrm{tr}\, \Sigma^*_l}{K_l}
              \iff \lambda_l^2 = \frac{\|w_l\|^2}{\gamma_l}, \quad
              \gamma_l = \lambda_l^2\, \mathrm{tr} \left[ (\beta I + \textstyle\sum_k \lambda_k^2 G_k)^{-1} G_l \right]

    with the Gram matrices `G_l = B_l B_l^T` of a layer's columns; gamma_l counts the weights that the data determine.

    Args:
        weight: w_0 [K].
        factor: B [r, K] with `B^T B` the summed curvature (times N / n: multiply the rows by its root).
        sizes: Widths K_l of the layers, in order, K in all.
        beta: Price of a nat.

    Returns:
        Variances [L], float64. Compute them once, on a reference task, and keep them: tasks are comparable under one
        prior, and a bound needs a prior that has not seen the data.

    Raises:
        TypeError: not tensors of floating-point numbers.
        ValueError: sizes that do not add up, a layer of zeros (its best variance is 0) or one without curvature (it is
            infinite), beta not positive, values that are not finite.

    The first form, iterated as it stands, converges slowly where data determine few of the weights. Here the second is,
    half way in the logarithm. Its Jacobian is half a matrix of non-negative entries whose rows sum to less than one, so
    that the error at least halves every time, from any start, and the solution is unique.

    Example:
        >>> prior_variances(torch.tensor([2.0]), torch.tensor([[10.0]]), [1], beta=1.0)      # w^2 + 1 / h
        tensor([4.0100], dtype=torch.float64)

    `MacKay 1992 <https://doi.org/10.1162/neco.1992.4.3.448>`_.
    """
    weight, factor, beta = vector_of("weight", weight), matrix_of("factor", factor), positive("beta", beta)
    if sum(sizes) != len(weight) or factor.shape[1] != len(weight) or min(sizes, default=0) < 1:
        raise ValueError(
            f"sizes must be positive and add up to {len(weight)} weights and {factor.shape[1]} columns of the factor, "
            f"got {list(sizes)}"
        )
    norms = torch.stack([part.square().sum() for part in weight.split(list(sizes))])
    grams = torch.stack([gram(part) for part in factor.split(list(sizes), dim=1)])
    traces = grams.diagonal(dim1=1, dim2=2).sum(1)
    for name, value, limit in (("weights are all zero", norms, "0"), ("curvature is zero", traces, "infinite")):
        if bad := (value <= 0).nonzero().flatten().tolist():
            raise ValueError(f"layers {bad}: {name}, so the best variance is {limit}; join them with a neighbour")
    return _fixed_point(norms, grams, torch.tensor(list(sizes)).to(norms), beta)


def whiten(weight: Tensor, factor: Tensor, sizes: Sequence[int], variances: Tensor) -> tuple[Tensor, Tensor]:
    r"""Weights and factor in units of the layers' priors; both go to `complexity` with a prior variance of 1.

    .. math:: w_l / \lambda_l, \qquad B_l \lambda_l

    Args:
        weight: [K].
        factor: [r, K].
        sizes: Widths of the layers, K in all.
        variances: [L], positive.

    Returns:
        Weights [K] and factor [r, K], float64.

    Raises:
        TypeError, ValueError: as `prior_variances`, or variances that do not fit or are not positive.

    Example:
        >>> whiten(torch.ones(2), torch.ones(1, 2), [1, 1], torch.tensor([4.0, 1.0]))
        (tensor([0.5000, 1.0000], dtype=torch.float64), tensor([[2., 1.]], dtype=torch.float64))
    """
    weight, factor, variances = (
        vector_of("weight", weight),
        matrix_of("factor", factor),
        vector_of("variances", variances),
    )
    if len(variances) != len(sizes) or not float(variances.min()) > 0:
        raise ValueError(f"variances must be positive, one for each of {len(sizes)} layers, got {variances.tolist()}")
    if sum(sizes) != len(weight) or factor.shape[1] != len(weight):
        raise ValueError(f"sizes {list(sizes)} must add up to {len(weight)} weights and {factor.shape[1]} columns")
    deviations = variances.sqrt().repeat_interleave(torch.tensor(list(sizes), device=variances.device))
    return weight / deviations, factor * deviations


def _fixed_point(norms: Tensor, grams: Tensor, sizes: Tensor, beta: float) -> Tensor:
    logs = (norms / sizes).log()
    identity = beta * torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device)
    for _ in range(ITERATIONS):
        variances = logs.exp()
        lower = torch.linalg.cholesky(identity + (variances[:, None, None] * grams).sum(0))
        determined = variances * (torch.cholesky_inverse(lower) * grams).sum((1, 2))
        step = (norms.log() - determined.log() - logs) / 2
        logs = logs + step
        if float(step.abs().max()) < TOLERANCE:
            break
    return logs.exp()
