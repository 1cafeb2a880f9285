"""Runs of a comparison without workers and the seconds that these take to start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from leap.cli import sweep
from leap.cli.settings import Settings


def carry_out(
    out: Path,
    runs: Mapping[str, Settings],
    jobs: int | None = None,
    *,
    of: int | None = None,
    evaluate: bool = True,
    videos: int = 0,
) -> dict[str, str]:
    """In the place of `sweep.carry_out`: one run after another in this process."""
    for name, settings in runs.items():
        sweep.work(out / name, settings, lambda reached: None, evaluate=evaluate, videos=videos)
    return {}
