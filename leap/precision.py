"""In which precision networks compute, full, TF32 or bfloat16, and what that does to a result.

Parameters, inner updates, folds and meta-gradients stay in the walk's own precision: this is an option of the loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from leap.walk import TaskBatch, Walk

Precision = Literal["highest", "tf32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
_CONVOLUTIONS = frozenset({torch.conv1d, torch.conv2d, torch.conv3d})


@contextlib.contextmanager
def float32(precision: Precision) -> Iterator[None]:
    """How a GPU multiplies float32 numbers for as long as the context lasts: `tf32` rounds factors to 10 bits.

    Torch's own choice is TF32 for convolutions; `highest` and `bf16` take it back.

    Raises:
        ValueError: a precision of another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32  # Inductor reads these, and raises where the newer names were set
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class _Halved(TorchFunctionMode):
    """Convolutions of float32 tensors in bfloat16: autocast does not see those within a `vmap`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _CONVOLUTIONS:
            return func(*args, **kwargs)
        found = func(*map(_halved, args), **{name: _halved(value) for name, value in kwargs.items()})
        return found.float() if found.dtype == torch.bfloat16 else found


def _halved(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


class Halved:
    """Tasks whose losses take convolutions and products in bfloat16; sums within them are kept in float32.

    Losses in float64 are left alone, as torch's autocast leaves them.
    """

    def __init__(self, tasks: TaskBatch) -> None:
        self._tasks = tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tasks, name)

    def sample(self, theta: Tensor, step: int) -> Any:
        """As the tasks do."""
        return self._tasks.sample(theta, step)

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """As the tasks do, in bfloat16."""
        with torch.autocast(theta.device.type, torch.bfloat16, cache_enabled=False), _Halved():
            found, aux = self._tasks.loss(theta, batch)
        return found.to(theta.dtype), aux


def precise(tasks: TaskBatch, precision: Precision) -> TaskBatch:
    """Tasks whose losses compute in this precision, inside `float32` of the same."""
    return Halved(tasks) if precision == "bf16" else tasks


def effect(walks: Callable[[Precision], Walk], precision: Precision, fold: str) -> float:
    r"""What a precision does to a meta-gradient: its relative difference from that in full precision.

    .. math:: \|G_p - G\| / \|G\|

    Args:
        walks: The same walk in any precision. A few steps: beyond them walks part, whatever the precision.
        precision: p.
        fold: The learner's name among the walk's results, G [T, m].

    Returns:
        A number of at least 0; 0 where both are zero, infinity where G alone is.

    Example:
        >>> found = {"highest": torch.tensor([[3.0, 4.0]]), "tf32": torch.tensor([[3.0, 4.5]])}
        >>> round(effect(lambda p: Walk(None, None, {"it": found[p]}, {}), "tf32", "it"), 6)
        0.1
    """
    exact, other = walks("highest").results[fold].double(), walks(precision).results[fold].double()
    difference, size = float((other - exact).norm()), float(exact.norm())
    if size == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / size
