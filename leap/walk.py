"""The one inner loop: T tasks walk K steps from theta^0, and folds watch.

A step of every task is a `Step`; a learner or a measurement is a `Fold` over steps. Training, evaluation and every
path measure run through `walk`, and nothing else takes inner steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from leap import adjoint
from leap.batching import Execution, evaluate, loss_and_gradient
from leap.course import check_arguments, course
from leap.curves import Curves
from leap.errors import UsageError
from leap.layout import Layout
from leap.optim import Optimizer
from leap.steps import Step as Step
from leap.steps import Stepper, Steps

if TYPE_CHECKING:
    from leap.capture import Prepared
    from leap.resumption import Following, Keeper
    from leap.visits import Visits


class TaskBatch(Protocol):
    """T tasks that walk together. `sample` is where the world is; `loss` is pure.

    A batch is a tensor or a tuple, list, named tuple or mapping of them, each with the T tasks on its first axis.
    Optional members, used where they are there:

    - `size: int`: T; without it T is read off theta0 [T, n] or the first batch.
    - `layout: Layout`: the model's layout; it tells ANIL and finetuning where the head begins, and every learner
      which part is shared.
    - `query(theta, step)`: a batch of held-out data of the same tasks, on which MAML and FOMAML take the outer loss;
      without it they take `sample(theta, K)`.
    - `start(theta0 [T, n]) -> [T, n]`: what a task begins with where it has parameters of its own that no learner
      learns, such as a head drawn anew.
    - `validation_error(theta [T, n]) -> [T]`: what stopping early goes by (`leap.stopping`).
    - `outcomes() -> dict[str, list]`: what evaluation keeps of a walk beside numbers, a list by task each (episodes).
    - `figures() -> dict[str, Tensor]`: numbers of the walk, [T] each, that the family's `records` log (`leap.records`).
    - `keep() -> dict[str, Tensor]` and `take_up(kept)`: for tasks that sample from a state of their own (environments,
      generators), what they need to go on from after the step drawn last, which drawn again must be the same. Tasks
      without them are taken to sample from (seed, step) alone. `remember()`, where there is one, announces that a walk
      will be kept. See `leap.resumption`.
    - `once: str`: why a batch cannot be drawn again, where it cannot; learners that go back over their walk are refused
      with it before the first step.
    - `heads: Tensor [T]` and `head_count: int`: which of joint finetuning's persistent heads each task uses, and how
      many there are in all; without them task t of T uses head t.
    """

    def sample(self, theta: Tensor, step: int) -> Any:
        """The batch of inner step `step` for all tasks; theta [T, n] is what reinforcement learning acts with.

        Called again with the same step it must return the same batch where a learner recomputes the walk (MAML,
        Leap with the exact Jacobian).
        """

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of one task at theta [n] on its part of the batch, and named scalars worth recording (may be empty)."""


class End:
    """The end of the walk: both ends of it, and on demand what lies beyond.

    Attributes:
        theta0: theta^0, [T, m].
        theta: theta^K, [T, m].
    """

    def __init__(self, tasks: TaskBatch, theta0: Tensor, theta: Tensor, record: adjoint.Record, shared: int) -> None:
        self._tasks, self._full, self._record, self._shared = tasks, theta, record, shared
        self.theta0, self.theta = theta0[:, :shared], theta[:, :shared]

    @cached_property
    def _beyond(self) -> tuple[Tensor, dict[str, Tensor]]:
        batch = self._tasks.sample(self._full, self._record.steps)
        with torch.no_grad():
            return evaluate(self._tasks.loss, self._full, batch, self._record.execution)

    @property
    def loss(self) -> Tensor:
        """f(theta^K) [T] on the training batch that step K would use: one extra forward pass."""
        return self._beyond[0]

    @property
    def aux(self) -> Mapping[str, Tensor]:
        """What that loss recorded, [T] each."""
        return self._beyond[1]

    @cached_property
    def _query(self) -> tuple[Tensor, Tensor]:
        draw = getattr(self._tasks, "query", self._tasks.sample)
        batch = draw(self._full, self._record.steps)
        loss, _, grad = loss_and_gradient(self._tasks.loss, self._full, batch, self._record.execution)
        return loss, grad

    @property
    def query_loss(self) -> Tensor:
        """Loss [T] at theta^K on the query batch."""
        return self._query[0]

    @property
    def query_grad(self) -> Tensor:
        """Gradient [T, m] of the query loss at theta^K."""
        return self._query[1][:, : self._shared]

    def pull_back_query(self) -> Tensor:
        """Gradient [T, m + e] of the query loss with respect to theta^0 and the update's own e parameters."""
        return self._pull_back(self._query[1], {})

    def pull_back(self, along: Mapping[int, Tensor]) -> Tensor:
        r"""`sum_i J^i(theta^0)^T v_i` [T, m + e] with the exact Jacobians `J^i = d theta^i / d theta^0`; v_i [T, m]."""
        width = self._full.shape[1] - self._shared
        padded = {i: torch.nn.functional.pad(v, (0, width)) for i, v in along.items()}
        return self._pull_back(torch.zeros_like(self._full), padded)

    def _pull_back(self, last: Tensor, along: Mapping[int, Tensor]) -> Tensor:
        theta, extra = adjoint.pull_back(self._record, last, along)
        return torch.cat([theta[:, : self._shared], extra], dim=1)


class Fold(NamedTuple):
    """A meta-learner or a measurement: three functions over the walk.

    Attributes:
        start: `theta^0 [T, m] -> state`.
        step: `(state, Step) -> state`.
        finish: `(state, End) -> Tensor`, a meta-gradient [T, m (+ e)] to descend, or a measurement [T].
        inner: The learner's own change of the inner update, given the layout.
        extend: Initial values of the learner's meta-parameters beyond theta: `(theta [..., n], layout, tasks in all)
            -> extra [..., e]`. They stand behind theta in the same vector, and theta alone is what is handed on.
        view: The learner's own view of tasks and number of steps (finetuning walks one joint task).
        records: Ask the walk to keep what `End.pull_back` needs.
        visits: How the learner visits tasks one after another, where it keeps parameters for each (`leap.visits`).
    """

    start: Callable[[Tensor], Any]
    step: Callable[[Any, Step], Any]
    finish: Callable[[Any, End], Tensor]
    inner: Callable[[Optimizer, Layout | None], Optimizer] | None = None
    extend: Callable[[Tensor, Layout | None, int], Tensor] | None = None
    view: Callable[[TaskBatch, int, int], tuple[TaskBatch, int]] | None = None
    records: bool = False
    visits: Visits | None = None


class Walk(NamedTuple):
    """What a walk leaves behind."""

    theta: Tensor  # [T, n]  theta^K
    losses: Tensor  # [T, K]  f(theta^i) on the batch of step i
    results: dict[str, Tensor]  # by fold: a meta-gradient [T, m (+ e)] or a measurement [T]
    aux: dict[str, Tensor]  # by name, [T, K]: what the loss recorded


def walk(
    tasks: TaskBatch,
    theta0: Tensor,
    *,
    steps: int,
    optimizer: Optimizer,
    folds: Mapping[str, Fold] | None = None,
    execution: Execution = "batched",
    prepared: Prepared | None = None,
    stop: Callable[[Tensor, int], bool] | None = None,
    keep: Keeper | None = None,
) -> Walk:
    r"""Walk `steps` inner steps on every task and fold over them.

    .. math:: \theta^{i+1} = \text{update}(\theta^i, \nabla f(\theta^i)), \quad i = 0 \dots K-1

    Args:
        tasks: T tasks.
        theta0: The initialization, [n] for all tasks or [T, n]; a learner's extra meta-parameters may stand behind
            it, [n + e], and start from the learner's own values where they do not (n is `tasks.layout.n`; tasks
            without a layout are taken to be given the plain theta).
        steps: K, at least 1.
        optimizer: The inner update, from `leap.optim`.
        folds: What to compute along the way, by name.
        execution: `batched` evaluates all tasks in one `vmap`; `sequential` one task after another, with the
            activations of one task in memory; `compiled` and `captured` are the batched step, compiled or recorded
            as a CUDA graph (`leap.capture`). The numbers agree up to the order of summation.
        prepared: What earlier walks compiled and recorded; without it this walk begins anew.
        stop: Asked after every step, `(theta [1, n], steps taken) -> whether to end the walk here`; for a task that
            walks alone, since K is then its own.
        keep: Keeps the state every so many steps, and gives back what an earlier process kept of this walk, which then
            goes on from there; for `batched` and `sequential`.

    Returns:
        `Walk`. All tensors are detached. Nothing is synchronised with the device, but by `stop`.

    Raises:
        UsageError: a fold that goes back over the walk (`records`), and tasks whose batches come only once.
        ValueError, TypeError: steps below 1, a theta0 that is not a float tensor [n] or [T, n], two folds that both
            change the inner update, `stop` for tasks that walk together, `keep` for steps that are recorded.

    Example:
        >>> from leap import learners, optim
        >>> class Bowl:                                     # f(theta) = |theta|^2 / 2
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return theta.square().sum() / 2, {}
        >>> result = walk(Bowl(), torch.ones(2), steps=3, optimizer=optim.sgd(0.5), folds={"r": learners.reptile()})
        >>> result.theta, result.results["r"]
        (tensor([[0.1250, 0.1250]]), tensor([[0.8750, 0.8750]]))
    """
    going = paces(
        tasks, theta0, steps=steps, optimizer=optimizer, folds=folds, execution=execution, prepared=prepared, stop=stop,
        keep=keep,
    )  # fmt: skip
    while True:
        try:
            next(going)
        except StopIteration as ended:
            found: Walk = ended.value
            return found


def paces(
    tasks: TaskBatch,
    theta0: Tensor,
    *,
    steps: int,
    optimizer: Optimizer,
    folds: Mapping[str, Fold] | None = None,
    execution: Execution = "batched",
    prepared: Prepared | None = None,
    stop: Callable[[Tensor, int], bool] | None = None,
    keep: Keeper | None = None,
) -> Generator[int, None, Walk]:
    """`walk`, paused after every step, so that walks can take turns: yields how many were taken, returns the `Walk`.

    Arguments and errors are `walk`'s. Walks that take turns need a `prepared` each.
    """
    folds = dict(folds or {})
    check_arguments(theta0, steps, folds, execution)
    back, once = any(fold.records for fold in folds.values()), getattr(tasks, "once", None)
    if back and once:
        raise UsageError(once)
    plan = course(tasks, theta0.detach(), steps, optimizer, folds)
    theta, extra = plan.theta0[:, : plan.n].clone(), plan.theta0[:, plan.n :].clone()
    # Beyond the steps themselves (queries, adjoints) the prepared ways are the batched one.
    elsewhere: Execution = "sequential" if execution == "sequential" else "batched"
    record = adjoint.Record(plan.tasks, plan.optimizer, elsewhere, plan.steps, theta, extra, back)
    if stop is not None and len(theta) != 1:
        raise ValueError(f"a walk that may stop early has one task, got {len(theta)}; walk tasks one at a time")
    stepper = _stepper(record, folds, plan.shared, execution, prepared)
    kept = None if keep is None else keep.follow(record, stepper, tasks, stop)
    return _paces(record, folds, plan.shared, stepper, stop, kept)


def _paces(
    record: adjoint.Record,
    folds: Mapping[str, Fold],
    m: int,
    stepper: Stepper,
    stop: Callable[[Tensor, int], bool] | None,
    kept: Following | None,
) -> Generator[int, None, Walk]:
    left = kept.curves if kept else Curves()
    for i in range(kept.first if kept else 0, record.steps):
        record.visit(i, *stepper.point())
        with kept.doubted(i) if kept else nullcontext():
            loss, aux = stepper.take(i, record.tasks.sample(stepper.theta, i))  # no name: a batch is let go at once
        left.add(loss, aux)
        if stop is not None and stop(stepper.theta, i + 1):
            record.steps = i + 1
            break
        if kept is not None and kept.due(i + 1):
            kept.keep(i + 1)
        yield i + 1
    theta, states = stepper.finish()
    end = End(record.tasks, record.theta0, theta, record, m)
    with torch.no_grad(), kept.doubted(record.steps) if kept else nullcontext():
        results = {name: fold.finish(states[name], end) for name, fold in folds.items()}
    losses, recorded = left.whole()
    return Walk(theta, losses, results, recorded)


def _stepper(
    record: adjoint.Record, folds: Mapping[str, Fold], m: int, execution: Execution, prepared: Prepared | None
) -> Stepper:
    if execution in ("batched", "sequential"):
        return Steps(record, folds, m, lambda theta, b: loss_and_gradient(record.tasks.loss, theta, b, execution))
    from leap.capture import Prepared  # it imports this module

    return (prepared or Prepared()).stepper(record, folds, m, execution)
