"""What is saved of a run under way: its state after every meta-step, and on demand its walks in their middle."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from leap.cli.endings import Stopped, heeding
from leap.cli.settings import Settings
from leap.resumption import Keeper
from leap.run import Checkpoint, RunFolder
from leap.trainer import Trainer


def keep_walks(run: RunFolder, settings: Settings, trainer: Trainer, say: Callable[[str], None]) -> None:
    """Keep walks in their middle where that is asked for and every process reaches the run's folder."""
    train, exchange = settings.train, trainer.exchange
    if train.keep_every is None:
        return
    path = run.kept_walk(exchange.place.rank)
    if not all(exchange.gather(path.parent.is_dir())):
        say(f"train.keep_every: not every process reaches {path.parent}, so walks are not kept; share the folder")
        return
    about = repr([getattr(settings, name) for name in ("tasks", "model", "learner", "inner")])
    trainer.keeper = Keeper(path, train.keep_every, about, say)


@contextlib.contextmanager
def kept_evaluation(run: RunFolder, settings: Settings, name: str | None) -> Iterator[Keeper | None]:
    """Keep the evaluation of an initialization of this name, where walks are kept; a signal ends it at its next step.

    None: the evaluation cannot be taken up by another process.
    """
    if settings.train.keep_every is None or name is None:
        yield None
        return
    about = repr([getattr(settings, part) for part in ("tasks", "model", "learner", "inner")])
    keeper = Keeper(run.kept_evaluation(name), settings.train.keep_every, about)

    def told(ending: type[Stopped]) -> None:
        if not keeper.ask(ending):
            raise ending

    with heeding(told):
        yield keeper


def snapshot(trainer: Trainer) -> Checkpoint:
    """The state on the CPU, where it can be had even after a GPU waits in vain for another process."""
    return Checkpoint(trainer.step, {name: tensor.cpu() for name, tensor in trainer.state().items()})


@contextlib.contextmanager
def saving(run: RunFolder, trainer: Trainer) -> Iterator[Callable[[bool], None]]:
    """Keep the state after every meta-step, so that whatever ends the run, a whole one can be saved."""
    kept = snapshot(trainer)
    saved = kept.step
    leaving = False
    missed: type[Stopped] | None = None

    def completed(save: bool) -> None:
        nonlocal kept, saved
        kept = snapshot(trainer)
        if save:
            run.save(kept)
            saved = kept.step
            if trainer.keeper is not None:  # not before the meta-step is saved
                trainer.keeper.forget()

    def told(ending: type[Stopped]) -> None:
        nonlocal missed
        if leaving:  # torchrun sends SIGTERM while an error, another process's end, is already being dealt with
            missed = ending
            return
        if trainer.keeper is None or not trainer.keeper.ask(ending):
            raise ending

    with heeding(told):
        try:
            yield completed
        finally:
            leaving = True
            if kept.step > saved:
                run.save(kept)
    if missed is not None:  # told while the last state was saved, of a run that was at its end
        raise missed
