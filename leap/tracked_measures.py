"""What `leap.tracking` sends to wandb of a measures.json: its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from leap.report.measures import Measures
from leap.report.tables import prediction_rows, selection_rows

Rows = Sequence[Sequence[Any]]


def tables(held: Measures) -> dict[str, Rows]:
    """Tables by key, each under its header: a matrix each, what predicts, and all matrices side by side.

    What has no row is left out.
    """
    found: dict[str, Rows] = {
        f"matrix/{name}": [("target", *held.tasks), *_named(held.tasks, matrix.mean.tolist())]
        for name, matrix in held.matrices.items()
    }
    found |= {"selection": selection_rows(held), "predictions": prediction_rows(held), "pairs": pair_rows(held)}
    return {name: rows for name, rows in found.items() if len(rows) > 1}


def _named(names: Sequence[str], rows: Sequence[Sequence[float]]) -> list[tuple[Any, ...]]:
    """Rows behind their names; None where there is no value.

    Example:
        >>> _named(["a"], [[1.5, float("nan")]])
        [('a', 1.5, None)]
    """
    return [(name, *map(_plain, row)) for name, row in zip(names, rows, strict=True)]


def pair_rows(held: Measures) -> Rows:
    """Every matrix's mean over seeds side by side, under a header: a row an ordered pair of two tasks."""
    rows: list[Sequence[Any]] = [("target", "source", *held.matrices)]
    means = [matrix.mean.tolist() for matrix in held.matrices.values()]
    for t, target in enumerate(held.tasks):
        for s, source in enumerate(held.tasks):
            if s != t and means:
                rows.append((target, source, *(_plain(mean[t][s]) for mean in means)))
    return rows


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
