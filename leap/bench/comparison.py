"""What moved between two runs of the benchmark, beyond what both intervals allow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from leap.bench.table import duration, figure, ratio, spread
from leap.bench.timing import LEAST_ROUNDS, Spread
from leap.errors import UsageError

FORMAT = 1
FIGURE_TOLERANCE = 0.05
"""Share by which a figure without an interval may differ before it counts as moved: pages and buffers vary a little."""


class Move(NamedTuple):
    """A number whose two intervals do not meet."""

    row: str
    name: str
    quantity: str  # seconds, ratio, or a figure's unit
    old: Spread
    new: Spread

    def __str__(self) -> str:
        """In words."""
        change = self.new.value / self.old.value - 1 if self.old.value else float("inf")
        show = {"seconds": duration, "ratio": ratio}.get(self.quantity, lambda s: figure(s.value, self.quantity))
        what = "" if self.quantity not in ("seconds", "ratio") else f" {self.quantity}"
        return f"{self.row} / {self.name}:{what} {show(self.old)} -> {show(self.new)} ({change:+.1%})"


class Comparison(NamedTuple):
    """What moved, and what stands in the way of comparing."""

    moves: list[Move]
    notes: list[str]


def load(path: Path) -> dict[str, Any]:
    """A result that `leap bench --out` wrote.

    Raises:
        UsageError: no such file, or one of another kind.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a file that leap bench --out wrote") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}); give a file that leap bench --out wrote") from error
    found = document.get("format") if isinstance(document, dict) and document.get("kind") == "leap bench" else None
    if found != FORMAT:
        raise UsageError(
            f"{path} is no benchmark result of format {FORMAT} (found {found!r}); run leap bench --out again"
        )
    return document


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare two results.

    Args:
        old: A document as `leap bench --out` writes it.
        new: Another.

    Returns:
        `moves`: ratios and seconds whose 95% intervals do not meet, and figures that differ by more than
        `FIGURE_TOLERANCE`. A time without interval cannot be said to have moved. `notes`: rows left out and why, goals
        met in one and missed in the other, and what makes seconds incomparable.

    Seconds are compared on equal hardware and threads alone; ratios always, since both sides ran on one machine.
    """
    moves: list[Move] = []
    notes = _differences(old["provenance"], new["provenance"])
    if old["clock"] != new["clock"]:
        notes.append(f"clock {old['clock']} then, {new['clock']} now: seconds are not compared")
    alike = not any("seconds" in note for note in notes)
    for name, row in new["rows"].items():
        before = old["rows"].get(name)
        if before is None:
            notes.append(f"{name}: not in the older result")
        elif before["setting"] != row["setting"] or before["reference"] != row["reference"]:
            notes.append(f"{name}: sizes differ ({_shown(before)} then, {_shown(row)} now), not compared")
        else:
            moves += _moves(name, before, row, alike)
            notes += _verdicts(name, before, row)
            if min(before["rounds"], row["rounds"]) < LEAST_ROUNDS:
                notes.append(f"{name}: times of fewer than {LEAST_ROUNDS} rounds are not compared; raise --seconds")
    notes += [f"{name}: in the older result alone" for name in old["rows"] if name not in new["rows"]]
    return Comparison(moves, notes)


def comparison_text(comparison: Comparison) -> str:
    """What moved, for a terminal."""
    lines = [f"  {move}" for move in comparison.moves] or ["  nothing moved beyond its intervals"]
    return "\n".join(["compared with the older result:", *lines, *(f"  note: {n}" for n in comparison.notes)]) + "\n"


def _moves(name: str, old: Mapping[str, Any], new: Mapping[str, Any], alike: bool) -> list[Move]:
    found = []
    for contender, result in new["results"].items():
        before = old["results"].get(contender)
        for quantity in ("ratio", "seconds") if alike else ("ratio",):
            if before and _apart(spread(before[quantity]), spread(result[quantity])):
                found.append(Move(name, contender, quantity, spread(before[quantity]), spread(result[quantity])))
    for key, value in new["figures"].items():
        before = old["figures"].get(key)
        if before and abs(value["value"] - before["value"]) > FIGURE_TOLERANCE * abs(before["value"]):
            points = [Spread(side["value"], None, None) for side in (before, value)]
            found.append(Move(name, key, value["unit"], *points))
    return found


def _verdicts(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Goals that were met and are missed now, or the other way round."""
    then = {goal["text"]: goal["verdict"] for goal in old["goals"]}
    return [
        f"{name}: the goal {goal['text']!r} was {then[goal['text']]} and is {goal['verdict']}"
        for goal in new["goals"]
        if {then.get(goal["text"]), goal["verdict"]} == {"met", "missed"}
    ]


def _apart(one: Spread, other: Spread) -> bool:
    """Whether two intervals do not meet; without both nobody can tell."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.high < other.low or other.high < one.low


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    notes = []
    for key in ("processor", "device", "threads"):
        then, now = old["hardware"].get(key), new["hardware"].get(key)
        if then != now:
            notes.append(f"{key} {then} then, {now} now: seconds are not compared, only ratios and figures")
    then, now = old["hardware"].get("native", "none"), new["hardware"].get("native", "none")
    if then != now:
        notes.append(f"loops in C by {then} then, {now} now")
    if old["versions"].get("torch") != new["versions"].get("torch"):
        notes.append(f"torch {old['versions'].get('torch')} then, {new['versions'].get('torch')} now")
    return notes


def _shown(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in row["setting"].items())
