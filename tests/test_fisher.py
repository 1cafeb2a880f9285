"""Fisher diagonal and trace against dense oracles and enumeration; the distances against closed forms."""

import itertools
import math

import pytest
import torch
from torch import nn

from leap.layout import Layout
from leap.metrics.fisher import (
    batch_fisher_diagonal,
    bures_distance,
    fisher_diagonal,
    fisher_task_distance,
    fisher_trace,
    sample_labels,
)

CLASSES, TRUNK = 3, 12


def mlp(theta, inputs):
    """Two inputs, four hidden units, three classes: K = 27, the first 12 entries are the trunk."""
    w, b, head, bias = theta.split([8, 4, 12, 3])
    hidden = torch.tanh(inputs @ w.view(2, 4) + b)
    return hidden @ head.view(4, CLASSES) + bias


def setting(n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(27, generator=g, dtype=torch.float64), torch.randn(n, 2, generator=g, dtype=torch.float64)


def dense(logits, theta, inputs):
    """Mean Fisher [K, K] by its definition: an outer product an input and label."""
    total = torch.zeros(len(theta), len(theta), dtype=torch.float64)
    for x in inputs:
        jacobian = torch.func.jacrev(lambda point, x=x: logits(point, x[None])[0].log_softmax(0))(theta)
        p = logits(theta, x[None])[0].softmax(0)
        total += jacobian.T @ (p[:, None] * jacobian)
    return total / len(inputs)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_exact_diagonal_is_that_of_the_dense_matrix(chunk):
    theta, inputs = setting(n=7)
    close(fisher_diagonal(mlp, theta, inputs, chunk=chunk), dense(mlp, theta, inputs).diagonal())
    close(fisher_trace(mlp, theta, inputs, chunk=chunk), dense(mlp, theta, inputs).trace())


def test_batch_trick_is_unbiased_by_enumeration():
    """The mean over all C^n label vectors, each as probable as the model says, is the diagonal itself."""
    theta, inputs = setting(n=3)
    p = mlp(theta, inputs).softmax(1)
    expected, mass = torch.zeros(27, dtype=torch.float64), 0.0
    for labels in itertools.product(range(CLASSES), repeat=3):
        chance = math.prod(float(p[i, c]) for i, c in enumerate(labels))
        expected += chance * batch_fisher_diagonal(mlp, theta, inputs, torch.tensor(labels))
        mass += chance
    assert mass == pytest.approx(1, rel=1e-12)
    close(expected, fisher_diagonal(mlp, theta, inputs))


def test_batch_diagonal_is_the_squared_mean_gradient():
    theta, inputs = setting(n=300)  # more rows than go through the network at once
    labels = torch.arange(300) % CLASSES
    mean_loss = lambda point: nn.functional.cross_entropy(mlp(point, inputs), labels)  # noqa: E731
    close(batch_fisher_diagonal(mlp, theta, inputs, labels), 300 * torch.func.grad(mean_loss)(theta).square())


def test_sampled_diagonal_is_unbiased_and_follows_its_seed():
    theta, inputs = setting(n=1)
    scores = torch.func.jacrev(lambda point: mlp(point, inputs)[0].log_softmax(0))(theta).square()  # [C, K]
    p = mlp(theta, inputs)[0].softmax(0)
    exact = p @ scores
    error = ((p @ scores.square() - exact.square()) / 4000).sqrt()
    many = inputs.expand(4000, -1)
    draw = lambda seed, **more: fisher_diagonal(  # noqa: E731
        mlp, theta, many, generator=torch.Generator().manual_seed(seed), **more
    )
    assert ((draw(0) - exact).abs() <= 5 * error + 1e-15).all()
    assert not torch.equal(draw(0), draw(1))
    close(draw(0, chunk=64), draw(0, chunk=1000))  # the same labels, however they are cut


def test_labels_are_drawn_as_the_model_says():
    theta, inputs = setting(n=1)
    p = mlp(theta, inputs)[0].softmax(0)
    labels = sample_labels(mlp, theta, inputs.expand(20000, -1), torch.Generator().manual_seed(0))
    share = torch.bincount(labels, minlength=CLASSES).double() / 20000
    assert ((share - p).abs() <= 5 * (p * (1 - p) / 20000).sqrt()).all()


def test_trace_by_every_method():
    theta, inputs = setting(n=5)
    seeded = lambda: torch.Generator().manual_seed(4)  # noqa: E731
    labels = sample_labels(mlp, theta, inputs, seeded())
    batch = fisher_trace(mlp, theta, inputs, generator=seeded(), method="batch")
    close(batch, batch_fisher_diagonal(mlp, theta, inputs, labels).sum())
    sampled = fisher_trace(mlp, theta, inputs, generator=seeded())
    close(sampled, fisher_diagonal(mlp, theta, inputs, generator=seeded()).sum())
    scores = [torch.func.grad(lambda t, i=i: mlp(t, inputs)[i].log_softmax(0)[labels[i]])(theta) for i in range(5)]
    close(sampled, torch.stack(scores).square().sum() / 5)  # the labels are those of sample_labels


class Convolutions(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), norm(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * 16, 5)

    def forward(self, x):
        return self.head(self.body(x))


def network(norm):
    torch.manual_seed(0)
    module = Convolutions(norm)
    layout = Layout.of(module)
    call = lambda theta, x: torch.func.functional_call(module, layout.unflatten(theta), (x,))  # noqa: E731
    return call, layout, layout.flatten(module)


def test_a_convolutional_network_in_single_precision():
    """Group norm is per sample; what comes in as float32 is measured in float64, also where gradients are off."""
    call, _, theta = network(lambda width: nn.GroupNorm(2, width))
    images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = fisher_diagonal(call, theta, images, chunk=3)
    assert found.dtype == torch.float64 and not found.requires_grad
    close(found, dense(call, theta.double(), images.double()).diagonal(), 1e-10)


@pytest.mark.parametrize("measure", [fisher_diagonal, fisher_trace])
def test_batch_statistics_are_refused(measure):
    call, _, theta = network(lambda width: nn.BatchNorm2d(width).double())
    with pytest.raises(ValueError, match="batch"):
        measure(call, theta, torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)))


def test_the_names_of_the_labels_do_not_matter():
    theta, inputs = setting(n=6)
    order = torch.tensor([2, 0, 1])
    head = theta[12:24].view(4, 3)[:, order].reshape(-1)
    renamed = torch.cat([theta[:TRUNK], head, theta[24:][order]])
    first, second = fisher_diagonal(mlp, theta, inputs)[:TRUNK], fisher_diagonal(mlp, renamed, inputs)[:TRUNK]
    close(first, second, 1e-10)
    other = fisher_diagonal(mlp, theta + 0.3, inputs)[:TRUNK]
    close(fisher_task_distance(first, other), fisher_task_distance(second, other), 1e-10)


NAN = torch.full((27,), math.nan, dtype=torch.float64)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"theta": [1.0]}, TypeError, "list"),
        ({"theta": torch.ones(27, dtype=torch.int64)}, TypeError, "int64"),
        ({"theta": NAN}, ValueError, "finite"),
        ({"theta": torch.full((27,), 1e308, dtype=torch.float64)}, ValueError, "finite"),
        ({"inputs": torch.zeros(0, 2)}, ValueError, "inputs"),
        ({"logits": lambda theta, x: mlp(theta, x)[:, :1]}, ValueError, "two classes"),
        ({"logits": lambda theta, x: mlp(theta, x - x.mean(0))}, ValueError, "batch"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1, got 0"),
    ],
)
def test_what_has_no_fisher_is_refused(changes, error, message):
    theta, inputs = setting()
    arguments = {"logits": mlp, "theta": theta, "inputs": inputs, **changes}
    with pytest.raises(error, match=message):
        fisher_diagonal(**arguments)


def test_what_cannot_be_drawn_is_refused():
    theta, inputs = setting()
    for labels, message in (
        (torch.tensor([0, 3, 0]), "0 .. 3"),
        (torch.zeros(2).long(), r"\[3\]"),
        (inputs, "float64"),
    ):
        with pytest.raises(ValueError, match=message):
            batch_fisher_diagonal(mlp, theta, inputs, labels)
    with pytest.raises(ValueError, match="'sampled' draws"):
        fisher_trace(mlp, theta, inputs, method="sampled")
    with pytest.raises(ValueError, match="'exact' draws no"):
        fisher_trace(mlp, theta, inputs, method="exact", generator=torch.Generator())
    with pytest.raises(ValueError, match="'hutchinson'"):
        fisher_trace(mlp, theta, inputs, method="hutchinson")


def diagonals(seed=0, k=40):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(2, k, generator=g, dtype=torch.float64).pow(4).unbind(0)


def test_task_distance_is_that_of_hellinger():
    for seed in range(5):
        a, b = diagonals(seed)
        overlap = ((a / a.sum()) * (b / b.sum())).sqrt().sum()
        d = fisher_task_distance(a, b)
        assert 0 < d < 1
        close(d**2, 1 - overlap)
        close(d, fisher_task_distance(b, a))  # of two diagonals it is symmetric; of two tasks it is not
    assert fisher_task_distance(a, a).item() == 0.0
    half = (torch.arange(40) < 20).double()
    close(fisher_task_distance(a * half, b * (1 - half)), torch.tensor(1.0, dtype=torch.float64))
    c = diagonals(9)[0]
    assert fisher_task_distance(a, b) <= fisher_task_distance(a, c) + fisher_task_distance(c, b)


@pytest.mark.parametrize("factor", [1e-300, 3.0, 1.7e308])
def test_task_distance_does_not_know_the_scale_of_the_loss(factor):
    a, b = diagonals()
    close(fisher_task_distance(a * factor, b), fisher_task_distance(a, b))


def test_task_distance_keeps_its_digits_near_zero():
    a, noise = diagonals()
    step = 1e-9 * (noise / a.sum() - noise.sum() * a / a.sum() ** 2)  # of unit-trace vectors, sums to zero
    expected = (step.square() / (8 * a / a.sum())).sum().sqrt()  # Hellinger to first order
    assert fisher_task_distance(a, a + 1e-9 * noise).item() == pytest.approx(expected.item(), rel=1e-5)


def test_task_distance_is_not_symmetric_in_the_tasks():
    """Coins p = sigmoid(theta x). Task a sees only the first input, where the nets look alike; task b sees more."""
    coin = lambda theta, x: torch.stack([x @ theta, torch.zeros_like(x[:, 0])], dim=1)  # noqa: E731
    on_a, on_b = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    net_a, net_b = torch.zeros(2), torch.tensor([2.0, 0.0])
    b_on_a = fisher_task_distance(fisher_diagonal(coin, net_b, on_a), fisher_diagonal(coin, net_a, on_a))
    a_on_b = fisher_task_distance(fisher_diagonal(coin, net_a, on_b), fisher_diagonal(coin, net_b, on_b))
    p = 1 / (1 + math.exp(-2))
    s = 4 * p * (1 - p)  # F_bb is (s, 1) and F_ab is (1, 1), up to a factor
    assert b_on_a.item() == pytest.approx(0, abs=1e-12)
    assert a_on_b.item() ** 2 == pytest.approx(1 - (math.sqrt(s) + 1) / math.sqrt(2 * (1 + s)), rel=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0, -1e-9], [1.0, 1.0], "source diagonal must be non-negative"),
        ([1.0, 1.0], [0.0, 0.0], "target diagonal has trace 0"),
        ([1.0, 1.0], [1.0, 1.0, 1.0], r"\(2,\) and \(3,\)"),
        ([1.0, math.inf], [1.0, 1.0], "finite"),
        ([1.0, math.nan], [1.0, 1.0], "finite"),
        ([], [], "not empty"),
        ([[1.0]], [[1.0]], r"\(1, 1\)"),
    ],
)
def test_what_is_no_diagonal_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        fisher_task_distance(torch.tensor(first), torch.tensor(second))


def semidefinite(seed, k=6, rank=6):
    g = torch.Generator().manual_seed(seed)
    factor = torch.randn(rank, k, generator=g, dtype=torch.float64)
    return factor.T @ factor


def rotation(seed, k=6):
    return torch.linalg.qr(torch.randn(k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


def test_bures_of_matrices_that_commute_is_the_diagonal_form():
    a, b = diagonals(3, k=6)
    q = rotation(0)
    close(bures_distance(a.diag(), b.diag()), fisher_task_distance(a, b))
    close(bures_distance(q @ a.diag() @ q.T, q @ b.diag() @ q.T), fisher_task_distance(a, b), 1e-10)


@pytest.mark.parametrize("rank", [6, 9])
def test_bures_of_matrices_that_do_not_commute(rank):
    from scipy.linalg import sqrtm

    a, b = semidefinite(1, rank=rank), semidefinite(2, rank=rank)
    one, two = (a / a.trace()).numpy(), (b / b.trace()).numpy()
    root = sqrtm(one)
    square = 0.5 * (one.trace() + two.trace() - 2 * sqrtm(root @ two @ root).real.trace())
    assert bures_distance(a, b).item() ** 2 == pytest.approx(square, rel=1e-9)
    q = rotation(3)
    close(bures_distance(q @ a @ q.T, 7 * q @ b @ q.T), bures_distance(b, a), 1e-10)
    frobenius = 0.5 * ((root - sqrtm(two)) ** 2).sum()
    diagonal = fisher_task_distance(a.diagonal(), b.diagonal())
    assert diagonal.item() ** 2 < square < frobenius  # measuring in one basis loses, taking U = 1 overstates


def test_bures_at_its_ends():
    for rank in (1, 3, 6):
        a = semidefinite(5, rank=rank)
        assert bures_distance(a, a.clone()).item() < 1e-12  # where the formula with traces gives 1e-8
    u, v = rotation(1)[0], rotation(2)[0]
    pure = bures_distance(u[:, None] * u, v[:, None] * v)
    assert pure.item() ** 2 == pytest.approx(1 - abs(float(u @ v)), rel=1e-10)
    basis = rotation(4)
    apart = bures_distance(basis[:2].T @ basis[:2], basis[2:].T @ basis[2:])
    assert apart.item() == pytest.approx(1, abs=1e-12) and apart <= 1


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.eye(2), torch.eye(3), r"\(2, 2\) and \(3, 3\)"),
        (torch.ones(2, 3), torch.ones(2, 3), "square"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), torch.eye(2), "a must be symmetric"),
        (
            torch.eye(2),
            torch.diag(torch.tensor([1.0, -0.1])),
            "b must be positive semi-definite, got the eigenvalue -0.1",
        ),
        (torch.eye(2), torch.diag(torch.tensor([-1.0, -0.1])), "positive semi-definite"),
        (torch.zeros(2, 2), torch.eye(2), "a has trace 0"),
        (torch.eye(2) * math.inf, torch.eye(2), "finite"),
    ],
)
def test_what_is_no_fisher_matrix_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        bures_distance(first, second)
