"""MAML and its relatives: descend the loss after the walk, through the walk (MAML, ANIL, Meta-SGD) or not (FOMAML)."""

from __future__ import annotations

import torch
from torch import Tensor

from leap.layout import Layout
from leap.optim import Optimizer, State
from leap.walk import Fold


def maml() -> Fold:
    r"""Model-agnostic meta-learning, second order, `Finn et al. 2017 <https://arxiv.org/abs/1703.03400>`_.

    .. math:: g = \nabla_{\theta^0} f^{query}(\theta^K(\theta^0))

    Returns:
        A fold whose result is [T, m]. The derivative is exact for every inner optimizer, momentum and second
        moments included; memory grows with the root of the number of inner steps (`leap.adjoint`).

    The outer loss is taken on the tasks' query batch alone.
    """
    return Fold(
        start=lambda theta0: None,
        step=lambda state, s: None,
        finish=lambda state, end: end.pull_back_query(),
        records=True,
    )


def fomaml() -> Fold:
    r"""First-order MAML: the query gradient at the end of the walk, taken for the gradient at its start.

    .. math:: g = \nabla f^{query}(\theta^K)

    Returns:
        A fold whose result is [T, m].

    The gradient is that of the query batch at theta^K; the released code of Leap takes the last training batch's.
    """
    return Fold(start=lambda theta0: None, step=lambda state, s: None, finish=lambda state, end: end.query_grad)


def anil(trunk: int | None = None) -> Fold:
    """Almost no inner loop: MAML whose inner steps move the head alone.

    `Raghu et al. 2020 <https://arxiv.org/abs/1909.09157>`_; both in training and in evaluation.

    Args:
        trunk: Length of the part that stays put; None: what stands before the layout's head.

    Returns:
        A fold whose result is [T, m]: the trunk's meta-gradient runs through the head's walk.

    Raises:
        ValueError: the tasks have no layout and no trunk is given, or there is no trunk.
    """

    def inner(optimizer: Optimizer, layout: Layout | None) -> Optimizer:
        length = trunk if trunk is not None else layout.trunk if layout else None
        if not length:
            raise ValueError("anil needs to know where the head begins: give the tasks a layout, or anil(trunk=...)")
        return _frozen(optimizer, length)

    return maml()._replace(inner=inner)


def meta_sgd(rate: float = 0.1) -> Fold:
    r"""Meta-SGD, `Li et al. 2017 <https://arxiv.org/abs/1707.09835>`_: MAML that also learns a rate a parameter.

    .. math:: \theta^{i+1} = \theta^i - a \circ \nabla f(\theta^i)

    Args:
        rate: Where every learned rate starts; it takes the place of the inner optimizer's.

    Returns:
        A fold whose result is [T, m + n]: the meta-gradient of theta, then that of the rates, which stand behind theta
        in the meta-parameters.
    """

    def rates(theta: Tensor, layout: Layout | None, count: int) -> Tensor:
        return torch.full_like(theta, rate)

    def inner(optimizer: Optimizer, layout: Layout | None) -> Optimizer:
        return Optimizer(
            init=lambda theta, extra: (extra,),
            update=lambda state, grad, theta, step: (theta - state[0] * grad, state),
        )

    return maml()._replace(inner=inner, extend=rates)


def _frozen(optimizer: Optimizer, length: int) -> Optimizer:
    """The same update with the first `length` parameters left where they are."""

    def update(state: State, grad: Tensor, theta: Tensor, step: int) -> tuple[Tensor, State]:
        moved, state = optimizer.update(state, grad, theta, step)
        return torch.cat([theta[:, :length], moved[:, length:]], dim=1), state

    return Optimizer(optimizer.init, update)
