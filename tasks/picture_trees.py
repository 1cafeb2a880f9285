"""Pictures in folders named for their classes, as arrays: in a folder, or in a zip or tar that is not unpacked."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leap.errors import UsageError
from tasks import archives, pictures
from tasks.image_files import LARGEST, ImageSet, bad, check
from tasks.pictures import SIDE

log = logging.getLogger(__name__)

PARTS = ("train", "test")
"""Folders that make a split."""
LARGEST_FILE = 1 << 25
"""Bytes that a picture's file may have."""

_OTHER_KINDS = (".gif", ".webp", ".tif", ".tiff", ".heic", ".avif", ".jp2")


class Place(NamedTuple):
    """Where a picture belongs."""

    part: str  # one of PARTS, or "" where there are no parts
    label: str


def read_tree(name: str, path: Path, *, inside: str = "", left_out: Collection[str] = (), side: int = SIDE) -> ImageSet:
    """A set from a tree of class folders.

    The classes are the folders in which pictures lie directly, in the order of their names. Where those lie in `train`
    and `test`, that is the split; else one in `tasks.pictures.TEST_SHARE` of each class is for testing, drawn by `name`
    after repeated pictures were left out. Folders that all pictures share do not matter, nor do files that are no
    pictures. Pictures are resized as `tasks.pictures.decode` says, and are grey if all in the tree are.

    Args:
        name: Of the set.
        path: A folder or an archive.
        inside: Take only what lies in a folder of this name.
        left_out: Pictures that are not read, `class/file`.
        side: Height and width of the pictures.

    Returns:
        The set, pictures in the order of their names, those of `train` first.

    Raises:
        UsageError: as `tasks.archives.names`; a picture that cannot be read, or pictures that do not lie in class
            folders, all at one depth; the message names the file.
    """
    places = _places(path, [n for n in archives.names(path) if not inside or inside in n.split("/")[:-1]], left_out)
    order = sorted(places, key=lambda found: (places[found].part == "test", found))
    classes = tuple(sorted({places[found].label for found in order}))
    if len(classes) < 2:
        raise UsageError(f"{path} has pictures of one class, {classes[0]!r}; put a folder for each of several there")
    numbers = {label: number for number, label in enumerate(classes)}
    labels = np.array([numbers[places[found].label] for found in order], np.int64)
    images = read_pictures(path, order, side)
    if places[order[0]].part:
        split = np.array([places[found].part == "train" for found in order])
        _check_classes(path, labels, split, classes)
    else:
        images, labels = pictures.without_repeats(images, labels)
        split = pictures.halve(labels, name)
    return check(ImageSet(name, images, labels, split, classes), path)


def read_pictures(path: Path, order: Sequence[str], side: int = SIDE, out: np.ndarray | None = None) -> np.ndarray:
    """The pictures of these names in a folder or an archive, uint8 [N, side, side, C]; one is in memory at a time.

    Args:
        path: A folder or an archive.
        order: Of `tasks.archives.names`.
        side: Height and width of the pictures.
        out: Where they go; without it, C is 1 while all are grey, and else 3.

    Raises:
        UsageError: as `tasks.archives.contents`; or a picture cannot be read.
    """
    if (size := len(order) * side * side * 3) > LARGEST:
        raise bad(path, f"has {len(order)} pictures, which make {size} bytes; at most {LARGEST} are read")
    places = {name: place for place, name in enumerate(order)}
    images = np.empty((len(order), side, side, 1), np.uint8) if out is None else out
    with pictures.quiet():
        for name, content in archives.contents(path, places, LARGEST_FILE):
            try:
                picture = pictures.decode(content, side)
            except ValueError as error:
                raise UsageError(f"{path} has a picture {name} that cannot be read ({error}); replace it") from error
            if picture.shape[-1] > images.shape[-1]:  # the first in colour: so far all are grey
                images = images.repeat(3, axis=-1)
            images[places[name]] = picture
    return images


def _places(path: Path, names: Sequence[str], left_out: Collection[str]) -> dict[str, Place]:
    """Class and part of every picture by name."""
    if other := [name for name in names if name.lower().endswith(_OTHER_KINDS)]:
        raise UsageError(
            f"{path} has {other[0]}; PNG, JPEG, PPM, PGM and BMP are read, convert the others or move them"
        )
    chosen = [name for name in names if name.lower().endswith(pictures.ENDINGS)]
    split = {name: name.split("/") for name in chosen if "/".join(name.split("/")[-2:]) not in left_out}
    if len(split) < len(chosen):
        log.info("%s: %d pictures that are known to be unreadable are left out", path, len(chosen) - len(split))
    if not split:
        raise UsageError(f"{path} has no pictures ({', '.join(pictures.ENDINGS)}) in it; put class folders there")
    depths = Counter(len(parts) for parts in split.values())
    depth, rare = depths.most_common()[0][0], depths.most_common()[-1][0]
    if depth != rare:
        raise _misplaced(path, next(name for name, parts in split.items() if len(parts) == rare))
    common = 0
    while depth - common > 2 and len({parts[common] for parts in split.values()}) == 1:
        common += 1
    return {name: _place(path, name, parts[common:-1]) for name, parts in split.items()}


def _place(path: Path, name: str, folders: list[str]) -> Place:
    if len(folders) == 1:
        return Place("", folders[0])
    if len(folders) == 2 and folders[0] in PARTS:
        return Place(*folders)
    raise _misplaced(path, name)


def _misplaced(path: Path, name: str) -> UsageError:
    return UsageError(
        f"{path} has {name} where no class is; put each picture into a folder of its class, the class folders side by "
        "side, or all in train/ and test/"
    )


def _check_classes(path: Path, labels: np.ndarray, split: np.ndarray, classes: tuple[str, ...]) -> None:
    """Every class must have a picture in both parts."""
    for part, name in zip((split, ~split), PARTS, strict=True):
        if len(absent := sorted(set(range(len(classes))) - set(labels[part].tolist()))):
            raise UsageError(f"{path} has no picture of class {classes[absent[0]]!r} in {name}/; put some there")
