"""Measures as CSV files, a matrix a file with every seed beside it, and as the few means that a tracker shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leap.report.drawing import write_file
from leap.report.findings import CORRELATED, TOPS, setting
from leap.report.measures import HigherOrder, Matrix, Measures, Paths
from leap.report.transfer import Table, source_tables, task_tables
from leap.report.tree_pictures import Spanning, curricula, spanning

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute a cell


def write_tables(measures: Measures, folder: Path) -> list[Path]:
    """Write all numbers of a document.

    Args:
        measures: What `parse_measures` gave.
        folder: Takes the files; it is made. `NAME.csv` is a matrix, mean over seeds, a row a target and a column a
            source; `NAME.seeds.csv` has a row a seed and pair, with what was cut off marked; `singles.csv`,
            `paths.csv` and `curve-NAME.csv` have a row a seed and task (and point). `selection.csv` and
            `predictions.csv` have a row a predictor and outcome, `NAME.spanning.csv` a row a link of a spanning tree,
            `pairs.csv` a row a seed and target.

    Returns:
        The files.

    Raises:
        RunError: a file cannot be written.
    """
    found = []
    for matrix in measures.matrices.values():
        found.append(write_rows(folder / f"{matrix.name}.csv", _wide(matrix, measures.tasks)))
        found.append(write_rows(folder / f"{matrix.name}.seeds.csv", _long(matrix, measures)))
    if measures.singles:
        found.append(write_rows(folder / "singles.csv", _singles(measures)))
    if measures.paths is not None:
        found.append(write_rows(folder / "paths.csv", _paths(measures.paths, measures.seeds)))
    for curve in measures.curves.values():
        rows: list[Sequence[Any]] = [("seed", "task", curve.x_label, curve.name)]
        for s, seed in enumerate(measures.seeds):
            for t, task in enumerate(measures.tasks):
                rows += [(seed, task, *point) for point in zip(curve.x[s, t], curve.values[s, t], strict=True)]
        found.append(write_rows(folder / f"curve-{curve.name}.csv", rows))
    for name, table in (("selection", selection_rows(measures)), ("predictions", prediction_rows(measures))):
        if len(table) > 1:
            found.append(write_rows(folder / f"{name}.csv", table))
    for held in filter(None, map(spanning, curricula(measures))):
        found.append(write_rows(folder / f"{held.matrix.name}.spanning.csv", _links(held, measures.tasks)))
    if measures.higher_order is not None:
        found.append(write_rows(folder / "pairs.csv", _pairs(measures.higher_order, measures)))
    return found


def selection_rows(measures: Measures) -> list[Sequence[Any]]:
    """What predicts which source is best, under its header: a row an outcome and predictor, and one a ceiling."""
    ends = [f"{name}{end}" for name in (*CORRELATED, *TOPS, "regret") for end in ("", "_low", "_high")]
    chances = [f"{name}_chance" for name in TOPS]
    rows: list[Sequence[Any]] = [("outcome", "predictor", "baseline", *ends, *chances, "targets", "mantel_p", "note")]
    for table in source_tables(measures):
        for row in table.rows:
            cells = [cell for name in (*CORRELATED, *TOPS, "regret") for cell in _ended(row.found.get(name))]
            tops = [row.found.get(name) or {} for name in TOPS]
            rest = [*(top.get("chance") for top in tops), tops[0].get("targets"), row.p_value if row.found else None]
            rows.append((table.y, row.name, int(row.baseline), *cells, *rest, row.why))
        if table.ceiling:
            rows.append(_ceiling((table.y, "ceiling", 0), table, (*CORRELATED, *TOPS, "regret"), 5))
    return rows


def prediction_rows(measures: Measures) -> list[Sequence[Any]]:
    """What predicts how held-out tasks end, under its header: a row an initialization, outcome and predictor."""
    ends = [f"{name}{end}" for name in CORRELATED for end in ("", "_low", "_high")]
    rows: list[Sequence[Any]] = [
        ("initialization", "outcome", "predictor", "baseline", *ends, "p_value", "tasks", "note")
    ]
    for table in task_tables(measures):
        for row in table.rows:
            cells = [cell for name in CORRELATED for cell in _ended(row.found.get(name))]
            rest = (row.p_value, row.found.get("tasks"), row.why)
            rows.append((table.initialization, table.y, row.name, int(row.baseline), *cells, *rest))
        if table.ceiling:
            rows.append(_ceiling((table.initialization, table.y, "ceiling", 0), table, CORRELATED, 3))
    return rows


def _ended(found: Mapping[str, Any] | None) -> list[float | None]:
    """A figure and its interval."""
    held = found or {}
    value = next((held[key] for key in ("mean", "value", "rate") if key in held), None)
    return [value, *(held.get("interval") or (None, None))]


def _ceiling(names: Sequence[Any], table: Table, figures: Sequence[str], empty: int) -> Sequence[Any]:
    cells = [cell for name in figures for cell in (table.ceiling.get(name), None, None)]
    return (*names, *cells, *[None] * empty)


def _links(held: Spanning, tasks: Sequence[str]) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("one", "other", held.matrix.name, "share_of_seeds")]
    for place, edge in enumerate(held.tree):
        share = None if held.shares is None else held.shares[place]
        rows.append((tasks[edge.i], tasks[edge.j], held.value(edge), share))
    return rows


def _pairs(held: HigherOrder, measures: Measures) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("seed", "target", "source", "source_score", "first", "second", "pair_score")]
    for s, seed in enumerate(measures.seeds):
        for t, target in enumerate(measures.tasks):
            single, first, second = (measures.tasks[place] for place in (held.single[s, t], *held.pair[s, t]))
            scores = held.single_score[s, t], held.pair_score[s, t]
            rows.append((seed, target, single, scores[0], first, second, scores[1]))
    return rows


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


def write_rows(path: Path, rows: Iterable[Sequence[Any]]) -> Path:
    """Write rows as CSV; raises RunError where they cannot be written."""
    held = io.StringIO()
    csv.writer(held, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return write_file(path, held.getvalue().encode("utf-8", "replace"))


def _cell(value: Any) -> str:
    """A number in full, nothing where it is missing, and a name that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, float):  # numpy's float64 too
        return "" if np.isnan(value) else repr(float(value))
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text
