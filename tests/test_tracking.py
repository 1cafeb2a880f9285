"""Tracking: what wandb is given can be read back, and nothing that wandb does reaches the run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb_account
from measure_documents import TASKS as MEASURED
from measure_documents import document
from offline_run import OfflineRun
from PIL import Image
from report_runs import TASKS, write_run

from leap.errors import UsageError
from leap.tracking import NoTracker, Tracker, WandbTracker, open_tracker

ROOT = Path(__file__).resolve().parents[1]
RUN: dict[str, Any] = {
    "run_name": "leap-seed0",
    "run_id": "id0",
    "group": "first try",
    "tags": ["leap", "seed 0"],
    "config": {"seed": 0, "learner": {"name": "leap"}},
}


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wandb_account.forget(monkeypatch, tmp_path / "home")


def test_an_offline_run_holds_what_was_logged(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0, 24.0, steps=12)
    file = folder / "initialization.safetensors"
    file.write_bytes(b"weights")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    said: list[str] = []

    tracker = open_tracker(mode="offline", run_folder=folder, job_type="evaluate", say=said.append, **RUN)
    tracker.log({"train/loss": 2.5, "meta/lr": 0.1, "meta/bad_tasks": None}, 1)
    tracker.log({"train/loss": 1.5, "meta/lr": 0.1}, 2)
    tracker.curves("evaluation", evaluation)
    tracker.artifact(file, "leap seed/0")
    file.write_bytes(b"other weights")  # as a run does that goes on
    tracker.close()
    run = OfflineRun.finished(folder)

    assert (run.run.run_id, run.run.run_group, run.run.display_name) == ("id0", "first try", "leap-seed0")
    assert (list(run.run.tags), run.run.job_type, run.exit_code) == (["leap", "seed 0"], "evaluate", 0)
    assert run.config["learner"] == {"name": "leap"} and run.config["configuration"] == "leap"
    assert [(row["step"], row["train/loss"]) for row in run.rows[:2]] == [(1, 2.5), (2, 1.5)]
    assert {run.axes[key] for key in ("train/*", "meta/*", "time/*")} == {"step"}
    assert run.axes["evaluation/*"] == "evaluation/inner_step"

    held = evaluation["initializations"]
    curve = [row["evaluation/learned/train_error"] for row in run.rows if "evaluation/inner_step" in row]
    np.testing.assert_allclose(curve, np.mean(held["leap"]["train_error"], axis=(0, 1)))
    assert run.summary["evaluation/none/test_error"] == pytest.approx(np.mean(held["none"]["test_error"]))
    table = run.table("evaluation/tasks")
    assert len(table["data"]) == 2 * len(TASKS) * 12 * 2
    wanted = [TASKS[3], 1, 5, "none", held["none"]["train_loss"][1][3][4], held["none"]["train_error"][1][3][4]]
    assert wanted in table["data"]
    assert ("initialization", "leap-seed-0") in run.artifacts

    kept = list((run.path.parent / "artifacts").rglob("tmp*"))
    assert b"weights" in [path.read_bytes() for path in kept]
    assert not list((tmp_path / "home" / ".local").rglob("*"))
    assert len(said) == 1 and f"wandb sync {run.path.parent}" in said[0]
    _all_keys_are_explained({key for row in [*run.rows, run.summary] for key in row})


def test_measures_are_tables_pictures_and_means_that_can_be_read_back(tmp_path: Path) -> None:
    content = document(tasks=MEASURED[:4], seeds=2)
    picture = tmp_path / "fisher.tree.png"
    Image.new("RGB", (20, 10)).save(picture)
    said: list[str] = []

    tracker = open_tracker(mode="offline", run_folder=tmp_path, job_type="measure", say=said.append, **RUN)
    tracker.measures("measures", content, [picture, tmp_path / "fisher.csv"])
    tracker.close()

    run = OfflineRun.finished(tmp_path)
    table, epochs = run.table("measures/matrix/epochs"), content["matrices"]["epochs"]["values"]
    assert table["columns"] == ["target", *MEASURED[:4]]
    assert table["data"][1] == [MEASURED[1], *(_mean([seed[1][source] for seed in epochs]) for source in range(4))]
    row = next(row for row in run.rows if "measures/pictures/fisher.tree/path" in row)
    assert (row["measures/pictures/fisher.tree/width"], row["measures/pictures/fisher.tree/height"]) == (20, 10)
    held = content["paths"]["initializations"]["leap"]["path_length"]
    assert run.summary["measures/learned/path_length"] == pytest.approx(np.mean(held))
    relation = content["relations"][0]
    assert run.summary["measures/relation/reachability/epochs/mantel_p"] == relation["mantel_p"]
    table = run.table("measures/selection")
    row = next(dict(zip(table["columns"], row, strict=True)) for row in table["data"] if row[1] == "fisher")
    assert row["weighted_tau"] == content["relations"][1]["selection"]["weighted_tau"]["mean"]
    assert len(said) == 1
    _all_measures_are_explained({key for row in [*run.rows, run.summary] for key in row if key.startswith("measures/")})


def _mean(values: list[float | None]) -> Any:
    there = [value for value in values if value is not None]
    return pytest.approx(np.mean(there)) if there else None


def _all_measures_are_explained(keys: set[str]) -> None:
    """Each key is one of a pattern in docs/metrics.md, as `measures/matrix/NAME`, and so is each name there."""
    explained = set(re.findall(r"`([^`]+)`", (ROOT / "docs" / "metrics.md").read_text()))
    made_up = {"score", "fisher.tree"}
    for key in keys:
        kind, *rest = key.split("/")[1:]
        count = {"relation": 3, "selection": 0, "predictions": 0, "pairs": 0}.get(kind, 1)
        names = rest[: min(count, 2)]
        pattern = {"relation": ["X", "Y", rest[-1]], "selection": [], "predictions": [], "pairs": []}.get(
            kind, ["NAME"]
        )
        assert "/".join(["measures", kind, *pattern]) in explained, key
        assert set(names) <= explained | made_up, key


def _all_keys_are_explained(keys: set[str]) -> None:
    """docs/metrics.md has every key that reached wandb; wandb's own begin with _, and tables have details behind."""
    explained = set(re.findall(r"`([^`]+)`", (ROOT / "docs" / "metrics.md").read_text()))
    plain = {re.sub(r"(?:_table)?/(?:_?[a-z_]*path|_type|log_mode|n?cols|nrows|sha256|size)$", "", key) for key in keys}
    assert {key for key in plain if not key.startswith("_")} <= explained


def test_a_resumed_run_has_its_id_and_all_its_rows_in_a_new_part(tmp_path: Path) -> None:
    earlier = [{"step": step, "train/loss": 1.0 / step, "meta/lr": None} for step in (1, 2, 3)]

    tracker = open_tracker(mode="offline", run_folder=tmp_path, resume_rows=earlier, **RUN)
    tracker.log({"train/loss": 0.25}, 4)
    tracker.close(exit_code=1)

    run = OfflineRun.finished(tmp_path)
    assert [(row["_step"], row["step"], row["train/loss"]) for row in run.rows] == [
        (step, step, pytest.approx(1 / step)) for step in (1, 2, 3, 4)
    ]
    assert run.run.run_id == "id0" and run.exit_code == 1


class FakeRun:
    """Stands for a wandb run; raises in one method, and keeps what it was given."""

    def __init__(self, folder: Path, broken: str, error: BaseException) -> None:
        self.dir = str(folder / "files")
        self.url = "https://example.org/run"
        self.step = 0
        self.summary: dict[str, Any] = {}
        self.calls: list[str] = []
        self._broken, self._error = broken, error

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self._broken:
            raise self._error

    def define_metric(self, *_: Any, **__: Any) -> None:
        self._called("define_metric")

    def log(self, *_: Any, **__: Any) -> None:
        self._called("log")

    def log_artifact(self, _: Any) -> None:
        self._called("log_artifact")

    def finish(self, **_: Any) -> None:
        self._called("finish")


def fake_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str, key: bool = False) -> SimpleNamespace:
    """A module `wandb` that fails where `broken` says; `modes` are those of every init."""
    error = OSError(28, "No space left on device")
    module = SimpleNamespace(modes=[], logins=0, Settings=dict, setup=lambda _: None)
    module.Artifact = lambda *_, **__: SimpleNamespace(add_file=lambda *_, **__: None)
    module.run = FakeRun(tmp_path, broken, error)

    def login(prompt: bool) -> bool:
        assert not prompt
        module.logins += 1
        if broken == "login":
            raise error
        return key

    def init(mode: str, **_: Any) -> FakeRun:
        module.modes.append(mode)
        if broken == "init" or broken == f"init {mode}":
            raise error
        return module.run

    module.login, module.init = login, init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.mark.parametrize("broken", ["import", "init", "define_metric", "log", "log_artifact", "finish"])
def test_no_failure_of_wandb_reaches_the_run_and_each_is_said_once(
    broken: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_wandb(monkeypatch, tmp_path, broken)
    if broken == "import":
        monkeypatch.setitem(sys.modules, "wandb", None)
    said: list[str] = []
    (tmp_path / "file").write_text("weights")

    tracker = open_tracker(run_folder=tmp_path, say=said.append, **RUN)
    for step in (1, 2, 3):
        tracker.log({"train/loss": 1.0}, step)
    tracker.artifact(tmp_path / "file", "weights")
    tracker.close()
    tracker.close()

    failures = [line for line in said if "could not" in line or "failed" in line]
    assert len(failures) == 1
    assert ("import" if broken == "import" else "No space left on device") in failures[0]


@pytest.mark.parametrize(
    "give", [lambda to: to.curves("e", {"format": 2}), lambda to: to.measures("m", {"format": 2}, [])]
)
def test_a_damaged_document_ends_tracking_and_not_the_run(
    give: Callable[[Tracker], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = fake_wandb(monkeypatch, tmp_path, "nothing")
    said: list[str] = []
    tracker = open_tracker(run_folder=tmp_path, say=said.append, **RUN)

    give(tracker)
    tracker.log({"train/loss": 1.0}, 1)

    assert len(said) == 2 and "format 2" in said[1]
    assert "log" not in module.run.calls


def test_ctrl_c_inside_wandb_still_stops_the_run(tmp_path: Path) -> None:
    tracker = WandbTracker(FakeRun(tmp_path, "log", KeyboardInterrupt()), print)
    with pytest.raises(KeyboardInterrupt):
        tracker.log({"train/loss": 1.0}, 1)


@pytest.mark.parametrize(
    ("broken", "key", "modes"),
    [("nothing", True, ["online"]), ("login", True, ["offline"]), ("init online", True, ["online", "offline"])],
)
def test_auto_is_online_where_that_works(
    broken: str, key: bool, modes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = fake_wandb(monkeypatch, tmp_path, broken, key)
    said: list[str] = []

    assert isinstance(open_tracker(run_folder=tmp_path, say=said.append, **RUN), WandbTracker)

    assert module.modes == modes
    assert len(said) == 1 and ("No space left" in said[0]) == (broken != "nothing")


def test_rows_that_a_server_has_are_not_sent_again(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, "nothing", OSError())
    run.step = 5  # what an online run that is continued comes back with
    tracker = WandbTracker(run, print)

    for step in (3, 4, 5, 6):
        tracker.log({"train/loss": 1.0}, step)

    assert run.calls.count("log") == 2


@pytest.mark.parametrize(
    ("variable", "modes"), [("offline", ["offline"]), ("dryrun", ["offline"]), ("run", ["online"])]
)
def test_the_variable_wins_over_the_setting(
    variable: str, modes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = fake_wandb(monkeypatch, tmp_path, "nothing", key=True)
    monkeypatch.setenv("WANDB_MODE", variable)

    open_tracker(mode="disabled", run_folder=tmp_path, say=print, **RUN)

    assert module.modes == modes


def test_disabled_does_not_touch_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail, and be said
    monkeypatch.setenv("WANDB_MODE", "disabled")
    said: list[str] = []

    tracker = open_tracker(mode="online", run_folder=tmp_path, say=said.append, **RUN)
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close()

    assert isinstance(tracker, NoTracker) and said == []


def test_a_mode_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tracking\.mode is 'onlin'.*online"):
        open_tracker(mode="onlin", run_folder=tmp_path, **RUN)
    monkeypatch.setenv("WANDB_MODE", "off")
    with pytest.raises(UsageError, match="WANDB_MODE is 'off'"):
        open_tracker(run_folder=tmp_path, **RUN)
