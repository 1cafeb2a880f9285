"""Meta-training: draw tasks, walk, average, step. Nothing here knows which tasks or which learner.

Processes that train together draw the same task ids, walk a share each, and add up one vector: the sum of the
meta-gradients and of what is logged. Everything after it is decided from that vector alone, so all decide alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from leap.batching import Execution
from leap.distributed import Alone, Exchange
from leap.errors import RunError
from leap.layout import Layout
from leap.meta_optimizer import MetaOptimizer
from leap.nested import digest
from leap.optim import Schedule
from leap.pieces import Inner, Share, each_piece
from leap.randomness import derive, generator
from leap.records import Records, recorded, summed
from leap.stopping import Patience
from leap.tally import Tally, logged, read
from leap.walk import Fold, TaskBatch, Walk, walk

if TYPE_CHECKING:
    from leap.resumption import Keeper


class Family(Protocol):
    """Where tasks come from. A user's own family is one class with these members.

    Optional: `records`, what is logged of its walks beside losses and errors, from its construction on
    (`leap.records`).
    """

    layout: Layout

    def ids(self, which: str) -> Sequence[int]:
        """Task ids of the split `train`, `validation` or `test`."""

    def name(self, task: int) -> str:
        """A task's name in tables and logs."""

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n], on the device where tasks live."""

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> TaskBatch:
        """Tasks that walk together; each draws its data from its own seed."""


@dataclass(frozen=True)
class Plan:
    """What meta-training does, apart from tasks and learner.

    Attributes:
        seed: Root of all randomness.
        inner_steps: K, steps a task walks.
        meta_batch: T, tasks a meta-step.
        execution: How a walk evaluates its tasks.
        most_bad: Share of a meta-batch that may be lost to NaN or infinity before the run stops.
        walk: The inner loop, `leap.walk.walk` or an engine of the same signature.
        epochs: Where it is given, a task walks so many passes over its training data instead of `inner_steps`, each
            as far as its own data reach (`Family.epoch`); tasks of one length walk together.
        validate_every: Inner steps between evaluations of a task's validation error, by which its walk may stop
            early; tasks then walk one at a time. None: no walk stops early, and joint finetuning never does.
        patience: Evaluations in a row without a better error that end a walk.
        meta_patience: Meta-steps in a row without a better mean validation error that end meta-training.
    """

    seed: int
    inner_steps: int
    meta_batch: int
    execution: Execution
    most_bad: float = 0.5
    walk: Callable[..., Walk] = walk
    epochs: float | None = None
    validate_every: int | None = None
    patience: int = 10
    meta_patience: int | None = None


def first(learner: Fold, family: Family, seed: int) -> Tensor:
    """Meta-parameters [n + e] before the first meta-step: theta, and what the learner keeps behind it."""
    theta = family.initial(seed)
    if learner.extend:
        theta = torch.cat([theta, learner.extend(theta, family.layout, len(family.ids("train")))])
    if learner.visits:
        theta = torch.cat([theta, learner.visits.begin(family, seed)])
    return theta


class Trainer:
    """Meta-trains an initialization, a meta-step a call.

    Args:
        family: Tasks.
        learner: A fold from `leap.learners`.
        inner: The inner optimizer, given how many steps its schedule is to span.
        meta: Name, schedule and options of the meta-optimizer, see `MetaOptimizer`.
        plan: The rest.
        exchange: The processes that train together; all are given the same arguments but this one.

    A joint walk (finetuning) and visits (HAT, Progressive Nets) go over all tasks in turn and cannot be shared out: the
    first process takes them, and the others wait for the result.

    Attributes:
        keeper: Keeps walks in their middle (`leap.resumption`), in all processes or in none; None: a meta-step that is
            cut short is walked again.
        noticed: Told of walks that were left out: how many, and the task, step and value that came first.

    Example:
        >>> from leap import learners, optim
        >>> from tasks.quadratic import Quadratic
        >>> plan = Plan(seed=0, inner_steps=5, meta_batch=4, execution="batched")
        >>> meta = ("SGD", lambda step: 1.0, {"lr": 1.0})
        >>> trainer = Trainer(Quadratic(), learners.reptile(), lambda steps: optim.sgd(0.1), meta, plan)
        >>> losses = [trainer.meta_step()["train/loss"] for _ in range(20)]
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(
        self,
        family: Family,
        learner: Fold,
        inner: Inner,
        meta: tuple[str, Schedule, Mapping[str, Any]],
        plan: Plan,
        exchange: Exchange | None = None,
    ) -> None:
        self.exchange = exchange or Alone()
        self.family, self.learner, self.inner, self.plan = family, learner, inner, plan
        self.meta = MetaOptimizer(first(learner, family, plan.seed), *meta)
        self.step = 0
        self.records: Records = getattr(family, "records", {})
        self._own = summed(self.records)
        self.patience = Patience(plan.meta_patience) if plan.meta_patience is not None else None
        self.keeper: Keeper | None = None
        self.noticed: Callable[[str], None] = lambda text: None

    @property
    def theta(self) -> Tensor:
        """The learned initialization [n]."""
        return self.meta.meta.detach()[: self.family.layout.n].clone()

    @property
    def meta_parameters(self) -> Tensor:
        """The initialization and what the learner keeps behind it [n + e]."""
        return self.meta.meta.detach().clone()

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors that meta-training goes on from; with `step` they are the whole state."""
        kept = {f"optimizer/{name}": tensor.clone() for name, tensor in self.meta.state().items()}
        if self.patience is not None:
            kept["patience"] = torch.tensor([self.patience.best, self.patience.since], dtype=torch.float64)
        return {"meta": self.meta_parameters, **kept}

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Go on after meta-step `step` from what `state` returned then.

        Raises:
            RunError: the tensors belong to another model or learner.
        """
        meta = tensors.get("meta")
        expected = self.meta.meta
        wanted: Any = tuple(expected.shape)
        got: Any = "none" if meta is None else tuple(meta.shape)
        if meta is not None and got == wanted:
            got, wanted = meta.dtype, expected.dtype
        if meta is None or got != wanted:
            raise RunError(f"the checkpoint's meta-parameters are {got}, expected {wanted}")
        prefix = "optimizer/"
        self.meta.restore({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, step)
        expected.data.copy_(meta)
        if self.patience is not None and "patience" in tensors:
            best, since = tensors["patience"].tolist()
            self.patience = Patience(self.patience.limit, best, int(since))
        self.step = step

    @property
    def converged(self) -> bool:
        """Whether meta-training may end: its validation error has not improved for `plan.meta_patience` meta-steps."""
        return self.patience is not None and self.patience.exhausted

    def draw(self, step: int) -> list[int]:
        """Task ids of a meta-step: passes over the pretraining tasks, each in a new order."""
        ids = list(self.family.ids("train"))
        stream = generator(self.plan.seed, "meta-batch", step)
        drawn: list[int] = []
        while len(drawn) < self.plan.meta_batch:
            drawn += [ids[i] for i in torch.randperm(len(ids), generator=stream).tolist()]
        return drawn[: self.plan.meta_batch]

    def meta_step(self) -> dict[str, float | None]:
        """One meta-step; numbers to log of it (None: there is none), the same in every process but for the time.

        Raises:
            RunError: more of the meta-batch than `plan.most_bad` was lost to NaN or infinity, or another process ended.
        """
        started, meta = time.perf_counter(), self.meta.meta.detach()
        ids = self.draw(self.step)
        mine = self._share(len(ids))
        share = self._walk(ids, mine)
        own = share.tally.vector()
        own_mark = own[-1].clone()  # the exchange may write over what it is given
        total = self.exchange.sum(own)
        sums, mark = read(total, own_mark, self._own)  # the one synchronisation before the update
        self._check_together(sums["mark"], mark)
        if sums["bad"] > 0:
            self._refuse(sums, share)
        grad = (total[: len(meta)] / sums["good"]).to(meta.dtype)
        before = meta.clone()
        rate = self.meta.step(grad, self.step)
        self.step += 1
        values = logged(sums, grad, meta - before)
        if self.patience is not None:
            self.patience.over(values["train/validation_error"])
        seconds = time.perf_counter() - started
        told = recorded(self.records, sums, sums["steps"], seconds)
        times = {"time/meta_step_s": seconds, "time/inner_steps_per_s": sums["steps"] / seconds}
        return {**values, "meta/lr": rate, **times, **told}

    def _share(self, count: int) -> slice:
        """Which slots of a meta-batch this process walks; it may be none."""
        here = self.exchange.place
        if self.learner.view or self.learner.visits:
            return slice(0, count if here.first else 0)
        return here.share(count)

    def _walk(self, ids: Sequence[int], mine: slice) -> Share:
        """Walk the share, each task from the seed of its slot in the whole meta-batch."""
        seeds = [derive(self.plan.seed, "walk", self.step, slot, task) for slot, task in enumerate(ids)]
        own, keeper, meta = (ids[mine], seeds[mine]), self.keeper, self.meta.meta.detach()
        share = Share(Tally(meta, own=self._own)) if keeper is None else self._begun(keeper, *own)
        for piece in each_piece(
            self.family, self.learner, self.inner, self.plan, meta, *own, after=share.done, keep=keeper
        ):
            share.add(piece)
            if keeper is not None:
                keeper.finished(share.settled(self.family))
        return share

    def _begun(self, keeper: Keeper, ids: Sequence[int], seeds: Sequence[int]) -> Share:
        """What is finished of this meta-step: nothing, unless every process kept its share of it."""
        meta, fresh = self.meta.meta.detach(), keeper.fresh
        found = keeper.open(self._purpose(ids, seeds), meta.device)
        if fresh and not all(self.exchange.gather(found or not ids)):
            if found:
                keeper.say("another process kept nothing of this meta-step, which begins anew")
            keeper.anew()
        if keeper.part is None:
            return Share(Tally(meta, own=self._own))
        part = keeper.part
        return Share(Tally(meta, part["grad"], part["sums"], self._own), part["done"], part["bad"])

    def _purpose(self, ids: Sequence[int], seeds: Sequence[int]) -> str:
        """What this process's walks in this meta-step depend on, in words that differ where they may."""
        plan = {name: value for name, value in vars(self.plan).items() if name not in ("walk", "most_bad")}
        plan["precision"] = getattr(self.plan.walk, "precision", "highest")
        plan |= {"records": self._own} if self._own else {}  # their sums are kept with the finished pieces
        origin = digest(self.meta.meta)
        return f"meta-step {self.step}, {plan}, tasks {list(ids)}, seeds {list(seeds)}, from {origin}"

    def _check_together(self, sum_of_marks: float, mark: float) -> None:
        """Refuse to go on where processes stand at different parameters; at least one that differs notices."""
        world = self.exchange.place.world
        if sum_of_marks != world * mark:
            raise RunError(
                f"meta-step {self.step}: the {world} processes no longer hold the same parameters, so their "
                "meta-gradients cannot be added; they must run the same versions on the same kind of hardware. "
                "Start the same command again to go on from the last checkpoint"
            )

    def _refuse(self, sums: Mapping[str, float], share: Share) -> None:
        """Say which task, step and value came first where walks are lost; stop where it is too many of them."""
        bad, rows = int(sums["bad"]), int(sums["bad"] + sums["good"])
        found = self.exchange.gather(share.first_bad(self.family))
        first_met = next(text for text in found if text)
        told = f"meta-step {self.step}: {bad} of {rows} walks met NaN or infinity, first in task {first_met}"
        if bad / rows <= self.plan.most_bad and bad < rows:
            self.noticed(f"{told}; left out")
            return
        raise RunError(
            f"{told}. At most a share of {self.plan.most_bad} is tolerated (train.most_bad); "
            "try a smaller inner or meta learning rate"
        )
