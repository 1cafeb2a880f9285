"""Returns of games in numbers: what initializations come to on each game and over games, and how sure that is.

Higher is better in all of it. `leap.report.returns_curves` has learning curves, `leap.report.returns_walks` the figures
of a walk. The paper does not define the normalization of its scores; here random play is 0 and a human 1, and only
averages over games are normalized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leap.metrics import aggregate
from leap.metrics.aggregate import Estimate, Profile
from leap.metrics.statistics import Interval
from leap.randomness import derive
from leap.report.differences import flatten
from leap.report.evaluation import BASELINE, Evaluation
from leap.report.returns_curves import POINTS, WINDOW, Band, band, level, spread, spread_ratio
from leap.report.returns_walks import LABELS, Arm, budgets, table, together, walks_of
from leap.report.summary import Summary

THRESHOLDS = 101  # of a performance profile
FIGURES: Mapping[str, aggregate.Statistic] = {
    "IQM": aggregate.iqm,
    "median": aggregate.median,
    "optimality gap": aggregate.optimality_gap,
}


@dataclass(frozen=True)
class Total:
    """An initialization over games: figures of normalized scores, and how often it is above the random one."""

    arm: Arm
    key: str
    figures: Mapping[str, Estimate]
    improvement: Estimate | None


@dataclass(frozen=True)
class Returns:
    """A comparison of initializations on games.

    Attributes:
        games: As the evaluations name them.
        arms: In the order of the summary's rows.
        budget: Agent steps by game, of every learning curve.
        references: What random play and a human score, where it is known.
        frame_skip: Frames that an agent step lasts, None where it is not known.
        window: Episodes of the moving average.
    """

    games: tuple[str, ...]
    arms: tuple[Arm, ...]
    budget: Mapping[str, float]
    references: Mapping[str, Mapping[str, float]]
    frame_skip: int | None
    window: int = WINDOW

    @property
    def learned(self) -> tuple[Arm, ...]:
        """All but the random initializations."""
        return tuple(arm for arm in self.arms if not arm.baseline)

    @property
    def normalized(self) -> tuple[str, ...]:
        """The games that can be averaged: there is a scale, and every walk of every initialization has all figures."""
        return tuple(game for game in self.complete if {"random", "human"} <= set(self.references.get(game, {})))

    @property
    def complete(self) -> tuple[str, ...]:
        """The games on which every walk of every initialization has all figures."""
        places = {arm.label: max(arm.walks.values(), key=len).keys() for arm in self.arms}
        return tuple(
            game
            for game in self.games
            if all(
                arm.walks.get(game, {}).keys() == places[arm.label]
                and all(np.isfinite([walk.figures[key] for key in LABELS]).all() for walk in arm.walks[game].values())
                for arm in self.arms
            )
        )

    def curves(self, arm: Arm, game: str, *, random: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Agent steps [P] and the learning curves of all walks there, [R, P]; NaN until a walk ended an episode."""
        steps = np.linspace(0, self.budget[game], POINTS + 1)[1:]
        walks = (arm.random if random else arm.walks).get(game, {}).values()
        return steps, np.array([level(walk.episodes, steps, self.window) for walk in walks]).reshape(-1, POINTS)

    def band(self, arm: Arm, game: str) -> Band | None:
        """The learning curve of an initialization; None where a walk ended no episode."""
        steps, curves = self.curves(arm, game)
        return band(steps, curves)

    def spread(self, arm: Arm, game: str) -> float | None:
        """How far walks lie apart along the learning curve, see `returns_curves.spread`; None for one walk."""
        curves = self.curves(arm, game)[1]
        begun = np.isfinite(curves).all(axis=0)
        return float(spread(curves[:, begun])) if len(curves) > 1 and begun[-1] else None

    def narrower(self, arm: Arm, game: str) -> Interval | None:
        """The spread as a share of the random initialization's with the same seeds; below 1 its bands are narrower.

        The interval: whole walks drawn in pairs. Fewer than SPREAD_SEEDS independent seeds have none.
        """
        mine, others = self.curves(arm, game)[1], self.curves(arm, game, random=True)[1]
        if len(mine) < 2 or mine.shape != others.shape:
            return None
        begun = np.isfinite(mine).all(axis=0) & np.isfinite(others).all(axis=0)
        if not begun[-1] or not others[:, begun].std(axis=0).any():
            return None
        return spread_ratio(mine[:, begun], others[:, begun], together(arm, game), _stream("spread", arm.label, game))

    def totals(self) -> list[Total]:
        """Every initialization over the games that can be averaged, for each of AREA, FINAL and TEST."""
        return [self._total(arm, key) for key in LABELS for arm in self.arms]

    def improvement(self, arm: Arm, key: str, games: Sequence[str]) -> Estimate | None:
        """How probable it is that a walk from `arm` is above one from the random initialization, mean over games."""
        if (
            not games
            or arm.baseline
            or any(arm.random.get(game, {}).keys() != arm.walks[game].keys() for game in games)
        ):
            return None
        mine, other = table(arm.walks, games, key), table(arm.random, games, key)
        if not np.isfinite([mine, other]).all():
            return None
        group = together(arm, games[0])
        stream = _stream(arm.label, key, *games)
        return aggregate.estimate(aggregate.improvement, mine, other, generator=stream, paired=True, together=group)

    def profile(self, arm: Arm, key: str, thresholds: np.ndarray) -> Profile:
        """The share of walks above each normalized score; `normalized` must not be empty."""
        scores = self._scores(arm, key)
        group, stream = together(arm, self.normalized[0]), _stream("profile", arm.label, key)
        return aggregate.performance_profile(scores, thresholds, generator=stream, together=group)

    def thresholds(self, key: str) -> np.ndarray:
        """Normalized scores from the lowest to the highest of all walks."""
        scores = np.concatenate([self._scores(arm, key).ravel() for arm in self.arms])
        low, high = min(0.0, scores.min()), scores.max()
        return np.linspace(low, high + 0.02 * max(high - low, 1.0), THRESHOLDS)

    def _scores(self, arm: Arm, key: str) -> np.ndarray:
        games = self.normalized
        random, human = (np.array([self.references[game][who] for game in games]) for who in ("random", "human"))
        return aggregate.human_normalized(table(arm.walks, games, key), random, human)

    def _total(self, arm: Arm, key: str) -> Total:
        figures = {}
        if self.normalized:
            scores, group = self._scores(arm, key), together(arm, self.normalized[0])
            for name, statistic in FIGURES.items():
                stream = _stream(name, arm.label, key)
                figures[name] = aggregate.estimate(statistic, scores, generator=stream, together=group)
        return Total(arm, key, figures, self.improvement(arm, key, self.complete))


def gather(summary: Summary, window: int = WINDOW) -> Returns:
    """The returns of a comparison of games.

    Args:
        summary: What `summarize` made of runs whose evaluations hold episodes.
        window: Episodes of the moving average.
    """
    held = [(row, [(run.seed, run.evaluation) for run in row.runs if run.evaluation]) for row in summary.rows]
    evaluations = [one for _, seeded in held for _, one in seeded]
    budget, arms = budgets(evaluations), []
    for row, seeded in held:
        name = BASELINE if row.baseline else row.runs[0].learner
        beside = {} if row.baseline else walks_of(seeded, BASELINE, budget, window)
        arms.append(Arm(row.label, row.baseline, walks_of(seeded, name, budget, window), beside))
    runs = [run for row in summary.rows for run in row.runs if run.evaluation]
    skips = {run.evaluation.frame_skip or flatten(run.config).get("tasks.frame_skip") for run in runs if run.evaluation}
    return _returns(evaluations, arms, budget, skips.pop() if len(skips) == 1 else None, window)


def alone(one: Evaluation, window: int = WINDOW) -> Returns:
    """The returns of a single run's evaluation: its learner's initialization first, then the random one."""
    budget, seeded = budgets([one]), [(one.seed, one)]
    walks = {name: walks_of(seeded, name, budget, window) for name in one.episodes}
    names = sorted(walks, key=lambda name: (name == BASELINE, name))
    arms = [
        Arm(name, name == BASELINE, walks[name], {} if name == BASELINE else walks.get(BASELINE, {})) for name in names
    ]
    return _returns([one], arms, budget, one.frame_skip, window)


def _returns(
    evaluations: Sequence[Evaluation], arms: Sequence[Arm], budget: dict[str, float], skip: int | None, window: int
) -> Returns:
    references = {game: held for one in evaluations for game, held in one.references.items()}
    return Returns(tuple(budget), tuple(arms), budget, references, skip, window)


def _stream(*names: str) -> np.random.Generator:
    return np.random.default_rng(derive(0, "returns", *names))
