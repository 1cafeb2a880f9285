"""Labelled images read from files into arrays: MNIST's idx format, and `.npz`.

Files come from anywhere, so what their headers claim is checked before it costs memory, and nothing is unpickled.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leap.errors import UsageError

LARGEST = 1 << 30
"""Bytes that the arrays of a file may have."""
LONGEST_SIDE = 512
"""Height and width that an image may have."""

_BYTES = 0x08  # the idx format's type of unsigned bytes, the only one that images and labels use
_PIECE = 1 << 20
_CURE = "put a whole copy in its place"
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError,
    SyntaxError,
)  # fmt: skip


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
        raise _bad(path, f"holds images {images.dtype} {list(shape)}, expected uint8 [N, H, W] or [N, H, W, 3]")
    if max(shape[1:3]) > LONGEST_SIDE:
        raise _bad(path, f"holds images of {shape[1]} x {shape[2]}, at most {LONGEST_SIDE} x {LONGEST_SIDE} are read")
    if labels.dtype != np.int64 or labels.shape != shape[:1] or split.shape != shape[:1]:
        raise _bad(
            path, f"holds {shape[0]} images, {labels.dtype} labels {list(labels.shape)} and split {list(split.shape)}"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise _bad(path, f"holds labels from {labels.min()} to {labels.max()} for {len(classes)} classes")
    if split.all() or not split.any():
        raise _bad(path, f"holds no {'test' if split.all() else 'training'} images of {name}")
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
            content = _read_most(file, size + 1)
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}; {_CURE}") from error
    except _UNREADABLE as error:
        raise _bad(path, f"is damaged ({str(error) or type(error).__name__})") from error
    if len(content) != size:
        more = f"only {len(content)}" if len(content) < size else "more"
        raise _bad(path, f"should hold {size} bytes, {' x '.join(map(str, shape))}, and holds {more}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _idx_shape(path: Path, file: gzip.GzipFile) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, _BYTES]) or not 1 <= magic[3] <= 3:
        raise _bad(path, f"begins with {magic.hex(' ') or 'nothing'}, an idx file of bytes begins with 00 00 08")
    shape = struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
    if math.prod(shape) > LARGEST:
        raise _bad(path, f"claims {' x '.join(map(str, shape))} bytes, at most {LARGEST} are read")
    return shape


def _read_most(file: gzip.GzipFile, size: int) -> bytearray:
    """Up to `size` bytes. Piece by piece: a single read makes room for all that the header claims."""
    content = bytearray()
    while piece := file.read(min(_PIECE, size - len(content))):
        content += piece
    return content


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, 1] and labels int64 [N] of two idx files that belong together.

    Raises:
        UsageError: as `read_idx`; or one holds no images, the other no labels, or not as many.
    """
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3:
        raise _bad(images, f"has {pixels.ndim} dimensions, images have 3 (magic number 2051)")
    if classes.ndim != 1:
        raise _bad(labels, f"has {classes.ndim} dimensions, labels have 1 (magic number 2049)")
    if len(pixels) != len(classes):
        raise _bad(labels, f"holds {len(classes)} labels for the {len(pixels)} images of {images.name}")
    return pixels[..., None], classes.astype(np.int64)


def read_npz(name: str, path: Path) -> ImageSet:
    """A set from an `.npz` file.

    Its arrays: `images` uint8 [N, H, W] or [N, H, W, 3], `labels` int64 [N] from 0, `split` [N] of `train` and `test`,
    and, where there are names, `class_names` in the order of the labels. Others are left alone.

    Raises:
        UsageError: the file is missing, damaged, too large, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [entry.removesuffix(".npy") for entry in archive.namelist()]
            if missing := {"images", "labels", "split"} - set(members):
                raise _bad(path, f"has no array {' and no '.join(sorted(missing))}, only {sorted(members)}")
            wanted = [n for n in ("images", "labels", "split", "class_names") if n in members]
            for member in wanted:
                _check_member(archive, member)
        with np.load(path, allow_pickle=False) as stored:
            arrays: dict[str, np.ndarray] = {str(member): stored[member] for member in wanted}
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}; {_CURE}") from error
    except _UNREADABLE as error:
        raise _bad(path, f"is damaged ({str(error) or type(error).__name__})") from error
    return check(_assemble(name, path, arrays), path)


def _check_member(archive: zipfile.ZipFile, member: str) -> None:
    """Refuse an array whose header claims more than the entry holds, before numpy makes room for it."""
    entry = archive.getinfo(f"{member}.npy")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        begin = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{member} holds Python objects, which are not read")
    if size > LARGEST or size != entry.file_size - begin:
        raise ValueError(f"{member} claims {size} bytes and has {entry.file_size - begin}; at most {LARGEST} are read")


def _assemble(name: str, path: Path, arrays: dict[str, np.ndarray]) -> ImageSet:
    images, labels, split = arrays["images"], arrays["labels"], arrays["split"]
    if other := sorted(set(split.ravel().tolist()) - {"train", "test"}, key=str):
        raise _bad(path, f"has a split with {other[0]!r}, expected train and test")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise _bad(path, f"holds labels {labels.dtype} {list(labels.shape)}, expected int64 [N]")
    if labels.size and labels.max() >= len(labels):
        raise _bad(path, f"holds {len(labels)} labels up to {labels.max()}; number the classes from 0")
    if "class_names" in arrays:
        classes = tuple(map(str, arrays["class_names"].ravel().tolist()))
    else:
        classes = tuple(map(str, range(int(labels.max()) + 1))) if labels.size else ()
    pixels = images[..., None] if images.ndim == 3 else images
    return ImageSet(name, pixels, labels.astype(np.int64), split == "train", classes)


def _bad(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} {what}; {_CURE}")
