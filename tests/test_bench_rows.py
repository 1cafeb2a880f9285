"""The benchmark's rows and its memory gauge: they measure what they are named for. No test looks at a time."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leap import learners
from leap.bench import rows_distances as distances
from leap.bench import rows_walk as walks
from leap.bench.memory import peak_memory, peak_tensors
from leap.bench.row import carry_out
from leap.bench.rows_learners import PlainConv4
from leap.errors import RunError
from leap.metrics.path import path_length
from leap.optim import sgd
from leap.walk import Fold, Step, walk
from tasks import glyphs
from tasks.alphabets import Alphabets, Protocol


def hold(megabytes: int) -> Callable[[], object]:
    before = torch.ones(2**17 * 32)  # 16 MiB that stand there before, and are freed only with the process
    return lambda: (before, torch.ones(megabytes, 2**17, dtype=torch.float64).sum())


def die() -> Callable[[], object]:
    os._exit(3)


def test_memory_is_what_the_work_needs_at_most_beyond_what_stood_there() -> None:
    small, large = (peak_memory(partial(hold, size)) for size in (32, 96))
    assert abs(large - small - 64 * 2**20) < 6 * 2**20
    assert 32 * 2**20 <= small < 60 * 2**20


def test_a_process_that_dies_while_memory_is_measured_is_an_error() -> None:
    with pytest.raises(RunError, match="ended with code 3"):
        peak_memory(die)


def test_tensors_are_counted_while_they_are_alive() -> None:
    before, kept = torch.zeros(1000, dtype=torch.float64), []
    vector = before.nbytes
    assert peak_tensors(lambda: before.view(10, 100).add_(1.0)[3]) == 0
    assert peak_tensors(lambda: before.add(1).add(1).add(1)) == 2 * vector
    assert peak_tensors(lambda: kept.append([before + i for i in range(5)])) == 5 * vector
    point = before.clone().requires_grad_()
    chain = peak_tensors(lambda: torch.autograd.grad(point.exp().exp().exp().sum(), point))
    assert 4 * vector <= chain <= 6 * vector  # three values that the graph keeps, and gradients on their way


@pytest.mark.parametrize("metric", ["length", "energy"])
def test_leap_keeps_at_most_four_vectors_a_task_where_a_walk_needs_hardly_more(metric: str) -> None:
    theta0 = torch.ones(4000, dtype=torch.float64)

    def peak(folds: dict[str, Fold]) -> float:
        run = partial(walk, Bowls(), theta0, steps=4, optimizer=sgd(0.1), folds=folds, execution="sequential")
        return peak_tensors(run) / (2 * theta0.nbytes)

    alone, added = peak({}), peak({"leap": learners.leap(metric)}) - peak({})
    assert alone < 10 and 1 < added <= 4


class Bowls:
    """Two tasks f(theta) = |theta|^2 / 2, whose activations are as good as nothing."""

    size = 2

    def sample(self, theta: torch.Tensor, step: int) -> None:
        return None

    def loss(self, theta: torch.Tensor, batch: None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return theta.dot(theta) / 2, {}


def test_a_step_of_leap_reads_and_writes_ten_vectors() -> None:
    draw = torch.Generator().manual_seed(0)
    fold, theta = learners.leap(), [torch.randn(3, 50, generator=draw) for _ in range(3)]
    steps = [Step(a, torch.rand(3), torch.randn(3, 50, generator=draw), b) for a, b in itertools.pairwise(theta)]
    state = fold.step(fold.start(theta[0]), steps[0])
    touched = Touched(numel=150)
    with touched:
        fold.step(state, steps[1])
    assert touched.count == 10


class Touched(TorchDispatchMode):
    """Counts the tensors of one size that operators read or write."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel, self.count = numel, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, found))
        self.count += sum(isinstance(leaf, torch.Tensor) and leaf.numel() == self.numel for leaf in leaves)
        return found


@pytest.fixture(scope="module")
def work() -> walks.Workload:
    # so many filters that the layers behind the first do not count as images of few channels (`tasks.fused.FEW`)
    family = Alphabets(glyphs.load(), Protocol(train=2, pool=2), seed=0, filters=8)
    plain = PlainConv4(family.protocol.ways, filters=8)
    return walks.Workload(family, plain, tasks=2, steps=3, execution="sequential", name="tiny")


def test_the_plain_loop_walks_the_same_walk(work: walks.Workload) -> None:
    theta0 = work.family.initial(0)
    ours = walk(work.batch(), theta0, steps=3, optimizer=sgd(work.lr), execution="sequential").theta
    plain = torch.stack([work.family.layout.flatten(module) for module in walks.plain_training(work, theta0)])
    assert (ours - theta0).abs().max() > 0.01
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_the_parts_of_a_step_add_up_to_the_step(work: walks.Workload) -> None:
    found = carry_out(walks.parts_row(work, "cpu", time.perf_counter), seconds=0.1)
    parts = {name: found["results"][name]["times"] for name in walks.Stopwatch.PARTS}
    whole = found["results"]["meta-step"]["times"]
    assert all(min(times) > 0 for times in parts.values())
    for spent, round_parts in zip(whole, zip(*parts.values(), strict=True), strict=True):
        assert 0.9 * spent <= sum(round_parts) <= spent


def test_a_stopwatch_attributes_every_moment_to_one_part() -> None:
    readings = iter([0.0, 0.0, 1.0, 3.0, 7.0, 15.0])  # made, started, then one a change
    watch = walks.Stopwatch(lambda: None, lambda: next(readings))
    watch.start()
    assert watch.enter("fold") == "rest"
    assert watch.enter("loss") == "fold"
    watch.enter("fold")
    watch.stop()
    told = {name: spent for name, spent in watch.seconds.items() if spent}
    assert told == {"rest": 1.0, "fold": 10.0, "loss": 4.0}


def test_timing_the_parts_changes_nothing(work: walks.Workload) -> None:
    theta0, watch = work.family.initial(0), walks.Stopwatch(lambda: None)
    fold, inner = {"length": path_length()}, sgd(0.1)
    plain = walk(work.batch(), theta0, steps=3, optimizer=inner, folds=fold, execution="sequential")
    timed = walk(
        walks.TimedTasks(work.batch(), watch), theta0, steps=3, optimizer=walks.timed_update(inner, watch),
        folds={"length": walks.timed_fold(fold["length"], watch)}, execution="sequential",
    )  # fmt: skip
    assert torch.equal(plain.theta, timed.theta) and torch.equal(plain.results["length"], timed.results["length"])


def test_the_memory_that_leap_adds_is_the_sum_a_segment_and_its_gradient(work: walks.Workload) -> None:
    assert walks.vectors_added(work, {"leap": learners.leap()}) == pytest.approx(3, abs=0.05)
    assert walks.vectors_added(work, {"reptile": learners.reptile()}) == pytest.approx(0, abs=0.05)
    row = walks.walk_row(work, "cpu", time.perf_counter)
    assert [goal.most for goal in row.goals if "Leap" in goal.text] == [1.03, 0.03, 1.05, 4.0]


def test_a_fold_s_own_time_stands_beside_that_of_its_walk(work: walks.Workload) -> None:
    found = carry_out(walks.walk_row(work, "cpu", time.perf_counter), seconds=0.1)["results"]
    for name in ("path length", "all path measures", "Leap", "Leap and all path measures"):
        for own, whole in zip(found[f"{name}: folds alone"]["times"], found[f"with {name}"]["times"], strict=True):
            assert 0 < own < whole


def test_the_logdet_row_stands_at_the_goal_s_size() -> None:
    setting = distances.logdet_row("cpu", distances.Size(inputs=2)).setting
    assert 56_000 <= setting["weights"] <= 57_500 and distances.Size().inputs == 256 and setting["classes"] == 10


def test_both_works_of_the_logdet_row_do_what_they_are_named_for() -> None:
    made = distances.problem(distances.TINY, "cpu")
    jacobian = torch.func.jacrev(made.logits)(made.theta.double(), made.images.double())
    p = made.logits(made.theta.double(), made.images.double()).softmax(dim=1)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    fisher = torch.einsum("nck,ncd,ndl->kl", jacobian, covariance, jacobian)
    expected = torch.logdet(torch.eye(len(fisher), dtype=torch.float64) + fisher)
    found = distances.dual_work(distances.TINY, "cpu")()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    rows = distances.TINY.inputs * distances.TINY.classes
    assert distances.product_work(distances.TINY, "cpu")().shape == (rows, rows)


def test_gradients_are_counted_by_sample_however_they_are_taken() -> None:
    inputs, theta = torch.ones(4, 2), torch.ones(6)

    def logits(point: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x @ point.view(2, 3)

    def counted(use: Callable[[Callable[..., torch.Tensor]], object]) -> int:
        counter = distances.Counter()
        use(counter.watch(logits))
        return counter.gradients

    def plain(f: Callable[..., torch.Tensor]) -> None:
        point = theta.clone().requires_grad_()
        f(point, inputs).square().sum().backward()

    def per_sample(f: Callable[..., torch.Tensor]) -> object:
        one = torch.func.grad(lambda point, x: f(point, x[None]).square().sum())
        found = torch.func.vmap(one, in_dims=(None, 0))(theta, inputs)
        expected = torch.func.jacrev(lambda point: logits(point, inputs).square().sum(1))(theta)
        torch.testing.assert_close(found, expected)
        return found

    def by_class(f: Callable[..., torch.Tensor]) -> object:
        return torch.func.jacrev(lambda point: f(point, inputs))(theta)  # one backward pass a logit

    assert counted(lambda f: f(theta, inputs)) == 0
    assert counted(plain) == counted(per_sample) == 4
    assert counted(by_class) == 4 * 3 * 4


def test_a_fisher_distance_takes_two_epochs_of_gradients() -> None:
    (figure,) = distances.fisher_row("cpu", distances.TINY).figures
    assert figure.measure() == 2.0
