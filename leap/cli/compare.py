"""`leap compare`: learners x settings x seeds, evaluated on the same held-out tasks, in one table and one report.

With compare.leave_one_out there is such a comparison for every task held out in turn (`leap.cli.leave_one_out`). Runs
that are finished are left alone and runs that were stopped go on, so the command can be repeated at any time.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from leap.cli import checks, configuration, filming, leave_one_out, sources, sweep
from leap.cli import schema as declared
from leap.cli.arguments import Arguments, Option, help_text, split
from leap.cli.settings import Compare, Settings
from leap.errors import RunError, UsageError

if TYPE_CHECKING:
    from leap.report import Summary

OPTIONS = [
    Option(
        "--out",
        "path",
        "Folder of the runs, the report and its pictures; by default runs/NAME of the first file.",
        "DIR",
    ),
    Option("--train-only", "flag", "Neither evaluate nor report: repeat the command without it for that."),
    Option(
        "--only",
        "values",
        "With compare.leave_one_out: carry out the runs that hold out these tasks, and leave the others as they are.",
        "NAME",
    ),
    Option(
        "--wandb-sweep",
        "path",
        "Write a wandb sweep of the same runs to this file and stop; its agents may run on any machines.",
        "FILE.yaml",
    ),
    filming.VIDEO,
    Option("--print-config", "flag", "Show the settings of every run as YAML and stop."),
]
USAGE = "leap compare [FILE.yaml ...] [--FIELD VALUE ...] [--compare.grid.FIELD VALUE ...] [--out DIR] [--video [N]]"
ABOUT = (
    "Train every learner of compare.learners with every seed of compare.seeds, at every combination of the settings in "
    "compare.grid (--compare.grid.tasks.train 1 3 5), evaluate all on the same held-out tasks, and put them in one "
    "table and one report. Finished runs are left alone: repeat the command to go on. A run that fails stops no other. "
    "With --compare.leave-one-out True each of tasks.names is held out in turn, in a folder of its own, seed by seed. "
    "All words behind --compare.learners are learners, YAML files too: name the files of the comparison before it."
)


def main(argv: Sequence[str]) -> int:
    """Compare learners; see `leap compare --help`."""
    given = split(filming.counted(argv), OPTIONS)
    if given.options["help"]:
        base = configuration.load(Settings, given.files)
        print(help_text(USAGE, ABOUT, OPTIONS, configuration.help_for(Settings, base, prog="leap compare")))
        return 0
    videos = filming.episodes(given.options["video"])
    if videos and given.options["train_only"]:
        raise UsageError("--video films evaluations, which --train-only leaves out; leave out one of them")
    runs = plan(given.files, given.overrides)
    chosen = _chosen(runs, given.options["only"])
    if given.options["print_config"]:
        print("---\n".join(configuration.to_yaml(settings) for settings in chosen.values()), end="")
        return 0
    base = next(iter(runs.values()))
    out: Path = given.options["out"] or Path("runs") / (Path(given.files[0]).stem if given.files else base.tasks.name)
    if file := given.options["wandb_sweep"]:
        return _write_sweep(file, given, out, runs)
    evaluate = not given.options["train_only"]
    runs = {name: _grouped(settings, out.resolve().name, name) for name, settings in runs.items()}
    unfinished = {name: settings for name, settings in check(out, runs, evaluate, videos).items() if name in chosen}
    failures = {}
    if unfinished:
        failures = sweep.carry_out(out, unfinished, base.compare.jobs, of=len(chosen), evaluate=evaluate, videos=videos)
    evaluated = [name for name, settings in runs.items() if sweep.is_evaluated(out / name, settings)]
    if evaluate and evaluated:
        from leap.run import tidied

        with tidied(out, *((out / name).parent for name in evaluated)):
            if base.compare.leave_one_out:
                leave_one_out.tell(out, runs, evaluated)
            else:
                _tell(out, [out / name for name in evaluated], list(axes(base.compare)))
        if videos:
            print(f"videos    {out}/{'*/' * (1 + base.compare.leave_one_out)}videos")
    if failures:
        told = [f"  {name}: {why}" for name, why in failures.items()]
        raise RunError("\n".join([f"{len(failures)} of {len(unfinished)} runs failed:", *told]))
    return 0


def plan(files: Sequence[str], overrides: Sequence[str]) -> dict[str, Settings]:
    """Settings of every run by its name: the base's files, the learner's, the command line, then the grid's values.

    Raises:
        UsageError: settings that cannot be, or runs that do not differ.
    """
    base = configuration.load(Settings, files, overrides)
    varied = axes(base.compare)
    cells = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    runs = {}
    for learner in base.compare.learners:
        source = learner if "/" in learner or learner.endswith((".yaml", ".yml")) else f"learner/{learner}"
        own = configuration.load(Settings, [*files, source], overrides)
        for cell in cells:
            settings = _varied(own, cell, learner)
            for seed in base.compare.seeds:
                name = "-".join([Path(source).stem, *_labels(cell), f"seed{seed}"])
                runs[name] = dataclasses.replace(settings, seed=seed)
    expected = len(base.compare.learners) * len(cells) * len(base.compare.seeds)
    if not runs or len(runs) != expected or len(set(map(repr, runs.values()))) != expected:
        also = f", grid {varied}" if varied else ""
        raise UsageError(
            "compare needs learners, seeds and values that differ, "
            f"got {base.compare.learners} and {base.compare.seeds}{also}"
        )
    return leave_one_out.spread(runs) if base.compare.leave_one_out else runs


def axes(compare: Compare) -> dict[str, list[Any]]:
    """The settings that the grid varies, each with its values.

    Example:
        >>> axes(Compare(grid={"tasks.train": [1, 3], "inner": {"lr": 0.1}}))
        {'tasks.train': [1, 3], 'inner.lr': [0.1]}

    Raises:
        UsageError: a setting that does not make another configuration, or has no values.
    """
    found = {
        path.replace("-", "_"): values if isinstance(values, list) else [values]
        for path, values in configuration.flatten(compare.grid).items()
    }
    for path, values in found.items():
        if why := _unfit(path, compare.leave_one_out):
            raise UsageError(f"compare.grid: {path} {why}")
        if not values:
            raise UsageError(f"compare.grid: {path} has no values; write {path}: [...] with at least one")
    return found


def check(out: Path, runs: dict[str, Settings], evaluate: bool = True, videos: int = 0) -> dict[str, Settings]:
    """Refuse before the first run starts what would fail later: folders of other runs, settings nobody can build.

    Returns:
        The runs that are not finished yet, which with `evaluate` means evaluated, and filmed so many `videos`.
    """
    from leap.cli import lifecycle
    from leap.report.runs import read_unevaluated
    from leap.run import RunFolder, check_free

    unfinished = {}
    for name, settings in runs.items():
        folder = RunFolder(out / name)
        if RunFolder.started(folder.path):
            read_unevaluated(folder.path)
            lifecycle.reconcile(folder, settings)
        else:
            check_free(folder.path)
        if not (sweep.is_evaluated(folder.path, settings, videos) if evaluate else folder.initialization.exists()):
            unfinished[name] = settings
    _build(unfinished, out if videos else None)
    return unfinished


def _build(runs: dict[str, Settings], films: Path | None = None) -> None:
    """Build what runs need, each kind once; on the CPU, since a GPU may take one process only, the one that trains.

    `films` is where the runs' folders are, if they are to be filmed.

    Raises:
        UsageError: what cannot be built, or kinds whose held-out tasks differ, so that no report could compare them.
    """
    from leap.cli import build

    seed = min((settings.seed for settings in runs.values()), default=0)
    kinds: dict[str, tuple[str, Settings]] = {}
    for name, settings in runs.items():
        alike = leave_one_out.like_the_first(settings) if settings.compare.leave_one_out else settings
        alike = dataclasses.replace(alike, seed=seed)
        kinds.setdefault(repr(alike), (name, alike))
    held_out: dict[tuple[str, ...], str] = {}
    for _, group in itertools.groupby(sorted(kinds.values(), key=_tasks), key=_tasks):
        same = list(group)
        name, first = same[0]
        if first.device != "auto":
            build.device(first.device)
        family = build.family(first, "cpu")
        if films:
            filming.check_games(family, first, films / name)
        for _, settings in same:
            build.trainer(settings, family, "cpu")
        held_out.setdefault(tuple(family.name(task) for task in family.ids(first.evaluate.split)), name)
    if len(held_out) > 1:
        told = [f"  {name}: {len(tasks)} tasks, {', '.join(tasks[:3])}, ..." for tasks, name in held_out.items()]
        cure = "held-out tasks differ between runs, which cannot be compared; give them folders of their own:"
        raise UsageError("\n".join([cure, *told]))


def _tasks(run: tuple[str, Settings]) -> str:
    """What the run's family is made of."""
    return f"{run[1].tasks} {run[1].model}"


def _tell(out: Path, folders: list[Path], varied: Sequence[str]) -> None:
    """The table, the report and where the pictures are."""
    from leap.report import comparison_text, pictures, summarize, write_report
    from leap.report.returns_rows import write_walks
    from leap.run import write_atomic

    summary = summarize(folders)
    report, picture = write_report(folders, out / "report.html"), pictures.comparison(summary, out / "comparison.png")
    write_atomic(out / "runs.csv", table(summary, varied).encode())
    walks = write_walks(summary, out / "returns.csv")
    print(comparison_text(summary))
    print(f"report    {report}\npicture   {picture}\ntable     {out / 'runs.csv'}")
    if walks:
        print(f"walks     {walks}")
    print(f"curves    {out}/*/pictures/learning-curves.png")
    if any(out.glob("*/wandb/offline-run-*")):
        print(f"wandb     logged offline; to send it to an account: wandb sync {out}/*/wandb/offline-run-*")


def table(summary: Summary, varied: Sequence[str]) -> str:
    """A row a run, as CSV: its configuration, learner, seed, what the grid varies, and means over held-out tasks.

    Random initializations are the rows of learner `none`, a row a seed for all runs that started from the same one;
    what the grid varies is empty there.
    """
    keys = [measure.key for measure in summary.measures]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["run", "configuration", "learner", "seed", *varied, *keys])
    for row in summary.rows:
        for run, *values in zip(row.runs, *(row.values(key) for key in keys), strict=True):
            fields = {} if row.baseline else configuration.flatten(dict(run.config))
            learner = "none" if row.baseline else run.learner
            cell = [fields.get(path, "") for path in varied]
            rows.writerow([run.folder.name, row.label, learner, run.seed, *cell, *values])
    return text.getvalue()


def _write_sweep(file: Path, given: Arguments, out: Path, runs: dict[str, Settings]) -> int:
    from leap.cli.wandb_sweep import portable, specification

    if next(iter(runs.values())).compare.leave_one_out:
        raise UsageError(
            "--wandb-sweep: with compare.leave_one_out each of its agents would hold out every task; "
            "start `leap compare ... --train-only --only NAME` on each machine instead"
        )
    if file.exists():
        raise UsageError(f"{file} is there already; remove it, or name another file")
    grid = sources.dump(specification(given.files, given.overrides, out))
    film = ["--video", given.options["video"]] if given.options["video"] else []
    words = map(portable, [*given.files, *given.overrides, "--out", str(out), *film])
    again = shlex.join(["leap", "compare", *words])
    text = f"# {len(runs)} runs: wandb sweep {file.name}; then, on each machine, wandb agent with the name that this "
    text += "gives.\n"
    text += f"# At last evaluation and report, where the folders of the runs are: {again}\n"
    file.write_text(text + grid, encoding="utf-8")
    print(f"sweep     {file}: {len(runs)} runs\nstart     wandb sweep {file}\nat last   {again}")
    return 0


def _unfit(path: str, leave_one_out: bool) -> str | None:
    """Why a setting cannot be varied, or None."""
    from leap.report.differences import IGNORED

    section = path.split(".")[0]
    if section == "seed":
        return "is varied by compare.seeds; write the seeds there"
    if leave_one_out and path in ("tasks.names", "tasks.held_out"):
        return "is what compare.leave_one_out is about; leave it out"
    if path in ("learner", "learner.name"):
        return "is varied by compare.learners; write the learners there"
    if section == "evaluate":
        return "would make evaluations that cannot be compared; compare them in folders of their own"
    if section == "measure" or section in IGNORED or path in IGNORED:
        return "does not change what is learned; leave it out"
    return None


def _varied(settings: Settings, cell: dict[str, Any], learner: str) -> Settings:
    """The settings with a cell's values in place."""
    data = configuration.to_dict(settings)
    known = [leaf for leaf, _ in declared.leaves(Settings, data)]
    unions = [address for address, _, _ in declared.choices(Settings, data)]
    lines = []
    for path, value in cell.items():
        address = tuple(path.split("."))
        above = next((leaf for leaf in known if address[: len(leaf)] == leaf), None)
        if address[:-1] in unions and address[-1] == "name":
            union = declared.dotted(address[:-1])
            lines.append(
                f"{path}: a grid cannot switch the {union}; write a comparison for each, with its own YAML file"
            )
        elif above is None:
            lines.append(f"{path}: there is no such setting; {checks.suggestion(address, Settings, data)}")
        elif above != address and not isinstance(declared.get(data, above), dict):
            lines.append(f"{path}: {declared.dotted(above)} has no parts; write {declared.dotted(above)}: [...]")
        else:
            declared.put(data, address, value)
    made, problems = checks.check(Settings, data)
    lines += [f"{declared.dotted(problem.address)}: {problem.text}" for problem in problems]
    lines += made.problems() if made else []
    if lines or made is None:
        raise UsageError("\n".join(f"compare.grid, with {learner}: {line}" for line in lines))
    return made


def _labels(cell: dict[str, Any]) -> list[str]:
    """A part of a run's name for each value: `train=3`, with the whole path where its last word is not enough."""
    last = [path.rpartition(".")[2] for path in cell]
    shown = [word if last.count(word) == 1 else path for word, path in zip(last, cell, strict=True)]
    return [f"{name}={_text(value)}" for name, value in zip(shown, cell.values(), strict=True)]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_text, value))
    text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    return re.sub(r"[^\w.+-]+", "_", text)


def _grouped(settings: Settings, group: str, name: str) -> Settings:
    """The same settings, in the comparison's wandb group, each held-out task having one, unless they name another."""
    group = settings.wandb.group or "-".join([group, *PurePosixPath(name).parts[:-1]])
    return dataclasses.replace(settings, wandb=dataclasses.replace(settings.wandb, group=group))


def _chosen(runs: dict[str, Settings], names: Sequence[str] | None) -> dict[str, Settings]:
    """The runs that `--only` names; all without it."""
    if names is None:
        return runs
    if not next(iter(runs.values())).compare.leave_one_out:
        raise UsageError("--only chooses among the tasks that compare.leave_one_out holds out, which is off here")
    return leave_one_out.only(runs, names)
