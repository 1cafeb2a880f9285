"""Walks that explode, tasks that are dead, numbers that are none: caught, named by task and step, counted, survived."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_threads
from test_trainer import Diseased, trainer

from leap import learners, optim
from leap.cli import main
from leap.errors import RunError
from leap.evaluate import evaluate
from leap.trainer import Plan, Trainer
from tasks.quadratic import Quadratic, QuadraticBatch

TINY = [
    *["--tracking", "none", "--train.meta-steps", "4", "--train.inner-steps", "3", "--train.meta-batch", "2"],
    *["--tasks.count", "4", "--evaluate.steps", "4", "--evaluate.repetitions", "2", "--device", "cpu"],
    *["--train.execution", "sequential"],
]


class Planted(Quadratic):
    """Bowls of which some explode: their curvature is a million times that of the others, or have no slope at all."""

    exploding: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()
    factor = 1e100

    def batch(self, ids, seeds):
        held = super().batch(ids, seeds)
        scale = [self.factor if task in self.exploding else 0.0 if task in self.dead else 1.0 for task in ids]
        curvature = held.curvature * torch.tensor(scale, dtype=torch.float64)[:, None, None]
        return QuadraticBatch(curvature, held.minimum, held.layout, held.heads, held.head_count)


def planted(**where: Any) -> Planted:
    family = Planted(count=4)
    for name, tasks in where.items():
        setattr(family, name, tasks)
    return family


ALL = ["leap", "reptile", "fomaml", "maml", "anil", "meta_sgd"]


# Training


@pytest.mark.parametrize("execution", ["batched", "sequential"])
@pytest.mark.parametrize("name", ALL)
def test_a_walk_that_explodes_is_left_out_counted_and_named(name: str, execution: str) -> None:
    ids, said = trainer(planted()).draw(0), []
    one = trainer(planted(exploding=(ids[2],)), getattr(learners, name)(), execution=execution)
    one.noticed = said.append
    row = one.meta_step()
    assert row["meta/bad_tasks"] == 1 and row["meta/bad_share"] == 0.25
    assert all(math.isfinite(value) for value in row.values()) and one.theta.isfinite().all()
    (told,) = said
    assert told.startswith(f"meta-step 0: 1 of 4 walks met NaN or infinity, first in task bowl {ids[2]}: loss ")
    assert "at inner step " in told and told.endswith("; left out")


@pytest.mark.parametrize("name", ALL)
def test_a_dead_task_is_a_walk_of_length_zero_and_never_nan(name: str) -> None:
    """No slope: the loss is constant and theta stays. It counts as a good task, whose meta-gradient is zero."""
    ids = trainer(planted()).draw(0)
    row = (one := trainer(planted(dead=tuple(ids)), getattr(learners, name)())).meta_step()
    assert row["meta/bad_tasks"] == 0 == row["meta/gradient_norm"] == row["train/path_length"]
    assert torch.equal(one.theta, one.family.initial(0))
    mixed = trainer(planted(dead=(ids[0],)), getattr(learners, name)())
    row = mixed.meta_step()
    assert row["meta/bad_tasks"] == 0 and math.isfinite(row["meta/gradient_norm"]) and row["meta/gradient_norm"] > 0


@pytest.mark.parametrize("step", [0, 2, 4])
def test_an_infinite_loss_at_one_step_is_named_by_that_step(step: int) -> None:
    class Once(Diseased):
        def batch(self, ids, seeds):
            made = super().batch(ids, seeds)
            sample = made.sample
            made.sample = lambda theta, at: sample(theta, 2 if at == step else 0)
            return made

    family, said = Once(count=4), []
    ids = trainer(family).draw(0)
    family.sick, family.value = (ids[1],), math.inf
    one = trainer(family)
    one.noticed = said.append
    assert one.meta_step()["meta/bad_tasks"] == 1
    assert f"bowl {ids[1]}: loss nan at inner step {step}" in said[0]


def test_nothing_is_said_of_healthy_walks() -> None:
    one = trainer(planted())
    one.noticed = pytest.fail
    one.meta_step()


@pytest.mark.parametrize("world", [2, 3])
def test_all_processes_say_the_same_of_a_walk_that_one_of_them_lost(world: int) -> None:
    ids = trainer(planted()).draw(0)

    def rows(exchange: Any) -> tuple[Any, list[str]]:
        said: list[str] = []
        plan = Plan(seed=0, inner_steps=5, meta_batch=4, execution="batched")
        options: Any = (learners.reptile(), lambda k: optim.sgd(0.1), ("SGD", optim.constant, {"lr": 1.0}))
        one = Trainer(planted(exploding=(ids[3],)), *options, plan, exchange)
        one.noticed = said.append
        row = one.meta_step()
        return (row["meta/bad_tasks"], one.theta.tolist()), said

    alone, found = rows(None), in_threads(world, rows)
    for row, said in found:
        assert row[0] == alone[0][0] == 1 and said == alone[1] and f"bowl {ids[3]}" in said[0]
        torch.testing.assert_close(torch.tensor(row[1]), torch.tensor(alone[0][1]), rtol=1e-12, atol=1e-12)


def test_a_run_tells_of_lost_walks_counts_them_in_its_rows_and_ends(tmp_path: Path, capsys, monkeypatch) -> None:
    explode(monkeypatch, lambda batch: batch.heads == 1)
    assert main.main(["train", "quadratic", *TINY, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    lost = [row["step"] for row in rows if row["meta/bad_tasks"]]
    assert 0 < len(lost) <= len(rows) == 4
    assert all(math.isfinite(value) for row in rows for value in row.values())
    told = [line for line in said.splitlines() if "walks met NaN or infinity, first in task bowl 1: loss" in line]
    assert [line.split(":")[0] for line in told] == [f"meta-step {step - 1}" for step in lost]


def explode(monkeypatch: pytest.MonkeyPatch, which: Any) -> None:
    """Make tasks explode from their second inner step on, in whatever makes batches of bowls."""
    sample = QuadraticBatch.sample

    def spoiled(self: QuadraticBatch, theta: Any, step: int) -> Any:
        curvature, minimum = sample(self, theta, step)
        bad = torch.where(which(self) & (step >= 1), math.inf, 1.0)
        return curvature * bad[:, None, None].to(curvature), minimum

    monkeypatch.setattr(QuadraticBatch, "sample", spoiled)


# Evaluation and measuring: numbers become null, those of other tasks stay, and what is written about them survives


def test_evaluation_says_null_from_the_step_on_and_leaves_others_alone() -> None:
    def found(family: Any) -> dict[str, Any]:
        options: Any = {"learner": None, "inner": lambda k: optim.sgd(0.1), "steps": 4, "seed": 0}
        return evaluate(family, family.initial(0), evaluation_seeds=[0, 1], **options)

    ids = list(planted().ids("test"))
    well, ill = found(planted()), found(planted(exploding=(ids[0],)))
    for repetition in range(2):
        assert ill["test_loss"][repetition][0] is None
        curve = ill["train_loss"][repetition][0]
        first = curve.index(None)
        assert first > 0 and all(loss is None for loss in curve[first:]) and all(curve[:first])
        for name in well:
            assert ill[name][repetition][1:] == well[name][repetition][1:]


@pytest.mark.parametrize("all_of_them", [False, True])
def test_evaluation_measures_table_and_page_survive(all_of_them: bool, tmp_path: Path, capsys, monkeypatch) -> None:
    out = str(tmp_path / "run")
    assert main.main(["train", "quadratic", *TINY, "--out", out]) == 0
    lost = 0 if all_of_them else 5
    explode(monkeypatch, lambda batch: batch.heads >= 0 if all_of_them else batch.heads == batch.heads.max())
    del lost
    assert main.main(["evaluate", out]) == 0
    document = json.loads((tmp_path / "run" / "evaluation.json").read_text(), parse_constant=pytest.fail)
    for name in ("leap", "none"):
        losses = document["initializations"][name]["test_loss"][0]
        nulls = [loss is None for loss in losses]
        assert all(nulls) if all_of_them else any(nulls) and not all(nulls)
    assert main.main(["measure", out, "--distances", "path"]) == 0
    json.loads((tmp_path / "run" / "measures" / "measures.json").read_text(), parse_constant=pytest.fail)
    assert main.main(["report", out, "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert ">nan<" not in page.lower() and ">inf<" not in page.lower()
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "defect" not in said.err


def test_a_learned_initialization_without_meaning_is_evaluated_to_nulls(tmp_path: Path, capsys) -> None:
    from leap.run import RunFolder, pack, unpack

    out = tmp_path / "run"
    assert main.main(["train", "quadratic", *TINY, "--out", str(out)]) == 0
    path = RunFolder(out).initialization
    tensors, about = unpack(path)
    about = {key: value for key, value in about.items() if key not in ("format", "sha256")}
    path.write_bytes(pack({name: torch.full_like(one, math.nan) for name, one in tensors.items()}, about))
    assert main.main(["evaluate", str(out)]) == 0
    document = json.loads((out / "evaluation.json").read_text(), parse_constant=pytest.fail)
    held = document["initializations"]
    assert {loss for row in held["leap"]["test_loss"] for loss in row} == {None}
    assert all(isinstance(loss, float) for row in held["none"]["test_loss"] for loss in row)
    assert "nan" not in capsys.readouterr().out.lower()


def test_where_every_walk_is_lost_the_run_stops_and_says_where() -> None:
    ids = trainer(planted()).draw(0)
    one = trainer(planted(exploding=tuple(ids)), most_bad=1.0)
    with pytest.raises(RunError, match=rf"meta-step 0: 4 of 4 walks .*first in task bowl {ids[0]}: loss"):
        one.meta_step()
