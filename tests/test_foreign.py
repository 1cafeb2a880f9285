"""Run folders that others have filled: nothing in them executes, and no command waits for what is no file."""

from __future__ import annotations

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
