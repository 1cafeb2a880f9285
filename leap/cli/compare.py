"""`leap compare`: every learner with every seed, evaluated on the same held-out tasks, in one table and one report.

Runs that are finished are left alone and runs that were stopped go on, so the command can be repeated at any time.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import queue
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from leap.cli import configuration
from leap.cli.arguments import Option, help_text, split
from leap.cli.settings import Settings
from leap.errors import LeapError, RunError, UsageError
from leap.run import RunFolder, check_free

OPTIONS = [
    Option(
        "--out",
        "path",
        "Folder of the runs, the report and its pictures; by default runs/NAME of the first file.",
        "DIR",
    ),
    Option("--print-config", "flag", "Show the settings of every run as YAML and stop."),
]
USAGE = "leap compare [FILE.yaml ...] [--FIELD VALUE ...] [--out DIR]"
ABOUT = (
    "Train every learner of compare.learners with every seed of compare.seeds, evaluate all on the same held-out "
    "tasks, and put them in one table and one report. Finished runs are left alone: repeat the command to go on."
)


def main(argv: Sequence[str]) -> int:
    """Compare learners; see `leap compare --help`."""
    given = split(argv, OPTIONS)
    if given.options["help"]:
        base = configuration.load(Settings, given.files)
        print(help_text(USAGE, ABOUT, OPTIONS, configuration.help_for(Settings, base, prog="leap compare")))
        return 0
    runs = plan(given.files, given.overrides)
    if given.options["print_config"]:
        print("---\n".join(configuration.to_yaml(settings) for settings in runs.values()), end="")
        return 0
    base = next(iter(runs.values()))
    name = Path(given.files[0]).stem if given.files else base.tasks.name
    out: Path = given.options["out"] or Path("runs") / name
    runs = {name: _grouped(settings, out.resolve().name) for name, settings in runs.items()}
    unfinished = check(out, runs)
    if unfinished:
        carry_out(out, unfinished, base.compare.jobs)
    _tell(out, [out / name for name in runs])
    return 0


def _tell(out: Path, folders: list[Path]) -> None:
    """The table, the report and where the pictures are."""
    from leap.report import comparison_text, pictures, summarize, write_report

    summary = summarize(folders)
    report, picture = write_report(folders, out / "report.html"), pictures.comparison(summary, out / "comparison.png")
    print(comparison_text(summary))
    print(f"report    {report}\npicture   {picture}\ncurves    {out}/*/pictures/learning-curves.png")
    if any(out.glob("*/wandb/offline-run-*")):
        print(f"wandb     logged offline; to send it to an account: wandb sync {out}/*/wandb/offline-run-*")


def plan(files: Sequence[str], overrides: Sequence[str]) -> dict[str, Settings]:
    """Settings of every run by its name: the base's files, then the learner's, then the command line."""
    base = configuration.load(Settings, files, overrides)
    runs = {}
    for learner in base.compare.learners:
        source = learner if "/" in learner or learner.endswith((".yaml", ".yml")) else f"learner/{learner}"
        settings = configuration.load(Settings, [*files, source], overrides)
        for seed in base.compare.seeds:
            runs[f"{Path(source).stem}-seed{seed}"] = dataclasses.replace(settings, seed=seed)
    expected = len(base.compare.learners) * len(base.compare.seeds)
    if len(runs) != expected or not runs:
        raise UsageError(
            f"compare needs learners and seeds that differ, got {base.compare.learners} and {base.compare.seeds}"
        )
    return runs


def check(out: Path, runs: dict[str, Settings]) -> dict[str, Settings]:
    """Refuse before the first run starts what would fail later: folders of other runs, settings nobody can build.

    Returns:
        The runs that are not finished and evaluated yet.
    """
    from leap.cli import build, lifecycle

    unfinished = {}
    for name, settings in runs.items():
        if RunFolder.started(out / name):
            lifecycle.reconcile(RunFolder.open(out / name), settings)
        else:
            check_free(out / name)
        if not _is_evaluated(out / name, settings):
            unfinished[name] = settings
    for settings in {s.learner.name: s for s in unfinished.values()}.values():
        on = build.device(settings.device)
        build.trainer(settings, build.family(settings, on), on)
    return unfinished


def carry_out(out: Path, runs: dict[str, Settings], jobs: int) -> None:
    """Train and evaluate all runs, `jobs` at a time, each in a process with its share of the cores.

    Raises:
        LeapError: a run failed; the others have been finished first.
    """
    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    total = sum(_length(settings) for settings in runs.values())
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(min(jobs, len(runs)), mp_context=context, initializer=_ignore_interrupts) as pool,
        tqdm(total=total, unit="step", desc="all runs", disable=None, dynamic_ncols=True) as bar,
    ):
        messages, stop = manager.Queue(), manager.Event()
        futures = {pool.submit(work, out / name, s, threads, messages, stop): name for name, s in runs.items()}
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a stop like Ctrl-C
        try:
            _follow(list(futures), messages, bar)
        except KeyboardInterrupt:
            bar.close()
            print("\nstopping; repeat the command to go on", flush=True)
            stop.set()  # a process that ends its run would take up the next
            for process in list((pool._processes or {}).values()):
                process.terminate()  # SIGTERM: each run saves and ends
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    failed = {name: future.exception() for future, name in futures.items() if future.exception() is not None}
    for error in failed.values():
        if error is not None and not isinstance(error, LeapError):
            raise error
    if failed:
        raise RunError(
            "\n".join([f"{len(failed)} of {len(runs)} runs failed:", *(f"  {n}: {e}" for n, e in failed.items())])
        )


def work(path: Path, settings: Settings, threads: int, messages: Any, stop: Any) -> None:
    """One run in a process of its own, from wherever it stands to its evaluation."""
    if stop.is_set():
        return
    import torch

    from leap.cli import lifecycle

    torch.set_num_threads(threads)
    name, length = path.name, _length(settings)

    def trained(step: int, metrics: dict[str, float]) -> None:
        messages.put((name, step))

    done = settings.train.meta_steps

    def evaluated() -> None:
        nonlocal done
        done += 1
        messages.put((name, done))

    if RunFolder.started(path):
        run = lifecycle.resume(RunFolder.open(path), settings, trained, _silent)
    else:
        run = lifecycle.start(settings, path, trained, _silent)
    if not _is_evaluated(run.path, settings):
        lifecycle.evaluate(run, settings, evaluated, _silent)
    messages.put((name, length))


def _is_evaluated(folder: Path, settings: Settings) -> bool:
    """Whether the evaluation in the folder is the one these settings ask for."""
    try:
        document = json.loads((folder / "evaluation.json").read_text())
    except (OSError, ValueError):  # missing or damaged: evaluated anew
        return False
    choice = settings.evaluate
    asked = (choice.split, choice.steps, list(range(choice.repetitions)))
    return tuple(document.get(key) for key in ("split", "steps", "evaluation_seeds")) == asked


def _length(settings: Settings) -> int:
    """Units of progress: meta-steps, and an evaluation's repetitions from two initializations."""
    return settings.train.meta_steps + 2 * settings.evaluate.repetitions


def _follow(futures: list[Future[None]], messages: Any, bar: Any) -> None:
    """Wait for all runs, moving the bar."""
    reached: dict[str, int] = {}
    while not all(future.done() for future in futures) or not messages.empty():
        try:
            name, step = messages.get(timeout=0.2)
        except queue.Empty:
            continue
        bar.set_postfix_str(name, refresh=False)
        bar.update(step - reached.get(name, 0))
        reached[name] = step


def _grouped(settings: Settings, group: str) -> Settings:
    """The same settings, in the comparison's wandb group unless they name one."""
    return dataclasses.replace(settings, wandb=dataclasses.replace(settings.wandb, group=settings.wandb.group or group))


def _silent(text: str) -> None:
    """What tracking tells about a single run; the comparison says it once for all."""


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the parent decides what becomes of the runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
