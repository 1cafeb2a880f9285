"""A comparison as a wandb sweep: a grid whose agents, on any machines, each train one of its runs at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leap.cli import compare, configuration
from leap.cli import overrides as command_line
from leap.cli.settings import Atari, Custom, Quadratic, Settings, Sinusoid, TinyGames
from leap.errors import UsageError


def specification(files: Sequence[str], overrides: Sequence[str], out: Path) -> dict[str, Any]:
    """The sweep that trains the runs of `compare.plan(files, overrides)`, a folder a run in `out`.

    An agent's command is `leap compare --train-only` with one learner, one seed and one value a setting, so that a run
    is the one that the comparison would make, in the same folder, and goes on there after a stop.

    Raises:
        UsageError: what only this machine has (a path from its root), a value that wandb would turn into another one,
            or runs that wandb would not see.
    """
    base = configuration.load(Settings, files, overrides)
    if base.tracking == "none" or base.wandb.mode in ("offline", "disabled"):
        raise UsageError(
            f"a wandb sweep needs runs that are sent to wandb, got tracking {base.tracking}, wandb.mode "
            f"{base.wandb.mode}; leave both as they are by default"
        )
    varied = {f"compare.grid.{path}": values for path, values in compare.axes(base.compare).items()}
    parameters = {"compare.learners": base.compare.learners, "compare.seeds": base.compare.seeds, **varied}
    # A fixed learning rate and the like goes along; what the sweep varies comes as arguments.
    kept = [one for one in command_line.group(overrides)[0] if one.address[0] != "compare"]
    flags = [word for one in kept for word in (one.flag, *one.values)]
    run = ["leap", "compare", "--train-only", *map(portable, files), *map(portable, flags), "--out", portable(out)]
    return {
        "name": out.name,
        "project": base.wandb.project,
        **({"entity": base.wandb.entity} if base.wandb.entity else {}),
        "method": "grid",
        "metric": _metric(base),
        "parameters": {
            name: {"values": [_plain(name, value) for value in values]} for name, values in parameters.items()
        },
        "command": ["${env}", "${interpreter}", "-m", *run, "${args}"],
    }


def _metric(settings: Settings) -> dict[str, str]:
    """What is logged that says best how good a run is."""
    if isinstance(settings.tasks, Atari | TinyGames):
        return {"name": "charts/episodic_return", "goal": "maximize"}
    has_error = not isinstance(settings.tasks, Sinusoid | Quadratic | Custom)
    return {"name": "train/error_last" if has_error else "train/loss_last", "goal": "minimize"}


def portable(word: str | Path) -> str:
    """A word of the command as it can be written down for other machines."""
    path = Path(word)
    if not path.is_absolute():
        return str(word)
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    raise UsageError(
        f"{word} is a place on this machine, and a sweep's agents may run on others; name it relative to the folder "
        "where agents start (data: set LEAP_DATA there instead)"
    )


def _plain(name: str, value: Any) -> Any:
    """A value that arrives as it was written, since agents write values as Python does."""
    if isinstance(value, str):
        return portable(value)
    if isinstance(value, bool | int | float):
        return value
    raise UsageError(f"{name}: a wandb sweep hands over numbers, words, true and false, not {value!r}; leave it out")
