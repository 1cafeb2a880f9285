"""The page of a leave-one-out comparison: who does best, the table of all data sets, and how each was learned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from urllib.parse import quote

from leap.report.cost import cost_section
from leap.report.differences import differing_fields
from leap.report.drawing import Style, write_file
from leap.report.leave_one_out import LeaveOneOut, Method, Standing, answer
from leap.report.leave_one_out_charts import draw_errors, draw_panels, method_styles, panel_rows
from leap.report.leave_one_out_text import MISSING, NOTES, STANDINGS, behind, percent, protocol, standing_cells, untold
from leap.report.markup import figure, key, section, table, tag, text
from leap.report.page import WIDTH, conditions_section, differences_section, document
from leap.report.summary import Measure
from leap.report.svg import inline_svg
from leap.report.text import heading

LOOK = Mapping[str, Style]


def write_leave_one_out(found: LeaveOneOut, out: Path, pages: Mapping[str, PurePath] | None = None) -> Path:
    """Write the page of a leave-one-out comparison.

    Args:
        found: What `gather` made of the runs.
        out: The HTML file; its folder is made, an earlier page is replaced.
        pages: Reports of single data sets by name, relative to the page.

    Returns:
        The file.

    Raises:
        RunError: the page cannot be written.
    """
    return write_file(Path(out), leave_one_out_page(found, pages or {}).encode("utf-8", "replace"))


def leave_one_out_page(found: LeaveOneOut, pages: Mapping[str, PurePath]) -> str:
    """The page as one HTML document; the same runs give the same page."""
    look = method_styles(found)
    headline, rest = answer(found)
    head = tag("p", text(protocol(found)), class_="eyebrow") + tag("h1", text(headline)) + tag("p", text(rest))
    configs = [runs[0].config for _, runs in found.groups]
    parts = [
        head,
        _standings(found, look),
        _table(found, look, pages),
        _pictures(found, look),
        cost_section([(title, runs) for title, runs in found.groups if title in look], look),
        differences_section(found.groups, differing_fields(configs)),
        _reproduce(found, pages),
        conditions_section(found.groups),
    ]
    return document(headline, parts)


def _table(found: LeaveOneOut, look: LOOK, pages: Mapping[str, PurePath]) -> str:
    """Methods in rows, a group of rows a data set, in the shape of the paper's table."""
    head = ["method", *map(heading, found.measures), *(["above Leap (test error)"] if found.sole("leap") else [])]
    cells = [
        tag("th", text(cell), scope="col", **({"class_": "n"} if place else {})) for place, cell in enumerate(head)
    ]
    bodies = []
    for name in found.names:
        link = tag("a", text(name), href=quote(pages[name].as_posix())) if name in pages else text(name)
        rows = [tag("tr", tag("th", link, scope="rowgroup", colspan=str(len(head))), class_="set")]
        bodies.append(tag("tbody", *rows, *(_row(found, name, one, look) for one in found.methods)))
    held = tag("table", tag("thead", tag("tr", *cells)), *bodies, class_="held")
    box = tag("div", held, class_="scroll", tabindex="0", role="region", aria_label="Every data set held out in turn")
    notes = [tag("p", text(note), class_="note") for note in (*NOTES, *untold(found))]
    return section("Every data set held out in turn", box, *notes, class_="long")


def _row(found: LeaveOneOut, name: str, one: Method, look: LOOK) -> str:
    cells = [_cell(found, name, one, measure) for measure in found.measures]
    cells += [tag("td", _stacked(told), class_="n") for told in behind(found, name, one)]
    return tag("tr", tag("th", key(one.title, look[one.title]), scope="row"), *cells)


def _cell(found: LeaveOneOut, name: str, one: Method, measure: Measure) -> str:
    count = len(found.at(name, one))
    if count == 0:
        return tag("td", tag("small", MISSING), class_="n")
    told = _stacked(percent(found.interval(name, one, measure.key)))
    if count < len(found.seeds):
        told += " " + tag("small", f"{count} of {len(found.seeds)} seeds")
    return tag("td", told, class_="n best" if one in found.best(name, measure.key) else "n")


def _stacked(told: str) -> str:
    """A mean and its interval, which stands below it where the page is narrow."""
    mean, _, interval = told.partition(" [")
    return text(mean) + (" " + tag("small", text(f"[{interval}")) if interval else "")


def _standings(found: LeaveOneOut, look: LOOK) -> str:
    standings = found.standings()
    if not standings:
        return ""
    rows = [[key(one.method.title, look[one.method.title]), *_standing(one)] for one in standings]
    count, all_of = len(found.counted), len(found.names)
    over = f"{count} data sets" if count == all_of else f"the {count} of {all_of} data sets that every method has"
    note = f"Over {over}. The last column: mean and 95% t-interval over data sets."
    return section(
        "Over all data sets",
        table([text(head) for head in STANDINGS], rows, "Over all data sets", kind="held"),
        tag("p", text(note), class_="note"),
    )


def _standing(one: Standing) -> list[str]:
    return [_stacked(told) for told in standing_cells(one)[1:]]


def _pictures(found: LeaveOneOut, look: LOOK) -> str:
    height = 0.6 + len(found.names) * (0.14 + 0.1 * len(found.methods))
    errors = inline_svg("errors", WIDTH, height, lambda fig: draw_errors(fig.subplots(), found, look))
    tall = 0.3 + 1.5 * panel_rows(found)
    panels = inline_svg("panels", WIDTH, tall, lambda fig: draw_panels(fig, found, look))
    left = tag("h2", "Test error") + figure(
        errors, "Test error of every method", "Means over training seeds; lines are 95% intervals. Crosses diverged."
    )
    right = tag("h2", "Learning the held-out data set") + figure(
        panels,
        "Training error against inner steps",
        "Training error on batches, mean over all walks of a method. A curve ends where its longest walk stopped; "
        "until then, those that stopped earlier keep their last level. Each data set's own report has bands.",
    )
    legend = tag("ul", *(tag("li", key(one.title, look[one.title])) for one in found.methods), class_="legend")
    return tag("section", legend, tag("div", tag("div", left), tag("div", right), class_="pair"))


def _reproduce(found: LeaveOneOut, pages: Mapping[str, PurePath]) -> str:
    """The command lines that started the runs; `leap compare` starts many, and is shown once."""
    commands = [run.command for _, runs in found.groups for run in runs]
    lines = dict.fromkeys(command or "# of some runs the command line was not recorded" for command in commands)
    links = [tag("a", text(name), href=quote(page.as_posix())) for name, page in pages.items()]
    each = tag("p", "Each data set's own report: ", ", ".join(links), ".") if links else ""
    return section("How to reproduce it", tag("pre", text("\n".join(lines)), tabindex="0"), each)
