"""`leap measure --transferability`: what is read of whom, what is tabled, and what it is held against."""

import math

import pytest
import torch
from tiny_measurable import Blobs, entries, measuring

from leap.cli import measures
from leap.measure import scoring
from leap.measure.plan import SCRATCH, Item, items, named
from leap.metrics.hscore import h_score, h_score_report
from leap.metrics.leep import leep
from leap.metrics.relation import relation
from leap.metrics.scores import SCORES
from leap.randomness import derive, generator

BOTH = ("path", "convergence")
CORRELATED = ("spearman", "kendall", "pearson")


def blobs(**options):
    return Blobs(**{"classes": (2, 3, 4, 3, 2), "train": 40} | options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A measuring of five tasks with all scores, and its document."""
    made = measuring(
        tmp_path_factory.mktemp("scored"), blobs(), distances=BOTH, scores=list(SCORES), level=1.0, epochs=6.0
    )
    made.carry_out()
    return made, made.document()


def test_scores_ask_for_the_work_behind_them():
    def kinds(distances, scored, tasks=(0, 1, 2)):
        return {item.kind for stage in items(distances, [0], tasks, scored) for item in stage}

    assert kinds(["path"], True) == {"walk", "readout"}
    assert kinds(["convergence"], True) == {"solution", "tuning", "score", "joint"}
    assert kinds(["convergence"], True, (0, 1)) == {"solution", "tuning", "score"}  # two sources are no choice
    assert kinds(BOTH, True) == kinds(["path"], True) | kinds(["convergence"], True)
    assert kinds(["path"], False) == {"walk"}
    assert named([3, 1]) == named([1, 3]) != named([1, 3, 4])


def test_a_cell_is_the_sources_trunk_read_on_the_targets_training_data(done):
    made, document = done
    context = made.context
    for seed, target, source in ((0, 0, 1), (1, 2, 0), (0, 3, 3)):
        task, trunk = context.task(target), len(context.trunk(seed))
        theta = context.solution(seed, source)
        features = context.family.features(theta[:trunk], task.inputs)
        assert entries(document, "h_score")[seed, target, source].item() == pytest.approx(
            float(h_score(features, task.labels)), rel=1e-12
        )
        softmax = context.network(source).logits(theta, task.inputs).double().softmax(1)
        assert entries(document, "leep")[seed, target, source].item() == pytest.approx(
            float(leep(softmax, task.labels)), rel=1e-6
        )
        assert entries(document, "source_accuracy")[seed, target, source].item() == pytest.approx(
            100 - context.store.load(Item("solution", seed, source, source)).numbers["test_error"]
        )
    assert (entries(document, "log_samples") == math.log(40)).all()
    ratio = entries(document, "h_score") / entries(document, "transferability")
    expected = torch.tensor([1.0, 2, 3, 2, 1], dtype=torch.float64)[:, None].expand(5, 5)
    torch.testing.assert_close(ratio[0], expected, rtol=1e-12, atol=0)


def test_a_row_of_the_walks_is_the_initialization_read_on_every_task(done):
    made, document = done
    held = document["paths"]["initializations"]
    assert list(held) == ["leap", "none"]
    for start, (meta, _) in made.walks.starts.items():
        for task in range(5):
            data = made.context.task(task)
            features = made.context.family.features(meta[: made.context.family.layout.trunk], data.inputs)
            assert held[start]["h_score"][0][task] == pytest.approx(float(h_score(features, data.labels)), rel=1e-12)
            parts = made.context.family.layout.unflatten(meta)  # the head was learned as well, and has its say
            softmax = torch.nn.functional.linear(features, parts["head.weight"], parts["head.bias"]).double().softmax(1)
            assert held[start]["leep"][0][task] == pytest.approx(float(leep(softmax, data.labels)), rel=1e-6)
        assert {"test_error", "train_error_auc", "steps_until"} <= set(held[start])


def test_the_steps_to_a_level_are_where_the_curve_crosses_it(done):
    from leap.measure.paths import _steps_until

    assert _steps_until(1.0, [2.0, 1.5, 0.5, 0.1]) == pytest.approx(1.5)
    assert _steps_until(0.01, [2.0, 1.5, 0.5, 0.1]) is None
    assert _steps_until(1.0, [2.0, None, 0.5]) is None and _steps_until(1.0, [None, 0.5]) is None
    made, document = done
    again = made.walks.measure(Item("walk", 0, 0, SCRATCH)).tensors["steps_until"]
    assert [None if v != v else v for v in again.tolist()] == document["paths"]["initializations"]["leap"][
        "steps_until"
    ][0]


def test_the_best_pair_of_sources_is_the_best_of_all(done):
    made, document = done
    context, found = made.context, document["higher_order"]
    for target in (0, 2):
        task = context.task(target)
        trunk = len(context.trunk(0))
        features = {s: context.family.features(context.solution(0, s)[:trunk], task.inputs) for s in range(5)}
        single = {s: float(h_score_report(features[s], task.labels).adjusted) for s in range(5) if s != target}
        assert found["single"][0][target] == max(single, key=single.get)
        assert found["single_score"][0][target] == pytest.approx(max(single.values()), rel=1e-9)
        both = {
            (a, b): float(h_score_report(torch.cat([features[a], features[b]], 1), task.labels).adjusted)
            for a in single for b in single if a < b
        }  # fmt: skip
        assert tuple(sorted(found["pair"][0][target])) == max(both, key=both.get)


def test_relations_compare_targets_in_a_form_that_can_be_compared(done):
    document = done[1]
    rows = {(one["x"], one["y"]): one for one in document["relations"]}
    assert ("transferability", "tuned_error") in rows and ("h_score_shrunk", "tuned_error") in rows
    # raw, the H-score grows with the number of classes; per class it is the transferability
    one, two = (rows[x, "tuned_error"]["pooled"] for x in ("h_score", "transferability"))
    assert [one[key] for key in CORRELATED] == pytest.approx([two[key] for key in CORRELATED])
    raw = relation(document["matrices"]["h_score"]["values"], document["matrices"]["tuned_error"]["values"],
                   generator=generator(0), alternative="less", permutations=20, resamples=100)  # fmt: skip
    assert raw["pooled"]["spearman"] != pytest.approx(one["spearman"])
    assert ("log_samples", "tuned_error") not in rows  # the same for all
    assert all("selection" in one for one in document["relations"])


def test_predictions_name_the_initialization_the_score_and_the_end(done):
    found = done[1]["predictions"]
    assert {one["initialization"] for one in found} == {"leap", "none"}
    assert {one["y"] for one in found} <= {"test_error", "train_error_auc", "steps_until"}
    assert {"h_score", "probe", "path_length"} <= {one["x"] for one in found}
    assert not any(one["x"] in ("source_accuracy", "log_samples") for one in found)


def test_without_scores_the_document_is_what_it_was(tmp_path):
    made = measuring(tmp_path, blobs(), distances=BOTH)
    made.carry_out()
    document = made.document()
    assert "scores" not in document and "higher_order" not in document
    assert not {item.kind for stage in made.stages() for item in stage} & {"readout", "score", "joint"}


def test_dead_features_leave_every_score_out(tmp_path):
    made = measuring(tmp_path, blobs(), distances=["path"], scores=list(SCORES))
    task = made.context.task(0)
    found = scoring.read(torch.zeros(40, 3), task, None, 0)
    assert set(found) == set(SCORES) and all(one.value is None and "dead" in one.reason for one in found.values())


def test_folds_and_mixtures_are_the_tasks_own_whatever_the_source(done):
    made = done[0]
    task = made.context.task(1)
    features = torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one, two = (scoring.read(features, task, None, seed) for seed in (0, 0))
    assert one == two
    assert scoring.read(features, task, None, 1)["probe"] != one["probe"]
    assert derive(0, "score", task.name) != derive(0, "score", "other")


def test_baselines_come_with_any_score():
    assert measures._scores(()) == []
    assert measures._scores(("leep",)) == ["leep", "probe", "source_accuracy", "log_samples"]
    assert measures._scores(("all",)) == list(SCORES)
