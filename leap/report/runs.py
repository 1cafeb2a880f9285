"""Run folders as a report reads them: what was asked for, how it was started, what it logged, what it reached."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leap.errors import RunError, UsageError
from leap.foreign import check_plain
from leap.report.evaluation import FILE, Evaluation, read_evaluation, read_json
from leap.report.measures import Measures, read_measures
from leap.report.reader import FILE as MEASURES_FILE
from leap.report.reader import FOLDER as MEASURES_FOLDER

LARGEST = 2**20  # bytes of a config.yaml


@dataclass(frozen=True)
class Run:
    """One run folder. `evaluation` is None where it has not been evaluated, `measures` where nothing was measured."""

    folder: Path
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    evaluation: Evaluation | None
    measures: Measures | None = None

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.config["seed"])

    @property
    def learner(self) -> str:
        """The name of the meta-learner."""
        section = self.config["learner"]
        return str(section["name"] if isinstance(section, Mapping) else section)

    @property
    def command(self) -> str | None:
        """The command line that started the run, where it was recorded."""
        for key in ("command", "command_line", "argv"):
            value = self.provenance.get(key)
            if value:
                return shlex.join(map(str, value)) if isinstance(value, list) else str(value)
        return None


def read_runs(folders: Iterable[Path | str]) -> list[Run]:
    """The runs in these folders; a folder given twice counts once.

    Raises:
        UsageError: no folder, or one that does not hold a run.
        RunError: a file of a run that is damaged.
    """
    unique = {Path(folder).resolve(): Path(folder) for folder in folders}
    if not unique:
        raise UsageError("No run folders were given. Name at least one: leap report runs/NAME ...")
    return [read_run(folder) for folder in unique.values()]


def only_measured(runs: Sequence[Run]) -> bool:
    """Whether there is something to show of these runs, and nothing to compare them by."""
    return all(run.evaluation is None for run in runs) and any(run.measures is not None for run in runs)


def read_run(folder: Path) -> Run:
    """Read one run folder; raises as `read_runs`."""
    run = read_unevaluated(folder)
    evaluation = read_evaluation(folder / FILE) if (folder / FILE).exists() else None
    if evaluation is not None and (evaluation.seed, evaluation.learner) != (run.seed, run.learner):
        raise RunError(
            f"{folder / FILE} is of learner {evaluation.learner!r}, seed {evaluation.seed}, but config.yaml says "
            f"{run.learner!r}, seed {run.seed}. Write it anew: leap evaluate {folder}"
        )
    return dataclasses.replace(run, evaluation=evaluation)


def read_unevaluated(folder: Path) -> Run:
    """A run without its evaluation, which may be damaged; raises as `read_runs`.

    Whoever evaluates calls it beforehand: what cannot be read shall not cost an evaluation.
    """
    if not (folder / "config.yaml").is_file():
        what = "has no config.yaml" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} is not a run folder: it {what}. Give folders that `leap train --out` wrote.")
    check_plain(folder)
    config = _read_config(folder / "config.yaml")
    provenance = folder / "provenance.json"
    recorded = read_json(provenance) if provenance.exists() else {}
    if not isinstance(recorded, dict):
        raise RunError(f"{provenance} holds {type(recorded).__name__}, not a mapping. Restore it, or remove it.")
    measured = folder / MEASURES_FOLDER / MEASURES_FILE
    measures = read_measures(measured) if measured.exists() else None
    run = Run(folder, config, recorded, read_metrics(folder / "metrics.jsonl"), None, measures)
    if measures is not None and measures.learner != run.learner:
        raise RunError(
            f"{measured} is of learner {measures.learner!r}, but config.yaml says {run.learner!r}. "
            f"Write it anew: leap measure {folder}"
        )
    return run


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line without its end is left out: the run was stopped while writing it."""
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error}. Restore it, or leave this run out.") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["step"] = int(row["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            if number == len(lines) and not line.endswith(b"\n"):
                break
            shown = line.strip()[:60].decode("utf-8", "replace")
            raise RunError(
                f"{path}, line {number}, is not a row of metrics: {shown!r}. Remove the line, or leave this run out."
            ) from None
        rows.append(row)
    return rows


def _read_config(path: Path) -> dict[str, Any]:
    import yaml

    cure = "Restore it, or leave this run out."
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes, so it is not a settings file")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):  # ten lines can stand for gigabytes
            raise ValueError("it holds an alias (*name)")
        config = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({' '.join(str(error).split())}). {cure}") from None
    if not isinstance(config, dict):
        raise RunError(f"{path} holds {type(config).__name__}, not a mapping. {cure}")
    learner = config.get("learner")
    if isinstance(learner, dict):
        learner = learner.get("name")
    if not isinstance(learner, str):
        raise RunError(f"{path} has learner.name {learner!r}, which is not a name. {cure}")
    if not isinstance(config.get("seed"), int):
        raise RunError(f"{path} has seed {config.get('seed')!r}, which is not an integer. {cure}")
    return config
