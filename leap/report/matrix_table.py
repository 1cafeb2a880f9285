"""A matrix of tasks on the page: a table whose cells are shaded, so that its values are text for everyone.

What a picture would show on hover alone stands in the cell; the title of a cell adds its row, its column and how far
seeds differ. Shades are classes of the style sheet: nine of a kind, from light to dark.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leap.report.captioned import NOTHING
from leap.report.charts import shorten
from leap.report.heatmap import DARK_TEXT, LIGHT_TEXT, NAME_LENGTH, SHADES, Shades, scale, tile_text
from leap.report.markup import tag, text
from leap.report.measures import Matrix
from leap.report.text import number

LEVELS = 9  # shades of a kind
BESIDE = 9  # tasks, at most, of matrices that stand two in a row


def matrix_table(matrix: Matrix, tasks: Sequence[str], order: Sequence[int]) -> str:
    """The table in a box that scrolls: rows targets, columns sources, means over seeds.

    Args:
        matrix: Values.
        tasks: Their names.
        order: Of rows and columns, near tasks side by side.
    """
    mean, shade = matrix.mean, Shades(matrix)
    power, decimals = scale(mean)
    head = [tag("th", text("target \u2190 source"), scope="col")]
    head += [tag("th", tag("span", text(shorten(tasks[s], NAME_LENGTH))), scope="col") for s in order]
    rows = []
    for t in order:
        cells = [
            tag(
                "td",
                text(("\u2265" if matrix.any_censored[t, s] else "") + tile_text(mean[t, s], power, decimals)),
                title=_hover(matrix, tasks, t, s),
                **_kind(matrix, shade, t, s),
            )
            for s in order
        ]
        rows.append(tag("tr", tag("th", text(shorten(tasks[t], NAME_LENGTH)), scope="row"), *cells))
    held = tag(
        "table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="matrix", style=f"--tasks:{len(order)}"
    )
    return tag("div", held, class_="scroll", tabindex="0", role="region", aria_label=matrix.label)


def matrix_style() -> str:
    """The style sheet's rules for the shades, which are the same on light and dark pages and on paper."""
    rules = []
    for kind, stops in SHADES.items():
        for level in range(LEVELS):
            red, green, blue = _between(stops, level / (LEVELS - 1))
            light = 0.2126 * (red / 255) ** 2.2 + 0.7152 * (green / 255) ** 2.2 + 0.0722 * (blue / 255) ** 2.2
            ink = DARK_TEXT if light > 0.2 else LIGHT_TEXT
            rules.append(f".matrix .{kind[0]}{level}{{background:#{red:02x}{green:02x}{blue:02x};color:{ink}}}")
    return "".join(rules)


def _between(stops: Sequence[str], share: float) -> tuple[int, int, int]:
    """The colour at a share of the way through the stops, red, green and blue."""
    at = share * (len(stops) - 1)
    low = min(int(at), len(stops) - 2)
    one, two = ([int(stops[place][i : i + 2], 16) for i in (1, 3, 5)] for place in (low, low + 1))
    red, green, blue = (round(a + (at - low) * (b - a)) for a, b in zip(one, two, strict=True))
    return red, green, blue


def _kind(matrix: Matrix, shade: Shades, target: int, source: int) -> dict[str, str]:
    value = matrix.mean[target, source]
    if target == source:
        return {"class_": "own"}
    if np.isnan(value):
        return {}
    return {"class_": f"{matrix.kind[0]}{min(int(shade.share(value) * LEVELS), LEVELS - 1)}"}


def _hover(matrix: Matrix, tasks: Sequence[str], target: int, source: int) -> str:
    value = matrix.mean[target, source]
    where = tasks[target] if target == source else f"{tasks[target]} from {tasks[source]}"
    if np.isnan(value):
        return f"{where}: {NOTHING}"
    held = matrix.values[:, target, source]
    held = held[np.isfinite(held)]
    unit = f" {matrix.unit}" if matrix.unit not in ("", "1") else ""
    spread = f" \u00b1 {number(float(np.std(held, ddof=1)), value)}" if len(held) > 1 else ""
    at_least = "at least " if matrix.any_censored[target, source] else ""
    return f"{where}: {at_least}{number(value)}{spread}{unit}"
