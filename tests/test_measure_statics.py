"""Complexities of tasks and of their unions, held to dense curvature and to what theory says of them."""

import dataclasses
import math

import pytest
import torch
from measure_problems import DOUBLE, blobs, learning_of, objective, points
from tiny_measurable import entries, measuring

from leap.measure import static
from leap.measure.complexities import bounds
from leap.measure.learning import fit_head, subset
from leap.measure.network import Learning, Network, error_on_test, summed_loss
from leap.measure.plan import Item
from leap.measure.reader import Reader
from leap.measure.static import factors
from leap.metrics.curvature import spectrum, tagged_gram
from leap.metrics.dense import fisher_matrix


def dense_union(learning, theta):
    """Curvature of all tasks at the union's own vector, each input with its task's name: no factors, no blocks."""
    return sum(
        fisher_matrix(lambda w, x, h=head: learning.network.logits(w, x, h), theta, task.inputs)
        for head, task in enumerate(learning.tasks)
    )


def same_spectrum(found, dense):
    """Eigenvalues other than zero agree."""
    count = max(len(found), len(dense))
    padded = [torch.cat([torch.zeros(count - len(h), dtype=DOUBLE), h.sort().values]) for h in (found, dense)]
    torch.testing.assert_close(padded[0], padded[1], rtol=1e-8, atol=1e-8 * float(dense.max()))


@pytest.mark.parametrize("tasks", [(0,), (0, 1), (1, 1)])
def test_the_spectrum_of_a_union_is_that_of_its_dense_curvature(tasks):
    learning = learning_of(blobs(), *tasks)
    theta = points(learning.network)
    found = factors(learning, theta, samples=10, dropped=0.0)
    assert float(found.dropped) == 0.0
    same_spectrum(spectrum(tagged_gram(found.rows, learning.network.shared)), spectrum(dense_union(learning, theta)))


def test_samples_stand_for_all():
    learning = learning_of(blobs(train=12), 1)
    theta = points(learning.network)
    half = factors(learning, theta, samples=6, dropped=0.0).rows[0]
    index = subset(learning.tasks[0], 6, seed=0)
    expected = 2 * fisher_matrix(learning.network.logits, theta, learning.tasks[0].inputs[index])
    torch.testing.assert_close(half.T @ half, expected, rtol=1e-10, atol=1e-12)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole measuring of three tasks, on all examples; and its document."""
    made = measuring(tmp_path_factory.mktemp("measured"), samples=24, barrier_samples=24, prior_variance=0.5)
    made.carry_out()
    return made, made.document()


def test_a_solution_keeps_what_its_complexity_needs(done):
    context = done[0].context
    for seed in (0, 1):
        for task in (0, 2):
            found = context.store.load(Item("solution", seed, task, task))
            theta, data = found.tensors["theta"], context.task(task)
            network = context.network(task)
            dense = spectrum(fisher_matrix(network.logits, theta.double(), data.inputs.double()))
            curved = context.store.load(Item("curvature", seed, task, task))
            same_spectrum(curved.tensors["eigenvalues"], dense)
            assert curved.numbers["fisher_trace"] == pytest.approx(float(dense.sum()), rel=1e-6)
            assert found.numbers["loss"] == pytest.approx(float(summed_loss(network, theta.double(), data)), rel=1e-5)
            assert found.numbers["squared_norm"] == pytest.approx(float(theta.double().square().sum()), rel=1e-6)
            assert found.numbers["test_error"] == error_on_test(network, theta, data)
            first = torch.cat([context.trunk(seed), torch.zeros(network.n - network.shared)])
            assert found.tensors["curve"][0].item() == pytest.approx(math.log(data.classes), rel=1e-6)
            assert not torch.equal(theta, first) and found.numbers["examples"] == 24


def test_a_union_keeps_the_lowest_of_its_ends(done, monkeypatch):
    context, ends = done[0].context, []
    original = static.learn

    def recorded(learning, theta, **options):
        end = original(learning, theta, **options)
        ends.append((learning, theta, end[0]))
        return end

    monkeypatch.setattr(static, "learn", recorded)
    found = static.union(context, Item("union", 1, 0, 2))
    assert len(ends) >= 3  # from the initialization and from either solution, the latter last
    heights = [float(24 * 2 * objective(learning, end.theta)) for learning, _, end in ends]
    price = context.plan.beta / (2 * context.plan.prior_variance)
    kept = found.numbers["loss"] + price * found.numbers["squared_norm"]
    assert kept == pytest.approx(min(heights), rel=1e-5) and kept < max(heights) - 1e-3
    learning, _, best = ends[heights.index(min(heights))]
    exact = Learning(learning.network, [task._replace(inputs=task.inputs.double()) for task in learning.tasks],
                     learning.prior, batch_size=8, seed=0)  # fmt: skip
    same_spectrum(found.tensors["eigenvalues"], spectrum(dense_union(exact, best.theta.double())))
    m = learning.network.shared
    for known, (_, theta, _) in zip((0, 2), ends[-2:], strict=True):
        assert torch.equal(theta[:m], context.solution(1, known)[:m])
        head = {0: 0, 2: 1}[known]
        assert torch.equal(learning.network.alone(theta, head), context.solution(1, known))
        other = learning.tasks[1 - head]  # its head is the best for the trunk that is there
        own = Network(context.family, (other.classes,))
        fitted = fit_head(own, own.start(theta), other, decay=2 * price / 24)
        torch.testing.assert_close(learning.network.alone(theta, 1 - head), fitted, rtol=0, atol=1e-4)


def test_directions_of_reachability_differ_by_the_complexities_alone(done):
    document = done[1]
    reach = entries(document, "reachability")
    whole = torch.tensor(document["singles"]["complexity"]["values"], dtype=DOUBLE)  # [S, T]
    torch.testing.assert_close(reach - reach.mT, whole[:, :, None] - whole[:, None, :], rtol=0, atol=1e-9)
    information = entries(document, "information_distance")
    held = torch.tensor(document["singles"]["complexity_information"]["values"], dtype=DOUBLE)
    torch.testing.assert_close(information - information.mT, held[:, :, None] - held[:, None, :], rtol=0, atol=1e-9)
    torch.testing.assert_close(
        entries(document, "reachability_fraction"), reach / whole[:, :, None], rtol=1e-12, atol=0
    )
    torch.testing.assert_close(entries(document, "target_complexity"), whole[:, :, None].expand_as(reach))


def test_a_task_costs_something_after_itself_and_it_is_the_unions_price(done):
    context, document = done[0].context, done[1]
    plan = context.plan

    def total(item):
        found = context.store.load(item)
        curved = context.store.load(item._replace(kind="curvature")) if item.kind == "solution" else found
        h, price = curved.tensors["eigenvalues"], plan.prior_variance / plan.beta
        logdet = 0.5 * plan.beta * torch.log1p(price * h).sum()
        norm = 0.5 * plan.beta / plan.prior_variance * found.numbers["squared_norm"]
        return found.numbers["loss"] + norm + float(logdet)

    reach = entries(document, "reachability")
    for s, seed in enumerate(plan.seeds):
        for t in range(3):
            own = total(Item("union", seed, t, t)) - total(Item("solution", seed, t, t))
            assert reach[s, t, t].item() == pytest.approx(own, rel=1e-9) and own > 0
        assert reach[s, 0, 2].item() == pytest.approx(
            total(Item("union", seed, 0, 2)) - total(Item("solution", seed, 2, 2)), rel=1e-9
        )


def test_complexity_over_beta_is_what_theory_says(done):
    document = done[1]
    singles, curves = document["singles"], document["curves"]
    parts = [torch.tensor(singles[f"complexity{p}"]["values"]) for p in ("", "_loss", "_norm", "_logdet")]
    torch.testing.assert_close(parts[0], parts[1] + parts[2] + parts[3])
    x = torch.tensor(curves["complexity_beta"]["x"], dtype=DOUBLE)
    total, information, loss = (
        torch.tensor(curves[f"{name}_beta"]["values"], dtype=DOUBLE) for name in ("complexity", "information", "loss")
    )
    assert x.tolist() == [0.3, 1.0, 3.0]
    torch.testing.assert_close(total, loss + x * information, rtol=1e-12, atol=0)
    assert (total.diff(dim=-1) > 0).all() and (information.diff(dim=-1) < 0).all() and (loss.diff(dim=-1) > 0).all()
    torch.testing.assert_close(total[..., 1], torch.tensor(singles["complexity"]["values"], dtype=DOUBLE))
    sweep = document["sweeps"]["reachability"]["matrices"]
    assert list(sweep) == ["0.3", "1", "3"] and sweep["1"] == document["matrices"]["reachability"]["values"]


def test_the_structure_function_falls_from_guessing(done):
    curve = done[1]["curves"]["structure"]
    for x, y in zip(curve["x"], curve["values"], strict=True):
        for task, (information, loss) in enumerate(zip(x, y, strict=True)):
            assert information[0] == 0 and loss[0] == pytest.approx(24 * math.log(2 + task), rel=1e-6)
            assert sorted(information) == information
            slopes = torch.tensor(loss, dtype=DOUBLE).diff()
            assert (slopes <= 1e-9).all() and (slopes.diff() >= -1e-6).all()  # falling and convex


def test_the_bound_is_above_the_error_it_bounds(done):
    singles = done[1]["singles"]
    train, bound = (torch.tensor(singles[name]["values"]) for name in ("noisy_train_error", "pac_bayes"))
    assert (bound > train).all() and ((train >= 0) & (train <= 100)).all()
    plan = dataclasses.replace(done[0].context.plan, beta=0.5)  # at which the bound would be infinite
    reader = Reader(done[0].context.store, plan, [0, 1, 2])
    assert bounds(reader) == {}


def test_a_prior_around_the_initialization_charges_for_the_way_only(tmp_path):
    made = measuring(tmp_path, distances=["fisher"], tasks=[0], prior_centre="initialization", seeds=(3,), epochs=1e-9,
                     refine_epochs=1e-9, rate=1e-6)  # fmt: skip
    made.carry_out()
    found = made.context.store.load(Item("solution", 3, 0, 0))
    assert found.numbers["squared_norm"] < 1e-8 < float(found.tensors["theta"].norm())
