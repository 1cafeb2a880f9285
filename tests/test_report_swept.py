"""The chart of a sweep: which settings were swept, what stands on a line, and where nothing is drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_runs import write_run

from leap.report import summarize
from leap.report.drawing import styles
from leap.report.evaluation import Evaluation
from leap.report.page import report_page
from leap.report.summary import Row
from leap.report.swept import draw_sweep, sweeps, swept_section

LEVELS = {3: 30.0, 5: 20.0, 1: 40.0}


def swept(
    root: Path,
    learner: str,
    values: Mapping[int, float] = LEVELS,
    counts: Mapping[int, int | None] | None = None,
    **fields: Any,
) -> list[Path]:
    """Runs of a learner over `tasks.train`, each with so many pretraining tasks where `counts` says."""
    folders = []
    for value, level in values.items():
        for seed in range(3):
            folder = write_run(root / f"train{value}", learner, seed, level, **(fields | {"tasks_": value}))
            config = (folder / "config.yaml").read_text().replace(f"tasks_: {value}\n", "")
            (folder / "config.yaml").write_text(config.replace("ways: 20", f"ways: 20\n  train: {value}"))
            if counts:
                evaluation = json.loads((folder / "evaluation.json").read_text())
                evaluation["pretraining_tasks"] = counts[value]
                (folder / "evaluation.json").write_text(json.dumps(evaluation))
            folders.append(folder)
    return folders


def mean(row: Row) -> float:
    """Of the final error, over seeds."""
    interval = row.interval("test_error")
    assert interval is not None
    return interval.mean


def test_a_line_holds_what_differs_in_the_setting_alone(tmp_path: Path) -> None:
    found = sweeps(summarize([*swept(tmp_path, "leap"), *swept(tmp_path, "reptile")]))
    assert [(one.field, one.axis) for one in found] == [("tasks.train", "tasks.train")]
    assert [line.label for line in found[0].lines] == ["leap", "reptile"]
    for line in found[0].lines:
        assert [x for x, _ in line.points] == [1, 3, 5]
        means = [mean(row) for _, row in line.points]
        assert means == sorted(means, reverse=True)
        assert {run.learner for _, row in line.points for run in row.runs} == {line.label}


def test_two_settings_are_swept_each_along_the_other(tmp_path: Path) -> None:
    runs = [
        *swept(tmp_path / "a", "leap", {1: 40.0, 3: 30.0}, extra=0.1),
        *swept(tmp_path / "b", "leap", {1: 35.0, 3: 25.0}, extra=0.5),
        *swept(tmp_path / "c", "leap", {3: 35.0, 4: 25.0}, extra=0.9),
    ]
    found = {one.field: one for one in sweeps(summarize(runs))}
    assert set(found) == {"tasks.train", "extra"}
    assert [line.label for line in found["tasks.train"].lines] == [
        "leap (extra=0.1)",
        "leap (extra=0.5)",
        "leap (extra=0.9)",
    ]
    assert [line.label for line in found["extra"].lines] == ["leap (tasks.train=1)", "leap (tasks.train=3)"]
    assert [[x for x, _ in line.points] for line in found["extra"].lines] == [[0.1, 0.5], [0.1, 0.5, 0.9]]


@pytest.mark.parametrize(
    "counts, axis, xs",
    [
        ({1: 10, 3: 30, 5: 50}, "pretraining tasks", [10, 30, 50]),
        ({1: 10, 3: 10, 5: 50}, "tasks.train", [1, 3, 5]),  # two values stand for one number
        ({1: 10, 3: 30, 5: None}, "tasks.train", [1, 3, 5]),
    ],
)
def test_the_axis_counts_pretraining_tasks_where_the_setting_decides_them(
    counts: dict[int, int | None], axis: str, xs: list[float], tmp_path: Path
) -> None:
    (one,) = sweeps(summarize(swept(tmp_path, "leap", counts=counts)))
    assert one.axis == axis and [x for x, _ in one.lines[0].points] == xs


def test_the_axis_is_the_setting_where_learners_pretrain_on_other_numbers(tmp_path: Path) -> None:
    runs = swept(tmp_path, "leap", counts={1: 10, 3: 30, 5: 50}) + swept(tmp_path, "reptile", counts={1: 9, 3: 7, 5: 5})
    assert [one.axis for one in sweeps(summarize(runs))] == ["tasks.train"]


def test_what_is_no_sweep_has_no_chart(tmp_path: Path) -> None:
    """Learners that differ, words that differ, flags, and settings that change together."""
    runs = [
        write_run(tmp_path, "leap", 0, other=1, meta={"lr": 0.1}),
        write_run(tmp_path, "reptile", 0, other=2),
        write_run(tmp_path, "leap", 0, other=2, meta={"lr": 0.3}),
        write_run(tmp_path, "maml", 0, metric="length"),
        write_run(tmp_path, "maml", 0, metric="energy"),
        write_run(tmp_path, "anil", 0, flag=True),
        write_run(tmp_path, "anil", 0, flag=False),
    ]
    summary = summarize(runs)
    assert sweeps(summary) == [] and swept_section(summary) == ""


def test_the_drawing_leaves_out_what_diverged_and_spreads_wide_axes(tmp_path: Path) -> None:
    runs = swept(tmp_path, "leap", {1: 40.0, 3: 30.0, 100: 20.0})
    for folder in runs:
        if "train3" in str(folder):
            evaluation = json.loads((folder / "evaluation.json").read_text())
            evaluation["initializations"]["leap"]["test_error"][0][0] = None
            (folder / "evaluation.json").write_text(json.dumps(evaluation))
    summary = summarize(runs)
    (one,) = sweeps(summary)
    axes = Figure().subplots()
    random = next(row for row in summary.rows if row.baseline)
    draw_sweep(axes, one, summary.measures[0], styles(["leap"], []), random)
    line, *others = axes.lines
    assert np.array_equal(np.asarray(line.get_xdata()), [1, 100]) and axes.get_xscale() == "log"
    assert len(others) == 2 + 1  # intervals, and the random initialization across
    assert np.asarray(others[-1].get_ydata())[0] == pytest.approx(mean(random))


def test_an_axis_may_begin_at_zero(tmp_path: Path) -> None:
    summary = summarize(swept(tmp_path, "leap", {0: 40.0, 100: 30.0}))
    axes = Figure().subplots()
    draw_sweep(axes, sweeps(summary)[0], summary.measures[0], styles(["leap"], []))
    assert axes.get_xscale() == "linear" and list(axes.get_xticks()) == [0, 100]


def test_losses_of_games_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = summarize(swept(tmp_path, "leap"))
    assert swept_section(summary)
    monkeypatch.setattr(Evaluation, "has_returns", True)
    assert swept_section(summary) == ""


def test_the_page_shows_it_with_its_words(tmp_path: Path) -> None:
    page = report_page(summarize([*swept(tmp_path, "leap", counts={1: 10, 3: 30, 5: 50})]))
    assert "Final test error (%) against pretraining tasks" in page
    assert "Initializations of one line differ in tasks.train alone." in page
    assert "random initialization" in swept_section(summarize([*swept(tmp_path / "other", "leap")]))
