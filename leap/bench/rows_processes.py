"""A row about processes: a meta-step's walks shared out over the cores, beside one process and a plain torch loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from leap import learners
from leap.bench.crew import Crew, Job
from leap.bench.row import Goal, Row
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
        cores: As many processes, or threads of one; at least 2.
    """
    crew = Crew(partial(jobs, make), cores)
    plain, one, each = "plain torch loop, all threads", "one process, one thread", f"{cores} processes, one thread each"
    contenders = [
        Contender(plain, lambda: crew("plain", 1, cores)),
        Contender(one, lambda: total(crew, 1, 1)),
        Contender("one process, all threads", lambda: total(crew, 1, cores)),
        Contender(each, lambda: total(crew, cores, 1)),
    ]
    goals = [
        Goal("a process a core takes at most half of a plain loop's time", each, "ratio", 1 / 2),
        Goal(
            f"{cores} processes are at least {0.8 * cores:g} times as fast as one",
            each,
            "ratio",
            1 / (0.8 * cores),
            beside=one,
        ),
    ]
    return Row(contenders, plain, make().setting | {"processes": cores}, goals)


def total(crew: Crew, size: int, threads: int) -> np.ndarray:
    """The meta-gradient [n], summed over all tasks, by so many processes."""
    return np.sum(crew("leap", size, threads), axis=0)


def jobs(make: Callable[[], Workload]) -> Mapping[str, Job]:
    """What a process can do: `plain` training of all tasks, and `leap`, the sum of its share's meta-gradients [n]."""
    work = make()
    theta0, inner, folds = work.family.initial(0), sgd(work.lr), {"leap": learners.leap()}

    def plain(place: Place) -> None:
        plain_training(work, theta0)

    def leap(place: Place) -> np.ndarray:
        own = range(work.tasks)[place.share(work.tasks)]
        tasks = work.family.batch([work.family.ids("train")[slot] for slot in own], own)
        found = walk(tasks, theta0, steps=work.steps, optimizer=inner, folds=folds, execution=work.execution)
        summed: np.ndarray = found.results["leap"].sum(dim=0).numpy()
        return summed

    return {"plain": plain, "leap": leap}
