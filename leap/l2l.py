"""learn2learn's own algorithms inside our training loop, `Arnold et al. 2020 <https://arxiv.org/abs/2008.12284>`_.

`walk` has the signature and the result of `leap.walk.walk`; MAML, FOMAML, ANIL and Meta-SGD are learn2learn's, tasks
and folds are ours. learn2learn is a companion that need not be installed: nothing here imports it before it is used.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import ModuleType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from leap.batching import Execution, evaluate, tasks_from
from leap.course import Course, check_arguments, course
from leap.errors import UsageError
from leap.layout import Layout
from leap.optim import Optimizer
from leap.walk import End, Fold, Step, TaskBatch, Walk

# torch forgets the operators of a library that is collected, so it lives as long as the process.
_operators: list[torch.library.Library] = []


class NotInstalled(UsageError, ImportError):
    """learn2learn is asked for and cannot be imported."""


def load() -> ModuleType:
    """The module `learn2learn`, also where torchvision's compiled operators do not match torch.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        with _quietly():
            _import_torchvision()
            import learn2learn
    except ImportError as error:
        raise NotInstalled(
            f"learn2learn cannot be imported ({error}). Install it from the checkout: "
            "pip install --no-deps -r requirements-learn2learn.txt, or use learner.engine: native"
        ) from error
    return cast(ModuleType, learn2learn)


def walk(
    tasks: TaskBatch,
    theta0: Tensor,
    *,
    steps: int,
    optimizer: Optimizer,
    folds: Mapping[str, Fold] | None = None,
    execution: Execution = "batched",
) -> Walk:
    """Walk `steps` inner steps with learn2learn's MAML or MetaSGD; arguments and result as `leap.walk.walk`.

    Measurements fold over the walk as they do there, and a learner's result has the same shape and value. Tasks walk
    one after another whatever `execution` says: learn2learn has no other way. A second-order walk keeps the graph of
    all K steps, and `sample` sees theta^0 at every step: tasks that act with theta need the native walk.

    Raises:
        UsageError: learn2learn is missing; the inner optimizer is not plain SGD; a learner other than `maml`, `fomaml`,
            `anil` and `meta_sgd`.
        ValueError, TypeError: as `leap.walk.walk`.
    """
    folds = dict(folds or {})
    check_arguments(theta0, steps, folds, execution)
    for name, fold in folds.items():
        if fold.view:
            raise _other_learner(name)
    plan = course(tasks, theta0.detach(), steps, optimizer, folds)
    algorithm = _Algorithm(load(), plan, first_order=not any(fold.records for fold in folds.values()))
    batches = _Batches(plan)
    with torch.enable_grad(), _quietly():
        walks = [_walk_one(algorithm, batches, t, folds) for t in range(len(plan.theta0))]
    return Walk(
        torch.cat([own.theta for own in walks]),
        torch.cat([own.losses for own in walks]),
        {name: torch.cat([own.results[name] for own in walks]) for name in folds},
        {name: torch.cat([own.aux[name] for own in walks]) for name in walks[0].aux},
    )


class _Vector(nn.Module):
    """Theta as learn2learn wants it: a module. Named parameters walk; the part before them stays put."""

    def __init__(self, still: Tensor, walking: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.still = still  # an attribute, not a parameter: learn2learn adapts every parameter
        for name, value in walking.items():
            self.register_parameter("theta/" + name.replace(".", "/"), nn.Parameter(value.clone()))

    def forward(self) -> Tensor:
        return torch.cat([self.still, *(piece.reshape(-1) for piece in self.parameters())])


class _Algorithm:
    """Which of learn2learn's algorithms a walk is, and one of them for each task."""

    def __init__(self, module: ModuleType, plan: Course, first_order: bool) -> None:
        self._algorithms, self.plan, self.first_order = module.algorithms, plan, first_order
        self._layout: Layout | None = getattr(plan.tasks, "layout", None)
        self._rate, self._still = _plain_sgd(plan)

    def of_task(self, t: int) -> tuple[Any, list[Tensor]]:
        """The algorithm at theta^0 of task t, and the tensors that its meta-gradient [n + e] belongs to."""
        theta, extra = self.plan.theta0[t, : self.plan.n], self.plan.theta0[t, self.plan.n :]
        vector = _Vector(theta[: self._still].clone().requires_grad_(), self._pieces(theta))
        inputs = [vector.still, *vector.parameters()]
        if self._rate is not None:
            return self._algorithms.MAML(vector, lr=self._rate, first_order=self.first_order), inputs
        rates = nn.ParameterList(nn.Parameter(piece.clone()) for piece in self._pieces(extra).values())
        learner = self._algorithms.MetaSGD(vector, lrs=rates, first_order=self.first_order)
        return learner, [*inputs, *rates]

    def _pieces(self, vector: Tensor) -> dict[str, Tensor]:
        """What walks of a vector [n], parameter by parameter."""
        named = self._layout.unflatten(vector) if self._layout else {"all": vector}
        pieces, end = {}, 0
        for name, value in named.items():
            end += value.numel()
            if end > self._still:  # the cut may go through a parameter
                pieces[name] = value if end - value.numel() >= self._still else value.reshape(-1)[self._still - end :]
        return pieces


class _Batches:
    """The batches of all tasks, drawn once: here a task walks alone, while `sample` serves all at once."""

    def __init__(self, plan: Course) -> None:
        self._tasks, self._theta = plan.tasks, plan.theta0[:, : plan.n]
        self.steps = plan.steps
        self._drawn: dict[int, Any] = {}

    def sample(self, step: int, t: int) -> Any:
        if step not in self._drawn:
            self._drawn[step] = self._tasks.sample(self._theta, step)
        return tasks_from(self._drawn[step], t, t + 1)

    def query(self, t: int) -> Any:
        return tasks_from(self._query, t, t + 1) if hasattr(self._tasks, "query") else self.sample(self.steps, t)

    @cached_property
    def _query(self) -> Any:
        return self._tasks.query(self._theta, self.steps)  # type: ignore[attr-defined]  # an optional member


class _End:
    """What `leap.walk.End` offers a fold, by learn2learn; remembers whether it was asked for a meta-gradient."""

    def __init__(self, algorithm: _Algorithm, batches: _Batches, t: int, learner: Any, inputs: list[Tensor]) -> None:
        self._algorithm, self._batches, self._t, self._learner, self._inputs = algorithm, batches, t, learner, inputs
        self._loss, self._shared = algorithm.plan.tasks.loss, algorithm.plan.shared
        self.theta0 = algorithm.plan.theta0[t : t + 1, : self._shared]
        self._point = learner()[None]  # theta^K, with its graph
        self.theta = self._point.detach()[:, : self._shared]
        self.asked = False

    @cached_property
    def _beyond(self) -> tuple[Tensor, dict[str, Tensor]]:
        batch = self._batches.sample(self._batches.steps, self._t)
        with torch.no_grad():
            return evaluate(self._loss, self._point.detach(), batch, "sequential")

    @property
    def loss(self) -> Tensor:
        return self._beyond[0]

    @property
    def aux(self) -> Mapping[str, Tensor]:
        return self._beyond[1]

    @cached_property
    def _query(self) -> Tensor:
        with torch.enable_grad():
            return evaluate(self._loss, self._point, self._batches.query(self._t), "sequential")[0][0]

    @property
    def query_loss(self) -> Tensor:
        return self._query.detach()[None]

    @property
    def query_grad(self) -> Tensor:
        # first order: learn2learn's clones pass the gradient at theta^K on to theta^0 as it is
        return self._gradient(self._inputs if self._algorithm.first_order else [self._point])[:, : self._shared]

    def pull_back_query(self) -> Tensor:
        n, whole = self._algorithm.plan.n, self._gradient(self._inputs)
        return torch.cat([whole[:, : self._shared], whole[:, n:]], dim=1)

    def pull_back(self, along: Mapping[int, Tensor]) -> Tensor:
        raise UsageError("learn2learn has no exact Jacobian of a whole path; use learner.engine: native")

    def _gradient(self, inputs: list[Tensor]) -> Tensor:
        self.asked = True
        parts = torch.autograd.grad(self._query, inputs, retain_graph=True, materialize_grads=True)
        return torch.cat([part.reshape(-1) for part in parts])[None]


def _walk_one(algorithm: _Algorithm, batches: _Batches, t: int, folds: Mapping[str, Fold]) -> Walk:
    """The walk of task t; the first axis of everything is 1."""
    start, inputs = algorithm.of_task(t)
    learner, m, task = start.clone(), algorithm.plan.shared, algorithm.plan.tasks
    theta = learner().detach()[None]
    states = {name: fold.start(theta[:, :m]) for name, fold in folds.items()}
    losses, recorded = [], []
    for i in range(algorithm.plan.steps):
        moved = _adapt(learner, task, batches.sample(i, t))
        theta_next = learner().detach()[None]
        step = Step(theta[:, :m], moved.loss, moved.grad[:, :m], theta_next[:, :m], moved.aux)
        with torch.no_grad():
            states = {name: fold.step(states[name], step) for name, fold in folds.items()}
        theta = theta_next
        losses.append(moved.loss)
        recorded.append(moved.aux)
    end = _End(algorithm, batches, t, learner, inputs)
    results = {name: _finish(name, fold, states[name], end) for name, fold in folds.items()}
    aux = {name: torch.stack([own[name] for own in recorded], dim=1) for name in recorded[0]}
    return Walk(theta, torch.stack(losses, dim=1), results, aux)


class _Moved(NamedTuple):
    loss: Tensor  # [1]
    grad: Tensor  # [1, n]
    aux: dict[str, Tensor]  # [1] each


def _adapt(learner: Any, tasks: TaskBatch, batch: Any) -> _Moved:
    """One inner step of learn2learn's; the gradient that it takes is overheard on its way to the parameters."""
    theta, overheard = learner(), cast("list[Tensor]", [])
    hook = theta.register_hook(overheard.append)
    loss, aux = evaluate(tasks.loss, theta[None], batch, "sequential")
    learner.adapt(loss.sum())
    hook.remove()  # a second-order backward comes by here again
    return _Moved(loss.detach(), overheard[0].detach()[None], {name: value.detach() for name, value in aux.items()})


def _finish(name: str, fold: Fold, state: Any, end: _End) -> Tensor:
    end.asked = False
    with torch.no_grad():
        result = fold.finish(state, cast(End, end)).detach()
    if result.dim() > 1 and not end.asked:
        raise _other_learner(name)
    return result


def _other_learner(name: str) -> UsageError:
    return UsageError(
        f"learn2learn has maml, fomaml, anil and meta_sgd; the fold {name!r} is another learner. "
        "Use learner.engine: native"
    )


def _plain_sgd(plan: Course) -> tuple[float | None, int]:
    """The learning rate (None: learned rates, Meta-SGD's) and the length of the part that the update leaves in place.

    An optimizer is a function, so what it does is asked of it, at points where every other kind gives itself away.
    """
    n, learned = plan.n, plan.theta0.shape[1] > plan.n
    extra = torch.linspace(0.5, 1.5, plan.theta0.shape[1] - n, dtype=torch.float64)[None]
    zeros, ones = torch.zeros(1, n, dtype=torch.float64), torch.ones(1, n, dtype=torch.float64)
    state = plan.optimizer.init(zeros, extra)
    if not learned and state:
        raise _other_optimizer("an optimizer with a state (momentum, Adam, RMSProp)")
    rates = -plan.optimizer.update(state, ones, zeros, 0)[0]
    for i in range(plan.steps):
        if not torch.equal(plan.optimizer.update(state, ones, zeros, i)[0], -rates):
            raise _other_optimizer(f"a schedule (the learning rate of step {i} is not that of step 0)")
    if not torch.equal(plan.optimizer.update(state, zeros, ones, 0)[0], ones):
        raise _other_optimizer("weight decay")
    if not torch.allclose(plan.optimizer.update(state, 3 * ones, ones, 0)[0], ones - 3 * rates, rtol=1e-12):
        raise _other_optimizer("an update that is not proportional to the gradient")
    if learned and torch.equal(rates, extra):
        return None, 0
    rate = rates[0, -1].item()
    still = int((rates[0] != rate).sum())
    if learned or bool((rates[0, :still] != 0).any()) or bool((rates[0, still:] != rate).any()):
        raise _other_optimizer("learning rates that differ between parameters")
    return rate, still


def _other_optimizer(what: str) -> UsageError:
    return UsageError(
        f"learn2learn takes plain SGD inner steps only, got {what}. Set inner to {{name: sgd, lr: ...}}, "
        "or use learner.engine: native"
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings of code that nobody maintains, which are not the caller's to act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _import_torchvision() -> None:
    """Import what learn2learn imports, and mend what keeps it from it.

    Compiled against another build of torch, torchvision's library does not load, and its Python part then fails on the
    first operator it describes. Declared here, the operators can be described; learn2learn calls none of them.
    """
    with contextlib.suppress(ImportError):
        from gym_notices import notices

        notices.notices.clear()  # gym prints four lines to stderr at every import otherwise
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(operators)
        import torchvision  # noqa: F401
