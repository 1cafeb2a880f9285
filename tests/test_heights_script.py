"""The script that says what the height of Leap's path weighs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from families import Waves

from leap import learners, optim
from leap.errors import UsageError
from leap.heights import HEIGHTS
from leap.walk import Fold, walk

FILE = Path(__file__).parents[1] / "scripts" / "heights.py"
spec = importlib.util.spec_from_file_location("heights_script", FILE)
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

GAMES = ["tiny-games", "--tasks.train", "catch", "seek", "--tasks.environments", "2", "--train.inner_steps", "6"]


def test_it_prints_a_row_for_every_metric_and_height(capsys: pytest.CaptureFixture[str]) -> None:
    script.main([*GAMES, "--seeds", "0", "1"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "metric" and [row.split()[:2] for row in rows] == [
        [metric, name] for metric in ("energy", "length") for name in HEIGHTS
    ]
    assert all("[" in row and "nan" not in row for row in rows)


def test_shortened_gradients_stand_beside_those_that_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    script.main([*GAMES, "--seeds", "0", "--gradient-clip", "0.001"])
    rows = [row.split("  ") for row in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 4 * len(HEIGHTS)
    plain, short = ([row for row in rows if told in row or f" {told}" in row] for told in ("as they are", "to 0.001"))
    for one, other in zip(plain, short, strict=True):
        weigh = [float(next(cell for cell in row[3:] if "(" in cell).split()[0]) for row in (one, other)]
        assert weigh[1] < weigh[0] / 10


def test_tasks_without_a_return_leave_that_height_out(capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["quadratic", "--train.inner_steps", "5", "--seeds", "0"])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 7 and not any("return" in row or "[" in row for row in rows)
    with pytest.raises(UsageError, match="tasks"):
        script.main(["quadratic", "--taskz", "1"])


@pytest.mark.parametrize("metric", ["length", "energy"])
@pytest.mark.parametrize("name", ["loss", "scaled"])
def test_the_parameter_term_is_that_of_the_segments_on_the_graph_of_f(metric: Any, name: Any) -> None:
    """For the energy it is twice Reptile's."""
    tasks, moves = Waves(), list[torch.Tensor]()
    folds = {
        "still": script.still(name, metric), "reptile": learners.reptile(), "rises": script.rises(name),
        "whole": learners.leap(metric, height=name),
        "moves": Fold(lambda theta0: None, lambda _, s: moves.append(s.theta_next - s.theta), lambda _, end: end.loss),
    }  # fmt: skip
    found = walk(tasks, tasks.theta0, steps=6, optimizer=optim.adam(0.05), folds=folds).results
    p, expected = {"length": 1, "energy": 2}[metric], torch.zeros_like(found["still"])
    for delta, rise in zip(moves, found["rises"].unbind(dim=1), strict=True):
        expected -= p * delta * torch.hypot(delta.norm(dim=1), rise)[:, None] ** (p - 2)
    torch.testing.assert_close(found["still"], expected)
    assert not torch.allclose(found["still"], found["whole"])
    if metric == "energy":
        torch.testing.assert_close(found["still"], 2 * found["reptile"])


def test_autocorrelation() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 20000, generator=draw, dtype=torch.float64)
    found = script.autocorrelation(torch.cat([noise.diff(), noise[:, 1:], torch.arange(19999.0).double()[None]]))
    torch.testing.assert_close(found, torch.tensor([-0.5, 0.0, 1.0], dtype=torch.float64), rtol=0, atol=0.02)
