"""Returns of games in the report: curves and areas by hand, pairs by seed, what is left out, a page that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from leap.errors import RunError, UsageError
from leap.metrics.statistics import difference_interval
from leap.randomness import derive
from leap.report import comparison_text, summarize, write_report
from leap.report.evaluation import parse_evaluation
from leap.report.returns import AREA, FINAL, TEST, Returns, area, gather, level, moving_average
from leap.report.returns_text import answer

GAMES = ("breakout", "space_invaders", "air_raid")
SCALE = {"breakout": {"random": 2.0, "human": 30.0}, "space_invaders": {"random": 150.0, "human": 1650.0}}
Episodes = list[list[float]]


def _episodes(level_at_end: float, rng: np.random.Generator, count: int = 40, budget: int = 10_000) -> Episodes:
    """Scores that rise to a level, ends spread over the budget."""
    ends = np.sort(rng.integers(1, budget, count))
    scores = level_at_end * ends / budget + rng.normal(0, 0.02 * abs(level_at_end), count)
    return [[int(end), float(score), 50] for end, score in zip(ends, scores, strict=True)]


def _run(root: Path, learner: str, seed: int, gain: float = 1.5, repetitions: int = 5, **document: Any) -> Path:
    """A run of games; what the learned initialization reaches is `gain` times what the random one does."""
    folder = root / f"{learner}-{seed}"
    folder.mkdir(parents=True)
    config = {"seed": seed, "tasks": {"name": "atari"}, "learner": {"name": learner}, "inner": {"steps": 4}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    held = {}
    for name, factor in ((learner, gain), ("none", 1.0)):
        rng = np.random.default_rng(derive(seed, name))
        episodes = [[_episodes(factor * 100 * (1 + t), rng) for t in range(3)] for _ in range(repetitions)]
        held[name] = _measured(episodes, float(len(name)))
    content = {
        "format": 1,
        "family": "atari",
        "split": "test",
        "steps": 4,
        "evaluation_seeds": list(range(repetitions)),
        "tasks": list(GAMES),
        "learner": learner,
        "seed": seed,
        "initializations": held,
        "references": SCALE,
        "agent_steps": 10_000,
        "frame_skip": 4,
        **document,
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder


def _measured(episodes: Sequence[Sequence[Episodes]], loss: float) -> dict[str, Any]:
    returns = np.array([[walk[-1][1] for walk in row] for row in episodes])
    curves = np.full((*returns.shape, 4), loss)
    arrays = {"test_return": returns, "test_loss": -returns, "train_loss": curves, "train_loss_auc": curves[..., 0]}
    named = {key: values.tolist() for key, values in arrays.items()}
    return {**named, "path_length": np.ones_like(returns).tolist(), "episodes": episodes}


def _change(folder: Path, change: Any) -> None:
    content = json.loads((folder / "evaluation.json").read_text())
    change(content)
    (folder / "evaluation.json").write_text(json.dumps(content))


def _found(*folders: Path) -> Returns:
    return gather(summarize(folders))


def _arm(found: Returns, label: str) -> Any:
    return next(arm for arm in found.arms if arm.label == label)


# Learning curves


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_moving_average_is_the_mean_of_the_last_episodes(window: int) -> None:
    scores = np.random.default_rng(0).normal(size=30)
    plain = [scores[max(0, k + 1 - window) : k + 1].mean() for k in range(30)]
    assert np.allclose(moving_average(scores, window), plain)


def test_a_curve_holds_its_level_until_the_next_episode_ends() -> None:
    episodes = np.array([[10.0, 2.0, 5.0], [10.0, 4.0, 5.0], [30.0, 9.0, 20.0]])  # two end at one step
    found = level(episodes, np.array([5.0, 10.0, 29.0, 30.0, 99.0]))
    assert np.isnan(found[0]) and found[1:].tolist() == [3.0, 3.0, 5.0, 5.0]


def test_the_area_is_the_mean_height_of_the_steps() -> None:
    """Before the first episode ends, the curve stands at its score; behind the last one, at the last average."""
    episodes = np.array([[10.0, 2.0, 5.0], [10.0, 4.0, 5.0], [30.0, 9.0, 20.0]])
    assert area(episodes, 40) == pytest.approx((2 * 10 + 3 * 20 + 5 * 10) / 40)
    assert area(episodes, 40, window=1) == pytest.approx((2 * 10 + 4 * 20 + 9 * 10) / 40)
    assert area(episodes[:1], 40) == 2.0 and np.isnan(area(episodes[:0], 40))
    dense = np.arange(1, 40_001) / 1000
    held = np.nan_to_num(level(episodes, dense), nan=2.0)
    assert held.mean() == pytest.approx(area(episodes, 40), rel=1e-3)


def test_who_reaches_a_score_earlier_has_more_area_and_the_same_end() -> None:
    early, late = ([[at, 0.0, 1.0], [at + 1, 10.0, 1.0], [99.0, 10.0, 1.0]] for at in (10.0, 60.0))
    assert area(np.array(early), 100) > area(np.array(late), 100)


# Figures


def test_figures_and_paired_differences_are_worked_out_from_the_walks(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    content = json.loads((folder / "evaluation.json").read_text())["initializations"]
    found = _found(folder)
    leap = _arm(found, "leap")
    scores = {name: [[e[1] for e in row[1]] for row in content[name]["episodes"]] for name in ("leap", "none")}
    final = {name: [np.mean(walk[-100:]) for walk in walks] for name, walks in scores.items()}

    gain = leap.gain("space_invaders", FINAL)

    assert gain == difference_interval(final["leap"], final["none"], paired=True) and gain.count == 5
    tested = leap.interval("space_invaders", TEST)
    assert tested.mean == pytest.approx(np.mean([row[1] for row in content["leap"]["test_return"]]))
    areas = [area(np.array(row[1]), 10_000) for row in content["leap"]["episodes"]]
    assert leap.interval("space_invaders", AREA).mean == pytest.approx(np.mean(areas))


def test_pairs_are_of_one_seed(tmp_path: Path) -> None:
    """A game that is easier with some seeds for both: the difference is known nevertheless."""
    folder = _run(tmp_path, "leap", 0)

    def shift(content: dict[str, Any]) -> None:
        none = content["initializations"]["none"]["episodes"]
        for s, row in enumerate(none):
            for walk in row:
                for episode in walk:
                    episode[1] += 500 * s
        above = [[[[e[0], e[1] + 7.0, e[2]] for e in walk] for walk in row] for row in none]
        content["initializations"]["leap"]["episodes"] = above

    _change(folder, shift)
    gain = _arm(_found(folder), "leap").gain("breakout", AREA)
    assert gain.low == pytest.approx(7.0) and gain.high == pytest.approx(7.0)


def test_with_several_trainings_a_seed_is_a_training_and_evaluations_are_no_further_evidence(tmp_path: Path) -> None:
    folders = [_run(tmp_path, "leap", seed) for seed in range(3)]
    found = _found(*folders)
    leap = _arm(found, "leap")
    assert leap.trainings == 3 and len(leap.walks["breakout"]) == 15
    assert leap.gain("breakout", AREA).count == 3
    totals = [total for total in found.totals() if total.arm is leap]
    assert all(total.figures["IQM"].runs == 3 for total in totals)
    assert all(total.improvement is not None and total.improvement.runs == 3 for total in totals)
    assert "3 runs: bootstrap intervals" in comparison_text(summarize(folders))


def test_averages_are_of_normalized_scores_and_name_the_games_that_they_leave_out(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    found = _found(folder)
    leap = _arm(found, "leap")
    assert found.normalized == ("breakout", "space_invaders") and found.complete == GAMES
    scores = [
        (walk.figures[FINAL] - SCALE[game]["random"]) / (SCALE[game]["human"] - SCALE[game]["random"])
        for game in found.normalized
        for walk in leap.walks[game].values()
    ]
    total = next(one for one in found.totals() if one.arm is leap and one.key == FINAL)
    assert total.figures["IQM"].value == pytest.approx(np.sort(scores)[2:-2].mean())  # 10 walks: two off each end
    told = comparison_text(summarize([folder]))
    assert "no human score is known: air_raid" in told
    assert "no human score is known: air_raid" in write_report([folder], tmp_path / "report.html").read_text()


def test_the_probability_of_improvement_is_over_all_games(tmp_path: Path) -> None:
    found = _found(_run(tmp_path, "leap", 0, gain=3.0), _run(tmp_path, "reptile", 0, gain=0.2))
    better = found.improvement(_arm(found, "leap"), AREA, found.complete)
    worse = found.improvement(_arm(found, "reptile"), AREA, found.complete)
    assert better is not None and worse is not None
    assert (better.value, worse.value, better.games) == (1.0, 0.0, 3)
    assert found.improvement(_arm(found, "none"), AREA, found.complete) is None


def test_spread_is_what_walks_differ_by(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)

    def part(content: dict[str, Any]) -> None:
        """Flat curves at 0, 1 .. 4 and at 0, 2 .. 8."""
        for name, factor in (("leap", 1.0), ("none", 2.0)):
            content["initializations"][name]["episodes"] = [
                [[[100 * k, factor * s, 10] for k in range(1, 40)] for _ in GAMES] for s in range(5)
            ]

    _change(folder, part)
    found = _found(folder)
    leap = _arm(found, "leap")
    assert found.spread(leap, "breakout") == pytest.approx(np.std(range(5), ddof=1))
    ratio = found.narrower(leap, "breakout")
    assert ratio is not None and ratio.low is not None
    assert (ratio.mean, ratio.low, ratio.high) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    few = _found(_run(tmp_path / "few", "leap", 0, repetitions=4))
    ratio = few.narrower(_arm(few, "leap"), "breakout")
    assert ratio is not None and ratio.low is None


# What cannot be had


def test_a_walk_without_an_episode_leaves_its_game_out_and_says_so(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    _change(folder, lambda held: held["initializations"]["leap"]["episodes"][2].__setitem__(0, []))
    found = _found(folder)
    leap = _arm(found, "leap")
    assert leap.interval("breakout", AREA) is None and leap.gain("breakout", FINAL) is None
    assert found.band(leap, "breakout") is None and found.complete == GAMES[1:]
    assert "diverged or is missing: breakout" in comparison_text(summarize([folder]))
    assert "diverged or is missing: breakout" in write_report([folder], tmp_path / "report.html").read_text()


def test_a_score_that_is_none_leaves_its_game_out(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    _change(folder, lambda held: held["initializations"]["none"]["episodes"][2][0][39].__setitem__(1, None))
    found = _found(folder)
    assert found.complete == GAMES[1:] and _arm(found, "leap").gain("breakout", AREA) is None
    write_report([folder], tmp_path / "report.html")


def test_frames_are_what_the_run_says_where_the_document_does_not(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0, frame_skip=None)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "tasks": {"name": "atari", "frame_skip": 3}}))
    assert _found(folder).frame_skip == 3


def test_one_seed_has_no_intervals_and_is_still_a_report(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0, repetitions=1)
    told = comparison_text(summarize([folder]))
    assert "nobody can say how sure that is" in told and "1 walk a game" in told
    write_report([folder], tmp_path / "report.html")


def test_a_run_that_learned_nothing_has_nothing_beside_it(tmp_path: Path) -> None:
    folder = _run(tmp_path, "none", 0)
    assert answer(_found(folder)) == ("There is no learned initialization beside a random one to compare.", "")
    write_report([folder], tmp_path / "report.html")


def test_without_references_and_budget_there_are_curves_and_no_averages(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0, references={}, agent_steps=None, frame_skip=None)
    found = _found(folder)
    ends = [walk.episodes[-1, 0] for arm in found.arms for walk in arm.walks["breakout"].values() if len(walk.episodes)]
    assert found.normalized == () and found.frame_skip is None and found.budget["breakout"] == max(ends)
    told = comparison_text(summarize([folder]))
    assert "IQM" not in told and "frames" not in told
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "Performance profile" not in page and ">frames<" not in page


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda held: held["leap"]["episodes"].pop(), r"has \[4, 3\] walks, expected \[5, 3\]"),
        (lambda held: held["leap"]["episodes"][0].pop(), r"walks, expected \[5, 3\]"),
        (lambda held: held["leap"]["episodes"][0][0].reverse(), "in the order in which episodes ended"),
        (lambda held: held["leap"]["episodes"][0][0][3].__setitem__(0, None), "must be finite"),
        (lambda held: held["leap"]["episodes"][0][0][3].pop(), "not lists of"),
        (lambda held: held["leap"]["episodes"][0].__setitem__(0, [[1, 2]]), "not lists of"),
        (lambda held: held["leap"].update(episodes=3), "not lists of"),
    ],
)
def test_damaged_episodes_are_named_with_their_cure(change: Any, match: str, tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    _change(folder, lambda content: change(content["initializations"]))
    with pytest.raises(RunError, match=f"leap.episodes.*{match}.*leap evaluate"):
        summarize([folder])


@pytest.mark.parametrize("field", [{"agent_steps": 0}, {"frame_skip": -1}, {"references": {"pong": 3}}])
def test_damaged_fields_are_refused(field: Mapping[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="lacks a field or holds a wrong one"):
        summarize([_run(tmp_path, "leap", 0, **field)])


def test_games_and_what_left_no_episodes_are_not_compared(tmp_path: Path) -> None:
    one, other = _run(tmp_path, "leap", 0), _run(tmp_path, "reptile", 0)
    _change(other, lambda content: [held.pop("episodes") for held in content["initializations"].values()])
    with pytest.raises(UsageError, match="has_returns is True in the one and False in the other"):
        summarize([one, other])
    assert "final test loss" in comparison_text(summarize([other]))  # as any family without errors


# The page


def test_the_page_shows_curves_tables_and_averages_and_is_the_same_every_time(tmp_path: Path) -> None:
    folders = [_run(tmp_path, learner, seed) for learner in ("leap", "reptile") for seed in (0, 1)]
    page = write_report(folders, tmp_path / "report.html").read_text()
    for game in GAMES:
        assert f"Learning curves of {game}" in page
    assert "leap learns faster than a random initialization on 3 of 3 games" in page
    assert "2 standard deviations between walks" in page and ">frames<" in page
    assert "Performance profile" in page and "Probability of improvement" in page
    assert "Losses and path lengths" in page and "Task by task" not in page
    assert page == write_report(folders, tmp_path / "again.html").read_text()


def test_games_are_called_by_names_and_run_nothing(tmp_path: Path) -> None:
    tasks = ["<script>alert(1)</script>", "$x_{$", "日本語"]
    folder = _run(tmp_path, "leap", 0, tasks=tasks, references={tasks[0]: {"random": 0, "human": 100}})
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "日本語" in page


def test_a_document_of_games_is_read_beside_its_numbers(tmp_path: Path) -> None:
    content = json.loads((_run(tmp_path, "leap", 0) / "evaluation.json").read_text())
    found = parse_evaluation(content)
    assert found.has_returns and not found.has_error and "episodes" not in found.values["leap"]
    assert found.episodes["leap"][4][2].shape == (40, 3) and found.values["leap"]["test_return"].shape == (5, 3)
