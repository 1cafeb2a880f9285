"""Networks with heads of their own and how they are learned, held to mathematics."""

import math

import pytest
import torch
from measure_problems import DOUBLE, blobs, learning_of, objective, points
from tiny_measurable import Blobs
from torch.nn import functional as F

from leap.measure.learning import fit_head, full_gradient, learn, subset
from leap.measure.network import Learning, Network, Prior, error, error_on_test, summed_loss
from leap.measure.problem import TaskData
from leap.metrics.complexity import complexity
from leap.metrics.curvature import spectrum
from leap.metrics.dense import fisher_matrix
from leap.optim import cosine, sgd

# Network


def test_the_vector_is_the_trunk_and_then_a_head_a_task():
    family = blobs()
    network, m, width = Network(family, (2, 3)), family.layout.trunk, family.width
    assert network.sizes == [m, 2 * (width + 1), 3 * (width + 1)] and network.n == sum(network.sizes)
    layout = network.layout
    assert layout.n == layout.shared == network.n and layout.trunk == m == network.shared
    theta, x = points(network), family.dataset(0).inputs
    parts = layout.unflatten(theta)
    assert torch.equal(theta[:m], torch.cat([parts[name].reshape(-1) for name in layout.names[:2]]))
    features = family.features(theta[:m], x)
    for head in (0, 1):
        expected = features @ parts[f"head{head}.weight"].T + parts[f"head{head}.bias"]
        torch.testing.assert_close(network.logits(theta, x, head), expected, rtol=1e-12, atol=1e-12)


def test_a_head_among_others_is_a_network_of_its_task_alone():
    family = blobs()
    both, x = Network(family, (2, 3)), family.dataset(1).inputs
    theta = points(both)
    for head, classes in enumerate((2, 3)):
        alone = Network(family, (classes,))
        own = both.alone(theta, head)
        assert own.shape == (alone.n,)
        assert torch.equal(alone.logits(own, x), both.logits(theta, x, head))


def test_the_start_has_the_trunk_and_guesses():
    family = blobs()
    network = Network(family, (2, 3))
    start = network.start(family.initial(0))
    assert torch.equal(start[: network.shared], family.initial(0)[: network.shared])
    for head, (classes, task) in enumerate(zip((2, 3), family.data, strict=True)):
        loss = summed_loss(network, start, task, head)
        assert loss.item() == pytest.approx(len(task.labels) * math.log(classes), rel=1e-12)


def test_an_unused_head_costs_its_norm_and_nothing_else():
    family = blobs()
    one, two = learning_of(family, 0), learning_of(family, 0, 1)
    theta = points(two.network)
    alone = two.network.alone(theta, 0)
    task = two.tasks[0]
    matrix = fisher_matrix(lambda w, x: two.network.logits(w, x, 0), theta, task.inputs)
    unused = matrix[two.network.sizes[0] + two.network.sizes[1] :]
    assert float(unused.abs().max()) == 0.0
    zeroed = torch.cat([alone, torch.zeros(two.network.n - len(alone), dtype=DOUBLE)])
    parts = []
    for theta_, h in (
        (alone, spectrum(fisher_matrix(one.network.logits, alone, task.inputs))),
        (zeroed, spectrum(fisher_matrix(lambda w, x: two.network.logits(w, x, 0), zeroed, task.inputs))),
    ):
        network = one.network if len(theta_) == len(alone) else two.network
        parts.append(complexity(summed_loss(network, theta_, task), theta_, h, beta=0.7, prior_variance=0.3))
    torch.testing.assert_close(torch.stack(parts[0]), torch.stack(parts[1]), rtol=1e-10, atol=1e-10)


def test_errors_count_what_is_classified_wrongly():
    family = blobs(test=9)
    network, task = Network(family, (3,)), family.dataset(1)
    theta = points(network)
    wrong = [
        int(network.logits(theta, x[None])[0].argmax()) != int(y) for x, y in zip(task.inputs, task.labels, strict=True)
    ]
    assert error(network, theta, task.inputs, task.labels, chunk=3) == pytest.approx(100 * sum(wrong) / len(wrong))
    zero = network.start(theta)  # equal logits: the first class is named
    assert error_on_test(network, zero, task) == pytest.approx(100 * float((task.test_labels != 0).double().mean()))


# Learning


def test_the_mean_over_a_union_is_the_mean_over_its_tasks_by_size():
    first, second = blobs(train=6), blobs(train=10)
    union = Learning(
        Network(first, (2, 3)), [first.dataset(0), second.dataset(1)],
        Prior(torch.zeros(Network(first, (2, 3)).n, dtype=DOUBLE), 0.5, 0.7), batch_size=30, seed=0,
    )  # fmt: skip
    theta = points(union.network)
    batch = [(x[0], y[0]) for x, y in union.sample(theta[None], 0)]  # 30 is whole epochs of 6 and of 10
    loss, aux = union.loss(theta, batch)
    cross = (union.summed_losses(theta).sum() / 16).item()
    assert aux["cross_entropy"].item() == pytest.approx(cross, rel=1e-12)
    assert loss.item() == pytest.approx(objective(union, theta).item(), rel=1e-12)
    alone = [learning_of(first, 0), learning_of(second, 1)]
    means = [one.summed_losses(union.network.alone(theta, i)).item() for i, one in enumerate(alone)]
    assert cross == pytest.approx(sum(means) / 16, rel=1e-12)


def test_the_full_gradient_is_that_of_the_whole_objective():
    learning = learning_of(blobs(), 0, 1, beta=0.7, variance=0.3)
    theta = points(learning.network)
    point = theta.clone().requires_grad_()
    (expected,) = torch.autograd.grad(objective(learning, point), point)
    for chunk in (3, 500):
        torch.testing.assert_close(full_gradient(learning, theta, chunk), expected, rtol=1e-11, atol=1e-12)
    step = 1e-6
    for i in (0, learning.network.shared, learning.network.n - 1):  # trunk, first head, last head
        move = torch.zeros_like(theta)
        move[i] = step
        slope = (objective(learning, theta + move) - objective(learning, theta - move)) / (2 * step)
        assert slope.item() == pytest.approx(full_gradient(learning, theta)[i].item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("batch_size", [3, 10, 7, 25])
def test_every_example_is_seen_once_an_epoch(batch_size):
    learning = learning_of(blobs(), 0, 1, batch_size=batch_size)
    count = len(learning.tasks[0].labels)
    seen = [[], []]
    for step in range(12):
        for head, (inputs, labels) in enumerate(learning.sample(torch.zeros(1), step)):
            assert inputs.shape[:2] == labels.shape == (1, batch_size)
            task = learning.tasks[head]
            places = [int((task.inputs - x).abs().sum(1).argmin()) for x in inputs[0]]
            assert torch.equal(task.labels[places], labels[0])
            seen[head] += places
    for places in seen:
        epochs = [places[i : i + count] for i in range(0, len(places) - count + 1, count)]
        assert len(epochs) >= 3 and all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert epochs[0] != epochs[1]
    assert seen[0] != seen[1]  # the tasks' orders are their own


def test_an_epoch_is_a_pass_over_the_largest_task():
    small, large = blobs(train=6), blobs(train=10)
    tasks = [small.dataset(0), large.dataset(1)]
    network = Network(small, (2, 3))
    prior = Prior(torch.zeros(network.n, dtype=DOUBLE), 1.0, 1.0)
    steps = {b: Learning(network, tasks, prior, batch_size=b, seed=0).epoch_steps for b in (3, 4, 10, 50)}
    assert steps == {3: 4, 4: 3, 10: 1, 50: 1}


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    def end(seed):
        learning = learning_of(blobs(), 0, 1, seed=seed)
        theta = learning.network.start(learning.network.family.initial(0))
        return learn(learning, theta, epochs=2, optimizer=sgd(0.1, 0.9), points=4)[0]

    one, again, other = end(1), end(1), end(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one.theta, other.theta)
    assert one.epochs[0] == 0 and one.epochs[-1] == 2 and len(one.curve) == len(one.epochs)
    learning = learning_of(blobs(), 0, 1)
    assert one.curve[-1].item() == pytest.approx((learning.summed_losses(one.theta).sum() / 20).item(), rel=1e-12)


class Frozen(Blobs):
    """Features are the inputs, whatever the trunk: learning is softmax regression, and convex."""

    def __init__(self):
        super().__init__(classes=(2, 3), width=6, train=12, dtype=DOUBLE)

    def features(self, trunk, inputs):
        return inputs + 0 * trunk.sum()


def test_learning_ends_at_the_map_point_where_there_is_one():
    family = Frozen()
    learning = learning_of(family, 1, batch_size=12)
    start = torch.zeros(learning.network.n, dtype=DOUBLE)
    optimizer = sgd(0.2, 0.9, schedule=cosine(600))
    learned, _ = learn(learning, start, epochs=600, optimizer=optimizer, points=5)
    assert learned.gradient_norm < 1e-6
    assert learned.curve[0].item() == pytest.approx(math.log(3))
    # Newton's method, with the curvature of a model linear in its weights
    theta, task = start.clone(), learning.tasks[0]
    for _ in range(30):
        curvature = fisher_matrix(learning.network.logits, theta, task.inputs) / 12
        curvature += learning.prior.beta / (learning.prior.variance * 12) * torch.eye(len(theta), dtype=DOUBLE)
        theta = theta - torch.linalg.solve(curvature, full_gradient(learning, theta))
    torch.testing.assert_close(learned.theta, theta, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        learned.theta[: family.layout.trunk], learning.prior.centre[: family.layout.trunk], rtol=0, atol=1e-5
    )


def test_a_fitted_head_is_the_best_one():
    family = blobs(train=20)
    network, task, decay = Network(family, (3,)), family.dataset(1), 0.05
    theta = points(network)
    fitted = fit_head(network, theta, task, decay=decay)
    assert torch.equal(fitted[: network.shared], theta[: network.shared])

    def penalized(head):
        features = family.features(theta[: network.shared], task.inputs)
        return F.cross_entropy(network.read(head, features), task.labels) + decay / 2 * head.square().sum()

    head = fitted[network.shared :].clone().requires_grad_()
    (slope,) = torch.autograd.grad(penalized(head), head)
    assert slope.norm() < 1e-5
    again = fit_head(network, network.start(theta), task, decay=decay)
    torch.testing.assert_close(again, fitted, rtol=0, atol=1e-4)


def test_a_subset_is_balanced_and_a_shorter_one_is_its_beginning():
    inputs, labels = torch.arange(30.0)[:, None], torch.tensor([0] * 20 + [1] * 6 + [2] * 4)
    task = TaskData("uneven", inputs, labels, inputs, labels, 3)
    whole = subset(task, 30, seed=0)
    assert sorted(whole.tolist()) == list(range(30))
    for count in (1, 3, 8, 12):
        part = subset(task, count, seed=0)
        assert torch.equal(part, whole[:count])
        counts = torch.bincount(labels[part], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert not torch.equal(whole, subset(task, 30, seed=1)) and len(subset(task, 99, seed=0)) == 30
