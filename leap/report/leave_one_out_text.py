"""The leave-one-out table as text for a terminal, and as CSV with a row a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leap.metrics.statistics import Interval
from leap.report.leave_one_out import AREA, TEST, LeaveOneOut, Method, Standing, answer
from leap.report.summary import Measure
from leap.report.tables import write_rows
from leap.report.text import NO_VALUE, heading

MISSING = "missing"
COLUMNS = ("test_error", "final_train_error", "train_error_auc", "validation_error")
NOTES = (
    "Lower is better everywhere. Brackets: 95% t-interval over training seeds, each being its mean over evaluation "
    "seeds; one seed has none. Differences to Leap are paired by seed.",
    "AUC: area under the training-error curve, on a scale of 0 to 100, over all steps that a walk may take; one that "
    "stops early keeps its last level.",
    "Best, ranks and counts are by means over the seeds that all methods have on a data set; ties count for each, and "
    "a walk that diverged ranks last. Differences to no pretraining: mean and 95% t-interval over data sets.",
    "No pretraining: the random initializations that the learners started from, walked with the same seeds.",
)


def leave_one_out_text(found: LeaveOneOut) -> str:
    """The whole table as plain text; `*` marks what is lowest on a data set."""
    leap = found.sole("leap")
    head = ["held out", "method", *map(heading, found.measures), *(["test error above Leap's"] if leap else [])]
    blocks = []
    for name in found.names:
        rows = [["", one.title, *cells(found, name, one, star="*"), *behind(found, name, one)] for one in found.methods]
        rows[0][0] = name
        blocks.append(rows)
    lines = [protocol(found), "", *_aligned([[head], *blocks])]
    if standings := found.standings():
        lines += ["", *_aligned([[list(STANDINGS)], [standing_cells(one) for one in standings]])]
    lines += ["", *answer(found), *NOTES, *untold(found)]
    return "\n".join(lines) + "\n"


def write_leave_one_out_rows(found: LeaveOneOut, out: Path) -> Path:
    """Write a row a run: what was held out, learner, seed, errors in percent, steps walked, and where it was measured.

    Random initializations are the rows of learner `none`, one a data set and seed. A number is empty where a walk
    diverged or the family does not measure it.
    """
    rows: list[Sequence[Any]] = [("held_out", "learner", "seed", *COLUMNS, "steps", "method", "run")]
    for name in found.names:
        for one in found.methods:
            for seed, walks in found.at(name, one).items():
                values = [walks.values.get(key) for key in COLUMNS]
                rows.append((name, one.learner, seed, *values, walks.values["steps"], one.title, walks.run.folder.name))
    return write_rows(out, rows)


STANDINGS = (
    "method",
    "lowest test error",
    "lowest AUC",
    "both",
    "mean rank, test error",
    "mean rank, AUC",
    "test error less no pretraining's",
)
"""The columns of `standing_cells`."""


def standing_cells(one: Standing) -> list[str]:
    """A method over all data sets."""
    ranks = [f"{one.rank[key]:.2f}" for key in (TEST.key, AREA.key)]
    lowest = [str(one.lowest[key]) for key in (TEST.key, AREA.key)]
    return [one.method.title, *lowest, str(one.both), *ranks, "" if one.gain is None else percent(one.gain)]


def cells(found: LeaveOneOut, name: str, one: Method, star: str = "") -> list[str]:
    """A method's figures on a data set, with how many seeds there are where some are missing."""
    return [cell(found, name, one, measure, star) for measure in found.measures]


def cell(found: LeaveOneOut, name: str, one: Method, measure: Measure, star: str = "") -> str:
    """One figure with its interval."""
    count = len(found.at(name, one))
    if count == 0:
        return MISSING
    told = percent(found.interval(name, one, measure.key))
    told += star if one in found.best(name, measure.key) else ""
    return told if count == len(found.seeds) else f"{told} ({count} of {len(found.seeds)} seeds)"


def behind(found: LeaveOneOut, name: str, one: Method) -> list[str]:
    """By how much a method's test error is above Leap's; nothing where there is no one Leap."""
    leap = found.sole("leap")
    if leap is None:
        return []
    difference = found.behind(name, one, leap)
    return ["" if difference is None else f"{'+' if difference.mean > 0 else ''}{percent(difference)}"]


def percent(interval: Interval | None) -> str:
    """A mean in percent with its interval, to a tenth, and below ten to a hundredth.

    Example:
        >>> percent(Interval(12.34, 9.04, 15.64, 3)), percent(Interval(0.031, None, None, 1))
        ('12.3 [9.0, 15.6]', '0.03')
    """
    if interval is None:
        return NO_VALUE
    places = 1 if abs(interval.mean) >= 9.995 else 2
    mean = f"{interval.mean:.{places}f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{interval.low:.{places}f}, {interval.high:.{places}f}]"


def protocol(found: LeaveOneOut) -> str:
    """What was done, in one line."""
    one = found.protocol
    return (
        f"{one.family}, each data set held out in turn: {_count(len(found.names), 'data set')}, "
        f"{_count(len(found.seeds), 'training seed')}, {_count(len(one.evaluation_seeds), 'evaluation seed')}, "
        f"at most {_steps(found)}"
    )


def _steps(found: LeaveOneOut) -> str:
    walked = [run.evaluation.steps for _, runs in found.groups for run in runs if run.evaluation]
    low, high = min(walked), max(walked)
    return _count(high, "inner step") if low == high else f"{low} to {high} inner steps, by data set"


def untold(found: LeaveOneOut) -> list[str]:
    """What is not in the table: runs that are not there yet, data sets that cannot be counted."""
    lines = []
    if left := [name for name in found.names if name not in found.counted]:
        lines.append(f"Not counted, since no seed is there for every method: {', '.join(left)}.")
    if found.missing:
        shown = [f"{path.parent.name}/{path.name}" for path in found.missing[:6]]
        more = f" and {len(found.missing) - len(shown)} more" if len(found.missing) > len(shown) else ""
        lines.append(f"Not evaluated yet: {', '.join(shown)}{more}; repeat the command to go on.")
    return lines


def _aligned(blocks: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """Rows in columns, a rule between blocks."""
    rows = [row for block in blocks for row in block]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for block in blocks:
        lines += ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in block]
        lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
    return [line.rstrip() for line in lines[:-1]]


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"
