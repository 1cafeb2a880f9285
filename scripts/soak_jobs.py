"""The jobs that `scripts/soak.py` disturbs: each command, with tasks so small that it takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leap.run import RunFolder

SIZES = ["--tracking", "none", "--evaluate.repetitions", "1"]
FAMILIES = {
    "sinusoid": [
        *["sinusoid.yaml", *SIZES, "--train.meta-steps", "12", "--train.checkpoint-every", "3"],
        *["--train.inner-steps", "5", "--train.meta-batch", "4", "--evaluate.steps", "5", "--tasks.count", "6"],
    ],
    "glyphs": [
        *[
            "quickstart.yaml",
            *SIZES,
            "--train.meta-steps",
            "4",
            "--train.checkpoint-every",
            "2",
            "--model.filters",
            "4",
            "--model.norm",
            "group",
        ],
        *["--train.inner-steps", "4", "--train.meta-batch", "2", "--evaluate.steps", "4", "--train.keep-every", "2"],
        *["--tasks.ways", "3", "--tasks.shots", "4", "--tasks.queries", "2", "--tasks.train", "4"],
        *["--tasks.pool", "4", "--tasks.held-out", "2", "--tasks.batch-size", "4"],
    ],
    "games": [
        *["tiny-games.yaml", *SIZES, "--train.meta-steps", "3", "--train.keep-every", "4", "--train.inner-steps", "12"],
        *["--train.meta-batch", "2", "--evaluate.steps", "10", "--tasks.evaluation-episodes", "4"],
    ],
    "atari": [
        *["atari/smoke.yaml", *SIZES, "--train.meta-steps", "2", "--train.keep-every", "3", "--train.inner-steps", "8"],
        *["--train.meta-batch", "2", "--tasks.environments", "4", "--evaluate.steps", "4"],
        *["--tasks.evaluation-episodes", "1"],
    ],
}
LEARNERS = {"sinusoid": ["sinusoid/leap", "reptile"], "glyphs": ["short/leap", "fomaml"]}
MEASURES = {"sinusoid": ["path"], "glyphs": ["path", "fisher", "convergence"]}
CHEAP = [
    "--measure.seeds",
    "0",
    "--measure.epochs",
    "1",
    "--measure.refine-epochs",
    "1",
    "--measure.tuning-epochs",
    "1",
]
CHEAP += ["--measure.scratch-epochs", "1", "--measure.samples", "8", "--measure.batch-size", "8"]


@dataclass(frozen=True)
class Job:
    """One kind of job."""

    kind: str
    family: str
    processes: int

    @property
    def name(self) -> str:
        """In lines and tables."""
        return f"{self.kind} {self.family} x{self.processes}"

    @property
    def world(self) -> int:
        """Processes that torchrun starts; a comparison starts its own."""
        return 1 if self.kind == "compare" else self.processes

    def words(self, folder: Path) -> list[str]:
        """The command: the first one, or the one that goes on."""
        if self.kind == "train" and RunFolder.started(folder / "run"):
            return ["train", "--resume", "run"]
        if self.kind == "train":
            return ["train", *FAMILIES[self.family], "--out", "run"]
        if self.kind == "evaluate":
            return ["evaluate", "run"]
        if self.kind == "measure":
            return ["measure", "run", "--distances", *MEASURES[self.family], *CHEAP]
        two = [
            "--compare.learners",
            *LEARNERS.get(self.family, ["games/leap", "games/reptile"]),
            "--compare.seeds",
            "0",
        ]
        jobs = ["--compare.jobs", str(self.processes), "--out", "run"]
        return ["compare", *FAMILIES[self.family], *two, *jobs]


SHORT = [Job("train", "sinusoid", 1), Job("train", "games", 2), Job("compare", "sinusoid", 2)]


def all_jobs(families: Sequence[str]) -> list[Job]:
    """Every job of the families, on one process and on two where it takes two."""
    found = []
    for family in families:
        kinds = ["train", "evaluate", "compare", *(["measure"] if family in MEASURES else [])]
        for kind in kinds:
            found += [Job(kind, family, count) for count in ((1,) if kind == "evaluate" else (1, 2))]
    return found
