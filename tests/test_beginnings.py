"""A refused start leaves the disk as it was, and whatever was learned stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leap.cli import main
from leap.cli.beginnings import new_run
from leap.errors import RunError, UsageError
from leap.run import Checkpoint, RunFolder
from leap.tracking import NoTracker
from leap.trainer import Trainer

BOWLS = ["quadratic", "--train.meta-steps", "2", "--train.inner-steps", "2"]


def leap(*arguments: Any) -> int:
    return main.main([str(a) for a in arguments])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tiny-games", "--tasks.trainn", "seek"], "did you mean tasks.train?"),
        (["tiny-games", "--tasks.train", "seeek"], "did you mean 'seek'?"),
        ([*BOWLS, "--meta.options.foo", "3"], "refuses"),
        ([*BOWLS, "--device", "cuda:77"], "cannot be used"),
        ([*BOWLS, "--train.inner-epochs", "1"], "train.inner_epochs: quadratic"),
        ([*BOWLS, "--evaluate.epochs", "1"], "evaluate.epochs: quadratic"),
        ([*BOWLS, "--train.validate-every", "1"], "train.validate_every: quadratic"),
        ([*BOWLS, "--evaluate.validate-every", "1"], "evaluate.validate_every: quadratic"),
    ],
)
def test_a_refused_setting_leaves_no_folder(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leap("train", *words, "--tracking", "none", "--out", tmp_path / "runs" / "one") == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_variable_that_is_refused_late_leaves_no_folder_and_the_command_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")  # read when the run's folder is there
    assert leap("train", *BOWLS, "--out", tmp_path / "runs" / "one") == 2
    assert not list(tmp_path.iterdir())
    compared = ["compare", *BOWLS, "--compare.learners", "leap", "--compare.seeds", "0", "--out", tmp_path / "all"]
    assert leap(*compared) == 1
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert leap("train", *BOWLS, "--out", tmp_path / "runs" / "one") == 0


def test_what_tracking_wrote_goes_too_and_a_folder_that_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Writing(NoTracker):
        def __init__(self, run_folder: Path) -> None:
            (run_folder / "wandb" / "offline-run-1").mkdir(parents=True)

    def refused(self: Trainer) -> Any:
        raise UsageError("these tasks cannot be walked")

    monkeypatch.setattr("leap.tracking.open_tracker", lambda **given: Writing(given["run_folder"]))
    monkeypatch.setattr(Trainer, "meta_step", refused)
    out = tmp_path / "mine"
    out.mkdir()
    assert leap("train", *BOWLS, "--out", out) == 2
    assert out.is_dir() and not list(out.iterdir())


def test_a_run_that_has_learned_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.meta_step

    def refused(self: Trainer) -> Any:
        if self.step == 1:
            raise UsageError("no more")
        return step(self)

    monkeypatch.setattr(Trainer, "meta_step", refused)
    assert leap("train", *BOWLS, "--tracking", "none", "--out", tmp_path / "run") == 2
    run = RunFolder.open(tmp_path / "run")
    found = run.load()
    assert found is not None and found.step == 1 and len(run.rows()) == 1


@pytest.mark.parametrize("kept", ["row", "checkpoint", "initialization"])
def test_each_sign_of_learning_keeps_the_run(kept: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError), new_run(tmp_path / "run", "seed: 0", {}) as run:
        if kept == "row":
            run.append({"step": 1})
        elif kept == "checkpoint":
            run.save(Checkpoint(1, {}))
        else:
            run.initialization.write_bytes(b"")
        raise UsageError("refused")
    assert (tmp_path / "run" / "config.yaml").read_text() == "seed: 0"


@pytest.mark.parametrize("ending", [KeyboardInterrupt, RunError, ValueError])
def test_any_other_end_leaves_the_run(ending: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(ending), new_run(tmp_path / "run", "", {}):
        raise ending("x")
    assert RunFolder.started(tmp_path / "run")


def test_files_of_others_and_a_run_in_use_are_left(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UsageError), new_run(out, "", {}):
        (out / "notes.txt").write_text("mine")
        raise UsageError("refused")
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="holds other files"), new_run(out, "", {}):
        pass
    assert (out / "notes.txt").read_text() == "mine"
    with new_run(tmp_path / "held", "", {}):
        with pytest.raises(UsageError, match="holds another run"), new_run(tmp_path / "held", "", {}):
            pass
        assert RunFolder.started(tmp_path / "held")


def test_a_folder_that_another_process_took_in_the_same_instant_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leap.run.check_free", lambda path: None)  # both found it free
    with new_run(tmp_path / "run", "first", {}):
        with pytest.raises(UsageError, match="in use"), new_run(tmp_path / "run", "second", {}):
            pass
        assert RunFolder.started(tmp_path / "run")
