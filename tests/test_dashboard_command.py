"""leap dashboard: the file it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from dashboard_runs import made, several

from leap.cli import dashboard as command
from leap.errors import RunError, UsageError


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
