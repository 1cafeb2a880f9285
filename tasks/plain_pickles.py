"""Arrays of bytes, numbers and texts out of a pickle, without unpickling it.

A pickle is a program for a machine with a stack, and Python's own machine imports and calls whatever the program names.
The one here knows the instructions that plain data needs and nothing else: it imports nothing and calls nothing of what
a pickle names. Arrays appear because it recognizes how numpy writes them down.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_STEPS = 500_000
"""Instructions that a pickle may have. A CIFAR-100 archive's has some 200,000."""
NEWEST = 5
"""The newest protocol that is read."""

_STOP = ord(".")
_SHORT = 1 << 16  # bytes; longer texts stay where they are, for they are arrays
_RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_KNOWN = {*_RECONSTRUCT, "numpy ndarray", "numpy dtype", "_codecs encode"}
_BYTES = {"u1", "|u1", "uint8"}


@dataclass(frozen=True)
class _Name:
    """What a pickle would have imported."""

    text: str


class _Type:
    """Numpy's type of unsigned bytes."""


class _Array:
    """An array of bytes that gets its content after it was made."""

    value: np.ndarray | None = None


def load(content: bytes | bytearray) -> dict[str, Any]:
    r"""The dict that a pickle describes.

    Values are None, bool, int, bytes or memoryview (Python 2's text), str, uint8 arrays over `content`, and lists,
    tuples and dicts of these. Keys may be Python 2's text or Python 3's.

    Raises:
        ValueError: it describes something else, would import or call anything but what makes an array of bytes, is cut
            short, or has more than `MOST_STEPS` instructions; the message says which.

    Example:
        >>> import pickle
        >>> load(pickle.dumps({b"data": np.arange(3, dtype=np.uint8), b"labels": [7]}, protocol=2))
        {'data': array([0, 1, 2], dtype=uint8), 'labels': [7]}
        >>> load(b"cos\nsystem\n.")
        Traceback (most recent call last):
        ValueError: it would run os system, and nothing of a pickle is run
    """
    machine = _Machine(memoryview(content))
    try:
        found = machine.run()
    except (IndexError, struct.error, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"no pickle of plain data (at byte {machine.at})") from error
    if not isinstance(found, dict):
        raise ValueError(f"it describes no dict but {type(found).__name__.strip('_')}")
    return {name: _opened(value) for name, value in found.items()}


def _opened(value: Any) -> Any:
    if isinstance(value, (_Name, _Type)) or (isinstance(value, _Array) and value.value is None):
        raise ValueError("it holds what is neither data nor an array of bytes")
    return value.value if isinstance(value, _Array) else value


class _Machine:
    """A stack, places in it that were marked, and what was put aside."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.at = content, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """What lies on the stack at the end."""
        for _ in range(MOST_STEPS):
            code = self.content[self.at]
            self.at += 1
            if code == _STOP:
                return self.stack.pop()
            if code not in _INSTRUCTIONS:
                raise ValueError(f"it has instruction {bytes([code])!r}, which plain data does not need")
            _INSTRUCTIONS[code](self)
        raise ValueError(f"it has more than {MOST_STEPS} instructions")

    def take(self, count: int) -> memoryview:
        """The next bytes. Nothing is set aside for them, so that a false count costs nothing."""
        found = self.content[self.at : self.at + count] if count >= 0 else self.content[:0]
        if len(found) != count:
            raise ValueError(f"it claims {count} bytes at byte {self.at}, where {len(self.content) - self.at} are left")
        self.at += count
        return found

    def number(self, form: str) -> int:
        """The next number, written as `struct` writes `form`."""
        (found,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(found)

    def line(self) -> str:
        """The next bytes up to the end of a line, which is not long."""
        found = bytes(self.content[self.at : self.at + 256]).partition(b"\n")[0]
        self.at += len(found) + 1
        return found.decode("latin-1")

    def text(self, form: str) -> bytes | memoryview:
        """A text of Python 2, or bytes: a count, and as many bytes."""
        found = self.take(self.number(form))
        return found if len(found) > _SHORT else bytes(found)

    def string(self, form: str) -> str:
        """A text of Python 3. It may hold numpy's bytes, which then must not be decoded in place."""
        return str(self.take(self.number(form)), "utf-8")

    def above(self) -> list[Any]:
        """What was put on the stack since the last mark, taken off."""
        mark = self.marks.pop()
        found = self.stack[mark:]
        del self.stack[mark:]
        return found

    def top(self, count: int) -> tuple[Any, ...]:
        """The last entries of the stack, taken off."""
        if self.marks and len(self.stack) - count < self.marks[-1]:
            raise IndexError("below the mark")
        found = tuple(self.stack[-count:])
        if len(found) != count:
            raise IndexError("below the stack")
        del self.stack[-count:]
        return found


def _call(machine: _Machine) -> None:
    function, arguments = machine.top(2)
    machine.stack.append(_called(function, arguments))


def _called(function: Any, arguments: Any) -> Any:
    """What numpy's pickles call, each with the arguments that it has there."""
    if isinstance(function, _Name) and isinstance(arguments, tuple):
        if function.text in _RECONSTRUCT and arguments[:1] == (_Name("numpy ndarray"),):
            return _Array()
        if function.text == "numpy dtype" and arguments:
            if (kind := _written(arguments[0])) not in _BYTES:
                raise ValueError(f"it holds an array of {kind!r}, only arrays of bytes are read")
            return _Type()
        if function.text == "_codecs encode" and len(arguments) == 2 and isinstance(arguments[0], str):
            return arguments[0].encode("latin-1")  # as Python 3 writes bytes for Python 2
    raise ValueError(f"it would call {getattr(function, 'text', 'what is no function')} in a way that makes no array")


def _build(machine: _Machine) -> None:
    made, state = machine.top(2)
    machine.stack.append(made)
    if isinstance(made, _Type):
        return
    if not isinstance(made, _Array) or not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("it sets the state of what is no array")
    _, shape, kind, columns_first, content = state
    if not isinstance(kind, _Type) or not isinstance(content, (bytes, memoryview)) or not isinstance(shape, tuple):
        raise ValueError("it holds an array of something else than bytes")
    if not all(isinstance(length, int) and length >= 0 for length in shape) or not 1 <= len(shape) <= 4:
        raise ValueError("it holds an array without a shape")
    made.value = np.frombuffer(content, np.uint8).reshape(shape, order="F" if columns_first else "C")


def _written(text: Any) -> str:
    if isinstance(text, (bytes, memoryview)):
        return bytes(text[:256]).decode("latin-1")
    return str(text[:256])


def _name(machine: _Machine, module: str, name: str) -> None:
    text = f"{module[:80]} {name[:80]}"
    if text not in _KNOWN:
        raise ValueError(f"it would run {text}, and nothing of a pickle is run")
    machine.stack.append(_Name(text))


def _stack_name(machine: _Machine) -> None:
    module, name = machine.top(2)
    _name(machine, _written(module), _written(name))


def _extend(machine: _Machine, items: list[Any]) -> None:
    if not isinstance(machine.stack[-1], list):
        raise TypeError("appends to what is no list")
    machine.stack[-1].extend(items)


def _fill(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise TypeError("sets items of what is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Texts alone: a key must not be hashed before it is known to be harmless, and tuples can be deep.
        if not isinstance(key, (bytes, str)):
            raise TypeError("a key that is no text")
        target[_written(key)] = value


def _keep(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _get(machine: _Machine, place: int) -> None:
    if place not in machine.memo:
        raise IndexError("nothing was put aside there")
    machine.stack.append(machine.memo[place])


def _protocol(machine: _Machine) -> None:
    if (protocol := machine.take(1)[0]) > NEWEST:
        raise ValueError(f"its protocol is {protocol}, at most {NEWEST} is read")


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(make(machine))


def _long(machine: _Machine) -> int:
    return int.from_bytes(machine.take(machine.take(1)[0]), "little", signed=True)


# By the byte that stands for each; the names behind them are those of Python's pickletools.
_INSTRUCTIONS: dict[int, Callable[[_Machine], Any]] = {
    code[0]: run
    for code, run in {
        b"\x80": _protocol,  # PROTO
        b"\x95": lambda m: m.take(8),  # FRAME
        b"(": lambda m: m.marks.append(len(m.stack)),  # MARK
        b"}": _push(lambda m: {}),  # EMPTY_DICT
        b"]": _push(lambda m: []),  # EMPTY_LIST
        b")": _push(lambda m: ()),  # EMPTY_TUPLE
        b"t": _push(lambda m: tuple(m.above())),  # TUPLE
        b"\x85": _push(lambda m: m.top(1)),  # TUPLE1
        b"\x86": _push(lambda m: m.top(2)),  # TUPLE2
        b"\x87": _push(lambda m: m.top(3)),  # TUPLE3
        b"a": lambda m: _extend(m, list(m.top(1))),  # APPEND
        b"e": lambda m: _extend(m, m.above()),  # APPENDS
        b"s": lambda m: _fill(m, list(m.top(2))),  # SETITEM
        b"u": lambda m: _fill(m, m.above()),  # SETITEMS
        b"c": lambda m: _name(m, m.line(), m.line()),  # GLOBAL
        b"\x93": _stack_name,  # STACK_GLOBAL
        b"R": _call,  # REDUCE
        b"b": _build,  # BUILD
        b"N": _push(lambda m: None),  # NONE
        b"\x88": _push(lambda m: True),  # NEWTRUE
        b"\x89": _push(lambda m: False),  # NEWFALSE
        b"J": _push(lambda m: m.number("<i")),  # BININT
        b"K": _push(lambda m: m.number("<B")),  # BININT1
        b"M": _push(lambda m: m.number("<H")),  # BININT2
        b"\x8a": _push(_long),  # LONG1
        b"U": _push(lambda m: m.text("<B")),  # SHORT_BINSTRING
        b"T": _push(lambda m: m.text("<i")),  # BINSTRING
        b"C": _push(lambda m: m.text("<B")),  # SHORT_BINBYTES
        b"B": _push(lambda m: m.text("<I")),  # BINBYTES
        b"\x8e": _push(lambda m: m.text("<Q")),  # BINBYTES8
        b"\x8c": _push(lambda m: m.string("<B")),  # SHORT_BINUNICODE
        b"X": _push(lambda m: m.string("<I")),  # BINUNICODE
        b"q": lambda m: _keep(m, m.number("<B")),  # BINPUT
        b"r": lambda m: _keep(m, m.number("<I")),  # LONG_BINPUT
        b"\x94": lambda m: _keep(m, len(m.memo)),  # MEMOIZE
        b"h": lambda m: _get(m, m.number("<B")),  # BINGET
        b"j": lambda m: _get(m, m.number("<I")),  # LONG_BINGET
    }.items()
}
