"""Moving pictures in a folder: animated WebP, which browsers and most viewers show, and an index of what they show.

A set is replaced as a whole: every file is written in one step, the index after all of them, and what it does not name
is removed last. A kill leaves the old index with its files, or the new one with its own.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leap.errors import UsageError
from leap.run import write_atomic

INDEX = "index.json"
SUFFIX = ".webp"
MOST_BYTES = 4 * 2**20
"""No file is larger, unless it is a single picture."""
_HOLD = 1000  # milliseconds that the last picture stays before all begins again


class Animation(NamedTuple):
    """An encoded moving picture."""

    data: bytes
    frames: int
    """Pictures in it; equal ones in a row are stored once."""
    rate: float
    """Pictures a second."""


class Videos:
    """The moving pictures of a run's evaluation, `folder/WHAT-score.webp` and `folder/index.json`.

    Args:
        folder: Made with the first picture.
        about: Stands at the head of the index.

    Raises:
        UsageError: this Pillow cannot write WebP.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        check_webp()
        self.folder, self._about = folder, dict(about)
        self.entries: list[dict[str, Any]] = []

    def add(self, frames: Sequence[np.ndarray], rate: float, name: Sequence[str], facts: Mapping[str, Any]) -> Path:
        """Write one.

        Args:
            frames: uint8 [H, W, 3].
            rate: Pictures a second.
            name: Parts of the file's name, which stand in it as far as they are letters, digits, dots and hyphens.
            facts: What the index says of it, ready for JSON; it adds `frames`, `rate` and `file`.
        """
        found = animated(frames, rate)
        file = self._free("-".join(map(plain, name)))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / file, found.data)
        self.entries.append({**facts, "frames": found.frames, "rate": round(found.rate, 3), "file": file})
        return self.folder / file

    def finish(self) -> None:
        """Put this set in the place of the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {"format": 1, **self._about, "videos": self.entries}
        write_atomic(self.folder / INDEX, (json.dumps(document, indent=1) + "\n").encode())
        kept = {entry["file"] for entry in self.entries}
        for file in self.folder.glob(f"*{SUFFIX}"):
            if file.name not in kept:
                file.unlink(missing_ok=True)

    def _free(self, stem: str) -> str:
        taken = {entry["file"] for entry in self.entries}
        while stem + SUFFIX in taken:
            stem += "_"
        return stem + SUFFIX


def check_webp() -> None:
    """Refuse videos where this Pillow cannot write WebP."""
    from PIL import features

    if not features.check("webp"):
        raise UsageError("videos are animated WebP, which this Pillow cannot write; pip install --upgrade pillow")


def animated(frames: Sequence[np.ndarray], rate: float, most: int = MOST_BYTES) -> Animation:
    """Pictures uint8 [H, W, 3] as an animated WebP without loss that begins again after its last picture.

    While it is larger than `most` bytes, every other picture is left out; it lasts as long and moves less smoothly.

    Example:
        >>> frames = [np.full((16, 16, 3), shade, np.uint8) for shade in (0, 80, 160)]
        >>> animated(frames, rate=15.0).data[8:12]
        b'WEBP'
    """
    frames = list(frames)
    while True:
        data = _webp(frames, rate)
        if len(data) <= most or len(frames) == 1:
            return Animation(data, len(frames), rate)
        frames, rate = frames[::2], rate / 2


def plain(part: str) -> str:
    """A part of a file's name: letters, digits, dots and hyphens of ASCII stay, the rest becomes an underscore.

    Example:
        >>> plain("catch with 3 lives"), plain("../x"), plain("-21")
        ('catch_with_3_lives', '_x', '-21')
    """
    return re.sub(r"^\.+", "", re.sub(r"[^A-Za-z0-9.-]+", "_", part))[:80] or "_"


def _webp(frames: Sequence[np.ndarray], rate: float) -> bytes:
    from PIL import Image

    edges = [math.floor(i * 1000 / rate + 0.5) for i in range(len(frames) + 1)]  # no drift by rounding
    lasting = [after - before for before, after in pairwise(edges)]
    lasting[-1] += _HOLD
    first, *others = (Image.fromarray(frame) for frame in frames)
    out = io.BytesIO()
    # games are flat areas of few colours: without loss they are smaller than with it, at the cheapest effort
    first.save(
        out, "WEBP", save_all=True, append_images=others, duration=lasting, loop=0, lossless=True, method=0, quality=50
    )
    return out.getvalue()
