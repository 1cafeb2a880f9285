"""From settings to objects: the one place where names become tasks, learners, optimizers and devices."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from leap import distributed, learners, optim
from leap.batching import EXECUTIONS, Execution
from leap.bench.row import synchronizer
from leap.cache import cache_folder
from leap.cli import settings as s
from leap.cli.fields import ScheduleName
from leap.cli.schema import plain
from leap.errors import RunError, UsageError
from leap.execution import Choice, Engine, cache_file, candidates, choose
from leap.precision import effect
from leap.randomness import derive
from leap.run import RunFolder
from leap.trainer import Family, Plan, Trainer, first
from leap.walk import Fold, Walk, walk


def device(name: str) -> str:
    """A torch device by name; `auto` is the GPU where there is one, each process of a machine taking its own.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto" and not torch.cuda.is_available():
        return "cpu"
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return distributed.gpu(torch.cuda.device_count())
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # by what is missing: driver, build, backend
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise UsageError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}. Devices here: {found}"
        ) from error
    return name


def family(settings: s.Settings, on: str) -> Family:
    """The task family of the settings."""
    tasks, seed = settings.tasks, settings.seed
    if isinstance(tasks, s.Sinusoid):
        from tasks.sinusoid import Sinusoid

        return Sinusoid(tasks.count, tasks.shots, tasks.queries, settings.model.hidden, seed=seed, device=on)
    if isinstance(tasks, s.Quadratic):
        from tasks.quadratic import Quadratic

        return Quadratic(
            tasks.dim, tasks.count, tasks.spread, tasks.condition, seed=seed, dtype=torch.float32, device=on
        )
    if isinstance(tasks, s.Custom):
        return _custom(tasks, seed, on)
    if isinstance(tasks, s.MultiCV):
        return _multi_cv(tasks, settings, on)
    if isinstance(tasks, s.Atari | s.TinyGames):
        return _games(tasks, settings, on)
    if isinstance(tasks, s.ImageSets):
        return _image_sets(tasks, settings, on)
    if isinstance(tasks, s.DigitTasks):
        return _digit_tasks(tasks, settings, on)
    return _alphabets(tasks, settings, on)


def _alphabets(tasks: s.Omniglot | s.Glyphs, settings: s.Settings, on: str) -> Family:
    from tasks import glyphs, omniglot
    from tasks.alphabets import Alphabets, Protocol
    from tasks.augment import Augmentation

    if isinstance(tasks, s.Omniglot):
        drawings = omniglot.load(Path(tasks.folder).expanduser() if tasks.folder else None)
    else:
        drawings = glyphs.load()
    moved = Augmentation(tasks.rotation, (tasks.scale_low, tasks.scale_high), tasks.translation)
    protocol = Protocol(
        tasks.ways, tasks.shots, tasks.queries, tasks.train, tasks.pool, tasks.held_out, tasks.batch_size,
        moved if tasks.augment else None,
    )  # fmt: skip
    model = settings.model
    return Alphabets(drawings, protocol, seed=settings.seed, filters=model.filters, norm=model.norm, device=on)


def _games(tasks: s.Atari | s.TinyGames, settings: s.Settings, on: str) -> Family:
    options: dict[str, Any] = {
        name: getattr(tasks, name)
        for name in (
            "environments", "unroll", "discount", "gae", "entropy", "value_weight", "clip_reward", "reduction",
            "life_cuts", "evaluation_episodes", "network", "acting",
        )
    }  # fmt: skip
    options |= {"seed": settings.seed, "device": on, "imitation": _imitation(tasks, settings)}
    if isinstance(tasks, s.TinyGames):
        from tasks.tiny_games import tiny_games

        return tiny_games(tasks.train, tasks.test, **options)
    from tasks.atari import Preprocessing, atari_games

    shown = Preprocessing(
        height=tasks.size, width=tasks.size, grayscale=not tasks.colour, stack=tasks.stack, sticky=tasks.sticky,
        frame_skip=tasks.frame_skip, noop_max=tasks.noop_max, full_actions=tasks.full_actions,
    )  # fmt: skip
    return atari_games(
        tasks.train or None, tasks.test or None, preprocessing=shown, threads=tasks.threads or distributed.cores(),
        most_actions=tasks.most_actions, **options,
    )  # fmt: skip


def _imitation(tasks: s.Atari | s.TinyGames, settings: s.Settings) -> Any:
    from tasks.game_data import Imitation

    # of one game, whichever others there are
    elsewhere = ("train", "test", "evaluation_episodes", "threads", "most_actions")
    about = {name: value for name, value in plain(tasks).items() if name not in elsewhere}
    return Imitation(
        tasks.reference_steps, tasks.reference_examples, tasks.reference_random, tasks.reference_spacing,
        tasks.reference_labels, functools.partial(inner, settings.inner), cache_folder() / "games",
        {"tasks": about, "inner": plain(settings.inner)},
    )  # fmt: skip


def _multi_cv(tasks: s.MultiCV, settings: s.Settings, on: str) -> Family:
    from tasks import datasets
    from tasks.multi_cv import MultiCV
    from tasks.parts import drawn

    folder = Path(tasks.folder).expanduser() if tasks.folder else datasets.home()
    found = drawn(tasks.names, folder, settings.seed, tasks.validation, tasks.most, tasks.most_test)
    return MultiCV(
        found, held_out=tasks.held_out or tasks.names[-1:], seed=settings.seed, batch_size=tasks.batch_size,
        filters=settings.model.filters, norm=settings.model.norm, device=on,
    )  # fmt: skip


def _image_sets(tasks: s.ImageSets, settings: s.Settings, on: str) -> Family:
    from tasks import image_sources
    from tasks.image_sets import ImageSets

    sets = image_sources.load(tasks.names, Path(tasks.folder).expanduser() if tasks.folder else None)
    return ImageSets(
        sets, held_out=tasks.held_out, seed=settings.seed, train_size=tasks.train_size, test_size=tasks.test_size,
        batch_size=tasks.batch_size, widths=settings.model.widths, normalization=tasks.normalization, device=on,
    )  # fmt: skip


def _digit_tasks(tasks: s.DigitTasks, settings: s.Settings, on: str) -> Family:
    from tasks.digit_tasks import digit_tasks

    return digit_tasks(
        tasks.names, Path(tasks.folder).expanduser() if tasks.folder else None, held_out=tasks.held_out,
        seed=settings.seed, train_size=tasks.train_size, test_size=tasks.test_size, batch_size=tasks.batch_size,
        widths=settings.model.widths, device=on,
    )  # fmt: skip


def _custom(tasks: s.Custom, seed: int, on: str) -> Family:
    """A family from a person's own file."""
    file, _, name = tasks.source.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"tasks.source: no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        public = sorted(n for n in vars(module) if not n.startswith("_"))
        raise UsageError(f"tasks.source: {path} has no {name!r}; it has {public}")
    made: Family = getattr(module, name)(seed=seed, device=on, **tasks.options)
    missing = [m for m in ("layout", "ids", "name", "initial", "batch") if not hasattr(made, m)]
    if missing:
        raise UsageError(
            f"tasks.source: {tasks.source} made a {type(made).__name__} without {missing}; see leap.trainer.Family"
        )
    return made


def learner(choice: Any) -> Fold:
    """The fold of a learner's settings: its name and fields are the function and its arguments."""
    options = {
        field.name: getattr(choice, field.name)
        for field in dataclasses.fields(choice)
        if field.name not in ("name", "engine")
    }
    fold: Fold = getattr(learners, choice.name)(**options)
    return fold


def schedule(name: ScheduleName, steps: int) -> optim.Schedule:
    """A schedule over `steps` steps."""
    return optim.cosine(steps) if name == "cosine" else optim.constant


def inner(choice: s.Sgd | s.Adam | s.Rmsprop, steps: int) -> optim.Optimizer:
    """The inner optimizer for walks of `steps` steps: its schedule spans them."""
    plain = _update(choice, schedule(choice.schedule, steps))
    return plain if choice.clip is None else optim.clipped(plain, choice.clip)


def _update(choice: s.Sgd | s.Adam | s.Rmsprop, over: optim.Schedule) -> optim.Optimizer:
    if isinstance(choice, s.Sgd):
        return optim.sgd(choice.lr, choice.momentum, choice.weight_decay, nesterov=choice.nesterov, schedule=over)
    if isinstance(choice, s.Adam):
        betas = (choice.beta1, choice.beta2)
        return optim.adam(choice.lr, betas, choice.eps, choice.weight_decay, decoupled=choice.decoupled, schedule=over)
    return optim.rmsprop(
        choice.lr, choice.alpha, choice.eps, choice.weight_decay, momentum=choice.momentum, style=choice.style,
        schedule=over,
    )  # fmt: skip


def execution(name: str, on: str) -> Execution:
    """How walks that stand alone are executed: what is compiled or recorded is repaid over a run's many walks.

    `auto`: a vmap fills a GPU; on a CPU it makes grouped convolutions, which take about twice a loop's time.
    """
    if name == "auto":
        return "batched" if on.startswith("cuda") else "sequential"
    return "sequential" if name == "sequential" else "batched"


def _asked(name: str, on: str) -> Execution:
    """What a run is told to do, and what it does where `auto` has nothing to measure."""
    return cast(Execution, name) if name in EXECUTIONS else execution(name, on)


def engine(choice: Any) -> Callable[..., Walk]:
    """The inner loop that runs the learner."""
    if getattr(choice, "engine", "native") == "learn2learn":
        from leap import l2l

        l2l.load()
        return l2l.walk
    return walk


def learned(run: RunFolder, settings: s.Settings, tasks: Family) -> Tensor:
    """Meta-parameters [n + e] of a finished run, which are what this learner keeps of these tasks.

    Raises:
        UsageError: the run has not finished.
        RunError: the file is damaged, or of another model, learner, type or length.
    """
    meta = run.load_initialization(tasks.layout)
    expected = first(learner(settings.learner), tasks, settings.seed)
    if (meta.dtype, len(meta)) != (expected.dtype, len(expected)):
        found, wanted = (f"{len(one)} numbers of {one.dtype}" for one in (meta, expected))
        raise RunError(f"{run.initialization} holds another model or learner: {found}, expected {wanted}")
    return meta


def trainer(settings: s.Settings, tasks: Family, on: str, exchange: distributed.Exchange | None = None) -> Trainer:
    """A trainer at meta-step 0."""
    train, meta = settings.train, settings.meta
    plan = Plan(
        settings.seed, train.inner_steps, train.meta_batch, _asked(train.execution, on), train.most_bad,
        engine(settings.learner), train.inner_epochs, train.validate_every, train.patience, train.meta_patience,
    )  # fmt: skip
    if plan.walk is walk:
        plan = _carried_out(plan, settings, tasks, on, exchange or distributed.Alone())
    elif train.precision != "highest":
        raise UsageError(f"train.precision: learn2learn's loops compute in float32, got {train.precision}; use highest")
    moves = (meta.name, schedule(meta.schedule, train.meta_steps), {"lr": meta.lr, **meta.options})
    walks = functools.partial(inner, settings.inner)
    return Trainer(tasks, learner(settings.learner), walks, moves, plan, exchange)


def _carried_out(plan: Plan, settings: s.Settings, tasks: Family, on: str, exchange: distributed.Exchange) -> Plan:
    """The plan with the way its walks are executed, measured by the first process where it was not set by hand."""
    train, count = settings.train, -(-plan.meta_batch // exchange.place.world)

    def attempt(engine: Callable[..., Walk], how: Execution, steps: int) -> Walk:
        ids = list(itertools.islice(itertools.cycle(tasks.ids("train")), count))
        batch = tasks.batch(ids, [derive(plan.seed, "measure", slot) for slot in range(count)])
        optimizer, folds = inner(settings.inner, train.inner_steps), {"learner": learner(settings.learner)}
        theta = tasks.initial(plan.seed)
        return engine(batch, theta, steps=steps, optimizer=optimizer, folds=folds, execution=how)

    choice = Choice(plan.execution, "set by hand", {})
    if train.execution == "auto" and exchange.place.first:
        about = {"device": on, "precision": train.precision, "count": count}
        about |= {name: repr(getattr(settings, name)) for name in ("tasks", "model", "learner", "inner")}
        choice = choose(
            attempt, candidates(on), train.meta_steps * train.inner_steps, make=lambda: Engine(train.precision),
            cache=cache_file(about), synchronize=synchronizer(on),
        )  # fmt: skip
    choice = exchange.tell(choice)
    told: dict[str, Any] = {"execution": choice.execution, "reason": choice.reason, "precision": train.precision}
    if train.precision != "highest":
        steps = min(3, plan.inner_steps)
        told["meta_gradient_differs_by"] = effect(
            lambda p: attempt(Engine(p), execution(choice.execution, on), steps), train.precision, "learner"
        )
    return dataclasses.replace(plan, execution=choice.execution, walk=Engine(train.precision, told))
