"""`leap fetch`: say which data sets there are, download some, or check those that are there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leap.cli.arguments import Option, help_text, split
from leap.errors import LeapError, RunError, UsageError

if TYPE_CHECKING:
    from tasks.datasets import Presence

OPTIONS = (
    Option("--to", "path", "Folder for the files; by default the one where leap looks for them.", "FOLDER"),
    Option("--all", "flag", "Every data set that can be downloaded."),
    Option("--check", "flag", "Download nothing; read every file and say what is there."),
)

_USAGE = "leap fetch [NAME ...] [--all] [--to FOLDER] [--check]"
_STATES = {
    "official": "the official file",
    "whole": "whole (its authors publish no checksum)",
    "other": "a whole file, but not the official one",
    "damaged": "damaged",
    "missing": "missing",
}


def main(argv: Sequence[str]) -> int:
    """Run `leap fetch [NAME ...] [--all] [--to FOLDER] [--check]`; without a name it lists the data sets."""
    from tasks import datasets  # brings in more than --help of the top command should wait for

    arguments = split(argv, OPTIONS, fields=False)
    names, options = list(dict.fromkeys(arguments.files)), arguments.options
    if options["help"]:
        print(help_text(_USAGE, _about(), OPTIONS))
        return 0
    if options["all"]:
        if names:
            raise UsageError(f"--all is every data set; name {', '.join(names)} without it, or leave the names out")
        names = [name for name, row in datasets.DATASETS.items() if row.files]
    for name in names:
        datasets.dataset(name)  # a misspelt name is told before an hour of downloads, not after it
    if options["to"] and len(names) != 1:
        raise UsageError(f"--to is the folder of one data set, got {len(names)}; set LEAP_DATA for several")
    if not names:
        print(_overview())
    elif len(names) == 1:
        _one(names[0], options["to"], options["check"])
    else:
        _several(names, options["check"])
    return 0


def _several(names: list[str], check: bool) -> None:
    """One after another; what fails is told at once and does not stop the rest."""
    failed: dict[str, LeapError] = {}
    for name in names:
        try:
            _one(name, None, check)
        except LeapError as error:
            print(f"leap: {error}", file=sys.stderr)
            failed[name] = error
    if failed:
        kind = UsageError if all(isinstance(error, UsageError) for error in failed.values()) else RunError
        raise kind(
            f"not complete: {', '.join(failed)} ({len(failed)} of {len(names)} data sets; the reasons stand above)"
        )


def _one(name: str, folder: Path | None, check: bool) -> None:
    from tasks import datasets

    if not check:
        folder = datasets.fetch(name, folder, progress=sys.stderr.isatty())
    place = datasets.folder_of(name, folder)
    states = datasets.verify(name, folder)
    for file in states:
        print(f"{file.path}: {_STATES[file.state]}")
    bad = [file for file in states if file.state in ("damaged", "missing")]
    needed = {file.name for file in datasets.DATASETS[name].files}
    if not needed and len(bad) == len(states):
        raise UsageError(datasets.how_to_get(name, folder))
    if any(file.path.name in needed for file in bad):
        raise RunError(f"{name} is not complete in {place}; leap fetch {name} downloads what is missing")
    if folder is not None and folder != datasets.folder_of(name):
        print(_how_to_use(name, place))


def _how_to_use(name: str, folder: Path) -> str:
    if folder.name == name:
        return f"Use it with LEAP_DATA={folder.resolve().parent}"
    return f"Use it with --tasks.folder {folder}, or LEAP_DATA where it is a folder {name} in another one"


def _about() -> str:
    from tasks import datasets

    width = max(map(len, datasets.DATASETS))
    known = "\n".join(f"  {name:<{width}}  {row.title} ({row.licence})" for name, row in datasets.DATASETS.items())
    return (
        "Download data sets; files that are there and whole are left alone, a broken download goes on where it "
        f"stopped.\nWithout a name: what is there, and what a download would cost.\n\ndata sets:\n{known}"
    )


def _overview() -> str:
    """Every data set with what is there, what there is to download, and the terms."""
    from tasks import datasets

    rows = [("data set", "state", "to download", "there", "licence")]
    for name, row in datasets.DATASETS.items():
        there = datasets.presence(name)
        rows.append((name, there.state, _cost(there), _what(there, len(row.files)), row.licence))
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]] + [0]
    return "\n".join(
        [
            f"{datasets.home()}:",
            *("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows),
            "leap fetch NAME ... downloads; --check reads every byte of the files that are there.",
        ]
    )


def _what(there: Presence, files: int) -> str:
    others = f"{len(there.others)} others" if len(there.others) > 1 else "".join(there.others)
    own = f"{there.files} of {files} files" if there.files else ""
    return ", ".join(filter(None, [own, others]))


def _cost(there: Presence) -> str:
    if there.state in ("present", "by hand"):
        return "-"
    return "size not published" if there.left is None else f"{there.left / 1e6:.1f} MB"
