"""The forms in which data sets are distributed: which files make one, and who reads them.

A data set's folder may hold it in several forms. The first form of its list of which a file is there is the one that is
read, so that a whole distribution goes before a subset, and half a distribution is refused rather than passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leap.errors import UsageError
from tasks import archives, pictures
from tasks.cifar_archives import read_cifar
from tasks.image_files import ImageSet, bad, check, read_arrays, read_npz, read_pair
from tasks.mat_files import read_svhn
from tasks.picture_trees import read_tree
from tasks.traffic_signs import read_signs
from tasks.usps_text import read_usps

IMAGES, LABELS = "{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"
"""Names of idx files; the parts are `train` and `t10k`."""


class Form(NamedTuple):
    """Files, and what reads them."""

    files: tuple[str, ...]
    """Names in the data set's folder, as `pathlib.Path.glob` has them. One that is there decides for the form."""
    read: Callable[[str, Path], ImageSet]
    """(data set, its folder) -> the set; refuses what is missing or damaged."""
    words: str
    """What it is, in a message."""


def read(name: str, place: Path, forms: Sequence[Form]) -> ImageSet:
    """The set in a folder, in the first form of which something is there.

    Raises:
        UsageError: no form is there, or not all of it, or it is damaged.
    """
    for form in forms:
        if any(_there(place, pattern) for pattern in form.files):
            return form.read(name, place)
    return forms[-1].read(name, place)  # which says what is missing


def _there(place: Path, pattern: str) -> bool:
    return next(place.glob(pattern), None) is not None


# idx, npz


def idx(classes: tuple[str, ...]) -> Form:
    """MNIST's four files; without the training ones the test part is split."""
    files = tuple(pattern.format(part) for part in ("train", "t10k") for pattern in (IMAGES, LABELS))
    return Form(files, partial(_read_idx, classes=classes), "its idx files")


def _read_idx(name: str, place: Path, classes: tuple[str, ...]) -> ImageSet:
    whole = any((place / pattern.format("train")).exists() for pattern in (IMAGES, LABELS))
    return _joined(name, place / IMAGES.format("t10k"), classes, [
        partial(read_pair, place / IMAGES.format(part), place / LABELS.format(part))
        for part in (("train", "t10k") if whole else ("t10k",))
    ])  # fmt: skip


_Part = Callable[[], tuple[np.ndarray, np.ndarray]]


def _joined(name: str, path: Path, classes: tuple[str, ...], parts: Sequence[_Part]) -> ImageSet:
    """A set of a training and a test part, or of the test part alone, which is then split."""
    if len(parts) == 1:
        images, labels = pictures.without_repeats(*parts[0]())
        split = pictures.halve(labels, name)
        return check(ImageSet(name, pictures.enlarge(images, path), labels, split, classes), path)
    (train, train_labels), (test, test_labels) = (part() for part in parts)
    if train.shape[1:] != test.shape[1:]:
        raise UsageError(
            f"{path.parent} holds images of {train.shape[1:3]} and of {test.shape[1:3]}; put whole copies there"
        )
    split = np.repeat([True, False], [len(train), len(test)])
    labels = np.concatenate([train_labels, test_labels])
    # Each part is enlarged by itself and let go of, so that little is in memory twice.
    enlarged = [pictures.enlarge(train, path)]
    del train
    enlarged.append(pictures.enlarge(test, path))
    del test
    return check(ImageSet(name, np.concatenate(enlarged), labels, split, classes), path)


_KMNIST = tuple(f"kmnist-{part}-{what}.npz" for part in ("train", "test") for what in ("imgs", "labels"))


def kmnist(classes: tuple[str, ...]) -> Form:
    """The four `.npz` files of Kuzushiji-MNIST's authors, each with one array."""
    return Form(_KMNIST, partial(_read_kmnist, classes=classes), "its four .npz files")


def _read_kmnist(name: str, place: Path, classes: tuple[str, ...]) -> ImageSet:
    paths = [place / file for file in _KMNIST]
    return _joined(name, paths[2], classes, [partial(_arrays, *paths[:2]), partial(_arrays, *paths[2:])])


def _arrays(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, numbers = (read_arrays(path, ("arr_0",))["arr_0"] for path in (images, labels))
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise bad(images, f"holds images {pixels.dtype} {list(pixels.shape)}, expected uint8 [N, H, W]")
    if numbers.dtype != np.uint8 or numbers.shape != pixels.shape[:1]:
        raise bad(labels, f"holds labels {numbers.dtype} {list(numbers.shape)} for the {len(pixels)} of {images.name}")
    return pixels[..., None], numbers.astype(np.int64)


def _read_npz(name: str, place: Path) -> ImageSet:
    files = sorted(place.glob("*.npz"))
    if len(files) != 1:
        raise UsageError(f"{place} must hold one .npz file, it holds {[f.name for f in files]}; leave one there")
    found = read_npz(name, files[0])
    return check(found._replace(images=pictures.enlarge(found.images, files[0])), files[0])


NPZ = Form(("*.npz",), _read_npz, "one .npz file")


# CIFAR, SVHN, USPS, GTSRB


def cifar(archive: str, folder: str) -> Form:
    """A python archive, or the folder in it."""

    def read_one(name: str, place: Path) -> ImageSet:
        path = next(place / file for file in (archive, folder) if (place / file).exists())
        return read_cifar(name, path)

    return Form((archive, folder), read_one, archive)


def files(reader: Callable[..., ImageSet], *names: str) -> Form:
    """Files with fixed names, which are the reader's arguments."""
    words = f"{', '.join(names[:-1])} and {names[-1]}"
    return Form(names, lambda name, place: reader(name, *(place / file for file in names)), words)


SVHN = files(read_svhn, "train_32x32.mat", "test_32x32.mat")


def _read_usps(name: str, train: Path, test: Path) -> ImageSet:
    found = read_usps(name, train, test)
    return found._replace(images=pictures.enlarge(found.images, train))


USPS = files(_read_usps, "zip.train.gz", "zip.test.gz")
_TEST_SIGNS = ("GTSRB_Final_Test_Images.zip", "GTSRB_Final_Test_GT.zip")
_SIGNS = {train: files(read_signs, train, *_TEST_SIGNS) for train in (
    "GTSRB_Final_Training_Images.zip", "GTSRB-Training_fixed.zip",
)}  # fmt: skip
GTSRB = (
    *(form._replace(files=(train,)) for train, form in _SIGNS.items()),
    _SIGNS["GTSRB_Final_Training_Images.zip"]._replace(files=_TEST_SIGNS),
)
"""Either training part with the test part; the test part alone says what is missing."""


# Class folders

_UNREADABLE_LETTERS = (
    "A/RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png",
    "F/Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png",
)
"""Two files of notMNIST's small archive that its author left empty."""


def tree(inside: str = "") -> Form:
    """Class folders, in the one archive of the folder or in itself."""
    patterns = (*(f"*{ending}" for ending in archives.ENDINGS), "*/*")
    return Form(patterns, partial(_read_tree, inside=inside), "an archive of class folders, or the class folders")


def _read_tree(name: str, place: Path, inside: str) -> ImageSet:
    found = sorted(path for path in place.iterdir() if path.name.lower().endswith(archives.ENDINGS))
    if len(found) > 1:
        raise UsageError(f"{place} must hold one archive, it holds {[path.name for path in found]}; leave one there")
    return read_tree(name, found[0] if found else place, inside=inside)


def _read_letters(name: str, place: Path) -> ImageSet:
    path = next(place / file for file in LETTERS.files if (place / file).exists())
    found = read_tree(name, path, left_out=_UNREADABLE_LETTERS, side=28)
    return found._replace(images=pictures.enlarge(found.images, path))


LETTERS = Form(("notMNIST_small.tar.gz", "notMNIST_small"), _read_letters, "notMNIST_small.tar.gz")
"""notMNIST's hand-checked part, without the two files in it that are empty; split here."""
