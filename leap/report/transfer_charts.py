"""What predicts transfer, at a glance: a mark and an interval a predictor, the best on top."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from leap.report.captioned import WIDTH, Picture, plain
from leap.report.charts import shorten
from leap.report.drawing import GREY, INK, MUTED, PALETTE
from leap.report.measures import Measures
from leap.report.transfer import Predictor, Table, source_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL_LENGTH = 26  # characters of a predictor


def predictor_pictures(measures: Measures) -> Iterator[Picture]:
    """The predictors of the main outcome, where at least one was held against it."""
    for table in source_tables(measures)[:1]:
        if table.best is not None or table.best_baseline is not None:
            title = f"What predicts {plain(table.y)}"
            yield predictor_picture(f"{table.y}.predictors", title, table, measures.score_names)


def predictor_picture(name: str, title: str, table: Table, scores: frozenset[str]) -> Picture:
    """One table as marks; whatever is not among the scores is a distance."""
    rows = [row for row in table.rows if row.figure("weighted_tau") is not None]
    kinds = {_kind(row, row.name in scores): None for row in rows}
    said = ["Weighted tau: 1 is the order of the outcome, 0 chance. Bars: 95% intervals."]
    said.append(f"{', '.join(_LOOK[kind][2] for kind in _LOOK if kind in kinds)}.".capitalize())
    if table.ceiling.get("weighted_tau") is not None:
        said.append("Dashed: the ceiling, what one seed of the outcome predicts of another.")
    height = 0.75 + 0.235 * len(rows)
    draw = partial(_draw, rows=rows, scores=scores, ceiling=table.ceiling.get("weighted_tau"))
    return Picture(name, title, " ".join(said), WIDTH, height, draw)


_LOOK = {
    "score": (PALETTE[0], "o", "blue dots are scores"),
    "distance": (PALETTE[1], "s", "orange squares distances"),
    "baseline": (GREY, "X", "grey crosses baselines"),
}


def _kind(row: Predictor, score: bool) -> str:
    return "baseline" if row.baseline else "score" if score else "distance"


def _draw(figure: Figure, rows: list[Predictor], scores: frozenset[str], ceiling: float | None) -> None:
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour, marker, _ = _LOOK[_kind(row, row.name in scores)]
        ends, value = row.ends("weighted_tau"), row.figure("weighted_tau") or 0.0
        if ends is not None:
            axes.plot(ends, [place, place], color=colour, linewidth=2.0, alpha=0.55, solid_capstyle="butt")
        axes.plot([value], [place], marker, color=colour, markersize=6.5, markeredgewidth=0)
    axes.axvline(0, color=MUTED, linewidth=0.9)
    if ceiling is not None:
        axes.axvline(ceiling, color=INK, linewidth=1.1, dashes=(3, 2))
    axes.set_yticks(range(len(rows)), [shorten(row.label, LABEL_LENGTH) for row in rows], color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("weighted tau, mean over targets")
