"""The table of learners and families that contracts run over; joining is one row."""

from __future__ import annotations

import numpy as np
import torch
from small_multi_cv import small_multi_cv

from leap import learners
from leap.layout import Layout
from tasks.alphabets import Alphabets, Protocol
from tasks.drawings import Drawings
from tasks.image_files import ImageSet
from tasks.image_sets import ImageSets
from tasks.quadratic import Quadratic
from tasks.sinusoid import Sinusoid

LEARNERS = {
    "leap": learners.leap,
    "leap-energy": lambda: learners.leap("energy"),
    "leap-plain": lambda: learners.leap(loss_coordinate=False, stabilizer=False, last_segment=False),
    "leap-unstable": lambda: learners.leap(stabilizer=False),
    "leap-exact": lambda: learners.leap(jacobian="exact"),
    "reptile": learners.reptile,
    "fomaml": learners.fomaml,
    "maml": learners.maml,
    "anil": learners.anil,
    "meta_sgd": learners.meta_sgd,
    "finetune": learners.finetune,
    "none": learners.none,
}


def random_drawings(alphabets: int = 8, characters: int = 5, drawings: int = 6, seed: int = 0) -> Drawings:
    """Smooth random blobs, one shape a character with noise a drawing: learnable, and made in no time."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((alphabets, characters, 1, 7, 7)) + 0.3 * rng.random((alphabets, characters, drawings, 7, 7))
    images = (np.kron(coarse, np.ones((4, 4))) / 1.3 * 255).astype(np.uint8)
    names = tuple(f"alphabet-{i}" for i in range(alphabets))
    labels = tuple(tuple(f"c{j}" for j in range(characters)) for _ in names)
    return Drawings(names=names, images=tuple(images), characters=labels)


def small_alphabets(seed: int = 0, **changes) -> Alphabets:
    """Alphabets small enough for float64 contracts."""
    protocol = Protocol(ways=4, shots=4, queries=2, train=4, held_out=2, batch_size=6)._replace(**changes)
    return Alphabets(random_drawings(), protocol, seed=seed, filters=3)


def random_sets(classes: tuple[int, ...] = (3, 4, 2, 3), seed: int = 0) -> list[ImageSet]:
    """Data sets of 8 x 8 blobs, grey and coloured in turn: 6 training and 3 test images a class."""
    sets = []
    for number, count in enumerate(classes):
        rng, channels = np.random.default_rng([seed, number]), (1, 3)[number % 2]
        shapes = rng.random((count, 1, 8, 8, channels)) + 0.3 * rng.random((count, 9, 8, 8, channels))
        images = (shapes / 1.3 * 255).astype(np.uint8).reshape(-1, 8, 8, channels)
        labels, split = np.repeat(np.arange(count), 9), np.tile(np.arange(9) < 6, count)
        sets.append(ImageSet(f"set-{number}", images, labels, split, tuple(f"c{i}" for i in range(count))))
    return sets


def small_image_sets(**changes) -> ImageSets:
    """Image sets small enough for float64 contracts; heads of different width."""
    sizes = {"train_size": 11, "test_size": 5, "batch_size": 4, "widths": (3, 4), "seed": 0, "held_out": ("set-1",)}
    return ImageSets(random_sets(), **(sizes | changes))


FAMILIES = {
    "alphabets": small_alphabets,
    "image sets": small_image_sets,
    "multi cv": small_multi_cv,
    "sinusoid": lambda: Sinusoid(count=4, shots=5, queries=5, hidden=(6,)),
    "quadratic": lambda: Quadratic(dim=4, count=4),
}


class Waves:
    """T smooth, non-quadratic surfaces that change from step to step, with a head of two parameters."""

    def __init__(self, tasks: int = 3, n: int = 6, seed: int = 0, with_layout: bool = True) -> None:
        g = torch.Generator().manual_seed(seed)
        root = torch.randn(tasks, n, n, generator=g, dtype=torch.float64)
        self.curvature = root @ root.mT / n
        self.slope = torch.randn(tasks, n, generator=g, dtype=torch.float64)
        self.theta0 = torch.randn(n, generator=g, dtype=torch.float64)
        if with_layout:
            self.layout = Layout(("body", "head"), ((n - 2,), (2,)), trunk=n - 2, shared=n)

    def sample(self, theta, step):
        return {"curvature": self.curvature, "slope": self.slope * (1 + 0.1 * step)}

    def query(self, theta, step):
        return {"curvature": self.curvature * 1.5, "slope": -self.slope}

    def loss(self, theta, batch):
        bowl = 0.5 * theta @ batch["curvature"] @ theta - batch["slope"] @ theta
        return bowl + 0.3 * torch.sin(theta).prod() + 0.05 * theta.pow(4).sum(), {"first": theta[0]}
