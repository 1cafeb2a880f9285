"""Passes over rows of parameters [T, n] in C (vectors.c), each for several of torch's calls.

Each function answers None where it does not serve: on other devices, for other types of numbers, where a graph is
recorded or something follows torch's calls, and where nothing compiles. Whoever asks then writes it with torch.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from leap import native

# Of each function of vectors.c: pointers and whole numbers.
_ARGUMENTS = {"distance": (3, 4), "pull": (6, 9), "rmsprop": (6, 2)}


def distance(x: Tensor, y: Tensor) -> Tensor | None:
    """The norm of y - x in each row, [T].

    Example:
        >>> with torch.no_grad():
        ...     found = distance(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        >>> found is None or found.item() == 5
        True
    """
    call = _serving(x, y)
    if call is None:
        return None
    found = x.new_empty(len(x))
    call("distance", (x, y, found), x.stride(0), y.stride(0), *x.shape)
    return found


def pull(
    total: Tensor, x: Tensor, y: Tensor, g: Tensor, rise: Tensor, factor: Tensor | None,
    *, length: bool, loss: bool, stabilizer: bool,
) -> Tensor | None:  # fmt: skip
    r"""Leap's increment (`leap.learners.leap`), in place.

    .. math::
        T \mathrel{-}= w\,(y - x + s\, g), \qquad
        s = -|r| \phi \text{ (stabilizer)},\ r \phi,\text{ or } 0 \text{ (no loss)}, \qquad
        w = \|(y - x, r)\|^{-1} \text{ (length)},\text{ or } 2

    Args:
        total: T, [T, m].
        x, y, g: theta^i, theta^{i+1} and the gradient at theta^i, [T, m]; g is not read without the loss coordinate.
        rise, factor: r and phi, [T]; factor None: 1.
        length: Whether of the length; else of the energy.
        loss: Whether there is a loss coordinate.
        stabilizer: Which s.
    """
    call = _serving(total, x, y, g)
    if call is None or rise.dtype != total.dtype or not rise.is_cpu:
        return None
    factor = torch.ones_like(rise) if factor is None else factor.to(rise.dtype).contiguous()
    rows = (total.stride(0), x.stride(0), y.stride(0), g.stride(0))
    call("pull", (total, x, y, g, rise.contiguous(), factor), *rows, length, loss, stabilizer, *x.shape)
    return total


def rmsprop(
    theta: Tensor, grad: Tensor, second: Tensor, *, rate: float, alpha: float, eps: float, inside: bool
) -> tuple[Tensor, Tensor] | None:
    r"""Theta and second moment after a step of `leap.optim.rmsprop`, with eps inside or outside the root."""
    call = _serving(theta, grad, second)
    if call is None or not (theta.is_contiguous() and grad.is_contiguous() and second.is_contiguous()):
        return None
    found = torch.empty_like(theta), torch.empty_like(theta)
    numbers = torch.tensor([rate, alpha, eps], dtype=torch.float64)
    call("rmsprop", (theta, grad, second, numbers, *found), inside, theta.numel())
    return found


def _serving(*rows: Tensor) -> native.Functions | None:
    """What computes with these, where it can."""
    dtype, shape = rows[0].dtype, rows[0].shape
    if len(shape) != 2 or torch.is_grad_enabled() or not native.unwatched():
        return None
    for row in rows:  # a loop: this is asked at every step
        if not row.is_cpu or row.dtype != dtype or row.shape != shape or row.stride(1) != 1:
            return None
    return _functions(dtype)


@functools.cache
def _functions(dtype: torch.dtype) -> native.Functions | None:
    return native.functions(Path(__file__).with_name("vectors.c"), dtype, _ARGUMENTS) if dtype in native.KINDS else None
