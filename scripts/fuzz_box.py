"""Where `scripts/fuzz.py` runs commands: folders to damage, a watchdog, and a judge of how a command ended."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import sys
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leap.cli import main
from leap.errors import LeapError

FOLDER, LINK, PIPE = "a folder", "a link to nowhere", "a pipe"
"""What may stand in the place of a file."""
LONGEST = 6000  # characters of a message that a person still reads
ALONE = (".lock",)  # names of files that stand for nothing


class Hang(BaseException):
    """Raised in a command that takes too much of the processor's time."""


@dataclass(frozen=True)
class Input:
    """One malformed input: what is changed in the box, and the command that meets it.

    Attributes:
        kind: What is malformed.
        words: The command, as `leap` gets it, in the box's folder `here`.
        changes: By path in the box, the bytes of a file, None for none, or what stands in its place.
        writes: Paths under which the command may write; nothing else may change, and nothing at all where it refuses.
        page: A page of a report, which must not hold `marker` as it is.
        marker: Text that a page has to escape.
    """

    kind: str
    words: tuple[str, ...]
    changes: Mapping[str, bytes | str | None] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    page: str | None = None
    marker: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (None: by an exception), what it said, and what was wrong with that."""

    code: int | None
    said: str
    problem: str | None
    seconds: float


class Box:
    """A folder with files that are put back after every command.

    Args:
        root: An empty folder; commands run in `root/a/here`, so that paths that lead out are seen.
        originals: Contents by path below that.
        seconds: Processor time that a command may take.
        patience: Seconds of the clock that it may take, on a machine that may be busy with something else.
    """

    def __init__(
        self, root: Path, originals: Mapping[str, bytes], seconds: float = 10.0, patience: float = 100.0
    ) -> None:
        self.root, self.here, self.seconds = root, root / "a" / "here", seconds
        self.patience = patience
        self.originals = {f"a/here/{path}": content for path, content in originals.items()}
        self.here.mkdir(parents=True)
        for path, content in self.originals.items():
            self._put(path, content)

    def run(self, given: Input) -> Outcome:
        """Change what is to be changed, run the command, judge it, and put everything back."""
        asked = {f"a/here/{path}": content for path, content in given.changes.items()}
        for path, content in asked.items():
            self._put(path, content)
        before, changed = self._state(), set[str]()
        try:
            started = time.monotonic()
            code, said, problem = self._call(given.words)
            seconds = time.monotonic() - started
            after = self._state()
            moved = {path for path in {*before, *after} if before.get(path) != after.get(path)}
            changed = {path for path in moved if not self._same(path, asked.get(path, self.originals.get(path)))}
            problem = problem or self._judged(given, code, said, changed)
        finally:
            self._restore({*asked, *changed})
        return Outcome(code, said, problem, seconds)

    def _state(self) -> dict[str, tuple[int, ...]]:
        """Every file, link and empty folder by its path, with what changes when somebody writes to it."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            for name in [*(name for name in files if name not in ALONE), *([] if folders or files else ["."])]:
                path = os.path.join(folder, name) if name != "." else folder
                about = os.lstat(path)
                unmoved = (about.st_ino, about.st_size, about.st_mtime_ns) if name != "." else ()
                found[os.path.relpath(path, self.root)] = (about.st_mode, *unmoved)
        return found

    def _same(self, path: str, content: bytes | str | None) -> bool:
        target = self.root / path
        if not isinstance(content, bytes):
            return content is None and not os.path.lexists(target)
        return target.is_file() and not target.is_symlink() and target.read_bytes() == content

    def _call(self, words: Sequence[str]) -> tuple[int | None, str, str | None]:
        """Exit code, what stderr was told, and what went wrong."""
        out, err, outside = io.StringIO(), io.StringIO(), Path.cwd()
        os.chdir(self.here)
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                _watched(self.seconds, self.patience),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                code = main.main(list(words))
            return code, err.getvalue(), None
        except Hang:
            return None, err.getvalue(), f"takes longer than {self.seconds:g} s, at {_place()}"
        except BaseException as error:
            return None, err.getvalue(), f"{type(error).__name__} at {_place()}"
        finally:
            os.chdir(outside)

    def _judged(self, given: Input, code: int | None, said: str, changed: set[str]) -> str | None:
        if code not in (0, 1, 2):
            return f"exit code {code}"
        if "Traceback (most recent call last)" in said:
            return "a traceback"
        if found := re.search(r"this is a defect of leap: (\w+: .{0,80})", said):
            return f"a defect: {self._where(given) or found[1]}"
        if "out of memory" in said:
            return "out of memory"
        told = [line for line in said.splitlines() if line.startswith("leap: ")]
        if code and len(told) != 1:
            return f"{len(told)} messages with exit code {code}"
        if len(said) > LONGEST:
            return f"a message of {len(said) // 1000} thousand characters"
        if found := re.search(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]", said):
            return f"a message with the control character {found[0]!r}"
        allowed = () if code == 2 else tuple(_written(path) for path in given.writes)
        if code == 1 and "it was removed" not in said and "met NaN or infinity" not in said:
            allowed = ()
        if strange := sorted(path for path in changed if not path.startswith(allowed or "\0")):
            return f"exit code {code}, and changed {_general(strange[0])}"
        if (
            given.page
            and given.marker
            and (page := self.here / given.page).exists()
            and given.marker in page.read_text()
        ):
            return "a page that shows what it should escape"
        return None

    def _where(self, given: Input) -> str:
        """The line of ours that raised, from the same command once more."""
        trouble: list[BaseException] = []
        tell = main._tell
        main._tell = lambda error: trouble.append(error) or 1  # type: ignore[func-returns-value]
        try:
            self._call(given.words)
        finally:
            main._tell = tell
        return _place(trouble[0]) if trouble else ""

    def _put(self, path: str, content: bytes | str | None) -> None:
        target = self.root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        if content is None:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        elif content == FOLDER:
            target.mkdir()
        elif content == LINK:
            target.symlink_to("nowhere")
        else:
            os.mkfifo(target)

    def _restore(self, paths: set[str]) -> None:
        for path in paths:
            self._put(path, self.originals.get(path))
        for folder, _, _ in os.walk(self.root, topdown=False):  # what is empty now was made by the command
            if Path(folder) not in (self.root, self.here) and not os.listdir(folder):
                os.rmdir(folder)


def _written(path: str) -> str:
    return os.path.normpath(f"a/here/{path}") + "/" * path.endswith("/")


def _general(path: str) -> str:
    """A path without what differs from case to case."""
    return re.sub(r"\d+", "N", path.removeprefix("a/here/"))


def _place(error: BaseException | None = None) -> str:
    """The innermost line of ours of an exception, and what it was."""
    error = error or sys.exc_info()[1]
    assert error is not None
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if re.search(r"/(leap|tasks|envs)/", frame.filename)] or frames
    where = "/".join(Path(ours[-1].filename).parts[-2:])
    return f"{where}:{ours[-1].lineno} ({type(error).__name__}: {' '.join(str(error).split())[:80]})"


@contextlib.contextmanager
def _watched(seconds: float, patience: float) -> Iterator[None]:
    """Raise `Hang` after so much processor time, and after so much of the clock's."""

    def told(number: int, frame: object) -> None:
        raise Hang

    kept = {number: signal.signal(number, told) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    # leap's own SIGALRM, of --max-time, ends a command that only waits as well, with an exit code that is not expected
    signal.setitimer(signal.ITIMER_REAL, patience)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def added_command(name: str, body: Callable[[Sequence[str]], int]) -> Iterator[None]:
    """Make a function a command of `leap` for a while."""
    module = types.ModuleType(f"leap_command_{name}")
    module.main = body  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    main.COMMANDS[name] = (module.__name__, "")
    try:
        yield
    finally:
        del main.COMMANDS[name], sys.modules[module.__name__]


def load(argv: Sequence[str]) -> int:
    """`leap.load` as a command."""
    import leap

    try:
        leap.load(argv[0])
    except LeapError as error:
        assert str(error)
        raise
    return 0
