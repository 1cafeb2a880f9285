"""A comparison in words: numbers with intervals, and the sentences that answer which initialization is best."""

from __future__ import annotations

from collections.abc import Sequence

from leap.metrics.statistics import Interval
from leap.report.runs import Run
from leap.report.summary import Measure, Row, Summary, Verdict

NO_VALUE = "diverged"


def number(value: float, like: float | None = None) -> str:
    """A figure with about three significant digits, or with as many decimals as the figure `like` would have.

    Example:
        >>> number(63.214), number(7.891), number(0.01234), number(7.891, like=63.214)
        ('63.2', '7.89', '0.0123', '7.9')
    """
    size = abs(value if like is None else like)
    if size != 0 and (size < 0.001 or size >= 100_000):
        return f"{value:.2e}"
    return f"{value:.{0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 4}f}"


def interval_text(interval: Interval | None, unit: str = "") -> str:
    """Mean and interval, as in `12.3 [11.0, 13.6]`; the mean alone for one seed.

    Example:
        >>> interval_text(Interval(12.34, 9.04, 15.64, 3), "%")
        '12.3% [9.0, 15.6]'
    """
    if interval is None:
        return NO_VALUE
    mean = f"{number(interval.mean)}{unit}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{number(interval.low, interval.mean)}, {number(interval.high, interval.mean)}]"


def heading(measure: Measure) -> str:
    """A column's name with its unit."""
    return f"{measure.label} ({measure.unit})" if measure.unit else measure.label


def protocol(summary: Summary) -> str:
    """What was evaluated, in one line."""
    one = summary.evaluation
    seeds = len(one.evaluation_seeds)
    return (
        f"{one.family}, {one.split} split: {_count(len(one.tasks), 'task')}, {_count(one.steps, 'inner step')}, "
        f"{_count(seeds, 'evaluation seed')}"
    )


def answer(summary: Summary) -> str:
    """Which initialization is best, as far as these runs can tell, in one sentence."""
    best, measure, verdicts = summary.rows[0], summary.measures[0], summary.verdicts()
    interval = best.interval(measure.key)
    if interval is None:
        return f"No initialization can be called best: a walk of each diverged, so there is no mean {measure.label}."
    reached = f"{measure.label} {number(interval.mean)}{measure.unit}"
    rivals = [verdict.other.label for verdict in verdicts if not verdict.settled]
    if not verdicts:
        return f"{best.label} reaches {reached}; there is nothing to compare it with."
    if not rivals:
        return f"{best.label} is best: {reached}."
    if min(verdict.behind.count for verdict in verdicts) < 2:
        return f"{best.label} leads with {reached}; one seed cannot say how surely."
    return f"{best.label} leads with {reached}, but {' and '.join(rivals)} may be as good."


def sureness(verdict: Verdict, measure: Measure) -> tuple[str, str]:
    """By how much the best row is ahead of another, and how sure that is: two phrases."""
    unit = " points" if measure.unit == "%" else ""
    behind = verdict.behind
    ahead = f"{number(behind.mean)}{unit} better than {verdict.other.label}"
    if behind.low is None or behind.high is None:
        return ahead, "one training seed: nobody can say how sure that is; train further seeds"
    how = "paired by seed" if verdict.paired else "seeds not paired"
    low, high = number(behind.low, behind.mean), number(behind.high, behind.mean)
    within = f"95% interval {low} to {high}, {_count(behind.count, 'seed')}, {how}"
    end = "beyond chance" if verdict.settled else "includes zero: the order may be chance"
    return ahead, f"{within}; {end}"


def diverged(row: Row, measure: Measure) -> bool:
    """Whether a walk behind this cell diverged."""
    return row.interval(measure.key) is None


def measured_text(runs: Sequence[Run]) -> str:
    """What there is of runs that were measured and not evaluated, a line a run."""
    lines = []
    for run in runs:
        held = run.measures
        what = (
            "nothing yet" if held is None else f"{_count(len(held.tasks), 'task')}, {_count(len(held.seeds), 'seed')}"
        )
        lines.append(f"{run.folder}: measured {what}; not evaluated (leap evaluate {run.folder})")
    return "\n".join(lines) + "\n"


def comparison_text(summary: Summary) -> str:
    """The comparison as a plain-text table for a terminal, best initialization first."""
    return "\n".join([protocol(summary), "", *figures(summary, answered=True)]) + "\n"


def figures(summary: Summary, answered: bool = False) -> list[str]:
    """The table and what belongs to it, a line each; `answered`: which initialization is best as well."""
    head = ["initialization", "seeds", *(heading(measure) for measure in summary.measures)]
    cells = [head]
    for row in summary.rows:
        cells.append([row.label, str(len(row.seeds)), *(interval_text(row.interval(m.key)) for m in summary.measures)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    rule = "-" * len(max(lines, key=len))
    text = [lines[0], rule, *lines[1:], "", *([answer(summary)] if answered else [])]
    for verdict in summary.verdicts() if answered else ():
        ahead, how_sure = sureness(verdict, summary.measures[0])
        text.append(f"  {ahead} ({how_sure}).")
    text.append(f"Brackets: {INTERVAL_NOTE}")
    if any(diverged(row, measure) for row in summary.rows for measure in summary.measures):
        text.append(f'"{NO_VALUE}": at least one walk reached values that are not finite, so there is no honest mean.')
    text += [f"Not evaluated yet: {run.folder}  (leap evaluate {run.folder})" for run in summary.missing]
    return text


INTERVAL_NOTE = "95% t-interval over training seeds, each being its mean over tasks and evaluation seeds."


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"
