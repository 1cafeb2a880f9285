"""Meta-training in many processes: the numbers of one, whatever becomes of the others."""

import json
import math
import signal
import subprocess
import time

import pytest
import safetensors.torch
import torch
from families import FAMILIES, LEARNERS, small_alphabets
from processes import environment, in_threads, torchrun, torchrun_command
from small_multi_cv import small_multi_cv
from test_trainer import Diseased

from leap import learners, optim
from leap.cli import configuration, lifecycle
from leap.cli.settings import Settings
from leap.errors import RunError
from leap.run import RunFolder
from leap.soundness import timed
from leap.tally import MARKS, SUMS, mark
from leap.trainer import Plan, Trainer
from tasks.quadratic import Quadratic
from tasks.tiny_games import tiny_games

ADAM = ("Adam", optim.constant, {"lr": 0.02})
# Adam divides by the root of a mean square, so it makes steps of the rounding error in gradients that are zero: those
# of biases before a normalization
MOMENTUM = ("SGD", optim.constant, {"lr": 0.1, "momentum": 0.9})


class Double:
    """A family whose initialization, and so whose every number, is float64."""

    def __init__(self, family):
        self.family, self.layout, self.ids, self.name = family, family.layout, family.ids, family.name
        self.walked = []

    def __getattr__(self, name):
        return getattr(self.family, name)

    def initial(self, seed):
        return self.family.initial(seed).double()

    def batch(self, ids, seeds):
        self.walked.append(list(ids))
        return self.family.batch(ids, seeds)


def build(family, learner, exchange=None, meta=ADAM, **changes):
    plan = Plan(**({"seed": 3, "inner_steps": 3, "meta_batch": 5, "execution": "sequential"} | changes))
    return Trainer(family, learner, lambda steps: optim.sgd(0.05, momentum=0.5), meta, plan, exchange)


def end(trainer, steps=3):
    rows = [{k: v for k, v in trainer.meta_step().items() if not timed(k) and v is not None} for _ in range(steps)]
    return trainer.state(), rows, trainer


def compare(make, world, steps=3):
    """Train alone and in `world` threads; the threads' trainers."""
    state, rows, _ = end(make(None), steps)
    found = in_threads(world, lambda exchange: end(make(exchange), steps))
    for other, their_rows, trainer in found:
        assert other.keys() == state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-9, atol=1e-11)
            assert torch.equal(other[name], found[0][0][name])  # the same bits in every process
        for row, theirs in zip(rows, their_rows, strict=True):
            assert row.keys() == theirs.keys() and theirs == pytest.approx(row, rel=1e-9, abs=1e-11)
        assert trainer.exchange.sums == steps  # one sum a meta-step
    return [trainer for *_, trainer in found]


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_many_processes_find_the_numbers_of_one(family, world):
    """A meta-batch of five: shares of 2 and 3, of 1, 2 and 2, and seven processes of which two have none."""
    meta = MOMENTUM if family in ("alphabets", "image sets", "multi cv") else ADAM
    trainers = compare(lambda exchange: build(Double(FAMILIES[family]()), learners.leap(), exchange, meta), world)
    walked = [[len(ids) for ids in trainer.family.walked] for trainer in trainers]
    expected = {2: [2, 3], 3: [1, 2, 2], 7: [0, 1, 1, 0, 1, 1, 1]}[world]
    assert walked == [[size] * 3 if size else [] for size in expected]


@pytest.mark.parametrize("world", [2, 7])
def test_games_played_in_many_processes_are_those_of_one(world):
    """Environments, actions and heads come from a slot's seed, so it does not matter who plays beside whom."""
    options = {"environments": 4, "unroll": 3, "network": "small"}

    def make(exchange):
        family = tiny_games(["corridor", "catch", "seek"], ["mirror"], seed=0, **options)
        return build(Double(family), learners.leap("energy"), exchange)

    compare(make, world)


@pytest.mark.parametrize("learner", sorted(set(LEARNERS) - {"none"}))
def test_every_learner_is_shared_out(learner):
    meta = ("SGD", optim.constant, {"lr": 1.0}) if learner == "finetune" else MOMENTUM
    trainers = compare(lambda e: build(Double(small_alphabets()), LEARNERS[learner](), e, meta), 2)
    together = [[len(ids) for ids in trainer.family.walked] for trainer in trainers]
    # a joint walk cannot be shared out: the first process walks all of it
    assert [sum(sizes) for sizes in together] == ([15, 0] if learner == "finetune" else [6, 9])
    alone = learner in ("maml", "anil", "meta_sgd", "leap-exact")  # they keep graphs, of one task at a time
    assert together == ([[5] * 3, []] if learner == "finetune" else [[1] * 6, [1] * 9] if alone else [[2] * 3, [3] * 3])


@pytest.mark.parametrize("learner", ["leap", "finetune", "progressive", "hat"])
def test_walks_of_different_length_are_shared_out_and_visits_are_not(learner):
    meta = MOMENTUM if learner == "leap" else ("SGD", optim.constant, {"lr": 1.0})
    options = {"epochs": 1, "validate_every": 2, "patience": 2, "meta_patience": 5}

    def make(exchange):
        return build(Double(small_multi_cv()), getattr(learners, learner)(), exchange, meta, **options)

    first, second = compare(make, 2)
    assert first.patience.best == second.patience.best < 100
    assert bool(second.family.walked) == (learner == "leap")


def diseased(sick, value=math.nan, **changes):
    family = Diseased(count=5)
    family.sick, family.value = sick, value
    return lambda exchange: build(family, learners.reptile(), exchange, **changes)


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_tasks_are_left_out_whoever_walked_them(world, value):
    ids = diseased(())(None).draw(0)
    trainers = compare(diseased((ids[0], ids[4]), value), world, steps=2)
    assert trainers[0].step == 2


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("slots", [(1, 2, 3), (2, 3, 4), (0, 1, 2, 3, 4)])
def test_too_many_bad_tasks_stop_all_with_the_words_of_one(world, slots):
    ids = diseased(())(None).draw(0)
    make = diseased(tuple(ids[slot] for slot in slots))
    with pytest.raises(RunError, match=rf"{len(slots)} of 5 walks.*bowl {ids[slots[0]]}: loss nan") as alone:
        make(None).meta_step()

    def refused(exchange):
        trainer = make(exchange)
        before = trainer.state()
        with pytest.raises(RunError) as told:
            trainer.meta_step()
        assert trainer.step == 0 and all(torch.equal(before[k], v) for k, v in trainer.state().items())
        return str(told.value)

    assert in_threads(world, refused) == [str(alone.value)] * world


def test_processes_that_drifted_apart_are_noticed_at_once():
    def drifted(exchange):
        trainer = build(Quadratic(), learners.reptile(), exchange)
        if exchange.place.rank == 1:
            trainer.meta.meta.data[2] = torch.nextafter(trainer.meta.meta.data[2], torch.tensor(9.0).double())
        try:
            trainer.meta_step()
        except RunError as error:
            return str(error)

    told = in_threads(2, drifted)
    assert all("2 processes no longer hold the same parameters" in text for text in told)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_mark_sees_one_bit_and_adds_up_exactly(dtype):
    theta = torch.randn(50, generator=torch.Generator().manual_seed(0)).to(dtype)
    other = theta.clone()
    other[7] = torch.nextafter(other[7].float(), torch.tensor(9.0)) if dtype == torch.float32 else other[7] * 1.01
    assert 0 <= mark(theta) < MARKS and mark(theta) != mark(other)
    top = torch.tensor(MARKS - 1, dtype=torch.float32)
    assert (top * 4096).item() == 4096 * (MARKS - 1) and SUMS[-1] == "mark"


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "ASGD", "Rprop", "NAdam"])
def test_processes_can_begin_from_the_first_ones_state_at_step_0(name):
    whole, given = (build(Quadratic(), learners.reptile(), meta=(name, optim.constant, {"lr": 0.01})) for _ in "ab")
    given.restore(0, whole.state())
    for one in (whole, given):
        one.meta_step()
    assert torch.equal(whole.theta, given.theta)


# -- processes that torchrun starts ------------------------------------------------------------------------------------

FAMILY = '''
import os, signal, time
from pathlib import Path
from tasks.quadratic import Quadratic
from tasks.tiny_games import tiny_games

class Bowls(Quadratic):
    """Quadratic bowls in float64, among which one process meets its end."""

    def __init__(self, seed, device, end="", slow=0.0):
        super().__init__(count=8, seed=seed, device=device)
        self.end, self.slow, self.steps = end, slow, 0

    def batch(self, ids, seeds):
        self.steps += 1
        time.sleep(self.slow)
        last = os.environ.get("RANK") == str(int(os.environ.get("WORLD_SIZE", 1)) - 1)
        mark = Path("ended")
        if self.end and last and self.steps == 8 and not mark.exists():
            mark.touch()
            if self.end == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the dog ate it")
        return super().batch(ids, seeds)
'''
CONFIG = """
tasks: {name: custom, source: "bowls.py:Bowls", options: {end: "%s", slow: %s}}
learner: {name: leap}
inner: {name: sgd, lr: 0.05}
meta: {name: Adam, lr: 0.05}
train: {inner_steps: 4, meta_steps: 12, meta_batch: 5, checkpoint_every: 3}
tracking: none
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bowls.py").write_text(FAMILY)
    return tmp_path


def config(folder, end="", slow=0.0, name="tiny.yaml"):
    (folder / name).write_text(CONFIG % (end, slow))
    return name


def train(folder, end="", *more, out="run"):
    return ["-m", "leap", "train", config(folder, end), "--out", out, *more]


def rows(folder):
    return [{k: v for k, v in row.items() if not timed(k) and v is not None} for row in RunFolder(folder).rows()]


def alone(folder, *words):
    """The folder of the same run in this process."""
    settings = configuration.load(Settings, [config(folder, name="alone.yaml")], words)
    return lifecycle.start(settings, folder / "alone").path


def go_on_alone(folder):
    run = RunFolder.open(folder)
    lifecycle.resume(run, lifecycle.settings_of(run))


def equal_ends(one, other):
    """Both runs' initialization and metrics agree to the order of summation."""
    first, second = (safetensors.torch.load_file(path / "initialization.safetensors") for path in (one, other))
    assert first.keys() == second.keys() and first["theta"].dtype == torch.float64
    torch.testing.assert_close(first["theta"], second["theta"], rtol=1e-9, atol=1e-11)
    mine, theirs = rows(one), rows(other)
    assert [row["step"] for row in mine] == [row["step"] for row in theirs] == list(range(1, 13))
    for row, their_row in zip(mine, theirs, strict=True):
        assert row == pytest.approx(their_row, rel=1e-9, abs=1e-11)


@pytest.mark.slow
def test_the_command_trains_in_more_processes_than_there_are_tasks(here):
    few = ["--train.meta-batch", "2"]
    told = torchrun(train(here, "", *few), 3, here)
    assert told.returncode == 0, told.stderr
    equal_ends(here / "run", alone(here, *few))
    assert told.stdout.count("initialization ") == 1  # one of them speaks
    assert json.loads((here / "run" / "provenance.json").read_text())["processes"] == 3


@pytest.mark.slow
def test_a_folder_is_gone_on_with_only_where_it_holds_this_very_run(here):
    run = alone(here)
    stamp = (run / "initialization.safetensors").stat().st_mtime_ns
    again = torchrun(train(here, out="alone"), 2, here)
    assert again.returncode == 0 and "going on from its last checkpoint" in again.stderr, again.stderr
    assert (run / "initialization.safetensors").stat().st_mtime_ns == stamp  # it had finished
    other = torchrun(train(here, "", "--seed", "1", out="alone"), 2, here)
    assert other.returncode != 0 and "was started with other settings" in other.stderr


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_end_is_the_same(here):
    told = torchrun(train(here, "kill"), 2, here, restarts=1)
    assert told.returncode == 0, told.stderr
    assert (here / "ended").exists() and "going on from its last checkpoint" in told.stderr
    equal_ends(here / "run", alone(here))


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "raise"])
def test_without_restarts_a_lost_process_ends_the_job_and_leaves_a_whole_state(here, end):
    told = torchrun(train(here, end), 2, here)  # does not hang: the test's own patience is far below the exchange's
    assert told.returncode != 0 and ("the dog ate it" in told.stderr) == (end == "raise")
    run = RunFolder.open(here / "run")
    kept = run.load()
    assert kept is not None and kept.step in (6, 7) and not run.initialization.exists()
    go_on_alone(here / "run")  # one process goes on where two stood
    equal_ends(here / "run", alone(here))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_and_the_run_goes_on(here, number):
    command = torchrun_command(["-m", "leap", "train", config(here, slow=0.3), "--out", "run"], 2)
    job = subprocess.Popen(command, cwd=here, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    metrics = here / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 4):
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    job.send_signal(number)
    job.communicate(timeout=60)
    run = RunFolder.open(here / "run")
    kept = run.load()
    assert job.returncode != 0 and kept is not None and kept.step == run.rows()[-1]["step"]
    go_on_alone(here / "run")
    equal_ends(here / "run", alone(here))
