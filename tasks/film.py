"""A game filmed: one whole episode that an agent plays, in the pictures that a person would see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks.games import Games
from tasks.play import Play, whole_episodes

SECONDS = 60.0
"""Play that is shown; what comes behind is played, and counts for the score, but is not shown."""
PICTURES_A_SECOND = 15.0
"""Nearly at most: of a faster game every second or third picture is shown."""


class Film(NamedTuple):
    """A whole episode in pictures."""

    frames: list[np.ndarray]
    """uint8 [H, W, 3] each: the first picture, and those after every `pace`-th step; the last one, if it is shown."""
    rate: float
    """Pictures a second at the speed of the game."""
    score: float | None
    """Sum of unclipped rewards; None: not finite."""
    length: int
    """Agent steps of the episode."""
    shown: int
    """Agent steps that are in the pictures: the first ones."""


@torch.no_grad()
def film(family: Games, task: int, theta: Tensor, seed: int, seconds: float = SECONDS) -> Film:
    """Play one whole episode of a game at theta [n], and film it.

    Actions are drawn from the policy, as for the score; environment and actions depend on the seed alone, so that two
    points play from the same start. The family's own environments and streams are not touched.

    Args:
        family: Games.
        task: Which one.
        theta: Encoder and head, as a walk leaves them.
        seed: Of this episode.
        seconds: At most so much of the game is shown, at the speed at which a person would see it.

    Raises:
        RunError: the episode does not end.

    Example:
        >>> from tasks.tiny_games import tiny_games
        >>> family = tiny_games(["seek"], ["catch"], seed=0, network="small")
        >>> found = film(family, 1, family.initial(0), seed=3)
        >>> found.length, len(found.frames), found.frames[0].shape
        (7, 8, (160, 160, 3))
    """
    play, env = family.filmed(task, seed)
    try:
        pace = max(1, round(env.rate / PICTURES_A_SECOND))
        most = max(1, int(seconds * env.rate))
        named, frames, steps = family.layout.unflatten(theta), list[np.ndarray](), 0

        def choose(it: Play) -> np.ndarray:
            nonlocal steps
            if steps <= most and steps % pace == 0:
                frames.append(env.frame())
            if steps == most:
                env.cut()
            steps += 1
            return it.choose(family.module, named)

        whole_episodes(play, 1, choose, 1)
        if steps <= most:
            frames.append(env.frame())
        _, score, length = play.episodes[0]
    finally:
        env.close()
    return Film(frames, env.rate / pace, score, int(length or 0), min(steps, most))


def told(found: Film) -> Mapping[str, float | int | None]:
    """What an index says of it, ready for JSON."""
    return {"score": found.score, "length": found.length, "shown": found.shown}


def score_text(found: Film) -> str:
    """The score as it stands in a file's name.

    Example:
        >>> score_text(Film([], 15.0, -21.0, 900, 900)), score_text(Film([], 15.0, None, 1, 1))
        ('-21', 'nan')
    """
    return f"{math.nan if found.score is None else found.score:.10g}"
