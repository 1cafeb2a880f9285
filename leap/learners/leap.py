r"""Leap: shorten the expected gradient path, `Flennerhag et al. 2019 <https://arxiv.org/abs/1812.01054>`_.

The decisions that the paper and its released code leave open or take differently stand here, once:

- K inner steps make K segments, as in the paper; the last one costs one extra loss evaluation. `last_segment=False`
  gives K-1, as the authors' released code.
- `rise = f(theta^{i+1}) - f(theta^i)` compares the mini-batches of two consecutive steps: that is what makes Leap free.
  The loss is detached.
- f is the loss, as wherever the paper defines it. Where its values are noise, as an actor-critic's are, it can be
  another `height`: `leap.heights`, which is ours.
- The stabilizer is `rise -> -|rise|`. For the energy this is exactly the gradient of the paper's mu; for the length
  it is mu rescaled by 1 / (2 |segment|), as the paper allows.
- The gradient that enters is that of f, however the inner optimizer shortens it. In the released code it is whatever
  stands in `.grad`, hence a clipped one where the call to Leap follows `clip_grad_norm_`: that is `gradient_clip`.
- The norm runs over the shared part of the parameters, in one piece. A segment of length zero adds zero, not NaN.
- The energy's factor 2 is kept (the released code drops it: a factor in the meta learning rate).
- The Jacobians d theta^i / d theta^0 are the identity by default, as in all of the paper's experiments;
  `jacobian="exact"` pulls every increment back through the walk, for tests and small models.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from leap import heights, vectors
from leap.segments import Segment, over_segments
from leap.walk import End, Fold


def leap(
    metric: Literal["length", "energy"] = "length",
    loss_coordinate: bool = True,
    stabilizer: bool = True,
    last_segment: bool = True,
    jacobian: Literal["identity", "exact"] = "identity",
    height: heights.HeightName = "loss",
    height_decay: float | None = None,
    gradient_clip: float | None = None,
) -> Fold:
    r"""The pull-forward meta-gradient, equation 8.

    .. math::
        \nabla \bar F(\theta^0) = -p \sum_{i=0}^{K-1} J^i(\theta^0)^T
        \frac{\Delta f^i \nabla f(\theta^i) + \Delta\theta^i}{\|\gamma^{i+1} - \gamma^i\|^{2-p}}

    Args:
        metric: `length` (p = 1) or `energy` (p = 2).
        loss_coordinate: Measure on the graph of the loss; without it the term with Delta f is left out.
        stabilizer: Use -|Delta f|: a step that raises the loss pulls the initialization no less. Without the loss
            coordinate there is nothing to stabilize.
        last_segment: Count the segment that ends at theta^K.
        jacobian: `identity` (the paper's choice) or `exact` (K vectors of n a task in memory, and second derivatives).
        height: f: the `loss` of each step, its moving `average`, the loss `scaled` by its standard deviation along the
            walk, or minus the mean `return`, scaled likewise (`leap.heights`).
        height_decay: Of the average; None: 0.99.
        gradient_clip: A step's gradient of the loss enters shortened to this norm, over the shared part, where it is
            longer: for losses with outliers, as an actor-critic's. With c for this norm and the loss for f, no segment
            adds more than sqrt(1 + c^2) to the length's sum. None: as it is, as the formula says.

    Returns:
        A fold whose result is each task's meta-gradient [T, m], to descend.

    Raises:
        ValueError: a metric, Jacobian or height of another name; a decay out of range or without `average`; a norm
            that is not positive; a height or such a norm without the loss coordinate.
        UsageError: in the walk: the height `return` with tasks that record none.

    With plain SGD, the identity and the stabilizer every increment is a positive multiple of the inner gradient g:
    `(alpha + |Delta f|) g / sqrt(alpha^2 |g|^2 + Delta f^2)` for the length.

    Cost with the identity: a step reads or writes ten vectors of m a task (the segment 3, its norm 1, the two terms of
    the sum 3 each), or in C (`leap.vectors`) seven; one more where gradients are shortened. The sum is kept, the last
    theta and gradient are held on to for a step longer than a walk does, and but for C the segment is there for a
    moment: four vectors.

    Example:
        >>> from leap import optim, walk
        >>> class Bowl:
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return theta.square().sum() / 2, {}
        >>> folds = {"leap": leap(loss_coordinate=False)}   # two unit vectors towards zero
        >>> walk.walk(Bowl(), torch.tensor([3.0, 4.0]), steps=2, optimizer=optim.sgd(0.1), folds=folds).results["leap"]
        tensor([[1.2000, 1.6000]])
    """
    if metric not in ("length", "energy"):
        raise ValueError(f"metric must be 'length' or 'energy', got {metric!r}")
    if jacobian not in ("identity", "exact"):
        raise ValueError(f"jacobian must be 'identity' or 'exact', got {jacobian!r}")

    f = heights.height(height, height_decay)
    if f is not None and not loss_coordinate:
        raise ValueError(f"height {height!r} is measured by the loss coordinate, which is off; use height 'loss'")
    if gradient_clip is not None and not 0 < gradient_clip < math.inf:
        raise ValueError(f"gradient_clip must be positive and finite, got {gradient_clip}")
    if gradient_clip is not None and not loss_coordinate:
        raise ValueError("gradient_clip is of the loss coordinate, which is off; leave it out")

    def factor(segment: Segment) -> Tensor | None:  # [T]  what the gradient of the loss is multiplied by
        if gradient_clip is None:
            return segment.factor
        norm = torch.linalg.vector_norm(segment.grad, dim=-1)
        short = (gradient_clip / norm.clamp_min(gradient_clip)).to(segment.rise.dtype)  # NaN stays
        return short if segment.factor is None else short * segment.factor

    def scale(segment: Segment) -> Tensor:  # [T]  p / |gamma^{i+1} - gamma^i|^{2-p}
        if metric == "energy":
            return torch.full_like(segment.rise, 2.0)
        norm = torch.hypot(segment.distance, segment.rise) if loss_coordinate else segment.distance
        return norm.clamp_min(torch.finfo(norm.dtype).tiny).reciprocal()  # finite, so nothing times it is nothing

    def add(total: Tensor, segment: Segment) -> Tensor:  # [T, m]
        phi = factor(segment)
        rows = (segment.start, segment.end, segment.grad, segment.rise, phi)
        length = metric == "length"
        if vectors.pull(total, *rows, length=length, loss=loss_coordinate, stabilizer=stabilizer) is not None:
            return total  # the same in two passes over memory
        w = scale(segment)
        # in place, term by term: a temporary vector costs as much as the sum itself
        total.addcmul_(segment.delta, w.unsqueeze(-1), value=-1)
        if loss_coordinate:
            rise = -segment.rise.abs() if stabilizer else segment.rise
            pull = w * rise if phi is None else w * rise * phi
            total.addcmul_(segment.grad, pull.unsqueeze(-1), value=-1)
        return total

    if jacobian == "identity":
        return over_segments(torch.zeros_like, add, lambda total, end: total, last_segment=last_segment, height=f)

    def pull_back(increments: dict[int, Tensor], end: End) -> Tensor:
        return end.pull_back(increments)

    return over_segments(
        lambda theta0: {},
        lambda increments, segment: increments | {segment.number: add(torch.zeros_like(segment.start), segment)},
        pull_back,
        last_segment=last_segment,
        records=True,
        height=f,
    )
