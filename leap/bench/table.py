"""A row's result as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leap.bench.timing import LEAST_ROUNDS, Spread

_SCALES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_SIZES = {"GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10, "bytes": 1.0}
_VERDICTS = {"met": "met", "missed": "MISSED", "open": "open", "not judged": "-"}


def duration(spread: Spread) -> str:
    """Seconds in a readable unit, with their interval.

    Example:
        >>> duration(Spread(0.01234, 0.0119, 0.0125)), duration(Spread(75.0, None, None))
        ('12.3 ms [11.9, 12.5]', '75.0 s')
    """
    return _scaled(spread, _SCALES, smallest="ns")


def size(count: float) -> str:
    """Bytes in a readable unit.

    Example:
        >>> size(1.5 * 2**30), size(12)
        ('1.50 GiB', '12.0 bytes')
    """
    return _scaled(Spread(count, None, None), _SIZES, smallest="bytes")


def ratio(spread: Spread) -> str:
    """A ratio with its interval.

    Example:
        >>> ratio(Spread(1.0234, 1.0149, 1.03))
        '1.023 [1.015, 1.030]'
    """
    ends = "" if spread.low is None or spread.high is None else f" [{spread.low:.3f}, {spread.high:.3f}]"
    return f"{spread.value:.3f}{ends}"


def figure(value: float, unit: str) -> str:
    """A figure with its unit.

    Example:
        >>> figure(2.0, "epochs")
        '2 epochs'
    """
    return size(value) if unit == "bytes" else f"{value:.4g} {unit}"


def spread(numbers: Mapping[str, Any]) -> Spread:
    """A number of a result as it stands in JSON."""
    return Spread(numbers["value"], numbers["low"], numbers["high"])


def row_text(name: str, about: str, result: Mapping[str, Any]) -> str:
    """A row's result: contenders, figures, goals and whether they were met."""
    setting = ", ".join(f"{key} {value}" for key, value in result["setting"].items())
    rounds = result["rounds"]
    counted = f"{rounds} round{'' if rounds == 1 else 's'}"
    few = f" (no intervals: they need {LEAST_ROUNDS})" if rounds < LEAST_ROUNDS else ""
    cells = [["", "median", f"ratio to {result['reference']}"]]
    cells += [
        [key, duration(spread(found["seconds"])), ratio(spread(found["ratio"]))]
        for key, found in result["results"].items()
    ]
    cells += [[key, figure(found["value"], found["unit"]), ""] for key, found in result["figures"].items()]
    counted += f"{few}; load {result['load']:.1f} before"
    lines = [f"{name}: {about}", f"  {setting}; {counted}", *_aligned(cells)]
    for goal in result["goals"]:
        lines.append(f"  goal {_VERDICTS[goal['verdict']]:<7} {goal['text']}: {_reached(goal, result)}")
    return "\n".join(lines) + "\n"


def machine_text(provenance: Mapping[str, Any]) -> str:
    """The machine and the versions, in one line."""
    hardware, versions = provenance["hardware"], provenance["versions"]
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, {hardware['threads']} threads, device "
        f"{hardware['device']}; leap {versions['leap']}, torch {versions['torch']}, Python {versions['python']}, "
        f"loops in C: {hardware.get('native', 'none')}"
    )


def _reached(goal: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    if goal["quantity"] == "figure":
        return figure(goal["value"], result["figures"][goal["of"]]["unit"])
    return (duration if goal["quantity"] == "seconds" else ratio)(spread(goal))


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]


def _scaled(spread: Spread, scales: Mapping[str, float], smallest: str) -> str:
    """A number in the largest unit of which it holds at least one; `scales` runs from large to small."""
    unit = next((name for name, one in scales.items() if abs(spread.value) >= one), smallest)
    one = scales[unit]
    digits = 2 if abs(spread.value) < 10 * one else 1 if abs(spread.value) < 1000 * one else 0
    ends = ""
    if spread.low is not None and spread.high is not None:
        ends = f" [{spread.low / one:.{digits}f}, {spread.high / one:.{digits}f}]"
    return f"{spread.value / one:.{digits}f} {unit}{ends}"
