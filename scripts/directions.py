"""How far Leap's direction is from Reptile's, on a run's own walks.

With plain SGD every increment of Leap's meta-gradient is a positive multiple w_i of the inner gradient g_i, and
Reptile's is alpha g_i: the two differ in how they weigh the steps of a walk. For twice a meta-batch of tasks, from the
random and from the learned initialization of a run, this prints the cosine between the two meta-gradients (each task's,
and their mean's), and what decides about w_i: the size of an inner step, alpha |g|, beside that of the change of the
loss between two mini-batches.

    python scripts/directions.py runs/omniglot-reduced/leap-seed0 [--train.inner-steps 100]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from leap import learners
from leap.cli import build, configuration
from leap.cli.settings import Settings
from leap.errors import LeapError
from leap.randomness import derive
from leap.run import RunFolder
from leap.segments import Segment, over_segments
from leap.walk import Fold, walk


def sizes(part: str) -> Fold:
    """Median over the walk of |delta theta| (`step`) or |delta f| (`rise`), [T]."""

    def add(total: list[Tensor], segment: Segment) -> list[Tensor]:
        return [*total, segment.delta.norm(dim=-1) if part == "step" else segment.rise.abs()]

    return over_segments(lambda theta0: [], add, lambda total, end: torch.stack(total).median(dim=0).values)


def main(arguments: list[str]) -> None:
    """Print the comparison for the run named first; what follows are settings."""
    run = RunFolder.open(Path(arguments[0]))
    settings = configuration.load(Settings, [run.path / "config.yaml"], arguments[1:])
    on = build.device(settings.device)
    family = build.family(settings, on)
    ids = list(family.ids("train"))[: settings.train.meta_batch * 2]
    steps = settings.train.inner_steps
    folds = {
        "leap": learners.leap(),
        "no loss": learners.leap(loss_coordinate=False),
        "reptile": learners.reptile(),
        "step": sizes("step"),
        "rise": sizes("rise"),
    }
    start, learned = family.initial(settings.seed), run.load_initialization(family.layout)[: family.layout.n].to(on)
    optimizer, execution = build.inner(settings.inner, steps), build.execution(settings.train.execution, on)
    for name, theta0 in (("random", start), ("learned", learned)):
        tasks = family.batch(ids, [derive(settings.seed, "directions", task) for task in ids])
        found = walk(tasks, theta0, steps=steps, optimizer=optimizer, folds=folds, execution=execution).results
        print(f"{name}: {len(ids)} tasks x {steps} steps")
        for fold in ("leap", "no loss"):
            one, other = found[fold], found["reptile"]
            apart, together = cosine_similarity(one, other).mean(), cosine_similarity(one.mean(0), other.mean(0), dim=0)
            size = one.mean(0).norm() / other.mean(0).norm()
            print(
                f"  {fold:8s} cosine with reptile: {apart:.3f} a task, {together:.3f} of the means; {size:.1f} as long"
            )
        print(f"  medians: |delta theta| {found['step'].median():.3f}, |delta f| {found['rise'].median():.3f}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (LeapError, IndexError) as error:
        sys.exit(f"{error}\n{__doc__}")
