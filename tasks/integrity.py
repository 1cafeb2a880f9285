"""Whether a file of a data set is whole: by its published checksum, or by those that its own format carries."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Literal

State = Literal["official", "whole", "other", "damaged", "missing"]
"""Of a file's place: the official bytes; a whole file whose authors publish no checksum; another whole file in place of
the official one; something unreadable; nothing."""
GOOD: tuple[State, ...] = ("official", "whole", "other")

_PIECE = 1 << 20
_BROKEN = (OSError, EOFError, RuntimeError, ValueError, TypeError, zipfile.BadZipFile, tarfile.TarError, zlib.error)


def state(path: Path, md5: str | None) -> State:
    """What is in a file's place. Reads every byte.

    Args:
        path: The place; its ending tells the format.
        md5: The published checksum, if there is one.
    """
    if not path.is_file():
        return "missing"
    try:
        if md5 is not None and digest(path, "md5") == md5:
            return "official"
    except OSError:
        return "damaged"
    if not whole(path, path.suffix):
        return "damaged"
    return "whole" if md5 is None else "other"


def digest(path: Path, name: str) -> str:
    """A file's checksum in hexadecimal; `name` is one that `hashlib` knows."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def whole(path: Path, ending: str) -> bool:
    """Whether a file can be read to its end, by its ending (`_CHECKS`); of another one it cannot be told.

    All but `.tar` carry a checksum of what is in them, so one altered byte is noticed.
    """
    check = _CHECKS.get(ending)
    try:
        return check is not None and check(path)
    except _BROKEN:
        return False


def _zip(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


def _gzip(path: Path) -> bool:
    with gzip.open(path) as file:
        read = 0
        while piece := file.read(_PIECE):
            read += len(piece)
    return read > 0  # zero bytes are no archive, but gzip reads them as one of nothing


def _mat(path: Path) -> bool:
    from scipy.io import loadmat

    try:
        return bool(loadmat(path))
    except MemoryError:
        raise
    except Exception:  # scipy's reader raises whatever damage makes it stumble upon
        return False


def _tar(path: Path) -> bool:
    with tarfile.open(path) as archive:
        return bool(archive.getmembers())


_CHECKS = {".zip": _zip, ".npz": _zip, ".gz": _gzip, ".tgz": _gzip, ".mat": _mat, ".tar": _tar}
