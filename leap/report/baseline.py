"""The random initializations beside the learned ones: one value a seed, however many learners started from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from leap.report.differences import method
from leap.report.evaluation import BASELINE
from leap.report.runs import Run

PROBE = 3  # the first training losses tell model, data and inner optimizer, before rounding on other machines adds up
TOLERANCE = 1e-3


@dataclass
class Baseline:
    """A random initialization by seed, each with one run that measured it; `members` label the groups that share it."""

    label: str
    runs: dict[int, Run] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)


def baselines(groups: Sequence[Sequence[Run]], labels: Sequence[str]) -> list[Baseline]:
    """The distinct random initializations behind groups of runs.

    Two groups share a baseline when its walks agree at every seed that both have: the same model, data and inner
    optimizer. Without a common seed they share it when their model and inner settings are equal. There is usually
    one, called "none"; where there are several, each says whose it is.
    """
    found: list[Baseline] = []
    for group, label in zip(groups, labels, strict=True):
        held = {run.seed: run for run in group if run.evaluation and BASELINE in run.evaluation.values}
        if not held:
            continue
        match = next((one for one in found if _shared(one.runs, held)), None)
        if match is None:
            match = Baseline(BASELINE)
            found.append(match)
        match.runs = {**held, **match.runs}
        match.members.append(label)
    if len(found) > 1:
        for one in found:
            one.label = f"{BASELINE} [beside {'; '.join(one.members)}]"
    return found


def _shared(mine: dict[int, Run], other: dict[int, Run]) -> bool:
    common = mine.keys() & other.keys()
    if common:
        return all(np.allclose(_probe(mine[s]), _probe(other[s]), rtol=TOLERANCE, equal_nan=True) for s in common)
    one, two = (method(next(iter(runs.values())).config) for runs in (mine, other))
    names = [name for name in one.keys() | two.keys() if name.startswith(("model.", "inner."))]
    return all(one.get(name) == two.get(name) for name in names)


def _probe(run: Run) -> np.ndarray:
    assert run.evaluation is not None
    return run.evaluation.values[BASELINE]["train_loss"][..., :PROBE]
