"""Which initialization to start from: what the scores of several runs say of it, on held-out tasks that all have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leap.report.evaluation import BASELINE
from leap.report.findings import Score
from leap.report.measures import Paths
from leap.report.runs import Run
from leap.report.transfer import ENDED, ENDS, MISSING, NONE, SAME, Predictor, Table, by_weighted_tau

FEWEST = 3  # candidates, and tasks: fewer have no order worth a line
NEVER = "steps_until"  # of which a missing value says that the walk never got there


@dataclass(frozen=True)
class Candidate:
    """An initialization of one run: `paths` are its walks, of which `start` names its own, by seed of measuring."""

    label: str
    start: str
    paths: Paths
    seeds: tuple[int, ...]
    scores: tuple[Score, ...]

    def values(self, key: str, tasks: Sequence[str], seeds: Sequence[int]) -> np.ndarray | None:
        """A measure of its walks, [S, T]; None where there is none."""
        held = self.paths.values[self.start].get(key)
        if held is None:
            return None
        rows = [self.seeds.index(seed) for seed in seeds]
        return np.asarray(held[np.ix_(rows, [self.paths.tasks.index(task) for task in tasks])])


def choice_tables(groups: Sequence[tuple[str, Sequence[Run]]]) -> list[Table]:
    """A table an outcome, the main one first: rows are scores, which choose among the runs' initializations.

    Args:
        groups: Labelled runs, as a summary has them.

    Returns:
        Nothing where fewer than 3 initializations were measured with scores on 3 held-out tasks that all have.
    """
    held = candidates(groups)
    if len(held) < FEWEST:
        return []
    tasks = [task for task in held[0].paths.tasks if all(task in one.paths.tasks for one in held)]
    seeds = [seed for seed in held[0].seeds if all(seed in one.seeds for one in held)]
    if len(tasks) < FEWEST or not seeds:
        return []
    outcomes = {key: _stacked(held, key, tasks, seeds) for key in ENDS}
    known = {key: values for key, values in outcomes.items() if values is not None and np.isfinite(values).any()}
    return [_table(held, key, values, tasks, seeds) for key, values in known.items()]


def candidates(groups: Sequence[tuple[str, Sequence[Run]]]) -> list[Candidate]:
    """Every initialization whose walks have scores, in one task family; a random one that several runs share, once."""
    found: list[Candidate] = []
    family: str | None = None
    for label, runs in groups:
        for run in runs:
            measures = run.measures
            if measures is None or measures.paths is None or measures.family != (family or measures.family):
                continue
            for start, held in measures.paths.values.items():
                name = f"{label}, seed {run.seed}" if len(runs) > 1 else label
                name = f"random, seed {run.seed}" if start == BASELINE else name
                one = Candidate(name, start, measures.paths, measures.seeds, measures.scores)
                if any(score.name in held for score in measures.scores) and not any(_same(one, two) for two in found):
                    found.append(one)
                    family = measures.family
    return found


def _same(one: Candidate, two: Candidate) -> bool:
    """Whether two random initializations are one: equal scores where both have them, but for rounding elsewhere."""
    tasks = [task for task in one.paths.tasks if task in two.paths.tasks]
    seeds = [seed for seed in one.seeds if seed in two.seeds]
    if one.start != BASELINE or two.start != BASELINE or not tasks or not seeds:
        return False
    pairs = [[side.values(score.name, tasks, seeds) for side in (one, two)] for score in one.scores]
    held = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
    return bool(held) and all(np.allclose(mine, other, rtol=1e-3, equal_nan=True) for mine, other in held)


def _stacked(held: Sequence[Candidate], key: str, tasks: Sequence[str], seeds: Sequence[int]) -> np.ndarray | None:
    """A measure of every candidate, [S, T, C]; None where one lacks it."""
    values = [one.values(key, tasks, seeds) for one in held]
    there = [value for value in values if value is not None]
    return np.stack(there, axis=2) if len(there) == len(held) else None


def _table(
    held: Sequence[Candidate], y: str, outcomes: np.ndarray, tasks: Sequence[str], seeds: Sequence[int]
) -> Table:
    rows = []
    for score in {score.name: score for one in held for score in one.scores}.values():
        values = _stacked(held, score.name, tasks, seeds)
        if values is None and not score.baseline:
            continue  # of some candidates alone
        rows.append(_predictor(score, values, y, outcomes))
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
