"""The optimizer of meta-parameters: any of torch's, with a schedule, and a state that comes back as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from leap.errors import RunError, UsageError
from leap.optim import Schedule


class MetaOptimizer:
    """A torch optimizer on the meta-parameters, with a schedule of its learning rate.

    Args:
        meta: Meta-parameters [m + e]; the optimizer moves them in place.
        name: Any class of `torch.optim` that steps on dense gradients without a closure.
        schedule: Factor of the learning rate at a meta-step.
        options: The class's own keyword arguments, `lr` among them.
    """

    def __init__(self, meta: Tensor, name: str, schedule: Schedule, options: Mapping[str, Any]) -> None:
        self.meta = torch.nn.Parameter(meta)
        self.optimizer = build_meta_optimizer(name, self.meta, options)
        self.schedule, self._made = schedule, (name, options)
        self._rate = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, grad: Tensor, step: int) -> float:
        """Descend a meta-gradient [m + e] at meta-step `step` (from 0); the learning rate used."""
        for group, rate in zip(self.optimizer.param_groups, self._rate, strict=True):
            group["lr"] = rate * self.schedule(step)
        self.meta.grad = grad
        self.optimizer.step()
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Tensor]:
        """The optimizer's own tensors by name; numbers become tensors."""
        kept = self.optimizer.state.get(self.meta, {})
        return {name: torch.as_tensor(value) for name, value in kept.items() if value is not None}

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take up a state that `state` returned, exactly: torch's own loading would cast NAdam's product of factors.

        Scalars (counters) stay on the CPU, where torch keeps them.

        Raises:
            RunError: the state is of another optimizer.
        """
        found, known = (
            {k: (tuple(t.shape), t.dtype) for k, t in one.items()} for one in (tensors, self._after_a_step())
        )
        if found != known and (found or step):
            raise RunError(f"the checkpoint's optimizer holds {found}, expected {known}")
        placed = {name: t.to(self.meta.device) if t.dim() else t for name, t in tensors.items()}
        self.optimizer.state[self.meta] = {name: t.clone() for name, t in placed.items()}

    def _after_a_step(self) -> dict[str, Tensor]:
        """What `state` returns after a step, but for the values."""
        name, options = self._made
        other = MetaOptimizer(torch.zeros_like(self.meta.data), name, self.schedule, options)
        other.step(torch.zeros_like(self.meta.data), 0)
        return other.state()


def build_meta_optimizer(name: str, parameter: torch.nn.Parameter, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """A torch optimizer by name.

    Raises:
        UsageError: no such class, one that cannot step on a single dense vector, or options it does not take.
    """
    import difflib

    known = sorted(
        n for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)
    )
    usable = [n for n in known if n not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")]  # closure, sparse, matrices
    if name not in usable:
        near = difflib.get_close_matches(name, usable, 1, 0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no meta-optimizer {name!r}.{hint} Known: {usable}")
    try:
        built: torch.optim.Optimizer = getattr(torch.optim, name)([parameter], **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"torch.optim.{name} refuses {dict(options)}: {error}") from error
    return built
