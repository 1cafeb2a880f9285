"""Meta-gradients against algebra and against naive loops written from the papers, in float64."""

import weakref

import pytest
import torch
from families import FAMILIES, LEARNERS, Waves

from leap import adjoint, learners, optim
from leap.batching import loss_and_gradient
from leap.layout import Layout
from leap.testing import check_learner
from leap.walk import walk

OPTIMIZERS = {
    "sgd": optim.sgd(0.05),
    "momentum": optim.sgd(0.03, momentum=0.8, weight_decay=0.1),
    "adam": optim.adam(0.05, weight_decay=0.01),
    "rmsprop": optim.rmsprop(0.02, momentum=0.5),
    "cosine": optim.sgd(0.08, schedule=optim.cosine(7)),
}
K = 7


def run(tasks, fold, optimizer, steps=K, theta0=None, execution="batched"):
    start = tasks.theta0 if theta0 is None else theta0
    return walk(tasks, start, steps=steps, optimizer=optimizer, folds={"it": fold}, execution=execution)


def unrolled(tasks, t, theta0, optimizer, steps, rates=None, trunk=0):
    """One task's walk as a plain loop with a graph: points 0 .. K, losses and gradients at 0 .. K-1."""
    theta, points, losses, grads = theta0[None], [theta0], [], []
    state = optimizer.init(theta, theta[:, :0])
    for i in range(steps):
        batch = {k: v[t] for k, v in tasks.sample(None, i).items()}
        loss, _ = tasks.loss(theta[0], batch)
        (grad,) = torch.autograd.grad(loss, theta, create_graph=True)
        losses.append(loss)
        grads.append(grad[0])
        if rates is not None:
            theta = theta - rates * grad
        else:
            moved, state = optimizer.update(state, grad, theta, i)
            theta = torch.cat([theta[:, :trunk], moved[:, trunk:]], dim=1)
        points.append(theta[0])
    return points, losses, grads


def loss_at(tasks, t, theta, draw, step):
    return tasks.loss(theta, {k: v[t] for k, v in draw(None, step).items()})[0]


@pytest.mark.parametrize("execution", ["batched", "sequential"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 2, 7, 10])
def test_maml_is_the_gradient_through_the_walk(optimizer, execution, steps):
    tasks = Waves()
    ours = run(tasks, learners.maml(), OPTIMIZERS[optimizer], steps, execution=execution).results["it"]
    for t in range(3):
        theta0 = tasks.theta0.clone().requires_grad_()
        points, _, _ = unrolled(tasks, t, theta0, OPTIMIZERS[optimizer], steps)
        (expected,) = torch.autograd.grad(loss_at(tasks, t, points[-1], tasks.query, steps), theta0)
        torch.testing.assert_close(ours[t], expected, rtol=1e-10, atol=1e-12)


def test_maml_takes_the_next_batch_where_there_is_no_query():
    tasks = Waves()
    plain = Waves()
    plain.query = plain.sample
    bare = type("Bare", (), {"sample": plain.sample, "loss": plain.loss, "layout": plain.layout})()
    torch.testing.assert_close(
        run(bare, learners.maml(), optim.sgd(0.05), theta0=tasks.theta0).results["it"],
        run(plain, learners.maml(), optim.sgd(0.05)).results["it"],
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_anil_moves_the_head_alone_and_differentiates_all(optimizer):
    tasks = Waves()
    walked = run(tasks, learners.anil(), OPTIMIZERS[optimizer])
    assert torch.equal(walked.theta[:, :4], tasks.theta0[:4].expand(3, -1))
    assert not torch.equal(walked.theta[:, 4:], tasks.theta0[4:].expand(3, -1))
    for t in range(3):
        theta0 = tasks.theta0.clone().requires_grad_()
        points, _, _ = unrolled(tasks, t, theta0, OPTIMIZERS[optimizer], K, trunk=4)
        (expected,) = torch.autograd.grad(loss_at(tasks, t, points[-1], tasks.query, K), theta0)
        torch.testing.assert_close(walked.results["it"][t], expected, rtol=1e-10, atol=1e-12)


def test_anil_needs_to_know_the_head():
    with pytest.raises(ValueError, match="where the head begins"):
        run(Waves(with_layout=False), learners.anil(), optim.sgd(0.1))
    given = run(Waves(with_layout=False), learners.anil(trunk=4), optim.sgd(0.1)).results["it"]
    assert torch.equal(given, run(Waves(), learners.anil(), optim.sgd(0.1)).results["it"])


def test_meta_sgd_learns_point_and_rates():
    tasks = Waves()
    rates = torch.linspace(0.02, 0.08, 6, dtype=torch.float64)
    meta = torch.cat([tasks.theta0, rates])
    ours = run(tasks, learners.meta_sgd(), optim.sgd(0.5), theta0=meta).results["it"]
    assert ours.shape == (3, 12)
    for t in range(3):
        start = meta.clone().requires_grad_()
        points, _, _ = unrolled(tasks, t, start[:6], optim.sgd(0.5), K, rates=start[6:])
        (expected,) = torch.autograd.grad(loss_at(tasks, t, points[-1], tasks.query, K), start)
        torch.testing.assert_close(ours[t], expected, rtol=1e-10, atol=1e-12)
    from_start = run(tasks, learners.meta_sgd(rate=0.05), optim.sgd(0.5)).results["it"]
    given = torch.cat([tasks.theta0, torch.full((6,), 0.05, dtype=torch.float64)])
    assert torch.equal(from_start, run(tasks, learners.meta_sgd(), optim.sgd(0.5), theta0=given).results["it"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fomaml_and_reptile_use_the_end_of_the_walk(optimizer):
    tasks = Waves()
    fomaml = run(tasks, learners.fomaml(), OPTIMIZERS[optimizer]).results["it"]
    reptile = run(tasks, learners.reptile(), OPTIMIZERS[optimizer]).results["it"]
    for t in range(3):
        points, _, _ = unrolled(tasks, t, tasks.theta0.clone().requires_grad_(), OPTIMIZERS[optimizer], K)
        end = points[-1].detach().requires_grad_()
        (expected,) = torch.autograd.grad(loss_at(tasks, t, end, tasks.query, K), end)
        torch.testing.assert_close(fomaml[t], expected, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(reptile[t], tasks.theta0 - end.detach(), rtol=1e-11, atol=1e-13)


def naive_leap(tasks, t, optimizer, *, p, loss_coordinate, stabilizer, last_segment, exact):
    """Equation 8 segment by segment, with autograd's Jacobians."""
    theta0 = tasks.theta0.clone().requires_grad_()
    points, losses, grads = unrolled(tasks, t, theta0, optimizer, K)
    losses = [*losses, loss_at(tasks, t, points[-1], tasks.sample, K)]
    total = torch.zeros_like(tasks.theta0)
    for i in range(K if last_segment else K - 1):
        rise = (losses[i + 1] - losses[i]).detach()
        step = (points[i + 1] - points[i]).detach()
        square = step @ step + (rise**2 if loss_coordinate else 0)
        signed = -rise.abs() if stabilizer else rise
        direction = step + (signed * grads[i].detach() if loss_coordinate else 0)
        vector = -p * direction * square ** ((p - 2) / 2)
        if exact:
            (vector,) = torch.autograd.grad(points[i], theta0, vector, retain_graph=True)
        total = total + vector
    return total


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("last_segment", [False, True])
@pytest.mark.parametrize(("loss_coordinate", "stabilizer"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("metric", ["length", "energy"])
def test_leap_is_equation_8(metric, loss_coordinate, stabilizer, last_segment, exact):
    tasks = Waves()
    options = {"loss_coordinate": loss_coordinate, "stabilizer": stabilizer, "last_segment": last_segment}
    fold = learners.leap(metric, jacobian="exact" if exact else "identity", **options)
    for optimizer in OPTIMIZERS.values():
        ours = run(tasks, fold, optimizer).results["it"]
        for t in range(3):
            expected = naive_leap(tasks, t, optimizer, p=1 if metric == "length" else 2, exact=exact, **options)
            torch.testing.assert_close(ours[t], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("metric", ["length", "energy"])
def test_exact_leap_is_the_gradient_of_the_pull_forward_objective(metric):
    """Autograd through the whole walk, the forward points psi frozen where the walk passed."""
    tasks, optimizer = Waves(), optim.sgd(0.05, momentum=0.5)
    fold = learners.leap(metric, stabilizer=False, jacobian="exact")
    ours = run(tasks, fold, optimizer).results["it"]
    for t in range(3):
        theta0 = tasks.theta0.clone().requires_grad_()
        points, losses, _ = unrolled(tasks, t, theta0, optimizer, K)
        losses = [*losses, loss_at(tasks, t, points[-1], tasks.sample, K)]
        pulled = 0.0
        for i in range(K):
            square = (points[i + 1].detach() - points[i]).square().sum() + (losses[i + 1].detach() - losses[i]) ** 2
            pulled = pulled + (square.sqrt() if metric == "length" else square)
        (expected,) = torch.autograd.grad(pulled, theta0)
        torch.testing.assert_close(ours[t], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("metric", ["length", "energy"])
def test_with_sgd_every_increment_is_a_positive_multiple_of_the_gradient(metric):
    """The increment identity: (a + |df|) g / sqrt(a^2 g^2 + df^2), and 2 (a + |df|) g for the energy."""
    tasks, rate = Waves(), 0.05
    walked = run(tasks, learners.leap(metric), optim.sgd(rate))
    for t in range(3):
        points, losses, grads = unrolled(tasks, t, tasks.theta0.clone().requires_grad_(), optim.sgd(rate), K)
        losses = [*losses, loss_at(tasks, t, points[-1], tasks.sample, K)]
        total = torch.zeros(6, dtype=torch.float64)
        for i, g in enumerate(grads):
            rise = (losses[i + 1] - losses[i]).abs()
            norm = (rate**2 * g.square().sum() + rise**2).sqrt() if metric == "length" else 0.5
            total += ((rate + rise) * g / norm).detach()
        torch.testing.assert_close(walked.results["it"][t], total, rtol=1e-11, atol=1e-12)


def test_plain_energy_is_reptile():
    tasks = Waves()
    plain = learners.leap("energy", loss_coordinate=False, stabilizer=False)
    reptile = run(tasks, learners.reptile(), optim.adam(0.1)).results["it"]
    torch.testing.assert_close(run(tasks, plain, optim.adam(0.1)).results["it"], 2 * reptile, rtol=1e-12, atol=1e-13)
    released = learners.leap("energy", loss_coordinate=False, stabilizer=False, last_segment=False)
    one_less = run(tasks, learners.reptile(), optim.adam(0.1), steps=K - 1).results["it"]
    torch.testing.assert_close(
        run(tasks, released, optim.adam(0.1)).results["it"], 2 * one_less, rtol=1e-12, atol=1e-13
    )


def test_a_walk_that_stands_still_adds_zero():
    class Flat:
        def sample(self, theta, step):
            return None

        def loss(self, theta, batch):
            return theta.sum() * 0, {}

    for metric in ("length", "energy"):
        result = walk(Flat(), torch.ones(3), steps=4, optimizer=optim.sgd(0.1), folds={"it": learners.leap(metric)})
        assert torch.equal(result.results["it"], torch.zeros(1, 3))


def test_on_a_bowl_the_walk_and_its_gradients_have_closed_forms():
    r"""f = theta^T A theta / 2 and SGD: theta^i = (I - a A)^i theta^0."""
    a, steps = 0.1, 6
    tasks = FAMILIES["quadratic"]().batch([0, 1], [0, 0])
    theta0 = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    names = ("reptile", "fomaml", "maml", "leap-plain-energy")
    folds = {
        "reptile": learners.reptile(),
        "fomaml": learners.fomaml(),
        "maml": learners.maml(),
        "leap-plain-energy": learners.leap("energy", loss_coordinate=False, jacobian="exact"),
    }
    results = {
        n: walk(tasks, theta0, steps=steps, optimizer=optim.sgd(a), folds={n: folds[n]}).results[n] for n in names
    }
    for t in range(2):
        curvature, away = tasks.curvature[t], theta0 - tasks.minimum[t]
        shrink = torch.eye(4, dtype=torch.float64) - a * curvature
        power = torch.linalg.matrix_power(shrink, steps)
        close = {"rtol": 1e-11, "atol": 1e-12}
        torch.testing.assert_close(results["reptile"][t], away - power @ away, **close)
        torch.testing.assert_close(results["fomaml"][t], curvature @ power @ away, **close)
        torch.testing.assert_close(results["maml"][t], power @ curvature @ power @ away, **close)
        exact = sum(
            2 * torch.linalg.matrix_power(shrink, 2 * i) @ (a * curvature @ away) for i in range(steps)
        )  # J^i = (I - a A)^i and every step is a A (I - a A)^i away
        torch.testing.assert_close(results["leap-plain-energy"][t], exact, **close)


def test_finetuning_walks_one_joint_task_through_its_heads():
    tasks = Waves()
    n, trunk, h = 6, 4, 2
    walked = run(tasks, learners.finetune(), optim.sgd(0.05), steps=3)
    assert walked.results["it"].shape == (1, n + 3 * h) and walked.losses.shape == (1, 9)
    body = tasks.theta0[:trunk].clone()
    heads = [tasks.theta0[trunk:].clone() for _ in range(3)]
    for i in range(9):
        turn, t = divmod(i, 3)
        theta = torch.cat([body, heads[t]]).requires_grad_()
        (grad,) = torch.autograd.grad(loss_at(tasks, t, theta, tasks.sample, turn), theta)
        body, heads[t] = body - 0.05 * grad[:trunk], heads[t] - 0.05 * grad[trunk:]
    expected = torch.cat([body, tasks.theta0[trunk:], *heads])
    torch.testing.assert_close(walked.theta[0], expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(walked.results["it"][0, :trunk], tasks.theta0[:trunk] - body, rtol=1e-11, atol=1e-12)
    assert torch.equal(walked.results["it"][0, trunk:n], torch.zeros(h, dtype=torch.float64))  # the fresh head


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_meets_every_family(learner, family):
    source = FAMILIES[family]()
    tasks = source.batch(list(source.ids("train"))[:3], [1, 2, 3])
    check_learner(LEARNERS[learner], tasks, source.initial(0).double())


@pytest.mark.parametrize("learner", ["leap", "leap-exact", "reptile", "fomaml", "maml", "none"])
def test_a_head_of_ones_own_is_walked_but_not_learned(learner):
    tasks, heads = Waves(), torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    theta0 = torch.cat([tasks.theta0[:4].expand(3, -1), heads], dim=1)
    whole = run(tasks, LEARNERS[learner](), optim.sgd(0.05), theta0=theta0)
    tasks.layout = Layout(tasks.layout.names, tasks.layout.shapes, trunk=4, shared=4)
    own = run(tasks, LEARNERS[learner](), optim.sgd(0.05), theta0=theta0)
    assert own.results["it"].shape == (3, 4)
    assert torch.equal(own.theta, whole.theta)
    if not learner.startswith("leap"):  # Leap's norm runs over the shared part, so its numbers change
        assert torch.equal(own.results["it"], whole.results["it"][:, :4])


def test_nothing_is_kept_of_the_graph():
    tasks = Waves()
    for make in LEARNERS.values():
        walked = run(tasks, make(), optim.sgd(0.05))
        tensors = [walked.theta, walked.losses, *walked.results.values(), *walked.aux.values()]
        assert not any(tensor.requires_grad for tensor in tensors)


def test_maml_keeps_a_number_of_points_that_grows_with_the_root_of_the_walk():
    alive, most = {}, 0

    class Counted(Waves):
        def sample(self, theta, step):
            nonlocal most
            if id(theta) not in alive:
                alive[id(theta)] = weakref.finalize(theta, alive.pop, id(theta))
            most = max(most, len(alive))
            return super().sample(theta, step)

    peaks = {}
    for steps in (16, 64, 256):
        most = 0
        run(Counted(), learners.maml(), optim.sgd(0.01), steps=steps)
        peaks[steps] = most
    assert peaks[64] <= 2 * peaks[16] + 2 and peaks[256] <= 2 * peaks[64] + 2, peaks


@pytest.mark.parametrize("graphs", [0, 1, 3, 8, 100])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_exact_gradients_do_not_depend_on_how_many_graphs_are_kept(graphs, optimizer, steps, monkeypatch):
    tasks, makes = Waves(), [learners.maml, lambda: learners.leap(jacobian="exact")]
    monkeypatch.setattr(adjoint, "GRAPHS", 0)
    expected = [run(tasks, make(), OPTIMIZERS[optimizer], steps=steps) for make in makes]
    monkeypatch.setattr(adjoint, "GRAPHS", graphs * len(tasks.slope))
    for make, other in zip(makes, expected, strict=True):
        found = run(tasks, make(), OPTIMIZERS[optimizer], steps=steps)
        torch.testing.assert_close(found.results["it"], other.results["it"], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(found.theta, other.theta, rtol=1e-13, atol=1e-14)


def test_two_folds_may_go_back_over_one_walk():
    folds = {"maml": learners.maml(), "leap": learners.leap(jacobian="exact")}
    tasks = Waves()
    both = walk(tasks, tasks.theta0, steps=7, optimizer=optim.sgd(0.05), folds=folds)
    for name, fold in folds.items():
        own = walk(tasks, tasks.theta0, steps=7, optimizer=optim.sgd(0.05), folds={name: fold})
        torch.testing.assert_close(both.results[name], own.results[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("steps, calls", [(1, 2), (8, 9), (9, 11), (64, 64 + 1 + 56)])
def test_a_short_walk_of_one_task_computes_nothing_twice(steps, calls):
    """Forward, query, and again what lies before the last eight steps, once."""
    taken = 0

    class Counted(Waves):
        def loss(self, theta, batch):
            nonlocal taken
            taken += 1
            return super().loss(theta, batch)

    run(Counted(tasks=1), learners.maml(), optim.sgd(0.01), steps=steps)
    assert taken == calls


@pytest.mark.parametrize("tasks, most", [(1, 8), (3, 2), (8, 1), (9, 1)])
@pytest.mark.parametrize("execution", ["batched", "sequential"])
def test_no_more_graphs_are_alive_than_those_of_eight_steps_of_one_task(tasks, most, execution, monkeypatch):
    alive, peak, link = set(), 0, adjoint._link

    def counted(*given):
        nonlocal peak
        found = link(*given)
        leaf = found[-1].theta
        alive.add(id(leaf))
        weakref.finalize(leaf, alive.discard, id(leaf))
        peak = max(peak, len(alive))
        return found

    monkeypatch.setattr(adjoint, "_link", counted)
    for steps in (10, 40):
        run(Waves(tasks=tasks), learners.maml(), optim.sgd(0.01), steps=steps, execution=execution)
    assert peak == most and not alive


def test_learners_that_do_not_go_back_keep_no_graphs(monkeypatch):
    monkeypatch.delattr(adjoint, "_link")
    for make in (learners.leap, learners.reptile, learners.fomaml):
        run(Waves(tasks=1), make(), optim.sgd(0.01))


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="'lenght'"):
        learners.leap("lenght")
    with pytest.raises(ValueError, match="'full'"):
        learners.leap(jacobian="full")


def test_gradients_of_the_families_agree_with_finite_differences():
    for make in FAMILIES.values():
        family = make()
        tasks = family.batch(list(family.ids("train"))[:1], [3])
        theta = family.initial(1).double()[None]
        batch = tasks.sample(theta, 0)
        _, _, grad = loss_and_gradient(tasks.loss, theta, batch, "sequential")
        direction = torch.randn(theta.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        low, high = (
            loss_and_gradient(tasks.loss, theta + e * direction, batch, "sequential")[0].item() for e in (-1e-6, 1e-6)
        )
        assert (high - low) / 2e-6 == pytest.approx(float(grad[0] @ direction), rel=2e-4)


def test_joint_finetuning_draws_each_tasks_batch_at_that_tasks_own_head() -> None:
    """Who acts with theta (games) must act with the head that learns."""
    seen = []

    class Acting(Waves):
        def sample(self, theta, step):
            seen.append(theta.clone())
            return super().sample(theta, step)

    tasks = Acting(tasks=3)
    heads = torch.arange(6, dtype=torch.float64)  # two entries a task
    walk(tasks, torch.cat([tasks.theta0, heads]), steps=1, optimizer=optim.sgd(0.0), folds={"it": learners.finetune()})
    assert torch.equal(seen[-1][:, :4], tasks.theta0[:4].expand(3, -1))
    assert seen[-1][:, 4:].tolist() == [[0, 1], [2, 3], [4, 5]]
