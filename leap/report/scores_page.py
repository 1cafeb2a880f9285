"""The part of the report page that shows scores themselves: scatters, maps, pairs of sources, curricula."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from leap.report.captioned import Picture, correlation_text
from leap.report.markup import details, table, tag, text
from leap.report.measure_pictures import maps, score_scatters
from leap.report.measures import Measures
from leap.report.shown import grid
from leap.report.transfer import source_tables
from leap.report.tree_pictures import curricula, spanning, spannings, trees

SHOWN = 4  # scatters that are open on the page; the others can be unfolded


def scores_part(measures: Measures, key: str) -> str:
    """Scatters of scores, the best predictors open and the others to unfold, and a map a score."""
    order = [row.name for one in source_tables(measures)[:1] for row in one.rows]
    found = sorted(score_scatters(measures), key=lambda one: _place(order, one))
    own = [picture for picture in maps(measures) if picture.name in measures.score_names]
    parts = []
    if found:
        parts.append(tag("h3", "Scores and what was then measured") + tag("p", text(_SCATTERS), class_="note"))
        parts.append(grid(found[:SHOWN], key))
    if found[SHOWN:]:
        parts.append(details(f"{len(found) - SHOWN} more scores", grid(found[SHOWN:], key)))
    if own:
        parts.append(details(f"Scores from task to task: {len(own)} maps", grid(own, key)))
    return "".join(parts)


_SCATTERS = (
    "The best predictors first. A score that predicts falls to the right, since lower outcomes are better. Over "
    "all pairs, scores that grow with the number of classes are correlated in their form for one class."
)


def _place(order: Sequence[str], picture: Picture) -> int:
    return next((place for place, name in enumerate(order) if picture.name.startswith(f"{name}-")), len(order))


def pairs_part(measures: Measures) -> str:
    """Which two sources are best side by side, and what the second adds."""
    held = measures.higher_order
    if held is None:
        return ""
    gain = held.pair_score - held.single_score
    rows = []
    for t, task in enumerate(measures.tasks):
        single = _most(held.single[:, t], lambda place: measures.tasks[int(place)])
        pair = _most(np.sort(held.pair[:, t], axis=1), lambda two: " + ".join(measures.tasks[int(one)] for one in two))
        scores = (correlation_text(_mean(values[:, t])) for values in (held.single_score, held.pair_score, gain))
        one, two, more = scores
        rows.append([text(task), single, one, pair, two, more])
    head = ["target", "best source", "score", "best pair", "score", "gain"]
    note = (
        "Features of two sources side by side, told by the H-score above that of random features, since the plain one "
        "never falls when features are added. Means over seeds; in brackets: how many seeds chose so."
    )
    return (
        tag("h3", "Two sources together")
        + tag("p", text(note), class_="note")
        + table([text(one) for one in head], rows, "Two sources together", numeric=False, kind="dense")
    )


def _most(choices: np.ndarray, name: Callable[[np.ndarray], str]) -> str:
    """The choice of most seeds, the first of equal ones."""
    named = [name(choice) for choice in choices]
    most = max(named, key=named.count)
    return text(most) + (f" {tag('small', f'({named.count(most)} of {len(named)})')}" if len(named) > 1 else "")


def _mean(values: np.ndarray) -> float | None:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else None


def curriculum_part(measures: Measures, key: str) -> str:
    """Spanning trees and dendrograms of one score and of one distance."""
    chosen = curricula(measures)
    if not chosen or not measures.scores:
        return ""
    names = [f"{matrix.name}.tree" for matrix in chosen]
    drawn = sorted((one for one in trees(measures) if one.name in names), key=lambda one: names.index(one.name))
    said = "Tasks as a curriculum: what to learn next is what lies nearest to what is known."
    return (
        tag("h3", "Curriculum")
        + tag("p", text(f"{said} {_shared(measures)}".strip()), class_="note")
        + grid([*spannings(measures), *drawn], key)
    )


def _shared(measures: Measures) -> str:
    """How far the two trees agree."""
    held = [found for matrix in curricula(measures) if (found := spanning(matrix)) is not None]
    if len(held) < 2:
        return ""
    one, two = ({edge[:2] for edge in found.tree} for found in held)
    return f"The two spanning trees have {len(one & two)} of {len(one)} links in common."
