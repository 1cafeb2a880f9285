"""Records of single trainings or measurements, kept by scripts so that a call that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.errors import UsageError
from leap.metrics.statistics import mean_interval
from leap.run import write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = dict[str, Any]


def described(protocol: DataclassInstance) -> Record:
    """The protocol as JSON has it."""
    return dict(json.loads(json.dumps(asdict(protocol))))


def kept(path: Path, protocol: DataclassInstance, make: Callable[[], Record]) -> Record:
    """A record: from its file, or made now and written there, whole or not at all.

    Raises:
        UsageError: the file is of another protocol, or no record.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(make()) + "\n").encode())
    try:
        record: Record = json.loads(path.read_text())
        there, now = record["protocol"], described(protocol)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({error}); remove it, and it is made anew") from error
    if differing := [f"{key}: {there.get(key)!r} there, {now[key]!r} now" for key in now if there.get(key) != now[key]]:
        raise UsageError(f"{path} was made differently ({'; '.join(differing)}); name another --out")
    return record


def spread(values: Sequence[float]) -> Record:
    """Values with their mean and 95% interval."""
    return {"values": list(values), **asdict(mean_interval(values))}
