"""What scipy says of two lists with ties, gaps and infinities: the other opinion on rank correlations."""

from __future__ import annotations

import numpy as np
from scipy import stats

NONE, INF = float("nan"), float("inf")

FIGURES = {
    "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "kendall": lambda a, b: stats.kendalltau(a, b).statistic,
    "weighted_tau": lambda a, b: stats.weightedtau(stats.rankdata(a), stats.rankdata(b)).statistic,
}


def scipy_figure(a: np.ndarray, b: np.ndarray, name: str) -> float:
    """NaN where there are fewer than three common values, or one value everywhere."""
    held = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[held], b[held]
    if len(a) < 3 or (a == a[0]).all() or (b == b[0]).all():
        return NONE
    return float(FIGURES[name](stats.rankdata(a), stats.rankdata(b)))
