"""The part of the report page that shows what was measured of a run: relations, matrices, walks, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leap.metrics.statistics import mean_interval
from leap.report.captioned import NOTHING, Picture, correlation_text, p_text, plain
from leap.report.findings import setting
from leap.report.markup import details, section, table, tag, text
from leap.report.measure_charts import named
from leap.report.measure_pictures import curves, maps, scatters, walks
from leap.report.measures import Measures, Single
from leap.report.shown import grid, titled
from leap.report.text import interval_text, number
from leap.report.tree_pictures import curricula, spannings, trees


def measures_section(measures: Measures, title: str, key: str) -> str:
    """All that a page shows of a run's measures.

    Args:
        measures: What `parse_measures` gave.
        title: Which run they are of.
        key: Keeps the ids of these pictures apart from those of other runs on the page.
    """
    scores = measures.score_names
    # With scores, the trees of a curriculum stand with those of the scores, and are not drawn twice.
    elsewhere = {matrix.name for matrix in curricula(measures)} if scores else set()
    drawn = [*([] if scores else spannings(measures)), *trees(measures)]
    parts = [
        titled("Walks to held-out tasks", "", list(walks(measures)), key),
        _relations(measures, key),
        titled("From task to task", _MAPS, [one for one in maps(measures) if one.name not in scores], key),
        titled("Which tasks lie near each other", "", [one for one in drawn if _of(one) not in elsewhere], key),
        titled("Along the way", "", list(curves(measures)), key),
        _singles(measures),
    ]
    seeds = f"{len(measures.seeds)} seed{'' if len(measures.seeds) == 1 else 's'}"
    about = f"{measures.family}: {len(measures.tasks)} tasks, {seeds} of measuring"
    return section(f"Task distances: {title}", tag("p", text(about), class_="note"), *parts, class_="long")


_MAPS = (
    "One order of tasks in all of them, near ones side by side. Numbers are means over seeds; a dash was not measured. "
    "The diagonal, a task and itself, is pale and counts nowhere."
)


def _of(picture: Picture) -> str:
    """The matrix that a tree is of."""
    return picture.name.split(".")[0]


def _relations(measures: Measures, key: str) -> str:
    found = list(scatters(measures))
    if not measures.relations:
        return titled("What goes with what", "", found, key)
    head = [
        "relation",
        "Spearman, all pairs",
        "p by relabelling",
        "Spearman within targets",
        "Spearman, symmetric part",
        "same slower direction",
        "ceiling",
    ]
    scored = [one for one in measures.relations if one["x"] in measures.score_names]
    rows = [_relation(one) for one in measures.relations if one not in scored]
    cut = any(one.get("censored_pairs") for one in measures.relations)
    notes = [
        "1: the one orders pairs as the other does; 0: nothing in common; -1: opposite order. All pairs mixes hard "
        "targets with near sources; within targets compares the sources of one target and averages, so hardness counts "
        "for nothing. Small figures: 95% intervals over resampled tasks, then over seeds where there are several. "
        "p: how often tasks with shuffled names agree as much. Ceiling: how well one seed's outcome predicts "
        "another's, all pairs and within targets.",
    ]
    if cut:
        notes.append("Outcomes that were stopped at the limit count as the largest, tied.")
    held = table([text(one) for one in head], rows, "Relations") if rows else ""
    if scored:
        folded = table([text(one) for one in head], [_relation(one) for one in scored], "Relations of scores")
        held += details(f"The same for scores: {len(scored)} relations", tag("p", text(_SCORED), class_="note"), folded)
    return (
        tag("h3", "What predicts what")
        + held
        + "".join(tag("p", text(note), class_="note") for note in notes)
        + grid(found, key)
    )


_SCORED = "Here with their sign: a score that predicts falls with errors and epochs, so its correlation is negative."


def _relation(one: Mapping[str, Any]) -> list[str]:
    pooled, within, symmetric = (one.get(part) or {} for part in ("pooled", "within", "symmetric"))
    direction, ceiling = one.get("direction") or {}, one.get("ceiling") or {}
    agree = f"{direction['agree']} of {direction['pairs']}" if direction.get("pairs") else NOTHING
    beside = f"and {plain(one['y'])}" + (f", {setting(one)}" if setting(one) else "")
    targets = f"{within['count']} targets" if within.get("count") else ""
    both = [correlation_text(ceiling.get(part)) for part in ("pooled", "within")]
    return [
        f"{text(plain(one['x']))}<br>{tag('small', text(beside))}",
        _with_intervals(pooled, f"{one['pairs']} pairs" if one.get("pairs") else ""),
        p_text(one.get("mantel_p")),
        _with_intervals(within, targets),
        _with_intervals(
            symmetric, f"p {p_text(symmetric.get('mantel_p'))}" if symmetric.get("spearman") is not None else ""
        ),
        text(agree),
        text(NOTHING if set(both) == {NOTHING} else " / ".join(both)),
    ]


def _with_intervals(found: Mapping[str, Any], beside: str = "") -> str:
    """The correlation, and small below it the intervals over tasks and over seeds."""
    if found.get("spearman") is None:
        return NOTHING
    small = [_ends(found[key], what) for key, what in (("tasks", "tasks"), ("seeds", "seeds")) if found.get(key)]
    below = "".join(f"<br>{tag('small', text(line))}" for line in [*small, beside] if line)
    return f"{text(correlation_text(found['spearman']))}{below}"


def _ends(ends: Sequence[float], what: str) -> str:
    return f"[{correlation_text(ends[0])}, {correlation_text(ends[1])}] {what}"


def _singles(measures: Measures) -> str:
    held = list(measures.singles.values())
    if not held:
        return ""
    rows = []
    for t, task in enumerate(measures.tasks):
        rows.append([text(task), *(text(_single(single, t)) for single in held)])
    head = ["task", *(named(single.label, single.unit) for single in held)]
    note = "Means over seeds; brackets: 95% t-intervals." if len(measures.seeds) > 1 else "One seed, so no intervals."
    return (
        tag("h3", "Each task by itself")
        + table([text(one) for one in head], rows, "Each task by itself")
        + tag("p", text(note), class_="note")
    )


def _single(single: Single, task: int) -> str:
    values = [float(value) for value in single.values[:, task] if not math.isnan(value)]
    if not values:
        return NOTHING
    interval = mean_interval(values)
    return interval_text(interval) if np.ptp(values) > 0 else number(values[0])
