"""Atari 2600 games as tasks: which the paper pretrains on, which it holds out, and the family over them.

`Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_, section 4.3: games with at most ten (minimal) actions are
the pool, Breakout and SpaceInvaders are held out, and games with more actions join the evaluation. The paper speaks of
a pool of 27 games; of the 62 games that gym has, 27 have at most ten actions with the two held out among them, so 25
are left to pretrain on. Its table of games was not recovered; of those evaluated, the ones that its text and figures
name are here.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from envs.atari import GAMES, Preprocessing, atari, minimal_actions
from envs.vector import EnvironmentProblem, VectorEnv
from leap.errors import UsageError
from tasks.atari_scores import references
from tasks.games import Games
from tasks.play import Space

__all__ = ["HELD_OUT", "LARGER", "MOST_ACTIONS", "POOL", "TRAIN", "Preprocessing", "atari_games", "named"]

MOST_ACTIONS = 10
"""Pretraining games have at most so many minimal actions."""
FULL_ACTIONS = 18
POOL = (
    *("air_raid", "amidar", "assault", "asterix", "atlantis", "beam_rider", "bowling"),
    *("breakout", "carnival", "crazy_climber", "demon_attack", "enduro", "freeway", "gopher"),
    *("ms_pacman", "name_this_game", "phoenix", "pong", "pooyan", "qbert", "skiing"),
    *("space_invaders", "time_pilot", "tutankham", "up_n_down", "video_pinball", "wizard_of_wor"),
)
"""The 27 of gym's 62 games with at most ten minimal actions."""
HELD_OUT = ("breakout", "space_invaders")
LARGER = ("alien", "gravitar", "krull", "kung_fu_master", "road_runner")
"""Games with more actions that the paper evaluates: 14 in kung_fu_master, 18 in the others."""
TRAIN = tuple(game for game in POOL if game not in HELD_OUT)


def atari_games(
    train: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    *,
    seed: int,
    preprocessing: Preprocessing = Preprocessing.PAPER,
    threads: int = 0,
    most_actions: int | None = MOST_ACTIONS,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Games:
    """Atari games as a family of tasks.

    Args:
        train: Games of pretraining, as `space_invaders` or `SpaceInvaders`; None: the paper's pool, less those of
            `test`.
        test: Games that pretraining does not see; None: Breakout and SpaceInvaders, less those of `train`. `LARGER` are
            the others of the paper.
        seed: Recorded.
        preprocessing: What is seen of a game.
        threads: Of each game's emulators; 0: as many as there are.
        most_actions: Minimal actions that a game of pretraining may have; None: any number.
        device: Where parameters and roll-outs live.
        options: Of `tasks.games.Games`.

    Raises:
        UsageError: an unknown game (the nearest is named), one in both splits, one to pretrain on with too many
            actions, no ale-py, or what `Games` refuses.

    Example:
        >>> family = atari_games(["Pong", "qbert"], ["RoadRunner"], seed=0)
        >>> family.names, family.actions(2)
        (('pong', 'qbert', 'road_runner'), 18)
    """
    given_train, given_test = ([named(game) for game in games or ()] for games in (train, test))
    held_out = given_test if test is not None else [game for game in HELD_OUT if game not in given_train]
    learned = given_train if train is not None else [game for game in POOL if game not in held_out]
    if train is None and test is not None:
        learned = [game for game in learned if game not in HELD_OUT]
    actions = {game: _actions(game) for game in (*learned, *held_out)}
    if most_actions is not None and (many := [game for game in learned if actions[game] > most_actions]):
        raise UsageError(
            f"{many[0]} has {actions[many[0]]} actions, and the paper pretrains on games with at most {most_actions}; "
            "hold it out, choose another, or lift the limit (most_actions)"
        )
    full = preprocessing.full_actions
    spaces = {game: Space(preprocessing.shape, FULL_ACTIONS if full else found) for game, found in actions.items()}
    make = partial(_made, preprocessing, threads)
    about = {"references": references((*learned, *held_out)), "frame_skip": preprocessing.frame_skip}
    return Games(make, learned, held_out, seed=seed, spaces=spaces, about=about, device=device, **options)


def named(game: str) -> str:
    """A game's name as ale-py writes it, from `SpaceInvaders`, `space_invaders` or `space-invaders`.

    Games of gym are known without ale-py; for others it is asked.

    Raises:
        UsageError: a game that is not known; the nearest is named.

    Example:
        >>> named("MsPacman"), named("up-n-down")
        ('ms_pacman', 'up_n_down')
    """
    known = {_letters(name): name for name in GAMES}
    if found := known.get(_letters(game)):
        return found
    try:
        from envs.atari import snake_case

        return snake_case(game)
    except EnvironmentProblem as problem:
        near = difflib.get_close_matches(_letters(game), known, 1, 0.5)
        hint = f" Did you mean {known[near[0]]!r}?" if near else ""
        raise UsageError(f"no Atari game {game!r}.{hint} Known are {', '.join(GAMES)}") from problem


def _letters(game: str) -> str:
    return "".join(filter(str.isalnum, game)).lower()


def _actions(game: str) -> int:
    try:
        return minimal_actions(game)
    except EnvironmentProblem as problem:
        raise UsageError(str(problem)) from problem


def _made(preprocessing: Preprocessing, threads: int, game: str, count: int) -> VectorEnv:
    return atari(game, count, preprocessing, threads)
