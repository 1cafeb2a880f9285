"""Processes that share out a piece of work and wait in between, so that their start is not timed."""

from __future__ import annotations

import multiprocessing
import signal
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from leap.distributed import Place
from leap.errors import RunError

Job = Callable[[Place], Any]
"""Does the share of one process among some."""


class Crew:
    """Processes that do their shares of a job at the same time.

    Args:
        prepare: Called once in each process: jobs by name. It is sent there, so it must be picklable: a function of a
            module, or a `functools.partial` of one. What jobs return is sent back.
        size: How many processes.

    The processes end with the crew, or with the process that made it.

    Raises:
        RunError: a process ended without an answer, here or when it was given a job.
    """

    def __init__(self, prepare: Callable[[], Mapping[str, Job]], size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._lines: list[Connection] = []
        for _ in range(size):
            here, there = context.Pipe()
            # daemons: nobody has to end them where this process is interrupted
            context.Process(target=_serve, args=(there, prepare), daemon=True).start()
            there.close()
            self._lines.append(here)
        self.close = weakref.finalize(self, _hang_up, self._lines)
        _answers(self._lines)

    def __call__(self, job: str, size: int, threads: int) -> list[Any]:
        """What the first `size` processes return, in order, each with so many threads."""
        lines = self._lines[:size]
        for number, line in enumerate(lines):
            line.send((job, Place(number, size), threads))
        return _answers(lines)


def _answers(lines: Sequence[Connection]) -> list[Any]:
    try:
        return [line.recv() for line in lines]
    except EOFError:
        raise RunError(
            "a process of the benchmark ended before its work was done; its own message stands above"
        ) from None


def _serve(line: Connection, prepare: Callable[[], Mapping[str, Job]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches every process of a terminal; the one that asks ends all
    import torch

    jobs = prepare()
    line.send(None)
    while True:
        try:
            job, place, threads = line.recv()
        except EOFError:  # the crew is gone
            return
        torch.set_num_threads(threads)
        line.send(jobs[job](place))


def _hang_up(lines: Sequence[Connection]) -> None:
    for line in lines:
        line.close()
