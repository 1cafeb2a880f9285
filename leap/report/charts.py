"""The charts of a comparison, each drawn into the axes it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.metrics.statistics import student_quantile
from leap.report.drawing import MUTED, Style
from leap.report.runs import Run
from leap.report.summary import Measure, Row, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 240  # of a curve, at most: a picture is no wider
TRAINING = ("charts/episodic_return", "train/error", "train/loss_last")  # the first that the runs logged


def draw_curves(axes: Axes, summary: Summary, look: Mapping[str, Style]) -> None:
    """Learning curves on held-out tasks: mean over seeds, band = 95% interval over seeds."""
    for row in reversed(summary.rows):  # the best lies on top
        steps = np.arange(1, row.curves.shape[1] + 1)
        _band(axes, steps, row.curves, look[row.label], row.label, summary.evaluation.has_error)
    axes.set(xlabel="inner step", ylabel=curve_label(summary.evaluation.curve))
    _limits(axes, summary.evaluation.has_error)


def draw_final(axes: Axes, rows: Sequence[Row], measure: Measure, look: Mapping[str, Style]) -> None:
    """A measure of each row: a large mark with its interval, a small one for every seed."""
    for place, row in enumerate(rows):
        interval, style = row.interval(measure.key), look[row.label]
        if interval is None:
            axes.text(0.02, place, "diverged", transform=axes.get_yaxis_transform(), va="center", color=MUTED)
            continue
        values = row.values(measure.key)
        below = [place + 0.27] * len(values)
        axes.plot(values, below, "o", color=style.colour, alpha=0.55, markersize=3.5, markeredgewidth=0)
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [place, place], color=style.colour, linewidth=2.2)
        axes.plot([interval.mean], [place], style.marker, color=style.colour, markersize=8, markeredgewidth=0)
    axes.set_yticks(range(len(rows)), [shorten(row.label, 26) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(_with_unit(measure))
    axes.grid(visible=False, axis="y")


def draw_tasks(axes: Axes, summary: Summary, look: Mapping[str, Style]) -> None:
    """The first measure of each held-out task, tasks ordered by the best row, a mark a row."""
    measure = summary.measures[0]
    tasks = task_order(summary)
    for row in reversed(summary.rows):
        style = look[row.label]
        of_task = row.by_task(measure.key)
        means = [of_task.get(name, np.nan) for name in tasks]
        axes.plot(means, range(len(tasks)), style.marker, color=style.colour, markersize=5.5, markeredgewidth=0)
    axes.set_yticks(range(len(tasks)), [shorten(name, 22) for name in tasks])
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xlabel(_with_unit(measure))


def draw_training(axes: Axes, groups: Sequence[tuple[str, Sequence[Run]]], key: str, look: Mapping[str, Style]) -> None:
    """What the meta-trained tasks gave, by meta-step: mean over seeds, band = 95% interval over seeds."""
    for label, runs in groups:
        curves = training_curves(runs, key)
        if curves is not None:
            _band(axes, curves[0], curves[1:], look[label], label, "error" in key)
    axes.set(xlabel="meta-step", ylabel=curve_label(key))


def task_order(summary: Summary) -> list[str]:
    """All held-out tasks, the easiest for the best row first; those it did not meet, or diverged on, last."""
    key = summary.measures[0].key
    best = summary.rows[0].by_task(key)
    every = dict.fromkeys(name for row in summary.rows for name in row.by_task(key))
    return sorted(every, key=lambda name: (not np.isfinite(best.get(name, np.nan)), best.get(name, 0.0)))


def training_key(runs: Sequence[Run]) -> str | None:
    """The metric of meta-training to draw: the error where every run that trained logged it."""
    trained = [run.metrics[-1] for run in runs if run.metrics]
    return next((key for key in TRAINING if trained and all(key in row for row in trained)), None)


def training_curves(runs: Sequence[Run], key: str) -> np.ndarray | None:
    """Meta-steps and one line a seed, [1 + N, P]: as far as all seeds went, means over blocks where there are many.

    A step without a value (games of which no episode ended) counts nowhere; a block without any is NaN.
    """
    lines = [{row["step"]: row.get(key) for row in run.metrics} for run in runs if run.metrics]
    common = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
    if not common:
        return None
    table = np.array([common, *([line[step] for step in common] for line in lines)], dtype=float)
    edges = np.linspace(0, table.shape[1], min(POINTS, table.shape[1]) + 1).astype(int)
    return np.stack([_known_mean(table[:, a:b]) for a, b in pairwise(edges)], axis=1)


def _known_mean(block: np.ndarray) -> np.ndarray:
    """Means of rows [N, P] over what is there, NaN where nothing is."""
    count = np.isfinite(block).sum(axis=1)
    found: np.ndarray = np.where(count > 0, np.nansum(block, axis=1) / np.maximum(count, 1), np.nan)
    return found


def curve_label(key: str) -> str:
    """A curve's name with its unit."""
    return {
        "train_error": "training error (%)",
        "train_loss": "training loss",
        "charts/episodic_return": "return of an episode, mean over games",
        "train/error": "training error over the inner steps (%)",
        "train/loss_last": "training loss at the last inner step",
    }[key]


def shorten(text: str, length: int) -> str:
    """At most `length` characters, on one line.

    Example:
        >>> shorten("Malayalam", 6)
        'Malay…'
    """
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _band(axes: Axes, x: np.ndarray, curves: np.ndarray, style: Style, label: str, percent: bool) -> None:
    """Mean of `curves` [N, P], and from two curves on the 95% interval of every point."""
    mean = curves.mean(axis=0)
    marks: dict[str, Any] = {
        "marker": style.marker,
        "markevery": max(1, len(x) // 6),
        "markersize": 5,
        "markeredgewidth": 0,
    }
    axes.plot(x, mean, label=shorten(label, 40), **marks, **style.line)
    if len(curves) < 2:
        return
    reach = student_quantile(len(curves) - 1) * curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
    low, high = (np.clip(mean + side * reach, 0, 100) if percent else mean + side * reach for side in (-1, 1))
    axes.fill_between(x, low, high, color=style.colour, alpha=0.16, linewidth=0)


def _limits(axes: Axes, percent: bool) -> None:
    axes.margins(x=0.01)
    if percent:
        axes.set_ylim(bottom=0)


def _with_unit(measure: Measure) -> str:
    return f"{measure.label} ({measure.unit})" if measure.unit else measure.label
