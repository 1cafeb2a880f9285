"""How much memory a run has needed at most, as its rows tell it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

RESIDENT, GPU = "memory/peak_mib", "memory/gpu_peak_mib"  # keys of metrics.jsonl, see docs/metrics.md
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peaks(device: torch.device) -> Callable[[], dict[str, float | None]]:
    """Begin to watch the memory of this process; what is returned says, in MiB, how much it was at most since then.

    Resident memory counts what stood there before. Linux lets its mark be set back; elsewhere, and where a container
    forbids that, it is the highest of the process's whole life, so of an earlier run in it too. On a GPU the
    memory of torch's tensors there is told as well.

    Example:
        >>> held = peaks(torch.device("cpu"))
        >>> x = torch.ones(2**26)  # 256 MiB
        >>> held()["memory/peak_mib"] > 256
        True
    """
    with suppress(OSError):  # no Linux, or not allowed
        _CLEAR.write_text("5")
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)

    def read() -> dict[str, float | None]:
        found: dict[str, float | None] = {RESIDENT: _resident() / 2**20}
        return found | ({GPU: torch.cuda.max_memory_allocated(device) / 2**20} if cuda else {})

    return read


def _resident() -> int:
    """Bytes; of this program alone, where `getrusage` on Linux counts what started it too."""
    if _STATUS.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)):
        return 1024 * int(found[1])
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
