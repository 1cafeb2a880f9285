"""Vision data sets as tasks: MNIST and its kin, CIFAR, each classified behind one trunk shared by all.

Every task has as many training images as every other, since a task's complexity grows with them, and a task's classes
have as many as each other. Images live on the device as bytes for the whole run, and a batch is a gather.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from leap.epochs import Order
from leap.errors import UsageError
from leap.layout import Layout
from leap.measure.problem import TaskData
from leap.randomness import generator
from tasks.image_files import ImageSet
from tasks.image_sources import superset
from tasks.models import Encoder, headless, initialize

Normalization = Literal["own", "shared"]
Part = Literal["train", "test"]
Choice = Callable[[ImageSet, Part, int, int], np.ndarray]
"""Which images of a set a task has: set, part, how many, seed -> rows [size]."""
SPLITS = ("train", "validation", "test")
_CHUNK = 500  # test images a forward pass


class ImageSets:
    """A task family: every data set is a classification task.

    Heads are as wide as the widest task's; a task with fewer classes has the logits of the others masked, so that its
    loss and gradient are those of a head of its own width.

    Args:
        sets: Data sets with pictures of one size.
        held_out: Names of tasks that no pretraining sees: they are the split `test`, the others `train`. With `all`,
            every task is in both. That is for measuring tasks against each other, and what comes of it says nothing
            about tasks that were not seen.
        seed: Decides which images a task uses.
        train_size, test_size: Images a task, the same for all tasks and balanced over a task's classes: counts of
            two classes differ by at most one. Tasks of one data set draw the same images where they share a class.
        batch_size: Images an inner step.
        widths: Channels of the network's convolutions.
        normalization: By the statistics of each task's own training images, or by those of all tasks together. Shared,
            an inverted set stays inverted, and tasks differ by all that tells them apart.
        choice: Which images a task has; by default as said above. With `in_order`, sets of the same pictures are
            tasks on the same images.
        device: Where images and batches live.

    Raises:
        UsageError: fewer images than asked for, or a task held out that is not there.
    """

    def __init__(
        self,
        sets: Sequence[ImageSet],
        *,
        held_out: Sequence[str] | Literal["all"] = "all",
        seed: int,
        train_size: int = 1500,
        test_size: int = 300,
        batch_size: int = 50,
        widths: tuple[int, ...] = (16, 32, 64),
        normalization: Normalization = "own",
        choice: Choice | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if len({found.images.shape[1:3] for found in sets}) != 1:
            sizes = {found.name: found.images.shape[1:3] for found in sets}
            raise UsageError(f"tasks need pictures of one size, got {sizes}; tasks.image_sources makes them so")
        self.names = tuple(found.name for found in sets)
        self.class_names = tuple(found.class_names for found in sets)
        self.seed, self.batch_size = seed, batch_size
        self._ids = _split(self.names, held_out)
        choose = class_balanced if choice is None else choice
        train = [_chosen(found, "train", choose, train_size, seed) for found in sets]
        test = [_chosen(found, "test", choose, test_size, seed) for found in sets]
        self.train_images, self.train_labels = (torch.stack(part).to(device) for part in zip(*train, strict=True))
        self.test_images, self.test_labels = (torch.stack(part).to(device) for part in zip(*test, strict=True))
        self.counts = torch.tensor([len(names) for names in self.class_names], device=device)  # [A] classes
        self.mean, self.std = _moments(self.train_images, normalization)
        size = self.train_images.shape[-1]
        self._options: dict[str, Any] = {"classes": int(self.counts.max()), "widths": widths, "size": size}
        self.module = Encoder(**self._options).to(device)
        self.layout = Layout.of(self.module)
        self._trunk, self._trunk_layout = headless(self.module), self.layout.without_head()

    @property
    def width(self) -> int:
        """Features that a head sees."""
        return self.module.head.in_features

    def ids(self, which: str) -> tuple[int, ...]:
        """Task ids of a split: `train`, `validation` (none) or `test`."""
        if which not in SPLITS:
            raise UsageError(f"no split {which!r}; there are {SPLITS}")
        return self._ids[which]

    def name(self, task: int) -> str:
        """The data set's name."""
        return self.names[task]

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n]."""
        fresh = initialize(Encoder(**self._options), generator(seed, "initialization"))
        return self.layout.flatten(fresh).to(self.train_images.device)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> ImageBatch:
        """Tasks that walk together, each with the seed of its own stream of batches."""
        return ImageBatch(self, ids, seeds)

    def features(self, trunk: Tensor, inputs: Tensor) -> Tensor:
        """Features [N, width] of inputs [N, 3, H, W] at a trunk [m]; pure, each row of its own input alone."""
        found: Tensor = functional_call(self._trunk, self._trunk_layout.unflatten(trunk), (inputs,))
        return found

    def dataset(self, task: int) -> TaskData:
        """A task's images as the loss sees them, and labels; the first rows, however many, are balanced by default."""
        row = torch.tensor([task], device=self.train_images.device)
        return TaskData(
            self.names[task],
            self.normalize(self.train_images[row], row, torch.float32)[0],
            self.train_labels[task],
            self.normalize(self.test_images[row], row, torch.float32)[0],
            self.test_labels[task],
            len(self.class_names[task]),
        )

    def normalize(self, images: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Bytes [T, N, 3, H, W] of tasks [T], standardized by channel as `normalization` says."""
        mean, std = (part[rows][:, None, :, None, None].to(dtype) for part in (self.mean, self.std))
        return (images.to(dtype) / 255 - mean) / std


class ImageBatch:
    """T data sets walking together (a `leap.walk.TaskBatch`).

    There is no `query`: a learner that wants held-out data for its outer loss is given the next training batch, so that
    test images decide nothing.
    """

    def __init__(self, family: ImageSets, ids: Sequence[int], seeds: Sequence[int]) -> None:
        self.size, self.layout, self._family = len(ids), family.layout, family
        self._rows = torch.tensor(ids, device=family.train_images.device)
        places = {task: place for place, task in enumerate(family.ids("train"))}
        self.heads, self.head_count = torch.tensor([places.get(task, 0) for task in ids]), len(places)
        count = family.train_images.shape[1]
        self._orders = [Order(count, family.batch_size, seed, "epoch", device=self._rows.device) for seed in seeds]

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs [T, B, 3, H, W], labels [T, B] and classes [T] of inner step `step`: every image once an epoch."""
        family, rows = self._family, self._rows[:, None]
        index = torch.stack([order.batch(step) for order in self._orders])  # [T, B]
        images = family.normalize(family.train_images[rows, index], self._rows, theta.dtype)
        return images, family.train_labels[rows, index], family.counts[self._rows]

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean cross-entropy of one task in nats, over its own classes, and its error in percent."""
        images, labels, classes = batch
        logits = self._logits(theta, images, classes)
        return F.cross_entropy(logits, labels), {"error": 100 * (logits.argmax(-1) != labels).float().mean()}

    @torch.no_grad()
    def score(self, theta: Tensor) -> dict[str, Tensor]:
        """Test error (percent) and loss (nats) [T] at theta [T, n]."""
        family, errors, losses = self._family, [], []
        for point, row in zip(theta, self._rows, strict=True):
            labels, parts = family.test_labels[row], family.test_images[row].split(_CHUNK)
            inputs = (family.normalize(part[None], row[None], theta.dtype)[0] for part in parts)
            logits = torch.cat([self._logits(point, images, family.counts[row]) for images in inputs])
            errors.append(100 * (logits.argmax(-1) != labels).to(theta.dtype).mean())
            losses.append(F.cross_entropy(logits, labels))
        return {"test_error": torch.stack(errors), "test_loss": torch.stack(losses)}

    def _logits(self, theta: Tensor, images: Tensor, classes: Tensor) -> Tensor:
        """Logits [B, C]; those of classes that the task has not are so low that they have no probability at all."""
        logits: Tensor = functional_call(self._family.module, self.layout.unflatten(theta), (images,))
        absent = torch.arange(logits.shape[-1], device=logits.device) >= classes
        # Finite, since infinity times zero would be NaN in a second derivative.
        return logits.masked_fill(absent, torch.finfo(logits.dtype).min / 2)


def _split(names: tuple[str, ...], held_out: Sequence[str] | Literal["all"]) -> dict[str, tuple[int, ...]]:
    everything = tuple(range(len(names)))
    if held_out == "all":
        return {"train": everything, "validation": (), "test": everything}
    if unknown := [name for name in held_out if name not in names]:
        raise UsageError(f"{unknown[0]!r} is held out, but the tasks are {', '.join(names)}; name it among them")
    test = tuple(i for i in everything if names[i] in held_out)
    if not 0 < len(test) < len(names):
        raise UsageError(
            f"{len(test)} of {len(names)} tasks are held out; some must be, and some not, or say held_out: all"
        )
    return {"train": tuple(i for i in everything if i not in test), "validation": (), "test": test}


def balanced(labels: np.ndarray, classes: Sequence[str], size: int, seed: int, *stream: int | str) -> np.ndarray:
    """Positions of `size` images, in rounds: every round shows each class once, in an order of its own.

    So classes differ by at most one image, the first images of a longer choice are the shorter choice, and any part
    from the start is balanced too.

    Args:
        labels: [N], from 0.
        classes: Names of the classes; a class's images are drawn by its name.
        size: Images wanted.
        seed, stream: Name the randomness, as in `leap.randomness.generator`.

    Returns:
        Positions [size].

    Raises:
        ValueError: `size` is more than a balanced choice can have; the message says how many that is.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1])
        >>> labels[balanced(labels, ("a", "b"), 5, 0)][:4].reshape(2, 2).sum(1)
        array([1, 1])
    """
    own = [np.flatnonzero(labels == label) for label in range(len(classes))]
    least = min(len(members) for members in own)
    most = least * len(own) + sum(len(members) > least for members in own)
    if size > most:
        raise ValueError(f"{len(labels)} images of {len(own)} classes, {least} of the smallest, make {most} at most")
    rounds = -(-size // len(own))
    picked = np.full((rounds, len(own)), -1)
    for label, (name, members) in enumerate(zip(classes, own, strict=True)):
        order = torch.randperm(len(members), generator=generator(seed, *stream, "class", name)).numpy()
        picked[: len(members), label] = members[order[:rounds]]
    turns = [torch.randperm(len(own), generator=generator(seed, *stream, "round", i)).numpy() for i in range(rounds)]
    rows = np.concatenate([row[turn] for row, turn in zip(picked, turns, strict=True)])
    return rows[rows >= 0][:size]


def class_balanced(found: ImageSet, part: Part, size: int, seed: int) -> np.ndarray:
    """Rows [size] of a set: as many of each class, the same ones for all tasks of one data set.

    Raises:
        ValueError: as `balanced`.
    """
    rows = np.flatnonzero(found.split == (part == "train"))
    return rows[balanced(found.labels[rows], found.class_names, size, seed, part, superset(found.name))]


def in_order(found: ImageSet, part: Part, size: int, seed: int) -> np.ndarray:
    """The first rows [size] of a part of a set, which whoever made the set has drawn already.

    Raises:
        ValueError: the part is smaller.
    """
    rows = np.flatnonzero(found.split == (part == "train"))
    if size > len(rows):
        raise ValueError(f"{len(rows)} images are there")
    return rows[:size]


def _chosen(found: ImageSet, part: Part, choose: Choice, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images uint8 [size, 3, H, W] and labels [size] of one part of a data set."""
    try:
        kept = choose(found, part, size, seed)
    except ValueError as error:
        raise UsageError(
            f"{found.name} has too few images for {part}ing on {size}: {error}; lower tasks.{part}_size"
        ) from error
    images = torch.from_numpy(found.images[kept]).permute(0, 3, 1, 2)
    return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(found.labels[kept])


def _moments(images: Tensor, normalization: Normalization) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [A, 3] of the channels of images [A, N, 3, H, W], as shares of 255."""
    found = [torch.var_mean(own.double() / 255, dim=(0, 2, 3), correction=0) for own in images]  # one task in memory
    variances, means = (torch.stack(part) for part in zip(*found, strict=True))
    if normalization == "shared":  # every task has as many images, so the moments of all are means of moments
        squares, shared = (variances + means.square()).mean(dim=0), means.mean(dim=0)
        variances, means = (part.expand_as(means) for part in (squares - shared.square(), shared))
    return means, variances.sqrt().clamp(min=1 / 255)  # a blank channel stays as it is
