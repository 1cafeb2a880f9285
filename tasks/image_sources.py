"""The vision data sets that are tasks: where their files are, and how each becomes pictures of one size.

A set is a folder beside Omniglot's, holding MNIST's four idx files or one `.npz` (`tasks.image_files.read_npz`).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from leap.errors import UsageError
from leap.randomness import generator
from tasks import cifar100, datasets
from tasks.image_files import ImageSet, check, read_npz, read_pair

SIDE = 32
"""Height and width of every picture in pixels."""
TEST_SHARE = 5
"""Of a set that comes without a training part, one image in so many is for testing."""

IMAGES, LABELS = "{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"


class Source(NamedTuple):
    """A task's files and what is made of them."""

    folder: str
    home: str  # where the set's authors have it
    classes: tuple[str, ...] | None = None  # of an idx file; None: an `.npz`
    chosen: tuple[str, ...] | None = None  # classes that the task consists of; None: all
    inverted: bool = False
    coarse: bool = False  # labels are CIFAR-100's superclasses


_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_FASHION = partial(Source, "fashion-mnist", "https://github.com/zalandoresearch/fashion-mnist", _CLOTHES)
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"

SOURCES: dict[str, Source] = {
    "mnist": Source("mnist", "http://yann.lecun.com/exdb/mnist/", _DIGITS),
    "fashion": _FASHION(),
    "ifashion": _FASHION(inverted=True),
    "kmnist": Source("kmnist", "https://github.com/rois-codh/kmnist", _KUZUSHIJI),
    "notmnist": Source("notmnist", "http://yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html", tuple("ABCDEFGHIJ")),
    "cifar10": Source("cifar10", _CIFAR),
    "cifar100": Source("cifar100", _CIFAR),
    "natural": Source("cifar100", _CIFAR, chosen=cifar100.half(artificial=False)),
    "artificial": Source("cifar100", _CIFAR, chosen=cifar100.half(artificial=True)),
    "cifar100_coarse": Source("cifar100", _CIFAR, chosen=cifar100.fine(cifar100.SUPERCLASSES), coarse=True),
    "natural_coarse": Source("cifar100", _CIFAR, chosen=cifar100.half(artificial=False), coarse=True),
    "artificial_coarse": Source("cifar100", _CIFAR, chosen=cifar100.half(artificial=True), coarse=True),
    "usps": Source("usps", "https://hastie.su.domains/ElemStatLearn/"),
    "gtsrb": Source("gtsrb", "https://benchmark.ini.rub.de/gtsrb_news.html"),
}
"""Tasks by name: `ifashion` is Fashion-MNIST inverted (255 - x), `natural` and `artificial` halves of CIFAR-100.

The `coarse` ones are told apart by superclass: 20 classes, 14 and 6, each with five times the images of a fine class.
"""


def load(names: Sequence[str], folder: Path | None = None) -> list[ImageSet]:
    """The sets of the tasks named, as pictures uint8 [N, 32, 32, C].

    Grey images of 28 x 28 get two pixels of background on each side, 16 x 16 ones are doubled (each pixel becomes four;
    nothing is blurred), and 32 x 32 ones stay.

    The official split is kept. A folder of idx files without a training part (KMNIST, notMNIST) is split here: one
    image in five of every class is for testing, the same ones for every seed, after repeated images were left out,
    so that no test image is a training image too.

    Args:
        names: Of `SOURCES`, each once.
        folder: Holds a folder for each set; by default that of `tasks.datasets.home`.

    Raises:
        UsageError: a name that is unknown or given twice, a set that is not there or damaged.
    """
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UsageError(f"task {repeated[0]!r} is named twice; name each once")
    read: dict[str, ImageSet] = {}
    found = []
    for name in names:
        source = _source(name)
        if source.folder not in read:
            read[source.folder] = _read(name, source, datasets.home() if folder is None else folder)
        found.append(_task(name, source, read[source.folder]))
    return found


def superset(name: str) -> str:
    """The data set that a task's images are of: tasks of one set have the same, `fashion-mnist` for `ifashion`."""
    return SOURCES[name].folder if name in SOURCES else name


def _source(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    close = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no image set {name!r}; {hint}Known: {', '.join(SOURCES)}")


def _read(name: str, source: Source, home: Path) -> ImageSet:
    place = home / source.folder
    if not place.is_dir():
        holds = "its idx files" if source.classes else "its .npz file"
        raise UsageError(
            f"{name} is not on this machine: no folder {place}. Put {holds} there (from {source.home}), set "
            f"LEAP_DATA or tasks.folder to the folder where {source.folder}/ lies, or leave {name} out of tasks.names"
        )
    if source.classes:
        return _read_idx(source.folder, place, source.classes)
    files = sorted(place.glob("*.npz"))
    if len(files) != 1:
        raise UsageError(f"{place} must hold one .npz file, it holds {[f.name for f in files]}; leave one there")
    found = read_npz(source.folder, files[0])
    return check(found._replace(images=_enlarge(found.images, files[0])), files[0])


def _read_idx(folder: str, place: Path, classes: tuple[str, ...]) -> ImageSet:
    """A set of idx files: both parts, or the test part alone, which is then split."""
    path = place / IMAGES.format("t10k")
    images, labels = read_pair(path, place / LABELS.format("t10k"))
    if any((place / pattern.format("train")).exists() for pattern in (IMAGES, LABELS)):
        more, their_labels = read_pair(place / IMAGES.format("train"), place / LABELS.format("train"))
        if more.shape[1:] != images.shape[1:]:
            raise UsageError(
                f"{place} holds images of {more.shape[1:3]} and of {images.shape[1:3]}; put whole copies there"
            )
        split = np.repeat([True, False], [len(more), len(images)])
        images, labels = np.concatenate([more, images]), np.concatenate([their_labels, labels])
    else:
        images, labels = _without_repeats(images, labels)
        split = _halve(labels, folder)
    return check(ImageSet(folder, _enlarge(images, path), labels, split, classes), path)


def _without_repeats(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of images that are the same byte for byte, the first."""
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    kept = np.sort(first)
    return images[kept], labels[kept]


def _halve(labels: np.ndarray, folder: str) -> np.ndarray:
    """Which images are for training: all but one in `TEST_SHARE` of each class."""
    split = np.ones(len(labels), bool)
    for label in np.unique(labels).tolist():
        own = np.flatnonzero(labels == label)
        order = torch.randperm(len(own), generator=generator(0, "test part", folder, label)).numpy()
        split[own[order[: len(own) // TEST_SHARE]]] = False
    return split


def _enlarge(images: np.ndarray, path: Path) -> np.ndarray:
    """Images [N, H, W, C] as [N, SIDE, SIDE, C]."""
    height, width = images.shape[1:3]
    if (height, width) == (28, 28):
        return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    if (height, width) == (16, 16):
        return images.repeat(2, axis=1).repeat(2, axis=2)
    if (height, width) != (SIDE, SIDE):
        raise UsageError(f"{path} holds images of {height} x {width}; 16 x 16, 28 x 28 and {SIDE} x {SIDE} are read")
    return images


def _task(name: str, source: Source, whole: ImageSet) -> ImageSet:
    """The task's classes with labels from 0, inverted where it is the inverted one."""
    images, labels, split, classes = whole.images, whole.labels, whole.split, whole.class_names
    if source.chosen is not None:
        if absent := sorted(set(source.chosen) - set(classes)):
            raise UsageError(
                f"{name} needs the classes {', '.join(absent)} of {source.folder}, whose class_names lack them; "
                "name the fine classes as CIFAR-100 does"
            )
        renumbered = np.full(len(classes), -1, np.int64)
        renumbered[[classes.index(fine) for fine in source.chosen]] = np.arange(len(source.chosen))
        kept = renumbered[labels] >= 0
        images, labels, split, classes = images[kept], renumbered[labels[kept]], split[kept], source.chosen
        if source.coarse:
            parents = tuple(parent for parent in cifar100.SUPERCLASSES if cifar100.SUPERCLASSES[parent][0] in classes)
            of = np.array([next(i for i, p in enumerate(parents) if c in cifar100.SUPERCLASSES[p]) for c in classes])
            labels, classes = of[labels], parents
    return ImageSet(name, 255 - images if source.inverted else images, labels, split, classes)
