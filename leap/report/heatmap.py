"""Matrices of tasks as tiles with their values, and as trees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.metrics.graph import Clusters
from leap.report.charts import shorten
from leap.report.drawing import GRID, INK, MUTED
from leap.report.measures import Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME_LENGTH = 20  # characters of a task that are shown
FONT = 8.6
VALUES_UP_TO = 16  # tasks; beyond, tiles are too small for numbers and a colour bar takes their place
DARK_TEXT, LIGHT_TEXT = "#10131a", "#ffffff"  # on tiles, whatever the page's theme
# From light to dark without a turn, so that grey print keeps the order; the hue tells the kind.
SHADES = {
    "distance": ("#eaf1f8", "#a9cbe6", "#4f97c9", "#1c5f9e", "#0a2f5c"),
    "outcome": ("#fcf0e3", "#f6c592", "#dc8745", "#a1511f", "#57260b"),
    "similarity": ("#e8f4ec", "#a5d5b6", "#4fa877", "#1f724a", "#0b3d28"),
}


def draw_heatmap(axes: Axes, matrix: Matrix, tasks: Sequence[str], order: Sequence[int], width: float) -> None:
    """Tiles with values, mean over seeds: rows targets, columns sources; `width` is the figure's, in inches."""
    from matplotlib.patches import Rectangle

    mean, cut = matrix.mean, matrix.any_censored
    shade, count = Shades(matrix), len(order)
    power, decimals = scale(mean)
    texts = {
        (row, column): ("≥" if cut[t, s] else "") + tile_text(mean[t, s], power, decimals)
        for row, t in enumerate(order)
        for column, s in enumerate(order)
    }
    font = _font(texts.values(), tasks, count, width)
    for (row, column), words in texts.items():
        t, s = order[row], order[column]
        own, missing = t == s, bool(np.isnan(mean[t, s]))
        fill, ink = (GRID, MUTED) if own or missing else shade(mean[t, s])
        tile = Rectangle((column - 0.475, row - 0.475), 0.95, 0.95, facecolor=fill, linewidth=0, clip_on=False)
        tile.set_alpha(0.45 if own or missing else 1.0)
        axes.add_patch(tile)
        if count <= VALUES_UP_TO:
            axes.text(column, row, words, ha="center", va="center", color=ink, fontsize=font)
    if count > VALUES_UP_TO:
        shade.bar(axes, power)
    _frame(axes, [shorten(tasks[task], NAME_LENGTH) for task in order], count)


def draw_dendrogram(axes: Axes, clusters: Clusters, matrix: Matrix, tasks: Sequence[str]) -> None:
    """The tree, leaves at the left in clustered order, joints at the mean dissimilarity of what they join."""
    heights = clusters.linkage[:, 2] - clusters.shift
    # Stems only carry names: were they to reach zero, trees of large distances would be all stem.
    base = float(heights.min() - 0.08 * (np.ptp(heights) or abs(heights.min()) or 1.0))
    ends = {leaf: (base, float(place)) for place, leaf in enumerate(clusters.order)}
    for joint, (row, height) in enumerate(zip(clusters.linkage, heights, strict=True), len(tasks)):
        one, two = ends[int(row[0])], ends[int(row[1])]
        x, y = (one[0], height, height, two[0]), (one[1], one[1], two[1], two[1])
        axes.plot(x, y, color=INK, linewidth=1.4, solid_joinstyle="round", solid_capstyle="butt")
        ends[joint] = (float(height), (one[1] + two[1]) / 2)
    names = [shorten(tasks[leaf], NAME_LENGTH) for leaf in clusters.order]
    axes.set_yticks(range(len(tasks)), names, color=INK, fontsize=FONT)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xlim(base, None)
    axes.grid(visible=False, axis="y")
    if matrix.kind == "similarity":
        axes.xaxis.set_major_formatter(lambda value, _: f"{0.0 - value:g}")
    axes.set_xlabel(f"mean of both directions{f' ({matrix.unit})' if matrix.unit not in ('', '1') else ''}")


def scale(values: np.ndarray) -> tuple[int, int]:
    """The power of ten to take out of all values, a multiple of 3, and the decimals to show.

    Example:
        >>> scale(np.array([0.31, -0.19])), scale(np.array([32.85])), scale(np.array([81234.0]))
        ((0, 2), (0, 1), (3, 1))
    """
    finite = np.abs(values[np.isfinite(values)])
    top = float(finite.max()) if finite.size else 0.0
    power = 0 if top == 0 or 0.05 <= top < 10_000 else 3 * int(np.floor(np.log10(top) / 3))
    shown = top / 10.0**power
    return power, 0 if shown >= 100 else 1 if shown >= 10 else 2


class Shades:
    """Colours of a matrix's values, and of text on them; the diagonal does not stretch the range."""

    def __init__(self, matrix: Matrix) -> None:
        from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

        off = matrix.mean[~np.eye(len(matrix.mean), dtype=bool)]
        off = off[np.isfinite(off)]
        low, high = (float(off.min()), float(off.max())) if off.size else (0.0, 1.0)
        self.log = log_scaled(matrix.unit, off)
        high = high if high > low else low + 1.0
        self._norm: Any = LogNorm(low, high) if self.log else Normalize(low, high)
        self._map = LinearSegmentedColormap.from_list(matrix.kind, SHADES[matrix.kind])

    def share(self, value: float) -> float:
        """How far up the range a value is, 0 to 1."""
        return min(max(float(self._norm(value)), 0.0), 1.0)

    def __call__(self, value: float) -> tuple[str, str]:
        """Fill and ink."""
        from matplotlib.colors import to_hex

        red, green, blue, _ = self._map(float(self._norm(value)))
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        return to_hex((red, green, blue)), DARK_TEXT if light > 0.2 else LIGHT_TEXT

    def bar(self, axes: Axes, power: int) -> None:
        """The key of a picture whose tiles carry no numbers, without this power of ten, as `scale` gave it."""
        from matplotlib.cm import ScalarMappable

        assert axes.figure is not None
        bar = axes.figure.colorbar(
            ScalarMappable(self._norm, self._map), ax=axes, location="bottom", shrink=0.5, aspect=30,
            format=lambda value, _: f"{value / 10.0**power:g}",
        )  # fmt: skip
        bar.outline.set_visible(False)


def log_scaled(unit: str, values: np.ndarray) -> bool:
    """Whether values are times, whose ratios count: all above zero, and in epochs or steps."""
    return unit in ("epochs", "steps") and values.size > 0 and bool((values > 0).all())


def _frame(axes: Axes, names: Sequence[str], count: int) -> None:
    size = FONT if count <= VALUES_UP_TO else max(4.0, FONT * VALUES_UP_TO / count)
    axes.set_xticks(range(count), names, rotation=90, color=INK, fontsize=size)
    axes.set_yticks(range(count), names, color=INK, fontsize=size)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), xlabel="source", ylabel="target", aspect="equal")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def tile_text(value: float, power: int, decimals: int) -> str:
    """A value as it stands on its tile, where `scale` gave power and decimals."""
    if np.isnan(value):
        return "\u2013"
    shown = f"{value / 10.0**power:.{decimals}f}"
    return shown if float(shown) != 0 else shown.lstrip("-")  # the hyphen is half a minus wide, and so fits


def _font(texts: Iterable[str], tasks: Sequence[str], count: int, width: float) -> float:
    """The largest size at which the widest value fits its tile."""
    name = min(NAME_LENGTH, max(map(len, tasks)))
    tile = (width * 72 - 30 - 0.58 * FONT * name) / count
    widest = max(sum(_WIDTHS.get(letter, 0.64) for letter in text) for text in texts)
    return float(np.clip(tile * 0.9 / widest, 4.0, FONT))


_WIDTHS = {".": 0.32, "≥": 0.86, "-": 0.37}  # in sizes of the font
