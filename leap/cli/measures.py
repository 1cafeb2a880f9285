"""From a run and its settings to a measuring, and from its results to files, pictures and wandb."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from leap import distributed
from leap.cli import build, lifecycle
from leap.cli.schema import plain
from leap.cli.settings import Settings
from leap.errors import UsageError
from leap.measure.context import Context
from leap.measure.measuring import Measuring
from leap.measure.paths import Walks
from leap.measure.plan import Plan
from leap.measure.problem import Measurable, check_per_sample, measurable, stands_in
from leap.measure.store import Store, digest
from leap.run import RunFolder, write_atomic
from leap.trainer import Family
from leap.walk import Fold

FOLDER = "measures"
# No item depends on them.
LATER = ("distances", "transferability", "seeds", "betas", "threshold", "scratch_epochs", "share", "confidence")


def measuring(run: RunFolder, settings: Settings, names: Sequence[str] | None) -> Measuring:
    """What the settings ask of a run, checked: tasks, network, and that earlier results were measured alike.

    Raises:
        UsageError: a task that is not there, a family or a network that cannot be measured so.
    """
    if settings.train.threads is not None:
        torch.set_num_threads(settings.train.threads)
    on = build.device(settings.device)
    family = build.family(settings, on)
    meta = build.learned(run, settings, family).to(on)
    tasks = _tasks(family, settings.evaluate.split, names)
    options = dataclasses.asdict(settings.measure)
    distances, scores, _ = (options.pop(name) for name in ("distances", "transferability", "level"))
    store = _store(run, settings, meta)
    context = Context(cast(Measurable, family), Plan(**options), _learned(settings, meta), store)
    if "returns" in distances and not stands_in(family):
        raise UsageError(f"--distances returns is of games, which {settings.tasks.name} is not; ask for convergence")
    if set(distances) != {"path"}:
        _prepare(measurable(family), tasks)
        context.check(tasks, distances)
    if scores and "path" in distances:
        _prepare(measurable(family), family.ids(settings.evaluate.split))
    store.prepare()
    return Measuring(context, _walks(settings, family, meta, on), distances, tasks, _scores(scores))


def _prepare(family: Measurable, tasks: Sequence[int]) -> None:
    """Data that have to be made first, each by one of the processes; they are kept, and the others find them."""
    if not stands_in(family):
        return
    here = distributed.place()
    share = tasks[here.rank :: here.world]
    for task in tqdm(share, unit="task", desc="labelled data", disable=None if here.first else True):
        family.dataset(task)
    distributed.wait()


def finish(run: RunFolder, settings: Settings, done: Measuring) -> tuple[dict[str, Any], list[Path]]:
    """Write measures.json, tables and pictures, and tell wandb; the document and the files."""
    from leap.report.measures import write_measures

    document = {
        **done.document(),
        "run": run.name,
        "learner": settings.learner.name,
        "family": settings.tasks.name,
        "inner": plain(settings.measure),
    }
    folder = run.path / FOLDER
    write_atomic(folder / "measures.json", (json.dumps(document) + "\n").encode())
    written = write_measures(document, folder)
    lifecycle.track_measures(run, settings, document, [path for path in written if path.suffix == ".png"])
    return document, written


def _scores(names: Sequence[str]) -> list[str]:
    """The scores asked for in the order of tables, and the baselines, without which no score says anything."""
    if not names:
        return []
    from leap.metrics.scores import SCORES

    return [name for name, score in SCORES.items() if name in names or "all" in names or score.baseline]


def _learned(settings: Settings, meta: torch.Tensor) -> torch.Tensor | None:
    """The learned initialization; without a learner every repetition has a random one of its own."""
    return None if settings.learner.name == "none" else meta


def _walks(settings: Settings, family: Family, meta: torch.Tensor, on: str) -> Walks:
    choice = settings.evaluate
    starts: dict[str, tuple[torch.Tensor, Fold | None]] = {
        settings.learner.name: (meta, build.learner(settings.learner))
    }
    starts["none"] = (family.initial(settings.seed), None)
    return Walks(
        family, starts, functools.partial(build.inner, settings.inner), choice.steps, settings.seed, choice.split,
        build.execution(settings.train.execution, on),
        settings.measure.samples if _separable(family, meta, choice.split) else 0, _level(settings, family),
        choice.epochs, choice.validate_every, choice.patience,
    )  # fmt: skip


def _level(settings: Settings, family: Family) -> float | None:
    """The level asked for, or half the loss of guessing where all tasks have as many classes."""
    if settings.measure.level is not None or not hasattr(family, "dataset") or stands_in(family):
        return settings.measure.level  # the loss of walks that learn something else than the data guesses at nothing
    known = cast(Measurable, family)
    classes = {known.dataset(task).classes for task in family.ids(settings.evaluate.split)}
    return math.log(classes.pop()) / 2 if len(classes) == 1 else None


def _separable(family: Family, meta: torch.Tensor, split: str) -> bool:
    """Whether the Fisher-Rao length exists: a classifier all of whose inputs are looked at one by one."""
    if family.layout.shared != family.layout.n:
        return False
    try:
        known = measurable(family)
        for task in family.ids(split)[:1]:
            check_per_sample(known, meta[: family.layout.trunk], known.dataset(task).inputs)
    except UsageError:  # the walks are measured without it, and the document has no such key
        return False
    return True


def _store(run: RunFolder, settings: Settings, meta: torch.Tensor) -> Store:
    """Where results are kept, with all that they depend on; seeds and distances may be added later."""
    about: dict[str, Any] = {
        key: plain(getattr(settings, key)) for key in ("tasks", "model", "inner", "evaluate", "seed")
    }
    about["measure"] = {key: value for key, value in plain(settings.measure).items() if key not in LATER}
    about["initialization"] = digest(meta)
    about["evaluate"].pop("repetitions")
    if about["evaluate"]["validate_every"] is None:
        del about["evaluate"]["patience"]
    about["evaluate"] = {key: value for key, value in about["evaluate"].items() if value is not None}
    return Store(run.path / FOLDER, about)


def _tasks(family: Family, split: str, names: Sequence[str] | None) -> list[int]:
    """Task ids by name, or the whole split."""
    known = {family.name(task): task for which in ("train", "validation", "test") for task in family.ids(which)}
    if names is None:
        if not len(family.ids(split)):
            raise UsageError(f"the split {split!r} holds no tasks, so there is nothing to measure; choose another")
        return list(family.ids(split))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"no task {name!r}.{hint} Known: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise UsageError(f"tasks are named twice in {' '.join(names)}; name each once")
    return [known[name] for name in names]
