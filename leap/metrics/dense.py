"""Curvature as a whole matrix, for networks of at most a few thousand weights: what the other estimates are held to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jacrev, vmap
from torch.nn import functional as F

from leap.metrics.checks import Logits, as_double, matrix_of, positive, probabilities, vector_of
from leap.metrics.curvature import Estimate, logdet_identity_plus, spectrum


def fisher_matrix(logits: Logits, theta: Tensor, inputs: Tensor) -> Tensor:
    r"""Exact model Fisher, summed over the inputs; the generalized Gauss-Newton matrix of the cross-entropy.

    .. math:: H = \sum_i J_i^\top (\mathrm{diag}(p_i) - p_i p_i^\top) J_i

    Args:
        logits: `(theta [K], inputs [n, ...]) -> [n, C]`, row i from input i alone.
        theta: Weights [K]. Memory is K^2 and n C K numbers.
        inputs: [n, ...].

    Returns:
        [K, K], float64, no eigenvalue below zero.

    Raises:
        TypeError, ValueError: as `leap.metrics.curvature.fisher_factor`.

    Example:
        >>> fisher_matrix(lambda theta, x: x @ theta.view(1, 2), torch.zeros(2), torch.tensor([[2.0]]))
        tensor([[ 1., -1.],
                [-1.,  1.]], dtype=torch.float64)
    """
    theta, inputs = as_double(theta, inputs)
    probs = probabilities(logits, theta, inputs)
    jacobian = vmap(jacrev(lambda weights, x: logits(weights, x[None])[0]), in_dims=(None, 0))(theta, inputs).double()
    mean = torch.einsum("nc,nck->nk", probs, jacobian)
    return torch.einsum("nc,nck,ncl->kl", probs, jacobian, jacobian) - mean.T @ mean


def hessian_matrix(logits: Logits, theta: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    r"""Exact Hessian of the summed cross-entropy, for comparison.

    .. math:: \nabla^2 L = H + \sum_{i,c} (p_{ic} - [y_i = c])\, \nabla^2 z_{ic}

    Args:
        logits: As in `fisher_matrix`.
        theta: Weights [K].
        inputs: [n, ...].
        labels: [n], 0 to C - 1.

    Returns:
        [K, K], float64, symmetric. Equal to the Fisher for models linear in theta; for others it has negative
        eigenvalues even at a minimum with weight decay, so that no log-determinant is taken of it here.

    Raises:
        TypeError, ValueError: as `fisher_matrix`, or labels that do not fit.

    Example:
        >>> hessian_matrix(lambda theta, x: x @ theta.view(1, 2), torch.zeros(2), torch.ones(1, 1), torch.tensor([0]))
        tensor([[ 0.2500, -0.2500],
                [-0.2500,  0.2500]], dtype=torch.float64)
    """
    theta, inputs = as_double(theta, inputs)
    classes = probabilities(logits, theta, inputs).shape[1]
    if labels.shape != (len(inputs),) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"labels must be [{len(inputs)}] within 0 to {classes - 1}, got shape {tuple(labels.shape)}")
    loss = lambda weights: F.cross_entropy(logits(weights, inputs), labels.long(), reduction="sum")  # noqa: E731
    out = jacrev(jacrev(loss))(theta)  # torch's own Hessian imports its forward mode, which warns of what it imports
    return (out + out.T) / 2


def logdet_dense(matrix: Tensor, scale: float) -> Estimate:
    """`log|I + scale H|` from the Fisher matrix itself [K, K]: the oracle of the other estimates, exact.

    Raises:
        TypeError, ValueError: not a square symmetric matrix, a negative eigenvalue, or a scale that is not positive.

    Example:
        >>> logdet_dense(torch.diag(torch.tensor([9.0, 0.0])), 1.0).value
        tensor(2.3026, dtype=torch.float64)
    """
    return Estimate(torch.log1p(positive("scale", scale) * spectrum(matrix)).sum(), None, "none")


def logdet_blocks(factor: Tensor, sizes: Sequence[int], scale: float) -> Estimate:
    r"""Sum of the log-determinants of diagonal blocks, such as layers: couplings between them are dropped.

    .. math:: \sum_l \log |I + c\, H_{ll}| \ge \log |I + c\, H|

    Args:
        factor: B [r, K] of `fisher_factor`.
        sizes: Widths of the blocks, in order, K in all.
        scale: c > 0.

    Returns:
        An upper bound (Fischer's inequality), nats.

    Raises:
        TypeError, ValueError: as `logdet_identity_plus`, or sizes that do not make up K.

    Example:
        >>> logdet_blocks(torch.tensor([[1.0, 1.0]]), [1, 1], 1.0).value            # 2 log 2, where log 3 is exact
        tensor(1.3863, dtype=torch.float64)
    """
    factor = matrix_of("factor", factor)
    if sum(sizes) != factor.shape[1] or min(sizes, default=0) < 1:
        raise ValueError(f"sizes must be positive and add up to {factor.shape[1]} columns, got {list(sizes)}")
    parts = [logdet_identity_plus(block, scale) for block in factor.split(list(sizes), dim=1)]
    return Estimate(torch.stack(parts).sum(), None, "upper")


def logdet_diagonal(diagonal: Tensor, scale: float) -> Estimate:
    r"""Log-determinant with the Fisher's diagonal alone.

    .. math:: \sum_k \log(1 + c\, H_{kk}) \ge \log |I + c\, H|

    Args:
        diagonal: [K], of the summed Fisher: `rows.square().sum(0)` of a factor, or N times a mean diagonal.
        scale: c > 0.

    Returns:
        An upper bound (Hadamard's inequality) if the diagonal is exact, nats.

    Raises:
        TypeError, ValueError: not a vector, negative or not finite, or a scale that is not positive.

    Example:
        >>> logdet_diagonal(torch.ones(2), 1.0).value
        tensor(1.3863, dtype=torch.float64)
    """
    values = vector_of("diagonal", diagonal)
    if float(values.min()) < 0:
        raise ValueError(f"a Fisher's diagonal is not negative, got {float(values.min()):.3g}")
    return Estimate(torch.log1p(positive("scale", scale) * values).sum(), None, "upper")
