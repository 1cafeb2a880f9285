"""The embedded family: real writing systems, drawn with the fonts that matplotlib carries. Nothing is downloaded.

A character is drawn once large, turned into the signed distance from its outline, and then read twenty times through
random affine and elastic maps. Moving the level of that distance makes the pen thinner or thicker, and where the
distance is less than a pixel it is the antialiasing.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from functools import cache
from importlib import metadata
from typing import NamedTuple

import numpy as np

from leap.errors import RunError
from leap.randomness import derive
from tasks.drawings import SIZE, Drawings, cached, check

DRAWINGS = 20
"""Drawings of a character, as many as Omniglot has."""

# Code points, twenty for an alphabet. Tasks are augmented by any rotation, by scaling and by translation, so of every
# script those characters were taken that stay furthest apart when each is turned, scaled and centred to match another:
# no pairs like d/p, M/W, o/O, a Braille cell and the same cell upside down, or one arrow in two directions. (Of Ogham,
# all but the letters that are others by half a turn.)
ALPHABETS: dict[str, str] = {
    "Arabic": "626 627 629 636 637 639 645 647 648 64A 663 666 667 679 698 6A4 6A9 6AF 6BA 6BE",
    "Armenian capitals": "534 535 536 537 538 539 53C 53D 53F 540 543 544 54A 54E 54F 550 552 554 555 556",
    "Armenian small letters": "567 568 569 56D 56F 571 573 574 575 576 577 579 57A 57B 57C 57E 57F 582 586 587",
    "Arrows": "219D 21A8 21AF 21B1 21B5 21B6 21B8 21BA 21BB 21BC 21BF 21C6 21CA 21CC 21D9 21E3 21F2 21F6 27F0 290A",
    "Braille": "2817 281B 281D 2825 283C 2841 2858 286B 287E 2887 288A 2893 2895 289B 28A3 28BC 28C9 28D3 28DC 28F1",
    "Canadian syllabics": (
        "1405 1466 1467 1468 146A 14A9 14AA 14D4 14EF 1511 1513 1529 1541 1543 1545 154C 157C 1580 1582 15AC"
    ),
    "Currency": "24 A2 A3 A4 A5 192 20A0 20A2 20A3 20A5 20A8 20AA 20AC 20AD 20AE 20AF 20B0 20B1 20B8 20B9",
    "Cyrillic": "410 413 416 41B 41D 41E 421 425 42E 430 439 43A 43C 440 442 443 444 446 447 449",
    "Cyrillic, extended": "405 464 46B 474 47A 491 493 4AA 4B5 4B7 4B9 4E3 4F5 4F9 4FE 501 504 506 50A 510",
    "Digits": "31 32 33 34 35 663 664 665 666 667 7C3 7C4 7C5 7C6 7C9 ED0 ED3 ED5 ED7 ED9",
    "Dingbats": "2704 2706 2713 271E 2723 2727 272A 2730 2740 2747 274A 274D 2751 276C 279B 27A2 27A9 27AA 27AC 27AF",
    "Georgian Asomtavruli": (
        "10A0 10A2 10A4 10A7 10A8 10A9 10AA 10AB 10AC 10AE 10B0 10B5 10B9 10BA 10BC 10BD 10BE 10BF 10C3 10C5"
    ),
    "Georgian Mkhedruli": (
        "10D8 10DA 10DD 10DE 10E0 10E2 10E3 10E4 10E6 10E7 10EA 10EC 10ED 10EE 10EF 10F4 10F5 10F6 10F7 10FA"
    ),
    "Georgian Nuskhuri": (
        "2D00 2D02 2D03 2D05 2D06 2D08 2D09 2D0E 2D0F 2D11 2D13 2D15 2D18 2D1C 2D1D 2D1E 2D1F 2D21 2D23 2D25"
    ),
    "Greek": "395 39A 39B 39F 3A3 3A4 3A8 3B1 3B9 3BB 3C0 3C7 3D7 3DA 3DC 3DE 3E0 3F1 3F8 3FA",
    "Hebrew": "5D0 5D1 5D2 5D3 5D4 5D6 5D8 5DB 5DC 5DE 5DF 5E2 5E3 5E4 5E5 5E6 5E7 5E8 5E9 5EA",
    "Lao": "E81 E82 E84 E87 E88 E8D E95 E96 E99 E9B E9E EA1 EAB EAE EC4 EC6 ED0 ED3 ED6 EDC",
    "Latin capitals": "42 43 45 46 48 4A 4B 4C 4E 4F 50 52 53 54 55 56 57 58 59 5A",
    "Latin small letters": "61 63 64 66 68 6B 6C 6D 6E 6F 72 73 74 76 77 78 79 7A DF E6",
    "Latin, extended": "14A 181 186 18A 18F 194 197 198 19D 1A0 1A2 1A4 1A9 1AC 1B3 1B5 1BC 1BE 21C 241",
    "Letterlike": "2108 210E 2114 2115 2118 211C 211E 2131 2132 2133 2135 2137 2138 2139 213F 2140 2141 2142 2144 214B",
    "Lisu": "A4D0 A4D2 A4D5 A4D7 A4D9 A4DA A4DC A4E0 A4E2 A4E4 A4E5 A4E7 A4EA A4EB A4EC A4F1 A4F2 A4F3 A4F4 A4F6",
    "Mathematical operators": (
        "2201 220F 2213 221F 2227 223A 2253 225F 2272 227F 228F 229A 22A2 22A6 22AB 22B6 22B9 22BB 22E4 22F7"
    ),
    "N'Ko": "7C0 7C2 7C3 7C4 7C5 7C6 7CA 7CC 7CD 7CF 7D0 7D1 7D2 7DA 7DB 7E1 7E3 7E4 7E6 7E7",
    "Ogham": "1681 1682 1683 1684 1685 168B 168C 168D 168E 168F 1690 1691 1692 1693 1694 1695 1696 1697 1698 1699",
    "Old Italic": (
        "10302 10303 10305 10309 1030A 1030B 1030C 1030D 1030E 1030F "
        "10310 10311 10312 10314 10316 10317 10318 10319 1031A 1031E"
    ),
    "Phonetic": "254 263 270 272 278 282 283 28C 290 292 294 295 297 298 29C 29E 2A3 2A6 2A9 2AD",
    "Symbols": "2601 2606 2607 2608 2609 260D 2610 261F 2629 262A 2634 2647 2648 264A 264F 2650 2653 2661 266C 26B3",
    "Technical": "2301 2305 2306 2310 2311 2318 2319 231C 2324 2325 2327 2375 237A 237D 2387 2394 239C 23CE 23CF 23E5",
    "Tifinagh": "2D38 2D3E 2D3F 2D43 2D45 2D46 2D47 2D48 2D49 2D4C 2D4D 2D4E 2D50 2D51 2D53 2D54 2D56 2D58 2D5E 2D62",
}

# The first has every character above; the others write some scripts with another hand.
FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")

PAGE = 4 * SIZE  # a character is drawn large on a page of this height and width, in dots
EXTENT = 78  # of the character's longer side, in dots: 70 percent of the page, as in Omniglot
GRID = 2 * SIZE  # points a side at which a drawing is sampled before it is averaged down
KNOTS = 6  # control points a side of the elastic map
RECIPE = 1  # raised when the code below makes other drawings of the same values


class Hand(NamedTuple):
    """How much drawings of one character differ: every value is uniform between plus and minus, or between the two."""

    rotation: float = 15.0  # degrees
    scale: tuple[float, float] = (0.82, 1.06)  # of height and width, each its own
    shear: float = 0.15
    translation: float = 6.0  # dots
    elastic: float = 4.5  # dots, standard deviation (normal) at the control points
    pen: tuple[float, float] = (2.0, 4.2)  # dots, half the width of a stroke


HAND = Hand()


def load(seed: int = 0) -> Drawings:
    """Thirty alphabets of twenty characters with twenty drawings each, the same bit for bit for the same seed.

    Args:
        seed: Of the random maps and pens; the characters are always the same.

    Returns:
        Drawings with images uint8 [20, 20, 28, 28] an alphabet, ink 255 on a 0 page, kept in the cache folder.

    Raises:
        RunError: matplotlib's fonts are not where it says, or lack a character.
    """
    return cached(f"glyphs-{seed}-{_recipe()}", lambda: draw(seed))


def draw(seed: int) -> Drawings:
    """The same drawings, drawn anew."""
    names = tuple(sorted(ALPHABETS))
    images = tuple(np.stack([_drawings(code, seed) for code in codes(name)]) for name in names)
    characters = tuple(tuple(unicodedata.name(chr(code)).lower() for code in codes(name)) for name in names)
    return check(Drawings(names, images, characters))


def codes(alphabet: str) -> list[int]:
    """Code points of an alphabet's characters.

    Example:
        >>> "".join(chr(code) for code in codes("Latin capitals"))
        'BCEFHJKLNOPRSTUVWXYZ'
    """
    return [int(code, 16) for code in ALPHABETS[alphabet].split()]


def _recipe() -> str:
    """A digest of everything besides the seed that decides the drawings; the libraries' rounding is part of it."""
    versions = [metadata.version(name) for name in ("matplotlib", "numpy", "pillow", "scipy")]
    text = repr((ALPHABETS, DRAWINGS, FONTS, PAGE, EXTENT, GRID, KNOTS, HAND, RECIPE, versions))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drawings(code: int, seed: int) -> np.ndarray:
    """All drawings of a character, uint8 [DRAWINGS, SIZE, SIZE]."""
    from scipy import ndimage

    fields = np.stack([distance(code, font) for font in FONTS if code in _codes_of(font)])
    random = np.random.default_rng(derive(seed, "glyphs", code))
    font = random.permutation(np.arange(DRAWINGS) % len(fields))
    points = maps(random, DRAWINGS, HAND)  # [2, D, G, G]
    half = random.uniform(*HAND.pen, DRAWINGS)
    out = np.empty((DRAWINGS, GRID, GRID))
    for which, field in enumerate(fields):
        rows = np.flatnonzero(font == which)
        level = _level(field, half[rows])[:, None, None]
        # Linear interpolation: the distance is piecewise linear itself, and a spline would ring at its ridges.
        out[rows] = ndimage.map_coordinates(field, points[:, rows], order=1, mode="nearest") + level
    # Within half a sample of the outline a sample is partly covered.
    covered = np.clip(0.5 + out * (GRID / PAGE), 0, 1).reshape(DRAWINGS, SIZE, GRID // SIZE, SIZE, GRID // SIZE)
    return np.rint(255 * covered.mean(axis=(2, 4))).astype(np.uint8)


def _level(field: np.ndarray, half: np.ndarray) -> np.ndarray:
    """How far to move the outline outwards, in dots [D], for strokes of half-width `half`.

    A stroke's half-width is its area over the length of its outline. The bounds keep hairlines from vanishing, holes
    from closing, and filled shapes from changing with the pen.
    """
    own = 2 * float(np.sum(field > 0)) / float(np.sum(abs(field) < 1))
    return np.clip(half - own, -min(0.45 * own, 3.0), 2.0)


def maps(random: np.random.Generator, count: int, hand: Hand) -> np.ndarray:
    """Where `count` drawings read the large character, in dots [2, count, GRID, GRID]: affine maps and elastic ones."""
    angle = np.deg2rad(random.uniform(-hand.rotation, hand.rotation, count))
    height, width = random.uniform(*hand.scale, (2, count))
    shear = random.uniform(-hand.shear, hand.shear, count)
    cos, sin = np.cos(angle), np.sin(angle)
    # From a drawing to the large character: undo the turn, then the shear, then the scale.
    linear = np.array([[cos / height, sin / height], [(shear * cos - sin) / width, (shear * sin + cos) / width]])
    axis = (np.arange(GRID) + 0.5) * (PAGE / GRID) - PAGE / 2
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    moved = random.uniform(-hand.translation, hand.translation, (2, count, 1, 1))
    y, x = rows - moved[0], columns - moved[1]  # [count, G, G]
    read = [linear[i, 0][:, None, None] * y + linear[i, 1][:, None, None] * x for i in range(2)]
    knots = random.normal(0, hand.elastic, (2, count, KNOTS, KNOTS))
    smooth = _spline()
    return np.stack(read) + (PAGE - 1) / 2 + np.einsum("gk,adkl,hl->adgh", smooth, knots, smooth, optimize=True)


@cache
def _spline() -> np.ndarray:
    """Uniform cubic B-splines of KNOTS control points at the grid's points, [GRID, KNOTS]."""
    place = (np.arange(GRID) + 0.5) / GRID * (KNOTS - 3)
    away = abs(place[:, None] - (np.arange(KNOTS) - 1))
    return np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.where(away < 2, (2 - away) ** 3 / 6, 0))


def distance(code: int, font: str = FONTS[0]) -> np.ndarray:
    """Signed distance from the character's outline in dots, [PAGE, PAGE], positive in the ink.

    The character stands in the middle of the page, its longer side EXTENT dots.
    """
    from scipy import ndimage

    ink = _large(chr(code), font) > 127
    # Half a dot off: the outline runs between a dot of ink and its neighbour on the page.
    return np.where(ink, ndimage.distance_transform_edt(ink) - 0.5, 0.5 - ndimage.distance_transform_edt(~ink))


def _large(character: str, font: str) -> np.ndarray:
    """The character in grey, uint8 [PAGE, PAGE]."""
    from PIL import Image, ImageDraw, ImageFont

    # The basic engine draws the isolated form of a letter the same way on every system.
    large = ImageFont.truetype(_font_path(font), 2 * PAGE, layout_engine=ImageFont.Layout.BASIC)
    sheet = Image.new("L", (6 * PAGE, 6 * PAGE))
    ImageDraw.Draw(sheet).text((2 * PAGE, 2 * PAGE), character, fill=255, font=large)
    ink = sheet.crop(sheet.getbbox())
    width, height = (max(1, round(side * EXTENT / max(ink.size))) for side in ink.size)
    page = Image.new("L", (PAGE, PAGE))
    page.paste(ink.resize((width, height), Image.Resampling.BOX), ((PAGE - width) // 2, (PAGE - height) // 2))
    return np.asarray(page)


@cache
def _codes_of(font: str) -> frozenset[int]:
    """Code points that a font has; Pillow would draw a box for the others without a word."""
    from matplotlib.ft2font import FT2Font

    found = frozenset(FT2Font(_font_path(font)).get_charmap())
    if font == FONTS[0]:
        missing = [f"U+{code:04X} ({name})" for name in sorted(ALPHABETS) for code in codes(name) if code not in found]
        if missing:
            lacks = ", ".join(missing)
            raise RunError(f"{_font_path(font)} lacks {lacks}; install matplotlib anew, with its own fonts")
    return found


def _font_path(font: str) -> str:
    import matplotlib

    path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", font)
    if not os.path.isfile(path):
        raise RunError(f"no font {path}, which matplotlib carries; install matplotlib anew, with its own fonts")
    return path
