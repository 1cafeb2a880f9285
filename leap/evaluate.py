"""Evaluation: what an initialization is worth on tasks that no learner saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from leap.batching import Execution, losses_at
from leap.errors import UsageError
from leap.metrics.path import path_energy, path_length
from leap.nested import digest
from leap.pieces import Inner, length, stopping, take_turn
from leap.randomness import derive
from leap.trainer import Family
from leap.walk import Fold, Walk, walk

if TYPE_CHECKING:
    from leap.resumption import Keeper


def area_under_curve(curve: Tensor) -> Tensor:
    r"""Mean height of the piecewise linear curve through K points, [..., K] to [...].

    .. math:: \frac{1}{K-1} \sum_{i=0}^{K-2} \tfrac12 (c_i + c_{i+1})

    A constant curve of 100 percent has area 100. (The released code of Leap divides by K; the paper reports the
    area under the error curve on a scale of 0 to 100.) A single point is its own mean.

    Example:
        >>> area_under_curve(torch.tensor([100.0, 50.0, 0.0]))
        tensor(50.)
    """
    if curve.shape[-1] == 1:
        return curve[..., 0]
    return torch.trapezoid(curve, dim=-1) / (curve.shape[-1] - 1)


Finished = Callable[[int, Sequence[int], Tensor], None]
"""Is told of the end of a walk: the evaluation seed, the ids of the tasks that walked together, theta^K [T, n]."""


def unwatched(repetition: int, ids: Sequence[int], theta: Tensor) -> None:
    """A walk's end that nobody waits for."""


def evaluate(
    family: Family,
    meta: Tensor,
    *,
    learner: Fold | None,
    inner: Inner,
    steps: int,
    seed: int,
    evaluation_seeds: Sequence[int],
    which: str = "test",
    execution: Execution = "batched",
    measures: Mapping[str, Fold] | None = None,
    epochs: float | None = None,
    validate_every: int | None = None,
    patience: int = 10,
    progress: Callable[[], None] = lambda: None,
    finished: Finished = unwatched,
    keep: Keeper | None = None,
) -> dict[str, Any]:
    """Walk every task of a split from an initialization, once an evaluation seed, and score the end.

    Args:
        family: Tasks.
        meta: Meta-parameters: an initialization [n], with the learner's own behind it where its inner update needs
            them.
        learner: Whose inner update walks (ANIL's, Meta-SGD's), or whose turn it is (HAT's, Progressive Nets'); None:
            the plain optimizer.
        inner: The inner optimizer for walks of so many steps.
        steps: K.
        seed: Root seed; the batches of a walk depend on it, the evaluation seed and the task alone, so every
            initialization meets the same batches.
        evaluation_seeds: Repetitions.
        which: Split.
        execution: As in `walk`.
        measures: Further folds whose results [T] are wanted, by name.
        epochs: Where it is given, a task walks so many passes over its training data instead of `steps`.
        validate_every: Steps between evaluations of the validation error by which a walk may stop early; None: never.
        patience: Evaluations in a row without a better error that end a walk.
        progress: Called after every repetition.
        finished: Called at the end of every walk, whose parameters are kept nowhere. Of a learner that takes turns
            they are the vector [1, p] of this turn.
        keep: Keeps what is finished and the walk under way, so that another process goes on from there; it is not told
            of walks that were `finished` before. Not for learners that take turns, and for `batched` and `sequential`.

    Returns:
        Lists by evaluation seed and task: `test_error`, `test_loss`, `train_error_auc` (or `train_loss_auc`),
        `path_length`, `path_energy`, `steps`; by seed, task and step: `train_error`, `train_loss`. Errors in percent,
        losses in nats (or the family's own unit); numbers that are not finite become None, as do the steps of the
        longest walk that a walk did not take. The area under such a curve is that of the curve held at its mean over
        the last `validate_every` steps.
    """
    ids = list(family.ids(which))
    if not ids:
        raise UsageError(f"the split {which!r} holds no tasks, so there is nothing to evaluate; choose another")
    lengths = [length(family, task, steps, epochs) for task in ids]
    alone = validate_every is not None or len(set(lengths)) > 1 or bool(learner and learner.visits)
    groups = [[place] for place in range(len(ids))] if alone else [list(range(len(ids)))]
    start = _Start(
        meta, learner, inner, {"path_length": path_length(), "path_energy": path_energy(), **(measures or {})}
    )
    turns = [(repetition, group) for repetition in evaluation_seeds for group in groups]
    purpose = f"evaluation of {which} {lengths}, {turns}, {validate_every}, {patience}, {execution}, seed {seed}"
    done = _begun(keep, purpose, meta)
    for repetition, group in turns[len(done) :]:
        k, own = lengths[group[0]], [ids[place] for place in group]
        seeds = [derive(seed, "evaluate", which, repetition, task) for task in own]
        walked, scored = start.walk(
            family.batch(own, seeds), family, k, seeds[0], execution, validate_every, patience, keep
        )
        found = {name: walked.results[name] for name in start.measures}
        found |= _curves(walked, k, max(lengths), validate_every) | _score(scored, walked, k)
        finished(repetition, own, walked.theta)
        done.append((found, _outcomes(scored)))
        if keep is not None:
            keep.finished(done)
        if group is groups[-1]:
            progress()
    return _gathered(done, len(groups))


Turn = tuple[dict[str, Tensor], dict[str, list[Any]]]
"""What is measured of tasks that walk together, [T] or [T, K], and what they tell, a list by task each."""


def _begun(keep: Keeper | None, purpose: str, meta: Tensor) -> list[Turn]:
    """The turns that an earlier process finished."""
    if keep is None or not keep.open(f"{purpose}, from {digest(meta)}", meta.device):
        return []
    return list(keep.part or [])


def _gathered(done: Sequence[Turn], groups: int) -> dict[str, Any]:
    """By name, lists by evaluation seed and task; every evaluation seed has so many turns in a row."""
    rounds = [done[at : at + groups] for at in range(0, len(done), groups)]
    rows = [{name: torch.cat([found[name] for found, _ in turns]) for name in turns[0][0]} for turns in rounds]
    told = [{name: [one for _, own in turns for one in own[name]] for name in turns[0][1]} for turns in rounds]
    measured = {name: _listed(torch.stack([row[name] for row in rows])) for name in rows[0]}
    return measured | {name: [row[name] for row in told] for name in told[0]}


class _Start(NamedTuple):
    """Where held-out tasks start, and how they walk from there."""

    meta: Tensor
    learner: Fold | None
    inner: Inner
    measures: Mapping[str, Fold]

    def walk(
        self,
        tasks: Any,
        family: Family,
        k: int,
        seed: int,
        execution: Execution,
        every: int | None,
        patience: int,
        keep: Keeper | None,
    ) -> tuple[Walk, Any]:
        """The walk of tasks that walk together, and the tasks that its theta is scored on."""
        learner, folds = self.learner, dict(self.measures)
        if learner and learner.visits:
            if keep is not None:
                raise UsageError("turns of hat and progressive are not kept in the middle; leave out train.keep_every")
            return take_turn(
                learner.visits, tasks, self.meta, steps=k, inner=self.inner, seed=seed, new=True, walk=walk,
                execution=execution, folds=folds, every=every, patience=patience,
            )  # fmt: skip
        own = bool(learner and learner.inner)
        if learner and own:
            folds["learner"] = Fold(
                lambda theta0: None, lambda state, s: None, lambda state, end: end.theta, learner.inner, learner.extend
            )
        meta = self.meta if own else self.meta[: family.layout.n]
        walked = walk(
            tasks, meta, steps=k, optimizer=self.inner(k), folds=folds, execution=execution, keep=keep,
            **stopping(tasks, every, patience),
        )  # fmt: skip
        return walked, tasks


def _curves(walked: Walk, k: int, longest: int, every: int | None) -> dict[str, Tensor]:
    """Curves [T, longest] with NaN behind the end, the areas under them, and the steps taken."""
    taken = walked.losses.shape[1]
    found = {"steps": torch.full((len(walked.losses),), float(taken))}
    curves = {"train_loss": walked.losses}
    if "error" in walked.aux:
        curves["train_error"] = walked.aux["error"]
    for name, curve in curves.items():
        held = curve[:, -(every or 1) :].mean(dim=1, keepdim=True).expand(-1, k - taken)
        found[f"{name}_auc"] = area_under_curve(torch.cat([curve, held], dim=1))
        found[name] = torch.nn.functional.pad(curve, (0, longest - taken), value=torch.nan)
    return found


def _score(tasks: Any, walked: Walk, steps: int) -> dict[str, Tensor]:
    """The family's own score at theta^K, else the loss on held-out (or fresh) data."""
    if hasattr(tasks, "score"):
        return dict(tasks.score(walked.theta))
    batch = getattr(tasks, "query", tasks.sample)(walked.theta, steps)
    return {"test_loss": losses_at(tasks.loss, walked.theta, batch, "sequential")}


def _outcomes(tasks: Any) -> dict[str, list[Any]]:
    """What tasks tell of a walk that is no number a step, such as the episodes of games; a list by task each."""
    return dict(tasks.outcomes()) if hasattr(tasks, "outcomes") else {}


def _listed(values: Tensor) -> Any:
    """Nested lists with None where a number is not finite (JSON has neither NaN nor infinity)."""
    if values.dim() == 0:
        return values.item() if bool(values.isfinite()) else None
    return [_listed(row) for row in values.cpu()] if not bool(values.isfinite().all()) else values.tolist()
