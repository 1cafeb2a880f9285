"""What `leap.tracking` sends to wandb of an evaluation: of games returns against agent steps, and where walks end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from leap.report.evaluation import Evaluation
from leap.report.returns import alone
from leap.report.returns_curves import POINTS, level
from leap.report.returns_walks import AREA, FINAL, TEST, Arm

COLUMNS = ("task", "evaluation_seed", "agent_step", "initialization", "episodic_return")
FIGURES = {"final_return": FINAL, "return_area": AREA, "test_return": TEST}

Log = Callable[[dict[str, Any]], None]


def log_returns(run: Any, log: Log, name: str, held: Evaluation, shown: Mapping[str, str]) -> None:
    """Log the mean learning curve of every game and initialization, a chart a game, a table, and the final figures.

    Args:
        run: The wandb run.
        log: Logs a row at the run's next step.
        name: First part of all keys.
        held: Of games.
        shown: Names of initializations in the evaluation, by the label that keys have.
    """
    import wandb

    found = alone(held)
    arms = {label: next(arm for arm in found.arms if arm.label == own) for label, own in shown.items()}
    at = np.linspace(0, max(found.budget.values()), POINTS + 1)[1:]
    curves = {(label, game): _curves(arm, game, at) for label, arm in arms.items() for game in found.games}
    means = {place: own.mean(axis=0) for place, own in curves.items()}  # NaN until every walk ended an episode
    keys = {(label, game): f"{name}/{label}/{game}/episodic_return" for label, game in means}
    run.define_metric(f"{name}/agent_step", hidden=True)
    for key in keys.values():
        run.define_metric(key, step_metric=f"{name}/agent_step")
    for point, step in enumerate(at):
        row = {keys[place]: float(mean[point]) for place, mean in means.items() if np.isfinite(mean[point])}
        log(row | {f"{name}/agent_step": float(step)})
    table = wandb.Table(columns=list(COLUMNS), data=_rows(held, shown, curves, at))
    logged: dict[str, Any] = {f"{name}/returns": table}
    for game in found.games:
        known = {label: np.isfinite(means[label, game]) for label in arms}
        lines = {label: (at[there], means[label, game][there]) for label, there in known.items() if there.any()}
        if lines:
            xs, ys = ([line[axis].tolist() for line in lines.values()] for axis in (0, 1))
            chart = wandb.plot.line_series(xs, ys, list(lines), f"{game}: episodic return", "agent steps")
            logged[f"{name}/{game}/episodic_return_curves"] = chart
    log(logged)
    for (label, game), key in ((place, key) for place in means for key in FIGURES):
        values = [walk.figures[FIGURES[key]] for walk in arms[label].walks[game].values()]
        if np.isfinite(values).all():
            run.summary[f"{name}/{label}/{game}/{key}"] = float(np.mean(values))


def pretraining_row(held: Evaluation, name: str, shown: Mapping[str, str]) -> dict[str, float]:
    """How many tasks there were to pretrain on, and beside it where held-out tasks end, so that one chart has both."""
    row = {f"{name}/pretraining_tasks": float(held.pretraining_tasks or 0)}
    for label, own in shown.items():
        for key in ("test_error", "test_loss", "test_return"):
            value = float(held.values[own][key].mean()) if key in held.values[own] else np.nan
            row |= {f"{name}/{label}/{key}": value} if np.isfinite(value) else {}
    return row


def thinned(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner steps, and the curve [K] there: means over at most POINTS blocks, each placed at its last step.

    Example:
        >>> steps, curve = thinned(np.arange(400.0))
        >>> len(curve), steps[:3].tolist(), curve[:3].tolist()
        (160, [2, 5, 7], [0.5, 3.0, 5.5])
    """
    edges = np.linspace(0, len(curve), min(POINTS, len(curve)) + 1).astype(int)
    return edges[1:], np.array([curve[a:b].mean() for a, b in pairwise(edges)])


def _curves(arm: Arm, game: str, at: np.ndarray) -> np.ndarray:
    """[S, P]: of every evaluation seed."""
    return np.array([level(walk.episodes, at) for walk in arm.walks[game].values()])


def _rows(
    held: Evaluation, shown: Mapping[str, str], curves: Mapping[tuple[str, str], np.ndarray], at: np.ndarray
) -> list[list[Any]]:
    """Every point of every learning curve that there is, a row of COLUMNS each."""
    return [
        [game, seed, float(step), shown[label], float(value)]
        for (label, game), own in curves.items()
        for seed, curve in zip(held.evaluation_seeds, own, strict=True)
        for step, value in zip(at, curve, strict=True)
        if np.isfinite(value)
    ]
