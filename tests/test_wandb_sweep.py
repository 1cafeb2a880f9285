"""A comparison as a wandb sweep: what the file says, and that its agents train the comparison's runs."""

import itertools
import re
from pathlib import Path

import in_process
import pytest
import yaml

from leap.cli import compare, configuration, main, schema, sweep
from leap.cli.settings import Settings
from leap.cli.wandb_sweep import specification
from leap.run import RunFolder

ROOT = Path(__file__).resolve().parent.parent


def leap(*arguments):
    return main.main([str(a) for a in arguments])


CHOSEN = ["--compare.learners", "leap", "reptile", "--compare.seeds", "0", "2", "--train.meta-steps", "3"]
CHOSEN += ["--compare.grid.inner.lr", "0.05", "1e-6", "--compare.grid.inner.nesterov", "false"]


def written(tmp_path, monkeypatch, *arguments):
    """The sweep that the command writes."""
    monkeypatch.chdir(tmp_path)
    assert leap("compare", *arguments, "--wandb-sweep", "sweep.yaml") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
    return yaml.safe_load(Path("sweep.yaml").read_text())


def test_a_wandb_sweep_holds_what_wandb_asks_for_and_nothing_of_this_machine(tmp_path, monkeypatch, capsys):
    found = written(tmp_path, monkeypatch, "quadratic.yaml", *CHOSEN, "--wandb.entity", "us")
    assert "8 runs" in capsys.readouterr().out
    assert (found["name"], found["project"], found["entity"], found["method"]) == ("quadratic", "leap", "us", "grid")
    assert found["command"][:5] == ["${env}", "${interpreter}", "-m", "leap", "compare"]
    assert found["command"][-1] == "${args}" and all(isinstance(word, str) for word in found["command"])
    assert "--train.meta-steps" in found["command"] and "--train-only" in found["command"]
    assert set(found["parameters"]) == {
        "compare.learners",
        "compare.seeds",
        "compare.grid.inner.lr",
        "compare.grid.inner.nesterov",
    }
    text = Path("sweep.yaml").read_text()
    assert (
        str(tmp_path) not in text and str(Path.home()) not in text and not any(w.startswith("/") for w in text.split())
    )


def test_every_parameter_is_a_setting_and_the_metric_is_logged():
    documented = (ROOT / "docs" / "metrics.md").read_text()
    known = {schema.dotted(leaf) for leaf, _ in schema.leaves(Settings, configuration.to_dict(Settings()))}
    for files, metric in ((["sweep-omniglot.yaml"], "train/error_last"), (["sinusoid.yaml"], "train/loss_last")):
        found = specification(files, [], Path("runs/x"))
        assert found["metric"] == {"name": metric, "goal": "minimize"} and f"`{metric}`" in documented
        assert {name.removeprefix("compare.grid.") for name in found["parameters"]} <= known
        assert all(set(one) == {"values"} and one["values"] for one in found["parameters"].values())


def test_the_agents_runs_are_those_of_the_comparison(tmp_path, monkeypatch):
    """Arguments made by wandb's own agent code, for every point of the grid."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    found = written(tmp_path, monkeypatch, "quadratic.yaml", *CHOSEN)
    whole, agents = compare.plan(["quadratic.yaml"], CHOSEN), {}
    grid = {name: parameter["values"] for name, parameter in found["parameters"].items()}
    for values in itertools.product(*grid.values()):
        arguments = {name: {"value": value} for name, value in zip(grid, values, strict=True)}
        flags = create_sweep_command_args({"args": arguments})["args"]
        command = create_sweep_command(found["command"])
        words = [part for word in command[5:] for part in (flags if word == "${args}" else [word])]
        given = compare.split(words, compare.OPTIONS)
        assert given.options["train_only"] and given.options["out"] == Path("runs/quadratic")
        (name,) = one = compare.plan(given.files, given.overrides)
        same = [
            path for path, _, _ in configuration.difference(one[name], whole[name]) if not path.startswith("compare.")
        ]
        assert not same
        agents |= one
    assert set(agents) == set(whole)


def test_agents_train_and_the_comparison_evaluates_what_they_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    chosen = [
        "--compare.learners",
        "leap",
        "--compare.seeds",
        "0",
        "--train.meta-steps",
        "3",
        "--evaluate.repetitions",
        "1",
    ]
    found = written(tmp_path, monkeypatch, "quadratic.yaml", *chosen)
    words = [word for word in found["command"][4:] if word != "${args}"]
    assert leap(*words, "--compare.learners=leap", "--compare.seeds=0") == 0
    run = RunFolder(Path("runs/quadratic/leap-seed0"))
    assert run.initialization.exists() and not (run.path / "evaluation.json").exists()
    stamp = run.initialization.stat().st_mtime_ns
    assert leap(*words, "--compare.learners=leap", "--compare.seeds=0") == 0  # again: nothing to do
    capsys.readouterr()
    assert leap("compare", "quadratic.yaml", *chosen) == 0
    assert "quadratic, test split" in capsys.readouterr().out
    assert (run.path / "evaluation.json").exists() and run.initialization.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tasks.folder", "/data"], "place on this machine.*LEAP_DATA"),
        (["--out", "/somewhere/runs"], "place on this machine"),
        (["--tracking", "none"], "sent to wandb"),
        (["--wandb.mode", "offline"], "sent to wandb"),
        (["--compare.grid.tasks.folder", "null", "data"], "compare.grid.tasks.folder: a wandb sweep hands over"),
    ],
    ids=str,
)
def test_a_sweep_that_would_not_do_elsewhere_is_refused(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert leap("compare", "omniglot.yaml", *arguments, "--wandb-sweep", "sweep.yaml") == 2
    assert re.search(told, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_not_written_over(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("tasks: {name: quadratic}")
    assert leap("compare", tmp_path / "mine.yaml", "--wandb-sweep", tmp_path / "mine.yaml") == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "tasks: {name: quadratic}"


def test_files_below_the_folder_of_the_agents_are_named_from_there(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("tasks: {name: quadratic}")
    monkeypatch.chdir(tmp_path)
    command = specification([str(tmp_path / "mine.yaml")], [], tmp_path / "runs")["command"]
    assert "mine.yaml" in command and command[command.index("--out") + 1] == "runs"
