"""measures.json as arrays: S seeds, T tasks, matrices with a row a target and a column a source."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from leap.errors import RunError
from leap.report.evaluation import read_json

FOLDER, FILE = "measures", "measures.json"
KINDS = ("distance", "similarity", "outcome")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,59}")  # names of matrices and curves become names of files
Kept = TypeVar("Kept")


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
class Measures:
    """What `leap measure` found. `relations` are as `leap.metrics.relation.relation` makes them, with names x and y."""

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


def read_measures(path: Path) -> Measures:
    """The measures in a file; raises RunError, naming file and place, where it is damaged."""
    return parse_measures(read_json(path), path)


def write_measures(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the CSV files and the pictures of a document of measures.

    Args:
        document: The content of a measures.json.
        folder: Takes the files; it is made, files of the same names are replaced.

    Returns:
        The files: CSV first (`leap.report.tables.write_tables`), then PNG: `NAME.png` and `NAME.tree.png` a matrix,
        `X-Y.png` a scatter, `paths.png`, `path-and-end.png` and `curve-NAME.png`.

    Raises:
        RunError: a damaged document, or a file that cannot be written.
    """
    # These read documents through this module.
    from leap.report.measure_pictures import pictures, write_picture
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
            twice, or a relation between things that are not there.
    """
    if not isinstance(content, dict) or content.get("format") != 1:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise RunError(f"{path} has format {found!r}, this program reads format 1. {_cure(path)}")
    reader = _Reader(content, path)
    tasks = reader.tasks(content, "tasks")
    seeds = tuple(reader.kept("seeds", lambda: [int(seed) for seed in content["seeds"]]))
    reader.shape = (len(seeds), len(tasks))
    matrices, singles = reader.each("matrices", _matrix), reader.each("singles", _single)
    return Measures(
        run=reader.word(content, "run"),
        learner=reader.word(content, "learner"),
        family=reader.word(content, "family"),
        tasks=tasks,
        seeds=seeds,
        paths=_paths(reader, content.get("paths") or None, len(seeds)),
        singles=singles,
        matrices=matrices,
        curves=reader.each("curves", _curve),
        relations=_relations(reader, content.get("relations") or [], {*matrices, *singles}),
    )


def setting(relation: Mapping[str, Any]) -> str:
    """What a relation of a sweep was found at, as in `beta 0.1`; empty for one at the document's own settings.

    Example:
        >>> setting({"x": "reachability", "y": "epochs", "beta": 0.1, "mantel_p": 0.02})
        'beta 0.1'
    """
    extra = {key: value for key, value in relation.items() if key not in _RELATION and _number(value)}
    return ", ".join(f"{key} {value:g}" for key, value in extra.items())


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is there; NaN where nothing is."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


class _Reader:
    """Takes fields out of a document; what is wrong is named with its place."""

    def __init__(self, content: Mapping[str, Any], path: Path | str) -> None:
        self.content, self.path = content, path
        self.shape = (0, 0)  # seeds and tasks, once they are known

    def fail(self, where: str, what: str) -> RunError:
        return RunError(f"{self.path}: {where} {what}. {_cure(self.path)}")

    def kept(self, where: str, take: Callable[[], Kept]) -> Kept:
        try:
            return take()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.fail(where, f"is missing or wrong ({error!r})") from None

    def word(self, held: Mapping[str, Any], key: str, where: str = "") -> str:
        value = held.get(key) if isinstance(held, dict) else None
        if not isinstance(value, str):
            raise self.fail(f"{where}{key}", f"is {value!r}, not a text")
        return value

    def tasks(self, held: Mapping[str, Any], where: str) -> tuple[str, ...]:
        names = held.get("tasks")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise self.fail(where, "is not a list of names")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise self.fail(where, f"names {twice[0]!r} twice, so its rows cannot be told apart")
        return tuple(names)

    def each(self, section: str, make: Callable[[_Reader, str, str, Mapping[str, Any]], Kept]) -> dict[str, Kept]:
        held = self.content.get(section) or {}
        if not isinstance(held, dict):
            raise self.fail(section, f"is {type(held).__name__}, not a mapping")
        found = {}
        for name, one in held.items():
            where = f"{section}.{name}"
            if not NAME.fullmatch(name):
                raise self.fail(f"{section} {name[:60]!r}", "is not a name of letters, digits, - and _")
            if not isinstance(one, dict):
                raise self.fail(where, f"is {type(one).__name__}, not a mapping")
            found[name] = make(self, name, where, one)
        return found

    def numbers(self, where: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
        try:
            array = np.array(values, dtype=float)  # null becomes NaN
        except (TypeError, ValueError, OverflowError):
            raise self.fail(where, "is not a table of numbers") from None
        if array.shape != shape or 0 in shape:
            raise self.fail(where, f"has shape {list(array.shape)}, expected {list(shape)}")
        return np.where(np.isfinite(array), array, np.nan)


def _single(reader: _Reader, name: str, where: str, held: Mapping[str, Any]) -> Single:
    label, unit = (reader.word(held, key, f"{where}.") for key in ("label", "unit"))
    return Single(name, label, unit, reader.numbers(f"{where}.values", held.get("values"), reader.shape))


def _matrix(reader: _Reader, name: str, where: str, held: Mapping[str, Any]) -> Matrix:
    label, unit, kind = (reader.word(held, key, f"{where}.") for key in ("label", "unit", "kind"))
    if kind not in KINDS:
        raise reader.fail(f"{where}.kind", f"is {kind!r}, not {', '.join(KINDS)}")
    full = (*reader.shape, reader.shape[1])
    values = reader.numbers(f"{where}.values", held.get("values"), full)
    marks = held.get("censored")
    censored = np.zeros(full) if marks is None else reader.numbers(f"{where}.censored", marks, full)
    return Matrix(name, label, unit, kind, values, (censored == 1) & ~np.isnan(values))


def _curve(reader: _Reader, name: str, where: str, held: Mapping[str, Any]) -> Curve:
    label, unit, x_label = (reader.word(held, key, f"{where}.") for key in ("label", "unit", "x_label"))
    given = reader.kept(f"{where}.x", lambda: np.array(held["x"], dtype=float))
    full = (*reader.shape, given.shape[-1] if given.ndim else 0)
    # One list of x for all, or one a seed and task, as where a curve is traced by a parameter.
    x = reader.numbers(f"{where}.x", held["x"], full[2:] if given.ndim == 1 else full)
    values = reader.numbers(f"{where}.values", held.get("values"), full)
    return Curve(name, label, unit, x_label, np.broadcast_to(x, full), values)


def _paths(reader: _Reader, held: Any, seeds: int) -> Paths | None:
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


def _relations(reader: _Reader, held: Any, known: set[str]) -> list[Mapping[str, Any]]:
    if not isinstance(held, list):
        raise reader.fail("relations", f"is {type(held).__name__}, not a list")
    for place, one in enumerate(held):
        where = f"relations[{place}]"
        for key in ("x", "y"):
            if reader.word(one, key, f"{where}.") not in known:
                raise reader.fail(f"{where}.{key}", f"is {one[key]!r}, which is neither a matrix nor a single here")
        for part, keys in _RELATED.items():
            section = one if part == "" else one.get(part) or {}
            sound = isinstance(section, dict) and all(_related(key, section.get(key)) for key in keys)
            targets = section.get("by_target") if sound and part == "within" else None
            if not sound or not _by_target(targets, reader.shape[1]):
                raise reader.fail(f"{where}.{part or 'mantel_p'}", "is not what a relation holds there")
    return held


_RELATION = {"x", "y", "tasks", "seeds", "pairs", "censored_pairs", "permutations", "resamples", "level", "mantel_p"}
# Numbers, intervals [low, high] or nothing: what a page shows of a relation.
_RELATED = {
    "": ("mantel_p", "pairs", "censored_pairs"),
    "pooled": ("spearman", "tasks", "seeds"),
    "within": ("spearman", "count", "tasks", "seeds"),
    "symmetric": ("spearman", "mantel_p", "tasks"),
    "direction": ("agree", "pairs"),
    "ceiling": ("pooled", "within"),
}


def _related(key: str, value: Any) -> bool:
    if value is None or key not in ("tasks", "seeds"):
        return value is None or _number(value)
    return isinstance(value, list) and len(value) == 2 and all(map(_number, value))


def _by_target(values: Any, tasks: int) -> bool:
    if values is None:
        return True
    return isinstance(values, list) and len(values) == tasks and all(one is None or _number(one) for one in values)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _cure(path: Path | str) -> str:
    folder = Path(path).parent
    run = folder.parent if folder.name == FOLDER else folder
    return f"Write it anew: leap measure {run}" if Path(path).name == FILE else "Restore it, or leave this run out."
