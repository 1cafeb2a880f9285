"""Tracking while wandb comes to harm: no network, a server that fails, a full disk, a process that dies."""

from __future__ import annotations

import importlib
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import wandb_account
from offline_run import OfflineRun
from wandb_server import failing_server

from leap import tracked_end
from leap.errors import Trouble
from leap.tracking import WandbTracker, open_tracker

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wandb_account.forget(monkeypatch, tmp_path / "home")


KILLED = """
import os, signal, sys, time
from pathlib import Path
from leap.tracking import open_tracker
tracker = open_tracker(run_folder=Path(sys.argv[1]), run_name="n", run_id="killed", config={})
for step in range(1, 21):
    tracker.log({"train/loss": 1 / step}, step)
time.sleep(2.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_without_a_key_a_run_goes_offline_unasked_and_keeps_its_rows_when_killed(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1 and "wandb sync" in ended.stderr
    rows = OfflineRun(tmp_path).rows
    assert [row["step"] for row in rows[:19]] == list(range(1, 20))  # the last waits for one more


LOGGING = """
import os, resource, signal, sys, threading, time
from pathlib import Path
from leap import tracked_end, tracking
folder, harm = Path(sys.argv[1]), sys.argv[2]
tracking.START_TIMEOUT, tracking.FINISH_TIMEOUT = float(sys.argv[3]), 2.0
if harm == "full":
    tracked_end.PATIENCE = 1.0  # nothing comes any more

def children():
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            continue
        found += [int(name)] if int(parent) == os.getpid() else []
    return found

def too_slow(*_, **__):
    raise TimeoutError("no answer")

tracker = tracking.open_tracker(run_folder=folder, run_name="n", run_id="hurt", config={})
for step in range(1, 41):
    tracker.log({f"train/value{number}": 1 / step for number in range(40)}, step)
    if step == 20 and harm != "nothing":
        time.sleep(2.5)  # what was logged lies in the file
        size = sum(path.stat().st_size for path in folder.glob("wandb/*-run-*/run-hurt.wandb"))
        for process in children():
            if harm == "full":
                resource.prlimit(process, resource.RLIMIT_FSIZE, (size, size))
            elif harm == "killed":
                os.kill(process, signal.SIGKILL)
            elif harm == "killed while asked":
                os.kill(process, signal.SIGSTOP)
                threading.Timer(0.5, os.kill, (process, signal.SIGKILL)).start()
        if harm == "too slow, then killed":
            tracker._run.log = too_slow
    time.sleep(0.02)
tracker.close()
if harm == "too slow, then killed":
    for process in children():
        os.kill(process, signal.SIGKILL)
print("trained to the end", flush=True)
"""


def logging_with(
    folder: Path, harm: str, start_timeout: float = 20.0, **environment: str
) -> tuple[list[str], list[int]]:
    """What a process says whose wandb is harmed while it logs 40 rows, and the steps that can be synced later."""
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # else it shares our process
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::ResourceWarning",
            "-c",
            LOGGING,
            str(folder),
            harm,
            str(start_timeout),
        ],
        env={**own, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "trained to the end\n"), ended.stderr
    (file,) = folder.glob("wandb/*run-*/run-hurt.wandb")
    run = OfflineRun(folder, file)
    assert f"wandb sync {file.parent}" in ended.stderr, ended.stderr
    return ended.stderr.splitlines(), [row["step"] for row in run.rows]


KEY = "0123456789" * 4


def test_without_a_network_a_run_with_a_key_goes_offline_and_keeps_its_rows(tmp_path: Path) -> None:
    said, steps = logging_with(tmp_path, "nothing", 1.0, WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9")
    assert len(said) == 1 and said[0].startswith("wandb: offline (") and "127.0.0.1:9" in said[0]
    assert steps == list(range(1, 41))


def test_a_server_that_fails_in_the_middle_costs_no_row(tmp_path: Path) -> None:
    with failing_server() as (address, failed):
        said, steps = logging_with(tmp_path, "nothing", WANDB_API_KEY=KEY, WANDB_BASE_URL=address)
    assert any("file_stream" in path for path in failed)
    assert said[0] == f"wandb: {address}/me/leap/runs/hurt"
    assert said[1].startswith("wandb failed in finish (TimeoutError")
    assert steps == list(range(1, 41))


@pytest.mark.skipif(sys.platform != "linux", reason="limits the files of another process")
def test_a_full_disk_stops_no_run_what_was_written_can_be_read_and_it_is_told(tmp_path: Path) -> None:
    said, steps = logging_with(tmp_path, "full")
    assert len(said) == 2 and "wandb: offline (no key was found)" in said[0]
    assert said[1].startswith("wandb: what was logged may be incomplete")
    assert f"{tmp_path / 'metrics.jsonl'} holds all of it" in said[1]
    assert 19 <= len(steps) < 40 and steps == list(range(1, len(steps) + 1))


@pytest.mark.skipif(sys.platform != "linux", reason="finds wandb's process in /proc")
@pytest.mark.parametrize("when", ["killed", "killed while asked", "too slow, then killed"])
def test_a_wandb_process_that_dies_stops_no_run(tmp_path: Path, when: str) -> None:
    said, steps = logging_with(tmp_path, when)
    assert len(said) == 2 and said[1].startswith("wandb failed in log ("), said
    assert 19 <= len(steps) < 40 and steps == list(range(1, len(steps) + 1))


# The end of wandb's file


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The file of a finished offline run, of several blocks."""
    tracker = open_tracker(mode="offline", run_folder=tmp_path, run_name="n", run_id="x", config={}, say=lambda _: None)
    for step in range(1, 60):
        tracker.log({f"train/value{number}": step + 1 / 3 for number in range(40)}, step)
    tracker.close()
    return OfflineRun.finished(tmp_path).path


def test_a_file_has_its_end_or_is_cut_short_wherever_it_is_cut(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, file = written.read_bytes(), tmp_path / "cut.wandb"
    assert len(content) > 3 * 32768
    for tail in (1, 2, 32):
        monkeypatch.setattr(tracked_end, "_TAIL", tail)
        assert tracked_end.has_end(written) is True
        for size in (0, 4, 7, 10, 20_000, 32_768, 32_771, 70_000, len(content) - 1):
            file.write_bytes(content[:size])
            assert tracked_end.has_end(file) is False, size
    file.write_bytes(content + bytes(32_768))  # space that a file system gave and nobody filled
    assert tracked_end.has_end(file) is True
    file.write_bytes(b"SQLite format 3")
    assert tracked_end.has_end(file) is None


@pytest.mark.parametrize("left", range(10))
def test_the_end_is_found_where_a_block_has_no_room_for_a_head(left: int, tmp_path: Path) -> None:
    record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record()
    record.exit.exit_code = 0
    first, last = bytes(32_768 - 7 - 7 - left), record.SerializeToString()  # a middle part, which is passed over
    parts = [(1, last)]
    if left >= 7:  # a head, and what of the record there is room for
        parts = [(2, last[: left - 7]), (4, last[left - 7 :])]
    content = b":W&B" + bytes(3) + struct.pack("<IHB", 0, len(first), 3) + first
    content += bytes(left) if left < 7 else b""
    content += b"".join(struct.pack("<IHB", 0, len(part), kind) + part for kind, part in parts)
    (tmp_path / "run.wandb").write_bytes(content)
    (tmp_path / "cut.wandb").write_bytes(content[:-1])
    assert tracked_end.has_end(tmp_path / "run.wandb") is True
    assert tracked_end.has_end(tmp_path / "cut.wandb") is False


class Finished:
    """Stands for a wandb run whose finish says nothing of what became of its file."""

    def __init__(self, folder: Path) -> None:
        (folder / "files").mkdir(parents=True)
        self.dir, self.codes = str(folder / "files"), list[int]()

    def define_metric(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda whole: whole, False),
        (lambda whole: whole[: len(whole) // 2], True),
        (lambda whole: b"", True),
        (lambda whole: b"another format", False),
        (lambda whole: whole[:7] + b"\xff" * 60_000, True),
        (None, False),
    ],
)
def test_only_a_file_that_lacks_its_end_is_told_of_once(
    content: Any, told: bool, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked_end, "PATIENCE", 0.1)
    run, said = Finished(tmp_path / "fake"), list[str]()
    file = tmp_path / "fake" / "run-x.wandb"
    if content is not None:
        file.write_bytes(content(written.read_bytes()))

    tracker = WandbTracker(run, said.append, tmp_path / "evaluation.json")
    tracker.close(3)
    tracker.close()

    assert run.codes == [3] and len(said) == told
    if told:
        assert isinstance(said[0], Trouble)
        assert "may be incomplete" in said[0] and f"{file} has no end" in said[0]
        assert said[0].endswith(f"{tmp_path / 'evaluation.json'} holds all of it.") and "\n" not in said[0]


def test_the_end_may_come_a_moment_after_the_finish(tmp_path: Path, written: Path) -> None:
    run, said, content = Finished(tmp_path / "fake"), list[str](), written.read_bytes()
    file = tmp_path / "fake" / "run-x.wandb"
    file.write_bytes(content[:-100])
    waited = list[float]()

    def write(seconds: float) -> None:
        waited.append(seconds)
        file.write_bytes(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", write)
        WandbTracker(run, said.append).close()
    assert said == [] and len(waited) == 1


@pytest.mark.parametrize(
    ("job", "own"),
    [("train", "metrics.jsonl"), ("evaluate", "evaluation.json"), ("measure", "measures/measures.json")],
)
def test_what_holds_all_of_it_is_named_by_what_the_run_does(
    job: str, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked_end, "_cut_short", lambda file: True)
    said: list[str] = []
    tracker = open_tracker(
        mode="offline", run_folder=tmp_path, run_name="n", run_id="x", job_type=job, config={}, say=said.append
    )
    tracker.close()
    assert f"{tmp_path / own} holds all of it" in said[-1]
