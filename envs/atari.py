"""Atari 2600 games through ale-py's vector environment, which emulates in threads and pre-processes as it goes.

ale-py is licensed under the GPL, version 2: it is an extra, imported here alone and only when a game is asked for. What
it does otherwise than one would think is dealt with here: an action out of range is refused, for it would hang the
process for ever; life loss is read off the lives, for `episodic_life` restarts the whole game on the first life;
environments get seeds that are not neighbours; rewards are not clipped.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from envs.film import Screen
from envs.vector import (
    EnvironmentProblem,
    Order,
    Statistics,
    Transition,
    VectorEnv,
    check_actions,
    check_counts,
    is_integer,
    spread,
)

__all__ = ["GAMES", "Preprocessing", "atari", "known_games", "minimal_actions", "snake_case"]

FULL_ACTIONS = 18
FRAMES_A_SECOND = 60

_NAMES = """
adventure air_raid alien amidar assault asterix asteroids atlantis bank_heist battle_zone beam_rider berzerk bowling
boxing breakout carnival centipede chopper_command crazy_climber defender demon_attack double_dunk elevator_action
enduro fishing_derby freeway frostbite gopher gravitar hero ice_hockey jamesbond journey_escape kangaroo krull
kung_fu_master montezuma_revenge ms_pacman name_this_game phoenix pitfall pong pooyan private_eye qbert riverraid
road_runner robotank seaquest skiing solaris space_invaders star_gunner tennis time_pilot tutankham up_n_down
venture video_pinball wizard_of_wor yars_revenge zaxxon
"""

GAMES: tuple[str, ...] = tuple(_NAMES.split())
"""The 62 games that gym has had from the beginning, which studies choose from; `known_games` are all there are."""

_TWO_PLAYERS = frozenset({"combat", "joust", "maze_craze", "warlords"})  # cannot be played alone


@dataclass(frozen=True)
class Preprocessing:
    """What an agent is given of a game, and how a game begins and ends.

    An observation is uint8 [C, height, width] with C = stack (grey) or 3 * stack (red, green, blue of each frame, the
    oldest first). `PAPER` is the input of `Leap <https://arxiv.org/abs/1812.01054>`_, RGB without a stack; the paper
    states no other setting, so the others are the usual ones. `COMMUNITY` is the input behind most published scores,
    four grey frames. Both have sticky actions, as `Machado et al. 2018 <https://arxiv.org/abs/1709.06009>`_ ask for;
    scores with and without them are not comparable.

    Raises:
        EnvironmentProblem: a value outside its range.

    Example:
        >>> Preprocessing.PAPER.shape, Preprocessing.COMMUNITY.shape
        ((3, 84, 84), (4, 84, 84))
    """

    PAPER: ClassVar[Preprocessing]
    COMMUNITY: ClassVar[Preprocessing]

    height: int = 84
    """Pixels, resized from 210 (area averaging)."""
    width: int = 84
    """Pixels, resized from 160."""
    grayscale: bool = True
    """Luminance instead of RGB. RGB costs 40 to 50 % more emulation time."""
    stack: int = 4
    """The last so many agent steps are seen at once, the oldest first; black before the first of an episode."""
    frame_skip: int = 4
    """Frames that an action lasts: one agent step. The console shows 60 a second."""
    max_pool: bool = True
    """Pixelwise maximum of a step's last two frames, as sprites are drawn in every other frame only."""
    sticky: float = 0.25
    """Probability that a frame repeats the action of the frame before instead of the one chosen."""
    noop_max: int = 30
    """An episode begins after 0 ... noop_max - 1 frames without action, drawn at random."""
    fire_reset: bool = True
    """Press FIRE once before that, where the game has it: many start only then."""
    full_actions: bool = False
    """All 18 actions in every game, instead of those that do something in it (`minimal_actions`)."""
    max_frames: int = 108_000
    """An episode is truncated after so many frames from its first observation: half an hour of play."""

    def __post_init__(self) -> None:
        check_counts(
            height=self.height,
            width=self.width,
            stack=self.stack,
            frame_skip=self.frame_skip,
            max_frames=self.max_frames,
        )
        if not is_integer(self.noop_max) or self.noop_max < 0:
            raise EnvironmentProblem(f"noop_max must be an integer of at least 0, got {self.noop_max!r}")
        if not 0 <= self.sticky <= 1:
            raise EnvironmentProblem(f"sticky is a probability, within 0 ... 1, got {self.sticky!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an observation."""
        return (self.stack if self.grayscale else 3 * self.stack, self.height, self.width)


Preprocessing.PAPER = Preprocessing(grayscale=False, stack=1)
Preprocessing.COMMUNITY = Preprocessing()


def atari(game: str, count: int, preprocessing: Preprocessing, threads: int = 0) -> VectorEnv:
    """E copies of an Atari game, emulated in threads; nothing is emulated before `reset`.

    A step is `preprocessing.frame_skip` frames. Trajectories follow from seed and actions, whatever the threads. A game
    under way cannot be saved: what is to be repeated begins with `reset`, which reads the ROM again and takes about
    0.16 s of processor time an environment.

    Args:
        game: As `space_invaders` or `SpaceInvaders`.
        count: E.
        preprocessing: What is seen of it.
        threads: At most; 0: one for each processor thread, at most E.

    Raises:
        EnvironmentProblem: a game that is not known (the nearest are named), a count or number of threads that cannot
            be, no ale-py.

    Example::

        env = atari("SpaceInvaders", 8, Preprocessing.PAPER)
        env.name, env.actions, env.reset(seed=0).shape    # "space_invaders", 6, (8, 3, 84, 84)
    """
    check_counts(count=count)
    if not is_integer(threads) or threads < 0:
        raise EnvironmentProblem(f"threads must be an integer of at least 0 (0: as many as there are), got {threads!r}")
    name = snake_case(game)
    return _Atari(name, int(count), preprocessing, int(threads))


def minimal_actions(game: str) -> int:
    """How many of the 18 actions do something in a game: 3 in freeway, 18 in alien. Raises as `atari` does.

    The first call for a game reads its ROM, in about 0.16 s; later ones remember.
    """
    return _cartridge(snake_case(game)).actions


def known_games() -> tuple[str, ...]:
    """All games that the installed ale-py brings and that one player can play, in snake_case."""
    return tuple(sorted(set(_ale_py().roms.get_all_rom_ids()) - _TWO_PLAYERS))


def snake_case(game: str) -> str:
    """The name of a game as ale-py writes it, from `MsPacman`, `ms_pacman` or `ms-pacman`.

    Raises:
        EnvironmentProblem: a game that is not known (the nearest are named), no ale-py.
    """
    names = {_letters(name): name for name in known_games()}
    if found := names.get(_letters(game)):
        return found
    near = difflib.get_close_matches(_letters(game), names, n=3, cutoff=0.5)
    nearest = f"did you mean {' or '.join(names[name] for name in near)}?"
    raise EnvironmentProblem(f"no Atari game {game!r}; {nearest if near else 'there are ' + ', '.join(names.values())}")


class _Atari:
    """See `atari`."""

    def __init__(self, name: str, count: int, preprocessing: Preprocessing, threads: int) -> None:
        self.name, self.count, self.shape = name, count, preprocessing.shape
        self.actions = FULL_ACTIONS if preprocessing.full_actions else _cartridge(name).actions
        self._preprocessing = preprocessing
        self._threads = threads
        self._ale: Any = None
        self._order = Order(name)
        self._statistics = Statistics(count)

    def reset(self, seed: int) -> np.ndarray:
        """First observations, uint8 [E, C, H, W]; see `envs.vector.VectorEnv`."""
        seeds = spread(seed, self.count)
        self._order.check("reset")
        self._finish()
        if self._ale is None:
            self._ale = self._build()
        obs, info = self._ale.reset(seed=seeds)
        self._order.on("reset")
        self._statistics.clear()
        self._ended = np.zeros(self.count, bool)
        self._lives = info["lives"]
        return self._channels_first(obs)

    def send(self, actions: np.ndarray) -> None:
        """Start a step in the threads and return; integers [E]; EnvironmentProblem where one is not legal."""
        self._order.check("send")
        self._ale.send(check_actions(actions, self.count, self.actions, self.name))
        self._order.on("send")

    def receive(self) -> Transition:
        """Wait for the step that `send` started."""
        self._order.on("receive")
        obs, reward, terminated, truncated, info = self._ale.recv()
        valid = ~self._ended
        # 0 lives is also what some games show for a few frames before they are over
        life_lost = (info["lives"] < self._lives) & (info["lives"] > 0) & ~terminated & valid
        self._lives = info["lives"]
        self._ended = terminated | truncated
        episodes = self._statistics.add(reward, self._ended, valid)
        return Transition(
            self._channels_first(obs),
            reward.astype(np.float32),
            terminated,
            truncated & ~terminated,
            life_lost,
            valid,
            episodes,
        )

    def screen(self) -> Screen:
        """The same game in the size and colours of the console, without a stack: what `envs.film` shows."""
        height, width = _cartridge(self.name).screen
        shown = replace(self._preprocessing, height=height, width=width, grayscale=False, stack=1)
        rate = FRAMES_A_SECOND / shown.frame_skip
        return Screen(_Atari(self.name, self.count, shown, self._threads), rate)

    def close(self) -> None:
        """End the threads and free the emulators."""
        self._finish()
        self._ale = None
        self._order.close()

    def _finish(self) -> None:
        """Take back a step that nobody received."""
        if self._order.state == "sent":
            self._ale.recv()
            self._order.on("receive")

    def _build(self) -> Any:
        p = self._preprocessing
        return _ale_py().vector_env.AtariVectorEnv(
            self.name,
            self.count,
            num_threads=self._threads,
            max_num_frames_per_episode=p.max_frames,
            repeat_action_probability=p.sticky,
            full_action_space=p.full_actions,
            autoreset_mode="NextStep",
            img_height=p.height,
            img_width=p.width,
            grayscale=p.grayscale,
            stack_num=p.stack,
            frameskip=p.frame_skip,
            maxpool=p.max_pool,
            noop_max=p.noop_max,
            use_fire_reset=p.fire_reset,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
        )

    def _channels_first(self, obs: np.ndarray) -> np.ndarray:
        if self._preprocessing.grayscale:
            return obs
        return np.ascontiguousarray(obs.transpose(0, 1, 4, 2, 3)).reshape(self.count, *self.shape)


class _Cartridge(NamedTuple):
    """What a ROM tells before it is played."""

    actions: int  # minimal ones
    screen: tuple[int, int]  # height and width: 210 x 160 in most games, 250 x 160 in some


@cache
def _cartridge(name: str) -> _Cartridge:
    ale_py = _ale_py()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets on the standard error otherwise
    emulator = ale_py.ALEInterface()
    try:
        emulator.loadROM(ale_py.roms.get_rom_path(name))
    except (OSError, RuntimeError) as problem:
        raise EnvironmentProblem(f"the ROM of {name} cannot be read: {problem}; install ale-py again") from problem
    return _Cartridge(len(emulator.getMinimalActionSet()), emulator.getScreenDims())


def _ale_py() -> Any:
    try:
        import ale_py
        import ale_py.roms
        import ale_py.vector_env
    except ImportError as problem:
        raise EnvironmentProblem(
            f"Atari games need ale-py and gymnasium, which could not be imported ({problem}); "
            "pip install 'ale-py>=0.12.1' 'gymnasium>=1.1'"
        ) from problem
    return ale_py


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
