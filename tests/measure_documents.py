"""Made-up documents of measures: distances with two clusters of tasks, and epochs that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np

from leap.metrics.relation import expected, relation
from leap.randomness import derive, generator

TASKS = (
    "mnist",
    "kmnist",
    "notmnist",
    "fashion",
    "inverted-fashion",
    "cifar10",
    "cifar100",
    "cifar100-natural",
    "cifar100-artificial",
    "omniglot-Ojibwe-Cree",
)
GROUP = (0, 0, 0, 1, 1, 2, 2, 2, 2, 0)


def document(
    seed: int = 0, *, tasks: tuple[str, ...] = TASKS, seeds: int = 3, relations: bool = True
) -> dict[str, Any]:
    """A whole measures.json: four matrices of which one is censored, walks, curves, numbers a task, relations."""
    rng = np.random.default_rng(derive(seed, "measures"))
    count = len(tasks)
    group = np.array([GROUP[i % len(GROUP)] for i in range(count)])
    far = np.where(group[:, None] == group, 0.4, 1.0) + rng.uniform(0, 0.3, (count, count))
    far = (far + far.T) / 2
    hard = rng.uniform(0.5, 2, count) + group
    noise = rng.normal(0, 0.04, (seeds, count, count))
    reach = 3000 * (far + 0.6 * hard[:, None]) * (1 + noise)
    epochs = np.exp(1.1 * far + 0.9 * hard[:, None] + rng.normal(0, 0.12, (seeds, count, count)))
    limit = float(np.quantile(epochs, 0.95))
    fisher = np.clip(far / 2 + noise, 0, 1)
    fisher[:, np.arange(count), np.arange(count)] = 0
    score = 0.3 - far + 3 * noise
    own = np.eye(count, dtype=bool)
    matrices = {
        "reachability": _matrix(reach, "nats", "Reachability R(target | source): complexity added", "distance"),
        "fisher": _matrix(
            fisher, "1", "Fisher task distance, source's network to target's, on the target's data", "distance"
        ),
        "score": _matrix(np.where(own, np.nan, score), "nats", "Log transferability", "similarity"),
        "epochs": _matrix(
            np.where(own, np.nan, np.minimum(epochs, limit)),
            "epochs",
            "Epochs of fine-tuning from the source to the target's threshold",
            "outcome",
            (epochs >= limit) & ~own,
        ),
    }
    beta = np.geomspace(0.01, 100, 9)
    curve = hard[:, None] * 900 * beta / (1 + beta) * (1 + 0.02 * rng.normal(size=(seeds, count, 1)))
    held: dict[str, Any] = {
        "format": 1,
        "run": f"leap-seed{seed}",
        "learner": "leap",
        "family": "images",
        "tasks": list(tasks),
        "seeds": list(range(seeds)),
        "inner": {"epochs": 10, "rate": 0.1},
        "paths": _paths(rng, seeds),
        "singles": {
            "complexity": _single(900 * hard * (1 + noise[:, 0]), "nats", "Complexity C"),
            "epochs_from_scratch": _single(epochs[:, :, 0], "epochs", "Epochs from scratch"),
        },
        "matrices": matrices,
        "curves": {
            "complexity_beta": {
                "x": beta.tolist(),
                "values": curve.tolist(),
                "x_label": "beta",
                "label": "Complexity C",
                "unit": "nats",
            },
            "structure": {
                "x": curve.tolist(),
                "values": (2000 - curve * 0.9).tolist(),
                "x_label": "information in the weights (nats)",
                "label": "Loss",
                "unit": "nats",
            },
        },
        "relations": [],
    }
    if relations:
        held["relations"] = [_relation(matrices, name) for name in ("reachability", "fisher", "score")]
    return held


def _relation(matrices: dict[str, Any], name: str) -> dict[str, Any]:
    x, y = matrices[name], matrices["epochs"]
    side = expected(x["kind"], y["kind"])
    how: dict[str, Any] = {"alternative": side, "permutations": 200, "resamples": 100, "generator": generator(0, name)}
    return {"x": name, "y": "epochs", **relation(x["values"], y["values"], y_censored=y["censored"], **how)}


def _single(values: np.ndarray, unit: str, label: str) -> dict[str, Any]:
    return {"values": values.tolist(), "unit": unit, "label": label}


def _matrix(values: np.ndarray, unit: str, label: str, kind: str, censored: np.ndarray | None = None) -> dict[str, Any]:
    marks = None if censored is None else censored.tolist()
    table = np.where(np.isnan(values), None, values).tolist()
    return {"values": table, "unit": unit, "label": label, "kind": kind, "censored": marks}


def _paths(rng: np.random.Generator, seeds: int) -> dict[str, Any]:
    tasks = [f"alphabet {i}" for i in range(16)]
    named: dict[str, Any] = {}
    for name, level in (("leap", 1.0), ("none", 2.2)):
        length = level * rng.gamma(9, 0.5, (seeds, len(tasks)))
        named[name] = {
            "path_length": length.tolist(),
            "path_energy": (length**2 / 30).tolist(),
            "path_length_parameters": (0.9 * length).tolist(),
            "fisher_rao_length": (3 * length).tolist(),
            "test_error": np.clip(8 + 6 * length + rng.normal(0, 3, length.shape), 0, 100).tolist(),
            "test_loss": None,
        }
    return {"tasks": tasks, "initializations": named}
