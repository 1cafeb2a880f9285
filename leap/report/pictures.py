"""Pictures as PNG files: the learning curves of one run, and runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.report.charts import curve_label, draw_curves, draw_final, shorten
from leap.report.drawing import MUTED, Style, styles, write_png
from leap.report.evaluation import BASELINE, parse_evaluation
from leap.report.returns import Returns, alone, gather
from leap.report.returns_charts import DEVIATIONS, draw_learning, reference_text
from leap.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAMES_A_ROW = 3


def learning_curves(evaluation: Mapping[str, Any], out: Path) -> Path:
    """Draw what the held-out tasks of one run learned, a panel an initialization: mean bold, single tasks thin.

    Of games, a panel a game: returns against agent steps, with bands over evaluation seeds, see `draw_learning`.

    Args:
        evaluation: The content of an evaluation.json.
        out: The PNG file; its folder is made.

    Returns:
        The file.

    Raises:
        RunError: a damaged evaluation, or a file that cannot be written.
    """
    held = parse_evaluation(dict(evaluation))
    if held.has_returns:
        found = alone(held)
        look = styles([arm.label for arm in found.learned], [BASELINE])
        return _returns(found, look, "evaluation seeds", out)
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


def _returns(found: Returns, look: Mapping[str, Style], seeds: str, out: Path) -> Path:
    """The learning curves of games, a panel each; `seeds` says what walks differ by."""
    columns = min(GAMES_A_ROW, len(found.games))
    rows = -(-len(found.games) // columns)
    walks = max(len(held) for arm in found.arms for held in arm.walks.values())
    bands = f"bands: {DEVIATIONS} standard deviations between {walks} walks ({seeds})" if walks > 1 else "1 walk each"
    told = f"moving average over {found.window} episodes, or all so far where there are fewer; {bands}"

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, game in zip(panels, found.games, strict=False):
            draw_learning(axes, found, game, look)
            axes.set_title(f"{shorten(game, 40)}\n{reference_text(found, game)}".rstrip())
        for axes in panels[len(found.games) :]:
            axes.set_visible(False)
        lines = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        names = [name for arm in found.arms if (name := shorten(arm.label, 40)) in lines]
        figure.legend([lines[name] for name in names], names, loc="outside upper left", ncols=min(4, len(names)) or 1)
        figure.supxlabel("\n".join(wrap(told, 70 * columns)), fontsize=8, color=MUTED)

    return write_png(out, 0.6 + 3.9 * columns, 0.8 + 3.2 * rows, draw)


def comparison(summary: Summary, out: Path) -> Path:
    """Draw learning curves with bands over seeds, and beside them the final figures with their intervals.

    Of games, a panel a game as in `learning_curves`, with the walks of all training and evaluation seeds.

    Args:
        summary: What `summarize` made of the runs.
        out: The PNG file; its folder is made.

    Returns:
        The file.
    """
    look = summary_styles(summary)
    if summary.evaluation.has_returns:
        return _returns(gather(summary), look, "training and evaluation seeds", out)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
        draw_curves(left, summary, look)
        left.legend(reverse=True)  # best first, as beside it
        draw_final(right, summary.rows, summary.measures[0], look)

    return write_png(out, 10.5, max(3.8, 1.2 + 0.3 * len(summary.rows)), draw)


def summary_styles(summary: Summary) -> dict[str, Style]:
    """A style for every group and every row of a summary; a group keeps its colour whatever its rank."""
    baselines = [row.label for row in summary.rows if row.baseline]
    return styles([label for label, _ in summary.groups if label != BASELINE], [*baselines, BASELINE])
