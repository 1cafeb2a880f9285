"""Reptile: pull the initialization towards the end of the walk."""

from __future__ import annotations

from leap.walk import Fold


def reptile() -> Fold:
    r"""Batched Reptile, `Nichol et al. 2018 <https://arxiv.org/abs/1803.02999>`_.

    .. math:: g = \theta^0 - \theta^K

    Returns:
        A fold whose result is [T, m], to descend: with SGD of learning rate epsilon the meta-step is
        `theta^0 + epsilon mean(theta^K - theta^0)`.

    theta^K is the point after the last inner step; the released code of Leap stops one step earlier.
    """
    return Fold(start=lambda theta0: None, step=lambda state, s: None, finish=lambda state, end: end.theta0 - end.theta)
