"""The pictures of one document of measures, each with its caption: for files, and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from leap.measure.plan import RISING
from leap.report.captioned import WIDTH, Picture, correlation_text, p_text, plain
from leap.report.findings import setting
from leap.report.heatmap import NAME_LENGTH, Shades, draw_heatmap, log_scaled, scale
from leap.report.matrix_table import BESIDE, matrix_table
from leap.report.measure_charts import (
    END_LABELS,
    LEGEND_UP_TO,
    draw_curve,
    draw_path_and_end,
    draw_paths,
    draw_scatter,
    ends_correlation,
    initialization_label,
    median,
    named,
    path_end,
    path_keys,
)
from leap.report.measures import Matrix, Measures, Paths
from leap.report.text import number
from leap.report.transfer import label, main_outcome
from leap.report.transfer_charts import predictor_pictures
from leap.report.tree_pictures import clusters, spannings, trees

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pictures(measures: Measures) -> list[Picture]:
    """All that a document has to show, in the order in which it is read."""
    return [
        *predictor_pictures(measures),
        *maps(measures),
        *spannings(measures),
        *trees(measures),
        *scatters(measures),
        *score_scatters(measures),
        *walks(measures),
        *curves(measures),
    ]


def common_order(measures: Measures) -> list[int]:
    """One order of tasks for all heat maps, so that they can be held against each other: the first that clusters."""
    for kind in ("distance", "similarity", "outcome"):
        for matrix in measures.matrices.values():
            found = clusters(matrix) if matrix.kind == kind else None
            if found is not None:
                return found.order
    return list(range(len(measures.tasks)))


def maps(measures: Measures) -> Iterator[Picture]:
    """A heat map a matrix."""
    order = common_order(measures)
    names = NAME_LENGTH if not measures.tasks else min(NAME_LENGTH, max(map(len, measures.tasks)))
    label = 0.085 * names  # inches that the longest name takes
    side = max(WIDTH - label - 0.35, 0.12 * len(order))
    for matrix in measures.matrices.values():
        yield Picture(
            matrix.name,
            _map_title(matrix),
            _map_caption(matrix, measures),
            WIDTH,
            side + label + 0.35,
            partial(_draw_map, matrix=matrix, tasks=measures.tasks, order=order),
            partial(matrix_table, matrix, measures.tasks, order),
            whole=len(order) > BESIDE,
        )


def scatters(measures: Measures) -> Iterator[Picture]:
    """A scatter a relation of two matrices, scores left out; without relations, of all distances with all outcomes."""
    yield from (picture for x, _, picture in _scatters(measures) if x not in measures.score_names)


def score_scatters(measures: Measures) -> Iterator[Picture]:
    """A scatter a score, against the main outcome alone: a page with twenty scores and all outcomes would drown."""
    main = main_outcome(measures)
    held = ((y, picture) for x, y, picture in _scatters(measures) if x in measures.score_names)
    yield from (picture for y, picture in held if main is not None and y == main.name)


def _scatters(measures: Measures) -> Iterator[tuple[str, str, Picture]]:
    held = measures.matrices
    own = [one for one in measures.relations if one["x"] in held and one["y"] in held and not setting(one)]
    related = {(one["x"], one["y"]): one for one in own}
    pairs = related or {
        (x.name, y.name): {}
        for x in held.values()
        for y in held.values()
        if x.kind != "outcome" and y.kind == "outcome"
    }
    rows = (len(measures.tasks) + 1) // 2 if len(measures.tasks) <= LEGEND_UP_TO else 0
    for (one, two), found in pairs.items():
        x, y = held[one], held[two]
        within = (found.get("within") or {}).get("by_target") or ()
        title = f"{label(measures, x.name)} and {plain(y.name)}"
        caption = _scatter_caption(y, found, len(measures.tasks))
        draw = partial(draw_scatter, x=x, y=y, tasks=measures.tasks, within=within)
        yield one, two, Picture(f"{one}-{two}", title, caption, WIDTH, 3.4 + 0.19 * rows, draw)


def walks(measures: Measures) -> Iterator[Picture]:
    """Walks to held-out tasks: how long they are, and how that goes with where they end."""
    paths = measures.paths
    keys = path_keys(paths) if paths is not None else []
    if paths is None or not keys:
        return
    many = f"mean over {len(measures.seeds)} seeds" if len(measures.seeds) > 1 else "one seed"
    caption = f"A dot a held-out task ({many}), bars are medians. Shorter: the task is nearer to where its walk began."
    medians = [f"{initialization_label(name)} {number(median(paths, name, keys[0]))}" for name in paths.values]
    caption += f" Median {plain(keys[0])}: {', '.join(medians)}."
    height = len(keys) * (0.62 + 0.3 * len(paths.values)) + 0.1
    title = "How far held-out tasks are from each initialization"
    yield Picture("paths", title, caption, WIDTH, height, partial(draw_paths, paths=paths))
    end = path_end(paths)
    if end is not None:
        title = f"Path length and {END_LABELS[end]}"
        draw = partial(draw_path_and_end, paths=paths, end=end)
        yield Picture("path-and-end", title, _end_caption(paths, end), WIDTH, 3.4, draw)


def curves(measures: Measures) -> Iterator[Picture]:
    """A picture a curve."""
    rows = (len(measures.tasks) + 1) // 2 if len(measures.tasks) <= LEGEND_UP_TO else 0
    for curve in measures.curves.values():
        many = f", mean over {len(measures.seeds)} seeds" if len(measures.seeds) > 1 else ""
        few = len(measures.tasks) <= LEGEND_UP_TO
        yield Picture(
            f"curve-{curve.name}",
            f"{named(curve.label, curve.unit)} over {curve.x_label}",
            f"A line a task{many}{'' if few else '; bold: mean over tasks'}.",
            WIDTH,
            3.1 + 0.19 * rows,
            partial(draw_curve, curve=curve, tasks=measures.tasks),
        )


def _draw_map(figure: Figure, matrix: Matrix, tasks: Sequence[str], order: Sequence[int]) -> None:
    draw_heatmap(figure.subplots(), matrix, tasks, order, WIDTH)


def _map_title(matrix: Matrix) -> str:
    """The label with the unit of the figures on the tiles."""
    power, _ = scale(matrix.mean)
    if not power:
        return named(matrix.label, matrix.unit)
    times = "\u00d710" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{matrix.label} ({times}{'' if matrix.unit in ('', '1') else f' {matrix.unit}'})"


def _map_caption(matrix: Matrix, measures: Measures) -> str:
    nearer = {
        "distance": "Darker is farther",
        "similarity": "Darker is nearer",
        "outcome": "Darker is more: slower or worse",
    }
    shade = "Darker transfers better" if matrix.name in measures.score_names else nearer[matrix.kind]
    said = [f"Rows are targets, columns the sources that one comes from. {shade}."]
    if Shades(matrix).log:
        said.append("Shades follow the logarithm.")
    if len(measures.seeds) > 1:
        spread = np.std(matrix.values, axis=0, ddof=1)[~np.eye(len(measures.tasks), dtype=bool)]
        spread = spread[np.isfinite(spread)]
        unit = f" {matrix.unit}" if matrix.unit not in ("", "1") else ""
        middle = ""
        if spread.size:
            middle = f", which differ by {number(float(np.median(spread)))}{unit} (standard deviation, median pair)"
        said.append(f"Mean over {len(measures.seeds)} seeds{middle}.")
    if matrix.any_censored.any():
        said.append("≥: stopped at the limit, so at least this.")
    return " ".join(said)


def _scatter_caption(y: Matrix, found: Mapping[str, Any], tasks: int) -> str:
    look = ", its shape and colour the target's" if tasks <= LEGEND_UP_TO else ""
    said = [f"A mark an ordered pair of tasks{look}."]
    pooled, within = (found.get(part) or {} for part in ("pooled", "within"))
    if pooled.get("spearman") is not None:
        said.append(f"Spearman {correlation_text(pooled['spearman'])} over all pairs")
        if found.get("mantel_p") is not None:
            said[-1] += f" (p {p_text(found['mantel_p'])} by relabelling tasks)"
        if within.get("spearman") is not None:
            said[-1] += f", {correlation_text(within['spearman'])} on average within a target"
        said[-1] += "."
    if tasks <= LEGEND_UP_TO and within.get("by_target"):
        said.append("In brackets: Spearman within that target.")
    if log_scaled(y.unit, y.mean[np.isfinite(y.mean)]):
        said.append("Epochs on a scale of doublings.")
    if y.any_censored.any():
        said.append("Hollow with an arrow: stopped at the limit, the true value is higher.")
    return " ".join(said)


def _end_caption(paths: Paths, end: str) -> str:
    said = [f"A mark a held-out task; the {'upper' if end in RISING else 'lower'} left is best."]
    for name in paths.values:
        found = ends_correlation(paths, name, end)
        if found is not None:
            said.append(f"Spearman {correlation_text(found)} from the {initialization_label(name)} initialization.")
    return " ".join(said)
