"""The spanning tree of tasks as a drawing: from the task to start with, on the left, to what lies near it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leap.metrics.graph import Edge
from leap.report.charts import shorten
from leap.report.drawing import INK, MUTED
from leap.report.heatmap import FONT, NAME_LENGTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW, WIDEST_STEP = 0.29, 0.72  # inches between tasks, and at most from a task to the next one away from the root


class Layout(NamedTuple):
    """Where tasks stand: `steps` from the root, `rows` from the top, and edges as (parent, child, place)."""

    steps: list[int]
    rows: list[int]
    edges: list[tuple[int, int, int]]


def layout(tree: Sequence[Edge], root: int) -> Layout:
    """Every task in a row of its own, a parent between its children, subtrees side by side.

    Names stand to the right of their tasks, where nothing else can be: lines run along a row only towards the task
    that has it, and down only beside the subtree of a task.

    Args:
        tree: Edges of a spanning tree of T tasks, the nearest first.
        root: Stands at step 0.

    Example:
        >>> layout([Edge(0, 1, 0.1), Edge(0, 2, 0.2), Edge(2, 3, 0.3)], 0)
        Layout(steps=[0, 1, 1, 2], rows=[1, 0, 2, 3], edges=[(0, 1, 0), (0, 2, 1), (2, 3, 2)])
    """
    count = len(tree) + 1
    near: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for place, edge in enumerate(tree):
        near[edge.i].append((edge.j, place))
        near[edge.j].append((edge.i, place))
    steps, rows, order = [0] * count, [0] * count, iter(range(count))
    edges: list[tuple[int, int, int]] = []

    def place_below(task: int, parent: int | None) -> None:
        children = [(child, edge) for child, edge in near[task] if child != parent]
        for number, (child, edge) in enumerate(children):
            if number == len(children) // 2:
                rows[task] = next(order)
            steps[child] = steps[task] + 1
            edges.append((task, child, edge))
            place_below(child, task)
        if not children:
            rows[task] = next(order)

    place_below(root, None)
    return Layout(steps, rows, sorted(edges, key=lambda edge: edge[2]))


def draw_spanning_tree(
    axes: Axes,
    tree: Sequence[Edge],
    root: int,
    tasks: Sequence[str],
    texts: Sequence[str],
    shares: Sequence[float] | None,
    width: float,
) -> None:
    """Nodes and links.

    Args:
        axes: Takes the drawing.
        tree: Edges, the nearest first.
        root: The task at the left.
        tasks: Their names.
        texts: What stands on each edge.
        shares: Of each edge, the share of seeds whose own tree has it: thick and dark where all have it. None: one
            seed.
        width: Of the figure, in inches.
    """
    held = layout(tree, root)
    names = [shorten(name, NAME_LENGTH) for name in tasks]
    # Every name must end inside: 0.62 of the font's size a letter is more than letters need on average.
    rooms = [width - 0.4 - 0.62 * FONT * len(name) / 72 for name in names]
    step = min([WIDEST_STEP, *(room / steps for room, steps in zip(rooms, held.steps, strict=True) if steps)])
    for parent, child, edge in held.edges:
        share = 1.0 if shares is None else shares[edge]
        x, y = held.steps[parent] * step, held.rows[parent]
        end, row = held.steps[child] * step, held.rows[child]
        look: dict[str, Any] = {"color": INK if share > 0.999 else MUTED, "linewidth": 0.8 + 2.2 * share}
        axes.plot((x, x, end), (y, row, row), solid_joinstyle="round", dashes=(2, 1.2) if share < 0.5 else (), **look)
        size = min(0.93 * FONT, 72 * (step - 0.1) / (0.64 * max(map(len, texts))))
        axes.text((x + end) / 2, row - 0.1, texts[edge], ha="center", va="bottom", fontsize=size, color=MUTED)
    for task, name in enumerate(names):
        at = held.steps[task] * step, held.rows[task]
        axes.plot(*at, "o", color=INK, markersize=6.5 if task == root else 5)
        axes.annotate(
            name, at, (7, 0), textcoords="offset points", va="center", fontsize=FONT, color=INK, annotation_clip=False
        )
    axes.set(xlim=(-0.1, width - 0.15), ylim=(len(tasks) - 0.4, -0.7))
    axes.axis("off")
