"""The faults of `scripts/soak.py`: what they are, how they are drawn, and what an attempt that met one may not do."""

from __future__ import annotations

import collections
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KINDS = {"kill": 45, "torn": 10, "term": 12, "usr1": 5, "stop": 7, "time": 9, "limit": 6, "full": 6}
"""What may happen, and how often of a hundred times; a torn file is one that is damaged after a kill."""
SIGNALS = {
    "kill": signal.SIGKILL, "torn": signal.SIGKILL, "term": signal.SIGTERM, "usr1": signal.SIGUSR1,
    "stop": signal.SIGSTOP,
}  # fmt: skip
STOPS = {"term": 130, "usr1": 130, "time": 75}
"""Exit codes of jobs that were told to end."""
SOON = 10.0  # seconds in which they have ended
BETWEEN = 0.35  # share of signals that fall between operations on files, the others right before one
LONGEST = 0.3  # seconds after the first of the two


@dataclass(frozen=True)
class Fault:
    """What happens to an attempt, and when.

    Attributes:
        kind: One of KINDS, or none.
        whom: A signal's receivers: all processes, the one that is at it, or the one that was started first.
        event: Operation on files before which it happens, counted from 1 over all processes.
        delay: Seconds after that operation, so that it falls into what comes between two of them; None: before it.
        share: Else, when: a share of the job's undisturbed duration.
        size: Bytes: of the largest file allowed (limit), or that are left on the disk (full).
    """

    kind: str = "none"
    whom: str = "all"
    event: int | None = None
    delay: float | None = None
    share: float | None = None
    size: int | None = None

    def told(self) -> dict[str, Any]:
        """What there is to tell of it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class Outcome:
    """What became of an attempt.

    Attributes:
        codes: Exit codes of the processes that were started first, by rank; negative: the signal.
        text: All that was said.
        seconds: Of processor time, a process: its duration, unless the machine has other work.
        ending: Seconds from the signal until the last process was gone; None: none was sent, or SIGSTOP.
        where: What was about to be done when the signal fell, or "" where only the time is known.
        events: Operations on files.
        load: Of the machine, per core.
        hung: Whether it did not end by itself.
    """

    codes: list[int] = field(default_factory=list)
    text: str = ""
    seconds: float = 0.0
    ending: float | None = None
    where: str = ""
    events: int = 0
    load: float = 0.0
    hung: bool = False

    @property
    def code(self) -> int:
        """Of all processes together: the first that is not 0."""
        return next((code for code in self.codes if code), 0)


def drawn(draw: random.Random, kinds: Sequence[str], usual: Outcome, largest: int, sweep: bool) -> Iterator[Fault]:
    """One to three faults.

    Args:
        draw: Of what is random.
        kinds: Those that can happen here.
        usual: How the job goes undisturbed.
        largest: Bytes of the largest file that it leaves.
        sweep: Whether it has processes of its own, so that it may be told to end without them.
    """
    for _ in range(draw.choice((1, 2, 3))):
        kind = draw.choices(kinds, [KINDS[kind] for kind in kinds])[0]
        whom = "all"
        if kind in ("kill", "torn", "stop"):
            whom = draw.choice(("all", "all", "one"))
        elif kind in ("term", "usr1") and sweep:
            whom = draw.choice(("all", "first"))
        if kind in ("limit", "full"):
            yield Fault(kind, size=round(largest * draw.random() ** 2))
        elif kind == "time" or not usual.events:
            yield Fault(kind, whom, share=round(draw.random(), 3))
        else:
            delay = round(draw.random() * LONGEST, 3) if draw.random() < BETWEEN else None
            yield Fault(kind, whom, event=draw.randint(1, usual.events), delay=delay)


def amiss(fault: Fault, outcome: Outcome, world: int, real: bool) -> list[str]:
    """What an attempt should not have done, whatever happened to it.

    Args:
        fault: What did.
        outcome: What became of it.
        world: Processes that worked on it together.
        real: Whether it was a real command; then signals may come before Python hears them, and torchrun, which does
            not know that its processes were told to end, has an exit code and a traceback of its own.
    """
    found = []
    torchrun = real and world > 1
    if outcome.hung:
        found.append("it hung")
    if "this is a defect of leap" in outcome.text or ("Traceback" in outcome.text and not torchrun):
        found.append("it had no words of its own for what happened")
    if fault.kind in STOPS:
        allowed = {0, STOPS[fault.kind]}
        if torchrun or "another process of this job has ended" in outcome.text:  # one misses another before it hears
            allowed.add(1)
        if real and fault.kind != "time":
            allowed.add(-SIGNALS[fault.kind])
        if torchrun:
            allowed |= {-signal.SIGTERM, -signal.SIGUSR1}
        if not set(outcome.codes) <= allowed:
            found.append(f"exit codes {outcome.codes}, expected {sorted(allowed)}")
        if (outcome.ending or 0.0) > SOON and outcome.load < 1:
            found.append(f"it took {outcome.ending:.1f} s to end")
    if fault.kind == "stop" and outcome.code:
        found.append(f"exit codes {outcome.codes} after a pause")
    if fault.kind in ("limit", "full") and outcome.code:
        # a damaged item that it meets first is told of, and ends it before the disk does
        told = ("No space left", "File too large", "it was removed: repeat the command")
        if not any(words in outcome.text for words in told):
            found.append("a full disk is not named")
        if not set(outcome.codes) <= {0, 1, *((-signal.SIGTERM, 130) if world > 1 else ())}:
            found.append(f"exit codes {outcome.codes} at a full disk")
    return found


def spoil(folder: Path, draw: random.Random) -> tuple[str, str]:
    """Cut the newest checkpoint, kept walk or item short, or turn a bit of it over; its name, and what was done.

    Not the only checkpoint of a run, without which there is nothing to go on from, nor one of a run that is trained,
    which nobody reads again.
    """
    kept = [path for path in folder.rglob("*.safetensors") if path.parent.name in ("checkpoints", "items")]
    steps = collections.Counter(path.parent for path in kept if path.name.startswith("step-"))
    trained = {folder for folder in steps if (folder.parent / "initialization.safetensors").exists()}
    needed = {folder for folder, count in steps.items() if count > 1} - trained
    kept = [path for path in kept if not path.name.startswith("step-") or path.parent in needed]
    if not kept:
        return "", ""
    path = max(kept, key=lambda path: (path.stat().st_mtime_ns, path.name))
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    if draw.random() < 0.5:
        path.write_bytes(data[:at])
        return path.name, f" (then {path.name} was cut at byte {at} of {len(data)})"
    data[at] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return path.name, f" (then a bit of byte {at} of {path.name} was turned over)"


PLACES = {
    "checkpoints/.step": "checkpoint", "checkpoints/step": "checkpoint", "walk-": "kept walk",
    "metrics.jsonl": "metrics", "initialization": "initialization", "items": "item of a measuring",
    "config.yaml": "start", "provenance": "start", "mkdir": "start", ".lock": "start", ".tmp": "results",
    "": "results",
}  # fmt: skip
"""What a file's name tells about where a job was, in order."""


def place(where: str) -> str:
    """Where a fault fell, in few words.

    Example:
        >>> place("rename run/checkpoints/.step-00000003.safetensors.12.tmp"), place("")
        ('checkpoint', 'between operations')
    """
    where = where.partition(" (then")[0]
    if not where or where.startswith("after "):
        return "between operations"
    return next(word for name, word in PLACES.items() if name in where)
