"""What the measures of curvature accept: weights, inputs, logits, matrices, numbers; checked once at the boundary."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Logits = Callable[[Tensor, Tensor], Tensor]  # (theta [K], inputs [n, ...]) -> logits [n, C], row i from input i alone

Number = float | Tensor

ROUND_OFF = 1e-8  # eigenvalues below zero by less than this share of the largest are round-off
FORWARD_ROWS = 256
FINITE_ROWS = 64


def as_double(theta: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and inputs in float64 (integers stay what they are), once they are known to be usable."""
    if not isinstance(theta, Tensor) or theta.dim() != 1 or not theta.is_floating_point():
        raise TypeError(f"theta must be a floating-point Tensor [K], got {_describe(theta)}; use layout.flatten(model)")
    if not isinstance(inputs, Tensor) or inputs.dim() == 0:
        raise TypeError(f"inputs must be a Tensor [n, ...], got {_describe(inputs)}")
    if len(theta) == 0 or inputs.numel() == 0:
        raise ValueError(
            f"curvature needs weights and inputs, got {len(theta)} weights and inputs {tuple(inputs.shape)}"
        )
    _check_finite("theta", theta)
    _check_finite("inputs", inputs)
    return theta.detach().double(), inputs.double() if inputs.is_floating_point() else inputs


def probabilities(logits: Logits, theta: Tensor, inputs: Tensor) -> Tensor:
    """Softmax outputs [n, C] in float64, once the logits are known to be finite and of one input each."""
    with torch.no_grad():
        parts = [logits(theta, part) for part in inputs.split(FORWARD_ROWS)]
        alone = logits(theta, inputs[:1])
    out = torch.cat(parts)
    if out.dim() != 2 or len(out) != len(inputs) or out.shape[1] < 2:
        raise ValueError(f"logits must be [{len(inputs)}, C] with at least two classes, got {tuple(out.shape)}")
    if not bool(torch.isfinite(out).all()):
        raise ValueError("logits are not finite at finite weights and inputs: they overflow; scale the inputs down")
    gap, size = float((out[0] - alone[0]).abs().max()), float(out[0].abs().max())
    if gap > (1e-8 if out.dtype == torch.float64 else 1e-3) * size:
        raise ValueError(
            f"logits of an input depend on the inputs beside it (they moved by {gap:.2g}), so it has no Fisher "
            "information of its own; put batch normalization in evaluation mode, or use group normalization"
        )
    return out.double().softmax(1)


def nonnegative(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues with round-off below zero removed; anything further below is an error."""
    low, high = float(eigenvalues.min()), float(eigenvalues.max())
    if low < -ROUND_OFF * max(high, 0.0):
        raise ValueError(
            f"eigenvalues must not be negative, got {low:.3g} beside a largest of {high:.3g}: curvature here is the "
            "Fisher (Gauss-Newton), which has none; a Hessian has, and its log-determinant means nothing"
        )
    return eigenvalues.clamp_min(0.0)


def positive(name: str, value: float | Tensor) -> float:
    """A positive, finite number."""
    number = float(value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be positive and finite, got {number}")
    return number


def matrix_of(name: str, value: Tensor) -> Tensor:
    """A matrix in float64, once it is known to be one."""
    if not isinstance(value, Tensor) or value.dim() != 2 or not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point Tensor with two axes, got {_describe(value)}")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty, shape {tuple(value.shape)}")
    _check_finite(name, value)
    return value.detach().double()


def vector_of(name: str, value: Tensor) -> Tensor:
    """A vector in float64, once it is known to be one."""
    if not isinstance(value, Tensor) or value.dim() != 1:
        raise TypeError(f"{name} must be a floating-point Tensor with one axis, got {_describe(value)}")
    return matrix_of(name, value[:, None])[:, 0]


def check_module(module: nn.Module) -> None:
    """Refuse a module whose outputs depend on more than weights and input: running statistics, active dropout."""
    for name, part in module.named_modules():
        if getattr(part, "running_mean", None) is not None:
            raise ValueError(
                f"{name or type(part).__name__} keeps running statistics, so the loss that was trained is not the one "
                "measured; train with group normalization or none"
            )
        if part.training and isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            raise ValueError(
                f"{name or type(part).__name__} drops at random in training mode; call module.eval() first"
            )


def _check_finite(name: str, value: Tensor) -> None:
    bad = sum(int((~torch.isfinite(part)).sum()) for part in value.split(FINITE_ROWS))  # isfinite makes a copy
    if bad:
        raise ValueError(f"{name} holds {bad} values that are not finite; did training diverge?")


def _describe(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def finite(name: str, value: Number) -> Tensor:
    """A number or tensor in float64, once it is known to be finite."""
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            f"{name} must be finite, got {tensor[~torch.isfinite(tensor)][0].item()}; did training diverge?"
        )
    return tensor


def positive_values(name: str, value: Number) -> Tensor:
    """The same, once it is known to be above zero everywhere."""
    tensor = finite(name, value)
    if not bool((tensor > 0).all()):
        raise ValueError(f"{name} must be positive, got {tensor.tolist()}")
    return tensor
