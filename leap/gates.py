"""Gates over the units of a network and what a task owns of them: the vector functions of `leap.learners.hat`.

U units (channels of all stages) in one vector; a task's gates are a sigmoid of its embedding, sharper as training goes.
"""

from __future__ import annotations

import torch
from torch import Tensor

WIDEST = 6.0  # embeddings are kept within plus and minus this
STEEPEST = 50.0  # of the sharpened embedding, where the compensation's cosh is cut off


def sharpness(step: int, batches: int, sharpest: float) -> float:
    r"""The sharpness at a step, rising linearly and anew every `batches` steps.

    .. math:: s = \tfrac{1}{s_{max}} + (s_{max} - \tfrac{1}{s_{max}}) \tfrac{b}{B - 1}, \quad b = i \bmod B

    Args:
        step: i, from 0.
        batches: B, at least 1; a single batch is trained at the largest sharpness.
        sharpest: s_max.

    Equation 3 of the paper: the last batch has s_max. (The authors' code counts images, and ends a batch below it.)

    Example:
        >>> [sharpness(i, 3, 400.0) for i in range(4)]
        [0.0025, 200.00125, 400.0, 0.0025]
    """
    if batches == 1:
        return sharpest
    return 1 / sharpest + (sharpest - 1 / sharpest) * (step % batches) / (batches - 1)


def gates(embedding: Tensor, s: Tensor | float) -> Tensor:
    r"""Gates [..., U] in [0, 1] of embeddings [..., U] at sharpness s.

    .. math:: a = \sigma(s e)

    An open gate is computed as `1 - sigma(-s e)`: the same number, and a gradient that is as exact as a closed gate's.
    In float32 that of `sigma(s e)` itself is zero from s e = 17 on, so that open gates would never close again.

    Example:
        >>> gates(torch.tensor([-1.0, 0.0, 1.0]), 400.0)
        tensor([0.0000, 0.5000, 1.0000])
    """
    is_open = embedding > 0
    rest = torch.sigmoid(torch.where(is_open, -embedding, embedding) * s)  # at most a half
    return torch.where(is_open, 1 - rest, rest)


def owned(embeddings: Tensor, tasks: Tensor, sharpest: float) -> Tensor:
    r"""How much of each unit tasks own, [U] in [0, 1]: the largest of their gates at s_max.

    Args:
        embeddings: Of all tasks, [M, U].
        tasks: Which of them count, bool [M]; nobody owns anything where none does.
        sharpest: s_max.

    Example:
        >>> embeddings = torch.tensor([[1.0, -1.0], [-2.0, 2.0]])
        >>> owned(embeddings, torch.tensor([True, False]), 400.0)
        tensor([1., 0.])
    """
    return (gates(embeddings, sharpest) * tasks[:, None]).amax(dim=0)


def claim(own: Tensor, others: Tensor) -> Tensor:
    r"""The share of the units free of others that a task claims: what the regularizer keeps small.

    .. math:: R = \frac{\sum_u a_u (1 - o_u)}{\sum_u (1 - o_u)}

    Args:
        own: a, the gates of the task in training, [U].
        others: o, what others own, [U].

    Returns:
        A scalar in [0, 1]; zero, and not NaN, where others own everything.

    Example:
        >>> claim(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
        tensor(0.5000)
    """
    free = 1 - others
    return (own * free).sum() / free.sum().clamp_min(torch.finfo(free.dtype).tiny)


def mobility(others: Tensor, out: Tensor, into: Tensor) -> Tensor:
    r"""How far each weight may move, [..., trunk] in [0, 1].

    .. math:: 1 - \min(o_i, o_j)

    Args:
        others: o, what other tasks own of each unit, [..., U].
        out, into: The unit i that each weight makes and the unit j that it reads, int64 [trunk]. The number U counts
            as owned: a weight that reads the image, a bias and a normalization are held by the unit they make alone.

    Example:
        >>> others, out, into = torch.tensor([1.0, 0.0]), torch.tensor([0, 1, 1]), torch.tensor([2, 0, 2])
        >>> mobility(others, out, into)
        tensor([0., 1., 1.])
    """
    padded = torch.cat([others, torch.ones_like(others[..., :1])], dim=-1)
    return 1 - torch.minimum(padded[..., out], padded[..., into])


def compensated(grad: Tensor, embedding: Tensor, s: float, sharpest: float) -> Tensor:
    r"""The gradient of embeddings made up for the sharpness it was taken at.

    .. math:: q' = \frac{s_{max} [\cosh(s e) + 1]}{s [\cosh(e) + 1]} q, \quad |s e| \le 50

    Args:
        grad: q [..., U], through gates of sharpness s.
        embedding: e [..., U].
        s: The sharpness.
        sharpest: s_max.

    Within the bound this is s_max times the gradient that gates of sharpness 1 would have passed on: the derivative of
    `sigma(s e)` is `s / (2 cosh(s e) + 2)`. It keeps embeddings moving both where s is small and where it is large.

    Example:
        >>> compensated(torch.ones(1), torch.zeros(1), 0.5, 400.0)
        tensor([800.])
    """
    steep = (embedding * s).clamp(-STEEPEST, STEEPEST).cosh() + 1
    return grad * steep / (embedding.cosh() + 1) * (sharpest / s)
