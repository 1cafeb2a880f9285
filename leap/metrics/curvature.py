"""Curvature of a classifier: the exact model Fisher through its factor, and the log-determinant on the cheaper side.

For softmax outputs the Fisher of the model equals the generalized Gauss-Newton matrix. Summed over n inputs it is
`H = sum_i J_i^T S_i J_i` with the Jacobian J_i [C, K] of the logits and the softmax covariance `S_i = diag p_i - p_i
p_i^T`. It is never negative, which the Hessian of a trained network is not, and its factor B, `H = B^T B`, has at most
n (C - 1) rows, so that determinants and spectra come from a Gram matrix of that size, however many weights there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap

from leap.metrics.checks import ROUND_OFF, Logits, as_double, matrix_of, nonnegative, positive, probabilities

CHUNK_NUMBERS = 2**20  # entries of the factor computed at once: beyond the caches larger chunks are slower
GRAM_ROWS = 512


class Estimate(NamedTuple):
    """A number and how far it may be trusted.

    Attributes:
        value: The estimate, a scalar in float64.
        standard_error: Of the random part, where there is one.
        bias: Which way the estimate errs beside that; "none" for exact and unbiased ones.
    """

    value: Tensor
    standard_error: Tensor | None
    bias: Literal["none", "upper", "lower"]


class Factor(NamedTuple):
    """A factor of the Fisher summed over inputs.

    Attributes:
        rows: B [r, K] in float64, `B^T B = H` up to what was dropped; rows stand in the order of the inputs.
        dropped_trace: Trace of what was dropped, a scalar; 0 where nothing was.
    """

    rows: Tensor
    dropped_trace: Tensor


def fisher_factor(
    logits: Logits,
    theta: Tensor,
    inputs: Tensor,
    *,
    dropped: float = 0.0,
    chunk: int | None = None,
    generator: torch.Generator | None = None,
) -> Factor:
    r"""Factor of the exact model Fisher, summed over the inputs.

    .. math:: H = \sum_{i=1}^n J_i^\top S_i J_i = B^\top B, \quad S_i = \mathrm{diag}(p_i) - p_i p_i^\top
              = \sum_k \lambda_{ik} u_{ik} u_{ik}^\top, \quad B_{(i,k)} = \sqrt{\lambda_{ik}}\, u_{ik}^\top J_i

    Args:
        logits: `(theta [K], inputs [n, ...]) -> [n, C]`, the row of an input depending on that input alone.
        theta: Weights [K].
        inputs: [n, ...], at least one.
        dropped: Largest share of the trace of each S_i to leave out, in [0, 1). The smallest eigenvalues go first. Each
            one kept costs a backward pass and a row; 0 keeps all C - 1 that can differ from zero.
        chunk: Inputs to differentiate at once; None chooses by size.
        generator: Signs of the probes that measure the dropped trace; None takes a fixed stream.

    Returns:
        The factor. With all dropped eigenvalues of an input folded into one random combination, `dropped_trace` is an
        unbiased estimate at one backward pass an input. For the exact trace t of what was dropped,
        `0 <= log|I + c H| - log|I + c B^T B| <= d log(1 + c t / d) <= c t`, with d the number of rows dropped. Where
        c H is large, small eigenvalues still count: a share of 0.01 can cost a third of a log-determinant.

    Raises:
        TypeError: theta is not a floating-point vector.
        ValueError: no inputs, values that are not finite, one class, `dropped` or `chunk` out of range, or logits that
            depend on other inputs, as with batch statistics.

    Computed in float64, whatever the dtype of theta; memory is r K numbers and little more.

    Example:
        >>> softmax_regression = lambda theta, x: x @ theta.view(2, 3)
        >>> factor = fisher_factor(softmax_regression, torch.zeros(6), torch.tensor([[1.0, 0.0]]))
        >>> factor.rows.shape, round(float(factor.rows.square().sum()), 6)      # tr S = 1 - 1/3
        (torch.Size([2, 6]), 0.666667)

    `Martens 2020 <https://arxiv.org/abs/1412.1193>`_, section 9, for Fisher and Gauss-Newton. The label distribution is
    the model's, not the data set's: this is not the "empirical Fisher".
    """
    theta, inputs = as_double(theta, inputs)
    roots = _roots(probabilities(logits, theta, inputs), dropped, generator)
    rows = torch.empty(int(roots.counts.sum()), len(theta), dtype=torch.float64, device=theta.device)
    start, trace = roots.counts.cumsum(0) - roots.counts, theta.new_zeros(())
    for piece in _pieces(logits, theta, inputs, roots, chunk):
        for i, block in zip(piece.which.tolist(), piece.rows, strict=True):
            rows[int(start[i]) : int(start[i] + roots.counts[i])] = block[: int(roots.counts[i])]
        trace += piece.dropped
    return Factor(rows, trace)


def gram(factor: Tensor) -> Tensor:
    r"""Gram matrix of a factor's rows, which has the Fisher's eigenvalues other than zero.

    .. math:: G = B B^\top

    Args:
        factor: B [r, K].

    Returns:
        [r, r], float64, symmetric to the last bit.

    Raises:
        TypeError: not a matrix of floating-point numbers.
        ValueError: no rows, or values that are not finite.

    Example:
        >>> gram(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        tensor([[5., 2.],
                [2., 1.]], dtype=torch.float64)
    """
    rows = matrix_of("factor", factor)
    out = rows.new_empty(len(rows), len(rows))
    for i in range(0, len(rows), GRAM_ROWS):  # only one triangle: half the work of rows @ rows.T
        block = rows[i : i + GRAM_ROWS] @ rows[i:].T
        out[i : i + GRAM_ROWS, i:] = block
        out[i:, i : i + GRAM_ROWS] = block.T
    return out


def tagged_gram(factors: Sequence[Tensor], shared: int) -> Tensor:
    r"""Gram matrix of the tagged union of tasks: one trunk for all, a head for each.

    .. math:: G_{st} = B_s^{(:m)} B_t^{(:m)\top} \ (s \ne t), \qquad G_{tt} = B_t B_t^\top

    Args:
        factors: One factor [r_t, K_t] a task, its first `shared` columns belonging to the trunk.
        shared: m, the trunk's number of weights.

    Returns:
        [r, r] in float64, r the sum of the r_t; its eigenvalues are those of the union's Fisher at `[trunk | head_1 |
        head_2 | ...]`, which is never built.

    Raises:
        ValueError: no factors, `shared` negative or beyond a factor's width, or values that are not finite.

    Example:
        >>> first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
        >>> tagged_gram([first, second], shared=1)
        tensor([[ 5.,  3.],
                [ 3., 34.]], dtype=torch.float64)

    The disjoint union of `Achille et al. 2019 <https://arxiv.org/abs/1904.03292>`_, where an input carries the name of
    its data set.
    """
    rows = [matrix_of(f"factor {t}", factor) for t, factor in enumerate(factors)]
    if not rows:
        raise ValueError("a union needs at least one factor, got none")
    narrow = min(len(factor[0]) for factor in rows)
    if not 0 <= shared <= narrow:
        raise ValueError(f"shared must lie between 0 and the narrowest factor's {narrow} columns, got {shared}")
    blocks = [
        [gram(a) if s == t else a[:, :shared] @ b[:, :shared].T for t, b in enumerate(rows)] for s, a in enumerate(rows)
    ]
    return torch.cat([torch.cat(line, dim=1) for line in blocks])


def spectrum(matrix: Tensor) -> Tensor:
    """Eigenvalues of a Gram matrix or of any symmetric matrix without negative ones.

    Args:
        matrix: [r, r], symmetric.

    Returns:
        Eigenvalues [r], ascending, float64; round-off below zero is set to zero.

    Raises:
        ValueError: not square, not symmetric, not finite, or an eigenvalue below -1e-8 of the largest, which round-off
            does not explain: a Hessian has those, and its log-determinant means nothing.

    Example:
        >>> spectrum(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        tensor([1., 3.], dtype=torch.float64)
    """
    matrix = matrix_of("matrix", matrix)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, got shape {tuple(matrix.shape)}; pass gram(factor), not the factor")
    scale = float(matrix.abs().max())
    if float((matrix - matrix.T).abs().max()) > ROUND_OFF * scale:
        raise ValueError("matrix must be symmetric; (A + A^T) / 2 is, if that is what is meant")
    return nonnegative(torch.linalg.eigvalsh(matrix))


def logdet_identity_plus(factor: Tensor, scale: float | Tensor) -> Tensor:
    r"""Log-determinant of the identity plus a scaled curvature, on the cheaper side.

    .. math:: \log |I_K + c\, B^\top B| = \log |I_m + c\, B B^\top|

    Args:
        factor: B [m, K]; the smaller of the two dimensions decides which side is computed.
        scale: c > 0. For complexity it is `lambda^2 / beta`, times N / n where n of N samples made the factor.

    Returns:
        A scalar in float64, at least 0.

    Raises:
        TypeError: not a matrix of floating-point numbers.
        ValueError: no rows, values that are not finite, or a scale that is not positive and finite.

    Example:
        >>> logdet_identity_plus(torch.tensor([[3.0, 0.0, 0.0]]), 1.0)      # log(1 + 9)
        tensor(2.3026, dtype=torch.float64)
    """
    rows, scale = matrix_of("factor", factor), positive("scale", scale)
    small = gram(rows) if len(rows) <= rows.shape[1] else gram(rows.T)
    return logdet_of_gram(small, scale)


def logdet_of_gram(matrix: Tensor, scale: float) -> Tensor:
    """`log|I + scale G|` of a Gram matrix [r, r], such as that of a union; errors as `logdet_identity_plus`.

    Example:
        >>> logdet_of_gram(torch.diag(torch.tensor([9.0, 0.0])), 1.0)
        tensor(2.3026, dtype=torch.float64)
    """
    matrix, scale = matrix_of("matrix", matrix), positive("scale", scale)
    lower, failed = torch.linalg.cholesky_ex(
        torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device) + scale * matrix
    )
    if int(failed):  # the round-off of a huge scale * G swallowed the identity
        return torch.log1p(scale * spectrum(matrix)).sum()
    return 2 * lower.diagonal().log().sum()


def softmax_roots(probs: Tensor) -> Tensor:
    """Scaled eigenvectors of `diag p - p p^T`, [n, C, C]: columns c_k, largest first, `sum_k c_k c_k^T` the matrix.

    The last column is zero but for round-off: probabilities add up to one.
    """
    values, vectors = torch.linalg.eigh(torch.diag_embed(probs) - probs[:, :, None] * probs[:, None, :])
    return (vectors * values.clamp_min(0.0).sqrt()[:, None, :]).flip(-1)


class _Roots(NamedTuple):
    columns: Tensor  # [n, C, C]  sqrt(eigenvalue) * eigenvector of each softmax covariance, largest first
    counts: Tensor  # [n]        how many of them are kept
    probe: Tensor  # [n, C]     random-sign sum of the others
    drops: bool


class _Piece(NamedTuple):
    which: Tensor  # [b]  positions of the inputs
    rows: Tensor  # [b, q, K]  their rows; those beyond an input's own count are to be ignored
    dropped: Tensor  # scalar


def _roots(probs: Tensor, dropped: float, generator: torch.Generator | None) -> _Roots:
    if not 0 <= dropped < 1:
        raise ValueError(f"dropped is a share of the trace in [0, 1), got {dropped}; 0 is exact")
    n, classes = probs.shape
    columns = softmax_roots(probs)
    values = columns.square().sum(1)
    left = values.sum(1, keepdim=True) - values.cumsum(1)  # trace left out when the first k are kept
    counts = (left > dropped * values.sum(1, keepdim=True)).sum(1) + 1
    counts = counts.clamp(1, classes - 1) if dropped > 0 else torch.full_like(counts, classes - 1)
    stream = torch.Generator().manual_seed(0) if generator is None else generator
    signs = torch.randint(0, 2, (n, classes), generator=stream).to(probs) * 2 - 1
    others = torch.arange(classes, device=probs.device) >= counts[:, None]
    return _Roots(columns, counts, (columns * (signs * others)[:, None, :]).sum(2), dropped > 0)


def _pieces(logits: Logits, theta: Tensor, inputs: Tensor, roots: _Roots, chunk: int | None) -> Iterator[_Piece]:
    """Rows of the factor, some inputs at a time; inputs that need equally many rows go together."""

    def rows_of(x: Tensor, cotangents: Tensor) -> Tensor:
        out = vjp(lambda weights: logits(weights, x[None])[0], theta)
        return vmap(lambda u: out[1](u)[0])(cotangents.to(out[0])).double()

    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}; None chooses by size")
    order = roots.counts.argsort(stable=True)
    size = chunk or max(1, CHUNK_NUMBERS // (len(theta) * int(roots.counts.max())))
    for which in order.split(size):
        count = int(roots.counts[which].max())
        cotangents = roots.columns[which, :, :count].mT
        if roots.drops:
            cotangents = torch.cat([cotangents, roots.probe[which, None]], dim=1)
        rows = vmap(rows_of)(inputs[which], cotangents)
        yield _Piece(which, rows[:, :count], rows[:, count:].square().sum())
