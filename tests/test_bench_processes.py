"""The row of processes: its crew shares out, adds up to one process's meta-gradient, and ends."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from families import small_alphabets

from leap import l2l, learners
from leap.bench import rows_processes as rows
from leap.bench.crew import Crew
from leap.bench.row import carry_out
from leap.bench.rows_learners import PlainConv4, meta_gradient
from leap.bench.rows_walk import Workload
from leap.errors import RunError


def make() -> Workload:
    family = small_alphabets()
    plain = PlainConv4(family.protocol.ways, filters=3)
    return Workload(family, plain, tasks=3, steps=4, execution="sequential", name="tiny", lr=0.1)


def tell(words: str) -> dict[str, object]:
    def die(place: object) -> None:
        os._exit(3)

    return {
        "place": lambda place: (words, tuple(place), torch.get_num_threads(), os.getpid()),
        "die": die,
    }


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    made = Crew(partial(rows.jobs, make), 2)
    yield made
    made.close()


def test_a_job_is_shared_out_among_the_first_of_them_with_their_threads() -> None:
    crew = Crew(partial(tell, "hello"), 2)
    both, one = crew("place", 2, 1), crew("place", 1, 2)
    assert [answer[:3] for answer in both] == [("hello", (0, 2), 1), ("hello", (1, 2), 1)]
    assert [answer[:3] for answer in one] == [("hello", (0, 1), 2)]
    numbers = [answer[3] for answer in both]
    assert len({*numbers, os.getpid()}) == 3 and one[0][3] == numbers[0]
    children = [child for child in multiprocessing.active_children() if child.pid in numbers]
    crew.close()
    for child in children:
        child.join(timeout=30)
    assert [child.exitcode for child in children] == [0, 0]


def test_a_process_that_ends_is_told() -> None:
    crew = Crew(partial(tell, ""), 1)
    with pytest.raises(RunError, match="ended before its work was done"):
        crew("die", 1, 1)


@pytest.mark.parametrize("size", [1, 2])
def test_shares_add_up_to_the_meta_gradient_of_one_process(size: int, crew: Crew) -> None:
    work = make()
    for job, learner in (("leap", learners.leap()), ("maml", learners.maml())):
        ours = meta_gradient(learner, work, work.family.initial(0)).numpy() * work.tasks
        assert np.abs(ours).max() > 1e-2
        np.testing.assert_allclose(rows.total(crew, job, size, 1), ours, rtol=1e-4, atol=1e-5)


def test_learn2learn_s_job_is_that_of_all_tasks(crew: Crew) -> None:
    try:
        l2l.load()
    except l2l.NotInstalled as reason:
        pytest.skip(str(reason))
    (theirs,) = crew("learn2learn", 1, 1)
    ours = rows.total(crew, "maml", 2, 1)  # in float32; in float64 the loops agree to 1e-8 (test_bench_learners)
    assert np.linalg.norm(theirs - ours) < 1e-3 * np.linalg.norm(ours)


def test_the_row_has_both_goals_and_the_second_is_about_two_of_ours() -> None:
    found = carry_out(rows.processes_row(make, 2), seconds=0.001)
    assert list(found["results"]) == [
        "plain torch loop, all threads", "one process, one thread", "one process, all threads",
        "2 processes, one thread each",
    ]  # fmt: skip
    each, one = (
        found["results"][name]["times"][0] for name in ("2 processes, one thread each", "one process, one thread")
    )
    plain = found["results"]["plain torch loop, all threads"]["times"][0]
    assert [goal["value"] for goal in found["goals"]] == pytest.approx([each / plain, each / one])
    assert [goal["most"] for goal in found["goals"]] == [0.5, 1 / 1.6]
    assert found["setting"]["processes"] == 2
