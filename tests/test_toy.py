"""The surfaces over a plane, and the picture that `leap toy` learns and draws on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from leap import learners, optim
from leap.batching import loss_and_gradient
from leap.cli import toy
from leap.errors import UsageError
from leap.metrics.path import path_length
from leap.report.toy_picture import toy_picture
from leap.testing import check_family
from leap.walk import walk
from tasks.surfaces import SPAN, Surfaces

EVERY = range(6)


def test_surfaces_keep_the_contract_of_a_family() -> None:
    check_family(Surfaces())


def test_gradients_agree_with_finite_differences() -> None:
    surfaces, h = Surfaces(), 1e-6
    points = torch.rand(40, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6 - 3
    tasks = surfaces.batch(EVERY, EVERY)
    for point in points:
        theta = point.expand(6, 2)
        loss, _, grad = loss_and_gradient(tasks.loss, theta, tasks.sample(theta, 0), "batched")
        torch.testing.assert_close(loss, surfaces.heights(theta, EVERY))
        for axis in range(2):
            away = h * torch.eye(2, dtype=torch.float64)[axis]
            slope = (surfaces.heights(theta + away, EVERY) - surfaces.heights(theta - away, EVERY)) / (2 * h)
            torch.testing.assert_close(grad[:, axis], slope, rtol=1e-7, atol=1e-8)


def test_the_formula_of_the_docstring_is_the_surface() -> None:
    surfaces = Surfaces(spread=0.2)
    x, y, m = -0.4, 1.3, 1.5  # surface B

    def rho(u: float) -> float:
        return float(np.sqrt(1 + u * u) - 1)

    floor = 1.0 * np.sin(1.2 * x) + 0.2 * np.sin(5 * m)
    expected = 0.7 * rho((y - floor) / 0.4) + 0.9 * rho((x - m) / 0.7)
    found = surfaces.heights(torch.tensor([[x, y]], dtype=torch.float64), [1])
    assert float(found) == pytest.approx(expected)


def test_each_surface_is_zero_at_its_minimum_and_nowhere_lower() -> None:
    surfaces = Surfaces()
    left, right, bottom, top = SPAN
    x, y = torch.meshgrid(torch.linspace(left, right, 201), torch.linspace(bottom, top, 201), indexing="ij")
    heights = surfaces.heights(torch.stack([x, y], dim=-1).double().unsqueeze(2), EVERY)
    lowest = heights.flatten(0, 1).argmin(dim=0)
    points = torch.stack([x, y], dim=-1).reshape(-1, 2).double()
    assert bool((heights > 0).all())
    assert float((points[lowest] - surfaces.minimum).abs().max()) < 0.05
    assert bool((surfaces.heights(surfaces.minimum, EVERY) == 0).all())


def test_random_initializations_lie_in_the_picture_far_from_every_minimum() -> None:
    surfaces = Surfaces()
    starts = torch.stack([surfaces.initial(seed) for seed in range(100)])
    assert float(starts[:, 0].max()) < -1 and float(starts[:, 0].min()) > SPAN[0]
    assert float(starts[:, 1].min()) > 0.9 * SPAN[2] and float(starts[:, 1].max()) < 0.65 * SPAN[3]
    assert len(starts.unique(dim=0)) == 100


def test_a_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="no split 'tests'"):
        Surfaces().ids("tests")


@pytest.mark.parametrize("seed", range(5))
def test_leap_shortens_every_walk(seed: int) -> None:
    found = toy.learn(Surfaces(), seed=seed)
    assert found["shortened"] and found["length"][-1] < 0.4 * found["length"][0]
    for task in found["tasks"]:
        before, after = task["before"], task["after"]
        assert after["length"] < before["length"] and after["energy"] < before["energy"]
        assert after["loss_last"] < 0.05 and after["loss_last"] <= before["loss_last"]


@pytest.mark.parametrize("learner", ["leap", "leap-length", "maml"])
def test_the_numbers_are_those_of_the_walk(learner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "META_STEPS", 2)
    surfaces, steps = Surfaces(), 7
    found = toy.learn(surfaces, learner, seed=3, steps=steps)
    theta0 = torch.tensor(found["theta0"], dtype=torch.float64)
    assert theta0.shape == (3, 2) and torch.equal(theta0[0], surfaces.initial(3))
    fold = {"leap": learners.leap("energy"), "leap-length": learners.leap(), "maml": learners.maml()}[learner]
    for at, when in ((0, "before"), (2, "after")):
        folds = {"length": path_length(), "learner": fold}
        walked = walk(
            surfaces.batch(range(3), range(3)), theta0[at], steps=steps, optimizer=optim.sgd(0.1), folds=folds
        )
        lengths = [task[when]["length"] for task in found["tasks"] if task["split"] == "train"]
        assert lengths == pytest.approx(walked.results["length"].tolist())
        assert found["length"][[0, 2].index(at)] == pytest.approx(float(walked.results["length"].mean()))
        ends = [task[when]["path"][-1] for task in found["tasks"][:3]]
        torch.testing.assert_close(torch.tensor(ends, dtype=torch.float64), walked.theta)
        assert all(len(task[when]["path"]) == steps + 1 for task in found["tasks"])
        if at == 0:
            gradient = walked.results["learner"]
            pulled = theta0[0] - found["meta"]["lr"] * gradient.mean(dim=0)
            torch.testing.assert_close(theta0[1], pulled)
            torch.testing.assert_close(
                torch.tensor(found["pulls"]["sum"]).double(), -gradient.mean(dim=0), rtol=1e-6, atol=0
            )
            if learner == "maml":
                assert found["pulls"]["increments"] is None
            else:
                parts = torch.tensor(found["pulls"]["increments"], dtype=torch.float64)
                assert parts.shape == (3, steps, 2)
                torch.testing.assert_close(parts.sum(dim=1), -gradient)


def test_every_pull_of_leap_points_along_its_own_step() -> None:
    found = toy._pulls(Surfaces(), "leap", Surfaces().initial(0), 20)
    walked = toy._walked(Surfaces(), range(3), Surfaces().initial(0), 20)
    pulls, steps = torch.tensor(found["increments"], dtype=torch.float64), walked.path.diff(dim=1)
    cosines = torch.nn.functional.cosine_similarity(pulls, steps, dim=-1)
    assert float(cosines.min()) > 1 - 1e-9


def test_a_walk_that_does_not_become_shorter_is_said(tmp_path: Path) -> None:
    found = _still()
    assert not found["shortened"]
    assert "NOT shorter" in toy._text(found)
    assert toy_picture(found, lambda x, y, task: x * x + y * y, SPAN, tmp_path / "toy.png").stat().st_size > 10_000


def _still() -> dict:
    """What a learner that moves nothing finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "META_STEPS", 4)
        patch.setitem(toy.RATES, "reptile", 0.0)
        found = toy.learn(Surfaces(), "reptile", steps=3)
    return found


def test_the_command_writes_picture_and_numbers(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(toy, "META_STEPS", 3)
    for folder in ("a", "b"):
        assert toy.main(["--out", str(tmp_path / folder), "--seed", "1", "--steps", "6", "--learner", "reptile"]) == 0
    said = capsys.readouterr().out
    assert "expected path length" in said and "surface F  held out" in said
    first, again = tmp_path / "a", tmp_path / "b"
    assert (first / "toy.png").read_bytes() == (again / "toy.png").read_bytes()
    assert (first / "toy.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads((first / "toy.json").read_text())
    assert found["seed"] == 1 and found["learner"] == "reptile" and found["inner"]["steps"] == 6
    assert sorted(path.name for path in first.iterdir()) == ["toy.json", "toy.png"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--seed", "²"], "--seed must be a whole number"),
        (["--steps", "1"], "--steps must be a whole number from 2"),
        (["--steps", "9" * 5000], "--steps must be a whole number"),
        (["--learner", "lep"], "did you mean leap"),
        (["--learner", "sgd"], "one of leap, leap-length, reptile, fomaml, maml"),
        (["--sed", "1"], "did you mean --seed"),
        (["runs/x"], "takes no files, got 'runs/x'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(argv: list[str], said: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        toy.main(argv)
    assert not list(tmp_path.iterdir())


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(option.name in said for option in toy.OPTIONS)
