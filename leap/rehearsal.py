"""What Python adds to a step, found out before the step is recorded.

A recorded step is replayed without Python. So whatever Python puts into a step must be known beforehand: numbers (a
schedule's rate, Adam's bias corrections, a fold's counters) and branches. A rehearsal takes all K steps on the meta
device, where tensors have shapes and no values, and notes which operations run with which numbers. Numbers that change
from step to step are then read from a table on the device (`Lifted`); operations that change cannot be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from leap.batching import map_batch

Operation = Callable[..., Any]
aten = torch.ops.aten
# Operations whose second operand may be a number or a tensor without axes, with the same result.
_LIFTABLE = tuple(
    getattr(aten, name).Tensor for name in ("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_")
)  # fmt: skip
_NOTHING = (aten.detach.default, aten.alias.default)  # not computing anything, they come and go with the device


class NotRecordable(Exception):
    """Why a part of a step cannot be replayed."""


class Call(NamedTuple):
    """An operation: what ran, its numbers by position, and everything else about its arguments."""

    operation: Operation
    numbers: Mapping[int, float]
    rest: Any


class Rehearsal(NamedTuple):
    """What all steps have in common from step `first` on.

    Attributes:
        first: The first step that can be replayed.
        calls: The operations of such a step.
        columns: Where in `numbers` a changing number stands, by (call, position).
        numbers: Changing numbers, float64 [K, S]; rows before `first` are zero.
        states: The state before each step and after the last, on the meta device.
    """

    first: int
    calls: Sequence[Call]
    columns: Mapping[tuple[int, int], int]
    numbers: Tensor
    states: Sequence[Any]


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of nested tuples, lists and mappings, in order."""
    found: list[Tensor] = []
    map_batch(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, tree)
    return found


def filled(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """The same tree with other tensors in the places of its own."""
    rest = iter(tensors)
    return map_batch(lambda leaf: next(rest) if isinstance(leaf, Tensor) else leaf, tree)


def outline(tree: Any, *, numbers: bool) -> Any:
    """What a tree must share with another one to take its place: shapes, dtypes, devices; `numbers` too or their types.

    Example:
        >>> outline((torch.zeros(2), 3), numbers=False) == outline((torch.ones(2), 4), numbers=False)
        True
    """

    def outlined(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return ("tensor", tuple(leaf.shape), leaf.dtype, leaf.device)
        return type(leaf) if isinstance(leaf, int | float) and not numbers else leaf

    return map_batch(outlined, tree)


def on_meta(tree: Any) -> Any:
    """The tree with tensors of the same shapes that have no values."""
    return map_batch(lambda leaf: torch.empty_like(leaf, device="meta") if isinstance(leaf, Tensor) else leaf, tree)


def rehearse(advance: Callable[[Any, int], Any], state: Any, steps: int) -> Rehearsal:
    """Take all steps without values.

    Args:
        advance: `(state, i) -> state` of step i; what else it needs it holds itself, on the meta device.
        state: Before step 0, on the meta device.
        steps: K.

    Raises:
        NotRecordable: it looks at values, uses tensors from elsewhere, or does something else at every step.

    Example:
        >>> from leap import optim
        >>> theta, rule = torch.empty(2, 3, device="meta"), optim.sgd(0.5, schedule=optim.cosine(4))
        >>> found = rehearse(lambda state, i: rule.update(state, theta, theta, i)[1], (), 4)
        >>> found.first, found.numbers[:, 0].tolist()[::2]
        (0, [0.5, 0.25])
    """
    states, traces = [state], []
    for i in range(steps):
        trace = _Trace()
        try:
            with torch.no_grad(), trace:
                state = advance(state, i)
        except (RuntimeError, TypeError, ValueError) as error:  # meta tensors have no values to branch on or to read
            raise NotRecordable((str(error).strip().splitlines() or [type(error).__name__])[0]) from error
        states.append(state)
        traces.append(trace.calls)
    first = _settled([outline(s, numbers=False) for s in states], [[(c[0], c[2]) for c in t] for t in traces])
    if first >= steps or first > max(1, steps // 2):
        raise NotRecordable("what it does or keeps changes from step to step")
    columns = _changing(traces[first:])
    numbers = torch.zeros(steps, len(columns), dtype=torch.float64)
    for (call, position), column in columns.items():
        for i in range(first, steps):
            numbers[i, column] = traces[i][call].numbers[position]
    return Rehearsal(first, traces[-1], columns, numbers, states)


def _settled(states: Sequence[Any], operations: Sequence[Any]) -> int:
    """The step from which states look alike and operations are the same."""
    first = len(operations)
    while first > 0 and operations[first - 1] == operations[-1] and states[first - 1] == states[-1]:
        first -= 1
    return first


def _changing(traces: Sequence[Sequence[Call]]) -> dict[tuple[int, int], int]:
    """A column for every number that is not the same at all steps."""
    columns: dict[tuple[int, int], int] = {}
    for call, known in enumerate(traces[0]):
        for position, value in known.numbers.items():
            if all(trace[call].numbers[position] == value for trace in traces):
                continue
            if position != 1 or known.operation not in _LIFTABLE:
                raise NotRecordable(f"a number that changes from step to step goes into {known.operation}")
            columns[call, position] = len(columns)
    return columns


class _Trace(TorchDispatchMode):
    """Notes every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _NOTHING:
            return func(*args, **kwargs)
        for tensor in leaves([args, kwargs]):
            if tensor.device.type != "meta":
                raise NotRecordable(f"{func} uses a tensor that is neither the walk's nor the state's")
        numbers = {i: float(arg) for i, arg in enumerate(args) if isinstance(arg, int | float)}
        rest = [None if i in numbers else outline(arg, numbers=True) for i, arg in enumerate(args)]
        self.calls.append(Call(func, numbers, (rest, outline(kwargs, numbers=True))))
        return func(*args, **kwargs)


class Lifted(TorchDispatchMode):
    """Runs a rehearsed step with its changing numbers taken from tensors, `slots` [S]."""

    def __init__(self, rehearsal: Rehearsal, slots: Tensor) -> None:
        super().__init__()
        self._calls, self._index = rehearsal.calls, 0
        self._slots = {place: slots[column] for place, column in rehearsal.columns.items()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _NOTHING or not self._slots:
            return func(*args, **(kwargs or {}))
        index, self._index = self._index, self._index + 1
        if index >= len(self._calls) or self._calls[index].operation is not func:
            raise NotRecordable(f"{func} was not rehearsed")
        slot = self._slots.get((index, 1))
        if slot is not None:
            # beside a tensor with axes a number's dtype does not count; beside one without it would
            args = (args[0], slot if args[0].dim() else slot.to(args[0].dtype), *args[2:])
        return func(*args, **(kwargs or {}))
