"""Processes that share the work: which one this is, waiting for each other, and a real measuring on two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from leap import distributed
from leap.distributed import Place

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_process_of_no_group_is_alone_and_waits_for_nobody(alone):
    with distributed.group() as here:
        assert here == Place(0, 1) and here.first
        distributed.wait()


def test_the_environment_tells_the_place(alone):
    alone.setenv("RANK", "2")
    alone.setenv("WORLD_SIZE", "3")
    assert distributed.place() == Place(2, 3) and not distributed.place().first


def test_a_rank_without_others_is_the_first(alone):
    """Schedulers leave RANK behind; a process that is alone does all the work."""
    alone.setenv("RANK", "2")
    assert distributed.place().first
    alone.setenv("WORLD_SIZE", "1")
    assert distributed.place().first


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def torchrun(arguments, count, cwd, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, **options)


CODE = """
import sys, time
from pathlib import Path
from leap import distributed
with distributed.group() as here:
    if here.rank == 0:
        time.sleep(0.5)
    Path(f"came-{here.rank}").touch()
    distributed.wait()
    Path(f"saw-{here.rank}-{len(list(Path().glob('came-*')))}").touch()
assert here.world == 2
"""


@pytest.mark.slow
def test_nobody_goes_on_before_all_have_come(tmp_path):
    (tmp_path / "meet.py").write_text(CODE)
    told = torchrun(["meet.py"], 2, tmp_path)
    assert told.returncode == 0, told.stderr
    assert sorted(path.name for path in tmp_path.glob("saw-*")) == ["saw-0-2", "saw-1-2"]


CONFIG = """
tasks: {{name: custom, source: "{source}"}}
learner: {{name: none}}
evaluate: {{steps: 3}}
inner: {{name: sgd, lr: 0.1}}
tracking: none
measure:
  {{seeds: [0], epochs: 2, refine_epochs: 1, rate: 0.1, batch_size: 8, samples: 8, tuning_epochs: 2,
  scratch_epochs: 1, points: 4, barrier_points: 5, barrier_steps: 2, barrier_samples: 12, draws: 2, betas: [0.3, 1]}}
"""


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG.format(source=ROOT / "tests" / "tiny_measurable.py:make"))
    arguments = ["measure", "tiny.yaml", "--distances", "path,fisher,dynamic"]
    (tmp_path / "one").mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    one = [sys.executable, "-m", "leap", *arguments, "--out", "one/run"]
    alone = subprocess.run(one, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert alone.returncode == 0, alone.stderr
    two = torchrun(["-m", "leap", *arguments, "--out", "two/run"], 2, tmp_path)
    assert two.returncode == 0, two.stderr
    found = [tmp_path / name / "run" / "measures" for name in ("one", "two")]
    assert found[0].joinpath("measures.json").read_bytes() == found[1].joinpath("measures.json").read_bytes()
    names = [sorted(path.name for path in (folder / "items").iterdir()) for folder in found]
    assert names[0] == names[1] and all(name.endswith(".safetensors") for name in names[0])
    for name in names[0]:
        assert (found[0] / "items" / name).read_bytes() == (found[1] / "items" / name).read_bytes()
    assert two.stdout.count("results ") == 1  # one of them speaks
    json.loads((found[1] / "measures.json").read_text())


@pytest.mark.slow
def test_what_one_process_refuses_ends_all(tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG.format(source=ROOT / "tests" / "tiny_measurable.py:make"))
    told = torchrun(["-m", "leap", "measure", "tiny.yaml", "--distances", "fishr", "--out", "run"], 2, tmp_path)
    assert told.returncode != 0 and "fishr" in told.stderr and "Did you mean" in told.stderr
    assert not (tmp_path / "run").exists()
