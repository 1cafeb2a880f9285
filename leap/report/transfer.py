"""What predicts transfer: the rows of the tables that a report shows, the best predictor first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from leap.report.captioned import plain
from leap.report.evaluation import BASELINE
from leap.report.findings import Score, setting
from leap.report.measure_charts import PATH_LABELS
from leap.report.measures import Matrix, Measures, mean

# Of several outcomes, which a page is about.
MAIN = ("area_lost", "return_lost", "tuned_error", "epochs", "epochs_to_share")
ENDED = {  # how a walk to a held-out task ended: in words and its unit, the main figure first
    "test_error": ("final test error", "%"),
    "test_return": ("test return", ""),
    "test_loss": ("final test loss", ""),
    "return_area": ("area under the learning curve of returns", ""),
    "train_error_auc": ("area under the training-error curve", "%"),
    "train_loss_auc": ("area under the training-loss curve", ""),
    "steps_until": ("steps until the training loss is low", "steps"),
}
ENDS = tuple(ENDED)
KNOWN_BASELINES = ("target_complexity",)  # distances that tell of the target alone
SAME, MISSING, NONE = "the same for every {}", "no value here", "no rank correlation exists"


@dataclass(frozen=True)
class Predictor:
    """A row: what predicts, what was found of it, and in `why` the reason where nothing was.

    `found` is what `leap.metrics.selection.selection` or `leap.metrics.prediction.prediction` returned, `p_value` that
    of the Mantel test or of permuted tasks. `walked`: it is known only after the training that it predicts.
    """

    name: str
    label: str
    baseline: bool
    found: Mapping[str, Any]
    p_value: float | None
    why: str = ""
    walked: bool = False

    def figure(self, name: str) -> float | None:
        """A correlation: the mean over targets, or the value over tasks."""
        held = self.found.get(name) or {}
        return held.get("mean", held.get("value"))

    def ends(self, name: str) -> list[float] | None:
        """Its interval."""
        return (self.found.get(name) or {}).get("interval")


@dataclass(frozen=True)
class Table:
    """Predictors of one outcome; over held-out tasks, from one initialization. `x` and `y` are names."""

    y: str
    label: str
    unit: str
    rows: tuple[Predictor, ...]
    initialization: str = ""

    @property
    def ceiling(self) -> Mapping[str, float | None]:
        """What one seed of the outcome predicts of another; empty for one seed."""
        return next((row.found["ceiling"] for row in self.rows if row.found.get("ceiling")), {})

    @property
    def best(self) -> Predictor | None:
        """The first predictor that is no baseline and known before training."""
        return self._first(lambda row: not row.baseline and not row.walked)

    @property
    def best_baseline(self) -> Predictor | None:
        """The first baseline that has a figure."""
        return self._first(lambda row: row.baseline)

    def _first(self, wanted: Callable[[Predictor], bool]) -> Predictor | None:
        return next((row for row in self.rows if wanted(row) and row.figure("weighted_tau") is not None), None)


def source_tables(measures: Measures) -> list[Table]:
    """Which source to start from: a table an outcome that predictors were held against, the main one first."""
    return [_source_table(measures, y) for y in outcomes(measures)]


def task_tables(measures: Measures) -> list[Table]:
    """How held-out tasks will end: a table an initialization and outcome, learned ones and main outcomes first."""
    pairs = dict.fromkeys((one["initialization"], one["y"]) for one in measures.predictions)

    def order(pair: tuple[str, str]) -> tuple[bool, int]:
        return pair[0] == BASELINE, ENDS.index(pair[1]) if pair[1] in ENDS else len(ENDS)

    return [_task_table(measures, *pair) for pair in sorted(pairs, key=order)]


def outcomes(measures: Measures) -> list[Matrix]:
    """Outcomes of which a selection is known, the main one first."""
    known = {one["y"] for one in measures.relations if one.get("selection")}
    held = [matrix for matrix in measures.matrices.values() if matrix.name in known and matrix.kind == "outcome"]
    return sorted(held, key=lambda one: MAIN.index(one.name) if one.name in MAIN else len(MAIN))


def main_outcome(measures: Measures) -> Matrix | None:
    """The outcome that scores are drawn against, whether or not it has been compared with them."""
    held = {name: matrix for name, matrix in measures.matrices.items() if matrix.kind == "outcome"}
    return next((held[name] for name in (*MAIN, *held) if name in held), None)


def label(measures: Measures, name: str) -> str:
    """What a predictor is called in tables: a score by its label, a length by its own, a distance by its name."""
    own = {score.name: score.label for score in measures.scores}
    lengths = PATH_LABELS | {"path_length_until": "path length until the loss is low"}
    words = lengths[name].split(" (")[0] if name in lengths else plain(name)
    return own.get(name) or words[:1].upper() + words[1:]


def _source_table(measures: Measures, y: Matrix) -> Table:
    related = {one["x"]: one for one in measures.relations if one["y"] == y.name and not setting(one)}
    baselines = {*KNOWN_BASELINES, *(score.name for score in measures.scores if score.baseline)}
    names = [score.name for score in measures.scores if score.baseline or score.name in measures.matrices]
    names += [name for name, matrix in measures.matrices.items() if matrix.kind != "outcome"]
    rows = []
    for name in dict.fromkeys(names):
        one, why = related.get(name, {}), _why_not(measures.matrices.get(name))
        found = {} if why else one.get("selection") or {}
        if not why and not found:
            why = "not compared" if one else NONE
        rows.append(Predictor(name, label(measures, name), name in baselines, found, one.get("mantel_p"), why))
    return Table(y.name, y.label, y.unit, by_weighted_tau(rows))


def _why_not(matrix: Matrix | None) -> str:
    """Why a matrix cannot choose among sources; empty where it may."""
    if matrix is None:
        return MISSING
    held = np.where(np.eye(len(matrix.mean), dtype=bool), np.nan, matrix.mean)
    if np.isnan(held).all():
        return MISSING
    spread = np.nanmax(held, axis=1, initial=-np.inf) - np.nanmin(held, axis=1, initial=np.inf)
    return SAME.format("source") if not (spread > 0).any() else ""


def _task_table(measures: Measures, start: str, y: str) -> Table:
    assert measures.paths is not None
    held = measures.paths.values[start]
    related = {one["x"]: one for one in measures.predictions if (one["initialization"], one["y"]) == (start, y)}
    wanted: Iterable[Score] = (score for score in measures.scores if score.baseline or score.name in held)
    own = {score.name: score.baseline for score in wanted}
    rows = []
    for name in dict.fromkeys((*own, *related)):
        found, values = related.get(name, {}), mean(held[name]) if name in held else np.empty(0)
        there = values[np.isfinite(values)]
        same = SAME.format("task") if there.size and np.ptp(there) == 0 else NONE
        why = "" if found else same if there.size else MISSING
        head = name, label(measures, name), own.get(name, False)
        rows.append(Predictor(*head, found, found.get("p_value"), why, walked=name not in own))
    words, unit = ENDED.get(y, (plain(y), ""))
    return Table(y, words, unit, by_weighted_tau(rows), start)


def by_weighted_tau(rows: list[Predictor]) -> tuple[Predictor, ...]:
    """By the weighted tau, the largest first, and what has none at the end; equal ones as they came."""

    def order(row: Predictor) -> tuple[bool, float]:
        value = row.figure("weighted_tau")
        return value is None, 0.0 if value is None else -value

    return tuple(sorted(rows, key=order))
