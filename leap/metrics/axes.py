"""Principal axes of features and where labels lie on them: the one factorization behind H-score and LogME."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 2**24  # float64 numbers that are held together, 128 MiB; with fewer, threads wait for each other more often
SHARE = 8  # blocks at least, so that one is small beside the features
PIECE = 2**20  # the same where every number is looked at once
LARGEST = 1e300  # of a number: sums over samples have to fit as well
PANEL = 128  # columns that are eliminated together; the rest is matrix products


class Axes(NamedTuple):
    """A singular value decomposition Z = U S V^T as far as labels meet it: V is not formed, nor U."""

    values: Tensor  # [p]          S, descending, p = min(m, k); [0] where only the span was asked for
    coordinates: Tensor  # [p, c]  U^T targets
    residuals: Tensor  # [c]       squared length of what the first `rank` axes leave of each target
    concentration: Tensor  # []    sum_i |z_i|^4 / (sum_i |z_i|^2)^2
    rank: int  # values above max(m, k) eps S_0
    samples: int  # m
    columns: int  # k


def axes(features: Tensor, targets: Tensor, *, centre: bool, span: bool = False) -> Axes:
    r"""Singular values of features and the coordinates of targets on their left singular vectors.

    .. math:: [Z \mid Y] = Q \begin{pmatrix} R & B \\ 0 & C \end{pmatrix}, \quad R = \tilde U S V^\top
              \quad\Rightarrow\quad U^\top Y = \tilde U^\top B, \quad |Y_j - Q_1 Q_1^\top Y_j| = |C_j|

    Args:
        features: Z, [m, k], finite, any real type; converted block by block, so that no copy of it is made.
        targets: Y, [m, c] on the same device, any real type or bool.
        centre: Subtract from every column of both its mean over all samples.
        span: Only the space that the axes span is of interest. Where the features are certainly of rank k, the
            singular values are then left out, and coordinates are those on another orthonormal basis of the space.

    Returns:
        The axes, in float64. Columns of Z that are constant (with `centre`) or zero (without) are exactly so here and
        add a zero singular value. Singular values at or below max(m, k) eps S_0 are round-off: `rank` leaves them
        out, and their share of a target is part of its residual.

    Raises:
        ValueError: features that are all the same (without `centre`: all zero), or differ by 1e300.

    Example:
        >>> z = torch.tensor([[3.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
        >>> found = axes(z, torch.eye(4), centre=True)
        >>> found.values, found.rank                    # the second column is constant
        (tensor([2.4495, 0.0000], dtype=torch.float64), 1)
        >>> found.residuals.sum()                       # of the 3 dimensions that centring leaves, one is an axis
        tensor(2., dtype=torch.float64)

    Reference: Golub & Van Loan 2013, Matrix Computations, 5.2 and 5.4, for the triangle first and the singular values
    of the triangle after; Demmel et al. 2012, https://arxiv.org/abs/0808.2664, for blocks of rows, here absorbed one
    after the other; Joffrain et al. 2006, https://doi.org/10.1145/1141885.1141886, for the products of reflections.

    Householder reflections are backward stable, unlike the Gram matrix Z^T Z, which loses singular values below 1e-8
    of the largest; standing beside Z in the same factorization, the targets are rotated without Q. Where m < k the
    triangle is that of Z^T, [m, m]. O(m k (k + c)) work, O(k^2 + block) memory beyond the features.
    """
    features, targets = features.detach(), targets.detach()
    (m, k), frame = features.shape, _frame(features, centre)
    middle = _mean(targets) if centre else torch.zeros(targets.shape[1], dtype=torch.float64, device=targets.device)
    found = (_tall if m >= k else _wide)(features, targets, frame, middle)
    round_off, most = max(m, k) * torch.finfo(torch.float64).eps, min(k, m - 1 if centre else m)
    if span and most == k and _full(found.square, round_off):
        values, coordinates, rank = found.square[0, :0], found.targets, k
    else:
        u, values, _ = torch.linalg.svd(found.square)
        coordinates, rank = u.mT @ found.targets, min(most, int((values > round_off * values[0]).sum()))  # CPU-GPU sync
    residuals = found.outside + coordinates[rank:].square().sum(0)
    concentration = found.lengths.square().sum() / found.lengths.sum().square()
    return Axes(values * frame.scale, coordinates, residuals, concentration, rank, m, k)


class _Frame(NamedTuple):
    """How columns are centred and scaled, one entry a column."""

    first: Tensor  # [k]  the first sample: what is constant is zero without it, which a rounded mean does not ensure
    mean: Tensor  # [k]   of what is left
    scale: float  # a power of two, so that squares of squares are neither 0 nor infinite

    def fill(self, rows: Tensor, part: Tensor, columns: slice = slice(None)) -> Tensor:
        """Rows of float64 with some rows and columns of the features in this frame."""
        return rows.copy_(part).sub_(self.first[columns]).sub_(self.mean[columns]).div_(self.scale)


def _frame(features: Tensor, centre: bool) -> _Frame:
    first, largest = features[0].to(torch.float64), 0.0
    if not centre:
        first = torch.zeros_like(first)
    total = torch.zeros_like(first)
    for part in features.split(_rows(features.shape[1], PIECE)):
        shifted = part.to(torch.float64) - first
        largest = max(largest, *(abs(float(end)) for end in torch.aminmax(shifted)))  # CPU-GPU sync
        if centre:
            total += torch.ones(len(part), dtype=torch.float64, device=total.device) @ shifted
    if not 0 < largest < LARGEST:
        raise ValueError(f"features must differ by more than 0 and less than {LARGEST:g}, got {largest:g}; scale them")
    return _Frame(first, total / len(features), 2.0 ** (math.frexp(largest)[1] - 1))


class _Reduced(NamedTuple):
    """Features and targets in a basis of p directions, which holds the features and part of the targets."""

    square: Tensor  # [p, p]
    targets: Tensor  # [p, c]
    outside: Tensor  # [c]  squared length of the targets outside the basis
    lengths: Tensor  # [m]  |z_i|^2


def _tall(features: Tensor, targets: Tensor, frame: _Frame, middle: Tensor) -> _Reduced:
    """Where m >= k: R of the features and the targets beside them, both multiplied by Q^T."""
    (m, k), width = features.shape, features.shape[1] + targets.shape[1]
    triangle = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    size, lengths = _block(m, width), []
    space = torch.empty(size, width, dtype=torch.float64, device=features.device)  # one: freed ones are not all reused
    for part, wanted in zip(features.split(size), targets.split(size), strict=True):
        rows = space[: len(part)]
        lengths.append(torch.linalg.vector_norm(frame.fill(rows[:, :k], part), dim=1).square())
        rows[:, k:].copy_(wanted).sub_(middle)
        _absorb(triangle, rows)
    return _Reduced(triangle[:k, :k], triangle[:k, k:], triangle[k:, k:].square().sum(0), torch.cat(lengths))


def _wide(features: Tensor, targets: Tensor, frame: _Frame, middle: Tensor) -> _Reduced:
    """Where m < k: R^T of the transposed features; the targets as they are, and nothing of them is outside."""
    m, k = features.shape
    triangle = torch.zeros(m, m, dtype=torch.float64, device=features.device)
    size, lengths = _block(k, m), torch.zeros(m, dtype=torch.float64, device=features.device)
    space = torch.empty(size, m, dtype=torch.float64, device=features.device)
    for start in range(0, k, size):
        columns = slice(start, min(start + size, k))
        rows = space[: columns.stop - start]
        frame.fill(rows.mT, features[:, columns], columns)
        lengths += rows.square().sum(0)
        _absorb(triangle, rows)
    return _Reduced(triangle.mT, targets.to(torch.float64) - middle, torch.zeros_like(middle), lengths)


def _full(triangle: Tensor, round_off: float) -> bool:
    """Whether all singular values are above round-off for certain: the least is at least 1 / |R^-1|_F."""
    identity = torch.eye(len(triangle), dtype=triangle.dtype, device=triangle.device)
    inverse = torch.linalg.solve_triangular(triangle, identity, upper=True)
    return bool(1 / inverse.norm() > 2 * round_off * triangle.norm())  # CPU-GPU sync; not so for 1 / 0 and NaN


def _absorb(triangle: Tensor, rows: Tensor) -> None:
    """Make of a triangle [w, w] that of itself on top of rows [b, w]; rows are overwritten.

    Reflections of a panel leave the triangle's other rows alone, so they are I - V T V^T with V = [I; below], where
    T^-1 is the upper part of V^T V.
    """
    for start in range(0, len(triangle), PANEL):
        own, rest = slice(start, start + PANEL), slice(start + PANEL, None)
        corner = triangle[own, own]
        reflectors, factors = torch.geqrf(torch.cat([corner, rows[:, own]]))
        corner.copy_(reflectors[: len(corner)].triu())
        below, idle = reflectors[len(corner) :], factors == 0  # idle: the column was zero, nothing is reflected
        inverse = (below.mT @ below).triu(1)
        inverse.diagonal().copy_(torch.where(idle, 1.0, 1 / factors))
        moved = torch.addmm(triangle[own, rest], below.mT, rows[:, rest])
        moved = torch.linalg.solve_triangular(inverse.mT, moved, upper=False)
        moved[idle] = 0
        triangle[own, rest] -= moved
        rows[:, rest].addmm_(below, moved, alpha=-1)


def _block(count: int, width: int) -> int:
    """How many of so many rows of a width are absorbed together."""
    return min(_rows(width, BLOCK), max(-(-count // SHARE), 4 * PANEL))


def _rows(width: int, numbers: int) -> int:
    """Rows of a width that hold so many numbers."""
    return max(1, numbers // width)


def _mean(targets: Tensor) -> Tensor:
    total = torch.zeros(targets.shape[1], dtype=torch.float64, device=targets.device)
    for part in targets.split(_rows(targets.shape[1], PIECE)):
        total += part.to(torch.float64).sum(0)
    return total / len(targets)
