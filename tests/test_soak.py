"""The script that kills jobs and compares, and what it has found in the ways that leap saves."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import in_process
import pytest
import safetensors.torch
import torch
from processes import environment

from leap.cli import lifecycle, main, sweep
from leap.cli.endings import SIGNALS, Stopped, interruptible
from leap.cli.saving import saving
from leap.cli.settings import Settings
from leap.errors import RunError
from leap.report import drawing
from leap.run import Checkpoint, RunFolder, pack, tidied, unpack

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
QUICK = ["quadratic.yaml", "--tracking", "none", "--train.meta-steps", "2", "--evaluate.repetitions", "1"]
ONE = ["--compare.learners", "leap", "--compare.seeds", "0"]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("soak_faults")


# What it has found


def test_an_evaluation_that_was_stopped_before_its_picture_is_not_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It once was: the picture came after evaluation.json, and a comparison that went on never drew it."""
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    words = ["compare", *QUICK, *ONE, "--out", str(tmp_path / "all")]
    picture = tmp_path / "all" / "leap-seed0" / "pictures" / "learning-curves.png"
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle.pictures, "learning_curves", _interrupt)
        assert main.main(words) == 130
    assert not picture.exists()
    assert main.main(words) == 0 and picture.exists()


def _interrupt(*given: Any, **named: Any) -> None:
    raise KeyboardInterrupt


def test_a_report_half_written_is_removed_at_once_or_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures and reports had temporary files of names that nobody cleaned up."""
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    out = tmp_path / "all"
    words = ["compare", *QUICK, *ONE, "--out", str(out)]
    assert main.main(words) == 0
    for cut in (out / ".report.html.x1y2.tmp", out / ".runs.csv.77.tmp"):
        cut.touch()
    assert main.main(words) == 0
    assert {path.name for path in out.rglob(".*")} == {".lock"}
    found: list[str] = []

    def killed(source: str, target: Path) -> None:
        found.append(Path(source).name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        drawing.write_file(out / "leap-seed0" / "a.png", b"x")
    assert found[0].startswith(".a.png.") and found[0].endswith(".tmp")  # what RunFolder.lock looks for
    assert list(out.rglob(".*.tmp")) == []


def test_who_tidies_waits_for_who_writes(tmp_path: Path) -> None:
    (tmp_path / ".report.html.x.tmp").touch()
    done: list[float] = []

    def tidy() -> None:
        with tidied(tmp_path, tmp_path):
            done.append(time.monotonic())

    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        other = threading.Thread(target=tidy)
        other.start()
        time.sleep(0.1)
        assert not done and (tmp_path / ".report.html.x.tmp").exists()
    other.join(10)
    assert done and not (tmp_path / ".report.html.x.tmp").exists()


class Standing:
    """A trainer that has done a step."""

    keeper = None
    step = 0

    def state(self) -> dict[str, torch.Tensor]:
        return {"meta": torch.zeros(2)}


def test_a_signal_while_the_last_state_is_saved_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was lost there, and a worker of a comparison went on with the next run."""
    run = RunFolder.create(tmp_path / "run", "", {})
    save = RunFolder.save

    def struck(run: RunFolder, checkpoint: Checkpoint) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(run, checkpoint)

    monkeypatch.setattr(RunFolder, "save", struck)
    trainer: Any = Standing()
    with pytest.raises(Stopped), interruptible(), saving(run, trainer) as completed:
        trainer.step = 1
        completed(False)
    kept = run.load()
    assert kept is not None and kept.step == 1
    with pytest.raises(ZeroDivisionError), interruptible(), saving(run, trainer) as completed:
        trainer.step = 2
        completed(False)
        raise ZeroDivisionError  # torchrun's SIGTERM does not hide what went wrong


@pytest.mark.parametrize("name", SIGNALS)
def test_a_worker_saves_at_every_signal_that_schedulers_send(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGUSR1, sent to all processes of a job, ended workers on the spot."""
    number = getattr(signal, name)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, *(getattr(signal, each) for each in SIGNALS))}
    heard: list[str] = []

    def work(path: Path, settings: Settings, tell: Any, **more: Any) -> None:
        with _heard(heard):
            os.kill(os.getpid(), number)

    class Line:
        def recv(self) -> Any:
            return (Path("run"), None)

        def send(self, word: Any) -> None:
            heard.append(word[0])

    monkeypatch.setattr(sweep, "settle", lambda place: None)
    monkeypatch.setattr(sweep, "work", work)
    connection: Any = Line()
    place: Any = None
    try:
        sweep._serve(connection, place, evaluate=True, videos=0)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert heard == ["saved"]


@contextlib.contextmanager
def _heard(heard: list[str]) -> Iterator[None]:
    try:
        yield
    finally:
        heard.append("saved")


def test_any_bit_that_is_turned_over_is_seen_or_does_not_matter(tmp_path: Path) -> None:
    """What the header tells had no digest: a checkpoint could be taken for one of another meta-step."""
    path = tmp_path / "a.safetensors"
    data = pack({"meta": torch.tensor([1.0, 2.0])}, {"step": 2, "numbers": {"loss": 0.5}})
    path.write_bytes(data)
    tensors, about = unpack(path)
    names = ("step", "numbers", "sha256")
    passed = 0
    for bit in range(8 * len(data)):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        with contextlib.suppress(RunError):
            found, told = unpack(path)
            assert torch.equal(found["meta"], tensors["meta"])
            assert [told[name] for name in names] == [about[name] for name in names]
            passed += 1
    assert passed < 0.03 * 8 * len(data)  # in the name of the digest, and the format, which readers check


def test_files_of_before_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack({"meta": torch.ones(2)}, {"step": 2}))
    tensors, about = unpack(path)
    old = safetensors.torch.save(tensors, metadata={"leap": json.dumps(about)})
    path.write_bytes(old)
    again, told = unpack(path)
    assert torch.equal(again["meta"], tensors["meta"]) and told == about


# The script


def test_faults_are_drawn_from_the_seed(faults: Any) -> None:
    usual = faults.Outcome(seconds=2.0, events=40)

    def draw(seed: int) -> list[Any]:
        given = random.Random(seed)
        return [fault for _ in range(40) for fault in faults.drawn(given, list(faults.KINDS), usual, 1000, sweep=True)]

    first = draw(0)
    assert first == draw(0) != draw(1)
    assert {fault.kind for fault in first} == set(faults.KINDS)
    assert {fault.whom for fault in first} == {"all", "one", "first"}
    for fault in first:
        assert (fault.event is None) + (fault.share is None) + (fault.size is None) == 2
        assert 0 <= (fault.delay or 0) <= faults.LONGEST and (fault.delay is None or fault.event)
        assert 1 <= (fault.event or 1) <= 40 and 0 <= (fault.share or 0) <= 1 and 0 <= (fault.size or 0) <= 1000


@pytest.mark.parametrize(
    "fault, outcome, told",
    [
        ("kill", {"codes": [-9]}, ""),
        ("kill", {"codes": [1], "text": "Traceback (most recent call last)"}, "no words of its own"),
        ("none", {"codes": [1], "text": "leap: this is a defect of leap: KeyError"}, "no words of its own"),
        ("term", {"codes": [130], "ending": 0.3}, ""),
        ("term", {"codes": [0], "ending": 0.3}, ""),
        ("term", {"codes": [-15], "ending": 0.3}, "exit codes [-15]"),
        ("usr1", {"codes": [1], "ending": 0.3}, "exit codes [1]"),
        ("time", {"codes": [75]}, ""),
        ("time", {"codes": [130]}, "exit codes [130], expected [0, 75]"),
        ("term", {"codes": [130], "ending": 12.0, "load": 0.5}, "it took 12.0 s to end"),
        ("term", {"codes": [130], "ending": 12.0, "load": 3.0}, ""),  # the machine's fault
        ("stop", {"codes": [1]}, "after a pause"),
        ("limit", {"codes": [1], "text": "leap: run/x: File too large; free some"}, ""),
        ("full", {"codes": [1], "text": "leap: run/x: No space left on device; free some"}, ""),
        ("full", {"codes": [1], "text": "leap: interrupted"}, "a full disk is not named"),
        ("limit", {"codes": [130], "text": "File too large"}, "exit codes [130] at a full disk"),
        ("kill", {"codes": [-9], "hung": True}, "it hung"),
    ],
)
def test_what_an_attempt_may_not_do_is_seen(faults: Any, fault: str, outcome: dict[str, Any], told: str) -> None:
    found = faults.amiss(faults.Fault(fault), faults.Outcome(**outcome), world=1, real=False)
    assert len(found) == bool(told) and all(told in line for line in found)


def test_a_process_may_miss_another_that_was_told_first(faults: Any) -> None:
    text = "leap: process 1 of 2: another process of this job has ended, or has not come"
    outcome = faults.Outcome(codes=[130, 1], text=text, ending=0.2)
    assert faults.amiss(faults.Fault("term"), outcome, world=2, real=False) == []
    outcome.text = ""
    assert faults.amiss(faults.Fault("term"), outcome, world=2, real=False)


def test_what_is_damaged_is_not_the_only_checkpoint(faults: Any, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "", {})
    run.save(Checkpoint(1, {"meta": torch.arange(50.0)}))
    assert faults.spoil(tmp_path, random.Random(0)) == ("", "")
    run.save(Checkpoint(2, {"meta": torch.arange(50.0)}))
    for seed in range(20):
        run.save(Checkpoint(2, {"meta": torch.arange(50.0)}))
        name, how = faults.spoil(tmp_path, random.Random(seed))
        assert name == "step-00000002.safetensors" and name in how
        kept = run.load()
        assert kept is not None and kept.step == 1  # cut or changed anywhere, it is seen


@pytest.mark.slow
def test_the_short_form_finds_nothing_unless_something_is_there(tmp_path: Path) -> None:
    def soak() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(SCRIPTS / "soak.py"), "--short", "--out", "soak.jsonl"]
        return subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=900)

    done = soak()
    assert done.returncode == 0, done.stdout + done.stderr
    written = (tmp_path / "soak.jsonl").read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert any(line.get("fault", {}).get("kind") == "kill" and line["ending"] is not None for line in lines)
    assert all(line["attempts"] >= 1 and line["found"] == [] for line in lines if "attempts" in line)
    # begun anew, its last scenario alone is repeated, and differs where the undisturbed job does
    metrics = next((tmp_path / "soak" / "reference" / lines[-1]["job"].replace(" ", "-")).rglob("metrics.jsonl"))
    metrics.write_text(metrics.read_text().replace('"step": 2', '"step": 3'))
    last = [line for line in lines if line["scenario"] == lines[-1]["scenario"]]
    (tmp_path / "soak.jsonl").write_text("".join(written.splitlines(keepends=True)[: len(lines) - 1]))
    again = soak()
    assert again.returncode == 1 and "metrics.jsonl differs at step 3 in step" in again.stderr, again.stderr
    lines = [json.loads(line) for line in (tmp_path / "soak.jsonl").read_text().splitlines()]
    assert [line["fault"] for line in lines[-len(last) : -1]] == [line["fault"] for line in last[:-1]]
