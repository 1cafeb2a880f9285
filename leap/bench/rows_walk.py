"""Rows about walks: what folds add to one, a plain torch loop beside it, and where the time of a meta-step goes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leap import learners
from leap.batching import Execution
from leap.bench.memory import peak_tensors
from leap.bench.row import Figure, Goal, Row, synchronizer
from leap.bench.timing import Clock, Contender
from leap.metrics.path import path_length, path_measures
from leap.optim import Optimizer, sgd
from leap.trainer import Family
from leap.walk import End, Fold, Step, TaskBatch, Walk, paces, walk


@dataclass(frozen=True)
class Workload:
    """The walks to be timed.

    Attributes:
        family: Tasks; their batches are images [T, B, ...] and labels [T, B], their loss is the cross-entropy.
        module: The network of that loss as one would write it without this package; its parameters have the names of
            the family's layout. Loops beside ours use it.
        tasks: T, the first of the training split.
        steps: K.
        execution: How a walk evaluates its tasks.
        name: What the network and the tasks are, for the row's setting.
        lr: Of plain SGD.
    """

    family: Family
    module: nn.Module
    tasks: int
    steps: int
    execution: Execution
    name: str
    lr: float = 0.1

    def each(self) -> Iterator[TaskBatch]:
        """The tasks one by one, with the batches that they have in `batch`."""
        for seed, task in enumerate(self.family.ids("train")[: self.tasks]):
            yield self.family.batch([task], [seed])

    def fresh(self, theta0: Tensor) -> nn.Module:
        """A copy of the network at theta^0 [n], in its type."""
        module = copy.deepcopy(self.module).to(theta0)
        module.load_state_dict(self.family.layout.unflatten(theta0), strict=False)
        return module

    def batch(self) -> TaskBatch:
        """The same tasks with the same batches, anew: whatever they remember is paid for in every run."""
        return self.family.batch(self.family.ids("train")[: self.tasks], range(self.tasks))

    def walk(self, theta0: Tensor, folds: Mapping[str, Fold]) -> Callable[[], Walk]:
        """A walk of all tasks."""
        inner = sgd(self.lr)
        return lambda: walk(
            self.batch(), theta0, steps=self.steps, optimizer=inner, folds=folds, execution=self.execution
        )

    def paces(self, theta0: Tensor, folds: Mapping[str, Fold]) -> Callable[[], Iterator[int]]:
        """The same, step by step, to be taken in turns with others."""
        inner = sgd(self.lr)
        return lambda: paces(
            self.batch(), theta0, steps=self.steps, optimizer=inner, folds=folds, execution=self.execution
        )

    @property
    def setting(self) -> dict[str, Any]:
        """What two measurements must share."""
        return {
            "tasks": f"{self.tasks} x {self.name}", "K": self.steps, "n": self.family.layout.n,
            "execution": self.execution,
        }  # fmt: skip


def walk_row(work: Workload, device: str, clock: Clock) -> Row:
    """What folds add to a walk in time and memory, and how long a plain torch loop takes over the same batches.

    Walks take their steps in turns. A fold's own time, the extra loss at its end included, is told beside that of the
    whole walk: it is known more closely than the difference of two walks, but does not hold what a fold may do to the
    caches.
    """
    theta0 = work.family.initial(0)
    length, measures, learner = {"path": path_length()}, {"measures": path_measures()}, {"leap": learners.leap()}
    sets = {"path length": length, "all path measures": measures, "Leap": learner}
    sets["Leap and all path measures"] = learner | measures
    contenders = [Contender("walk", work.paces(theta0, {}))]
    for name, folds in sets.items():
        watch = Stopwatch(synchronizer(device), clock)
        contenders.append(Contender(f"with {name}", _watched(work, theta0, folds, watch), parts=_own_time(name, watch)))
    contenders.append(Contender("plain torch loop", lambda: plain_paces(work, theta0)))
    goals = [
        Goal("path length adds at most 2% to a walk", "with path length", "ratio", 1.02),
        Goal("all path measures add at most 2% to a walk", "with all path measures", "ratio", 1.02),
        Goal("Leap adds at most 3% to a walk", "with Leap", "ratio", 1.03),
        Goal("Leap's own time is at most 3% of a walk", "Leap: folds alone", "ratio", 0.03),
        Goal("Leap and every path measure add at most 5%", "with Leap and all path measures", "ratio", 1.05),
        Goal("Leap keeps at most 4 vectors a task", "memory that Leap adds", "figure", 4.0),
    ]
    figures = [Figure("memory that Leap adds", "vectors of n a task", partial(vectors_added, work, learner))]
    return Row(contenders, "walk", work.setting, goals, figures)


def vectors_added(work: Workload, folds: Mapping[str, Fold]) -> float:
    """How far folds raise the peak memory of a walk, activations and all, in vectors of n a task.

    Tensors are counted one by one, over three steps: from the second segment on nothing changes any more.
    """
    theta0, short = work.family.initial(0), replace(work, steps=min(work.steps, 3))
    with_folds, without = (peak_tensors(short.walk(theta0, chosen)) for chosen in (folds, {}))
    return (with_folds - without) / (work.tasks * theta0.nbytes)


def _watched(
    work: Workload, theta0: Tensor, folds: Mapping[str, Fold], watch: Stopwatch
) -> Callable[[], Iterator[int]]:
    run = work.paces(theta0, {name: timed_fold(fold, watch) for name, fold in folds.items()})

    def watched() -> Iterator[int]:
        watch.start()
        yield from run()
        watch.stop()

    return watched


def _own_time(name: str, watch: Stopwatch) -> Callable[[], dict[str, float]]:
    return lambda: {f"{name}: folds alone": watch.seconds["fold"]}


def plain_training(work: Workload, theta0: Tensor) -> list[nn.Module]:
    """The same walks as one would write them without this package: module, `backward`, `step`, task by task.

    Returns:
        The trained networks. They end where the walk does, up to the order of summation.
    """
    trained: list[nn.Module] = []
    for _ in plain_paces(work, theta0, trained):
        pass
    return trained


def plain_paces(work: Workload, theta0: Tensor, trained: list[nn.Module] | None = None) -> Iterator[int]:
    """`plain_training`, paused as often as the walk is: wherever as many steps were taken as there are tasks.

    Args:
        work: What is walked.
        theta0: theta^0 [n].
        trained: Takes the networks.
    """
    taken = 0
    for data in work.each():
        module = work.fresh(theta0)
        optimizer = torch.optim.SGD(module.parameters(), lr=work.lr)
        losses = []
        for step in range(work.steps):
            images, labels = data.sample(theta0[None], step)
            optimizer.zero_grad()
            loss = F.cross_entropy(module(images[0]), labels[0])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            taken += 1
            if taken % work.tasks == 0:
                yield taken // work.tasks
        if trained is not None:
            trained.append(module)


def parts_row(work: Workload, device: str, clock: Clock) -> Row:
    """Where the time of a meta-step goes, the path length included that training always records.

    The parts: `sample` draws batches, `loss` runs the network forwards and `gradient` backwards, `update` is the inner
    optimizer's, `fold` is Leap's and the path length's, `reduce` is the mean over tasks, `meta-update` the
    meta-optimizer's step, and `rest` what lies between them.
    """
    theta0 = work.family.initial(0)
    watch = Stopwatch(synchronizer(device), clock)
    meta = torch.nn.Parameter(theta0.clone())
    optimizer = torch.optim.SGD([meta], lr=0.0)  # a step that moves nothing: every round does the same work

    def recorded() -> dict[str, Fold]:
        return {"leap": learners.leap(), "path_length": path_length()}

    def meta_step() -> None:
        watch.start()
        folds = {name: timed_fold(fold, watch) for name, fold in recorded().items()}
        found = walk(
            TimedTasks(work.batch(), watch), meta.detach(), steps=work.steps,
            optimizer=timed_update(sgd(work.lr), watch), folds=folds, execution=work.execution,
        )  # fmt: skip
        watch.enter("reduce")
        meta.grad = found.results["leap"].mean(dim=0)
        watch.enter("meta-update")
        optimizer.step()
        watch.stop()

    timed = Contender("meta-step", meta_step, parts=lambda: watch.seconds)
    plain = Contender("meta-step, parts not timed", work.walk(theta0, recorded()))
    return Row([timed, plain], "meta-step", work.setting)


class Stopwatch:
    """Attributes every moment between `start` and `stop` to one part."""

    PARTS: tuple[str, ...] = ("sample", "loss", "gradient", "update", "fold", "reduce", "meta-update", "rest")

    def __init__(self, synchronize: Callable[[], None], clock: Clock = time.perf_counter) -> None:
        self._synchronize, self._clock = synchronize, clock
        self.start()

    def start(self) -> None:
        """Forget everything and begin with the part `rest`."""
        self.seconds = dict.fromkeys(self.PARTS, 0.0)
        self._part, self._since = "rest", self._now()

    def enter(self, part: str) -> str:
        """Leave the part at hand for another one; the one that was left."""
        left, now = self._part, self._now()
        self.seconds[left] += now - self._since
        self._part, self._since = part, now
        return left

    def stop(self) -> None:
        """Close the account."""
        self.enter("rest")

    def _now(self) -> float:
        self._synchronize()
        return self._clock()


class TimedTasks:
    """Tasks whose sampling and losses are told to a stopwatch; what follows a loss within a step is its gradient."""

    def __init__(self, tasks: Any, watch: Stopwatch) -> None:
        self._tasks, self._watch = tasks, watch
        self.size, self.layout = tasks.size, tasks.layout

    def sample(self, theta: Tensor, step: int) -> Any:
        """As the tasks do."""
        left = self._watch.enter("sample")
        batch = self._tasks.sample(theta, step)
        self._watch.enter(left)
        return batch

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """As the tasks do."""
        left = self._watch.enter("loss")
        found: tuple[Tensor, Mapping[str, Tensor]] = self._tasks.loss(theta, batch)
        self._watch.enter(left if left == "fold" else "gradient")  # a fold's extra loss has no gradient
        return found


def timed_update(optimizer: Optimizer, watch: Stopwatch) -> Optimizer:
    """The same optimizer, its updates told to a stopwatch."""

    def update(state: Any, grad: Tensor, theta: Tensor, step: int) -> Any:
        watch.enter("update")
        moved = optimizer.update(state, grad, theta, step)
        watch.enter("rest")
        return moved

    return optimizer._replace(update=update)


def timed_fold(fold: Fold, watch: Stopwatch) -> Fold:
    """The same fold, told to a stopwatch."""

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Tensor | Step | End | Any) -> Any:
            left = watch.enter("fold")
            found = function(*arguments)
            watch.enter(left)
            return found

        return called

    return fold._replace(start=timed(fold.start), step=timed(fold.step), finish=timed(fold.finish))
