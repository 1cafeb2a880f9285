"""The benchmark's rows about scores: they measure what they are named for. No test looks at a time."""

from __future__ import annotations

import time

import pytest
import torch

from leap.bench import rows_scores as rows
from leap.bench.row import Row, carry_out
from leap.metrics.hscore import h_score
from leap.metrics.logme import logme


@pytest.mark.parametrize("make", [rows.h_score_row, rows.logme_row])
def test_the_rows_stand_at_the_goals_size(make: type) -> None:
    assert rows.Size() == (50_000, 2048, 100)
    setting = make("cpu", rows.TINY).setting
    assert (setting["samples"], setting["columns"], setting["classes"]) == rows.TINY


@pytest.mark.parametrize(("make", "goals"), [(rows.h_score_row, 2), (rows.logme_row, 1)])
def test_every_row_runs_and_has_its_goals(make: type, goals: int) -> None:
    row: Row = make("cpu", rows.TINY)
    found = carry_out(row, seconds=0.05, clock=time.perf_counter, judged=lambda goal: False)
    assert len(found["goals"]) == goals and all(goal["verdict"] == "not judged" for goal in found["goals"])
    assert all(min(result["times"]) > 0 for result in found["results"].values())
    assert found["reference"] in found["results"]
    (figure,) = found["figures"].values()
    assert figure["value"] > 0


def test_the_works_do_what_they_are_named_for() -> None:
    features, labels = rows.data(rows.TINY, "cpu")
    assert features.dtype == torch.float32
    for score in (h_score, logme):
        assert rows.score_work(score, rows.TINY, "cpu")() == score(features, labels)
    z = features.double().numpy()
    product = rows.product_work(rows.TINY, "cpu", torch.float64)()
    assert isinstance(product, torch.Tensor) and product.dtype == torch.float64
    torch.testing.assert_close(product, torch.from_numpy(z.T @ z))


def test_features_are_converted_in_blocks() -> None:
    """A float64 copy of all features would be twice their size; a block is an eighth of that or less."""
    assert rows.memory(h_score, rows.Size(samples=2**17, columns=256, classes=4), "cpu") < 1.8
