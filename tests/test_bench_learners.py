"""Reference loops end where our learners do, in float64; the row about starting. No test looks at a time."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from families import small_alphabets

from leap import l2l, learners
from leap.bench import rows_learners as rows
from leap.bench import rows_startup
from leap.bench.row import LeftOut, carry_out
from leap.bench.rows_walk import Workload, plain_training
from leap.errors import RunError


@pytest.fixture(scope="module")
def work() -> Workload:
    family = small_alphabets()
    plain = rows.PlainConv4(family.protocol.ways, filters=3)
    return Workload(family, plain, tasks=3, steps=4, execution="sequential", name="tiny", lr=0.1)


@pytest.fixture(scope="module")
def theta0(work: Workload) -> torch.Tensor:
    return work.family.initial(0).double()


def test_the_plain_network_is_the_family_s(work: Workload, theta0: torch.Tensor) -> None:
    images = torch.rand(7, 1, 28, 28, dtype=torch.float64)
    named = work.family.layout.unflatten(theta0)
    ours = torch.func.functional_call(work.family.module, named, (images,))
    torch.testing.assert_close(work.fresh(theta0)(images), ours, rtol=1e-10, atol=1e-12)


def test_the_plain_loop_ends_where_the_walk_does(work: Workload, theta0: torch.Tensor) -> None:
    ours = work.walk(theta0, {})().theta
    plain = torch.stack([work.family.layout.flatten(module) for module in plain_training(work, theta0)])
    assert (ours - theta0).abs().max() > 1e-2
    torch.testing.assert_close(plain, ours, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("execution", ["sequential", "batched"])
@pytest.mark.parametrize("name", list(rows.LOOPS))
def test_a_reference_loop_ends_with_our_meta_gradient(
    name: str, execution: str, work: Workload, theta0: torch.Tensor
) -> None:
    work = dataclasses.replace(work, execution=execution)
    ours = rows.meta_gradient(getattr(learners, name)(), work, theta0)
    found = rows.LOOPS[name](work, theta0)
    assert found.dtype == torch.float64 and found.abs().max() > 1e-2
    torch.testing.assert_close(found, ours, rtol=1e-8, atol=1e-10)


def test_learn2learn_s_loop_ends_with_our_meta_gradient(work: Workload, theta0: torch.Tensor) -> None:
    try:
        l2l.load()
    except l2l.NotInstalled as reason:
        pytest.skip(str(reason))
    ours = rows.meta_gradient(learners.maml(), work, theta0)
    found = rows.learn2learn_loop(work, theta0)
    assert (ours - rows.fomaml_loop(work, theta0)).abs().max() > 1e-3  # second order does matter here
    torch.testing.assert_close(found, ours, rtol=1e-8, atol=1e-10)


def test_a_reference_loop_leaves_the_network_of_the_row_as_it_was(work: Workload, theta0: torch.Tensor) -> None:
    before = [p.detach().clone() for p in work.module.parameters()]
    for loop in rows.LOOPS.values():
        assert torch.equal(loop(work, theta0), loop(work, theta0))
    assert all(torch.equal(a, b) for a, b in zip(before, work.module.parameters(), strict=True))


@pytest.mark.parametrize("name", list(rows.LOOPS))
def test_a_row_holds_a_learner_beside_its_loop(name: str, work: Workload) -> None:
    row = rows.learner_row(name, dataclasses.replace(work, tasks=1, steps=1))
    assert [contender.name for contender in row.contenders] == ["reference loop", "ours"]
    loop, ours = (contender.run() for contender in row.contenders)
    torch.testing.assert_close(loop, ours, rtol=1e-3, atol=1e-4)


def test_the_row_of_maml_is_left_out_where_learn2learn_is_missing(
    work: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise l2l.NotInstalled("learn2learn cannot be imported; install it")

    monkeypatch.setattr(l2l, "load", missing)
    with pytest.raises(LeftOut, match="cannot be imported; install it"):
        rows.maml_row(work)


def test_a_child_tells_what_it_printed_and_its_processor_time() -> None:
    child = rows_startup.Child(("-c", "import sys; sum(range(10**6)); print(sys.argv[1:])"), folder=True)
    assert "--out" in child.run() and child.cpu > 0
    lonely = rows_startup.Child(("-c", "import sys; print(sys.argv[1:])"), folder=False)
    assert lonely.run().strip() == "[]"


def test_a_child_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(RunError, match=r"ended with code 3; its last words: no disk"):
        rows_startup.Child(("-c", "import sys; print('no disk', file=sys.stderr); sys.exit(3)"), folder=False).run()


def test_the_row_about_starting_is_held_to_its_goals_by_the_wall_clock_whatever_clock_is_chosen() -> None:
    row = rows_startup.startup_row(tiny=True)
    assert [(goal.of, goal.quantity, goal.most) for goal in row.goals] == [
        ("leap --help", "seconds", 0.5), ("first meta-step", "seconds", 15.0),
    ]  # fmt: skip
    short = dataclasses.replace(row, contenders=[c for c in row.contenders if "python" in c.name or "help" in c.name])
    still = carry_out(dataclasses.replace(short, goals=row.goals[:1]), seconds=0.01, clock=lambda: 0.0)
    assert row.clock is time.perf_counter and still["results"]["leap --help"]["seconds"]["value"] > 0
    assert still["results"]["leap --help: processor time"]["seconds"]["value"] > 0
