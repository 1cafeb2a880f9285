"""Small vision data sets that need no download: scikit-learn's digits, and others drawn here.

They are as different from each other as the sets of `tasks.image_sources`: scripts in bright ink, in dark ink on paper,
in outline, worn away, or in colour on cloth; shapes; textures. Characters come from the fonts that `tasks.glyphs` uses.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from leap.errors import UsageError
from leap.randomness import derive
from tasks.drawings import SIZE
from tasks.glyphs import FONTS, GRID, PAGE, Hand, codes, distance, maps
from tasks.image_files import ImageSet
from tasks.image_sources import SIDE

TRAIN, TEST = 960, 240
"""Images of a drawn set in each part, at the least: every class has as many as the others, and a set is full rounds."""

Random = np.random.Generator


class Script(NamedTuple):
    """The characters that a set is of, how they are written, and what is made of the writing."""

    characters: tuple[int, ...]  # code points, one for each class
    finish: Callable[[Random, np.ndarray], np.ndarray]  # distances [n, GRID, GRID] -> pictures [n, SIDE, SIDE, C]
    hand: Hand
    pen: tuple[float, float] = (-1.0, 1.5)  # how far the outline moves outwards, in dots
    fonts: tuple[str, ...] = FONTS


def load(names: Sequence[str]) -> list[ImageSet]:
    """The sets named, as pictures uint8 [N, 32, 32, C]: always the same ones, and nothing is read or kept on disk.

    Of `digits` (1797 images of 8 x 8, each pixel made sixteen) the last fifth in the order of the file is for testing:
    other writers than in training, if writer follows writer there, as the order of the labels suggests. The drawn sets
    have `TRAIN` images for training and `TEST` for testing, or the few more that make classes equal. Pictures follow
    from constants alone, bit for bit on one machine; another version of the libraries may round a grey level
    differently.

    Args:
        names: Of `EMBEDDED`, each once.

    Returns:
        A set for each name. Arrays are shared between calls, and therefore cannot be written to.

    Raises:
        UsageError: a name that is unknown or given twice.
        RunError: matplotlib's fonts are not where it says.

    Example:
        >>> (shapes,) = load(["shapes"])
        >>> shapes.images.shape, shapes.class_names
        ((1200, 32, 32, 3), ('disc', 'square', 'triangle', 'star', 'cross', 'half disc'))
    """
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UsageError(f"task {repeated[0]!r} is named twice; name each once")
    for name in names:
        if name not in EMBEDDED:
            close = difflib.get_close_matches(name, EMBEDDED, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UsageError(f"no embedded image set {name!r}; {hint}Known: {', '.join(EMBEDDED)}")
    return [_made(name) for name in names]


@cache
def _made(name: str) -> ImageSet:
    found = EMBEDDED[name](name)
    for array in (found.images, found.labels, found.split):
        array.setflags(write=False)
    return found


def _digits(name: str) -> ImageSet:
    """Digits of 13 writers, from the test part of `Alpaydin and Kaynak 1998 <https://doi.org/10.24432/C50P49>`_."""
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)  # [N, 64], 0 to 16
    small = (levels.astype(int) * 255 // 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    images = small.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    split = np.arange(len(labels)) < 4 * len(labels) // 5
    return ImageSet(name, images, labels.astype(np.int64), split, tuple("0123456789"))


def _assembled(name: str, classes: Sequence[str], draw: Callable[[Random, int, int], np.ndarray]) -> ImageSet:
    """A set from draw(random, class, count) -> pictures [count, SIDE, SIDE, C] from 0 to 1, in rounds of all classes.

    Every class has a stream of its own.
    """
    train, test = -(-TRAIN // len(classes)), -(-TEST // len(classes))
    streams = [np.random.default_rng(derive(0, "embedded", name, label)) for label in classes]
    drawn = np.stack([draw(stream, label, train + test) for label, stream in enumerate(streams)], axis=1)
    images = np.rint(255 * drawn.clip(0, 1)).astype(np.uint8).reshape(-1, *drawn.shape[2:])
    labels = np.tile(np.arange(len(classes)), train + test)
    return ImageSet(name, images, labels, np.arange(len(images)) < train * len(classes), tuple(classes))


def _written(script: Script, classes: Sequence[str] = ()) -> Callable[[str], ImageSet]:
    """A set whose classes are characters, by default named by themselves."""

    def draw(random: Random, label: int, count: int) -> np.ndarray:
        return script.finish(random, _distances(random, script.characters[label], script, count))

    return lambda name: _assembled(name, classes or [chr(code) for code in script.characters], draw)


def _distances(random: Random, code: int, script: Script, count: int) -> np.ndarray:
    """Signed distance from the outline of `count` drawings of a character, in dots [count, GRID, GRID]."""
    from scipy import ndimage

    points = maps(random, count, script.hand)  # [2, count, GRID, GRID]
    font = random.permutation(np.arange(count) % len(script.fonts))
    out = np.empty((count, GRID, GRID))
    for which, name in enumerate(script.fonts):
        rows = font == which
        out[rows] = ndimage.map_coordinates(distance(code, name), points[:, rows], order=1, mode="nearest")
    return out + random.uniform(*script.pen, (count, 1, 1))


def _ink(distances: np.ndarray) -> np.ndarray:
    """How much of every pixel is inside the outline, [n, SIDE, SIDE] from 0 to 1."""
    covered = np.clip(0.5 + distances * (GRID / PAGE), 0, 1).reshape(-1, SIZE, GRID // SIZE, SIZE, GRID // SIZE)
    frame = (SIDE - SIZE) // 2
    return np.pad(covered.mean(axis=(2, 4)), ((0, 0), (frame, frame), (frame, frame)))


def _cloud(random: Random, count: int, width: float, channels: int = 1) -> np.ndarray:
    """Normal noise that is smooth over `width` pixels, [count, SIDE, SIDE, channels]."""
    from scipy import ndimage

    rough = random.normal(size=(count, SIDE, SIDE, channels))
    smooth = ndimage.gaussian_filter(rough, (0, width, width, 0), mode="wrap")
    deviation: np.ndarray = smooth.std(axis=(1, 2), keepdims=True)
    return smooth / deviation


def _bright(random: Random, distances: np.ndarray) -> np.ndarray:
    """Bright ink on a dark, noisy ground."""
    strength = random.uniform(0.4, 1, (len(distances), 1, 1))
    return (_ink(distances) * strength + random.normal(0, 0.15, (len(distances), SIDE, SIDE)))[..., None]


def _paper(random: Random, distances: np.ndarray) -> np.ndarray:
    """Dark ink on light paper, lit from one side."""
    count, axis = len(distances), np.linspace(-1, 1, SIDE)
    slope = random.uniform(-0.25, 0.25, (2, count, 1, 1))
    light = 0.7 + slope[0] * axis[:, None] + slope[1] * axis
    page = light * (1 - random.uniform(0.4, 0.9, (count, 1, 1)) * _ink(distances))
    return page[..., None] + 0.04 * _cloud(random, count, 0.7)


def _outline(random: Random, distances: np.ndarray) -> np.ndarray:
    """A thin line along the outline; lines of chance cross it."""
    count = len(distances)
    angle, offset = random.uniform(0, np.pi, (count, 1, 1)), random.uniform(-PAGE / 3, PAGE / 3, (count, 1, 1))
    axis = (np.arange(GRID) + 0.5) * (PAGE / GRID) - PAGE / 2
    crossing = abs(np.cos(angle) * axis[:, None] + np.sin(angle) * axis - offset)
    lines = _ink(random.uniform(1.2, 2.2, (count, 1, 1)) - np.minimum(abs(distances), crossing))
    return (lines + random.normal(0, 0.1, lines.shape))[..., None]


def _worn(random: Random, distances: np.ndarray) -> np.ndarray:
    """Ink that is gone in patches, on a ground with patches of its own."""
    count = len(distances)
    kept = _cloud(random, count, 1.5) > -0.9
    return 0.25 + 0.6 * _ink(distances)[..., None] * kept + 0.1 * _cloud(random, count, 2)


def _two_colours(random: Random, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ink and ground [count, 1, 1, 3]; in no channel are they closer than three tenths of the range."""
    ground = random.uniform(0, 1, (count, 1, 1, 3))
    return (ground + random.uniform(0.3, 0.7, ground.shape)) % 1, ground


def _cloth(random: Random, distances: np.ndarray) -> np.ndarray:
    """Coloured ink on coloured, patterned ground."""
    ink, ground = _two_colours(random, len(distances))
    covered = _ink(distances)[..., None]
    pattern = 0.1 * _cloud(random, len(distances), 1.0, 3)
    return covered * ink + (1 - covered) * (ground + pattern)


def _plain(random: Random, distances: np.ndarray) -> np.ndarray:
    """One colour on another, half of the drawings in outline."""
    ink, ground = _two_colours(random, len(distances))
    hollow = random.random((len(distances), 1, 1)) < 0.5
    covered = _ink(np.where(hollow, 3 - abs(distances + 3), distances))[..., None]
    return covered * ink + (1 - covered) * ground + random.normal(0, 0.05, (*covered.shape[:3], 3))


Waves = Callable[[np.ndarray, np.ndarray], np.ndarray]
TEXTURES: dict[str, tuple[float | None, Waves | float]] = {
    "horizontal": (90, lambda u, v: np.sin(u)),
    "vertical": (0, lambda u, v: np.sin(u)),
    "rising": (135, lambda u, v: np.sin(u)),
    "falling": (45, lambda u, v: np.sin(u)),
    "checkers": (None, lambda u, v: np.sign(np.sin(u) * np.sin(v))),
    "dots": (None, lambda u, v: np.sign(np.cos(u) + np.cos(v) - 0.7)),
    "rings": (None, lambda u, v: np.sin(np.hypot(u, v))),
    "coarse noise": (None, 1.6),
    "fine noise": (None, 0.7),
}
"""The angle of its waves in degrees (None: any), and the pattern of two waves that cross at a right angle.

Or, of a noise, over how many pixels it is smooth.
"""


def _texture(random: Random, label: int, count: int) -> np.ndarray:
    angle, pattern = list(TEXTURES.values())[label]
    if isinstance(pattern, float):
        drawn = _cloud(random, count, pattern)[..., 0]
    else:
        turn = random.uniform(0, 360, count) if angle is None else angle + random.uniform(-15, 15, count)
        cos, sin = (f(np.deg2rad(turn))[:, None, None] for f in (np.cos, np.sin))
        frequency = 2 * np.pi / random.uniform(4, 10, (count, 1, 1))  # a pixel
        shift = random.uniform(-np.pi, np.pi, (2, count, 1, 1))
        axis = np.arange(SIDE) - (SIDE - 1) / 2
        # Rows count downwards, angles upwards.
        u = frequency * (cos * axis - sin * axis[:, None]) + shift[0]
        v = frequency * (sin * axis + cos * axis[:, None]) + shift[1]
        drawn = pattern(u, v)
    contrast = random.uniform(0.08, 0.35, (count, 1, 1))
    return (0.5 + contrast * drawn + random.normal(0, 0.2, drawn.shape))[..., None]


def _textures(name: str) -> ImageSet:
    return _assembled(name, list(TEXTURES), _texture)


_LETTER = Hand(rotation=20, scale=(0.6, 0.95), shear=0.2, translation=10, elastic=4.5)
_STAMP = Hand(rotation=90, scale=(0.7, 1), shear=0.1, translation=8, elastic=3)
_BRUSH = Hand(rotation=15, scale=(0.75, 1.05), shear=0.15, translation=8, elastic=4.5)
_THROWN = Hand(rotation=180, scale=(0.55, 0.9), shear=0.1, translation=12, elastic=2)
_SHAPES = {
    "disc": 0x25CF, "square": 0x25A0, "triangle": 0x25B2, "star": 0x2605, "cross": 0x271A, "half disc": 0x25D7,
}  # fmt: skip

EMBEDDED: dict[str, Callable[[str], ImageSet]] = {
    "digits": _digits,
    "latin": _written(Script(tuple(range(0x41, 0x5B)), _bright, _LETTER)),
    "greek": _written(Script(tuple(code for code in range(0x3B1, 0x3CA) if code != 0x3C2), _paper, _LETTER)),
    "cyrillic": _written(Script(tuple(codes("Cyrillic")), _outline, _LETTER)),
    "symbols": _written(Script(tuple(codes("Symbols")[:16]), _worn, _STAMP, fonts=FONTS[:1])),
    "painted": _written(Script(tuple(codes("Georgian Mkhedruli")[:12]), _cloth, _BRUSH, (0, 2.5), FONTS[:1])),
    "shapes": _written(Script(tuple(_SHAPES.values()), _plain, _THROWN, fonts=FONTS[:1]), list(_SHAPES)),
    "textures": _textures,
}
"""Sets by name; calling one with its name draws it. They have 10, 26, 24, 20, 16, 12, 6 and 9 classes, in this order.

How much the drawings of a class differ was set so that conv-4 with 16 filters, after 300 steps of SGD (rate 0.1,
batches of 32), errs on 3 to 30 percent of a set's test images: `digits` are the easiest, `shapes` the hardest.
"""
