"""What solutions and unions say together: complexities, reachability, structure functions, bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leap.measure.reader import Reader, table
from leap.metrics.complexity import (
    Complexity,
    expected_loss,
    information_distance,
    pac_bayes_bound,
    reachability,
    relative_reachability,
)
from leap.metrics.structure import structure_at, structure_function

STRUCTURE_POINTS = 33


def reachability_tables(reader: Reader) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Complexities of tasks, reachability and information distance between them; and how they depend on beta."""

    def reach(beta: float) -> Callable[[int, int, int], float]:
        def cell(seed: int, target: int, source: int) -> float:
            union = reader.complexity("union", seed, target, source, beta)
            return float(reachability(union, reader.complexity("solution", seed, source, source, beta)))

        return cell

    def inform(seed: int, target: int, source: int) -> float:
        union = reader.complexity("union", seed, target, source)
        return float(information_distance(union, reader.complexity("solution", seed, source, source)))

    def fraction(seed: int, target: int, source: int) -> float:
        union = reader.complexity("union", seed, target, source)
        own, known = (reader.complexity("solution", seed, task, task) for task in (target, source))
        return float(relative_reachability(union, source=known, target=own))

    matrices = {
        "reachability": table(
            reader.matrix(reach(reader.plan.beta)),
            "nats",
            "Reachability R(target | source): complexity added",
            "distance",
        ),
        "information_distance": table(
            reader.matrix(inform), "nats", "Information distance: information added", "distance"
        ),
        "reachability_fraction": table(
            reader.matrix(fraction), "1", "Reachability as a share of the target's complexity", "distance"
        ),
    }
    # what any predictor has to beat: some targets are long for every source
    matrices["target_complexity"] = table(
        reader.matrix(lambda s, t, o: float(reader.complexity("solution", s, t, t).total)), "nats",
        "Baseline: the target's own complexity, whatever the source", "distance",
    )  # fmt: skip
    sweep = {f"{beta:g}": reader.matrix(reach(beta)) for beta in reader.plan.betas}
    return complexity_singles(reader), matrices, {"reachability": {"parameter": "beta", "matrices": sweep}}


def complexity_singles(reader: Reader) -> dict[str, Any]:
    """The four parts of every task's complexity and what else its solution tells."""
    parts = {
        "total": "complexity",
        **{name: f"complexity_{name}" for name in ("loss", "norm", "logdet", "information")},
    }
    words = {"total": "Complexity C", "loss": "Loss", "norm": "Norm term", "logdet": "Log-determinant term"}
    singles = {}
    for part, name in parts.items():
        found = [[reader.complexity("solution", s, t, t) for t in reader.tasks] for s in reader.plan.seeds]
        values = [[float(getattr(one, part)) for one in row] for row in found]
        singles[name] = {"values": values, "unit": "nats", "label": words.get(part, "Information in the weights")}
    for kind, key, unit, label in (
        ("solution", "test_error", "%", "Test error of the solution"),
        ("curvature", "fisher_trace", "nats", "Trace of the summed Fisher at the solution"),
        ("solution", "gradient_norm", "nats", "Gradient left at the solution"),
        ("curvature", "dropped_trace", "nats", "Trace left out of the curvature"),
    ):
        held = [[reader.get(kind, s, t, t) for t in reader.tasks] for s in reader.plan.seeds]
        values = [[one.numbers[key] for one in row] for row in held]
        singles[f"solution_{key}"] = {"values": values, "unit": unit, "label": label}
    return singles | bounds(reader)


def bounds(reader: Reader) -> dict[str, Any]:
    """Errors of the noisy weights, and the PAC-Bayes bound on them; absent where beta is too small for a bound."""
    plan = reader.plan
    if plan.beta <= 0.5:
        return {}

    def bound(seed: int, task: int) -> float:
        whole = reader.complexity("solution", seed, task, task)
        mean = reader.get("bound", seed, task, task).tensors["train_errors"].mean() / 100
        count = int(reader.get("solution", seed, task, task).numbers["examples"])
        found = pac_bayes_bound(mean, whole.information, samples=count, beta=plan.beta, delta=1 - plan.confidence)
        return 100 * float(found)

    def mean(side: str) -> list[list[float]]:
        return reader.single(lambda s, t: float(reader.get("bound", s, t, t).tensors[f"{side}_errors"].mean()))

    return {
        "noisy_train_error": {"values": mean("train"), "unit": "%", "label": "Training error of the noisy weights"},
        "noisy_test_error": {"values": mean("test"), "unit": "%", "label": "Test error of the noisy weights"},
        "pac_bayes": {
            "values": reader.single(bound), "unit": "%", "label": "PAC-Bayes bound on the noisy weights' test error",
        },
    }  # fmt: skip


def complexity_curves(reader: Reader) -> dict[str, Any]:
    """Complexity over beta, and the structure function that it is the dual of: loss against information."""
    betas = sorted(reader.plan.betas)

    def over(part: Callable[[Complexity, float], Tensor]) -> list[list[list[float]]]:
        return [
            [[float(part(reader.complexity("solution", s, t, t, beta), beta)) for beta in betas] for t in reader.tasks]
            for s in reader.plan.seeds
        ]

    structure = [[_structure(reader, s, t) for t in reader.tasks] for s in reader.plan.seeds]
    curves = {
        "structure": {
            "x": [[curve[0] for curve in row] for row in structure],
            "values": [[curve[1] for curve in row] for row in structure],
            "x_label": "Information in the weights (nats)", "label": "Structure function: loss", "unit": "nats",
        },
        "complexity_beta": {
            "x": betas, "values": over(lambda c, beta: c.total), "x_label": "beta",
            "label": "Complexity C", "unit": "nats",
        },
        "information_beta": {
            "x": betas, "values": over(lambda c, beta: c.information), "x_label": "beta",
            "label": "Information in the weights", "unit": "nats",
        },
        "loss_beta": {
            "x": betas, "values": over(expected_loss), "x_label": "beta",
            "label": "Expected loss", "unit": "nats",
        },
    }  # fmt: skip
    return curves


def _structure(reader: Reader, seed: int, task: int) -> tuple[list[float], list[float]]:
    """Information and loss of a task's structure function, from its solution's sweep over beta and from guessing."""
    found = reader.get("solution", seed, task, task)
    parts = [(beta, reader.complexity("solution", seed, task, task, beta)) for beta in reader.plan.betas]
    information = torch.stack([one.information for _, one in parts])
    loss = torch.stack([expected_loss(one, beta) for beta, one in parts])
    # at the start all heads are zero: guessing, which needs no information
    guess = found.numbers["examples"] * found.tensors["curve"][:1].double()
    curve = structure_function(torch.cat([guess.new_zeros(1), information]), torch.cat([guess, loss]))
    grid = torch.linspace(0, float(curve.information[-1]), STRUCTURE_POINTS, dtype=torch.float64)
    return grid.tolist(), structure_at(curve, grid).tolist()
