"""Against what was swept: the final figure by a setting that takes several values, a line a learner.

A line holds rows that differ in that setting alone. Of a sweep over how many tasks there are to pretrain on the axis
counts these tasks, whatever the setting is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leap.report.differences import differing_fields, method
from leap.report.drawing import GREY, Style, styles
from leap.report.markup import figure, key, section, tag
from leap.report.summary import Measure, Row, Summary
from leap.report.svg import inline_svg
from leap.report.text import heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 4.6, 3.2  # inches of a picture
WIDE = 20  # an axis whose ends differ by such a factor is logarithmic
MARKED = 8  # values are marked on an axis, at most
ASIDE = 3.0  # points between lines, so that their intervals do not hide each other
TASKS = "pretraining tasks"


@dataclass(frozen=True)
class Line:
    """Rows that differ in one setting alone, by its value, rising; `label` names what they share."""

    label: str
    points: tuple[tuple[float, Row], ...]


@dataclass(frozen=True)
class Sweep:
    """A setting that takes several values, and its lines. `axis` names what is on the axis."""

    field: str
    axis: str
    lines: tuple[Line, ...]


def sweeps(summary: Summary) -> list[Sweep]:
    """The settings with numbers that a comparison varied while all else stayed.

    Example:
        Of `--compare.learners leap reptile --compare.grid.tasks.train 1 3 5` there is one, `tasks.train`, with a line
        of three points for each of the two learners.
    """
    named = {row.label: row for row in summary.rows if not row.baseline}
    rows, found = [named[label] for label, _ in summary.groups if label in named], []
    for field in summary.differences:
        lines = _lines(rows, field)
        if lines:
            found.append(_counted(Sweep(field, field, lines)))
    return found


def _lines(rows: Sequence[Row], field: str) -> tuple[Line, ...]:
    alike: dict[str, dict[float, Row]] = {}
    for row in rows:
        fields = method(row.runs[0].config)
        value = fields.pop(field, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            alike.setdefault(repr(sorted(fields.items())), {})[value] = row
    kept = [points for points in alike.values() if len(points) > 1]
    configs = [next(iter(points.values())).runs[0].config for points in kept]
    return tuple(
        Line(label, tuple(sorted(points.items()))) for label, points in zip(_labels(configs, field), kept, strict=True)
    )


def _labels(configs: Sequence[Mapping[str, Any]], field: str) -> list[str]:
    """What tells lines apart: the learner, and other settings in which lines of one learner differ."""
    names = [_learner(config) for config in configs]
    labels = []
    for place, name in enumerate(names):
        rivals = [i for i, other in enumerate(names) if other == name]
        own = differing_fields([configs[i] for i in rivals])
        told = [f"{one}={values[rivals.index(place)]}" for one, values in own.items() if one != field]
        labels.append(f"{name} ({', '.join(told)})" if told else name)
    return labels


def _learner(config: Mapping[str, Any]) -> str:
    learner = config["learner"]
    return str(learner["name"] if isinstance(learner, Mapping) else learner)


def _counted(sweep: Sweep) -> Sweep:
    """The same over numbers of pretraining tasks, where each value of the setting stands for another number."""
    counts: dict[float, set[int | None]] = {}
    for line in sweep.lines:
        for value, row in line.points:
            held = (run.evaluation for run in row.runs)
            counts.setdefault(value, set()).update(one.pretraining_tasks for one in held if one is not None)
    numbers = [count for known in counts.values() for count in known]
    if any(len(known) != 1 for known in counts.values()) or None in numbers or len(set(numbers)) < len(counts):
        return sweep
    of = {value: float(count) for value, known in counts.items() for count in known if count is not None}
    lines = [
        Line(line.label, tuple(sorted(((of[v], row) for v, row in line.points), key=_place))) for line in sweep.lines
    ]
    return Sweep(sweep.field, TASKS, tuple(lines))


def _place(point: tuple[float, Row]) -> float:
    return point[0]


def draw_sweep(
    axes: Axes, sweep: Sweep, measure: Measure, look: Mapping[str, Style], baseline: Row | None = None
) -> None:
    """A line a learner with the 95% intervals of its points side by side, and the random initialization across.

    A point where a walk diverged is left out.
    """
    from matplotlib.transforms import offset_copy

    for place, line in enumerate(sweep.lines):
        style, known = look[line.label], [(x, row.interval(measure.key)) for x, row in line.points]
        aside = ASIDE * (place - (len(sweep.lines) - 1) / 2)
        to = offset_copy(axes.transData, axes.figure, x=aside, units="points")  # type: ignore[arg-type]
        points = [(x, interval) for x, interval in known if interval is not None]
        xs, means = [x for x, _ in points], [interval.mean for _, interval in points]
        axes.plot(xs, means, marker=style.marker, markersize=6, markeredgewidth=0, transform=to, **style.line)
        for x, interval in points:
            if interval.low is not None and interval.high is not None:
                ends = [interval.low, interval.high]
                axes.plot([x, x], ends, color=style.colour, linewidth=1.2, alpha=0.7, transform=to)
    across = None if baseline is None else baseline.interval(measure.key)
    if across is not None:
        axes.axhline(across.mean, color=GREY, dashes=(4, 2), linewidth=1.2)
    xs = sorted({x for line in sweep.lines for x, _ in line.points})
    if xs[0] > 0 and xs[-1] / xs[0] >= WIDE:
        axes.set_xscale("log")
    elif len(xs) <= MARKED:
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.set(xlabel=sweep.axis, ylabel=heading(measure))


def swept_section(summary: Summary) -> str:
    """A picture a swept setting; nothing where there is none, and for games, whose losses have no common scale."""
    found = [] if summary.evaluation.has_returns else sweeps(summary)
    if not found:
        return ""
    measure, random = summary.measures[0], [row for row in summary.rows if row.baseline]
    baseline = random[0] if len(random) == 1 else None
    labels = list(dict.fromkeys(line.label for sweep in found for line in sweep.lines))
    look = styles(labels, ["random initialization"])
    named = labels if baseline is None else list(look)
    legend = tag("ul", *(tag("li", key(label, look[label])) for label in named), class_="legend")
    caption = "Means over seeds with 95% intervals. Initializations of one line differ in {} alone."
    pictures = []
    for place, sweep in enumerate(found):
        svg = inline_svg(
            f"swept{place}", WIDTH, HEIGHT,
            lambda fig, sweep=sweep: draw_sweep(fig.subplots(), sweep, measure, look, baseline),  # type: ignore[misc]
        )  # fmt: skip
        pictures.append(tag("div", figure(svg, f"{measure.label} against {sweep.axis}", caption.format(sweep.field))))
    what = found[0].axis if len(found) == 1 else "what was swept"
    return section(f"{heading(measure).capitalize()} against {what}", legend, tag("div", *pictures, class_="pair"))
