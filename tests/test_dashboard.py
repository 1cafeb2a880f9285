"""The dashboard: panels over keys that runs log and docs/metrics.md explains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from dashboard_runs import made, measured, several
from offline_run import OfflineRun

from leap.cli import lifecycle
from leap.cli.settings import Evaluate, Glyphs, Model, Settings, TinyGames, Train, Wandb
from leap.dashboard.logged import read_logged
from leap.dashboard.panels import SECTIONS, dashboard
from leap.dashboard.specification import Dashboard, Panel
from leap.tracking import open_tracker

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)


def panel(held: Dashboard, title: str) -> Panel:
    return next(one for one in held.panels() if one.title == title)


def names_in(run: OfflineRun) -> set[str]:
    """Keys that a run has logged; those of media and tables without what wandb hangs on them."""
    keys = {key for row in [*run.rows, run.summary] for key in row}
    return keys | {key.removesuffix("/path") for key in keys}


def explained(key: str, games: tuple[str, ...] = ()) -> bool:
    """Whether docs/metrics.md has the key, a game or a name written as it does."""
    for game in games:
        key = key.replace(f"/{game}/", "/GAME/")
    key = re.sub(r"^(measures/pictures|games)/[^/]+", r"\1/NAME", key)
    text = (ROOT / "docs" / "metrics.md").read_text()
    return f"`{key}`" in text.partition("## dashboard.json")[0]  # which names keys that others explain


SHORT = Train(inner_steps=2, meta_steps=2, meta_batch=2)


@pytest.mark.parametrize(
    ("tasks", "steps"),
    [(Glyphs(ways=2, shots=2, queries=1, train=2, pool=2, held_out=2), 3), (TinyGames(), 30)],
    ids=["glyphs", "games"],
)
def test_every_key_of_a_panel_is_logged_by_a_real_run_and_explained(tasks: Any, steps: int, tmp_path: Path) -> None:
    settings = Settings(
        tasks, Model(filters=2), train=SHORT, wandb=Wandb("offline"), evaluate=Evaluate(steps=steps, repetitions=1)
    )
    run = lifecycle.start(settings, tmp_path / "one", say=lambda _: None)
    logged = names_in(OfflineRun.finished(run.path))
    document = lifecycle.evaluate(run, settings, say=lambda _: None)
    last = OfflineRun.finished(run.path)
    logged |= names_in(last)

    found = read_logged([run.path])
    held = dashboard(found)

    assert found.untracked == () and last.run.job_type == "evaluate"
    assert {key for key in held.keys if key not in logged} == set()
    assert {key for key in held.keys if not explained(key, found.games)} == set()
    assert document["pretraining_tasks"] == found.pretraining[0] > 1
    # what no panel takes is explained too
    plain = {
        re.sub(r"(?:_table)?(?:/(?:_?[a-z_]*path|_type|log_mode|n?cols|nrows|sha256|size))?$", "", key)
        for key in logged
    }
    assert {key for key in plain if not key.startswith("_") and not explained(key, found.games)} == set()
    assert {section.title for section in held.sections} == set(list(SECTIONS)[:5]) - {"Number of pretraining tasks"}
    if found.games:
        assert "charts/SPS" in held.keys and any(key.endswith("/episodic_return") for key in held.keys)
    # the last row has one over the other
    row = next(row for row in last.rows if "evaluation/pretraining_tasks" in row)
    assert row["evaluation/pretraining_tasks"] == found.pretraining[0]
    key = "test_return" if found.games else "test_error"
    assert row[f"evaluation/learned/{key}"] == pytest.approx(last.summary[f"evaluation/learned/{key}"])


def test_every_key_of_a_panel_on_measures_is_logged_and_explained(tmp_path: Path) -> None:
    folder = made(tmp_path, "leap", 0)
    document = measured(folder)
    tracker = open_tracker(
        mode="offline", run_folder=folder, run_name="leap-seed0-measure", run_id="m", job_type="measure",
        config={"seed": 0, "learner": {"name": "leap"}}, say=lambda _: None,
    )  # fmt: skip
    tracker.measures("measures", document, sorted((folder / "measures").glob("*.png")))
    tracker.close()
    run = OfflineRun.finished(folder)

    held = dashboard(read_logged([folder]))

    keys = {key for key in held.keys if key.startswith("measures/")}
    assert {"measures/pictures/fisher", "measures/pictures/epochs", "measures/pairs", "measures/selection"} <= keys
    assert keys <= names_in(run) and all(map(explained, keys))
    table = run.table("measures/pairs")
    points = [one for one in held.panels() if one.kind == "table_points"]
    assert len(points) > 5 and {column for one in points for column in one.columns} <= set(table["columns"])
    assert {one.columns[1] for one in points} == {"tuned_error"} and "fisher" in {one.columns[0] for one in points}
    row = next(row for row in table["data"] if row[:2] == ["fashion", "mnist"])
    seeds = [seed[2][0] for seed in document["matrices"]["fisher"]["values"]]
    assert row[table["columns"].index("fisher")] == pytest.approx(sum(seeds) / 2)
    assert len(table["data"]) == 4 * 3
    assert run.config["configuration"] == "leap"


def test_lines_are_learners_and_bands_are_seeds(tmp_path: Path) -> None:
    held = dashboard(read_logged(several(tmp_path)))

    one = panel(held, "Training error on held-out tasks")
    assert (one.kind, one.keys, one.x) == ("lines", ("evaluation/learned/train_error",), "evaluation/inner_step")
    assert (one.group_by, one.aggregate, one.band) == ("learner.name", "mean", "stddev")
    assert panel(held, "Norm of the meta-gradient").log_y and panel(held, "Share of bad tasks").x == "step"
    assert panel(held, "Training error from random initializations").group_by == "tasks.name"
    assert "charts/episodic_return" not in held.keys  # null in every row
    assert (held.learners, held.seeds, held.runs) == (("leap", "reptile"), (0, 1), 4)
    assert (held.project, held.entity, held.group) == ("ours", None, "first")
    assert {one.title for one in held.missing} == {
        "Number of pretraining tasks", "Distances between tasks", "What predicts transfer"
    }  # fmt: skip
    assert "all runs pretrain on 3 tasks" in held.missing[0].why


def test_where_none_is_a_learner_it_has_a_line_of_its_own(tmp_path: Path) -> None:
    held = dashboard(read_logged(several(tmp_path, learners=("leap", "none"))))
    assert not any(key.startswith("evaluation/none/") for key in held.keys)


def test_a_grid_makes_configurations_and_pretraining_an_axis(tmp_path: Path) -> None:
    found = read_logged(several(tmp_path, (1, 3, 5)))
    held = dashboard(found)

    assert found.varied == ("tasks.train",) and found.pretraining == (1, 3, 5)
    assert panel(held, "Training error on held-out tasks").group_by == "configuration"
    assert "tasks.train" in panel(held, "Training error on held-out tasks").description
    over = panel(held, "Test error against the number of pretraining tasks")
    assert (over.x, over.keys) == ("evaluation/pretraining_tasks", ("evaluation/learned/test_error",))
    assert over.group_by == "learner.name" and over.band == "stddev"
    alone = panel(held, "Test error and number of pretraining tasks, run by run")
    assert (alone.kind, alone.group_by, alone.x) == ("points", None, over.x)


def test_group_chooses_among_the_runs(tmp_path: Path) -> None:
    folders = [made(tmp_path, "leap", 0), made(tmp_path, "leap", 1, group="second")]
    found = read_logged(folders, "second")
    assert (found.group, found.runs) == ("second", ("leap-train=3-seed1",))
