"""A whole measuring: stage by stage, item by item, on one process or many, and the document at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leap import distributed
from leap.measure import complexities, document, score_tables, scoring, static, transfer
from leap.measure.context import Context
from leap.measure.paths import Walks
from leap.measure.plan import DISTANCES, PLAYED, SCRATCH, Item, items
from leap.measure.reader import Reader
from leap.measure.relations import predictions, relations
from leap.measure.store import Result, carry_out

WORK: Mapping[str, Callable[[Context, Item], Result]] = {
    "solution": static.solution,
    "curvature": static.curvature,
    "bound": static.bound,
    "union": static.union,
    "tuning": transfer.tuning,
    "fisher": transfer.fisher,
    "embedding": transfer.embedding,
    "barrier": transfer.barrier,
    "score": scoring.score,
}


@dataclass(frozen=True)
class Measuring:
    """What is measured.

    Attributes:
        context: Family, plan, initialization, store.
        walks: Held-out tasks and how they are walked.
        distances: Names in `leap.measure.plan.DISTANCES` or `PLAYED`.
        tasks: Ids of the tasks that are measured against each other.
        scores: Names in `leap.metrics.scores.SCORES` that are tabled; all of them are measured, or none.
    """

    context: Context
    walks: Walks
    distances: Sequence[str]
    tasks: Sequence[int]
    scores: Sequence[str] = ()

    def stages(self) -> list[list[Item]]:
        """All items of work."""
        stages = items(self.distances, self.context.plan.seeds, self.tasks, bool(self.scores))
        ours = [item for stage in stages for item in stage if item.kind in ("walk", "readout")]
        absent = {item for item in ours if item.target >= len(self.walks.starts)}
        return [[item for item in stage if item not in absent] for stage in stages]

    def carry_out(self, progress: Callable[[Item], None] = lambda item: None) -> None:
        """Measure what is missing; every process takes its share of a stage and waits for the others at its end."""
        here = distributed.place()
        for stage in self.stages():
            carry_out(self.context.store, stage, self.work, rank=here.rank, world=here.world, progress=progress)
            distributed.wait()

    def work(self, item: Item) -> Result:
        """Measure one item."""
        if item.kind == "walk":
            return self.walks.measure(item)
        if item.kind == "acting":
            context, alone = self.context, item.source == SCRATCH
            theta = context.trunk(item.seed) if alone else context.solution(item.seed, item.source)
            return self.walks.act(theta, item)
        if item.kind == "readout":
            return scoring.readout(self.walks, item)
        if item.kind == "joint":
            return scoring.joint(self.context, item, self.tasks)
        return WORK[item.kind](self.context, item)

    def document(self) -> dict[str, Any]:
        """All results as one JSON-ready document; see docs/metrics.md."""
        reader = Reader(self.context.store, self.context.plan, self.tasks)
        singles: dict[str, Any] = {}
        matrices: dict[str, Any] = {}
        curves: dict[str, Any] = {}
        sweeps: dict[str, Any] = {}
        if "reachability" in self.distances:
            singles, matrices, sweeps = complexities.reachability_tables(reader)
            curves = complexities.complexity_curves(reader)
        if "fisher" in self.distances:
            matrices |= document.fisher_tables(reader)
        if "task2vec" in self.distances:
            matrices |= document.task2vec_tables(reader)
        for name, tables in (
            ("convergence", document.convergence_tables),
            ("dynamic", document.dynamic_tables),
            ("returns", document.returns_tables),
        ):
            if name in self.distances:
                more, others = tables(reader)
                singles, matrices = singles | more, matrices | others
        paths = document.path_tables(reader, self.walks) if "path" in self.distances else {}
        scored, across = score_tables.add(reader, self.walks, self.scores, paths, matrices, self.distances)
        names = [self.context.family.name(task) for task in self.tasks]
        found = {
            "format": 1,
            "tasks": names,
            "seeds": list(self.context.plan.seeds),
            "distances": [name for name in DISTANCES | PLAYED if name in self.distances],
            "paths": paths,
            "singles": singles,
            "matrices": matrices,
            "curves": curves,
            "sweeps": sweeps,
            **scored,
        }
        return {**found, "relations": relations(found, across), "predictions": predictions(found, across)}
