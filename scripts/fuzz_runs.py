"""Run folders of every sort for `scripts/fuzz.py`, made by real commands, and commands without what takes long."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fuzz_box import added_command, load

import leap.report.drawing
import leap.report.svg
from leap import tracking
from leap.cli import lifecycle, main, sweep
from leap.cli.settings import Settings

QUICK = (
    *("--tracking", "none", "--train.meta-steps", "2", "--train.inner-steps", "2", "--train.meta-batch", "2"),
    *("--evaluate.steps", "2", "--evaluate.repetitions", "1", "--train.execution", "sequential", "--device", "cpu"),
)
BOWLS = ("quadratic.yaml", *QUICK, "--tasks.count", "3")
COMPARISON = (
    *("compare", *BOWLS, "--compare.learners", "leap", "reptile", "--compare.seeds", "0", "1", "--out", "all"),
)


def originals(scratch: Path, small: bool = False) -> dict[str, bytes]:
    """Run folders of every sort, made by real commands: by path in the box. `small`: those that take no time alone."""
    home = Path.cwd()
    os.chdir(scratch)
    try:
        _make_bowls()
        if not small:
            _make_others()
    finally:
        os.chdir(home)
    return read(scratch)


def read(scratch: Path) -> dict[str, bytes]:
    """Run folders that `originals` has made."""
    paths = [path for path in scratch.rglob("*") if path.is_file() and path.name != ".lock"]
    found = {path.relative_to(scratch).as_posix(): path.read_bytes() for path in paths}
    return {path: b"a picture" if path.endswith((".png", ".webp")) else content for path, content in found.items()}


def _make_bowls() -> None:
    _made("train", *BOWLS, "learner/leap.yaml", "--out", "done")
    _made("evaluate", "done", "--paths")
    _made("measure", "done", "--distances", "path")
    _made("export", "done", "--to", "exported")
    with _killed_at(6):
        _made("train", *BOWLS, "learner/leap.yaml", "--train.keep-every", "1", "--out", "half", code=130)


def _make_others() -> None:
    _made(*COMPARISON)
    _made("train", "tiny-games.yaml", "learner/leap.yaml", *QUICK, "--out", "games")
    _made("evaluate", "games", "--video", "1")
    network = ("--model.norm", "group", "--model.filters", "8", "--tasks.ways", "3")
    _made("train", "quickstart.yaml", "learner/none.yaml", *QUICK, *network, "--out", "sets")
    epochs = ("epochs", "tuning-epochs", "scratch-epochs", "seeds", "points")
    short = [word for name, count in zip(epochs, "11103", strict=True) for word in (f"--measure.{name}", count)]
    asked = ("--distances", "fisher", "convergence", "--transferability", "h_score")
    _made("measure", "sets", *asked, *short, "--tasks", *_tasks_of(Path("sets"))[:2])


def _tasks_of(folder: Path) -> list[str]:
    from leap.cli import build
    from leap.run import RunFolder

    settings = lifecycle.settings_of(RunFolder(folder))
    family = build.family(settings, "cpu")
    return [family.name(task) for task in family.ids("test")]


def _made(*argv: str, code: int = 0) -> None:
    with contextlib.redirect_stdout(None):
        found = main.main(list(argv))
    if found != code:
        raise SystemExit(f"leap {' '.join(argv)}: exit code {found}, expected {code}")


@contextlib.contextmanager
def _killed_at(count: int) -> Iterator[None]:
    """Ctrl-C when a batch is drawn for the so-manyth time."""
    from tasks.quadratic import QuadraticBatch

    sample, drawn = QuadraticBatch.sample, 0

    def mortal(self: Any, theta: Any, step: int) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == count:
            raise KeyboardInterrupt
        return sample(self, theta, step)

    QuadraticBatch.sample = mortal  # type: ignore[method-assign]
    try:
        yield
    finally:
        QuadraticBatch.sample = sample  # type: ignore[method-assign]


class _Drawn:
    """A figure that nobody drew."""

    def savefig(self, held: Any, **options: Any) -> None:
        held.write(b"<svg></svg>")


@contextlib.contextmanager
def without_expense(draw: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Cut off what takes long, pictures (unless `draw`), worker processes and wandb; and `load` is a command."""
    whole, carried_out, opened = leap.report.drawing.picture, sweep.carry_out, tracking.open_tracker

    def picture(width: float, height: float, paint: Any, save: Any) -> None:
        if draw():
            whole(width, height, paint, save)
        else:
            save(_Drawn())

    def alone(
        out: Path, runs: Mapping[str, Settings], jobs: int | None = None, *, evaluate: bool = True, **others: Any
    ) -> dict[str, str]:
        for name, settings in runs.items():
            sweep.work(out / name, settings, lambda reached: None, evaluate=evaluate)
        return {}

    def untracked(**options: Any) -> Any:
        return opened(**{**options, "mode": "disabled"})

    def put(drawing: Any, carry_out: Any, open_tracker: Any) -> None:
        tracking.open_tracker = open_tracker
        leap.report.drawing.picture = leap.report.svg.picture = drawing
        sweep.carry_out = carry_out

    put(picture, alone, untracked)
    try:
        with added_command("load", load):
            yield
    finally:
        put(whole, carried_out, opened)
