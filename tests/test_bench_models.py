"""The rows about networks time what they are named for, on equal work. No test looks at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from leap.bench import rows_models as rows
from leap.bench.row import carry_out
from leap.bench.rows_learners import PlainConv4
from leap.bench.rows_walk import Workload
from tasks import glyphs
from tasks.alphabets import Alphabets, Protocol


@pytest.fixture(scope="module")
def work() -> Workload:
    family = Alphabets(glyphs.load(), Protocol(train=2, pool=2), seed=0, filters=4)
    return Workload(family, PlainConv4(20, 4), tasks=2, steps=3, execution="sequential", name="tiny")


def flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts]).double()


def test_both_networks_have_the_same_derivatives(work: Workload) -> None:
    plain, ours = rows.losses(work)
    for derivative in (rows.gradient, rows.hessian_product):
        one, other = flat(derivative(ours)), flat(derivative(plain))
        assert one.norm() > 1e-3
        assert (one - other).norm() < 1e-3 * other.norm()


def test_the_row_of_derivatives_runs(work: Workload) -> None:
    found = carry_out(rows.derivatives_row(work), seconds=0.05)
    assert set(found["results"]) == {"plain gradient", "gradient", "plain Hessian product", "Hessian product"}
    assert found["goals"][0]["most"] == 0.5
    assert "K" not in found["setting"]


def test_the_memory_row_measures_what_grows(work: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "memory", lambda own: 100.0 + 7 * own.steps)
    row = rows.maml_memory_row(work, depths=(1, 4, 16))
    assert row.figures[-1].measure() == pytest.approx((100 + 7 * 16) / (100 + 7 * 4))
    assert row.goals[0].most == 2.0
    assert row.setting["K"] == [1, 4, 16]


def test_memory_of_a_longer_walk_is_measured_in_a_process_of_its_own(work: Workload) -> None:
    used = rows.memory(replace(work, steps=2))
    assert 0 <= used < 2**30
