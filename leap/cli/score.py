"""`leap score`: scores of transferability of features that any framework has saved."""

from __future__ import annotations

import difflib
import json
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from leap.cli.arguments import Option, help_text, split
from leap.cli.measure_settings import ScoreName, check_scores
from leap.errors import RunError, UsageError

if TYPE_CHECKING:
    from leap.metrics.scores import Readout, Value

NAMES = tuple(name for name in get_args(ScoreName) if name not in ("all", "source_accuracy"))
OPTIONS = (
    Option("--scores", "values", "Which scores; by default all.", "NAME"),
    Option("--seed", "value", "Of the mixtures of NLEEP and the folds of the linear probe; 0 by default.", "SEED"),
    Option("--json", "flag", "Print JSON."),
)
USAGE = "leap score FEATURES.npz ... [--scores NAME ...] [--seed SEED] [--json]"
ABOUT = f"""Score how well features of a source suit a target, without training on it. Larger is better in every row.

A file holds the arrays `features` [m, k] and `labels` [m] of the target's samples, and where the source classifies
`source_probabilities` [m, Z], its softmax on them: numpy.savez("features.npz", features=..., labels=...). Several files
are candidates for the same target, a column each. "across targets" is the form in which targets with different
classes can be compared: H-score per class, LEEP above guessing, GBC per pair.

scores: {", ".join(NAMES)}"""
REQUIRED, OPTIONAL = ("features", "labels"), ("source_probabilities",)
_DAMAGED = (lzma.LZMAError, SyntaxError, TypeError, tokenize.TokenError, RecursionError, MemoryError, OverflowError)
"""What a damaged packing or header of an array raises beside, or one that claims more than there is memory for."""


def main(argv: Sequence[str]) -> int:
    """Print scores; see `leap score --help`."""
    given = split(argv, OPTIONS, fields=False)
    if given.options["help"]:
        print(help_text(USAGE, ABOUT, OPTIONS))
        return 0
    if not given.files:
        raise UsageError(f"name a file of features: {USAGE}")
    names, seed = _names(given.options["scores"]), _seed(given.options["seed"])
    from leap.metrics.scores import scores

    readouts = {file: _readout(Path(file), seed) for file in given.files}
    found = {file: scores(readout, names) for file, readout in readouts.items()}
    print(_json(readouts, found) if given.options["json"] else _text(readouts, found))
    return 0


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that are looked at; nothing in it is executed.

    Raises:
        RunError: it cannot be read, or is no .npz of plain arrays.
        UsageError: an array is missing, or has a name that looks like a slip of the pen.
    """
    try:
        with path.open("rb") as handle:  # numpy would leave a damaged file open
            held = np.load(handle, allow_pickle=False)
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            _check_names(path, held.files)
            return {name: held[name] for name in (*REQUIRED, *OPTIONAL) if name in held.files}
    # zipfile raises RuntimeError for what is encrypted, and NotImplementedError, which is one, for what it cannot undo
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, *_DAMAGED) as error:
        raise RunError(
            f"{path} cannot be read as .npz ({error}); write plain arrays of numbers: "
            'numpy.savez("features.npz", features=..., labels=...)'
        ) from error


def _check_names(path: Path, names: Sequence[str]) -> None:
    known = (*REQUIRED, *OPTIONAL)
    for name in known:
        near = [] if name in names else difflib.get_close_matches(name, [n for n in names if n not in known], 1, 0.6)
        if near:
            raise UsageError(f"{path} has an array {near[0]!r}; did you mean {name!r}? Save it under that name")
        if name in REQUIRED and name not in names:
            raise UsageError(f"{path} has no array {name!r}; it has {', '.join(names) or 'none'}")


def _readout(path: Path, seed: int) -> Readout:
    from leap.metrics.labelled import probabilities_of
    from leap.metrics.scores import Readout

    arrays = read_arrays(path)
    given, probabilities = arrays.get("source_probabilities"), None
    try:
        if given is not None:
            probabilities = probabilities_of(given, "source_probabilities")
            if len(probabilities) != len(arrays["labels"]):
                raise ValueError(
                    f"source_probabilities and labels must be of the same samples, got {len(probabilities)} rows and "
                    f"{len(arrays['labels'])}"
                )
        readout = Readout(arrays["features"], arrays["labels"], probabilities, seed=seed)
        _facts(readout)  # which are shown whatever scores are asked for
        return readout
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error


def _names(given: Sequence[str] | None) -> list[str]:
    wanted = [name for word in given or [] for name in word.split(",") if name]
    check_scores(wanted)
    if "source_accuracy" in wanted:
        raise UsageError("source_accuracy is the source's own and cannot be read from features; leave it out")
    return [name for name in NAMES if not wanted or "all" in wanted or name in wanted]


def _seed(given: str | None) -> int:
    if given is None:
        return 0
    if not given.isdecimal():
        raise UsageError(f"--seed must be a whole number from 0 on, got {given!r}")
    return int(given)


def _json(readouts: Mapping[str, Readout], found: Mapping[str, Mapping[str, Value]]) -> str:
    from leap.metrics.scores import SCORES

    return json.dumps([
        {
            "file": file,
            **_facts(readouts[file]),
            "scores": {name: {**value._asdict(), "unit": SCORES[name].unit} for name, value in values.items()},
        }
        for file, values in found.items()
    ], indent=2)  # fmt: skip


def _facts(readout: Readout) -> dict[str, Any]:
    """What every score depends on beside the features."""
    return {
        "samples": len(readout.labels),
        "features": readout.features.shape[1],
        "rank": readout.h.rank,
        "classes": readout.classes,
        "label_entropy": readout.entropy,
        "h_score_of_random_features": float(readout.h.null),
    }


def _text(readouts: Mapping[str, Readout], found: Mapping[str, Mapping[str, Value]]) -> str:
    from leap.cli.measure_text import columns
    from leap.metrics.scores import SCORES

    lines = []
    for file, readout in readouts.items():
        facts = _facts(readout)
        lines.append(
            f"{file}: {facts['samples']} samples, {facts['features']} features of rank {facts['rank']}, "
            f"{facts['classes']} classes, label entropy {facts['label_entropy']:.4g} nats, H-score of random features "
            f"{facts['h_score_of_random_features']:.4g}"
        )
    several = len(found) > 1
    heads = [Path(file).stem for file in found] if several else ["value"]
    rows = [["score", *heads, "unit", *(["across targets"] if not several else [])]]
    reasons: dict[str, None] = {}
    for name in next(iter(found.values())):
        values = [held[name] for held in found.values()]
        reasons |= {f"{name}: {value.reason}": None for value in values if value.reason}
        unit = "" if SCORES[name].unit == "1" else SCORES[name].unit
        across = [] if several or values[0].across == values[0].value else [_figure(values[0].across)]
        rows.append([name, *(_figure(value.value) for value in values), unit, *across])
    width = max(map(len, rows))
    lines += ["", *columns([[*row, *[""] * (width - len(row))] for row in rows])]
    return "\n".join([*lines, *([""] if reasons else []), *reasons])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
