"""Rows about networks: derivatives of one batch's loss beside the plain network's, and the memory of MAML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from leap import learners
from leap.batching import task_of
from leap.bench.memory import peak_memory
from leap.bench.row import Figure, Goal, Row
from leap.bench.rows_walk import Workload
from leap.bench.timing import Contender

Value = Callable[[], tuple[Tensor, list[Tensor]]]
"""A loss with its graph, and the leaves it depends on."""


def derivatives_row(work: Workload) -> Row:
    """One batch's gradient, and gradient with a product by the Hessian: the family's network, the plain one's beside.

    The Hessian is multiplied by the gradient itself, as one step of MAML's adjoint multiplies it by a cotangent.
    """
    plain, ours = losses(work)
    contenders = [
        Contender("plain gradient", lambda: gradient(plain)),
        Contender("gradient", lambda: gradient(ours)),
        Contender("plain Hessian product", lambda: hessian_product(plain)),
        Contender("Hessian product", lambda: hessian_product(ours)),
    ]
    goals = [Goal("a gradient takes half the plain network's time on 2 threads", "gradient", "ratio", 0.5, 2)]
    setting = {key: value for key, value in work.setting.items() if key not in ("K", "execution")}
    return Row(contenders, "plain gradient", {**setting, "batch": "the first task's first"}, goals)


def losses(work: Workload) -> tuple[Value, Value]:
    """The loss of the first task's first batch at theta^0: by the plain network, and by the family's."""
    theta0 = work.family.initial(0)
    tasks, module = work.batch(), work.fresh(theta0)
    images, labels = batch = task_of(tasks.sample(theta0[None], 0), 0)

    def plain() -> tuple[Tensor, list[Tensor]]:
        return F.cross_entropy(module(images), labels), list(module.parameters())

    def ours() -> tuple[Tensor, list[Tensor]]:
        theta = theta0.clone().requires_grad_()
        return tasks.loss(theta, batch)[0], [theta]

    return plain, ours


def gradient(value: Value) -> list[Tensor]:
    """Of a loss, with respect to its leaves."""
    loss, leaves = value()
    return list(torch.autograd.grad(loss, leaves))


def hessian_product(value: Value) -> list[Tensor]:
    """Hessian of a loss times its gradient, by differentiating the gradient."""
    loss, leaves = value()
    grads = torch.autograd.grad(loss, leaves, create_graph=True)
    return list(torch.autograd.grad(grads, leaves, [g.detach() for g in grads]))


def maml_memory_row(work: Workload, depths: Sequence[int] = (4, 25, 100)) -> Row:
    """MAML of second order: time at the least number of inner steps, and peak memory at all of them.

    Args:
        work: Whose steps do not count.
        depths: Numbers of inner steps, rising; the goal is about the last two.
    """
    theta0 = work.family.initial(0)
    shallow = replace(work, steps=depths[0])
    figures = [Figure(f"memory, K = {steps}", "bytes", partial(memory, replace(work, steps=steps))) for steps in depths]
    middle, deep = depths[-2:]
    growth = partial(_growth, replace(work, steps=middle), replace(work, steps=deep))
    figures.append(Figure("growth", f"times, from K = {middle} to {deep}", growth))
    text = f"memory grows no faster than the root of K from {middle} to {deep}"
    goal = Goal(text, "growth", "figure", (deep / middle) ** 0.5)
    name = f"K = {depths[0]}"
    run = shallow.walk(theta0, {"maml": learners.maml()})
    return Row([Contender(name, run)], name, {**work.setting, "K": list(depths)}, [goal], figures)


def memory(work: Workload) -> float:
    """Peak memory in bytes of MAML's walk and adjoint, in a process of its own."""
    return peak_memory(partial(_prepare, work))


def _growth(middle: Workload, deep: Workload) -> float:
    return memory(deep) / memory(middle)


def _prepare(work: Workload) -> Callable[[], object]:
    theta0 = work.family.initial(0)
    # the libraries' own buffers, which do not grow with K
    replace(work, steps=1).walk(theta0, {"maml": learners.maml()})()
    return work.walk(theta0, {"maml": learners.maml()})
