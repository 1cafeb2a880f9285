"""Returns of games in the report: curves and areas by hand, pairs by seed, what is left out, a page that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from report_runs import write_run

from leap.cli.report import main
from leap.errors import RunError, UsageError
from leap.metrics.statistics import difference_interval
from leap.randomness import derive
from leap.report import comparison_text, summarize, write_report
from leap.report.drawing import styles
from leap.report.evaluation import parse_evaluation
from leap.report.pictures import comparison, learning_curves
from leap.report.returns import Returns, alone, gather
from leap.report.returns_charts import draw_learning, reference_text
from leap.report.returns_curves import area, level, moving_average, spread
from leap.report.returns_text import answer, curve_note
from leap.report.returns_walks import AREA, FINAL, TEST

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


def test_what_was_played_beyond_the_budget_does_not_count(tmp_path: Path) -> None:
    """The roll-out by which the last segment of a path is measured is played after the last step."""
    folder = _run(tmp_path, "leap", 0)

    def go_on(content: dict[str, Any]) -> None:
        for held in content["initializations"].values():
            for walk in (walk for row in held["episodes"] for walk in row):
                walk += [[10_000, 7.0, 50], [10_040, 1e6, 50]]

    before = _found(folder)
    _change(folder, go_on)
    found = _found(folder)
    assert found.budget["breakout"] == 10_000 and "10,000 agent steps" in comparison_text(summarize([folder]))
    one, other = (next(iter(_arm(each, "leap").walks["breakout"].values())) for each in (before, found))
    assert len(other.episodes) == len(one.episodes) + 1 and other.episodes[-1].tolist() == [10_000, 7, 50]
    assert other.figures[AREA] == pytest.approx(one.figures[AREA])  # it ended where the area ends
    assert other.figures[FINAL] == pytest.approx((one.figures[FINAL] * 40 + 7) / 41)


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
    assert [ratio.mean, ratio.low, ratio.high] == pytest.approx([0.5, 0.5, 0.5])
    few = _found(_run(tmp_path / "few", "leap", 0, repetitions=4))
    ratio = few.narrower(_arm(few, "leap"), "breakout")
    assert ratio is not None and ratio.low is None


def _slopes(content: dict[str, Any]) -> None:
    """Straight learning curves, every walk at a slope of its own: 0.1, 0.2 .. 0.5 a hundred steps, and twice that."""
    for name, factor in (("leap", 1.0), ("none", 2.0)):
        content["initializations"][name]["episodes"] = [
            [[[k, factor * (s + 1) * k / 1000 + 50.0, 10] for k in range(1, 10_001)] for _ in GAMES] for s in range(5)
        ]


def test_the_spread_of_straight_lines_is_that_of_their_slopes_times_the_mean_step(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    _change(folder, _slopes)
    found = gather(summarize([folder]), window=1)
    at = np.linspace(0, 10_000, 161)[1:].astype(int)  # where curves are looked at; an episode ends at every step
    expected = np.std([1, 2, 3, 4, 5], ddof=1) * at.mean() / 1000
    leap, none = _arm(found, "leap"), _arm(found, "none")
    assert found.spread(leap, "breakout") == pytest.approx(expected, rel=1e-9)
    assert found.spread(none, "breakout") == pytest.approx(2 * expected, rel=1e-9)
    ratio = found.narrower(leap, "breakout")
    assert ratio is not None and ratio.mean == pytest.approx(0.5)
    assert "0.50x" in comparison_text(summarize([folder]), window=1)


def test_what_all_walks_share_is_no_spread_and_units_scale_it() -> None:
    rng = np.random.default_rng(3)
    curves, shared = rng.normal(size=(6, 40)), 100 * rng.normal(size=40)
    plain = np.mean([np.sqrt(sum((x - sum(c) / 6) ** 2 for x in c) / 5) for c in curves.T])
    assert spread(curves) == pytest.approx(plain)
    assert spread(3 * curves + shared) == pytest.approx(3 * plain)
    assert spread(np.tile(shared, (6, 1))) == pytest.approx(0, abs=1e-9)
    many = np.random.default_rng(4).normal(0, 2.0, size=(4000, 30))
    assert spread(many) == pytest.approx(2.0, rel=0.02)  # of walks drawn around one curve: their deviation


def test_pooled_training_and_evaluation_seeds_are_walks_alike(tmp_path: Path) -> None:
    folders = [_run(tmp_path, "leap", seed, repetitions=2) for seed in range(3)]
    found = _found(*folders)
    steps, curves = found.curves(_arm(found, "leap"), "breakout")
    assert curves.shape == (6, len(steps))
    begun = ~np.isnan(curves).any(axis=0)
    assert found.spread(_arm(found, "leap"), "breakout") == pytest.approx(curves[:, begun].std(axis=0, ddof=1).mean())


# The window


@pytest.mark.parametrize("window", [1, 7, 40])
def test_a_window_of_ones_own_changes_curves_and_areas(window: int, tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    scores = json.loads((folder / "evaluation.json").read_text())["initializations"]["leap"]["episodes"]
    areas = []
    for row in scores:
        walk, held = row[0], []
        for k in range(len(walk)):
            part = [score for _, score, _ in walk[max(0, k + 1 - window) : k + 1]]
            held.append(sum(part) / len(part))
        ends = [0, *(end for end, _, _ in walk[1:]), 10_000]
        areas.append(sum(m * (b - a) for m, a, b in zip(held, ends[:-1], ends[1:], strict=True)) / 10_000)
    found = gather(summarize([folder]), window)
    assert _arm(found, "leap").interval("breakout", AREA).mean == pytest.approx(np.mean(areas))
    told = comparison_text(summarize([folder]), window)
    page = write_report([folder], tmp_path / "report.html", window).read_text()
    for shown in (told, page):
        assert f"moving average over {window} episode" in shown and "s is over 500)" in shown


def test_walks_shorter_than_the_window_are_named_with_what_that_means(tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    _change(folder, lambda held: [walk[0].pop() for walk in held["initializations"]["leap"]["episodes"][:1]])
    found = _found(folder)
    assert "over 500 episodes (as in the paper)" in curve_note(found)
    assert "breakout (39 to 40), space_invaders (40), air_raid (40)" in curve_note(found)
    assert "follow what was learned late" in curve_note(found) and "--window" in curve_note(found)
    short = gather(summarize([folder]), 40)
    assert "breakout (39 to 40);" in curve_note(short)  # the one that has fewer, and no other
    assert "fewer episodes:" not in curve_note(gather(summarize([folder]), 39))
    told, page = comparison_text(summarize([folder])), write_report([folder], tmp_path / "report.html").read_text()
    assert "breakout (39 to 40)" in told and "breakout (39 to 40)" in page


@pytest.mark.parametrize("window", ["0", "-3", "2.5", "many", "", "1" * 5000])
def test_a_window_that_cannot_be_is_refused(window: str, tmp_path: Path) -> None:
    folder = _run(tmp_path, "leap", 0)
    with pytest.raises(UsageError, match="--window"):
        main([str(folder), "--out", str(tmp_path / "report.html"), "--window", window])
    assert not (tmp_path / "report.html").exists()


def test_the_command_takes_a_window_for_games_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, page = _run(tmp_path, "leap", 0), tmp_path / "report.html"
    assert main([str(folder), "--out", str(page), "--window", "12"]) == 0
    assert "moving average over 12 episodes" in capsys.readouterr().out
    assert "moving average over 12 episodes" in page.read_text()
    other = write_run(tmp_path / "glyphs", "leap", 0)
    with pytest.raises(UsageError, match="--window 12 counts episodes, and these runs of glyphs have none"):
        main([str(other), "--out", str(page), "--window", "12"])
    with pytest.raises(UsageError, match="--window must be 1 episode or more, got 0"):
        write_report([folder], page, window=0)


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
    assert "one seed cannot say how surely" in told and "1 walk a game" in told
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


# Pictures


def _drawn(found: Returns, game: str) -> Any:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw_learning(axes, found, game, styles(["leap"], ["none"]))
    return axes


def test_the_picture_of_a_game_holds_means_over_walks_and_bands_of_two_deviations(tmp_path: Path) -> None:
    content = json.loads((_run(tmp_path, "leap", 0) / "evaluation.json").read_text())
    found = alone(parse_evaluation(content), window=9)
    axes = _drawn(found, "space_invaders")
    for name in ("leap", "none"):
        walks = [row[1] for row in content["initializations"][name]["episodes"]]
        line = next(line for line in axes.lines if line.get_label() == name)
        at = line.get_xdata()
        assert at[-1] == 10_000
        for place in (60, 110, 159):
            ended = [[score for end, score, _ in walk if end <= at[place]][-9:] for walk in walks]
            means = [sum(scores) / len(scores) for scores in ended]
            assert line.get_ydata()[place] == pytest.approx(np.mean(means))
            edges = axes.collections[0 if name == "none" else 1].get_paths()[0].vertices
            reach = sorted(edges[np.isclose(edges[:, 0], at[place]), 1])
            expected = [np.mean(means) + side * 2 * np.std(means, ddof=1) for side in (-1, 1)]
            assert (reach[0], reach[-1]) == pytest.approx(expected)


def test_the_picture_of_a_comparison_shows_returns_of_all_walks(tmp_path: Path) -> None:
    folders = [_run(tmp_path, learner, seed) for learner in ("leap", "reptile") for seed in (0, 1)]
    first = comparison(summarize(folders), tmp_path / "comparison.png").read_bytes()
    assert first[:4] == b"\x89PNG"
    _change(folders[3], lambda held: held["initializations"]["reptile"].update(train_loss=np.ones((5, 3, 4)).tolist()))
    assert comparison(summarize(folders), tmp_path / "comparison.png").read_bytes() == first
    _change(folders[3], lambda held: held["initializations"]["reptile"]["episodes"][4][0][-1].__setitem__(1, 900.0))
    assert comparison(summarize(folders), tmp_path / "comparison.png").read_bytes() != first


def test_reference_lines_are_drawn_where_they_lie_within_the_picture(tmp_path: Path) -> None:
    content = json.loads((_run(tmp_path, "leap", 0) / "evaluation.json").read_text())
    content["references"]["breakout"]["best"] = 31.0
    found = alone(parse_evaluation(content))
    assert reference_text(found, "breakout") == "random play 2.00, human 30.0, best known 31.0"
    names = [text.get_text() for text in _drawn(found, "breakout").texts]
    assert names == ["random play", "human", "best known"]
    assert [text.get_text() for text in _drawn(found, "space_invaders").texts] == ["random play"]  # scores reach 300
    assert reference_text(found, "air_raid") == "" and not _drawn(found, "air_raid").texts


def test_the_picture_of_a_run_shows_returns_and_not_losses(tmp_path: Path) -> None:
    content = json.loads((_run(tmp_path, "leap", 0) / "evaluation.json").read_text())

    def picture() -> bytes:
        return learning_curves(content, tmp_path / "curves.png").read_bytes()

    first = picture()
    assert first[:4] == b"\x89PNG" and first == picture()
    content["initializations"]["leap"]["train_loss"] = np.full((5, 3, 4), 9.0).tolist()
    assert picture() == first
    content["initializations"]["leap"]["episodes"][0][2][-1][1] += 1000
    assert picture() != first


@pytest.mark.parametrize("learner", ["leap", "none"])
def test_a_picture_is_drawn_whatever_is_missing(learner: str, tmp_path: Path) -> None:
    folder = _run(tmp_path, learner, 0, repetitions=1, references={}, agent_steps=None)
    content = json.loads((folder / "evaluation.json").read_text())
    for walks in content["initializations"].values():
        walks["episodes"][0][0] = []
    learning_curves(content, tmp_path / "curves.png")
    found = alone(parse_evaluation(content))
    assert [text.get_text() for text in _drawn(found, "breakout").texts] == ["a walk ended no episode"]


# The page


def test_the_page_shows_curves_tables_and_averages_and_is_the_same_every_time(tmp_path: Path) -> None:
    folders = [_run(tmp_path, learner, seed) for learner in ("leap", "reptile") for seed in (0, 1)]
    for folder in folders:
        rows = [{"step": 1, "charts/episodic_return": None}, {"step": 2, "charts/episodic_return": 3.0}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(folders, tmp_path / "report.html").read_text()
    for game in GAMES:
        assert f"Learning curves of {game}" in page
    assert "leap learns fastest on average over 3 games" in page
    assert "Learning held-out tasks" not in page and "Meta-training" in page  # its own curves are of returns
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
