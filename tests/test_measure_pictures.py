"""Pictures of measures: what is written on them, how they shade, and in which order tasks stand."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from measure_documents import TASKS, document

from leap.report import write_measures
from leap.report.heatmap import Shades, scale
from leap.report.measure_charts import named
from leap.report.measure_pictures import common_order, pictures, walks
from leap.report.measures import Measures, parse_measures

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


def test_units_are_said_once() -> None:
    assert named("Epochs from scratch", "epochs") == "Epochs from scratch"
    assert named("Path", "nats") == "Path (nats)"
