"""Processes that share the work: which one this is, waiting for each other, and a real measuring on two."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from processes import torchrun

from leap import distributed
from leap.cli import build, configuration
from leap.cli.settings import Settings
from leap.distributed import Place
from leap.errors import RunError, UsageError

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


@pytest.mark.parametrize("count", [0, 1, 5, 20])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_cover_all_once_and_are_even(count, world):
    shares = [list(range(count))[Place(rank, world).share(count)] for rank in range(world)]
    assert [item for share in shares for item in share] == list(range(count))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1 and sizes[0] == min(sizes)  # the first writes for all


def test_a_process_takes_its_share_of_the_cores_unless_told(alone):
    alone.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    alone.delenv("OMP_NUM_THREADS", raising=False)
    alone.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert distributed.threads() is None
    alone.setenv("LOCAL_WORLD_SIZE", "3")
    assert distributed.threads() == 2
    alone.setenv("OMP_NUM_THREADS", "1")  # torchrun's own
    assert distributed.threads() == 2
    alone.setenv("LOCAL_WORLD_SIZE", "100")
    assert distributed.threads() == 1
    alone.setenv("OMP_NUM_THREADS", "4")
    assert distributed.threads() is None


def test_emulators_share_the_cores_whatever_torch_was_told(alone, monkeypatch):
    asked = []
    monkeypatch.setattr("tasks.atari.atari_games", lambda *names, threads, **options: asked.append(threads))
    alone.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    alone.setenv("OMP_NUM_THREADS", "4")
    for processes, overrides in (("1", []), ("4", []), ("100", []), ("1", ["--tasks.threads", "3"])):
        alone.setenv("LOCAL_WORLD_SIZE", processes)
        build.family(configuration.load(Settings, [ROOT / "configs" / "atari" / "smoke.yaml"], overrides), "cpu")
    assert asked == [16, 4, 1, 3]


def test_each_process_of_a_machine_takes_its_own_gpu(alone):
    alone.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone.setenv("LOCAL_RANK", "3")
    assert distributed.gpu(4) == "cuda"
    alone.setenv("LOCAL_WORLD_SIZE", "4")
    assert distributed.gpu(4) == "cuda:3" and distributed.gpu(2) == "cuda:1"
    alone.setattr("torch.cuda.is_available", lambda: True)
    alone.setattr("torch.cuda.device_count", lambda: 4)
    assert build.device("auto") == build.device("cuda") == "cuda:3" and build.device("cpu") == "cpu"


def test_torchruns_restarts_are_told_from_a_person(alone):
    alone.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not distributed.restartable()
    alone.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert distributed.restartable()


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", ""])
def test_a_patience_that_is_no_time_is_refused(alone, text):
    alone.setenv(distributed.PATIENCE, text)
    with pytest.raises(UsageError, match="LEAP_PATIENCE_S must be a number of seconds"), distributed.together():
        pass


def test_the_exchange_of_one_is_itself(alone):
    with distributed.together() as exchange:
        assert exchange.place == Place(0, 1)
        assert exchange.gather("a") == ["a"] and exchange.tell(3) == 3
        assert exchange.sum(torch.ones(2)).tolist() == [1, 1]


def test_a_name_for_each_start_is_agreed_on_whatever_earlier_ones_left_behind():
    """A store that outlives its processes: of the first start, one came and was killed, one asked and was killed."""
    store, brief = torch.distributed.HashStore(), timedelta(seconds=30)
    with pytest.raises(RuntimeError, match=r"processes \[1, 2\] did not come within 0 s"):
        distributed.agree(store, Place(0, 3), timedelta(0))
    store.set("leap/asks/1", "long gone")
    store.set("leap/asks/2", "gone too")
    names = []
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(distributed.agree, store, Place(rank, 3), brief) for rank in (2, 0, 1)]
        found = {future.result() for future in asked}
        assert len(found) == 1
        names += found
    assert len(set(names)) == 3


EXCHANGES = """
import sys, torch
from leap import distributed
from leap.errors import RunError
with distributed.together() as exchange:
    rank, world = exchange.place
    total = exchange.sum(torch.tensor([1.0, 10.0 ** rank], dtype=torch.float64))
    assert total.tolist() == [3.0, 111.0], total
    assert exchange.gather((rank, None)) == [(0, None), (1, None), (2, None)]
    assert exchange.tell({"from": torch.tensor(rank)}) == {"from": torch.tensor(0)}
    if rank == 1:
        sys.exit(0)                                     # gone without a word
    try:
        exchange.sum(torch.ones(3))
    except RunError as error:
        open(f"noticed-{rank}", "w").write(str(error))
        raise SystemExit(3)
"""


@pytest.mark.slow
def test_processes_exchange_and_notice_who_is_gone(tmp_path):
    (tmp_path / "exchange.py").write_text(EXCHANGES)
    told = torchrun(["exchange.py"], 3, tmp_path)
    assert told.returncode != 0 and "Assertion" not in told.stderr
    noticed = [path.read_text() for path in tmp_path.glob("noticed-*")]
    assert noticed and all("another process of this job has ended" in text for text in noticed)


def test_who_waits_for_a_process_that_is_gone_says_so_in_words(alone, monkeypatch):
    def gone(*arguments, **options):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:8097")

    alone.setenv("WORLD_SIZE", "2")
    alone.setenv("RANK", "1")
    monkeypatch.setattr("torch.distributed.barrier", gone)
    with pytest.raises(RunError, match=r"process 1 of 2: another process of this job has ended\. .*by peer"):
        distributed.wait()
    monkeypatch.setattr(distributed, "_store", lambda here, patience: None)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *arguments, **options: None)
    with pytest.raises(RunError, match="another process of this job has ended"), distributed.group():
        pass


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
