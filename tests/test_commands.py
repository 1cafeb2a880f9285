"""The commands as a person meets them: what they write, what they refuse, and that nothing is lost on the way."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from offline_run import OfflineRun

from leap.cli import compare, configuration, lifecycle, main
from leap.cli.settings import GO_BACK, NEED_STAGES, Settings
from leap.errors import UsageError
from leap.run import RunFolder

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yaml"))
EXPERIMENTS = [p for p in CONFIGS if p.parent.name in ("configs", "multi_cv", "atari")]
LEARNERS = [p for p in CONFIGS if p.parent.name in ("learner", "games")]
QUICK = ["--train.meta-steps", "2", "--tracking", "none"]
SMALL = ["quadratic.yaml", *QUICK]


def leap(*arguments):
    return main.main([str(a) for a in arguments])


@pytest.mark.parametrize("config", EXPERIMENTS, ids=lambda p: str(p.relative_to(ROOT / "configs").with_suffix("")))
def test_every_experiment_runs_two_meta_steps(config, tmp_path, request):
    if config.stem in ("omniglot", "omniglot-reduced", "sweep-omniglot", "image-sets", "digit-tasks"):
        request.getfixturevalue("data_folder")
    if config.parent.name == "multi_cv" and config.stem != "embedded":
        request.getfixturevalue("data_folder")
    small = ["--train.inner-steps", "2", "--train.meta-batch", "2", *QUICK]
    if config.parent.name == "atari":
        pytest.importorskip("ale_py")
        small += ["--tasks.environments", "2", "--tasks.train", "pong", "freeway", "--tasks.test", "breakout"]
    if config.parent.name == "multi_cv":
        small += ["--train.inner-epochs", "0.1", "--tasks.most", "200"]
        if config.stem == "paper":  # without SVHN and FaceScrub, which few have at hand
            small += ["--tasks.names", "mnist", "gtsrb", "cifar100"]
    if "filters" in config.read_text() or "omniglot" in config.read_text():
        small += ["--model.filters", "4"]
    if held := {"image-sets": "mnist", "digit-tasks": "digit"}.get(config.stem):
        # of random trunks: a learner comes with its own file and held-out tasks
        small += [str(config.parent / "learner" / "leap.yaml"), "--tasks.held-out", held]
    assert leap("train", config, *small, "--out", tmp_path / "run") == 0
    assert len(RunFolder.open(tmp_path / "run").rows()) == 2


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda p: str(p.relative_to(ROOT / "configs").with_suffix("")))
def test_every_learner_trains_evaluates_and_reports(learner, tmp_path, capsys):
    out, base = tmp_path / "run", SMALL
    if learner.stem in NEED_STAGES or learner.parent.parent.name == "multi_cv":
        base = ["multi_cv/embedded", *QUICK, "--tasks.names", "shapes", "digits", "textures", "--tasks.most", "100"]
        base += ["--tasks.most-test", "50", "--model.filters", "4", "--evaluate.epochs", "1"]
    if learner.parent.name == "games":
        base = [
            "tiny-games",
            *QUICK,
            "--tasks.train",
            "catch",
            "seek",
            "--tasks.test",
            "mirror",
            "--train.meta-batch",
            "2",
        ]
        base += ["--tasks.environments", "2", "--tasks.evaluation-episodes", "2", "--evaluate.steps", "3"]
    assert leap("train", *base, learner, "--train.inner-steps", "3", "--out", out) == 0
    assert leap("evaluate", out, "--evaluate.repetitions", "1") == 0
    assert leap("report", out, "--out", tmp_path / "page.html") == 0
    document = json.loads((out / "evaluation.json").read_text())
    assert set(document["initializations"]) == {yaml.safe_load(learner.read_text())["learner"]["name"], "none"}
    for measures in document["initializations"].values():
        assert {"test_loss", "train_loss_auc", "path_length", "path_energy", "train_loss"} <= set(measures)
    assert (out / "pictures" / "learning-curves.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_configs_say_only_what_differs_from_the_defaults():
    whole = configuration.flatten(configuration.to_dict(Settings()))
    for config in EXPERIMENTS:
        data = yaml.safe_load(config.read_text())
        chosen = configuration.flatten(configuration.to_dict(configuration.load(Settings, [config])))
        for path in configuration.flatten(data):
            if not path.endswith("name") and path in whole and data["tasks"]["name"] == whole["tasks.name"]:
                assert chosen[path] != whole[path], f"{config.name}: {path} is the default already"


def test_a_comparison_gives_table_report_and_pictures_and_goes_on_where_it_stopped(tmp_path, capsys):
    out = tmp_path / "all"
    arguments = ["compare", "quadratic.yaml", "--out", out, *QUICK, "--compare.jobs", "1", "--compare.seeds", "0", "1"]
    arguments += ["--compare.learners", "leap", "reptile", "none"]
    assert leap(*arguments) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("leap", "reptile", "none", "report.html", "comparison.png"))
    names = {"leap-seed0", "leap-seed1", "reptile-seed0", "reptile-seed1", "none-seed0", "none-seed1"}
    assert {p.name for p in out.iterdir() if p.is_dir()} == names
    assert leap("report", out, "--out", tmp_path / "page.html") == 0
    assert "reptile" in (tmp_path / "page.html").read_text()
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name in ("evaluation.json", "metrics.jsonl")}
    (out / "reptile-seed1" / "evaluation.json").unlink()
    assert leap(*arguments) == 0
    again = {p: p.stat().st_mtime_ns for p in stamps}
    assert [p.parent.name for p in stamps if p.name == "evaluation.json" and stamps[p] != again[p]] == ["reptile-seed1"]


def test_a_comparison_uses_the_numbers_of_single_runs(tmp_path):
    chosen = ["--compare.jobs", "1", "--compare.learners", "leap", "--compare.seeds", "3"]
    assert leap("compare", *SMALL, "--out", tmp_path / "all", *chosen) == 0
    assert leap("train", "quadratic.yaml", "learner/leap.yaml", *QUICK, "--seed", "3", "--out", tmp_path / "one") == 0
    assert leap("evaluate", tmp_path / "one") == 0
    together = json.loads((tmp_path / "all" / "leap-seed3" / "evaluation.json").read_text())
    alone = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert together["initializations"] == alone["initializations"]


def test_plans_name_every_run_and_keep_learners_apart():
    runs = compare.plan(["quadratic.yaml"], ["--compare.learners", "maml", "leap", "--compare.seeds", "4", "5"])
    assert list(runs) == ["maml-seed4", "maml-seed5", "leap-seed4", "leap-seed5"]
    assert runs["maml-seed4"].train.inner_steps == 5 and runs["leap-seed5"].train.inner_steps == 10
    assert runs["leap-seed5"].seed == 5 and runs["leap-seed5"].learner.name == "leap"
    with pytest.raises(UsageError, match="differ"):
        compare.plan(["quadratic.yaml"], ["--compare.seeds", "1", "1"])


BAD = [
    (["train", "quadratic.yaml", "--train.inner-steps", "0"], "train.inner_steps"),
    (["train", "quadratic.yaml", "--inner.lr", "-0.1"], "inner.lr"),
    (["train", "quadratic.yaml", "--inner.lr", "nan"], "inner.lr"),
    (["train", "quadratic.yaml", "--train.meta-stps", "3"], "train.meta_steps"),
    (["train", "quadratic.yaml", "--device", "cuda:7"], "device 'cuda:7' cannot be used"),
    (["train", "quadratic.yaml", "--device", "toaster"], "toaster"),
    (["train", "quadratic.yaml", "--meta.name", "Adm"], "Adam"),
    (["train", "quadratic.yaml", "--meta.options.momentum", "-3"], "momentum"),
    (["train", "nowhere.yaml"], "nowhere.yaml"),
    (["train", "quadratik.yaml"], "quadratic"),
    (["train", "quadratic.yaml", "learner/leep.yaml"], "learner/leap"),
    (["train", "quadratic.yaml", "learner/finetune.yaml", "--meta.lr", "0.5"], "meta learning rate|lr 1.0"),
    (["train", "--resume", "EMPTY"], "holds no run"),
    (["train", "quadratic.yaml", "--out", "EMPTY", "--resume", "EMPTY"], "exclude"),
    (["evaluate"], "at least one run folder"),
    (["evaluate", "EMPTY"], "holds no run"),
    (["report"], "at least one run folder"),
    (["report", "EMPTY"], "run"),
    (["trian"], "train"),
    (["train", "quickstart.yaml", "--tasks.ways", "21"], "21"),
    (["train", "quickstart.yaml", "--tasks.shots", "18"], "20"),
    (["train", "quickstart.yaml", "--tasks.train", "40"], "40"),
    (["train", "omniglot.yaml", "--tasks.folder", "EMPTY"], "images_background.zip"),
    (["train", "--tasks.name", "custom"], "tasks"),
]


@pytest.mark.parametrize(("arguments", "told"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_is_refused_in_words_and_changes_nothing(arguments, told, tmp_path, capsys, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    assert leap(*arguments) == 2
    error = capsys.readouterr().err
    assert re.search(told, error), error
    assert "Traceback" not in error
    assert [p.name for p in tmp_path.rglob("*")] == ["EMPTY"]


def test_all_problems_are_told_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("train: {meta_steps: -1, inner_stpes: 3}\ninner: {name: sgd, lr: fast}\nsede: 4\n")
    assert leap("train", "bad.yaml", "--out", "run") == 2
    error = capsys.readouterr().err
    for what in ("train.meta_steps", "train.inner_steps", "inner.lr", "seed"):
        assert what in error
    assert not Path("run").exists()


def test_a_run_that_diverges_ends_with_one_message_and_keeps_its_record(tmp_path, capsys):
    out = tmp_path / "run"
    assert leap("train", "quadratic.yaml", "--inner.lr", "1e30", "--tracking", "none", "--out", out) == 1
    error = capsys.readouterr().err
    assert "met NaN or infinity, first in task bowl" in error and "at inner step" in error and "Traceback" not in error
    assert (out / "config.yaml").exists() and not (out / "initialization.safetensors").exists()


def test_a_damaged_initialization_is_told(tmp_path, capsys):
    out = tmp_path / "run"
    assert leap("train", *SMALL, "--out", out) == 0
    path = out / "initialization.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert leap("evaluate", out) == 1
    assert "initialization.safetensors is damaged" in capsys.readouterr().err


def test_an_unfinished_run_is_not_evaluated(tmp_path, capsys):
    run = RunFolder.create(
        tmp_path / "run", configuration.to_yaml(configuration.load(Settings, ["quadratic.yaml"])), {"run_id": "a"}
    )
    assert leap("evaluate", run.path) == 2
    assert "leap train --resume" in capsys.readouterr().err


def test_resuming_with_other_settings_is_refused(tmp_path, capsys):
    out = tmp_path / "run"
    assert leap("train", *SMALL, "--out", out) == 0
    assert leap("train", "--resume", out, "--inner.lr", "0.3") == 2
    assert "inner.lr: 0.1 in the run, 0.3 now" in capsys.readouterr().err
    assert leap("train", "--resume", out) == 0  # finished already: nothing to do


def test_a_disk_that_fills_up_ends_the_run_with_a_message(tmp_path, capsys, monkeypatch):
    def full(self, row):
        raise OSError(28, "No space left on device", str(self.path / "metrics.jsonl"))

    monkeypatch.setattr(RunFolder, "append", full)
    assert leap("train", *SMALL, "--out", tmp_path / "run") == 1
    assert "No space left on device" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_is_told(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("mine")
    assert leap("train", *SMALL, "--out", tmp_path / "file" / "run") == 1
    assert "a part of this path is a file" in capsys.readouterr().err

    def read_only(path, data):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("leap.run.write_atomic", read_only)
    assert leap("train", *SMALL, "--out", tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert "Read-only file system" in error and str(tmp_path / "run") in error and "another" in error


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    from leap.trainer import Trainer

    step = Trainer.meta_step

    def interrupted(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return step(self)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "meta_step", interrupted)
        assert leap("train", "quadratic.yaml", "--tracking", "none", "--out", out) == 130
    assert f"leap train --resume {out}" in capsys.readouterr().out
    assert RunFolder.open(out).load().step == 4
    assert leap("train", "--resume", out) == 0
    assert len(RunFolder.open(out).rows()) == 50


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["Ctrl-C", "SIGTERM", "SIGTERM to every process"])
def test_a_comparison_that_is_stopped_saves_every_run_and_starts_no_other(stop, tmp_path):
    out = tmp_path / "all"
    command = [sys.executable, "-m", "leap", "compare", "sinusoid.yaml", "--tracking", "none", "--out", str(out)]
    command += ["--compare.seeds", "0", "1", "--compare.learners", "sinusoid/leap", "reptile", "--compare.jobs", "2"]
    command += ["--train.meta-steps", "9999"]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    runs = [RunFolder(out / f"leap-seed{seed}") for seed in (0, 1)]
    for _ in range(1200):
        if all(len(run.rows()) > 3 for run in runs):
            break
        time.sleep(0.1)
    if stop == "SIGTERM":
        started.terminate()
    else:
        os.killpg(started.pid, signal.SIGINT if stop == "Ctrl-C" else signal.SIGTERM)
    told, _ = started.communicate(timeout=60)
    assert started.returncode == 130 and "repeat the command to go on" in told
    assert {path.name for path in out.iterdir()} == {"leap-seed0", "leap-seed1"}
    for run in runs:
        assert run.load().step in (len(run.rows()), len(run.rows()) - 1)  # a row may be written just before the stop


def test_help_is_quick_and_light():
    code = "import sys; from leap.cli.main import main; main(['--help']); "
    code += "assert not {'torch', 'numpy', 'wandb'} & set(sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "train" in told.stdout


def test_settings_survive_their_yaml(tmp_path):
    refused = set()
    for config in EXPERIMENTS:
        family = configuration.load(Settings, [config]).tasks.name
        for learner in LEARNERS:
            stages = learner.stem in NEED_STAGES and family not in ("multi_cv", "custom")
            if stages or (learner.stem in GO_BACK and family in ("atari", "tiny_games")):
                with pytest.raises(UsageError, match=f"learner.name: {learner.stem}"):
                    configuration.load(Settings, [config, learner])
                refused.add(learner.stem)
                continue
            settings = configuration.load(Settings, [config, learner])
            (tmp_path / "again.yaml").write_text(configuration.to_yaml(settings))
            assert configuration.load(Settings, [tmp_path / "again.yaml"]) == settings
    assert refused == {*NEED_STAGES, *GO_BACK}


def test_an_offline_run_holds_what_the_run_folder_does(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = configuration.load(Settings, ["quadratic.yaml"], ["--train.meta-steps", "3"])
    run = lifecycle.start(settings, tmp_path / "run")
    lifecycle.evaluate(run, settings)
    evaluated = OfflineRun.finished(run.path)  # the newest: the evaluation, a wandb run of its own in the same group
    assert evaluated.run.job_type == "evaluate" and evaluated.exit_code == 0
    for part in (run.path / "wandb").glob("offline-run-*-evaluate"):
        shutil.rmtree(part)
    trained = OfflineRun.finished(run.path)
    assert trained.run.job_type == "train" and trained.run.run_group == evaluated.run.run_group == "quadratic"
    assert set(trained.run.tags) == {"leap", "seed 0"}
    assert trained.config["train"]["meta_steps"] == 3 and trained.config["learner"]["name"] == "leap"
    logged = {row["step"]: row for row in trained.rows if "train/loss" in row}
    for row in run.rows():
        assert all(logged[row["step"]][key] == pytest.approx(value) for key, value in row.items())
    assert ("initialization", "initialization-run") in trained.artifacts
