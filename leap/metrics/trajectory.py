"""Where walks went: some points of each, and the plane that shows most of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leap.walk import End, Fold, Step

COLUMNS = 8192  # of the points that are taken to float64 at a time


class _Kept(NamedTuple):
    number: int  # of steps seen
    stride: int
    points: tuple[Tensor, ...]  # [T, m] each, on the CPU: theta^0, theta^stride, theta^{2 stride} ...


def trajectory(points: int = 26) -> Fold:
    r"""At most `points` points of each walk, evenly spaced, its first and its last among them.

    .. math:: \theta^0, \theta^s, \theta^{2s}, \dots, \theta^{s \lfloor (K-1)/s \rfloor}, \theta^K

    Args:
        points: P, at least 3: theta^0, the end, and what lies between.

    Returns:
        A fold whose result is [T, P', m] with P' <= P, on the CPU and in the walk's precision. s is the smallest power
        of two that leaves room for all, so that P' is above P / 2 wherever K is; `kept_steps` names the steps.

    Raises:
        ValueError: fewer than three points.

    K need not be known, and may be a task's own: when there is no room, every second point is dropped. That is what it
    costs: P T m numbers on the CPU (twice that for a moment at the end), and up to one copy of T m numbers a step for
    the first P steps, half as many for the next P, a quarter for the next 2 P ... Steps that are recorded as a graph
    (execution `captured`) cannot be told apart by number, so walk with another.

    Example:
        >>> from leap import optim, walk
        >>> class Slope:                                    # f(theta) = sum(theta): equal steps
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return theta.sum(), {}
        >>> folds = {"points": trajectory(4)}
        >>> walked = walk.walk(Slope(), torch.zeros(1), steps=5, optimizer=optim.sgd(1.0), folds=folds)
        >>> walked.results["points"].flatten()
        tensor([ 0., -2., -4., -5.])
    """
    if points < 3:
        raise ValueError(f"points must be at least 3, got {points}")

    def step(state: _Kept, s: Step) -> _Kept:
        number, stride, kept = state
        if number % stride == 0 and len(kept) == points - 1:  # one place is the end's
            stride, kept = 2 * stride, kept[::2]
        if number % stride == 0:
            kept = (*kept, s.theta.detach().to("cpu", copy=True))
        return _Kept(number + 1, stride, kept)

    def finish(state: _Kept, end: End) -> Tensor:
        return torch.stack([*state.points, end.theta.detach().cpu()], dim=1)

    return Fold(lambda theta0: _Kept(0, 1, ()), step, finish)


def kept_steps(steps: int, points: int = 26) -> list[int]:
    """The inner steps whose points `trajectory` keeps of a walk of so many steps.

    Example:
        >>> kept_steps(5, 4), kept_steps(6, 4), kept_steps(100)[-3:]
        ([0, 2, 4, 5], [0, 2, 4, 6], [92, 96, 100])
    """
    stride = 1
    while -(-steps // stride) > points - 1:
        stride *= 2
    return [*range(0, steps, stride), steps]


class Plane(NamedTuple):
    """Walks seen in a plane.

    Attributes:
        walks: Each walk's points, [P, 2] in float64, relative to its first and in the unit of the parameters.
        shares: The shares of all points' variance that lie along the two axes.
    """

    walks: list[Tensor]
    shares: tuple[float, float]


def principal_plane(walks: Sequence[Tensor]) -> Plane:
    r"""Project walks, seen from where each starts, on the first two principal directions of all their points together.

    .. math:: z^i = \left( (\theta^i - \theta^0) \cdot u_1, (\theta^i - \theta^0) \cdot u_2 \right), \quad
              u_k = \tilde X^T v_k / \sigma_k, \quad \tilde X \tilde X^T v_k = \sigma_k^2 v_k

    with a row theta^i - theta^0 of X for every point of every walk, theta^0 its own, and X~ = X less its mean.

    Args:
        walks: [P, m] each, finite; as many as there are, of any lengths. Every point counts alike.

    Returns:
        `Plane`. A projection shortens: no length in the plane is longer than the true one, and `shares` says how much
        of the spread it shows. Where points do not span a plane, the missing coordinates and shares are 0.

    Raises:
        ValueError: no walks, walks of different widths, or points that are not finite.

    Walks from several initializations are compared in one plane, at one scale. Where those lie is left out: they are
    commonly further apart than any walk goes, and the plane would show the way from one to the other and little else.

    Exact, from the products of the N points alone: N^2 m multiplications in float64, N^2 numbers of memory. An axis has
    two signs; the one is taken that makes its coordinate of largest size positive, as `principal_coordinates` does.
    Axes of equal variance have no direction of their own.

    Example:
        >>> line = torch.tensor([[1.0, 1.0, 5.0], [4.0, 5.0, 5.0]])
        >>> plane = principal_plane([line])
        >>> plane.walks[0].round(decimals=6), round(plane.shares[0], 6)
        (tensor([[0., 0.],
                [5., 0.]], dtype=torch.float64), 1.0)

    Reference: Pearson 1901, https://doi.org/10.1080/14786440109462720; for walks, section 7 of Li et al. 2018,
    https://arxiv.org/abs/1712.09913.
    """
    if not walks or any(walk.dim() != 2 or walk.shape[1:] != walks[0].shape[1:] for walk in walks):
        raise ValueError(f"walks must be [P, m] each, of one width, got {[tuple(walk.shape) for walk in walks]}")
    products = _products(walks)
    if not bool(products.isfinite().all()):
        raise ValueError("points must be finite; leave out the walks that diverged")
    about_mean = products - products.mean(0, keepdim=True)
    about_mean = about_mean - about_mean.mean(1, keepdim=True)
    variances, vectors = torch.linalg.eigh(about_mean)
    variances, vectors = variances.flip(0)[:2], vectors.flip(1)[:, :2]
    total = float(about_mean.trace())
    flat = variances <= len(products) * torch.finfo(torch.float64).eps * max(total, 0.0)  # round-off
    found = torch.where(flat, 0.0, products @ vectors / variances.clamp_min(torch.finfo(torch.float64).tiny).sqrt())
    shares = torch.where(flat, 0.0, variances / total).tolist()
    found = torch.nn.functional.pad(found, (0, 2 - found.shape[1]))
    found = found * torch.where(found.gather(0, found.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    first, second, *_ = (*shares, 0.0, 0.0)
    return Plane(list(found.split([len(walk) for walk in walks])), (first, second))


def _products(walks: Sequence[Tensor]) -> Tensor:
    """Inner products of all points seen from their starts, [N, N] float64, without all in float64 at once."""
    count = sum(map(len, walks))
    found = torch.zeros(count, count, dtype=torch.float64)
    for at in range(0, walks[0].shape[1], COLUMNS):
        part = slice(at, at + COLUMNS)
        block = torch.cat([walk[:, part].double() - walk[:1, part].double() for walk in walks])
        found.addmm_(block, block.mT)
    return found
