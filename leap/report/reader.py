"""Taking fields out of a document of measures: what is missing or wrong is named with its place and its cure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from leap.errors import RunError

FOLDER, FILE = "measures", "measures.json"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,59}")  # names of matrices and curves become names of files
Kept = TypeVar("Kept")


class Reader:
    """Takes fields out of a document; what is wrong is named with its place."""

    def __init__(self, content: Mapping[str, Any], path: Path | str) -> None:
        self.content, self.path = content, path
        self.shape = (0, 0)  # seeds and tasks, once they are known

    def fail(self, where: str, what: str) -> RunError:
        """What to raise: the file, the place in it, what is wrong and the cure."""
        return RunError(f"{self.path}: {where} {what}. {cure(self.path)}")

    def kept(self, where: str, take: Callable[[], Kept]) -> Kept:
        """What `take` returns; where it fails, the place is named."""
        try:
            return take()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.fail(where, f"is missing or wrong ({error!r})") from None

    def word(self, held: Mapping[str, Any], key: str, where: str = "") -> str:
        """A text."""
        value = held.get(key) if isinstance(held, dict) else None
        if not isinstance(value, str):
            raise self.fail(f"{where}{key}", f"is {value!r}, not a text")
        return value

    def tasks(self, held: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """Names of tasks, each once."""
        names = held.get("tasks")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise self.fail(where, "is not a list of names")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise self.fail(where, f"names {twice[0]!r} twice, so its rows cannot be told apart")
        return tuple(names)

    def each(self, section: str, make: Callable[[Reader, str, str, Mapping[str, Any]], Kept]) -> dict[str, Kept]:
        """Everything in a section that maps names to mappings."""
        held = self.content.get(section) or {}
        if not isinstance(held, dict):
            raise self.fail(section, f"is {type(held).__name__}, not a mapping")
        found = {}
        for name, one in held.items():
            where = f"{section}.{name}"
            if not NAME.fullmatch(name):
                raise self.fail(f"{section} {name[:60]!r}", "is not a name of letters, digits, - and _")
            if not isinstance(one, dict):
                raise self.fail(where, f"is {type(one).__name__}, not a mapping")
            found[name] = make(self, name, where, one)
        return found

    def numbers(self, where: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A table of numbers of this shape, NaN where one is missing or not finite."""
        try:
            array = np.array(values, dtype=float)  # null becomes NaN
        except (TypeError, ValueError, OverflowError):
            raise self.fail(where, "is not a table of numbers") from None
        if array.shape != shape or 0 in shape:
            raise self.fail(where, f"has shape {list(array.shape)}, expected {list(shape)}")
        return np.where(np.isfinite(array), array, np.nan)


def cure(path: Path | str) -> str:
    """What to do about a damaged file."""
    folder = Path(path).parent
    run = folder.parent if folder.name == FOLDER else folder
    return f"Write it anew: leap measure {run}" if Path(path).name == FILE else "Restore it, or leave this run out."
