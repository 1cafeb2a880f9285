"""Labelled images read from files into arrays: MNIST's idx format, and `.npz`.

Files come from anywhere, so what their headers claim is checked before it costs memory, and nothing is unpickled. What
the readers beside this one (`tasks.archives` and those that stand on it) share is here too.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from leap.errors import UsageError

LARGEST = 1 << 30
"""Bytes that the arrays of a file may have."""
LONGEST_SIDE = 512
"""Height and width that an image may have."""

PIECE = 1 << 20
"""Bytes read at a time."""
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods of zips that are read: others can ask for gigabytes to unpack a few bytes."""
CURE = "put a whole copy in its place"
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError, TypeError,
    SyntaxError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What gzip, zipfile, zlib and numpy raise on files that are cut short, altered, encrypted or made to deceive."""

_BYTES = 0x08  # the idx format's type of unsigned bytes, the only one that images and labels use


class ImageSet(NamedTuple):
    """A data set of labelled images."""

    name: str
    images: np.ndarray  # uint8 [N, H, W, C], C 1 (grey) or 3 (red, green, blue)
    labels: np.ndarray  # int64 [N], from 0
    split: np.ndarray  # bool [N], whether an image is for training
    class_names: tuple[str, ...]


def check(found: ImageSet, path: Path) -> ImageSet:
    """The same set, once it is known to be what `ImageSet` promises.

    Raises:
        UsageError: shapes, types or counts that do not fit together; the message names the file and the value.
    """
    name, images, labels, split, classes = found
    shape = images.shape
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in shape or shape[3] not in (1, 3):
        raise bad(path, f"holds images {images.dtype} {list(shape)}, expected uint8 [N, H, W] or [N, H, W, 3]")
    if max(shape[1:3]) > LONGEST_SIDE:
        raise bad(path, f"holds images of {shape[1]} x {shape[2]}, at most {LONGEST_SIDE} x {LONGEST_SIDE} are read")
    if labels.dtype != np.int64 or labels.shape != shape[:1] or split.shape != shape[:1]:
        raise bad(
            path, f"holds {shape[0]} images, {labels.dtype} labels {list(labels.shape)} and split {list(split.shape)}"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise bad(path, f"holds labels from {labels.min()} to {labels.max()} for {len(classes)} classes")
    if split.all() or not split.any():
        raise bad(path, f"holds no {'test' if split.all() else 'training'} images of {name}")
    return found


def read_idx(path: Path) -> np.ndarray:
    """The bytes of a gzipped idx file, uint8 [N, ...].

    Format: two zero bytes, the type, the number of dimensions, each dimension as a big-endian 32-bit number, the data
    (`LeCun, Cortes and Burges <http://yann.lecun.com/exdb/mnist/>`_).

    Raises:
        UsageError: the file is missing, no idx file, cut short, longer than its header says, or too large.
    """
    try:
        with gzip.open(path) as file:
            shape = _idx_shape(path, file)
            size = math.prod(shape)
            content = read_most(file, size + 1)
    except UNREADABLE as error:
        raise unread(path, error) from error
    if len(content) != size:
        more = f"only {len(content)}" if len(content) < size else "more"
        raise bad(path, f"should hold {size} bytes, {' x '.join(map(str, shape))}, and holds {more}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _idx_shape(path: Path, file: gzip.GzipFile) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, _BYTES]) or not 1 <= magic[3] <= 3:
        raise bad(path, f"begins with {magic.hex(' ') or 'nothing'}, an idx file of bytes begins with 00 00 08")
    shape = struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
    if math.prod(shape) > LARGEST:
        raise bad(path, f"claims {' x '.join(map(str, shape))} bytes, at most {LARGEST} are read")
    return shape


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""
        ...


def read_most(file: Readable, size: int) -> bytearray:
    """Up to `size` bytes. Piece by piece: a single read makes room for all that the header claims."""
    content = bytearray()
    while piece := file.read(min(PIECE, size - len(content))):
        content += piece
    return content


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, 1] and labels int64 [N] of two idx files that belong together.

    Raises:
        UsageError: as `read_idx`; or one holds no images, the other no labels, or not as many.
    """
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3:
        raise bad(images, f"has {pixels.ndim} dimensions, images have 3 (magic number 2051)")
    if classes.ndim != 1:
        raise bad(labels, f"has {classes.ndim} dimensions, labels have 1 (magic number 2049)")
    if len(pixels) != len(classes):
        raise bad(labels, f"holds {len(classes)} labels for the {len(pixels)} images of {images.name}")
    return pixels[..., None], classes.astype(np.int64)


def read_npz(name: str, path: Path) -> ImageSet:
    """A set from an `.npz` file.

    Its arrays: `images` uint8 [N, H, W] or [N, H, W, 3], `labels` int64 [N] from 0, `split` [N] of `train` and `test`,
    and, where there are names, `class_names` in the order of the labels. Others are left alone.

    Raises:
        UsageError: the file is missing, damaged, too large, or holds something else.
    """
    return check(_assemble(name, path, read_arrays(path, ("images", "labels", "split"), ("class_names",))), path)


def read_arrays(path: Path, names: Sequence[str], more: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` file by name: those in `names`, which must be there, and those in `more`, which may be.

    Raises:
        UsageError: the file is missing, damaged or too large, or holds Python objects or none of an array's name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [entry.removesuffix(".npy") for entry in archive.namelist()]
            if missing := set(names) - set(members):
                raise bad(path, f"has no array {' and no '.join(sorted(missing))}, only {sorted(members)}")
            return {member: _array(archive, member) for member in (*names, *more) if member in members}
    except UNREADABLE as error:
        raise unread(path, error) from error


def _array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    """An array, once its header is known to claim no more than the entry holds."""
    entry = archive.getinfo(f"{member}.npy")
    if entry.compress_type not in PACKINGS:
        raise ValueError(f"{member} is packed by method {entry.compress_type}, only stored and deflated are read")
    with archive.open(entry) as file:
        dtype, shape, order = _array_header(member, file)
        size, held = math.prod(shape) * dtype.itemsize, entry.file_size - file.tell()
        if size > LARGEST or size != held:
            raise ValueError(f"{member} claims {size} bytes and has {held}; at most {LARGEST} are read")
        content = read_most(file, size)
        file.read(1)  # the checksum is compared at the end
    return np.frombuffer(content, dtype).reshape(shape, order=order)


# Numpy's own reader takes the header for Python, and parses it with all that Python's parser raises and warns of.
_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[?biufcSUO][0-9]{0,9})', 'fortran_order': (False|True), 'shape': \(([0-9, ]{0,200})\), \} *\n"
)


def _array_header(member: str, file: Readable) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    """Type, shape and order of an array at its beginning (numpy's `numpy.lib.format`)."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError(f"{member} begins with {magic!r}, no array of numpy's")
    form = "<H" if magic[6] == 1 else "<I"
    (length,) = struct.unpack(form, file.read(struct.calcsize(form)))
    if not (found := _HEADER.fullmatch(file.read(min(length, PIECE)).decode("latin-1"))):
        raise ValueError(f"{member} has no readable header")
    dtype = np.dtype(found[1])
    if dtype.hasobject:
        raise ValueError(f"{member} holds Python objects, which are not read")
    return dtype, tuple(int(n) for n in found[3].split(",") if n.strip()), "F" if found[2] == "True" else "C"


def _assemble(name: str, path: Path, arrays: dict[str, np.ndarray]) -> ImageSet:
    images, labels, split = arrays["images"], arrays["labels"], arrays["split"]
    if other := sorted(set(split.ravel().tolist()) - {"train", "test"}, key=str):
        raise bad(path, f"has a split with {other[0]!r}, expected train and test")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise bad(path, f"holds labels {labels.dtype} {list(labels.shape)}, expected int64 [N]")
    if labels.size and labels.max() >= len(labels):
        raise bad(path, f"holds {len(labels)} labels up to {labels.max()}; number the classes from 0")
    if "class_names" in arrays:
        classes = tuple(map(str, arrays["class_names"].ravel().tolist()))
    else:
        classes = tuple(map(str, range(int(labels.max()) + 1))) if labels.size else ()
    pixels = images[..., None] if images.ndim == 3 else images
    return ImageSet(name, pixels, labels.astype(np.int64), split == "train", classes)


def bad(path: Path, what: str) -> UsageError:
    """The error about a file, to be raised: its name, what is wrong, and the cure.

    Example:
        >>> print(bad(Path("a.gz"), "begins with nothing"))
        a.gz begins with nothing; put a whole copy in its place
    """
    return UsageError(f"{path} {what}; {CURE}")


def unread(path: Path, error: BaseException) -> UsageError:
    """The error about a file that a library could not read, to be raised."""
    if isinstance(error, FileNotFoundError):
        return UsageError(f"there is no {path}; {CURE}")
    if isinstance(error, OSError) and error.errno:
        return UsageError(f"cannot read {path}: {error.strerror}; check what it is and its permissions")
    return bad(path, f"is damaged ({str(error) or type(error).__name__})")
