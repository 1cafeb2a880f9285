"""Quadratic bowls: the family whose walks, paths and meta-gradients have closed forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from leap.errors import UsageError
from leap.layout import Layout
from leap.randomness import generator

SPLITS = {"train": 0, "validation": 1, "test": 2}


class Quadratic:
    r"""Tasks :math:`f(\theta) = \tfrac12 (\theta - c)^T A (\theta - c)`, A positive definite, c around a common centre.

    Args:
        dim: n.
        count: Tasks in each split.
        spread: Standard deviation of the minima c around the centre, which is (1, ..., 1).
        condition: Ratio of A's largest eigenvalue, which is 1, to its smallest.
        seed: Decides A and c of every task.
        dtype: float64 by default, for tests.
    """

    def __init__(
        self,
        dim: int = 5,
        count: int = 10,
        spread: float = 0.3,
        condition: float = 10.0,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dim, self.count, self.dtype, self.device = dim, count, dtype, device
        self.layout = Layout(("theta",), ((dim,),), trunk=dim - 1, shared=dim)
        tasks = [self._draw(task, seed, spread, condition) for task in range(3 * count)]
        self.curvature = torch.stack([a for a, _ in tasks]).to(device, dtype)  # [3 count, n, n]
        self.minimum = torch.stack([c for _, c in tasks]).to(device, dtype)  # [3 count, n]

    def _draw(self, task: int, seed: int, spread: float, condition: float) -> tuple[Tensor, Tensor]:
        stream = generator(seed, "quadratic", task)
        basis = torch.linalg.qr(torch.randn(self.dim, self.dim, generator=stream, dtype=torch.float64)).Q
        values = torch.logspace(0, -1, self.dim, base=condition, dtype=torch.float64)
        centre = 1 + spread * torch.randn(self.dim, generator=stream, dtype=torch.float64)
        return basis @ values.diag() @ basis.mT, centre

    def ids(self, which: str) -> range:
        """Task ids of a split."""
        if which not in SPLITS:
            raise UsageError(f"no split {which!r}; there are {tuple(SPLITS)}")
        return range(SPLITS[which] * self.count, (SPLITS[which] + 1) * self.count)

    def name(self, task: int) -> str:
        """`bowl 7`."""
        return f"bowl {task}"

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n], standard normal."""
        theta = torch.randn(self.dim, generator=generator(seed, "initialization"), dtype=torch.float64)
        return theta.to(self.device, self.dtype)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> QuadraticBatch:
        """Bowls that walk together; nothing about them is random."""
        index = torch.tensor(list(ids), device=self.device)
        return QuadraticBatch(self.curvature[index], self.minimum[index], self.layout, index % self.count, self.count)


class QuadraticBatch:
    """T bowls (a `leap.walk.TaskBatch`): curvature [T, n, n] and minima [T, n]."""

    def __init__(self, curvature: Tensor, minimum: Tensor, layout: Layout, heads: Tensor, head_count: int) -> None:
        self.size, self.curvature, self.minimum = len(curvature), curvature, minimum
        self.layout, self.heads, self.head_count = layout, heads, head_count

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The bowls themselves, at every step."""
        return self.curvature, self.minimum

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Height of one bowl at theta [n]."""
        curvature, minimum = batch
        away = theta - minimum
        return 0.5 * away @ (curvature @ away), {}
