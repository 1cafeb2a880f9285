"""`leap report`: one self-contained page about any number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leap.cli import leave_one_out
from leap.cli.arguments import Option, help_text, split
from leap.cli.settings import Settings
from leap.errors import UsageError

OPTIONS = [
    Option("--out", "path", "The page to write; by default report.html.", "FILE"),
    Option("--window", "value", "Games: episodes of the moving average; by default 500, as in the paper.", "N"),
]
USAGE = "leap report RUN_FOLDER_OR_COMPARISON ... [--out report.html] [--window N]"
ABOUT = (
    "Put evaluated or measured runs on one page: table with intervals, curves, what was measured, differences, how to "
    "reproduce. Seeds are pooled."
)


def main(argv: Sequence[str]) -> int:
    """Report; see `leap report --help`."""
    given = split(argv, OPTIONS, fields=False)
    if given.options["help"]:
        print(help_text(USAGE, ABOUT, OPTIONS))
        return 0
    if not given.files:
        raise UsageError(f"name at least one run folder: {USAGE}")
    window = _window(given.options["window"])

    if len(given.files) == 1 and (whole := _left_one_out(Path(given.files[0]))):
        if given.options["out"]:
            raise UsageError(
                f"{given.files[0]} holds a comparison that left one out, whose pages lie in it; leave --out out"
            )
        if window is not None:
            raise UsageError(
                "--window counts episodes of games, and a comparison that left one out has none; leave it out"
            )
        leave_one_out.tell(Path(given.files[0]), *whole)
        return 0

    from leap.report import comparison_text, measured_text, only_measured, read_runs, summarize, write_report

    folders = [run for folder in given.files for run in runs_in(Path(folder))]
    runs = read_runs(folders)
    if window is not None and only_measured(runs):
        raise UsageError("--window counts episodes of games, and these runs were not evaluated; leave it out")
    page = write_report(folders, given.options["out"] or Path("report.html"), window)
    print(measured_text(runs) if only_measured(runs) else comparison_text(summarize(folders), window))
    print(f"report  {page}")
    return 0


def _window(given: str | None) -> int | None:
    """Episodes of the moving average; None where it was not given."""
    if given is None:
        return None
    if not (given.isdecimal() and len(given) < 10) or int(given) < 1:
        raise UsageError(f"--window must be a whole number of episodes, 1 or more, got {given!r}; the paper's is 500")
    return int(given)


def _left_one_out(folder: Path) -> tuple[dict[str, Settings], list[str]] | None:
    """The runs of a comparison that held out each task in turn, and which of them were evaluated; None for others."""
    from leap.cli.lifecycle import settings_of
    from leap.run import RunFolder

    names = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob("*/*/config.yaml"))
    if not names or runs_in(folder) != [folder]:
        return None
    runs = {name: settings_of(RunFolder.open(folder / name)) for name in names}
    if not all(settings.compare.leave_one_out for settings in runs.values()):
        return None
    return runs, [name for name in names if (folder / name / "evaluation.json").exists()]


def runs_in(folder: Path) -> list[Path]:
    """The folder itself, or, where it holds no run but folders that do (a comparison), those."""
    inside = sorted(path.parent for path in folder.glob("*/config.yaml"))
    return [folder] if (folder / "config.yaml").exists() or not inside else inside
