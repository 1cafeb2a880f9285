"""The part of the report page that shows what predicts transfer: tables, and pictures of the scores behind them."""

from __future__ import annotations

from collections.abc import Sequence

from leap.report.captioned import NOTHING, correlation_text, p_text, plain
from leap.report.evaluation import BASELINE
from leap.report.findings import CORRELATED, TOPS
from leap.report.markup import details, section, table, tag, text
from leap.report.measures import Measures
from leap.report.scores_page import curriculum_part, pairs_part, scores_part
from leap.report.shown import shown
from leap.report.transfer import Predictor, Table, source_tables, task_tables
from leap.report.transfer_charts import predictor_pictures

NAMES = {
    "spearman": "Spearman",
    "kendall": "Kendall tau-b",
    "weighted_tau": "weighted tau \u2193",
}


def transfer_section(measures: Measures, title: str, key: str) -> str:
    """What predicts transfer, for a run that was measured with scores or whose distances chose sources; else nothing.

    Args:
        measures: What `parse_measures` gave.
        title: Which run they are of.
        key: Keeps the ids of these pictures apart from those of other runs on the page.
    """
    sources, tasks = source_tables(measures), task_tables(measures)
    parts = [
        _sources(sources, "".join(shown(one, key) for one in predictor_pictures(measures))),
        _tasks(tasks),
        scores_part(measures, key),
        pairs_part(measures),
        curriculum_part(measures, key),
    ]
    if not any(parts):
        return ""
    seeds = f"{len(measures.seeds)} seed{'' if len(measures.seeds) == 1 else 's'}"
    about = f"{measures.family}: {len(measures.tasks)} tasks, {seeds} of measuring. {_ABOUT}"
    return section(f"Transferability: {title}", tag("p", text(about), class_="note"), *parts, class_="long")


_ABOUT = (
    "Scores look at the target's training data through the source's features before any training on the target; the "
    "tables say how well that foretells what fine-tuning then reached. Positive: predicts as it should, for scores "
    "(larger is better) and distances (smaller is better) alike."
)


def _sources(tables: Sequence[Table], picture: str) -> str:
    if not tables:
        return ""
    main, *others = tables
    notes = list(_COLUMNS)
    if not any(row.baseline for row in main.rows):
        notes.append("No baseline was measured: nothing says whether a simpler figure would do as well.")
    words = tag("div", *(tag("p", text(note), class_="note") for note in notes))
    folded = [details(f"The same for {plain(one.y)}", told(one), source_table(one)) for one in others]
    return (
        tag("h3", "What predicts transfer here")
        + told(main)
        + tag("div", tag("div", picture), words, class_="pair beside")
        + source_table(main)
        + "".join(folded)
    )


_COLUMNS = (
    "Correlations are within each target over its sources, then the mean over targets, so that a target's own hardness "
    "counts for nothing. Weighted tau counts the order of the best sources most. Small figures: 95% intervals over "
    "resampled tasks and seeds.",
    "p (Mantel): how often tasks with shuffled names agree as much over all pairs. Top-1, top-3: in how many targets "
    "the best source is among the first 1 or 3 by the predictor. Regret: how much worse the source that it picks is "
    "than the best one.",
    "Baselines stand in every table; a predictor that is not clearly above them adds nothing. Ceiling: the same "
    "figures when one seed of the outcome predicts another; a predictor is held against means over seeds, which are "
    "less noisy, and so can stand above.",
)


def told(found: Table) -> str:
    """What the table is about, and what it says."""
    about = f"{found.label[:1].upper()}{found.label[1:]}. "
    return tag("p", tag("span", text(about), class_="note"), text(_answer(found)))


def _answer(found: Table) -> str:
    """The best predictor beside the best baseline, in a sentence."""
    best, simple = found.best, found.best_baseline
    if best is None:
        return "No score and no distance orders the candidates."
    low = (best.ends("weighted_tau") or [1.0])[0]
    said = f"{best.label} predicts best: weighted tau {_with_ends(best)}" + (
        ", which may be chance" if low <= 0 else ""
    )
    if simple is None:
        return f"{said}; no baseline has a figure to hold against it."
    if (simple.figure("weighted_tau") or 0.0) >= (best.figure("weighted_tau") or 0.0):
        ahead = f"Nothing beats the baseline {simple.label}: weighted tau {_with_ends(simple)}"
        return f"{ahead}. Best beside baselines: {best.label}, {_with_ends(best)}."
    one, two = best.ends("weighted_tau"), simple.ends("weighted_tau")
    apart = one is not None and two is not None and one[0] > two[1]
    how = "the intervals lie apart" if apart else "the intervals overlap"
    return f"{said}. Best baseline: {simple.label}, {_with_ends(simple)}; {how}."


def _with_ends(row: Predictor) -> str:
    ends = row.ends("weighted_tau")
    between = f" [{correlation_text(ends[0])}, {correlation_text(ends[1])}]" if ends else ""
    return correlation_text(row.figure("weighted_tau")) + between


def source_table(found: Table, *, mantel: bool = True) -> str:
    """A row a predictor of the best candidate: how well it orders them, how often it picks the best, at what cost."""
    unit = f" ({found.unit})" if found.unit not in ("", "1") else ""
    test = ["p (Mantel)"] if mantel else []
    head = ["predictor", *(NAMES[name] for name in CORRELATED), *test, "top-1", "top-3", f"regret{unit}"]
    rows = [[_named(row), *_source_cells(row, mantel)] for row in found.rows]
    if found.ceiling:
        targets = max(((row.found.get("top1") or {}).get("targets") or 0) for row in found.rows)
        tops = [_of(found.ceiling.get(name), targets) for name in TOPS]
        regret = found.ceiling.get("regret")
        cells = [correlation_text(found.ceiling.get(name)) for name in CORRELATED]
        cells += [NOTHING] if mantel else []
        rows.append([_CEILING, *cells, *tops, NOTHING if regret is None else f"{regret:.2f}"])
    return table([text(one) for one in head], rows, f"What predicts {plain(found.y)}", kind="dense")


_CEILING = f"Ceiling<br>{tag('small', 'one seed predicts another')}"


def _source_cells(row: Predictor, mantel: bool) -> list[str]:
    if row.why:
        return [NOTHING] * (7 if mantel else 6)
    cells = [_cell(correlation_text(row.figure(name)), row.ends(name)) for name in CORRELATED]
    cells += [p_text(row.p_value)] if mantel else []
    for name in TOPS:
        found = row.found.get(name) or {}
        rate, targets, chance = (found.get(part) for part in ("rate", "targets", "chance"))
        by_lot = f"by lot {chance * targets:.1f}" if chance is not None and targets else ""
        cells.append(_small(_of(rate, targets), by_lot))
    regret = (row.found.get("regret") or {}).get("mean")
    ends = row.ends("regret")
    if regret is None:
        return [*cells, NOTHING]
    return [*cells, _small(f"{regret:.2f}", f"[{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")]


def _of(rate: float | None, targets: int | None) -> str:
    """Hits of targets; a tie counts with its probability, so they need not be whole."""
    if rate is None or not targets:
        return NOTHING
    return f"{f'{rate * targets:.1f}'.removesuffix('.0')} of {targets}"


def _tasks(tables: Sequence[Table]) -> str:
    if not tables:
        return ""
    starts = dict.fromkeys(one.initialization for one in tables)
    parts = [
        tag("h3", "Over held-out tasks: what tells how well one initialization will do"),
        tag("p", text(_TASKS), class_="note"),
    ]
    for start in starts:
        main, *others = (one for one in tables if one.initialization == start)
        name = "random" if start == BASELINE else start
        shown = tag("p", tag("strong", text(f"{name} initialization, {main.label}. ")), text(_answer(main)))
        folded = [
            details(f"{name} initialization, {one.label}", tag("p", text(_answer(one))), _task_table(one))
            for one in others
        ]
        parts.append(shown + _task_table(main) + "".join(folded))
    return "".join(parts)


_TASKS = (
    "One initialization, many tasks: which of them it will learn well. Where scores depend on the number of classes, "
    "they are normalized by it. A task's own hardness may be all that a score has seen here, so hold it against the "
    "baselines. p: how often shuffled tasks agree as much."
)


def _task_table(found: Table) -> str:
    head = ["predictor", *(NAMES[name] for name in CORRELATED), "p", "tasks"]
    rows = []
    for row in found.rows:
        cells = [_cell(correlation_text(row.figure(name)), row.ends(name)) for name in CORRELATED]
        count = row.found.get("tasks")
        rows.append([_named(row), *cells, p_text(row.p_value), NOTHING if count is None else str(count)])
    if found.ceiling:
        rows.append([_CEILING, *(correlation_text(found.ceiling.get(name)) for name in CORRELATED), NOTHING, NOTHING])
    return table([text(one) for one in head], rows, f"What predicts {found.label}", kind="dense")


def _named(row: Predictor) -> str:
    """The predictor, and small below it that it is a baseline or why it has no figures."""
    kind = "baseline" if row.baseline else "known only after training" if row.walked else ""
    said = [word for word in (kind, row.why) if word]
    return _small(text(row.label), ": ".join(said))


def _cell(shown: str, ends: Sequence[float] | None) -> str:
    return _small(shown, f"[{correlation_text(ends[0])}, {correlation_text(ends[1])}]" if ends else "")


def _small(shown: str, below: str) -> str:
    return shown + (f"<br>{tag('small', text(below))}" if below else "")
