"""A loss written for one task, evaluated for T tasks: in one `vmap` or one task after another.

This is the only place that knows the difference; everything else works on [T, n]. `compiled` and `captured` are ways to
take the steps of a walk (`leap.capture`); wherever else a loss is evaluated they are `batched`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Execution = Literal["batched", "sequential", "compiled", "captured"]
EXECUTIONS: tuple[str, ...] = get_args(Execution)
Loss = Callable[[Tensor, Any], tuple[Tensor, Mapping[str, Tensor]]]


def map_batch(function: Callable[[Any], Any], batch: Any) -> Any:
    """Apply a function to every leaf of nested tuples, lists and mappings, keeping their types."""
    if isinstance(batch, Mapping):
        return type(batch)({key: map_batch(function, value) for key, value in batch.items()})  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_batch(function, value) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_batch(function, value) for value in batch)
    return function(batch)


def tasks_from(batch: Any, start: int, stop: int) -> Any:
    """The part of a batch that belongs to tasks start .. stop - 1, as a batch of its own."""
    return map_batch(lambda leaf: leaf[start:stop] if isinstance(leaf, Tensor) else leaf, batch)


def task_of(batch: Any, task: int) -> Any:
    """One task's part of a batch, without the axis of tasks."""
    return map_batch(lambda leaf: leaf[task] if isinstance(leaf, Tensor) else leaf, batch)


def count_tasks(batch: Any) -> int | None:
    """T, read off the first tensor of a batch; None where it holds none."""
    found: list[int] = []
    map_batch(lambda leaf: found.append(len(leaf)) if isinstance(leaf, Tensor) and leaf.dim() else None, batch)
    return found[0] if found else None


def evaluate(loss: Loss, theta: Tensor, batch: Any, execution: Execution) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [T] and recorded scalars [T] at theta [T, n], differentiable in theta."""
    if execution != "sequential":
        losses, aux = torch.func.vmap(_pair(loss), in_dims=(0, _axes(batch)))(theta, batch)
        return losses, aux
    rows = []
    for t, point in enumerate(theta.unbind(0)):
        own = task_of(batch, t)
        rows.append(_pair(loss)(point, own))
    return torch.stack([row[0] for row in rows]), {k: torch.stack([row[1][k] for row in rows]) for k in rows[0][1]}


def loss_and_gradient(
    loss: Loss, theta: Tensor, batch: Any, execution: Execution
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Losses [T], recorded scalars, and each task's gradient [T, n] at theta [T, n]; all detached.

    Rows do not meet in a loss, so the gradient of the sum is the stack of the tasks' gradients. Sequential execution
    differentiates a task before it evaluates the next: activations of one task at a time.
    """
    if execution != "sequential":
        return _differentiate(lambda points, all_: evaluate(loss, points, all_, "batched"), theta, batch)
    rows = [_differentiate(_pair(loss), row, task_of(batch, t)) for t, row in enumerate(theta)]
    aux = {name: torch.stack([row[1][name] for row in rows]) for name in rows[0][1]}
    grads = [row[2] for row in rows]
    # one task's gradient need not be copied
    return torch.stack([row[0] for row in rows]), aux, torch.stack(grads) if len(grads) > 1 else grads[0].unsqueeze(0)


def traceable_gradient(loss: Loss, batch: Any) -> Callable[[Tensor, Any], tuple[Tensor, dict[str, Tensor], Tensor]]:
    """`loss_and_gradient` of batches like this one as a function of theta [T, n] and batch that a compiler can trace.

    It differentiates within the `vmap`, where `loss_and_gradient` differentiates what the `vmap` returns.
    """

    def value(theta: Tensor, own: Any) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        found, aux = _pair(loss)(theta, own)
        return found, (found, aux)

    mapped = torch.func.vmap(torch.func.grad(value, has_aux=True), in_dims=(0, _axes(batch)))

    def gradient(theta: Tensor, own: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        grad, (losses, aux) = mapped(theta, own)
        return losses, aux, grad

    return gradient


def losses_at(loss: Loss, theta: Tensor, batch: Any, execution: Execution) -> Tensor:
    """Losses [T] at theta [T, n], without a graph."""
    with torch.no_grad():
        return evaluate(loss, theta, batch, execution)[0]


def _axes(batch: Any) -> Any:
    """What `vmap` maps over: the first axis of every tensor."""
    return map_batch(lambda leaf: 0 if isinstance(leaf, Tensor) else None, batch)


def _differentiate(
    loss: Callable[[Tensor, Any], tuple[Tensor, dict[str, Tensor]]], theta: Tensor, batch: Any
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    with torch.enable_grad():
        point = theta.detach().requires_grad_()
        losses, aux = loss(point, batch)
        (grad,) = torch.autograd.grad(losses.sum(), point)
    return losses.detach(), {name: value.detach() for name, value in aux.items()}, grad


def _pair(loss: Loss) -> Callable[[Tensor, Any], tuple[Tensor, dict[str, Tensor]]]:
    """The loss with its contract checked: a scalar, and a mapping of what to record."""

    def checked(theta: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        result = loss(theta, batch)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"loss must return (loss, recorded scalars), got {type(result).__name__}; add an empty {{}}"
            )
        value, aux = result
        if aux is not None and not isinstance(aux, Mapping):
            raise TypeError(f"what loss records must be a mapping from names to scalars, got {type(aux).__name__}")
        if value.dim() != 0:
            raise ValueError(f"loss must be a scalar for one task, got shape {tuple(value.shape)}; take its mean")
        return value, {name: torch.as_tensor(recorded) for name, recorded in (aux or {}).items()}

    return checked
