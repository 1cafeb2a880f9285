"""Tables of the distances between tasks, `M[target, source]`, and of the walks to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from leap.measure.paths import KEPT, Walks
from leap.measure.plan import SCRATCH
from leap.measure.reader import Reader, table
from leap.metrics.convergence import Convergence, time_to_threshold
from leap.metrics.fisher import fisher_task_distance
from leap.metrics.task2vec import cosine_distance


def fisher_tables(reader: Reader) -> dict[str, Any]:
    """Fisher task distance of every ordered pair."""

    def cell(seed: int, target: int, source: int) -> float:
        theirs, own = (reader.get("fisher", seed, target, task).tensors["diagonal"] for task in (source, target))
        return float(fisher_task_distance(theirs, own))

    label = "Fisher task distance, source's network to target's, on the target's data"
    return {"fisher": table(reader.matrix(cell), "1", label, "distance")}


def task2vec_tables(reader: Reader) -> dict[str, Any]:
    """Distance of Task2Vec embeddings, symmetric."""

    def cell(seed: int, target: int, source: int) -> float:
        one, two = (reader.get("embedding", seed, t, t).tensors["embedding"] for t in (target, source))
        return float(cosine_distance(one, two))

    return {"task2vec": table(reader.matrix(cell), "1", "Task2Vec distance (cosine, normalized)", "distance")}


def convergence_tables(reader: Reader) -> tuple[dict[str, Any], dict[str, Any]]:
    """Epochs from each source, and from scratch, until the target's loss is low: by either of two standards."""
    plan = reader.plan

    def curve(seed: int, target: int, source: int = SCRATCH) -> tuple[list[float], list[float]]:
        found = reader.get("tuning", seed, target, source).tensors
        return found["epochs"].tolist(), found["curve"].tolist()

    def as_scratch(seed: int, target: int) -> float:
        return plan.threshold * float(np.interp(plan.scratch_epochs, *curve(seed, target)))

    def of_guessing(seed: int, target: int) -> float:
        return plan.share * curve(seed, target)[1][0]  # heads start at zero, where the loss is that of guessing

    singles: dict[str, Any] = {}
    matrices: dict[str, Any] = {}
    for suffix, level, words in (
        ("", as_scratch, "to what learning from scratch reaches"),
        ("_to_share", of_guessing, f"to {plan.share:g} of the loss of guessing"),
    ):
        matrices[f"epochs{suffix}"] = _epochs(reader, curve, level, f"Epochs of fine-tuning from the source {words}")
        alone = [[time_to_threshold(*curve(s, t), level(s, t)).time for t in reader.tasks] for s in plan.seeds]
        singles[f"epochs{suffix}_from_scratch"] = {
            "values": alone, "unit": "epochs", "label": f"Epochs from scratch {words}",
        }  # fmt: skip
        singles[f"threshold{suffix}"] = {"values": reader.single(level), "unit": "nats", "label": f"Loss {words}"}
    errors = reader.matrix(lambda s, t, o: reader.get("tuning", s, t, o).numbers["test_error"], diagonal=False)
    matrices["tuned_error"] = table(errors, "%", "Test error on the target after fine-tuning", "outcome")
    return singles, matrices


Curve = Callable[[int, int, int], tuple[list[float], list[float]]]


def _epochs(reader: Reader, curve: Curve, level: Callable[[int, int], float], label: str) -> dict[str, Any]:
    """Times to a level, and which of them are only lower limits."""

    def time(seed: int, target: int, source: int) -> Convergence:
        return time_to_threshold(*curve(seed, target, source), level(seed, target))

    times = table(reader.matrix(lambda s, t, o: time(s, t, o).time, diagonal=False), "epochs", label, "outcome")
    cut = [[[t != o and time(s, t, o).censored for o in reader.tasks] for t in reader.tasks] for s in reader.plan.seeds]
    return {**times, "censored": cut}


LOST = {
    "return_area": ("area_lost", "area_from_scratch", "Area under the learning curve of returns"),
    "test_return": ("return_lost", "return_from_scratch", "Test return"),
}


def returns_tables(reader: Reader) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is lost when a game is learned from each source's trunk instead of from scratch; negative: gained."""

    def end(key: str) -> Callable[[int, int, int], float | None]:
        def cell(seed: int, target: int, source: int) -> float | None:
            found = reader.get("acting", seed, target, source).numbers[key]
            return found if math.isfinite(found) else None

        return cell

    def lost(key: str) -> Callable[[int, int, int], float | None]:
        def cell(seed: int, target: int, source: int) -> float | None:
            alone, there = end(key)(seed, target, SCRATCH), end(key)(seed, target, source)
            return None if alone is None or there is None else alone - there

        return cell

    singles: dict[str, Any] = {}
    matrices: dict[str, Any] = {}
    for key, (name, single, label) in LOST.items():
        words = f"{label}: lost against learning from scratch"
        matrices[name] = table(reader.matrix(lost(key), diagonal=False), "1", words, "outcome")
        alone = [[end(key)(seed, task, SCRATCH) for task in reader.tasks] for seed in reader.plan.seeds]
        singles[single] = {"values": alone, "unit": "1", "label": f"{label} from scratch"}
    return singles, matrices


DYNAMIC = {
    "line": ("barrier_line", "nats", "Barrier on the straight line from the source's solution"),
    "curve": ("barrier_curve", "nats", "Barrier on the best curve found"),
    "free_energy_barrier": ("barrier_free_energy", "nats", "Barrier of the effective potential along that curve"),
    "action": ("action", "nats", "Least action of the curve, times the temperature"),
}


def dynamic_tables(reader: Reader) -> tuple[dict[str, Any], dict[str, Any]]:
    """Barriers, action and the two factors of the transition probability, on the target's potential per example."""

    def number(key: str) -> Callable[[int, int, int], float]:
        return lambda seed, target, source: reader.get("barrier", seed, target, source).numbers[key]

    def static(seed: int, target: int, source: int) -> float:
        found = reader.get("barrier", seed, target, source).numbers
        return -(found["end"] - found["start"]) / (2 * found["temperature"])

    def dynamic(seed: int, target: int, source: int) -> float:
        found = reader.get("barrier", seed, target, source).numbers
        return -found["action"] / found["temperature"] - static(seed, target, source)

    matrices = {
        name: table(reader.matrix(number(key), diagonal=False), unit, label, "distance")
        for key, (name, unit, label) in DYNAMIC.items()
    }
    matrices["log_static_factor"] = table(
        reader.matrix(static, diagonal=False), "1", "Static factor of the transition probability, log", "similarity"
    )
    matrices["log_path_factor"] = table(
        reader.matrix(dynamic, diagonal=False), "1", "Path factor of the transition probability, log", "similarity"
    )
    if len(reader.tasks) < 2:  # no pair, and no temperature of one
        return {}, matrices
    values = [
        [sum(row) / len(row) for row in rows]
        for rows in (
            [[number("temperature")(s, t, o) for o in reader.tasks if o != t] for t in reader.tasks]
            for s in reader.plan.seeds
        )
    ]
    return {"temperature": {"values": values, "unit": "nats", "label": "SGD temperature"}}, matrices


def path_tables(reader: Reader, walks: Walks) -> dict[str, Any]:
    """Measures of the walks to held-out tasks, by initialization, [S][T]."""
    tasks = [walks.family.name(task) for task in walks.family.ids(walks.which)]
    found = {}
    for number, name in enumerate(walks.starts):
        rows = [reader.get("walk", seed, number, SCRATCH).tensors for seed in reader.plan.seeds]
        held = [measure for measure in KEPT if any(measure in row for row in rows)]
        found[name] = {measure: [finite(row.sized(measure, len(tasks))) for row in rows] for measure in held}
    return {"tasks": tasks, "initializations": found}


def finite(values: Tensor) -> list[float | None]:
    """A row for JSON, which has no NaN."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
