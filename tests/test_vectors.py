"""Passes over parameters in C against torch's expressions, and when they do not serve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from leap import learners, native, optim, vectors
from leap.walk import walk

SIZES = [(1, 1), (3, 7), (2, 4096), (3, 10_001)]


@pytest.fixture(autouse=True)
def without_a_graph() -> Iterator[None]:
    with torch.no_grad():
        if vectors.distance(torch.zeros(1, 1), torch.zeros(1, 1)) is None:
            pytest.skip(f"nothing compiles here: {native.compiler()}")
        yield


def drawn(size: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Rows that are part of longer ones, as the shared parameters of networks with heads are."""
    stream = torch.Generator().manual_seed(seed)
    rows, n = size
    return torch.randn(rows, n + 5, generator=stream, dtype=torch.float64).to(dtype)[:, :n]


def close(one: Tensor | None, other: Tensor) -> None:
    assert one is not None
    share = 1e-5 if other.dtype == torch.float32 else 1e-13
    torch.testing.assert_close(one, other, rtol=share, atol=share)


@pytest.mark.parametrize("size", SIZES)
def test_distance(size: tuple[int, int], dtype: torch.dtype) -> None:
    x, y = drawn(size, dtype, 0), drawn(size, dtype, 1)
    close(vectors.distance(x, y), torch.linalg.vector_norm(y - x, dim=-1))


@pytest.mark.parametrize("style", ["torch", "tf"])
@pytest.mark.parametrize("size", SIZES)
def test_rmsprop(style: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    """Three steps with a schedule, beside the differentiable expression of the same optimizer."""
    optimizer = optim.rmsprop(0.3, alpha=0.9, eps=1e-3, style=style, schedule=lambda step: 1 / (1 + step))  # type: ignore[arg-type]
    theta = drawn(size, dtype, 0).contiguous()
    ours, reference = theta, theta
    state, other = (optimizer.init(theta, theta[:, :0]) for _ in range(2))
    for step in range(3):
        grad = drawn(size, dtype, step + 1).contiguous()
        found = vectors.rmsprop(ours, grad, state[0], rate=0.3 / (1 + step), alpha=0.9, eps=1e-3, inside=style == "tf")
        ours, state = optimizer.update(state, grad, ours, step)
        assert found is not None and torch.equal(found[0], ours) and torch.equal(found[1], state[0])
        with torch.enable_grad():
            reference, other = optimizer.update(other, grad, reference, step)
        close(ours, reference)
        close(state[0], other[0])
    assert torch.equal(theta, drawn(size, dtype, 0))  # what is given stays as it is


@pytest.mark.parametrize("stabilizer", [True, False])
@pytest.mark.parametrize("loss", [True, False])
@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("with_factor", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_leaps_increment_from_its_formula(
    size: tuple[int, int], with_factor: bool, length: bool, loss: bool, stabilizer: bool, dtype: torch.dtype
) -> None:
    total, x, y, g = (drawn(size, dtype, seed) for seed in range(4))
    rise, factor = drawn((2, size[0]), dtype, 4).unbind()
    beside = total._base
    assert beside is not None and (size[0] == 1 or (rise < 0).any())
    margin = beside[:, size[1] :].clone()
    delta, s = y - x, (-rise.abs() if stabilizer else rise) * (factor if with_factor else 1)
    if loss:
        norm = torch.hypot(torch.linalg.vector_norm(delta, dim=-1), rise)
        step = delta + s[:, None] * g
    else:
        norm, step, g = torch.linalg.vector_norm(delta, dim=-1), delta, g * torch.nan  # it is not read then
    expected = total - (1 / norm if length else torch.full_like(norm, 2))[:, None] * step
    found = vectors.pull(
        total, x, y, g, rise, factor if with_factor else None, length=length, loss=loss, stabilizer=stabilizer
    )
    assert found is total
    close(total, expected)
    assert torch.equal(beside[:, size[1] :], margin)


def test_a_segment_of_no_length_adds_nothing(dtype: torch.dtype) -> None:
    x, total, none = drawn((2, 5), dtype, 0), torch.zeros(2, 5, dtype=dtype), torch.zeros(2, dtype=dtype)
    vectors.pull(total, x, x, x, none, None, length=True, loss=True, stabilizer=True)
    assert torch.equal(total, torch.zeros_like(total))


@pytest.mark.parametrize("metric", ["length", "energy"])
@pytest.mark.parametrize("loss_coordinate", [True, False])
def test_leaps_meta_gradient_is_the_same_by_torch(
    metric: str, loss_coordinate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    height = "scaled" if loss_coordinate else "loss"
    fold = learners.leap(metric, loss_coordinate=loss_coordinate, height=height)  # type: ignore[arg-type]

    class Valleys:
        """Sums of fourth powers, of which the second task's is steeper."""

        def sample(self, theta: Tensor, step: int) -> Tensor:
            return torch.tensor([1.0, 2.0], dtype=torch.float64)

        def loss(self, theta: Tensor, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return batch * theta.pow(4).sum(), {}

    def result() -> Tensor:
        start = drawn((1, 6), torch.float64, 0)[0]
        found = walk(Valleys(), start.expand(2, -1), steps=5, optimizer=optim.sgd(0.01), folds={"leap": fold})
        return found.results["leap"]

    calls: list[int] = []
    real = vectors.pull
    monkeypatch.setattr(vectors, "pull", lambda *given, **which: (calls.append(1), real(*given, **which))[1])
    ours = result()
    assert len(calls) == 5
    monkeypatch.setattr(vectors, "_serving", lambda *rows: None)
    close(ours, result())
    assert float(ours.norm()) > 0


def test_a_gradient_that_is_no_number_shows(dtype: torch.dtype) -> None:
    size = (1, 5)
    g = drawn(size, dtype, 0)
    g[0, 2] = torch.nan
    one = torch.ones(1, dtype=dtype)
    total = torch.zeros(size, dtype=dtype)
    zero = torch.zeros(size, dtype=dtype)
    vectors.pull(total, zero, zero + 1, g, one, None, length=False, loss=True, stabilizer=True)
    assert total.isnan().sum() == 1
    theta, second = torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype)
    found = vectors.rmsprop(theta, g.contiguous(), second, rate=1, alpha=0.5, eps=1e-8, inside=False)
    assert found is not None and found[0].isnan().sum() == 1
    assert vectors.distance(g, theta).isnan().all()  # type: ignore[union-attr]


def test_where_they_do_not_serve() -> None:
    x = torch.zeros(2, 3)
    assert vectors.distance(x, x) is not None
    for other in (x.double(), x[:1], x.to("meta"), x.bfloat16(), x.t().contiguous().t()):
        assert vectors.distance(x, other) is None
    assert vectors.distance(x[0], x[0]) is None  # no rows
    assert vectors.rmsprop(x[:, :2], x[:, :2], x[:, :2], rate=1, alpha=0, eps=1, inside=True) is None
    with torch.enable_grad():
        assert vectors.distance(x, x) is None
    with FlopCounterMode(display=False):
        assert vectors.distance(x, x) is None
    assert torch.func.vmap(lambda a: a if vectors.distance(x, x) is None else a + 1)(x).sum() == 0


def test_the_number_of_threads_changes_nothing(dtype: torch.dtype) -> None:
    x, y = drawn((3, 50_000), dtype, 0), drawn((3, 50_000), dtype, 1)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(vectors.distance(x, y))
    finally:
        torch.set_num_threads(before)
    assert found[0] is not None and found[1] is not None and torch.equal(found[0], found[1])
