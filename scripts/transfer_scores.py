"""What a measuring with scores says about the published figures of transferability.

For runs that `leap measure ... --transferability all` measured, this prints how every score and distance goes with an
outcome of fine-tuning over the sources of each target, with intervals and the ceiling; the edges of the spanning tree
that single seeds have; for how many targets the best pair of sources contains the best single one; and what
initializations foretold of held-out tasks.

    python scripts/transfer_scores.py runs/digit-tasks [runs/other ...] [--outcome tuned_error]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leap.metrics.graph import edge_stability
from leap.metrics.statistics import mean_interval
from leap.report.choice import choice_tables
from leap.report.differences import group_labels, group_runs
from leap.report.runs import read_runs

BESIDE = ("spearman", "kendall", "weighted_tau")


def table(document: Mapping[str, Any], outcome: str) -> list[str]:
    """A line a predictor, the best first, and the ceiling."""
    rows = [one for one in document["relations"] if one["y"] == outcome and "beta" not in one]
    rows = [one for one in rows if one["selection"]["weighted_tau"]["mean"] is not None]
    rows.sort(key=lambda one: -one["selection"]["weighted_tau"]["mean"])
    names = document["tasks"]
    lines = [f"{'against ' + outcome:22} Spearman within targets, tau-b, weighted tau; top 1, top 3, regret; Mantel p"]
    for one in rows:
        held = one["selection"]
        figures = ", ".join(with_interval(held[name]["mean"], held[name]["interval"]) for name in BESIDE)
        tops = ", ".join(f"{held[top]['hits']:.3g} of {held[top]['targets']}" for top in ("top1", "top3"))
        regret = with_interval(held["regret"]["mean"], held["regret"]["interval"])
        lines.append(f"{one['x']:22} {figures}; {tops}, {regret}; {one['mantel_p']:.4f}")
        by = ", ".join(
            f"{name} {figure(value)}" for name, value in zip(names, held["spearman"]["by_target"], strict=True)
        )
        lines.append(f"{'':22} {by}")
    if rows and rows[0]["selection"]["ceiling"]:
        ceiling = rows[0]["selection"]["ceiling"]
        lines.append(f"{'another seed':22} " + ", ".join(f"{key} {figure(value)}" for key, value in ceiling.items()))
    return lines


def trees(document: Mapping[str, Any]) -> list[str]:
    """Share of the spanning tree's edges that single seeds have, and the edges with theirs."""
    lines, names = [], document["tasks"]
    for score in document["scores"]:
        values = np.array(document["matrices"][score["name"]]["values"], dtype=float)
        if len(values) < 2 or np.isnan(values[:, ~np.eye(len(names), dtype=bool)]).any() or score["baseline"]:
            continue
        found = edge_stability(values, similarity=True, combine="min")
        edges = ", ".join(
            f"{names[e.i]} - {names[e.j]} ({share:.0%})" for e, share in zip(found.tree, found.shares, strict=True)
        )
        lines.append(f"{score['name']:22} {found.mean:.0%}: {edges}")
    return lines


def pairs(document: Mapping[str, Any]) -> list[str]:
    """In how many targets the best two sources contain the best one, and what the second adds."""
    held = document["higher_order"]
    inside = [
        [one in two for one, two in zip(*row, strict=True)] for row in zip(held["single"], held["pair"], strict=True)
    ]
    gain = np.array(held["pair_score"], dtype=float) - np.array(held["single_score"], dtype=float)
    return [
        f"best pair contains the best single source: {sum(map(sum, inside))} of {sum(map(len, inside))} targets and "
        f"seeds; adjusted H-score rises by {gain.mean():.3f} on average, from {gain.min():.3f} to {gain.max():.3f}"
    ]


def foretold(document: Mapping[str, Any]) -> list[str]:
    """What the initializations promised for held-out tasks, against each end of the walk."""
    lines = []
    for one in document["predictions"]:
        figures = ", ".join(with_interval(one[name]["value"], one[name]["interval"]) for name in BESIDE)
        ceiling = figure(one["ceiling"]["spearman"]) if one["ceiling"] else "-"
        lines.append(
            f"{one['initialization']:8} {one['y']:16} {one['x']:22} {figures}; p {one['p_value']:.4f}; "
            f"ceiling {ceiling}"
        )
    return lines


def over_runs(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of several runs: Spearman's correlation by learner, as mean over its runs with Student's interval."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for document in documents:
        for one in document["predictions"]:
            if one["initialization"] == document["learner"]:
                key = (document["learner"], one["y"], one["x"])
                found.setdefault(key, []).append(one["spearman"]["value"])
    lines = ["Spearman over held-out tasks, mean over runs [95% t-interval] (each)"]
    for (learner, y, x), values in found.items():
        held = mean_interval(values)
        ends = None if held.low is None or held.high is None else [held.low, held.high]
        each = ", ".join(map(figure, values))
        lines.append(f"{learner:8} {y:16} {x:22} {with_interval(held.mean, ends)} ({each})")
    return lines


def chosen(folders: Sequence[Path]) -> list[str]:
    """Candidates are the runs' initializations: which score would have chosen the best for each held-out task."""
    runs = read_runs(folders)
    found = group_runs(runs)
    lines = []
    for held in choice_tables([(label, group) for label, group in zip(group_labels(found), found, strict=True)]):
        lines.append(f"which initialization, by {held.label}: Spearman, tau-b, weighted tau; top 1, regret")
        for row in held.rows:
            if row.found:
                figures = ", ".join(with_interval(row.figure(name), row.ends(name)) for name in BESIDE)
                top, regret = row.found["top1"], row.found["regret"]
                lines.append(
                    f"{row.name:22} {figures}; {top['hits']:.3g} of {top['targets']} (by lot {top['chance']:.0%}), "
                    f"{with_interval(regret['mean'], regret['interval'])}"
                )
        lines.append(
            f"{'another seed':22} " + ", ".join(f"{key} {figure(value)}" for key, value in held.ceiling.items())
        )
    return lines


def figure(value: float | None) -> str:
    """Two digits, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def with_interval(value: float | None, ends: list[float] | None) -> str:
    """A figure and its interval."""
    return figure(value) + ("" if ends is None else f" [{figure(ends[0])}, {figure(ends[1])}]")


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders with measures/measures.json")
    parser.add_argument("--outcome", default="tuned_error", help="outcome of fine-tuning (tuned_error, epochs, ...)")
    arguments = parser.parse_args()
    documents = [json.loads((run / "measures" / "measures.json").read_text()) for run in arguments.runs]
    for run, document in zip(arguments.runs, documents, strict=True):
        print(f"{run.name}: {len(document['tasks'])} tasks, {len(document['seeds'])} seeds")
        if arguments.outcome in document["matrices"]:
            print(*table(document, arguments.outcome), *trees(document), *pairs(document), sep="\n")
        print(*foretold(document), sep="\n")
    if len(documents) > 1:
        print(*over_runs(documents), *chosen(arguments.runs), sep="\n")


if __name__ == "__main__":
    main()
