"""CIFAR-10 and CIFAR-100 as their authors distribute them for Python: pickles in a `.tar.gz`, or unpacked in a folder.

(`Krizhevsky 2009 <https://www.cs.toronto.edu/~kriz/cifar.html>`_.) The pickles are read by `tasks.plain_pickles`, which
runs nothing of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leap.errors import UsageError
from tasks import archives, plain_pickles
from tasks.image_files import CURE, LARGEST, ImageSet, bad, check

SIDE = 32
"""Height and width of the pictures in pixels."""


class Kind(NamedTuple):
    """The files of one of the two sets, and what they call things."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str  # the file with the names of the classes
    labels: str
    label_names: str


KINDS = {
    "cifar10": Kind(
        tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), "batches.meta", "labels", "label_names"
    ),
    "cifar100": Kind(("train",), ("test",), "meta", "fine_labels", "fine_label_names"),
}

_Batch = tuple[np.ndarray, np.ndarray]  # images uint8 [N, 3, 32, 32], labels int64 [N]


def read_cifar(name: str, path: Path) -> ImageSet:
    """One of `KINDS` from its archive or folder, pictures in the order of the archive's batches, training ones first.

    Raises:
        UsageError: as `tasks.archives.names`; a file is missing, is no such pickle or would run something, or its
            images, labels and names do not fit together; the message names the file.
    """
    kind = KINDS[name]
    files = (*kind.train, *kind.test, kind.names)
    there = {found.split("/")[-1]: found for found in archives.names(path) if found.split("/")[-1] in files}
    if missing := [file for file in files if file not in there]:
        raise UsageError(f"{path} has no {' and no '.join(missing)}; {CURE}")
    wanted = {full: file for file, full in there.items()}
    batches: dict[str, _Batch] = {}
    classes: tuple[str, ...] = ()
    for full, content in archives.contents(path, wanted, LARGEST):
        try:
            read = plain_pickles.load(content)
            if wanted[full] == kind.names:
                classes = _names(read, kind.label_names)
            else:
                batches[wanted[full]] = _batch(read, kind.labels)
        except ValueError as error:
            raise bad(path, f"has {full}, which is refused: {error}") from error
    return check(_joined(name, kind, batches, classes), path)


def _joined(name: str, kind: Kind, batches: dict[str, _Batch], classes: tuple[str, ...]) -> ImageSet:
    files = (*kind.train, *kind.test)
    labels = np.concatenate([batches[file][1] for file in files])
    split = np.repeat([file in kind.train for file in files], [len(batches[file][1]) for file in files])
    images, begin = np.empty((len(labels), SIDE, SIDE, 3), np.uint8), 0
    for file in files:
        planes = batches.pop(file)[0]  # let go of once it is copied, so that little is in memory twice
        images[begin : begin + len(planes)] = planes.transpose(0, 2, 3, 1)
        begin += len(planes)
    return ImageSet(name, images, labels, split, classes)


def _batch(read: dict[str, Any], labels: str) -> _Batch:
    pixels, numbers = read.get("data"), read.get(labels)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * SIDE * SIDE:
        found = list(pixels.shape) if isinstance(pixels, np.ndarray) else "no array"
        raise ValueError(f"its data is {found}, expected uint8 [N, {3 * SIDE * SIDE}]")
    if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 256 for n in numbers):
        raise ValueError(f"its {labels} are no list of numbers from 0 to 255")
    if len(numbers) != len(pixels):
        raise ValueError(f"it has {len(numbers)} {labels} for {len(pixels)} images")
    return pixels.reshape(-1, 3, SIDE, SIDE), np.array(numbers, np.int64)


def _names(read: dict[str, Any], label_names: str) -> tuple[str, ...]:
    found = read.get(label_names)
    if not isinstance(found, list) or not all(isinstance(name, (bytes, str)) for name in found):
        raise ValueError(f"its {label_names} are no list of names")
    return tuple(name if isinstance(name, str) else name.decode("latin-1") for name in found)
