"""`leap fetch`: download a data set, or check the one that is there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from leap.cli.arguments import Option, help_text, split
from leap.errors import RunError, UsageError

OPTIONS = (
    Option("--to", "path", "Folder for the files; by default the one where leap looks for them.", "FOLDER"),
    Option("--check", "flag", "Download nothing; say what is there."),
)

_STATES = {
    "official": "the official file",
    "other": "a whole file, but not the official one",
    "damaged": "damaged",
    "missing": "missing",
}


def main(argv: Sequence[str]) -> int:
    """Run `leap fetch NAME [--to FOLDER] [--check]`."""
    from tasks import datasets  # brings in more than --help of the top command should wait for

    arguments = split(argv, OPTIONS, fields=False)
    known = "\n".join(f"  {name}: {row.title} ({row.licence})" for name, row in datasets.DATASETS.items())
    if arguments.options["help"]:
        about = f"Download a data set; files that are there and whole are left alone.\n\ndata sets:\n{known}"
        print(help_text("leap fetch NAME [--to FOLDER] [--check]", about, OPTIONS))
        return 0
    if len(arguments.files) != 1:
        names = ", ".join(datasets.DATASETS)
        raise UsageError(f"leap fetch takes the name of one data set, got {len(arguments.files)}; known: {names}")
    name, folder = arguments.files[0], arguments.options["to"]
    if not arguments.options["check"]:
        folder = datasets.fetch(name, folder, progress=sys.stderr.isatty())
    states = datasets.verify(name, folder)
    for file in states:
        print(f"{file.path}: {_STATES[file.state]}")
    if any(file.state in ("damaged", "missing") for file in states):
        raise RunError(
            f"{name} is not complete in {states[0].path.parent}; leap fetch {name} downloads what is missing"
        )
    if arguments.options["to"]:
        print(_how_to_use(name, states[0].path.parent))
    return 0


def _how_to_use(name: str, folder: Path) -> str:
    if folder.name == name:
        return f"Use it with LEAP_DATA={folder.resolve().parent}"
    return f"Use it with --tasks.folder {folder}, or LEAP_DATA where it is a folder {name} in another one"
