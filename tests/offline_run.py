"""Read what an offline wandb run wrote: a LevelDB log of protobuf records, in `run-ID.wandb`."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768  # bytes; a record never begins in the last bytes of a block that could not hold its head
HEAD = struct.Struct("<IHB")  # checksum, size, kind
WHOLE, LAST = 1, 4  # kinds that complete a record; 2 and 3 are its first and middle parts
FILE_HEAD = 7


def records(path: Path) -> Iterator[Any]:
    """The records of a run file, up to where a killed run stopped writing."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    if content[:4] != b":W&B":
        raise ValueError(f"{path} begins with {content[:4]!r}, not with :W&B")
    at, parts = FILE_HEAD, []
    while at + HEAD.size <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEAD.size:
            at += left
            continue
        _, size, kind = HEAD.unpack_from(content, at)
        part = content[at + HEAD.size : at + HEAD.size + size]
        if (size, kind) == (0, 0) or len(part) < size:
            return
        at += HEAD.size + size
        parts.append(part)
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


class OfflineRun:
    """The newest offline run in a run folder, read back.

    `run` is its head (id, group, tags), `config` and `summary` are mappings, `rows` one mapping a logged step, `axes`
    the x axis of each metric pattern, `artifacts` pairs of type and name, `exit_code` that of finish.
    """

    @classmethod
    def finished(cls, run_folder: Path, patience: float = 20.0) -> OfflineRun:
        """The run once its end is written: wandb's `finish` returns a moment before its other process has done so."""
        give_up = time.monotonic() + patience
        while (run := cls(run_folder)).exit_code is None:
            if time.monotonic() > give_up:
                raise TimeoutError(f"no end of the run in {run.path} after {patience} s")
            time.sleep(0.05)
        return run

    def __init__(self, run_folder: Path, file: Path | None = None) -> None:
        files = sorted(run_folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
        self.path = file or files[-1]
        self.run: Any = None
        self.exit_code: int | None = None
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.axes: dict[str, str] = {}
        self.artifacts: list[tuple[str, str]] = []
        for record in records(self.path):
            self._take(record)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = record.run
            self.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            self.rows.append(_values(record.history.item))
        elif kind == "summary":
            self.summary |= _values(record.summary.update)
        elif kind == "metric":
            self.axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "artifact":
            self.artifacts.append((record.artifact.type, record.artifact.name))
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            artifact = record.request.log_artifact.artifact
            self.artifacts.append((artifact.type, artifact.name))
        elif kind == "exit":
            self.exit_code = record.exit.exit_code

    def table(self, key: str) -> dict[str, Any]:
        """A logged table: its columns and data."""
        kept = next(row[f"{key}/path"] for row in reversed(self.rows) if f"{key}/path" in row)
        return json.loads((self.path.parent / "files" / kept).read_text())


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
