"""Canonical correlation: the linear maps of two sets of outputs that correlate most, on the samples given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SPREAD = 1e-5  # directions in which float32 outputs vary by less than this share are round-off


class Canonical(NamedTuple):
    """Maps that make f and g white and pair their columns off, the most correlated first."""

    mean_f: Tensor  # [k]
    mean_g: Tensor  # [k]
    white_f: Tensor  # [k, k]
    white_g: Tensor  # [k, k]
    sigma: Tensor  # [k]    correlations, 0 for columns that are left over

    def paired(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped columns of other samples, [n, k] each."""
        return (f - self.mean_f) @ self.white_f, (g - self.mean_g) @ self.white_g


def canonical(f: Tensor, g: Tensor) -> Canonical:
    """Canonical correlation analysis of f and g, [n, k] with n above k, in float64.

    Directions in which nothing varies are mapped to 0.
    """
    mean_f, mean_g = f.mean(0), g.mean(0)
    (u, map_f), (v, map_g) = _axes(f - mean_f), _axes(g - mean_g)
    left, sigma, right = torch.linalg.svd(u.mT @ v)
    return Canonical(mean_f, mean_g, map_f @ left, map_g @ right.mT, sigma.clamp_max(1))


def correlations(f: Tensor, g: Tensor) -> Tensor:
    """Correlation [k] of each column of f with its own of g, [n, k]; 0 for columns that do not vary."""
    f, g = f - f.mean(0), g - g.mean(0)
    norms = f.norm(dim=0) * g.norm(dim=0)
    return (f * g).sum(0) / torch.where(norms > 0, norms, 1.0)


def _axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal columns [n, k] and the map [k, k] to columns of variance 1; 0 where nothing varies."""
    u, size, turn = torch.linalg.svd(centred, full_matrices=False)
    kept = size > SPREAD * size[0]
    scale = torch.where(kept, len(centred) ** 0.5 / torch.where(kept, size, 1.0), 0.0)
    return u * kept, turn.mT * scale
