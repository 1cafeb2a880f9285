"""Checks of run folders after interruptions: each must see the violation that it is there for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leap import soundness
from leap.layout import Layout
from leap.run import Checkpoint, RunFolder, pack, write_atomic

STEPS = 4
COST = '<section><h2 id="s4">What it cost</h2>{} s of meta-training</section>'


def run_folder(folder: Path) -> Path:
    """A finished run, as far as the checks look at it."""
    run = RunFolder.create(folder / "run", "seed: 0\n", {"command": "leap train", "started": "then", "run_id": "a1"})
    for step in range(1, STEPS + 1):
        run.append({"step": step, "train/loss": 1 / step, "time/meta_step_s": 0.125, "charts/SPS": 100.0})
        run.save(Checkpoint(step, {"meta": torch.arange(3.0) * step}))
    run.save_initialization(torch.arange(3.0), Layout(("w",), ((3,),), 3, 3), {"learner": "leap"})
    (run.path / "evaluation.json").write_text('{"final": [1.0]}\n')
    (run.path / "report.html").write_text("<p>leap train sinusoid" + COST.format(2.0))
    return run.path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a run in it, and another one that is as sound."""
    run_folder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    return tmp_path / "one", tmp_path / "other"


def everything(folder: Path, reference: Path) -> list[str]:
    """All that all checks find."""
    return (
        soundness.damaged(folder)
        + soundness.left_behind(folder)
        + soundness.miscounted(folder / "run", STEPS)
        + soundness.differing(folder, reference)
    )


def rewritten(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))


def test_a_sound_folder_has_nothing_found(folders: tuple[Path, Path]) -> None:
    one, other = folders
    (one / "run" / ".lock").touch()
    (one / "run" / "checkpoints" / "step-00000003.safetensors").unlink()  # which are kept depends on where it stopped
    assert everything(one, other) == []


def test_times_ids_and_time_limits_may_differ(folders: tuple[Path, Path]) -> None:
    one, other = folders
    rewritten(one / "run" / "metrics.jsonl", lambda lines: [line.replace("0.125", "7.25") for line in lines])
    rewritten(one / "run" / "metrics.jsonl", lambda lines: [line.replace("100.0", "3.0") for line in lines])
    about = {"command": "leap train --max-time 3", "started": "now", "run_id": "b2"}
    (one / "run" / "provenance.json").write_text(json.dumps(about))
    (one / "run" / "report.html").write_text("<p>leap --max-time 3.5 train sinusoid" + COST.format(3.0))
    assert everything(one, other) == []


def gap(run: Path) -> None:
    rewritten(run / "metrics.jsonl", lambda lines: lines[:1] + lines[2:])


def duplicate(run: Path) -> None:
    rewritten(run / "metrics.jsonl", lambda lines: [*lines[:2], *lines[1:]])


def disorder(run: Path) -> None:
    rewritten(run / "metrics.jsonl", lambda lines: [lines[1], lines[0], *lines[2:]])


def torn_row(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train')


def missing_row(run: Path) -> None:
    rewritten(run / "metrics.jsonl", lambda lines: lines[:-1])


def no_metrics(run: Path) -> None:
    (run / "metrics.jsonl").unlink()


def other_number(run: Path) -> None:
    rewritten(run / "metrics.jsonl", lambda lines: [*lines[:-1], lines[-1].replace("0.25", "0.2500001")])


def changed_byte(run: Path) -> None:
    """One that stays a whole file: written by the rules, with another number in a tensor."""
    tensors = {"w": torch.tensor([0.0, 1.0, 2.0000002])}
    shape = {"names": ("w",), "shapes": ((3,),), "trunk": 3, "shared": 3}
    write_atomic(run / "initialization.safetensors", pack(tensors, {"learner": "leap", "layout": shape}))


def turned_bit(run: Path) -> None:
    path = run / "checkpoints" / "step-00000003.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_short(run: Path) -> None:
    path = run / "checkpoints" / "step-00000004.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def empty_checkpoint(run: Path) -> None:
    (run / "checkpoints" / "step-00000004.safetensors").write_bytes(b"")


def torn_json(run: Path) -> None:
    (run / "evaluation.json").write_text('{"final": [1.')


def half_written(run: Path) -> None:
    (run / f".metrics.jsonl.{os.getpid()}.tmp").touch()


def half_a_picture(run: Path) -> None:
    (run / "pictures").mkdir()
    (run / "pictures" / ".learning-curves.png.x1y2.tmp").touch()


def kept_walk(run: Path) -> None:
    write_atomic(run / "checkpoints" / "walk-00001.safetensors", pack({"x": torch.zeros(1)}, {}))


def no_evaluation(run: Path) -> None:
    (run / "evaluation.json").unlink()


def one_more_file(run: Path) -> None:
    (run / "evaluation-1.json").write_text("{}")


def no_provenance(run: Path) -> None:
    (run / "provenance.json").write_text('{"command": "leap train", "started": "then", "run_id": ""}')


def foreign_provenance(run: Path) -> None:
    about = {"command": "leap train", "started": "then", "run_id": "a1", "processes": 2}
    (run / "provenance.json").write_text(json.dumps(about))


def other_report(run: Path) -> None:
    (run / "report.html").write_text("<p>leap train quickstart" + COST.format(2.0))


@pytest.mark.parametrize(
    "spoil, told",
    [
        (gap, "meta-steps [1, 3, 4], expected 1 to 4 once each"),
        (duplicate, "meta-steps [1, 2, 2, 3, 4]"),
        (disorder, "meta-steps [2, 1, 3, 4]"),
        (torn_row, "meta-steps [1, 2, 3, 4, None]"),
        (missing_row, "3 rows, expected 4"),
        (no_metrics, "meta-steps [], expected 1 to 4"),
        (other_number, "metrics.jsonl differs at step 4 in train/loss"),
        (changed_byte, "run/initialization.safetensors differs"),
        (turned_bit, "step-00000003.safetensors is not whole"),
        (cut_short, "step-00000004.safetensors is not whole"),
        (empty_checkpoint, "step-00000004.safetensors is not whole"),
        (torn_json, "evaluation.json is not whole"),
        (half_written, ".tmp was left behind"),
        (half_a_picture, ".learning-curves.png.x1y2.tmp was left behind"),
        (kept_walk, "walk-00001.safetensors was left behind"),
        (no_evaluation, "evaluation.json is missing"),
        (one_more_file, "evaluation-1.json is one too many"),
        (no_provenance, "provenance.json differs in lacking"),
        (foreign_provenance, "provenance.json differs in processes"),
        (other_report, "report.html differs at 'quickstart"),
    ],
)
def test_a_violation_is_found(spoil: Callable[[Path], None], told: str, folders: tuple[Path, Path]) -> None:
    one, other = folders
    spoil(one / "run")
    assert any(told in line for line in everything(one, other)), everything(one, other)


def test_what_cannot_be_read_is_told_and_nothing_is_raised(folders: tuple[Path, Path]) -> None:
    one, other = folders
    for name in ("metrics.jsonl", "provenance.json", "config.yaml"):
        (one / "run" / name).write_bytes(b"\xff[]")
    told = everything(one, other)
    for name in ("metrics.jsonl cannot be read", "provenance.json cannot be read", "config.yaml differs"):
        assert any(name in line for line in told), told
