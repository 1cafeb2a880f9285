"""The dashboard as a wandb workspace and a wandb report, and sending them."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dashboard_runs import made, measured, several

from leap.cli import dashboard as command
from leap.dashboard import workspace
from leap.dashboard.logged import read_logged
from leap.dashboard.panels import dashboard
from leap.errors import RunError, UsageError

NEEDS_PACKAGE = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="needs pip install wandb-workspaces"
)


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
