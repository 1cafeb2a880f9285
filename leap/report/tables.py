"""Measures as CSV files, a matrix a file with every seed beside it, and as the few means that a tracker shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leap.report.drawing import write_file
from leap.report.measures import Matrix, Measures, Paths, setting

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute a cell


def write_tables(measures: Measures, folder: Path) -> list[Path]:
    """Write all numbers of a document.

    Args:
        measures: What `parse_measures` gave.
        folder: Takes the files; it is made. `NAME.csv` is a matrix, mean over seeds, a row a target and a column a
            source; `NAME.seeds.csv` has a row a seed and pair, with what was cut off marked; `singles.csv`,
            `paths.csv` and `curve-NAME.csv` have a row a seed and task (and point).

    Returns:
        The files.

    Raises:
        RunError: a file cannot be written.
    """
    found = []
    for matrix in measures.matrices.values():
        found.append(_write(folder / f"{matrix.name}.csv", _wide(matrix, measures.tasks)))
        found.append(_write(folder / f"{matrix.name}.seeds.csv", _long(matrix, measures)))
    if measures.singles:
        found.append(_write(folder / "singles.csv", _singles(measures)))
    if measures.paths is not None:
        found.append(_write(folder / "paths.csv", _paths(measures.paths, measures.seeds)))
    for curve in measures.curves.values():
        rows: list[Sequence[Any]] = [("seed", "task", curve.x_label, curve.name)]
        for s, seed in enumerate(measures.seeds):
            for t, task in enumerate(measures.tasks):
                rows += [(seed, task, *point) for point in zip(curve.x[s, t], curve.values[s, t], strict=True)]
        found.append(_write(folder / f"curve-{curve.name}.csv", rows))
    return found


def measure_means(measures: Measures) -> dict[str, float]:
    """Means over seeds and tasks of walks and of numbers a task, and the correlations of relations, by name.

    `learned/path_length` is the learner's initialization's, whatever the learner is called; `mean/complexity` of a
    number a task; `relation/reachability/epochs/spearman`, `spearman_within` and `mantel_p` what two matrices share.
    What does not exist is left out, and so are sweeps.
    """
    found: dict[str, float | None] = {}
    for name, held in (measures.paths.values if measures.paths else {}).items():
        own = "learned" if name == measures.learner else name
        found |= {f"{own}/{key}": _mean(values) for key, values in held.items()}
    found |= {f"mean/{single.name}": _mean(single.values) for single in measures.singles.values()}
    for one in measures.relations:
        if setting(one):
            continue
        start = f"relation/{one['x']}/{one['y']}"
        found[f"{start}/spearman"] = (one.get("pooled") or {}).get("spearman")
        found[f"{start}/spearman_within"] = (one.get("within") or {}).get("spearman")
        found[f"{start}/mantel_p"] = one.get("mantel_p")
    return {key: float(value) for key, value in found.items() if value is not None}


def _mean(values: np.ndarray) -> float | None:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else None


def _wide(matrix: Matrix, tasks: Sequence[str]) -> list[Sequence[Any]]:
    rows = [(task, *values) for task, values in zip(tasks, matrix.mean, strict=True)]
    return [("target", *tasks), *rows]


def _long(matrix: Matrix, measures: Measures) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("seed", "target", "source", matrix.name, "censored")]
    for s, seed in enumerate(measures.seeds):
        for t, target in enumerate(measures.tasks):
            for o, source in enumerate(measures.tasks):
                rows.append((seed, target, source, matrix.values[s, t, o], int(matrix.censored[s, t, o])))
    return rows


def _singles(measures: Measures) -> list[Sequence[Any]]:
    held = list(measures.singles.values())
    rows: list[Sequence[Any]] = [("seed", "task", *(single.name for single in held))]
    for s, seed in enumerate(measures.seeds):
        for t, task in enumerate(measures.tasks):
            rows.append((seed, task, *(single.values[s, t] for single in held)))
    return rows


def _paths(paths: Paths, seeds: Sequence[int]) -> list[Sequence[Any]]:
    keys = list(dict.fromkeys(key for held in paths.values.values() for key in held))
    rows: list[Sequence[Any]] = [("seed", "task", "initialization", *keys)]
    for name, held in paths.values.items():
        for s, seed in enumerate(seeds):
            for t, task in enumerate(paths.tasks):
                rows.append((seed, task, name, *(held[key][s, t] if key in held else np.nan for key in keys)))
    return rows


def _write(path: Path, rows: Iterable[Sequence[Any]]) -> Path:
    held = io.StringIO()
    csv.writer(held, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return write_file(path, held.getvalue().encode("utf-8", "replace"))


def _cell(value: Any) -> str:
    """A number in full, nothing where it is missing, and a name that no spreadsheet takes for a formula."""
    if isinstance(value, float):  # numpy's float64 too
        return "" if np.isnan(value) else repr(float(value))
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text
