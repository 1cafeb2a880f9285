"""`leap compare`: the words behind it, and the videos of its evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import in_process
import pytest
import yaml

from leap.cli import filming, main, sweep

TINY = ["tiny-games", "--tasks.train", "seek", "--tasks.test", "catch", "follow", "--tasks.environments", "4"]
TINY += ["--tasks.evaluation-episodes", "4", "--train.meta-batch", "1", "--evaluate.steps", "3", "--tracking", "none"]
TINY += ["--train.meta-steps", "1", "--train.inner-steps", "2", "--evaluate.repetitions", "2"]
TWO = [*TINY, "--compare.learners", "games/leap", "games/reptile", "--compare.seeds", "0", "--compare.jobs", "1"]
RUNS = ("leap-seed0", "reptile-seed0")


def leap(*arguments: Any) -> int:
    return main.main([str(a) for a in arguments])


def index(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "videos" / "index.json").read_text())
    return found


def written(out: Path, name: str) -> dict[str, int]:
    return {run: (out / run / name).stat().st_mtime_ns for run in RUNS}


# -- learners that are files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["ONE", "TWO"], ["[ONE, TWO]"], ["[ONE,", "TWO]"], ["ONE", "TWO", "--compare.seeds", "0", "1"]]
)
def test_learners_may_be_files_however_the_list_is_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("learner: {name: leap}\nmeta: {lr: 0.5}")
    two.write_text("learner: {name: reptile}\nmeta: {lr: 0.25}")
    given = [word.replace("ONE", str(one)).replace("TWO", str(two)) for word in words]
    assert leap("compare", "quadratic", "--compare.seeds", "3", "--compare.learners", *given, "--print-config") == 0
    shown = list(yaml.safe_load_all(capsys.readouterr().out))
    assert {(run["learner"]["name"], run["meta"]["lr"]) for run in shown} == {("leap", 0.5), ("reptile", 0.25)}
    assert all(run["compare"]["learners"] == [str(one), str(two)] for run in shown)


def test_help_says_whose_the_words_behind_learners_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert leap("compare", "--help") == 0
    told = capsys.readouterr().out
    assert "All words behind --compare.learners are learners" in told
    assert "--video [N]" in told and "leap compare" in told


# -- videos ------------------------------------------------------------------------------------------------------------


def test_every_run_is_filmed_as_by_evaluate_and_a_repeated_command_films_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    out = tmp_path / "all"
    assert leap("compare", *TWO, "--out", out) == 0
    plain = {run: (out / run / "evaluation.json").read_bytes() for run in RUNS}
    assert "videos" not in capsys.readouterr().out and not (out / RUNS[0] / "videos").exists()

    assert leap("compare", *TWO, "--out", out, "--video", 2) == 0  # evaluated already, and filmed now
    assert f"videos    {out}/*/videos" in capsys.readouterr().out
    for run in RUNS:
        assert (out / run / "evaluation.json").read_bytes() == plain[run]
        assert {(one["game"], one["initialization"], one["episode"]) for one in index(out / run)["videos"]} == {
            (game, start, episode)
            for game in ("catch", "follow") for start in (run.partition("-")[0], "none") for episode in (1, 2)
        }  # fmt: skip
    films = {path.name: path.read_bytes() for path in (out / RUNS[0] / "videos").glob("*.webp")}

    before = written(out, "videos/index.json")
    assert leap("compare", *TWO, "--out", out, "--video") == 0  # one episode is there
    assert leap("compare", *TWO, "--out", out) == 0
    assert written(out, "videos/index.json") == before
    (out / RUNS[1] / "videos" / "index.json").unlink()
    assert leap("compare", *TWO, "--out", out, "--video", 2) == 0  # the one run alone
    after = written(out, "videos/index.json")
    assert after[RUNS[0]] == before[RUNS[0]] and after[RUNS[1]] > before[RUNS[1]]
    assert leap("compare", *TWO, "--out", out, "--video", 3) == 0
    assert {index(out / run)["episodes"] for run in RUNS} == {3}

    assert leap("evaluate", out / RUNS[0], "--video", 2) == 0
    assert {path.name: path.read_bytes() for path in (out / RUNS[0] / "videos").glob("*.webp")} == films


def test_workers_film(tmp_path: Path) -> None:
    one = [*TINY, "--compare.learners", "games/leap", "--compare.seeds", "0", "--compare.jobs", "1"]
    assert leap("compare", *one, "--out", tmp_path / "all", "--video", 2) == 0
    assert len(index(tmp_path / "all" / "leap-seed0")["videos"]) == 8


def test_films_of_other_walks_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    file = tmp_path / "videos" / "index.json"
    assert filming.filmed(tmp_path, 3) == 0
    for text, found in (('{"steps": 3, "episodes": 2}', 2), ('{"steps": 4, "episodes": 2}', 0), ('{"steps": 3}', 0)):
        file.write_text(text)
        assert filming.filmed(tmp_path, 3) == found
    for text in ("", "[]", "3", '{"steps": 3, "episodes": null}', "[" * 100_000):
        file.write_text(text)
        assert filming.filmed(tmp_path, 3) == 0
    file.write_bytes(b"\xff")
    assert filming.filmed(tmp_path, 3) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["quadratic", "--video"], "--video films games, and OUT/leap-seed0 learns quadratic"),
        (["quadratic", "--video", "0"], "--video takes the number of episodes"),
        ([*TINY, "--video", "--train-only"], "--train-only leaves out"),
    ],
)
def test_what_cannot_be_filmed_is_refused_before_the_first_run(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "carry_out", lambda *given, **options: pytest.fail("it ran"))
    out = tmp_path / "all"
    assert leap("compare", *words, "--compare.learners", "leap", "--out", out) == 2
    assert told.replace("OUT", str(out)) in capsys.readouterr().err
    assert not out.exists()


def test_without_webp_nothing_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    assert leap("compare", *TWO, "--out", tmp_path / "all", "--video") == 2
    assert "pip install --upgrade pillow" in capsys.readouterr().err and not (tmp_path / "all").exists()


def test_a_sweep_ends_with_the_videos_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in TINY if word not in ("--tracking", "none")]
    assert leap("compare", *words, "--compare.learners", "games/leap", "--wandb-sweep", "s.yaml", "--video", 2) == 0
    text = Path("s.yaml").read_text()
    assert "--video 2" in text.splitlines()[1] and "--video" not in yaml.safe_load(text)["command"]
