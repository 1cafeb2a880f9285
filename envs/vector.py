"""What an environment is here: E copies of one game that step together, and what every simulator keeps to.

Next-step auto-reset: the step after the end of an episode ignores its action and returns the first observation of the
next one, with reward 0 and all flags down. Such a row is no transition, and says so (`Transition.valid`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

__all__ = [
    "EnvironmentProblem",
    "Episode",
    "Order",
    "Statistics",
    "Transition",
    "VectorEnv",
    "check_actions",
    "check_counts",
    "is_integer",
    "spread",
]


class EnvironmentProblem(ValueError):
    """An environment that cannot be had, or is misused: the message says what was given and what to do."""


class Episode(NamedTuple):
    """A finished whole episode: the game was over or was cut off, never merely a life lost."""

    env: int
    """Which of the E environments."""
    score: float
    """Sum of unclipped rewards, across lives."""
    length: int
    """Agent steps; the one that an auto-reset ignores is none."""


class Transition(NamedTuple):
    """One agent step of E environments. The arrays are the caller's to keep: nothing writes to them later."""

    obs: np.ndarray
    """uint8 [E, C, H, W]: what to act on next. Where an episode ended, its last observation."""
    reward: np.ndarray
    """float32 [E], unclipped."""
    terminated: np.ndarray
    """bool [E]: the game is over."""
    truncated: np.ndarray
    """bool [E]: a limit of time cut the game off, which went on otherwise; never together with `terminated`."""
    life_lost: np.ndarray
    """bool [E]: a life was lost and the game is not over. The limit of time may cut it off in the same step."""
    valid: np.ndarray
    """bool [E]: False where this step was an auto-reset: the action was ignored, and nothing may be learned from it."""
    episodes: tuple[Episode, ...]
    """Those that ended in this step, by environment."""


class VectorEnv(Protocol):
    """E copies of one game, stepped together: `send`, then `receive`, so that several games can run side by side."""

    name: str
    count: int
    """E."""
    actions: int
    """Number of legal actions; they are 0 ... actions - 1."""
    shape: tuple[int, int, int]
    """(C, H, W) of an observation."""

    def reset(self, seed: int) -> np.ndarray:
        """Begin a new episode everywhere: first observations, uint8 [E, C, H, W].

        The same seed and the same actions give the same trajectories. Unfinished episodes are forgotten.
        """

    def send(self, actions: np.ndarray) -> None:
        """Start one step; integers [E]. What is not legal is an `EnvironmentProblem` before anything moves."""

    def receive(self) -> Transition:
        """Wait for the step that `send` started."""

    def close(self) -> None:
        """Let go of what the environments hold. Nothing but `close` may be called afterwards."""


class Statistics:
    """Scores and lengths of whole episodes, from unclipped rewards.

    Example:
        >>> statistics, valid = Statistics(2), np.array([True, True])
        >>> statistics.add(np.array([1.0, 2.0]), ended=np.array([False, False]), valid=valid)
        ()
        >>> statistics.add(np.array([1.0, 0.5]), ended=np.array([False, True]), valid=valid)
        (Episode(env=1, score=2.5, length=2),)
    """

    def __init__(self, count: int) -> None:
        self._score = np.zeros(count)  # float64: a float32 sum stops counting at 2**24
        self._length = np.zeros(count, np.int64)

    def add(self, reward: np.ndarray, ended: np.ndarray, valid: np.ndarray) -> tuple[Episode, ...]:
        """Count one step; the episodes that it ended.

        Args:
            reward: [E], unclipped.
            ended: bool [E], terminated or truncated.
            valid: bool [E]; other rows count for nothing.
        """
        self._score += np.where(valid, reward, 0)
        self._length += valid
        rows = np.flatnonzero(ended & valid)
        episodes = tuple(Episode(int(row), float(self._score[row]), int(self._length[row])) for row in rows)
        self._score[rows], self._length[rows] = 0, 0
        return episodes

    def clear(self) -> None:
        """Forget unfinished episodes."""
        self._score[:], self._length[:] = 0, 0


# In which states a call may come, what state it leaves, and what to say where it may not.
_ALLOWED = {"send": ("ready",), "receive": ("sent",), "reset": ("new", "ready", "sent")}
_NEXT = {"send": "sent", "receive": "ready", "reset": "ready"}
_CURE = {
    "new": "before reset; call reset(seed) first",
    "ready": "without a step under way; call send(actions) first",
    "sent": "while a step is under way; call receive() first",
    "closed": "after close; make a new environment",
}


class Order:
    """The order in which an environment's methods may be called: reset, then send and receive in turn.

    A simulator that runs in threads waits for ever for a step that nobody started, so this is refused beforehand.

    Example:
        >>> order = Order("pong")
        >>> order.on("send")
        Traceback (most recent call last):
        envs.vector.EnvironmentProblem: pong: send before reset; call reset(seed) first
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "new"

    def check(self, call: str) -> None:
        """EnvironmentProblem if `call` may not come now."""
        if self.state not in _ALLOWED[call]:
            raise EnvironmentProblem(f"{self.name}: {call} {_CURE[self.state]}")

    def on(self, call: str) -> None:
        """Check `call`, and take it as done."""
        self.check(call)
        self.state = _NEXT[call]

    def close(self) -> None:
        """Allow nothing any more."""
        self.state = "closed"


def check_actions(actions: np.ndarray, count: int, legal: int, name: str) -> np.ndarray:
    """The actions as int64 [E], a copy, if all are legal.

    Args:
        actions: [E], of any integer type.
        count: E.
        legal: Number of legal actions.
        name: Of the game, for the message.

    Raises:
        EnvironmentProblem: no array, not of integers, another shape, or an action outside 0 ... legal - 1.

    Example:
        >>> check_actions(np.array([0, 2], np.uint8), 2, 3, "catch")
        array([0, 2])
        >>> check_actions(np.array([0, 3]), 2, 3, "catch")
        Traceback (most recent call last):
        envs.vector.EnvironmentProblem: catch: actions must be within 0 ... 2, got 3 for environment 1
    """
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "iu":
        kind = f"an array of {actions.dtype}" if isinstance(actions, np.ndarray) else type(actions).__name__
        raise EnvironmentProblem(f"{name}: actions must be a numpy array of integers, got {kind}")
    if actions.shape != (count,):
        raise EnvironmentProblem(
            f"{name}: actions must have shape ({count},), one for each environment, got {actions.shape}"
        )
    wrong = np.flatnonzero((actions < 0) | (actions >= legal))
    if wrong.size:
        raise EnvironmentProblem(
            f"{name}: actions must be within 0 ... {legal - 1}, got {actions[wrong[0]]} for environment {wrong[0]}"
        )
    return actions.astype(np.int64)


def check_counts(**counts: int) -> None:
    """EnvironmentProblem for a number that is no integer of at least 1; by name, for the message.

    Example:
        >>> check_counts(count=0)
        Traceback (most recent call last):
        envs.vector.EnvironmentProblem: count must be an integer of at least 1, got 0
    """
    for name, value in counts.items():
        if not is_integer(value) or value < 1:
            raise EnvironmentProblem(f"{name} must be an integer of at least 1, got {value!r}")


def is_integer(value: object) -> bool:
    """Python's or numpy's; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def spread(seed: int, count: int) -> np.ndarray:
    """Seeds of E environments from one, int64 [E] within 1 ... 2**31 - 1.

    By `numpy.random.SeedSequence`, so that neighbouring seeds share no stream: counting up from the seed, as ale-py and
    gymnasium do, gives seed 1 all but one of the streams of seed 0. Environment i gets the same seed for every E.

    Raises:
        EnvironmentProblem: a seed that is no integer of at least 0.

    Example:
        >>> spread(0, 3)
        array([ 821328064, 1529665513,  745650762])
    """
    if not is_integer(seed) or seed < 0:
        raise EnvironmentProblem(f"a seed must be an integer of at least 0, got {seed!r}")
    words = np.random.SeedSequence(int(seed)).generate_state(count, np.uint32)
    return words.astype(np.int64) % (2**31 - 1) + 1
