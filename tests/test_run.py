"""Run folders: what a kill, a bad disk or a careless person can do to them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from leap.cli import lifecycle, saving
from leap.cli.settings import Leap, Maml, Meta, NoLearner, Quadratic, Reptile, Settings, Sinusoid, Train
from leap.errors import RunError, UsageError
from leap.layout import Layout
from leap.run import Checkpoint, RunFolder, pack, unpack, write_atomic
from leap.soundness import timed

ROOT = Path(__file__).resolve().parent.parent
SMALL = Settings(
    tasks=Quadratic(), learner=Leap(), train=Train(5, 12, 4, checkpoint_every=3, execution="batched"), tracking="none"
)


def changed(**changes):
    import dataclasses

    return dataclasses.replace(SMALL, **changes)


def rows_without_time(run):
    return [{k: v for k, v in row.items() if not timed(k)} for row in run.rows()]


class Killed(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("learner", [Leap(), Reptile(), Maml()])
@pytest.mark.parametrize("meta", [Meta("SGD", 0.1, options={"momentum": 0.9}), Meta("Adam", 0.01, "cosine")])
@pytest.mark.parametrize("stop", [1, 4, 6, 11])
def test_a_resumed_run_ends_bit_for_bit_where_an_undisturbed_one_does(tmp_path, learner, meta, stop):
    settings = changed(learner=learner, meta=meta)
    whole = lifecycle.start(settings, tmp_path / "whole")

    def interrupt(step, metrics):
        if step == stop:
            raise Killed

    with pytest.raises(Killed):
        lifecycle.start(settings, tmp_path / "broken", interrupt)
    broken = RunFolder.open(tmp_path / "broken")
    assert not broken.initialization.exists()
    lifecycle.resume(broken, lifecycle.settings_of(broken))
    assert broken.initialization.read_bytes() == whole.initialization.read_bytes()
    assert rows_without_time(broken) == rows_without_time(whole)
    assert [row["step"] for row in broken.rows()] == list(range(1, 13))


def test_a_killed_process_loses_at_most_what_follows_its_last_checkpoint(tmp_path):
    """kill -9, for real, at whatever moment it comes."""
    settings = changed(
        tasks=Sinusoid(count=10), train=Train(5, 60, 4, checkpoint_every=4, execution="batched", threads=1)
    )
    whole = lifecycle.start(settings, tmp_path / "whole")
    out = tmp_path / "killed"
    arguments = [
        "--tasks.count",
        "10",
        "--train.inner-steps",
        "5",
        "--train.meta-steps",
        "60",
        "--train.meta-batch",
        "4",
    ]
    arguments += ["--train.checkpoint-every", "4", "--train.execution", "batched", "--train.threads", "1"]
    command = [sys.executable, "-m", "leap", "train", "sinusoid.yaml", "--inner.lr", "0.1", *arguments]
    started = subprocess.Popen([*command, "--tracking", "none", "--out", str(out)], cwd=ROOT)
    for _ in range(600):
        time.sleep(0.05)
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") >= 7:
            break
    started.send_signal(signal.SIGKILL)
    started.wait()
    run = RunFolder.open(out)
    assert not run.initialization.exists(), "the process finished before it could be killed"
    with (out / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 9')  # as a kill within a write leaves it
    subprocess.run([sys.executable, "-m", "leap", "train", "--resume", str(out)], cwd=ROOT, check=True)
    assert unpack(run.initialization)[0].keys() == unpack(whole.initialization)[0].keys()
    assert run.initialization.read_bytes() == whole.initialization.read_bytes()
    assert [row["step"] for row in run.rows()] == list(range(1, 61))
    assert not list(out.rglob("*.tmp"))


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    whole = lifecycle.start(SMALL, tmp_path / "whole")
    for damage in (lambda b: b[: len(b) // 2], lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:], lambda b: b""):
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        with pytest.raises(Killed):
            lifecycle.start(SMALL, out, lambda step, metrics: (_ for _ in ()).throw(Killed()) if step == 9 else None)
        newest = sorted((out / "checkpoints").iterdir())[-1]
        newest.write_bytes(damage(newest.read_bytes()))
        run = RunFolder.open(out)
        assert run.load().step == 6
        assert "falling back" in capsys.readouterr().err
        lifecycle.resume(run, lifecycle.settings_of(run))
        assert run.initialization.read_bytes() == whole.initialization.read_bytes()


def test_all_checkpoints_damaged_is_an_error(tmp_path):
    run = RunFolder.create(tmp_path / "run", "seed: 0\n", {})
    run.save(Checkpoint(3, {"meta": torch.ones(2)}))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(RunError, match="all checkpoints"):
        run.load()


def test_the_last_two_checkpoints_are_kept(tmp_path):
    run = lifecycle.start(SMALL, tmp_path / "run")
    names = [p.name for p in sorted((run.path / "checkpoints").iterdir())]
    assert names == ["step-00000009.safetensors", "step-00000012.safetensors"]


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    run = lifecycle.start(SMALL, tmp_path / "run")
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=r"another run.*--resume"):
        lifecycle.start(SMALL, run.path)
    assert before == {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="other files"):
        lifecycle.start(SMALL, tmp_path / "notes")
    with pytest.raises(UsageError, match="is a file"):
        lifecycle.start(SMALL, tmp_path / "notes" / "mine.txt")
    with pytest.raises(UsageError, match="holds no run"):
        RunFolder.open(tmp_path / "notes")


def test_what_a_start_that_was_killed_at_once_leaves_behind_is_in_nobodys_way(tmp_path):
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "provenance.json").write_text("{}")
    (out / ".config.yaml.77.tmp").write_text("see")
    run = lifecycle.start(SMALL, out)
    assert run.initialization.exists() and not list(out.rglob("*.tmp"))


def test_a_run_of_another_configuration_is_refused_by_field(tmp_path):
    run = lifecycle.start(SMALL, tmp_path / "run")
    with pytest.raises(
        UsageError, match=r"(?s)learner.metric: 'length' in the run, 'energy' now.*seed: 0 in the run, 3"
    ):
        lifecycle.reconcile(run, changed(learner=Leap(metric="energy"), seed=3))
    assert lifecycle.reconcile(run, changed(tracking="wandb")).tracking == "wandb"


def test_a_run_in_use_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "run", "seed: 0\n", {})
    with run.lock(), pytest.raises(UsageError, match="in use"), RunFolder(run.path).lock():
        pass


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_initialization_explains_itself(tmp_path):
    from safetensors import safe_open

    run = lifecycle.start(changed(learner=NoLearner()), tmp_path / "run")
    with safe_open(run.initialization, "pt") as file:
        about = json.loads(file.metadata()["leap"])
        assert about["layout"] == {"names": ["theta"], "shapes": [[5]], "trunk": 4, "shared": 5}
        assert about["learner"] == "none" and file.keys() == ["theta"]
        assert file.get_tensor("theta").shape == (5,)


def test_an_initialization_of_another_model_is_refused(tmp_path):
    run = lifecycle.start(SMALL, tmp_path / "run")
    with pytest.raises(RunError, match=r"another model.*expected \('other',\)"):
        run.load_initialization(Layout(("other",), ((5,),), 4, 5))
    with pytest.raises(RunError, match=r"another model.*\(6,\)"):
        run.load_initialization(Layout(("theta",), ((6,),), 4, 6))


def test_packed_tensors_come_back_exactly_and_nothing_executable_is_read(tmp_path):
    tensors = {"a": torch.randn(3, 2), "b": torch.tensor(7), "empty": torch.zeros(0), "c": torch.randn(2).double()}
    path = tmp_path / "file.safetensors"
    path.write_bytes(pack(tensors, {"step": 1}))
    loaded, about = unpack(path)
    assert about["step"] == 1
    assert all(torch.equal(loaded[k], v) and loaded[k].dtype == v.dtype for k, v in tensors.items())
    torch.save(tensors, path)
    with pytest.raises(RunError, match="damaged or was not written by leap"):
        unpack(path)


def test_provenance_tells_versions_hardware_and_commit(tmp_path):
    run = lifecycle.start(SMALL, tmp_path / "run")
    about = json.loads((run.path / "provenance.json").read_text())
    assert about["versions"]["torch"] == torch.__version__ and about["hardware"]["cores"] >= 1
    assert about["execution"] == "batched" and about["command"].startswith("leap")


def test_sigterm_saves_and_ends(tmp_path):
    def terminate(step, metrics):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(saving.Stopped):
        lifecycle.start(SMALL, tmp_path / "run", terminate)
    assert RunFolder.open(tmp_path / "run").load().step == 5
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
