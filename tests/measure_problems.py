"""Small tasks in float64, alone and together, with the objective written out."""

import torch
from tiny_measurable import Blobs

from leap.measure.network import Learning, Network, Prior

DOUBLE = torch.float64


def blobs(**changes):
    return Blobs(**{"classes": (2, 3), "train": 10, "width": 3, "dtype": DOUBLE, **changes})


def points(network, seed=0):
    return 0.5 * torch.randn(network.n, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def learning_of(family, *tasks, batch_size=4, beta=1.0, variance=0.5, seed=0):
    network = Network(family, tuple(family.classes[task] for task in tasks))
    centre = points(network, seed=9)
    data = [family.dataset(task) for task in tasks]
    return Learning(network, data, Prior(centre, variance, beta), batch_size=batch_size, seed=seed)


def objective(learning, theta):
    """U over all examples, written out."""
    network, total = learning.network, 0.0
    for head, task in enumerate(learning.tasks):
        log_p = network.logits(theta, task.inputs, head).log_softmax(-1)
        total = total - log_p[torch.arange(len(task.labels)), task.labels].sum()
    prior = learning.prior
    total = total + prior.beta / (2 * prior.variance) * (theta - prior.centre).square().sum()
    return total / sum(len(task.labels) for task in learning.tasks)
