"""Rows about processes: a meta-step's walks shared out over the cores, beside one process and a loop of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from leap import learners
from leap.bench.crew import Crew, Job
from leap.bench.row import Goal, Row
from leap.bench.rows_learners import learn2learn_loop, need_learn2learn, one_by_one
from leap.bench.rows_walk import Workload, plain_training
from leap.bench.timing import Contender
from leap.distributed import Place
from leap.optim import sgd
from leap.walk import walk


def processes_row(make: Callable[[], Workload], cores: int) -> Row:
    """Leap's meta-gradient by one process and by one a core, and plain training of the same tasks with all cores.

    All of them compute in processes that were started before and wait for each other's turns. Shares are those of
    `torchrun`; their sums meet here, where a run has its all-reduce.

    Args:
        make: The workload, made anew in every process; picklable.
        cores: As many processes, or threads of one; at least 2, and no more than tasks.
    """
    times = 0.8 * cores
    faster = Goal(
        f"{cores} processes are at least {times:g} times as fast as one", _each(cores), "ratio", 1 / times, beside=ONE
    )
    return _row(
        make, cores, "leap", ("plain", "plain torch loop, all threads"), [_half("a plain loop's", cores), faster]
    )


def maml_processes_row(make: Callable[[], Workload], cores: int) -> Row:
    """The same of MAML of second order, beside learn2learn's with all cores.

    Raises:
        LeftOut: learn2learn is not installed.
    """
    need_learn2learn()
    return _row(make, cores, "maml", ("learn2learn", "learn2learn, all threads"), [_half("learn2learn's", cores)])


ONE = "one process, one thread"


def _each(cores: int) -> str:
    return f"{cores} processes, one thread each"


def _half(whose: str, cores: int) -> Goal:
    return Goal(f"a process a core takes at most half of {whose} time", _each(cores), "ratio", 1 / 2)


def _row(make: Callable[[], Workload], cores: int, job: str, rival: tuple[str, str], goals: list[Goal]) -> Row:
    crew, (theirs, name) = Crew(partial(jobs, make), cores), rival
    contenders = [
        Contender(name, lambda: crew(theirs, 1, cores)),
        Contender(ONE, lambda: total(crew, job, 1, 1)),
        Contender("one process, all threads", lambda: total(crew, job, 1, cores)),
        Contender(_each(cores), lambda: total(crew, job, cores, 1)),
    ]
    return Row(contenders, name, make().setting | {"processes": cores}, goals)


def total(crew: Crew, job: str, size: int, threads: int) -> np.ndarray:
    """The meta-gradient [n], summed over all tasks, by so many processes."""
    return np.sum(crew(job, size, threads), axis=0)


def jobs(make: Callable[[], Workload]) -> Mapping[str, Job]:
    """What a process can do.

    `leap` and `maml`: the sum of its share's meta-gradients [n]; `plain` and `learn2learn`: the same of all tasks, or
    their plain training, as a loop of others does it.
    """
    work = make()
    theta0, inner, folds = work.family.initial(0), sgd(work.lr), {"leap": learners.leap()}

    def leap(place: Place) -> np.ndarray:
        own = range(work.tasks)[place.share(work.tasks)]
        tasks = work.family.batch([work.family.ids("train")[slot] for slot in own], own)
        found = walk(tasks, theta0, steps=work.steps, optimizer=inner, folds=folds, execution=work.execution)
        summed: np.ndarray = found.results["leap"].sum(dim=0).numpy()
        return summed

    def maml(place: Place) -> np.ndarray:
        own = place.share(work.tasks)
        summed: np.ndarray = one_by_one(learners.maml(), work, theta0, own).sum(dim=0).numpy()
        return summed

    def plain(place: Place) -> None:
        plain_training(work, theta0)

    def learn2learn(place: Place) -> np.ndarray:
        return learn2learn_loop(work, theta0).numpy() * work.tasks

    return {"leap": leap, "maml": maml, "plain": plain, "learn2learn": learn2learn}
