"""What a family has logged of its walks beside losses and errors: quotients of sums over a meta-batch.

The family says which (`Family.records`), its batches (`figures()`) and their loss say of what. All names are known
before any walk, so that every process that trains has the same sums, whatever its share of a meta-batch is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from leap.errors import UsageError

if TYPE_CHECKING:
    from leap.walk import Walk

TOTAL, STEP, SECOND = "", "/step", "/second"  # what a sum can be divided by beside another sum

_GOOD, _ALL = "good/", "all/"  # before the names of sums: over which walks they are


class Quotient(NamedTuple):
    """A sum over the good walks of a meta-batch, divided by another.

    Attributes:
        of: What is summed: a name among the figures of a batch [T], or among what its loss records at every inner step.
        per: Another of these, or STEP: the walks' inner steps; TOTAL: nothing; SECOND: the wall-clock time of the
            meta-step. What is divided by time is summed over bad walks too, and over what this process and those beside
            it did since they were started, as the time is.
    """

    of: str
    per: str


Records = Mapping[str, Sequence[Quotient]]
"""Keys of docs/metrics.md, each with the quotients whose mean it is; those whose divisor is 0 are left out of it."""


def summed(records: Records) -> tuple[str, ...]:
    """Names of the sums that records need, in an order that depends on the records alone.

    Example:
        >>> summed({"charts/score": [Quotient("score", "rounds")], "charts/rate": [Quotient("rounds", SECOND)]})
        ('good/score', 'good/rounds', 'all/rounds')
    """
    found: dict[str, None] = {}
    for own in (own for quotients in records.values() for own in quotients):
        found[(_ALL if own.per == SECOND else _GOOD) + own.of] = None
        if own.per not in (TOTAL, STEP, SECOND):
            found[_GOOD + own.per] = None
    return tuple(found)


def figures_of(tasks: object) -> Mapping[str, Tensor]:
    """What tasks tell of their walk by name, [T] each; nothing where they have no `figures`."""
    found: Mapping[str, Tensor] = tasks.figures() if hasattr(tasks, "figures") else {}
    return found


def sums_of(names: Sequence[str], walked: Walk, figures: Mapping[str, Tensor], good: Tensor) -> dict[str, Tensor]:
    """The sums of these names over one walk, float64.

    Args:
        names: As `summed` gives them.
        walked: A walk of T tasks, or the one row of tasks that walked in turns.
        figures: Of its tasks, [T] each.
        good: Which rows of the walk met finite numbers only.

    Raises:
        UsageError: there is nothing of such a name.
    """
    found = {}
    for name in names:
        kind, _, of = name.partition("/")
        if of in figures:
            row = figures[of].to(good.device, torch.float64)
        elif of in walked.aux:
            row = walked.aux[of].double().sum(dim=1)
        else:
            raise UsageError(
                f"the family's records ask for {of!r}, but its batches tell {sorted(figures)} (figures) and their loss "
                f"records {sorted(walked.aux)}"
            )
        found[name] = (torch.where(good, row, 0) if f"{kind}/" == _GOOD else row).sum()
    return found


def lasting(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums that a process may take over from one before it: those that are not divided by its own time."""
    return {name: value for name, value in sums.items() if not name.startswith(_ALL)}


def recorded(records: Records, sums: Mapping[str, float], steps: float, seconds: float) -> dict[str, float | None]:
    """The records' values; None where there is none.

    Args:
        records: Of the family.
        sums: Over all processes, with the names of `summed`.
        steps: Inner steps of all good walks.
        seconds: Wall-clock time of the meta-step.

    Example:
        >>> records = {"charts/score": [Quotient("a", "n"), Quotient("b", "m")], "charts/n": [Quotient("n", TOTAL)]}
        >>> recorded(records, {"good/a": 6.0, "good/n": 3.0, "good/b": 9.0, "good/m": 0.0}, 5.0, 1.0)
        {'charts/score': 2.0, 'charts/n': 3.0}
    """
    divisors = {TOTAL: 1.0, STEP: steps, SECOND: seconds}
    found: dict[str, float | None] = {}
    for key, quotients in records.items():
        values = []
        for own in quotients:
            divisor = divisors[own.per] if own.per in divisors else sums[_GOOD + own.per]
            if divisor > 0:
                values.append(sums[(_ALL if own.per == SECOND else _GOOD) + own.of] / divisor)
        found[key] = sum(values) / len(values) if values else None
    return found
