"""A new run's folder, which is gone again where the run is refused before it has learned anything."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from leap.errors import UsageError
from leap.run import RunFolder


@contextlib.contextmanager
def new_run(out: Path, config: str, about: Mapping[str, Any]) -> Iterator[RunFolder]:
    """Make a run folder and hold it.

    A UsageError before the first whole meta-step removes what this run wrote and the folders made for it: whoever mends
    the command can repeat it with the same `--out`. Any other end leaves the run, to be gone on with.

    Args:
        out: A new or empty folder.
        config: The resolved configuration as YAML.
        about: For provenance.json.

    Raises:
        UsageError: the folder is taken; nothing is removed then.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]  # innermost first
    run = RunFolder.create(out, config, about)
    with run.lock():
        try:
            yield run
        except UsageError:
            if not _has_learned(run):
                _remove(run, made)
            raise


def _has_learned(run: RunFolder) -> bool:
    return run.initialization.exists() or bool(run.rows()) or any((run.path / "checkpoints").iterdir())


def _remove(run: RunFolder, made: list[Path]) -> None:
    """Remove the files of the run, then folders that are empty; what cannot be removed stays."""
    # config.yaml late: without it, what a kill leaves here would be someone's files, which no run may start among
    for name in ("wandb", "metrics.jsonl", "config.yaml", "checkpoints", "provenance.json", ".lock"):
        path = run.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # what else is there is not ours
        for folder in made:
            folder.rmdir()
