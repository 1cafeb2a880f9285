"""German traffic signs (GTSRB) as their authors distribute them: zips of PPM files, and a table of the test labels.

(`Stallkamp et al. 2012 <https://benchmark.ini.rub.de/gtsrb_news.html>`_.)
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from leap.errors import UsageError
from tasks import archives
from tasks.image_files import ImageSet, bad, check
from tasks.picture_trees import read_pictures

CLASSES = 43
"""Kinds of signs."""

_LARGEST_TABLE = 1 << 22  # bytes
_PICTURE = ".ppm"


def read_signs(name: str, train: Path, test: Path, truth: Path) -> ImageSet:
    """The set of three zips, every picture resized whole to 32 x 32 (`tasks.pictures.decode`).

    Nothing is cropped to the sign, so that the frame of some ten percent around it is in the picture.

    Args:
        name: Of the set.
        train: `GTSRB_Final_Training_Images.zip` or `GTSRB-Training_fixed.zip`: folders `00000` to `00042`.
        test: `GTSRB_Final_Test_Images.zip`: pictures without labels.
        truth: `GTSRB_Final_Test_GT.zip`: `GT-final_test.csv` with `Filename` and `ClassId`.

    Returns:
        The set, pictures in the order of their names, training ones first; classes are called by their numbers.

    Raises:
        UsageError: as `tasks.archives.names`; a picture that cannot be read, has no label, or a label that has no
            picture.
    """
    order = [found for found in archives.names(train) if found.lower().endswith(_PICTURE)]
    labels = [_class(train, found.split("/")[-2:][0], found) for found in order]
    answers = _answers(truth)
    asked = [found for found in archives.names(test) if found.lower().endswith(_PICTURE)]
    if differ := sorted({found.split("/")[-1] for found in asked} ^ answers.keys()):
        raise bad(test, f"and {truth.name} differ on {differ[0]}: a picture without label, or a label without picture")
    labels += [answers[found.split("/")[-1]] for found in asked]
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    for path, names, part in ((train, order, slice(len(order))), (test, asked, slice(len(order), None))):
        if names:
            read_pictures(path, names, out=images[part])
    split = np.arange(len(labels)) < len(order)
    return check(ImageSet(name, images, np.array(labels, np.int64), split, tuple(map(str, range(CLASSES)))), train)


def _class(path: Path, text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < CLASSES):
        raise bad(path, f"has {where} of class {text!r}, expected 0 to {CLASSES - 1}")
    return int(text)


def _answers(truth: Path) -> dict[str, int]:
    """Class of every test picture by its file's name."""
    tables = [found for found in archives.names(truth) if found.lower().endswith(".csv")]
    if len(tables) != 1:
        raise bad(truth, f"holds {len(tables)} tables (.csv), expected one")
    ((_, content),) = archives.contents(truth, tables, _LARGEST_TABLE)
    try:
        rows = list(csv.DictReader(content.decode("utf-8-sig").splitlines(), delimiter=";", restval=""))
        found = {str(row["Filename"]): _class(truth, str(row["ClassId"]), str(row["Filename"])) for row in rows}
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{truth} has {tables[0]}, no table with Filename and ClassId ({error})") from error
    if len(found) != len(rows):
        raise bad(truth, f"has {tables[0]}, which names a picture twice")
    return found
