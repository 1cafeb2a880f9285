"""`leap evaluate --paths`: what it writes, that it changes no figure, and what it refuses before anything walks."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from leap.cli import build, kept_paths, lifecycle, main
from leap.report import path_pictures
from leap.report.path_pictures import caption, paths_picture
from leap.run import RunFolder

QUICK = ["--train.meta-steps", "3", "--tracking", "none", "--evaluate.repetitions", "2", "--evaluate.steps", "40"]


def leap(*arguments: Any) -> int:
    return main.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    assert leap("train", "quadratic", *QUICK, "--out", run) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def drawn(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "pictures" / "paths.json").read_text())
    return found


def test_it_draws_both_initializations_and_changes_no_figure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leap("evaluate", run) == 0
    before = (run / "evaluation.json").read_bytes()
    assert not (run / "pictures" / "paths.png").exists()
    assert leap("evaluate", run, "--paths") == 0
    assert (run / "evaluation.json").read_bytes() == before
    assert "paths.png" in capsys.readouterr().out
    assert (run / "pictures" / "paths.png").read_bytes()[:4] == b"\x89PNG"
    found = drawn(run)
    assert found["asked"] == json.loads(before)["asked"]
    assert set(found["initializations"]) == {"leap", "none"} and found["parameters"] == 5
    for held in found["initializations"].values():
        assert [walk["task"] for walk in held["walks"]] == json.loads(before)["tasks"] and held["diverged"] == []
        for walk in held["walks"]:
            assert walk["steps"] == list(range(0, 41, 2)) and len(walk["xy"]) == 21
            assert math.hypot(*walk["xy"][0]) < 1e-9
            assert walk["distance_in_plane"] <= walk["distance"] * (1 + 1e-9)
            assert walk["length_in_plane"] <= walk["length"] * (1 + 1e-9)
            assert walk["distance_in_plane"] == pytest.approx(math.dist(walk["xy"][0], walk["xy"][-1]))


def test_the_walks_drawn_are_those_that_are_scored(run: Path) -> None:
    """Bowls have a closed form: the walk's end follows from where it starts."""
    assert leap("evaluate", run, "--paths", "--evaluate.steps", "1") == 0
    settings = lifecycle.settings_of(RunFolder.open(run))
    family = build.family(settings, "cpu")
    start = family.initial(settings.seed)
    walks = drawn(run)["initializations"]["none"]["walks"]
    for task, walk in zip(family.ids("test"), walks, strict=True):
        end = start - settings.inner.lr * family.curvature[task] @ (start - family.minimum[task])
        assert walk["distance"] == pytest.approx(float((end - start).norm()), rel=1e-5)
        assert walk["steps"] == [0, 1]


def test_walks_that_are_taken_one_by_one_are_drawn_alike(run: Path) -> None:
    assert leap("evaluate", run, "--paths") == 0
    together = drawn(run)
    settings = lifecycle.settings_of(RunFolder.open(run))
    opened = RunFolder.open(run)
    alone = dataclasses.replace(settings, train=dataclasses.replace(settings.train, execution="batched"))
    lifecycle.evaluate(opened, alone, paths=True)
    apart = drawn(run)
    for name, held in together["initializations"].items():
        for a, b in zip(held["walks"], apart["initializations"][name]["walks"], strict=True):
            torch.testing.assert_close(torch.tensor(a["xy"]), torch.tensor(b["xy"]), rtol=1e-3, atol=1e-4)


def test_a_random_initialization_that_is_remembered_is_walked_again_for_its_points(run: Path) -> None:
    settings, known = lifecycle.settings_of(RunFolder.open(run)), dict[str, Any]()
    lifecycle.evaluate(RunFolder.open(run), settings, known=known)
    lifecycle.evaluate(RunFolder.open(run), settings, known=known, paths=True)
    assert len(drawn(run)["initializations"]["none"]["walks"]) == 10


def test_a_run_without_a_learner_has_one_panel(tmp_path: Path) -> None:
    assert leap("train", "quadratic", "learner/none", *QUICK, "--out", tmp_path / "run") == 0
    assert leap("evaluate", tmp_path / "run", "--paths") == 0
    found = drawn(tmp_path / "run")
    assert list(found["initializations"]) == ["none"] and len(found["initializations"]["none"]["walks"]) == 10
    assert found["initializations_apart"] is None and "apart" not in caption(found)


def test_walks_that_diverge_are_counted_and_left_out(run: Path) -> None:
    opened = RunFolder.open(run)
    family_settings = lifecycle.settings_of(opened)
    wild = dataclasses.replace(family_settings, inner=dataclasses.replace(family_settings.inner, lr=1e30))
    lifecycle.evaluate(opened, wild, paths=True)
    found = drawn(run)
    assert all(len(held["diverged"]) == 10 and not held["walks"] for held in found["initializations"].values())
    assert "diverged: 20" in caption(found) and (run / "pictures" / "paths.png").stat().st_size > 0


def test_a_learner_that_keeps_parameters_for_each_task_is_refused(tmp_path: Path, capsys) -> None:
    base = [
        "multi_cv/embedded",
        "learner/hat.yaml",
        "--tasks.names",
        "shapes",
        "digits",
        "textures",
        "--tasks.most",
        "100",
    ]
    base += ["--tasks.most-test", "50", "--model.filters", "4", "--evaluate.epochs", "1", "--tracking", "none"]
    base += ["--train.meta-steps", "1", "--train.inner-steps", "2"]
    assert leap("train", *base, "--out", tmp_path / "run") == 0
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    assert leap("evaluate", tmp_path / "run", "--paths") == 2
    assert "hat adds some of its own for each task" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_points_are_bounded_by_the_memory_they_take(run: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(kept_paths, "MOST_BYTES", 20 * 5 * 4 * 7)
    assert leap("evaluate", run, "--paths") == 0
    assert all(len(walk["steps"]) == 6 for walk in drawn(run)["initializations"]["none"]["walks"])
    monkeypatch.setattr(kept_paths, "MOST_BYTES", 20 * 5 * 4 * 3 - 1)
    capsys.readouterr()
    assert leap("evaluate", run, "--paths") == 2
    assert "only 2 of each" in capsys.readouterr().err


def document(tasks: int, sizes: tuple[float, float] = (1.0, 1.0)) -> dict[str, Any]:
    """What a paths.json may hold, with names that pictures must not read as mathematics."""
    held: dict[str, Any] = {}
    for name, size in zip(("leap", "none"), sizes, strict=True):
        xy = [[[0.0, 0.0], [size * math.cos(t), size * math.sin(t)]] for t in range(tasks)]
        common = {"steps": [0, 9], "distance": 2 * size, "distance_in_plane": size}
        walks = [{"task": f"$x_{t}^ <script>", "xy": points, **common} for t, points in enumerate(xy)]
        held[name] = {"walks": walks, "diverged": []}
    about = {"split": "test", "parameters": 12345, "shares": [0.5, 0.25], "initializations_apart": 3.0}
    return {**about, "initializations": held}


def test_pictures_hold_whatever_there_is(tmp_path: Path) -> None:
    for number, one in enumerate((document(1), document(20), document(45), document(3, (0.0, 0.0)), document(0))):
        paths_picture(one, tmp_path / f"{number}.png")
        again = paths_picture(one, tmp_path / "again.png").read_bytes()
        assert (tmp_path / f"{number}.png").read_bytes() == again
    assert "looks 50% as long as it is" in caption(document(4)) and "12,345" in caption(document(4))


def test_both_panels_have_one_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def keep(out: Path, width: float, height: float, draw: Any) -> Path:
        from matplotlib.figure import Figure

        seen.append(Figure(figsize=(width, height)))
        draw(seen[0])
        return out

    monkeypatch.setattr(path_pictures, "write_png", keep)
    paths_picture(document(5, (1.0, 4.0)), tmp_path / "paths.png")
    first, second = seen[0].axes
    assert first.get_xlim() == second.get_xlim() and first.get_ylim() == second.get_ylim()
    assert first.get_aspect() == second.get_aspect() == 1 and first.get_xlim()[1] >= 4
    assert first.get_title(loc="left") + first.get_title() == "initialization of leap"
    assert "50% of the variance" in first.get_xlabel() and "25% of the variance" in first.get_ylabel()
