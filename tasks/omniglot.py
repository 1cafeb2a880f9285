"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 50 alphabets, 1,623 characters, 20 drawings of each.

Read from the two official zips, or from others with the same images in them: what counts is what they hold, not the
checksum of the container. Nothing is unpacked to disk.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leap.errors import UsageError
from tasks import datasets
from tasks.drawings import SIZE, Drawings, cached, check

DRAWINGS = 20
SIDE = 105
"""Height and width of the original drawings in pixels."""


class Part(NamedTuple):
    """One of the two zips and what it must hold."""

    folder: str  # the entries' first folder; the zip's name without its ending
    alphabets: int
    characters: int


PARTS = (Part("images_background", 30, 964), Part("images_evaluation", 20, 659))

_RECIPE = "1"  # changes whenever the same zips would give other drawings
_LARGEST_ENTRY = 65_536  # bytes; a drawing has some 200
_CURE = "put a whole copy in its place, or delete it and run `leap fetch omniglot`"
# What zipfile raises on entries that are cut short, altered, encrypted or packed by a method it does not know.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, struct.error)

Character = dict[str, bytes]  # drawer's number -> 1-bit image, packed


def load(folder: Path | None = None) -> Drawings:
    """All 50 alphabets: ink 255 on a 0 page, antialiased to 28x28.

    Args:
        folder: Holds `images_background.zip` and `images_evaluation.zip`, directly or in its folder `omniglot`; where
            it is not given, the folder of `tasks.datasets.locate`.

    Returns:
        Alphabets by name, characters by name (`character01`, ...), drawings by the number of their drawer; images uint8
        [characters, 20, 28, 28] an alphabet. Kept in the cache folder under a digest of the zips.

    Raises:
        UsageError: a zip is missing, damaged, or does not hold Omniglot; the message says which and what to do.

    Pixels are means over areas of the original, where the paper's released code takes single pixels (Pillow resizes
    1-bit images by nearest neighbour whatever is asked), and ink is bright, where there it is dark.
    """
    paths = _find(datasets.locate("omniglot") if folder is None else folder)
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    return cached(f"omniglot-{_RECIPE}-{digest.hexdigest()[:16]}", lambda: _decode(paths))


def _find(folder: Path) -> list[Path]:
    """The zips, all from one place."""
    names = [f"{part.folder}.zip" for part in PARTS]
    found = {place: [name for name in names if (place / name).is_file()] for place in (folder, folder / "omniglot")}
    place = max(found, key=lambda place: len(found[place]))
    if missing := [name for name in names if name not in found[place]]:
        raise UsageError(
            f"no {' and no '.join(missing)} in {folder} or its folder omniglot; run `leap fetch omniglot`, or set "
            "LEAP_DATA to a folder in which omniglot/ holds both zips"
        )
    return [place / name for name in names]


def _decode(paths: list[Path]) -> Drawings:
    alphabets: dict[str, dict[str, Character]] = {}
    for part, path in zip(PARTS, paths, strict=True):
        read = _read(part, path)
        _check_part(part, path, read)
        alphabets |= read
    names = tuple(sorted(alphabets))
    characters = tuple(tuple(sorted(alphabets[name])) for name in names)
    images = tuple(_shrink(_in_order(alphabets[name])) for name in names)
    return check(Drawings(names, images, characters))


def _in_order(alphabet: dict[str, Character]) -> list[bytes]:
    """All drawings of an alphabet, by character and then by drawer."""
    return [drawers[number] for _, drawers in sorted(alphabet.items()) for number in sorted(drawers)]


def _read(part: Part, path: Path) -> dict[str, dict[str, Character]]:
    """Packed drawings by alphabet, character and drawer. Entries' names are keys here, never paths."""
    entry = re.compile(re.escape(part.folder) + r"/([^/]+)/([^/]+)/\d+_(\d+)\.png")
    alphabets: dict[str, dict[str, Character]] = defaultdict(lambda: defaultdict(dict))
    where = "its table of contents"
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if match := entry.fullmatch(info.filename):
                    where = info.filename
                    alphabet, character, drawer = match.groups()
                    alphabets[alphabet][character][drawer] = _pixels(archive, info)
    except _UNREADABLE as error:
        raise UsageError(f"{path} is damaged at {where} ({str(error) or type(error).__name__}); {_CURE}") from error
    return alphabets


def _pixels(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A drawing as bits, a row in 14 bytes."""
    from PIL import Image

    if info.file_size > _LARGEST_ENTRY:
        raise ValueError(f"{info.file_size} bytes, where a drawing has at most {_LARGEST_ENTRY}")
    try:
        image = Image.open(io.BytesIO(archive.read(info)), formats=("PNG",))
        if image.size != (SIDE, SIDE) or image.mode != "1":
            width, height = image.size
            raise ValueError(f"{width}x{height} pixels of mode {image.mode}, not {SIDE}x{SIDE} of mode 1")
        return image.tobytes()
    except SyntaxError as error:  # Pillow's word for a broken PNG
        raise ValueError(str(error)) from error


def _check_part(part: Part, path: Path, read: dict[str, dict[str, Character]]) -> None:
    characters = sum(len(alphabet) for alphabet in read.values())
    if (len(read), characters) != (part.alphabets, part.characters):
        raise UsageError(
            f"{path} holds {len(read)} alphabets with {characters} characters, Omniglot's {part.folder} has "
            f"{part.alphabets} with {part.characters}; {_CURE}"
        )
    for name, alphabet in read.items():
        for character, drawers in alphabet.items():
            if len(drawers) != DRAWINGS:
                raise UsageError(
                    f"{path} holds {len(drawers)} drawings of {name}/{character}, Omniglot has {DRAWINGS}; {_CURE}"
                )


def _shrink(packed: list[bytes]) -> np.ndarray:
    """Drawings of an alphabet, uint8 [characters, DRAWINGS, SIZE, SIZE], from their bits, paper 1."""
    bits = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), SIDE, -1)
    ink = 1 - np.unpackbits(bits, axis=-1)[..., :SIDE].astype(np.float32)
    # Means over areas: a pixel's grey is its share of ink, so a stroke weighs the same wherever it lies. Lanczos would
    # be a little sharper, but rings beside strokes of two values, where bytes cut the rings off and weight is lost.
    # Shares are multiples of 1/225, which never come near half a grey level, so all machines round them alike.
    share = _shares()
    grey = 255 * (share @ ink @ share.T)
    return np.rint(grey).astype(np.uint8).reshape(-1, DRAWINGS, SIZE, SIZE)


def _shares() -> np.ndarray:
    """How much of each small pixel every large one covers along one side, [SIZE, SIDE], rows summing to one."""
    small, large = np.arange(SIZE)[:, None] * (SIDE / SIZE), np.arange(SIDE)
    overlap = np.minimum(small + SIDE / SIZE, large + 1) - np.maximum(small, large)
    return (np.maximum(overlap, 0) * (SIZE / SIDE)).astype(np.float32)
