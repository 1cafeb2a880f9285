"""When to stop: no better validation error over so many evaluations in a row, in a walk and in meta-training.

`Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_, appendix E: a task's training ends when its validation
error has not improved over 10 evaluations in a row, and meta-training when the mean of its meta-batches has not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Patience:
    """Counts evaluations in a row that were not better than the best before them.

    Args:
        limit: So many end it.
        best: The best error so far.
        since: Evaluations since then.

    An error that is not finite is no better than any.

    Example:
        >>> patience = Patience(2)
        >>> [patience.over(error) for error in (30.0, 20.0, 25.0, 20.0)]
        [False, False, False, True]
    """

    def __init__(self, limit: int, best: float = math.inf, since: int = 0) -> None:
        if limit < 1:
            raise ValueError(f"patience must be at least 1, got {limit}")
        self.limit, self.best, self.since = limit, best, since

    @property
    def exhausted(self) -> bool:
        """Whether enough evaluations in a row were no better."""
        return self.since >= self.limit

    def over(self, error: float) -> bool:
        """Take an evaluation into account; whether patience is exhausted."""
        better = error < self.best
        self.best, self.since = (error, 0) if better else (self.best, self.since + 1)
        return self.exhausted


def early(error: Callable[[Tensor], Tensor], every: int, limit: int) -> Early:
    """A rule for one walk: whether to end it after a step (`leap.walk.walk`'s `stop`).

    Args:
        error: The task's validation error, theta [1, n] -> [1].
        every: Steps between evaluations.
        limit: Evaluations in a row without a better error that end the walk.

    Each evaluation waits for the device.

    Example:
        >>> stop = early(lambda theta: theta[:, 0], every=2, limit=2)
        >>> errors = [9.0, 5.0, 9.0, 6.0, 1.0, 7.0]     # at odd steps nobody looks
        >>> [stop(torch.tensor([[e]]), step + 1) for step, e in enumerate(errors)]
        [False, False, False, False, False, True]
    """
    if every < 1:
        raise ValueError(f"a walk is evaluated every 1 step or less often, got every {every}")
    return Early(error, every, Patience(limit))


class Early:
    """What `early` makes: a rule that remembers the best error so far, and can be kept with its walk."""

    def __init__(self, error: Callable[[Tensor], Tensor], every: int, patience: Patience) -> None:
        self._error, self._every, self._patience = error, every, patience

    def __call__(self, theta: Tensor, step: int) -> bool:
        """Whether to end the walk at theta [1, n], after so many steps."""
        return step % self._every == 0 and self._patience.over(float(self._error(theta)[0]))

    def keep(self) -> dict[str, Tensor]:
        """What it goes on from."""
        return {"patience": torch.tensor([self._patience.best, self._patience.since], dtype=torch.float64)}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from what `keep` returned."""
        best, since = kept["patience"].tolist()
        self._patience = Patience(self._patience.limit, best, int(since))
