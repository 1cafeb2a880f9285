"""Surfaces over a plane: tasks with two parameters, whose whole loss can be drawn under the walks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from leap.errors import UsageError
from leap.layout import Layout
from leap.randomness import generator

PLACES = {"train": (0.7, 1.5, 2.3), "validation": (1.9,), "test": (1.1, 2.7)}
"""Where along the valley the minima of each split lie."""
BEND, WALL, WIDTH, SLOPE, REACH = 1.0, 0.7, 0.4, 0.9, 0.7
SPAN = (-3.2, 3.6, -2.6, 2.6)
"""The part of the plane worth drawing: left, right, bottom, top."""


class Surfaces:
    r"""Tasks over the plane :math:`\theta = (x, y)` that share one bent valley and differ in where it is deepest.

    .. math::
        f_t(x, y) = W\, \rho\!\left(\frac{y - v_t(x)}{w}\right) + S\, \rho\!\left(\frac{x - m_t}{r}\right), \quad
        \rho(u) = \sqrt{1 + u^2} - 1, \quad v_t(x) = B \sin(1.2\, x) + d_t

    The first term is a wall on both sides of the valley's floor v_t, about linear beyond w; the second a slope along
    it towards m_t, about linear beyond r. Its only stationary point is the minimum (m_t, v_t(m_t)), where f is 0, but
    f is far from convex: every walk falls down the wall at once and then follows the bends, so that a start far out
    makes all of them long.

    Args:
        spread: How far apart the tasks' valleys lie: d_t = spread sin(5 m_t).
        dtype: float64 by default; nothing here is large.

    Losses have no unit and no noise: a batch is the surface itself. Splits: three tasks to learn from, one for
    validation and two held out.

    Example:
        >>> family = Surfaces()
        >>> [family.name(task) for task in family.ids("train")]
        ['surface A', 'surface B', 'surface C']
        >>> tasks = family.batch(family.ids("train"), [0, 0, 0])
        >>> bool((family.heights(family.minimum, range(6)) == 0).all())
        True
    """

    def __init__(self, spread: float = 0.15, *, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype
        self.layout = Layout(("theta",), ((2,),), trunk=1, shared=2)
        self.place = torch.tensor([m for split in PLACES.values() for m in split], dtype=dtype)  # [6]
        self.offset = spread * torch.sin(5 * self.place)  # [6]

    @property
    def minimum(self) -> Tensor:
        """The minima of all tasks, [6, 2]."""
        return torch.stack([self.place, floor(self.place, self.offset)], dim=1)

    def ids(self, which: str) -> range:
        """Task ids of a split."""
        if which not in PLACES:
            raise UsageError(f"no split {which!r}; there are {tuple(PLACES)}")
        counts = {name: len(places) for name, places in PLACES.items()}
        first = sum(counts[name] for name in list(PLACES)[: list(PLACES).index(which)])
        return range(first, first + counts[which])

    def name(self, task: int) -> str:
        """`surface A`."""
        return f"surface {chr(ord('A') + task)}"

    def initial(self, seed: int) -> Tensor:
        """A random initialization [2]: high on a wall at the far end of the valley."""
        stream = generator(seed, "initialization")
        x, above, side = torch.rand(3, generator=stream, dtype=torch.float64)
        start = -2.9 + 1.6 * x
        away = (0.7 + 0.6 * above) * (1 if side < 0.5 else -1)
        return torch.stack([start, floor(start, torch.zeros(())) + away]).to(self.dtype)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> SurfaceBatch:
        """Surfaces that are walked on together; nothing about them is random."""
        index = torch.tensor(list(ids))
        return SurfaceBatch(self.place[index], self.offset[index], self.layout)

    def heights(self, points: Tensor, tasks: Sequence[int]) -> Tensor:
        """Losses [..., T] at points [..., T, 2], each on its own task's surface."""
        index = torch.tensor(list(tasks))
        return height(points[..., 0], points[..., 1], self.place[index], self.offset[index])


class SurfaceBatch:
    """T surfaces (a `leap.walk.TaskBatch`): where their minima lie [T], and how far their valleys are moved [T]."""

    def __init__(self, place: Tensor, offset: Tensor, layout: Layout) -> None:
        self.size, self.place, self.offset, self.layout = len(place), place, offset, layout

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The surfaces themselves, at every step."""
        return self.place, self.offset

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Height of one surface at theta [2]."""
        place, offset = batch
        return height(theta[0], theta[1], place, offset), {}


def floor(x: Tensor, offset: Tensor) -> Tensor:
    """v(x), the floor of the valley."""
    return BEND * torch.sin(1.2 * x) + offset


def height(x: Tensor, y: Tensor, place: Tensor, offset: Tensor) -> Tensor:
    """f(x, y) of the surface whose minimum lies at `place` and whose valley is moved by `offset`; they broadcast."""
    across, along = (y - floor(x, offset)) / WIDTH, (x - place) / REACH
    return WALL * _rounded(across) + SLOPE * _rounded(along)


def _rounded(u: Tensor) -> Tensor:
    """sqrt(1 + u^2) - 1: a parabola near zero, a straight line far from it."""
    return (1 + u * u).sqrt() - 1
