"""A game that is played and shown: what an agent sees of it, and beside that the picture that a person would see."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from envs.vector import EnvironmentProblem, Transition, VectorEnv

__all__ = ["Filmed", "Screen", "picture"]

STEPS_A_SECOND = 6.0  # of a game that does not say how fast it is meant to be
SMALLEST_SIDE = 160  # pixels, of a picture that is enlarged


class Screen(NamedTuple):
    """A game as it is meant to be looked at. An environment that has one gives it by a method `screen()`."""

    env: VectorEnv
    """Plays the same trajectory from the same seed and actions, and observes the screen, uint8 [E, 3, H, W]."""
    rate: float
    """Agent steps a second."""


class Filmed:
    """One environment that also shows its screen (an `envs.vector.VectorEnv` with E = 1).

    Where the environment has a screen, a second one plays the same actions from the same seed: vector simulators do not
    render, and what the agent sees stays exactly what it sees elsewhere. Otherwise the observation is the picture.

    Args:
        env: With E = 1.

    Raises:
        EnvironmentProblem: more environments than one; later, a screen that does not play the same game.

    Example:
        >>> from envs.tiny import TINY
        >>> env = Filmed(TINY["catch"](1))
        >>> env.reset(seed=0).shape, env.frame().shape, env.rate
        ((1, 3, 16, 16), (160, 160, 3), 6.0)
    """

    def __init__(self, env: VectorEnv) -> None:
        if env.count != 1:
            raise EnvironmentProblem(f"{env.name}: one environment is filmed at a time, got {env.count}")
        self.name, self.count, self.actions, self.shape = env.name, env.count, env.actions, env.shape
        self._env, self._screen, self.rate = env, None, STEPS_A_SECOND
        if hasattr(env, "screen"):
            self._screen, self.rate = env.screen()
        self._rolling = True

    def reset(self, seed: int) -> np.ndarray:
        """First observation; see `envs.vector.VectorEnv`."""
        self._rolling = True
        obs = self._env.reset(seed)
        self._shown = self._screen.reset(seed) if self._screen else obs
        return obs

    def send(self, actions: np.ndarray) -> None:
        """Start a step."""
        self._env.send(actions)
        if self._screen and self._rolling:
            self._screen.send(actions)

    def receive(self) -> Transition:
        """Wait for the step that `send` started."""
        found = self._env.receive()
        if self._screen and self._rolling:
            shown = self._screen.receive()
            for name in ("reward", "terminated", "truncated", "valid"):
                if not np.array_equal(getattr(found, name), getattr(shown, name)):
                    raise EnvironmentProblem(f"{self.name}: the screen plays another game ({name} differs)")
            self._shown = shown.obs
        elif not self._screen:
            self._shown = found.obs
        return found

    def frame(self) -> np.ndarray:
        """What a person would see now, uint8 [H, W, 3]."""
        shown = self._shown[0]
        return np.ascontiguousarray(shown.transpose(1, 2, 0)) if self._screen else picture(shown)

    def cut(self) -> None:
        """No more pictures until the next reset, called between two steps: the screen is played no further."""
        self._rolling = False

    def close(self) -> None:
        """Let go of what is held."""
        self._env.close()
        if self._screen:
            self._screen.close()


def picture(obs: np.ndarray) -> np.ndarray:
    """An observation, uint8 [C, H, W], as a picture, uint8 [H', W', 3], enlarged until no side is below 160 pixels.

    Of a stack the newest is shown: the last three channels as colours where C is a multiple of three, else the last.

    Example:
        >>> picture(np.zeros((4, 42, 42), np.uint8)).shape
        (168, 168, 3)
    """
    colours = 3 if len(obs) % 3 == 0 else 1
    shown = np.broadcast_to(obs[-colours:].transpose(1, 2, 0), (*obs.shape[1:], 3))
    times = -(-SMALLEST_SIDE // min(obs.shape[1:]))
    return np.ascontiguousarray(shown.repeat(max(times, 1), axis=0).repeat(max(times, 1), axis=1))
