r"""Returns of games in numbers: learning curves over episodes, what they come to, and how sure that is.

Higher is better in all of it. A walk is one game learned from one initialization with one seed; it left episodes, each
with the agent step at its end, and its unclipped score. Its learning curve is a moving average over episodes,

.. math:: m_k = \frac{1}{\min(k, W)} \sum_{i = \max(1, k - W + 1)}^{k} x_i, \qquad W = 500,

held from the end of episode k to the end of the next, as in `Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_
(figure 4: ten seeds, bands of two standard deviations). The paper does not define the normalization of its scores; here
random play is 0 and a human 1, and only averages over games are normalized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from leap.metrics import aggregate
from leap.metrics.aggregate import Estimate, Profile
from leap.metrics.statistics import Interval, difference_interval, mean_interval
from leap.randomness import derive
from leap.report.differences import flatten
from leap.report.evaluation import BASELINE
from leap.report.runs import Run
from leap.report.summary import Summary

WINDOW = 500  # episodes of the moving average, as in the paper
LAST = 100  # episodes of the final score
POINTS = 160  # of a learning curve
SPREAD_SEEDS = 5  # a ratio of two deviations of fewer can be anything
SPREAD_RESAMPLES = 1000
THRESHOLDS = 101  # of a performance profile
AREA, FINAL, TEST = "area", "final", "test_return"
LABELS = {AREA: "area under the learning curve", FINAL: f"score of the last {LAST} episodes", TEST: "test return"}
FIGURES: Mapping[str, aggregate.Statistic] = {
    "IQM": aggregate.iqm,
    "median": aggregate.median,
    "optimality gap": aggregate.optimality_gap,
}

Place = tuple[int, int]  # training seed, evaluation seed


def moving_average(scores: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """The mean of the last `window` scores, or of all so far where there are fewer, [N] to [N].

    Example:
        >>> moving_average(np.array([1.0, 3.0, 5.0, 7.0]), window=2).tolist()
        [1.0, 2.0, 4.0, 6.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    ends = np.arange(1, len(scores) + 1)
    starts = np.maximum(ends - window, 0)
    found: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return found


def level(episodes: np.ndarray, at: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """The learning curve of episodes [N, 3] at agent steps [P]; NaN until the first episode has ended."""
    average = np.concatenate([[np.nan], moving_average(episodes[:, 1], window)])
    found: np.ndarray = average[np.searchsorted(episodes[:, 0], at, side="right")]
    return found


def area(episodes: np.ndarray, budget: float, window: int = WINDOW) -> float:
    r"""Mean height of the learning curve over a budget of agent steps; NaN where no episode ended.

    .. math:: \frac{1}{B} \Big( m_1 a_1 + \sum_{k=1}^{N} m_k (a_{k+1} - a_k) \Big), \qquad a_{N+1} = B

    Episode k ends at agent step a_k. Until the first has ended, the curve is taken to stand at its score.

    Example:
        >>> area(np.array([[10.0, 2.0, 10.0], [30.0, 6.0, 20.0]]), 40)
        2.5
    """
    if len(episodes) == 0:
        return float("nan")
    edges = np.minimum(np.concatenate([[0.0], episodes[1:, 0], [budget]]), budget)
    return float(moving_average(episodes[:, 1], window) @ np.diff(edges) / budget)


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


@dataclass(frozen=True)
class Band:
    """A learning curve over walks, all [P]: agent steps, mean, standard deviation; NaN until each ended an episode."""

    steps: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


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
                and all(np.isfinite(list(walk.figures.values())).all() for walk in arm.walks[game].values())
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
        if len(curves) == 0 or np.isnan(curves[:, -1]).any():
            return None
        deviation = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.full(POINTS, np.nan)
        return Band(steps, curves.mean(axis=0), deviation)

    def spread(self, arm: Arm, game: str) -> float | None:
        """Standard deviation between walks, mean along the learning curve; None for one walk."""
        band = self.band(arm, game)
        if band is None or np.isnan(band.deviation).all():
            return None
        return float(np.nanmean(band.deviation))

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
        return _ratio(mine[:, begun], others[:, begun], _together(arm, game), _stream("spread", arm.label, game))

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
        mine, other = _table(arm.walks, games, key), _table(arm.random, games, key)
        if not np.isfinite([mine, other]).all():
            return None
        together = _together(arm, games[0])
        stream = _stream(arm.label, key, *games)
        return aggregate.estimate(aggregate.improvement, mine, other, generator=stream, paired=True, together=together)

    def profile(self, arm: Arm, key: str, thresholds: np.ndarray) -> Profile:
        """The share of walks above each normalized score; `normalized` must not be empty."""
        scores = self._scores(arm, key)
        together, stream = _together(arm, self.normalized[0]), _stream("profile", arm.label, key)
        return aggregate.performance_profile(scores, thresholds, generator=stream, together=together)

    def thresholds(self, key: str) -> np.ndarray:
        """Normalized scores from the lowest to the highest of all walks."""
        scores = np.concatenate([self._scores(arm, key).ravel() for arm in self.arms])
        low, high = min(0.0, scores.min()), scores.max()
        return np.linspace(low, high + 0.02 * max(high - low, 1.0), THRESHOLDS)

    def _scores(self, arm: Arm, key: str) -> np.ndarray:
        games = self.normalized
        random, human = (np.array([self.references[game][who] for game in games]) for who in ("random", "human"))
        return aggregate.human_normalized(_table(arm.walks, games, key), random, human)

    def _total(self, arm: Arm, key: str) -> Total:
        figures = {}
        if self.normalized:
            scores, together = self._scores(arm, key), _together(arm, self.normalized[0])
            for name, statistic in FIGURES.items():
                stream = _stream(name, arm.label, key)
                figures[name] = aggregate.estimate(statistic, scores, generator=stream, together=together)
        return Total(arm, key, figures, self.improvement(arm, key, self.complete))


def gather(summary: Summary, window: int = WINDOW) -> Returns:
    """The returns of a comparison of games.

    Args:
        summary: What `summarize` made of runs whose evaluations hold episodes.
        window: Episodes of the moving average.

    Returns:
        A learning curve's budget is what its evaluation says (`agent_steps`); where none does, the step at which the
        last episode of any walk of the game ended.
    """
    runs = [run for row in summary.rows for run in row.runs]
    evaluations = [run.evaluation for run in runs if run.evaluation is not None]
    games = tuple(dict.fromkeys(task for one in evaluations for task in one.tasks))
    budget = {game: 1.0 for game in games}
    for one in evaluations:
        for t, game in enumerate(one.tasks):
            ends = [walks[t][-1, 0] for held in one.episodes.values() for walks in held if len(walks[t])]
            budget[game] = max(budget[game], float(one.agent_steps or 0), *ends)
    arms = []
    for row in summary.rows:
        name = BASELINE if row.baseline else row.runs[0].learner
        beside = {} if row.baseline else _walks(row.runs, BASELINE, budget, window)
        arms.append(Arm(row.label, row.baseline, _walks(row.runs, name, budget, window), beside))
    references = {game: held for one in evaluations for game, held in one.references.items()}
    skips = {run.evaluation.frame_skip or flatten(run.config).get("tasks.frame_skip") for run in runs if run.evaluation}
    return Returns(games, tuple(arms), budget, references, skips.pop() if len(skips) == 1 else None, window)


def _walks(runs: Sequence[Run], name: str, budget: Mapping[str, float], window: int) -> dict[str, dict[Place, Walk]]:
    """What runs left of one initialization, by game, training seed and evaluation seed, in that order."""
    found: dict[str, dict[Place, Walk]] = {}
    for run in runs:
        one = run.evaluation
        if one is None or name not in one.episodes:
            continue
        missing = np.full((len(one.evaluation_seeds), len(one.tasks)), np.nan)
        tested = one.values[name].get(TEST, missing)
        for t, game in enumerate(one.tasks):
            for s, seed in enumerate(one.evaluation_seeds):
                episodes = one.episodes[name][s][t]
                last = float(episodes[-LAST:, 1].mean()) if len(episodes) else float("nan")
                figures = {AREA: area(episodes, budget[game], window), FINAL: last, TEST: float(tested[s, t])}
                found.setdefault(game, {})[run.seed, seed] = Walk(episodes, figures)
    return found


def _ratio(mine: np.ndarray, others: np.ndarray, together: int, stream: np.random.Generator) -> Interval:
    """Spread of curves [R, P] over that of others, with its percentile interval."""
    value, count = float(_spread(mine) / _spread(others)), len(mine) // together
    if count < SPREAD_SEEDS:
        return Interval(value, None, None, count)
    drawn = stream.integers(count, size=(SPREAD_RESAMPLES, count, 1)) * together + np.arange(together)
    rows = drawn.reshape(SPREAD_RESAMPLES, -1)
    thin = slice(None, None, -(-mine.shape[1] // 40))  # neighbouring points say the same, and cost memory
    one, other = _spread(mine[rows, thin]), _spread(others[rows, thin])
    low, high = np.quantile(one[other > 0] / other[other > 0], [0.025, 0.975])
    return Interval(value, float(low), float(high), count)


def _spread(curves: np.ndarray) -> np.ndarray:
    """Standard deviation between curves [..., R, P], mean over points, [...]."""
    found: np.ndarray = curves.std(axis=-2, ddof=1).mean(axis=-1)
    return found


def _table(walks: Mapping[str, Mapping[Place, Walk]], games: Sequence[str], key: str) -> np.ndarray:
    """One figure of every walk, [R, M]."""
    return np.array([[walk.figures[key] for walk in walks[game].values()] for game in games]).T


def _together(arm: Arm, game: str) -> int:
    """Rows of one training, which the bootstrap draws as one; with a single training every walk is on its own."""
    trainings = len({seed for seed, _ in arm.walks[game]})
    return len(arm.walks[game]) // trainings if trainings > 1 else 1


def _stream(*names: str) -> np.random.Generator:
    return np.random.default_rng(derive(0, "returns", *names))
