"""Processes that torchrun started: which one this is, and waiting for the others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple


class Place(NamedTuple):
    """This process among all; a program started without torchrun is alone."""

    rank: int
    world: int

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


def place() -> Place:
    """From torchrun's environment variables.

    Example:
        >>> place()                                         # not under torchrun
        Place(rank=0, world=1)
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    return Place(int(os.environ.get("RANK", 0)) if world > 1 else 0, world)


@contextlib.contextmanager
def group() -> Iterator[Place]:
    """Join the processes for as long as the context lasts; does nothing for a process that is alone."""
    here = place()
    if here.world == 1:
        yield here
        return
    from datetime import timedelta

    import torch.distributed as dist

    # gloo on any device: what is exchanged here is who has finished, not tensors
    dist.init_process_group("gloo", timeout=timedelta(hours=24))
    try:
        yield here
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Return once every process has come here."""
    if place().world > 1:
        import torch.distributed as dist

        dist.barrier()
