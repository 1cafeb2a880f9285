"""What every row of a comparison cost to train: steps, gradients and time, from what its runs logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leap.metrics.statistics import mean_interval
from leap.report.captioned import NOTHING
from leap.report.differences import flatten
from leap.report.drawing import Style
from leap.report.markup import key, section, table, tag, text
from leap.report.runs import Run
from leap.report.text import interval_text, number

HEAD = (
    *("initialization", "runs", "meta-steps", "gradients", "agent steps", "training time", "s a meta-step"),
    "peak memory",
)
SECONDS, SPEED = "time/meta_step_s", "charts/SPS"
MEMORY, GPU_MEMORY = "memory/peak_mib", "memory/gpu_peak_mib"  # as `leap.memory` writes them; a page needs no torch


def cost_section(groups: Sequence[tuple[str, Sequence[Run]]], look: Mapping[str, Style]) -> str:
    """A row a configuration, means over its runs; nothing where no run logged its training."""
    held = [(label, [run for run in runs if run.metrics]) for label, runs in groups]
    held = [(label, runs) for label, runs in held if runs]
    if not held:
        return ""
    rows = [[key(label, look[label]), *(text(cell) for cell in cost_cells(runs))] for label, runs in held]
    played = any(row[4] != NOTHING for row in rows)
    rows = [row if played else [*row[:4], *row[5:]] for row in rows]
    head = [text(name) for name in HEAD if played or name != "agent steps"]
    total = sum(seconds(run) for _, runs in held for run in runs)
    notes = [
        "Means over runs. Gradients: inner steps of all tasks, meta-steps times tasks times inner steps; learners that "
        "differentiate through the walk (MAML) pay more for each. Time is that of meta-steps alone, on the machine "
        "named below, whatever else ran there; without evaluation, and without steps that were lost and taken again. "
        "Memory is the most that a run's (first) process held, libraries and data included, and its tensors on a GPU.",
        f"All runs together: {span(total)} of meta-training.",
    ]
    if any(gradients(run) is None for _, runs in held for run in runs):
        notes.append(f"{NOTHING}: walks of different lengths (epochs, or stopped early), whose steps are not logged.")
    return section(
        "What it cost",
        table(head, rows, "What it cost"),
        *(tag("p", text(note), class_="note") for note in notes),
        class_="long",
    )


def cost_cells(runs: Sequence[Run]) -> list[str]:
    """The cells of a row behind its name."""
    steps = [len(run.metrics) and int(run.metrics[-1]["step"]) for run in runs]
    counts = [gradients(run) for run in runs]
    played = [agent_steps(run) for run in runs]
    times = [seconds(run) for run in runs]
    each = [time / len(run.metrics) for time, run in zip(times, runs, strict=True)]
    return [
        str(len(runs)),
        f"{_mean(steps):,.0f}",
        NOTHING if None in counts else short(_mean([count for count in counts if count is not None])),
        short(_mean(played)) if any(played) else NOTHING,
        span(_mean(times)) if any(times) else NOTHING,
        interval_text(mean_interval(each)) if any(times) else NOTHING,
        _memory(runs),
    ]


def gradients(run: Run) -> int | None:
    """Gradients of tasks that meta-training took; None where walks are not all of one length, or no one says which."""
    train = flatten(run.config.get("train") or {})
    steps, tasks = train.get("inner_steps"), train.get("meta_batch")
    varied = train.get("inner_epochs") is not None or train.get("validate_every") is not None
    if varied or not isinstance(steps, int) or not isinstance(tasks, int) or not run.metrics:
        return None
    return int(run.metrics[-1]["step"]) * tasks * steps


def seconds(run: Run) -> float:
    """How long its meta-steps took, as far as it logged that."""
    return sum(_number(row.get(SECONDS)) for row in run.metrics)


def agent_steps(run: Run) -> float:
    """How many steps its games were played in meta-training; 0 for other tasks."""
    return sum(_number(row.get(SECONDS)) * _number(row.get(SPEED)) for row in run.metrics)


def most(run: Run, key: str) -> float:
    """The largest number that it logged under a key; 0 where there is none, as in runs of before there was the key."""
    return max((_number(row.get(key)) for row in run.metrics), default=0.0)


def size(mib: float) -> str:
    """Memory as people say it.

    Example:
        >>> size(812.4), size(4812.0)
        ('812 MiB', '4.7 GiB')
    """
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def span(time: float) -> str:
    """A time as people say it.

    Example:
        >>> span(3.21), span(125.0), span(7260.0)
        ('3.21 s', '2 min', '2.0 h')
    """
    if time < 100:
        return f"{number(time)} s"
    return f"{time / 60:.0f} min" if time < 6000 else f"{time / 3600:.1f} h"


def short(count: float) -> str:
    """A large number with three digits.

    Example:
        >>> short(950), short(200_000), short(12_345_678)
        ('950', '200 thousand', '12.3 million')
    """
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count:.3g}"


def _memory(runs: Sequence[Run]) -> str:
    resident, on_gpu = ([most(run, key) for run in runs] for key in (MEMORY, GPU_MEMORY))
    if not all(resident):
        return NOTHING
    return size(_mean(resident)) + (f", GPU {size(_mean(on_gpu))}" if all(on_gpu) else "")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
