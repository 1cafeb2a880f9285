"""Measured items by seed and task, and the tables that they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from leap.measure.plan import Item, Plan
from leap.measure.store import Kept, Store
from leap.metrics.complexity import Complexity, complexity

Values = list[list[list[float | None]]]


def complexity_of(numbers: dict[str, float], eigenvalues: Tensor, beta: float, variance: float) -> Complexity:
    """`C_beta` of a measured solution or union; its norm is that of the way from the prior's centre."""
    weight = torch.tensor([math.sqrt(numbers["squared_norm"])], dtype=torch.float64)
    loss = torch.tensor(numbers["loss"], dtype=torch.float64)
    return complexity(loss, weight, eigenvalues, beta=beta, prior_variance=variance)


class Reader:
    """Results of a measuring by seed and task, and the tables made of them.

    Args:
        store: Items, all there.
        plan: How they were measured.
        tasks: Task ids, the order of rows and columns.
    """

    def __init__(self, store: Store, plan: Plan, tasks: Sequence[int]) -> None:
        self.store, self.plan, self.tasks = store, plan, list(tasks)
        self._kept: dict[Item, Kept] = {}

    def get(self, kind: str, seed: int, target: int, source: int) -> Kept:
        """An item's result; unions are kept once for both directions."""
        if kind == "union":
            target, source = min(target, source), max(target, source)
        item = Item(kind, seed, target, source)
        if item not in self._kept:
            self._kept[item] = self.store.load(item)
        return self._kept[item]

    def complexity(self, kind: str, seed: int, target: int, source: int, beta: float | None = None) -> Complexity:
        """Of a solution (target = source) or of a union."""
        found = self.get(kind, seed, target, source)
        curved = self.get("curvature", seed, target, source) if kind == "solution" else found
        price = self.plan.beta if beta is None else beta
        return complexity_of(found.numbers, curved.tensors["eigenvalues"], price, self.plan.prior_variance)

    def matrix(self, cell: Callable[[int, int, int], float | None], *, diagonal: bool = True) -> Values:
        """[S][T][T] of `cell(seed, target, source)`; without the diagonal its cells are None."""
        return [
            [[cell(s, t, o) if diagonal or t != o else None for o in self.tasks] for t in self.tasks]
            for s in self.plan.seeds
        ]

    def single(self, cell: Callable[[int, int], float]) -> list[list[float]]:
        """[S][T] of `cell(seed, task)`."""
        return [[cell(seed, task) for task in self.tasks] for seed in self.plan.seeds]


def table(values: Values, unit: str, label: str, kind: str) -> dict[str, Any]:
    """One matrix of the document."""
    return {"values": values, "unit": unit, "label": label, "kind": kind, "censored": None}
