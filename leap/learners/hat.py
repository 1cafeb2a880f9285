"""Hard attention to the task: units gated by task, and held against the tasks that come after.

The decisions that the paper and its released code leave open or take differently stand here, once:

- Tasks are visited again and again (the non-sequential variant of Leap's second experiment). What protects a unit is
  its use by the *other* tasks visited so far, so a task may go on changing what it alone owns.
- The sharpness rises from 1 / s_max to s_max in every epoch, as the paper has it, and over the visit where the tasks
  tell no `epoch` or the visit is shorter than one. Batches beyond the visit, and scores, have s_max.
- The mask multiplies the update's displacement instead of its gradient. For SGD, momentum included, that is the same
  update; and with weight decay or Adam, which move a parameter whose gradient is zero or tiny, what is held stays put.
- Units are channels. Biases and normalizations are held with the channel that they make; heads are a task's own.
- Left out: the authors clip gradients at a norm of 10000, and go back to the best of the epochs.

What is held is held as far as gates are binary: a unit whose embedding is within some 10 / s_max of zero is owned in
part, and moves in part. A stage whose gates all close passes nothing on, and was not seen to open again. Few units, a
large `pressure` or a large inner learning rate lead there: c pushes embeddings by up to rate * s_max c / (4 U) a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from leap.gates import WIDEST, claim, compensated, gates, mobility, owned, sharpness
from leap.optim import Optimizer, State
from leap.randomness import derive, generator
from leap.stages import Staged
from leap.visits import Turn, Visits
from leap.walk import Fold

if TYPE_CHECKING:
    from leap.trainer import Family


def hat(pressure: float = 0.75, sharpest: float = 400.0) -> Fold:
    r"""HAT, `Serra et al. 2018 <https://arxiv.org/abs/1801.01423>`_, visiting tasks again.

    .. math::
        a^t = \sigma(s e^t), \quad h_l = a^t_l \circ h_l, \quad
        g_{ij} \leftarrow [1 - \min(o_i, o_j)] g_{ij}, \quad o = \max_{t' \neq t} \sigma(s_{max} e^{t'}), \quad
        f + c \frac{\sum_u a_u (1 - o_u)}{\sum_u (1 - o_u)}

    Args:
        pressure: c, the weight of the share of free units that a task's gates claim; at least 0.
        sharpest: s_max, above 1: the sharpness of gates in tests, and what that of training rises to.

    Returns:
        A fold with `visits` (`leap.visits`), for tasks with a `network` in stages (`leap.stages.Staged`). As a fold
        alone it is that of a plain walk, theta^0 - theta^K.

    Raises:
        ValueError: a number outside its bounds.

    The meta-parameters are `[theta | M heads | M embeddings | M flags, 1 once visited]` for M tasks; theta's own head
    is not used. A turn trains `[trunk | head | embedding | o]`, of which o stays as it is. A held-out task begins with
    a fresh head and embedding, and all that pretraining owns is held.

    Example:
        >>> hat(pressure=1.0).visits is not None
        True
    """
    if not 0 <= pressure < float("inf"):
        raise ValueError(f"pressure must be a finite number of at least 0, got {pressure}")
    if not 1 < sharpest < float("inf"):
        raise ValueError(f"sharpest must be a finite number above 1, got {sharpest}")

    def open_turn(meta: Tensor, tasks: Any, *, steps: int, optimizer: Optimizer, seed: int, new: bool) -> Turn:
        network: Staged = tasks.network
        known, place = _parts(meta.detach(), network, tasks.head_count), int(tasks.heads[0])
        others = known.visited > 0.5
        if new:
            head = tasks.start(known.theta[None])[0, network.layout.trunk :]
            embedding = torch.randn(
                known.embeddings.shape[1], generator=generator(seed, "hat", "new"), dtype=meta.dtype
            )
        else:
            others = others & (torch.arange(len(others), device=others.device) != place)
            head, embedding = known.heads[place], known.embeddings[place]
        trunk, held = known.theta[: network.layout.trunk], owned(known.embeddings, others, sharpest)
        rise = _rise(steps, min(steps, int(getattr(tasks, "epoch", steps))), sharpest)
        turn = torch.cat([trunk, head, embedding.to(meta.device), held])
        return Turn(Gated(tasks, rise, pressure, sharpest), turn, _guarded(optimizer, network, rise, sharpest))

    return Fold(
        start=lambda theta0: None,
        step=lambda state, s: None,
        finish=lambda state, end: end.theta0 - end.theta,
        visits=Visits(_begin, open_turn, _close),
    )


class _Parts(NamedTuple):
    """Views of the meta-parameters, for M tasks."""

    theta: Tensor  # [n]
    heads: Tensor  # [M, n - trunk]
    embeddings: Tensor  # [M, U]
    visited: Tensor  # [M], 0 or 1


def _parts(meta: Tensor, network: Staged, count: int) -> _Parts:
    n, units = network.layout.n, sum(network.channels)
    sizes = [n, count * (n - network.layout.trunk), count * units, count]
    if meta.shape != (sum(sizes),):
        raise ValueError(
            f"HAT's meta-parameters for {count} tasks are [{sum(sizes)}], got {tuple(meta.shape)}; "
            "they begin as [theta | visits.begin(family, seed)]"
        )
    theta, heads, embeddings, visited = meta.split(sizes)
    return _Parts(theta, heads.unflatten(0, (count, -1)), embeddings.unflatten(0, (count, -1)), visited)


def _begin(family: Family, seed: int) -> Tensor:
    """A random head and embedding for each pretraining task, none of which was visited."""
    network: Staged = family.network  # type: ignore[attr-defined]
    count, units = len(family.ids("train")), sum(network.channels)
    heads = [family.initial(derive(seed, "hat", "head", i))[network.layout.trunk :] for i in range(count)]
    drawn = torch.randn(count * units, generator=generator(seed, "hat", "embeddings"), dtype=heads[0].dtype)
    return torch.cat([*heads, drawn.to(heads[0].device), heads[0].new_zeros(count)])


def _close(meta: Tensor, tasks: Any, theta: Tensor) -> Tensor:
    """The meta-parameters with a turn's trunk, and the task's head, embedding and flag, put back."""
    found, layout = meta.detach().clone(), tasks.network.layout
    known, place = _parts(found, tasks.network, tasks.head_count), int(tasks.heads[0])
    known.theta[: layout.trunk] = theta[: layout.trunk]
    known.heads[place] = theta[layout.trunk : layout.n]
    known.embeddings[place] = theta[layout.n :].chunk(2)[0]
    known.visited[place] = 1
    return found


def _rise(steps: int, batches: int, sharpest: float) -> Callable[[int], float]:
    """The sharpness of every step of a visit."""
    return lambda step: sharpness(step, batches, sharpest) if step < steps else sharpest


class Gated:
    """One task through gated stages, over `[trunk | head | embedding | what others own]`.

    Args:
        tasks: A batch of one task, with a network in stages.
        rise: Sharpness by step.
        pressure, sharpest: As in `hat`.
    """

    size = 1

    def __init__(self, tasks: Any, rise: Callable[[int], float], pressure: float, sharpest: float) -> None:
        self._network: Staged = tasks.network
        self._inner = tasks.through(self._logits)  # over [trunk | head | gates]
        self._rise, self._pressure, self._sharpest = rise, pressure, sharpest

    def sample(self, theta: Tensor, step: int) -> tuple[Any, Tensor]:
        """The task's batch, and the sharpness of the step [1]."""
        s = self._rise(step)
        return self._inner.sample(self._gated(theta, s), step), theta.new_full((len(theta),), s)

    def loss(self, theta: Tensor, batch: tuple[Any, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The task's own loss and c R."""
        own, s = batch
        gated = self._gated(theta, s)
        value, aux = self._inner.loss(gated, own)
        held = theta[self._network.layout.n :].chunk(2)[1].detach()
        return value + self._pressure * claim(gated[self._network.layout.n :], held), aux

    def score(self, theta: Tensor) -> dict[str, Tensor]:
        """The task's own scores, with gates at s_max."""
        found: dict[str, Tensor] = self._inner.score(self._gated(theta, self._sharpest))
        return found

    def validation_error(self, theta: Tensor) -> Tensor:
        """The task's own, with gates at s_max."""
        found: Tensor = self._inner.validation_error(self._gated(theta, self._sharpest))
        return found

    def _gated(self, theta: Tensor, s: Tensor | float) -> Tensor:
        """[trunk | head | gates], for [..., p]."""
        n = self._network.layout.n
        return torch.cat([theta[..., :n], gates(theta[..., n:].chunk(2, dim=-1)[0], s)], dim=-1)

    def _logits(self, theta: Tensor, images: Tensor, rows: int | None) -> Tensor:
        network = self._network
        named = network.layout.unflatten(theta[: network.layout.n])
        x = images
        for number, own in enumerate(theta[network.layout.n :].split(network.channels)):
            x = network.stage(number, named, x, rows) * own[:, None, None]
        return network.head(named, x)


@lru_cache(maxsize=2)  # the same tensors at every visit, so that what was recorded of an update serves the next
def _units(network: Staged) -> tuple[Tensor, Tensor]:
    return network.units()


def _guarded(optimizer: Optimizer, network: Staged, rise: Callable[[int], float], sharpest: float) -> Optimizer:
    """The same update with embeddings compensated and kept in bounds, and with what others own held in place."""
    n, trunk, units = network.layout.n, network.layout.trunk, sum(network.channels)
    out, into = _units(network)  # type: ignore[arg-type]  # a protocol does not say that its objects can be hashed

    def init(theta: Tensor, extra: Tensor) -> State:
        held = theta[:, n + units :]
        moves = mobility(held, out.to(theta.device), into.to(theta.device))
        free = torch.ones_like(theta[:, trunk : n + units])
        return torch.cat([moves, free, torch.zeros_like(held)], dim=1), *optimizer.init(theta, extra)

    def update(state: State, grad: Tensor, theta: Tensor, step: int) -> tuple[Tensor, State]:
        weights, gradient, held = grad.split([n, units, units], dim=1)
        embedding = theta[:, n : n + units]
        steeper = compensated(gradient, embedding, rise(step), sharpest)
        moved, own = optimizer.update(state[1:], torch.cat([weights, steeper, held], dim=1), theta, step)
        moved = torch.lerp(theta, moved, state[0])  # exact at both ends: theta where 0, moved where 1
        bounded = moved[:, n : n + units].clamp(-WIDEST, WIDEST)
        return torch.cat([moved[:, :n], bounded, moved[:, n + units :]], dim=1), (state[0], *own)

    return Optimizer(init, update)
