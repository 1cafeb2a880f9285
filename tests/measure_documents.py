"""Made-up documents of measures: distances with clusters of tasks, epochs that follow them, scores that guess them."""

from __future__ import annotations

from typing import Any

import numpy as np

from leap.metrics.prediction import prediction
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


SCORES = (
    # name, label, unit, how much noise hides the truth; nothing known of it where None
    ("h_score", "H-score", "1", 0.10),
    ("transferability", "Transferability T = H-score / (classes - 1)", "1", 0.06),
    ("h_score_adjusted", "H-score above that of random features, as a share", "1", 0.14),
    ("leep", "LEEP", "nats", 0.2),
    ("logme", "LogME", "nats", 0.3),
    ("parc", "PARC", "1", 0.9),
    ("probe", "Linear probe: negative log-loss", "nats", 0.05),
    ("source_accuracy", "Accuracy on the source itself", "%", None),
    ("log_samples", "Logarithm of the number of samples", "1", None),
)
BASELINES = ("probe", "source_accuracy", "log_samples")


def scored(seed: int = 0, *, tasks: tuple[str, ...] = TASKS, seeds: int = 3, only: bool = False) -> dict[str, Any]:
    """The document with scores of transferability: matrices, selections, walks and predictions; `only` those.

    `log_samples` is the same for every source, and `source_accuracy` is unknown for walks.
    """
    rng = np.random.default_rng(derive(seed, "scores"))
    held = document(seed, tasks=tasks, seeds=seeds, relations=False)
    count, matrices = len(tasks), held["matrices"]
    own = np.eye(count, dtype=bool)
    near = 1.3 - np.array(matrices["reachability"]["values"], dtype=float).mean(axis=0) / 5000
    error = 25 * np.exp(-near) + rng.normal(0, 0.8, (seeds, count, count))
    label = "Test error on the target after fine-tuning"
    matrices["tuned_error"] = _matrix(np.where(own, np.nan, error), "%", label, "outcome")
    for name, label, unit, noise in SCORES:
        known = (0.5 * near + noise * rng.normal(size=(count, count))) if noise else rng.uniform(80, 99, count)
        values = np.full((count, count), 7.5) if name == "log_samples" else np.broadcast_to(known, (count, count))
        values = values + (0.0 if name == "log_samples" else 0.01) * rng.normal(size=(seeds, count, count))
        matrices[name] = _matrix(values, unit, label, "similarity")
    held["scores"] = [
        {"name": name, "label": label, "unit": unit, "baseline": name in BASELINES} for name, label, unit, _ in SCORES
    ]
    _score_walks(rng, held)
    held["higher_order"] = _higher_order(np.array(matrices["h_score_adjusted"]["values"], dtype=float))
    if only:
        held["matrices"] = {name: m for name, m in matrices.items() if m["kind"] == "outcome" or name in _names()}
        held |= {"curves": {}, "singles": {}}
    for y in ("tuned_error", "epochs"):
        held["relations"] += [_relation(held["matrices"], x, y) for x in held["matrices"] if _predicts(held, x)]
    return held


def scored_as(learner: str, level: float, seed: int = 0) -> dict[str, Any]:
    """A document of walks alone, from another learner: tasks are harder by `level`, the random start is the same."""
    rng = np.random.default_rng(derive(seed, learner))
    held = scored(seed, tasks=TASKS[:4], seeds=2) | {"learner": learner, "relations": [], "predictions": []}
    walks = held["paths"]["initializations"]
    error = np.clip(level * np.array(walks["leap"]["test_error"]) * rng.lognormal(0, 0.3, (1, 16)), 0, 100)
    own = {"test_error": error.tolist(), "train_error_auc": (1.2 * error).tolist(), "path_length": (error / 6).tolist()}
    for name, _, _, noise in SCORES[:7]:
        own[name] = (1 - error / 60 + (noise or 0) * rng.normal(size=error.shape)).tolist()
    own["log_samples"] = np.full(error.shape, 7.5).tolist()
    held["paths"]["initializations"] = {learner: own, "none": walks["none"]}
    del held["higher_order"]
    return held | {"matrices": {}, "curves": {}, "singles": {}}


def _higher_order(score: np.ndarray) -> dict[str, Any]:
    """The two best sources of every target."""
    own = np.where(np.eye(score.shape[1], dtype=bool), -np.inf, score)
    order = np.argsort(-own, axis=2)
    best = np.take_along_axis(own, order, axis=2)
    return {
        "single": order[:, :, 0].tolist(),
        "pair": order[:, :, :2].tolist(),
        "single_score": best[:, :, 0].tolist(),
        "pair_score": (best[:, :, 0] + 0.05).tolist(),
    }


def _names() -> list[str]:
    return [name for name, *_ in SCORES]


def _predicts(held: dict[str, Any], name: str) -> bool:
    return name != "log_samples" and held["matrices"][name]["kind"] != "outcome"


def _score_walks(rng: np.random.Generator, held: dict[str, Any]) -> None:
    """Scores of two initializations on every held-out task, and how well they order what walking reached."""
    held["predictions"] = []
    for start, measures in held["paths"]["initializations"].items():
        error = np.array(measures["test_error"])
        steps = np.where(error > np.quantile(error, 0.8), np.nan, 5 + error / 3)  # the rest never got there
        measures |= {
            "train_error_auc": (1.2 * error).tolist(),
            "steps_until": np.where(np.isnan(steps), None, steps).tolist(),
        }
        for name, _, _, noise in SCORES:
            if name != "source_accuracy":
                values = 1 - error / 60 + (noise or 0) * rng.normal(size=error.shape)
                measures[name] = (np.full(error.shape, 7.5) if name == "log_samples" else values).tolist()
        for y in ("test_error", "steps_until"):
            cut = np.isnan(np.array(measures[y], dtype=float))
            reached = np.where(cut, np.inf, np.array(measures[y], dtype=float))
            for x in (*_names()[:7], "path_length"):
                kind: Any = "distance" if x == "path_length" else "similarity"
                how: dict[str, Any] = {
                    "kind": kind,
                    "permutations": 200,
                    "resamples": 100,
                    "generator": generator(2, x),
                }
                found = prediction(measures[x], reached, **how)
                held["predictions"].append({"initialization": start, "x": x, "y": y, **found})


def _relation(matrices: dict[str, Any], name: str, outcome: str = "epochs") -> dict[str, Any]:
    x, y = matrices[name], matrices[outcome]
    side = expected(x["kind"], y["kind"])
    how: dict[str, Any] = {"alternative": side, "permutations": 200, "resamples": 100, "generator": generator(0, name)}
    return {"x": name, "y": outcome, **relation(x["values"], y["values"], y_censored=y["censored"], **how)}


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
