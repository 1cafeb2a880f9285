"""measures.json as arrays: S seeds, T tasks, matrices with a row a target and a column a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leap.errors import RunError
from leap.report import findings
from leap.report.evaluation import read_json
from leap.report.findings import Score
from leap.report.reader import FILE, Reader, cure

KINDS = ("distance", "similarity", "outcome")


@dataclass(frozen=True)
class Single:
    """One number a task: [S, T], NaN where missing."""

    name: str
    label: str
    unit: str
    values: np.ndarray


@dataclass(frozen=True)
class Matrix:
    """One number an ordered pair of tasks: [S, T, T], rows targets, columns sources, NaN where missing.

    `censored` marks values that are lower limits: the experiment was stopped there.
    """

    name: str
    label: str
    unit: str
    kind: str
    values: np.ndarray
    censored: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over the seeds that have the pair, [T, T]."""
        return mean(self.values)

    @property
    def any_censored(self) -> np.ndarray:
        """Where a seed was cut off, so that the mean is a lower limit, [T, T]."""
        return np.asarray(self.censored.any(axis=0))


@dataclass(frozen=True)
class Curve:
    """A curve a task: `x` and `values` are [S, T, P]."""

    name: str
    label: str
    unit: str
    x_label: str
    x: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Paths:
    """The walks to held-out tasks: `values[initialization][measure]` is [S, T]."""

    tasks: tuple[str, ...]
    values: Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class HigherOrder:
    """The best source of every target, [S, T], and the best pair of sources, [S, T, 2], as places in the tasks.

    Scores, [S, T], are adjusted H-scores: of one source, and of the features of two side by side.
    """

    single: np.ndarray
    pair: np.ndarray
    single_score: np.ndarray
    pair_score: np.ndarray


@dataclass(frozen=True)
class Measures:
    """What `leap measure` found.

    `relations` are as `leap.metrics.relation.relation` makes them, with names x and y and, where sources were ranked,
    with `selection` as `leap.metrics.selection.selection` makes it; `predictions` as `leap.metrics.prediction` does,
    with the initialization and names x and y. `scores` name the matrices and measures of walks that are scores of
    transferability.
    """

    run: str
    learner: str
    family: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    paths: Paths | None
    singles: Mapping[str, Single]
    matrices: Mapping[str, Matrix]
    curves: Mapping[str, Curve]
    relations: Sequence[Mapping[str, Any]]
    scores: tuple[Score, ...] = ()
    predictions: Sequence[Mapping[str, Any]] = ()
    higher_order: HigherOrder | None = None

    @property
    def score_names(self) -> frozenset[str]:
        """Names of the scores: which matrices are told as scores, and not among the distances."""
        return frozenset(score.name for score in self.scores)


def read_measures(path: Path) -> Measures:
    """The measures in a file; raises RunError, naming file and place, where it is damaged."""
    return parse_measures(read_json(path), path)


def write_measures(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the CSV files and the pictures of a document of measures.

    Args:
        document: The content of a measures.json.
        folder: Takes the files; it is made, files of the same names are replaced.

    Returns:
        The files: CSV first (`leap.report.tables.write_tables`), then PNG: `NAME.png` a matrix, `NAME.tree.png` its
        dendrogram, `NAME.spanning.png` its spanning tree, `X-Y.png` a scatter, `Y.predictors.png` what predicts an
        outcome, `paths.png`, `path-and-end.png` and `curve-NAME.png`.

    Raises:
        RunError: a damaged document, or a file that cannot be written.
    """
    # These read documents through this module.
    from leap.report.captioned import write_picture
    from leap.report.measure_pictures import pictures
    from leap.report.tables import write_tables

    measures, folder = parse_measures(dict(document)), Path(folder)
    return [*write_tables(measures, folder), *(write_picture(one, folder) for one in pictures(measures))]


def parse_measures(content: Any, path: Path | str = FILE) -> Measures:
    """Check the content of a measures.json and give it as arrays.

    Args:
        content: The parsed file.
        path: Named in errors.

    Raises:
        RunError: another format, a missing field, a wrong shape, a name that could not be a file's, a task named
            twice, a relation between things that are not there, or a score of which there is nothing.
    """
    if not isinstance(content, dict) or content.get("format") != 1:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise RunError(f"{path} has format {found!r}, this program reads format 1. {cure(path)}")
    reader = Reader(content, path)
    tasks = reader.tasks(content, "tasks")
    seeds = tuple(reader.kept("seeds", lambda: [int(seed) for seed in content["seeds"]]))
    reader.shape = (len(seeds), len(tasks))
    matrices, singles = reader.each("matrices", _matrix), reader.each("singles", _single)
    paths = _paths(reader, content.get("paths") or None, len(seeds))
    walks = paths.values if paths is not None else {}
    kinds = {name: matrix.kind for name, matrix in matrices.items()}
    return Measures(
        run=reader.word(content, "run"),
        learner=reader.word(content, "learner"),
        family=reader.word(content, "family"),
        tasks=tasks,
        seeds=seeds,
        paths=paths,
        singles=singles,
        matrices=matrices,
        curves=reader.each("curves", _curve),
        relations=findings.relations(reader, {*matrices, *singles}),
        scores=findings.scores(reader, kinds, {key for held in walks.values() for key in held}),
        predictions=findings.predictions(reader, walks),
        higher_order=_higher_order(reader, content.get("higher_order") or None),
    )


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is there; NaN where nothing is."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _single(reader: Reader, name: str, where: str, held: Mapping[str, Any]) -> Single:
    label, unit = (reader.word(held, key, f"{where}.") for key in ("label", "unit"))
    return Single(name, label, unit, reader.numbers(f"{where}.values", held.get("values"), reader.shape))


def _matrix(reader: Reader, name: str, where: str, held: Mapping[str, Any]) -> Matrix:
    label, unit, kind = (reader.word(held, key, f"{where}.") for key in ("label", "unit", "kind"))
    if kind not in KINDS:
        raise reader.fail(f"{where}.kind", f"is {kind!r}, not {', '.join(KINDS)}")
    full = (*reader.shape, reader.shape[1])
    values = reader.numbers(f"{where}.values", held.get("values"), full)
    marks = held.get("censored")
    censored = np.zeros(full) if marks is None else reader.numbers(f"{where}.censored", marks, full)
    return Matrix(name, label, unit, kind, values, (censored == 1) & ~np.isnan(values))


def _curve(reader: Reader, name: str, where: str, held: Mapping[str, Any]) -> Curve:
    label, unit, x_label = (reader.word(held, key, f"{where}.") for key in ("label", "unit", "x_label"))
    given = reader.kept(f"{where}.x", lambda: np.array(held["x"], dtype=float))
    full = (*reader.shape, given.shape[-1] if given.ndim else 0)
    # One list of x for all, or one a seed and task, as where a curve is traced by a parameter.
    x = reader.numbers(f"{where}.x", held["x"], full[2:] if given.ndim == 1 else full)
    values = reader.numbers(f"{where}.values", held.get("values"), full)
    return Curve(name, label, unit, x_label, np.broadcast_to(x, full), values)


def _paths(reader: Reader, held: Any, seeds: int) -> Paths | None:
    if held is None:
        return None
    if not isinstance(held, dict) or not isinstance(held.get("initializations"), dict):
        raise reader.fail("paths.initializations", "is missing or not a mapping")
    tasks = reader.tasks(held, "paths.tasks")
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, measures in held["initializations"].items():
        where = f"paths.initializations.{name}"
        if not isinstance(measures, dict):
            raise reader.fail(where, f"is {type(measures).__name__}, not a mapping")
        values[name] = {
            key: reader.numbers(f"{where}.{key}", table, (seeds, len(tasks)))
            for key, table in measures.items()
            if table is not None
        }
    return Paths(tasks, values)


def _higher_order(reader: Reader, held: Any) -> HigherOrder | None:
    if held is None:
        return None
    if not isinstance(held, dict):
        raise reader.fail("higher_order", f"is {type(held).__name__}, not a mapping")
    found = {
        key: reader.numbers(f"higher_order.{key}", held.get(key), (*reader.shape, 2) if key == "pair" else reader.shape)
        for key in ("single", "pair", "single_score", "pair_score")
    }
    for key in ("single", "pair"):
        places = found[key]
        if not np.isin(places, np.arange(reader.shape[1])).all():
            raise reader.fail(f"higher_order.{key}", f"names sources that are not 0 to {reader.shape[1] - 1}")
        found[key] = places.astype(int)
    return HigherOrder(**found)
