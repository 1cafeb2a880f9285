"""The US Postal Service's digits as text, `zip.train.gz` and `zip.test.gz`.

A line is a digit and 256 values from -1 (paper) to 1 (ink), row by row
(`Hastie, Tibshirani and Friedman <https://hastie.su.domains/ElemStatLearn/>`_).
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from tasks.image_files import LARGEST, UNREADABLE, ImageSet, bad, check, unread

SIDE = 16
"""Height and width of the pictures in pixels."""

_LONGEST_LINE = 1 << 13  # characters; the files have some 2,000


def read_usps(name: str, train: Path, test: Path) -> ImageSet:
    """The set of two files, grey of a value v being 255 (v + 1) / 2, rounded to the nearest (halves to even).

    Raises:
        UsageError: a file is missing, damaged or too large, or a line is not what it should be.
    """
    parts = [read_part(path) for path in (train, test)]
    images, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
    split = np.repeat([True, False], [len(part[1]) for part in parts])
    return check(ImageSet(name, images[..., None], labels, split, tuple("0123456789")), train)


def read_part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 16, 16] and labels int64 [N] of one file.

    Raises:
        UsageError: as `read_usps`.
    """
    images, labels = bytearray(), list[int]()
    try:
        with gzip.open(path) as file:
            while line := file.readline(_LONGEST_LINE):
                label, pixels = _parse(path, line, len(labels) + 1)
                images += pixels.tobytes()
                labels.append(label)
                if len(images) > LARGEST // 4:
                    raise bad(path, f"has more than {len(labels) - 1} lines, which is more than are read")
    except UNREADABLE as error:
        raise unread(path, error) from error
    if not labels:
        raise bad(path, "holds no digits")
    return np.frombuffer(images, np.uint8).reshape(-1, SIDE, SIDE), np.array(labels, np.int64)


def _parse(path: Path, line: bytes, number: int) -> tuple[int, np.ndarray]:
    """The digit of a line, and its pixels."""
    try:
        values = np.array(line.split(), dtype=np.float64)
    except ValueError as error:
        raise bad(path, f"has something else than numbers in line {number} ({error})") from error
    if len(values) != 1 + SIDE * SIDE:
        raise bad(path, f"has {len(values)} numbers in line {number}, expected a digit and {SIDE * SIDE} values")
    label, greys = float(values[0]), values[1:]
    if label not in range(10):
        raise bad(path, f"has digit {label} in line {number}, expected 0 to 9")
    if not (np.abs(greys) <= 1).all():
        raise bad(path, f"has values from {greys.min()} to {greys.max()} in line {number}, expected -1 to 1")
    # In thousandths, as the files write them, so that halves are halves on every machine.
    return int(label), (np.rint(1000 * (greys + 1)) * 255 / 2000).round().astype(np.uint8)
