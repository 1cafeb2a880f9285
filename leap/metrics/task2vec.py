"""Task2Vec: a task as the vector of what a fixed probe network's filters mean to it, and distances of such vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def task_embedding(diagonal: Tensor, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    r"""Embedding of a task: the probe network's diagonal Fisher, averaged over each filter.

    .. math:: h_f = \frac{1}{|f|} \sum_{k \in f} F_{kk}

    Args:
        diagonal: Diagonal Fisher of the probe with the task's head on it, without the head, [m]
            (`fisher_diagonal(...)[:layout.trunk]`).
        shapes: Shapes of the parameters in the order of the vector (`layout.shapes`); those beyond m, the head, are not
            used. A filter is an index on the first axis of a weight, that is of a parameter with two or more axes.

    Returns:
        [number of filters], float64, not negative, in the order of the parameters; unit as the diagonal's.

    Raises:
        ValueError: a diagonal that ends inside a parameter or holds no weight, with negative or non-finite entries.

    Example:
        >>> task_embedding(torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0, 9.0]), [(2, 2), (2,), (3, 2)])   # weight, bias, head
        tensor([2., 6.], dtype=torch.float64)

    Reference: Achille et al. 2019, https://arxiv.org/abs/1902.03545.

    Variant: the Fisher is per sample, where the released code's Monte Carlo form returns it divided by the batch size,
    so that its embeddings compare at one batch size only. Parameters with one axis (biases, scales of norms) are left
    out; the released code leaves out biases and keeps the scales.
    """
    diagonal = _embedding(diagonal, "diagonal")
    parts, start = [], 0
    for shape in shapes:
        stop = start + torch.Size(shape).numel()
        if start == len(diagonal):
            break
        if stop > len(diagonal):
            raise ValueError(
                f"a diagonal of {len(diagonal)} entries ends inside the parameter at {start} .. {stop - 1}"
            )
        if len(shape) > 1:
            parts.append(diagonal[start:stop].reshape(shape[0], -1).mean(dim=1))
        start = stop
    if start != len(diagonal):
        raise ValueError(f"shapes hold {start} entries, but the diagonal has {len(diagonal)}; use its own layout")
    if not parts:
        raise ValueError(
            f"no parameter with two or more axes in the first {len(diagonal)} entries, so there is no filter"
        )
    return torch.cat(parts)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Cosine distance of two embeddings, each entry taken relative to the sum of both.

    .. math:: 1 - \cos\left( \frac{h_a}{h_a + h_b}, \frac{h_b}{h_a + h_b} \right)

    Args:
        a: Embedding of a task, [F].
        b: Embedding of another, from the same probe, [F].

    Returns:
        A scalar in [0, 1], float64, without unit; symmetric, exactly 0 for equal embeddings. A factor common to both
        embeddings does not change it, whatever the scale of each filter; a factor of one of them does.

    Raises:
        ValueError: lengths that differ, negative or non-finite entries, an embedding that is zero throughout.

    Example:
        >>> cosine_distance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
        tensor(0., dtype=torch.float64)
        >>> cosine_distance(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]))
        tensor(1., dtype=torch.float64)

    Reference: Achille et al. 2019, https://arxiv.org/abs/1902.03545. The released code adds 1e-8 to the denominators;
    here filters that are zero in both embeddings are left out instead, so that small embeddings are not damped.
    """
    a, b = _pair(a, b)
    top = torch.maximum(a, b)
    a, b = a[top > 0] / top[top > 0], b[top > 0] / top[top > 0]  # the sum itself could overflow
    u, v = a / (a + b), b / (a + b)
    # Half the squared difference of unit vectors: exact for equal embeddings, accurate for similar ones.
    return (0.5 * (u / u.norm() - v / v.norm()).square().sum()).clamp_max(1)


def kl_distance(a: Tensor, b: Tensor, *, prior_precision: float = 0.0) -> Tensor:
    r"""Symmetric Kullback-Leibler distance of the Gaussians whose precisions the embeddings are.

    .. math:: \sum_f \max( KL(P_f \| Q_f), KL(Q_f \| P_f) ) = \tfrac12 \sum_f ( e^{|r_f|} - |r_f| - 1 ),
              \quad r_f = \log \frac{h_{b,f} + \lambda}{h_{a,f} + \lambda}

    Args:
        a: Embedding of a task, [F].
        b: Embedding of another, from the same probe, [F].
        prior_precision: lambda, added to every entry; above 0 where embeddings have zeros.

    Returns:
        A scalar, float64, in nats; symmetric, exactly 0 for equal embeddings.

    Raises:
        ValueError: lengths that differ, negative or non-finite entries, entries of zero without a prior precision.

    Example:
        >>> kl_distance(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 5.0]))   # (2 - log 2 - 1) / 2
        tensor(0.1534, dtype=torch.float64)

    Reference: Achille et al. 2019, https://arxiv.org/abs/1902.03545; the larger of the two directions filter by filter
    is the released code's way to be symmetric.
    """
    if not 0 <= prior_precision < float("inf"):
        raise ValueError(f"prior_precision must be at least 0 and finite, got {prior_precision}")
    a, b = _pair(a, b)
    a, b = a + prior_precision, b + prior_precision
    if min(a.min(), b.min()) <= 0:
        raise ValueError("an entry of 0 is a Gaussian without limits, infinitely far; pass prior_precision above 0")
    r = (b.log() - a.log()).abs()
    return 0.5 * (torch.expm1(r) - r).sum()


def asymmetric_distance(
    source: Tensor,
    target: Tensor,
    trivial: Tensor,
    *,
    alpha: float,
    distance: Callable[[Tensor, Tensor], Tensor] = cosine_distance,
) -> Tensor:
    r"""Distance from a source to a target that counts how complex the source is.

    .. math:: d(a \to b) = d_{sym}(a, b) - \alpha\, d_{sym}(a, t_0)

    Args:
        source: Embedding of the source task a, [F].
        target: Embedding of the target task b, [F].
        trivial: Embedding of the trivial task t_0, [F]: what the probe's Fisher is when there is nothing to tell apart.
            It may not be zero throughout for the cosine; a constant prior precision is a usual choice.
        alpha: How much the source's complexity counts, at least 0. The paper is reported to take 0.15 for a ResNet-34
            probe; its released code holds no such number and we have not confirmed it, so there is no default.
        distance: The symmetric distance.

    Returns:
        A scalar, float64, in the distance's unit. It may be negative: only the order of sources for a target counts.

    Raises:
        ValueError: alpha negative or not finite; and as the distance.

    Example:
        >>> a, b, none = torch.tensor([4.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0])
        >>> bool(asymmetric_distance(a, b, none, alpha=0.5) < asymmetric_distance(b, a, none, alpha=0.5))
        True

    Reference: Achille et al. 2019, https://arxiv.org/abs/1902.03545; not part of the released code.
    """
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be at least 0 and finite, got {alpha}")
    return distance(source, target) - alpha * distance(source, trivial)


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"embeddings must come from one probe and have one length, got shapes {shapes}")
    a, b = _embedding(a, "first embedding"), _embedding(b, "second embedding")
    for name, h in (("first", a), ("second", b)):
        if h.max() == 0:
            raise ValueError(
                f"the {name} embedding is zero throughout, so it has no direction; is its softmax saturated?"
            )
    return a, b


def _embedding(h: Tensor, name: str) -> Tensor:
    h = h.detach().to(torch.float64)
    if h.dim() != 1 or len(h) == 0:
        raise ValueError(f"the {name} must be one axis long and not empty, got shape {tuple(h.shape)}")
    if not h.isfinite().all() or h.min() < 0:
        raise ValueError(f"the {name} must be finite and not negative, got {h}; it is a mean of squares")
    return h
