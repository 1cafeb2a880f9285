"""Pictures as PNG files: the learning curves of one run, and runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.report.charts import curve_label, draw_curves, draw_final
from leap.report.drawing import Style, styles, write_png
from leap.report.evaluation import BASELINE, parse_evaluation
from leap.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(evaluation: Mapping[str, Any], out: Path) -> Path:
    """Draw what the held-out tasks of one run learned, a panel an initialization: mean bold, single tasks thin.

    Args:
        evaluation: The content of an evaluation.json.
        out: The PNG file; its folder is made.

    Returns:
        The file.

    Raises:
        RunError: a damaged evaluation, or a file that cannot be written.
    """
    held = parse_evaluation(dict(evaluation))
    names = sorted(held.values, key=lambda name: (name == BASELINE, name))
    look = styles([name for name in names if name != BASELINE], [BASELINE])

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            tasks = held.values[name][held.curve].mean(axis=0)  # [T, K]
            steps = np.arange(1, tasks.shape[1] + 1)
            axes.plot(steps, tasks.T, color=look[name].colour, linewidth=0.7, alpha=0.35)
            axes.plot(steps, tasks.mean(axis=0), color=look[name].colour, linewidth=2.6)
            axes.set(title=name, xlabel="inner step")
        panels[0].set_ylabel(curve_label(held.curve))
        if held.has_error:
            panels[0].set_ylim(bottom=0)

    return write_png(out, 1.0 + 3.6 * len(names), 3.4, draw)


def comparison(summary: Summary, out: Path) -> Path:
    """Draw learning curves with bands over seeds, and beside them the final figures with their intervals.

    Args:
        summary: What `summarize` made of the runs.
        out: The PNG file; its folder is made.

    Returns:
        The file.
    """
    look = summary_styles(summary)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
        draw_curves(left, summary, look)
        left.legend(reverse=True)  # best first, as beside it
        draw_final(right, summary, look)

    return write_png(out, 10.5, max(3.8, 1.2 + 0.3 * len(summary.rows)), draw)


def summary_styles(summary: Summary) -> dict[str, Style]:
    """A style for every group and every row of a summary; a group keeps its colour whatever its rank."""
    baselines = [row.label for row in summary.rows if row.baseline]
    return styles([label for label, _ in summary.groups if label != BASELINE], [*baselines, BASELINE])
