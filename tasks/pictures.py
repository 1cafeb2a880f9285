"""From a picture of any size to one of 32 x 32, and from a set without a test part to one that has it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from leap.errors import UsageError
from leap.randomness import generator
from tasks.image_files import LONGEST_SIDE

SIDE = 32
"""Height and width of every picture in pixels."""
TEST_SHARE = 5
"""Of a set that comes without a training part, one image in so many is for testing."""
LONGEST_PICTURE = 8 * LONGEST_SIDE
"""Height and width that a picture in a file of its own may have."""
ENDINGS = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp")
"""How the names of pictures that are read end."""

_FORMATS = ("PNG", "JPEG", "PPM", "BMP")
_GREY = ("1", "L", "LA", "La")


def decode(content: bytes | bytearray, side: int = SIDE) -> np.ndarray:
    """A picture's file as uint8 [side, side, C], C 1 (grey) or 3.

    The whole picture is resized, so that one that is not square changes its proportions. Every pixel is a mean over the
    area that it covers, weighed by a triangle (bilinear, antialiased: Pillow's); enlarged, pixels are interpolated.
    Transparency is dropped, and of 16 bits of grey the upper eight are kept.

    Raises:
        ValueError: no picture that can be read, or one longer than `LONGEST_PICTURE`.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 50), (255, 0, 0)).save(file, "PNG")
        >>> decode(file.getvalue(), 2)[0, 0]
        array([255,   0,   0], dtype=uint8)
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if max(image.size) > LONGEST_PICTURE:
                width, height = image.size
                raise ValueError(f"{width} x {height} pixels, at most {LONGEST_PICTURE} x {LONGEST_PICTURE} are read")
            plain = _plain(image)
    except Exception as error:  # Pillow's decoders raise whatever damage makes them stumble upon
        raise ValueError(str(error) or type(error).__name__) from error
    pixels = np.asarray(plain.resize((side, side), Image.Resampling.BILINEAR))
    return pixels.reshape(side, side, -1)


def _plain(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, of which nothing says how bright they are")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("L" if image.mode in _GREY else "RGB")


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Pillow's warning of a decompression bomb is an error, and what else it remarks on files is not told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def enlarge(images: np.ndarray, path: Path) -> np.ndarray:
    """Images [N, H, W, C] as [N, SIDE, SIDE, C]: 28 x 28 get a frame of background, 16 x 16 are doubled.

    Raises:
        UsageError: images of another size, read from `path`.
    """
    height, width = images.shape[1:3]
    if (height, width) == (28, 28):
        return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    if (height, width) == (16, 16):
        return images.repeat(2, axis=1).repeat(2, axis=2)
    if (height, width) != (SIDE, SIDE):
        raise UsageError(f"{path} holds images of {height} x {width}; 16 x 16, 28 x 28 and {SIDE} x {SIDE} are read")
    return images


def without_repeats(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of images that are the same byte for byte, the first, whatever their labels."""
    seen: set[bytes] = set()
    kept = np.ones(len(images), bool)
    for place, image in enumerate(images):
        digest = blake2b(image.tobytes(), digest_size=16).digest()
        kept[place] = digest not in seen
        seen.add(digest)
    return (images, labels) if kept.all() else (images[kept], labels[kept])


def halve(labels: np.ndarray, name: str) -> np.ndarray:
    """Which images are for training: all but one in `TEST_SHARE` of each class, the same ones for every seed."""
    split = np.ones(len(labels), bool)
    for label in np.unique(labels).tolist():
        own = np.flatnonzero(labels == label)
        order = torch.randperm(len(own), generator=generator(0, "test part", name, label)).numpy()
        split[own[order[: len(own) // TEST_SHARE]]] = False
    return split
