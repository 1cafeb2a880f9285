"""The part of the report page that shows what was measured of a run: relations, matrices, walks, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leap.metrics.statistics import mean_interval
from leap.report.drawing import inline_svg
from leap.report.markup import figure, section, table, tag, text
from leap.report.measure_charts import named
from leap.report.measure_pictures import Picture, curves, maps, p_value, plain, scatters, trees, walks
from leap.report.measures import Measures, Single, setting
from leap.report.text import interval_text, number

NOTHING = "\u2013"


def measures_section(measures: Measures, title: str, key: str) -> str:
    """All that a page shows of a run's measures.

    Args:
        measures: What `parse_measures` gave.
        title: Which run they are of.
        key: Keeps the ids of these pictures apart from those of other runs on the page.
    """
    parts = [
        _walks(measures, key),
        _relations(measures, key),
        _pictures("From task to task", _MAPS, list(maps(measures)), key),
        _pictures("Which tasks lie near each other", "", list(trees(measures)), key),
        _pictures("Along the way", "", list(curves(measures)), key),
        _singles(measures),
    ]
    seeds = f"{len(measures.seeds)} seed{'' if len(measures.seeds) == 1 else 's'}"
    about = f"{measures.family}: {len(measures.tasks)} tasks, {seeds} of measuring"
    return section(f"Task distances: {title}", tag("p", text(about), class_="note"), *parts, class_="long")


_MAPS = (
    "One order of tasks in all of them, near ones side by side. Numbers are means over seeds; a dash was not measured. "
    "The diagonal, a task and itself, is pale and counts nowhere."
)


def _walks(measures: Measures, key: str) -> str:
    return _pictures("Walks to held-out tasks", "", list(walks(measures)), key)


def _relations(measures: Measures, key: str) -> str:
    found = list(scatters(measures))
    if not measures.relations:
        return _pictures("What goes with what", "", found, key)
    head = [
        "relation",
        "Spearman, all pairs",
        "p by relabelling",
        "Spearman within targets",
        "Spearman, symmetric part",
        "same slower direction",
        "ceiling",
    ]
    rows = [_relation(one) for one in measures.relations]
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
    held = table([text(one) for one in head], rows, "Relations")
    return (
        tag("h3", "What predicts what")
        + held
        + "".join(tag("p", text(note), class_="note") for note in notes)
        + _grid(found, key)
    )


def _relation(one: Mapping[str, Any]) -> list[str]:
    pooled, within, symmetric = (one.get(part) or {} for part in ("pooled", "within", "symmetric"))
    direction, ceiling = one.get("direction") or {}, one.get("ceiling") or {}
    agree = f"{direction['agree']} of {direction['pairs']}" if direction.get("pairs") else NOTHING
    beside = f"and {plain(one['y'])}" + (f", {setting(one)}" if setting(one) else "")
    targets = f"{within['count']} targets" if within.get("count") else ""
    both = [_figure(ceiling.get(part)) for part in ("pooled", "within")]
    return [
        f"{text(plain(one['x']))}<br>{tag('small', text(beside))}",
        _with_intervals(pooled, f"{one['pairs']} pairs" if one.get("pairs") else ""),
        _p(one.get("mantel_p")),
        _with_intervals(within, targets),
        _with_intervals(
            symmetric, f"p {_p(symmetric.get('mantel_p'))}" if symmetric.get("spearman") is not None else ""
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
    return f"{text(_figure(found['spearman']))}{below}"


def _ends(ends: Sequence[float], what: str) -> str:
    return f"[{_figure(ends[0])}, {_figure(ends[1])}] {what}"


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "\u2212")


def _p(value: float | None) -> str:
    return NOTHING if value is None else p_value(value)


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


def _pictures(title: str, about: str, found: Sequence[Picture], key: str) -> str:
    if not found:
        return ""
    return tag("h3", text(title)) + (tag("p", text(about), class_="note") if about else "") + _grid(found, key)


def _grid(found: Sequence[Picture], key: str) -> str:
    return tag("div", *(tag("div", _shown(one, key)) for one in found), class_="pair") if found else ""


def _shown(picture: Picture, key: str) -> str:
    name = f"{key}-{picture.name.replace('.', '-')}"
    svg = inline_svg(name, picture.width, picture.height, picture.draw)
    return tag("p", text(picture.title)) + figure(svg, picture.title, picture.caption)
