"""`leap evaluate --video`: what it writes, that it changes no figure, and what it refuses before anything walks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from leap.cli import filming, lifecycle, main
from leap.run import RunFolder

TINY = ["--tasks.train", "seek", "--tasks.test", "catch", "follow", "--tasks.environments", "4"]
TINY += ["--tasks.evaluation-episodes", "4", "--train.meta-batch", "1", "--evaluate.steps", "3"]
QUICK = ["--train.meta-steps", "1", "--train.inner-steps", "2", "--tracking", "none", "--evaluate.repetitions", "2"]


def listed(run: Path) -> list[dict[str, Any]]:
    """What the index says, of files that are all there."""
    entries: list[dict[str, Any]] = json.loads((run / "videos" / "index.json").read_text())["videos"]
    assert all((run / "videos" / entry["file"]).is_file() for entry in entries)
    return entries


def leap(*arguments: Any) -> int:
    return main.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    assert leap("train", "tiny-games", *TINY, *QUICK, "--out", run) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_it_films_both_initializations_and_changes_no_figure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leap("evaluate", run) == 0
    before = (run / "evaluation.json").read_bytes()
    assert not (run / "videos").exists()
    assert leap("evaluate", run, "--video", 2) == 0
    assert (run / "evaluation.json").read_bytes() == before
    assert str(run / "videos") in capsys.readouterr().out

    document = json.loads((run / "videos" / "index.json").read_text())
    assert (document["run"], document["seed"], document["steps"], document["seconds"]) == ("run", 0, 3, 60.0)
    told = document["videos"]
    assert {(one["game"], one["initialization"], one["episode"]) for one in told} == {
        (game, start, episode) for game in ("catch", "follow") for start in ("leap", "none") for episode in (1, 2)
    }
    assert len(told) == 8 and all(one["evaluation_seed"] == 0 for one in told)
    for one in told:
        score = f"{one['score']:.10g}"
        assert one["file"] == f"{one['game']}-{one['initialization']}-{one['episode']}-{score}.webp"
        assert one["length"] == one["shown"] == one["frames"] - 1 == {"catch": 7, "follow": 32}[one["game"]]
        with Image.open(run / "videos" / one["file"]) as image:
            assert (image.format, image.size, image.is_animated) == ("WEBP", (160, 160), True)


def test_films_of_two_initializations_begin_alike_and_two_episodes_do_not(run: Path) -> None:
    assert leap("evaluate", run, "--video", 3) == 0
    first = {}
    for one in listed(run):
        with Image.open(run / "videos" / one["file"]) as image:
            first[one["game"], one["initialization"], one["episode"]] = image.convert("RGB").tobytes()
    for game in ("catch", "follow"):
        assert all(first[game, "leap", episode] == first[game, "none", episode] for episode in (1, 2, 3))
        assert len({first[game, "none", episode] for episode in (1, 2, 3)}) > 1


def test_it_films_where_the_walk_ended(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks.film

    filmed: dict[tuple[str, int], torch.Tensor] = {}
    order: list[str] = []
    ends: dict[tuple[str, int], torch.Tensor] = {}
    record, walked = tasks.film.film, filming.Filming.__call__

    def film(family: Any, task: int, theta: torch.Tensor, seed: int) -> Any:
        filmed[order[-1], task] = theta
        return record(family, task, theta, seed)

    def called(self: Any, name: str, repetition: int, ids: Sequence[int], theta: torch.Tensor) -> None:
        order.append(name)
        if repetition == 0:
            ends.update({(name, task): row for task, row in zip(ids, theta, strict=True)})
        walked(self, name, repetition, ids, theta)

    monkeypatch.setattr(tasks.film, "film", film)
    monkeypatch.setattr(filming.Filming, "__call__", called)
    assert leap("evaluate", run, "--video") == 0
    assert order == ["leap", "leap", "none", "none"]  # two evaluation seeds, of which the first is filmed
    assert set(filmed) == set(ends) and len(ends) == 4
    assert all(torch.equal(filmed[key], ends[key]) for key in ends)
    assert not torch.equal(ends["leap", 1], ends["none", 1]) and not torch.equal(ends["leap", 1], ends["leap", 2])


def test_evaluating_again_replaces_the_set_and_without_video_leaves_it(run: Path) -> None:
    assert leap("evaluate", run, "--video", 2) == 0
    assert leap("evaluate", run, "--video") == 0
    names = {path.name for path in (run / "videos").iterdir()}
    assert len(listed(run)) == 4 and names == {"index.json", *(one["file"] for one in listed(run))}
    assert leap("evaluate", run) == 0
    assert {path.name for path in (run / "videos").iterdir()} == names


def test_an_evaluation_that_fails_leaves_the_set_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert leap("evaluate", run, "--video") == 0
    before = listed(run)
    index = (run / "videos" / "index.json").read_bytes()

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lifecycle.pictures, "learning_curves", full)
    assert leap("evaluate", run, "--video", 3) == 1
    assert (run / "videos" / "index.json").read_bytes() == index and listed(run) == before
    assert not list((run / "videos").glob(".*"))


def test_parameters_that_are_not_finite_are_left_out_and_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    walk_and_score = lifecycle.walk_and_score

    def broken(family: Any, theta: torch.Tensor, **options: Any) -> Any:
        finished = options["finished"]

        def end(repetition: int, ids: Sequence[int], found: torch.Tensor) -> None:
            found = found.clone()
            found[0, 0] = torch.nan
            finished(repetition, ids, found)

        return walk_and_score(family, theta, **(options | {"finished": end}))

    monkeypatch.setattr(lifecycle, "walk_and_score", broken)
    folder = RunFolder.open(run)
    lifecycle.evaluate(folder, lifecycle.settings_of(folder), say=said.append, videos=1)
    assert {(one["game"], one["initialization"]) for one in listed(run)} == {("follow", "leap"), ("follow", "none")}
    assert said == [
        f"no video of catch from {start}: the walk ended in parameters that are not finite"
        for start in ("leap", "none")
    ]


def test_a_run_without_a_learner_is_filmed_once(tmp_path: Path) -> None:
    assert leap("train", "tiny-games", "learner/none", *TINY, *QUICK, "--out", tmp_path / "run") == 0
    assert leap("evaluate", tmp_path / "run", "--video") == 0
    assert [(one["game"], one["initialization"]) for one in listed(tmp_path / "run")] == [
        ("catch", "none"), ("follow", "none")
    ]  # fmt: skip


def test_tasks_that_are_no_games_are_refused_before_any_walk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert leap("train", "quadratic", "--train.meta-steps", 1, "--tracking", "none", "--out", run) == 0
    monkeypatch.setattr(lifecycle, "walk_and_score", lambda *given, **options: pytest.fail("it walked"))
    assert leap("evaluate", run, "--video") == 2
    told = capsys.readouterr().err
    assert f"--video films games, and {run} learns quadratic; evaluate it without --video" in told
    assert not (run / "videos").exists()


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "=x", "="])
def test_a_number_of_episodes_that_cannot_be(number: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"--video{number}"] if number.startswith("=") else ["--video", number]
    assert leap("evaluate", run, *given) == 2
    assert "--video" in capsys.readouterr().err
    assert not (run / "evaluation.json").exists()


def test_the_number_may_be_left_out_anywhere() -> None:
    assert filming.counted(["a", "--video"]) == ["a", "--video", "1"]
    assert filming.counted(["--video", "a", "b"]) == ["--video", "1", "a", "b"]
    assert filming.counted(["--video", "--seed", "3"]) == ["--video", "1", "--seed", "3"]
    assert filming.counted(["--video", "-2", "a"]) == ["--video", "-2", "a"]
    assert filming.counted(["--video=3", "a"]) == ["--video=3", "a"]
    assert filming.counted(["a", "--", "--video"]) == ["a", "--", "--video"]


@pytest.mark.skipif(find_spec("ale_py") is None, reason="needs ale-py")
def test_atari_is_filmed_in_the_size_and_colours_of_the_console(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--tasks.train", "freeway", "--tasks.test", "breakout", "--tasks.environments", 2, "--train.meta-batch", 1]
    small += ["--tasks.evaluation-episodes", 1, "--evaluate.steps", 1, "--evaluate.repetitions", 1]
    assert leap("train", "atari/smoke", *small, *QUICK[:-2], "--out", run) == 0
    assert leap("evaluate", run, "--video") == 0
    for one in listed(run):
        assert (one["game"], one["rate"], one["evaluation_seed"]) == ("breakout", 15.0, 0)
        assert one["shown"] == min(one["length"], 900) == one["frames"] - 1 and one["score"] >= 0
        with Image.open(run / "videos" / one["file"]) as image:
            assert image.size == (160, 210)
            assert len(image.convert("RGB").getcolors(10_000) or []) > 3
    assert {one["initialization"] for one in listed(run)} == {"leap", "none"}
