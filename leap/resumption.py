"""Walks that survive a restart in their middle, for walks that take hours.

A `Keeper` is one file of one process. Every so many inner steps it replaces the file by where the process stands in its
meta-step: its share of the sum over walks that are finished, and of the one under way theta^i, the optimizer's state,
the folds' states, losses, and what tasks and stopping remember. The next process is given that back, if it is in the
same meta-step of the same plan from the same meta-parameters, and goes on: bit for bit as if nothing had been.

What is kept does not grow with the number of steps, but for the losses and what they recorded (a number a task and
step each), and the points that exact derivatives go back through. Tasks are taken to sample from (seed, step) alone
unless they have `keep` and `take_up` (`leap.walk.TaskBatch`). Files are safetensors with a digest: a kill while one is
written leaves the one before, and nothing in it can execute.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import torch
from torch import Tensor

from leap.curves import Curves
from leap.errors import RunError, UsageError
from leap.nested import Kinds, NotKept, kinds, placed, read, written
from leap.run import pack, unpack, write_atomic
from leap.steps import Steps

if TYPE_CHECKING:
    from leap.adjoint import Record
    from leap.steps import Stepper

DOCUMENT = "document"  # the tensor that is JSON: among the tensors, so that their digest covers it
UNREADABLE = (RunError, KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, RecursionError)


class Kept(Protocol):
    """What remembers something from step to step: tasks with a state of their own, a rule of stopping.

    Where `keep` needs what is not at hand at that time, a method `remember()` is called before the first step.
    """

    def keep(self) -> dict[str, Tensor]:
        """What to go on from after the step that was drawn last."""

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from what `keep` returned in an earlier process."""


def remembers(thing: object) -> TypeGuard[Kept]:
    """Whether something has a state of its own to keep."""
    return hasattr(thing, "keep") and hasattr(thing, "take_up")  # also where another object answers for it


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


class Keeper:
    """Where one process keeps how far it is in a meta-step.

    Args:
        path: Its file; no other process's.
        every: Inner steps between states that are kept.
        about: What the walks depend on beyond what they are told by whoever walks: other words, another file.
        say: Takes what there is to tell a person.

    Attributes:
        part: What was given to `finished` last in this meta-step, here or in an earlier process; None: nothing yet.
        fresh: No meta-step was opened: only the first one can have been begun by an earlier process.

    A meta-step is `open`, then walks with `keep=` this keeper and `finished` after each. The trainer does that.

    Example:
        >>> import tempfile
        >>> from leap import optim
        >>> from leap.walk import walk
        >>> class Slope:                                     # f(theta) = sum(theta): every step subtracts 1
        ...     last = None
        ...     def sample(self, theta, step):
        ...         if step == self.last: raise InterruptedError
        ...     def loss(self, theta, batch): return theta.sum(), {}
        >>> path = Path(tempfile.mkdtemp()) / "walk.safetensors"
        >>> def attempt(tasks):
        ...     keeper = Keeper(path, every=2)
        ...     keeper.open("an example", torch.device("cpu"))
        ...     return walk(tasks, torch.zeros(1), steps=6, optimizer=optim.sgd(1.0), keep=keeper)
        >>> slope = Slope(); slope.last = 5
        >>> try: attempt(slope)
        ... except InterruptedError: print("killed in step 5")
        killed in step 5
        >>> slope = Slope(); slope.last = 3                  # which will not come again: step 4 comes next
        >>> attempt(slope).losses
        tensor([[ 0., -1., -2., -3., -4., -5.]])
    """

    def __init__(self, path: Path, every: int, about: str = "", say: Callable[[str], None] = _to_stderr) -> None:
        if every < 1:
            raise ValueError(f"a walk is kept every 1 step or less often, got every {every}")
        self.path, self.every, self._about, self.say = path, every, about, say
        self.fresh, self._purpose = True, ""
        self.part: Any = None
        self._found: tuple[Any, dict[str, Tensor]] | None = None
        self._walking = False
        self._asked: type[BaseException] | None = None

    def open(self, purpose: str, device: torch.device) -> bool:
        """Begin a meta-step.

        Args:
            purpose: Words that are equal for equal meta-steps, and differ between others.
            device: Of the walk.

        Returns:
            Whether an earlier process kept anything of this meta-step.
        """
        self._purpose, self.part, self._found = f"{self._about} {purpose}", None, None
        self._walking, self._asked = False, None
        fresh, self.fresh = self.fresh, False
        if not fresh or not self.path.exists():
            return False
        try:
            tensors, _ = unpack(self.path)
            document = json.loads(tensors.pop(DOCUMENT).numpy().tobytes())
            same = document["purpose"] == self._purpose
            if same:
                tensors = placed(tensors, device)
                self.part, self._found = read(document["part"], {}, tensors), (document["walk"], tensors)
        except UNREADABLE as error:
            self.say(f"{error or type(error).__name__}; the meta-step begins anew")
            return False
        if not same:
            self.say(
                f"{self.path} was kept in another meta-step, or from another initialization or plan; "
                "the meta-step begins anew"
            )
        return bool(same)

    def anew(self) -> None:
        """Begin the meta-step from its beginning, whatever was found."""
        self.part, self._found = None, None

    def finished(self, part: Any) -> None:
        """Keep what a walk that came to its end has left, with all that was finished before it: a nested state."""
        self.part, self._walking = part, False
        self._write(None, {})
        self._leave()

    def forget(self) -> None:
        """Remove the file: what it was for is kept elsewhere."""
        self.path.unlink(missing_ok=True)

    def ask(self, ending: type[BaseException]) -> bool:
        """Ask for an end: the walk under way is kept at its next step, and `ending` is raised there.

        Returns:
            Whether a walk is under way that will do that; not if it was asked before.
        """
        if not self._walking or self._asked is not None:
            return False
        self._asked = ending
        return True

    def follow(self, record: Record, stepper: Stepper, tasks: Any, stop: Any) -> Following:
        """Attend to a walk, which goes on where an earlier process kept it, if one did."""
        if not isinstance(stepper, Steps):
            raise ValueError("recorded and compiled steps cannot be kept; walk batched or sequential")
        if stop is not None and not remembers(stop):
            raise ValueError("`stop` must have keep() and take_up() where a walk is kept; see leap.stopping.early")
        others = {name: thing for name, thing in (("tasks", tasks), ("stop", stop)) if remembers(thing)}
        for thing in others.values():
            if hasattr(thing, "remember"):
                thing.remember()
        found, self._found = self._found, None
        following = Following(self, record, stepper, others)
        if found is not None and found[0] is not None:
            following.take_up(*found)
        self._walking = True
        return following

    def due(self, step: int) -> bool:
        """Whether to keep the state after so many steps."""
        return step % self.every == 0 or self._asked is not None

    def keep(self, state: Any, known: Kinds) -> None:
        """Write the state of the walk under way; raises what was asked for."""
        self._write(state, known)
        self._leave()

    def _leave(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            self._walking = False
            raise asked

    def _write(self, walk: Any, known: Kinds) -> None:
        tensors: dict[str, Tensor] = {}
        try:
            document = {
                "purpose": self._purpose,
                "part": written(self.part, {}, tensors),
                "walk": None if walk is None else written(walk, known, tensors),
            }
        except NotKept as error:
            raise UsageError(
                f"this walk cannot be kept (train.keep_every): its learner or a measurement holds {error}. "
                "Kept are tensors, numbers, text, None, and tuples, lists and dictionaries of these"
            ) from error
        # a copy: the bytes belong to Python
        tensors[DOCUMENT] = torch.frombuffer(bytearray(json.dumps(document).encode()), dtype=torch.uint8)
        write_atomic(self.path, pack(tensors, {}))


class Following:
    """One walk, attended to by a keeper.

    Attributes:
        first: Steps that were taken in an earlier process.
        curves: What they left behind, and those after them are to leave.
    """

    def __init__(self, keeper: Keeper, record: Record, stepper: Steps, remembers: Mapping[str, Kept]) -> None:
        self.first, self.due = 0, keeper.due
        self._keeper, self._record, self._stepper, self._remembers = keeper, record, stepper, remembers
        # what a walk may hold later it holds at its start, as far as named tuples go
        self._known = kinds(stepper.point()[1], stepper.finish()[1])
        self.curves = Curves()

    def take_up(self, node: Any, tensors: Mapping[str, Tensor]) -> None:
        """Stand where the walk was kept; at its start where that cannot be understood."""
        try:
            state = read(node, self._known, tensors)
            theta, remembered = state["theta"], state["remembers"]
            if state["steps"] != self._record.steps or theta.shape != self._record.theta0.shape:
                raise ValueError(f"a walk of {state['steps']} steps, theta {tuple(theta.shape)}")
            if state["folds"].keys() != self._stepper.finish()[1].keys() or remembered.keys() != self._remembers.keys():
                raise ValueError(f"a walk with {[*state['folds'], *remembered]}")
        except UNREADABLE as error:
            self._keeper.say(f"{self._keeper.path} holds another walk ({error}); this walk begins anew")
            return
        self._stepper.stand(theta, state["optimizer"], state["folds"])
        self._record.points.update(state["points"])
        for name, kept in remembered.items():
            self._remembers[name].take_up(kept)
        self.first, self.curves = state["step"], Curves(state["losses"], state["recorded"])

    @contextmanager
    def doubted(self, step: int) -> Iterator[None]:
        """What comes first after a walk was taken up: where it cannot be computed, what was kept is of another walk.

        Raises:
            RunError: that is so.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if step != self.first or step == 0:
                raise
            path, why = self._keeper.path, " ".join(str(error).split())
            raise RunError(f"{path} holds another walk ({why}); remove it, and the meta-step begins anew") from error

    def keep(self, step: int) -> None:
        """Keep the walk after so many steps, which are in `curves`."""
        losses, recorded = self.curves.whole()
        (theta, optimizer), (_, folds) = self._stepper.point(), self._stepper.finish()
        remembered = {name: kept.keep() for name, kept in self._remembers.items()}
        state = {
            "step": step, "steps": self._record.steps, "theta": theta, "optimizer": optimizer, "folds": folds,
            "points": self._record.points, "losses": losses, "recorded": recorded, "remembers": remembered,
        }  # fmt: skip
        self._keeper.keep(state, self._known)
