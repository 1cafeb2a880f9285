"""What a measuring says about the published figure: which tasks are near each other, and what predicts epochs.

For a run that `leap measure` measured, such as that of configs/image-sets.yaml, this prints the antisymmetry of
reachability, every task's nearest neighbour in its symmetric part (as it is, and less what a task costs after itself),
how many of these are of the same kind, and the relations of distances to outcomes, with intervals over tasks and the
values of single seeds; then each target's own correlation, and the size of every matrix.

    python scripts/task_distances.py runs/image-sets
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leap.metrics.pairs import nearest, neighbour_agreement, symmetric_part
from leap.metrics.statistics import mean_interval

KINDS = (
    {"mnist", "kmnist", "notmnist", "usps"},
    {"fashion", "ifashion"},
    {"cifar10", "cifar100", "natural", "artificial", "cifar100_coarse", "natural_coarse", "artificial_coarse"},
)
"""Characters on a dark page, clothes, photographs: fixed before any distance was measured."""


def kin(names: list[str]) -> list[list[int]]:
    """For every task the places of the others of its kind."""
    own = [next((kind for kind in KINDS if name in kind), {name}) for name in names]
    return [[j for j, other in enumerate(names) if other in own[i] and j != i] for i in range(len(names))]


def antisymmetry(document: Mapping[str, Any]) -> float:
    """Largest deviation of `R(t|s) - R(s|t)` from `C(t) - C(s)` over seeds and pairs, nats."""
    reach = np.array(document["matrices"]["reachability"]["values"], dtype=float)
    whole = np.array(document["singles"]["complexity"]["values"], dtype=float)
    expected = whole[:, :, None] - whole[:, None, :]
    return float(np.abs(reach - reach.transpose(0, 2, 1) - expected).max())


def neighbours(document: Mapping[str, Any]) -> list[str]:
    """Nearest neighbours in the symmetric part, by two readings of it."""
    names, reach = document["tasks"], np.array(document["matrices"]["reachability"]["values"], dtype=float)
    own = np.diagonal(reach, axis1=1, axis2=2)
    readings = {
        "R + R^T": reach,
        "R + R^T, less R(task | itself)": reach - own[:, :, None],
    }
    lines = []
    for words, values in readings.items():
        mean = symmetric_part(values.mean(axis=0))
        agree, of = neighbour_agreement(mean, kin(names))
        by_seed = [neighbour_agreement(symmetric_part(one), kin(names))[0] for one in values]
        pairs = ", ".join(f"{names[i]} -> {names[j]}" for i, j in enumerate(nearest(mean)) if j is not None)
        lines.append(f"{words}: nearest of the same kind for {agree} of {of} (seeds alone: {by_seed}): {pairs}")
    return lines


def relation_lines(document: Mapping[str, Any]) -> list[str]:
    """A line a relation, seeds and tasks."""
    lines = []
    for one in document["relations"]:
        pooled, within = one["pooled"], one["within"]
        setting = f" beta {one['beta']:g}" if "beta" in one else ""
        seeds = ", ".join("-" if v is None else f"{v:.2f}" for v in pooled["by_seed"])
        lines.append(
            f"{one['x']}{setting} -> {one['y']}: pooled {_number(pooled['spearman'])} {_span(pooled['tasks'])} "
            f"(seeds {seeds}), within {_number(within['spearman'])} {_span(within['tasks'])}, "
            f"Mantel p {_number(one['mantel_p'], 4)}, censored {one['censored_pairs']} of {one['pairs']}"
        )
    return lines


def target_lines(document: Mapping[str, Any]) -> list[str]:
    """A line a relation: each target's own correlation, and for how many the best source is found."""
    lines = []
    for one in document["relations"]:
        if "beta" not in one:
            by_target = zip(document["tasks"], one["within"]["by_target"], strict=True)
            cells = ", ".join(f"{name} {_number(value)}" for name, value in by_target)
            found = f"best source {one['nearest']['agree']} of {one['nearest']['targets']}"
            ceiling = (
                f"two seeds of the outcome {_number(one['ceiling']['pooled'])}, {_number(one['ceiling']['within'])}"
            )
            lines.append(f"{one['x']} -> {one['y']}: {cells}; {found}; {ceiling}")
    return lines


def matrix_lines(document: Mapping[str, Any]) -> list[str]:
    """How large a matrix is off its diagonal, and how far seeds part: in all, and beside the spread between sources."""
    lines = []
    for name, matrix in document["matrices"].items():
        values = np.array(matrix["values"], dtype=float)
        apart = values[:, ~np.eye(len(document["tasks"]), dtype=bool)].reshape(len(values), len(document["tasks"]), -1)
        low, middle, high = np.min(apart), np.median(apart), np.max(apart)
        line = f"{name} ({matrix['unit']}): {low:.4g} to {high:.4g}, median {middle:.4g}"
        if len(values) > 1:
            over_seeds = apart.std(axis=0, ddof=1)
            spread = apart.mean(axis=0).std(axis=1, ddof=1)
            shares = over_seeds.mean(axis=1) / np.where(spread > 0, spread, np.nan)
            line += (
                f"; over seeds {np.median(over_seeds):.3g} in the median pair, by target of the spread between sources "
            )
            line += ", ".join(_number(float(share)) for share in shares)
        lines.append(line)
    return lines


def single_lines(document: Mapping[str, Any]) -> list[str]:
    """Numbers of each task: mean over seeds with its interval."""
    lines = []
    for name, single in document["singles"].items():
        values = np.array(single["values"], dtype=float)
        found = [mean_interval(list(column)) for column in values.T]
        cells = ", ".join(f"{task} {one.mean:.4g}" for task, one in zip(document["tasks"], found, strict=True))
        lines.append(f"{name} ({single['unit']}): {cells}")
    return lines


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _span(ends: list[float] | None) -> str:
    return "[-, -]" if not ends else f"[{_number(ends[0])}, {_number(ends[1])}]"


def main() -> None:
    """Print everything about one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run that was measured")
    document = json.loads((parser.parse_args().run / "measures" / "measures.json").read_text())
    print(f"{len(document['tasks'])} tasks, seeds {document['seeds']}\n")
    print("\n".join(single_lines(document)), "\n")
    print(f"antisymmetry: at most {antisymmetry(document):.1e} nats from C(t) - C(s)")
    print("\n".join(neighbours(document)), "\n")
    print("\n".join(relation_lines(document)), "\n")
    print("\n".join(target_lines(document)), "\n")
    print("\n".join(matrix_lines(document)))


if __name__ == "__main__":
    main()
