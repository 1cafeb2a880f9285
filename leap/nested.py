"""Nested states, tuples and dictionaries of tensors and numbers, as JSON beside tensors: nothing in it can execute."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

PLAIN = (bool, int, float, str, type(None))
"""What stands in JSON for itself; infinity and NaN included, as Python writes and reads them."""

HERE = "walk"  # first part of the names of tensors on the device of the walk

Kinds = Mapping[str, type]
"""Named tuples by the name under which they are written."""


class NotKept(TypeError):
    """A state holds something that cannot be written."""


def kinds(*states: Any) -> dict[str, type]:
    """The named tuples within states.

    Who reads a file looks them up among those of a state that it has already, so that no file can name code to load.

    Example:
        >>> from leap.metrics.path import path_length
        >>> list(kinds([path_length().start(torch.zeros(1, 2))]))
        ['leap.segments._Pending']
    """
    found: dict[str, type] = {}
    for value in states:
        if _named(value):
            found[_title(type(value))] = type(value)
        if isinstance(value, tuple | list):
            found |= kinds(*value)
        elif isinstance(value, Mapping):
            found |= kinds(*value.values())
    return found


def written(value: Any, known: Kinds, tensors: dict[str, Tensor]) -> Any:
    """A state as what JSON can hold; its tensors are copied to the CPU and put into `tensors` under new names.

    A tensor that stands in several places is written once, and read as one again.

    Raises:
        NotKept: it holds anything but tensors, plain numbers, text, None, tuples, lists, dictionaries with text or
            integers for keys, and known named tuples.

    Example:
        >>> tensors = {}
        >>> node = written((1, torch.ones(2)), {}, tensors)
        >>> node
        {'tuple': [1, {'tensor': 'cpu/0'}]}
        >>> read(node, {}, placed(tensors, torch.device("cpu")))
        (1, tensor([1., 1.]))
    """
    return _Writing(known, tensors).of(value)


class _Writing:
    def __init__(self, known: Kinds, tensors: dict[str, Tensor]) -> None:
        self._known, self._tensors = known, tensors
        self._seen: dict[int, tuple[Tensor, str]] = {}  # with the tensor, lest its id be given to another

    def of(self, value: Any) -> Any:
        """One value as JSON."""
        if isinstance(value, Tensor):
            return {"tensor": self._name(value)}
        if type(value) in PLAIN:
            return value
        if _named(value):
            if self._known.get(_title(type(value))) is not type(value):
                raise NotKept(f"a {type(value).__name__} that it does not hold at the start of a walk")
            return {"named": _title(type(value)), "fields": self._all(value)}
        if type(value) in (tuple, list):
            return {type(value).__name__: self._all(value)}
        if type(value) is dict and all(type(key) in (int, str) for key in value):
            return {"dict": [[key, self.of(own)] for key, own in value.items()]}
        raise NotKept(f"a {type(value).__name__}")

    def _all(self, values: Iterable[Any]) -> list[Any]:
        return [self.of(value) for value in values]

    def _name(self, tensor: Tensor) -> str:
        if id(tensor) not in self._seen:
            # numbers that optimizers and generators leave on the CPU shall be there again
            name = f"{'cpu' if tensor.device.type == 'cpu' else HERE}/{len(self._tensors)}"
            self._seen[id(tensor)] = tensor, name
            self._tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
        return self._seen[id(tensor)][1]


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's numbers, bit for bit.

    Example:
        >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest(torch.zeros(2)) == digest(-torch.zeros(2))
        (True, False)
    """
    return hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def placed(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copies of what was written, on the CPU or the walk's device, as they were.

    Copied on the CPU as well: what is read from a file does not begin where torch begins its own tensors in memory, and
    some products round by that.
    """
    return {name: tensor.to(device if name.startswith(HERE) else "cpu", copy=True) for name, tensor in tensors.items()}


def read(node: Any, known: Kinds, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `written` made this of.

    Raises:
        KeyError, TypeError, ValueError: it is none, or of named tuples that are not known.
    """
    if isinstance(node, PLAIN):
        return node
    if "tensor" in node:
        return tensors[node["tensor"]]
    if "dict" in node:
        return {key: read(own, known, tensors) for key, own in node["dict"]}
    if "named" in node:
        return known[node["named"]](*(read(own, known, tensors) for own in node["fields"]))
    values = [read(own, known, tensors) for own in node["tuple" if "tuple" in node else "list"]]
    return tuple(values) if "tuple" in node else values


def _named(value: Any) -> TypeGuard[tuple[Any, ...]]:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _title(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
