"""No meta-learning: the random initialization stays what it is."""

from __future__ import annotations

import torch

from leap.walk import Fold


def none() -> Fold:
    """The baseline: a meta-gradient [T, m] of zeros."""
    return Fold(
        start=lambda theta0: None, step=lambda state, s: None, finish=lambda state, end: torch.zeros_like(end.theta0)
    )
