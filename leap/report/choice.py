"""Which initialization to start from: what the scores of several runs say of it, on held-out tasks that all have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leap.measure.plan import RISING
from leap.report.evaluation import BASELINE
from leap.report.findings import Score
from leap.report.measures import Paths
from leap.report.runs import Run
from leap.report.transfer import ENDED, ENDS, MISSING, NONE, SAME, Predictor, Table, by_weighted_tau

FEWEST = 3  # candidates, and tasks: fewer have no order worth a line
NEVER = "steps_until"  # of which a missing value says that the walk never got there


Target = tuple[int, str]  # a training seed, which decides what is held out, and a held-out task


@dataclass(frozen=True)
class Candidate:
    """An initialization, or a configuration's by training seed: in `paths`, its walks, `start` names it."""

    label: str
    start: str
    paths: Mapping[int, Paths]
    seeds: tuple[int, ...]
    scores: tuple[Score, ...]

    @property
    def targets(self) -> list[Target]:
        """What it walked to."""
        return [(seed, task) for seed, paths in self.paths.items() for task in paths.tasks]

    def values(self, key: str, targets: Sequence[Target], seeds: Sequence[int]) -> np.ndarray | None:
        """A measure of its walks, [S, T]; None where there is none."""
        if any(key not in paths.values[self.start] for paths in self.paths.values()):
            return None
        rows = [self.seeds.index(seed) for seed in seeds]
        columns = [self.paths[t].values[self.start][key][rows, self.paths[t].tasks.index(task)] for t, task in targets]
        return np.stack(columns, axis=1) if columns else np.empty((len(rows), 0))


Groups = Sequence[tuple[str, Sequence[Run]]]


def choice_tables(groups: Groups) -> list[Table]:
    """A table an outcome, the main one first: rows are scores, which choose among the runs' initializations.

    Args:
        groups: Labelled runs, as a summary has them.

    Returns:
        Nothing where fewer than 3 initializations were measured with scores on 3 held-out tasks that all have.
    """
    held = candidates(groups)
    targets, seeds = common(held)
    if len(held) < FEWEST or len(targets) < FEWEST or not seeds:
        return []
    outcomes = {key: _stacked(held, key, targets, seeds) for key in ENDS}
    known = {key: values for key, values in outcomes.items() if values is not None and np.isfinite(values).any()}
    return [_table(held, key, values, targets, seeds) for key, values in known.items()]


def common(held: Sequence[Candidate]) -> tuple[list[Target], list[int]]:
    """Targets and seeds of measuring that all candidates have."""
    if not held:
        return [], []
    targets = [target for target in held[0].targets if all(target in one.targets for one in held)]
    return targets, [seed for seed in held[0].seeds if all(seed in one.seeds for one in held)]


def candidates(groups: Groups) -> list[Candidate]:
    """Who may be chosen: configurations, where they have several runs each, otherwise single runs.

    Training seeds hold out different tasks, so that runs of several seeds have few in common, while runs of one seed
    have all. Where configurations are too few to choose from, seeds stand side by side.
    """
    if any(len(runs) > 1 for _, runs in groups):
        found = _candidates(groups, by_seed=True)
        if len(found) >= FEWEST and len(common(found)[0]) >= FEWEST:
            return found
    runs = [
        (f"{label}, seed {run.seed}" if len(group) > 1 else label, (run,)) for label, group in groups for run in group
    ]
    return _candidates(runs, by_seed=False)


def _candidates(groups: Groups, *, by_seed: bool) -> list[Candidate]:
    """One a group and one for its random initializations, in one task family; random ones that groups share, once."""
    found: list[Candidate] = []
    family: str | None = None
    for label, runs in groups:
        held = {run.seed if by_seed else 0: run.measures for run in runs if run.measures and run.measures.paths}
        held = {seed: one for seed, one in held.items() if one.family == (family or one.family)}
        paths = {seed: one.paths for seed, one in held.items() if one.paths is not None}
        if not paths:
            continue
        first = next(iter(held.values()))
        seeds = tuple(seed for seed in first.seeds if all(seed in one.seeds for one in held.values()))
        for start in first.paths.values if first.paths else ():
            own = {seed: one for seed, one in paths.items() if start in one.values}
            name = label if start != BASELINE else "random" if by_seed else f"random, seed {runs[0].seed}"
            one = Candidate(name, start, own, seeds, first.scores)
            scored = any(one.values(score.name, [], seeds) is not None for score in first.scores)
            if scored and not any(_same(one, two) for two in found):
                found.append(one)
                family = first.family
    return found


def _same(one: Candidate, two: Candidate) -> bool:
    """Whether two random initializations are one: equal scores where both have them, but for rounding elsewhere."""
    targets, seeds = common([one, two])
    if one.start != BASELINE or two.start != BASELINE or not targets or not seeds:
        return False
    pairs = [[side.values(score.name, targets, seeds) for side in (one, two)] for score in one.scores]
    held = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
    return bool(held) and all(np.allclose(mine, other, rtol=1e-3, equal_nan=True) for mine, other in held)


def _stacked(held: Sequence[Candidate], key: str, targets: Sequence[Target], seeds: Sequence[int]) -> np.ndarray | None:
    """A measure of every candidate, [S, T, C]; None where one lacks it."""
    values = [one.values(key, targets, seeds) for one in held]
    there = [value for value in values if value is not None]
    return np.stack(there, axis=2) if len(there) == len(held) else None


def _table(
    held: Sequence[Candidate], y: str, outcomes: np.ndarray, targets: Sequence[Target], seeds: Sequence[int]
) -> Table:
    rows = []
    for score in {score.name: score for one in held for score in one.scores}.values():
        values = _stacked(held, score.name, targets, seeds)
        if values is None and not score.baseline:
            continue  # of some candidates alone
        rows.append(_predictor(score, values, y, -outcomes if y in RISING else outcomes))
    words, unit = ENDED[y]
    return Table(y, words, unit, by_weighted_tau(rows))


def _predictor(score: Score, values: np.ndarray | None, y: str, outcomes: np.ndarray) -> Predictor:
    from leap.metrics.selection import selection
    from leap.randomness import generator

    why = MISSING if values is None or np.isnan(values).all() else ""
    if values is not None and not why:
        spread = np.nanmax(values, axis=2, initial=-np.inf) - np.nanmin(values, axis=2, initial=np.inf)
        why = "" if (spread > 0).any() else SAME.format("initialization")
    if values is None or why:
        return Predictor(score.name, score.label, score.baseline, {}, None, why)
    reached = np.where(np.isnan(outcomes), np.inf, outcomes) if y == NEVER else outcomes
    stream = generator(0, "choice", score.name, y)
    found = selection(values, reached, kind="similarity", generator=stream, same_tasks=False)
    lacking = found["weighted_tau"]["mean"] is None
    return Predictor(score.name, score.label, score.baseline, {} if lacking else found, None, NONE if lacking else "")
