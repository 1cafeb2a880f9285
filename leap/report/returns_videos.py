"""Videos of games that `leap evaluate` left in run folders: which there are, and what each shows."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from leap.report.captioned import NOTHING
from leap.report.runs import Run
from leap.report.text import number

FOLDER, INDEX = "videos", "index.json"
FIELDS = ("game", "initialization", "evaluation_seed", "episode", "score", "length", "frames", "file")


@dataclass(frozen=True)
class Video:
    """One recorded episode: its run, what FIELDS say of it as they are shown, and its file."""

    run: str
    shown: Mapping[str, str]
    file: Path

    def link(self, page: Path) -> str | None:
        """Where it lies as seen from a page, quoted for an address; None where it is not beside or below the page."""
        inside = os.path.relpath(self.file.resolve(), page.resolve().parent)
        return None if inside.startswith(os.pardir) or os.path.isabs(inside) else "./" + quote(Path(inside).as_posix())


def videos(runs: Iterable[Run]) -> tuple[list[Video], list[str]]:
    """The videos of runs, and notes about folders or entries that cannot be used; no damage raises.

    `RUN/videos/index.json` is a list of mappings with FIELDS, `file` being a name in that folder, or a mapping that
    holds such a list under `videos`.
    """
    found: list[Video] = []
    notes: list[str] = []
    for run in runs:
        folder = run.folder / FOLDER
        if not folder.is_dir():
            continue
        entries = _entries(folder / INDEX)
        if entries is None:
            notes.append(f"{folder / INDEX} is missing or damaged, so the videos of {run.folder.name} are left out.")
            continue
        held = [video for entry in entries if (video := _video(run, folder, entry)) is not None]
        if len(held) < len(entries):
            notes.append(f"{folder / INDEX}: {len(entries) - len(held)} of {len(entries)} entries name no file there.")
        found += held
    return found, notes


def _entries(path: Path) -> list[Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(content, dict):
        content = content.get("videos")
    return content if isinstance(content, list) else None


def _video(run: Run, folder: Path, entry: Any) -> Video | None:
    name = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name or name in (os.curdir, os.pardir) or set(name) & set("/\\\0"):
        return None
    try:
        name.encode()  # half a character cannot be shown
        there = (folder / name).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return None
    shown = {key: _shown(entry.get(key)) for key in FIELDS}
    return Video(run.folder.name, shown, folder / name) if there else None


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else NOTHING
    if isinstance(value, bool) or not isinstance(value, str | int):
        return NOTHING
    return str(value).encode("utf-8", "replace").decode()
