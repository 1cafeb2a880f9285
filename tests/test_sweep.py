"""Many runs in one command: which there are, where they happen, and what survives."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import in_process
import pytest
import yaml

from leap.cli import compare, configuration, lifecycle, main, places, sweep
from leap.cli.places import Place
from leap.cli.settings import Compare, Settings
from leap.errors import Trouble, UsageError
from leap.report import summarize
from leap.run import RunFolder

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["--train.meta-steps", "3", "--evaluate.repetitions", "1", "--tracking", "none"]
TASKS = """
import json, multiprocessing, os, signal
from pathlib import Path
import torch
from tasks.quadratic import Quadratic

def make(seed, device, folder):
    folder = Path(folder)
    if multiprocessing.parent_process() is not None and not (folder / "mended").exists():
        place = [sorted(os.sched_getaffinity(0)), torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES")]
        (folder / f"place{seed}.json").write_text(json.dumps(place))
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 2:
            raise ZeroDivisionError("by design")
    return Quadratic(5, 10, 0.3, 10.0, seed=seed, dtype=torch.float32, device=device)
"""


def leap(*arguments):
    return main.main([str(a) for a in arguments])


@pytest.fixture
def custom(tmp_path):
    """A family in a person's own file: a worker that trains it with seed 1 is killed, with seed 2 meets an error."""
    (tmp_path / "own.py").write_text(TASKS)
    file = tmp_path / "own.yaml"
    options = f"{{folder: '{tmp_path}'}}"
    file.write_text(f"tasks: {{name: custom, source: '{tmp_path}/own.py:make', options: {options}}}\n")
    return file


# -- which runs there are ----------------------------------------------------------------------------------------------


def test_a_plan_is_learners_times_grid_times_seeds():
    grid = ["--compare.grid.tasks.train", "1", "3", "--compare.grid.inner.lr", "0.1", "0.5"]
    runs = compare.plan(["quickstart.yaml"], ["--compare.learners", "leap", "maml", "--compare.seeds", "4", "5", *grid])
    expected = itertools.product(("leap", "maml"), (1, 3), (0.1, 0.5), (4, 5))
    assert [(s.learner.name, s.tasks.train, s.inner.lr, s.seed) for s in runs.values()] == list(expected)
    assert next(iter(runs)) == "leap-train=1-lr=0.1-seed4" and list(runs)[-1] == "maml-train=3-lr=0.5-seed5"
    assert runs["maml-train=3-lr=0.5-seed5"].train.inner_steps == 5  # what the learner's file says is kept


def test_a_grid_may_stand_in_a_file_and_wins_over_the_command_line(tmp_path):
    (tmp_path / "grid.yaml").write_text("compare: {seeds: [0], learners: [leap], grid: {model.hidden: [[8], [4, 4]]}}")
    runs = compare.plan(["sinusoid.yaml", tmp_path / "grid.yaml"], ["--model.hidden", "3"])
    assert {name: s.model.hidden for name, s in runs.items()} == {
        "leap-hidden=8-seed0": (8,),
        "leap-hidden=4x4-seed0": (4, 4),
    }
    overridden = compare.plan([tmp_path / "grid.yaml"], ["--compare.grid.model.hidden", "[5]", "[6, 7]"])
    assert [s.model.hidden for s in overridden.values()] == [(5,), (6, 7)]


def test_names_tell_settings_apart_whose_last_word_is_the_same():
    runs = compare.plan([], ["--compare.learners", "leap", "--compare.seeds", "0", "--compare.grid.inner.lr", "0.2",
                             "--compare.grid.meta.lr", "0.3"])  # fmt: skip
    assert list(runs) == ["leap-inner.lr=0.2-meta.lr=0.3-seed0"]


def test_without_a_grid_runs_are_named_and_set_as_ever():
    runs = compare.plan(["quadratic.yaml"], ["--compare.learners", "leap", "--compare.seeds", "7"])
    alone = configuration.load(Settings, ["quadratic.yaml", "learner/leap"], ["--seed", "7"])
    assert runs == {"leap-seed7": runs["leap-seed7"]}
    changed = [path for path, _, _ in configuration.difference(runs["leap-seed7"], alone)]
    assert all(path.startswith("compare.") for path in changed)


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"seed": [1, 2]}, "compare.seeds"),
        ({"learner.name": ["leap"]}, "compare.learners"),
        ({"evaluate": {"steps": [5, 10]}}, "evaluate.steps.*cannot be compared"),
        ({"wandb.project": ["a", "b"]}, "does not change what is learned"),
        ({"train.threads": [1, 2]}, "does not change what is learned"),
        ({"tasks.name": ["glyphs", "omniglot"]}, "cannot switch the tasks"),
        ({"tasks.trian": [1]}, "no such setting; did you mean tasks.train"),
        ({"tasks.train": []}, "no values"),
        ({"tasks.train": [0]}, "tasks.train: got 0"),
        ({"tasks.train": [99]}, "99 is above tasks.pool"),
        ({"inner.lr": [1, 1.0]}, "differ"),
        ({"seed.x": [1]}, "compare.seeds"),
        ({"device.x": [1]}, "does not change"),
        ({"tasks.ways.x": [1]}, "tasks.ways has no parts"),
        ({"tasks": [3]}, "no such setting|expected a mapping"),
    ],
    ids=str,
)
def test_a_grid_that_makes_no_sense_is_refused_in_words(grid, told, tmp_path):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"compare": {"grid": grid, "learners": ["leap"]}}))
    with pytest.raises(UsageError, match=told):
        compare.plan([tmp_path / "grid.yaml"], [])


def test_a_value_that_one_learner_cannot_take_names_the_learner():
    with pytest.raises(UsageError, match="with finetune: meta: finetune walks on"):
        compare.plan([], ["--compare.learners", "leap", "finetune", "--compare.grid.meta.lr", "0.1", "0.2"])


def test_runs_whose_held_out_tasks_differ_are_refused_before_the_first_starts(tmp_path, capsys):
    chosen = ["--compare.learners", "leap", "--compare.seeds", "0", "--compare.grid.tasks.count", "2", "3"]
    assert leap("compare", "quadratic.yaml", *QUICK, *chosen, "--out", tmp_path / "all") == 2
    error = capsys.readouterr().err
    assert "held-out tasks differ" in error and "leap-count=2-seed0: 2 tasks" in error
    assert not (tmp_path / "all").exists()


def test_the_shipped_sweep_asks_for_the_numbers_of_pretraining_alphabets():
    runs = compare.plan(["sweep-omniglot.yaml"], [])
    assert {s.tasks.train for s in runs.values()} == {1, 3, 5, 10, 15, 20, 25} and len(runs) == 5 * 7 * 10
    assert {s.tasks.pool for s in runs.values()} == {25} and {s.tasks.held_out for s in runs.values()} == {10}


# -- where they happen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_workers_share_all_cores_evenly_and_none_twice(count):
    cores = [0, 8, 1, 9, 2, 10, 3, 11]
    found = places.places(count, cores, len(cores))
    assert [core for place in found for core in place.cores] == cores
    assert {len(place.cores) for place in found} <= {8 // count, -(-8 // count)}
    assert all(place.threads == len(place.cores) and place.gpu is None for place in found)


def test_more_workers_than_cores_take_turns_with_one_thread_each():
    assert places.places(3, [4, 6], 2) == [Place((4,), 1), Place((4,), 1), Place((6,), 1)]
    assert [place.gpu for place in places.places(5, [0], 1, ["2", "5"])] == ["2", "5", "2", "5", "2"]


@pytest.mark.parametrize(
    ("device", "jobs", "runs", "expected"),
    [
        ("auto", None, 9, 4),
        ("cpu", None, 9, 4),
        ("cpu", 3, 9, 3),
        ("auto", 8, 9, 8),
        ("cpu", None, 2, 2),
        ("cuda:1", None, 9, 1),
    ],
)
def test_by_default_there_is_a_worker_a_core(device, jobs, runs, expected, monkeypatch):
    monkeypatch.setattr(places, "_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(places, "_threads", lambda quota: 4)
    assert len(places.machine(jobs, device, runs)) == expected


def test_with_gpus_there_is_a_worker_a_gpu_and_cores_are_shared(monkeypatch):
    monkeypatch.setattr(places, "_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(places, "_threads", lambda quota: 4)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert places.machine(None, "auto", 9) == [Place((0, 1), 2, "0"), Place((2, 3), 2, "1")]
    assert places.machine(None, "cpu", 9)[0].gpu is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-a1")
    assert [place.gpu for place in places.machine(3, "cuda", 9)] == ["5", "GPU-a1", "5"]


def test_a_containers_share_of_time_limits_workers_and_leaves_cores_to_the_system(tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    monkeypatch.setattr(places, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(places, "_cores", lambda: list(range(16)))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert places.machine(None, "cpu", 9) == [Place((), 1), Place((), 1)]
    assert places.machine(1, "cpu", 9) == [Place((), 2)]
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert len(places.machine(None, "cpu", 99)) == 16


def test_runs_are_pinned_see_one_gpu_and_keep_to_their_threads(custom, tmp_path, monkeypatch):
    cores = sorted(os.sched_getaffinity(0))
    there = [Place((cores[0],), 1, "0"), Place((cores[-1],), 3, "GPU-b")]
    monkeypatch.setattr(sweep, "machine", lambda *asked: there)
    runs = compare.plan([custom], ["--compare.learners", "none", "--compare.seeds", "3", "4", *QUICK])
    assert sweep.carry_out(tmp_path / "all", runs) == {}
    found = [json.loads((tmp_path / f"place{seed}.json").read_text()) for seed in (3, 4)]
    assert found == [[list(place.cores), place.threads, place.gpu] for place in there]
    assert sorted(os.sched_getaffinity(0)) == cores  # that of others stays


def test_a_run_that_is_left_over_keeps_to_its_share_of_the_machine(custom, tmp_path, monkeypatch):
    """With the cores of those that are done it would add up in another order, and end elsewhere in the last digits."""
    asked, taken, begun = [], [], sweep.carry_out
    words = [str(custom), "--compare.learners", "none", "--compare.seeds", "3", "4", *QUICK]
    words += ["--out", str(tmp_path / "all")]
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    assert compare.main(words) == 0
    (tmp_path / "all" / "none-seed3" / "evaluation.json").unlink()
    monkeypatch.setattr(sweep, "carry_out", begun)
    monkeypatch.setattr(sweep, "machine", lambda jobs, device, runs: asked.append(runs) or [Place((), 1)] * runs)
    monkeypatch.setattr(sweep._Crew, "work", lambda crew, places: taken.append(places))
    compare.main(words)
    assert asked == [2] and taken == [[Place((), 1)]]


def test_a_worker_settles_before_it_imports_torch():
    """Threads that a library starts when imported stay on the cores that were allowed then."""
    code = "import sys, leap.cli.sweep, leap.cli.main; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# -- what survives -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_stops_no_other(custom, tmp_path, capfd):
    out = tmp_path / "all"
    chosen = ["--compare.learners", "leap", "--compare.seeds", "1", "2", "3", "--compare.jobs", "1"]
    assert leap("compare", custom, *QUICK, *chosen, "--out", out) == 1
    told = capfd.readouterr()
    assert "failed    leap-seed1: its process was ended by SIGKILL; memory may have run out" in told.err
    assert "failed    leap-seed2: ZeroDivisionError: by design (own.py, line" in told.err
    assert "2 of 3 runs failed" in told.err and "Traceback" not in told.err and "step/s" not in told.err
    assert [run.parent.name for run in sorted(out.glob("*/evaluation.json"))] == ["leap-seed3"]
    assert (out / "report.html").exists() and "report" in told.out

    (tmp_path / "mended").touch()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.json*")}
    assert leap("compare", custom, *QUICK, *chosen, "--out", out) == 0
    assert len(list(out.glob("*/evaluation.json"))) == 3
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_what_went_wrong_with_tracking_is_passed_on_with_the_runs_name_and_usual_lines_are_not(tmp_path, monkeypatch):
    sent, jobs = [], [(tmp_path, Settings()), None]
    connection = types.SimpleNamespace(recv=lambda: jobs.pop(0), send=sent.append)
    for owner, name in ((sweep.signal, "signal"), (sweep, "settle")):
        monkeypatch.setattr(owner, name, lambda *arguments: None)

    def work(path, settings, tell, *, say, **options):
        say("wandb: offline")
        say(Trouble("wandb: what was logged may be incomplete"))

    monkeypatch.setattr(sweep, "work", work)
    sweep._work_off(connection, None, True, 0)
    assert sent == [("said", "wandb: what was logged may be incomplete"), ("done", None)]
    assert type(sent[0][1]) is str

    written = []
    crew = sweep._Crew(tmp_path, {"leap-seed0": Settings()}, True, 0, types.SimpleNamespace(write=written.append))
    crew._hear(types.SimpleNamespace(run="leap-seed0", connection=types.SimpleNamespace(recv=lambda: sent[0])))
    assert written == ["leap-seed0: wandb: what was logged may be incomplete"]


def test_a_run_that_was_half_done_goes_on_and_ends_as_if_nothing_had_been(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    chosen = ["--compare.learners", "leap", "--compare.seeds", "0", "--compare.grid.inner.lr", "0.05"]
    arguments = ["compare", "quadratic.yaml", *QUICK, *chosen, "--train.meta-steps", "9", "--out"]
    ((name, settings),) = compare.plan(["quadratic.yaml"], [*QUICK, *chosen, "--train.meta-steps", "9"]).items()

    def stop(step, metrics):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lifecycle.start(settings, tmp_path / "half" / name, stop)
    first = (tmp_path / "half" / name / "metrics.jsonl").read_text()
    assert leap(*arguments, tmp_path / "half") == 0 and leap(*arguments, tmp_path / "whole") == 0
    assert (tmp_path / "half" / name / "metrics.jsonl").read_text().startswith(first)  # not computed again
    results = [json.loads((tmp_path / part / name / "evaluation.json").read_text()) for part in ("half", "whole")]
    assert results[0] == results[1]
    assert len(RunFolder(tmp_path / "half" / name).rows()) == 9


@pytest.mark.slow
def test_runs_whose_parent_is_killed_save_and_end(tmp_path):
    out = tmp_path / "all"
    command = [sys.executable, "-m", "leap", "compare", "sinusoid.yaml", "--tracking", "none", "--out", str(out)]
    command += ["--compare.learners", "sinusoid/leap", "--compare.seeds", "0", "1", "--train.checkpoint-every", "9999"]
    started = subprocess.Popen([*command, "--compare.jobs", "2", "--train.meta-steps", "9999"], cwd=ROOT)
    runs = [RunFolder(out / f"leap-seed{seed}") for seed in (0, 1)]
    try:
        assert any(all(len(run.rows()) > 3 for run in runs) or time.sleep(0.1) for _ in range(1200))
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()
    assert any(all(list(run.path.glob("checkpoints/step-*")) for run in runs) or time.sleep(0.1) for _ in range(600))
    for run in runs:
        assert run.load().step in (len(run.rows()), len(run.rows()) - 1)


# -- what is said of them ----------------------------------------------------------------------------------------------


def test_runs_land_in_one_table_and_one_report_by_configuration(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    out = tmp_path / "all"
    grid = ["--compare.learners", "leap", "--compare.seeds", "0", "1", "--compare.grid.train.meta-batch", "1", "3"]
    assert leap("compare", "quadratic.yaml", *QUICK, *grid, "--out", out) == 0
    assert "leap (train.meta_batch=3)" in capsys.readouterr().out
    assert "leap (train.meta_batch=1)" in (out / "report.html").read_text()
    folders = [path.parent for path in sorted(out.glob("*/config.yaml"))]
    assert {(row.label, row.seeds) for row in summarize(folders).rows} == {
        ("leap (train.meta_batch=1)", (0, 1)), ("leap (train.meta_batch=3)", (0, 1)), ("none", (0, 1)),
    }  # fmt: skip
    rows = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    assert len(rows) == 6 and [row["train.meta_batch"] for row in rows if row["learner"] == "none"] == ["", ""]
    for row in rows:
        ((losses,),) = [
            json.loads((out / row["run"] / "evaluation.json").read_text())["initializations"][row["learner"]][
                "test_loss"
            ]
        ]
        assert float(row["test_loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-12)
        if row["learner"] == "leap":
            assert row["run"] == f"leap-meta_batch={row['train.meta_batch']}-seed{row['seed']}"


def test_the_help_shows_the_grid_and_what_else_there_is(capsys):
    assert leap("compare", "sweep-omniglot.yaml", "--help") == 0
    told = capsys.readouterr().out
    for what in ("--compare.grid.NAME VALUE", '"tasks.train": [1, 3, 5, 10', "--wandb-sweep", "--train-only"):
        assert what in told
    assert "--compare.jobs" in told and "{None}|INT" in told


def test_axes_take_nested_and_dotted_names():
    assert compare.axes(Compare(grid={"tasks": {"train": 2}, "meta.lr": [1]})) == {"tasks.train": [2], "meta.lr": [1]}
