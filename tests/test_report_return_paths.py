"""Path measures beside returns, the table of walks and the videos of games: by hand, and what cannot be had."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from leap.cli import compare
from leap.errors import RunError
from leap.metrics.statistics import mean_interval
from leap.report import comparison_text, summarize, write_report
from leap.report.captioned import NOTHING
from leap.report.returns import Returns, gather
from leap.report.returns_paths import Paths, paths, ratio_interval, start_level
from leap.report.returns_paths_text import path_cells
from leap.report.returns_rows import COLUMNS, write_walks
from leap.report.returns_videos import videos
from leap.report.runs import read_runs

STEPS, BUDGET = 20, 1000
GAMES = ("pong", "pooyan")
SCALE = {"pong": {"random": -21.0, "human": 14.0}}  # of pooyan nothing is known


def _run(root: Path, seed: int, leap: list[list[float]], none: list[list[float]], **measures: Any) -> Path:
    """A run of two games; the scores of a walk are `leap[s]` and `none[s]`, one episode after another, in both."""
    folder = root / f"leap-{seed}"
    folder.mkdir(parents=True)
    config = {"seed": seed, "tasks": {"name": "atari"}, "learner": {"name": "leap"}, "inner": {"steps": STEPS}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    held = {name: _measured(scores, seed, measures) for name, scores in (("leap", leap), ("none", none))}
    content = {
        "format": 1,
        "family": "atari",
        "split": "test",
        "steps": STEPS,
        "evaluation_seeds": list(range(len(leap))),
        "tasks": list(GAMES),
        "learner": "leap",
        "seed": seed,
        "initializations": held,
        "references": SCALE,
        "agent_steps": BUDGET,
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder


def _measured(scores: list[list[float]], seed: int, measures: dict[str, Any]) -> dict[str, Any]:
    shape = (len(scores), len(GAMES))
    ends = [np.linspace(1, BUDGET, len(walk)).astype(int).tolist() for walk in scores]
    walks = [
        [[end, score, 9] for end, score in zip(at, walk, strict=True)] for at, walk in zip(ends, scores, strict=True)
    ]
    rng = np.random.default_rng(seed)
    held: dict[str, Any] = {key: np.ones(shape).tolist() for key in ("test_loss", "test_return", "train_loss_auc")}
    held["train_loss"] = np.ones((*shape, STEPS)).tolist()
    held |= {key: rng.uniform(5, 9, shape).tolist() for key in ("path_length", "path_energy")}
    return {**held, "episodes": [[walk] * len(GAMES) for walk in walks], **measures}


def _change(folder: Path, change: Any) -> None:
    content = json.loads((folder / "evaluation.json").read_text())
    change(content["initializations"])
    (folder / "evaluation.json").write_text(json.dumps(content))


def _rising(start: float, end: float, count: int = 300) -> list[float]:
    return [start] * (count // 2) + [end] * (count - count // 2)


def _found(*folders: Path) -> Returns:
    return gather(summarize(folders))


def _paths(found: Returns, label: str, game: str) -> Paths:
    return paths(found, next(arm for arm in found.arms if arm.label == label), game)


# Ratios


def _by_scan(first: list[float], second: list[float]) -> tuple[float, float]:
    """Fieller's interval as it is defined: the ratios r that a t-test of x - r y does not refuse."""
    ratios = np.linspace(0, 20, 200_001)[1:]
    x, y = np.array(first), np.array(second)
    rest = x[:, None] - ratios * y[:, None]
    t = rest.mean(axis=0) / (rest.std(axis=0, ddof=1) / np.sqrt(len(x)))
    kept = ratios[np.abs(t) <= stats.t.ppf(0.975, len(x) - 1)]
    assert len(kept) == round((kept[-1] - kept[0]) / 1e-4) + 1  # one piece
    return float(kept[0]), float(kept[-1])


@pytest.mark.parametrize("seed", range(6))
def test_the_interval_of_a_ratio_is_what_t_tests_do_not_refuse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 12))
    shared = rng.normal(0, 0.3, count)
    first, second = (6 + shared + rng.normal(0, 0.4, count)).tolist(), (3 + shared + rng.normal(0, 0.2, count)).tolist()
    found = ratio_interval(first, second)
    assert found is not None and found.count == count
    assert found.mean == pytest.approx(sum(first) / sum(second))
    assert (found.low, found.high) == pytest.approx(_by_scan(first, second), abs=2e-4)


def test_the_interval_of_a_ratio_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        found = ratio_interval(rng.normal(8, 1, 6).tolist(), rng.normal(4, 0.8, 6).tolist())
        assert found is not None and found.low is not None and found.high is not None
        held += found.low <= 2 <= found.high
    assert 0.935 < held / 2000 < 0.965


def test_a_ratio_does_not_exist_where_nothing_was_gained_and_is_never_negative() -> None:
    assert ratio_interval([5.0, 6.0], [1.0, -1.0]) is None
    assert ratio_interval([5.0, 6.0], [-2.0, -3.0]) is None
    unsure = ratio_interval([5.0, 6.0, 7.0], [4.0, -3.0, 2.0])
    assert unsure is not None and (unsure.mean, unsure.low, unsure.high) == (6.0, None, None)
    alone = ratio_interval([5.0], [2.0])
    assert alone is not None and (alone.mean, alone.low, alone.count) == (2.5, None, 1)
    wide = ratio_interval([1.0, 9.0], [4.0, 4.2])
    assert wide is not None and wide.low == 0.0 and wide.high is not None and wide.high > wide.mean


# Measures of a walk


def test_paths_are_worked_out_from_the_walks(tmp_path: Path) -> None:
    """One training: evaluation seeds are the units. Pong's random score is known, pooyan's level is measured."""
    leap = [_rising(-20, end) for end in (-5.0, -4.0, -9.0)]
    none = [_rising(start, -12.0) for start in (-20.5, -20.0, -19.5)]
    folder = _run(tmp_path, 0, leap, none)
    content = json.loads((folder / "evaluation.json").read_text())["initializations"]
    found = _found(folder)
    assert start_level(found, "pong") == -21.0
    assert start_level(found, "pooyan") == pytest.approx((-20.5 - 20.0 - 19.5) / 3)
    for t, (game, start) in enumerate({"pong": -21.0, "pooyan": -20.0}.items()):
        for name, ends in (("leap", (-5.0, -4.0, -9.0)), ("none", (-12.0, -12.0, -12.0))):
            lengths, energies = ([row[t] for row in content[name][key]] for key in ("path_length", "path_energy"))
            gains = [end - start for end in ends]
            one = _paths(found, name, game)
            assert one.gained == mean_interval(gains)
            for interval, whole in ((one.length, lengths), (one.energy, energies)):
                expected = mean_interval([value / STEPS for value in whole])
                assert interval is not None and interval.low is not None and interval.high is not None
                assert (interval.mean, interval.low, interval.high) == pytest.approx(
                    (expected.mean, expected.low, expected.high)
                )
            for ratio, whole in ((one.length_return, lengths), (one.energy_return, energies)):
                assert ratio is not None and ratio.mean == pytest.approx(sum(whole) / sum(gains))
            assert one.length_return is not None and one.length_return.low is not None
            assert (one.length_return.low, one.length_return.high) == pytest.approx(_by_scan(lengths, gains), abs=2e-4)


def test_steps_are_those_that_a_walk_took(tmp_path: Path) -> None:
    folder = _run(tmp_path, 0, [_rising(-20, 0.0)] * 2, [_rising(-20, 0.0)] * 2, path_length=[[8.0, 8.0], [6.0, 6.0]])
    whole = _paths(_found(folder), "leap", "pong").length
    assert whole is not None and whole.mean == pytest.approx((8 / 20 + 6 / 20) / 2)
    _change(folder, lambda held: [one.update(steps=[[10, 10], [5, 5]]) for one in held.values()])
    taken = _paths(_found(folder), "leap", "pong").length
    assert taken is not None and taken.mean == pytest.approx((8 / 10 + 6 / 5) / 2)


def test_several_trainings_are_the_units_and_evaluation_seeds_are_averaged_first(tmp_path: Path) -> None:
    ends = {0: (-5.0, -3.0), 1: (-9.0, -8.0), 2: (0.0, 1.0)}
    folders = [
        _run(tmp_path, seed, [_rising(-20, e) for e in held], [_rising(-20, -15.0)] * 2) for seed, held in ends.items()
    ]
    lengths = [
        float(
            np.mean(
                [
                    row[0]
                    for row in json.loads((f / "evaluation.json").read_text())["initializations"]["leap"]["path_length"]
                ]
            )
        )
        for f in folders
    ]
    gains = [float(np.mean(held)) + 21 for held in ends.values()]
    one = _paths(_found(*folders), "leap", "pong")
    assert one.gained == mean_interval(gains) and one.gained.count == 3
    assert one.length_return is not None and one.length_return.count == 3
    assert one.length_return.mean == pytest.approx(np.mean(lengths) / np.mean(gains))
    assert (one.length_return.low, one.length_return.high) == pytest.approx(_by_scan(lengths, gains), abs=2e-4)


def test_the_level_at_the_start_is_of_the_first_hundred_episodes_and_at_most_of_half(tmp_path: Path) -> None:
    long = [float(k) for k in range(1, 401)]  # episodes 1 to 100: mean 50.5
    short = [1.0, 2.0, 3.0, 40.0, 50.0]  # episodes 1 and 2: mean 1.5
    folder = _run(tmp_path, 0, [_rising(0, 9.0)] * 2, [long, short])
    assert start_level(_found(folder), "pooyan") == pytest.approx((50.5 + 1.5) / 2)
    _change(folder, lambda held: held["none"]["episodes"][1].__setitem__(1, [[3, 7.0, 9]]))
    assert start_level(_found(folder), "pooyan") == pytest.approx((50.5 + 7.0) / 2)
    _change(folder, lambda held: held["none"]["episodes"][1].__setitem__(1, []))
    found = _found(folder)
    assert start_level(found, "pooyan") is None and _paths(found, "leap", "pooyan").gained is None
    assert path_cells(found, found.arms[0], "pooyan")[0] == NOTHING


def test_where_nothing_was_gained_there_is_a_dash_and_the_page_says_so(tmp_path: Path) -> None:
    folder = _run(tmp_path, 0, [_rising(-20, -21.0)] * 3, [_rising(-20, -25.0)] * 3)
    found = _found(folder)
    for arm in found.arms:
        gained, length, _, *per = path_cells(found, arm, "pong")
        assert per == [NOTHING, NOTHING] and length != NOTHING
        assert gained.split()[0] == ("0.00" if arm.label == "leap" else "-4.00")
    told, page = comparison_text(summarize([folder])), write_report([folder], tmp_path / "report.html").read_text()
    for shown in (told, page):
        assert f"{NOTHING}: nothing gained, or a walk diverged" in shown
    row = next(line for line in told.splitlines() if line.startswith("pong") and NOTHING in line)
    assert row.count(NOTHING) == 2


@pytest.mark.parametrize("seed", range(20))
def test_no_ratio_has_the_wrong_sign_whatever_the_scores(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    walks = [[rng.normal(-20, 6, int(rng.integers(2, 9))).tolist() for _ in range(3)] for _ in range(2)]
    found = _found(_run(tmp_path, 0, *walks))
    for arm in found.arms:
        for game in GAMES:
            one = paths(found, arm, game)
            for ratio in (one.length_return, one.energy_return):
                assert one.gained is not None and (ratio is not None) == (one.gained.mean > 0)
                if ratio is not None and ratio.low is not None and ratio.high is not None:
                    assert 0 <= ratio.low <= ratio.mean <= ratio.high


def test_a_walk_that_diverged_or_measured_no_energy_leaves_dashes_and_its_returns(tmp_path: Path) -> None:
    folder = _run(tmp_path, 0, [_rising(-20, 0.0)] * 2, [_rising(-20, 0.0)] * 2)

    def damage(held: dict[str, Any]) -> None:
        held["leap"]["path_length"][1][0] = None
        held["none"].pop("path_energy")

    _change(folder, damage)
    found = _found(folder)
    leap, none = _paths(found, "leap", "pong"), _paths(found, "none", "pong")
    assert leap.length is None and leap.length_return is None and leap.gained is not None and leap.energy is not None
    assert none.energy is None and none.energy_return is None and none.length_return is not None
    assert found.complete == GAMES  # returns are all there
    write_report([folder], tmp_path / "report.html")


def test_text_and_page_show_what_was_worked_out(tmp_path: Path) -> None:
    leap, none = [_rising(-20, end) for end in (-5.0, -4.0, -9.0)], [_rising(-20.0, -12.0)] * 3
    folder = _run(tmp_path, 0, leap, none, path_length=[[40.0, 4.0], [44.0, 5.0], [42.0, 6.0]])
    told, page = comparison_text(summarize([folder])), write_report([folder], tmp_path / "report.html").read_text()
    row = next(line for line in told.splitlines() if "leap" in line and "2.10 [" in line)  # 42 / 20 a step
    assert "15.0 [" in row and "2.80 [" in row  # -6 + 21 gained, 42 / 15 a return
    assert "Path length and energy beside the return" in page
    for words in ("length a return", "2.80", "what random play scores (pong -21.0)", "at most the first half (pooyan"):
        assert words in page


# The table of walks


def test_the_table_of_walks_holds_every_walk(tmp_path: Path) -> None:
    leap, none = [_rising(-20, end) for end in (-5.0, -4.0)], [_rising(-20.0, -12.0, 30)] * 2
    folders = [_run(tmp_path, seed, leap, none) for seed in (3, 8)]
    _change(folders[1], lambda held: held["none"].pop("path_energy"))
    file = write_walks(summarize(folders), tmp_path / "returns.csv")
    assert file is not None
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2 * 2 * 2 * 2
    by_place = {tuple(row[key] for key in COLUMNS[:4]): row for row in rows}
    one = by_place["pooyan", "leap", "8", "1"]
    content = json.loads((folders[1] / "evaluation.json").read_text())["initializations"]["leap"]
    assert (one["episodes"], float(one["last_episodes"]), float(one["start_level"])) == ("300", -4.0, -20.0)
    assert float(one["return_gained"]) == 16.0
    assert float(one["path_length"]) == content["path_length"][1][1]
    assert float(one["path_energy_per_step"]) == pytest.approx(content["path_energy"][1][1] / STEPS)
    assert by_place["pong", "none", "8", "0"]["path_energy"] == "" and by_place["pong", "none", "3", "0"]["path_energy"]


def test_a_comparison_of_games_leaves_the_table_of_walks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare._tell(tmp_path, [_run(tmp_path, 0, [_rising(-20, 0.0)], [_rising(-20, 0.0)])], [])
    assert f"walks     {tmp_path / 'returns.csv'}" in capsys.readouterr().out
    assert (tmp_path / "returns.csv").read_text().startswith("game,initialization,seed,")


def test_what_is_no_game_has_no_table_of_walks(tmp_path: Path) -> None:
    folder = _run(tmp_path, 0, [_rising(-20, 0.0)], [_rising(-20, 0.0)])
    _change(folder, lambda held: [one.pop("episodes") for one in held.values()])
    assert write_walks(summarize([folder]), tmp_path / "returns.csv") is None
    assert not (tmp_path / "returns.csv").exists()
    (tmp_path / "file").write_text("")
    again = _run(tmp_path / "games", 0, [_rising(-20, 0.0)], [_rising(-20, 0.0)])
    with pytest.raises(RunError, match="Cannot write"):
        write_walks(summarize([again]), tmp_path / "file" / "returns.csv")


# Videos


def _filmed(folder: Path, *files: str, **fields: Any) -> list[dict[str, Any]]:
    place = folder / "videos"
    place.mkdir(exist_ok=True)
    entries = []
    for number, name in enumerate(files):
        (place / name).write_bytes(b"a film")
        entry = {"game": "pong", "initialization": "leap", "evaluation_seed": 0, "episode": number + 1, "score": -3.0}
        entries.append({**entry, "length": 812, "frames": 204, "file": name, **fields})
    (place / "index.json").write_text(json.dumps({"format": 1, "videos": entries}))
    return entries


def _walked(tmp_path: Path, seed: int = 0) -> Path:
    return _run(tmp_path, seed, [_rising(-20, 0.0)], [_rising(-20, -12.0)])


def test_videos_below_the_page_are_links(tmp_path: Path) -> None:
    folders = [_walked(tmp_path / "runs", seed) for seed in (0, 1)]
    _filmed(folders[1], "pong-leap-1--3.webp", "100% <b>&.webp")
    for place, start in (
        ("report.html", "./runs/leap-1/"),
        ("runs/report.html", "./leap-1/"),
        ("runs/leap-1/x.html", "./"),
    ):
        page = write_report(folders, tmp_path / place).read_text()
        assert f'<a href="{start}videos/pong-leap-1--3.webp">pong-leap-1--3.webp</a>' in page
        assert f'<a href="{start}videos/100%25%20%3Cb%3E%26.webp">100% &lt;b&gt;&amp;.webp</a>' in page
        assert ">Videos</h2>" in page and ">812<" in page and ">-3.00<" in page and "lies elsewhere" not in page


def test_videos_elsewhere_are_named_without_a_link(tmp_path: Path) -> None:
    folder = _walked(tmp_path / "runs")
    _filmed(folder, "one.webp")
    page = write_report([folder], tmp_path / "pages" / "report.html").read_text()
    assert "one.webp" in page and "videos/one.webp" not in page and "the page lies elsewhere" in page


def test_a_list_alone_is_an_index_too(tmp_path: Path) -> None:
    folder = _walked(tmp_path)
    (folder / "videos" / "index.json").write_text(json.dumps(_filmed(folder, "one.webp")))
    found, notes = videos(read_runs([folder]))
    assert [video.file.name for video in found] == ["one.webp"] and not notes
    assert found[0].shown["evaluation_seed"] == "0" and found[0].shown["frames"] == "204"


def test_names_of_games_run_nothing(tmp_path: Path) -> None:
    folder = _walked(tmp_path)
    _filmed(
        folder, 'x" onclick="alert(1).webp', game="<script>alert(1)</script>", score=None, length="\ud800", frames=True
    )
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "<script" not in page and '" onclick="' not in page and "&lt;script&gt;" in page


def test_without_videos_there_is_no_section(tmp_path: Path) -> None:
    assert "Videos" not in write_report([_walked(tmp_path)], tmp_path / "report.html").read_text()


@pytest.mark.parametrize("content", [None, "", "{", "3", '{"videos": 3}', "[" * 100_000, "\udcff"])
def test_a_damaged_index_is_a_note(content: str | None, tmp_path: Path) -> None:
    folder = _walked(tmp_path)
    (folder / "videos").mkdir()
    if content is not None:
        (folder / "videos" / "index.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "index.json is missing or damaged, so the videos of leap-0 are left out" in page


@pytest.mark.parametrize(
    "name",
    [
        "../../../secret.txt",
        "gone.webp",
        "",
        ".",
        "..",
        "sub/one.webp",
        "a\\b",
        "x\0y",
        "\udc80",
        "\ud800",
        "n" * 5000,
        3,
        None,
        ["one.webp"],
    ],
)
def test_an_entry_that_names_no_file_there_is_left_out_with_a_note(name: Any, tmp_path: Path) -> None:
    folder = _walked(tmp_path / "runs")
    (tmp_path / "secret.txt").write_text("")
    (folder / "videos" / "sub").mkdir(parents=True)
    entries = _filmed(folder, "one.webp", "sub/one.webp")[:1]
    (folder / "videos" / "index.json").write_text(json.dumps([*entries, {"file": name}, "no mapping"]))
    found, notes = videos(read_runs([folder]))
    assert [video.file.name for video in found] == ["one.webp"]
    assert len(notes) == 1 and "2 of 3 entries name no file there" in notes[0]
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert page.count('href="./runs') == 1 and "secret" not in page
