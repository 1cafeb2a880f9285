"""Games that walk together: acting with the current parameters, and roll-outs that are played once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from leap.errors import UsageError
from leap.randomness import derive
from tasks.acted import Acted
from tasks.game_logs import figures
from tasks.play import Again, Choose, Play, Record, beside_simulators, one_by_one, together, whole_episodes

if TYPE_CHECKING:
    from tasks.games import Games


class GameBatch:
    """T games walking together (a `leap.walk.TaskBatch`).

    There is no `query`: a learner that wants held-out data for its outer loss is given the next roll-out.
    """

    once = (
        "what was played cannot be played again: learners that go back over their walk (maml, anil, meta_sgd, leap "
        "with jacobian: exact) cannot learn games; choose leap with jacobian: identity, reptile, fomaml or finetune"
    )

    def __init__(self, family: Games, ids: Sequence[int], seeds: Sequence[int]) -> None:
        self.size, self.layout, self._family = len(ids), family.layout, family
        self._ids, self._seeds = tuple(ids), tuple(seeds)
        places = {task: place for place, task in enumerate(family.ids("train"))}
        self.heads = torch.tensor([places.get(task, 0) for task in ids], device=family.device)
        self.head_count = len(places)
        self._plays: list[Play] = []
        self._drawn = self._again = 0  # roll-outs, and those of them that were played again
        self._log: list[np.ndarray] | None = None  # actions of every roll-out, uint8 [T, L, E], where they are kept
        self._last: tuple[Tensor, ...] | None = None
        self._acted: Acted | None = None
        self._noting = True
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
        drawn = self._drawn
        if self._last is not None and step == drawn - 1:
            return self._last
        if step > drawn:
            raise UsageError(
                f"inner step {step} was asked for, but step {drawn} is the next; a game is played in order"
            )
        if step < drawn:
            raise UsageError(f"inner step {step} was asked for after step {drawn - 1}, but {self.once}")
        if len(theta) != self.size:
            raise ValueError(f"theta must be [{self.size}, n], one row a game, got shape {tuple(theta.shape)}")
        acted = self._room(theta)
        self._last = self._placed(self._roll(self._policy(theta, acted)))
        if acted is not None:
            acted.hold(theta, self._last[0])
        self._family.acted = self._acted = acted
        return self._last

    def _room(self, theta: Tensor) -> Acted | None:
        """Where to note what acting computes, if a loss may want it; what was noted before is let go."""
        if self._acted is not None and not self._acted.used:
            self._noting = False  # nobody asked for it: losses of several games are evaluated together, or none is
        self._family.acted = self._acted = None
        if not self._noting or theta.device.type != "cpu" or self._at_once(theta):
            return None
        if torch.is_inference_mode_enabled() or theta.is_inference():  # torch does not count what is written there
            return None
        return Acted(self.size, self._family.unroll)

    def _at_once(self, theta: Tensor) -> bool:
        way = self._family.acting
        return way == "batched" or (way == "auto" and theta.device.type != "cpu" and self.size > 1)

    def _policy(self, theta: Tensor, acted: Acted | None) -> Choose:
        if self._at_once(theta):
            return together(self._family.module, self.layout.unflatten(theta))
        return one_by_one(self._family.module, [self.layout.unflatten(row) for row in theta], acted)

    def remember(self) -> None:
        """Note the actions from the first step on, a byte each, so that the walk can be kept."""
        self._log = []

    def keep(self) -> dict[str, Tensor]:
        """What to go on from: all actions so far, as no simulator can be kept, and the actions' streams.

        Raises:
            ValueError: actions were not noted (`remember`).
        """
        if self._log is None:
            raise ValueError("actions were not noted from the first step on; call remember() before it")
        actions = torch.from_numpy(np.stack(self._log)) if self._log else torch.empty(0, dtype=torch.uint8)
        streams = [play.stream.get_state() for play in self._plays]
        return {"actions": actions, "streams": torch.stack(streams) if streams else torch.empty(0, dtype=torch.uint8)}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Play again what was played, which takes the time of the simulator alone."""
        self._plays, self._log, self._last, self._drawn = [], [], None, 0
        found = None
        for actions in kept["actions"].cpu().numpy():  # [T, L, E]
            found = self._roll(Again(actions))
        self._last, self._again = None if found is None else self._placed(found), self._drawn
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

    def figures(self) -> dict[str, Tensor]:
        """What is logged of this walk (`tasks.game_logs`), [T] each."""
        family, acted = self._family, self._drawn - self._again
        names = [family.name(task) for task in self._ids]
        return figures(family.names, names, self._plays, acted * family.unroll * family.environments)

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

    @beside_simulators()
    def _score(self, theta: Tensor, place: int) -> float:
        if not bool(theta.isfinite().all()):
            return math.nan
        family, wanted = self._family, self._family.evaluation_episodes
        count, point = min(family.environments, wanted), self.layout.unflatten(theta)
        play = family.begin(self._ids[place], -1, count, derive(self._seeds[place], "score"))
        return math.fsum(whole_episodes(play, count, lambda it: it.choose(family.module, point), wanted)) / wanted

    @beside_simulators()
    def _roll(self, choose: Choose) -> Record:
        """A roll-out with the actions chosen, recorded and logged."""
        family = self._family
        if not self._plays:
            self._plays = self._begin()
        found = Record(self.size, family.unroll, family.environments, self._plays[0].obs.shape[1:])
        for task, play in enumerate(self._plays):
            found.obs[task, 0] = play.obs
        for row in range(family.unroll):
            for task, actions in enumerate(choose(self._plays)):
                found.actions[task, row] = actions
                self._plays[task].send(found.actions[task, row])
            for task, play in enumerate(self._plays):
                found.put(task, row, play.receive())
        self._drawn += 1
        if self._log is not None:
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
