"""The report: one HTML page that holds everything it shows and asks nothing of the network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from leap.report.charts import (
    draw_curves,
    draw_tasks,
    draw_training,
    task_order,
    training_key,
)
from leap.report.choice_page import choice_section
from leap.report.contents import with_contents
from leap.report.cost import cost_section
from leap.report.differences import differing_fields, flatten, group_labels, group_runs
from leap.report.drawing import Style, write_file
from leap.report.first import first_screen
from leap.report.markup import figure, key, section, table, tag, text
from leap.report.measure_page import measures_section
from leap.report.paths_page import paths_section
from leap.report.pictures import summary_styles
from leap.report.reproduce import reproduce_section
from leap.report.returns_page import headline, returns_parts
from leap.report.returns_text import checked_window
from leap.report.runs import Run, only_measured, read_runs
from leap.report.style import style_sheet
from leap.report.summary import Summary, summarize
from leap.report.svg import inline_svg
from leap.report.swept import swept_section
from leap.report.text import INTERVAL_NOTE, NO_VALUE, answer, heading, interval_text, number
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
MEASURED_SIZE = 1_600_000  # characters of what was measured, about, beyond which runs are named and not shown


def write_report(run_folders: Iterable[Path | str], out: Path, window: int | None = None) -> Path:
    """Write the report page of these runs; of runs that were measured and never evaluated, the page of their measures.

    Args:
        run_folders: As `summarize` takes them.
        out: The HTML file; its folder is made, an earlier page is replaced.
        window: Of games, episodes of the moving average; by default the paper's 500.

    Returns:
        The file.

    Raises:
        UsageError, RunError: as `summarize`, or where the page cannot be written.
    """
    runs = read_runs(run_folders)
    alone = only_measured(runs)
    page = measured_page(runs) if alone else report_page(summarize(run_folders), window, Path(out))
    # JSON may hold half a character, which cannot be written
    return write_file(Path(out), page.encode("utf-8", "replace"))


def report_page(summary: Summary, window: int | None = None, out: Path | None = None) -> str:
    """The report as one HTML document; the same runs give the same page. `out`: where it will lie."""
    look = summary_styles(summary)
    games, episodes = summary.evaluation.has_returns, checked_window(summary, window)
    parts = [
        *(returns_parts(summary, look, episodes, out) if games else [first_screen(summary, look)]),
        _table(summary, look),
        _curves(summary, look),
        swept_section(summary),
        *([] if games else [_tasks(summary, look)]),  # a table a game stands above
        paths_section(summary.groups),
        choice_section(summary.groups),
        *_measures(summary.groups),
        cost_section(summary.groups, look),
        *_rest(summary.groups, summary.differences),
    ]
    return document(headline(summary, episodes) if games else answer(summary), parts)


def measured_page(runs: Sequence[Run]) -> str:
    """What was measured of these runs as one HTML document, without a comparison."""
    found = group_runs(runs)
    groups = [(label, tuple(group)) for label, group in zip(group_labels(found), found, strict=True)]
    title = f"Measured: {', '.join(run.folder.name for run in runs)}"
    head = [tag("p", "Not evaluated: leap evaluate RUN adds the comparison.", class_="eyebrow"), tag("h1", text(title))]
    return document(
        title, [*head, *_measures(groups), *_rest(groups, differing_fields([group[0].config for group in found]))]
    )


def _rest(groups: Groups, differences: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        differences_section(groups, differences),
        reproduce_section(groups),
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
        f"<body>{with_contents(''.join(parts))}</body></html>\n"
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
    """Learning curves and meta-training; of games the latter alone, since their own curves are of returns."""
    runs = [run for _, group in summary.groups for run in group]
    figures = []
    if not summary.evaluation.has_returns:
        svg = inline_svg("curves", WIDTH, 3.2, lambda fig: draw_curves(fig.subplots(), summary, look))
        caption = "Mean over held-out tasks at each inner step; bands are 95% over seeds."
        if any(run.evaluation is not None and run.evaluation.stops_early for run in runs):
            caption += " A walk that stopped early keeps its last level until the longest stops."
        figures.append(tag("h2", "Learning held-out tasks") + figure(svg, "Learning curves", caption))
    metric = training_key(runs)
    if metric is not None:
        groups = summary.groups
        svg = inline_svg("training", WIDTH, 3.2, lambda fig: draw_training(fig.subplots(), groups, metric, look))
        caption = (
            "Mean over the tasks of each meta-step; bands are 95% over seeds. Long runs: means of blocks of steps."
        )
        figures.append(tag("h2", "Meta-training") + figure(svg, "Meta-training curves", caption))
    if not figures:
        return ""
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
    """What `leap measure` found, two sections a run that it measured, as far as a page of bearable size holds them.

    Of many measured runs the first of every row come before further seeds.
    """
    held = [
        (label if len(runs) == 1 else f"{label}, seed {run.seed}", place, run)
        for label, runs in groups
        for place, run in enumerate(runs)
        if run.measures is not None
    ]
    parts: dict[int, list[str]] = {}
    room = MEASURED_SIZE
    for place in sorted(range(len(held)), key=lambda place: held[place][1]):
        title, _, run = held[place]
        if room <= 0 or run.measures is None:
            continue
        found = [transfer_section(run.measures, title, f"t{place}"), measures_section(run.measures, title, f"m{place}")]
        room -= sum(map(len, found))
        if room >= 0 or not parts:
            parts[place] = found
    left = [one for place, one in enumerate(held) if place not in parts]
    told = [one for place in sorted(parts) for one in parts[place]]
    return [*told, _elsewhere(left)] if left else told


def _elsewhere(held: Sequence[tuple[str, int, Run]]) -> str:
    items = (tag("li", text(f"{title}: {run.folder / 'measures'}")) for title, _, run in held)
    about = "To keep this page small, what was measured of these runs is left to their own folders, or to a page of"
    note = tag("p", text(f"{about} their own (leap report RUN)."), class_="note")
    return section("Measured as well", note, tag("ul", *items), class_="long")


def differences_section(groups: Groups, differences: Mapping[str, Sequence[str]]) -> str:
    """The settings that are not the same for all groups."""
    labels = [label for label, _ in groups]
    if not differences:
        return section("Configuration", tag("p", "All runs share one configuration; they differ in the seed only."))
    rows = [[text(name), *(text(value) or "absent" for value in values)] for name, values in differences.items()]
    head = ["field", *(text(label) for label in labels)]
    note = tag("p", "Only fields that differ; absent: this configuration has no such field.", class_="note")
    return section("Configuration differences", table(head, rows, "Configuration differences", numeric=False), note)


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
