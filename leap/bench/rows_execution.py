"""Rows about ways to execute a run's walks: the same meta-steps in each, beside a plain torch loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from leap import learners
from leap.batching import Execution
from leap.bench.row import Figure, Goal, Row
from leap.bench.rows_walk import Workload, plain_training
from leap.bench.timing import Contender
from leap.execution import Engine
from leap.optim import sgd
from leap.precision import PRECISIONS, Precision, effect
from leap.walk import Walk


def execution_row(work: Workload, device: str, ways: Sequence[Execution]) -> Row:
    """A meta-step's walks with Leap in every way that runs here, and a plain torch loop over the same batches.

    Engines are kept between rounds, as a run keeps them between meta-steps: compiling and recording fall into the
    warm-up.
    """
    theta0 = work.family.initial(0)
    contenders = [Contender("plain torch loop", lambda: plain_training(work, theta0))]
    contenders += [Contender(way, _walks(work, way, "highest")) for way in ways]
    goals = []
    if device.startswith("cuda"):
        goals.append(Goal("batched at least 20 times a plain loop", "batched", "ratio", 1 / 20))
        if "captured" in ways:
            goals.append(Goal("captured: a meta-step under 0.15 s", "captured", "seconds", 0.15))
    return Row(contenders, "plain torch loop", _setting(work), goals)


def precision_row(work: Workload, device: str, way: Execution, *, steps: int = 3) -> Row:
    """The same walks in every precision, and what each does to the meta-gradient after a few steps."""
    few = dataclasses.replace(work, steps=min(steps, work.steps))
    contenders = [Contender(precision, _walks(work, way, precision)) for precision in PRECISIONS]  # type: ignore[arg-type]
    figures = [
        Figure(f"{precision}: relative change of the meta-gradient, K = {few.steps}", "share", _change(few, precision))
        for precision in ("tf32", "bf16")
    ]
    return Row(contenders, "highest", {**_setting(work), "execution": way}, (), figures)


def _setting(work: Workload) -> dict[str, object]:
    return {name: value for name, value in work.setting.items() if name != "execution"}


def _walks(work: Workload, way: Execution, precision: Precision) -> Callable[[], Walk]:
    engine, theta0, rule = Engine(precision), work.family.initial(0), sgd(work.lr)
    folds = {"leap": learners.leap()}
    return lambda: engine(work.batch(), theta0, steps=work.steps, optimizer=rule, folds=folds, execution=way)


def _change(work: Workload, precision: Precision) -> Callable[[], float]:
    def change() -> float:
        with torch.no_grad():
            return effect(lambda p: _walks(work, "batched", p)(), precision, "leap")

    return change
