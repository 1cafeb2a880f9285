"""Multi-CV with made pictures: sets of different size, width and number of channels."""

from __future__ import annotations

import numpy as np

from tasks.image_files import ImageSet
from tasks.multi_cv import MultiCV
from tasks.parts import pictures


def blobs(number: int, classes: int, per_class: int = 12, channels: int = 1, size: int = 16) -> ImageSet:
    """Pictures of smooth blobs, a shape a class with noise: learnable, and made in no time. A third is for testing."""
    rng = np.random.default_rng([7, number])
    coarse = size // 4
    shapes = rng.random((classes, 1, coarse, coarse, channels))
    drawn = shapes + 0.3 * rng.random((classes, per_class, coarse, coarse, channels))
    images = (drawn / 1.3 * 255).astype(np.uint8).repeat(4, axis=2).repeat(4, axis=3)
    labels = np.repeat(np.arange(classes), per_class)
    split = np.tile(np.arange(per_class) % 3 > 0, classes)
    names = tuple(f"c{i}" for i in range(classes))
    return ImageSet(f"blobs-{number}", images.reshape(-1, size, size, channels), labels, split, names)


def small_multi_cv(count: int = 4, **changes) -> MultiCV:
    """A family of `count` sets with 2, 3, 4, ... classes, the last one held out."""
    sets = [blobs(i, 2 + i, per_class=12 + 3 * i, channels=(1, 3)[i % 2]) for i in range(count)]
    options = {"held_out": (sets[-1].name,), "seed": 0, "batch_size": 4, "filters": 3}
    return MultiCV([pictures(found, seed=0) for found in sets], **(options | changes))
