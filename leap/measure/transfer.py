"""From one task to another: fine-tuning, Fisher distances, and what lies between a source's solution and a target's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from leap.measure.context import Context
from leap.measure.learning import fit_head, learn, subset, take
from leap.measure.network import Learning, error_on_test
from leap.measure.plan import SCRATCH, Item, Plan
from leap.measure.store import Result
from leap.metrics.connect import connect
from leap.metrics.curvature import fisher_factor, gram, spectrum
from leap.metrics.dynamics import noise_trace, sgd_temperature
from leap.metrics.fisher import fisher_diagonal
from leap.metrics.profile import curve_action, free_energy_profile
from leap.metrics.task2vec import task_embedding
from leap.optim import sgd
from leap.randomness import derive, generator

PROFILE, PROFILE_SAMPLES = 4, 64  # pieces of a curve between spectra, and examples for them: each costs a factor


def tuning(context: Context, item: Item) -> Result:
    """Fine-tune a source's trunk on the target, head at zero, at a constant rate; or learn from the initialization."""
    plan = context.plan
    learning = context.learning(item._replace(source=item.target), item.target)  # the same examples whatever the source
    trunk = context.trunk(item.seed) if item.source == SCRATCH else context.solution(item.seed, item.source)
    learned, _ = learn(
        learning,
        learning.network.start(trunk),
        epochs=plan.tuning_epochs,
        optimizer=sgd(plan.tuning_rate, plan.momentum),
        points=plan.points,
    )
    tensors = {"theta": learned.theta, "epochs": learned.epochs, "curve": learned.curve}
    error = error_on_test(learning.network, learned.theta, context.task(item.target))
    return Result(tensors, {"loss": float(learned.losses.sum()), "test_error": error})


def fisher(context: Context, item: Item) -> Result:
    """Diagonal Fisher of the source's network on the target's inputs, trunk only; one sampled label an input."""
    network, task = context.network(item.source), context.task(item.target)
    theta = context.solution(item.seed, item.source).double()
    stream = generator(derive(item.seed, "fisher", task.name))
    whole = fisher_diagonal(network.logits, theta, task.inputs, generator=stream)
    return Result({"diagonal": whole[: network.shared]}, {})


def embedding(context: Context, item: Item) -> Result:
    """Task2Vec: the initialization as fixed probe, a head fitted to the task, the trunk's diagonal Fisher by filter."""
    network, task = context.network(item.target), context.task(item.target)
    decay = context.plan.beta / (context.plan.prior_variance * len(task.labels))
    theta = fit_head(network, context.start(network, item.seed), task, decay=decay)
    stream = generator(derive(item.seed, "fisher", task.name))
    whole = fisher_diagonal(network.logits, theta.double(), task.inputs, generator=stream)
    layout = context.family.layout.without_head()
    return Result({"embedding": task_embedding(whole[: network.shared], layout.shapes)}, {})


def barrier(context: Context, item: Item) -> Result:
    """The target's potential between the source's solution, its head refitted, and where fine-tuning ended.

    U is the objective per example on `barrier_samples` of the target's examples, prior included.
    """
    plan, seed = context.plan, item.seed
    learning = context.learning(item._replace(source=item.target), item.target)
    network, task = learning.network, context.task(item.target)
    decay = plan.beta / (plan.prior_variance * len(task.labels))
    source = context.solution(seed, item.source)
    start = fit_head(network, network.start(source), task, decay=decay)
    end = context.tuned(seed, item.target, item.source)
    potential = potential_of(learning, subset(task, plan.barrier_samples, seed=0))
    curve = connect(
        potential, start, end, steps=plan.barrier_steps, learning_rate=plan.barrier_rate, count=plan.barrier_points,
        generator=generator(seed, "connect", task.name, context.task(item.source).name),
    )  # fmt: skip
    temperature = temperature_at(context, learning, end)
    few = curve.points[torch.linspace(0, plan.barrier_points - 1, PROFILE + 1).round().long().unique()]
    spectra = [curvature(learning, point, plan) for point in few]
    losses = torch.stack([potential(point).detach() for point in few])
    free = free_energy_profile(losses, spectra, float(temperature), weight_decay=decay)
    numbers = {
        "line": float(curve.reference.height),
        "curve": float(curve.barrier.height),
        "uphill": float(curve.barrier.uphill),
        "start": float(curve.barrier.start),
        "end": float(curve.barrier.end),
        "action": float(curve_action(potential, curve.points)),
        "free_energy_barrier": float(free.barrier.height),
        "free_energy_change": float(free.barrier.end - free.barrier.start),
        "temperature": float(temperature),
    }
    return Result({"losses": curve.losses, "profile": free.profile}, numbers)


def curvature(learning: Learning, theta: Tensor, plan: Plan) -> Tensor:
    """Eigenvalues of the mean loss's Fisher at a point, without the zeros that weight decay stands in for."""
    task = learning.tasks[0]
    inputs, _ = take(task, subset(task, min(plan.samples, PROFILE_SAMPLES), seed=0))
    factor = fisher_factor(learning.network.logits, theta.double(), inputs.double(), dropped=plan.dropped)
    return spectrum(gram(factor.rows)) / len(inputs)


def potential_of(learning: Learning, index: Tensor) -> Callable[[Tensor], Tensor]:
    """U(theta): mean cross-entropy of some examples of the first task, and the prior's share of an example."""
    inputs, labels = take(learning.tasks[0], index)

    def potential(theta: Tensor) -> Tensor:
        logits = learning.network.logits(theta, inputs.to(theta.dtype))
        return F.cross_entropy(logits, labels) + learning.prior.penalty(theta) / learning.total

    return potential


def temperature_at(context: Context, learning: Learning, theta: Tensor) -> Tensor:
    """SGD's temperature on a task at theta as fine-tuning runs it: rate, momentum, batch size, gradient noise."""
    plan, task = context.plan, learning.tasks[0]
    inputs, labels = take(task, subset(task, plan.samples, seed=0))

    def loss(point: Tensor, one: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(learning.network.logits(point, one), label)

    trace = noise_trace(loss, theta, inputs.to(theta.dtype), labels)
    return sgd_temperature(
        plan.tuning_rate,
        plan.batch_size,
        trace,
        learning.network.n,
        momentum=plan.momentum,
        dataset_size=len(task.labels),
    )
