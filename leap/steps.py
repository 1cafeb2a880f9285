"""What a step leaves behind, and who takes it: Python step by step here, recordings in `leap.capture`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from leap.optim import State

if TYPE_CHECKING:
    from leap import adjoint
    from leap.walk import Fold


class Step(NamedTuple):
    """What one inner step of every task leaves behind (m: the shared part of theta)."""

    theta: Tensor  # [T, m]  theta^i
    loss: Tensor  # [T]     f(theta^i), on the batch of step i
    grad: Tensor  # [T, m]  gradient of that loss
    theta_next: Tensor  # [T, m]  theta^{i+1}
    aux: Mapping[str, Tensor] = MappingProxyType({})  # [T] each: what the loss recorded beside it


class Stepper(Protocol):
    """Where a walk stands, and how it takes a step."""

    @property
    def theta(self) -> Tensor:
        """theta^i [T, n]; the next step may overwrite it."""

    def point(self) -> tuple[Tensor, State]:
        """Theta^i and the optimizer's state, to be kept."""

    def take(self, i: int, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Take step i on a batch; the losses [T] before it and what they recorded, to be kept."""

    def finish(self) -> tuple[Tensor, dict[str, Any]]:
        """theta^K and the folds' states, to be kept."""


Gradient = Callable[[Tensor, Any], tuple[Tensor, dict[str, Tensor], Tensor]]


class Steps:
    """Steps as Python takes them: a gradient, the update, the folds."""

    def __init__(self, record: adjoint.Record, folds: Mapping[str, Fold], m: int, gradient: Gradient) -> None:
        self.theta, self._folds, self._m, self._gradient = record.theta0, folds, m, gradient
        self._record = record
        self._update, self._state = record.optimizer.update, record.optimizer.init(self.theta, record.extra)
        self._states = {name: fold.start(self.theta[:, :m]) for name, fold in folds.items()}

    def point(self) -> tuple[Tensor, State]:
        """As in `Stepper`."""
        return self.theta, self._state

    def take(self, i: int, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """As in `Stepper`."""
        theta, m = self.theta, self._m
        if self._record.links_up(i, self._record.steps):
            loss, aux, grad, self.theta, self._state = self._record.link(i, theta, self._state, batch)
        else:
            loss, aux, grad = self._gradient(theta, batch)
            with torch.no_grad():
                self.theta, self._state = self._update(self._state, grad, theta, i)
        with torch.no_grad():
            step = Step(theta[:, :m], loss, grad[:, :m], self.theta[:, :m], aux)
            self._states = {name: fold.step(self._states[name], step) for name, fold in self._folds.items()}
        return loss, aux

    def finish(self) -> tuple[Tensor, dict[str, Any]]:
        """As in `Stepper`."""
        return self.theta, self._states

    def stand(self, theta: Tensor, state: State, states: dict[str, Any]) -> None:
        """Go on from theta^i [T, n], the optimizer's state and the folds'."""
        self.theta, self._state, self._states = theta, state, states
