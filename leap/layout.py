"""A model's parameters as one vector, and back.

The method works on `theta [n]` (or `[T, n]`, one row a task); only a loss needs names and shapes, which it gets as
views of that vector. The parameters of the output layer stand last, so that "everything but the head" and "what all
tasks share" are slices.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Where each parameter stands in the vector.

    Attributes:
        names: Parameter names, in the order of the vector.
        shapes: Their shapes.
        trunk: Length of the part before the output layer (ANIL adapts only what stands behind it).
        shared: Length of the part that all tasks share and that is meta-learned; `n` unless heads are task-own.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    trunk: int
    shared: int

    def __post_init__(self) -> None:
        if not 0 <= self.trunk <= self.n or not 0 < self.shared <= self.n:
            raise ValueError(f"trunk and shared must lie within n = {self.n}, got {self.trunk} and {self.shared}")

    @classmethod
    def of(cls, module: nn.Module, *, head: str | None = None, own_head: bool = False) -> Layout:
        """The layout of a module's trainable parameters, output layer last.

        Args:
            module: Any module. Parameters that do not require a gradient stay in the module, outside the vector.
            head: Name of the submodule that is the output layer. None: `head` if there is one, else the last
                submodule that holds parameters of its own.
            own_head: Each task has a head of its own, which is not meta-learned: `shared` ends where the head begins.

        Raises:
            ValueError: the module has no trainable parameter, or no submodule of the name given.

        Example:
            >>> module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
            >>> layout = Layout.of(module)
            >>> layout.n, layout.trunk, layout.names[-1]
            (26, 16, '2.bias')
        """
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not named:
            raise ValueError(f"{type(module).__name__} has no parameter that requires a gradient, so nothing to learn")
        head = _head_name(module, named) if head is None else head
        in_head = [name for name in named if name == head or name.startswith(f"{head}.")]
        if not in_head:
            modules = sorted(name for name, _ in module.named_modules() if name)
            raise ValueError(f"no trainable parameter under the head {head!r}; submodules: {modules}")
        names = tuple([name for name in named if name not in in_head] + in_head)
        trunk = sum(named[name].numel() for name in names if name not in in_head)
        n = trunk + sum(named[name].numel() for name in in_head)
        if own_head and trunk == 0:
            raise ValueError(f"own_head leaves nothing to share: every parameter stands under {head!r}")
        shapes = tuple(tuple(named[name].shape) for name in names)
        return cls(names, shapes, trunk, trunk if own_head else n)

    @property
    def sizes(self) -> list[int]:
        """Number of entries of each parameter."""
        return [torch.Size(shape).numel() for shape in self.shapes]

    @property
    def n(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    def without_head(self) -> Layout:
        """The layout of the trunk alone: the first `trunk` entries of the vector, with their names and shapes.

        Raises:
            ValueError: nothing stands before the head, or the trunk ends within a parameter.

        Example:
            >>> module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
            >>> bare = Layout.of(module).without_head()
            >>> bare.n, bare.trunk, bare.names
            (16, 16, ('0.weight', '0.bias'))
        """
        ends = [0, *itertools.accumulate(self.sizes)]
        if self.trunk == 0 or self.trunk not in ends:
            raise ValueError(
                f"a trunk of {self.trunk} entries holds no whole parameters (they end at {ends[1:]}); "
                "a network with layers before its head has one"
            )
        kept = ends.index(self.trunk)
        return Layout(self.names[:kept], self.shapes[:kept], self.trunk, self.trunk)

    def flatten(self, source: nn.Module | Mapping[str, Tensor]) -> Tensor:
        """The vector [n] of a module's parameters, or of a mapping from names to tensors; detached, a copy.

        Raises:
            ValueError: a parameter is missing or has another shape.

        Example:
            >>> module = nn.Linear(2, 1)
            >>> layout = Layout.of(module)
            >>> torch.equal(layout.unflatten(layout.flatten(module))["weight"], module.weight)
            True
        """
        named = dict(source.named_parameters()) if isinstance(source, nn.Module) else source
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in named:
                raise ValueError(f"parameter {name!r} is missing; there are {sorted(named)}")
            if tuple(named[name].shape) != shape:
                raise ValueError(f"parameter {name!r} must have shape {shape}, got {tuple(named[name].shape)}")
        return torch.cat([named[name].detach().reshape(-1) for name in self.names])

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Named views of a vector [..., n]; leading axes are kept.

        `split` rather than slices: its backward is a single concatenation.

        Raises:
            ValueError: the last axis is not n long.
        """
        if theta.shape[-1] != self.n:
            raise ValueError(f"theta must have {self.n} entries on its last axis, got shape {tuple(theta.shape)}")
        parts = theta.split(self.sizes, dim=-1)
        return {
            name: part.unflatten(-1, shape) if shape else part.squeeze(-1)
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }


def _head_name(module: nn.Module, named: Mapping[str, Tensor]) -> str:
    """`head` where a module of that name has parameters, else the last submodule with parameters of its own."""
    if any(name.startswith("head.") for name in named):
        return "head"
    last = list(named)[-1]
    owner = last.rpartition(".")[0]
    return owner or last
