"""Progressive Nets against a loop over columns and laterals written from the definition, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from leap import columns, optim
from leap.batching import loss_and_gradient, traceable_gradient
from leap.columns import lateral_size
from leap.errors import UsageError
from leap.learners.progressive import parameters, progressive
from leap.testing import check_tasks
from leap.visits import Turn
from leap.walk import walk
from tasks import parts
from tasks.image_files import ImageSet
from tasks.models import GroupNorm, Norm
from tasks.multi_cv import MultiCV, MultiCVBatch
from tasks.quadratic import Quadratic
from tasks.stages import Conv4Stages

NEEDS = pytest.mark.skipif(not hasattr(Conv4Stages, "abreast"), reason="stages of this network take one column each")
SGD = optim.sgd(0.1)
# One by one; all at once where the network can; and then some at once, for 5 or 6 images two and two.
WAYS = ["each", pytest.param("abreast", marks=NEEDS), pytest.param("in twos", marks=NEEDS)]


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How frozen columns are computed."""
    monkeypatch.setattr(Conv4Stages, "abreast", request.param != "each", raising=False)
    if request.param == "in twos":
        monkeypatch.setattr(columns, "MOST", 2 * 6 * 3 * 16 * 16)
    return str(request.param)


def blobs(number: int, classes: int) -> ImageSet:
    """A data set of 16 x 16 pictures, grey or coloured, one shape a class."""
    rng, channels = np.random.default_rng(number), (1, 3)[number % 2]
    shapes = rng.random((classes, 1, 16, 16, channels)) + 0.3 * rng.random((classes, 12, 16, 16, channels))
    images = (shapes / 1.3 * 255).astype(np.uint8).reshape(-1, 16, 16, channels)
    labels, split = np.repeat(np.arange(classes), 12), np.tile(np.arange(12) < 9, classes)
    return ImageSet(f"set-{number}", images, labels, split, tuple(f"c{i}" for i in range(classes)))


def small(count: int = 3, norm: Norm = "batch", filters: int = 3) -> MultiCV:
    """`count` pretraining tasks and one that is held out."""
    drawn = [parts.pictures(blobs(number, 2 + number % 3), seed=0) for number in range(count + 1)]
    return MultiCV(drawn, held_out=(f"set-{count}",), seed=0, batch_size=6, filters=filters, norm=norm)


def given(family: MultiCV, seed: int = 0) -> Tensor:
    """Meta-parameters [n + e] in float64 whose laterals are not zero."""
    meta = torch.cat([family.initial(seed), progressive().visits.begin(family, seed)]).double()
    stream = torch.Generator().manual_seed(seed)
    return meta + 0.3 * torch.randn(meta.shape, generator=stream, dtype=meta.dtype)


def opened(family: MultiCV, meta: Tensor, task: int, seed: int = 5) -> tuple[MultiCVBatch, Turn]:
    tasks, new = family.batch([task], [seed]), task in family.ids("test")
    return tasks, progressive().visits.open(meta, tasks, steps=4, optimizer=SGD, seed=seed, new=new)


class Column(SimpleNamespace):
    """What the definition calls column k: named weights, and laterals[i][j] [C_i, C_{i-1}] from column j."""

    named: Mapping[str, Tensor]
    laterals: dict[int, dict[int, Tensor]]


def column(family: MultiCV, row: Tensor, sources: list[int]) -> Column:
    """A row [trunk | laterals by stage, channel made, column read, channel read | head] taken apart entry by entry."""
    trunk, n, at, laterals = family.layout.trunk, family.layout.n, family.layout.trunk, {}
    for i, (a, b) in enumerate(itertools.pairwise(family.network.channels), 1):
        block = row[at : at + b * len(sources) * a].reshape(b, len(sources), a)
        laterals[i] = {j: block[:, place] for place, j in enumerate(sources)}
        at += block.numel()
    assert len(row) - at == n - trunk
    return Column(named=family.layout.unflatten(torch.cat([row[:trunk], row[at:]])), laterals=laterals)


def normalized(y: Tensor, norm: str, scale: Tensor, shift: Tensor, rows: int | None) -> Tensor:
    if norm == "group":
        return F.group_norm(y, 1, scale, shift)
    if rows is None:
        return F.batch_norm(y, None, None, scale, shift, training=True)
    variance, mean = torch.var_mean(y[:rows], (0, 2, 3), correction=0, keepdim=True)
    return (y - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]


def naive(all_columns: Mapping[int, Column], k: int, images: Tensor, rows: int | None, norm: str = "batch") -> Tensor:
    """Logits of column k: every column stage by stage, laterals one by one, lateral inputs detached."""
    h = dict.fromkeys(all_columns, images)
    for i in range(4):
        after = {}
        for j, own in all_columns.items():
            weights = {name: own.named[f"blocks.{i}.{name}"] for name in ("conv.weight", "conv.bias")}
            y = F.conv2d(h[j], weights["conv.weight"], weights["conv.bias"], padding=1)
            for source, matrix in own.laterals.get(i, {}).items():
                y = y + torch.einsum("ca,bahw->bchw", matrix, h[source].detach())
            scale, shift = (own.named[f"blocks.{i}.norm.{name}"] for name in ("weight", "bias"))
            after[j] = F.max_pool2d(F.relu(normalized(y, norm, scale, shift, rows)), 2)
        h = after
    return h[k].flatten(1) @ all_columns[k].named["head.weight"].T + all_columns[k].named["head.bias"]


def naive_columns(family: MultiCV, meta: Tensor, count: int) -> dict[int, Column]:
    rows = meta[family.layout.n :].reshape(count, -1)
    return {k: column(family, rows[k], [j for j in range(count) if j != k]) for k in range(count)}


def naive_logits(
    family: MultiCV, meta: Tensor, task: int, vector: Tensor, images: Tensor, rows: int | None = None
) -> Tensor:
    """Logits in a task's turn, whose vector stands in for its row; a held-out task is one column more."""
    count = len(family.ids("train"))
    around = naive_columns(family, meta, count)
    around[task] = column(family, vector, [j for j in range(count) if j != task])
    norm = "group" if isinstance(family.module.blocks[0].norm, GroupNorm) else "batch"
    return naive(around, task, images, rows, norm)


def logits_of(family: MultiCV, meta: Tensor, task: int) -> tuple[Any, Tensor]:
    """The network that a turn walks, and where it starts."""
    tasks = family.batch([task], [5])
    parts = {name: getattr(tasks, name) for name in ("network", "heads", "head_count", "start")}
    bare = SimpleNamespace(**parts, through=lambda logits: logits)
    turn = progressive().visits.open(meta, bare, steps=4, optimizer=SGD, seed=5, new=task in family.ids("test"))
    return turn.tasks, turn.theta0


def away(theta: Tensor, seed: int, size: float = 0.2) -> Tensor:
    return theta + size * torch.randn(theta.shape, generator=torch.Generator().manual_seed(seed), dtype=theta.dtype)


def pictures(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("task", [0, 1, 2, 3])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_logits_are_those_of_the_definition(norm: Norm, task: int, rows: int | None, way: str) -> None:
    family = small(norm=norm)
    meta = given(family)
    logits, theta0 = logits_of(family, meta, task)
    vector = away(theta0, task)
    expected = naive_logits(family, meta, task, vector, pictures(), rows)
    torch.testing.assert_close(logits(vector, pictures(), rows), expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(logits(vector, pictures(), rows), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("execution", ["sequential", "batched"])
@pytest.mark.parametrize("task", [0, 2, 3])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_loss_and_gradient_are_those_of_the_definition(norm: Norm, task: int, execution: Any, way: str) -> None:
    family = small(norm=norm)
    meta = given(family)
    _, turn = opened(family, meta, task)
    vector = away(turn.theta0, task)
    batch = turn.tasks.sample(vector[None], 0)
    loss, _, grad = loss_and_gradient(turn.tasks.loss, vector[None], batch, execution)
    images, labels, classes = (part[0] for part in batch)
    point = vector.clone().requires_grad_()
    expected = F.cross_entropy(naive_logits(family, meta, task, point, images)[:, : int(classes)], labels)
    torch.testing.assert_close(loss[0], expected.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(grad[0], torch.autograd.grad(expected, point)[0], rtol=1e-9, atol=1e-10)
    trunk, laterals = family.layout.trunk, (3 if task == 3 else 2) * lateral_size(family.network)
    for part in grad[0].split([trunk, laterals, len(vector) - trunk - laterals]):  # and none of it is nothing
        assert part.abs().max() > 1e-4


@pytest.mark.parametrize("task", [1, 3])
def test_the_gradient_that_compilers_trace_is_the_same(task: int) -> None:
    family = small()
    turn = opened(family, given(family), task)[1]
    theta = turn.theta0[None]
    batch = turn.tasks.sample(theta, 0)
    traced = traceable_gradient(turn.tasks.loss, batch)(theta, batch)
    expected = loss_and_gradient(turn.tasks.loss, theta, batch, "sequential")
    torch.testing.assert_close(traced[2], expected[2], rtol=1e-9, atol=1e-10)


def test_what_others_make_of_a_column_is_an_input_to_it() -> None:
    """The full derivative, through the others and back, is another one."""
    family = small()
    meta = given(family)
    logits, theta0 = logits_of(family, meta, 0)
    ours = torch.autograd.functional.jvp(lambda v: logits(v, pictures(), None), theta0, torch.ones_like(theta0))[1]
    step = 1e-6 * torch.ones_like(theta0)
    through = (logits(theta0 + step, pictures(), None) - logits(theta0 - step, pictures(), None)) / 2e-6
    assert not torch.allclose(ours, through, rtol=1e-2)
    held, theta0 = logits_of(family, meta, 3)  # nobody reads a held-out task's column
    direction = torch.ones_like(theta0)
    ours = torch.autograd.functional.jvp(lambda v: held(v, pictures(), None), theta0, direction)[1]
    step = 1e-6 * direction
    through = (held(theta0 + step, pictures(), None) - held(theta0 - step, pictures(), None)) / 2e-6
    torch.testing.assert_close(ours, through, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", [0, 1, 2])
def test_a_turn_moves_its_own_row_and_nothing_else(task: int) -> None:
    family = small()
    meta = given(family)
    before = meta.clone()
    tasks, turn = opened(family, meta, task)
    walked = walk(
        turn.tasks, turn.theta0, steps=4, optimizer=turn.optimizer, folds={"it": progressive()}, execution="sequential"
    )
    after = progressive().visits.close(meta, tasks, walked.theta[0])
    assert torch.equal(meta, before)
    theta, rows = after[: family.layout.n], after[family.layout.n :].reshape(3, -1)
    assert torch.equal(theta, before[: family.layout.n])
    for k, (one, other) in enumerate(zip(rows, before[family.layout.n :].reshape(3, -1), strict=True)):
        assert torch.equal(one, other) == (k != task)
    assert torch.equal(rows[task], walked.theta[0])
    assert torch.equal(walked.results["it"], turn.theta0 - walked.theta)
    moved = (walked.theta[0] != turn.theta0).double()
    trunk, head = family.layout.trunk, family.layout.n - family.layout.trunk
    assert all(part.mean() > 0.4 for part in (moved[:trunk], moved[trunk:-head], moved[-head:]))


def test_the_next_turn_starts_from_what_the_last_one_left() -> None:
    family = small()
    meta = given(family)
    tasks, turn = opened(family, meta, 1)
    left = progressive().visits.close(meta, tasks, away(turn.theta0, 1))
    assert torch.equal(opened(family, left, 1)[1].theta0, away(turn.theta0, 1))
    for task in (0, 2, 3):
        logits, theta0 = logits_of(family, left, task)
        expected = naive_logits(family, left, task, theta0, pictures())
        torch.testing.assert_close(logits(theta0, pictures(), None), expected, rtol=1e-10, atol=1e-10)
        assert task == 3 or torch.equal(theta0, logits_of(family, meta, task)[1])


@pytest.mark.parametrize("task", [0, 2, 3])
def test_at_first_a_column_is_the_plain_network(task: int) -> None:
    family = small()
    theta = family.initial(0)
    meta = torch.cat([theta, progressive().visits.begin(family, 0)]).double()
    logits, theta0 = logits_of(family, meta, task)
    trunk, head = family.layout.trunk, family.layout.n - family.layout.trunk
    alone = torch.cat([theta0[:trunk], theta0[-head:]])
    expected = family.logits(alone, pictures())
    torch.testing.assert_close(logits(theta0, pictures(), None), expected, rtol=1e-10, atol=1e-10)
    if task == 3:  # where no pretraining starts
        assert torch.equal(alone, family.batch([3], [5]).start(theta.double()[None])[0])


def test_a_single_pretraining_task_has_nothing_to_read() -> None:
    family = small(1)
    meta = given(family)
    assert len(meta) == 2 * family.layout.n
    logits, theta0 = logits_of(family, meta, 0)
    torch.testing.assert_close(logits(theta0, pictures(), None), family.logits(theta0, pictures()))
    held, theta0 = logits_of(family, meta, 1)
    assert len(theta0) == family.layout.n + lateral_size(family.network)
    vector = away(theta0, 0)
    expected = naive_logits(family, meta, 1, vector, pictures())
    torch.testing.assert_close(held(vector, pictures(), None), expected, rtol=1e-10, atol=1e-10)


def test_a_held_out_task_reads_every_pretraining_column_and_no_head() -> None:
    family = small()
    meta, trunk, n = given(family), family.layout.trunk, family.layout.n
    logits, theta0 = logits_of(family, meta, 3)
    vector = away(theta0, 3)
    row = (len(meta) - n) // 3
    for k in range(3):
        for first, last, reads in ((0, trunk, True), (trunk, row - n + trunk, True), (row - n + trunk, row, False)):
            changed = meta.clone()
            changed[n + k * row + first : n + k * row + last] += 0.5
            other = logits_of(family, changed, 3)[0](vector, pictures(), None)
            assert torch.allclose(other, logits(vector, pictures(), None)) != reads


def test_turns_keep_the_contract_of_tasks() -> None:
    family = small()
    for task in (1, 3):
        turn = opened(family, given(family), task)[1]
        check_tasks(turn.tasks, turn.theta0[None])


@pytest.mark.parametrize("task", [1, 3])
def test_a_turn_learns_and_is_the_same_twice(task: int) -> None:
    family = small(filters=8)
    meta = torch.cat([family.initial(0), progressive().visits.begin(family, 0)])

    def walked() -> tuple[Tensor, Tensor]:
        turn = opened(family, meta, task)[1]
        found = walk(turn.tasks, turn.theta0, steps=40, optimizer=turn.optimizer, execution="sequential")
        return found.theta, turn.tasks.score(found.theta)["final_train_error"]

    (theta, error), (again, _) = walked(), walked()
    assert torch.equal(theta, again)
    assert error < 20  # percent, of two or three classes


def test_columns_are_drawn_each_on_its_own_and_from_the_seed() -> None:
    family = small()
    begin = progressive().visits.begin
    rows = begin(family, 0).reshape(3, -1)
    assert torch.equal(rows.flatten(), begin(family, 0)) and not torch.equal(rows.flatten(), begin(family, 1))
    trunk, head = family.layout.trunk, family.layout.n - family.layout.trunk
    for one, other in itertools.combinations([*(row[:trunk] for row in rows), family.initial(0)[:trunk]], 2):
        assert not torch.equal(one, other)
    assert not torch.equal(rows[0, -head:], rows[1, -head:])
    assert not rows[:, trunk:-head].any()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_number_of_parameters(count: int) -> None:
    family = small(count)
    a, b, c, d = family.network.channels
    expected = count * (family.layout.n + (count - 1) * (a * b + b * c + c * d))
    assert parameters(family.network, count) == len(progressive().visits.begin(family, 0)) == expected


def test_in_the_papers_setting_there_are_more_than_eight_times_as_many() -> None:
    network = small(filters=64).network
    assert parameters(network, 9) > 8 * parameters(network, 1)


def test_a_family_without_stages_is_refused() -> None:
    with pytest.raises(UsageError, match="Quadratic"):
        progressive().visits.begin(Quadratic(dim=4, count=4), 0)
