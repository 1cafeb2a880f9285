"""`leap train`: meta-train an initialization in a run folder, or go on with one; under torchrun, in many processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from leap.cli import configuration
from leap.cli.arguments import Arguments, Option, help_text, split
from leap.cli.endings import TIME_UP, TimeUp
from leap.cli.settings import Settings
from leap.errors import UsageError

OPTIONS = [
    Option("--out", "path", "Folder of the new run; by default runs/TASKS-LEARNER-seedSEED.", "DIR"),
    Option("--resume", "path", "Go on with the run in this folder, from its last checkpoint.", "DIR"),
    Option("--print-config", "flag", "Show the resolved settings as YAML and stop."),
]
USAGE = "leap train [FILE.yaml ...] [--FIELD VALUE ...] [--out DIR] | leap train --resume DIR"
ABOUT = "Meta-train an initialization. Later files win over earlier ones, and fields on the command line over files."


def main(argv: Sequence[str]) -> int:
    """Train; see `leap train --help`."""
    given = split(argv, OPTIONS)
    if given.options["help"]:
        base = configuration.load(Settings, given.files)
        print(help_text(USAGE, ABOUT, OPTIONS, configuration.help_for(Settings, base, prog="leap train")))
        return 0
    if given.options["resume"] and given.options["out"]:
        raise UsageError(f"--resume {given.options['resume']} and --out {given.options['out']} exclude each other")
    from leap import distributed

    if not distributed.place().first:
        return 0 if given.options["print_config"] else _follow()
    if given.options["resume"] is None:
        settings = configuration.load(Settings, given.files, given.overrides, flags=[o.name for o in OPTIONS])
        if given.options["print_config"]:
            print(configuration.to_yaml(settings), end="")
            return 0
        name = f"{settings.tasks.name}-{settings.learner.name}-seed{settings.seed}"
        return _start(settings, given.options["out"] or Path("runs") / name)
    return _resume(given)


def _follow() -> int:
    """Train as a process that is not the first, which says what there is to say."""
    from leap import distributed
    from leap.cli import lifecycle

    try:
        with distributed.together() as exchange:
            lifecycle.follow(exchange)
    except KeyboardInterrupt as ending:
        return TIME_UP if isinstance(ending, TimeUp) else 130
    return 0


def _start(settings: Settings, out: Path) -> int:
    """A new run; where torchrun may have started the command again, the same run goes on in its folder."""
    from leap import distributed
    from leap.cli import lifecycle
    from leap.run import RunFolder

    if not (distributed.restartable() and RunFolder.started(out)):
        return _carry_out(settings, out, resume=False)
    own = lifecycle.reconcile(RunFolder.open(out), settings)
    print(f"{out} holds this run already; going on from its last checkpoint", file=sys.stderr)
    return _carry_out(own, out, resume=True)


def _resume(given: Arguments) -> int:
    from leap.cli import lifecycle
    from leap.run import RunFolder

    run = RunFolder.open(given.options["resume"])
    files: list[str | Path] = [run.path / "config.yaml", *given.files]
    asked = configuration.load(Settings, files, given.overrides, flags=[o.name for o in OPTIONS])
    settings = lifecycle.reconcile(run, asked)
    if given.options["print_config"]:
        print(configuration.to_yaml(settings), end="")
        return 0
    return _carry_out(settings, run.path, resume=True)


def _carry_out(settings: Settings, out: Path, *, resume: bool) -> int:
    from leap import distributed
    from leap.cli import lifecycle
    from leap.cli.progress import Levels, Line
    from leap.run import RunFolder

    with distributed.together() as exchange, Line(settings.train.meta_steps, "meta-step", out.name) as line:
        progress = Levels(line, describe)
        try:
            if resume:
                run = lifecycle.resume(RunFolder.open(out), settings, progress, exchange=exchange)
            else:
                run = lifecycle.start(settings, out, progress, exchange=exchange)
        except KeyboardInterrupt:
            line.close()
            print(f"\nsaved; go on with: leap train --resume {out}", flush=True)
            raise
    print(f"initialization  {run.initialization}\nevaluate it     leap evaluate {out}")
    return 0


def describe(metrics: Mapping[str, float | None]) -> str:
    """The figures of a progress line.

    Example:
        >>> describe({"charts/episodic_return": -0.5, "charts/SPS": 1234.5, "train/loss": 1.0, "train/loss_last": 2.0})
        'mean episodic return -0.5, 1234 agent steps/s'
    """
    if "charts/episodic_return" in metrics:
        score, speed = metrics["charts/episodic_return"], metrics.get("charts/SPS")
        told = "no episode has ended" if score is None else f"mean episodic return {score:.4g}"
        return told if speed is None else f"{told}, {speed:.0f} agent steps/s"
    if "train/error_last" in metrics:
        return f"training error {metrics['train/error']:.1f} %, at the end {metrics['train/error_last']:.1f} %"
    return f"training loss {metrics['train/loss']:.4g}, at the end {metrics['train/loss_last']:.4g}"
