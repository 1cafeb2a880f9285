"""A run folder: everything a run is, was and needs in order to go on.

Whatever is written replaces what was there in one step, so that a kill at any moment leaves either the old file or
the new one. Nothing in the folder can execute: checkpoints are safetensors, the rest is JSON, YAML and pictures.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from leap.errors import RunError, UsageError
from leap.foreign import check_plain
from leap.layout import Layout

KEPT = 2  # checkpoints: the newest, and the one to fall back to


class Checkpoint(NamedTuple):
    """State of meta-training after `step` meta-steps."""

    step: int
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: str, provenance: Mapping[str, Any]) -> RunFolder:
        """Start a run in a new or empty folder; `config` is the resolved configuration as YAML.

        Raises:
            UsageError: the folder holds something already, or is no folder.
        """
        check_free(path)
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        run = cls(path)
        write_atomic(path / "provenance.json", (json.dumps(provenance, indent=2) + "\n").encode())
        write_atomic(path / "config.yaml", config.encode())
        return run

    @classmethod
    def started(cls, path: Path) -> bool:
        """Whether a folder holds a run; the configuration is what a run writes first of all that it needs later."""
        return (path / "config.yaml").is_file()

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run.

        Raises:
            UsageError: there is no run in the folder.
            RunError: a pipe or a device stands where a file should.
        """
        if not cls.started(path):
            raise UsageError(f"{path} holds no run (no config.yaml in it); start one with: leap train ... --out {path}")
        check_plain(path)
        return cls(path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run, so that no second process writes to it.

        Raises:
            UsageError: another process holds it.
        """
        import fcntl

        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"{self.path} is in use by another process; wait for it or stop it first") from error
            for leftover in self.path.rglob(".*.tmp"):  # of a write that a kill cut short
                leftover.unlink(missing_ok=True)
            yield

    def recorded(self, name: str) -> str:
        """A text of provenance.json.

        Raises:
            RunError: it is not there, or the file is damaged.
        """
        path = self.path / "provenance.json"
        try:
            return str(json.loads(path.read_text())[name])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            what = f"{path} is missing or damaged ({type(error).__name__}: {str(error)[:80]})"
            raise RunError(f"{what}; restore it, or go on with --tracking none") from error

    # -- metrics ---------------------------------------------------------------------------------------------------

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as handle:
            handle.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Whole rows of metrics.jsonl; a last line that a kill cut short is left out.

        Raises:
            RunError: another line is damaged.
        """
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        found = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                row["step"] = int(row["step"])
                found.append(row)
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                if number == len(lines) and not line.endswith(b"\n"):
                    break
                raise RunError(
                    f"{path}, line {number}, is not a row of metrics; restore it, or remove that line"
                ) from None
        return found

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop rows after `step`, which will be computed again; the rows that stay."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
        return rows

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and forget all but the last two."""
        path = self._checkpoint(checkpoint.step)
        write_atomic(path, pack(checkpoint.tensors, {"step": checkpoint.step}))
        for old in self._checkpoints()[KEPT:]:
            old.unlink()

    def load(self) -> Checkpoint | None:
        """The newest whole checkpoint; a damaged one is passed over with a warning on stderr. None: there is none.

        Raises:
            RunError: there are checkpoints and all of them are damaged.
        """
        paths = self._checkpoints()
        for path in paths:
            try:
                tensors, about = unpack(path)
                if path.name != self._checkpoint(about["step"]).name:
                    raise RunError(f"{path} is the state after step {about['step']}")
                return Checkpoint(about["step"], tensors)
            except (RunError, KeyError, TypeError, ValueError, OverflowError) as error:
                print(f"warning: {error}; falling back to the checkpoint before it", file=sys.stderr)
        if paths:
            raise RunError(f"all checkpoints in {paths[0].parent} are damaged; start the run anew with another --out")
        return None

    def _checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("step-*.safetensors"), reverse=True)

    def kept_walk(self, rank: int) -> Path:
        """Where the process of this rank keeps the walk that it is in (`leap.resumption`)."""
        return self.path / "checkpoints" / f"walk-{rank:05d}.safetensors"

    def kept_evaluation(self, name: str) -> Path:
        """Where the evaluation of an initialization is kept while it is under way; forgotten as walks are."""
        return self.path / "checkpoints" / f"walk-evaluation-{name}.safetensors"

    def forget_walks(self) -> None:
        """Remove what processes kept of walks, where all of them are over."""
        for path in (self.path / "checkpoints").glob("walk-*.safetensors"):
            path.unlink(missing_ok=True)

    # -- the learned initialization ----------------------------------------------------------------------------------

    @property
    def initialization(self) -> Path:
        """Where the learned initialization is."""
        return self.path / "initialization.safetensors"

    def save_initialization(self, meta: Tensor, layout: Layout, about: Mapping[str, Any]) -> None:
        """Write meta-parameters [n + e]: theta by parameter name, and what the learner keeps behind it.

        The header's `leap` entry holds the layout: names, shapes, and how much of the vector is trunk and shared.
        """
        tensors = layout.unflatten(meta[: layout.n])
        if len(meta) > layout.n:
            tensors[EXTRA] = meta[layout.n :]
        shape = {"names": layout.names, "shapes": layout.shapes, "trunk": layout.trunk, "shared": layout.shared}
        write_atomic(self.initialization, pack(tensors, {**about, "layout": shape}))

    def load_initialization(self, layout: Layout) -> Tensor:
        """Meta-parameters [n + e] of a finished run.

        Raises:
            UsageError: the run has not finished.
            RunError: the file is damaged, or belongs to another model.
        """
        if not self.initialization.exists():
            raise UsageError(
                f"{self.path} has no learned initialization yet; finish it with: leap train --resume {self.path}"
            )
        tensors, about = unpack(self.initialization)
        told = about.get("layout")
        names = told.get("names") if isinstance(told, dict) else None
        if names != list(layout.names):
            raise RunError(f"{self.initialization} holds another model: parameters {names}, expected {layout.names}")
        if len(types := {tensor.dtype for tensor in tensors.values()}) != 1:
            raise RunError(f"{self.initialization} holds parameters of types {sorted(map(str, types))}, expected one")
        try:
            theta = layout.flatten(tensors)
        except ValueError as error:
            raise RunError(f"{self.initialization} holds another model: {error}") from error
        return torch.cat([theta, tensors[EXTRA].reshape(-1)]) if EXTRA in tensors else theta


FORMAT = 1  # of files of tensors
EXTRA = "learner/extra"  # no parameter's name holds a slash
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError, RecursionError),
    safetensors.SafetensorError,
)  # of files that others wrote, whose headers say anything
TOLD = "told_sha256"  # digest of all else that a header tells


@contextlib.contextmanager
def tidied(*folders: Path) -> Iterator[None]:
    """Hold folders of runs while files beside the runs are written there; waits for whoever else does that.

    What an earlier kill has left there half written is removed.
    """
    import fcntl

    with contextlib.ExitStack() as held:
        for folder in sorted(set(folders)):  # in one order, so that no two wait for each other
            fcntl.flock(held.enter_context((folder / ".lock").open("w")), fcntl.LOCK_EX)
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        yield


def check_free(path: Path) -> None:
    """Refuse to start a run where there is anything but what a start that was killed at once leaves behind.

    Raises:
        UsageError: the folder holds another run or other files, or is no folder.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; choose another --out")
    if RunFolder.started(path):
        raise UsageError(f"{path} holds another run; continue it with --resume {path}, or choose another --out")
    found = [p.name for p in path.iterdir()] if path.exists() else []
    foreign = [
        name for name in found if name not in ("checkpoints", "provenance.json", ".lock") and name[-4:] != ".tmp"
    ]
    if foreign:
        raise UsageError(f"{path} holds other files ({', '.join(sorted(foreign)[:3])}); choose another --out")


def pack(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """Safetensors bytes whose header tells what they are, and holds digests of the tensors and of what it tells."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = json.loads(json.dumps({**about, "format": FORMAT, "sha256": _digest(kept)}))
    told[TOLD] = _digest_of_told(told)
    # one entry: safetensors writes several in an order of its own, and equal runs shall have equal files
    return safetensors.torch.save(kept, metadata={"leap": json.dumps(told)})


def unpack(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a file that `pack` made, and what its header tells.

    Raises:
        RunError: the file cannot be read, is cut short, or its content is not what was written.
    """
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])["__metadata__"]
        about: dict[str, Any] = dict(json.loads(header["leap"]))
        tensors = safetensors.torch.load(data)
        whole, written = about["sha256"] == _digest(tensors), about["format"]
    except _UNREADABLE as error:
        raise RunError(f"{path} is damaged or was not written by leap ({type(error).__name__}: {error})") from error
    if written != FORMAT:
        cure = "load it with the version of leap that wrote it"
        raise RunError(f"{path} has format {written!r}, and this version reads format {FORMAT}; {cure}")
    told = about.pop(TOLD, None)  # none: of a file that was written before there was one
    if not whole:
        raise RunError(f"{path} is damaged: its tensors do not match their digest")
    if told not in (None, _digest_of_told(about)):
        raise RunError(f"{path} is damaged: what its header tells does not match its digest")
    return tensors, about


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file in one step: a kill leaves the old one or the new one, on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _digest_of_told(about: Mapping[str, Any]) -> str:
    # not of the format: a reader is to say that it does not know it
    told = {name: value for name, value in about.items() if name not in ("format", TOLD)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()
