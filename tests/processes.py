"""Processes for tests: real ones that torchrun starts, and threads that exchange as processes do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from leap.distributed import Place

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def torchrun_command(arguments, count: int, restarts: int = 0) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    command += ["--max-restarts", str(restarts), "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    return [*command, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}


def torchrun(arguments, count: int, cwd: Path, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    command = torchrun_command(arguments, count, restarts)
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)


class Table:
    """Where threads lay what they exchange."""

    def __init__(self, world: int) -> None:
        self.slots = [None] * world
        self.barrier = threading.Barrier(world, timeout=60)


class Thread:
    """The exchange of one thread among those at a table."""

    def __init__(self, rank: int, table: Table) -> None:
        self.place, self.table, self.sums = Place(rank, len(table.slots)), table, 0

    def gather(self, thing):
        self.table.slots[self.place.rank] = thing
        self.table.barrier.wait()
        found = list(self.table.slots)
        self.table.barrier.wait()
        return found

    def sum(self, tensor):
        self.sums += 1
        return torch.stack(self.gather(tensor.clone())).sum(dim=0)

    def tell(self, thing):
        return self.gather(thing)[0]


def in_threads(world: int, body: Callable[[Thread], object]) -> list:
    """What `body` returns in each of `world` threads; an exception in one ends all, and the first rank's is raised."""
    table = Table(world)

    def guarded(rank: int):
        try:
            return body(Thread(rank, table))
        except BaseException:
            table.barrier.abort()
            raise

    with ThreadPoolExecutor(world) as pool:
        futures = [pool.submit(guarded, rank) for rank in range(world)]
    errors = [future.exception() for future in futures if future.exception()]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
