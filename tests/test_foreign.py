"""Run folders that others have filled: nothing in them executes, and no command waits for what is no file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from leap.cli.main import main

EVIL = "from pathlib import Path\nPath('executed').touch()\n"


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("command", [["evaluate"], ["train", "--resume"], ["measure"]])
def test_code_in_a_runs_own_folder_is_not_executed(
    command: list[str], link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--train.meta-steps", "1", "--train.inner-steps", "2", "--train.meta-batch", "2", "--tracking", "none"]
    assert main(["train", "quadratic", *small, "--out", "run"]) == 0
    config = tmp_path / "run" / "config.yaml"
    (tmp_path / "run" / "evil.py").write_text(EVIL)
    place = "run/evil.py"
    if link:
        (tmp_path / "elsewhere").symlink_to(tmp_path / "run")
        place = "elsewhere/evil.py"
    settings = yaml.safe_load(config.read_text())
    settings["tasks"] = {"name": "custom", "source": f"{place}:make"}
    config.write_text(yaml.safe_dump(settings))
    capsys.readouterr()
    assert main([*command, "run"]) == 1
    assert "code in the run's own folder, which is not executed" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


SMALL = ["--train.meta-steps", "1", "--train.inner-steps", "2", "--train.meta-batch", "2", "--tracking", "none"]
EVALUATED = ["--evaluate.repetitions", "1", "--evaluate.steps", "2"]


def compared() -> list[str]:
    """The words of a comparison of one run, in the folder `all`."""
    learners = ["--compare.learners", "none", "--compare.seeds", "0", "--compare.jobs", "1"]
    return ["compare", "quadratic", *SMALL, *EVALUATED, *learners, "--out", "all"]


def test_a_comparison_does_not_wait_for_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(compared()) == 0
    evaluation = tmp_path / "all" / "none-seed0" / "evaluation.json"
    evaluation.unlink()
    os.mkfifo(evaluation)
    assert main(["--max-time", "60s", *compared()]) == 1
    assert "evaluation.json is neither a file nor a folder; remove it" in capsys.readouterr().err


def test_half_a_character_does_not_keep_a_page_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(compared()) == 0
    provenance = tmp_path / "all" / "none-seed0" / "provenance.json"
    told = json.loads(provenance.read_text())
    told["packages"] = {**told.get("packages", {}), "\ud800": "1.4.0"}
    provenance.write_text(json.dumps(told))
    assert main(["report", "all"]) == 0
    assert (tmp_path / "report.html").read_bytes().decode()


def test_a_message_is_not_as_long_as_the_words_it_speaks_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quadratic", "--" + "x" * 50_000, "1"]) == 2
    told = capsys.readouterr().err
    assert "characters) ..." in told and len(told) < 5000
