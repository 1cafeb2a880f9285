"""Told to end: signals, and the time that was allowed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import environment

from leap.cli import endings
from leap.cli.endings import TIME_UP, Stopped, TimeUp, duration, heeding, interruptible
from leap.cli.main import main
from leap.errors import RunError, UsageError
from leap.run import RunFolder

SIGNALS = [getattr(signal, name) for name in endings.SIGNALS]


@pytest.fixture(autouse=True)
def _nobody_ignores_signals() -> Iterator[None]:
    """Whoever runs the tests may (nohup does), and what is ignored stays so, in processes that are started as well."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


LONG = ["sinusoid", "--tracking", "none", "--train.meta-steps", "100000", "--train.inner-steps", "1"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_like_ctrl_c_and_handlers_are_put_back(number: int) -> None:
    before = [signal.getsignal(n) for n in (*SIGNALS, signal.SIGALRM)]
    with pytest.raises(Stopped) as told, interruptible():
        os.kill(os.getpid(), number)
    assert not isinstance(told.value, TimeUp) and isinstance(told.value, KeyboardInterrupt)
    assert [signal.getsignal(n) for n in (*SIGNALS, signal.SIGALRM)] == before


def test_a_second_signal_does_not_cut_short_what_the_first_began() -> None:
    done = False
    with pytest.raises(Stopped), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)
            done = True
    assert done


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_inner_one_hears_and_the_outer_one_after_it() -> None:
    heard: list[type[Stopped]] = []
    with pytest.raises(Stopped), interruptible():
        with heeding(heard.append):
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [Stopped]
        os.kill(os.getpid(), signal.SIGTERM)


def test_another_thread_decides_nothing() -> None:
    before, heard = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with heeding(lambda ending: None):
            heard.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [before]


def test_the_time_allowed_ends_and_can_be_outrun() -> None:
    started = time.monotonic()
    with pytest.raises(TimeUp), interruptible(0.2):
        time.sleep(30)
    assert 0.2 <= time.monotonic() - started < 10
    with interruptible(0.2):
        pass
    time.sleep(0.3)  # nothing rings any more
    assert not endings.time_is_up()


def test_a_process_that_misses_another_at_the_deadline_is_out_of_time_too(monkeypatch) -> None:
    with pytest.raises(RunError), interruptible(1.0):
        raise RunError("alone, this is an error of its own")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TimeUp), interruptible(1.0):
        raise RunError("another process is gone")
    with pytest.raises(RunError), interruptible(1000.0):
        raise RunError("another process is gone")


@pytest.mark.parametrize("text", ["", "0", "soon", "1x", "-5", "1h-5m", "nan", "inf", "1e5", "1 h", "99999999999d"])
def test_what_is_no_duration_is_refused(text: str, capsys) -> None:
    with pytest.raises(UsageError, match="--max-time must be a duration"):
        duration(text)
    assert main(["train", "sinusoid", "--max-time", text]) == 2
    assert "--max-time must be a duration" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--max-time", "1h"], ["--max-time=60m"]])
def test_a_run_out_of_time_is_saved_and_goes_on(option: list[str], tmp_path: Path, capsys, monkeypatch) -> None:
    out, append = str(tmp_path / "run"), RunFolder.append

    def rings(run: RunFolder, row: dict[str, float]) -> None:
        append(run, row)
        if row["step"] % 3 == 0:
            signal.setitimer(signal.ITIMER_REAL, 1e-6)

    monkeypatch.setattr(RunFolder, "append", rings)
    assert main([*option, "train", *LONG, "--out", out]) == TIME_UP
    told = capsys.readouterr()
    assert "repeat the command" in told.err and f"leap train --resume {out}" in told.out
    run = RunFolder.open(tmp_path / "run")
    kept = run.load()
    assert kept is not None and kept.step in (2, 3) and not run.initialization.exists()
    assert main(["train", "--resume", out, *option]) == TIME_UP
    steps = [row["step"] for row in run.rows()]
    assert steps == list(range(1, len(steps) + 1)) and steps[-1] > kept.step


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_within_seconds(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "leap", "train", *LONG, "--out", "run"]
    job = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert job.poll() is None
        time.sleep(0.05)
    told = time.monotonic()
    job.send_signal(number)
    job.communicate(timeout=60)
    assert job.returncode == 130 and time.monotonic() - told < 10
    kept = RunFolder.open(tmp_path / "run").load()
    # a row is written before its step counts as whole, so that none is missing; one too many is dropped on resuming
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert kept is not None and last - kept.step in (0, 1)
