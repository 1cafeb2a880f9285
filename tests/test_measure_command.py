"""`leap measure` as a person meets it: what it writes, what it refuses in which words, and that nothing is lost."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_measurable import SMALL, SPOILS, entries

from leap.cli import main
from leap.measure.measuring import Measuring
from leap.run import RunFolder

SOURCE = f"{Path(__file__).resolve().parent / 'tiny_measurable.py'}:make"


def leap(*arguments):
    return main.main([str(a) for a in arguments])


def config(folder, learner="none", options=None, **changes):
    """A file of settings for blobs."""
    data = {
        "tasks": {"name": "custom", "source": SOURCE, "options": options or {}},
        "learner": {"name": learner},
        "inner": {"name": "sgd", "lr": 0.1},
        "train": {"inner_steps": 3, "meta_steps": 2, "meta_batch": 2},
        "evaluate": {"steps": 3, "repetitions": 2},
        "tracking": "none",
        "measure": {key: list(value) if isinstance(value, tuple) else value for key, value in SMALL.items()},
    }
    path = Path(folder) / "blobs.yaml"
    path.write_text(yaml.safe_dump(data | changes))
    return path


def measures(run):
    return json.loads((Path(run) / "measures" / "measures.json").read_text())


def undrawn(patch):
    """Pictures take most of the time; one test looks at them."""
    patch.setattr("leap.report.measures.write_measures", lambda document, folder: [])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of Leap on blobs, all of it measured."""
    folder = tmp_path_factory.mktemp("command")
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        assert leap("train", config(folder, "leap"), "--out", folder / "run") == 0
        assert leap("measure", folder / "run") == 0
    return folder / "run"


# What it writes


def test_everything_is_measured(run):
    document = measures(run)
    assert (document["run"], document["learner"], document["family"]) == ("run", "leap", "custom")
    assert document["tasks"] == ["blobs-0", "blobs-1", "blobs-2"] and document["seeds"] == [0, 1]
    assert document["inner"]["samples"] == SMALL["samples"] and document["format"] == 1
    assert set(document["paths"]["initializations"]) == {"leap", "none"}
    for name in ("reachability", "information_distance", "fisher", "task2vec", "epochs", "barrier_curve", "action"):
        assert entries(document, name).shape == (2, 3, 3)
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


def test_the_same_command_again_measures_nothing_and_says_the_same(run, capsys, monkeypatch):
    before = (run / "measures" / "measures.json").read_bytes()
    monkeypatch.setattr(Measuring, "work", lambda self, item: pytest.fail(f"{item} is measured again"))
    undrawn(monkeypatch)
    assert leap("measure", run) == 0
    told = capsys.readouterr().out
    assert "walks to 3 held-out tasks" in told and "measures.json" in told and "leap" in told and "none" in told
    assert (run / "measures" / "measures.json").read_bytes() == before


def test_walks_are_those_of_the_runs_evaluation(run):
    assert leap("evaluate", run) == 0
    evaluated = json.loads((run / "evaluation.json").read_text())["initializations"]
    measured = measures(run)["paths"]["initializations"]
    for name in ("leap", "none"):
        for measure in ("path_length", "path_energy", "test_error", "test_loss", "train_error_auc"):
            assert measured[name][measure] == evaluated[name][measure]


def test_random_initializations_are_measured_from_files_and_drawn(tmp_path):
    out = tmp_path / "run"
    assert leap("measure", config(tmp_path), "--distances", "path,task2vec", "--out", out) == 0
    document = measures(out)
    assert (out / "measures" / "task2vec.csv").read_text().count("blobs-2") >= 2
    assert (out / "measures" / "task2vec.png").read_bytes()[:4] == b"\x89PNG"
    assert leap("evaluate", out) == 0 and leap("report", out, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "Task2Vec distance" in page and "blobs-2" in page
    assert set(document["paths"]["initializations"]) == {"none"} and set(document["matrices"]) == {"task2vec"}
    assert document["matrices"]["task2vec"]["values"][0] != document["matrices"]["task2vec"]["values"][1]
    assert leap("measure", out, "--distances", "task2vec", "--tasks", "blobs-2", "blobs-0", "--measure.seeds", "1") == 0
    part = measures(out)
    assert part["tasks"] == ["blobs-2", "blobs-0"] and part["seeds"] == [1]
    whole = document["matrices"]["task2vec"]["values"][1]
    assert part["matrices"]["task2vec"]["values"] == [[[whole[t][o] for o in (2, 0)] for t in (2, 0)]]


@pytest.mark.parametrize("distance", ["path", "fisher"])
def test_a_single_distance_needs_no_list(distance, tmp_path, monkeypatch):
    undrawn(monkeypatch)
    assert leap("measure", config(tmp_path), "--distances", distance, "--out", tmp_path / "run") == 0
    assert measures(tmp_path / "run")["distances"] == [distance]


def test_one_task_alone_is_measured(tmp_path, monkeypatch):
    undrawn(monkeypatch)
    file = config(tmp_path)
    assert (
        leap("measure", file, "--distances", "reachability,dynamic", "--tasks", "blobs-1", "--out", tmp_path / "r") == 0
    )


def test_help_tells_distances_and_settings(capsys):
    assert leap("measure", "--help") == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("--distances", "--tasks", "--out", "--measure.prior-variance", "torchrun"))


# Stopped, damaged


def test_ctrl_c_keeps_what_is_measured_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    work, done = Measuring.work, []

    def stopping(self, item):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(item)
        return work(self, item)

    arguments = ["measure", config(tmp_path), "--distances", "path,fisher", "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "work", stopping)
        assert leap(*arguments) == 130
    assert "repeat the command to go on" in capsys.readouterr().out
    items = tmp_path / "run" / "measures" / "items"
    assert {path.stem for path in items.iterdir()} == {item.key for item in done}
    stamps = {path: path.stat().st_mtime_ns for path in items.iterdir()}
    assert leap(*arguments) == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_damaged_item_is_told_and_the_next_call_measures_it(tmp_path, capsys, monkeypatch):
    undrawn(monkeypatch)
    arguments = ["measure", config(tmp_path), "--distances", "task2vec", "--out", tmp_path / "run"]
    assert leap(*arguments) == 0
    item, before = tmp_path / "run" / "measures" / "items" / "embedding-1-2-2.safetensors", measures(tmp_path / "run")
    item.write_bytes(item.read_bytes()[:-9])
    assert leap(*arguments) == 1
    error = capsys.readouterr().err
    assert "embedding-1-2-2" in error and "repeat the command" in error and "Traceback" not in error
    assert leap(*arguments) == 0 and measures(tmp_path / "run") == before


# What it refuses


def refused(capsys, *arguments, code=2):
    assert leap("measure", *arguments) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error and "defect" not in error, error
    return error


BAD = [
    (["--distances", "fishr"], "Did you mean 'fisher'"),
    (["--distances", "path,fishr"], "Did you mean 'fisher'"),
    (["--tasks", "blob-1", "--distances", "fisher"], "Did you mean 'blobs-1'"),
    (["--tasks", "blobs-1", "blobs-1", "--distances", "fisher"], "twice"),
    (["--distances"], "--distances needs a value"),
    (["--measure.beta", "0"], "measure.beta"),
    (["--measure.beta", "-1"], "measure.beta"),
    (["--measure.prior-variance", "0"], "measure.prior_variance"),
    (["--measure.samples", "1"], "measure.samples"),
    (["--measure.epocs", "3"], "measure.epochs"),
    (["--measure.seeds", "0", "0", "--distances", "task2vec"], "seed"),
    (["--evaluate.split", "validation", "--distances", "fisher"], "validation"),
    (["--measure.scratch-epochs", "9", "--distances", "convergence"], "scratch"),
    (["--measure.batch-size", "24", "--distances", "dynamic"], "batch"),
    (["--measure.batch-size", "25", "--distances", "dynamic"], "batch"),
    (["--measure.level", "-1", "--distances", "path"], "level"),
]


@pytest.mark.parametrize(("arguments", "told"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_is_refused_in_one_message(arguments, told, tmp_path, capsys, monkeypatch):
    undrawn(monkeypatch)
    error = refused(capsys, config(tmp_path), *arguments, "--out", tmp_path / "run")
    assert told in error, error


def test_files_that_would_train_are_refused(tmp_path, capsys):
    error = refused(capsys, config(tmp_path, "leap"), "--out", tmp_path / "run")
    assert "leap" in error and "train first" in error and "learner/none.yaml" in error
    assert not (tmp_path / "run").exists()


def test_nothing_to_measure_is_told(tmp_path, capsys):
    assert "name a run folder" in refused(capsys)
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refused(capsys, tmp_path / "empty")
    assert "nowhere.yaml" in refused(capsys, tmp_path / "nowhere.yaml")


def test_a_runs_measures_lie_in_its_folder(run, tmp_path, capsys):
    assert "measures" in refused(capsys, run, "--out", tmp_path / "other")


def test_an_unfinished_run_is_not_measured(tmp_path, capsys):
    run = RunFolder.create(tmp_path / "run", config(tmp_path, "leap").read_text(), {})
    assert "leap train --resume" in refused(capsys, run.path)


def test_other_settings_are_refused_by_their_name(run, capsys):
    error = refused(capsys, run, "--measure.rate", "0.2")
    assert "0.1" in error and "0.2" in error and "rate" in error and str(run) in error
    assert "barrier_rate" not in error  # what differs, and nothing else


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_task_that_cannot_be_measured_is_told_by_name(spoil, tmp_path, capsys):
    file = config(tmp_path, options={"spoil": spoil})
    error = refused(capsys, file, "--distances", "fisher", "--out", tmp_path / "run")
    assert "blobs-2" in error
    assert (
        leap("measure", file, "--distances", "fisher", "--tasks", "blobs-0", "blobs-1", "--out", tmp_path / "run") == 0
    )


def test_a_network_that_sees_the_whole_batch_has_walks_alone(tmp_path, capsys):
    file, out = config(tmp_path, options={"norm": "batch"}), tmp_path / "run"
    for distance in ("reachability", "fisher", "task2vec", "convergence", "dynamic"):
        error = refused(capsys, file, "--distances", f"path,{distance}", "--out", out)
        assert "--model.norm group or none" in error and "--distances path" in error
    assert leap("measure", file, "--distances", "path", "--out", out) == 0
    assert "fisher_rao_length" not in measures(out)["paths"]["initializations"]["none"]


def test_what_was_refused_leaves_no_measures_behind(tmp_path, capsys):
    """Or the settings of a command that did nothing would bind the next one."""
    file, out = config(tmp_path, options={"norm": "batch"}), tmp_path / "run"
    refused(capsys, file, "--distances", "fisher", "--measure.samples", "4", "--out", out)
    assert leap("measure", file, "--distances", "path", "--out", out) == 0


def test_a_family_that_does_not_classify_has_walks_alone(tmp_path, capsys):
    arguments = ["quadratic.yaml", "learner/none.yaml", "--tracking", "none", "--measure.seeds", "0"]
    error = refused(capsys, *arguments, "--distances", "fisher", "--out", tmp_path / "run")
    assert "Quadratic" in error and "--distances path" in error
    assert leap("measure", *arguments, "--distances", "path", "--out", tmp_path / "run") == 0
    found = measures(tmp_path / "run")["paths"]["initializations"]["none"]
    assert "fisher_rao_length" not in found and len(found["path_length"][0]) == 10


def test_a_family_that_holds_nothing_out_is_measured_all_the_same(tmp_path):
    file = config(tmp_path, options={"held_out": 0})
    arguments = ["--distances", "fisher", "--tasks", "blobs-0", "blobs-1", "--out", tmp_path / "run"]
    assert leap("measure", file, *arguments) == 0


@pytest.mark.parametrize("setting", ["rate", "tuning-rate"])
def test_learning_that_diverges_is_told_with_its_cure(setting, tmp_path, capsys):
    arguments = [
        config(tmp_path),
        "--distances",
        "convergence",
        f"--measure.{setting}",
        "1e30",
        "--out",
        tmp_path / "r",
    ]
    error = refused(capsys, *arguments, code=1)
    assert f"measure.{setting.replace('-', '_')}" in error.replace("tuning-", "tuning_")


def test_scores_are_asked_for_by_name_and_bring_their_outcomes(tmp_path, monkeypatch, capsys):
    undrawn(monkeypatch)
    file = config(tmp_path, options={"classes": [2, 3, 2, 3], "train": 30})
    assert leap("measure", file, "--out", tmp_path / "run", "--transferability", "leep,logme") == 0
    told = capsys.readouterr().out
    assert "what predicts tuned_error" in told and "foretell of test_error" in told
    held = measures(tmp_path / "run")
    assert held["distances"] == ["path", "convergence"]
    assert [one["name"] for one in held["scores"]] == ["leep", "logme", "probe", "source_accuracy", "log_samples"]
    assert "leep" in held["matrices"] and "h_score" not in held["matrices"]
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "measures" / "items").iterdir()}
    assert leap("measure", tmp_path / "run", "--transferability", "all") == 0  # what items hold is more than was tabled
    assert "h_score" in measures(tmp_path / "run")["matrices"]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert leap("measure", tmp_path / "run", "--transferability", "hscore") == 2
    assert "Did you mean 'h_score'?" in capsys.readouterr().err


def test_scores_of_a_network_that_normalizes_over_the_batch_are_those_of_the_initialization(
    tmp_path, monkeypatch, capsys
):
    undrawn(monkeypatch)
    file = config(tmp_path, options={"classes": [2, 3, 2, 3], "train": 30, "norm": "batch"})
    arguments = ("measure", file, "--out", tmp_path / "run", "--transferability", "all")
    assert leap(*arguments) == 2
    assert "--distances path" in capsys.readouterr().err
    assert leap(*arguments, "--distances", "path") == 0
    held = measures(tmp_path / "run")
    assert not held["matrices"] and held["predictions"]
    assert all(value is not None for value in held["paths"]["initializations"]["none"]["h_score"][0])
