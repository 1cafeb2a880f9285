"""What is to be measured, where it is kept, and that a measuring stopped, spread or extended is the same one."""

import json
import math

import pytest
import torch
from tiny_measurable import Blobs, measuring

from leap import distributed
from leap.errors import RunError, UsageError
from leap.measure.measuring import WORK, Measuring
from leap.measure.plan import DISTANCES, SCRATCH, STAGES, Item, items
from leap.measure.relations import relations
from leap.measure.store import Result, Store, carry_out, digest

EVERYTHING = tuple(DISTANCES)


def text(made):
    """measures.json's content."""
    return json.dumps(made.document())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The document of a measuring that nothing happened to."""
    made = measuring(tmp_path_factory.mktemp("undisturbed"))
    made.carry_out()
    return text(made)


# The plan


def test_every_distance_has_its_work_in_stages():
    stages = items(EVERYTHING, [0, 1], [4, 7, 2], True)
    assert len(stages) == len(STAGES)
    count = {}
    for stage, kinds in zip(stages, STAGES, strict=True):
        assert {item.kind for item in stage} == set(kinds) - {"acting"} and len(set(stage)) == len(stage)  # of games
        count |= {kind: sum(item.kind == kind for item in stage) for kind in set(kinds) - {"acting"}}
    each, pairs = 2 * 3, 2 * 3 * 2
    expected = {"walk": 4, **dict.fromkeys(("embedding", "solution", "curvature", "bound"), each), "barrier": pairs}
    expected |= {"fisher": pairs + each, "tuning": pairs + each, "union": 2 * (3 + 3)}  # of a task with itself, too
    assert count == expected | {"readout": 4, "score": pairs + each, "joint": each}
    assert Item("union", 0, 2, 7) in stages[1] and Item("union", 0, 7, 2) not in stages[1]
    assert set(WORK) == {kind for kinds in STAGES for kind in kinds} - {"walk", "readout", "joint", "acting"}
    assert len({item.key for stage in stages for item in stage}) == sum(map(len, stages))


@pytest.mark.parametrize(
    ("distance", "kinds"),
    [("path", {"walk"}), ("task2vec", {"embedding"}), ("fisher", {"solution", "fisher"})],
)
def test_a_distance_asks_for_no_more_than_it_needs(distance, kinds):
    assert {item.kind for stage in items([distance], [0], [0, 1]) for item in stage} == kinds


def test_work_stands_behind_what_it_reads(tmp_path):
    made, told = measuring(tmp_path, seeds=(0,)), []
    load = Store.load

    class Watched(Store):
        def load(self, item):
            told.append(item)
            return load(self, item)

    context = made.context
    context.store = Watched(context.store.folder, context.store.about)
    for number, stage in enumerate(made.stages()):
        earlier = {item for before in made.stages()[:number] for item in before}
        told.clear()
        carry_out(context.store, stage, made.work)
        assert set(told) <= earlier


def test_a_distance_that_does_not_exist_is_told():
    with pytest.raises(UsageError, match=r"'fishr'.*Did you mean 'fisher'"):
        items(["fishr"], [0], [0])


# The store


def test_an_item_comes_back_as_it_was(tmp_path):
    store, item = Store(tmp_path, {"a": (1, 2)}), Item("tuning", 3, 1, SCRATCH)
    store.prepare()
    assert store.missing([item]) == [item] and not store.has(item)
    whole = Result({"theta": torch.randn(3), "curve": torch.rand(2, dtype=torch.float64)}, {"loss": 1 / 3, "n": 5.0})
    store.save(item, whole)
    found = store.load(item)
    assert found.numbers == whole.numbers and store.missing([item]) == []
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in whole.tensors.items())
    store.prepare()  # the same settings: nothing to say


@pytest.mark.parametrize("other", [{"a": 2, "b": 1}, {"a": 1}, {"a": 1, "b": 1, "c": 1}])
def test_other_settings_are_refused(tmp_path, other):
    Store(tmp_path, {"a": 1, "b": 1}).prepare()
    with pytest.raises(UsageError, match="measured differently") as told:
        Store(tmp_path, other).prepare()
    (key,) = {k for k in "abc" if {"a": 1, "b": 1}.get(k) != other.get(k)}
    assert f"  {key}: " in str(told.value) and "folder" in str(told.value)


def test_settings_that_cannot_be_read_are_told(tmp_path):
    Store(tmp_path, {}).prepare()
    (tmp_path / "measuring.json").write_text('{"a"')
    with pytest.raises(RunError, match="damaged"):
        Store(tmp_path, {}).prepare()


def damage(path, how):
    data = path.read_bytes()
    path.write_bytes({"short": data[:-3], "empty": b"", "flipped": data[:-1] + bytes([data[-1] ^ 1])}[how])


@pytest.mark.parametrize("how", ["short", "empty", "flipped"])
def test_a_damaged_item_is_removed_and_measured_anew(tmp_path, undisturbed, how):
    made = measuring(tmp_path)
    made.carry_out()
    item = Item("tuning", 1, 0, 2)
    path = made.context.store.path(item)
    damage(path, how)
    with pytest.raises(RunError, match=r"tuning-1-0-2.*repeat the command"):
        made.document()
    assert not path.exists()
    with pytest.raises(RunError, match="missing; repeat the command"):
        made.document()
    made.carry_out()
    assert text(made) == undisturbed


def test_contents_have_names():
    theta = torch.randn(5)
    assert digest(theta) == digest(theta.clone()) != digest(theta + 1e-6) and len(digest(theta)) == 16


# Stopped, spread, extended


class Killed(Exception):
    """The end of a process."""


def test_a_measuring_that_is_killed_goes_on_and_ends_the_same(tmp_path, undisturbed, monkeypatch):
    work, done = Measuring.work, []

    def mortal(self, item):
        if len(done) % 17 == 16:
            done.append(None)
            raise Killed
        done.append(item)
        return work(self, item)

    monkeypatch.setattr(Measuring, "work", mortal)
    lives = 0
    while True:
        lives += 1
        made = measuring(tmp_path)
        try:
            made.carry_out()
        except Killed:
            continue
        break
    assert lives > 4 and text(made) == undisturbed
    measured = [item for item in done if item]
    assert len(measured) == len(set(measured)) == sum(map(len, made.stages()))  # nothing twice


def test_progress_counts_what_is_there_already(tmp_path):
    made, seen = measuring(tmp_path, distances=["task2vec"]), []
    made.carry_out(seen.append)
    made.carry_out(seen.append)
    assert seen == 2 * [item for stage in made.stages() for item in stage]


def test_seeds_distances_and_tasks_may_be_added(tmp_path, undisturbed):
    store = measuring(tmp_path).context.store

    def again(**changes):
        made = measuring(tmp_path, **{k: v for k, v in changes.items() if k != "seeds"})
        object.__setattr__(made.context.plan, "seeds", changes.get("seeds", (0, 1)))
        made.carry_out()
        return made

    again(seeds=(1,), distances=["fisher"], tasks=[2, 0])
    stamps = {path: path.stat().st_mtime_ns for path in (store.folder / "items").iterdir()}
    assert len(stamps) == 2 + 4
    made = again()
    assert text(made) == undisturbed
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_fewer_tasks_in_another_order_are_a_part_of_the_whole(tmp_path, undisturbed):
    made = measuring(tmp_path, tasks=[2, 0])
    made.carry_out()
    part, whole = made.document(), json.loads(undisturbed)
    assert part["tasks"] == ["blobs-2", "blobs-0"]
    for name, table in part["matrices"].items():
        expected = [[[one[t][o] for o in (2, 0)] for t in (2, 0)] for one in whole["matrices"][name]["values"]]
        assert table["values"] == expected, name
    for name, single in part["singles"].items():
        if name != "temperature":  # a mean over sources
            assert single["values"] == [[row[t] for t in (2, 0)] for row in whole["singles"][name]["values"]], name


@pytest.mark.parametrize("world", [2, 3, 50])
def test_processes_that_share_the_work_find_the_same(tmp_path, undisturbed, world, monkeypatch):
    """Each does its share of a stage before the next one begins, as behind a barrier."""
    made, shares = measuring(tmp_path), {rank: [] for rank in range(world)}
    monkeypatch.setattr(distributed, "wait", lambda: None)
    work = Measuring.work
    for stage in made.stages():
        monkeypatch.setattr(Measuring, "stages", lambda self, stage=stage: [stage])
        for rank in reversed(range(world)):
            monkeypatch.setattr(distributed, "place", lambda rank=rank: distributed.Place(rank, world))
            monkeypatch.setattr(
                Measuring, "work", lambda self, item, rank=rank: shares[rank].append(item) or work(self, item)
            )
            made.carry_out()
    monkeypatch.undo()
    everything = [item for share in shares.values() for item in share]
    assert len(everything) == len(set(everything)) == sum(map(len, made.stages()))
    if world < 50:
        assert max(map(len, shares.values())) - min(map(len, shares.values())) <= len(STAGES)
    assert text(made) == undisturbed


def test_a_learned_initialization_is_where_every_repetition_starts(tmp_path):
    family = Blobs()
    meta = family.initial(5)
    made = measuring(tmp_path, family, learned=meta, distances=["task2vec"])
    trunk = family.layout.trunk
    assert torch.equal(made.context.trunk(0), meta[:trunk]) and torch.equal(made.context.trunk(1), meta[:trunk])
    free = measuring(tmp_path / "free", family, distances=["task2vec"]).context
    assert not torch.equal(free.trunk(0), free.trunk(1))


# Documents


def test_a_document_is_json_and_holds_what_was_asked_for(tmp_path, undisturbed):
    json.loads(undisturbed, parse_constant=lambda name: pytest.fail(f"{name} in the document"))
    made = measuring(tmp_path, distances=["task2vec"])
    made.carry_out()
    document = made.document()
    assert set(document["matrices"]) == {"task2vec"} and document["distances"] == ["task2vec"]
    assert (document["paths"], document["singles"], document["curves"], document["relations"]) == ({}, {}, {}, [])


def table(values, kind, censored=None):
    return {"values": values, "kind": kind, "censored": censored, "unit": "1", "label": "x"}


def matrix_of(cell, count):
    return [[[None if t == o else float(cell(t, o)) for o in range(count)] for t in range(count)]]


def document_of(outcome, censored=None, count=4):
    return {
        "tasks": [str(i) for i in range(count)],
        "sweeps": {"near": {"parameter": "beta", "matrices": {"0.5": matrix_of(lambda t, o: t + 10 * o, count)}}},
        "matrices": {
            "near": table(matrix_of(lambda t, o: 10 * t + o, count), "distance"),
            "alike": table(matrix_of(lambda t, o: -10 * t - o, count), "similarity"),
            "same": table(matrix_of(lambda t, o: 3, count), "distance"),
            "epochs": table(matrix_of(outcome, count), "outcome", censored),
        },
    }


def test_distances_are_held_to_outcomes_on_the_side_they_should_lie():
    found = {(row["x"], row.get("beta")): row for row in relations(document_of(lambda t, o: 10 * t + o))}
    assert set(found) == {("near", None), ("alike", None), ("near", 0.5)}  # a constant has no correlation
    assert found["near", None]["pooled"]["spearman"] == pytest.approx(1)
    assert found["alike", None]["pooled"]["spearman"] == pytest.approx(-1)
    assert found["alike", None]["alternative"] == "less" and found["near", None]["alternative"] == "greater"
    assert all(row["y"] == "epochs" for row in found.values())


@pytest.mark.parametrize("censored", [None, [[[t != o for o in range(4)] for t in range(4)]]])
def test_an_outcome_that_is_the_same_everywhere_relates_to_nothing(censored):
    assert relations(document_of(lambda t, o: 7, censored)) == []
    assert relations(document_of(lambda t, o: 10 * t + o, count=3)) == []  # too few tasks


def test_a_measuring_in_which_nothing_converges_has_a_document(tmp_path):
    family = Blobs(classes=(2, 2, 3, 2))
    made = measuring(
        tmp_path, family, distances=["reachability", "convergence"], seeds=(0,), tuning_rate=1e-9, threshold=0.5
    )
    made.carry_out()
    document = made.document()
    assert all(x is None or x == 2 for row in document["matrices"]["epochs"]["values"][0] for x in row)
    assert sum(map(sum, document["matrices"]["epochs"]["censored"][0])) == 12
    assert all(row["y"] != "epochs" for row in document["relations"])
    assert math.isfinite(document["matrices"]["reachability"]["values"][0][0][1])


def test_one_task_alone_has_a_document(tmp_path):
    made = measuring(tmp_path, tasks=[1], seeds=(0,))
    made.carry_out()
    document = json.loads(text(made), parse_constant=lambda name: pytest.fail(f"{name} in the document"))
    assert document["matrices"]["reachability"]["values"][0][0][0] > 0
    assert document["matrices"]["epochs"]["values"] == [[[None]]]
