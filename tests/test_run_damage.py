"""Runs whose files were damaged or exchanged: one message says which and what, and nothing is dropped or changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from report_runs import write_run
from shared_runs import contents

from leap.cli import lifecycle, main
from leap.cli.settings import Leap, Meta, Quadratic, Settings, Sinusoid, Train
from leap.errors import RunError
from leap.report.runs import read_metrics, read_run
from leap.run import EXTRA, RunFolder, pack, unpack

SMALL = Settings(
    Quadratic(), learner=Leap(), meta=Meta("Adam", 0.01), tracking="none",
    train=Train(3, 6, 2, checkpoint_every=2, execution="batched"),
)  # fmt: skip


class Ended(Exception):
    """Stands for whatever ends a process."""


def stopped(folder: Path, after: int = 4, settings: Settings = SMALL) -> RunFolder:
    """A run that ended after so many meta-steps."""

    def end(step: int, metrics: Any) -> None:
        if step == after:
            raise Ended

    with pytest.raises(Ended):
        lifecycle.start(settings, folder, end)
    return RunFolder.open(folder)


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that fails says, which is one line."""
    capsys.readouterr()
    assert main.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


# Rows of metrics.jsonl

DAMAGE = {
    "cut short": b'{"step": 2, "train/l\n',
    "empty": b"\n",
    "no mapping": b"[2]\n",
    "null": b"null\n",
    "no step": b'{"train/loss": 1.0}\n',
    "no number": b'{"step": "second"}\n',
    "no text": b"\xff\xfe\x00\n",
    "infinite": b'{"step": Infinity}\n',
    "deep": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_in_the_middle_is_told_and_no_row_behind_it_is_dropped(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stopped(tmp_path / "run")
    metrics = run.path / "metrics.jsonl"
    whole = metrics.read_bytes()
    lines = whole.splitlines(keepends=True)
    metrics.write_bytes(b"".join([lines[0], DAMAGE[damage], *lines[2:]]))
    before = contents(run.path)

    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2, is not a row"):
        run.rows()
    said = told(["train", "--resume", str(run.path)], capsys)

    assert f"{metrics}, line 2," in said and "restore it, or remove that line" in said
    assert contents(run.path) == before
    metrics.write_bytes(whole)
    lifecycle.resume(run, lifecycle.settings_of(run))
    assert [row["step"] for row in run.rows()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_report_names_the_damaged_line(damage: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0)
    rows = [json.dumps({"step": step}).encode() + b"\n" for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_bytes(rows[0] + DAMAGE[damage] + rows[2])
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2, .*leave this run out") as found:
        read_run(folder)
    assert len(str(found.value).splitlines()) == 1


def test_only_a_last_line_without_an_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "train/l')
    assert RunFolder(tmp_path).rows() == read_metrics(path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": 2, "train/l\n')
    for read in (RunFolder(tmp_path).rows, lambda: read_metrics(path)):
        with pytest.raises(RunError, match="line 2"):
            read()


# The state of the meta-optimizer


def _with(name: str, change: Any) -> Any:
    return lambda state: state | {f"optimizer/{name}": change(state[f"optimizer/{name}"])}


STATES = {
    "shape": (_with("exp_avg", lambda t: t[:-1]), r"'exp_avg': \(\(4,\), .*expected .*'exp_avg': \(\(5,\), "),
    "axes": (_with("exp_avg", lambda t: t[None]), r"'exp_avg': \(\(1, 5\), .*expected"),
    "type": (_with("exp_avg_sq", lambda t: t.half()), r"torch\.float16\).*expected"),
    "counter": (_with("step", lambda t: t.long()), r"'step': \(\(\), torch\.int64\).*expected .*torch\.float32"),
    "vector": (_with("step", lambda t: t.expand(5)), r"'step': \(\(5,\), .*expected .*'step': \(\(\), "),
    "lacking": (lambda state: {k: v for k, v in state.items() if k != "optimizer/exp_avg"}, r"holds \{.*expected"),
    "none": (lambda state: {"meta": state["meta"]}, r"holds \{\}, expected"),
    "other": (lambda state: {"meta": state["meta"], "optimizer/momentum_buffer": -state["meta"]}, "momentum_buffer"),
    "more": (lambda state: state | {"optimizer/more": -state["meta"]}, "'more'"),
    "meta type": (
        lambda state: state | {"meta": state["meta"].double()},
        r"are torch\.float64, expected torch\.float32",
    ),
    "meta shape": (lambda state: state | {"meta": state["meta"][:-1]}, r"are \(4,\), expected \(5,\)"),
    "no meta": (lambda state: {k: v for k, v in state.items() if k != "meta"}, r"are none, expected \(5,\)"),
}


@pytest.mark.parametrize("case", STATES)
def test_a_checkpoint_of_another_optimizer_is_refused_with_what_differs(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, match = STATES[case]
    run = stopped(tmp_path / "run")
    for path in (run.path / "checkpoints").iterdir():
        state, about = unpack(path)
        path.write_bytes(pack(change(state), {"step": about["step"]}))
    before = contents(run.path)

    with pytest.raises(RunError, match=match):
        lifecycle.resume(run, lifecycle.settings_of(run))
    assert "expected" in told(["train", "--resume", str(run.path)], capsys)
    assert contents(run.path) == before


def test_a_file_that_is_named_for_another_step_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stopped(tmp_path / "run")
    older, newest = sorted((run.path / "checkpoints").iterdir())
    newest.write_bytes(older.read_bytes())
    found = run.load()
    assert found is not None and found.step == 2
    assert f"{newest} is the state after step 2; falling back" in capsys.readouterr().err


# The learned initialization


def _layout(**changes: Any) -> Any:
    return lambda tensors, about: (tensors, about | {"layout": about["layout"] | changes})


INITIALIZATIONS = {
    "type": (
        lambda tensors, about: ({k: t.half() for k, t in tensors.items()}, about),
        r"numbers of torch\.float16, expected 1761 numbers of torch\.float32",
    ),
    "types": (
        lambda tensors, about: (tensors | {"head.bias": tensors["head.bias"].double()}, about),
        r"types \['torch\.float32', 'torch\.float64'\], expected one",
    ),
    "extra": (
        lambda tensors, about: (tensors | {EXTRA: torch.zeros(7)}, about),
        r"1768 numbers of torch\.float32, expected 1761",
    ),
    "shape": (
        lambda tensors, about: (tensors | {"head.bias": torch.zeros(1, 1)}, about),
        r"'head\.bias' must have shape \(1,\), got \(1, 1\)",
    ),
    "absent": (
        lambda tensors, about: ({k: t for k, t in tensors.items() if k != "head.bias"}, about),
        r"parameter 'head\.bias' is missing",
    ),
    "names": (_layout(names=["theta"]), r"parameters \['theta'\], expected"),
    "order": (
        lambda tensors, about: (tensors, about | {"layout": {"names": about["layout"]["names"][::-1]}}),
        "holds another model: parameters",
    ),
    "no layout": (lambda tensors, about: (tensors, about | {"layout": None}), "parameters None, expected"),
    "a list": (lambda tensors, about: (tensors, about | {"layout": [1]}), "parameters None, expected"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    settings = Settings(Sinusoid(count=4), learner=Leap(), train=Train(2, 1, 2), tracking="none")
    return lifecycle.start(settings, tmp_path_factory.mktemp("trained") / "run")


@pytest.mark.parametrize("case", INITIALIZATIONS)
def test_an_initialization_of_another_type_or_layout_is_refused_with_what_differs(
    case: str, trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    change, match = INITIALIZATIONS[case]
    kept = trained.initialization.read_bytes()
    tensors, about = unpack(trained.initialization)
    tensors, about = change(tensors, about)
    try:
        trained.initialization.write_bytes(
            pack(tensors, {key: value for key, value in about.items() if key not in ("sha256", "format")})
        )
        before = contents(trained.path)
        with pytest.raises(RunError, match=match):
            lifecycle.evaluate(trained, lifecycle.settings_of(trained))
        assert str(trained.initialization) in told(["evaluate", str(trained.path)], capsys)
        assert contents(trained.path) == before
    finally:
        trained.initialization.write_bytes(kept)
