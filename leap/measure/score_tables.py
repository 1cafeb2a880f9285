"""Tables of transferability: a matrix a score, what an initialization promises for held-out tasks, pairs of sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from leap.measure.document import finite
from leap.measure.paths import Walks
from leap.measure.plan import SCRATCH, named
from leap.measure.reader import Reader, Values, table
from leap.measure.scoring import ACROSS
from leap.metrics.scores import SCORES


def add(
    reader: Reader,
    walks: Walks,
    names: Sequence[str],
    paths: dict[str, Any],
    matrices: dict[str, Any],
    distances: Sequence[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put scores beside the measures of walks and the matrices that are there.

    Returns:
        What else the document says of them; and, by score (of an initialization: by initialization and score), the
        form in which targets can be compared.
    """
    if not names:
        return {}, {}
    said: dict[str, Any] = {"scores": [described(name) for name in names]}
    across: dict[str, Any] = {}
    if paths:
        for start, found in paths["initializations"].items():
            found |= {name: read_start(reader, walks, start, name) for name in names}
            across |= {(start, name): read_start(reader, walks, start, ACROSS + name) for name in names}
    if set(distances) != {"path"}:
        for name in names:
            matrices[name] = table(pairs(reader, name), SCORES[name].unit, SCORES[name].label, "similarity")
            across[name] = pairs(reader, ACROSS + name)
        if len(reader.tasks) >= 3:
            said["higher_order"] = higher_order(reader)
    return said, across


def described(name: str) -> dict[str, Any]:
    """A score as the document names it."""
    score = SCORES[name]
    return {"name": name, "label": score.label, "unit": score.unit, "baseline": score.baseline}


def read_start(reader: Reader, walks: Walks, start: str, name: str) -> list[list[float | None]]:
    """A score of an initialization's features on every held-out task, [S][T']."""
    number = list(walks.starts).index(start)
    return [finite(reader.get("readout", seed, number, SCRATCH).tensors[name]) for seed in reader.plan.seeds]


def pairs(reader: Reader, name: str) -> Values:
    """A score of every source's features on every target, [S][T][T]; a task's own features stand on the diagonal."""

    def cell(seed: int, target: int, source: int) -> float | None:
        solved = reader.get("solution", seed, source, source).numbers
        if name.endswith("source_accuracy"):
            return 100 - solved["test_error"]
        if name.endswith("log_samples"):
            return math.log(solved["examples"])
        return reader.get("score", seed, target, source).numbers.get(name)

    return reader.matrix(cell)


def higher_order(reader: Reader) -> dict[str, Any]:
    """For every target the best source and the best pair of sources by adjusted H-score, [S][T]; places of tasks."""
    place = {task: number for number, task in enumerate(reader.tasks)}
    found: dict[str, Any] = {"single": [], "pair": [], "single_score": [], "pair_score": []}
    for seed in reader.plan.seeds:
        rows = [reader.get("joint", seed, task, named(reader.tasks)).numbers for task in reader.tasks]
        found["single"].append([place[int(row["source1.0"])] if row else None for row in rows])
        found["pair"].append([[place[int(row[f"source2.{i}"])] for i in (0, 1)] if row else None for row in rows])
        for key, number in (("single_score", "score1"), ("pair_score", "score2")):
            found[key].append([row.get(number) for row in rows])
    return found
