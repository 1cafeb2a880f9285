"""Progress: a bar a level in a terminal; in a log, a plain line now and then, and nothing of what is soon over.

Levels are meta-steps (or walks, runs, items), and below them the inner steps of the tasks that walk at the moment,
where their walk takes long. Inner steps are counted where tasks draw their batches: a call of Python a step, and no
wait for the device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

EVERY = 30.0  # seconds between two lines of a log, at least
RARELY = 300.0  # seconds between them at most; before, there is a line for every SHARE of the whole
SHARE = 0.05
LONG = 3.0  # seconds of a walk after which a terminal shows its inner steps

Describe = Callable[[Mapping[str, float | None]], str]


class Line:
    """The progress of one level.

    Args:
        total: How many there are.
        unit: Of one of them, as in `meta-step`.
        title: What this is about.
        stream: Where it is shown; by default standard error.
        clock: Seconds.
        below: Levels above this one.
        quiet: Show nothing.

    Attributes:
        done: So many are done.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        title: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        below: int = 0,
        quiet: bool = False,
    ) -> None:
        self.total, self.unit, self.title, self.done = total, unit, title, 0
        self._stream, self._clock, self._quiet = stream or sys.stderr, clock, quiet
        self._began = self._said = clock()
        self._first: int | None = None  # where a run that goes on began
        self._told, self._spoke, self._figures = 0, False, ""
        self._bar = self._opened(below) if self._stream.isatty() and not quiet else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def reach(self, done: int, figures: str = "") -> None:
        """So many are done, and these are the figures that matter."""
        if self._first is None:
            self._first = self._told = max(done - 1, 0)
            if self._bar is not None:
                self._bar.initial = self._bar.n = self._first
        self.done, self._figures = done, figures
        if self._bar is not None:
            self._bar.set_postfix_str(figures, refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._quiet:
            self._perhaps_say(self._clock())

    def advance(self, figures: str = "") -> None:
        """One more is done."""
        self.reach(self.done + 1, figures)

    def write(self, text: str) -> None:
        """Say something else, on a line of its own."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """The last line, where there were others."""
        if self._bar is not None:
            self._bar.close()
        elif self._spoke and self.done > self._told:
            self._say(self._clock())
        self._quiet = True

    def _opened(self, below: int) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=self.total, unit=self.unit, desc=self.title, file=self._stream, position=below, leave=below == 0,
            dynamic_ncols=True,
        )  # fmt: skip

    def _perhaps_say(self, now: float) -> None:
        waited = now - self._said
        if waited >= EVERY and (waited >= RARELY or self.done - self._told >= SHARE * self.total):
            self._say(now)

    def _say(self, now: float) -> None:
        count, seconds = self.done - self._told, now - self._said
        told = f"{self.title}: {self.done}/{self.total} {self.unit}s ({self.done / max(self.total, 1):.0%})"
        if count > 0 and seconds > 0:
            told += f", {rate(count / seconds, self.unit)}"
            if self.done < self.total:
                told += f", {duration((self.total - self.done) * seconds / count)} left"
        if self.done >= self.total:
            told += f", in {duration(now - self._began)}"
        print(f"{told}; {self._figures}" if self._figures else told, file=self._stream, flush=True)
        self._said, self._told, self._spoke = now, self.done, True


class Levels:
    """What `leap.cli.lifecycle` tells of its progress, as lines: the level above, and the walk under way below it.

    Args:
        line: The level above.
        describe: Its figures from what is logged.
    """

    def __init__(
        self, line: Line, describe: Describe = lambda metrics: "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._line, self._describe, self._clock = line, describe, clock
        self._inner: Line | None = None
        self._walked = 0

    def __call__(self, step: int | None = None, metrics: Mapping[str, float | None] | None = None) -> None:
        """One more of the level above, or so many and what was logged of the last."""
        self._end()
        self._walked = 0
        self._line.reach(self._line.done + 1 if step is None else step, self._describe(metrics or {}))

    def walk(self, tasks: Sequence[str], of: int, steps: int, played: float | None) -> Callable[[int], None]:
        """The begin of a walk; the function that it gives is told of every inner step, from 0.

        Args:
            tasks: Names of those that walk together.
            of: How many tasks a step of the level above has.
            steps: K.
            played: Agent steps that all of them play in an inner step; None where they are no games.
        """
        self._end()
        first, self._walked = self._walked + 1, self._walked + len(tasks)
        title = f"  {_tasks(tasks, first, of)}"
        stream, clock, quiet = self._line._stream, self._clock, self._line._quiet
        began, terminal = clock(), stream.isatty()
        held = None if terminal else Line(steps, "inner step", title, stream=stream, clock=clock, quiet=quiet)
        self._inner = held

        def tell(step: int) -> None:
            line = self._inner
            if line is None and clock() - began > LONG:
                line = self._inner = Line(steps, "inner step", title, stream=stream, clock=clock, below=1, quiet=quiet)
            if line is not None and step >= line.done:  # some learners go back over their walk
                seconds = clock() - began
                speed = "" if played is None or not seconds else f"{played * step / seconds:.0f} agent steps/s"
                line.reach(step, speed)

        return tell

    def close(self) -> None:
        """No more is coming."""
        self._end()

    def _end(self) -> None:
        if self._inner is not None:
            self._inner.close()
        self._inner = None


def watched(family: Any, progress: object, steps: Callable[[int], int], of: int) -> Any:
    """The same family, whose walks tell `progress` of their inner steps; the family itself where nobody listens.

    Args:
        family: Tasks.
        progress: `Levels`, or anything without a method `walk`.
        steps: K of a task.
        of: How many tasks a step of the level above has.
    """
    begin = getattr(progress, "walk", None)
    return family if begin is None else _Watched(family, begin, steps, of)


class _Watched:
    def __init__(self, family: Any, begin: Callable[..., Callable[[int], None]], steps: Callable[[int], int], of: int):
        self._family, self._begin, self._steps, self._of = family, begin, steps, of

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> Any:
        """Tasks that walk together, counted."""
        steps = self._steps(ids[0])
        played = None
        if hasattr(self._family, "told"):
            played = len(ids) * self._family.told(steps).get("agent_steps", 0) / steps or None
        names = [self._family.name(task) for task in ids]
        return _Counted(self._family.batch(ids, seeds), self._begin(names, self._of, steps, played))


class _Counted:
    """The same tasks, whose steps are told."""

    def __init__(self, tasks: Any, tell: Callable[[int], None]) -> None:
        self._tasks, self._tell = tasks, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tasks, name)

    def sample(self, theta: Any, step: int) -> Any:
        """As the tasks themselves."""
        self._tell(step)
        return self._tasks.sample(theta, step)


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> [duration(one) for one in (0.4, 42.4, 125, 7260, 200_000)]
        ['0 s', '42 s', '2 min 05 s', '2 h 01 min', '2 d 7 h']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def rate(a_second: float, unit: str) -> str:
    """A speed, or how long one takes where that reads better.

    Example:
        >>> rate(3.14, "meta-step"), rate(0.02, "meta-step")
        ('3.14 meta-steps/s', '50.0 s each')
    """
    return f"{a_second:.3g} {unit}s/s" if a_second >= 1 else f"{1 / a_second:.1f} s each"


def _tasks(names: Sequence[str], first: int, of: int) -> str:
    """Which tasks walk.

    Example:
        >>> _tasks(["Greek"], 3, 20), _tasks(["Greek", "Korean"], 1, 2), _tasks(["Greek", "Korean"], 3, 20)
        ('task 3 of 20, Greek', '2 tasks', 'tasks 3 to 4 of 20')
    """
    if len(names) == of or first + len(names) - 1 > of:
        return " ".join(names[0].split())[:40] if len(names) == 1 else f"{len(names)} tasks"
    if len(names) > 1:
        return f"tasks {first} to {first + len(names) - 1} of {of}"
    return f"task {first} of {of}, {' '.join(names[0].split())[:40]}"
