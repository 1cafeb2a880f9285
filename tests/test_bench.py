"""The benchmark: its arithmetic on a clock of its own, its rows at tiny sizes, its command. No test looks at a time."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from leap.bench import comparison, table
from leap.bench.row import Figure, Goal, LeftOut, Row, carry_out, verdict
from leap.bench.timing import CLOCKS, LEAST_ROUNDS, Contender, Spread, measure, summarize
from leap.cli import bench
from leap.cli import main as cli
from leap.errors import UsageError


@pytest.fixture(autouse=True, scope="module")
def few_objects() -> Iterator[None]:
    """Every round collects garbage, which takes half a second among all objects of all tests' modules."""
    gc.freeze()
    yield
    gc.unfreeze()


class Clock:
    """Seconds that pass only when something says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, *spent: float) -> Callable[[], None]:
        """Something that takes these times, call by call, the last one ever after."""
        left = list(spent)

        def run() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_a_round_times_every_contender_once_and_warming_is_not_counted() -> None:
    clock = Clock()
    contenders = [Contender("a", clock.work(50.0, 1.0, 2.0, 3.0)), Contender("b", clock.work(60.0, 4.0, 5.0, 6.0))]
    times = measure(contenders, seconds=25.0, clock=clock)
    assert times["a"] == pytest.approx([1, 2, 3]) and times["b"] == pytest.approx([4, 5, 6])


@pytest.mark.parametrize(("budget", "rounds"), [(0.5, 1), (10.0, 5), (10.9, 5), (11.99, 5), (12.0, 6)])
def test_no_round_begins_that_would_end_beyond_the_budget(budget: float, rounds: int) -> None:
    clock = Clock()
    times = measure([Contender("a", clock.work(0.5)), Contender("b", clock.work(1.5))], seconds=budget, clock=clock)
    assert len(times["a"]) == len(times["b"]) == rounds


def test_the_order_of_contenders_is_drawn_for_every_round_from_the_seed() -> None:
    def orders(seed: int) -> list[str]:
        clock, seen = Clock(), []
        parts = [Contender(n, partial(_note, seen, n, clock), warm=lambda: None) for n in "abc"]
        measure(parts, seconds=20 * 3.0, seed=seed, clock=clock)
        return ["".join(seen[i : i + 3]) for i in range(0, len(seen), 3)]

    first = orders(0)
    assert all(sorted(order) == ["a", "b", "c"] for order in first) and len(set(first)) > 3
    assert orders(0) == first and orders(1) != first


def _note(seen: list[str], name: str, clock: Clock) -> None:
    seen.append(name)
    clock.now += 1


def test_the_device_is_waited_for_within_the_time_of_its_work() -> None:
    clock, queued = Clock(), [0.0]

    def launch() -> None:
        queued[0] += 3.0

    def synchronize() -> None:
        clock.now += queued[0]
        queued[0] = 0.0

    times = measure([Contender("a", launch)], seconds=1, clock=clock, synchronize=synchronize)
    assert times["a"] == [3.0]  # what warming left in the queue is not in it


def test_contenders_that_take_steps_take_them_in_turns() -> None:
    clock, seen = Clock(), list[str]()

    def steps(name: str, count: int, spent: float) -> Iterator[None]:
        for _ in range(count):
            seen.append(name)
            clock.now += spent
            yield
        clock.now += 0.5  # what is left behind the last step

    contenders = [
        Contender("a", partial(steps, "a", 4, 1.0), parts=lambda: {"part": 3.0}),
        Contender("b", partial(steps, "b", 2, 2.0)),
        Contender("whole", partial(_note, seen, "c", clock)),
    ]
    times = measure(contenders, seconds=30.0, clock=clock)
    assert times == {"a": [4.5] * 3, "b": [4.5] * 3, "whole": [1.0] * 3, "part": [3.0] * 3}
    assert "".join(seen[:7]) == "aaaabbc"  # warming
    rounds = ["".join(seen[at : at + 7]) for at in range(7, 28, 7)]
    assert all({turn[1:3], turn[3:5]} <= {"ab", "ba"} and turn[0] == "c" and turn[5:] == "aa" for turn in rounds)
    assert len({turn[1:5] for turn in rounds}) > 1  # who is first is drawn for every turn


def test_parts_of_a_contender_become_entries() -> None:
    clock = Clock()
    whole = Contender("whole", clock.work(4.0), parts=lambda: {"one": 1.0, "three": 3.0})
    times = measure([whole], seconds=8, clock=clock)
    assert times == {"whole": [4.0, 4.0], "one": [1.0, 1.0], "three": [3.0, 3.0]}
    with pytest.raises(ValueError, match="a name of its own"):
        measure([Contender("a", clock.work(1.0), parts=lambda: {"a": 1.0})], seconds=1, clock=clock)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_measuring_refuses_a_budget_that_is_none(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be positive"):
        measure([Contender("a", lambda: None)], seconds=seconds)


@pytest.mark.parametrize("names", ["", "aa"])
def test_measuring_refuses_no_contenders_and_namesakes(names: str) -> None:
    with pytest.raises(ValueError, match="of different names"):
        measure([Contender(name, lambda: None) for name in names], seconds=1)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    reference, other = [1.0, 2.0, 9.0, 2.0, 2.0, 2.5, 1.5], [3.0, 4.0, 1.0, 8.0, 3.0, 2.0, 4.0]
    first, second = summarize({"walk": reference, "fold": other}, "walk")
    assert first.seconds.value == 2.0 and first.ratio == (1.0, 1.0, 1.0)
    rounds = [spent / beside for spent, beside in zip(other, reference, strict=True)]
    assert second.ratio.value == statistics.median(rounds) == 2.0  # the medians' is 1.5
    assert second.ratio.low < 2.0 < second.ratio.high and second.rounds == 7
    assert min(other) <= second.seconds.low <= 3.0 <= second.seconds.high <= max(other)


def test_the_interval_pairs_rounds_so_that_a_slow_machine_cancels() -> None:
    draw = torch.Generator().manual_seed(0)
    slowness = (1 + 2 * torch.rand(60, generator=draw)).tolist()  # the machine's, up to three times
    paired = {"walk": slowness, "fold": [1.1 * s for s in slowness]}
    unpaired = {"walk": slowness, "fold": [1.1 * s for s in slowness[30:] + slowness[:30]]}
    one, other = summarize(paired, "walk")[1].ratio, summarize(unpaired, "walk")[1].ratio
    assert (one.low, one.high) == pytest.approx((1.1, 1.1))
    assert other.high - other.low > 0.1
    own = summarize(paired, "walk")[0].seconds
    assert own.high - own.low > 0.1  # seconds do vary with the machine


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw, covered = torch.Generator().manual_seed(1), 0
    for trial in range(100):
        base = torch.randn(25, generator=draw).mul(0.1).exp()
        own = 1.05 * base * torch.randn(25, generator=draw).mul(0.05).exp()
        ratio = summarize({"a": base.tolist(), "b": own.tolist()}, "a", seed=trial)[1].ratio
        covered += ratio.low <= 1.05 <= ratio.high
    assert 85 <= covered <= 100


def test_few_rounds_have_no_interval() -> None:
    short, enough = (summarize({"a": [1.0] * n}, "a")[0].seconds for n in (LEAST_ROUNDS - 1, LEAST_ROUNDS))
    assert short == (1.0, None, None) and enough == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"b": [1.0]}, "reference must be one of"),
        ({"a": []}, "there must be a round"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "one time a round"),
        ({"a": [0.0]}, "must be finite"),
        ({"a": [1.0], "b": [float("nan")]}, "'b'"),
    ],
)
def test_summarizing_refuses_what_has_no_ratio(times: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarize(times, "a")


@pytest.mark.parametrize(
    ("spread", "expected"),
    [
        (Spread(1.01, 1.0, 1.02), "met"),
        (Spread(1.01, 1.0, 1.0201), "open"),
        (Spread(1.03, 1.02, 1.04), "open"),
        (Spread(1.03, 1.021, 1.04), "missed"),
        (Spread(0.5, None, None), "open"),
    ],
)
def test_a_goal_is_open_within_the_interval_and_without_one(spread: Spread, expected: str) -> None:
    assert verdict(spread, 1.02) == expected


def row(clock: Clock, fold: float, figure: float = 2.0) -> Row:
    contenders = [Contender("walk", clock.work(1.0)), Contender("fold", clock.work(fold))]
    goals = [
        Goal("adds at most 2%", "fold", "ratio", 1.02), Goal("within 5 s", "fold", "seconds", 5.0),
        Goal("at most 3 passes", "passes", "figure", 3.0),
    ]  # fmt: skip
    return Row(contenders, "walk", {"K": 3}, goals, [Figure("passes", "passes", lambda: figure)])


def document(fold: float, figure: float = 2.0, budget: float = 30.0) -> dict[str, Any]:
    clock = Clock()
    found = carry_out(row(clock, fold, figure), seconds=budget, clock=clock)
    machine = {"hardware": {"processor": "p", "device": "cpu", "threads": 1}, "versions": {"torch": "2"}}
    rows = {"walk": {"about": "a walk", **found}}
    return json.loads(
        json.dumps({"kind": "leap bench", "format": 1, "provenance": machine, "clock": "wall", "rows": rows})
    )


def test_a_row_states_its_goals_and_whether_they_are_met() -> None:
    found = document(1.5, figure=4.0)["rows"]["walk"]
    assert [goal["verdict"] for goal in found["goals"]] == ["missed", "met", "missed"]
    assert found["results"]["fold"]["ratio"] == {"value": 1.5, "low": 1.5, "high": 1.5} and found["rounds"] == 12
    assert found["results"]["fold"]["times"] == pytest.approx([1.5] * 12) and found["setting"] == {"K": 3}
    text = table.row_text("walk", "a walk", found)
    for part in (
        "K 3",
        "12 rounds",
        "1.500 [1.500, 1.500]",
        "MISSED  adds at most 2%",
        "met     within 5 s",
        "4 passes",
    ):
        assert part in text
    clock = Clock()
    unjudged = carry_out(row(clock, 1.5), seconds=1, judged=lambda goal: False, clock=clock)
    assert {goal["verdict"] for goal in unjudged["goals"]} == {"not judged"}
    assert "1 round (no intervals" in table.row_text("walk", "", unjudged)


def test_a_goal_may_be_about_two_contenders_neither_of_them_the_reference() -> None:
    clock = Clock()
    contenders = [Contender(name, clock.work(spent)) for name, spent in (("a", 1.0), ("b", 4.0), ("c", 2.0))]
    goals = [Goal("half of b", "c", "ratio", 0.5, beside="b"), Goal("half of a", "c", "ratio", 0.5)]
    found = carry_out(Row(contenders, "a", {}, goals), seconds=60.0, clock=clock)
    assert [(goal["value"], goal["verdict"]) for goal in found["goals"]] == [(0.5, "met"), (2.0, "missed")]


def test_of_several_references_the_fastest_over_all_rounds_is_the_one() -> None:
    clock = Clock()
    disturbed = clock.work(9.0, 9.0, 1.0)  # to warm up, in the first round, and ever after
    contenders = [Contender("a", disturbed), Contender("b", clock.work(4.0)), Contender("c", clock.work(0.5))]
    found = carry_out(Row(contenders, ["b", "a"], {}), seconds=60.0, clock=clock)
    assert found["reference"] == "a" and found["results"]["a"]["times"][0] == 9.0
    assert found["results"]["c"]["ratio"]["value"] == 0.5


def test_comparing_prints_what_moved_beyond_both_intervals() -> None:
    old = document(1.5)
    assert comparison.compare(old, document(1.5)) == comparison.Comparison([], [])
    slower = comparison.compare(old, document(1.6, figure=3.0))
    assert [(move.name, move.quantity) for move in slower.moves] == [
        ("fold", "ratio"), ("fold", "seconds"), ("passes", "passes"),
    ]  # fmt: skip
    text = comparison.comparison_text(slower)
    assert "walk / fold: ratio 1.500 [1.500, 1.500] -> 1.600 [1.600, 1.600] (+6.7%)" in text
    assert "walk / passes: 2 passes -> 3 passes (+50.0%)" in text
    assert "nothing moved" in comparison.comparison_text(comparison.compare(old, document(1.5)))


def test_intervals_that_meet_are_no_move() -> None:
    old, new = document(1.5), document(1.6)
    for side, (low, high) in ((old, (1.4, 1.55)), (new, (1.55, 1.65))):
        for quantity in ("ratio", "seconds"):
            side["rows"]["walk"]["results"]["fold"][quantity].update(low=low, high=high)
    assert not comparison.compare(old, new).moves


def test_comparing_says_what_cannot_be_compared() -> None:
    old, new = document(1.5), document(1.6)
    new["provenance"]["hardware"]["threads"] = 2
    found = comparison.compare(old, new)
    assert [move.quantity for move in found.moves] == ["ratio"] and "threads 1 then, 2 now" in found.notes[0]
    found = comparison.compare(old, {**document(1.6), "clock": "cpu"})
    assert [move.quantity for move in found.moves] == ["ratio"] and "clock wall then, cpu now" in found.notes[0]
    resized = copy.deepcopy(new)
    resized["rows"]["walk"]["setting"]["K"] = 4
    found = comparison.compare(old, resized)
    assert not found.moves and "sizes differ (K 3 then, K 4 now)" in found.notes[1]
    renamed = {**new, "rows": {"other": new["rows"]["walk"]}}
    assert comparison.compare(old, renamed).notes[1:] == [
        "other: not in the older result", "walk: in the older result alone",
    ]  # fmt: skip
    short = comparison.compare(old, document(9.0, budget=1))
    assert not short.moves and "fewer than 6 rounds" in short.notes[0]


def test_comparing_tells_goals_that_are_missed_now_or_met_now() -> None:
    good, bad = document(1.0), document(1.5)
    assert "note: walk: the goal 'adds at most 2%' was met and is missed" in comparison.comparison_text(
        comparison.compare(good, bad)
    )
    assert "was missed and is met" in comparison.compare(bad, good).notes[0]
    unsure = copy.deepcopy(bad)
    unsure["rows"]["walk"]["goals"][0]["verdict"] = "open"
    assert not comparison.compare(good, unsure).notes


def test_a_row_may_bring_its_own_clock() -> None:
    own, given = Clock(), Clock()
    made = dataclasses.replace(row(own, 1.5), clock=own)
    assert carry_out(made, seconds=10.0, clock=given)["results"]["fold"]["seconds"]["value"] == 1.5
    assert given.now == 100.0


def test_a_row_that_cannot_be_measured_here_is_left_out_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(under: bench.Conditions) -> Row:
        raise LeftOut("a package is missing; install it")

    clock, out = Clock(), tmp_path / "result.json"
    monkeypatch.setitem(CLOCKS, "wall", clock)
    monkeypatch.setattr(bench, "ROWS", {"one": ("a row", refuse), "two": ("another", lambda under: row(clock, 1.0))})
    assert cli.main(["bench", "--seconds", "9", "--device", "cpu", "--out", str(out)]) == 0
    assert "one: left out: a package is missing; install it" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert list(found["rows"]) == ["two"] and found["left_out"] == {"one": "a package is missing; install it"}


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", '{"kind": "leap bench", "format": 99}'])
def test_a_file_that_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(UsageError, match=r"old\.json.*leap bench --out"):
        comparison.load(tmp_path / "old.json")
    with pytest.raises(UsageError, match=r"cannot read .*none\.json"):
        comparison.load(tmp_path / "none.json")


def test_a_goal_about_threads_is_judged_with_as_many_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def make(under: bench.Conditions) -> Row:
        made = row(clock, 1.0)
        return dataclasses.replace(made, goals=[made.goals[0], made.goals[1]._replace(threads=torch.get_num_threads())])

    monkeypatch.setitem(bench.ROWS, "walk", ("a walk", make))
    for name in ("wall", "cpu"):
        monkeypatch.setitem(CLOCKS, name, clock)
    verdicts = {}
    for name, tiny in (("wall", False), ("cpu", False), ("wall", True)):
        found = bench.run(["walk"], 30.0, bench.Conditions("cpu", name, tiny), None)
        verdicts[name, tiny] = [goal["verdict"] for goal in found["rows"]["walk"]["goals"]]
    assert verdicts["wall", False] == ["met", "met"] and verdicts["cpu", False] == ["met", "not judged"]
    assert verdicts["wall", True] == ["not judged", "not judged"]


def test_every_row_runs_for_one_tiny_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    assert cli.main(["bench", "--tiny", "--seconds", "0.001", "--device", "cpu", "--out", str(out)]) == 0
    text, found = capsys.readouterr().out, json.loads(out.read_text())
    assert {*found["rows"], *found["left_out"]} == set(bench.ROWS) and found["tiny"] is True
    # where learn2learn, Stable-Baselines3 or its OpenCV is not installed, or there is one core
    assert set(found["left_out"]) <= {"maml", "atari-nature", "atari-mnih2013", "processes", "maml-processes"}
    assert found["provenance"]["hardware"]["threads"] == torch.get_num_threads()
    for name in found["rows"]:
        assert f"{name}: {bench.ROWS[name][0]}" in text and found["rows"][name]["rounds"] == 1
    assert {goal["verdict"] for measured in found["rows"].values() for goal in measured["goals"]} == {"not judged"}
    again = ["bench", "--tiny", "--seconds", "0.001", "--device", "cpu", "--rows", "parts", "--compare", str(out)]
    assert cli.main(again) == 0
    assert "compared with the older result:" in capsys.readouterr().out


def test_the_list_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--list"]) == 0
    assert [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines()] == list(bench.ROWS)
    assert cli.main(["bench", "--help"]) == 0
    assert "--compare FILE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--rows", "wlak"], ["'wlak'", "did you mean walk?"]),
        (["--rows", "zzzz"], ["known: walk, parts"]),
        (["--seconds", "0"], ["--seconds", "above 0", "'0'"]),
        (["--seconds", "soon"], ["'soon'"]),
        (["--sceonds", "1"], ["did you mean --seconds?"]),
        (["walk"], ["'walk'", "--rows"]),
        (["--out", "no/such/folder/x.json"], ["folder that exists"]),
        (["--compare", "no.json"], ["cannot read no.json"]),
        (["--clock", "sun"], ["one of wall, cpu", "'sun'"]),
        (["--device", "warp"], ["'warp'", "Devices here"]),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *words]) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in parts), message
