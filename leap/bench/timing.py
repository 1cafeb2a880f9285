"""How long several contenders take, measured in turns, so that whatever slows the machine slows all of them alike."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from leap.randomness import derive

LEAST_ROUNDS = 6
"""Below this many rounds even the range from least to most covers a median less often than 95 times in 100."""
RESAMPLES = 2000

Clock = Callable[[], float]
"""Seconds from any origin."""
Shuffle = Callable[[list[Any]], None]
_ENDED = object()
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` is what this process computes, all threads together, without what it waits for: others on the machine disturb
it less."""


@dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Attributes:
        name: Its name in tables; unique in its row.
        run: What is timed. It must do the same work every time. Where it returns an iterator, what is timed goes on
            until that ends; contenders that do so take their steps in turns, so that even a moment's disturbance meets
            all of them.
        warm: What runs once before the first round; `run` unless something shorter warms as well.
        parts: Called after each run: seconds by part of it, which become entries beside the contender.
    """

    name: str
    run: Callable[[], object]
    warm: Callable[[], object] | None = None
    parts: Callable[[], Mapping[str, float]] | None = None


class Spread(NamedTuple):
    """A number and its 95% interval; without ends where there is none."""

    value: float
    low: float | None
    high: float | None


class Timing(NamedTuple):
    """Median seconds of a contender, and the median of their ratios to the reference's."""

    name: str
    seconds: Spread
    ratio: Spread
    rounds: int


def nothing() -> None:
    """The synchronization of a device that computes in step with the program."""


def measure(
    contenders: Sequence[Contender],
    *,
    seconds: float,
    seed: int = 0,
    synchronize: Callable[[], None] = nothing,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Time contenders in turns until a budget is spent.

    A round runs every contender once, in an order drawn for that round (and, of those that take steps, for every turn);
    the device is synchronized before and after each, and garbage is collected between rounds only.

    Args:
        contenders: At least one.
        seconds: Budget for the rounds, warming not counted. One round is always measured, and none begins that would
            probably end beyond the budget.
        seed: Of the orders.
        synchronize: Waits for the device.
        clock: One of `CLOCKS`, or another.

    Returns:
        Seconds by name, one number a round: the i-th numbers of all names belong to one round.

    Raises:
        ValueError: no contenders, two of one name, or a budget that is not positive and finite.

    Example:
        >>> short, long = (Contender(str(n), lambda n=n: sum(range(n))) for n in (10, 100_000))
        >>> times = measure([short, long], seconds=0.05)
        >>> len(times["10"]) == len(times["100000"]) and min(times["10"]) < min(times["100000"])
        True
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"contenders must be at least one and of different names, got {names}")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds must be positive and finite, got {seconds}")
    for contender in contenders:
        run_through(contender.warm or contender.run)
    shuffle = random.Random(derive(seed, "order")).shuffle
    times: dict[str, list[float]] = {name: [] for name in names}
    began, rounds = clock(), 0
    while rounds == 0 or (clock() - began) * (rounds + 1) / rounds <= seconds:
        order = list(contenders)
        shuffle(order)
        for name, spent in _round(order, shuffle, synchronize, clock):
            times.setdefault(name, []).append(spent)
        rounds += 1
    if any(len(spent) != rounds for spent in times.values()):
        raise ValueError("every contender and every part must be there once a round, under a name of its own")
    return times


def run_through(run: Callable[[], object]) -> None:
    """Run something, with all of its steps where it has such."""
    found = run()
    if isinstance(found, Iterator):
        for _ in found:
            pass


def _round(
    order: Sequence[Contender], shuffle: Shuffle, synchronize: Callable[[], None], clock: Clock
) -> Iterator[tuple[str, float]]:
    def timed(step: Callable[[], object]) -> object:
        synchronize()
        start = clock()
        found = step()
        synchronize()
        spent[contender.name] += clock() - start
        return found

    spent = {contender.name: 0.0 for contender in order}
    going: list[tuple[Contender, Iterator[object]]] = []
    with _no_collection():
        for contender in order:
            found = timed(contender.run)
            if isinstance(found, Iterator):
                going.append((contender, found))
            else:
                yield from _told(contender, spent)
        while going:
            turn, going = going, []
            shuffle(turn)
            for contender, steps in turn:
                if timed(partial(next, steps, _ENDED)) is _ENDED:
                    yield from _told(contender, spent)
                else:
                    going.append((contender, steps))


def _told(contender: Contender, spent: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    yield contender.name, spent[contender.name]
    if contender.parts:
        yield from contender.parts().items()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now, and not before the block ends."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def summarize(times: Mapping[str, Sequence[float]], reference: str, *, seed: int = 0) -> list[Timing]:
    r"""Medians, and median ratios to the reference, with intervals.

    .. math:: r_c = \mathrm{median}_i(t_{c,i} \,/\, t_{\mathrm{ref},i})

    Args:
        times: From `measure`: seconds by name, one a round.
        reference: The name that ratios are taken to.
        seed: Of the resampling.

    Returns:
        A `Timing` a name, in the order of `times`. What slows a round cancels in its ratio. Intervals are the 2.5 and
        97.5 percentiles over rounds drawn with replacement; with fewer than `LEAST_ROUNDS` rounds there is none.

    Raises:
        ValueError: an unknown reference, no rounds, unequal numbers of rounds, or a time that is not positive and
            finite.

    Example:
        >>> times = {"walk": [1.0, 2.0, 1.0, 3.0, 1.0, 1.0], "Leap": [1.1, 2.2, 1.1, 3.3, 1.1, 1.1]}
        >>> ratio = summarize(times, "walk")[1].ratio                 # the rounds differ, their ratios do not
        >>> [round(number, 6) for number in ratio]
        [1.1, 1.1, 1.1]

    Reference: Efron 1979, https://doi.org/10.1214/aos/1176344552.
    """
    _check(times, reference)
    base, rounds = np.asarray(times[reference]), len(times[reference])
    draws = None
    if rounds >= LEAST_ROUNDS:
        draws = np.random.default_rng(derive(seed, "bootstrap")).integers(rounds, size=(RESAMPLES, rounds))
    rows = {name: np.asarray(own) for name, own in times.items()}
    return [Timing(name, _median(own, draws), _median(own / base, draws), rounds) for name, own in rows.items()]


def _median(numbers: np.ndarray, draws: np.ndarray | None) -> Spread:
    value = float(np.median(numbers))
    if draws is None:
        return Spread(value, None, None)
    low, high = np.quantile(np.median(numbers[draws], axis=1), [0.025, 0.975])
    return Spread(value, float(low), float(high))


def _check(times: Mapping[str, Sequence[float]], reference: str) -> None:
    if reference not in times:
        raise ValueError(f"the reference must be one of {list(times)}, got {reference!r}")
    counts = {name: len(own) for name, own in times.items()}
    if len(set(counts.values())) > 1 or counts[reference] == 0:
        raise ValueError(f"every contender needs one time a round and there must be a round, got {counts}")
    for name, own in times.items():
        if not all(math.isfinite(spent) and spent >= 0 for spent in own) or (name == reference and min(own) <= 0):
            raise ValueError(f"times must be finite and not negative, the reference's positive; {name!r} has {own}")
