"""Drawings of the characters of alphabets, the form in which Omniglot and the embedded glyphs reach a task family.

Also where they are kept between runs: decoding and drawing take seconds, reading the result back does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leap.cache import cache_folder
from leap.errors import UsageError

SIZE = 28
"""Height and width of a drawing in pixels."""

_DIGEST = 32  # bytes of SHA-256 behind a kept file's content


class Drawings(NamedTuple):
    """Alphabets in the order of their names, with every drawing of every character."""

    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]  # an alphabet: uint8 [characters, drawings, 28, 28], ink 255 on a 0 page
    characters: tuple[tuple[str, ...], ...]  # names of the characters, one for each row of the alphabet's images


def check(drawings: Drawings) -> Drawings:
    """The same drawings, once they are known to be what `Drawings` promises.

    Raises:
        UsageError: names out of order or twice, counts that differ, or images of another shape or type; the message
            names the alphabet and the value.

    Example:
        >>> blank = np.zeros((2, 5, 28, 28), np.uint8)
        >>> check(Drawings(("Runes",), (blank,), (("f", "u"),))).names
        ('Runes',)
    """
    names, images, characters = drawings
    if not len(names) == len(images) == len(characters):
        raise UsageError(
            f"{len(names)} alphabets have {len(images)} arrays of images and {len(characters)} lists of characters; "
            "give one of each for every alphabet"
        )
    for before, after in itertools.pairwise(names):
        if before >= after:
            raise UsageError(f"alphabet {after!r} stands after {before!r}; sort the names and give each once")
    for name, array, labels in zip(names, images, characters, strict=True):
        _check_alphabet(name, array, labels)
    counts = {array.shape[1]: name for name, array in zip(names, images, strict=True)}
    if len(counts) > 1:
        few, many = min(counts), max(counts)
        raise UsageError(
            f"alphabet {counts[few]!r} has {few} drawings a character and {counts[many]!r} has {many}; "
            "give as many to each"
        )
    return drawings


def _check_alphabet(name: str, array: np.ndarray, labels: tuple[str, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise UsageError(f"alphabet {name!r}: images must be a uint8 array (ink 255 on a 0 page), got {found}")
    if array.ndim != 4 or array.shape[2:] != (SIZE, SIZE) or 0 in array.shape:
        raise UsageError(
            f"alphabet {name!r}: images must be [characters, drawings, {SIZE}, {SIZE}], got {list(array.shape)}"
        )
    if len(labels) != len(array):
        raise UsageError(f"alphabet {name!r} has {len(labels)} names for {len(array)} characters; give one for each")


def cached(key: str, build: Callable[[], Drawings]) -> Drawings:
    """The drawings kept under `key`, or those that `build` makes, which are then kept.

    A damaged file is built anew; a folder that cannot be written to only costs the time of building again.

    Args:
        key: Names everything that decides the drawings; letters, digits, dots and dashes.
        build: Makes them.

    Raises:
        ValueError: a key that is no plain file name.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", key):
        raise ValueError(f"a cache key is made of small letters, digits, dots and dashes, got {key!r}")
    path = cache_folder() / f"{key}.npz"
    # Not there, damaged, or written in another form by another version: all are cured by building.
    with contextlib.suppress(OSError, ValueError, KeyError, UsageError):
        return _read(path)
    drawings = check(build())
    with contextlib.suppress(OSError):
        _write(path, drawings)
    return drawings


def _read(path: Path) -> Drawings:
    content = path.read_bytes()
    # Checked before numpy reads it, which answers damage with a dozen kinds of exceptions and warnings.
    if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
        raise ValueError(f"{path} is damaged")
    with np.load(io.BytesIO(content[:-_DIGEST]), allow_pickle=False) as stored:
        names = tuple(stored["names"].tolist())
        images = tuple(stored[f"images{i}"] for i in range(len(names)))
        characters = tuple(tuple(stored[f"characters{i}"].tolist()) for i in range(len(names)))
    return check(Drawings(names, images, characters))


def _write(path: Path, drawings: Drawings) -> None:
    arrays = {f"images{i}": array for i, array in enumerate(drawings.images)}
    arrays |= {f"characters{i}": np.array(labels) for i, labels in enumerate(drawings.characters)}
    content = io.BytesIO()
    np.savez(content, names=np.array(drawings.names), **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another process may read or write the same file: it sees the old one or the whole new one.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.getbuffer())
            file.write(hashlib.sha256(content.getbuffer()).digest())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
