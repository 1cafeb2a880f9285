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

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from leap.errors import UsageError
from leap.layout import Layout
from leap.randomness import derive, generator
from tasks.actor_critic import Reduction, actor_critic_loss, clip_rewards, edges, legal_logits, targets
from tasks.agents import Agent, Head, initialize, initialize_head
from tasks.game_checks import check_loss, check_numbers, check_splits, one_shape
from tasks.play import Again, Make, Play, Record, Space, Stages, whole_episodes

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
        about: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_splits(train, test)
        check_numbers(environments=environments, unroll=unroll, evaluation_episodes=evaluation_episodes)
        check_loss(discount, 1.0 if gae is None else gae, clip_reward, reduction)
        self.seed, self.environments, self.unroll, self.device = seed, environments, unroll, torch.device(device)
        self.evaluation_episodes, self._about = evaluation_episodes, dict(about or {})
        self.names = (*train, *test)
        self._ids = {"train": range(len(train)), "validation": range(0), "test": range(len(train), len(self.names))}
        self._discount, self._decay, self._clip = discount, 1.0 if gae is None else gae, clip_reward
        self._life_cuts, self._weights = life_cuts, (value_weight, entropy, reduction)
        self._stages = Stages(make, environments, spaces or {})
        self._spaces = [self._stages.space(name) for name in self.names]
        self._options = (one_shape(self.names, self._spaces), max(space.actions for space in self._spaces), network)
        self.module = Agent(*self._options).to(self.device)
        self.layout = Layout.of(self.module, own_head=True)

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

    def policy(self, theta: Tensor, obs: Tensor, legal: Tensor | int) -> tuple[Tensor, Tensor]:
        """Logits [B, A] and values [B] of observations, uint8 [B, C, H, W], at theta [n]; illegal actions masked."""
        logits, values = functional_call(self.module, self.layout.unflatten(theta), (obs,))
        return legal_logits(logits, legal), values

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The actor-critic's loss of one task's roll-out at theta [n], and what `actor_critic_loss` records."""
        obs, actions, reward, terminated, truncated, life_lost, valid, legal = batch
        logits, values = self.policy(theta, obs[:-1].flatten(0, 1), legal)
        _, last = self.policy(theta.detach(), obs[-1], legal)  # what follows the roll-out is a constant
        logits, values = (x.unflatten(0, actions.shape) for x in (logits, values))
        known = torch.cat([values.detach(), last.unsqueeze(0)])
        own = edges(terminated, truncated, life_lost, valid, life_cuts=self._life_cuts)
        returns, advantages = targets(clip_rewards(reward, self._clip), known, own, self._discount, self._decay)
        return actor_critic_loss(logits, values, actions, returns, advantages, valid, *self._weights)

    def begin(self, task: int, copy: int, count: int, seed: int) -> Play:
        """Begin a game anew, in the `copy`-th set of its environments."""
        return Play(self._stages.get(self.names[task], copy, count), self.actions(task), seed)

    def close(self) -> None:
        """Let go of all environments."""
        self._stages.close()


class GameBatch:
    """T games walking together (a `leap.walk.TaskBatch`).

    There is no `query`: a learner that wants held-out data for its outer loss is given the next roll-out.
    """

    def __init__(self, family: Games, ids: Sequence[int], seeds: Sequence[int]) -> None:
        self.size, self.layout, self._family = len(ids), family.layout, family
        self._ids, self._seeds = tuple(ids), tuple(seeds)
        places = {task: place for place, task in enumerate(family.ids("train"))}
        self.heads = torch.tensor([places.get(task, 0) for task in ids], device=family.device)
        self.head_count = len(places)
        self._plays: list[Play] = []
        self._log: list[np.ndarray] = []  # actions of every roll-out, uint8 [T, L, E]
        self._last: tuple[Tensor, ...] | None = None
        self.loss = family.loss

    def start(self, theta0: Tensor) -> Tensor:
        """The same encoders [T, n] with heads drawn from the tasks' seeds."""
        heads = self._family.heads(self._ids, self._seeds).to(theta0)
        return torch.cat([theta0[:, : self.layout.trunk], heads], dim=1)

    @torch.no_grad()
    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, ...]:
        """Act for L steps in every environment of every task at theta [T, n]; the roll-out.

        Returns:
            obs uint8 [T, L + 1, E, C, H, W], actions int64 [T, L, E], reward float32 [T, L, E] (as it is), terminated,
            truncated, life_lost, valid bool [T, L, E], and numbers of legal actions int64 [T]. The step drawn last,
            asked for again, is the same roll-out whatever theta.

        Raises:
            UsageError: a step before the one drawn last, or beyond the next.
            RunError: another walk has taken the environments over.
        """
        drawn = len(self._log)
        if self._last is not None and step == drawn - 1:
            return self._last
        if step > drawn:
            raise UsageError(
                f"inner step {step} was asked for, but step {drawn} is the next; a game is played in order"
            )
        if step < drawn:
            raise UsageError(
                f"inner step {step} was asked for after step {drawn - 1}, but what was played cannot be played again: "
                "learners that go back over their walk (maml, anil, meta_sgd, leap with jacobian: exact) cannot learn "
                "games; choose leap with jacobian: identity, reptile, fomaml or finetune"
            )
        if len(theta) != self.size:
            raise ValueError(f"theta must be [{self.size}, n], one row a game, got shape {tuple(theta.shape)}")
        points = [self.layout.unflatten(row) for row in theta]
        found = self._roll(lambda task, play: play.choose(self._family.module, points[task]))
        self._last = self._placed(found)
        return self._last

    def keep(self) -> dict[str, Tensor]:
        """What to go on from: all actions so far, as no simulator can be kept, and the actions' streams."""
        actions = torch.from_numpy(np.stack(self._log)) if self._log else torch.empty(0, dtype=torch.uint8)
        streams = [play.stream.get_state() for play in self._plays]
        return {"actions": actions, "streams": torch.stack(streams) if streams else torch.empty(0, dtype=torch.uint8)}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Play again what was played, which takes the time of the simulator alone."""
        self._plays, self._log, self._last = [], [], None
        found = None
        for actions in kept["actions"].cpu().numpy():  # [T, L, E]
            found = self._roll(Again(actions))
        self._last = None if found is None else self._placed(found)
        for play, state in zip(self._plays, kept["streams"].cpu(), strict=True):
            play.stream.set_state(state.clone())  # of a view torch would read the wrong bytes

    def outcomes(self) -> dict[str, list[Any]]:
        """Whole episodes that ended in this walk, ready for JSON.

        Returns:
            `episodes`, by task: [agent step, score, length] in the order in which they ended. Agent steps are counted
            over all environments of the task, also those that an auto-reset ignores; scores are unclipped (None: not
            finite). The roll-out after the last inner step, where a fold asked for it, is among them.
        """
        if not self._plays:
            return {"episodes": [[] for _ in self._ids]}
        return {"episodes": [list(play.episodes) for play in self._plays]}

    @torch.no_grad()
    def score(self, theta: Tensor) -> dict[str, Tensor]:
        """`test_return` [T]: mean unclipped score of whole episodes at theta [T, n]; `test_loss`: minus that.

        Actions are drawn from the policy, in environments and from a stream of the score's own. Each environment is
        dealt a number of episodes beforehand, the first ones that it plays: to take those that end first would favour
        short ones. NaN where theta is not finite.
        """
        found = [self._score(row, place) for place, row in enumerate(theta)]
        returns = torch.tensor(found, device=theta.device, dtype=theta.dtype)
        return {"test_return": returns, "test_loss": -returns}

    def _score(self, theta: Tensor, place: int) -> float:
        if not bool(theta.isfinite().all()):
            return math.nan
        family, wanted = self._family, self._family.evaluation_episodes
        count, point = min(family.environments, wanted), self.layout.unflatten(theta)
        play = family.begin(self._ids[place], -1, count, derive(self._seeds[place], "score"))
        return math.fsum(whole_episodes(play, count, lambda it: it.choose(family.module, point), wanted)) / wanted

    def _roll(self, choose: Callable[[int, Play], np.ndarray]) -> Record:
        """A roll-out with the actions chosen by (task, game), recorded and logged."""
        family = self._family
        if not self._plays:
            self._plays = self._begin()
        found = Record(self.size, family.unroll, family.environments, self._plays[0].obs.shape[1:])
        for task, play in enumerate(self._plays):
            found.obs[task, 0] = play.obs
        for row in range(family.unroll):
            for task, play in enumerate(self._plays):  # the simulators of one game run while the next chooses
                found.actions[task, row] = choose(task, play)
                play.send(found.actions[task, row])
            for task, play in enumerate(self._plays):
                found.put(task, row, play.receive())
        self._log.append(found.actions.astype(np.uint8))
        return found

    def _placed(self, found: Record) -> tuple[Tensor, ...]:
        """A roll-out where parameters live, with the numbers of legal actions."""
        legal = torch.tensor([self._family.actions(task) for task in self._ids])
        return tuple(part.to(self._family.device) for part in (*found.tensors(), legal))

    def _begin(self) -> list[Play]:
        copies: dict[int, int] = {}
        plays = []
        for task, seed in zip(self._ids, self._seeds, strict=True):
            copies[task] = copies.get(task, -1) + 1
            plays.append(self._family.begin(task, copies[task], self._family.environments, seed))
        return plays
