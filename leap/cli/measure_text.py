"""What was measured, for the terminal: walks, which distance goes with which outcome, what foretells transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST = 12  # rows of a table; the report has all


def text(document: Mapping[str, Any]) -> str:
    """What was found: walks by initialization, and how distances and scores go with outcomes."""
    scores = [score["name"] for score in document.get("scores", [])]
    lines = [
        *_walked(document["paths"]),
        *_related([one for one in document["relations"] if one["x"] not in scores]),
        *_selected([one for one in document["relations"] if one["x"] in scores]),
        *_foretold(document["predictions"], document["learner"]),
    ]
    return "\n".join(lines)


def _walked(paths: Mapping[str, Any]) -> list[str]:
    """Means over tasks and repetitions, and whether a task that is far away ends worse."""
    if not paths:
        return []
    ends = ("test_return", "return_area") if _games(paths) else ("test_error",)
    measures = ("path_length", "path_length_until", "path_length_parameters", "fisher_rao_length", *ends)
    word = ends[0].removeprefix("test_")
    rows = [["initialization", *measures, f"length & {word}", f"until & {word}"]]
    for name, found in paths["initializations"].items():
        goes = [_far_and_wrong(found, one, ends[0]) for one in measures[:2]]
        rows.append([name, *(_mean(found.get(one)) for one in measures), *goes])
    return ["", f"walks to {len(paths['tasks'])} held-out tasks (means; Spearman over tasks)", *columns(rows)]


def _games(paths: Mapping[str, Any]) -> bool:
    return any("test_return" in found for found in paths["initializations"].values())


def _mean(values: Sequence[Sequence[float | None]] | None) -> str:
    """Of all that exist, with their share where some do not."""
    known = [v for row in values or [] for v in row if v is not None]
    if not known or values is None:
        return "-"
    share = len(known) / sum(len(row) for row in values)
    return f"{sum(known) / len(known):.4g}" + (f" ({share:.0%} of walks)" if share < 1 else "")


def _far_and_wrong(found: Mapping[str, Any], measure: str, end: str) -> str:
    """Rank correlation of a length and the final error (or return) over tasks, each a mean over repetitions.

    A length that was not reached is beyond all that were.
    """
    from leap.metrics.correlation import spearman

    try:
        lengths = np.nan_to_num(np.array(found[measure], dtype=float), nan=np.inf).mean(axis=0)
        return _figure(spearman(lengths, np.array(found[end], dtype=float).mean(axis=0)))
    except (KeyError, ValueError):  # a family without errors, or no order among the tasks
        return "-"


def _related(relations: Sequence[Mapping[str, Any]]) -> list[str]:
    chosen = [one for one in relations if "beta" not in one]
    if not chosen:
        return []
    rows = [["distance", "outcome", "pooled Spearman", "95% over tasks", "within targets", "Mantel p"]]
    for one in chosen:
        low, high = one["pooled"]["tasks"] or (None, None)
        rows.append([
            one["x"], one["y"], _figure(one["pooled"]["spearman"]), f"{_figure(low)} to {_figure(high)}",
            _figure(one["within"]["spearman"]), _figure(one["mantel_p"], 4),
        ])  # fmt: skip
    return ["", "what goes with what training measured", *columns(rows)]


def _selected(relations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Scores against one outcome of fine-tuning: who orders the sources of a target best."""
    known = {one["y"] for one in relations}
    outcome = next((name for name in ("area_lost", "tuned_error") if name in known), "epochs")
    found = sorted(
        (one for one in relations if one["y"] == outcome and one["selection"]["weighted_tau"]["mean"] is not None),
        key=lambda one: -one["selection"]["weighted_tau"]["mean"],
    )
    if not found:
        return []
    rows = [["score", "Spearman", "95%", "Kendall tau-b", "weighted tau", "top 1", "top 3", "Mantel p"]]
    for one in found[:MOST]:
        held = one["selection"]
        rows.append([
            one["x"], _figure(held["spearman"]["mean"]), _interval(held["spearman"]["interval"]),
            _figure(held["kendall"]["mean"]), _figure(held["weighted_tau"]["mean"]),
            *(f"{held[top]['hits']:.3g} of {held[top]['targets']}" for top in ("top1", "top3")),
            _figure(one["mantel_p"], 4),
        ])  # fmt: skip
    ceiling = found[0]["selection"]["ceiling"]
    if ceiling is not None:
        figures = [_figure(ceiling[name]) for name in ("spearman", "kendall", "weighted_tau")]
        rows.append(
            ["(another seed)", figures[0], "", *figures[1:], *(_rate(ceiling[top]) for top in ("top1", "top3")), ""]
        )
    return ["", f"what predicts {outcome}: sources within a target (means over targets)", *columns(rows)]


def _foretold(predictions: Sequence[Mapping[str, Any]], learner: str) -> list[str]:
    """What the initialization promised for held-out tasks, and how much of it held."""
    known = [one for one in predictions if one["initialization"] == learner]
    outcome = next((one["y"] for one in known), None)
    found = sorted((one for one in known if one["y"] == outcome), key=lambda one: -one["spearman"]["value"])
    if not found:
        return []
    rows = [["score or length", "Spearman", "95%", "Kendall tau-b", "weighted tau", "p"]]
    for one in found[:MOST]:
        rows.append([
            one["x"], _figure(one["spearman"]["value"]), _interval(one["spearman"]["interval"]),
            _figure(one["kendall"]["value"]), _figure(one["weighted_tau"]["value"]), _figure(one["p_value"], 4),
        ])  # fmt: skip
    return [
        "",
        f"what the {learner} initialization's features foretell of {outcome}, over held-out tasks",
        *columns(rows),
    ]


def _interval(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{_figure(ends[0])} to {_figure(ends[1])}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for the terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
