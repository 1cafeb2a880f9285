"""The dashboard: panels over keys that runs log and docs/metrics.md explains, as JSON and as wandb-workspaces."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from measure_documents import scored
from offline_run import OfflineRun
from PIL import Image
from report_runs import write_run

from leap.cli import dashboard as command
from leap.cli import lifecycle
from leap.cli.settings import Evaluate, Glyphs, Model, Settings, TinyGames, Train, Wandb
from leap.dashboard import workspace
from leap.dashboard.logged import read_logged
from leap.dashboard.panels import SECTIONS, dashboard
from leap.dashboard.specification import Dashboard, Panel
from leap.errors import RunError, UsageError
from leap.report.measure_pictures import pictures
from leap.report.measures import parse_measures
from leap.tracking import open_tracker

ROOT = Path(__file__).resolve().parents[1]
LOGGED = {
    "train/loss": 1.0,
    "train/error_last": 50.0,
    "train/path_length": 3.0,
    "meta/gradient_norm": 0.5,
    "meta/bad_share": 0.0,
    "time/inner_steps_per_s": 9.0,
    "charts/episodic_return": None,
}
TASKS = ("mnist", "kmnist", "fashion", "cifar10")
NEEDS_PACKAGE = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="needs pip install wandb-workspaces"
)


@pytest.fixture(autouse=True)
def _no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)


def made(root: Path, learner: str, seed: int, name: str | None = None, train: int = 3, **wandb: Any) -> Path:
    """A run with rows under real keys, and an evaluation that says how many tasks there were to pretrain on."""
    folder = write_run(root, learner, seed, steps=6, meta_steps=2)
    folder = folder.rename(root / (name or f"{learner}-train={train}-seed{seed}"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"tasks": config["tasks"] | {"train": train}, "wandb": {"group": "first", "project": "ours", **wandb}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **LOGGED}) + "\n")
    document = json.loads((folder / "evaluation.json").read_text()) | {"pretraining_tasks": train}
    (folder / "evaluation.json").write_text(json.dumps(document))
    return folder


def several(root: Path, trains: tuple[int, ...] = (3,), learners: tuple[str, ...] = ("leap", "reptile")) -> list[Path]:
    return [made(root, learner, seed, train=train) for learner in learners for seed in (0, 1) for train in trains]


def measured(folder: Path) -> dict[str, Any]:
    """Measures of a run; their pictures have the names alone, since drawing them takes long."""
    document = scored(tasks=TASKS, seeds=2)
    (folder / "measures").mkdir()
    (folder / "measures" / "measures.json").write_text(json.dumps(document))
    for one in pictures(parse_measures(document)):
        Image.new("RGB", (2, 2)).save(folder / "measures" / f"{one.name}.png")
    return document


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


def test_the_specification_is_written_and_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "first"
    several(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    for _ in range(2):  # written anew
        assert command.main([str(root), "--title", "<b>One</b> & two", "--entity", "us"]) == 0

    held = json.loads((root / "dashboard.json").read_text())
    assert (held["format"], held["title"], held["entity"]) == (1, "<b>One</b> & two", "us")
    assert held["sections"][0]["title"] == "Learning held-out tasks"
    keys = {key for section in held["sections"] for one in section["panels"] for key in one["keys"]}
    assert "evaluation/learned/train_error" in keys
    assert {path: path.read_bytes() for path in before} == before
    shown = capsys.readouterr().out
    assert "4 runs of the group first, glyphs: leap, reptile; seeds 0, 1." in shown
    assert "Distances between tasks: left out; no run was measured; leap measure RUN" in shown
    assert "wandb login; leap dashboard" in shown and "--send" in shown
    assert "wandb has nothing of 4 of 4 runs (leap-train=3-seed0, " in shown


def test_what_lies_offline_is_said_to_be_sent_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path / "a b", "leap", 0)
    (folder / "wandb" / "offline-run-x").mkdir(parents=True)
    assert command.main([str(tmp_path / "a b"), "--out", str(tmp_path / "x.json")]) == 0
    shown = capsys.readouterr().out
    assert f"wandb sync '{tmp_path / 'a b'}'/*/wandb/offline-run-*; leap dashboard" in shown
    assert "wandb has nothing" not in shown and (tmp_path / "x.json").exists()


def _bad(root: Path) -> dict[str, tuple[list[str], str]]:
    """Arguments, and words of what is said of them."""
    one, other = made(root, "leap", 0), made(root, "reptile", 0, project="theirs")
    group, family = made(root, "leap", 1, group="second"), made(root, "reptile", 1)
    config = yaml.safe_load((family / "config.yaml").read_text())
    (family / "config.yaml").write_text(yaml.safe_dump(config | {"tasks": {"name": "omniglot"}}))
    empty = made(root, "fomaml", 0)
    (empty / "evaluation.json").unlink()
    (empty / "metrics.jsonl").write_text("")
    made(root / "deep" / "mnist", "leap", 0)
    damaged = made(root, "finetune", 0)
    (damaged / "evaluation.json").write_text("{")
    (root / "folder").mkdir()
    named = {name: str(path) for name, path in locals().items() if isinstance(path, Path)}
    return {
        "none": ([], "name at least one run folder"),
        "absent": ([str(root / "nothing")], "does not exist"),
        "no run": ([str(root / "folder")], "has no config.yaml"),
        "projects": ([named["one"], named["other"]], "several projects: ours (leap-train=3-seed0), theirs"),
        "groups": ([named["one"], named["group"]], "2 wandb groups ('first', 'second'); choose one with --group"),
        "no group": ([named["one"], "--group", "third"], "no run is of the wandb group 'third'; there are 'first'"),
        "families": ([named["one"], named["family"]], "several task families: glyphs"),
        "nothing logged": ([named["empty"]], "have logged nothing yet"),
        "deeper": ([str(root / "deep")], "several comparisons"),
        "slash": ([named["one"], "--project", "us/ours"], "--project must be a name alone"),
        "two lines": ([named["one"], "--title", "a\nb"], "--title must be one line"),
        "taken": ([named["one"], "--out", f"{named['one']}/config.yaml"], "holds no dashboard"),
        "a folder": ([named["one"], "--out", str(root / "folder")], "is a folder"),
        "damaged": ([named["damaged"]], "damaged or cut short"),
    }


BAD = ("none", "absent", "no run", "projects", "groups", "no group", "families", "nothing logged", "deeper", "slash",
       "two lines", "taken", "a folder", "damaged")  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_and_nothing_is_written(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    cases = _bad(root)
    assert set(cases) == set(BAD)
    monkeypatch.chdir(tmp_path)
    arguments, words = cases[case]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    with pytest.raises(RunError if case == "damaged" else UsageError) as told:
        command.main(arguments)

    assert words in str(told.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_group_chooses_among_the_runs(tmp_path: Path) -> None:
    folders = [made(tmp_path, "leap", 0), made(tmp_path, "leap", 1, group="second")]
    found = read_logged(folders, "second")
    assert (found.group, found.runs) == ("second", ("leap-train=3-seed1",))


# -- wandb-workspaces --------------------------------------------------------------------------------------------------


def test_without_the_package_the_json_stands_and_the_cure_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    several(tmp_path / "first")

    assert command.main([str(tmp_path / "first")]) == 0
    assert "pip install wandb-workspaces; wandb login" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"--send needs the package wandb-workspaces.*stands in .*dashboard\.json"):
        command.main([str(tmp_path / "first"), "--send"])
    assert [path.name for path in sorted((tmp_path / "first").glob("dashboard*"))] == ["dashboard.json"]


@NEEDS_PACKAGE
def test_the_workspace_and_the_report_have_every_panel(tmp_path: Path) -> None:
    folders = several(tmp_path, (3, 5))
    measured(folders[0])
    held = dashboard(read_logged(folders))
    assert held.missing == () and {one.kind for one in held.panels()} == set(workspace.KINDS)

    found = workspace.specification(held)

    assert json.loads(json.dumps(found)) == found
    sections = found["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    grids = [b["metadata"] for b in found["report"]["spec"]["blocks"] if b["type"] == "panel-grid"]
    for panels in ([s["panels"] for s in sections], [grid["panelBankSectionConfig"]["panels"] for grid in grids]):
        assert [len(own) for own in panels] == [len(section.panels) for section in held.sections]
    first = sections[0]["panels"][0]["config"]
    assert (first["groupBy"], first["groupAgg"], first["groupArea"]) == ("configuration.value", "mean", "stddev")
    assert (first["xAxis"], first["metrics"]) == ("evaluation/inner_step", ["evaluation/learned/train_error"])
    text = json.dumps(found)
    for key in held.keys:
        assert text.count(f'{key}"') >= 2, key  # in both
    scatter = next(one for section in sections for one in section["panels"] if one["viewType"] == "Scatter Plot")
    assert scatter["config"]["xAxis"] == "summary:evaluation/pretraining_tasks"
    chart = next(one for section in sections for one in section["panels"] if one["viewType"] == "Vega2")["config"]
    assert chart["panelDefId"] == "wandb/scatter/v0" and chart["fieldSettings"]["y"] == "tuned_error"
    assert found["workspace"]["spec"]["section"]["settings"]["maxRuns"] == 3 * 8
    assert held.summary in text and all(one.description in text for one in held.panels())


AWKWARD = ["lr=0.1", "it's", 'a "b" <c> & d', "x and y or (z)", "back\\slash", "<script>alert(1)</script>", "é\u4e2d"]


@NEEDS_PACKAGE
@pytest.mark.parametrize("group", AWKWARD)
def test_only_the_runs_of_the_group_are_shown_whatever_its_name(group: str, tmp_path: Path) -> None:
    found = workspace.specification(dashboard(read_logged([made(tmp_path, "leap", 0, group=group)])))
    grids = [b["metadata"] for b in found["report"]["spec"]["blocks"] if b["type"] == "panel-grid"]
    for runs in [found["workspace"]["spec"]["section"]["runSets"][0], *(grid["runSets"][0] for grid in grids)]:
        (rule,) = runs["filters"]["filters"]
        assert (rule["key"], rule["op"], rule["value"]) == ({"section": "run", "name": "group"}, "=", group)


@NEEDS_PACKAGE
def test_a_package_that_drops_the_filter_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = dashboard(read_logged([made(tmp_path, "leap", 0)]))
    monkeypatch.setattr(workspace, "_show_group", lambda made, group: None)
    for translated in (workspace.workspace, workspace.report):
        with pytest.raises(RunError, match="does not take the group 'first'"):
            translated(held)


@NEEDS_PACKAGE
def test_sending_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several(tmp_path / "first")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UsageError, match=r"no wandb key was found; run wandb login.*stands in"):
        command.main([str(tmp_path / "first"), "--send"])
    assert (tmp_path / "first" / "dashboard.wandb.json").exists()


@NEEDS_PACKAGE
@pytest.mark.parametrize("broken", ["", "login", "save"])
def test_sending(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    several(tmp_path / "first")
    saved: list[Any] = []

    def login(prompt: bool) -> bool:
        assert not prompt
        if broken == "login":
            raise OSError("no route to host")
        return True

    def save(self: Any) -> Any:
        if broken == "save":
            raise ValueError("500 Internal Server Error")
        saved.append(self._to_model())
        return self

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.setattr(wandb, "Api", lambda: type("Api", (), {"default_entity": "me"}))
    for kind, name in ((ws.Workspace, "one"), (wr.Report, "two")):
        monkeypatch.setattr(kind, "save", save)
        monkeypatch.setattr(kind, "url", property(lambda self, name=name: f"https://example.org/{name}"))
    if broken:
        words = {"login": "cannot be reached .*no route", "save": "did not take the dashboard .*500"}[broken]
        with pytest.raises(RunError, match=f"{words}.*stands in"):
            command.main([str(tmp_path / "first"), "--send"])
        assert (tmp_path / "first" / "dashboard.json").exists()
        return
    assert command.main([str(tmp_path / "first"), "--send"]) == 0
    shown = capsys.readouterr().out
    assert "workspace https://example.org/one" in shown and "report    https://example.org/two" in shown
    assert [saved[0].entity, saved[1].project.entity_name] == ["me", "me"]


@NEEDS_PACKAGE
def test_a_title_that_wandb_would_refuse(tmp_path: Path) -> None:
    held = replace(dashboard(read_logged([made(tmp_path, "leap", 0)])), title="lr=0.1 \U0001f600 <b>" + 200 * "x")
    found = workspace.specification(held)
    assert found["workspace"]["displayName"].startswith("lr-0.1 - -b-xxx")
    assert found["report"]["displayName"].startswith("lr=0.1 ") and len(found["report"]["displayName"]) == 128
