"""`compare.leave_one_out`: each data set is held out in turn, with a comparison of its own; one table over all of them.

The runs of a data set lie in a folder of their own, `DIR/NAME/LEARNER-seedS`. They are carried out seed by seed, so
that a command that was stopped leaves whole seeds behind rather than whole data sets.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, get_args, get_type_hints

from leap.cli.settings import Settings
from leap.errors import UsageError

PLAIN = re.compile(r"[a-z0-9][a-z0-9._+-]{0,59}")  # a folder's name, and not another's where case is ignored
LENGTH = 40  # characters of a name that are kept in its folder's


def names(settings: Settings) -> tuple[str, ...]:
    """The tasks that are held out in turn.

    Raises:
        UsageError: tasks that have no names of their own, too few, or some that are held out by hand already.
    """
    tasks: Any = settings.tasks
    if not _named(type(tasks)):
        families = ", ".join(sorted(one().name for one in _families() if _named(one)))
        raise UsageError(
            f"compare.leave_one_out: needs tasks that are named one by one ({families}), and {tasks.name} has no "
            "tasks.names; choose one of those, or leave it out"
        )
    if tasks.held_out != type(tasks)().held_out:
        raise UsageError(
            f"compare.leave_one_out: tasks.held_out names {_listed(tasks.held_out)}, but each of tasks.names is held "
            "out in turn; leave tasks.held_out out, and say --only for some of them"
        )
    if len(tasks.names) < 2:
        raise UsageError(
            f"compare.leave_one_out: tasks.names is {_listed(tasks.names)}; with one held out, at least one other must "
            "be left to pretraining"
        )
    return tuple(tasks.names)


def spread(runs: Mapping[str, Settings]) -> dict[str, Settings]:
    """Each run once for every task that is held out, seed by seed: `mnist/leap-seed0`, `mnist/reptile-seed0`, ...

    Raises:
        UsageError: as `names`, or runs that do not share their tasks.
    """
    held: dict[tuple[str, ...], str] = {}
    for name, settings in runs.items():
        held.setdefault(names(settings), name)
    if len(held) > 1:
        told = [f"  {name}: {_listed(tasks)}" for tasks, name in held.items()]
        raise UsageError("\n".join(["compare.leave_one_out: tasks.names differ between runs:", *told]))
    folders = {folder_name(name): name for name in next(iter(held), ())}
    seeds = dict.fromkeys(settings.seed for settings in runs.values())
    return {
        f"{folder}/{name}": _holding_out(settings, task)
        for seed in seeds
        for folder, task in folders.items()
        for name, settings in runs.items()
        if settings.seed == seed
    }


def folder_name(name: str) -> str:
    """The folder of a task's runs: its name where that can be one, else what it can be with a digest of the whole.

    It depends on nothing else, so that the folders stay where they are when other tasks come or go.

    Example:
        >>> folder_name("mnist"), folder_name("~/pictures/Birds")
        ('mnist', 'birds-8b2b4fe4')
    """
    if PLAIN.fullmatch(name):
        return name
    word = re.sub(r"[^a-z0-9._+-]+", "_", PurePath(name).name.lower()).strip("._+-")[:LENGTH] or "set"
    return f"{word}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def only(runs: Mapping[str, Settings], chosen: Sequence[str]) -> dict[str, Settings]:
    """The runs that hold out one of the chosen tasks.

    Raises:
        UsageError: a name that is not among tasks.names.
    """
    known = dict.fromkeys(held_out(settings) for settings in runs.values())
    for name in chosen:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise UsageError(f"--only: {name} is not among tasks.names; {hint}")
    return {name: settings for name, settings in runs.items() if held_out(settings) in chosen}


def held_out(settings: Settings) -> str:
    """The task that a run of `spread` holds out."""
    tasks: Any = settings.tasks
    return str(tasks.held_out[0])


def like_the_first(settings: Settings) -> Settings:
    """The run with the first task held out: what can be built with one can be with another, and data loads slowly."""
    tasks: Any = settings.tasks
    return _holding_out(settings, tasks.names[0])


def tell(out: Path, runs: Mapping[str, Settings], evaluated: Sequence[str]) -> None:
    """The table, a report of each data set, the report over all of them, and where they are.

    Args:
        out: The comparison's folder.
        runs: All runs of the comparison, by their folder inside it.
        evaluated: Those that have been evaluated.
    """
    from leap.report import gather, leave_one_out_text, write_leave_one_out, write_leave_one_out_rows, write_report

    folders = {held_out(runs[name]): PurePosixPath(name).parent.name for name in runs}
    missing = [out / name for name in runs if name not in set(evaluated)]
    found = gather(
        [out / name for name in evaluated],
        names=list(folders),
        seeds=list(dict.fromkeys(settings.seed for settings in runs.values())),
        missing=missing,
    )
    print(leave_one_out_text(found))
    table = write_leave_one_out_rows(found, out / "leave-one-out.csv")
    pages = {}
    for name, folder in folders.items():
        own = [out / run for run in evaluated if held_out(runs[run]) == name]
        if own:
            pages[name] = write_report(own, out / folder / "report.html").relative_to(out)
    report = write_leave_one_out(found, out / "report.html", pages)
    print(f"report    {report}\ntable     {table}\neach      {out}/*/report.html")
    if any(out.glob("*/*/wandb/offline-run-*")):
        print(f"wandb     logged offline; to send it to an account: wandb sync {out}/*/*/wandb/offline-run-*")


def _holding_out(settings: Settings, task: str) -> Settings:
    tasks: Any = settings.tasks
    return dataclasses.replace(settings, tasks=dataclasses.replace(tasks, held_out=(task,)))


def _named(family: type) -> bool:
    fields = {field.name for field in dataclasses.fields(family)}
    return {"names", "held_out"} <= fields


def _families() -> tuple[Any, ...]:
    return get_args(get_type_hints(Settings)["tasks"])


def _listed(given: Any) -> str:
    return given if isinstance(given, str) else ", ".join(map(str, given))
