"""Sinusoid regression, the example family of `Finn et al. 2017 <https://arxiv.org/abs/1703.03400>`_, section 5.1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from leap.errors import UsageError
from leap.layout import Layout
from leap.randomness import generator
from tasks.models import MLP, initialize

SPLITS = {"train": 0, "validation": 1, "test": 2}


class Sinusoid:
    """Tasks y = a sin(x + p): amplitude a in [0.1, 5], phase p in [0, pi), inputs x in [-5, 5]; mean squared error.

    Args:
        count: Tasks in each split.
        shots: Training points of a task, all of them in every batch.
        queries: Held-out points of a task.
        hidden: Widths of the network's hidden layers.
        seed: Decides amplitudes and phases.
        device: Where tensors live.
    """

    def __init__(
        self,
        count: int = 100,
        shots: int = 10,
        queries: int = 50,
        hidden: tuple[int, ...] = (40, 40),
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.count, self.shots, self.queries, self.seed, self.device = count, shots, queries, seed, device
        self._hidden = hidden
        self.module = MLP(hidden).to(device)
        self.layout = Layout.of(self.module)

    def ids(self, which: str) -> range:
        """Task ids of a split."""
        if which not in SPLITS:
            raise UsageError(f"no split {which!r}; there are {tuple(SPLITS)}")
        return range(SPLITS[which] * self.count, (SPLITS[which] + 1) * self.count)

    def name(self, task: int) -> str:
        """`wave 7`."""
        return f"wave {task}"

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n]."""
        fresh = initialize(MLP(self._hidden), generator(seed, "initialization"))
        return self.layout.flatten(fresh).to(self.device)

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> SinusoidBatch:
        """Waves that walk together, each on points drawn from its seed."""
        return SinusoidBatch(self, ids, seeds)


class SinusoidBatch:
    """T waves (a `leap.walk.TaskBatch`)."""

    def __init__(self, family: Sinusoid, ids: Sequence[int], seeds: Sequence[int]) -> None:
        self.size, self.layout, self._module = len(ids), family.layout, family.module
        self.heads, self.head_count = torch.tensor([task % family.count for task in ids]), family.count
        points = [_points(family, task, seed) for task, seed in zip(ids, seeds, strict=True)]
        x = torch.stack([x for x, _ in points]).to(family.device)
        y = torch.stack([y for _, y in points]).to(family.device)
        self._support = (x[:, : family.shots], y[:, : family.shots])
        self._query = (x[:, family.shots :], y[:, family.shots :])

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The training points, [T, shots, 1] each, at every step."""
        return self._support

    def query(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The held-out points, [T, queries, 1] each."""
        return self._query

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean squared error of one wave."""
        x, y = (part.to(theta.dtype) for part in batch)
        return F.mse_loss(functional_call(self._module, self.layout.unflatten(theta), (x,)), y), {}


def _points(family: Sinusoid, task: int, seed: int) -> tuple[Tensor, Tensor]:
    amplitude, phase = torch.rand(2, generator=generator(family.seed, "sinusoid", task))
    stream = generator(seed, "points")
    x = 10 * torch.rand(family.shots + family.queries, 1, generator=stream) - 5
    return x, (0.1 + 4.9 * amplitude) * torch.sin(x + math.pi * phase)
