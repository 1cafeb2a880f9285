"""What was measured of a run, as tables of its model card, beside the random initialization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leap.metrics.statistics import mean_interval
from leap.report import returns
from leap.report.evaluation import BASELINE, Evaluation
from leap.report.measures import Measures
from leap.report.returns_text import game_head, game_rows, spread_head
from leap.report.summary import ERROR_MEASURES, LOSS_MEASURES
from leap.report.tables import measure_means
from leap.report.text import NO_VALUE, heading, interval_text, number
from leap.sharing.markdown import plain, table

MOST = 60  # rows of a table about single tasks or measures


def evaluated(one: Evaluation) -> list[str]:
    """The results of an evaluation, as lines of Markdown."""
    seeds, tasks = len(one.evaluation_seeds), len(one.tasks)
    lines = [
        f"{_count(tasks, 'task')} of the {plain(one.split)} split, {_count(one.steps, 'inner step')} each, "
        f"{_count(seeds, 'evaluation seed')}. Lower is better.",
        "",
        *_overall(one),
        "",
        _sureness(seeds),
    ]
    return [*lines, "", *(_games(one) if one.has_returns else _by_task(one))]


def measured(found: Measures) -> list[str]:
    """Means of what `leap measure` measured, as lines of Markdown; empty where there are none."""
    rows = [(f"`{name}`", number(value)) for name, value in measure_means(found).items() if _is_code(name)]
    if not rows:
        return []
    more = [] if len(rows) <= MOST else ["", f"{len(rows) - MOST} more are left out."]
    return [*table(("measure, mean over seeds and tasks", "value"), rows[:MOST]), *more]


def _overall(one: Evaluation) -> list[str]:
    measures = ERROR_MEASURES if one.has_error else LOSS_MEASURES
    rows = []
    for name in _ordered(one):
        cells = [_interval(one.values[name][measure.key].mean(axis=1), measure.unit) for measure in measures]
        rows.append([_label(name), *cells])
    return table(["initialization", *(heading(measure) for measure in measures)], rows)


def _by_task(one: Evaluation) -> list[str]:
    measure = (ERROR_MEASURES if one.has_error else LOSS_MEASURES)[0]
    names = _ordered(one)
    rows = []
    for place, task in list(enumerate(one.tasks))[:MOST]:
        rows.append([plain(task), *(_interval(one.values[name][measure.key][:, place], "") for name in names)])
    more = [] if len(one.tasks) <= MOST else ["", f"{len(one.tasks) - MOST} more tasks are left out."]
    return [f"By task, {heading(measure)}:", "", *table(["task", *map(_label, names)], rows), *more]


def _games(one: Evaluation) -> list[str]:
    """Returns: higher is better."""
    found = returns.alone(one)
    head, *rows = ([plain(cell) for cell in row] for row in [game_head(found) + spread_head(found), *game_rows(found)])
    return ["Returns of the games; here higher is better:", "", *table(head, rows)]


def _interval(values: np.ndarray, unit: str) -> str:
    if not np.isfinite(values).all():
        return NO_VALUE
    return interval_text(mean_interval([float(value) for value in values]), unit)


def _sureness(seeds: int) -> str:
    """What the brackets say, and what they do not."""
    if seeds < 2:
        return "One evaluation seed and one training seed: nothing here says how sure the figures are."
    return (
        "Brackets: 95% t-interval over evaluation seeds (other batches of the same tasks). It is one training seed, so "
        "they do not say what another training would give."
    )


def _ordered(one: Evaluation) -> Sequence[str]:
    """The learner's initialization first, then the random one, then others."""
    first = [name for name in (one.learner, BASELINE) if name in one.values]
    return list(dict.fromkeys([*first, *one.values]))


def _label(name: str) -> str:
    return "random initialization" if name == BASELINE else f"this one ({plain(name)})"


def _is_code(name: str) -> bool:
    """Whether a name can stand between backticks in a table."""
    return name.isascii() and name.isprintable() and "`" not in name and "|" not in name


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"
