"""Where measured items are kept: one file each, whole or absent, so that a measuring can stop and go on anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from leap.errors import RunError, UsageError
from leap.measure.plan import Item
from leap.run import pack, unpack, write_atomic


class Result(NamedTuple):
    """What an item of work leaves behind."""

    tensors: dict[str, Tensor]
    numbers: dict[str, float]


class Parts(dict[str, Any]):
    """What an item holds by name; an item that is not what is asked of it is damaged, and removed."""

    def __init__(self, path: Path, parts: Mapping[str, Any]) -> None:
        super().__init__(parts)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise _removed(self._path, f"{self._path} holds no {name}")

    def sized(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape.

        Raises:
            RunError: there is none of that name, or one of another shape.
        """
        found: Tensor = self[name]
        if tuple(found.shape) != shape:
            raise _removed(self._path, f"{self._path} holds {name} of shape {list(found.shape)}, not {list(shape)}")
        return found


class Kept(NamedTuple):
    """A result as it was kept."""

    tensors: Parts
    numbers: Parts


@dataclass(frozen=True)
class Store:
    """A folder of results; `about` is what they all depend on, and is kept with them."""

    folder: Path
    about: Mapping[str, Any]

    def prepare(self) -> None:
        """Make the folder, or check that what it holds was measured in the same way.

        Raises:
            UsageError: it holds results of other settings, tasks or another initialization.
        """
        (self.folder / "items").mkdir(parents=True, exist_ok=True)
        path, wanted = self.folder / "measuring.json", json.loads(json.dumps(self.about))
        if not path.exists():
            write_atomic(path, (json.dumps(wanted, indent=2) + "\n").encode())
            return
        try:
            found = _flat(json.loads(path.read_text()))
        except (ValueError, AttributeError, RecursionError) as error:
            raise RunError(f"{path} is damaged ({error}); remove {self.folder} to measure anew") from error
        wanted = _flat(wanted)
        differing = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if differing:
            changes = "\n".join(
                f"  {key}: {found.get(key)!r} there, {wanted.get(key)!r} now" for key in sorted(differing)
            )
            raise UsageError(
                f"{self.folder} was measured differently:\n{changes}\nmeasure as before, or move that folder away"
            )

    def path(self, item: Item) -> Path:
        """The item's file."""
        return self.folder / "items" / f"{item.key}.safetensors"

    def has(self, item: Item) -> bool:
        """Whether the item is there and whole."""
        return self.path(item).exists()

    def save(self, item: Item, result: Result) -> None:
        """Keep an item."""
        write_atomic(self.path(item), pack(result.tensors, {"key": item.key, "numbers": result.numbers}))

    def load(self, item: Item) -> Kept:
        """An item's result.

        Raises:
            RunError: it is not there, or damaged (the file is removed, so that the next call measures it anew).
        """
        path = self.path(item)
        if not path.exists():
            raise RunError(f"{path} is missing; repeat the command to measure it")
        try:
            tensors, about = unpack(path)
            if any(tensor.is_complex() for tensor in tensors.values()):
                raise RunError(f"{path} holds complex numbers, which nothing measures")
            numbers = {name: float(value) for name, value in about["numbers"].items()}
            return Kept(Parts(path, tensors), Parts(path, numbers))
        except (RunError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _removed(path, error) from error

    def missing(self, items: Sequence[Item]) -> list[Item]:
        """Those that are still to be measured."""
        return [item for item in items if not self.has(item)]


def _removed(path: Path, why: object) -> RunError:
    path.unlink(missing_ok=True)
    return RunError(f"{why}; it was removed: repeat the command to measure it anew")


def _flat(mapping: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """One level, keys joined by points."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {before + key: value}
    return found


def digest(tensor: Tensor) -> str:
    """A short name for the content of a tensor."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def carry_out(
    store: Store,
    stage: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[Item], None] = lambda item: None,
) -> None:
    """Measure this process's share of a stage: every `world`-th of what is missing, from the `rank`-th on.

    The share is taken of the whole stage before looking at what is there, so that processes agree without talking.
    """
    for item in stage[rank::world]:
        if not store.has(item):
            store.save(item, work(item))
        progress(item)
