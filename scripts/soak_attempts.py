"""One attempt at a job of `leap`, disturbed or not: what `scripts/soak.py` starts, hits and watches.

Attempts are forks of a process that has imported everything once, or real commands. A fork calls `leap.cli.main.main`
with the words of the command, as `python -m leap` does, and ends with its exit code; it saves the seconds of starting
Python. What it does not test is what a process does before and after `main`: that is left to the real commands.
Processes that train together are forks with torchrun's environment variables, of which the rest is told to end when
one fails, as torchrun does; workers of a comparison are forks as well, where leap starts new processes.

A fork tells of files that it is about to create, rename or remove, and waits for what comes. So a fault falls right
before a given operation, at the same place each time, or a given moment after it. Real commands are hit after a given
share of the time that they take undisturbed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from soak_faults import SIGNALS, Fault, Outcome

SUBREAPER = 36  # of prctl: orphans of an attempt become this process's children, so that it sees them end
ROOT = Path(__file__).resolve().parents[1]


def adopt_orphans() -> None:
    """Become the parent of what attempts leave running (Linux)."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


PAUSE = 1.0  # seconds between SIGSTOP and SIGCONT


class Attempt:
    """One attempt under way.

    Args:
        words: The command's, after `leap`.
        folder: Where it works, and where operations on files are counted.
        fault: What happens to it.
        usual: Seconds that it takes undisturbed, on a machine that has nothing else to do.
        world: Processes that work on it together.
        patience: Seconds until it is called hanging, and killed.
    """

    def __init__(
        self, words: Sequence[str], folder: Path, fault: Fault, usual: float, world: int, patience: float = 900.0
    ) -> None:
        self.words, self.folder, self.fault, self.world = list(words), folder, fault, world
        self.outcome, self._usual, self._patience = Outcome(), usual, patience
        self._first: list[int] = []
        self._codes: dict[int, int] = {}
        self._struck = False
        self._told: float | None = None
        self._going_on: float | None = None
        self._at = 0
        self._parting: float | None = None
        if fault.kind == "time":
            self.words = ["--max-time", f"{max(0.02, (fault.share or 0) * usual):.3f}", *self.words]

    # -- starting ----------------------------------------------------------------------------------------------------

    def forked(self) -> Outcome:
        """Fork it, and watch it until all of it is gone."""
        words, said = os.pipe()
        heard, tell = os.pipe()
        answer, go = os.pipe()
        gate, opened = os.pipe()
        count = mmap.mmap(-1, 8)
        port = str(_free_port())
        for rank in range(self.world):
            pid = os.fork()
            if pid == 0:
                try:
                    os.read(gate, 1)
                    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                    os.dup2(said, 1)
                    os.dup2(said, 2)
                    for end in (words, heard, go, opened):
                        os.close(end)
                    self._live(rank, port, _Teller(self.folder, self.fault.event, count, tell, answer))
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(70)  # nothing of the parent's may run in here
            self._first.append(pid)
        for end in (said, tell, answer):
            os.close(end)
        os.write(opened, b"x" * self.world)
        try:
            self._watch(words, heard, go)
        finally:
            self._send(signal.SIGKILL)  # where this process itself is told to end
            for end in (words, heard, go, gate, opened):
                os.close(end)
        self.outcome.events = struct.unpack("q", count[:8])[0]
        return self.outcome

    def real(self) -> Outcome:
        """Start the command itself, with torchrun where there are several processes, and watch it likewise."""
        program = ["-m", "leap", *self.words]
        if self.world > 1:
            start = ["--nproc-per-node", str(self.world), "--master-addr", "127.0.0.1", "--master-port"]
            program = ["-m", "torch.distributed.run", *start, str(_free_port()), *program]
        words, said = os.pipe()
        job = subprocess.Popen(
            [sys.executable, *program], stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0,
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=self._limited,
        )  # fmt: skip
        os.close(said)
        self._first = [job.pid]
        heard, tell = os.pipe()
        try:
            self._watch(words, heard, None)
        finally:
            self._send(signal.SIGKILL)
            for end in (words, heard, tell):
                os.close(end)
        job.returncode = self.outcome.code  # so that it asks for no process that is gone
        return self.outcome

    def _limited(self) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the error that a full disk gives, instead of the end
        if self.fault.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.fault.size or 0, resource.RLIM_INFINITY))

    def _live(self, rank: int, port: str, teller: _Teller) -> None:
        """The life of a fork."""
        from leap.cli import sweep
        from leap.cli.main import main

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._limited()
        os.chdir(self.folder)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        if self.world > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.world, "LOCAL_WORLD_SIZE": self.world}
            os.environ |= {name: str(value) for name, value in place.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        sweep.multiprocessing = _Forks()  # type: ignore[attr-defined]
        sys.argv = ["leap", *self.words]
        sys.addaudithook(teller)
        code = main(self.words)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # -- watching ----------------------------------------------------------------------------------------------------

    def _watch(self, words: int, heard: int, go: int | None) -> None:
        began, spent = time.monotonic(), _spent()
        self.outcome.load = os.getloadavg()[0] / (os.cpu_count() or 1)
        due = None
        if self.fault.share is not None and self.fault.kind in SIGNALS:
            due = began + self.fault.share * self._usual
        spoken = bytearray()
        while not self._gone():
            ready, _, _ = select.select([words, heard], [], [], 0.004)
            if words in ready:
                said = os.read(words, 65536)
                spoken += said
                if not said:  # all ends are closed: only the exit codes are missing
                    time.sleep(0.004)
            if heard in ready and (event := os.read(heard, 4096)) and go is not None:
                pid, _, where = event.decode(errors="replace").partition(" ")
                self.outcome.where, self._at = where, int(pid)
                if self.fault.delay is None:
                    self._strike()
                else:
                    self.outcome.where, due = f"after {where}", time.monotonic() + self.fault.delay
                os.write(go, b"xxxx")  # more than one may have counted to the same number
            now = time.monotonic()
            if due is not None and now >= due:
                due = None
                self._strike()
            if self._going_on is not None and now >= self._going_on:
                self._going_on = None
                self._send(signal.SIGCONT)
            if now - began > self._patience:
                self.outcome.hung = True
                self._send(signal.SIGKILL)
                self._patience += 30
        self.outcome.seconds = (_spent() - spent) / self.world
        if self._told is not None:
            self.outcome.ending = time.monotonic() - self._told
        while select.select([words], [], [], 0)[0] and (said := os.read(words, 65536)):
            spoken += said
        self.outcome.text = spoken.decode(errors="replace")
        self.outcome.codes = [self._codes.get(pid, -signal.SIGKILL) for pid in self._first]

    def _gone(self) -> bool:
        """Whether nothing of the attempt is left; what has ended is taken note of."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                break
            self._codes[pid] = os.waitstatus_to_exitcode(status)
        ended = [self._codes[pid] for pid in self._first if pid in self._codes]
        if self.world > 1 and len(self._first) > 1 and any(ended) and len(ended) < len(self._first):
            self._part()
        return False

    def _part(self) -> None:
        """What torchrun does to the others when one process has failed."""
        if self._parting is None:
            self._parting = time.monotonic()
            self._send(signal.SIGTERM)
        elif time.monotonic() - self._parting > 30:
            self._send(signal.SIGKILL)

    def _strike(self) -> None:
        if self._struck:
            return
        self._struck = True
        number = SIGNALS[self.fault.kind]
        self._told = None if self.fault.kind == "stop" else time.monotonic()
        if self.fault.kind == "stop":
            self._going_on = time.monotonic() + PAUSE
        if self.fault.whom == "all":
            self._send(number)
        else:
            chosen = self._at if self.fault.whom == "one" and self._at else self._first[0]
            with contextlib.suppress(ProcessLookupError):
                os.kill(chosen, number)

    def _send(self, number: int) -> None:
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class _Teller:
    """An audit hook that counts operations on files in a folder, and waits at one of them for what comes."""

    def __init__(self, folder: Path, at: int | None, count: mmap.mmap, tell: int, answer: int) -> None:
        self.folder, self.at, self.count, self.tell, self.answer = str(folder), at, count, tell, answer

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir") or not isinstance(args[0], str | Path):
            return
        path = os.path.abspath(args[0])
        reading = event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR)
        if reading or not path.startswith(self.folder):
            return
        reached = struct.unpack("q", self.count[:8])[0] + 1  # processes may count the same one: a place more or less
        self.count[:8] = struct.pack("q", reached)
        if reached == self.at:
            what = f"{event.removeprefix('os.')} {path[len(self.folder) + 1 :]}"
            os.write(self.tell, f"{os.getpid()} {what}".encode())
            os.read(self.answer, 1)


class _Forks:
    """Stands for `multiprocessing` in a fork: its new processes are forks, which keep no pipe but their own."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self._ends: list[Any] = []

    def get_context(self, method: str) -> _Forks:
        """Of the only kind that there is here."""
        return self

    def Pipe(self) -> tuple[Any, Any]:
        """Two ends, known so that a fork can close those that it has inherited."""
        ends = self._context.Pipe()
        self._ends += ends
        return ends

    def Process(self, target: Callable[..., None], args: tuple[Any, ...]) -> Any:
        """A process that is yet to be started."""

        def alone() -> None:
            for end in self._ends:
                if end is not args[0] and not end.closed:
                    end.close()
            target(*args)

        return self._context.Process(target=alone)


def _spent() -> float:
    """Seconds of processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _descendants() -> list[int]:
    """All processes below this one, those of torchrun among them, which have sessions of their own."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            state, parent = text.rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
