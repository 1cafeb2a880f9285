"""The report: one HTML page that holds everything it shows and asks nothing of the network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from leap.report.charts import (
    draw_curves,
    draw_final,
    draw_tasks,
    draw_training,
    task_order,
    training_key,
)
from leap.report.choice_page import choice_section
from leap.report.differences import differing_fields, flatten, group_labels, group_runs
from leap.report.drawing import Style, write_file
from leap.report.markup import figure, key, section, table, tag, text
from leap.report.measure_page import measures_section
from leap.report.pictures import summary_styles
from leap.report.returns_page import headline, returns_parts
from leap.report.runs import Run, only_measured, read_runs
from leap.report.style import style_sheet
from leap.report.summary import Summary, summarize
from leap.report.svg import inline_svg
from leap.report.text import INTERVAL_NOTE, NO_VALUE, answer, heading, interval_text, number, protocol, sureness
from leap.report.transfer_page import transfer_section

Groups = Sequence[tuple[str, tuple[Run, ...]]]
PERSONAL = (
    "command",
    "command_line",
    "argv",
    "started",
    "run_id",
)  # differ from run to run, and say nothing of its place
WIDTH = 4.6  # inches of a picture; at a phone's width its 9-point text is still read


def write_report(run_folders: Iterable[Path | str], out: Path) -> Path:
    """Write the report page of these runs; of runs that were measured and never evaluated, the page of their measures.

    Args:
        run_folders: As `summarize` takes them.
        out: The HTML file; its folder is made, an earlier page is replaced.

    Returns:
        The file.

    Raises:
        UsageError, RunError: as `summarize`, or where the page cannot be written.
    """
    runs = read_runs(run_folders)
    alone = only_measured(runs)
    return write_file(Path(out), (measured_page(runs) if alone else report_page(summarize(run_folders))).encode())


def report_page(summary: Summary) -> str:
    """The report as one HTML document; the same runs give the same page."""
    look = summary_styles(summary)
    games = summary.evaluation.has_returns
    parts = [
        *(returns_parts(summary, look) if games else [_answer(summary, look)]),
        _table(summary, look),
        _curves(summary, look),
        *([] if games else [_tasks(summary, look)]),  # a table a game stands above
        choice_section(summary.groups),
        *_rest(summary.groups, summary.differences),
    ]
    return document(headline(summary) if games else answer(summary), parts)


def measured_page(runs: Sequence[Run]) -> str:
    """What was measured of these runs as one HTML document, without a comparison."""
    found = group_runs(runs)
    groups = [(label, tuple(group)) for label, group in zip(group_labels(found), found, strict=True)]
    title = f"Measured: {', '.join(run.folder.name for run in runs)}"
    head = [tag("p", "Not evaluated: leap evaluate RUN adds the comparison.", class_="eyebrow"), tag("h1", text(title))]
    return document(title, [*head, *_rest(groups, differing_fields([group[0].config for group in found]))])


def _rest(groups: Groups, differences: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        *_measures(groups),
        differences_section(groups, differences),
        _reproduce(groups),
        conditions_section(groups),
    ]


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page around its parts, which are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Even text that slipped through unescaped could load and run nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title>\n<style>{style_sheet()}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _answer(summary: Summary, look: Mapping[str, Style]) -> str:
    measure = summary.measures[0]
    items = []
    for verdict in summary.verdicts():
        kind = {"class_": "settled"} if verdict.settled else {}
        ahead, how_sure = sureness(verdict, measure)
        items.append(tag("li", tag("strong", text(ahead)), tag("small", text(how_sure)), **kind))
    words = tag("div", tag("ul", *items, class_="verdicts"))
    height = 0.75 + 0.36 * len(summary.rows)
    svg = inline_svg("final", WIDTH, height, lambda fig: draw_final(fig.subplots(), summary, look))
    caption = "Large marks are means over training seeds, bars their 95% intervals, small dots single seeds."
    return (
        tag("p", text(protocol(summary)), class_="eyebrow")
        + tag("h1", text(answer(summary)))
        + tag("div", words, figure(svg, f"{measure.label} of every initialization", caption), class_="answer")
    )


def _table(summary: Summary, look: Mapping[str, Style]) -> str:
    rows = []
    for row in summary.rows:
        cells = [text(interval_text(row.interval(measure.key))) for measure in summary.measures]
        rows.append([key(row.label, look[row.label]), str(len(row.seeds)), *cells])
    notes = [
        f"Lower is better. Brackets: {INTERVAL_NOTE} They tell how far another seed would move a figure, not how "
        "far other tasks would, and they are not corrected for looking at several comparisons."
    ]
    if any(row.interval(measure.key) is None for row in summary.rows for measure in summary.measures):
        notes.append(f"“{NO_VALUE}”: at least one walk reached values that are not finite; there is no honest mean.")
    if summary.missing:
        notes.append("Not evaluated yet: " + "; ".join(f"leap evaluate {run.folder}" for run in summary.missing))
    head = ["initialization", "seeds", *(heading(measure) for measure in summary.measures)]
    games = summary.evaluation.has_returns  # whose losses have no common scale, so that none is best
    title = "Losses and path lengths" if games else "All figures"
    return section(
        title,
        table([text(cell) for cell in head], rows, title, best=None if games else 0),
        *(tag("p", text(note), class_="note") for note in notes),
    )


def _curves(summary: Summary, look: Mapping[str, Style]) -> str:
    svg = inline_svg("curves", WIDTH, 3.2, lambda fig: draw_curves(fig.subplots(), summary, look))
    runs = [run for _, group in summary.groups for run in group]
    caption = "Mean over held-out tasks at each inner step; bands are 95% over seeds."
    if any(run.evaluation is not None and run.evaluation.stops_early for run in runs):
        caption += " A walk that stopped early keeps its last level until the longest stops."
    figures = [tag("h2", "Learning held-out tasks") + figure(svg, "Learning curves", caption)]
    metric = training_key(runs)
    if metric is not None:
        groups = summary.groups
        svg = inline_svg("training", WIDTH, 3.2, lambda fig: draw_training(fig.subplots(), groups, metric, look))
        caption = (
            "Mean over the tasks of each meta-step; bands are 95% over seeds. Long runs: means of blocks of steps."
        )
        figures.append(tag("h2", "Meta-training") + figure(svg, "Meta-training curves", caption))
    labels = dict.fromkeys([row.label for row in summary.rows] + [label for label, _ in summary.groups])
    legend = tag("ul", *(tag("li", key(label, look[label])) for label in labels), class_="legend")
    return tag("section", legend, tag("div", *(tag("div", one) for one in figures), class_="pair"))


def _tasks(summary: Summary, look: Mapping[str, Style]) -> str:
    measure = summary.measures[0]
    order = task_order(summary)
    height = 0.8 + 0.24 * len(order)
    svg = inline_svg("tasks", WIDTH, height, lambda fig: draw_tasks(fig.subplots(), summary, look))
    columns, rows = [row.by_task(measure.key) for row in summary.rows], []
    for name in order:
        means = [column.get(name, math.nan) for column in columns]
        rows.append([text(name), *(number(m) if m == m else NO_VALUE for m in means)])
    head = ["task", *(key(row.label, look[row.label]) for row in summary.rows)]
    caption = (
        f"{heading(measure).capitalize()}, mean over the seeds that held the task out; "
        f"tasks in the order of {summary.rows[0].label}."
    )
    layout = "pair tasks" if len(summary.rows) <= 3 else "tasks"  # more columns need the page's whole width
    left = figure(svg, f"{measure.label} of every task", caption)
    return section("Task by task", tag("div", left, table(head, rows, "Task by task"), class_=layout), class_="long")


def _measures(groups: Groups) -> list[str]:
    """What `leap measure` found, two sections a run that it measured."""
    parts: list[str] = []
    for label, runs in groups:
        for run in runs:
            if run.measures is not None:
                title, number = label if len(runs) == 1 else f"{label}, seed {run.seed}", len(parts) // 2
                parts.append(transfer_section(run.measures, title, f"t{number}"))
                parts.append(measures_section(run.measures, title, f"m{number}"))
    return parts


def differences_section(groups: Groups, differences: Mapping[str, Sequence[str]]) -> str:
    """The settings that are not the same for all groups."""
    labels = [label for label, _ in groups]
    if not differences:
        return section("Configuration", tag("p", "All runs share one configuration; they differ in the seed only."))
    rows = [[text(name), *(text(value) or "absent" for value in values)] for name, values in differences.items()]
    head = ["field", *(text(label) for label in labels)]
    note = tag("p", "Only fields that differ; absent: this configuration has no such field.", class_="note")
    return section("Configuration differences", table(head, rows, "Configuration differences", numeric=False), note)


def _reproduce(groups: Groups) -> str:
    parts = []
    for label, runs in groups:
        lines: dict[str, None] = {}  # `leap compare` starts many runs, and is shown once
        for run in runs:
            lines[run.command or f"# {run.folder}: its command line was not recorded"] = None
            if run.evaluation is not None:
                lines[f"leap evaluate {quote(str(run.folder))}"] = None
            if run.measures is not None:
                lines[f"leap measure {quote(str(run.folder))}"] = None
        parts.append(tag("h3", text(label)) + tag("pre", text("\n".join(lines)), tabindex="0"))
    return section("How to reproduce each row", *parts, class_="long")


def conditions_section(groups: Groups) -> str:
    """Versions, hardware and whatever else the runs recorded, once where they agree."""
    found: dict[str, dict[str, None]] = {}
    for _, runs in groups:
        for run in runs:
            for name, value in flatten(run.provenance).items():
                if name.split(".")[0] not in PERSONAL:
                    found.setdefault(name, {})[_plain(value)] = None
    rows = [[text(name), "<br>".join(text(value) for value in values)] for name, values in found.items()]
    if not rows:
        return section("Versions and hardware", tag("p", "The runs recorded none."))
    return section("Versions and hardware", table(["what", "value"], rows, "Versions", numeric=False), class_="long")


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
