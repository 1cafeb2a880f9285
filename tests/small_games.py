"""Games that are quick to play, for tests: tiny ones, with lives and limits, and environments that misbehave."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.tiny import TINY, truncated, with_lives
from envs.vector import Episode, VectorEnv
from tasks.games import Games

GAMES = TINY | {
    "short": truncated("corridor", 3),
    "lives": with_lives("catch", lives=3, rounds=4),
    "cut": with_lives("catch", lives=3, rounds=9, limit=10),
}


def games(train: tuple[str, ...] = ("catch", "seek"), test: tuple[str, ...] = ("sprint",), **changes: Any) -> Games:
    """A family of small networks with few environments; `changes` are options of `Games`."""
    make = changes.pop("make", lambda name, count: GAMES[name](count))
    options = {
        "seed": 0, "environments": 3, "unroll": 4, "network": "small", "evaluation_episodes": 4, "clip_reward": None
    }  # fmt: skip
    return Games(make, train, test, **(options | changes))


def points(family: Games, tasks: int, seed: int = 0) -> Tensor:
    """Parameters [T, n] whose policies are far from uniform and from each other."""
    generator = torch.Generator().manual_seed(seed)
    rows = family.initial(seed).double().expand(tasks, -1).clone()
    return rows + 0.05 * torch.randn(rows.shape, generator=generator, dtype=torch.float64)


NAMES = ("obs", "actions", "reward", "terminated", "truncated", "life_lost", "valid", "legal")


def named(batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The parts of a roll-out by their names."""
    return dict(zip(NAMES, batch, strict=True))


class Scripted:
    """Environments whose episodes have lengths and scores of their own: environment e ends every e + 2 steps."""

    name, actions, shape = "scripted", 2, (1, 16, 16)

    def __init__(self, count: int) -> None:
        self.count = count

    def reset(self, seed: int) -> np.ndarray:
        self._env = TINY["corridor"](self.count)  # for its order of calls
        self._env.reset(seed)
        self._at, self._number = np.zeros(self.count, int), np.zeros(self.count, int)
        return np.zeros((self.count, *self.shape), np.uint8)

    def send(self, actions: np.ndarray) -> None:
        self._env.send(actions)

    def receive(self) -> Any:
        self._at += 1
        over = self._at == np.arange(self.count) + 2
        episodes = []
        for env in np.flatnonzero(over):
            self._number[env] += 1
            episodes.append((int(env), 10.0 * env + self._number[env], env + 2))
        self._at[over] = 0
        step = self._env.receive()
        return step._replace(
            obs=np.zeros((self.count, *self.shape), np.uint8), episodes=tuple(Episode(*episode) for episode in episodes)
        )

    def close(self) -> None:
        self._env.close()


class Spoiled:
    """Rewards without meaning from the tenth step on."""

    def __init__(self, env: VectorEnv) -> None:
        self._env, self._left = env, 10

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def receive(self) -> Any:
        step, self._left = self._env.receive(), self._left - 1
        return step._replace(reward=np.full_like(step.reward, np.nan)) if self._left < 0 else step
