"""A share of a meta-batch, walked: tasks of one length together, tasks that may stop early alone, visitors in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from leap.errors import UsageError
from leap.layout import Layout
from leap.metrics.path import path_length
from leap.optim import Optimizer
from leap.records import figures_of, lasting
from leap.stopping import early
from leap.tally import Tally, finite_walks
from leap.walk import Fold, TaskBatch, Walk

if TYPE_CHECKING:
    from leap.resumption import Keeper
    from leap.trainer import Family, Plan
    from leap.visits import Visits

Inner = Callable[[int], Optimizer]
"""The inner optimizer for walks of so many steps: its schedule spans them."""


class Piece(NamedTuple):
    """Tasks that walked together, and their walk; results of the fold `learner` are as wide as the meta-parameters."""

    ids: tuple[int, ...]
    walk: Walk
    figures: Mapping[str, Tensor]  # what the tasks tell of their walk, [T] by name


@dataclass
class Share:
    """What one process has walked of a meta-step.

    Attributes:
        tally: The sum over it.
        done: Pieces, from the first on.
        bad: What `first_bad` found in pieces that are settled.
        pieces: The others.
    """

    tally: Tally
    done: int = 0
    bad: str | None = None
    pieces: list[Piece] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Take in a piece."""
        self.tally.add(piece.walk, piece.figures)
        self.done += 1
        self.pieces.append(piece)

    def settled(self, family: Family) -> dict[str, Any]:
        """All that a meta-step needs to know of its pieces once they are finished; the pieces are let go."""
        self.bad, self.pieces = self.first_bad(family), []
        return {"done": self.done, "bad": self.bad, "grad": self.tally.grad, "sums": lasting(self.tally.sums)}

    def first_bad(self, family: Family) -> str | None:
        """The first task that was lost to NaN or infinity, and what it met; None where all are good."""
        return self.bad or next(filter(None, (_first_bad(family, piece) for piece in self.pieces)), None)


def _first_bad(family: Family, piece: Piece) -> str | None:
    walked, ids = piece.walk, piece.ids
    good = finite_walks(walked)
    if bool(good.all()):
        return None
    row = int((~good).nonzero()[0])
    # a joint walk has one row for all tasks, whose steps take turns
    names = [family.name(ids[row])] if len(good) == len(ids) else sorted({family.name(task) for task in ids})
    finite = walked.losses[row].isfinite()
    where = "its meta-gradient, every loss being finite"
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        where = f"loss {walked.losses[row, first].item()} at inner step {first}"
    return f"{', '.join(names)}: {where}"


def length(family: Family, task: int, steps: int, epochs: float | None) -> int:
    """K, how far a task walks: `epochs` passes over its training data where that is given, else `steps`.

    Raises:
        UsageError: epochs are asked for, and the family does not say what an epoch is.
    """
    if epochs is None:
        return steps
    own: Callable[[int], int] | None = getattr(family, "epoch", None)
    if own is None:
        raise UsageError(
            f"{type(family).__name__} does not say how many steps an epoch of a task has, so a walk cannot last "
            f"{epochs} epochs; set inner_steps (or evaluate.steps) instead"
        )
    return max(1, round(epochs * own(task)))


def stopping(tasks: object, every: int | None, patience: int) -> dict[str, Any]:
    """The argument `stop` of a walk by the tasks' validation error; nothing where walks are not to stop early.

    Raises:
        UsageError: the tasks have no validation error.
    """
    if every is None:
        return {}
    if not hasattr(tasks, "validation_error"):
        raise UsageError(
            f"validate_every is {every}, but {type(tasks).__name__} has no validation error to stop early by; "
            "leave it out, or choose tasks with validation data (multi_cv)"
        )
    return {"stop": early(tasks.validation_error, every, patience)}


def walk_pieces(
    family: Family,
    learner: Fold,
    inner: Inner,
    plan: Plan,
    meta: Tensor,
    ids: Sequence[int],
    seeds: Sequence[int],
) -> list[Piece]:
    """Walk tasks from meta-parameters [n + e], each with the seed of its own randomness.

    Returns:
        Pieces, whose walks carry the results `learner`, `path_length` and, where meta-training may stop by it,
        `validation_error`. None for no tasks.
    """
    return list(each_piece(family, learner, inner, plan, meta, ids, seeds))


def each_piece(
    family: Family,
    learner: Fold,
    inner: Inner,
    plan: Plan,
    meta: Tensor,
    ids: Sequence[int],
    seeds: Sequence[int],
    after: int = 0,
    keep: Keeper | None = None,
) -> Iterator[Piece]:
    """The pieces of `walk_pieces` one by one, but for the first `after`; `keep` keeps the walk under way.

    Raises:
        UsageError: turns of visitors are to be kept.
    """
    if not ids:
        return
    if learner.visits:
        if keep is not None:
            raise UsageError("turns of hat and progressive are not kept in the middle; leave out train.keep_every")
        yield _visits(family, learner.visits, inner, plan, meta, ids, seeds)
        return
    for k, slots in _groups(family, learner, plan, ids)[after:]:
        own, their_seeds = [ids[slot] for slot in slots], [seeds[slot] for slot in slots]
        yield _together(family, learner, inner, plan, meta, own, their_seeds, k, keep)


def _groups(family: Family, learner: Fold, plan: Plan, ids: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Which slots walk together, and how far."""
    lengths = [length(family, task, plan.inner_steps, plan.epochs) for task in ids]
    if learner.view:  # one walk of all tasks in turn, in which each has as many steps as another
        return [(max(1, round(sum(lengths) / len(lengths))), list(range(len(ids))))]
    if plan.validate_every is not None or (learner.records and plan.execution == "sequential"):
        return [(k, [slot]) for slot, k in enumerate(lengths)]  # graphs of one task, where they are kept
    found: dict[int, list[int]] = {}
    for slot, k in enumerate(lengths):
        found.setdefault(k, []).append(slot)
    return list(found.items())


def _together(
    family: Family,
    learner: Fold,
    inner: Inner,
    plan: Plan,
    meta: Tensor,
    ids: Sequence[int],
    seeds: Sequence[int],
    steps: int,
    keep: Keeper | None,
) -> Piece:
    tasks = family.batch(ids, seeds)
    walked = plan.walk(
        tasks,
        meta,
        steps=steps,
        optimizer=inner(steps * len(ids) if learner.view else steps),
        folds={"learner": learner, "path_length": path_length()},
        execution=plan.execution,
        **({} if learner.view else stopping(tasks, plan.validate_every, plan.patience)),
        **({} if keep is None else {"keep": keep}),  # an engine need not know it
    )
    results = walked.results | {"learner": whole(walked.results["learner"], family.layout, len(meta))}
    if plan.meta_patience is not None:
        judge = learner.view(tasks, steps, len(ids))[0] if learner.view else tasks
        results["validation_error"] = judge.validation_error(walked.theta)  # type: ignore[attr-defined]
    return Piece(tuple(ids), walked._replace(results=results), figures_of(tasks))


def whole(grad: Tensor, layout: Layout, width: int) -> Tensor:
    """A meta-gradient [T, m + e] of the shared part as one of all meta-parameters [T, n + e]: zero for own heads.

    Example:
        >>> layout = Layout(("body", "head"), ((2,), (1,)), trunk=2, shared=2)
        >>> whole(torch.tensor([[1.0, 2.0, 9.0]]), layout, 4)     # m = 2, n = 3, one parameter of the learner's own
        tensor([[1., 2., 0., 9.]])
    """
    missing = width - grad.shape[1]
    if missing == 0:
        return grad
    return torch.cat([grad[:, : layout.shared], grad.new_zeros(len(grad), missing), grad[:, layout.shared :]], dim=1)


def _visits(
    family: Family, visits: Visits, inner: Inner, plan: Plan, meta: Tensor, ids: Sequence[int], seeds: Sequence[int]
) -> Piece:
    """Turns of all tasks, one after another, as the walk of one row that they are together."""
    at, walks, told, judged = meta.clone(), [], [], []
    for task, seed in zip(ids, seeds, strict=True):
        tasks, steps = family.batch([task], [seed]), length(family, task, plan.inner_steps, plan.epochs)
        walked, own = take_turn(
            visits, tasks, at, steps=steps, inner=inner, seed=seed, new=False, execution=plan.execution,
            walk=plan.walk, folds={"path_length": path_length()}, every=plan.validate_every, patience=plan.patience,
        )  # fmt: skip
        at = visits.close(at, tasks, walked.theta[0])
        walks.append(walked)
        told.append(figures_of(own))
        if plan.meta_patience is not None:
            judged.append(own.validation_error(walked.theta))  # type: ignore[attr-defined]
    results = {"learner": (meta - at)[None], "path_length": sum(w.results["path_length"] for w in walks)}
    if judged:
        results["validation_error"] = torch.cat(judged).mean(dim=0, keepdim=True)
    aux = {name: torch.cat([w.aux[name] for w in walks], dim=1) for name in walks[0].aux}
    losses = torch.cat([w.losses for w in walks], dim=1)
    figures = {name: torch.cat([own[name] for own in told]) for name in told[0]}
    return Piece(tuple(ids), Walk(at[None], losses, results, aux), figures)  # type: ignore[arg-type]


def take_turn(
    visits: Visits,
    tasks: TaskBatch,
    meta: Tensor,
    *,
    steps: int,
    inner: Inner,
    seed: int,
    new: bool,
    walk: Callable[..., Walk],
    execution: str,
    folds: Mapping[str, Fold],
    every: int | None,
    patience: int,
) -> tuple[Walk, TaskBatch]:
    """One task's turn: its walk, and the tasks it walked on, whose theta is the walk's."""
    turn = visits.open(meta, tasks, steps=steps, optimizer=inner(steps), seed=seed, new=new)
    walked = walk(
        turn.tasks, turn.theta0, steps=steps, optimizer=turn.optimizer, folds=folds, execution=execution,
        **stopping(turn.tasks, every, patience),
    )  # fmt: skip
    return walked, turn.tasks
