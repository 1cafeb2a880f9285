"""From a run and its settings to a measuring, and from its results to files, pictures and wandb."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from leap.cli import build, lifecycle
from leap.cli.schema import plain
from leap.cli.settings import Settings
from leap.errors import UsageError
from leap.measure.context import Context
from leap.measure.measuring import Measuring
from leap.measure.paths import Walks
from leap.measure.plan import Plan
from leap.measure.problem import Measurable, check_per_sample, measurable
from leap.measure.store import Store, digest
from leap.run import RunFolder, write_atomic
from leap.trainer import Family
from leap.walk import Fold

FOLDER = "measures"
LATER = ("distances", "seeds", "betas", "threshold", "scratch_epochs", "share", "confidence")  # no item depends on them


def measuring(run: RunFolder, settings: Settings, names: Sequence[str] | None) -> Measuring:
    """What the settings ask of a run, checked: tasks, network, and that earlier results were measured alike.

    Raises:
        UsageError: a task that is not there, a family or a network that cannot be measured so.
    """
    if settings.train.threads is not None:
        torch.set_num_threads(settings.train.threads)
    on = build.device(settings.device)
    family = build.family(settings, on)
    meta = run.load_initialization(family.layout).to(on)
    tasks = _tasks(family, settings.evaluate.split, names)
    options = dataclasses.asdict(settings.measure)
    distances, _ = options.pop("distances"), options.pop("level")
    store = _store(run, settings, meta)
    context = Context(cast(Measurable, family), Plan(**options), _learned(settings, meta), store)
    if set(distances) != {"path"}:
        measurable(family)
        context.check(tasks, distances)
    store.prepare()
    return Measuring(context, _walks(settings, family, meta, on), distances, tasks)


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
        family, starts, build.inner(settings.inner, choice.steps), choice.steps, settings.seed, choice.split,
        build.execution(settings.train.execution, on),
        settings.measure.samples if _separable(family, meta, choice.split) else 0, _level(settings, family),
    )  # fmt: skip


def _level(settings: Settings, family: Family) -> float | None:
    """The level asked for, or half the loss of guessing where all tasks have as many classes."""
    if settings.measure.level is not None or not hasattr(family, "dataset"):
        return settings.measure.level
    known = cast(Measurable, family)
    classes = {known.dataset(task).classes for task in family.ids(settings.evaluate.split)}
    return math.log(classes.pop()) / 2 if len(classes) == 1 else None


def _separable(family: Family, meta: torch.Tensor, split: str) -> bool:
    """Whether the Fisher-Rao length exists: a classifier all of whose inputs are looked at one by one."""
    try:
        known = measurable(family)
        for task in family.ids(split)[:1]:
            check_per_sample(known, meta[: family.layout.trunk], known.dataset(task).inputs)
    except UsageError:  # the walks are measured without it, and the document has no such key
        return False
    return family.layout.shared == family.layout.n


def _store(run: RunFolder, settings: Settings, meta: torch.Tensor) -> Store:
    """Where results are kept, with all that they depend on; seeds and distances may be added later."""
    about: dict[str, Any] = {
        key: plain(getattr(settings, key)) for key in ("tasks", "model", "inner", "evaluate", "seed")
    }
    about["measure"] = {key: value for key, value in plain(settings.measure).items() if key not in LATER}
    about["initialization"] = digest(meta)
    about["evaluate"].pop("repetitions")
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


def text(document: Mapping[str, Any]) -> str:
    """What was found, for the terminal: walks by initialization, and which distance goes with which outcome."""
    lines = [*_walked(document["paths"]), *_related(document["relations"])]
    return "\n".join(lines)


def _walked(paths: Mapping[str, Any]) -> list[str]:
    """Means over tasks and repetitions, and whether a task that is far away ends worse."""
    if not paths:
        return []
    measures = ("path_length", "path_length_until", "path_length_parameters", "fisher_rao_length", "test_error")
    rows = [["initialization", *measures, "length & error", "until & error"]]
    for name, found in paths["initializations"].items():
        rows.append(
            [name, *(_mean(found.get(one)) for one in measures), *(_far_and_wrong(found, one) for one in measures[:2])]
        )
    return ["", f"walks to {len(paths['tasks'])} held-out tasks (means; Spearman over tasks)", *_columns(rows)]


def _mean(values: Sequence[Sequence[float | None]] | None) -> str:
    """Of all that exist, with their share where some do not."""
    known = [v for row in values or [] for v in row if v is not None]
    if not known or values is None:
        return "-"
    share = len(known) / sum(len(row) for row in values)
    return f"{sum(known) / len(known):.4g}" + (f" ({share:.0%} of walks)" if share < 1 else "")


def _far_and_wrong(found: Mapping[str, Any], measure: str) -> str:
    """Rank correlation of a length and the final error over tasks, each a mean over repetitions.

    A length that was not reached is beyond all that were.
    """
    from leap.metrics.correlation import spearman

    try:
        lengths = np.nan_to_num(np.array(found[measure], dtype=float), nan=np.inf).mean(axis=0)
        return _figure(spearman(lengths, np.array(found["test_error"], dtype=float).mean(axis=0)))
    except (KeyError, ValueError):  # a family without errors, or no order among the tasks
        return "-"


def _related(relations: Sequence[Mapping[str, Any]]) -> list[str]:
    chosen = [one for one in relations if "beta" not in one]
    if not chosen:
        return []
    rows = [["distance", "outcome", "pooled Spearman", "95% over tasks", "within targets", "Mantel p"]]
    for one in chosen:
        low, high = one["pooled"]["tasks"] or (None, None)
        rows.append([
            one["x"], one["y"], _figure(one["pooled"]["spearman"]), f"{_figure(low)} to {_figure(high)}",
            _figure(one["within"]["spearman"]), _figure(one["mantel_p"], 4),
        ])  # fmt: skip
    return ["", "what goes with what training measured", *_columns(rows)]


def _figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
