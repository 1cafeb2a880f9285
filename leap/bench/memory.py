"""Peak memory of a piece of work, in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
import sys
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from leap.errors import RunError

Prepare = Callable[[], Callable[[], object]]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(prepare: Prepare, *, device: str = "cpu", threads: int | None = None) -> float:
    """Most memory that a piece of work needs beyond what stood there before it.

    Args:
        prepare: Returns the work; what it builds (network, inputs, imports) is not counted. It is sent to a new
            process, so it must be picklable: a function of a module, or a `functools.partial` of one.
        device: Where the work allocates; on a GPU torch's allocator is asked.
        threads: Of the new process; None: as many as this one has.

    Returns:
        Bytes. On a CPU they are resident memory of the whole process, so buffers of libraries count, and so do their
        threads at their first use. Nothing runs before: memory that an allocator keeps from an earlier run would hide
        a part of the peak.

    Raises:
        RunError: the process ended without an answer, as one that runs out of memory does.

    On Linux the kernel's high-water mark is read, reset just before the work; elsewhere it is that of the whole life of
    the process, so work that needs less than its preparation did counts as zero.
    """
    import torch

    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(send, prepare, device, threads or torch.get_num_threads()))
    process.start()
    send.close()
    try:
        used: float = receive.recv()
    except EOFError:
        process.join()
        raise RunError(
            f"the process that measured memory ended with code {process.exitcode} and no answer; its own message "
            "stands above, and -9 means that the system took its memory back"
        ) from None
    finally:
        receive.close()
    process.join()
    return used


def peak_tensors(work: Callable[[], object]) -> int:
    """Most bytes of tensors, made by a piece of work, that are alive at once: an exact count, the same every time.

    Args:
        work: What to run, once, in this process. Tensors that stood there before are not counted.

    Returns:
        Bytes, on all devices together. What an operator needs inside itself does not show; `peak_memory` sees that too,
        with the noise of allocators.

    Example:
        >>> import torch
        >>> x = torch.zeros(1000)
        >>> peak_tensors(lambda: x + x * 2), peak_tensors(lambda: x.mul_(2).view(10, 100)[3])  # two vectors; none
        (8000, 0)
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    known: dict[int, int] = {}  # bytes by storage alive; 0 for those that stood there before
    now = most = 0

    def forget(key: int) -> None:
        nonlocal now
        now -= known.pop(key)

    def see(tensor: Any, made: bool) -> Any:
        nonlocal now, most
        storage = tensor.untyped_storage()
        if id(storage) not in known:
            known[id(storage)] = storage.nbytes() if made else 0
            weakref.finalize(storage, forget, id(storage)).atexit = False
            now += known[id(storage)]
            most = max(most, now)
        return tensor

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            tree_map_only(Tensor, lambda tensor: see(tensor, False), (args, kwargs or {}))
            return tree_map_only(Tensor, lambda tensor: see(tensor, True), func(*args, **(kwargs or {})))

    with Watch():
        work()
    return most


def _child(send: Connection, prepare: Prepare, device: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    work = prepare()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = work()
        torch.cuda.synchronize(device)
        used = float(torch.cuda.max_memory_allocated(device) - before)
    else:
        before = _reset()
        kept = work()
        used = float(max(0, _peak() - before))
    del kept
    send.send(used)
    send.close()


def _reset() -> int:
    """Bytes in use now, or the highest so far where the mark cannot be set back to that."""
    try:
        _CLEAR.write_text("5")
    except OSError:  # no Linux, or a container that forbids it
        return _peak()
    return _from_status("VmRSS")


def _peak() -> int:
    """Most bytes in use so far, since the mark was reset where it could be."""
    if _STATUS.exists():
        return _from_status("VmHWM")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _from_status(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RunError(f"{_STATUS} has no line {key}; memory cannot be measured on this system")
    return 1024 * int(found[1])
