"""Tiny games with known best scores as tasks: Leap's third experiment in a minute, with nothing to install."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from envs.tiny import BEST, TINY
from leap.errors import UsageError
from tasks.games import Games


def tiny_games(train: Sequence[str], test: Sequence[str], **options: Any) -> Games:
    """Games of `envs.tiny` as a family of tasks.

    Args:
        train, test: Names of `envs.tiny.TINY`: those that pretraining sees, and those it does not.
        options: Of `tasks.games.Games`.

    Raises:
        UsageError: a game that is not there, or what `Games` refuses.

    Example:
        >>> family = tiny_games(["catch", "seek"], ["mirror"], seed=0, network="small")
        >>> family.names, family.actions(1)
        (('catch', 'seek', 'mirror'), 4)
    """
    for name in (*train, *test):
        if name not in TINY:
            close = difflib.get_close_matches(name, TINY, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UsageError(f"no tiny game {name!r}; {hint}Known: {', '.join(TINY)}")
    about = {"references": {name: {"best": BEST[name]} for name in (*train, *test)}}
    return Games(lambda name, count: TINY[name](count), train, test, about=about, **options)
