"""Singular vectors of a divergence transition matrix by orthogonal iteration, which is what ACE is."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from leap.randomness import generator

RESIDUAL = 1e-12  # of a singular pair; values are at most 1, and off by no more than the residual
PATIENCE = 30  # steps after which a block that has not converged grows


def singular_functions(b: Tensor, x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Top k right [|X|, k] and left [|Y|, k] singular vectors of b and their values; x, y are roots of the masses."""
    limit, draw = min(b.shape) - 1, generator(0, "ace")
    v = b.new_zeros(len(x), 0)
    width = min(limit, 2 * k + 8)
    for step in itertools.count(1):
        if v.shape[1] < width:
            more = torch.randn(len(x), width - v.shape[1], generator=draw, dtype=torch.float64).to(b.device)
            v = _white(torch.cat([v, more], 1), x)
        u = _white(b @ v, y)
        v = _white(b.mT @ u, x)
        left, sigma, right = torch.linalg.svd(u.mT @ b @ v)
        u, v = u @ left, v @ right.mT
        f, g, top = v[:, :k], u[:, :k], sigma[:k]
        residual = max((b @ f - g * top).norm(), (b.mT @ g - f * top).norm())  # CPU-GPU sync
        if residual <= RESIDUAL or width == limit:  # a block of full width is exact after one step
            break
        if step % PATIENCE == 0:
            width = min(limit, 2 * width)
    sign = torch.where(f.gather(0, _leading(f)) < 0, -1.0, 1.0)
    return f * sign, g * sign, top


def _white(functions: Tensor, root: Tensor) -> Tensor:
    """Gram-Schmidt against the constant, whose weighted function is the root of the mass, and one another."""
    return torch.linalg.qr(torch.cat([root[:, None], functions], 1)).Q[:, 1:]


def _leading(vectors: Tensor) -> Tensor:
    """The first entry [1, k] of each column above half of its largest: the same one whatever round-off does to ties."""
    size = vectors.abs()
    return (size > 0.5 * size.amax(0)).to(torch.uint8).argmax(0, keepdim=True)
