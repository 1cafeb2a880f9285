"""Arrays of MATLAB's files of version 5, as SVHN is distributed in them, unpacked piece by piece.

A file is a header and elements; an element is a type, a length and content. A compressed element holds one other, which
is an array: its class, its dimensions, its name and its numbers, column by column. (`MAT-File Format, MathWorks
<https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf>`_.)
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from tasks.image_files import LARGEST, PIECE, UNREADABLE, ImageSet, bad, check, read_most, unread

_HEADER = 128  # bytes
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_NUMERIC_CLASSES = range(6, 16)  # double to uint64; others are cells, structures, texts, functions
_COMPLEX = 0x08
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 64
_MOST_ARRAYS = 16


class _Array(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: str  # as numpy writes it
    size: int  # bytes of its numbers


def read_svhn(name: str, train: Path, test: Path) -> ImageSet:
    """Street View House Numbers, cropped digits, from `train_32x32.mat` and `test_32x32.mat`.

    `X` uint8 [32, 32, 3, N] and `y` [N, 1], in which 10 stands for the digit 0
    (`Netzer et al. 2011 <http://ufldl.stanford.edu/housenumbers/>`_).

    Raises:
        UsageError: a file is missing, damaged, too large, of another version, or holds other arrays.
    """
    shapes = [shapes_of(path) for path in (train, test)]
    counts = [_check_shapes(path, found) for path, found in zip((train, test), shapes, strict=True)]
    if sum(counts) * 3072 > LARGEST:
        raise bad(test, f"and {train.name} hold {sum(counts)} pictures, more than {LARGEST} bytes")
    images, labels = np.empty((sum(counts), 32, 32, 3), np.uint8), np.empty(sum(counts), np.int64)
    for path, rows in ((train, slice(0, counts[0])), (test, slice(counts[0], None))):
        _read_part(path, images[rows], labels[rows])
    return check(ImageSet(name, images, labels, np.repeat([True, False], counts), tuple("0123456789")), test)


def shapes_of(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and numpy's type of every array in a file, without unpacking their content.

    Raises:
        UsageError: the file is missing, damaged, or of another version than 5.
    """
    return {array.name: (array.shape, array.kind) for array, _ in _arrays(path)}


def _check_shapes(path: Path, found: dict[str, tuple[tuple[int, ...], str]]) -> int:
    """How many pictures there are, once there are labels for them."""
    if missing := {"X", "y"} - found.keys():
        raise bad(path, f"has no array {' and no '.join(sorted(missing))}, only {sorted(found)}")
    (images, kind), (labels, _) = found["X"], found["y"]
    if len(images) not in (3, 4) or images[:3] != (32, 32, 3) or kind != "u1":
        raise bad(path, f"holds X {kind} {list(images)}, expected u1 [32, 32, 3, N]")
    count = images[3] if len(images) == 4 else 1  # MATLAB drops a last dimension of 1
    if not count:
        raise bad(path, "holds no pictures")
    if len(labels) != 2 or sorted(labels) != sorted((count, 1)):
        raise bad(path, f"holds y {list(labels)} for {count} images")
    return count


def _read_part(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for array, stream in _arrays(path):
        try:
            if array.name == "X":
                _fill(images, stream)
                stream.finish()
            elif array.name == "y":
                labels[:] = _digits(path, np.frombuffer(stream.exactly(array.size), array.kind))
                stream.finish()
        except UNREADABLE as error:
            raise unread(path, error) from error


def _fill(images: np.ndarray, stream: _Stream) -> None:
    """Pictures [N, 32, 32, 3] from columns: each picture is whole, its channels one after another, turned over."""
    step = PIECE // 3072
    for begin in range(0, len(images), step):
        rows = images[begin : begin + step]
        planes = np.frombuffer(stream.exactly(rows.size), np.uint8).reshape(-1, 3, 32, 32)
        rows[:] = planes.transpose(0, 3, 2, 1)


def _digits(path: Path, digits: np.ndarray) -> np.ndarray:
    if digits.min() < 1 or digits.max() > 10 or (digits != np.floor(digits)).any():
        raise bad(path, f"holds labels from {digits.min()} to {digits.max()}, expected 1 to 9, and 10 for the digit 0")
    return digits.astype(np.int64) % 10


# The format


def _arrays(path: Path) -> Iterator[tuple[_Array, _Stream]]:
    """Every array of a file, and the stream that its numbers are read from."""
    try:
        with path.open("rb") as file:
            _check_header(path, file.read(_HEADER))
            for _ in range(_MOST_ARRAYS):
                if not (tag := file.read(8)):
                    return
                kind, size = struct.unpack("<II", tag)
                begin = file.tell()
                yield _array(_Stream(file, size, packed=kind == _COMPRESSED), kind)
                file.seek(begin + size)
            raise ValueError(f"it has more than {_MOST_ARRAYS} arrays")
    except UNREADABLE as error:
        raise unread(path, error) from error


def _check_header(path: Path, header: bytes) -> None:
    if header[124:] != b"\x00\x01IM":
        begin = header[:19].decode("latin-1")
        raise bad(path, f"begins with {begin!r}, expected MATLAB 5.0 MAT-file of a little-endian machine")


def _array(stream: _Stream, kind: int) -> tuple[_Array, _Stream]:
    if kind == _COMPRESSED:
        kind, _ = stream.tag()
    if kind != _MATRIX:
        raise ValueError(f"an element of type {kind} where an array should be")
    _, flags = stream.element(8)
    _, shape = stream.element(4 * _MOST_DIMENSIONS)
    _, name = stream.element(_LONGEST_NAME)
    if len(flags) != 8 or flags[0] not in _NUMERIC_CLASSES or flags[1] & _COMPLEX:
        raise ValueError(f"array {name.decode('latin-1')!r} is not one of real numbers")
    lengths = struct.unpack(f"<{len(shape) // 4}i", shape)
    numbers, size = stream.tag()
    found = _Array(name.decode("latin-1"), lengths, _NUMBERS[numbers], size)
    if min(lengths, default=-1) < 0 or math.prod(lengths) * np.dtype(found.kind).itemsize != size or size > LARGEST:
        raise ValueError(f"array {found.name!r} claims {list(lengths)} numbers in {size} bytes")
    return found, stream


class _Stream:
    """The content of an element, unpacked as it is read."""

    def __init__(self, file: BinaryIO, size: int, packed: bool) -> None:
        self.file, self.left = file, size
        self.unpacker = zlib.decompressobj() if packed else None
        self.waiting = b""  # content of an element so small that it stands in its tag

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""
        if self.waiting or not size:
            found, self.waiting = self.waiting[:size], self.waiting[size:]
            return found
        if self.unpacker is None:
            return self._stored(size)
        while not self.unpacker.eof:
            content = self.unpacker.unconsumed_tail or self._stored(PIECE // 16)
            if found := self.unpacker.decompress(content, size):
                return found
            if not content:
                break
        return b""

    def _stored(self, size: int) -> bytes:
        found = self.file.read(min(size, self.left))
        self.left -= len(found)
        return found

    def exactly(self, size: int) -> bytearray:
        """As many bytes."""
        found = read_most(self, size)
        if len(found) != size:
            raise ValueError(f"it ends {size - len(found)} bytes too early")
        return found

    def tag(self) -> tuple[int, int]:
        """Type and length of the next element, whose content is read next."""
        tag = bytes(self.exactly(8))
        kind, size = struct.unpack("<II", tag)
        if small := kind >> 16:  # the length stands in the upper half of the type, and the content behind it
            self.waiting = tag[4 : 4 + small]
            return kind & 0xFFFF, small
        return kind, size

    def element(self, longest: int) -> tuple[int, bytes]:
        """Type and content of the next element."""
        kind, size = self.tag()
        if size > longest:
            raise ValueError(f"an element of {size} bytes where at most {longest} make sense")
        padding = 0 if self.waiting else -size % 8
        return kind, bytes(self.exactly(size + padding)[:size])

    def finish(self) -> None:
        """Go to the end of the array, where the checksum is compared."""
        if len(read_most(self, 8)) == 8:
            raise ValueError("there is more behind its numbers")
        if self.unpacker is not None and not self.unpacker.eof:
            raise ValueError("it ends too early")
