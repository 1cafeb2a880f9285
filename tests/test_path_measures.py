"""Lengths of walks against closed forms: geometric sums on quadratics, geodesics of the simplex, reparametrization."""

import math

import pytest
import torch
from families import small_alphabets

from leap import optim
from leap.metrics.path import (
    PATH_MEASURES,
    fisher_rao_length,
    path_energy,
    path_length,
    path_length_until,
    path_measures,
    softmax_fisher_quadratic,
)
from leap.optim import Optimizer, sgd
from leap.walk import walk


def follow(points):
    """An inner optimizer that visits points [K + 1, T, n], whatever the gradient."""
    return Optimizer(lambda theta, extra: (), lambda state, grad, theta, i: (points[i + 1], ()))


class Still:
    """Tasks whose loss does not matter."""

    def sample(self, theta, step):
        return None

    def loss(self, theta, batch):
        return theta.sum(), {}


def travelled(points, form, **options):
    fold = {"length": fisher_rao_length(form, **options)}
    return walk(Still(), points[0], steps=len(points) - 1, optimizer=follow(points), folds=fold).results["length"]


def test_descent_on_quadratics_has_geometric_length_and_energy():
    """Task t: f = h_t |Q theta|^2 / 2 in a rotated basis, from an eigenvector: steps shrink by 1 - a h_t each."""
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(3, 4, 4, generator=g, dtype=torch.float64))[0]
    h = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.5, 5.0, 1.0, 2.0], [9.0, 4.0, 1.0, 1.0]], dtype=torch.float64)
    theta0 = 3.0 * basis[:, :, 1]
    a, steps = 0.1, 12

    class Bowls:
        def sample(self, theta, step):
            return basis @ h.diag_embed() @ basis.mT

        def loss(self, theta, batch):
            return 0.5 * theta @ batch @ theta, {}

    folds = {"length": path_length(loss_coordinate=False), "energy": path_energy(loss_coordinate=False)}
    results = walk(Bowls(), theta0, steps=steps, optimizer=optim.sgd(a), folds=folds).results
    r = 1 - a * h[:, 1]
    torch.testing.assert_close(results["length"], 3.0 * (1 - r**steps), rtol=1e-12, atol=0)
    energy = (3.0 * a * h[:, 1]) ** 2 * (1 - r ** (2 * steps)) / (1 - r**2)
    torch.testing.assert_close(results["energy"], energy, rtol=1e-12, atol=0)


def great_circle(p, q, steps):
    """Logits along the geodesic of the simplex: sqrt(p) moves on a sphere at constant speed."""
    angle = torch.arccos((p * q).sqrt().sum())
    s = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None]
    root = (torch.sin((1 - s) * angle) * p.sqrt() + torch.sin(s * angle) * q.sqrt()) / torch.sin(angle)
    return 2 * root.log()[:, None], 2 * angle  # [K + 1, 1, C]


def test_length_tends_to_the_geodesic_of_the_simplex():
    """Categorical model, theta its logits: the Fisher-Rao geodesic from p to q is 2 arccos(sum sqrt(p q)) long."""
    p, q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)
    categorical = lambda theta, x: theta.expand(len(x), -1)  # noqa: E731
    form = softmax_fisher_quadratic(categorical, torch.zeros(1, 2))
    found, gaps = {}, {}
    for steps in (100, 200, 400):
        points, geodesic = great_circle(p, q, steps)
        found[steps] = travelled(points, form).item()
        gaps[steps] = found[steps] - geodesic.item()
    assert abs(gaps[400]) < 2e-3 * geodesic
    assert gaps[100] / gaps[200] == pytest.approx(2, rel=0.02)  # first order in the step
    assert 2 * found[400] - found[200] == pytest.approx(geodesic.item(), rel=1e-5)


def test_length_of_a_detour_is_longer():
    p, q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)
    categorical = lambda theta, x: theta.expand(len(x), -1)  # noqa: E731
    form = softmax_fisher_quadratic(categorical, torch.zeros(1, 1))
    s = torch.linspace(0, 1, 401, dtype=torch.float64)[:, None]
    straight = ((1 - s) * p.log() + s * q.log())[:, None]  # a straight line among logits
    points, geodesic = great_circle(p, q, 400)
    assert travelled(straight, form) > travelled(points, form) + 1e-3
    assert travelled(straight, form) > geodesic


def mlp(theta, inputs):
    w, head = theta.split([6, 9])
    return torch.tanh(inputs @ w.view(2, 3)) @ head.view(3, 3)


def wandering(tasks=3, steps=8, n=15, seed=0):
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(steps + 1, tasks, n, generator=g, dtype=torch.float64).cumsum(0) * 0.3
    return points, torch.randn(tasks, 7, 2, generator=g, dtype=torch.float64)


def dense(theta, inputs):
    jacobian = torch.func.jacrev(lambda point: mlp(point, inputs))(theta)  # [n, C, K]
    p = mlp(theta, inputs).softmax(1)
    s = p.diag_embed() - p[:, :, None] * p[:, None, :]
    return torch.einsum("nck,ncd,ndl->kl", jacobian, s, jacobian) / len(inputs)


@pytest.mark.parametrize("execution", ["batched", "sequential"])
def test_length_is_that_of_the_dense_fisher(execution):
    points, inputs = wandering()
    form = softmax_fisher_quadratic(mlp, inputs, execution=execution)
    segments = torch.zeros(8, 3, dtype=torch.float64)
    for i in range(8):
        for t in range(3):
            delta = points[i + 1, t] - points[i, t]
            segments[i, t] = (delta @ dense(points[i, t], inputs[t]) @ delta).sqrt()
    torch.testing.assert_close(travelled(points, form), segments.sum(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        travelled(points, form, last_segment=False), segments[:-1].sum(0), rtol=1e-12, atol=1e-12
    )


def test_length_does_not_know_how_the_network_is_parametrized():
    """theta = A phi: the same functions on the same path, other parameters."""
    points, inputs = wandering()
    g = torch.Generator().manual_seed(5)
    a = torch.randn(15, 15, generator=g, dtype=torch.float64) + 4 * torch.eye(15, dtype=torch.float64)
    other = torch.linalg.solve(a, points.reshape(-1, 15).T).T.reshape(9, 3, 15)
    expected = travelled(points, softmax_fisher_quadratic(mlp, inputs))
    form = softmax_fisher_quadratic(lambda phi, x: mlp(a @ phi, x), inputs)
    torch.testing.assert_close(travelled(other, form), expected, rtol=1e-9, atol=0)
    plain = {"length": path_length(loss_coordinate=False)}
    lengths = [
        walk(Still(), path[0], steps=8, optimizer=follow(path), folds=plain).results["length"]
        for path in (points, other)
    ]
    assert not torch.allclose(*lengths, rtol=0.1)  # as among parameters it does


def test_length_agrees_with_divergences_of_short_steps():
    """A step of length s changes the predictions by s^2 / 2 nats."""
    points, inputs = wandering(tasks=1, steps=1)
    short = torch.stack([points[0], points[0] + 1e-4 * (points[1] - points[0])])
    before, after = (mlp(point[0], inputs[0]).log_softmax(1) for point in short)
    divergence = (before.exp() * (before - after)).sum(1).mean()
    length = travelled(short, softmax_fisher_quadratic(mlp, inputs))[0]
    assert length.item() ** 2 / 2 == pytest.approx(divergence.item(), rel=1e-3)


def test_single_precision_walks_and_repeated_points():
    points, inputs = wandering()
    form = softmax_fisher_quadratic(mlp, inputs)
    single = travelled(points.float(), softmax_fisher_quadratic(mlp, inputs.float()))
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, travelled(points, form), rtol=1e-5, atol=0)
    assert travelled(points[:1].expand(4, -1, -1), form).tolist() == [0.0, 0.0, 0.0]


def test_a_task_that_diverges_leaves_the_others_alone():
    points, inputs = wandering()
    expected = travelled(points, softmax_fisher_quadratic(mlp, inputs))
    points[4:, 1] = math.nan
    found = travelled(points, softmax_fisher_quadratic(mlp, inputs))
    assert found.isnan().tolist() == [False, True, False]
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


def test_no_loss_is_evaluated_for_the_last_segment():
    calls = []

    class Counting(Still):
        def loss(self, theta, batch):
            calls.append(1)
            return theta.sum(), {}

    points, inputs = wandering()
    fold = {"length": fisher_rao_length(softmax_fisher_quadratic(mlp, inputs))}
    walk(Counting(), points[0], steps=8, optimizer=follow(points), folds=fold)
    assert len(calls) == 8


def test_what_is_no_fisher_form_is_refused():
    points, inputs = wandering()
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        travelled(points, lambda theta, delta: -torch.ones(3))
    with pytest.raises(ValueError, match=r"must return \(3,\), got \(\)"):
        travelled(points, lambda theta, delta: delta.sum())
    with pytest.raises(ValueError, match="inputs are of 2 tasks"):
        travelled(points, softmax_fisher_quadratic(mlp, inputs[:2]))
    with pytest.raises(ValueError, match="two classes"):
        travelled(points, softmax_fisher_quadratic(lambda theta, x: mlp(theta, x)[:, :1], inputs))
    with pytest.raises(ValueError, match="not empty"):
        softmax_fisher_quadratic(mlp, inputs[:, :0])
    with pytest.raises(ValueError, match="'parallel'"):
        softmax_fisher_quadratic(mlp, inputs, execution="parallel")


def test_all_measures_at_once_are_those_measured_one_by_one():
    family = small_alphabets()
    tasks = family.batch(family.ids("train")[:2], [1, 2])
    apart = {
        "path_length": path_length(),
        "path_energy": path_energy(),
        "path_length_parameters": path_length(loss_coordinate=False),
        "path_energy_parameters": path_energy(loss_coordinate=False),
    }
    theta = family.initial(0).double()
    found = walk(tasks, theta, steps=4, optimizer=sgd(0.1), folds={**apart, "all": path_measures()}).results
    assert tuple(apart) == PATH_MEASURES
    torch.testing.assert_close(
        found["all"], torch.stack([found[name] for name in PATH_MEASURES], dim=1), rtol=1e-12, atol=0
    )


def test_length_until_a_level_is_the_length_of_the_shorter_walk():
    family = small_alphabets()
    tasks, theta = family.batch(family.ids("train")[:2], [1, 2]), family.initial(0).double()
    whole = walk(tasks, theta, steps=12, optimizer=sgd(0.3))
    steps = 7
    level = float(whole.losses[0, : steps + 1].min()) + 1e-9
    first = int((whole.losses[0] < level).nonzero()[0])
    folds = {"until": path_length_until(level), "never": path_length_until(-1.0)}
    found = walk(tasks, theta, steps=12, optimizer=sgd(0.3), folds=folds).results
    short = walk(tasks, theta, steps=first, optimizer=sgd(0.3), folds={"length": path_length()}).results["length"]
    torch.testing.assert_close(found["until"][0], short[0], rtol=1e-12, atol=0)
    assert found["never"].isnan().all()
    with pytest.raises(ValueError, match="finite"):
        path_length_until(float("nan"))
