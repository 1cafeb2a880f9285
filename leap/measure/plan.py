"""What is measured, and how: the settings of a measuring, and the items of work that it consists of."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from leap.errors import UsageError

DISTANCES: dict[str, tuple[str, ...]] = {
    "path": ("walk",),
    "reachability": ("solution", "curvature", "union", "bound"),
    "fisher": ("solution", "fisher"),
    "task2vec": ("embedding",),
    "convergence": ("solution", "tuning"),
    "dynamic": ("solution", "tuning", "barrier"),
}
"""Names of distances, and the kinds of work behind each."""

PLAYED: dict[str, tuple[str, ...]] = {"returns": ("solution", "acting")}
"""What is measured beside them where walks learn something else than the labelled data (games): the outcome itself."""

RISING = ("test_return", "return_area")
"""Ends of walks of which larger is better; of all others smaller is."""

SCORED = (("readout",), ("solution", "score", "joint"))
"""Work behind scores of transferability: of the initialization on held-out tasks, of every source on every target."""

STAGES = (
    ("walk", "readout", "embedding", "solution"),
    ("curvature", "bound", "tuning", "fisher", "union", "score", "joint", "acting"),
    ("barrier",),
)
"""Kinds of work by what they need: a stage reads what the stages before it have left."""


@dataclass(frozen=True)
class Plan:
    """How tasks are learned and measured.

    Attributes:
        seeds: Repetitions: another random initialization (or, from a learned one, another order of examples).
        epochs, refine_epochs, rate, momentum, batch_size: SGD with cosine annealing towards each task's (or union's)
            MAP point, from the initialization; then once more, a task from there, a union from each task's solution.
        beta: Price of a nat of information, for the summed loss; solutions are learned at this price.
        betas: Prices at which complexities are reported, at the same solutions.
        prior_variance: lambda^2 of the prior, the same for all tasks.
        prior_centre: Around zero, or around the initialization (then what the initialization knows costs nothing).
        samples: Examples of each task for its curvature, class-balanced.
        dropped: Largest share of a softmax covariance's trace left out of the curvature, a sample.
        tuning_epochs, tuning_rate: SGD at a constant rate from a source's solution to a target.
        scratch_epochs: When learning from scratch, at the same rate, sets the target's threshold.
        share: A second threshold: this share of the loss of guessing, which does not ask how learning from
            scratch fared. The first says what a source saves, the second also how long a target takes.
        points: Points of every learning curve.
        threshold: A target has converged when its loss is below this factor times the loss from scratch at that time.
        barrier_points, barrier_steps, barrier_rate, barrier_samples: Points on a curve between solutions, steps of its
            optimization and their rate, and examples of the target's loss along it.
        draws, confidence: Weights drawn from the post-distribution for the PAC-Bayes bound, and its 1 - delta.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: float = 60.0
    refine_epochs: float = 30.0
    rate: float = 0.03
    momentum: float = 0.9
    batch_size: int = 50
    beta: float = 1.0
    betas: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    prior_variance: float = 0.1
    prior_centre: Literal["zero", "initialization"] = "zero"
    samples: int = 128
    dropped: float = 0.002
    tuning_epochs: float = 30.0
    scratch_epochs: float = 15.0
    tuning_rate: float = 0.01
    points: int = 48
    threshold: float = 1.05
    share: float = 0.3
    barrier_points: int = 21
    barrier_steps: int = 40
    barrier_rate: float = 0.03
    barrier_samples: int = 200
    draws: int = 10
    confidence: float = 0.95


class Item(NamedTuple):
    """One piece of work; `source` and `target` are task ids, equal (or source -1) where there is only one task."""

    kind: str
    seed: int
    target: int
    source: int

    @property
    def key(self) -> str:
        """The name of its file: digits and the kind, whatever tasks are called."""
        return f"{self.kind}-{self.seed}-{self.target}-{self.source}"


SCRATCH = -1
"""The source of a tuning that starts from the initialization."""


def check_distances(names: Sequence[str]) -> None:
    """Refuse a name that is no distance, with the nearest that is.

    Raises:
        UsageError: so.
    """
    import difflib

    known = DISTANCES | PLAYED
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"no distance {name!r}.{hint} Known: {', '.join(known)}")


def items(
    distances: Sequence[str], seeds: Sequence[int], tasks: Sequence[int], scored: bool = False
) -> list[list[Item]]:
    """The work behind these distances, stage by stage.

    Args:
        distances: Names in `DISTANCES` or `PLAYED`.
        seeds, tasks: Repetitions and task ids.
        scored: Scores of transferability as well: of the initialization beside the distance `path`, from task to task
            beside any other.

    Raises:
        UsageError: a distance that does not exist.

    Example:
        >>> [[item.key for item in stage] for stage in items(["fisher"], [0], [4, 7])][1]
        ['fisher-0-4-4', 'fisher-0-4-7', 'fisher-0-7-4', 'fisher-0-7-7']
    """
    check_distances(distances)
    kinds = {kind for name in distances for kind in (DISTANCES | PLAYED)[name]}
    if scored:
        kinds |= {kind for name in distances for kind in SCORED[name != "path"]}
    return [
        [
            Item(kind, seed, target, source)
            for kind in stage
            if kind in kinds
            for seed in seeds
            for target, source in _pairs(kind, tasks)
        ]
        for stage in STAGES
    ]


def named(tasks: Sequence[int]) -> int:
    """One number for a set of tasks, in the place of the source where an item is of all of them."""
    return zlib.crc32(",".join(map(str, sorted(tasks))).encode())


def _pairs(kind: str, tasks: Sequence[int]) -> list[tuple[int, int]]:
    """(target, source) of every item of a kind, for one seed."""
    if kind in ("walk", "readout"):
        return [(0, SCRATCH), (1, SCRATCH)]  # from the learned initialization, and from the random one
    if kind in ("embedding", "solution", "curvature", "bound"):
        return [(task, task) for task in tasks]
    if kind == "joint":
        return [(task, named(tasks)) for task in tasks] if len(tasks) >= 3 else []
    if kind == "union":
        return list(itertools.combinations_with_replacement(sorted(tasks), 2))
    if kind in ("fisher", "score"):
        return list(itertools.product(tasks, tasks))
    ordered = list(itertools.permutations(tasks, 2))
    return ordered + [(task, SCRATCH) for task in tasks] if kind in ("tuning", "acting") else ordered
