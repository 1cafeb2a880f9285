"""Loops in C where torch has no single call: compiled once for a machine, and done without where nothing compiles.

The first use on a machine asks its C compiler, which takes less than a second, and keeps the library in the cache
folder under a name made of the source, the flags, the compiler and the processor. `LEAP_NATIVE=0` in the environment
does without; so does a machine without a compiler. The results then differ by rounding.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leap.cache import cache_folder
from leap.errors import UsageError

FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fno-math-errno", "-shared", "-fPIC")
PARALLEL = ("-fopenmp",) if sys.platform == "linux" else ()  # elsewhere torch brings another library of threads
PATIENCE = 120  # seconds for a compiler
KINDS = {torch.float32: ("REAL=float", "LANE=int32_t"), torch.float64: ("REAL=double", "LANE=int64_t")}
"""The types of numbers that files in C are compiled for, and what they are called there."""
log = logging.getLogger(__name__)


class Functions:
    """Functions of a C file for one type of numbers, called with tensors for pointers and whole numbers for longs.

    Args:
        library: The compiled file.
        arguments: How many pointers and how many longs each function takes, in this order, after the number of threads
            (an int). It returns 0, or another number where it found no memory.
    """

    def __init__(self, library: ctypes.CDLL, arguments: Mapping[str, tuple[int, int]]) -> None:
        self._functions = {name: library[name] for name in arguments}
        for name, (pointers, numbers) in arguments.items():
            types: list[Any] = [ctypes.c_int, *[ctypes.c_void_p] * pointers, *[ctypes.c_long] * numbers]
            self._functions[name].argtypes = types

    def __call__(self, name: str, tensors: Sequence[Tensor], *numbers: int) -> None:
        """Call one; the tensors live until it is over, so that their addresses are theirs.

        Raises:
            MemoryError: it found no memory for its sums.
        """
        if self._functions[name](torch.get_num_threads(), *[tensor.data_ptr() for tensor in tensors], *numbers):
            raise MemoryError(f"{name} found no memory for its sums; make batches smaller")


def functions(source: Path, dtype: torch.dtype, arguments: Mapping[str, tuple[int, int]]) -> Functions | None:
    """Those of a file for a type of `KINDS`, or None where it cannot be compiled."""
    found = library(source, *KINDS[dtype])
    return None if found is None else Functions(found, arguments)


def unwatched() -> bool:
    """Whether nothing follows torch's calls: no transform, compiler or counter, which would not see loops in C."""
    return not (
        torch._C._are_functorch_transforms_active()  # there are no public questions
        or torch._C._len_torch_dispatch_stack()
        or torch.compiler.is_compiling()
    )


def library(source: Path, *definitions: str) -> ctypes.CDLL | None:
    """The functions of a C file, or None, with a word in the log, where they cannot be had.

    Args:
        source: The file.
        definitions: Of its macros: `"REAL=float"`.
    """
    return _library(source, definitions, compiler())


@functools.cache
def _library(source: Path, definitions: tuple[str, ...], by: str) -> ctypes.CDLL | None:
    if by.startswith("none"):
        log.info("%s is not compiled (%s); torch computes the same with more passes over memory", source.name, by)
        return None
    try:
        options = (*FLAGS, *PARALLEL, *(f"-D{definition}" for definition in definitions))
        text = b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
        digest = hashlib.sha256("\n".join((*options, by, _processor())).encode() + text).hexdigest()
        kept = cache_folder() / "native" / f"{source.stem}-{digest[:32]}.so"
        found = _kept(kept) or _compiled(source, options, kept)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        log.warning(
            "%s could not be compiled; torch computes the same with more passes over memory. %s (LEAP_NATIVE=0 does "
            "not try)", source.name, " ".join(told.split())[:300],
        )  # fmt: skip
        return None
    return found


@functools.cache
def compiler() -> str:
    """The C compiler and its version, or why there is none: `none (...)`.

    Raises:
        UsageError: LEAP_NATIVE is neither 0 nor 1.

    Example:
        >>> len(compiler().splitlines())
        1
    """
    wish = os.environ.get("LEAP_NATIVE", "1")
    if wish not in ("0", "1"):
        raise UsageError(f"LEAP_NATIVE must be 0 (no compiled loops) or 1, got {wish!r}")
    if wish == "0":
        return "none (LEAP_NATIVE=0)"
    path = _path()
    if path is None:
        return "none (no C compiler: cc, gcc or clang)"
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"none ({path} does not tell its version: {error})"
    return told.partition("\n")[0].strip()


def _path() -> str | None:
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")))), None)


def _kept(path: Path) -> ctypes.CDLL | None:
    """An earlier compilation; None where there is none, or no whole one."""
    if not path.is_file():
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        log.debug("%s is not used: %s", path, error)
        return None


def _compiled(source: Path, options: tuple[str, ...], kept: Path) -> ctypes.CDLL:
    """Compiled aside and then moved to its place, so that processes which start at once do not meet half a file."""
    with tempfile.TemporaryDirectory() as aside:
        made = Path(aside, kept.name)
        subprocess.run(
            [_path() or "cc", *options, str(source), "-o", str(made)],
            capture_output=True, text=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
        log.info("%s is compiled once for this machine and kept as %s", source.name, kept)
        near = kept.with_name(f"{kept.name}.{platform.node()}-{os.getpid()}.partial")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made, near)
            os.replace(near, kept)
        except OSError as error:  # a full disk, a home that cannot be written to: compiled again the next time
            with contextlib.suppress(OSError):
                near.unlink()
            log.warning("%s, compiled, is not kept: %s", source.name, error)
            return ctypes.CDLL(str(made))
    return ctypes.CDLL(str(kept))


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
