"""The end of a wandb run, and whether wandb has written all of it: where its disk is full it goes on in silence.

wandb's own process writes every record to `run-ID.wandb`, a log in LevelDB's format, and after the first record that it
could not write it writes no other, even where there is room again. So a file with the record of the end is whole.
"""

from __future__ import annotations

import importlib
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from leap.errors import Trouble

PATIENCE = 10.0  # seconds; `finish` returns a moment before wandb's own process has written the end
OWN_FILES = {"train": "metrics.jsonl", "evaluate": "evaluation.json", "measure": "measures/measures.json"}
"""Where a run folder itself holds what wandb is given, by the wandb run's job type."""

_MAGIC = b":W&B"
_HEAD = struct.Struct("<IHB")  # checksum, size, kind
_BLOCK = 32768  # bytes; a record never begins where a block has no room for its head
_TAIL = 32  # blocks that are looked at; behind the end stands little
_WHOLE, _FIRST, _LAST = 1, 2, 4  # kinds; 3 is a middle part


def finish(run: Any, exit_code: int, kept: Path | None, say: Callable[[str], None]) -> None:
    """Finish a wandb run, and tell a person where its file has no end and what of the run's own holds everything."""
    run.finish(exit_code=exit_code)
    if (file := _file(run)) is not None and _cut_short(file):
        whole = f"{kept} holds all of it" if kept else "the run's own files hold all of it"
        say(Trouble(f"wandb: what was logged may be incomplete, since {file} has no end (is its disk full?); {whole}."))


def has_end(path: Path) -> bool | None:
    """Whether the file of a wandb run holds the record of its end; None where that cannot be told."""
    record: Any = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    with path.open("rb") as handle:
        if (magic := handle.read(len(_MAGIC))) != _MAGIC:
            return None if magic else False
        size = handle.seek(0, 2)
        at = max(0, size // _BLOCK - _TAIL) * _BLOCK
        handle.seek(at)
        content = handle.read()
    return any(record.FromString(data).HasField("exit") for data in _records(content, 0 if at else 7))


def _records(content: bytes, at: int) -> Iterator[bytes]:
    """Whole records of a log from a block's beginning on; of one that began before it nothing."""
    parts: list[bytes] | None = None
    while at + _HEAD.size <= len(content):
        if (left := _BLOCK - at % _BLOCK) < _HEAD.size:
            at += left
            continue
        _, size, kind = _HEAD.unpack_from(content, at)
        at += _HEAD.size + size
        if kind == 0 or at > len(content):
            return
        if kind in (_WHOLE, _FIRST):
            parts = []
        if parts is None:
            continue
        parts.append(content[at - size : at])
        if kind in (_WHOLE, _LAST):
            yield b"".join(parts)
            parts = None


def _file(run: Any) -> Path | None:
    """Where wandb writes the run; None where it writes none, or no one knows."""
    folder = Path(run.dir).parent if isinstance(run.dir, str) else None
    found = sorted(folder.glob("run-*.wandb")) if folder is not None else []
    return found[0] if len(found) == 1 else None


def _cut_short(file: Path) -> bool:
    """Whether a file still has no end after some patience; False where that cannot be told, as of another format."""
    give_up = time.monotonic() + PATIENCE
    with suppress(Exception):  # of protobuf, of the disk: then nothing is known, and nothing is said
        while has_end(file) is False:
            if time.monotonic() > give_up:
                return True
            time.sleep(0.05)
    return False
