"""A row about starting: how long a person waits for help, and for the first meta-step of the embedded job."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from leap.bench.row import Goal, Row
from leap.bench.timing import Contender
from leap.errors import RunError

JOB = ("train", "quickstart.yaml", "learner/leap.yaml", "--train.meta-steps", "1")
TINY = ("--model.filters", "2", "--train.inner-steps", "1", "--train.meta-batch", "1")


def startup_row(tiny: bool = False) -> Row:
    """Seconds from a command to its end, by the wall clock and by the processor's, each run in a process of its own.

    The job ends after its first meta-step, so its time holds that step and also the writing of its checkpoint.
    `import torch` stands beside it as what no command that computes can do without. Files are warm: every command ran
    before.
    """
    commands = {
        "python -c pass": ("-c", "pass"),
        "import torch": ("-c", "import torch"),
        "leap --help": ("-m", "leap", "--help"),
        "first meta-step": ("-m", "leap", *JOB, *(TINY if tiny else ())),
    }
    goals = [
        Goal("leap --help within 0.5 s", "leap --help", "seconds", 0.5),
        Goal("the first meta-step within 15 s of the command", "first meta-step", "seconds", 15.0),
    ]
    contenders = [_contender(name, words, warm=not tiny) for name, words in commands.items()]
    setting = {"job": " ".join(commands["first meta-step"][2:]), "clock": "wall"}
    return Row(contenders, "python -c pass", setting, goals, clock=time.perf_counter)


class Child:
    """A command of Python's, run in a process of its own; remembers the processor time of its last run.

    Args:
        words: What follows `python`.
        folder: Whether the command takes `--out` with a folder, which is new in every run and removed after it.
    """

    def __init__(self, words: Sequence[str], folder: bool) -> None:
        self._words, self._folder = tuple(words), folder
        self.cpu = 0.0

    def run(self) -> str:
        """What the command printed.

        Raises:
            RunError: it ended with another code than 0.
        """
        with tempfile.TemporaryDirectory(prefix="leap-bench-") as folder:
            out = ("--out", str(Path(folder) / "run")) if self._folder else ()
            before = _spent_by_children()
            done = subprocess.run([sys.executable, *self._words, *out], capture_output=True, text=True, check=False)
            self.cpu = _spent_by_children() - before
        if done.returncode:
            raise RunError(
                f"`python {' '.join(self._words)}` ended with code {done.returncode}; its last words: "
                f"{done.stderr.strip()[-300:] or 'none'}"
            )
        return done.stdout


def _contender(name: str, words: Sequence[str], warm: bool) -> Contender:
    child = Child(words, folder="train" in words)

    def parts() -> Mapping[str, float]:
        return {f"{name}: processor time": child.cpu}

    return Contender(name, child.run, None if warm else lambda: None, parts)


def _spent_by_children() -> float:
    """Processor seconds of all child processes that have ended, their threads and children included."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
