"""Many tasks on the same images: what MNIST's digits are, and how they are shown.

Every image is a digit turned by 0, 90, 180 or 270 degrees, and inverted or not, by a derived draw. All tasks have the
same training images and the same test images in the same order, and differ in their labels alone: some ask about the
digit, some about how it is shown, some about both. This is the setting in which transferability between tasks was first
measured by H-scores, `Bao et al. 2019 <https://ieeexplore.ieee.org/document/8803726>`_ (there, images of rooms with
labels of many kinds).

What cannot be told stays so: a 6 upside down is a 9, and a 0, 1 or 8 looks the same half a turn on. So `digit`,
`parity` and `rotation` cannot be learned to the end; `loops`, `prime`, `thirds` and `at_least_five` have 6 and 9 in one
class. `inverted` is plain from a single pixel and `lying` nearly as plain from the strokes: as targets they hardly tell
sources apart.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from leap.errors import UsageError
from leap.randomness import generator
from tasks import image_sources
from tasks.image_files import ImageSet
from tasks.image_sets import ImageSets, Part, balanced, in_order

TURNS, SHADES = 4, 2
WAYS = TURNS * SHADES
"""Ways to show a digit: quarter turns, each inverted or not."""


class Shown(NamedTuple):
    """What is to be told about images, one entry an image."""

    digit: np.ndarray  # int64 [N], 0 .. 9
    turn: np.ndarray  # int64 [N], quarter turns counter-clockwise, 0 .. 3
    inverted: np.ndarray  # int64 [N], 0 or 1


class Task(NamedTuple):
    """Names of the classes, and which class an image is of."""

    classes: tuple[str, ...]
    label: Callable[[Shown], np.ndarray]  # [N] -> int64 [N]


def _of_digit(groups: Mapping[str, str]) -> Task:
    """Digits by group, as `{"even": "02468", "odd": "13579"}` says."""
    of = np.array([next(i for i, group in enumerate(groups.values()) if d in group) for d in "0123456789"])
    return Task(tuple(groups), lambda shown: of[shown.digit])


def _both(one: Task, two: Task) -> Task:
    """A class for every pair of classes."""
    classes = tuple(f"{a}, {b}" for a in one.classes for b in two.classes)
    return Task(classes, lambda shown: len(two.classes) * one.label(shown) + two.label(shown))


_DIGIT = _of_digit({digit: digit for digit in "0123456789"})
_ROTATION = Task(("0", "90", "180", "270"), lambda shown: shown.turn)
_LYING = Task(("upright", "lying"), lambda shown: shown.turn % 2)
_INVERTED = Task(("bright on dark", "dark on bright"), lambda shown: shown.inverted)

TASKS: dict[str, Task] = {
    "digit": _DIGIT,
    "parity": _of_digit({"even": "02468", "odd": "13579"}),
    "at_least_five": _of_digit({"0 to 4": "01234", "5 to 9": "56789"}),
    "loops": _of_digit({"none": "123457", "one": "069", "two": "8"}),  # a 4 is mostly written open
    "prime": _of_digit({"prime": "2357", "not": "014689"}),
    "thirds": _of_digit({"0 mod 3": "0369", "1 mod 3": "147", "2 mod 3": "258"}),
    "rotation": _ROTATION,
    "turned_over": Task(("0 or 90", "180 or 270"), lambda shown: shown.turn // 2),
    "lying": _LYING,  # by a quarter turn to either side, not upright or upside down
    "inverted": _INVERTED,
    "digit_and_lying": _both(_DIGIT, _LYING),
    "digit_and_rotation": _both(_DIGIT, _ROTATION),
    "digit_and_inverted": _both(_DIGIT, _INVERTED),
}
"""Tasks by name."""


def draw(digits: np.ndarray, size: int, seed: int, part: Part) -> tuple[np.ndarray, Shown]:
    """Which images a part has, and how each is shown.

    Images come in rounds that show each digit once; each digit goes through the eight ways of being shown in an order
    of its own before one comes again. So any first part is balanced over digits, and each digit over the ways; 80
    images, or a multiple, show each digit in each way equally often.

    Args:
        digits: [M], of all images there are.
        size: Images wanted.
        seed: Decides.
        part: Names the draw.

    Returns:
        Positions [size] in `digits`, and how the image at each is shown.

    Raises:
        ValueError: as `tasks.image_sets.balanced`.
    """
    classes = _DIGIT.classes
    rows = balanced(digits, classes, size, seed, "digit tasks", part)
    held, ways = digits[rows], np.zeros(size, np.int64)
    for digit in range(len(classes)):
        own = np.flatnonzero(held == digit)
        drawn = [
            torch.randperm(WAYS, generator=generator(seed, "digit tasks", part, "ways", digit, i)).numpy()
            for i in range(-(-len(own) // WAYS))
        ]
        ways[own] = np.concatenate([*drawn, np.zeros(0, np.int64)])[: len(own)]
    return rows, Shown(held, ways % TURNS, ways // TURNS)


def show(images: np.ndarray, shown: Shown) -> np.ndarray:
    """Square images uint8 [N, H, H, C], turned counter-clockwise and inverted (255 - x)."""
    out = np.empty_like(images)
    for turn in range(TURNS):
        own = shown.turn == turn
        out[own] = np.rot90(images[own], turn, axes=(1, 2))
    out[shown.inverted == 1] = 255 - out[shown.inverted == 1]
    return out


def sets(whole: ImageSet, names: Sequence[str], *, seed: int, train_size: int, test_size: int) -> list[ImageSet]:
    """The tasks named, as data sets with the same pictures: training images first, then test images, as drawn.

    Args:
        whole: MNIST, or other square pictures of ten classes, 0 .. 9.
        names: Of `TASKS`, each once.
        seed: Decides which images there are and how they are shown.
        train_size, test_size: How many.

    Raises:
        UsageError: a name that is unknown or given twice, fewer images than asked for.
    """
    _check(names)
    pictures, parts = [], []
    for part, size in (("train", train_size), ("test", test_size)):
        rows, shown = _drawn(whole, part, size, seed)  # type: ignore[arg-type]
        pictures.append(show(whole.images[rows], shown))
        parts.append(shown)
    images, split = np.concatenate(pictures), np.repeat([True, False], [train_size, test_size])
    shown = Shown(*(np.concatenate(both) for both in zip(*parts, strict=True)))
    return [ImageSet(name, images, TASKS[name].label(shown), split, TASKS[name].classes) for name in names]


def digit_tasks(
    names: Sequence[str] = tuple(TASKS),
    folder: Path | None = None,
    *,
    seed: int,
    train_size: int = 800,
    test_size: int = 800,
    **options: Any,
) -> ImageSets:
    """The tasks named on MNIST's digits: a family in which all tasks have the same images.

    Args:
        names: Of `TASKS`, each once.
        folder: Holds the folder `mnist`; by default that of `tasks.datasets.home`.
        seed: Decides which images there are and how they are shown.
        train_size, test_size: Images, the same for all tasks.
        options: Of `tasks.image_sets.ImageSets`.

    Returns:
        Image sets; the images are balanced over digits and ways to show them, and so not over every task's classes.

    Raises:
        UsageError: as `sets` and `ImageSets`; MNIST is not there.
    """
    (whole,) = image_sources.load(["mnist"], folder)
    made = sets(whole, names, seed=seed, train_size=train_size, test_size=test_size)
    return ImageSets(made, seed=seed, train_size=train_size, test_size=test_size, choice=in_order, **options)


def _drawn(whole: ImageSet, part: Part, size: int, seed: int) -> tuple[np.ndarray, Shown]:
    rows = np.flatnonzero(whole.split == (part == "train"))
    try:
        found, shown = draw(whole.labels[rows], size, seed, part)
    except ValueError as error:
        raise UsageError(
            f"{whole.name} has too few images for {part}ing on {size}: {error}; lower tasks.{part}_size"
        ) from error
    return rows[found], shown


def _check(names: Sequence[str]) -> None:
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UsageError(f"task {repeated[0]!r} is named twice; name each once")
    for name in names:
        if name not in TASKS:
            close = difflib.get_close_matches(name, TASKS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UsageError(f"no digit task {name!r}; {hint}Known: {', '.join(TASKS)}")
