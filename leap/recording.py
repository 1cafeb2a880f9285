"""One step of a walk over tensors that stay where they are, recorded so that it can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from leap import adjoint
from leap.batching import loss_and_gradient, map_batch
from leap.optim import State
from leap.rehearsal import Lifted, NotRecordable, Rehearsal, filled, leaves, on_meta, outline, rehearse
from leap.walk import Fold, Step

WARM_UP = 3  # runs before a recording, which torch asks for: libraries choose kernels and allocate
Note = Callable[[str], None]


class Recording:
    """A step over static tensors: gradient and update in one graph, every fold in one of its own.

    Folds are apart because their first step often differs from the others: before it there is no segment. Until a fold
    settles, and where it keeps more at every step, Python calls it.
    """

    def __init__(self, record: adjoint.Record, folds: Mapping[str, Fold], m: int, batch: Any, note: Note) -> None:
        self._tasks, self._optimizer, self._note, self._m = record.tasks, record.optimizer, note, m
        self._held = folds  # signatures name what folds close over by its id
        self.theta, self._before = record.theta0.clone(), record.theta0.clone()
        self._state = tuple(s.clone() for s in self._optimizer.init(record.theta0, record.extra))
        self._batch = filled(batch, [leaf.clone() for leaf in leaves(batch)])
        self._outline = outline(batch, numbers=True)
        found = loss_and_gradient(self._tasks.loss, self.theta, self._batch, "batched")
        self._found = filled(found, [leaf.clone() for leaf in leaves(found)])  # a loss may record a view of theta
        self._rule = self._rehearse_update(record.steps)
        moved = (self.theta, self._before, *self._state)
        self._move = Part(self._gradient_and_update, self._rule, moved)
        self._folds = {name: _FoldSteps(name, fold, self._step(), record.steps, note) for name, fold in folds.items()}

    def load(self, record: adjoint.Record, folds: Mapping[str, Fold]) -> None:
        """Stand at the start of a walk."""
        self._keeps = record.keeps
        put((self.theta, *self._state), (record.theta0, *self._optimizer.init(record.theta0, record.extra)))
        for name, steps in self._folds.items():
            steps.begin(folds[name].start(record.theta0[:, : self._m]))

    def point(self) -> tuple[Tensor, State]:
        """As in `leap.walk.Stepper`."""
        if not self._keeps:
            return self.theta, self._state
        return self.theta.clone(), tuple(s.clone() for s in self._state)

    def gradient(self, batch: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Losses, what they recorded, and gradients at theta by replay of step 0; the walk moves on."""
        put(leaves(self._batch), leaves(batch))
        self._move.replay(0)
        return self._found

    @torch.no_grad()
    def take(self, i: int, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """As in `leap.walk.Stepper`."""
        if outline(batch, numbers=True) == self._outline:
            put(leaves(self._batch), leaves(batch))
            self._move.replay(i)
            if self._rule is None:
                self._update(i)
        else:
            self._note("batches are not all of one shape; steps on others than the first are not replayed")
            self._before.copy_(self.theta)
            put(leaves(self._found), leaves(loss_and_gradient(self._tasks.loss, self._before, batch, "batched")))
            self._update(i)
        for fold in self._folds.values():
            fold.take(i)
        loss, aux, _ = self._found
        return loss.clone(), {name: value.clone() for name, value in aux.items()}

    def finish(self) -> tuple[Tensor, dict[str, Any]]:
        """As in `leap.walk.Stepper`."""
        return self.theta.clone(), {name: fold.state() for name, fold in self._folds.items()}

    def _step(self) -> Step:
        """The step that was taken last; overwritten by the next one."""
        loss, aux, grad = self._found
        return Step(self._before[:, : self._m], loss, grad[:, : self._m], self.theta[:, : self._m], aux)

    def _gradient_and_update(self, slots: Tensor) -> None:
        self._before.copy_(self.theta)
        put(leaves(self._found), leaves(loss_and_gradient(self._tasks.loss, self._before, self._batch, "batched")))
        if self._rule is not None:
            with Lifted(self._rule, slots):
                moved = self._optimizer.update(self._state, self._found[2], self._before, 0)
            put((self.theta, *self._state), (moved[0], *moved[1]))

    def _update(self, i: int) -> None:
        """The update as Python takes it."""
        theta, state = self._optimizer.update(self._state, self._found[2], self._before, i)
        put((self.theta, *self._state), (theta, *state))

    def _rehearse_update(self, steps: int) -> Rehearsal | None:
        theta, grad = on_meta(self._before), on_meta(self._found[2])
        try:
            found = rehearse(
                lambda state, i: self._optimizer.update(state, grad, theta, i)[1], on_meta(self._state), steps
            )
            if found.first > 0:
                raise NotRecordable("its first steps differ from the others")
        except NotRecordable as reason:
            self._note(f"the inner update is not captured: {reason}")
            return None
        return found


class _FoldSteps:
    """A fold's steps: by replay once they are alike."""

    def __init__(self, name: str, fold: Fold, step: Step, steps: int, note: Note) -> None:
        self._fold, self._step, self._name, self._note = fold, step, name, note
        self._static: list[Tensor] = []
        self._part: Part | None = None
        self._rehearsal = self._rehearse(steps)
        self._next = 0

    def begin(self, state: Any) -> None:
        """Stand at the start of a walk."""
        self._state, self._next = state, 0

    def take(self, i: int) -> None:
        """Take in step i."""
        self._next = i + 1
        if self._rehearsal is not None and i == self._rehearsal.first:
            self._settle()
        if self._part is None or self._rehearsal is None or i < self._rehearsal.first:
            # a state may keep the step's tensors, and the next step overwrites the static ones
            self._state = self._fold.step(self._state, map_batch(torch.clone, self._step))
            return
        self._part.replay(i)

    def _settle(self) -> None:
        """Go on from here by replay, where it can be had."""
        if self._part is not None:
            put(self._static, leaves(self._state))
            return
        self._static = [leaf.clone() for leaf in leaves(self._state)]
        try:
            self._part = Part(self._replayed, self._rehearsal, self._static)
        except (RuntimeError, NotRecordable) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self._note(f"the fold {self._name!r} is not captured: {error}")
            self._rehearsal = None

    def state(self) -> Any:
        """The fold's state, to be kept."""
        if self._rehearsal is None or self._next <= self._rehearsal.first:
            return self._state
        return filled(self._rehearsal.states[self._next], [static.clone() for static in self._static])

    def _replayed(self, slots: Tensor) -> None:
        assert self._rehearsal is not None
        before = filled(self._rehearsal.states[self._rehearsal.first], self._static)
        with Lifted(self._rehearsal, slots):
            after = self._fold.step(before, self._step)
        put(self._static, leaves(after))

    def _rehearse(self, steps: int) -> Rehearsal | None:
        step = on_meta(self._step)
        try:
            return rehearse(lambda state, i: self._fold.step(state, step), self._fold.start(step.theta), steps)
        except NotRecordable as reason:
            if steps > 2:  # in the first steps most folds are still different
                self._note(f"the fold {self._name!r} is not captured: {reason}")
            return None


class Part:
    """A part of a step that can be replayed, with the numbers of any step.

    Args:
        body: What to record; it reads and writes static tensors, and takes numbers that change from step to step from
            the tensor it is given, [S].
        rehearsal: Knows those numbers; None: there are none.
        written: The static tensors that it changes; they keep their values through the recording.
    """

    def __init__(self, body: Callable[[Tensor], None], rehearsal: Rehearsal | None, written: Sequence[Tensor]) -> None:
        device = written[0].device if written else torch.device("cpu")
        numbers = torch.zeros(1, 0, dtype=torch.float64) if rehearsal is None else rehearsal.numbers
        self._table = numbers.to(device)
        self._slots = self._table[0].clone()
        kept = [tensor.clone() for tensor in written]
        with torch.no_grad():
            self._run = recorded(lambda: body(self._slots), device)
            put(written, kept)

    def replay(self, i: int) -> None:
        """Run it with the numbers of step i."""
        if self._slots.numel():
            self._slots.copy_(self._table[i])
        with torch.no_grad():
            self._run()


def recorded(body: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A function that does what `body` does to tensors without running it: a CUDA graph; on other devices `body`."""
    if device.type != "cuda":
        return body
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                body()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            body()

    return graph.replay


def put(static: Sequence[Tensor], fresh: Sequence[Tensor]) -> None:
    """Copy values into tensors that stay where they are, also where the values are views of those tensors.

    Example:
        >>> a, b = torch.tensor([1.0]), torch.tensor([2.0])
        >>> put((a, b), (b.view(1), a.view(1)))
        >>> a, b
        (tensor([2.]), tensor([1.]))
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in static}
    values = [
        value if value is place or value.untyped_storage().data_ptr() not in own else value.clone()
        for place, value in zip(static, fresh, strict=True)
    ]
    for place, value in zip(static, values, strict=True):
        if place is not value:
            place.copy_(value)
