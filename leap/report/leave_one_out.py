"""Leave-one-out comparisons in numbers: each method's errors on every data set held out in turn, and who is best where.

The table of `Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_ (Table 1), with intervals over training seeds,
which the paper does not give. Lower is better in all of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leap.errors import UsageError
from leap.metrics.correlation import ranks
from leap.metrics.statistics import Interval, difference_interval, mean_interval
from leap.report.differences import differing_fields, group_labels, group_runs, method
from leap.report.evaluation import BASELINE, Evaluation
from leap.report.runs import Run, read_runs
from leap.report.summary import Measure, mean_curve, refuse_different

TITLES = {
    "leap": "Leap",
    "reptile": "Reptile",
    "fomaml": "FOMAML",
    "maml": "MAML",
    "anil": "ANIL",
    "meta_sgd": "Meta-SGD",
    "finetune": "Finetuning",
    "progressive": "Progressive Nets",
    "hat": "HAT",
    BASELINE: "No pretraining",
}
"""What a learner is called in the table, in its order."""
TEST, TRAIN, AREA = (
    Measure("test_error", "test error", "%"),
    Measure("final_train_error", "train error", "%"),
    Measure("train_error_auc", "AUC", "%"),
)
SHARED = ("tasks", "model", "inner")  # what a walk from a random initialization depends on
PROTOCOL = ("family", "split", "evaluation_seeds", "has_error")  # steps may depend on the data set's size


@dataclass(frozen=True)
class Method:
    """A row of the table: a learner's name, and the title that tells it from all others."""

    learner: str
    title: str


@dataclass(frozen=True)
class Walks:
    """What a method reached on one data set with one seed.

    Attributes:
        run: Where it was measured.
        values: Numbers by name, means over evaluation seeds, `steps` among them; NaN where a walk diverged.
        curve: Training error at each inner step, percent, mean over evaluation seeds, [K]; see `summary.mean_curve`.
    """

    run: Run
    values: Mapping[str, float]
    curve: np.ndarray


Results = dict[tuple[str, str], dict[int, Walks]]
"""What was reached, by data set, a method's title and seed."""


@dataclass(frozen=True)
class Standing:
    """A method over all data sets that can be counted.

    Attributes:
        lowest: On how many it has the lowest value, by measure; ties count for each.
        both: On how many it has the lowest test error and the lowest area at once.
        rank: Mean rank by measure, 1 the best; what diverged ranks last.
        gain: Test error less that without pretraining, mean and interval over data sets; None where it cannot be had.
    """

    method: Method
    lowest: Mapping[str, int]
    both: int
    rank: Mapping[str, float]
    gain: Interval | None


@dataclass(frozen=True)
class LeaveOneOut:
    """A comparison for each data set held out; `results[name, title]` has a `Walks` a seed, and may be missing."""

    protocol: Evaluation
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]
    measures: tuple[Measure, ...]
    results: Mapping[tuple[str, str], Mapping[int, Walks]]
    groups: tuple[tuple[str, tuple[Run, ...]], ...]
    missing: tuple[Path, ...]

    def at(self, name: str, one: Method) -> Mapping[int, Walks]:
        """What there is of a method on a data set, by seed."""
        return self.results.get((name, one.title), {})

    def sole(self, learner: str) -> Method | None:
        """The one method of a learner; None where there is none, or several configurations of it."""
        found = [one for one in self.methods if one.learner == learner]
        return found[0] if len(found) == 1 else None

    def interval(self, name: str, one: Method, key: str) -> Interval | None:
        """Mean over the seeds that there are, with its interval; None where a walk diverged or there is no seed."""
        values = [walks.values[key] for walks in self.at(name, one).values()]
        return mean_interval(values) if values and np.isfinite(values).all() else None

    def shared(self, name: str) -> tuple[int, ...]:
        """The seeds that every method has on a data set: what methods are ranked by."""
        return tuple(seed for seed in self.seeds if all(seed in self.at(name, one) for one in self.methods))

    @property
    def counted(self) -> tuple[str, ...]:
        """The data sets on which methods can be ranked: every method has been tried on them with a common seed."""
        return tuple(name for name in self.names if self.shared(name))

    def means(self, name: str, key: str) -> dict[Method, float]:
        """Means over the seeds that all methods share; infinite where a walk diverged, so that it is never best."""
        seeds = self.shared(name)
        found = {one: np.mean([self.at(name, one)[seed].values[key] for seed in seeds]) for one in self.methods}
        return {one: round(float(mean), 6) if np.isfinite(mean) else np.inf for one, mean in found.items()}

    def best(self, name: str, key: str) -> set[Method]:
        """The methods with the lowest mean on a data set; none where they cannot be ranked."""
        if not self.shared(name) or len(self.methods) < 2:
            return set()
        means = self.means(name, key)
        lowest = min(means.values())
        return {one for one, mean in means.items() if mean == lowest and np.isfinite(mean)}

    def behind(self, name: str, one: Method, other: Method, key: str = TEST.key) -> Interval | None:
        """By how much `one` is above `other`, paired by the seeds that both have; None where it cannot be had."""
        mine, others = self.at(name, one), self.at(name, other)
        seeds = [seed for seed in mine if seed in others]
        first, second = ([held[seed].values[key] for seed in seeds] for held in (mine, others))
        if one == other or not seeds or not np.isfinite([*first, *second]).all():
            return None
        return difference_interval(first, second, paired=True)

    def standings(self) -> list[Standing]:
        """Every method over the data sets that can be counted, in the table's order."""
        keys, names = (TEST.key, AREA.key), self.counted
        if not names:
            return []
        placed = {key: np.array([ranks(np.array(list(self.means(n, key).values()))) for n in names]) for key in keys}
        best = {key: [self.best(name, key) for name in names] for key in keys}
        return [
            Standing(
                one,
                {key: sum(one in found for found in best[key]) for key in keys},
                sum(one in first and one in second for first, second in zip(*best.values(), strict=True)),
                {key: float(placed[key][:, place].mean()) for key in keys},
                self._gain(one),
            )
            for place, one in enumerate(self.methods)
        ]

    def _gain(self, one: Method) -> Interval | None:
        plain = self.sole(BASELINE)
        found = [self.behind(name, one, plain) for name in self.counted] if plain else []
        means = [interval.mean for interval in found if interval is not None]
        return mean_interval(means) if means and len(means) == len(found) else None


def gather(
    folders: Iterable[Path | str],
    *,
    names: Sequence[str] = (),
    seeds: Sequence[int] = (),
    missing: Sequence[Path] = (),
) -> LeaveOneOut:
    """Read the runs of a leave-one-out comparison.

    Args:
        folders: Evaluated run folders, each with one task held out.
        names: Data sets in the table's order; by default, and behind these, as the runs name them.
        seeds: The seeds that were asked for; likewise.
        missing: Runs that were asked for and are not evaluated, to be told of.

    Raises:
        UsageError: a run that is not evaluated, or not on one task, evaluations of different protocols, a configuration
            twice with one seed on one data set, tasks without errors.
        RunError: a damaged file.
    """
    runs = read_runs(folders)
    held = [_held_out(run) for run in runs]
    first = _protocol(runs, held)
    # What is held out is the column of the table, not what tells methods apart.
    plain = [dataclasses.replace(run, config=_without_held_out(run.config)) for run in runs]
    of = {id(run): name for run, name in zip(plain, held, strict=True)}
    groups = [(_title(label, group[0].learner), tuple(group)) for label, group in _labelled(plain)]
    methods, results = _learned(groups, of)
    more, others = _random(plain, of)
    results |= others
    walks = [one for by_seed in results.values() for one in by_seed.values()]
    return LeaveOneOut(
        protocol=first,
        names=tuple(dict.fromkeys([*names, *held])),
        seeds=tuple(dict.fromkeys([*seeds, *sorted(run.seed for run in runs)])),
        methods=(*methods, *more),
        measures=tuple(one for one in (TEST, TRAIN, AREA) if all(one.key in walk.values for walk in walks)),
        results=results,
        groups=tuple(groups),
        missing=tuple(missing),
    )


def answer(found: LeaveOneOut) -> tuple[str, str]:
    """On how many data sets Leap, or else whoever ranks best, has the lowest errors: a headline, and the rest."""
    standings = found.standings()
    if len(standings) < 2:
        return "Nothing can be compared yet.", "No data set has results of two methods with one seed."
    leading = min(standings, key=lambda one: one.rank[TEST.key])
    leap = next((one for one in standings if one.method == found.sole("leap")), leading)
    count = len(found.counted)
    of = f"{count} held-out data set{'' if count == 1 else 's'}"
    left = f" {len(found.names) - count} more cannot be counted yet." if count < len(found.names) else ""
    area, both = leap.lowest[AREA.key], leap.both
    return (
        f"{leap.method.title} has the lowest test error on {leap.lowest[TEST.key]} of {of}.",
        f"It has the lowest area under the training-error curve on {area}, and both on {both}.{left}",
    )


def _labelled(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Runs by configuration, learners in the table's order."""
    groups, order = group_runs(runs), list(TITLES)
    found = list(zip(group_labels(groups), groups, strict=True))
    return sorted(found, key=lambda one: order.index(one[1][0].learner) if one[1][0].learner in order else len(order))


def _title(label: str, learner: str) -> str:
    return TITLES.get(learner, learner) + label[len(learner) :]


def _learned(groups: Sequence[tuple[str, Sequence[Run]]], of: Mapping[int, str]) -> tuple[list[Method], Results]:
    """The methods that learned an initialization, and what each reached."""
    methods: list[Method] = []
    results: Results = {}
    for title, group in groups:
        learner = group[0].learner
        if learner != BASELINE:
            methods.append(Method(learner, title))
            results |= _by_name(group, of, methods[-1], learner)
    return methods, results


def _random(runs: Sequence[Run], of: Mapping[int, str]) -> tuple[list[Method], Results]:
    """The random initializations: those of the learner `none` where it was asked for, else those beside the learners.

    Every evaluation holds one, walked with the same seeds. All that walk alike are one row.
    """
    alike: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.learner != BASELINE):
        if run.evaluation is not None and BASELINE in run.evaluation.values:
            alike.setdefault(repr(_walking(run.config)), []).append(run)
    own = [group for group in alike.values() if group[0].learner == BASELINE]
    groups = own or list(alike.values())
    fields = differing_fields([dict(_walking(group[0].config)) for group in groups])
    methods: list[Method] = []
    results: Results = {}
    for place, group in enumerate(groups):
        told = ", ".join(f"{name}={values[place]}" for name, values in fields.items())
        one = Method(BASELINE, TITLES[BASELINE] + (f" ({told})" if told else ""))
        methods.append(one)
        first: dict[tuple[str, int], Run] = {}
        for run in group:
            first.setdefault((of[id(run)], run.seed), run)
        results |= _by_name(list(first.values()), of, one, BASELINE)
    return methods, results


def _by_name(runs: Sequence[Run], of: Mapping[int, str], one: Method, key: str) -> Results:
    found: Results = {}
    for run in sorted(runs, key=lambda run: run.seed):
        held = found.setdefault((of[id(run)], one.title), {})
        if run.seed in held:
            raise UsageError(
                f"{held[run.seed].run.folder} and {run.folder} are one configuration with one seed ({run.seed}) and "
                "one data set held out: counting both would make the result look surer than it is. Leave one out."
            )
        held[run.seed] = _walks(run, key)
    return found


def _walks(run: Run, key: str) -> Walks:
    assert run.evaluation is not None
    values = run.evaluation.values[key]
    means = {name: float(held.mean()) for name, held in values.items() if held.ndim == 2}
    return Walks(run, {"steps": float(run.evaluation.steps)} | means, mean_curve(run, key))


def _held_out(run: Run) -> str:
    """The data set that a run holds out."""
    tasks = run.config.get("tasks")
    held = tasks.get("held_out") if isinstance(tasks, Mapping) else None
    if not isinstance(held, Sequence) or isinstance(held, str) or len(held) != 1:
        raise UsageError(f"{run.folder} holds out {held!r}; a leave-one-out table is of runs that hold out one task")
    return str(held[0])


def _protocol(runs: Sequence[Run], held: Sequence[str]) -> Evaluation:
    """An evaluation that all others share the protocol of; those of one data set walk equally far."""
    of_name: dict[str, Run] = {}
    for run, name in zip(runs, held, strict=True):
        if run.evaluation is None:
            raise UsageError(f"{run.folder} has not been evaluated. Start with: leap evaluate {run.folder}")
        if not run.evaluation.has_error or run.evaluation.task_count != 1:
            found = f"{run.evaluation.task_count} tasks, {'with' if run.evaluation.has_error else 'without'} errors"
            raise UsageError(f"{run.folder} was evaluated on {found}; the table needs one task, with errors in percent")
        refuse_different(runs[0], run, PROTOCOL)
        refuse_different(of_name.setdefault(name, run), run, ("steps",))
    assert runs[0].evaluation is not None
    return runs[0].evaluation


def _without_held_out(config: Mapping[str, Any]) -> dict[str, Any]:
    tasks = {key: value for key, value in config["tasks"].items() if key != "held_out"}
    return {**config, "tasks": tasks}


def _walking(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a walk from a random initialization depends on."""
    return {name: value for name, value in method(config).items() if name.split(".")[0] in SHARED}
