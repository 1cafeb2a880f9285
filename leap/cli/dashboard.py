"""`leap dashboard`: a wandb workspace and report of a group of runs as code; without an account, what would be sent."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.cli.arguments import Option, help_text, split
from leap.errors import LeapError, RunError, UsageError

if TYPE_CHECKING:
    from leap.dashboard.logged import Logged
    from leap.dashboard.specification import Dashboard

OPTIONS = (
    Option("--out", "path", "The specification; by default dashboard.json, in the folder if it is one.", "FILE.json"),
    Option("--send", "flag", "Make workspace and report at wandb; needs wandb-workspaces and a key."),
    Option("--group", "value", "The wandb group to show, where the runs are of several.", "NAME"),
    Option("--project", "value", "The wandb project; by default the one that the runs name.", "NAME"),
    Option("--entity", "value", "User or team at wandb; by default what the runs name, or the key's own.", "NAME"),
    Option("--title", "value", "Of workspace and report; by default group and family.", "TEXT"),
)  # fmt: skip
USAGE = "leap dashboard RUN_OR_COMPARISON_FOLDER ... [--out FILE.json] [--send]"
ABOUT = (
    "Build a wandb workspace and report for the runs of one group from what they have logged: learning curves of "
    "held-out tasks by learner with bands over seeds, error against the number of pretraining tasks, meta-training, "
    "speed, distances between tasks, what predicts transfer. Writes it as JSON, and with --send makes it at wandb, "
    "where the runs must be too: those that were logged offline are sent with wandb sync. Keys: docs/metrics.md."
)
NAME = "dashboard.json"
SENT = ".wandb.json"  # instead of .json: what the package makes of it


def main(argv: Sequence[str]) -> int:
    """Build a dashboard; see `leap dashboard --help`."""
    given = split(argv, OPTIONS, fields=False)
    if given.options["help"]:
        print(help_text(USAGE, ABOUT, OPTIONS))
        return 0
    if not given.files:
        raise UsageError(f"name at least one run folder, or a comparison's: {USAGE}")
    from leap.dashboard import workspace

    logged, held = _read(given.files, given.options)
    out = given.options["out"] or (Path(given.files[0]) / NAME if len(given.files) == 1 else Path(NAME))
    written = [_write(out, held.json())]
    print(_text(held))
    print(f"written   {written[0]}")
    if workspace.available():
        plain = json.dumps(workspace.specification(held), indent=2, ensure_ascii=False)
        print(f"for wandb {_write(out.with_name(out.stem + SENT), plain + chr(10))}")
    offline = _offline(given.files, logged)
    if given.options["send"]:
        for name, address in zip(("workspace", "report"), _send(held, out), strict=True):
            print(f"{name:<9} {address}")
    else:
        install = "" if workspace.available() else f"pip install {workspace.PACKAGE}; "
        again = shlex.join(["leap", "dashboard", *argv, "--send"])
        print(f"to send   {install}wandb login; {offline and offline + '; '}{again}")
    if logged.untracked:
        some = ", ".join(logged.untracked[:3]) + (", ..." if len(logged.untracked) > 3 else "")
        print(f"note      wandb has nothing of {len(logged.untracked)} of {held.runs} runs ({some}): not tracked here")
    return 0


def _read(files: Sequence[str], options: dict[str, Any]) -> tuple[Logged, Dashboard]:
    import dataclasses

    from leap.dashboard.logged import read_logged
    from leap.dashboard.panels import dashboard

    for name in ("group", "project", "entity", "title"):
        if options[name] is not None and not options[name].isprintable():
            raise UsageError(f"--{name} must be one line of text, got {options[name]!r}")
    for name in ("project", "entity"):
        if options[name] is not None and "/" in options[name]:
            raise UsageError(f"--{name} must be a name alone, got {options[name]!r}; give --entity and --project")
    logged = read_logged([run for file in files for run in _runs_in(Path(file))], options["group"])
    if not logged.evaluated and not logged.metrics and logged.measured is None:
        raise UsageError(f"these runs have logged nothing yet: {', '.join(logged.runs)}; train them first")
    changed = {name: options[name] for name in ("project", "entity") if options[name] is not None}
    return logged, dataclasses.replace(dashboard(logged, options["title"]), **changed)


def _runs_in(folder: Path) -> list[Path]:
    """The run, or the runs of a comparison."""
    from leap.cli.report import runs_in

    found = runs_in(folder)
    deeper = sorted({path.parent.parent.name for path in folder.glob("*/*/config.yaml")})
    if found == [folder] and deeper and not (folder / "config.yaml").exists():
        raise UsageError(
            f"{folder} holds several comparisons, each a wandb group of its own; name one of them: "
            + ", ".join(str(folder / name) for name in deeper[:5])
        )
    return found


def _write(path: Path, text: str) -> Path:
    """Write a file of this command's; anything else that lies there stays."""
    from leap.dashboard.specification import is_specification
    from leap.run import write_atomic

    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file, as --out {path / NAME}")
    if path.exists() and not is_specification(path.read_text(encoding="utf-8", errors="replace")):
        raise UsageError(f"{path} is there already and holds no dashboard; name another file with --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode("utf-8", "replace"))
    return path


def _send(held: Dashboard, out: Path) -> tuple[str, str]:
    from leap.dashboard.workspace import send

    try:
        return send(held)
    except LeapError as error:
        kind = UsageError if isinstance(error, UsageError) else RunError
        raise kind(f"{error}. The specification stands in {out}") from error


def _text(held: Dashboard) -> str:
    """What is on it, in a few lines."""
    lines = [held.summary]
    for section in held.sections:
        count = len(section.panels)
        lines.append(f"  {section.title}: {count} panel{'s' if count > 1 else ''}")
    lines += [f"  {one.title}: left out; {one.why}" for one in held.missing]
    return "\n".join(lines)


def _offline(files: Sequence[str], logged: Logged) -> str:
    """The command that sends what was logged offline; empty where there is nothing of the kind."""
    roots = [root for root in map(Path, files) if any(root.glob("wandb/offline-run-*"))]
    above = [root for root in map(Path, files) if any(root.glob("*/wandb/offline-run-*"))]
    if not roots and not above:
        return ""
    patterns = [f"{shlex.quote(str(root))}/wandb/offline-run-*" for root in roots]
    patterns += [f"{shlex.quote(str(root))}/*/wandb/offline-run-*" for root in above]
    return f"wandb sync {' '.join(patterns)}"
