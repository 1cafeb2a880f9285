"""Playing: environments that are kept alive and lent to one walk at a time, actions, and what a roll-out leaves."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from envs.film import Filmed
from envs.vector import EnvironmentProblem, Transition, VectorEnv
from leap.errors import RunError, UsageError
from leap.randomness import derive, generator
from tasks.acted import Acted
from tasks.screens import Room

Make = Callable[[str, int], VectorEnv]
"""Makes E copies of a game: (name, E)."""

_LONGEST = 108_000  # agent steps of an episode: half an hour of an Atari game, were each step one frame


class Space(NamedTuple):
    """What a game shows and takes."""

    shape: tuple[int, int, int]  # channels, height, width
    actions: int


class Stage:
    """A set of environments, and who plays there."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.player: Play | None = None


class Stages:
    """Environments by game: made when they are first needed, and kept.

    To make them and to begin them from a seed is expensive (0.16 s each in Atari), so no walk makes its own.

    Args:
        make: Makes environments.
        count: E of those that are made only to see what a game shows and takes.
        spaces: What games show and take, by name, as far as that is known beforehand.
    """

    def __init__(self, make: Make, count: int, spaces: Mapping[str, Space]) -> None:
        self._make, self._count, self._spaces = make, count, dict(spaces)
        self._made: dict[tuple[str, int, int], Stage] = {}

    def space(self, name: str) -> Space:
        """What a game shows and takes.

        Raises:
            UsageError: as `get`.
        """
        if name not in self._spaces:
            self.get(name, 0, self._count)
        return self._spaces[name]

    def get(self, name: str, copy: int, count: int) -> Stage:
        """The `copy`-th set of `count` environments of a game.

        Raises:
            UsageError: there is no such environment, or it is not what was said of it.
        """
        found = self._made.get((name, copy, count))
        if found is None:
            with _as_usage():
                env = self._make(name, count)
            space = Space(env.shape, env.actions)
            if (env.count, space) != (count, known := self._spaces.setdefault(name, space)):
                raise UsageError(f"{name} should be {count} environments of {known}, got {env.count} of {space}")
            found = self._made[name, copy, count] = Stage(env)
        return found

    def filmed(self, name: str) -> Filmed:
        """One environment of a game that also shows its screen, for the caller alone, who closes it."""
        with _as_usage():
            return Filmed(self._make(name, 1))

    def close(self) -> None:
        """Let go of all environments."""
        for stage in self._made.values():
            stage.env.close()
        self._made.clear()


class Play:
    """One game under way in E environments."""

    def __init__(self, stage: Stage, actions: int, seed: int) -> None:
        self._stage, self._actions, self.name = stage, actions, stage.env.name
        self.stream = generator(seed, "actions")
        self.episodes: list[list[float | None]] = []
        self._steps = 0
        stage.player = self
        with _as_usage():
            self.obs = stage.env.reset(derive(seed, "environments"))

    def choose(self, module: torch.nn.Module, named: Mapping[str, Tensor], room: Room | None = None) -> np.ndarray:
        """Actions [E] drawn from the policy with these parameters; `room` as in `tasks.agents.Agent.features`."""
        device = next(iter(named.values())).device
        logits, _ = functional_call(module, dict(named), (torch.from_numpy(self.obs).to(device), room))
        return self.draw(logits)

    def draw(self, logits: Tensor) -> np.ndarray:
        """Actions [E] drawn from the legal ones of logits [E, A]."""
        chosen: np.ndarray = drawn(logits[:, : self._actions], self.stream).numpy()
        return chosen

    def send(self, actions: np.ndarray) -> None:
        """Start a step.

        Raises:
            RunError: another walk plays here now.
        """
        if self._stage.player is not self:
            raise RunError(
                f"another walk has taken over the environments of {self.name}, and this one cannot go on; end a walk "
                "before the next begins"
            )
        self._stage.env.send(actions)

    def receive(self) -> Transition:
        """What came of the step; episodes that ended are noted."""
        found = self._stage.env.receive()
        self.obs, self._steps = found.obs, self._steps + len(found.reward)
        for episode in found.episodes:
            score = episode.score if math.isfinite(episode.score) else None
            self.episodes.append([self._steps, score, episode.length])
        return found


Choose = Callable[[Sequence[Play]], Iterable[np.ndarray]]
"""Chooses the actions [E] of each of T games; what is not asked for yet need not be chosen."""


def drawn(logits: Tensor, stream: torch.Generator) -> Tensor:
    """Actions [E] on the CPU from logits [E, A]; one uniform number each, whatever A.

    A row with a logit that is not finite is drawn uniformly: it must not end the walk here, where nobody knows whose it
    is.

    Example:
        >>> drawn(torch.tensor([[0.0, 99.0, 0.0], [99.0, 0.0, 0.0]]), torch.Generator().manual_seed(0))
        tensor([1, 0])
    """
    rows = logits.cpu().double()
    known = rows.isfinite().all(dim=-1, keepdim=True)
    rows = torch.where(known, rows, 0)
    # softmax itself would wake torch's other threads for a hundred numbers
    below = (rows - rows.amax(dim=-1, keepdim=True)).exp().cumsum(dim=-1)
    level = torch.rand(len(rows), 1, generator=stream, dtype=torch.float64) * below[:, -1:]
    return (level >= below[:, :-1]).sum(dim=-1)  # the last action takes what is left


def one_by_one(module: torch.nn.Module, points: Sequence[Mapping[str, Tensor]], acted: Acted | None = None) -> Choose:
    """Each game acts with its own parameters, and its simulators run while the next game chooses.

    `acted` takes what the networks compute, agent step by agent step.
    """
    steps = itertools.count()

    def choose(plays: Sequence[Play]) -> Iterator[np.ndarray]:
        step = next(steps)
        for game, (play, named) in enumerate(zip(plays, points, strict=True)):
            yield play.choose(module, named, None if acted is None else acted.room(game, step))

    return choose


def together(module: torch.nn.Module, points: Mapping[str, Tensor]) -> Choose:
    """The same actions up to the order of summation from one forward pass over all games, parameters [T, ...].

    On an accelerator that is one transfer of pictures, one batch of kernels and one synchronisation an agent step,
    where game after game would have T of each.
    """
    device = next(iter(points.values())).device

    def logits(named: Mapping[str, Tensor], obs: Tensor) -> Tensor:
        found: Tensor = functional_call(module, dict(named), (obs,))[0]
        return found

    def choose(plays: Sequence[Play]) -> list[np.ndarray]:
        obs = torch.from_numpy(np.stack([play.obs for play in plays])).to(device)
        rows = vmap(logits)(dict(points), obs).cpu()  # GPU-CPU sync
        return [play.draw(own) for play, own in zip(plays, rows, strict=True)]

    return choose


@contextmanager
def beside_simulators() -> Iterator[None]:
    """Torch computes in one thread, unless its idle threads sleep (the environment says OMP_WAIT_POLICY=passive).

    By default OpenMP's threads spin for milliseconds after a computation, and the simulators wait for their cores.
    """
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Record:
    """Room for a roll-out of T games."""

    def __init__(self, tasks: int, unroll: int, environments: int, shape: tuple[int, ...]) -> None:
        size = (tasks, unroll, environments)
        self.obs = np.empty((tasks, unroll + 1, environments, *shape), np.uint8)
        self.actions, self._reward = np.empty(size, np.int64), np.empty(size, np.float32)
        self._flags = np.empty((4, *size), bool)

    def put(self, task: int, row: int, found: Transition) -> None:
        """Take in an agent step."""
        self.obs[task, row + 1], self._reward[task, row] = found.obs, found.reward
        self._flags[:, task, row] = (found.terminated, found.truncated, found.life_lost, found.valid)

    def tensors(self) -> tuple[Tensor, ...]:
        """obs, actions, reward, terminated, truncated, life_lost, valid."""
        return tuple(map(torch.from_numpy, (self.obs, self.actions, self._reward, *self._flags)))


class Again:
    """Chooses actions uint8 [T, L, E] that were chosen before, in the order in which a roll-out asks for them."""

    def __init__(self, actions: np.ndarray) -> None:
        self._rows = iter(actions.swapaxes(0, 1))

    def __call__(self, plays: Sequence[Play]) -> Iterable[np.ndarray]:
        """The next actions [T, E]."""
        found: np.ndarray = next(self._rows)
        return found


def whole_episodes(play: Play, count: int, choose: Callable[[Play], np.ndarray], wanted: int) -> list[float]:
    """Unclipped scores of `wanted` whole episodes.

    Each of the `count` environments is dealt a number of episodes beforehand, the first ones that it plays: to take
    those that end first would favour short ones.

    Raises:
        RunError: an episode does not end.
    """
    shares = [wanted // count + (env < wanted % count) for env in range(count)]
    scores: list[float] = []
    for _ in range(shares[0] * (_LONGEST + 1)):
        play.send(choose(play))
        for episode in play.receive().episodes:
            if shares[episode.env] > 0:
                shares[episode.env] -= 1
                scores.append(episode.score)
        if len(scores) == wanted:
            return scores
    raise RunError(
        f"{play.name}: {len(scores)} of {wanted} episodes ended within {_LONGEST} steps each; a game needs a limit of "
        "its length"
    )


@contextmanager
def _as_usage() -> Iterator[None]:
    try:
        yield
    except EnvironmentProblem as problem:
        raise UsageError(str(problem)) from problem
