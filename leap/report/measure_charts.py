"""The charts of measures that are no matrices: scatters of pairs, walks to held-out tasks, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.metrics.correlation import rank_correlation
from leap.report.charts import shorten
from leap.report.drawing import INK, MUTED, PALETTE, Style, styles
from leap.report.evaluation import BASELINE
from leap.report.heatmap import FONT, NAME_LENGTH, log_scaled
from leap.report.measures import Curve, Matrix, Paths, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_UP_TO = 12  # tasks; beyond, a legend is longer than its picture
PATH_LABELS = {
    "path_length": "path length (parameters and loss)",
    "path_energy": "path energy (parameters and loss, squared)",
    "path_length_parameters": "path length among parameters",
    "path_energy_parameters": "path energy among parameters (squared)",
    "fisher_rao_length": "Fisher-Rao length (√nats)",
}
END_LABELS = {"test_error": "final test error (%)", "test_return": "test return", "test_loss": "final test loss"}


def named(label: str, unit: str) -> str:
    """A quantity with its unit, where it has one and does not say it itself.

    Example:
        >>> named("Complexity", "nats"), named("Epochs from scratch", "epochs"), named("Overlap", "1")
        ('Complexity (nats)', 'Epochs from scratch', 'Overlap')
    """
    said = unit in ("", "1") or unit.lower() in label.lower().split()
    return label if said else f"{label} ({unit})"


def draw_scatter(
    figure: Figure, x: Matrix, y: Matrix, tasks: Sequence[str], within: Sequence[float | None] = ()
) -> None:
    """A mark an ordered pair, its look that of the target; hollow with an arrow where y is a lower limit.

    `within` are the correlations of single targets, for the legend.
    """
    axes = figure.subplots()
    across, up, cut = x.mean, y.mean, y.any_censored
    for t, (target, style) in enumerate(styles(tasks, []).items()):
        rest = np.arange(len(tasks)) != t
        for censored in (False, True):
            held = rest & (cut[t] == censored)
            face = "none" if censored else style.colour
            look: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": style.colour, "markersize": 6}
            axes.plot(across[t, held], up[t, held], style.marker, alpha=0.9, markeredgewidth=1.1, **look)
            if censored:
                above: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "color": style.colour}
                for point in zip(across[t, held], up[t, held], strict=True):
                    if np.isfinite(point).all():
                        axes.annotate("↑", point, (0, 3), fontsize=FONT, **above)
        own = within[t] if t < len(within) else None
        label = shorten(target, NAME_LENGTH) + ("" if own is None else f" ({own:.2f})")
        axes.plot([], [], style.marker, color=style.colour, markersize=6, label=label)
    axes.margins(x=0.05, y=0.09)
    off = up[~np.eye(len(tasks), dtype=bool)]
    if log_scaled(y.unit, off[np.isfinite(off)]):
        _log_axis(axes, "y", 2)
    axes.set_xlabel(_wrapped(named(x.label, x.unit)))
    axes.set_ylabel(_wrapped(named(y.label, y.unit), 36))
    if len(tasks) <= LEGEND_UP_TO:
        _legend(figure, "target")


def draw_paths(figure: Figure, paths: Paths) -> None:
    """For every length, a dot a held-out task and initialization, and the median."""
    keys = path_keys(paths)
    panels = figure.subplots(len(keys), 1, squeeze=False)[:, 0]
    look = initialization_styles(paths)
    for axes, key in zip(panels, keys, strict=True):
        for place, (name, style) in enumerate(look.items()):
            values = _finite(paths, name, key)
            if not len(values):
                continue
            spread = place + 0.22 * np.sin(2.399963 * np.arange(len(values)))  # apart, and the same every time
            axes.plot(values, spread, "o", color=style.colour, alpha=0.6, markersize=4.2, markeredgewidth=0)
            axes.plot([np.median(values)] * 2, [place - 0.34, place + 0.34], color=style.colour, linewidth=2.6)
        axes.set_yticks(range(len(look)), [initialization_label(name) for name in look], color=INK)
        axes.set_ylim(len(look) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(PATH_LABELS[key])
        every = np.concatenate([_finite(paths, name, key) for name in look])
        if every.min() > 0 and every.max() > 30 * every.min():
            _log_axis(axes, "x", 10)
        else:
            axes.set_xlim(left=0)


def draw_path_and_end(figure: Figure, paths: Paths, end: str) -> None:
    """Length of the walk against where it ends, a mark a held-out task."""
    axes = figure.subplots()
    for name, style in initialization_styles(paths).items():
        x, y = ends(paths, name, end)
        look: dict[str, Any] = {"color": style.colour, "markersize": 6, "alpha": 0.85, "markeredgewidth": 0}
        axes.plot(x, y, style.marker, label=f"{initialization_label(name)} initialization", **look)
    axes.set(xlabel=PATH_LABELS["path_length"], ylabel=END_LABELS[end])
    _legend(figure, "from")


def draw_curve(figure: Figure, curve: Curve, tasks: Sequence[str]) -> None:
    """A line a task, mean over seeds; where there are many tasks, thin lines and their mean."""
    axes = figure.subplots()
    x, y = mean(curve.x), mean(curve.values)
    few = len(tasks) <= LEGEND_UP_TO
    for t, (name, style) in enumerate(styles(tasks, []).items()):
        if few:
            marks: dict[str, Any] = {"marker": style.marker, "markevery": max(1, x.shape[1] // 5), "markersize": 4.5}
            axes.plot(x[t], y[t], label=shorten(name, NAME_LENGTH), **marks, **style.line)
        else:
            axes.plot(x[t], y[t], color=MUTED, linewidth=0.7, alpha=0.5)
    if not few and np.ptp(x, axis=0).max() == 0:
        axes.plot(x[0], mean(y), color=PALETTE[0], linewidth=2.6)
    for values, which in ((x, "x"), (y, "y")):
        held = values[np.isfinite(values)]
        if held.size and held.min() > 0 and held.max() > 100 * held.min():
            _log_axis(axes, which, 10)
    axes.set_xlabel(_wrapped(curve.x_label))
    axes.set_ylabel(_wrapped(named(curve.label, curve.unit), 36))
    if few:
        _legend(figure, "task")


def path_keys(paths: Paths) -> list[str]:
    """The lengths that every initialization has a number of."""
    held = list(paths.values)
    return [key for key in PATH_LABELS if held and all(len(_finite(paths, name, key)) for name in held)]


def path_end(paths: Paths) -> str | None:
    """How the end of a walk is told: its error where there is one, else its loss; None where neither is known."""
    if "path_length" not in path_keys(paths):
        return None
    return next((key for key in END_LABELS if all(len(ends(paths, name, key)[0]) for name in paths.values)), None)


def ends(paths: Paths, name: str, end: str) -> tuple[np.ndarray, np.ndarray]:
    """Path lengths and final figures of the tasks that have both, means over seeds."""
    held = paths.values[name]
    if "path_length" not in held or end not in held:
        return np.empty(0), np.empty(0)
    x, y = mean(held["path_length"]), mean(held[end])
    both = np.isfinite(x) & np.isfinite(y)
    return x[both], y[both]


def ends_correlation(paths: Paths, name: str, end: str) -> float | None:
    """Spearman's correlation over held-out tasks; None where it does not exist."""
    found = rank_correlation(*ends(paths, name, end))
    return None if np.isnan(found) else found


def median(paths: Paths, name: str, key: str) -> float:
    """Median over the held-out tasks that have a number, of means over seeds."""
    return float(np.median(_finite(paths, name, key)))


def initialization_styles(paths: Paths) -> Mapping[str, Style]:
    """Learned initializations in colour and first, the random one in grey."""
    learned = [name for name in paths.values if name != BASELINE]
    return styles(learned, [name for name in paths.values if name == BASELINE])


def initialization_label(name: str) -> str:
    """What an initialization is called in pictures."""
    return "random" if name == BASELINE else shorten(name, NAME_LENGTH)


def _finite(paths: Paths, name: str, key: str) -> np.ndarray:
    values = mean(paths.values[name][key]) if key in paths.values[name] else np.empty(0)
    return values[np.isfinite(values)]


def _log_axis(axes: Axes, which: str, base: int) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    getattr(axes, f"set_{which}scale")("log", base=base)
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    wide = high > 2 * base * low  # else there may be no power of the base to mark
    axis.set_major_locator(LogLocator(base=base, numticks=9) if wide else MaxNLocator(5))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, title: str) -> None:
    """Below the picture, in two columns that a phone can hold."""
    legend = figure.legend(
        loc="outside lower left", ncols=2, title=title, fontsize=FONT, handlelength=1.4, columnspacing=1.6
    )
    legend.get_title().set_color(MUTED)
    legend.set_alignment("left")


def _wrapped(text: str, width: int = 52) -> str:
    from textwrap import wrap

    return "\n".join(wrap(shorten(text, 2 * width - 6), width))
