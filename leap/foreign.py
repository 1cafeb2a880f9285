"""Folders that others have filled: what may not stand in them, before anything in them is read."""

from __future__ import annotations

from pathlib import Path

from leap.errors import RunError

READ = (".", "checkpoints", "measures", "measures/items", "pictures", "videos")
"""Where files of a run are that commands read."""


def check_plain(path: Path) -> None:
    """Refuse a run's folder in which a pipe or a device stands: whoever reads it would wait for ever.

    Raises:
        RunError: there is one.
    """
    for folder in (path / name for name in READ):
        for found in folder.iterdir() if folder.is_dir() else ():
            if found.exists() and not found.is_file() and not found.is_dir():
                raise RunError(f"{found} is neither a file nor a folder; remove it")


def check_source(path: Path, source: str | None) -> None:
    """Refuse settings of a run that name code in the run's own folder (`FILE.py:NAME`): it may be another's.

    Raises:
        RunError: they do.
    """
    if source and (path.resolve() in (found := Path(source.rpartition(":")[0]).resolve()).parents):
        raise RunError(
            f"{path}/config.yaml takes its tasks from {found}, code in the run's own folder, which is not executed; "
            "read it, put it elsewhere, and name that place in tasks.source"
        )
