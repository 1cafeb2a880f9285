"""Whether a run folder is sound: what an interruption must not have done to it.

A run that was killed, stopped or met a full disk, and was started again until it finished, must leave what a run leaves
that was left alone. These checks say where it does not; each returns what is wrong, a line each, and nothing otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from leap.errors import RunError
from leap.run import unpack

LOCK = ".lock"  # stays for whoever comes next
OWN = ("command", "started", "run_id")
"""What provenance tells of a run that no other run shares."""


def timed(column: str) -> bool:
    """Whether a column of metrics.jsonl says how long something took or how much memory, which no two runs share.

    Example:
        >>> timed("time/meta_step_s"), timed("charts/SPS"), timed("memory/peak_mib"), timed("train/loss")
        (True, True, True, False)
    """
    return column.startswith(("time/", "memory/")) or column == "charts/SPS"


def damaged(folder: Path) -> list[str]:
    """Files that are not whole: tensors whose digest does not fit, JSON that cannot be read.

    True at any moment, after a kill as well. Lines of metrics.jsonl are not looked at: the last may be cut short.
    """
    found = []
    for path in _files(folder):
        try:
            if path.suffix == ".safetensors":
                unpack(path)
            elif path.suffix == ".json":
                json.loads(path.read_bytes())
        except (RunError, ValueError) as error:
            found.append(f"{path.relative_to(folder)} is not whole: {error}")
    return found


def left_behind(folder: Path) -> list[str]:
    """What a finished run must not hold any more: temporary files, and what is kept of walks that are over."""
    hidden = [path for path in folder.rglob(".*") if path.name != LOCK]
    kept = [path for path in folder.rglob("walk-*.safetensors") if path.parent.name == "checkpoints"]
    return [f"{path.relative_to(folder)} was left behind" for path in sorted([*hidden, *kept])]


def miscounted(run: Path, steps: int) -> list[str]:
    """Meta-steps 1 to `steps` that do not stand in metrics.jsonl exactly once, in their order."""
    path, found = run / "metrics.jsonl", list[int | None]()
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            found.append(None)
    if found == list(range(1, steps + 1)):
        return []
    return [f"{run.name}/metrics.jsonl: meta-steps {found}, expected 1 to {steps} once each"]


def differing(folder: Path, reference: Path) -> list[str]:
    """Where a finished run, or a folder of runs, is not what one has left that nothing disturbed.

    Files must be the same ones, and have the same bytes, with these exceptions. Rows of metrics.jsonl may differ in
    what they say about time and memory, and provenance.json in command, beginning and id. Of checkpoints those are
    compared that both have: which are kept depends on where a run was stopped.
    """
    ours, theirs = ({str(path.relative_to(base)): path for path in _files(base)} for base in (folder, reference))
    found = [f"{name} is missing" for name in sorted(theirs.keys() - ours.keys()) if not _checkpoint(theirs[name])]
    found += [f"{name} is one too many" for name in sorted(ours.keys() - theirs.keys()) if not _checkpoint(ours[name])]
    for name in sorted(ours.keys() & theirs.keys()):
        read = _READERS.get(ours[name].name, Path.read_bytes)
        try:
            one, other = read(ours[name]), read(theirs[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found.append(f"{name} cannot be read: {error}")
            continue
        if one != other:
            found.append(f"{name} differs{_first_difference(one, other)}")
    return found


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            yield path


def _checkpoint(path: Path) -> bool:
    return path.parent.name == "checkpoints"


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [{name: value for name, value in row.items() if not timed(name)} for row in rows]


def _provenance(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(path.read_bytes())
    lacking = [name for name in OWN if not about[name]]
    return {name: value for name, value in about.items() if name not in OWN} | {"lacking": lacking}


def _first_difference(one: Any, other: Any) -> str:
    """Which row or entry differs first, where that can be told."""
    if isinstance(one, dict):
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        return f" in {', '.join(names)}"
    if isinstance(one, str):
        pairs = enumerate(zip(one, other, strict=False))
        at = next((place for place, (here, there) in pairs if here != there), min(len(one), len(other)))
        return f" at {one[at:][:60]!r}, expected {other[at:][:60]!r}"
    if not isinstance(one, list):
        return ""
    if len(one) != len(other):
        return f": {len(one)} rows, expected {len(other)}"
    for here, there in zip(one, other, strict=True):
        if here != there:
            return f" at step {there.get('step')}{_first_difference(here, there)}"
    return ""


def _page(path: Path) -> str:
    """A report without what it tells about time: that of meta-training, and the limit that a command had."""
    page = re.sub(r"<h2[^>]*>What it cost<.*?</section>", "", path.read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r" --max-time \S+", "", page)


_READERS: dict[str, Callable[[Path], Any]] = {
    "metrics.jsonl": _rows,
    "provenance.json": _provenance,
    "report.html": _page,
}
