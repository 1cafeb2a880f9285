"""How the cost of a meta-step grows with tasks, inner steps and parameters: the tables of docs/scaling.md.

The embedded job (configs/quickstart.yaml with short/leap), one thread, CPU time of Leap's walks of a meta-step, cases
taking turns: medians over rounds, after one that is not counted.

    python scripts/scaling.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from leap.cli import build, configuration
from leap.cli.settings import Settings
from leap.walk import walk

AXES = {
    "tasks (K = 10)": ("T", [(tasks, 10, 16) for tasks in (1, 2, 4, 8)]),
    "inner steps (T = 2)": ("K", [(2, steps, 16) for steps in (5, 10, 20, 40)]),
    "filters (T = 2, K = 10)": ("filters", [(2, 10, filters) for filters in (8, 16, 32, 64)]),
}


def main(given: Sequence[str] | None = None) -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    rounds = parser.parse_args(given).rounds
    if rounds < 1:
        parser.error(f"--rounds is at least 1, got {rounds}")
    torch.set_num_threads(1)
    for title, (varied, cases) in AXES.items():
        jobs = [job(*case) for case in cases]
        times = [[spent(run) for run, _ in jobs] for _ in range(rounds + 1)][1:]
        print(f"{title}")
        place = ("T", "K", "filters").index(varied)
        for case, (_, n), column in zip(cases, jobs, zip(*times, strict=True), strict=True):
            print(f"  {case[place]:3}  {n:7,} parameters  {statistics.median(column) * 1e3:4.0f} ms")


def job(tasks: int, steps: int, filters: int) -> tuple[Callable[[], object], int]:
    """The walks of a meta-step and the number of parameters."""
    settings = configuration.load(Settings, ["quickstart", "short/leap"], ["--model.filters", str(filters)])
    family = build.family(settings, "cpu")
    theta0, optimizer = family.initial(0), build.inner(settings.inner, steps)
    folds = {"leap": build.learner(settings.learner)}

    def run() -> object:
        batch = family.batch(list(family.ids("train"))[:tasks], range(tasks))
        return walk(batch, theta0, steps=steps, optimizer=optimizer, folds=folds, execution="sequential")

    return run, family.layout.n


def spent(run: Callable[[], object]) -> float:
    """Seconds of CPU time."""
    before = time.process_time()
    run()
    return time.process_time() - before


if __name__ == "__main__":
    main()
