"""The charts of a leave-one-out comparison: test errors by data set, and learning curves, a panel a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from leap.report.charts import shorten
from leap.report.drawing import MUTED, Style, styles
from leap.report.evaluation import BASELINE
from leap.report.leave_one_out import TEST, LeaveOneOut, Walks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 60  # of a curve in a small panel
COLUMNS = 2  # of panels: more could not be read on a phone


def method_styles(found: LeaveOneOut) -> dict[str, Style]:
    """A style for each method by its title, random initializations in grey."""
    random = [one.title for one in found.methods if one.learner == BASELINE]
    return styles([one.title for one in found.methods if one.learner != BASELINE], random)


def draw_errors(axes: Axes, found: LeaveOneOut, look: Mapping[str, Style]) -> None:
    """Test error of every method on every data set: a mark at the mean, a line over its 95% interval over seeds."""
    count = len(found.methods)
    for row, name in enumerate(found.names):
        for place, one in enumerate(found.methods):
            interval, style = found.interval(name, one, TEST.key), look[one.title]
            y = row + 0.8 * ((place + 0.5) / count - 0.5)
            if interval is None:
                if found.at(name, one):  # diverged; what is missing has no place at all
                    axes.plot([0.5], [y], "x", color=style.colour, markersize=4, transform=axes.get_yaxis_transform())
                continue
            if interval.low is not None and interval.high is not None:
                axes.plot(np.clip([interval.low, interval.high], 0, 100), [y, y], color=style.colour, linewidth=1.3)
            axes.plot([interval.mean], [y], style.marker, color=style.colour, markersize=5, markeredgewidth=0)
    for between in np.arange(1, len(found.names)) - 0.5:
        axes.axhline(between, color=MUTED, linewidth=0.4)
    axes.set_yticks(range(len(found.names)), [shorten(name, 18) for name in found.names])
    axes.set_ylim(len(found.names) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("test error (%)")
    axes.grid(visible=False, axis="y")


def panel_rows(found: LeaveOneOut) -> int:
    """Rows of panels in `draw_panels`."""
    return -(-len(found.names) // COLUMNS)


def draw_panels(figure: Figure, found: LeaveOneOut, look: Mapping[str, Style]) -> None:
    """Training error against inner steps, a panel a data set and a line a method: means over all its walks."""
    panels = figure.subplots(panel_rows(found), COLUMNS, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, found.names, strict=False):  # the last row may have a panel too many
        for one in reversed(found.methods):  # the first lies on top
            walks = found.at(name, one).values()
            if walks:
                steps, mean = blocks(walks)
                style = look[one.title]
                axes.plot(steps, mean, linewidth=1.3, **style.line)
                axes.plot(steps[-1:], mean[-1:], style.marker, color=style.colour, markersize=4, markeredgewidth=0)
        axes.set_title(shorten(name, 24))
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
    for axes in panels[len(found.names) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(found.names) - COLUMNS) : len(found.names)]:
        axes.set_xlabel("inner step")
    for axes in panels[::COLUMNS]:
        axes.set_ylabel("training error (%)")


def blocks(walks: Iterable[Walks]) -> tuple[np.ndarray, np.ndarray]:
    """Steps [P] and the mean training error there [P], over seeds, in blocks of steps.

    It ends where the longest walk ended. From where a walk diverged on there is no mean, but NaN.
    """
    curves = [one.curve for one in walks]
    length = max(map(len, curves))
    mean = np.mean([np.pad(curve, (0, length - len(curve)), mode="edge") for curve in curves], axis=0)
    edges = np.linspace(0, length, min(POINTS, length) + 1).astype(int)
    return edges[1:], np.array([mean[a:b].mean() for a, b in pairwise(edges)])
