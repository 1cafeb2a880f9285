"""Rows about games: agent steps of our actor-critic's walk beside those of Stable-Baselines3's A2C."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from leap import learners
from leap.batching import Execution
from leap.bench import sb3
from leap.bench.row import Goal, Row, synchronizer
from leap.bench.rows_walk import Stopwatch, TimedTasks, timed_fold, timed_update
from leap.bench.timing import Clock, Contender
from leap.optim import Optimizer, clipped, rmsprop
from leap.walk import Fold, paces

WITHOUT, WITH = "our walk", "our walk with Leap"


@dataclass(frozen=True)
class Workload:
    """A game, and what both sides make of it.

    Attributes:
        family: Makes `tasks.games.Games` with environments of its own; the first game of pretraining is played.
        environments: E, on both sides.
        peers: SB3's learners by name, made when they are asked for.
        rivals: Names of those that goals speak of; the fastest of them is the reference.
        settings: Of A2C.
        slice: Inner steps that are timed together.
        turn: Inner steps of a slice before the others have their turn; divides it.
        execution: How a walk evaluates its tasks.
        setting: What two measurements must share.
        least: Our speed over the reference's that is aimed at.
    """

    family: Callable[[], Any]
    environments: int
    peers: Mapping[str, Callable[[], Any]]
    rivals: Sequence[str]
    settings: sb3.Settings
    slice: int
    turn: int
    execution: Execution
    setting: Mapping[str, Any] = field(default_factory=dict)
    least: float = 1.6

    @property
    def agent_steps(self) -> int:
        """Of a turn, over all environments."""
        return self.turn * self.environments * self.settings.unroll

    @property
    def optimizer(self) -> Optimizer:
        """The inner update."""
        own = self.settings
        return clipped(rmsprop(own.lr, own.alpha, own.eps, style=own.style), own.norm)


class _Watch(Stopwatch):
    PARTS = (*Stopwatch.PARTS, "environments", "acting", "away")


class Onward:
    """Slices of one long walk: environments, parameters and heads go on where the slice before left them.

    Environments begin anew with every walk, which takes seconds; in a walk of thousands of steps that is nothing, and
    it is not timed here. The inner optimizer begins anew with each slice.

    Args:
        work: What is walked.
        seed: Of initialization, heads, environments and actions.

    Attributes:
        theta: theta [1, n] behind the last slice.
    """

    def __init__(self, work: Workload, seed: int, device: str = "cpu", clock: Clock = time.perf_counter) -> None:
        self._work, self._watch, family = work, _Watch(synchronizer(device), clock), work.family()
        family.begin = self._told(family.begin)
        self._tasks = family.batch(family.ids("train")[:1], [seed])
        self.theta, self._taken = self._tasks.start(family.initial(seed)[None]), 0
        self.size, self.layout, self.loss = 1, self._tasks.layout, self._tasks.loss

    def sample(self, theta: Tensor, step: int) -> Any:
        """The roll-out of step `step` of the slice at hand."""
        return self._tasks.sample(theta, self._taken + step)

    def run(self, folds: Mapping[str, Fold]) -> Iterator[int]:
        """Walk a slice, turn by turn."""
        work, watch = self._work, self._watch
        watch.start()
        going = paces(
            TimedTasks(self, watch), self.theta, steps=work.slice, optimizer=timed_update(work.optimizer, watch),
            folds={name: timed_fold(fold, watch) for name, fold in folds.items()}, execution=work.execution,
        )  # fmt: skip
        while True:
            try:
                taken = next(going)
            except StopIteration as ended:
                self.theta, self._taken = ended.value.theta, self._taken + work.slice
                break
            if taken % work.turn == 0 and taken < work.slice:
                left = watch.enter("away")
                yield taken
                watch.enter(left)
        watch.stop()

    def _told(self, begin: Callable[..., Any]) -> Callable[..., Any]:
        """`begin` of a family; the games it begins tell the stopwatch of environments and of choosing actions."""

        def begun(*given: Any) -> Any:
            play = begin(*given)
            play.send, play.receive = self._timed("environments", play.send), self._timed("environments", play.receive)
            play.choose = self._timed("acting", play.choose)
            return play

        return begun

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            left = self._watch.enter(part)
            found = function(*given)
            self._watch.enter(left)
            return found

        return called

    def parts(self) -> dict[str, float]:
        """Seconds of the last slice by part of an agent step."""
        spent = self._watch.seconds
        learning = spent["loss"] + spent["gradient"]
        named = {"environments": spent["environments"], "acting": spent["acting"], "learning": learning}
        named |= {"update": spent["update"], "fold": spent["fold"], "rest": spent["sample"] + spent["rest"]}
        return {f"{WITH}: {name}": seconds for name, seconds in named.items()}


def atari_row(work: Workload, device: str = "cpu", clock: Clock = time.perf_counter) -> Row:
    """Our walk with and without Leap beside SB3's learners, the same number of agent steps each, in turns.

    Nobody's environments play on while others have their turn. The processor's clock does not see environments in
    processes of their own; leave such peers out with it.

    Raises:
        LeftOut: SB3 cannot be imported.
    """
    models = {name: make() for name, make in work.peers.items()}

    def learn(model: Any) -> Iterator[object]:
        for _ in range(work.slice // work.turn):
            yield model.learn(work.agent_steps, reset_num_timesteps=False)

    contenders = [Contender(name, partial(learn, model)) for name, model in models.items()]
    for name, folds in ((WITHOUT, {}), (WITH, {"leap": learners.leap("energy")})):
        contenders.append(_ours(name, folds, lambda: Onward(work, 0, device, clock)))
    goals = [
        Goal(f"{work.least} times SB3's agent steps a second", name, "ratio", 1 / work.least, threads=2)
        for name in (WITHOUT, WITH)
    ]
    setting = {"agent steps": work.agent_steps * (work.slice // work.turn), **work.setting}
    return Row(contenders, work.rivals, setting, goals)


def _ours(name: str, folds: Mapping[str, Fold], begin: Callable[[], Onward]) -> Contender:
    slices: list[Onward] = []

    def run() -> Iterator[int]:
        if not slices:
            slices.append(begin())
        return slices[0].run(folds)

    return Contender(name, run, parts=(lambda: slices[0].parts()) if name == WITH else None)
