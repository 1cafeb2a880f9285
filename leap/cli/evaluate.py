"""`leap evaluate`: walk held-out tasks from learned initializations, beside the random ones they started from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leap.cli import configuration
from leap.cli.arguments import Option, help_text, split
from leap.cli.filming import VIDEO, counted, episodes
from leap.cli.settings import Settings
from leap.errors import UsageError

OPTIONS = [
    VIDEO,
    Option(
        "--paths",
        "flag",
        "Draw the walks of the first evaluation seed in the plane that shows most of them, pictures/paths.png.",
    ),
]
USAGE = "leap evaluate RUN_FOLDER ... [--video [N]] [--paths] [--evaluate.FIELD VALUE ...]"
ABOUT = "Walk held-out tasks from the run's initialization and from the random one; write evaluation.json and pictures."


def main(argv: Sequence[str]) -> int:
    """Evaluate; see `leap evaluate --help`."""
    given = split(counted(argv), OPTIONS)
    if given.options["help"]:
        print(help_text(USAGE, ABOUT, OPTIONS, configuration.help_for(Settings, prog="leap evaluate")))
        return 0
    if not given.files:
        raise UsageError(f"name at least one run folder: {USAGE}")
    videos = episodes(given.options["video"])
    from leap.report.runs import read_unevaluated
    from leap.run import RunFolder

    for folder in given.files:
        read_unevaluated(RunFolder.open(Path(folder)).path)  # before the first is evaluated
    for folder in given.files:
        _evaluate(Path(folder), given.overrides, videos, given.options["paths"])
    return 0


def _evaluate(folder: Path, overrides: Sequence[str], videos: int, paths: bool) -> None:
    from leap.cli import lifecycle
    from leap.cli.progress import Levels, Line
    from leap.report import comparison_text, summarize
    from leap.run import RunFolder

    run = RunFolder.open(folder)
    asked = configuration.load(Settings, [run.path / "config.yaml"], overrides)
    settings = lifecycle.reconcile(run, asked)
    repetitions = settings.evaluate.repetitions * 2
    with Line(repetitions, "repetition", f"evaluating {run.name}") as line:
        lifecycle.evaluate(run, settings, Levels(line), videos=videos, paths=paths)
    print(comparison_text(summarize([run.path])))
    print(f"results  {run.path / 'evaluation.json'}\npicture  {run.path / 'pictures' / 'learning-curves.png'}")
    if paths:
        print(f"paths    {run.path / 'pictures' / 'paths.png'}")
    if videos:
        print(f"videos   {run.path / 'videos'}")
