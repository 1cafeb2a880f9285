"""Where workers go: the cores and GPUs of this machine, shared out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Place(NamedTuple):
    """Where a worker's runs happen."""

    cores: tuple[int, ...]
    """The cores they are pinned to; none: wherever the system puts them."""
    threads: int
    gpu: str | None = None
    """The one GPU they see, as CUDA_VISIBLE_DEVICES names it."""


def places(count: int, cores: Sequence[int], threads: int, gpus: Sequence[str] = ()) -> list[Place]:
    """Where `count` workers go: equal shares of the cores, and GPUs in turn.

    Args:
        count: Workers.
        cores: The cores there are; none leaves workers where the system puts them.
        threads: How many threads may be busy at once.
        gpus: Names of GPUs.

    Example:
        >>> places(2, [0, 1, 2, 3, 4], 5, ["0"])
        [Place(cores=(0, 1), threads=2, gpu='0'), Place(cores=(2, 3, 4), threads=3, gpu='0')]
    """
    found = []
    for i in range(count):
        share = tuple(cores[i * len(cores) // count : (i + 1) * len(cores) // count])
        if cores and not share:  # more workers than cores
            share = (cores[i % len(cores)],)
        found.append(Place(share, len(share) or max(1, threads // count), gpus[i % len(gpus)] if gpus else None))
    return found


def machine(jobs: int | None, device: str, runs: int) -> list[Place]:
    """A place for each worker on this machine: `jobs` of them, by default one a GPU, without GPUs one a core.

    Args:
        jobs: Workers, as asked for.
        device: The setting of that name. With `auto` and `cuda` workers take all GPUs in turn; one with a number is
            shared by all of them.
        runs: More workers than runs have nothing to do.
    """
    held, threads, gpus = _cores(), _threads(QUOTA), _gpus(device)
    on_cores = device == "cpu" or (device == "auto" and not gpus)
    count = jobs or len(gpus) or (min(len(held), threads) if on_cores else 1)
    # A quota is time on any core: pinned to a few, processes of other containers would compete for the same ones.
    pinned = held if hasattr(os, "sched_setaffinity") and threads >= len(held) else []
    return places(max(1, min(count, runs)), pinned, min(len(held), threads), gpus)


def settle(place: Place) -> None:
    """Make the place this process's own. Before torch is imported, whose threads stay where they were started."""
    if place.cores:
        os.sched_setaffinity(0, place.cores)
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    os.environ["OMP_NUM_THREADS"] = str(place.threads)
    import torch

    torch.set_num_threads(place.threads)


def _cores() -> list[int]:
    """The cores that this process may use; those of one physical core, and of one socket, stand side by side."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0), key=_topology)
    return list(range(os.cpu_count() or 1))


def _topology(core: int) -> tuple[int, int, int]:
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text()), core
    except (OSError, ValueError):  # the system does not tell
        return 0, core, core


def _threads(quota: Path) -> int:
    """How many cores' time a container may use; without a limit, all cores'."""
    cores = os.cpu_count() or 1
    try:
        most, period = quota.read_text().split()
        return cores if most == "max" else max(1, min(cores, round(int(most) / int(period))))
    except (OSError, ValueError):  # no such limit on this system
        return cores


def _gpus(device: str) -> list[str]:
    if device not in ("auto", "cuda"):
        return []
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    return known[: torch.cuda.device_count()]
