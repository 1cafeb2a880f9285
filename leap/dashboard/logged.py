"""What the runs of one wandb group have logged, read off their folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leap.errors import RunError, UsageError
from leap.report.differences import differing_fields
from leap.report.evaluation import Evaluation
from leap.report.measures import Matrix, Measures
from leap.report.reader import FOLDER
from leap.report.runs import Run, read_runs
from leap.report.tables import prediction_rows, selection_rows
from leap.report.transfer import label, main_outcome

PROJECT = "leap"  # of runs whose configuration names none


@dataclass(frozen=True)
class Measured:
    """What `leap measure` found of at least one run.

    Attributes:
        matrices: By name.
        labels: Of the matrices, as tables call them.
        scores: Names of those matrices that are scores of transferability.
        outcome: The outcome that predictors are held against.
        tables: Of `selection` and `predictions` those that were logged.
        pictures: Names of the pictures.
    """

    matrices: dict[str, Matrix]
    labels: dict[str, str]
    scores: frozenset[str]
    outcome: Matrix | None
    tables: tuple[str, ...]
    pictures: frozenset[str]


@dataclass(frozen=True)
class Logged:
    """What the panels of a dashboard can show.

    Attributes:
        project, entity, group: Where wandb has the runs.
        family: Of their tasks.
        learners, seeds: As they were first met.
        runs: The runs' names.
        untracked: Those among them in whose folder wandb has written nothing.
        varied: Settings that differ between runs of one learner, dotted.
        metrics: Keys of metrics.jsonl that have a value.
        evaluated: Whether a run was evaluated.
        has_error: Whether the family has an error beside its loss.
        games: Held-out games.
        curves: Those of them that have a learning curve of returns.
        pretraining: Numbers of pretraining tasks, ascending.
        measured: None where no run was measured.
    """

    project: str
    entity: str | None
    group: str
    family: str
    learners: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    untracked: tuple[str, ...]
    varied: tuple[str, ...]
    metrics: frozenset[str]
    evaluated: bool
    has_error: bool
    games: tuple[str, ...]
    curves: tuple[str, ...]
    pretraining: tuple[int, ...]
    measured: Measured | None


def read_logged(folders: Iterable[Path], group: str | None = None) -> Logged:
    """Read run folders.

    Args:
        folders: Of runs.
        group: Which wandb group's runs to keep; needed where they are of several.

    Raises:
        UsageError: no run there, none of this group, or runs that no single dashboard shows: of several groups,
            projects, accounts or families.
        RunError: a damaged file.
    """
    runs = _of_group(read_runs(folders), group)
    project = _one(runs, "projects", lambda run: _name(run, "project") or PROJECT)
    entity = _one(runs, "accounts", lambda run: _name(run, "entity"))
    family = _one(runs, "task families", _family)
    found = [run.evaluation for run in runs if run.evaluation is not None]
    games = tuple(dict.fromkeys(task for held in found if held.has_returns for task in held.tasks))
    return Logged(
        project=project,
        entity=entity,
        group=_group(runs[0]),
        family=family,
        learners=tuple(dict.fromkeys(run.learner for run in runs)),
        seeds=tuple(sorted({run.seed for run in runs})),
        runs=tuple(run.folder.resolve().name for run in runs),
        untracked=tuple(run.folder.resolve().name for run in runs if not any(run.folder.glob("wandb/*run-*"))),
        varied=_varied(runs),
        metrics=frozenset(key for run in runs for row in run.metrics for key in row if row[key] is not None),
        evaluated=bool(found),
        has_error=any(held.has_error for held in found),
        games=games,
        curves=tuple(game for game in games if any(_has_curve(held, game) for held in found)),
        pretraining=tuple(sorted({held.pretraining_tasks for held in found if held.pretraining_tasks is not None})),
        measured=_measured(runs),
    )


def _of_group(runs: Sequence[Run], group: str | None) -> Sequence[Run]:
    known: dict[str, list[Run]] = {}
    for run in runs:
        known.setdefault(_group(run), []).append(run)
    if group is None and len(known) > 1:
        names = ", ".join(map(repr, known))
        raise UsageError(f"the runs are of {len(known)} wandb groups ({names}); choose one with --group")
    if group is not None and group not in known:
        raise UsageError(f"no run is of the wandb group {group!r}; there are {', '.join(map(repr, known))}")
    return known[next(iter(known)) if group is None else group]


def _one(runs: Sequence[Run], what: str, of: Callable[[Run], Any]) -> Any:
    """What all runs have in common."""
    found: dict[Any, str] = {}
    for run in runs:
        found.setdefault(of(run), run.folder.name)
    if len(found) > 1:
        told = ", ".join(f"{value} ({name})" for value, name in found.items())
        raise UsageError(f"the runs are of several {what}: {told}; one dashboard shows one, so name fewer folders")
    return next(iter(found))


def _wandb(run: Run) -> dict[str, Any]:
    held = run.config.get("wandb")
    return held if isinstance(held, dict) else {}


def _name(run: Run, key: str) -> str | None:
    found = _wandb(run).get(key)
    if found is not None and not isinstance(found, str):
        raise RunError(f"{run.folder}/config.yaml has wandb.{key} {found!r}, which is not a name. Restore it")
    return found


def _family(run: Run) -> str:
    tasks = run.config.get("tasks")
    return str(tasks.get("name") if isinstance(tasks, dict) else tasks)


def _group(run: Run) -> str:
    return str(_wandb(run).get("group") or _family(run))[:128]  # as much as wandb keeps


def _varied(runs: Sequence[Run]) -> tuple[str, ...]:
    """Settings that make several configurations of one learner."""
    found: dict[str, None] = {}
    for learner in dict.fromkeys(run.learner for run in runs):
        found |= dict.fromkeys(differing_fields([run.config for run in runs if run.learner == learner]))
    return tuple(name for name in found if not name.startswith("measure."))


def _has_curve(held: Evaluation, game: str) -> bool:
    """Whether every walk in this game ended an episode, so that there is a mean over them."""
    if not held.has_returns or game not in held.tasks:
        return False
    place = held.tasks.index(game)
    return all(len(row[place]) for row in held.episodes[held.learner])


def _measured(runs: Sequence[Run]) -> Measured | None:
    held: list[Measures] = [run.measures for run in runs if run.measures is not None]
    if not held:
        return None
    tables = {"selection": selection_rows, "predictions": prediction_rows}
    return Measured(
        matrices={name: matrix for one in reversed(held) for name, matrix in one.matrices.items()},
        labels={name: label(one, name) for one in reversed(held) for name in one.matrices},
        scores=frozenset(name for one in held for name in one.score_names),
        outcome=next(filter(None, map(main_outcome, held)), None),
        tables=tuple(name for name, rows in tables.items() if any(len(rows(one)) > 1 for one in held)),
        pictures=frozenset(path.stem for run in runs for path in (run.folder / FOLDER).glob("*.png")),
    )
