"""`leap measure`: how far tasks are from a learned initialization, and from each other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leap.cli import configuration
from leap.cli.arguments import Arguments, Option, help_text, split
from leap.cli.measure_settings import check_scores
from leap.cli.settings import Settings
from leap.errors import UsageError
from leap.measure.plan import check_distances

if TYPE_CHECKING:
    from leap.measure.plan import Item
    from leap.run import RunFolder

OPTIONS = [
    Option("--tasks", "values", "Tasks to measure, by name; by default all of the split that evaluation uses.", "NAME"),
    Option(
        "--distances",
        "values",
        "What to measure: path, reachability, fisher, task2vec, convergence, dynamic; of games also returns.",
        "NAME",
    ),
    Option(
        "--transferability",
        "values",
        "Scores of transferability: all, or h_score, leep, ... (leap score --help names "
        "them). Without --distances it measures path and convergence, which hold the outcomes.",
        "NAME",
    ),
    Option("--out", "path", "Folder of a new run, where configuration files are given; by default runs/NAME.", "DIR"),
]
WITH_OUTCOMES = ("path", "convergence")
"""Distances that hold what scores are to foretell: how walks and fine-tunings end."""
USAGE = "leap measure RUN_FOLDER | FILE.yaml ... [--tasks NAME ...] [--distances NAME ...]"
USAGE += " [--transferability NAME ...] [--measure.FIELD VALUE ...]"
ABOUT = (
    "Measure how far tasks are from a run's learned initialization and from each other; from files with learner none, "
    "from random initializations. Writes measures/ in the run's folder: measures.json, a CSV a matrix, pictures. Stop "
    "and repeat it at will: what is measured stays. torchrun --nproc-per-node N -m leap measure ... shares the work."
)


def main(argv: Sequence[str]) -> int:
    """Measure; see `leap measure --help`."""
    given = split(argv, OPTIONS)
    if given.options["help"]:
        files = [file for file in given.files if not Path(file).is_dir()]
        base = configuration.load(Settings, files)
        print(help_text(USAGE, ABOUT, OPTIONS, configuration.help_for(Settings, base, prog="leap measure")))
        return 0
    if not given.files:
        raise UsageError(f"name a run folder or configuration files: {USAGE}")
    asked, folder = _asked(given)  # in every process: what is refused, is refused by all
    from leap import distributed
    from leap.cli import lifecycle

    with contextlib.ExitStack() as held:
        here = held.enter_context(distributed.group())
        if here.first:
            run = _open(asked, folder)
            held.enter_context(run.lock())
        distributed.wait()  # the others find the run that the first has made
        if not here.first:
            run = _open(asked, folder)
        _measure(run, lifecycle.reconcile(run, asked), given)
    return 0


def _asked(given: Arguments) -> tuple[Settings, Path]:
    """The settings asked for, and the run's folder: one that is there, or a new one of random initializations."""
    from leap.run import RunFolder

    first = Path(given.files[0])
    flags = [option.name for option in OPTIONS]
    overrides = [*given.overrides, *_asked_for(given.options["distances"], given.options["transferability"])]
    if first.is_dir():
        if given.options["out"]:
            raise UsageError(f"--out is for new runs; what is measured of {first} goes into {first / 'measures'}")
        run = RunFolder.open(first)
        files: list[str | Path] = [run.path / "config.yaml", *given.files[1:]]
        return configuration.load(Settings, files, overrides, flags=flags), first
    settings = configuration.load(Settings, given.files, overrides, flags=flags)
    if settings.learner.name != "none":
        raise UsageError(
            f"{' '.join(given.files)} would meta-train ({settings.learner.name}) before it measures; "
            "train first and name the run's folder, or add learner/none.yaml"
        )
    return settings, given.options["out"] or Path("runs") / first.stem


def _open(asked: Settings, folder: Path) -> RunFolder:
    """The run in the folder, made where there is none."""
    from leap.cli import lifecycle
    from leap.run import RunFolder

    return RunFolder.open(folder) if RunFolder.started(folder) else lifecycle.start(asked, folder)


def _asked_for(distances: list[str] | None, scores: list[str] | None) -> list[str]:
    """`--distances path,fisher` or `--distances path fisher`, and scores likewise, as settings."""
    found = [name for word in distances or [] for name in word.split(",") if name]
    check_distances(found)
    wanted = [name for word in scores or [] for name in word.split(",") if name]
    check_scores(wanted)
    if wanted and not found:
        found = list(WITH_OUTCOMES)
    settings = ["--measure.distances", *found] if found else []
    return [*settings, "--measure.transferability", *wanted] if wanted else settings


def _measure(run: RunFolder, settings: Settings, given: Arguments) -> None:
    from leap import distributed
    from leap.cli import measure_text, measures
    from leap.cli.progress import Line

    here = distributed.place()
    measuring = measures.measuring(run, settings, given.options["tasks"])
    share = sum(len(stage[here.rank :: here.world]) for stage in measuring.stages())
    with Line(share, "item", f"measuring {run.name}", quiet=not here.first) as line:

        def progress(item: Item) -> None:
            line.advance(item.kind)

        try:
            measuring.carry_out(progress)
        except KeyboardInterrupt:
            line.close()
            print("\nstopped; repeat the command to go on", flush=True)
            raise
    if here.first:
        document, written = measures.finish(run, settings, measuring)
        print(measure_text.text(document))
        print(f"results   {run.path / 'measures' / 'measures.json'}")
        print(f"pictures  {run.path / 'measures'} ({sum(path.suffix == '.png' for path in written)} pictures, "
              f"{sum(path.suffix == '.csv' for path in written)} tables)")  # fmt: skip
