"""Walks of held-out tasks in the plane that shows most of them, a panel an initialization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.report.charts import shorten
from leap.report.drawing import INK, MUTED, Style, styles, write_png
from leap.report.evaluation import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 20  # tasks that can be told apart; more are drawn alike
PANEL = (3.4, 5.4)  # inches: the narrowest and the widest, of 4 in height


def paths_picture(document: Mapping[str, Any], out: Path) -> Path:
    """Draw the content of a paths.json: the learned initialization's walks beside the random one's.

    Both panels are the same plane at the same scale, each seen from its own theta^0, and one unit is as long upwards
    as sideways: what looks shorter is shorter in this plane.

    Args:
        document: The content of pictures/paths.json.
        out: The PNG file.

    Returns:
        The file.
    """
    held: Mapping[str, Any] = document["initializations"]
    names = sorted(held, key=lambda name: name == BASELINE)
    tasks = list(dict.fromkeys(walk["task"] for name in names for walk in held[name]["walks"]))
    limits = _limits([walk["xy"] for name in names for walk in held[name]["walks"]])
    width = float(np.clip(4 * (limits[1] - limits[0]) / (limits[3] - limits[2]), *PANEL))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            _draw_panel(axes, held[name]["walks"], tasks)
            title = "random initialization" if name == BASELINE else f"initialization of {name}"
            axes.set_title(shorten(title, 48))
            axes.set(xlim=limits[:2], ylim=limits[2:], aspect="equal")
            axes.set_xlabel(f"first direction: {document['shares'][0]:.0%} of the variance")
        panels[0].set_ylabel(f"second direction: {document['shares'][1]:.0%} of the variance")
        if len(tasks) <= NAMED:
            lines, labels = panels[-1].get_legend_handles_labels()
            figure.legend(lines, labels, loc="outside right center", fontsize=8)
        letters = int(13.5 * (width * len(names) + 1.2))
        figure.supxlabel("\n".join(wrap(caption(document), letters)), fontsize=8, color=MUTED)

    return write_png(out, 0.6 + width * len(names) + 1.6 * (len(tasks) <= NAMED), 5.6, draw)


def caption(document: Mapping[str, Any]) -> str:
    """What the picture shows and what it hides, in words."""
    walks = [walk for held in document["initializations"].values() for walk in held["walks"]]
    share = np.mean([walk["distance_in_plane"] / walk["distance"] for walk in walks if walk["distance"] > 0] or [0.0])
    gone = sum(len(held["diverged"]) for held in document["initializations"].values())
    steps = max((walk["steps"][-1] for walk in walks), default=0)
    apart = document["initializations_apart"]
    return " ".join([
        f"{document['split'].capitalize()} tasks, {steps} inner steps each, seen from where they start (cross). Of "
        f"{document['parameters']:,} directions the two are shown in which all these points vary most.",
        f"Lengths in the picture are lower bounds: from start to end a walk looks {share:.0%} as long as it is, on "
        "average.",
        *([f"The initializations lie {apart:.3g} apart, which is not shown."] if apart else []),
        *([f"Left out, since they diverged: {gone}."] if gone else []),
    ])  # fmt: skip


def _limits(walks: Sequence[Sequence[Sequence[float]]]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of all points and the origin, with some room, and no side below half the other."""
    points = np.concatenate([np.zeros((1, 2)), *(np.array(xy) for xy in walks)])
    low, high = points.min(axis=0), points.max(axis=0)
    middle, reach = (low + high) / 2, (high - low) / 2
    reach = 1.1 * np.maximum(reach, reach.max() / 2) if reach.any() else np.ones(2)
    (left, bottom), (right, top) = middle - reach, middle + reach
    return float(left), float(right), float(bottom), float(top)


def _draw_panel(axes: Axes, walks: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> None:
    look = styles([str(place) for place in range(len(tasks))], [])
    for walk in walks:
        place = tasks.index(walk["task"])
        _draw_walk(axes, np.array(walk["xy"]), look[str(place if len(tasks) <= NAMED else 0)], walk["task"])
    axes.plot([0], [0], "X", color=INK, markersize=10, markeredgecolor="white", zorder=5)


def _draw_walk(axes: Axes, xy: np.ndarray, style: Style, task: str) -> None:
    axes.plot(xy[:, 0], xy[:, 1], color=style.colour, linewidth=1.2, alpha=0.8)
    axes.plot(xy[1:-1, 0], xy[1:-1, 1], ".", color=style.colour, markersize=4, markeredgewidth=0)
    axes.plot(
        *xy[-1], style.marker.replace("P", "p"), color=style.colour, markersize=7.5, markeredgecolor="white",
        markeredgewidth=0.7, linestyle="", label=shorten(task, 22), zorder=4,
    )  # fmt: skip
