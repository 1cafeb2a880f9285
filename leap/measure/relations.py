"""How the distances relate to what training then measured: which of them predicts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leap.metrics.relation import expected, relation
from leap.randomness import generator

OUTCOMES = ("epochs", "epochs_to_share", "tuned_error")
PERMUTATIONS = 2000


def relations(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every matrix that predicts against every matrix that was measured, and reachability at every beta.

    Sets of fewer than four tasks have no rank correlation worth a line, and give an empty list. Two matrices that have
    none either, one being constant (as where nothing converged), give no row.
    """
    matrices, found = document["matrices"], []
    if len(document["tasks"]) < 4:
        return []
    for y in OUTCOMES:
        for x, table in matrices.items():
            if y in matrices and table["kind"] != "outcome":
                found += _between(table, matrices[y], {"x": x, "y": y})
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
