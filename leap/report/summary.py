"""Runs of one comparison, reduced to a table: a row an initialization, a mean over training seeds with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from leap.errors import UsageError
from leap.metrics.statistics import Interval, difference_interval, mean_interval
from leap.report.baseline import baselines
from leap.report.differences import differing_fields, group_labels, group_runs
from leap.report.evaluation import BASELINE, Evaluation
from leap.report.runs import Run, read_runs


@dataclass(frozen=True)
class Measure:
    """A column of the table. Lower is better in all of them."""

    key: str
    label: str
    unit: str


ERROR_MEASURES = (
    Measure("test_error", "final test error", "%"),
    Measure("train_error_auc", "area under training-error curve", "%"),
    Measure("path_length", "path length", ""),
)
LOSS_MEASURES = (
    Measure("test_loss", "final test loss", ""),
    Measure("train_loss_auc", "area under training-loss curve", ""),
    Measure("path_length", "path length", ""),
)


PROTOCOL = ("family", "split", "steps", "evaluation_seeds", "has_error", "has_returns", "task_count")  # shared by runs


@dataclass(frozen=True)
class Row:
    """One initialization: `tables[key]` is [N seeds, T tasks], `curves` [N, K], both means over evaluation seeds.

    Seeds may hold out different tasks: `tasks` names those of each seed, in the order of the tables' columns.
    """

    label: str
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    tasks: tuple[tuple[str, ...], ...]
    tables: dict[str, np.ndarray]
    curves: np.ndarray
    baseline: bool = False

    def values(self, key: str) -> list[float]:
        """One number a training seed: the mean over tasks and evaluation seeds, NaN where a walk diverged."""
        return [float(value) for value in self.tables[key].mean(axis=1)]

    def by_task(self, key: str) -> dict[str, float]:
        """One number a task: the mean over the training seeds that held it out, NaN where a walk diverged."""
        found: dict[str, list[float]] = {}
        for names, values in zip(self.tasks, self.tables[key], strict=True):
            for name, value in zip(names, values, strict=True):
                found.setdefault(name, []).append(float(value))
        return {name: float(np.mean(values)) for name, values in found.items()}

    def interval(self, key: str) -> Interval | None:
        """Mean over training seeds with its 95% interval; None where a walk diverged, so that no mean is honest."""
        values = self.values(key)
        return mean_interval(values) if np.isfinite(values).all() else None


@dataclass(frozen=True)
class Verdict:
    """The best initialization beside one other: `behind` is how much worse the other is, over seeds."""

    best: Row
    other: Row
    behind: Interval
    paired: bool

    @property
    def settled(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.behind.low is not None and self.behind.low > 0


@dataclass(frozen=True)
class Summary:
    """A comparison. `rows` are best first; `groups` also name what has no evaluation yet."""

    evaluation: Evaluation
    measures: tuple[Measure, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, tuple[Run, ...]], ...]
    missing: tuple[Run, ...]
    differences: dict[str, list[str]]

    def verdicts(self) -> list[Verdict]:
        """The best row against every other one, in the table's order; empty where a mean does not exist."""
        found = (self.verdict(row, self.measures[0]) for row in self.rows[1:])
        return [verdict for verdict in found if verdict is not None]

    def verdict(self, other: Row, measure: Measure) -> Verdict | None:
        """The best row (by the first measure) against another by any; None where a mean does not exist."""
        best = self.rows[0]
        known = best.interval(measure.key) and other.interval(measure.key)
        return _compare(best, other, measure.key) if known else None


def summarize(folders: Iterable[Path | str]) -> Summary:
    """Read run folders and reduce them to a table.

    Runs that differ in seed, tracking and device only are one row. The rows "none" are the random initializations
    that the learners started from: one value a seed, however many learners share it.

    Args:
        folders: Run folders, as `leap train` wrote them.

    Raises:
        UsageError: not a run folder, none evaluated, evaluations of different protocols, different tasks held out with
            one seed, or a configuration given twice with one seed.
        RunError: a damaged file.
    """
    runs = read_runs(folders)
    groups = group_runs(runs)
    _refuse_repeats(groups)
    labels = group_labels(groups)
    evaluated = [run for run in runs if run.evaluation is not None]
    first = _one_protocol(evaluated, runs)
    measures = ERROR_MEASURES if first.has_error else LOSS_MEASURES
    rows = [
        _row(label, group, measures)
        for label, group in zip(labels, groups, strict=True)
        if group[0].learner != BASELINE and any(run.evaluation is not None for run in group)
    ]
    for found in baselines(groups, labels):
        rows.append(_row(found.label, [found.runs[seed] for seed in sorted(found.runs)], measures, baseline=True))
    return Summary(
        evaluation=first,
        measures=measures,
        rows=tuple(sorted(rows, key=lambda row: _order(row, measures[0].key))),
        groups=tuple((label, tuple(group)) for label, group in zip(labels, groups, strict=True)),
        missing=tuple(run for run in runs if run.evaluation is None),
        differences=differing_fields([group[0].config for group in groups]),
    )


def _refuse_repeats(groups: Sequence[Sequence[Run]]) -> None:
    for group in groups:
        for one, next_one in pairwise(group):
            if one.seed == next_one.seed:
                raise UsageError(
                    f"{one.folder} and {next_one.folder} are one configuration with one seed ({one.seed}): "
                    "counting both would make the result look surer than it is. Leave one out."
                )


def _one_protocol(evaluated: Sequence[Run], runs: Sequence[Run]) -> Evaluation:
    """An evaluation that all share the protocol of, and those of one seed the tasks."""
    if not evaluated:
        raise UsageError(f"None of the {len(runs)} runs has been evaluated. Start with: leap evaluate {runs[0].folder}")
    first = evaluated[0]
    assert first.evaluation is not None
    of_seed: dict[int, Run] = {}
    for run in evaluated:
        refuse_different(first, run, PROTOCOL)
        refuse_different(of_seed.setdefault(run.seed, run), run, ("tasks",))
    return first.evaluation


def mean_curve(run: Run, name: str) -> np.ndarray:
    """The learning curve [K] of an evaluated run's initialization `name`, mean over tasks and evaluation seeds.

    It ends where its longest walk ended; a walk that stopped early keeps its last level until then, that is the mean
    between two looks at its validation error, as in the area under the curve.
    """
    assert run.evaluation is not None
    last = (run.config.get("evaluate") or {}).get("validate_every") or 1
    found: np.ndarray = run.evaluation.level_curves(name, int(last)).mean(axis=0)
    return found


def refuse_different(one: Run, two: Run, fields: Sequence[str]) -> None:
    """Refuse runs whose evaluations differ in these fields.

    Raises:
        UsageError: naming the first that differs.
    """
    for field in fields:
        mine, other = getattr(one.evaluation, field), getattr(two.evaluation, field)
        if mine != other:
            raise UsageError(
                f"{one.folder} and {two.folder} cannot be compared: {field} is {_short(mine)} in the one and "
                f"{_short(other)} in the other. Report them apart, or evaluate them alike."
            )


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _row(label: str, runs: Sequence[Run], measures: Sequence[Measure], baseline: bool = False) -> Row:
    held = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    name = BASELINE if baseline else runs[0].learner
    values = [evaluation.values[name] for _, evaluation in held]
    curves = [mean_curve(run, name) for run, _ in held]
    longest = max(map(len, curves))
    return Row(
        label=label,
        seeds=tuple(run.seed for run, _ in held),
        runs=tuple(run for run, _ in held),
        tasks=tuple(evaluation.tasks for _, evaluation in held),
        tables={one.key: np.stack([value[one.key].mean(axis=0) for value in values]) for one in measures},
        curves=np.stack([np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in curves]),
        baseline=baseline,
    )


def _order(row: Row, key: str) -> tuple[bool, float]:
    interval = row.interval(key)
    return (interval is None, interval.mean if interval else 0.0)


def _compare(best: Row, other: Row, key: str) -> Verdict:
    paired = set(best.seeds) == set(other.seeds)
    return Verdict(best, other, difference_interval(other.values(key), best.values(key), paired=paired), paired)
