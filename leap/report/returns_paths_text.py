"""Path measures of games in words: a table, and what its numbers mean."""

from __future__ import annotations

from leap.metrics.statistics import Interval
from leap.report import text
from leap.report.captioned import NOTHING
from leap.report.returns import Returns
from leap.report.returns_paths import paths, start_level
from leap.report.returns_walks import LAST, Arm

# The columns of `path_cells`.
HEAD = ("return gained", "length a step", "energy a step", "length a return", "energy a return")


def path_rows(found: Returns) -> list[list[str]]:
    """A row a game and initialization."""
    return [
        [game if place == 0 else "", arm.label, *path_cells(found, arm, game)]
        for game in found.games
        for place, arm in enumerate(found.arms)
    ]


def path_cells(found: Returns, arm: Arm, game: str) -> list[str]:
    """What an initialization gained on a game, and the path that it took: a step and a return gained."""
    one = paths(found, arm, game)
    return [_cell(value) for value in (one.gained, one.length, one.energy, one.length_return, one.energy_return)]


def path_notes(found: Returns) -> list[str]:
    """What the measures are, and where they cannot be had."""
    known: list[str] = []
    measured: list[str] = []
    for game in found.games:
        start = start_level(found, game)
        told = f"{game} {NOTHING if start is None else text.number(start)}"
        (known if "random" in found.references.get(game, {}) else measured).append(told)
    starts = []
    if known:
        starts.append(f"what random play scores ({', '.join(known)})")
    if measured:
        starts.append(
            f"that of the random initialization's first {LAST} episodes, at most the first half ({', '.join(measured)})"
        )
    return [
        f"Return gained: score of the last {LAST} episodes less {'; of others less '.join(starts)}; for all "
        "initializations of a game the same.",
        "Path length and energy of the walk on the graph of the loss, where the noise of batches counts too: an inner "
        "step, and a return gained (ratio of means over seeds). Lower is shorter. "
        f"{NOTHING}: nothing gained, or a walk diverged. Brackets: 95% t-intervals over seeds, Fieller's of ratios; "
        "with several seeds, a ratio without brackets has no upper end, since the return gained may be none.",
    ]


def _cell(value: Interval | None) -> str:
    return NOTHING if value is None else text.interval_text(value)
