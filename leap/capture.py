"""Steps of a walk recorded or compiled once and used again, from step to step and from walk to walk.

A batched step of T small networks is hundreds of short kernels, and a GPU waits for Python between them. `captured`
records gradient, inner update and folds as CUDA graphs over tensors that stay where they are: each step copies its
batch in and replays. `compiled` leaves the fusing of the gradient to `torch.compile`.

What is recorded is a pure function of (theta, batch) with the network it belongs to. It serves later walks whose tasks
have the same kind of loss and batches, and is compared with the loss itself at the 2nd, 4th, 8th, ... walk; tasks whose
losses turn out to differ are prepared anew in every walk. On a CPU a replay calls the Python function that would have
been recorded, with the same static tensors and the same numbers: everything but the graph is the same.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from leap import adjoint
from leap.batching import Execution, Loss, loss_and_gradient, traceable_gradient
from leap.optim import State
from leap.recording import Recording
from leap.rehearsal import NotRecordable, outline
from leap.steps import Gradient, Stepper, Steps
from leap.walk import Fold

KEPT = 4  # recordings at a time: each holds the activations of a step
log = logging.getLogger(__name__)


class Prepared:
    """What walks compiled and recorded, for those that come after; one for a run.

    Args:
        backend: Of `torch.compile`; None: Inductor, which on a GPU makes CUDA graphs of its own.

    Attributes:
        notes: What could not be prepared and why, once each; also logged.
    """

    def __init__(self, backend: str | Callable[..., Any] | None = None) -> None:
        self.notes: list[str] = []
        self._backend = backend
        self._made: list[tuple[Any, Any]] = []
        self._walks: dict[str, int] = {}
        self._differing: set[str] = set()
        self._refused: dict[str, str] = {}

    def stepper(self, record: adjoint.Record, folds: Mapping[str, Fold], m: int, execution: Execution) -> Stepper:
        """Steps of one walk; batched ones where the others cannot be had."""
        prepare = self._compiled if execution == "compiled" else self._captured

        def begin(batch: Any) -> Stepper:
            try:
                return prepare(record, folds, m, batch)
            except (RuntimeError, NotRecordable) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                self.note(f"steps are batched, not {execution}: {_first_line(error)}")
            loss = record.tasks.loss
            return Steps(record, folds, m, lambda theta, own: loss_and_gradient(loss, theta, own, "batched"))

        return _Awaiting(record, begin)

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)
            log.warning(text)

    def _compiled(self, record: adjoint.Record, folds: Mapping[str, Fold], m: int, batch: Any) -> Stepper:
        loss, theta = record.tasks.loss, record.theta0

        def agrees(gradient: Gradient) -> bool:
            return _agree(gradient(theta, batch), loss_and_gradient(loss, theta, batch, "batched"))

        def make() -> Gradient:
            gradient = compiled_gradient(loss, theta.device, batch, self._backend)
            gradient(theta, batch)  # the first call compiles, and may fail
            return gradient

        key = ("compiled", _kind(loss), outline((theta, batch), numbers=True))
        gradient: Gradient = self._find(key, agrees, make)
        return Steps(record, folds, m, gradient)

    def _captured(self, record: adjoint.Record, folds: Mapping[str, Fold], m: int, batch: Any) -> Stepper:
        loss = record.tasks.loss

        def agrees(found: Recording) -> bool:
            found.load(record, folds)
            return _agree(found.gradient(batch), loss_and_gradient(loss, record.theta0, batch, "batched"))

        rule = [signature(record.optimizer.init), signature(record.optimizer.update)]
        own = [(name, signature(fold.start), signature(fold.step)) for name, fold in folds.items()]
        sizes = outline((record.theta0, record.extra, batch), numbers=True)
        key = ("captured", _kind(loss), sizes, record.steps, m, rule, own)
        found: Recording = self._find(key, agrees, lambda: Recording(record, folds, m, batch, self.note))
        found.load(record, folds)
        return found

    def _find(self, key: Any, agrees: Callable[[Any], bool], make: Callable[[], Any]) -> Any:
        """What was made under this key and still agrees, else what is made now."""
        name = repr(key)
        if name in self._refused:
            raise NotRecordable(self._refused[name])
        count = self._walks[name] = self._walks.get(name, 0) + 1
        found = next((thing for known, thing in self._made if known == key), None)
        if found is not None and name not in self._differing:
            if count & (count - 1) or agrees(found):  # a comparison at powers of two: it waits for the device
                return found
            self._differing.add(name)
            self.note("the losses of two meta-batches differ on the same data, so steps are prepared in every walk")
        self._made = [(known, thing) for known, thing in self._made if known != key][1 - KEPT :]
        try:
            thing = make()
        except (RuntimeError, NotRecordable) as error:
            self._refused[name] = _first_line(error)  # the next walk need not fail again
            raise
        self._made.append((key, thing))
        return thing


class _Awaiting:
    """A walk whose steps are looked up at step 0, when a batch can be seen."""

    def __init__(self, record: adjoint.Record, begin: Callable[[Any], Stepper]) -> None:
        self._record, self._begin = record, begin
        self._steps: Stepper | None = None

    @property
    def theta(self) -> Tensor:
        """As in `Stepper`."""
        return self._record.theta0 if self._steps is None else self._steps.theta

    def point(self) -> tuple[Tensor, State]:
        """As in `Stepper`."""
        if self._steps is None:
            return self.theta, self._record.optimizer.init(self.theta, self._record.extra)
        return self._steps.point()

    def take(self, i: int, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """As in `Stepper`."""
        if self._steps is None:
            self._steps = self._begin(batch)
        return self._steps.take(i, batch)

    def finish(self) -> tuple[Tensor, dict[str, Any]]:
        """As in `Stepper`."""
        assert self._steps is not None  # a walk has at least one step
        return self._steps.finish()


def compiled_gradient(
    loss: Loss, device: torch.device, batch: Any, backend: str | Callable[..., Any] | None = None
) -> Gradient:
    """The batched gradient of a loss on batches like this one, compiled at its first call.

    Example:
        >>> bowl = lambda theta, batch: ((theta - batch).square().sum() / 2, {})
        >>> where = torch.tensor([[1.0, 0.0]])
        >>> compiled_gradient(bowl, where.device, where, "eager")(torch.zeros(1, 2), where)[2]
        tensor([[-1., 0.]])
    """
    options: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {}
    _load_inductor()
    traceable = traceable_gradient(loss, batch)
    # Torch counts what it compiled by code object, and gives up at the eighth; every gradient has one of its own.
    own_code = types.FunctionType(
        traceable.__code__.replace(), traceable.__globals__, traceable.__name__, None, traceable.__closure__
    )
    compiled = torch.compile(own_code, dynamic=False, **({"backend": backend} if backend else options))

    def gradient(theta: Tensor, own: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            losses, aux, grad = compiled(theta, own)
        # the next call overwrites what a graph returned
        return losses.clone(), {name: value.clone() for name, value in aux.items()}, grad.clone()

    return gradient


def _load_inductor() -> None:
    """Inductor, when it is first loaded, warns of torch's own use of scripting; any backend may load it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        importlib.import_module("torch._inductor.compile_fx")


def signature(value: Any, within: tuple[int, ...] = ()) -> Any:
    """What makes two functions the same: their code and what they close over, all the way down.

    Objects other than functions, numbers, text and tuples of these are the same if they are one object; whoever keeps a
    signature must keep the object too.

    Example:
        >>> from leap.metrics.path import path_length
        >>> signature(path_length().step) == signature(path_length().step)
        True
        >>> signature(path_length().step) == signature(path_length(loss_coordinate=False).step)
        False
    """
    if id(value) in within:
        return "itself"
    inner = (*within, id(value))
    if inspect.ismethod(value):
        return "method", value.__func__.__code__, id(value.__self__)
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = (value.__defaults__, value.__kwdefaults__, cells)
        return "function", value.__code__, [_signatures(part, inner) for part in parts]
    if value is None or isinstance(value, int | float | str):
        return type(value), value
    if isinstance(value, tuple | list | dict):
        return type(value), _signatures(value, inner)
    return "object", id(value)


def _signatures(values: Iterable[Any] | Mapping[str, Any] | None, within: tuple[int, ...]) -> Any:
    if isinstance(values, Mapping):
        return [(name, signature(value, within)) for name, value in values.items()]
    return [signature(value, within) for value in values or ()]


def _kind(loss: Loss) -> Any:
    """Which losses are taken for one function: methods of one class, whatever their tasks."""
    if inspect.ismethod(loss):
        return "method", loss.__func__.__code__, type(loss.__self__)
    return signature(loss)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _agree(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether losses and gradients are those expected, up to the order of summation."""
    pairs = [(found[0], expected[0]), (found[2], expected[2])]
    share = 1e-9 if expected[0].dtype == torch.float64 else 1e-2
    return all(
        torch.allclose(one, other, rtol=share, atol=share * float(other.abs().max()), equal_nan=True)
        for one, other in pairs
    )
