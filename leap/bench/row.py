"""A row of the benchmark: contenders, further figures, and the goals they are held to."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from leap.bench.timing import Clock, Contender, Spread, Timing, measure, nothing, summarize
from leap.errors import UsageError

Verdict = Literal["met", "missed", "open", "not judged"]


class LeftOut(UsageError):
    """A row that cannot be measured here; the message is the reason."""


class Figure(NamedTuple):
    """A number that is no time: memory in bytes, or a count.

    Attributes:
        name: As it stands in tables.
        unit: `bytes`, or what is counted.
        measure: Takes the number.
    """

    name: str
    unit: str
    measure: Callable[[], float]


class Goal(NamedTuple):
    """What a row is held to.

    Attributes:
        text: The goal in words.
        of: A contender or a figure.
        quantity: Which number of it.
        most: The largest value that meets the goal.
        threads: Threads that the goal speaks of; with others it is not judged, nor by the processor's clock.
        beside: The contender that the ratio is taken to; None: the row's reference.
    """

    text: str
    of: str
    quantity: Literal["seconds", "ratio", "figure"]
    most: float
    threads: int | None = None
    beside: str | None = None


@dataclass(frozen=True)
class Row:
    """What is measured together.

    Attributes:
        contenders: Timed in turns.
        reference: The one that ratios are taken to; of several, the one whose median over all rounds is the least.
        setting: Sizes that two measurements must share to be comparable.
        goals: What is aimed at.
        figures: What else is measured, once.
        clock: The row's own clock, for work that the one chosen does not see.
    """

    contenders: Sequence[Contender]
    reference: str | Sequence[str]
    setting: Mapping[str, Any]
    goals: Sequence[Goal] = ()
    figures: Sequence[Figure] = field(default=())
    clock: Clock | None = None


def carry_out(
    row: Row,
    *,
    seconds: float,
    seed: int = 0,
    judged: Callable[[Goal], bool] = lambda goal: True,
    synchronize: Callable[[], None] = nothing,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measure a row; the result is ready for JSON.

    Args:
        row: What to measure.
        seconds: Budget for timing; figures are taken beyond it.
        seed: Of orders and resampling.
        judged: Whether a goal applies; none does at other sizes than its own.
        synchronize: Waits for the device.
        clock: Seconds from any origin, unless the row has its own.

    Returns:
        `setting`, `reference`, `rounds`, `load` (the machine's load average beforehand); by contender `results`, each
        with `seconds` and `ratio` as {value, low, high} and the `times` of all rounds; `figures` by name; `goals` with
        their verdicts.
    """
    load = os.getloadavg()[0]
    times = measure(row.contenders, seconds=seconds, seed=seed, synchronize=synchronize, clock=row.clock or clock)

    def beside(reference: str) -> dict[str, Timing]:
        return {timing.name: timing for timing in summarize(times, reference, seed=seed)}

    rivals = [row.reference] if isinstance(row.reference, str) else row.reference
    reference = min(rivals, key=lambda name: statistics.median(times[name]))
    timings = beside(reference)
    figures = {figure.name: {"value": float(figure.measure()), "unit": figure.unit} for figure in row.figures}
    return {
        "setting": dict(row.setting),
        "reference": reference,
        "rounds": len(times[reference]),
        "load": load,
        "results": {
            name: {"seconds": timing.seconds._asdict(), "ratio": timing.ratio._asdict(), "times": times[name]}
            for name, timing in timings.items()
        },
        "figures": figures,
        "goals": [
            _goal(goal, beside(goal.beside) if goal.beside else timings, figures, judged(goal)) for goal in row.goals
        ],
    }


def _goal(
    goal: Goal, timings: Mapping[str, Timing], figures: Mapping[str, Mapping[str, Any]], judged: bool
) -> dict[str, Any]:
    if goal.quantity == "figure":
        spread = Spread(*3 * [figures[goal.of]["value"]])
    else:
        spread = getattr(timings[goal.of], goal.quantity)
    return {**goal._asdict(), **spread._asdict(), "verdict": verdict(spread, goal.most) if judged else "not judged"}


def verdict(spread: Spread, most: float) -> Verdict:
    """Whether a goal is met; without an interval, or where it holds the goal itself, measuring longer has to tell.

    Example:
        >>> verdict(Spread(1.01, 1.00, 1.015), 1.02), verdict(Spread(1.01, 0.99, 1.03), 1.02)
        ('met', 'open')
    """
    if spread.low is None or spread.high is None:
        return "open"
    return "met" if spread.high <= most else "missed" if spread.low > most else "open"


def synchronizer(device: str) -> Callable[[], None]:
    """What waits for a torch device."""
    if not device.startswith("cuda"):
        return nothing
    import torch

    return lambda: torch.cuda.synchronize(device)
