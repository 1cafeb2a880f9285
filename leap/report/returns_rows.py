"""Returns of games as CSV: a row a walk, with everything that tables and pictures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leap.report.returns import gather
from leap.report.returns_curves import WINDOW
from leap.report.returns_paths import start_level
from leap.report.returns_walks import AREA, ENERGY, ENERGY_STEP, FINAL, LENGTH, LENGTH_STEP, TEST
from leap.report.summary import Summary
from leap.report.tables import write_rows

FIGURES = {
    "area": AREA,
    "last_episodes": FINAL,
    "test_return": TEST,
    "path_length": LENGTH,
    "path_energy": ENERGY,
    "path_length_per_step": LENGTH_STEP,
    "path_energy_per_step": ENERGY_STEP,
}
COLUMNS = ("game", "initialization", "seed", "evaluation_seed", "episodes", *FIGURES, "start_level", "return_gained")


def write_walks(summary: Summary, out: Path, window: int = WINDOW) -> Path | None:
    """Write a row of COLUMNS for every walk of a comparison of games; what does not exist is empty.

    `start_level` is the game's, `return_gained` is `last_episodes` less that. What a return gained costs in path length
    is a ratio of means over walks, not a mean of ratios of walks.

    Returns:
        The file; None where the tasks are no games, and nothing was written.

    Raises:
        RunError: it cannot be written.
    """
    if not summary.evaluation.has_returns:
        return None
    found = gather(summary, window)
    rows: list[Sequence[Any]] = [COLUMNS]
    for game in found.games:
        start = start_level(found, game)
        for arm in found.arms:
            for (seed, evaluation_seed), walk in arm.walks.get(game, {}).items():
                figures = [walk.figures[key] for key in FIGURES.values()]
                gained = None if start is None else walk.figures[FINAL] - start
                rows.append((game, arm.label, seed, evaluation_seed, len(walk.episodes), *figures, start, gained))
    return write_rows(out, rows)
