r"""Progressive Nets: a column a task, which reads the columns of all others, `Rusu et al. 2016 <https://arxiv.org/abs/1606.04671>`_.

What is taken here, and differs from that paper, is what Leap's authors ran: not a sequence of tasks, but tasks visited
again and again, with laterals between all of them. Decided here, since their code was not released:

- Laterals are linear, equation 1, with no adapters: matrices over channels (convolutions of 1 x 1), summed up before
  normalization. The first stage reads the image alone, and a head its own column alone.
- In a task's turn its column, the laterals into it and its head move. The other columns and what they read stay.
- Columns read each other in circles, where the paper's read earlier ones. What the other columns make of the one that
  moves carries no gradient back to it: to it they are inputs, as the paper's are.
- Columns start from random initializations of their own, laterals from zero: a column starts as if alone.
- A held-out task gets a column that starts where "no pretraining" starts, and a fresh head. It reads all pretraining
  columns, and they do not read it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from leap.columns import Frozen, lateral_size, logits
from leap.errors import UsageError
from leap.learners.reptile import reptile
from leap.optim import Optimizer
from leap.randomness import derive
from leap.stages import Staged
from leap.visits import Turn, Visits
from leap.walk import Fold

if TYPE_CHECKING:
    from leap.trainer import Family


def progressive() -> Fold:
    r"""Progressive Nets as a learner that visits the tasks one after another.

    .. math:: h_i^k = f_i\Bigl(W_i^k h_{i-1}^k + \sum_{j \ne k} U_i^{k:j} h_{i-1}^j\Bigr)

    The meta-parameters are `[theta | a row a task]`, a row being `[trunk | laterals from the other tasks | head]`.
    theta is not trained: it is the random initialization that a held-out task's column starts from.

    With M tasks, a trunk of t and a head of h parameters and L entries of the laterals from one column to another
    (`leap.columns.lateral_size`), the rows are M (t + (M - 1) L + h) parameters (`parameters`). Leap's authors count
    more than 8 times as many as in the other methods.

    Returns:
        A fold with `visits`. The meta-gradient of a turn is where the turn's vector stood less where it stands.
    """
    return reptile()._replace(visits=Visits(_begin, _open, _close))


def parameters(network: Staged, count: int) -> int:
    """Parameters of `count` tasks' columns, laterals and heads.

    Example:
        >>> from types import SimpleNamespace
        >>> conv4 = SimpleNamespace(channels=(64, 64, 64, 64), layout=SimpleNamespace(n=115_658))
        >>> [parameters(conv4, tasks) // parameters(conv4, 1) for tasks in (1, 9)]
        [1, 16]
    """
    return count * (network.layout.n + (count - 1) * lateral_size(network))


def _begin(family: Family, seed: int) -> Tensor:
    """Rows of all tasks: random columns and heads, laterals of zero."""
    network: Staged | None = getattr(family, "network", None)
    if network is None:
        raise UsageError(
            f"progressive nets need a network in stages, and {type(family).__name__} has none; "
            "use a family with `network`, such as multi_cv"
        )
    count = len(family.ids("train"))
    return torch.cat([_new_row(network, family.initial(derive(seed, "column", k)), count - 1) for k in range(count)])


def _open(meta: Tensor, tasks: Any, *, steps: int, optimizer: Optimizer, seed: int, new: bool) -> Turn:
    """A task's turn, or a held-out task's training."""
    network: Staged = tasks.network
    count, n = tasks.head_count, network.layout.n
    rows = meta[n:].unflatten(0, (count, -1))
    if new:
        theta0, read = _new_row(network, tasks.start(meta[None, :n])[0], count), list(range(count))
        around = _around(network, rows, read)
    else:
        place = int(tasks.heads[0])
        theta0, read = rows[place].clone(), [number for number in range(count) if number != place]
        around = _around(network, rows[read], [*read, place])
    return Turn(tasks.through(functools.partial(logits, network, around)), theta0, optimizer)


def _new_row(network: Staged, theta: Tensor, count: int) -> Tensor:
    """theta [n] with laterals of zero from `count` columns between trunk and head."""
    trunk = network.layout.trunk
    return torch.cat([theta[:trunk], theta.new_zeros(count * lateral_size(network)), theta[trunk:]])


def _around(network: Staged, rows: Tensor, numbers: list[int]) -> Frozen | None:
    """The columns [F, row] that a column reads, in the order of `numbers`."""
    if len(rows) == 0:
        return None
    trunk, head = network.layout.trunk, network.layout.n - network.layout.trunk
    return Frozen(network, rows[:, :trunk], rows[:, trunk : rows.shape[1] - head], numbers)


def _close(meta: Tensor, tasks: Any, theta: Tensor) -> Tensor:
    """The same meta-parameters with the task's row as its turn left it."""
    ahead = len(meta) - tasks.head_count * len(theta)
    start = ahead + int(tasks.heads[0]) * len(theta)
    return torch.cat([meta[:start], theta, meta[start + len(theta) :]])
