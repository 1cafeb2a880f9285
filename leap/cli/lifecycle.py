"""A run and its folder: start or continue meta-training, survive what stops it, evaluate the result."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from leap import distributed, memory, tracking
from leap.batching import EXECUTIONS
from leap.cli import build, configuration
from leap.cli.beginnings import new_run
from leap.cli.filming import Filming
from leap.cli.kept_paths import MEASURE, KeptPaths, each_of
from leap.cli.progress import watched
from leap.cli.saving import keep_walks, kept_evaluation, saving, snapshot
from leap.cli.settings import Settings
from leap.distributed import Alone, Exchange
from leap.errors import RunError, UsageError
from leap.evaluate import evaluate as walk_and_score
from leap.foreign import check_source
from leap.pieces import length
from leap.provenance import provenance
from leap.report import pictures
from leap.run import Checkpoint, RunFolder, write_atomic
from leap.trainer import Trainer
from leap.walk import Fold

Progress = Callable[[int, dict[str, float | None]], None]
Say = Callable[[str], None]
# may differ when a run goes on
FREE = (
    *("tracking", "wandb", "evaluate", "compare", "measure", "train.checkpoint_every", "train.keep_every"),
    "tasks.reference_",  # of games: what they are measured with, which no training sees
)

ALONE = Alone()
_FROM_THE_FIRST: Any = None  # what a process gives that only listens


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _unheard(step: int, metrics: dict[str, float | None]) -> None:
    """Progress nobody asked for."""


def start(
    settings: Settings, out: Path, progress: Progress = _unheard, say: Say = _to_stderr, exchange: Exchange = ALONE
) -> RunFolder:
    """Meta-train in a new run folder; `say` takes what tracking has to tell a person.

    With an exchange, this is the first of several processes, and the others `follow`.

    Raises:
        UsageError: the settings cannot be carried out here, or the folder is taken; nothing is written then.
    """
    on, trainer = _prepare(exchange.tell(settings), exchange)
    about = {**provenance(on), "run_id": uuid.uuid4().hex[:8], "execution": trainer.plan.execution}
    about |= {"engine": getattr(trainer.plan.walk, "about", {}), "processes": exchange.place.world}
    _tell_engine(about["engine"], say)
    with new_run(out, configuration.to_yaml(settings), about) as run:
        _train(run, settings, trainer, progress, say)
    return run


def resume(
    run: RunFolder,
    settings: Settings,
    progress: Progress = _unheard,
    say: Say = _to_stderr,
    exchange: Exchange = ALONE,
) -> RunFolder:
    """Continue a run where its last whole checkpoint stands, alone or as the first of several processes."""
    with run.lock():
        _check_tracked(run, settings)
        _, trainer = _prepare(exchange.tell(_as_before(run, settings)), exchange)
        checkpoint = run.load()
        if checkpoint is not None:
            trainer.restore(checkpoint.step, checkpoint.tensors)
        _train(run, settings, trainer, progress, say)
    return run


def follow(exchange: Exchange) -> None:
    """Meta-train as one of the processes that are not the first: no folder, no files, nothing said.

    Settings and state come from the first process, so that all begin alike and its machine alone needs the folder.
    """
    settings: Settings = exchange.tell(_FROM_THE_FIRST)
    _, trainer = _prepare(settings, exchange)
    begun: Checkpoint | None = exchange.tell(_FROM_THE_FIRST)
    if begun is None:
        return
    trainer.restore(begun.step, begun.tensors)
    keep_walks(RunFolder(exchange.tell(_FROM_THE_FIRST)), settings, trainer, lambda text: None)
    while trainer.step < _meta_steps(settings) and not trainer.converged:
        trainer.meta_step()


def _tell_engine(about: Mapping[str, Any], say: Say) -> None:
    """How walks are executed, where that was measured or is not what the numbers are defined by."""
    if "measured" in about.get("reason", ""):
        say(f"execution {about['execution']}: {about['reason']}")
    if about.get("meta_gradient_differs_by") is not None:
        say(f"precision {about['precision']}: the meta-gradient differs by {about['meta_gradient_differs_by']:.2g}")


def _as_before(run: RunFolder, settings: Settings) -> Settings:
    """With the execution that the run chose when it began: another one would give other round-off."""
    try:
        chosen: Any = run.recorded("execution")
    except RunError:  # of an earlier version, or removed: chosen anew
        return settings
    if settings.train.execution != "auto" or chosen not in EXECUTIONS:
        return settings
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, execution=chosen))


def _check_tracked(run: RunFolder, settings: Settings) -> None:
    """Refuse what cannot be tracked before anything is written."""
    if settings.tracking != "none":
        run.recorded("run_id")


def settings_of(run: RunFolder) -> Settings:
    """The settings a run was started with."""
    found = configuration.load(Settings, [run.path / "config.yaml"])
    check_source(run.path, getattr(found.tasks, "source", None))
    return found


def reconcile(run: RunFolder, asked: Settings) -> Settings:
    """The run's settings with those that may change taken from what is asked now.

    Raises:
        UsageError: what is asked differs in anything that would make it another run.
    """
    own = settings_of(run)
    other = [
        f"  {path}: {was!r} in the run, {now!r} now"
        for path, was, now in configuration.difference(own, asked)
        if not path.startswith(FREE)
    ]
    if other:
        raise UsageError(
            "\n".join([f"{run.path} was started with other settings:", *other])
            + "\nresume it without them, or start another run with --out"
        )
    how_often = {name: getattr(asked.train, name) for name in ("checkpoint_every", "keep_every")}
    return dataclasses.replace(
        own, tracking=asked.tracking, wandb=asked.wandb, evaluate=asked.evaluate, measure=asked.measure,
        train=dataclasses.replace(own.train, **how_often), tasks=_measured_with(own.tasks, asked.tasks),
    )  # fmt: skip


def _measured_with(own: Any, asked: Any) -> Any:
    """The tasks of a run, of which those settings are taken from what is asked now that only measuring reads."""
    names = [field.name for field in dataclasses.fields(own) if field.name.startswith("reference_")]
    return dataclasses.replace(own, **{name: getattr(asked, name) for name in names})


def evaluate(
    run: RunFolder,
    settings: Settings,
    progress: Callable[[], None] = lambda: None,
    say: Say = _to_stderr,
    known: dict[str, Any] | None = None,
    videos: int = 0,
    paths: bool = False,
) -> dict[str, Any]:
    """Evaluate a finished run's initialization beside the random one it started from; write figures and pictures.

    `known` remembers the last random initialization's walks for runs that differ in their learner alone. `videos` are
    whole episodes of each game and initialization, filmed where its walk ends; `paths`: draw walks in a plane.
    """
    with run.lock():
        _check_tracked(run, settings)
        on = build.device(settings.device)
        family = build.family(settings, on)
        fold = build.learner(settings.learner)
        meta = build.learned(run, settings, family).to(on)
        choice = settings.evaluate
        filming = Filming(run, settings, family, videos, say) if videos else None
        kept = KeptPaths(run, settings, family, fold) if paths else None
        tasks = len(family.ids(choice.split))
        seen = watched(family, progress, lambda task: length(family, task, choice.steps, choice.epochs), tasks)

        def walked(name: str, theta: torch.Tensor, learner: Fold | None) -> dict[str, Any]:
            alone = filming or kept  # the end of a walk is seen by the process that walked it alone
            with kept_evaluation(run, settings, None if alone else name) as keeper:
                found = walk_and_score(
                    seen,
                    theta,
                    learner=learner,
                    inner=functools.partial(build.inner, settings.inner),
                    steps=choice.steps,
                    epochs=choice.epochs,
                    validate_every=choice.validate_every,
                    patience=choice.patience,
                    seed=settings.seed,
                    evaluation_seeds=range(choice.repetitions),
                    which=choice.split,
                    execution=build.execution(settings.train.execution, on),
                    measures=kept.measures(name) if kept else None,
                    progress=progress,
                    finished=each_of(name, filming, kept),
                    keep=keeper,
                )
            found.pop(MEASURE, None)
            return found

        results = {settings.learner.name: walked(settings.learner.name, meta, fold)}
        same = _same_random_walks(settings, on)  # a random initialization walks with the plain optimizer
        known = {} if known is None else known
        if same not in known or filming or kept:
            known.clear()
            known[same] = walked("none", family.initial(settings.seed), None)
        results["none"] = known[same]
        document = {
            "format": 1,
            "run": run.name,
            "family": settings.tasks.name,
            "split": choice.split,
            "steps": len(results["none"]["train_loss"][0][0]),
            "asked": dataclasses.asdict(choice),
            "evaluation_seeds": list(range(choice.repetitions)),
            "tasks": [family.name(task) for task in family.ids(choice.split)],
            "pretraining_tasks": len(family.ids("train")),
            "learner": settings.learner.name,
            "seed": settings.seed,
            **(family.told(choice.steps) if hasattr(family, "told") else {}),
            "initializations": results,
        }
        (run.path / "pictures").mkdir(exist_ok=True)
        pictures.learning_curves(document, run.path / "pictures" / "learning-curves.png")
        if filming:
            filming.finish()
        if kept:
            kept.finish()
        # the last file: where it stands, `leap compare` evaluates no more
        write_atomic(run.path / "evaluation.json", (json.dumps(document) + "\n").encode())
        run.forget_walks()
        _track_evaluation(run, settings, document, say)
    return document


def _same_random_walks(settings: Settings, on: str) -> str:
    """What a random initialization's walks depend on, in words that are equal for equal walks."""
    parts = [getattr(settings, name) for name in ("tasks", "model", "inner", "evaluate", "seed")]
    return repr([*parts, settings.train.execution, on])


def _prepare(settings: Settings, exchange: Exchange) -> tuple[str, Trainer]:
    threads = settings.train.threads
    if threads is None and exchange.place.world > 1:
        threads = distributed.threads()
    if threads is not None:
        torch.set_num_threads(threads)
    on = build.device(settings.device)
    if on.startswith("cuda:"):
        torch.cuda.set_device(on)  # or whatever names no device would meet on the first GPU
    if settings.train.keep_every is not None:  # what is recorded or compiled has no state that could be kept
        how = build.execution(settings.train.execution, on)
        if exchange.place.first and settings.train.execution not in ("auto", how):
            _to_stderr(f"train.keep_every: walks go on {how}, since {settings.train.execution} steps cannot be kept")
        settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, execution=how))
    return on, build.trainer(settings, build.family(settings, on), on, exchange)


def _meta_steps(settings: Settings) -> int:
    return 0 if settings.learner.name == "none" else settings.train.meta_steps


def _train(run: RunFolder, settings: Settings, trainer: Trainer, progress: Progress, say: Say) -> None:
    meta_steps = _meta_steps(settings)
    finished = run.initialization.exists()
    trainer.exchange.tell(None if finished else snapshot(trainer))
    if finished:
        return
    keep_walks(RunFolder(trainer.exchange.tell(run.path.resolve())), settings, trainer, say)
    family, plan = trainer.family, trainer.plan
    trainer.family = watched(
        family, progress, lambda task: length(family, task, plan.inner_steps, plan.epochs), plan.meta_batch
    )
    rows, trainer.noticed = run.rewind(trainer.step), say
    tracker = _tracker(run, settings, "train", rows or None, say)
    code, peaks = 1, memory.peaks(trainer.meta_parameters.device)
    try:
        with saving(run, trainer) as completed:
            while trainer.step < meta_steps and not trainer.converged:
                metrics = trainer.meta_step() | peaks()
                run.append({"step": trainer.step, **metrics})
                completed(trainer.step % settings.train.checkpoint_every == 0 or trainer.keeper is not None)
                tracker.log(metrics, trainer.step)
                progress(trainer.step, metrics)
        run.forget_walks()
        about = {"learner": settings.learner.name, "family": settings.tasks.name, "seed": settings.seed}
        run.save_initialization(trainer.meta_parameters, trainer.family.layout, {**about, "meta_steps": trainer.step})
        tracker.artifact(run.initialization, f"initialization-{run.name}")
        code = 0
    finally:
        tracker.close(code)


def _tracker(
    run: RunFolder, settings: Settings, job: str, rows: list[dict[str, Any]] | None, say: Say
) -> tracking.Tracker:
    """Tracking as the settings want it; a run's evaluation is a wandb run of its own in the same group."""
    wandb, tracked = settings.wandb, settings.tracking != "none"
    suffix = "" if job == "train" else f"-{job}"
    return tracking.open_tracker(
        mode=wandb.mode if tracked else "disabled",
        project=wandb.project,
        entity=wandb.entity,
        run_folder=run.path,
        run_name=run.name + suffix,
        run_id=run.recorded("run_id") + suffix if tracked else "",
        group=wandb.group or settings.tasks.name,
        tags=[settings.learner.name, f"seed {settings.seed}"],
        job_type=job,
        config=configuration.to_dict(settings),
        resume_rows=rows,
        say=say,
    )


def _track_evaluation(run: RunFolder, settings: Settings, document: dict[str, Any], say: Say) -> None:
    tracker = _tracker(run, settings, "evaluate", None, say)
    try:
        tracker.curves("evaluation", document)
    finally:
        tracker.close(0)


def track_measures(run: RunFolder, settings: Settings, document: dict[str, Any], pictures: list[Path]) -> None:
    """Send what was measured to wandb, as a run of its own in the same group."""
    tracker = _tracker(run, settings, "measure", None, _to_stderr)
    try:
        tracker.measures("measures", document, pictures)
    finally:
        tracker.close(0)
