"""Walks through games and what they come to, by initialization, game, training seed and evaluation seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from leap.metrics.statistics import Interval, difference_interval, mean_interval
from leap.report.evaluation import Evaluation
from leap.report.returns_curves import area

LAST = 100  # episodes of the final score
AREA, FINAL, TEST = "area", "final", "test_return"
LABELS = {AREA: "area under the learning curve", FINAL: f"score of the last {LAST} episodes", TEST: "test return"}
LENGTH, ENERGY = "path_length", "path_energy"  # of the whole walk, as the evaluation's document names them
LENGTH_STEP, ENERGY_STEP = "path_length_step", "path_energy_step"

Place = tuple[int, int]  # training seed, evaluation seed


@dataclass(frozen=True)
class Walk:
    """One game learned once: its episodes [N, 3] and its figures by name, NaN where there is none."""

    episodes: np.ndarray
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Arm:
    """An initialization on every game: `walks[game][place]`, and the random initialization's with the same seeds."""

    label: str
    baseline: bool
    walks: Mapping[str, Mapping[Place, Walk]]
    random: Mapping[str, Mapping[Place, Walk]] = field(default_factory=dict)

    @property
    def trainings(self) -> int:
        """How many training seeds there are."""
        return len({seed for by_place in self.walks.values() for seed, _ in by_place})

    def units(self, game: str, key: str, *, random: bool = False) -> list[float]:
        """Independent values: a mean over evaluation seeds for each training seed; with one, each evaluation seed's."""
        held = (self.random if random else self.walks).get(game, {})
        if self.trainings < 2:
            return [walk.figures[key] for walk in held.values()]
        by_seed: dict[int, list[float]] = {}
        for (seed, _), walk in held.items():
            by_seed.setdefault(seed, []).append(walk.figures[key])
        return [float(np.mean(values)) for values in by_seed.values()]

    def interval(self, game: str, key: str) -> Interval | None:
        """Mean over `units` with its t-interval; None where a walk has no such figure."""
        values = self.units(game, key)
        return mean_interval(values) if values and np.isfinite(values).all() else None

    def gain(self, game: str, key: str) -> Interval | None:
        """By how much it is above the random initialization, paired by seeds; None where that cannot be had."""
        mine, others = self.units(game, key), self.units(game, key, random=True)
        if not mine or len(mine) != len(others) or not np.isfinite([*mine, *others]).all():
            return None
        return difference_interval(mine, others, paired=True)


def budgets(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Agent steps of every game's learning curves.

    They are what evaluations say (`agent_steps`), so that what was played to measure the end of a walk is left out;
    where one says nothing, the step at which the last episode of any walk of the game ended.
    """
    found: dict[str, float] = {}
    for one in evaluations:
        for t, game in enumerate(one.tasks):
            ends = [walks[t][-1, 0] for held in one.episodes.values() for walks in held if len(walks[t])]
            steps = one.agent_steps or max(ends, default=1.0)
            found[game] = max(found.get(game, 1.0), float(steps))
    return found


def walks_of(
    evaluations: Iterable[tuple[int, Evaluation]], name: str, budget: Mapping[str, float], window: int
) -> dict[str, dict[Place, Walk]]:
    """What evaluations, each with its training seed, hold of one initialization, by game, in the order given."""
    found: dict[str, dict[Place, Walk]] = {}
    for seed, one in evaluations:
        if name not in one.episodes:
            continue
        for t, game in enumerate(one.tasks):
            for s, evaluation_seed in enumerate(one.evaluation_seeds):
                episodes = one.episodes[name][s][t]
                episodes = episodes[episodes[:, 0] <= budget[game]]
                last = float(episodes[-LAST:, 1].mean()) if len(episodes) else float("nan")
                figures = {AREA: area(episodes, budget[game], window), FINAL: last, **_measured(one, name, s, t)}
                found.setdefault(game, {})[seed, evaluation_seed] = Walk(episodes, figures)
    return found


def table(walks: Mapping[str, Mapping[Place, Walk]], games: Sequence[str], key: str) -> np.ndarray:
    """One figure of every walk, [R, M]."""
    return np.array([[walk.figures[key] for walk in walks[game].values()] for game in games]).T


def together(arm: Arm, game: str) -> int:
    """Rows of one training, which the bootstrap draws as one; with a single training every walk is on its own."""
    trainings = len({seed for seed, _ in arm.walks[game]})
    return len(arm.walks[game]) // trainings if trainings > 1 else 1


def _measured(one: Evaluation, name: str, s: int, t: int) -> dict[str, float]:
    """Figures that the document holds itself, and path measures a step; NaN where it has none."""
    values = one.values[name]
    held = {key: float(values[key][s, t]) if key in values else float("nan") for key in (TEST, LENGTH, ENERGY)}
    steps = float(values["steps"][s, t]) if "steps" in values else float(one.steps)
    share = 1 / steps if steps > 0 else float("nan")
    return held | {LENGTH_STEP: held[LENGTH] * share, ENERGY_STEP: held[ENERGY] * share}
