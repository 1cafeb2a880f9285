"""What RESULTS.md says of Multi-CV beside the table: differences between methods, and what HAT's tasks own.

    python scripts/multi_cv_findings.py runs/reduced

reads what `leap compare multi_cv/reduced` left in its folder.
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import load_file

from leap.gates import owned
from leap.metrics.statistics import mean_interval
from leap.run import EXTRA

KEYS = {"test_error": "test error", "train_error_auc": "area"}
SHARPEST = 400.0  # of configs/learner/hat.yaml


def means(table: Path, key: str) -> dict[str, dict[str, float]]:
    """By learner and held-out data set, the mean over seeds."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["learner"]][row["held_out"]].append(float(row[key]))
    return {learner: {name: fmean(values) for name, values in own.items()} for learner, own in found.items()}


def owned_by_stage(initialization: Path) -> list[float]:
    """The share of each stage's channels that the tasks HAT visited own."""
    tensors = load_file(initialization)
    channels = [tensors[name].numel() for name in sorted(tensors) if name.endswith("conv.bias")]
    head, units, extra = tensors["head.weight"].numel() + tensors["head.bias"].numel(), sum(channels), tensors[EXTRA]
    count = len(extra) // (head + units + 1)
    embeddings, visited = extra[count * head :].split([count * units, count])
    shares = owned(embeddings.view(count, units), visited > 0.5, SHARPEST).split(channels)
    return [float(share.mean()) for share in shares]


def main(folder: Path) -> None:
    """Print both."""
    for key, words in KEYS.items():
        found = means(folder / "leave-one-out.csv", key)
        for one, two in itertools.combinations(found, 2):
            both = [found[one][name] - found[two][name] for name in found[one] if name in found[two]]
            lower, interval = sum(value < 0 for value in both), mean_interval(both)
            told = f"{interval.mean:.2f}"
            told += f" [{interval.low:.2f}, {interval.high:.2f}]" if interval.count > 1 else ""
            print(f"{words}: {one} - {two}: {told}, lower on {lower} of {len(both)}")
    shares = [s for file in sorted(folder.glob("*/hat-*/initialization.safetensors")) for s in owned_by_stage(file)]
    if shares:
        print(f"hat: tasks own {100 * min(shares):.0f}% to {100 * max(shares):.0f}% of a stage's channels")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
