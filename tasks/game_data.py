"""Games as labelled data: what a trained agent does in states that it met itself, to be imitated.

Distances and scores need inputs and labels, the same ones whatever initialization is measured. Of a game:

- The agent of reference learns it from a random initialization, with the run's inner optimizer, for a set number of
  agent steps. It depends on the seed and on how games are shown and learned, not on what is measured.
- The behaviour that makes the states is its own play, with actions drawn from its policy, of which a share is replaced
  by uniformly random ones: who plays well meets few states, and in a game that is nearly solved they all look alike.
- A label is the action that the agent of reference takes in the state; by default its most probable one, a function of
  the state, so that an encoder that keeps what matters can be right every time. `drawn` takes an action drawn from its
  policy instead, which has several classes even where one action is the best everywhere.
- Of so many steps in a row of an environment one state is kept, drawn at random: neighbours are almost copies. Where
  it is the end of an episode, which leaves nothing to do, the next one takes its place, if it is one of these steps.
  Training and test states come from environments that were begun from different seeds, so they share no episode.

What is behind such data are the probabilities of actions, as in the classifications that distances are defined for, so
the Fisher information of an imitation is that of a policy on the roll-outs of a fixed behaviour.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leap.errors import RunError, UsageError
from leap.measure.problem import TaskData
from leap.optim import Optimizer, adam, clipped
from leap.randomness import derive, generator
from leap.run import pack, unpack, write_atomic
from leap.walk import walk
from tasks.agents import Agent
from tasks.play import Play, drawn

if TYPE_CHECKING:
    from tasks.games import Games

LABELS = ("likeliest", "drawn")
_FORMAT = 1  # of kept files; another one when what they are made by changes


def _plain_adam(steps: int) -> Optimizer:
    return clipped(adam(0.003), 0.5)


@dataclass(frozen=True)
class Imitation:
    """How a game becomes labelled data.

    Attributes:
        steps: Agent steps for which the agent of reference learns.
        examples: Training states; there are half as many test states.
        random: Share of uniformly random actions in the play that makes states.
        spacing: Steps in a row of an environment of which one state is kept.
        labels: `likeliest` or `drawn`: the most probable action, or one drawn from the policy.
        inner: The inner optimizer for walks of so many steps.
        folder: Where what was made is kept; None: with this object alone.
        about: What kept files depend on beside the game's name and the seed, ready for JSON: all else that is given
            here, the inner optimizer, how games are shown and learned.
    """

    steps: int = 100_000
    examples: int = 1000
    random: float = 0.25
    spacing: int = 16
    labels: Literal["likeliest", "drawn"] = "likeliest"
    inner: Callable[[int], Optimizer] = _plain_adam
    folder: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "examples", "spacing"):
            if getattr(self, name) < 1:
                raise UsageError(f"reference_{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.random <= 1:
            raise UsageError(f"reference_random must be a share from 0 to 1, got {self.random}")
        if self.labels not in LABELS:
            raise UsageError(f"reference_labels must be one of {LABELS}, got {self.labels!r}")


class Imitated(NamedTuple):
    """A game as labelled data."""

    agent: Tensor  # [m + A (width + 1)]  the agent of reference: [trunk | policy's weight | policy's bias]
    data: TaskData  # states are bytes


def _tensors(data: TaskData) -> dict[str, Tensor]:
    return {name: part for name, part in data._asdict().items() if isinstance(part, Tensor)}


class Encoder(nn.Module):
    """An agent without its head."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, obs: Tensor) -> Tensor:
        """What the head sees, [B, width]."""
        return self.agent.features(obs)


class Imitations:
    """The games of a family as labelled data, each made when it is first asked for.

    Args:
        family: Games.
        how: How they become data.
    """

    def __init__(self, family: Games, how: Imitation) -> None:
        self._family, self._how = family, how
        self._known: dict[int, Imitated] = {}

    def of(self, task: int) -> Imitated:
        """A game as labelled data; from the folder where it was made before, else made and kept there.

        A file that is damaged, or was made in another way, is made again.

        Raises:
            RunError: the agent of reference diverged.
            UsageError: it takes one action in all states, so that there is nothing to tell apart.
        """
        if task not in self._known:
            agent, data = self._read(task) or self._make(task)
            parts: dict[str, Any] = {name: part.to(self._family.device) for name, part in _tensors(data).items()}
            self._known[task] = Imitated(agent.to(self._family.device), data._replace(**parts))
        return self._known[task]

    def path(self, task: int) -> Path | None:
        """The file where a game's data are kept."""
        if self._how.folder is None:
            return None
        digest = hashlib.sha256(json.dumps(self._about(task), sort_keys=True).encode()).hexdigest()
        return self._how.folder / f"{self._family.name(task)}-{digest[:24]}.safetensors"

    def _about(self, task: int) -> dict[str, Any]:
        """All that the data depend on, as it reads in a file."""
        how, family = self._how, self._family
        own = {name: getattr(how, name) for name in ("steps", "examples", "random", "spacing", "labels")}
        held = {"format": _FORMAT, "game": family.name(task), "actions": family.actions(task), "seed": family.seed}
        found: dict[str, Any] = json.loads(json.dumps({**held, **own, "torch": torch.__version__, **how.about}))
        return found

    def _read(self, task: int) -> Imitated | None:
        path = self.path(task)
        if path is None or not path.exists():
            return None
        try:
            tensors, about = unpack(path)
            if about["about"] != self._about(task):
                return None
            agent = tensors.pop("agent")
            data = TaskData(name=self._family.name(task), classes=self._family.actions(task), **tensors)
            return Imitated(agent, data)
        except (RunError, KeyError, TypeError):  # whatever is there, it is made again
            return None

    def _make(self, task: int) -> Imitated:
        agent = learned(self._family, task, self._how)
        found = Imitated(agent, imitation(self._family, task, agent, self._how))
        path = self.path(task)
        if path is not None:
            tensors = {"agent": agent, **_tensors(found.data)}
            with contextlib.suppress(OSError):  # a folder that cannot be written to costs the time of learning again
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, pack(tensors, {"about": self._about(task)}))
        return found


def learned(family: Games, task: int, how: Imitation) -> Tensor:
    """The agent of reference of a game, [trunk | policy's weight | policy's bias].

    Raises:
        RunError: it diverged.
    """
    name, steps = family.name(task), family.steps_for(how.steps)
    seed = derive(family.seed, "reference", name)
    walked = walk(
        family.batch([task], [seed]),
        family.initial(seed),
        steps=steps,
        optimizer=how.inner(steps),
        execution="sequential",
    )
    theta = walked.theta[0]
    if not bool(theta.isfinite().all()):
        raise RunError(f"the agent of reference of {name} diverged; lower inner.lr, or clip its gradients")
    named, actions = family.layout.unflatten(theta), family.actions(task)
    head = [named[f"head.policy.{part}"][:actions].reshape(-1) for part in ("weight", "bias")]
    return torch.cat([theta[: family.layout.trunk], *head])


def imitation(family: Games, task: int, agent: Tensor, how: Imitation) -> TaskData:
    """States that an agent meets, and the actions that it takes there; states are bytes [N, C, H, W].

    Raises:
        UsageError: one action in all states.
    """
    name = family.name(task)
    seed = derive(family.seed, "imitation", name)
    train, labels = _met(family, task, agent, how, how.examples, derive(seed, "train"))
    if len(labels.unique()) < 2:
        raise UsageError(
            f"the agent of reference of {name} takes one action ({int(labels[0])}) in all of {len(labels)} states, so "
            "there is nothing to tell apart: leave the game out (--tasks), let its agent learn for another time "
            "(--tasks.reference_steps), or take actions drawn from its policy (--tasks.reference_labels drawn)"
        )
    test, test_labels = _met(family, task, agent, how, -(-how.examples // 2), derive(seed, "test"))
    return TaskData(name, train, labels, test, test_labels, family.actions(task))


def policy_logits(family: Games, agent: Tensor, states: Tensor) -> Tensor:
    """Logits [N, A] of an agent of reference."""
    trunk, head = agent.tensor_split([family.layout.trunk])
    weight, bias = head.tensor_split([len(head) // (family.width + 1) * family.width])
    return F.linear(family.features(trunk, states), weight.view(-1, family.width), bias)


def _met(family: Games, task: int, agent: Tensor, how: Imitation, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """States [count, C, H, W] and labels [count], in the order in which they were met."""
    states: list[Tensor] = []
    labels: list[Tensor] = []
    for state, label in _kept(family, task, agent, how, seed):
        states.append(state)
        labels.append(label)
        if sum(map(len, labels)) >= count:
            return torch.cat(states)[:count], torch.cat(labels)[:count]
    raise AssertionError("play does not end")


@torch.no_grad()
def _kept(family: Games, task: int, agent: Tensor, how: Imitation, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Play without end; states [e, C, H, W] that are kept, and their labels [e]."""
    play = family.begin(task, 0, family.environments, seed)
    mixture, choice, own = (generator(seed, name) for name in ("mixture", "spacing", "labels"))
    while True:
        wanted = torch.randint(how.spacing, (family.environments,), generator=choice)
        for row in range(how.spacing):
            obs = torch.from_numpy(play.obs)
            logits = policy_logits(family, agent, obs.to(family.device)).cpu()
            valid = _step(play, logits, how.random, mixture)
            due = wanted == row
            wanted = torch.where(due & ~valid, wanted + 1, wanted)
            keep = due & valid
            if bool(keep.any()):
                label = logits.argmax(-1) if how.labels == "likeliest" else drawn(logits, own)
                yield obs[keep], label[keep]


def _step(play: Play, logits: Tensor, random: float, mixture: torch.Generator) -> Tensor:
    """One step of the behaviour; where its action counted, bool [E]."""
    chosen = drawn(logits, play.stream)
    chance = torch.rand(len(chosen), generator=mixture)
    anything = torch.randint(logits.shape[1], chosen.shape, generator=mixture)
    play.send(torch.where(chance < random, anything, chosen).numpy())
    return torch.from_numpy(play.receive().valid)
