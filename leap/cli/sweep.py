"""Many runs on one machine: workers that each hold their share of the cores, or a GPU, and take one run after another.

A run that fails takes its worker with it and nothing else; whatever stops the command saves every run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from leap.cli.endings import SIGNALS, interruptible
from leap.cli.filming import filmed
from leap.cli.places import Place, machine, settle
from leap.cli.settings import Settings
from leap.errors import LeapError, Trouble
from leap.foreign import check_plain

INTERVAL = 0.1  # seconds between two words of a worker: fast runs would keep the parent busy reading


def carry_out(
    out: Path,
    runs: Mapping[str, Settings],
    jobs: int | None = None,
    *,
    of: int | None = None,
    evaluate: bool = True,
    videos: int = 0,
) -> dict[str, str]:
    """Train all runs, each in the folder of its name, and evaluate them.

    Args:
        out: Folder of the run folders.
        runs: Settings by name.
        jobs: Runs at a time; None: as many as there are GPUs, else cores.
        of: How many runs there are with those that are done; None: these. A run's threads, and with them the order of
            its sums, do not depend on how many are left.
        evaluate: Whether runs are evaluated after training.
        videos: Episodes to film of each game and initialization.

    Returns:
        What went wrong, by the name of the run.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; all runs have been saved.
    """
    from leap.cli.progress import Line

    device = next(iter(runs.values())).device
    total = sum(length(settings, evaluate) for settings in runs.values())
    with interruptible(), Line(total, "step", "all runs") as line:
        crew = _Crew(out, runs, evaluate, videos, line)
        try:
            crew.work(machine(jobs, device, of or len(runs))[: len(runs)])
        except BaseException as error:
            line.close()
            if isinstance(error, KeyboardInterrupt):
                print("\nstopping; repeat the command to go on", flush=True)
            crew.stop()
            raise
    return crew.failures


class _Worker:
    """A process, and what it is at."""

    def __init__(self, place: Place, evaluate: bool, videos: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.place = place
        self.run: str | None = None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, place, evaluate, videos))
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection

    def take(self, name: str | None, job: tuple[Path, Settings] | None) -> None:
        """Hand over a run by its name; None: there is no other."""
        self.run = name
        with contextlib.suppress(OSError):  # it has just died, which reading from it will tell
            self.connection.send(job)

    def end(self) -> str:
        """What to say of a process that ended before its run did."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"its process ended early (exit code {code})"
        name = signal.Signals(-code).name
        memory = "; memory may have run out, try fewer --compare.jobs" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{memory}"


class _Crew:
    """The workers, the runs that wait for one, and what became of the others."""

    def __init__(self, out: Path, runs: Mapping[str, Settings], evaluate: bool, videos: int, line: Any) -> None:
        self.failures: dict[str, str] = {}
        self._out, self._runs, self._evaluate, self._videos, self._line = out, runs, evaluate, videos, line
        self._waiting = deque(runs)
        self._reached: dict[str, int] = {}
        self._workers: dict[Connection, _Worker] = {}

    def work(self, at: Sequence[Place]) -> None:
        """Start a worker at each place, and stay until no run is left."""
        for place in at:
            self._hire(place)
        while self._workers:
            for connection in wait(list(self._workers)):
                assert isinstance(connection, Connection)
                self._hear(self._workers[connection])

    def stop(self) -> None:
        """SIGTERM to all; each saves its run and ends."""
        for worker in self._workers.values():
            worker.process.terminate()
            worker.connection.close()
        for worker in self._workers.values():
            worker.process.join()

    def _hire(self, place: Place) -> None:
        worker = _Worker(place, self._evaluate, self._videos)
        self._workers[worker.connection] = worker
        self._hand_over(worker)

    def _hand_over(self, worker: _Worker) -> None:
        name = self._waiting.popleft() if self._waiting else None
        worker.take(name, None if name is None else (self._out / name, self._runs[name]))

    def _hear(self, worker: _Worker) -> None:
        try:
            word, value = worker.connection.recv()
        except (EOFError, OSError):
            return self._part(worker)
        assert worker.run is not None
        if word == "step":
            self._move(worker.run, value)
        elif word == "failed":
            self._fail(worker, value)
        elif word == "said":
            self._line.write(f"{worker.run}: {value}")
        else:
            self._move(worker.run, length(self._runs[worker.run], self._evaluate))
            self._hand_over(worker)

    def _part(self, worker: _Worker) -> None:
        """A worker is gone: a new process takes its place where there is work left."""
        if worker.run is not None:
            self._fail(worker, worker.end())
        worker.process.join()
        worker.connection.close()
        del self._workers[worker.connection]
        if self._waiting:
            self._hire(worker.place)

    def _fail(self, worker: _Worker, why: str) -> None:
        assert worker.run is not None
        self.failures[worker.run] = why
        self._line.write(f"failed    {worker.run}: {why}")
        worker.run = None

    def _move(self, name: str, reached: int) -> None:
        self._line.reach(self._line.done + reached - self._reached.get(name, 0), name)
        self._reached[name] = reached


def work(
    path: Path,
    settings: Settings,
    tell: Callable[[int], None],
    *,
    evaluate: bool = True,
    videos: int = 0,
    known: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """One run, from wherever it stands to its evaluation; `tell` takes how far it is, as `length` counts.

    `known` is what `lifecycle.evaluate` remembers from one run to the next, and `say` takes its lines for a person.
    """
    from leap.cli import lifecycle
    from leap.run import RunFolder

    done = settings.train.meta_steps

    def trained(step: int, metrics: dict[str, float | None]) -> None:
        tell(step)

    def evaluated() -> None:
        nonlocal done
        done += 1
        tell(done)

    if RunFolder.started(path):
        run = lifecycle.resume(RunFolder.open(path), settings, trained, say)
    else:
        run = lifecycle.start(settings, path, trained, say)
    if evaluate and not is_evaluated(run.path, settings, videos):
        lifecycle.evaluate(run, settings, evaluated, say, known, videos)


def is_evaluated(folder: Path, settings: Settings, videos: int = 0) -> bool:
    """Whether the evaluation in the folder is the one these settings ask for, with so many episodes filmed.

    Raises:
        RunError: a pipe or a device stands in the folder.
    """
    check_plain(folder)
    try:
        document = json.loads((folder / "evaluation.json").read_text())
    except (OSError, ValueError, RecursionError):  # missing or damaged: evaluated anew
        return False
    choice = settings.evaluate
    if not isinstance(document, dict) or filmed(folder, choice.steps) < videos:
        return False
    if "asked" in document:
        return bool(document["asked"] == dataclasses.asdict(choice))
    asked = (choice.split, choice.steps, list(range(choice.repetitions)))
    return tuple(document.get(key) for key in ("split", "steps", "evaluation_seeds")) == asked


def length(settings: Settings, evaluate: bool = True) -> int:
    """Units of progress: meta-steps, and an evaluation's repetitions from two initializations."""
    return settings.train.meta_steps + 2 * settings.evaluate.repetitions * evaluate


def _serve(connection: Connection, place: Place, evaluate: bool, videos: int) -> None:
    """Life of a worker: settle down, then a run after another until there is none, or it is told to stop."""
    with contextlib.suppress(KeyboardInterrupt):  # which may come late, when nothing is left to be saved
        _work_off(connection, place, evaluate, videos)
    _on_signals(_nothing)
    _on_signals(signal.SIG_IGN)  # until the process is gone


def _work_off(connection: Connection, place: Place, evaluate: bool, videos: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # reaches every process of a terminal; the parent decides about runs
    last, known = 0.0, dict[str, Any]()

    def tell(reached: int) -> None:
        nonlocal last
        if time.monotonic() - last > INTERVAL:
            last = time.monotonic()
            _say(connection, "step", reached)

    def say(text: str) -> None:
        if isinstance(text, Trouble):  # the rest is the same for all runs, and the comparison says it once
            _say(connection, "said", str(text))

    try:
        _on_signals(_stop)  # a scheduler may send them to every process of a job
        settle(place)
        while job := connection.recv():
            path, settings = job
            work(path, settings, tell, evaluate=evaluate, videos=videos, known=known, say=say)
            _say(connection, "done", None)
    except EOFError:
        return  # left alone
    except Exception as error:
        _say(connection, "failed", _words(error))


def _on_signals(handler: Any) -> None:
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


def _say(connection: Connection, word: str, value: Any) -> None:
    try:
        connection.send((word, value))
    except OSError as error:  # whoever started this process is gone, and nobody would stop it
        raise KeyboardInterrupt from error


def _stop(number: int, frame: object) -> None:
    # A scheduler may signal workers and their parent, which signals them again: the second must not cut short what
    # the first began, the saving of the run.
    _on_signals(_nothing)
    raise KeyboardInterrupt


def _nothing(number: int, frame: object) -> None:
    """Hear a signal beside an earlier one: Python complains of one that is ignored just then."""


def _words(error: Exception) -> str:
    if isinstance(error, LeapError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"
