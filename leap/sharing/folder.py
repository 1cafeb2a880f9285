"""The folder that an export is: which files it may hold, and how it comes into being in one step."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from leap.errors import UsageError
from leap.layout import Layout

FORMAT = 1
INITIALIZATION, RATES, LAYOUT, CONFIG = "initialization.safetensors", "rates.safetensors", "layout.json", "config.yaml"
PROVENANCE, MODEL, CARD = "provenance.json", "model.py", "README.md"
NAMES = (INITIALIZATION, RATES, LAYOUT, CONFIG, PROVENANCE, MODEL, CARD)
"""All that an export may hold."""


def layout_document(layout: Layout, dtype: str, network: Mapping[str, Any] | None) -> dict[str, Any]:
    """What layout.json tells: names and shapes in the order of the vector, its parts, its type, its network.

    Example:
        >>> layout_document(Layout(("w", "b"), ((2, 3), (2,)), 0, 8), "float32", None)["n"]
        8
    """
    return {
        "format": FORMAT,
        "names": list(layout.names),
        "shapes": [list(shape) for shape in layout.shapes],
        "trunk": layout.trunk,
        "shared": layout.shared,
        "n": layout.n,
        "dtype": dtype,
        "network": None if network is None else dict(network),
    }


def check_target(folder: Path, initialization: bytes) -> Path:
    """The folder in full, if an export of this initialization may be written there.

    Raises:
        UsageError: it is a file, the current folder, holds other files, or the export of another run.
    """
    target = folder.expanduser().resolve()
    if target.exists() and not target.is_dir():
        raise UsageError(f"{folder} is a file; choose another --to")
    if target == Path.cwd().resolve() or target == Path(target.anchor):
        raise UsageError(f"--to {folder} is the current folder, or all there is; name a new one in it")
    found = sorted(path.name for path in target.iterdir()) if target.exists() else []
    if strangers := [name for name in found if name not in NAMES]:
        raise UsageError(f"{folder} holds other files ({_listed(strangers)}); choose another --to")
    held = target / INITIALIZATION
    if found and (not held.is_file() or held.read_bytes() != initialization):
        raise UsageError(f"{folder} holds the export of another run; remove it first, or choose another --to")
    return target


def place(target: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder of these files in one step: whatever ends the writing leaves what was there before.

    Args:
        target: From `check_target`; what it holds is replaced whole.
        files: Contents by name.

    Raises:
        UsageError: as `check_target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    short = target.name[:200]  # a name may have 255 bytes
    staged, old = (target.with_name(f".{short}.{end}") for end in ("new", "old"))
    with _alone(target.parent):
        if old.exists() and not target.exists():  # a kill between the two renamings of an earlier export
            old.rename(target)
        check_target(target, files[INITIALIZATION])  # what came back may be another run's
        for leftover in (staged, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            staged.mkdir()
            for name, content in files.items():
                with (staged / name).open("xb") as handle:
                    handle.write(content)
                    handle.flush()
                    os.fsync(handle.fileno())
            _swap(staged, target, old)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise


def _swap(staged: Path, target: Path, old: Path) -> None:
    """Put one folder in the place of another, or of nothing."""
    if not target.exists():
        staged.rename(target)
        return
    target.rename(old)
    try:
        staged.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Wait until no other export writes beside this one; on a file system without locks, hope so."""
    import fcntl

    handle = os.open(parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name)[1:-1] for name in names[:3]) + (", ..." if len(names) > 3 else "")
