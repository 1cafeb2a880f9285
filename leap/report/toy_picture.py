"""The picture of pull-forward: walks over true loss surfaces, before and after, and what moves the initialization."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.report.drawing import INK, MUTED, PALETTE, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE, AFTER, START = PALETTE[1], PALETTE[0], PALETTE[3]
WALKS = (PALETTE[2], PALETTE[4], PALETTE[5])  # of tasks, where they are seen together
LEVELS, POINTS = 18, 160  # of the ground: heights told apart, and points a side
ARROWS = 8  # of one walk

Height = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(x, y, task) -> loss, of one shape."""


def toy_picture(
    document: Mapping[str, Any], height: Height, span: tuple[float, float, float, float], out: Path
) -> Path:
    """Draw what `leap toy` found: a panel a training surface, the pull on theta^0, and lengths over meta-steps.

    Args:
        document: The content of toy.json.
        height: The surfaces.
        span: Left, right, bottom and top of the plane.
        out: The PNG file.

    Returns:
        The file.
    """
    training = [task for task in document["tasks"] if task["split"] == "train"]
    x, y = np.meshgrid(np.linspace(*span[:2], POINTS), np.linspace(*span[2:], POINTS))
    surfaces = [height(x, y, task["id"]) for task in training]

    def draw(figure: Figure) -> None:
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.38))[:, 0]
        above.suptitle(_headline(document), x=0.01, ha="left", fontsize=13, color=INK)
        panels = above.subplots(1, len(training))
        for axes, task, surface in zip(panels, training, surfaces, strict=True):
            _ground(axes, x, y, surface, span)
            _draw_task(axes, task)
        panels[0].legend(loc="lower right", fontsize=8, handlelength=1.4, labelcolor=INK)
        left, right = below.subplots(1, 2, width_ratios=(2.5, 1))
        _ground(left, x, y, np.mean(surfaces, axis=0), (*span[:2], 0.9 * span[2], 0.65 * span[3]))
        _draw_pull(left, document, training)
        _draw_lengths(right, document)
        below.supxlabel(_about(document), fontsize=8, color=MUTED, x=0.01, ha="left")

    return write_png(out, 11.5, 7.8, draw)


def _headline(document: Mapping[str, Any]) -> str:
    name, length = document["learner"], document["length"]
    how = {"leap": "Leap pulls the initialization forward along the walks of its tasks"}
    said = how.get(name, f"{name} moves the initialization")
    way = "so that walks become short" if document["shortened"] else "yet walks did NOT become shorter"
    return f"{said}, {way}: {length[0]:.1f} → {length[-1]:.1f} on average"


def _about(document: Mapping[str, Any]) -> str:
    inner, meta, metric = document["inner"], document["meta"], document["metric"]
    pulls = (
        f" on path {metric}. Arrows: some pulls of the first meta-step, their lengths to the power 1/2"
        if metric
        else ""
    )
    return (
        "Loss in grey, lighter is lower (below: mean of the three). Path lengths are those on the graph of the loss, "
        "(θ, loss).\n"
        f"Walks: {inner['steps']} steps of SGD at {inner['lr']:g}. Meta-training: {meta['steps']} steps of SGD at "
        f"{meta['lr']:.3g}{pulls}. Seed {document['seed']}."
    )


def _ground(axes: Axes, x: np.ndarray, y: np.ndarray, surface: np.ndarray, span: Sequence[float]) -> None:
    """A loss surface in grey, the deeper the lighter, with lines closer together where it is flat."""
    levels = np.linspace(0, np.sqrt(surface.max()), LEVELS) ** 2
    axes.contourf(x, y, surface, levels=levels, cmap="Greys", vmin=-0.05, vmax=2.4 * surface.max())
    axes.contour(x, y, surface, levels=levels, colors="white", linewidths=0.6)
    axes.set(xlim=span[:2], ylim=span[2:], aspect="equal", xticks=[], yticks=[])
    axes.grid(visible=False)


def _draw_task(axes: Axes, task: Mapping[str, Any]) -> None:
    """A surface with its walks from the random and from the learned initialization."""
    for when, colour, label in (("before", BEFORE, "from random θ⁰"), ("after", AFTER, "from learned θ⁰")):
        path = np.array(task[when]["path"])
        axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.3, label=label)
        axes.plot(path[:, 0], path[:, 1], ".", color=colour, markersize=5.5, markeredgewidth=0)
        axes.plot(*path[0], "o", color=colour, markersize=9, markeredgecolor="white", zorder=4)
    axes.plot(
        *task["minimum"], "*", color=INK, markersize=12, markeredgecolor="white", linestyle="", label="lowest point",
        zorder=3,
    )  # fmt: skip
    before, after = task["before"]["length"], task["after"]["length"]
    axes.set_title(f"{task['task']}: path length {before:.1f} → {after:.1f}")


def _draw_pull(axes: Axes, document: Mapping[str, Any], training: Sequence[Mapping[str, Any]]) -> None:
    """The first meta-step's walks, what each step adds to the pull on theta^0, and where theta^0 goes from there."""
    theta0, pulls = np.array(document["theta0"]), document["pulls"]
    for place, task in enumerate(training):
        colour, path = WALKS[place % len(WALKS)], np.array(task["before"]["path"])
        axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.5)
        axes.plot(*task["minimum"], "*", color=colour, markersize=14, markeredgecolor="white", zorder=3)
        if pulls["increments"] is not None:
            _arrows(axes, path, np.array(pulls["increments"][place]), colour)
    axes.plot(theta0[:, 0], theta0[:, 1], color=START, linewidth=2.2, zorder=5)
    axes.plot(
        theta0[:, 0], theta0[:, 1], "o", color=START, markersize=5, markeredgecolor="white", markeredgewidth=0.5,
        zorder=5,
    )  # fmt: skip
    for point, colour in ((theta0[0], BEFORE), (theta0[-1], AFTER)):
        axes.plot(*point, "o", color=colour, markersize=11, markeredgecolor="white", zorder=6)
    total = np.array(pulls["sum"])
    end = theta0[0] + 0.75 * total / max(float(np.linalg.norm(total)), 1e-12)
    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 2.2, "mutation_scale": 18, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, theta0[0], arrowprops=arrow, zorder=7)
    _tell(axes, document, training)


def _arrows(axes: Axes, path: np.ndarray, increments: np.ndarray, colour: str) -> None:
    """Some of a walk's increments, each where it arises; roots of their lengths, or the first would be all one sees."""
    at = np.unique(np.linspace(0, len(increments) - 1, ARROWS).astype(int))
    sizes = np.linalg.norm(increments, axis=1, keepdims=True)
    drawn = increments / np.sqrt(np.maximum(sizes, 1e-12)) * (0.6 / np.sqrt(max(sizes.max(), 1e-12)))
    axes.quiver(
        *path[at].T, *drawn[at].T, color=colour, angles="xy", scale_units="xy", scale=1, width=0.007, headwidth=4,
        zorder=4,
    )  # fmt: skip


def _tell(axes: Axes, document: Mapping[str, Any], training: Sequence[Mapping[str, Any]]) -> None:
    """The few words that the picture needs, numbered where they belong; the corner that no walk comes to holds them."""
    theta0, last = np.array(document["theta0"]), np.array(training[-1]["before"]["path"])
    pull, other = np.array(document["pulls"]["sum"]), np.array(training[len(training) // 2]["before"]["path"])
    early, late = _beside(last, 0.2, -0.3), _beside(other, 0.72, 0.3)
    words = [
        (theta0[0] - 0.3 * pull / max(float(np.linalg.norm(pull)), 1e-12), "one random θ⁰ for all tasks"),
        (early, "from it every task walks down its own surface"),
        (late, "each step of each walk pulls θ⁰ forward (arrows)"),
        (_beside(theta0, 0.15, 0.3), "θ⁰ follows all pulls together (black), a dot a meta-step"),
        (theta0[-1] + (0.3, -0.1), "learned θ⁰: the walks that are left are short"),
    ]
    if document["pulls"]["increments"] is None:
        words[2] = (late, "what the walks teach pulls θ⁰ (black)")
        words[3] = (words[3][0], "θ⁰ moves, a dot a meta-step")
    if not document["shortened"]:
        words[4] = (words[4][0], "learned θ⁰")
    for number, (point, _) in enumerate(words, 1):
        axes.text(
            point[0], point[1], str(number), clip_on=True, fontsize=9, color="white",
            ha="center", va="center", zorder=8,
            bbox={"boxstyle": "circle,pad=0.2", "facecolor": INK, "edgecolor": "white", "linewidth": 0.8},
        )  # fmt: skip
    axes.text(
        0.985, 0.03, "\n".join(f"{number}  {text}" for number, (_, text) in enumerate(words, 1)),
        transform=axes.transAxes, fontsize=9, color=INK, ha="right", va="bottom", multialignment="left",
        linespacing=1.5,
        bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )  # fmt: skip


def _beside(path: np.ndarray, share: float, away: float) -> np.ndarray:
    """A point that far to the left of a line, by share of its points."""
    at = int(share * (len(path) - 1))
    x, y = path[min(at + 2, len(path) - 1)] - path[max(at - 2, 0)]
    found: np.ndarray = path[at] + away * np.array([-y, x]) / max(float(np.hypot(x, y)), 1e-12)
    return found


def _draw_lengths(axes: Axes, document: Mapping[str, Any]) -> None:
    """Expected path length over meta-steps."""
    for name, style, colour, label in (
        ("length_held_out", "s--", MUTED, "held-out surfaces"),
        ("length", "o-", START, "training surfaces"),
    ):
        axes.plot(document["measured"], document[name], style, color=colour, label=label, markeredgewidth=0)
    axes.set(xlabel="meta-step", ylim=(0, None), title="expected path length")
    axes.legend()
