"""Static complexity of tasks and of unions of two: what `C_beta` needs, measured at MAP points."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from leap.measure.context import Context
from leap.measure.learning import Learned, fit_head, learn, subset, take
from leap.measure.network import Learning, Network, error, error_on_test
from leap.measure.plan import Item
from leap.measure.store import Result
from leap.metrics.curvature import fisher_factor, gram, spectrum, tagged_gram
from leap.metrics.posterior import posterior_draws
from leap.randomness import generator


class Factors(NamedTuple):
    """Square roots of each task's summed Fisher at one point, on the samples that stand for all."""

    rows: list[Tensor]  # a task: [r, m + k]
    dropped: Tensor  # []  trace left out of them together


def factors(learning: Learning, theta: Tensor, samples: int, dropped: float) -> Factors:
    """`H_t ~ rows_t^T rows_t`, scaled from the samples to the whole task; in float64."""
    rows, lost = [], theta.new_zeros((), dtype=torch.float64)
    for head, task in enumerate(learning.tasks):
        index = subset(task, samples, seed=0)  # the same for every term of a difference, in every repetition
        inputs, _ = take(task, index)
        alone = Network(learning.network.family, (task.classes,))
        factor = fisher_factor(
            alone.logits, learning.network.alone(theta, head).double(), inputs.double(), dropped=dropped
        )
        scale = len(task.labels) / len(index)
        rows.append(factor.rows * scale**0.5)
        lost += scale * factor.dropped_trace
    return Factors(rows, lost)


def solution(context: Context, item: Item) -> Result:
    """Learn a task from the initialization: where that ended is what every distance between solutions starts from."""
    learning, plan = context.learning(item, item.target), context.plan
    start = context.start(learning.network, item.seed)
    first, _ = learn(
        learning, start, epochs=plan.epochs, optimizer=context.towards_map(learning, plan.epochs), points=plan.points
    )
    best = _best(learning, [first, _refined(context, learning, first.theta)])
    numbers = _numbers(learning, best)
    numbers["test_error"] = error_on_test(learning.network, best.theta, context.task(item.target))
    return Result({"theta": best.theta, "epochs": first.epochs, "curve": first.curve}, numbers)


def curvature(context: Context, item: Item) -> Result:
    """Eigenvalues of the summed Fisher at a task's solution."""
    learning, plan = context.learning(item, item.target), context.plan
    found = factors(learning, context.solution(item.seed, item.target), plan.samples, plan.dropped)
    return Result({"eigenvalues": spectrum(gram(found.rows[0]))}, _traces(found))


def bound(context: Context, item: Item) -> Result:
    """Errors of weights drawn from the post-distribution around a solution, which the PAC-Bayes bound is about."""
    learning, plan, task = context.learning(item, item.target), context.plan, context.task(item.target)
    theta = context.solution(item.seed, item.target)
    found = factors(learning, theta, plan.samples, plan.dropped)
    draws = posterior_draws(
        theta, found.rows[0], beta=plan.beta, prior_variance=plan.prior_variance, count=plan.draws,
        generator=generator(item.seed, "posterior", task.name),
    )  # fmt: skip
    network = learning.network
    pairs = [(error(network, w, task.inputs, task.labels), error_on_test(network, w, task)) for w in draws.to(theta)]
    train, test = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    return Result({"train_errors": train, "test_errors": test}, {})


def union(context: Context, item: Item) -> Result:
    """Learn two tasks together, from the initialization and from either's solution, and keep the best end.

    A minimum is asked for, and each start gives an upper bound of it. The ends are compared by the objective that was
    learned; the curvature is taken of the best alone.
    """
    tasks = tuple(dict.fromkeys((item.target, item.source)))
    learning, plan = context.learning(item, item.target, item.source), context.plan
    fresh, _ = learn(
        learning, context.start(learning.network, item.seed), epochs=plan.epochs,
        optimizer=context.towards_map(learning, plan.epochs),
    )  # fmt: skip
    warm = [_refined(context, learning, _widened(context, item, learning, known)) for known in tasks]
    best = _best(learning, [fresh, *warm])
    found = factors(learning, best.theta, plan.samples, plan.dropped)
    eigenvalues = spectrum(tagged_gram(found.rows, learning.network.shared))
    return Result({"eigenvalues": eigenvalues}, _numbers(learning, best) | _traces(found))


def _refined(context: Context, learning: Learning, theta: Tensor) -> Learned:
    """Go on from theta with the rate raised once more and annealed."""
    epochs = context.plan.refine_epochs
    return learn(learning, theta, epochs=epochs, optimizer=context.towards_map(learning, epochs))[0]


def _best(learning: Learning, ends: list[Learned]) -> Learned:
    """The end with the lowest objective."""
    return min(ends, key=lambda end: float(end.losses.sum() + learning.prior.penalty(end.theta)))


def _widened(context: Context, item: Item, learning: Learning, known: int) -> Tensor:
    """A task's solution, and beside it the other task's head fitted to its trunk."""
    m, alone, heads = learning.network.shared, context.solution(item.seed, known), []
    for task in learning.tasks:
        if task.name == context.task(known).name:
            heads.append(alone[m:])
            continue
        own = Network(context.family, (task.classes,))
        decay = learning.prior.beta / (learning.prior.variance * len(task.labels))
        heads.append(fit_head(own, own.start(alone[:m]), task, decay=decay)[m:])
    return torch.cat([alone[:m], *heads])


def _numbers(learning: Learning, end: Learned) -> dict[str, float]:
    away = (end.theta - learning.prior.centre).double()
    return {
        "loss": float(end.losses.sum()),
        "squared_norm": float(away.square().sum()),
        "gradient_norm": float(end.gradient_norm),
        "examples": float(learning.total),
    }


def _traces(found: Factors) -> dict[str, float]:
    return {
        "fisher_trace": float(torch.stack([rows.square().sum() for rows in found.rows]).sum()),
        "dropped_trace": float(found.dropped),
    }
