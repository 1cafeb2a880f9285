"""Games as tasks: an actor-critic learns a game, with heads of its own behind one encoder, Leap's third experiment.

`Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_, section 4.3 and appendix F. A game is a task, and an inner
step is one of a synchronous advantage actor-critic (`tasks.actor_critic`): E copies of the game are played for L agent
steps with the current parameters, from where the last inner step left them, and the loss is that of this roll-out. No
code of it was released. Decided here:

- f, the height of Leap's path, is that loss as it stands; experience differs from step to step.
- Experience cannot be drawn again. A learner that goes back over its walk (MAML, ANIL, Meta-SGD, exact Jacobians) is
  refused when it does; those that only look (Leap, Reptile, FOMAML) see every roll-out once. What is asked of the point
  behind the last step (Leap's last segment) is one more roll-out.
- A policy's logits without meaning (NaN) play at random and make a loss of NaN, so that the trainer counts the walk as
  bad and names the game; so does a reward without meaning.

All randomness of a walk comes from its seed: environments, actions and head. Acting is sequential over tasks, and draws
actions on the CPU, so that tasks act alike walked together, one by one, and shared out among processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from envs.film import Filmed
from leap.errors import UsageError
from leap.layout import Layout
from leap.measure.problem import TaskData
from leap.randomness import generator
from tasks.acted import Acted
from tasks.actor_critic import Reduction, actor_critic_loss, clip_rewards, edges, legal_logits, targets
from tasks.agents import Agent, Head, initialize, initialize_head
from tasks.game_batch import GameBatch
from tasks.game_checks import Acting, check_acting, check_loss, check_numbers, check_splits, one_shape
from tasks.game_data import Encoder, Imitation, Imitations
from tasks.game_logs import records
from tasks.play import Make, Play, Space, Stage, Stages

SPLITS = ("train", "validation", "test")


class Games:
    """A task family: every game is a task with its own policy and value, behind one encoder.

    Heads are as wide as the widest action set, and a game's missing actions are masked, so its loss and gradient are
    those of a head of its own width. `layout.shared` ends where the head begins: learners see the encoder alone.

    Environments are made when they are first needed, kept alive, and begun anew from a seed for every walk; a game that
    stands twice in a batch has two sets. A walk that begins takes the environments over from the one before it.

    Args:
        make: Makes environments.
        train, test: Names of the games that pretraining sees, and of those it does not.
        seed: Recorded; a walk has a seed of its own.
        spaces: What games show and take, by name; None: ask their environments, which makes all of them now.
        environments: E, copies of a game that are played side by side.
        unroll: L, agent steps of a roll-out.
        discount: gamma.
        gae: lambda of generalized advantage estimation; None is 1, n-step returns.
        entropy, value_weight, reduction: Of the loss, see `actor_critic_loss`.
        clip_reward: Bound of the rewards that are learned from; scores are always of the rewards as they are.
        life_cuts: A lost life ends the return, though not the game.
        evaluation_episodes: Whole episodes that a score averages over.
        network: A name of `tasks.agents.NETWORKS`.
        acting: How games that walk together choose actions: `sequential`, a game at a time, whose simulators run while
            the next one chooses; `batched`, in one forward pass; `auto`: sequential on a CPU, else batched.
        imitation: How a game becomes labelled data, for distances and scores; see `tasks.game_data`.
        about: What stands beside results, ready for JSON: scores to compare with, frames a step.
        device: Where parameters and roll-outs live.

    Raises:
        UsageError: a game in both splits, twice in one, or none in one; pictures of several sizes; a number that cannot
            be.

    Example:
        >>> from envs.tiny import TINY
        >>> from leap import learners, optim
        >>> from leap.walk import walk
        >>> family = Games(lambda name, count: TINY[name](count), ["catch"], ["seek"], seed=0, network="small")
        >>> folds = {"leap": learners.leap("energy")}
        >>> tasks = family.batch([0], seeds=[1])
        >>> result = walk(tasks, family.initial(0), steps=2, optimizer=optim.rmsprop(1e-4), folds=folds)
        >>> result.results["leap"].shape[1] == family.layout.shared     # the encoder alone
        True
        >>> tasks.outcomes()["episodes"][0][0]     # 32 environments, 7 steps: at agent step 224 the first one ended
        [224, -1.0, 7]
    """

    def __init__(
        self,
        make: Make,
        train: Sequence[str],
        test: Sequence[str],
        *,
        seed: int,
        spaces: Mapping[str, Space] | None = None,
        environments: int = 32,
        unroll: int = 5,
        discount: float = 0.99,
        gae: float | None = None,
        entropy: float = 0.01,
        value_weight: float = 0.5,
        clip_reward: float | None = 5.0,
        reduction: Reduction = "mean",
        life_cuts: bool = False,
        evaluation_episodes: int = 30,
        network: str = "mnih2013",
        acting: Acting = "auto",
        imitation: Imitation | None = None,
        about: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_splits(train, test)
        check_numbers(environments=environments, unroll=unroll, evaluation_episodes=evaluation_episodes)
        check_loss(discount, 1.0 if gae is None else gae, clip_reward, reduction)
        check_acting(acting)
        self.seed, self.environments, self.unroll, self.device = seed, environments, unroll, torch.device(device)
        self.acting: Acting = acting
        self.evaluation_episodes, self._about = evaluation_episodes, dict(about or {})
        self.names = (*train, *test)
        self.records = records(train)
        self._ids = {"train": range(len(train)), "validation": range(0), "test": range(len(train), len(self.names))}
        self._discount, self._decay, self._clip = discount, 1.0 if gae is None else gae, clip_reward
        self._life_cuts, self._weights = life_cuts, (value_weight, entropy, reduction)
        self._stages = Stages(make, environments, spaces or {})
        self._spaces = [self._stages.space(name) for name in self.names]
        self._options = (one_shape(self.names, self._spaces), max(space.actions for space in self._spaces), network)
        self.module = Agent(*self._options).to(self.device)
        self.layout = Layout.of(self.module, own_head=True)
        self._trunk_layout, self._encoder = self.layout.without_head(), Encoder(self.module)
        self.acted: Acted | None = None  # of the roll-out played last
        self.imitations = Imitations(self, imitation or Imitation())

    def ids(self, which: str) -> tuple[int, ...]:
        """Task ids of a split: `train`, `validation` (none) or `test`."""
        if which not in SPLITS:
            raise UsageError(f"no split {which!r}; there are {SPLITS}")
        return tuple(self._ids[which])

    def name(self, task: int) -> str:
        """The game's name."""
        return self.names[task]

    def actions(self, task: int) -> int:
        """Number of legal actions of a game."""
        return self._spaces[task].actions

    def steps_for(self, agent_steps: int) -> int:
        """K, inner steps in which a task acts at least so often, counted over its environments (E L an inner step)."""
        return max(1, -(-agent_steps // (self.environments * self.unroll)))

    def told(self, steps: int) -> dict[str, Any]:
        """What stands beside the results of walks of `steps` inner steps, ready for JSON."""
        return {"agent_steps": steps * self.environments * self.unroll, **self._about}

    def initial(self, seed: int) -> Tensor:
        """A random initialization [n]; its head only holds the place of those that tasks draw."""
        return self.layout.flatten(initialize(Agent(*self._options), generator(seed, "initialization"))).to(self.device)

    def heads(self, ids: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Random heads [T, n - trunk], one a task, each drawn in the width of its own game and padded with zeros."""
        made = [self._head(self.actions(task), seed) for task, seed in zip(ids, seeds, strict=True)]
        return torch.stack(made).to(self.device)

    def _head(self, actions: int, seed: int) -> Tensor:
        width, widest = self.module.dense.out_features, self._options[1]
        own = initialize_head(Head(width, actions), generator(seed, "head")).state_dict()
        for name in ("policy.weight", "policy.bias"):
            own[name] = torch.cat([own[name], own[name].new_zeros(widest - actions, *own[name].shape[1:])])
        return torch.cat([own[name[5:]].reshape(-1) for name in self.layout.names if name.startswith("head.")])

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> GameBatch:
        """Tasks that walk together, each with the seed of its own head, environments and actions."""
        return GameBatch(self, ids, seeds)

    def policy(
        self, theta: Tensor, obs: Tensor, legal: Tensor | int, known: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, A] and values [B] of observations, uint8 [B, C, H, W], at theta [n]; illegal actions masked.

        `known`: What the layers put out for them, as in `tasks.agents.Agent.features`.
        """
        logits, values = functional_call(self.module, self.layout.unflatten(theta), (obs, None, known))
        return legal_logits(logits, legal), values

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The actor-critic's loss of one task's roll-out at theta [n], and what `actor_critic_loss` records."""
        obs, actions, reward, terminated, truncated, life_lost, valid, legal = batch
        computed = self.acted.known(theta, obs) if self.acted else None
        logits, values = self.policy(theta, obs[:-1].flatten(0, 1), legal, computed)
        _, last = self.policy(theta.detach(), obs[-1], legal)  # what follows the roll-out is a constant
        logits, values = (x.unflatten(0, actions.shape) for x in (logits, values))
        known = torch.cat([values.detach(), last.unsqueeze(0)])
        own = edges(terminated, truncated, life_lost, valid, life_cuts=self._life_cuts)
        returns, advantages = targets(clip_rewards(reward, self._clip), known, own, self._discount, self._decay)
        return actor_critic_loss(logits, values, actions, returns, advantages, valid, *self._weights)

    stand_in = True  # labelled data stand for a game; its walks learn the game itself

    @property
    def width(self) -> int:
        """Features that a head sees."""
        return self.module.dense.out_features

    def features(self, trunk: Tensor, inputs: Tensor) -> Tensor:
        """Features [N, width] of observations [N, C, H, W], bytes or 0 to 255, at a trunk [m]; pure."""
        named = self._trunk_layout.unflatten(trunk)
        found: Tensor = functional_call(
            self._encoder, {f"agent.{name}": part for name, part in named.items()}, (inputs,)
        )
        return found

    def dataset(self, task: int) -> TaskData:
        """A game as the imitation of a trained agent; observations are bytes. Made when it is first asked for."""
        return self.imitations.of(task).data

    def begin(self, task: int, copy: int, count: int, seed: int) -> Play:
        """Begin a game anew, in the `copy`-th set of its environments."""
        return Play(self._stages.get(self.names[task], copy, count), self.actions(task), seed)

    def filmed(self, task: int, seed: int) -> tuple[Play, Filmed]:
        """Begin a game in an environment of its own that also shows its screen; who asked for it closes it."""
        env = self._stages.filmed(self.names[task])
        return Play(Stage(env), self.actions(task), seed), env

    def close(self) -> None:
        """Let go of all environments."""
        self._stages.close()
