"""Progress lines, with a clock and a stream of their own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from leap.cli import lifecycle
from leap.cli.progress import Levels, Line, watched
from leap.cli.settings import Settings
from leap.evaluate import evaluate
from leap.optim import sgd
from tasks.quadratic import Quadratic


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Log(io.StringIO):
    """A file that knows what was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


class Terminal(Log):
    def isatty(self) -> bool:
        return True


def _go(line: Line, clock: Clock, steps: range, seconds: float) -> None:
    for step in steps:
        clock.now += seconds
        line.reach(step, f"loss {step}")


def test_what_is_soon_over_leaves_no_line_in_a_log() -> None:
    clock, log = Clock(), Log()
    with Line(1000, "meta-step", "run", stream=log, clock=clock) as line:
        _go(line, clock, range(1, 1001), 0.029)
    assert log.getvalue() == ""


def test_a_log_has_a_line_every_half_minute_or_twentieth_each_whole_and_flushed() -> None:
    clock, log = Clock(), Log()
    with Line(1000, "meta-step", "run", stream=log, clock=clock) as line:
        _go(line, clock, range(1, 121), 1.0)
        assert log.getvalue() == log.flushed
        assert log.getvalue().splitlines() == [
            "run: 50/1000 meta-steps (5%), 1 meta-steps/s, 15 min 50 s left; loss 50",
            "run: 100/1000 meta-steps (10%), 1 meta-steps/s, 15 min 00 s left; loss 100",
        ]
        _go(line, clock, range(121, 1001), 0.5)
    told = log.getvalue().splitlines()
    assert told[-1] == "run: 1000/1000 meta-steps (100%), 2 meta-steps/s, in 9 min 20 s; loss 1000"
    assert len(told) < 20 and "\r" not in log.getvalue()


def test_slow_steps_are_told_every_five_minutes() -> None:
    clock, log = Clock(), Log()
    with Line(1000, "meta-step", "run", stream=log, clock=clock) as line:
        _go(line, clock, range(1, 13), 100.0)
    assert [line.split(" ")[1] for line in log.getvalue().splitlines()] == ["3/1000", "6/1000", "9/1000", "12/1000"]
    assert "100.0 s each, 1 d 3 h left" in log.getvalue()


def test_the_rate_of_a_run_that_goes_on_leaves_out_what_was_there() -> None:
    clock, log = Clock(), Log()
    with Line(1000, "meta-step", "run", stream=log, clock=clock) as line:
        _go(line, clock, range(901, 961), 1.0)
    assert "950/1000 meta-steps (95%), 1 meta-steps/s, 50 s left" in log.getvalue()


def test_a_run_cut_short_tells_where_it_stands() -> None:
    clock, log = Clock(), Log()
    with pytest.raises(KeyboardInterrupt), Line(100, "meta-step", "run", stream=log, clock=clock) as line:
        _go(line, clock, range(1, 43), 1.0)
        raise KeyboardInterrupt
    assert log.getvalue().splitlines()[-1].startswith("run: 42/100 meta-steps (42%)")


def test_what_is_quiet_says_nothing_anywhere() -> None:
    for stream in (Log(), Terminal()):
        clock = Clock()
        with Line(10, "item", "run", stream=stream, clock=clock, quiet=True) as line:
            _go(line, clock, range(1, 11), 100.0)
        assert stream.getvalue() == ""


def test_a_terminal_has_a_bar_that_starts_where_the_run_does() -> None:
    terminal = Terminal()
    with Line(100, "meta-step", "run", stream=terminal) as line:
        line.reach(51, "loss 3")
        line.reach(100, "loss 2")
        line.write("something else")
    shown = terminal.getvalue()
    assert "100/100" in shown and "loss 2" in shown and "\r" in shown
    assert "something else\n" in shown
    assert " 0/100 [00:00<?, ?meta-step/s]" in shown  # before the first step, and nothing of 51 steps at once after it


def test_inner_steps_of_long_walks_have_a_line_and_those_of_short_ones_none() -> None:
    clock, log = Clock(), Log()
    with Line(10, "meta-step", "run", stream=log, clock=clock) as line:
        levels = Levels(line, lambda metrics: f"loss {metrics['loss']}", clock)
        tell = levels.walk(["Greek", "Korean"], 2, 100, None)
        for step in range(100):
            clock.now += 0.1
            tell(step)
        levels(1, {"loss": 3.0})
        assert log.getvalue() == ""
        for number, game in enumerate(("Pong", "Boxing"), 1):
            tell = levels.walk([game], 2, 100, 640.0)
            for step in range(100):
                clock.now += 1.0
                tell(step)
            assert f"task {number} of 2, {game}: " in log.getvalue()
        assert "Pong: 29/100 inner steps (29%), 1.0 s each, 1 min 13 s left; 619 agent steps/s" in log.getvalue()
        before = len(log.getvalue().splitlines())
        levels(2, {"loss": 2.0})
        assert "run: 2/10 meta-steps (20%)" in log.getvalue().splitlines()[-1]
        assert log.getvalue().endswith("loss 2.0\n") and len(log.getvalue().splitlines()) == before + 2


def test_in_a_terminal_the_bar_of_inner_steps_comes_after_some_seconds_and_goes() -> None:
    clock, terminal = Clock(), Terminal()
    with Line(10, "meta-step", "run", stream=terminal) as line:
        levels = Levels(line, clock=clock)
        tell = levels.walk(["Greek"], 1, 100, None)
        clock.now += 2.0
        tell(1)
        assert "inner step" not in terminal.getvalue()
        clock.now += 2.0
        tell(2)
        tell(1)  # some learners go back
        levels(1)
    assert "Greek" in terminal.getvalue() and "inner step" in terminal.getvalue()


def test_a_watched_family_walks_as_before_and_every_step_is_told() -> None:
    class Listener:
        def __init__(self) -> None:
            self.walks: list[Any] = []
            self.steps: list[int] = []

        def walk(self, *about: Any) -> Any:
            self.walks.append(about)
            return self.steps.append

    family, heard = Quadratic(), Listener()
    same: dict[str, Any] = {"learner": None, "inner": lambda steps: sgd(0.1), "steps": 7, "seed": 0}
    same["evaluation_seeds"] = range(2)
    seen = watched(family, heard, lambda task: 7, len(family.ids("test")))
    theta = family.initial(0)
    assert torch.equal(seen.initial(0), theta)
    assert evaluate(seen, theta, **same) == evaluate(family, theta, **same)
    names = [family.name(task) for task in family.ids("test")]
    assert heard.walks == [(names, len(names), 7, None)] * 2
    assert [step for step in heard.steps if step < 7] == [*range(7), *range(7)]
    assert watched(family, lambda: None, lambda task: 7, 1) is family


def test_a_run_tells_its_levels(tmp_path: Path) -> None:
    from leap.cli import configuration

    settings = configuration.load(Settings, ["quadratic"], ["--train.meta_steps", "3", "--tracking", "none"])
    heard: list[Any] = []

    class Listener:
        def __call__(self, *at: Any) -> None:
            heard.append(("above", at[0] if at else None))

        def walk(self, names: Any, of: int, steps: int, played: Any) -> Any:
            heard.append(("walk", len(names), of, steps))
            return lambda step: None

    run = lifecycle.start(settings, tmp_path / "run", Listener())
    size, steps = settings.train.meta_batch, settings.train.inner_steps
    assert heard == [one for step in (1, 2, 3) for one in (("walk", size, size, steps), ("above", step))]
    heard.clear()
    lifecycle.evaluate(run, settings, Listener())
    assert [one[0] for one in heard] == ["walk", "above"] * 2 * settings.evaluate.repetitions
