"""The part of the report page that says which of several initializations to start from."""

from __future__ import annotations

from collections.abc import Sequence

from leap.report.choice import candidates, choice_tables
from leap.report.markup import details, section, tag, text
from leap.report.runs import Run
from leap.report.shown import shown
from leap.report.transfer_charts import predictor_picture
from leap.report.transfer_page import source_table, told


def choice_section(groups: Sequence[tuple[str, Sequence[Run]]]) -> str:
    """What tells which initialization is best for a task before training; nothing where too few were scored.

    Args:
        groups: Labelled runs, as a summary has them.
    """
    tables = choice_tables(groups)
    if not tables:
        return ""
    main, *others = tables
    scores = frozenset(row.name for row in main.rows)
    picture = shown(predictor_picture("choice", f"What predicts the {main.label}", main, scores), "c")
    names = [one.label for one in candidates(groups)]
    words = [f"Candidates: {'; '.join(names)}.", *_WORDS]
    folded = [details(f"The same for the {one.label}", told(one), source_table(one, mantel=False)) for one in others]
    return section(
        "Choosing an initialization",
        told(main),
        tag(
            "div",
            tag("div", picture),
            tag("div", *(tag("p", text(word), class_="note") for word in words)),
            class_="pair beside",
        ),
        source_table(main, mantel=False),
        *folded,
        class_="long",
    )


_WORDS = (
    "For every held-out task, scores of all initializations on the task's training data are held against how well "
    "each of them then learned it. Correlations are within a task over the initializations, then the mean over tasks.",
    "Top-1, top-3: for how many tasks the best initialization is among the first 1 or 3 by the score. Regret: how much "
    "worse the one that it picks is than the best one. Small figures: 95% intervals over resampled tasks and seeds.",
)
