"""A data set as a task's pictures: parts for training, validation and testing, and how they are normalized.

Images stay bytes, grey ones in one channel, on the device that a family asks for.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leap.errors import UsageError
from leap.randomness import generator
from tasks import embedded_sets, image_sources
from tasks.image_files import ImageSet

# Of HAT's code, as shares of 255: what its experiment, and so the paper's, normalizes by.
PUBLISHED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    "cifar100": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    "mnist": ((0.1,), (0.2752,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.198, 0.201, 0.197)),
    "fashion": ((0.2190,), (0.3318,)),
    "gtsrb": ((0.3398, 0.3117, 0.3210), (0.2755, 0.2647, 0.2712)),
    "facescrub": ((0.5163, 0.5569, 0.4695), (0.2307, 0.2272, 0.2479)),
    "notmnist": ((0.4254,), (0.4501,)),
}
"""Mean and standard deviation of channels by task."""


class Part(NamedTuple):
    """Images of a task."""

    images: Tensor  # uint8 [N, C, H, W], C 1 or 3
    labels: Tensor  # int64 [N]


class Pictures(NamedTuple):
    """A task's pictures."""

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    mean: tuple[float, ...]  # of channels, shares of 255
    std: tuple[float, ...]


def find(name: str, folder: Path | None = None) -> ImageSet:
    """A data set by name: an embedded one (`tasks.embedded_sets`), one on this machine, or a folder of class folders.

    Raises:
        UsageError: as `tasks.image_sources.load`.
    """
    (found,) = embedded_sets.load([name]) if name in embedded_sets.EMBEDDED else image_sources.load([name], folder)
    return found._replace(name=name)


def pictures(
    found: ImageSet, *, seed: int, validation: float = 0.15, most: int | None = None, most_test: int | None = None
) -> Pictures:
    """A data set as a task's pictures.

    Args:
        found: The set.
        seed: Decides which images are for validation, and which are kept where not all are.
        validation: Share of the training images that is for validation; at least one image.
        most: Training images to keep, those for validation counted; None: all. Classes keep their proportions.
        most_test: Test images to keep, likewise.

    Raises:
        UsageError: too few training images to leave any for training.
    """
    train, test = (_kept(found, part, seed, most if part else most_test) for part in (True, False))
    count = max(1, round(validation * len(train.labels)))
    if count >= len(train.labels):
        raise UsageError(
            f"{found.name} keeps {len(train.labels)} training images, of which {count} would be for validation; "
            "raise tasks.most or lower tasks.validation"
        )
    ours = Part(train.images[count:], train.labels[count:])
    mean, std = PUBLISHED.get(found.name) or _moments(ours.images)
    if len(mean) not in (1, ours.images.shape[1]):  # a set by that name, but not that set
        mean, std = _moments(ours.images)
    held = Part(train.images[:count], train.labels[:count])
    return Pictures(found.name, found.class_names, ours, held, test, mean, std)


def normalized(task: Pictures, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes [N, C, H, W] as the network takes them, [N, 3, H, W]; grey ones in three equal channels."""
    mean, std = (torch.tensor(part, dtype=dtype, device=images.device).view(-1, 1, 1) for part in (task.mean, task.std))
    return ((images.to(dtype) / 255 - mean) / std).expand(-1, 3, -1, -1)


def placed(task: Pictures, device: torch.device) -> Pictures:
    """The same pictures on a device."""
    train, validation, test = (Part(*(t.to(device) for t in part)) for part in (task.train, task.validation, task.test))
    return task._replace(train=train, validation=validation, test=test)


def _kept(found: ImageSet, train: bool, seed: int, most: int | None) -> Part:
    """A part's images in an order in which any first part has classes in proportion."""
    rows = np.flatnonzero(found.split == train)
    order = rows[in_proportion(found.labels[rows], seed, "train" if train else "test", found.name)[:most]]
    images = torch.from_numpy(found.images[order]).permute(0, 3, 1, 2).contiguous()
    return Part(images, torch.from_numpy(found.labels[order]))


def in_proportion(labels: np.ndarray, seed: int, *stream: int | str) -> np.ndarray:
    """A random order [N] in which every first part holds the classes in proportion, to within an image each.

    Example:
        >>> labels = np.repeat([0, 1], [30, 10])
        >>> np.bincount(labels[in_proportion(labels, 0)[:8]])
        array([6, 2])
    """
    place = np.empty(len(labels))
    for label in np.unique(labels).tolist():
        own = np.flatnonzero(labels == label)
        stream_of = generator(seed, "in proportion", *stream, label)
        order = torch.randperm(len(own), generator=stream_of).numpy()
        # The same offset for a whole class: its k-th image stands at (k + offset) / n of the order.
        offset = float(torch.rand((), generator=stream_of, dtype=torch.float64))
        place[own[order]] = (np.arange(len(own)) + offset) / len(own)
    return np.argsort(place, kind="stable")


def _moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of channels, as shares of 255; from counts of bytes, which takes no memory."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float(share @ values)
        means.append(mean)
        deviations.append(
            max(float(share @ (values - mean).square()) ** 0.5, 1 / 255)
        )  # blank channels stay as they are
    return tuple(means), tuple(deviations)


@functools.lru_cache(maxsize=1)  # one worker's runs share a seed's pictures, one run after another
def drawn(
    names: tuple[str, ...], folder: Path, seed: int, validation: float, most: int | None, most_test: int | None
) -> tuple[Pictures, ...]:
    """The pictures of the tasks named, from a folder that holds a folder for each set; to be left as they are."""
    options: dict[str, Any] = {"seed": seed, "validation": validation, "most": most, "most_test": most_test}
    return tuple(pictures(find(name, folder), **options) for name in names)
