"""From one task to another, and from an initialization to tasks: what transfers, barriers and walks are held to."""

import math

import pytest
import torch
from tiny_measurable import Blobs, entries, measuring
from torch.nn import functional as F

from leap.evaluate import evaluate
from leap.measure import transfer
from leap.measure.learning import subset
from leap.measure.plan import SCRATCH, Item
from leap.metrics.dense import fisher_matrix
from leap.metrics.path import path_length

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole measuring of three tasks, on all examples; and its document."""
    made = measuring(tmp_path_factory.mktemp("measured"), samples=24, barrier_samples=24, prior_variance=0.5)
    made.carry_out()
    return made, made.document()


def test_fisher_distances_are_distances(done):
    values = entries(done[1], "fisher")
    off = ~torch.eye(3, dtype=torch.bool)
    assert (values.diagonal(dim1=1, dim2=2) == 0).all()
    assert ((values[:, off] > 0) & (values[:, off] <= 1)).all() and not torch.equal(values, values.mT)
    embedded = entries(done[1], "task2vec")
    assert (embedded.diagonal(dim1=1, dim2=2).abs() < 1e-12).all()
    torch.testing.assert_close(embedded, embedded.mT)
    assert (embedded[:, off] > 0).all()


def test_the_diagonal_is_of_the_sources_network_on_the_targets_inputs(done):
    context = done[0].context
    network, inputs = context.network(2), context.task(0).inputs.double()
    theta = context.solution(0, 2).double()
    exact = fisher_matrix(network.logits, theta, inputs).diagonal()[: network.shared] / len(inputs)
    drawn = context.store.load(Item("fisher", 0, 0, 2)).tensors["diagonal"]
    assert drawn.shape == exact.shape and (drawn >= 0).all()
    assert (
        float(F.cosine_similarity(drawn, exact, dim=0)) > 0.8 and 0.5 < float(drawn.sum() / exact.sum()) < 2
    )  # one drawn label an input


def test_fine_tuning_starts_at_the_sources_trunk_with_a_head_that_guesses(tmp_path):
    made = measuring(tmp_path, distances=["convergence"], seeds=(0,), tuning_rate=1e-9)
    made.carry_out()
    context = made.context
    for target in range(3):
        for source in (SCRATCH, *(s for s in range(3) if s != target)):
            found = context.store.load(Item("tuning", 0, target, source))
            trunk = context.trunk(0) if source == SCRATCH else context.solution(0, source)
            m = len(context.trunk(0))
            torch.testing.assert_close(found.tensors["theta"][:m], trunk[:m], rtol=0, atol=1e-6)
            assert found.tensors["theta"][m:].abs().max() < 1e-6
            assert found.tensors["epochs"][0] == 0 and found.tensors["epochs"][-1] == 2
            assert found.tensors["curve"][0].item() == pytest.approx(math.log(2 + target), rel=1e-6)


def test_epochs_are_counted_to_a_threshold_of_the_target(done):
    made, document = done
    context, epochs = made.context, document["matrices"]["epochs"]
    for s, seed in enumerate(context.plan.seeds):
        for t in range(3):
            scratch = context.store.load(Item("tuning", seed, t, SCRATCH)).tensors
            before, after = scratch["curve"][2:].tolist()  # at 2/3 and 2 epochs; scratch_epochs = 1 is a quarter on
            threshold = 1.05 * (0.75 * before + 0.25 * after)
            assert document["singles"]["threshold"]["values"][s][t] == pytest.approx(threshold, rel=1e-6)
            assert document["singles"]["epochs_from_scratch"]["values"][s][t] <= 1.0
            for o in range(3):
                if o == t:
                    assert epochs["values"][s][t][o] is None and not epochs["censored"][s][t][o]
                    continue
                curve = context.store.load(Item("tuning", seed, t, o)).tensors["curve"]
                assert epochs["censored"][s][t][o] == bool((curve > threshold).all())


def test_the_second_threshold_is_a_share_of_the_loss_of_guessing(done):
    made, document = done
    for row in document["singles"]["threshold_to_share"]["values"]:
        assert row == pytest.approx([made.context.plan.share * math.log(2 + t) for t in range(3)], rel=1e-6)


def test_a_row_of_the_fisher_matrix_is_of_one_targets_data(done):
    made, document = done
    load, values = made.context.store.load, document["matrices"]["fisher"]["values"]
    for target, source in ((0, 2), (2, 0), (1, 2)):
        own = load(Item("fisher", 0, target, target)).tensors["diagonal"]
        theirs = load(Item("fisher", 0, target, source)).tensors["diagonal"]
        overlap = (own / own.sum() * theirs / theirs.sum()).sqrt().sum()  # the distance is Hellinger's
        assert values[0][target][source] == pytest.approx(float((1 - overlap).sqrt()), abs=1e-7)


def test_a_barrier_is_consistent_with_itself_and_with_the_potential(done):
    context = done[0].context
    plan = context.plan
    for seed, target, source in ((0, 0, 1), (1, 2, 0)):
        found = context.store.load(Item("barrier", seed, target, source))
        n, losses = found.numbers, found.tensors["losses"]
        assert 0 <= n["curve"] <= n["line"] and n["uphill"] >= n["curve"] - 1e-12 and n["action"] >= -0.02
        assert n["start"] == losses[0] and n["end"] == losses[-1] and n["temperature"] > 0
        assert n["curve"] == pytest.approx(float(losses.max() - losses[0]), abs=1e-9)
        learning = context.learning(Item("barrier", seed, target, target), target)
        potential = transfer.potential_of(learning, subset(context.task(target), plan.barrier_samples, seed=0))
        tuned = context.tuned(seed, target, source)
        assert n["end"] == pytest.approx(float(potential(tuned)), rel=1e-6)
        guess = learning.network.start(context.solution(seed, source))
        assert n["start"] < float(potential(guess))  # the head was refitted
        task = context.task(target)
        inside = F.cross_entropy(
            learning.network.logits(tuned, task.inputs), task.labels
        )  # all of them, in their order
        assert n["end"] == pytest.approx(float(inside + tuned.square().sum() / (2 * 0.5 * 24)), rel=1e-5)


def test_the_two_factors_make_up_the_least_action(done):
    context, document = done[0].context, done[1]
    static_factor, path_factor = (entries(document, f"log_{name}_factor") for name in ("static", "path"))
    for s, seed in enumerate(context.plan.seeds):
        n = context.store.load(Item("barrier", seed, 2, 0)).numbers
        total = static_factor[s, 2, 0] + path_factor[s, 2, 0]
        assert total.item() == pytest.approx(-n["action"] / n["temperature"], rel=1e-9)
        assert static_factor[s, 2, 0].item() == pytest.approx(-(n["end"] - n["start"]) / 2 / n["temperature"], rel=1e-9)


@pytest.mark.parametrize("barrier_points", [3, 5, 8, 12, 21])
def test_the_profile_reaches_both_ends_of_the_curve(barrier_points, tmp_path):
    made = measuring(
        tmp_path, Blobs(classes=(2, 2)), distances=["dynamic"], seeds=(0,), barrier_points=barrier_points, tasks=[0, 1]
    )
    made.carry_out()
    found = made.context.store.load(Item("barrier", 0, 0, 1))
    learning = made.context.learning(Item("barrier", 0, 0, 0), 0)
    end = made.context.tuned(0, 0, 1)
    curvature = transfer.curvature(learning, end, made.context.plan)
    n, decay = found.numbers, 1.0 / (0.1 * 24)
    profile = found.tensors["profile"]
    # F = U + D/2 sum_j log(h_j + gamma) over as many terms as the fullest point has
    widest = 8  # samples times (classes - 1)
    filled = torch.cat([curvature, torch.zeros(widest - len(curvature), dtype=DOUBLE)])
    expected = n["end"] + n["temperature"] / 2 * float((filled + decay).log().sum())
    assert float(profile[-1]) == pytest.approx(expected, rel=1e-6)


# Paths


def test_walks_are_those_of_evaluation(done):
    made, document = done
    walks, found = made.walks, document["paths"]["initializations"]
    assert document["paths"]["tasks"] == ["blobs-0", "blobs-1", "blobs-2"] and list(found) == ["leap", "none"]
    for name, (meta, learner) in walks.starts.items():
        expected = evaluate(
            walks.family, meta, learner=learner, inner=walks.inner, steps=3, seed=0, evaluation_seeds=[0, 1],
            measures={"parameters": path_length(loss_coordinate=False)},
        )  # fmt: skip
        for measure in ("path_length", "path_energy", "test_error", "test_loss", "train_error_auc"):
            torch.testing.assert_close(torch.tensor(found[name][measure]), torch.tensor(expected[measure]))
        torch.testing.assert_close(
            torch.tensor(found[name]["path_length_parameters"]), torch.tensor(expected["parameters"])
        )
        assert all(0 < value < 10 for row in found[name]["fisher_rao_length"] for value in row)


def test_the_form_of_a_path_in_predictions_is_the_dense_one_and_ignores_what_no_prediction_feels(tmp_path):
    made = measuring(tmp_path, distances=["path"], seeds=(0,))
    family, walks = made.walks.family, made.walks
    head = slice(family.layout.trunk, None)
    meta = family.initial(7)
    form = walks._fisher_quadratic()
    move = torch.zeros(3, family.layout.n)
    move[:, head] = 0.01
    assert (form(meta.expand(3, -1), move) >= 0).all()
    shift = torch.zeros(3, family.layout.n)
    shift[:, family.layout.trunk + 4 * family.width :] = 1.0  # all biases of the head alike: no probability changes
    assert form(meta.expand(3, -1), shift).abs().max() < 1e-10
    exact = []
    for task, delta in zip(family.data, move, strict=True):
        index = subset(task, 8, seed=0)
        rows = task.classes

        def logits(w, x, rows=rows):
            parts = family.layout.unflatten(w)
            features = family.features(w[: family.layout.trunk], x)
            return F.linear(features, parts["head.weight"][:rows], parts["head.bias"][:rows])

        matrix = fisher_matrix(logits, meta.double(), task.inputs[index].double()) / 8
        exact.append(delta.double() @ matrix @ delta.double())
    torch.testing.assert_close(form(meta.expand(3, -1), move), torch.stack(exact), rtol=1e-4, atol=1e-12)


def test_networks_that_see_the_batch_have_no_fisher_rao_length(tmp_path):
    made = measuring(tmp_path, Blobs(norm="batch"), distances=["path"])
    made.carry_out()
    found = made.document()["paths"]["initializations"]["leap"]
    assert "fisher_rao_length" not in found and {"path_length", "path_energy_parameters", "test_error"} <= set(found)


def test_another_repetition_is_another_measurement(done):
    document = done[1]
    for name in ("reachability", "fisher", "tuned_error", "action"):
        first, second = document["matrices"][name]["values"]
        assert first != second
