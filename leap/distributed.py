"""Processes that torchrun started: which one this is, its share of work and machine, and what they exchange."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from leap.errors import RunError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = "LEAP_PATIENCE_S"  # environment variable: seconds a process waits for the others in a meta-step


class Place(NamedTuple):
    """This process among all; a program started without torchrun is alone."""

    rank: int
    world: int

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` things are this process's: neighbours, and at most one more than any other process has.

        The first process has the smaller share where they differ, since it writes for all. There may be nothing in it.

        Example:
            >>> [list(range(5))[Place(rank, 3).share(5)] for rank in range(3)]
            [[0], [1, 2], [3, 4]]
        """
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)


class Exchange(Protocol):
    """How processes that work on one thing hear of each other. All make the same calls in the same order."""

    place: Place

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor (all of one shape), the same bits in each process."""

    def gather(self, thing: T) -> list[T]:
        """Every process's thing, by rank."""

    def tell(self, thing: T) -> T:
        """The first process's thing, in every process."""


class Alone:
    """The exchange of a process that has nobody to exchange with.

    Example:
        >>> Alone().gather("a"), Alone().tell("b")
        (['a'], 'b')
    """

    place = Place(0, 1)

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def gather(self, thing: T) -> list[T]:
        """The thing alone."""
        return [thing]

    def tell(self, thing: T) -> T:
        """The thing itself."""
        return thing


class Processes:
    """The exchange of processes in a `group`: NCCL between GPUs of their own, gloo for all else.

    Errors and objects always travel by gloo. Whether tensors take NCCL is decided together, at the first sum.
    """

    def __init__(self, place: Place, patience: timedelta) -> None:
        self.place, self._patience = place, patience
        self._lane: Any = None  # the process group that tensors on a GPU take; None: through the host
        self._chosen = False

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; the tensor is overwritten where that saves a copy.

        Raises:
            RunError: another process is gone, or did not come within the patience.
        """
        import torch.distributed as dist

        with self._expecting_all():
            if not self._chosen:
                self._lane, self._chosen = self._choose(tensor), True
            if self._lane is not None or tensor.device.type == "cpu":
                dist.all_reduce(tensor, group=self._lane)
                return tensor
            here = tensor.cpu()
            dist.all_reduce(here)
            return here.to(tensor.device)

    def gather(self, thing: T) -> list[T]:
        """Every process's thing, by rank.

        Raises:
            RunError: as `sum`.
        """
        import torch.distributed as dist

        found: list[Any] = [None] * self.place.world
        with self._expecting_all():
            dist.all_gather_object(found, thing)
        return found

    def tell(self, thing: T) -> T:
        """The first process's thing.

        Raises:
            RunError: as `sum`.
        """
        import torch.distributed as dist

        held = [thing]
        with self._expecting_all():
            dist.broadcast_object_list(held, src=0)
        return held[0]

    def _choose(self, tensor: Tensor) -> Any:
        """A process group over NCCL where every process has a GPU that no other has."""
        import torch
        import torch.distributed as dist

        own = None
        if tensor.device.type == "cuda" and dist.is_nccl_available():
            own = str(torch.cuda.get_device_properties(tensor.device).uuid)
        found: list[str | None] = [None] * self.place.world
        dist.all_gather_object(found, own)
        if None in found or len(set(found)) < len(found):
            return None
        return dist.new_group(backend="nccl", timeout=self._patience)

    def _expecting_all(self) -> contextlib.AbstractContextManager[None]:
        return _expecting_all(self.place, self._patience)


@contextlib.contextmanager
def _expecting_all(here: Place, patience: timedelta | None = None) -> Iterator[None]:
    """Say in words that another process is missed where torch.distributed finds that out."""
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises derives from it
        what = " ".join(str(error).split())[:200]
        late = f", or has not come within {patience.total_seconds():.0f} s ({PATIENCE})" if patience else ""
        raise RunError(
            f"process {here.rank} of {here.world}: another process of this job has ended{late}. Its own message, above "
            "or in its machine's log, tells why; start the same command again to go on from where it was saved last "
            f"[{what}]"
        ) from error


def place() -> Place:
    """From torchrun's environment variables.

    Example:
        >>> place()                                         # not under torchrun
        Place(rank=0, world=1)
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    return Place(int(os.environ.get("RANK", 0)) if world > 1 else 0, world)


def restartable() -> bool:
    """Whether torchrun, which starts a command again when a process dies, started this one."""
    return "TORCHELASTIC_RESTART_COUNT" in os.environ


def _local() -> Place:
    """This process among those on its machine."""
    world = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Place(int(os.environ.get("LOCAL_RANK", 0)) if world > 1 else 0, world)


def threads() -> int | None:
    """CPU threads for this process: its share of the cores it may use. None: it need not share, or was told.

    OMP_NUM_THREADS tells, unless it is 1, which is what torchrun sets by itself where nobody did.
    """
    if _local().world == 1 or os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return None
    return cores()


def cores() -> int:
    """This process's share of the cores that it and those beside it may use; at least 1."""
    held = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, held // _local().world)


def gpu(count: int) -> str:
    """The GPU of this process among `count` on its machine: its own where there are enough, else in turn."""
    here = _local()
    return "cuda" if here.world == 1 else f"cuda:{here.rank % count}"


def _store(here: Place, patience: timedelta) -> Any:
    """Where processes leave the addresses at which they can be reached, for this start alone."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=patience))
    return PrefixStore(agree(store, here, patience), store)


def agree(store: Any, here: Place, patience: timedelta) -> str:
    """A name for this start, the same in every process.

    torchrun keeps its store when it starts processes again, with the addresses of those that are gone; and several
    torchruns may count their restarts apart. So the first process makes a name up, and answers whoever asks.

    Args:
        store: A torch.distributed store, which may hold what earlier starts have left.
        here: This process.
        patience: How long the first process waits for the others.

    Raises:
        RuntimeError: some did not come.
    """
    own = uuid.uuid4().hex
    if not here.first:
        store.set(f"leap/asks/{here.rank}", own)
        name: str = store.get(f"leap/answer/{own}").decode()
        store.set(f"leap/{name}/{here.rank}", "came")
        return name
    missing, until = set(range(1, here.world)), time.monotonic() + patience.total_seconds()
    while missing:
        if time.monotonic() > until:
            raise RuntimeError(f"processes {sorted(missing)[:8]} did not come within {patience.total_seconds():.0f} s")
        for rank in missing:
            if store.check([f"leap/asks/{rank}"]):  # it may be one that is gone, whose answer nobody reads
                store.set(f"leap/answer/{store.get(f'leap/asks/{rank}').decode()}", own)
        missing = {rank for rank in missing if not store.check([f"leap/{own}/{rank}"])}
        time.sleep(0.01)
    return own


@contextlib.contextmanager
def group(patience: timedelta = timedelta(hours=24)) -> Iterator[Place]:
    """Join the processes for as long as the context lasts; does nothing for a process that is alone.

    Args:
        patience: How long to wait for the others before this process gives up.

    Raises:
        RunError: the others could not be reached.
    """
    here = place()
    if here.world == 1:
        yield here
        return
    import torch.distributed as dist

    try:
        store = _store(here, patience)
        # gloo on any device: what is exchanged here is who has finished, and objects
        dist.init_process_group("gloo", store=store, rank=here.rank, world_size=here.world, timeout=patience)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        what = " ".join(str(error).split())[:200]
        raise RunError(
            f"process {here.rank} of {here.world} could not join the others at {where}; start all of them with "
            f"torchrun, and see that this address can be reached from every machine [{what}]"
        ) from error
    yield here
    with _expecting_all(here):
        dist.barrier()  # nobody takes the connections down while another still reads from them
    # Left standing where an exception passes: with processes that may be gone, NCCL would wait to tear it down. The
    # connections close when this process ends, which is what tells the others.
    dist.destroy_process_group()


@contextlib.contextmanager
def together() -> Iterator[Exchange]:
    """Join the processes that train together; what they exchange with.

    Raises:
        RunError: as `group`.
        UsageError: the patience in the environment is no number of seconds.
    """
    patience = _patience(os.environ.get(PATIENCE, "1800"))
    with group(patience) as here:
        yield Alone() if here.world == 1 else Processes(here, patience)


def _patience(text: str) -> timedelta:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 1e8:
        raise UsageError(f"{PATIENCE} must be a number of seconds from 1 to 1e8, got {text!r}")
    return timedelta(seconds=seconds)


def wait() -> None:
    """Return once every process has come here."""
    if place().world > 1:
        import torch.distributed as dist

        with _expecting_all(place()):
            dist.barrier()
