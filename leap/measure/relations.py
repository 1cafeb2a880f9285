"""How the distances relate to what training then measured: which of them predicts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from leap.measure.plan import RISING
from leap.metrics.prediction import prediction
from leap.metrics.relation import expected, relation
from leap.randomness import generator

OUTCOMES = ("epochs", "epochs_to_share", "tuned_error", "area_lost", "return_lost")
ENDS = (
    ("test_error", "test_return", "test_loss"),
    ("train_error_auc", "return_area", "train_loss_auc"),
    ("steps_until",),
)
"""What a walk to a held-out task ends with; of each, the first that there is."""
WALKED = ("path_length", "path_length_until", "path_length_parameters", "fisher_rao_length")
PERMUTATIONS = 2000
LEAST = 4  # tasks, without which no rank correlation is worth a line


def relations(document: Mapping[str, Any], across: Mapping[Any, Any] | None = None) -> list[dict[str, Any]]:
    """Every matrix that predicts against every matrix that was measured, and reachability at every beta.

    Args:
        document: What was measured.
        across: By matrix, the form in which its targets can be compared, where that is another.

    Sets of fewer than four tasks have no rank correlation worth a line, and give an empty list. Two matrices that have
    none either, one being constant (as where nothing converged), give no row.
    """
    matrices, found = document["matrices"], []
    if len(document["tasks"]) < LEAST:
        return []
    for y in OUTCOMES:
        for x, table in matrices.items():
            if y in matrices and table["kind"] != "outcome":
                comparable = {**table, "values": (across or {}).get(x, table["values"])}
                found += _between(comparable, matrices[y], {"x": x, "y": y})
    return found + _sweeps(document)


def _sweeps(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    matrices: Mapping[str, Any] = document["matrices"]
    found: list[dict[str, Any]] = []
    for name, sweep in document["sweeps"].items():
        for y in (outcome for outcome in OUTCOMES[:2] if outcome in matrices):
            for value, values in sweep["matrices"].items():
                names = {"x": name, "y": y, sweep["parameter"]: float(value)}
                found += _between({**matrices[name], "values": values}, matrices[y], names)
    return found


def _between(x: Mapping[str, Any], y: Mapping[str, Any], names: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        figures = relation(
            x["values"],
            y["values"],
            generator=generator(0, "relation", names["x"], names["y"]),
            x_censored=x["censored"],
            y_censored=y["censored"],
            alternative=expected(x["kind"], y["kind"]),
            permutations=PERMUTATIONS,
        )
    except ValueError:  # no correlation exists: a constant, or too few common pairs
        return []
    return [{**names, **figures}]


def predictions(document: Mapping[str, Any], across: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """What an initialization's scores and its walks' lengths foretell of where the walks to held-out tasks end.

    Args:
        document: What was measured.
        across: By initialization and score, the form in which tasks can be compared.

    A score that is the same for all tasks, or a walk that never came to its end, foretells nothing and gives no row.
    """
    paths = document["paths"]
    if not paths or len(paths["tasks"]) < LEAST:
        return []
    names = [score["name"] for score in document.get("scores", [])]
    found = []
    for start, held in paths["initializations"].items():
        for y in (next((end for end in ends if end in held), None) for ends in ENDS):
            known = {"initialization": start, "y": y}
            if y is not None:
                found += [
                    one
                    for x in (*names, *(walked for walked in WALKED if walked in held))
                    for one in _foretold(across.get((start, x), held[x]), held[y], {**known, "x": x}, x in names)
                ]
    return found


def _foretold(x: Any, y: Any, names: dict[str, Any], scored: bool) -> list[dict[str, Any]]:
    """A list of one, or of none where no correlation exists. What was never reached lies beyond all that was."""
    outcomes = np.array(y, dtype=float) * (-1 if names["y"] in RISING else 1)
    never = np.isnan(outcomes) if names["y"] == "steps_until" else np.zeros_like(outcomes, dtype=bool)
    scores = np.array(x, dtype=float)
    if names["x"] == "path_length_until":
        scores = np.nan_to_num(scores, nan=np.inf)
    try:
        figures = prediction(
            scores,
            np.where(never, np.inf, outcomes),
            kind="similarity" if scored else "distance",
            generator=generator(0, "prediction", *names.values()),
            outcomes_censored=never,
            permutations=PERMUTATIONS,
        )
    except ValueError:  # one value everywhere, or too few tasks that have one
        return []
    return [{**names, **figures}]
