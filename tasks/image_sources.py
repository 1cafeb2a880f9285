"""The vision data sets that are tasks: where their files are, and how each becomes pictures of one size.

A set is a folder beside Omniglot's, holding one of the forms in which the set is distributed (`tasks.image_forms`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leap.errors import UsageError
from tasks import archives, cifar100, datasets, image_forms
from tasks.image_files import ImageSet
from tasks.image_forms import IMAGES, LABELS, NPZ, Form
from tasks.picture_trees import read_tree
from tasks.pictures import SIDE, TEST_SHARE

__all__ = ["IMAGES", "LABELS", "SIDE", "SOURCES", "TEST_SHARE", "Source", "is_path", "load", "shown", "superset"]


class Source(NamedTuple):
    """A task's files and what is made of them."""

    folder: str
    home: str  # where the set's authors have it
    forms: tuple[Form, ...]  # in which it may lie there; the first that does is read
    chosen: tuple[str, ...] | None = None  # classes that the task consists of; None: all
    inverted: bool = False
    coarse: bool = False  # labels are CIFAR-100's superclasses


_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_LETTERS = tuple("ABCDEFGHIJ")
_FASHION = partial(
    Source, "fashion-mnist", "https://github.com/zalandoresearch/fashion-mnist", (image_forms.idx(_CLOTHES),)
)
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CIFAR10 = (image_forms.cifar("cifar-10-python.tar.gz", "cifar-10-batches-py"), NPZ)
_CIFAR100 = partial(Source, "cifar100", _CIFAR, (image_forms.cifar("cifar-100-python.tar.gz", "cifar-100-python"), NPZ))
_NOTMNIST = "http://yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html"

SOURCES: dict[str, Source] = {
    "mnist": Source("mnist", "http://yann.lecun.com/exdb/mnist/", (image_forms.idx(_DIGITS),)),
    "fashion": _FASHION(),
    "ifashion": _FASHION(inverted=True),
    "kmnist": Source(
        "kmnist", "https://github.com/rois-codh/kmnist", (image_forms.kmnist(_KUZUSHIJI), image_forms.idx(_KUZUSHIJI))
    ),
    "notmnist": Source("notmnist", _NOTMNIST, (image_forms.LETTERS, image_forms.idx(_LETTERS))),
    "cifar10": Source("cifar10", _CIFAR, _CIFAR10),
    "cifar100": _CIFAR100(),
    "natural": _CIFAR100(chosen=cifar100.half(artificial=False)),
    "artificial": _CIFAR100(chosen=cifar100.half(artificial=True)),
    "cifar100_coarse": _CIFAR100(chosen=cifar100.fine(cifar100.SUPERCLASSES), coarse=True),
    "natural_coarse": _CIFAR100(chosen=cifar100.half(artificial=False), coarse=True),
    "artificial_coarse": _CIFAR100(chosen=cifar100.half(artificial=True), coarse=True),
    "svhn": Source("svhn", "http://ufldl.stanford.edu/housenumbers/", (image_forms.SVHN,)),
    "usps": Source("usps", "https://hastie.su.domains/ElemStatLearn/", (image_forms.USPS, NPZ)),
    "gtsrb": Source("gtsrb", "https://benchmark.ini.rub.de/gtsrb_news.html", (*image_forms.GTSRB, NPZ)),
    "orl_faces": Source("orl-faces", "https://cam-orl.co.uk/facedatabase.html", (image_forms.tree(),)),
    "sign_digits": Source(
        "sign-digits", "https://github.com/ardamavi/Sign-Language-Digits-Dataset", (image_forms.tree("Dataset"),)
    ),
    "facescrub": Source("facescrub", "https://vintage.winklerbros.net/facescrub.html", (image_forms.tree(),)),
}
"""Tasks by name: `ifashion` is Fashion-MNIST inverted (255 - x), `natural` and `artificial` halves of CIFAR-100.

The `coarse` ones are told apart by superclass: 20 classes, 14 and 6, each with five times the images of a fine class.
"""


def load(names: Sequence[str], folder: Path | None = None) -> list[ImageSet]:
    """The sets of the tasks named, as pictures uint8 [N, 32, 32, C].

    Grey images of 28 x 28 get two pixels of background on each side, 16 x 16 ones are doubled (each pixel becomes four;
    nothing is blurred), and 32 x 32 ones stay. Pictures in files of their own are resized whole
    (`tasks.pictures.decode`), traffic signs too.

    The official split is kept. A set without one, or without its training part (notMNIST, class folders, the test files
    of KMNIST), is split here: one image in five of every class is for testing, the same ones for every seed, after
    repeated images were left out, so that no test image is a training image too.

    Args:
        names: Of `SOURCES`, or paths of folders of class folders (`is_path`), each once. A task from a path is called
            by the last part of the path.
        folder: Holds a folder for each set; by default that of `tasks.datasets.home`.

    Raises:
        UsageError: a name that is unknown or given twice, a set that is not there or damaged.
    """
    titles = [shown(name) for name in names]
    if repeated := [title for i, title in enumerate(titles) if title in titles[:i]]:
        raise UsageError(f"task {repeated[0]!r} is named twice; name each once")
    read: dict[str, ImageSet] = {}
    found = []
    for name in names:
        if is_path(name):
            found.append(_own(name))
            continue
        source = _source(name)
        if source.folder not in read:
            read[source.folder] = _read(name, source, datasets.home() if folder is None else folder)
        found.append(_task(name, source, read[source.folder]))
    return found


def is_path(name: str) -> bool:
    """Whether a task's name is a path, of a folder or archive of class folders: it has a slash, or begins with ~ or .

    Example:
        >>> is_path("./birds"), is_path("mnist")
        (True, False)
    """
    return "/" in name or name.startswith(("~", "."))


def shown(name: str) -> str:
    """What a task is called: its name, or the last part of its path.

    Example:
        >>> shown("~/pictures/birds.tar.gz"), shown("mnist")
        ('birds', 'mnist')
    """
    if not is_path(name):
        return name
    last = _path(name).name
    ending = next((e for e in archives.ENDINGS if last.lower().endswith(e)), "")
    return last[: len(last) - len(ending)]


def superset(name: str) -> str:
    """The data set that a task's images are of: tasks of one set have the same, `fashion-mnist` for `ifashion`."""
    return SOURCES[name].folder if name in SOURCES else name


def _path(name: str) -> Path:
    try:
        return Path(os.path.abspath(Path(name).expanduser()))
    except RuntimeError as error:
        raise UsageError(f"{name!r} names no folder: {error}; write the whole path") from error


def _own(name: str) -> ImageSet:
    """A set of the user's own."""
    path = _path(name)
    if not (path.is_dir() or (path.is_file() and path.name.lower().endswith(archives.ENDINGS))):
        raise UsageError(
            f"task {name!r}: there is no folder {path}, nor an archive ({', '.join(archives.ENDINGS)}); name one that "
            "holds a folder of pictures for each class"
        )
    return read_tree(shown(name), path)


def _source(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    close = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no image set {name!r}; {hint}Known: {', '.join(SOURCES)}; or a path: ./my/pictures")


def _read(name: str, source: Source, home: Path) -> ImageSet:
    place = home / source.folder
    if not place.is_dir():
        holds = ", or ".join(dict.fromkeys(form.words for form in source.forms))
        raise UsageError(
            f"{name} is not on this machine: no folder {place}. Run `leap fetch {source.folder}`, or put {holds} there "
            f"(from {source.home}), set LEAP_DATA or tasks.folder to the folder where {source.folder}/ lies, or leave "
            f"{name} out of tasks.names"
        )
    return image_forms.read(source.folder, place, source.forms)


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
