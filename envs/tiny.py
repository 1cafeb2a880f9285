"""Tiny games in pictures of 16 x 16, for tests and first tries: they share an encoder, not their number of actions.

Each is drawn on 8 x 8 cells of two by two pixels, in three channels: what the player moves is red, what they want is
green, and lives in reserve are blue, one cell each from the top left. A picture shows all that the best action depends
on; it does not show how many steps or balls are left. Only the first state of an episode, and in rally of each ball, is
drawn at random, from the seed.

========  =======  =====  =====  ================================================================================
game      actions  best   steps  what happens
========  =======  =====  =====  ================================================================================
corridor  2        1      7      back and on along eight cells; 1 at the far end, which ends it; cut off after 32
catch     3        1      7      stay, left, right under a falling ball; 1 for the ball caught, -1 for one missed
mirror    3        1      7      catch with left and right exchanged
rally     3        8      56     eight balls to catch, with three lives: over with the last ball or the last life
follow    3        4      32     stay, left, right under a mark that runs to and fro; 1/8 a step; cut off after 32
seek      4        1      1-14   up, down, left, right to a mark; 1 there, which ends it; cut off after 32
sprint    5        1      7      catch with two cells left or right as well
========  =======  =====  =====  ================================================================================

`expert` reaches the best score in every episode, from every start, in the steps named. It cannot be beaten: it is all
the reward that there is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from envs.vector import (
    EnvironmentProblem,
    Order,
    Statistics,
    Transition,
    VectorEnv,
    check_actions,
    check_counts,
    spread,
)

__all__ = ["BEST", "TINY", "Tiny", "corridor_values", "expert", "truncated", "with_lives"]

CELLS = 8  # a side of the field
SHAPE = (3, 2 * CELLS, 2 * CELLS)
PLAYER, WANTED, RESERVE = range(3)  # channels
LAST = CELLS - 1
_CORRIDOR_ROW = 4


class Moved(NamedTuple):
    """What a step makes of a round: arrays over E."""

    state: np.ndarray  # int64 [E, S]
    reward: np.ndarray  # float32 [E]
    over: np.ndarray  # bool [E], the round
    lost: np.ndarray  # bool [E], over and lost; costs a life


class Game(NamedTuple):
    """The rules of one round, for E environments at once. A state is a row of integers."""

    actions: int
    start: Callable[[np.ndarray], np.ndarray]  # noise int64 [E, 2] >= 0 to state int64 [E, S]
    move: Callable[[np.ndarray, np.ndarray], Moved]  # state, actions int64 [E]
    cells: Callable[[np.ndarray], list[tuple[int, np.ndarray, np.ndarray]]]  # (channel, rows [E], columns [E]) to paint
    expert: Callable[[np.ndarray], np.ndarray]  # cells bool [E, 3, 8, 8] to the best actions [E]
    best: float  # score of an episode with the settings below
    rounds: int = 1  # in an episode
    lives: int = 1
    limit: int | None = None  # steps after which an episode is cut off


class Tiny:
    """E copies of a tiny game, each with a stream of its own: what one plays does not touch the others.

    Args:
        name: Of the game, for messages.
        game: Its rules and settings.
        count: E.
    """

    def __init__(self, name: str, game: Game, count: int) -> None:
        check_counts(count=count, rounds=game.rounds, lives=game.lives)
        if game.limit is not None:
            check_counts(limit=game.limit)
        self.name, self.count, self.actions, self.shape = name, count, game.actions, SHAPE
        self._game = game
        self._order = Order(name)
        self._statistics = Statistics(count)
        self._steps, self._rounds, self._drawn = (np.zeros(count, np.int64) for _ in range(3))
        self._lives = np.full(count, game.lives)
        self._ended = np.zeros(count, bool)

    def reset(self, seed: int) -> np.ndarray:
        """First observations, uint8 [E, 3, 16, 16]; see `envs.vector.VectorEnv`."""
        seeds = spread(seed, self.count)
        self._order.on("reset")
        self._seeds = seeds.astype(np.uint64)
        self._statistics.clear()
        self._ended[:] = False
        self._drawn[:] = 0
        everywhere = np.ones(self.count, bool)
        self._begin_episodes(everywhere)
        self._state = self._game.start(self._noise(everywhere))
        return self._draw()

    def send(self, actions: np.ndarray) -> None:
        """Take the actions, integers [E]; EnvironmentProblem where one is not legal."""
        self._order.check("send")
        self._actions = check_actions(actions, self.count, self.actions, self.name)
        self._order.on("send")

    def receive(self) -> Transition:
        """Play the step that `send` started."""
        self._order.on("receive")
        game, valid = self._game, ~self._ended
        moved = game.move(self._state, self._actions)
        reward = np.where(valid, moved.reward, 0).astype(np.float32)
        over, lost = moved.over & valid, moved.lost & valid
        self._steps += valid
        self._rounds += over
        self._lives -= lost
        terminated = over & ((self._rounds == game.rounds) | (self._lives == 0))
        truncated = (self._steps == game.limit) & valid & ~terminated if game.limit else np.zeros(self.count, bool)
        self._begin_episodes(~valid)
        fresh = ~valid | (over & ~terminated)
        self._state = np.where(fresh[:, None], game.start(self._noise(fresh)), moved.state)
        self._ended = terminated | truncated
        episodes = self._statistics.add(reward, self._ended, valid)
        return Transition(self._draw(), reward, terminated, truncated, lost & ~terminated, valid, episodes)

    def close(self) -> None:
        """Nothing is held."""
        self._order.close()

    def _begin_episodes(self, rows: np.ndarray) -> None:
        self._steps[rows], self._rounds[rows], self._lives[rows] = 0, 0, self._game.lives

    def _noise(self, rows: np.ndarray) -> np.ndarray:
        """Two integers for each environment, int64 [E, 2], from its seed and how often it drew; only `rows` draw."""
        self._drawn += rows
        place = (2 * self._drawn[:, None] + np.arange(2)).astype(np.uint64)
        # splitmix64: a counter through a mixing function, so that E streams need no generator each
        mixed = (self._seeds[:, None] << np.uint64(32)) + place * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)

    def _draw(self) -> np.ndarray:
        field = np.zeros((self.count, 3, CELLS, CELLS), np.uint8)
        rows = np.arange(self.count)
        for channel, row, column in self._game.cells(self._state):
            field[rows, channel, row, column] = 255
        field[:, RESERVE, 0] = 255 * (np.arange(CELLS) < self._lives[:, None] - 1)
        return field.repeat(2, axis=2).repeat(2, axis=3)


def _column(cells: np.ndarray, channel: int, row: int | slice = slice(None)) -> np.ndarray:
    """The column of the one cell painted in a channel (of a row), [E]."""
    painted = cells[:, channel, row]
    return (painted.any(axis=1) if painted.ndim == 3 else painted).argmax(axis=-1)


def _row(cells: np.ndarray, channel: int) -> np.ndarray:
    return cells[:, channel].any(axis=2).argmax(axis=-1)


def _none_lost(over: np.ndarray) -> np.ndarray:
    return np.zeros_like(over)


def _catch(moves: tuple[int, ...], rounds: int = 1, lives: int = 1) -> Game:
    """A ball falls one cell a step; `moves` are the cells that each action moves the paddle. State: ball, paddle."""
    cells_moved = np.array(moves)

    def start(noise: np.ndarray) -> np.ndarray:
        return np.column_stack([np.zeros(len(noise), np.int64), noise % CELLS])

    def move(state: np.ndarray, actions: np.ndarray) -> Moved:
        row, ball, paddle = state.T
        row, paddle = row + 1, np.clip(paddle + cells_moved[actions], 0, LAST)
        over = row >= LAST
        missed = over & (paddle != ball)
        reward = over.astype(np.float32) - 2 * missed
        # an environment that waits for its reset moves as well, and must stay in the field
        return Moved(np.column_stack([np.minimum(row, LAST), ball, paddle]), reward, over, missed)

    def cells(state: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        row, ball, paddle = state.T
        return [(WANTED, row, ball), (PLAYER, np.full_like(row, LAST), paddle)]

    def play(cells: np.ndarray) -> np.ndarray:
        away = _column(cells, WANTED) - _column(cells, PLAYER)
        return np.abs(away[:, None] - cells_moved).argmin(axis=1)

    return Game(len(moves), start, move, cells, play, float(rounds), rounds, lives)


def _follow(limit: int, share: float) -> Game:
    """A mark runs to and fro along the top; the row below it shows where it goes. State: mark, direction, player."""

    def onward(mark: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turned = np.where((mark + direction < 0) | (mark + direction > LAST), -direction, direction)
        return mark + turned, turned

    def start(noise: np.ndarray) -> np.ndarray:
        mark = noise[:, 0] % CELLS
        return np.column_stack([mark, noise[:, 1] % 2 * 2 - 1, mark])

    def move(state: np.ndarray, actions: np.ndarray) -> Moved:
        mark, direction = onward(state[:, 0], state[:, 1])
        player = np.clip(state[:, 2] + np.array([0, -1, 1])[actions], 0, LAST)
        over = np.zeros(len(state), bool)
        reward = np.where(player == mark, share, 0).astype(np.float32)
        return Moved(np.column_stack([mark, direction, player]), reward, over, _none_lost(over))

    def cells(state: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        mark, direction, player = state.T
        top = np.zeros_like(mark)
        ahead, _ = onward(mark, direction)
        return [(WANTED, top, mark), (WANTED, top + 1, ahead), (PLAYER, top + LAST, player)]

    def play(cells: np.ndarray) -> np.ndarray:
        away = _column(cells, WANTED, 1) - _column(cells, PLAYER)
        return np.where(away < 0, 1, np.where(away > 0, 2, 0))

    return Game(3, start, move, cells, play, share * limit, limit=limit)


def _seek(limit: int) -> Game:
    """Up, down, left, right to a mark elsewhere. State: row and column of the player, of the mark."""
    steps = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])

    def start(noise: np.ndarray) -> np.ndarray:
        player = noise[:, 0] % CELLS**2
        mark = (player + 1 + noise[:, 1] % (CELLS**2 - 1)) % CELLS**2  # any cell but the player's
        return np.column_stack([player // CELLS, player % CELLS, mark // CELLS, mark % CELLS])

    def move(state: np.ndarray, actions: np.ndarray) -> Moved:
        player = np.clip(state[:, :2] + steps[actions], 0, LAST)
        over = (player == state[:, 2:]).all(axis=1)
        return Moved(np.column_stack([player, state[:, 2:]]), over.astype(np.float32), over, _none_lost(over))

    def cells(state: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        return [(PLAYER, state[:, 0], state[:, 1]), (WANTED, state[:, 2], state[:, 3])]

    def play(cells: np.ndarray) -> np.ndarray:
        down = _row(cells, WANTED) - _row(cells, PLAYER)
        right = _column(cells, WANTED) - _column(cells, PLAYER)
        return np.where(down != 0, np.where(down < 0, 0, 1), np.where(right < 0, 2, 3))

    return Game(4, start, move, cells, play, 1.0, limit=limit)


def _corridor(limit: int) -> Game:
    """Back and on along a row, from its first cell to its last. State: the player's cell."""

    def start(noise: np.ndarray) -> np.ndarray:
        return np.zeros((len(noise), 1), np.int64)

    def move(state: np.ndarray, actions: np.ndarray) -> Moved:
        cell = np.clip(state[:, 0] + 2 * actions - 1, 0, LAST)
        over = cell == LAST
        return Moved(cell[:, None], over.astype(np.float32), over, _none_lost(over))

    def cells(state: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        row = np.full(len(state), _CORRIDOR_ROW)
        return [(PLAYER, row, state[:, 0]), (WANTED, row, np.full(len(state), LAST))]

    def play(cells: np.ndarray) -> np.ndarray:
        return np.ones(len(cells), np.int64)

    return Game(2, start, move, cells, play, 1.0, limit=limit)


_GAMES: dict[str, Game] = {
    "corridor": _corridor(limit=32),
    "catch": _catch((0, -1, 1)),
    "mirror": _catch((0, 1, -1)),
    "rally": _catch((0, -1, 1), rounds=8, lives=3),
    "follow": _follow(limit=32, share=1 / 8),
    "seek": _seek(limit=32),
    "sprint": _catch((0, -1, 1, -2, 2)),
}

TINY: dict[str, Callable[[int], VectorEnv]] = {name: partial(Tiny, name, game) for name, game in _GAMES.items()}
"""The tiny games: `TINY["catch"](16)` is sixteen of them."""

BEST: dict[str, float] = {name: game.best for name, game in _GAMES.items()}
"""The best score of an episode, which `expert` reaches in every one."""


def with_lives(name: str, lives: int, rounds: int, limit: int | None = None) -> Callable[[int], VectorEnv]:
    """A tiny game of several rounds and lives: a round lost costs a life, and the game goes on with the next round.

    It is over after `rounds` rounds or with the last life, and cut off after `limit` steps (None: as the game itself).
    Only a ball missed loses a round.

    Example:
        >>> env = with_lives("catch", lives=2, rounds=3)(1)
        >>> env.reset(0).shape
        (1, 3, 16, 16)
    """
    game = _game(name)._replace(lives=lives, rounds=rounds)
    game = game if limit is None else game._replace(limit=limit)
    return partial(Tiny, f"{name} with {lives} lives", game)


def truncated(name: str, limit: int) -> Callable[[int], VectorEnv]:
    """A tiny game that is cut off after `limit` steps, unless it is over in that step or before."""
    return partial(Tiny, f"{name} cut off after {limit}", _game(name)._replace(limit=limit))


def expert(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The best way to play a tiny game of `TINY` or a variant of it, from what the picture shows.

    Returns a function of observations uint8 [E, 3, 16, 16] to actions int64 [E].

    Example:
        >>> env = TINY["corridor"](2)
        >>> expert("corridor")(env.reset(0))
        array([1, 1])
    """
    play = _game(name).expert
    return lambda obs: play(obs[:, :, ::2, ::2] > 0)


def corridor_values(discount: float) -> np.ndarray:
    r"""What the corridor is worth from each of its cells to who always goes on, :math:`\gamma^{6-k}` for cell k = 0..6.

    The discounted return, float64 [7], of the best policy; being cut off does not enter, as its value is bootstrapped.

    Example:
        >>> corridor_values(0.5)
        array([0.015625, 0.03125 , 0.0625  , 0.125   , 0.25    , 0.5     , 1.      ])
    """
    return discount ** np.arange(LAST - 1, -1, -1.0)


def _game(name: str) -> Game:
    if name not in _GAMES:
        near = difflib.get_close_matches(name, _GAMES, n=2, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise EnvironmentProblem(f"no tiny game {name!r}. {hint}There are {', '.join(_GAMES)}")
    return _GAMES[name]
