"""Paths of an evaluation: the points that walks pass, and their picture in the plane that shows most of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from leap.cli.settings import Settings
from leap.errors import UsageError
from leap.evaluate import Finished
from leap.metrics.trajectory import kept_steps, principal_plane, trajectory
from leap.report.path_pictures import paths_picture
from leap.run import RunFolder, write_atomic
from leap.trainer import Family
from leap.walk import End, Fold, Step

POINTS = 26  # of a walk, at most: a line of so many is smooth, and 100 steps are kept by fours
MOST_BYTES = 2**30  # of all points together
MEASURE = "paths"  # what the fold is called among an evaluation's measures, where it leaves nothing worth keeping


def each_of(initialization: str, *watching: Callable[[str, int, Sequence[int], Tensor], None] | None) -> Finished:
    """Tell everyone who watches an initialization's walks of each one's end."""

    def finished(repetition: int, ids: Sequence[int], theta: Tensor) -> None:
        for watch in watching:
            if watch is not None:
                watch(initialization, repetition, ids, theta)

    return finished


class KeptPaths:
    """The points of the first evaluation seed's walks, of both initializations, and what is written of them.

    Args:
        run: Whose folder gets pictures/paths.png and paths.json.
        settings: Of the run.
        family: Its tasks.
        learner: Its learner.

    Raises:
        UsageError: a learner whose walks are not all through the same parameters, or walks too large to keep.
    """

    def __init__(self, run: RunFolder, settings: Settings, family: Family, learner: Fold) -> None:
        if learner.visits:
            raise UsageError(
                f"--paths shows walks through one network's parameters, and {settings.learner.name} adds some of its "
                f"own for each task; evaluate {run.path} without --paths"
            )
        self._run, self._settings, self._family = run, settings, family
        self._tasks = len(family.ids(settings.evaluate.split))
        walks = self._tasks * (1 if settings.learner.name == "none" else 2)
        self.points = affordable(walks, family.layout.shared, family.initial(settings.seed).element_size())
        self._found: dict[str, list[tuple[int, list[int], Tensor]]] = {}
        self._last: tuple[list[int], Tensor] | None = None

    def measures(self, initialization: str) -> dict[str, Fold]:
        """What walks from an initialization are to be watched by; its result is of no use but to this class."""
        held, kept = self._found.setdefault(initialization, []), trajectory(self.points)

        def start(theta0: Tensor) -> Any:  # nothing is kept of further evaluation seeds
            return kept.start(theta0) if len(held) < self._tasks else None

        def step(state: Any, s: Step) -> Any:
            return state if state is None else kept.step(state, s)

        def finish(state: Any, end: End) -> Tensor:
            self._last = None
            if state is not None:
                self._last = (kept_steps(state.number, self.points), kept.finish(state, end))
            return end.theta.new_zeros(len(end.theta))

        return {MEASURE: Fold(start, step, finish)}

    def __call__(self, initialization: str, repetition: int, ids: Sequence[int], theta: Tensor) -> None:
        """Take the points of the walk that has just ended; as `leap.evaluate.Finished`."""
        if self._last is not None:
            steps, points = self._last
            self._found[initialization] += [(task, steps, own) for task, own in zip(ids, points, strict=True)]
            self._last = None

    def finish(self) -> None:
        """Write pictures/paths.png and pictures/paths.json."""
        document = self._document()
        folder = self._run.path / "pictures"
        folder.mkdir(exist_ok=True)
        write_atomic(folder / "paths.json", (json.dumps(document) + "\n").encode())
        paths_picture(document, folder / "paths.png")

    def _document(self) -> dict[str, Any]:
        settings, learner = self._settings, self._settings.learner.name
        held = {name: [walk for walk in walks if bool(walk[2].isfinite().all())] for name, walks in self._found.items()}
        order = [(name, walk) for name, walks in held.items() for walk in walks]
        plane = principal_plane([walk[2] for _, walk in order]) if order else None
        seen = plane.walks if plane else []
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in held}
        for (name, (task, steps, points)), xy in zip(order, seen, strict=True):
            rows[name].append({"task": self._family.name(task), "steps": steps, **_figures(points, xy)})
        gone = {
            name: [self._family.name(task) for task, _, points in walks if not bool(points.isfinite().all())]
            for name, walks in self._found.items()
        }
        return {
            "format": 1,
            "run": self._run.name,
            "family": settings.tasks.name,
            "split": settings.evaluate.split,
            "asked": dataclasses.asdict(
                settings.evaluate
            ),  # as in evaluation.json, to see whether they belong together
            "seed": settings.seed,
            "evaluation_seed": 0,
            "learner": learner,
            "parameters": self._family.layout.shared,
            "points_at_most": self.points,
            "initializations_apart": self._apart(),
            "shares": list(plane.shares) if plane else [0.0, 0.0],
            "initializations": {name: {"walks": rows[name], "diverged": gone[name]} for name in rows},
        }

    def _apart(self) -> float | None:
        """How far apart the two initializations lie; None of one alone."""
        first, *others = [walks[0][2][0].double() for walks in self._found.values() if walks]
        return float((others[0] - first).norm()) if others else None


def affordable(walks: int, parameters: int, size: int) -> int:
    """Points of each walk that can be kept: POINTS, or fewer where they would take more than MOST_BYTES together.

    Args:
        walks: How many walks are kept.
        parameters: m.
        size: Bytes a parameter.

    Raises:
        UsageError: not even three points of each fit.

    Example:
        >>> affordable(20, 112_000, 4), affordable(32, 1_700_000, 4)
        (26, 4)
    """
    found = min(POINTS, MOST_BYTES // (walks * parameters * size))
    if found < 3:
        raise UsageError(
            f"--paths keeps points of {walks} walks through {parameters} parameters, and {MOST_BYTES >> 30} GiB hold "
            f"only {found} of each, of at least 3; hold out fewer tasks, or evaluate without --paths"
        )
    return found


def _figures(points: Tensor, xy: Tensor) -> dict[str, Any]:
    """A walk in the plane, and how much longer it truly is: straight from end to end, and from point to point."""
    return {
        "xy": xy.tolist(),
        "distance": float((points[-1].double() - points[0].double()).norm()),
        "distance_in_plane": float((xy[-1] - xy[0]).norm()),
        "length": float(points.double().diff(dim=0).norm(dim=1).sum()),
        "length_in_plane": float(xy.diff(dim=0).norm(dim=1).sum()),
    }
