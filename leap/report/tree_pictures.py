"""Which tasks lie near each other: dendrograms of matrices, and the spanning trees that are read as curricula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from leap.metrics.graph import Clusters, Combine, Edge, cluster, edge_stability, spanning_tree
from leap.report.captioned import WIDTH, Picture
from leap.report.heatmap import draw_dendrogram
from leap.report.measures import Matrix, Measures, mean
from leap.report.spanning import ROW, draw_spanning_tree
from leap.report.text import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURRICULUM = "transferability"  # the score whose tree papers draw


class Spanning(NamedTuple):
    """The spanning tree of a matrix: its edges, the share of seeds that have each, and the task to start with."""

    matrix: Matrix
    tree: list[Edge]
    shares: list[float] | None
    root: int

    def value(self, edge: Edge) -> float:
        """What an edge is worth, in the matrix's own unit and sign."""
        return -edge.weight if self.matrix.kind == "similarity" else edge.weight


def trees(measures: Measures) -> Iterator[Picture]:
    """A dendrogram a matrix of distances or similarities that has every pair; of scores, of one alone."""
    chosen = {matrix.name for matrix in curricula(measures)}
    for matrix in measures.matrices.values():
        found = clusters(matrix) if matrix.kind != "outcome" else None
        if found is None or (matrix.name in measures.score_names and matrix.name not in chosen):
            continue
        caption = (
            "Tasks that join further left are nearer. Average linkage on the mean of both directions; the stems at the "
            "left only carry the names."
        )
        yield Picture(
            f"{matrix.name}.tree",
            f"Tree of: {matrix.label}",
            caption + ("" if matrix.name in chosen else _stability(matrix)),  # the spanning tree's own picture says it
            WIDTH,
            0.7 + 0.25 * len(measures.tasks),
            partial(_draw_tree, clusters=found, matrix=matrix, tasks=measures.tasks),
        )


def spannings(measures: Measures) -> Iterator[Picture]:
    """The spanning trees that a curriculum follows: of one score and of one distance."""
    for matrix in curricula(measures):
        held = spanning(matrix)
        if held is None:
            continue
        yield Picture(
            f"{matrix.name}.spanning",
            f"Spanning tree of: {matrix.label}",
            _spanning_caption(held, measures),
            WIDTH,
            0.2 + ROW * len(measures.tasks),
            partial(_draw_spanning, held=held, tasks=measures.tasks),
        )


def curricula(measures: Measures) -> list[Matrix]:
    """The score and the distance whose trees are drawn: transferability, or else the first of each that has them."""
    held = [matrix for matrix in measures.matrices.values() if matrix.kind != "outcome" and _is_complete(matrix)]
    plain = {score.name for score in measures.scores if not score.baseline}
    scores = sorted((m for m in held if m.name in plain), key=lambda matrix: matrix.name != CURRICULUM)
    distances = [matrix for matrix in held if matrix.kind == "distance"]
    return [*scores[:1], *distances[:1]]


def spanning(matrix: Matrix) -> Spanning | None:
    """The spanning tree of the mean over seeds; None where missing pairs cut the tasks apart.

    Of a similarity the better of two directions counts, as in papers on transferability, whose weight is
    1 - max(T(i, j), T(j, i)); of a distance the mean of both. The root is the task that is the best source on average.
    """
    similar = matrix.kind == "similarity"
    combine: Combine = "min" if similar else "mean"
    try:
        tree = spanning_tree(matrix.mean, similarity=similar, combine=combine)
    except ValueError:  # pairs are missing
        return None
    shares = None
    if len(matrix.values) > 1:
        try:
            shares = edge_stability(matrix.values, similarity=similar, combine=combine).shares
        except ValueError:  # pairs are missing in one seed
            shares = None
    own = np.where(np.eye(len(matrix.mean), dtype=bool), np.nan, matrix.mean)
    columns = mean(own) * (-1 if similar else 1)
    return Spanning(matrix, tree, shares, int(np.nanargmin(columns)))


def clusters(matrix: Matrix) -> Clusters | None:
    """The clusters of a matrix; None for one or two tasks, and where a pair is missing."""
    return cluster(matrix.mean, similarity=matrix.kind == "similarity") if _is_complete(matrix) else None


def _is_complete(matrix: Matrix) -> bool:
    """Whether there are three tasks or more, and a value of every pair in one direction at least."""
    both = np.where(np.isnan(matrix.mean), matrix.mean.T, matrix.mean)
    return len(both) >= 3 and not np.isnan(both[~np.eye(len(both), dtype=bool)]).any()


def _stability(matrix: Matrix) -> str:
    """In words, how many edges of the spanning tree of the mean single seeds have; nothing for one seed."""
    if len(matrix.values) < 2:
        return ""
    try:
        found = edge_stability(matrix.values, similarity=matrix.kind == "similarity").mean
    except ValueError:  # pairs missing in one seed cut its tasks apart
        return ""
    return f" Edges of the minimum spanning tree found again in single seeds: {found:.0%}."


def _spanning_caption(held: Spanning, measures: Measures) -> str:
    unit = held.matrix.unit
    figures = "the better of both directions" if held.matrix.kind == "similarity" else "mean of both directions"
    said = [
        "The fewest and best links that connect all tasks. A curriculum starts at the left, with "
        f"{measures.tasks[held.root]}, the best source on average, and goes on along the links. "
        f"On a link: {figures}{'' if unit in ('', '1') else f' ({unit})'}."
    ]
    if held.shares is not None:
        said.append(
            f"Thick: in the trees of all {len(measures.seeds)} seeds; thinner: in fewer; dashed: in less than half. "
            f"Mean over links: {np.mean(held.shares):.0%} of the seeds."
        )
    return " ".join(said)


def _draw_tree(figure: Figure, clusters: Clusters, matrix: Matrix, tasks: Sequence[str]) -> None:
    draw_dendrogram(figure.subplots(), clusters, matrix, tasks)


def _draw_spanning(figure: Figure, held: Spanning, tasks: Sequence[str]) -> None:
    texts = [number(held.value(edge)) for edge in held.tree]
    draw_spanning_tree(figure.subplots(), held.tree, held.root, tasks, texts, held.shares, WIDTH)
