"""`leap evaluate`: walk held-out tasks from learned initializations, beside the random ones they started from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leap.cli import configuration
from leap.cli.arguments import Option, help_text, split
from leap.cli.settings import Settings
from leap.errors import UsageError

OPTIONS: list[Option] = []
USAGE = "leap evaluate RUN_FOLDER ... [--evaluate.FIELD VALUE ...]"
ABOUT = "Walk held-out tasks from the run's initialization and from the random one; write evaluation.json and pictures."


def main(argv: Sequence[str]) -> int:
    """Evaluate; see `leap evaluate --help`."""
    given = split(argv, OPTIONS)
    if given.options["help"]:
        print(help_text(USAGE, ABOUT, OPTIONS, configuration.help_for(Settings, prog="leap evaluate")))
        return 0
    if not given.files:
        raise UsageError(f"name at least one run folder: {USAGE}")
    for folder in given.files:
        _evaluate(Path(folder), given.overrides)
    return 0


def _evaluate(folder: Path, overrides: Sequence[str]) -> None:
    from tqdm import tqdm

    from leap.cli import lifecycle
    from leap.report import comparison_text, summarize
    from leap.run import RunFolder

    run = RunFolder.open(folder)
    asked = configuration.load(Settings, [run.path / "config.yaml"], overrides)
    settings = lifecycle.reconcile(run, asked)
    repetitions = settings.evaluate.repetitions * 2
    with tqdm(total=repetitions, unit="walk", desc=f"evaluating {run.name}", disable=None, dynamic_ncols=True) as bar:

        def advance() -> None:
            bar.update()

        lifecycle.evaluate(run, settings, advance)
    print(comparison_text(summarize([run.path])))
    print(f"results  {run.path / 'evaluation.json'}\npicture  {run.path / 'pictures' / 'learning-curves.png'}")
