"""Pictures of measures: what is written on them, how they shade, and in which order tasks stand."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from measure_documents import TASKS, document

from leap.metrics.graph import Edge
from leap.report import write_measures
from leap.report.captioned import WIDTH, Picture
from leap.report.drawing import picture
from leap.report.heatmap import Shades, scale
from leap.report.measure_charts import named
from leap.report.measure_pictures import common_order, pictures, walks
from leap.report.measures import Measures, parse_measures
from leap.report.spanning import ROW, draw_spanning_tree, layout
from leap.report.svg import compact, inline_svg
from leap.report.tree_pictures import spanning

WHOLE = document()
SMALL = document(1, tasks=TASKS[:4], seeds=2)


def _with(change: Callable[[dict[str, Any]], Any], content: dict[str, Any] = SMALL) -> dict[str, Any]:
    held = deepcopy(content)
    change(held)
    return held


def _only(*sections: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"paths": {}, "singles": {}, "matrices": {}, "curves": {}, "relations": []}
    return SMALL | {name: value for name, value in empty.items() if name not in sections}


# What pictures say


def _texts(measures: Measures, name: str) -> list[str]:
    """Every text in a picture."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    figure = Figure(figsize=(5, 5))
    next(one for one in pictures(measures) if one.name == name).draw(figure)
    figure.canvas.draw()
    return [found.get_text() for found in figure.findobj(Text) if found.get_text()]


def test_a_heat_map_has_targets_as_rows_and_sources_as_columns() -> None:
    tasks = ["a", "b", "c"]
    values = [[[0, 11, 12], [21, 0, 22], [31, 32, 0]]]
    matrix = {"values": values, "unit": "nats", "label": "L", "kind": "distance", "censored": None}
    measures = parse_measures(_only() | {"tasks": tasks, "seeds": [0], "matrices": {"d": matrix}})

    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5))
    next(one for one in pictures(measures) if one.name == "d").draw(figure)
    axes, order = figure.axes[0], common_order(measures)
    at = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    for row, target in enumerate(order):
        for column, source in enumerate(order):
            assert at[column, row] == f"{values[0][target][source]:.1f}"
    assert [label.get_text() for label in axes.get_yticklabels()] == [tasks[task] for task in order]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("target", "source")
    assert axes.yaxis_inverted()


def test_a_scatter_tells_what_each_target_says() -> None:
    texts = _texts(parse_measures(SMALL), "reachability-epochs")
    own = SMALL["relations"][0]["within"]["by_target"]
    assert all(f"{name} ({value:.2f})" in texts for name, value in zip(SMALL["tasks"], own, strict=True))


def test_limits_gaps_and_large_numbers_are_readable() -> None:
    def change(held: dict[str, Any]) -> None:
        matrix = held["matrices"]["epochs"]
        matrix["values"] = np.full((2, 4, 4), 7.0).tolist()
        matrix["censored"] = np.zeros((2, 4, 4), dtype=bool).tolist()
        matrix["values"][0][0][1] = matrix["values"][1][0][1] = None
        matrix["values"][0][2][3], matrix["censored"][0][2][3] = 30.0, True
        held["matrices"]["fisher"]["values"] = np.full((2, 4, 4), 123456.0).tolist()

    measures = parse_measures(_with(change))
    texts = _texts(measures, "epochs")
    assert "\u2265" + "18.5" in texts and texts.count("\u2013") == 1
    assert "123" in _texts(measures, "fisher")
    shown = {one.name: one for one in pictures(measures)}
    assert "\u00d710\u00b3" in shown["fisher"].title
    assert "stopped at the limit" in shown["epochs"].caption
    assert scale(np.array([np.nan])) == (0, 2)


def test_shades_darken_with_the_value_in_grey_too() -> None:
    measures = parse_measures(WHOLE)
    for matrix in measures.matrices.values():
        shade = Shades(matrix)
        low, high = np.nanmin(matrix.mean), np.nanmax(matrix.mean)
        steps = np.geomspace(low, high, 12) if shade.log else np.linspace(low, high, 12)
        fills = [shade(value)[0] for value in steps]
        light = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (bytes.fromhex(fill[1:]) for fill in fills)]
        off = matrix.mean[~np.eye(len(TASKS), dtype=bool)]
        inside = (steps >= np.nanmin(off)) & (steps <= np.nanmax(off))
        assert (np.diff(np.array(light)[inside]) < 0).all()
    assert Shades(measures.matrices["epochs"]).log and not Shades(measures.matrices["reachability"]).log


def test_text_on_every_shade_has_contrast() -> None:
    def light(colour: str) -> float:
        parts = [value / 255 for value in bytes.fromhex(colour[1:])]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for matrix in parse_measures(WHOLE).matrices.values():
        shade = Shades(matrix)
        for value in np.linspace(np.nanmin(matrix.mean), np.nanmax(matrix.mean), 40):
            fill, ink = sorted(map(light, shade(max(value, 1e-3) if shade.log else value)))
            assert (ink + 0.05) / (fill + 0.05) >= 4.2


def test_all_heat_maps_share_the_order_of_the_first_that_clusters() -> None:
    measures = parse_measures(WHOLE)
    order = [TASKS[task] for task in common_order(measures)]
    groups = [{"mnist", "kmnist", "notmnist", "omniglot-Ojibwe-Cree"}, {"fashion", "inverted-fashion"}]
    for group in groups:
        places = sorted(order.index(name) for name in group)
        assert places[-1] - places[0] == len(group) - 1

    def gap(held: dict[str, Any]) -> None:
        for values in held["matrices"]["reachability"]["values"]:
            values[0][1] = values[1][0] = None

    assert common_order(parse_measures(_with(gap, WHOLE))) != [] and "reachability.tree" not in {
        one.name for one in pictures(parse_measures(_with(gap, WHOLE)))
    }


def test_a_walk_is_told_by_its_error_or_else_its_loss() -> None:
    def lossy(held: dict[str, Any]) -> None:
        for values in held["paths"]["initializations"].values():
            values["test_loss"], values["test_error"] = values["test_error"], None
            values["path_energy"] = None

    titles = [one.title for one in walks(parse_measures(_with(lossy)))]
    assert titles[1] == "Path length and final test loss"
    caption = next(walks(parse_measures(SMALL))).caption
    lengths = SMALL["paths"]["initializations"]["leap"]["path_length"]
    assert f"leap {np.median(np.mean(lengths, axis=0)):.2f}" in caption


def test_one_task_two_tasks_and_very_many_have_pictures(tmp_path: Path) -> None:
    for tasks in (("one",), ("one", "two"), tuple(f"alphabet number {i}" for i in range(30))):
        content = document(tasks=tasks, seeds=1, relations=False)
        content["curves"] = {name: content["curves"][name] for name in ("structure",)}
        content["matrices"] = {"fisher": content["matrices"]["fisher"]}
        assert write_measures(content, tmp_path / str(len(tasks)))


# Spanning trees


def _random_tree(count: int, seed: int) -> list[Edge]:
    rng = np.random.default_rng(seed)
    return [Edge(int(rng.integers(max(0, i - 3), i)), i, float(rng.random())) for i in range(1, count)]


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (8, 1), (14, 2), (20, 3), (20, 4)])
def test_no_name_and_no_number_of_a_spanning_tree_meets_another_or_a_line(count: int, seed: int) -> None:
    from matplotlib.figure import Figure

    tree, tasks = _random_tree(count, seed), [f"{'a rather long name' if i % 2 else 'task'} {i}" for i in range(count)]
    figure = Figure(figsize=(WIDTH, 0.2 + ROW * count))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    draw_spanning_tree(axes, tree, seed % count, tasks, [f"{edge.weight:.2f}" for edge in tree], None, WIDTH)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 2 * count - 1
    for one, two in itertools.combinations(boxes, 2):
        assert not one.overlaps(two)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    for line in axes.lines[: count - 1]:
        corners = line.get_transform().transform(line.get_path().vertices)
        for (x0, y0), (x1, y1) in itertools.pairwise(corners):
            for box in boxes:
                beside = max(x0, x1) < box.x0 or min(x0, x1) > box.x1
                assert beside or max(y0, y1) < box.y0 or min(y0, y1) > box.y1


@pytest.mark.parametrize("seed", range(4))
def test_every_task_has_a_row_and_every_link_one_step(seed: int) -> None:
    tree, root = _random_tree(11, seed), seed
    held = layout(tree, root)
    assert sorted(held.rows) == list(range(11)) and held.steps[root] == 0
    assert {frozenset(edge[:2]) for edge in held.edges} == {frozenset(edge[:2]) for edge in tree}
    assert all(held.steps[child] == held.steps[parent] + 1 for parent, child, _ in held.edges)
    assert [place for *_, place in held.edges] == list(range(10))


def test_a_spanning_tree_takes_the_better_direction_of_a_score_and_the_mean_of_a_distance() -> None:
    measures = parse_measures(_scored())
    for name, of_pair in (("transferability", np.maximum), ("reachability", lambda a, b: (a + b) / 2)):
        held = spanning(measures.matrices[name])
        assert held is not None
        mean = measures.matrices[name].mean
        pairs = of_pair(mean, mean.T)
        assert [held.value(edge) for edge in held.tree] == pytest.approx([pairs[edge[:2]] for edge in held.tree])
        sign = -1 if name == "transferability" else 1
        total = sum(sign * held.value(edge) for edge in held.tree)
        every = list(itertools.combinations(range(4), 2))
        trees = (some for some in itertools.combinations(every, 3) if _connects(some))
        assert total == pytest.approx(min(sum(sign * pairs[pair] for pair in some) for some in trees))
        own = np.where(np.eye(4, dtype=bool), np.nan, mean)
        assert held.root == np.nanargmin(sign * np.nanmean(own, axis=0))  # the best source: columns are sources


def _connects(edges: tuple[tuple[int, int], ...]) -> bool:
    reached = {0}
    for _ in edges:
        reached |= {task for edge in edges if reached & set(edge) for task in edge}
    return len(reached) == 4


def _scored() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    content, label = deepcopy(SMALL), "Transferability"
    values = np.where(np.eye(4, dtype=bool), np.nan, rng.random((2, 4, 4)))
    table = {"values": values.tolist(), "unit": "1", "label": label, "kind": "similarity", "censored": None}
    content["matrices"]["transferability"] = table
    content["scores"] = [{"name": "transferability", "label": label, "unit": "1", "baseline": False}]
    return content


def test_a_link_that_few_seeds_have_looks_different() -> None:
    from matplotlib.figure import Figure

    def lines(shares: list[float] | None) -> list[tuple[Any, ...]]:
        axes = Figure().subplots()
        draw_spanning_tree(axes, _random_tree(3, 0), 0, ["a", "b", "c"], ["1", "2"], shares, WIDTH)
        return [(line.get_linewidth(), line.get_color(), line.is_dashed()) for line in axes.lines[:2]]

    (thick, dark, whole), (thin, pale, dashed) = lines([1.0, 1 / 3])
    assert thick > thin and dark != pale and (whole, dashed) == (False, True)
    assert len(set(lines(None))) == 1


# SVG


def test_a_smaller_svg_is_the_same_picture() -> None:
    measures = parse_measures(SMALL)
    for name in ("reachability", "reachability-epochs", "curve-structure", "reachability.tree"):
        one = next(picture for picture in pictures(measures) if picture.name == name)
        whole = _svg(one)
        small = inline_svg("p", one.width, one.height, one.draw)
        assert len(small) < 0.55 * len(whole)
        for tag, keys in (("text", ("x", "y", "transform")), ("use", ("x", "y"))):
            one_side, other = (_drawn(text, tag, keys) for text in (whole, small))
            assert [words for words, _ in one_side] == [words for words, _ in other]
            np.testing.assert_allclose([at for _, at in one_side], [at for _, at in other], atol=0.0051)
        ids = re.findall(r' id="([^"]*)"', small)
        assert len(ids) == len(set(ids)) and set(re.findall(r"#(p-\d+)", small)) == set(ids)


def _svg(one: Picture) -> str:
    held = BytesIO()
    picture(one.width, one.height, one.draw, lambda figure: figure.savefig(held, format="svg", transparent=True))
    return held.getvalue().decode()


def _drawn(svg: str, tag: str, keys: tuple[str, ...]) -> list[tuple[str | None, list[float]]]:
    found = []
    for element in ElementTree.fromstring(svg[svg.index("<svg") :]).iter(f"{{http://www.w3.org/2000/svg}}{tag}"):
        said = " ".join(element.get(key, "") for key in keys).replace("rotate(-0", "rotate(0")
        said = re.sub(r" rotate\(0 [^)]*\)", "", said)  # by nothing
        found.append((element.text, ([float(n) for n in re.findall(r"-?[\d.]+", said)] + [0.0] * 5)[:5]))
    return found


def test_text_is_left_alone() -> None:
    assert compact('<g><text x="1.98765">1.98765 id="a" :  ;</text> <path d="M 1.00001 2\nL 3 4\nz\n"/></g>') == (
        '<text x="1.99">1.98765 id="a" :  ;</text><path d="M1 2L3 4z"/>'
    )


def test_units_are_said_once() -> None:
    assert named("Epochs from scratch", "epochs") == "Epochs from scratch"
    assert named("Path", "nats") == "Path (nats)"
