"""Being told to end: by a scheduler, a lost terminal, a limit of processor time, or the time that was allowed.

Whoever is told raises an exception like Ctrl-C's in the main thread, so that what is under way is saved on its way out.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator

from leap.errors import RunError, UsageError

SIGNALS = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
"""What schedulers send before they kill (Slurm's `--signal=USR1@60`, Kubernetes' SIGTERM), where the system has it."""
TIME_UP = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, come again
MARGIN = 5.0  # seconds: processes that train together are not told in the same instant

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_deadline: float | None = None


class Stopped(KeyboardInterrupt):
    """Told to end by a signal: save, then end."""


class TimeUp(Stopped):
    """`--max-time` is over: save, then end."""


@contextlib.contextmanager
def heeding(told: Callable[[type[Stopped]], None]) -> Iterator[None]:
    """Call `told` in the main thread when this process is told to end, instead of being killed.

    A signal that is ignored stays so (`nohup`). In another thread than the main one nothing changes: whoever owns that
    decides about signals.

    Args:
        told: Is given the exception that fits; it may raise it, or see to it that it is raised soon.
    """
    before = {}
    try:
        for name in (*SIGNALS, "SIGALRM"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, lambda number, frame: told(_fitting(number)))
    except ValueError:  # not the main thread
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible(seconds: float | None = None) -> Iterator[None]:
    """Raise `Stopped` where this process is told to end, once, and `TimeUp` after so many seconds."""
    global _deadline
    ending = False

    def told(fitting: type[Stopped]) -> None:
        nonlocal ending
        if not ending:  # the second must not cut short what the first began
            ending = True
            raise fitting

    with heeding(told):
        if seconds is not None:
            _deadline = time.monotonic() + seconds
            signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        except RunError as error:
            if time_is_up() and os.environ.get("WORLD_SIZE", "1") != "1":
                raise TimeUp from error  # another process was told first, and is missed here
            raise
        finally:
            if seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
                _deadline = None


def time_is_up() -> bool:
    """Whether the time that `interruptible` allowed is over, or nearly: another process may have been told before."""
    return _deadline is not None and time.monotonic() > _deadline - MARGIN


def _fitting(number: int) -> type[Stopped]:
    return TimeUp if number == getattr(signal, "SIGALRM", None) else Stopped


def duration(text: str) -> float:
    """Seconds of a duration: `90`, `90s`, `15m`, `1h30m`, `2d`.

    Raises:
        UsageError: no duration, or none above zero.

    Example:
        >>> duration("1h30m"), duration("90"), duration("0.5h")
        (5400.0, 90.0, 1800.0)
    """
    parts = re.findall(r"(\d+\.?\d*|\.\d+)([smhd]?)", text)
    seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not 0 < seconds < 1e8:
        raise UsageError(f"--max-time must be a duration such as 90s, 15m or 1h30m, got {text!r}")
    return seconds
