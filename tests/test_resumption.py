"""Walks that are cut short in their middle, and go on."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from families import LEARNERS, Waves, small_alphabets
from processes import ROOT, environment, in_threads
from small_multi_cv import small_multi_cv
from test_trainer import Diseased

from leap import learners, optim
from leap.cli import lifecycle, saving
from leap.cli.settings import Custom, Finetune, Hat, Leap, Meta, Reptile, Settings, Train
from leap.errors import RunError, UsageError
from leap.execution import Engine
from leap.metrics.along import along
from leap.metrics.path import path_length_until, path_measures
from leap.nested import NotKept, kinds, placed, read, written
from leap.resumption import Keeper
from leap.run import RunFolder, pack
from leap.soundness import timed
from leap.stopping import early
from leap.trainer import Plan, Trainer
from leap.walk import Fold, walk
from tasks.quadratic import Quadratic

CPU = torch.device("cpu")
ADAM = ("Adam", optim.constant, {"lr": 0.05})
ONWARDS = ("SGD", optim.constant, {"lr": 1.0})
OPTIMIZERS = {"momentum": optim.sgd(0.05, momentum=0.5), "adam": optim.adam(0.05, schedule=optim.cosine(11))}


class Killed(Exception):
    """Stands for whatever ends a process."""


class Surfaces(Waves):
    """Three tasks that say so: nothing is drawn to count them."""

    size = 3


class Watched:
    """Tasks, or a family of them, that note each batch drawn, and end what draws batch number `fatal`."""

    def __init__(self, inner: Any, drawn: list, fatal: int | None = None, end=None, about: Any = None) -> None:
        self.inner, self.drawn, self.fatal, self.end, self.about = inner, drawn, fatal, end or self._end, about

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @staticmethod
    def _end() -> None:
        raise Killed

    def batch(self, ids, seeds):
        return Watched(self.inner.batch(ids, seeds), self.drawn, self.fatal, self.end, tuple(ids))

    def sample(self, theta, step):
        if len(self.drawn) == self.fatal:
            self.end()
        self.drawn.append((self.about, step))
        return self.inner.sample(theta, step)


def keeper(path: Path, every: int = 3, purpose: str = "a test", said: list | None = None) -> Keeper:
    made = Keeper(path, every, say=(said if said is not None else []).append)
    made.open(purpose, CPU)
    return made


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit, NaN included."""
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


# -- one walk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("execution", ["batched", "sequential"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"none"}))
def test_a_walk_that_was_cut_short_goes_on_bit_for_bit(tmp_path, name, optimizer, execution):
    joint = name == "finetune"
    fatal, start = (20, 18) if joint else (8, 6)
    folds = {
        "it": LEARNERS[name](), "path": path_measures(), "until": path_length_until(-0.5),
        "norms": along(lambda theta: theta.norm(dim=1), [0, 1, 7, 11]),
    }  # fmt: skip
    given = {"steps": 11, "optimizer": OPTIMIZERS[optimizer], "folds": folds, "execution": execution}
    tasks = Surfaces()
    whole = walk(tasks, tasks.theta0, **given)
    path = tmp_path / "walk"
    with pytest.raises(Killed):
        walk(Watched(Surfaces(), [], fatal // 3 if joint else fatal), tasks.theta0, **given, keep=keeper(path))
    watched = Watched(Surfaces(), [])
    resumed = walk(watched, tasks.theta0, **given, keep=keeper(path))
    first = watched.drawn[0][1]
    assert first == (start // 3 if joint else start)  # a joint walk takes three steps a batch
    assert_same(resumed._asdict(), whole._asdict())
    kept = walk(Surfaces(), tasks.theta0, **given, keep=keeper(tmp_path / "other", every=1))
    assert_same(kept._asdict(), whole._asdict())


def test_a_walk_that_is_kept_after_its_last_step_needs_no_other(tmp_path):
    tasks, given = Surfaces(), {"steps": 6, "optimizer": OPTIMIZERS["adam"], "folds": {"it": learners.leap()}}
    whole = walk(tasks, tasks.theta0, **given, keep=keeper(tmp_path / "walk"))
    watched = Watched(Surfaces(), [])
    again = walk(watched, tasks.theta0, **given, keep=keeper(tmp_path / "walk"))
    assert_same(again._asdict(), whole._asdict())
    assert [step for _, step in watched.drawn] == [6]  # the loss at theta^K


def test_what_is_kept_does_not_grow_but_for_the_losses(tmp_path):
    def size(steps):
        tasks, path = Waves(tasks=1), tmp_path / str(steps)
        walk(tasks, tasks.theta0, steps=steps, optimizer=OPTIMIZERS["adam"], folds={"it": learners.leap()},
             keep=keeper(path, every=steps))  # fmt: skip
        return path.stat().st_size

    assert abs(size(400) - size(200) - 200 * 2 * 8) < 16  # the loss and what it recorded, in float64


class Drawing(Surfaces):
    """Surfaces whose slope is drawn from a generator that runs on: what was drawn comes again if asked for at once."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.last, self.drawn = torch.Generator().manual_seed(5), -1, torch.zeros(3, 6).double()

    def sample(self, theta, step):
        assert step in (self.last, self.last + 1), f"step {step} after {self.last}"
        if step != self.last:
            self.drawn, self.last = torch.randn(3, 6, generator=self.generator, dtype=torch.float64) + theta, step
        return super().sample(theta, 0) | {"slope": self.drawn}

    def keep(self):
        return {"generator": self.generator.get_state(), "drawn": self.drawn, "last": torch.tensor(self.last)}

    def take_up(self, kept):
        self.generator.set_state(kept["generator"])
        self.drawn, self.last = kept["drawn"], int(kept["last"])


@pytest.mark.parametrize("name", ["leap", "reptile", "finetune"])
@pytest.mark.parametrize("precision", ["highest", "bf16"])  # which wraps the tasks
def test_tasks_with_a_state_of_their_own_go_on_from_it(tmp_path, name, precision):
    given = {"steps": 9, "optimizer": OPTIMIZERS["momentum"], "folds": {"it": LEARNERS[name]()}}
    engine, theta = Engine(precision), Surfaces().theta0
    whole = engine(Drawing(), theta, **given)
    with pytest.raises(Killed):
        engine(Watched(Drawing(), [], 7), theta, **given, keep=keeper(tmp_path / "walk", every=4))
    watched = Watched(Drawing(), [])
    resumed = engine(watched, theta, **given, keep=keeper(tmp_path / "walk", every=4))
    assert_same(resumed._asdict(), whole._asdict())
    assert watched.drawn[0][1] == (6 if name == "finetune" else 4)  # 20 joint steps are 6 batches of 3 and 2 more


@pytest.mark.parametrize("fatal", [1, 3, 4, 5, 8, 9])
def test_a_walk_that_may_stop_early_remembers_its_patience(tmp_path, fatal):
    errors = [5.0, 4.0, 3.0, 3.5, 3.2, 2.9, 3.0, 3.0, 3.0]  # after steps 1, 2, ...: patience ends at step 9

    def rule(asked):
        def error(theta):
            asked.append(theta)
            return theta.new_tensor([errors[int(theta.sum().round())]])

        return early(error, every=1, limit=3)

    class Count:  # theta counts the steps
        size = 1

        def sample(self, theta, step):
            return None

        def loss(self, theta, batch):
            return -theta.sum(), {}

    given = {"steps": 50, "optimizer": optim.sgd(1.0), "folds": {"it": learners.leap()}}
    start, asked = -torch.ones(1), []
    whole = walk(Count(), start, **given, stop=rule(asked))
    assert whole.losses.shape == (1, 9)
    with pytest.raises(Killed):
        walk(Watched(Count(), [], fatal), start, **given, stop=rule([]), keep=keeper(tmp_path / "walk", every=2))
    asked.clear()
    resumed = walk(Count(), start, **given, stop=rule(asked), keep=keeper(tmp_path / "walk", every=2))
    assert_same(resumed._asdict(), whole._asdict())
    assert len(asked) == 9 - fatal // 2 * 2


def test_what_cannot_be_kept_is_refused(tmp_path):
    tasks = Waves(tasks=1)
    given = {"steps": 4, "optimizer": OPTIMIZERS["adam"], "keep": keeper(tmp_path / "walk", every=1)}
    for execution in ("captured", "compiled"):
        with pytest.raises(ValueError, match="recorded and compiled steps cannot be kept; walk batched or sequential"):
            walk(tasks, tasks.theta0, **given, execution=execution)
    with pytest.raises(ValueError, match=r"`stop` must have keep\(\) and take_up\(\)"):
        walk(tasks, tasks.theta0, **given, stop=lambda theta, step: False)

    class Late(NamedTuple):
        value: int

    for state, what in ((object(), "a object"), (Late(3), "a Late that it does not hold at the start")):
        fold = Fold(lambda theta: None, lambda old, step, new=state: new, lambda state, end: end.theta)
        with pytest.raises(UsageError, match=rf"cannot be kept.*holds {what}"):
            walk(tasks, tasks.theta0, **given, folds={"odd": fold})
    with pytest.raises(ValueError, match="every 0"):
        Keeper(tmp_path / "walk", 0)


# -- meta-steps --------------------------------------------------------------------------------------------------------


def lengths() -> Any:
    """Three sets whose epochs have 5, 9 and 12 steps."""
    return small_multi_cv(4, batch_size=4)


FAMILIES = {
    "multi cv": (lengths, {"epochs": 1.5}),
    "multi cv stopping": (lengths, {"epochs": 1.5, "validate_every": 2, "patience": 2, "meta_patience": 3}),
    "alphabets": (small_alphabets, {}),
    "quadratic": (Quadratic, {}),
}


def trainer(family, learner, path: Path | None = None, said: list | None = None, every=3, **changes) -> Trainer:
    plan = Plan(**({"seed": 2, "inner_steps": 7, "meta_batch": 4, "execution": "sequential"} | changes))
    made = Trainer(family, learner, lambda k: optim.sgd(0.05, momentum=0.5), ONWARDS if learner.view else ADAM, plan)
    if path is not None:
        made.keeper = Keeper(path, every, say=(said if said is not None else []).append)
    return made


def meta_step(one: Trainer) -> dict[str, float]:
    return {name: value for name, value in one.meta_step().items() if not name.startswith("time/")}


@pytest.mark.parametrize(
    ("family", "learner"),
    [
        *((family, learner) for family in FAMILIES for learner in ("leap-energy", "finetune")),
        ("multi cv", "reptile"),
        ("quadratic", "maml"),
    ],
)
def test_a_meta_step_goes_on_where_it_was_cut_short(tmp_path, family, learner):
    make, changes = FAMILIES[family]
    drawn: list = []
    whole = trainer(Watched(make(), drawn), LEARNERS[learner](), **changes)
    rows = [meta_step(whole) for _ in range(2)]
    half = len(drawn) // 2
    for fatal in (half // 3, half + 3):
        path = tmp_path / f"{fatal}"
        broken = trainer(Watched(make(), [], fatal), LEARNERS[learner](), path, **changes)
        with pytest.raises(Killed):
            for _ in range(2):
                meta_step(broken)
        again: list = []
        resumed = trainer(Watched(make(), again), LEARNERS[learner](), path, **changes)
        resumed.restore(broken.step, broken.state())
        assert [meta_step(resumed) for _ in range(broken.step, 2)] == rows[broken.step :]
        assert all(torch.equal(t, whole.state()[name]) for name, t in resumed.state().items())
        if learner != "maml":  # whose way back draws again the steps whose graphs went with the process
            assert again == drawn[len(drawn) - len(again) :]
            # at most three steps, and a batch that finetuning was in the middle of
            assert len(again) <= len(drawn) - fatal + 4


def test_finished_pieces_are_not_walked_again(tmp_path):
    drawn: list = []
    whole = trainer(Watched(lengths(), drawn), learners.leap(), meta_batch=3, epochs=2)
    row = meta_step(whole)
    pieces = list(dict.fromkeys(ids for ids, _ in drawn))
    assert len(pieces) == 3 and len(set(map(len, pieces))) == 1
    second = [ids for ids, _ in drawn].index(pieces[1])
    for fatal in (second, second + 1, second + 5, len(drawn)):  # the last: killed when all is walked
        path = tmp_path / f"{fatal}"
        broken = trainer(Watched(lengths(), [], fatal), learners.leap(), path, every=100, meta_batch=3, epochs=2)
        if fatal == len(drawn):
            broken.exchange.sum = lambda tensor: Watched._end()
        with pytest.raises(Killed):
            meta_step(broken)
        again: list = []
        resumed = trainer(Watched(lengths(), again), learners.leap(), path, every=100, meta_batch=3, epochs=2)
        assert meta_step(resumed) == row
        assert again == ([] if fatal == len(drawn) else drawn[second:])
        assert torch.equal(resumed.theta, whole.theta)


class Sick(Diseased):
    """Tasks of different length, the first of which meets a bad number."""

    def epoch(self, task: int) -> int:
        return 4 + task


def test_a_bad_task_of_a_finished_piece_is_counted_and_named(tmp_path):
    def build(path, fatal=None, most_bad=0.5):
        family = Sick(count=4)
        family.sick = tuple(trainer(family, learners.reptile()).draw(0)[:1])
        return trainer(Watched(family, [], fatal), learners.reptile(), path, epochs=1, most_bad=most_bad)

    row = meta_step(build(None))
    assert row["meta/bad_tasks"] == 1
    with pytest.raises(RunError) as whole:
        meta_step(build(None, most_bad=0.1))
    for most_bad in (0.5, 0.1):
        path = tmp_path / f"{most_bad}"
        with pytest.raises(Killed):
            meta_step(build(path, 16))
        if most_bad == 0.5:
            assert meta_step(build(path)) == row
            continue
        with pytest.raises(RunError) as resumed:
            meta_step(build(path, most_bad=most_bad))
        assert str(resumed.value) == str(whole.value) and "loss nan at inner step 2" in str(whole.value)


def cut_short(path: Path, **changes) -> None:
    with pytest.raises(Killed):
        meta_step(trainer(Watched(Quadratic(), [], 5), learners.leap(), path, **changes))


@pytest.mark.parametrize("damage", ["cut", "flipped", "nonsense", "empty", "other tensors", "other document"])
def test_a_damaged_file_is_passed_over_with_a_message(tmp_path, damage):
    path, said, drawn = tmp_path / "walk", [], []
    cut_short(path)
    data = path.read_bytes()
    middle = len(data) - 40
    path.write_bytes(
        {
            "cut": data[:-9],
            "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "nonsense": b"nonsense",
            "empty": b"",
            "other tensors": pack({"theta": torch.ones(2)}, {}),
            "other document": pack({"document": torch.tensor(list(b"[1, 2]"), dtype=torch.uint8)}, {}),
        }[damage]
    )
    resumed = trainer(Watched(Quadratic(), drawn), learners.leap(), path, said)
    assert meta_step(resumed) == meta_step(trainer(Quadratic(), learners.leap()))
    assert len(said) == 1 and said[0].endswith("the meta-step begins anew") and drawn[0][1] == 0


@pytest.mark.parametrize("change", [{"inner_steps": 8}, {"seed": 3}, {"meta_batch": 3}, {"execution": "batched"}])
def test_what_another_plan_kept_is_passed_over_with_a_message(tmp_path, change):
    path, said, drawn = tmp_path / "walk", [], []
    cut_short(path)
    meta_step(trainer(Watched(Quadratic(), drawn), learners.leap(), path, said, **change))
    assert "another meta-step, or from another initialization or plan" in said[0] and drawn[0][1] == 0


def test_what_was_kept_from_other_meta_parameters_is_passed_over(tmp_path):
    path, said, drawn = tmp_path / "walk", [], []
    cut_short(path)
    other = trainer(Watched(Quadratic(), drawn), learners.leap(), path, said)
    with torch.no_grad():
        other.meta.meta[1] = torch.nextafter(other.meta.meta[1], torch.tensor(9.0).double())
    meta_step(other)
    assert "another initialization" in said[0] and drawn[0][1] == 0


def test_a_walk_with_other_folds_begins_anew_and_says_so(tmp_path):
    tasks, said, path = Surfaces(), [], tmp_path / "walk"
    given = {"steps": 9, "optimizer": OPTIMIZERS["adam"]}
    with pytest.raises(Killed):
        walk(Watched(tasks, [], 7), tasks.theta0, **given, folds={"it": learners.leap()}, keep=keeper(path))
    for change in ({"folds": {"other": learners.leap()}}, {"folds": {"it": learners.leap()}, "steps": 8}):
        watched = Watched(tasks, [])
        walk(watched, tasks.theta0, **(given | change), keep=keeper(path, every=100, said=said))
        assert "this walk begins anew" in said.pop() and watched.drawn[0][1] == 0


def test_turns_of_visitors_are_refused(tmp_path):
    with pytest.raises(UsageError, match="hat and progressive are not kept"):
        meta_step(trainer(small_multi_cv(), learners.hat(), tmp_path / "walk"))


# -- many processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [None, 0, 1])
def test_processes_go_on_together_or_begin_anew_together(tmp_path, lost):
    """Two processes, cut short at different steps; the file of one may be lost."""

    def begin(exchange, fatal, drawn, said):
        one = trainer(Watched(Quadratic(), drawn, fatal), learners.leap(), tmp_path / f"{exchange.place.rank}", said)
        one.exchange = exchange
        return one

    def killed(exchange):
        with pytest.raises(Killed):
            meta_step(begin(exchange, 4 + 3 * exchange.place.rank - 1, [], []))

    def resumed(exchange):
        drawn, said = [], []
        one = begin(exchange, None, drawn, said)
        return meta_step(one), drawn[0][1], said, one.state()

    in_threads(2, killed)
    if lost is not None:
        (tmp_path / f"{lost}").unlink()
    whole = in_threads(2, lambda exchange: (lambda one: (setattr(one, "exchange", exchange), meta_step(one)))(
        trainer(Quadratic(), learners.leap())))  # fmt: skip
    found = in_threads(2, resumed)
    assert [row for row, *_ in found] == [row for _, row in whole]
    assert [first for _, first, *_ in found] == ([3, 6] if lost is None else [0, 0])
    told = ["another process kept nothing of this meta-step, which begins anew"]
    assert [said for *_, said, _ in found] == [told if lost == 1 - rank else [] for rank in range(2)]


# -- runs --------------------------------------------------------------------------------------------------------------


def watched_family(seed: int, device: str, log: str, fatal: int | None, kind: str) -> Watched:
    """For `tasks.source`: writes each batch into a file, and kills the process, once, for real."""

    class Log(list):
        def append(self, item):
            super().append(item)
            with open(log, "a") as file:
                file.write(f"{item}\n")

    def end():
        killed = Path(f"{log}.killed")
        if not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    family = small_multi_cv(4, seed=seed) if kind == "multi cv" else Quadratic(seed=seed, dtype=torch.float32)
    return Watched(family, Log(), fatal, end)


def settings(tmp_path: Path, name: str, kind: str = "quadratic", learner: Any = None, **train: Any) -> Settings:
    options = {"log": str(tmp_path / f"{name}.log"), "fatal": None, "kind": kind}
    tasks = Custom(source=f"{__file__}:watched_family", options=options)
    given = {"inner_steps": 9, "meta_steps": 3, "meta_batch": 3, "execution": "sequential", "threads": 1}
    found = Settings(tasks=tasks, learner=learner or Leap(metric="energy"), train=Train(**(given | train)))
    return dataclasses.replace(found, tracking="none")


def drawn_in(tmp_path: Path, name: str) -> list[str]:
    return (tmp_path / f"{name}.log").read_text().splitlines()


@pytest.mark.parametrize(
    ("kind", "learner", "train"),
    [
        ("multi cv", Leap(metric="energy"), {"inner_epochs": 2.0}),
        ("multi cv", Reptile(), {"inner_epochs": 2.0}),
        ("quadratic", Finetune(), {}),
    ],
)
def test_a_run_that_is_killed_in_the_middle_of_a_walk_goes_on_there(tmp_path, kind, learner, train):
    """kill -9, for real."""
    meta = Meta("SGD", 1.0) if isinstance(learner, Finetune) else Meta("Adam", 0.01)
    given = dataclasses.replace(settings(tmp_path, "whole", kind, learner, **train), meta=meta)
    whole = lifecycle.start(given, tmp_path / "whole")
    drawn = drawn_in(tmp_path, "whole")
    fatal = len(drawn) * 4 // 9  # in the second of three meta-steps
    killed = dataclasses.replace(settings(tmp_path, "killed", kind, learner, keep_every=2, **train), meta=meta)
    options = {**killed.tasks.options, "fatal": fatal}
    killed = dataclasses.replace(killed, tasks=dataclasses.replace(killed.tasks, options=options))
    body = (
        "import sys\nfrom pathlib import Path\nfrom leap.cli import lifecycle, configuration\n"
        "from leap.cli.settings import Settings\n"
        "lifecycle.start(configuration.load(Settings, [sys.argv[1]]), Path(sys.argv[2]))\n"
    )
    from leap.cli import configuration

    (tmp_path / "killed.yaml").write_text(configuration.to_yaml(killed))
    command = [sys.executable, "-c", body, str(tmp_path / "killed.yaml"), str(tmp_path / "killed")]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), timeout=120)
    assert ended.returncode == -signal.SIGKILL
    run = RunFolder.open(tmp_path / "killed")
    assert len(run.rows()) == 1 and run.kept_walk(0).exists() and len(drawn_in(tmp_path, "killed")) == fatal
    lifecycle.resume(run, lifecycle.settings_of(run))
    assert run.initialization.read_bytes() == whole.initialization.read_bytes()
    untimed = [[{k: v for k, v in row.items() if not timed(k)} for row in one.rows()] for one in (run, whole)]
    assert untimed[0] == untimed[1]
    again = drawn_in(tmp_path, "killed")[fatal:]
    assert again == drawn[len(drawn) - len(again) :] and len(again) <= len(drawn) - fatal + 3
    names = {path.name for path in run.kept_walk(0).parent.iterdir()}
    assert names == {"step-00000002.safetensors", "step-00000003.safetensors"}


def test_sigterm_keeps_the_walk_at_its_next_step(tmp_path, monkeypatch):
    whole = lifecycle.start(settings(tmp_path, "whole"), tmp_path / "whole")
    drawn = drawn_in(tmp_path, "whole")

    def terminated_at(step):
        sample, count = Watched.sample, [0]

        def sampled(self, theta, i):
            found = sample(self, theta, i)
            count[0] += 1
            if count[0] == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return found

        return sampled

    for number, step in enumerate((4, 9, 10, 15, 20, len(drawn))):  # 10: the loss at theta^K, after which all is walked
        name = f"ended-{number}"
        given = settings(tmp_path, name, keep_every=1000)
        with monkeypatch.context() as patched:
            patched.setattr(Watched, "sample", terminated_at(step))
            patched.setattr(lifecycle.build, "_custom", lambda tasks, seed, on: watched_family(
                seed, on, tasks.options["log"], None, "quadratic"))  # fmt: skip
            with pytest.raises(saving.Stopped):
                lifecycle.start(given, tmp_path / name)
        run = RunFolder.open(tmp_path / name)
        assert run.kept_walk(0).exists() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        lifecycle.resume(run, lifecycle.settings_of(run))
        assert run.initialization.read_bytes() == whole.initialization.read_bytes()
        again = drawn_in(tmp_path, name)[step:]
        assert again == drawn[step:] and not run.kept_walk(0).exists()


def test_nothing_is_kept_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr(Keeper, "__init__", None)
    run = lifecycle.start(settings(tmp_path, "plain", checkpoint_every=1), tmp_path / "plain")
    assert run.initialization.exists()


def test_every_meta_step_is_saved_where_walks_are_kept(tmp_path):
    saved = []

    def progress(step, metrics):
        saved.append(RunFolder.open(tmp_path / "run").load().step)

    lifecycle.start(settings(tmp_path, "run", keep_every=5, checkpoint_every=10), tmp_path / "run", progress)
    assert saved == [1, 2, 3]


def test_how_often_walks_are_kept_may_change_when_a_run_goes_on(tmp_path):
    run = lifecycle.start(settings(tmp_path, "run"), tmp_path / "run")
    own = lifecycle.settings_of(run)
    asked = dataclasses.replace(own, train=dataclasses.replace(own.train, keep_every=7, checkpoint_every=2))
    assert lifecycle.reconcile(run, asked) == asked


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"learner": Hat(), "meta": Meta("SGD", 1.0)}, "hat visits tasks in turns, which are not kept"),
        ({"train": Train(keep_every=5, execution="captured")}, "steps that are captured are not kept"),
        ({"train": Train(keep_every=5, execution="compiled")}, "steps that are compiled are not kept"),
    ],
)
def test_settings_that_cannot_be_kept_are_problems(change, problem):
    given = dataclasses.replace(Settings(train=Train(keep_every=5)), **change)
    assert any(text.startswith("train.keep_every") and problem in text for text in given.problems())
    assert not any("keep_every" in text for text in Settings(train=Train(keep_every=5)).problems())


# -- nested states -----------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    one: Any
    other: Any


def test_nested_states_come_back_as_they_were():
    shared = torch.randn(3, 4)[:, :2]
    state = {
        "tensors": Pair(shared, (shared, torch.tensor(3), torch.zeros(0), torch.tensor([True]), shared.bfloat16())),
        "plain": [1, 1.5, float("inf"), True, None, "text", ()],
        "by number": {3: {"deep": Pair(1, None)}, -1: []},
    }  # fmt: skip
    tensors: dict[str, torch.Tensor] = {}
    node = written(state, kinds(state), tensors)
    back = read(node, kinds(state), placed(tensors, CPU))
    assert_same(back["tensors"].other[1:], state["tensors"].other[1:])
    assert torch.equal(back["tensors"].one, shared) and back["tensors"].one is back["tensors"].other[0]
    assert back["plain"] == state["plain"] and back["by number"] == state["by number"]
    assert isinstance(back["by number"][3]["deep"], Pair) and type(back["plain"][3]) is bool
    for bad in ({1, 2}, {1.5: 2}, partial(print), Path("x"), {"deep": [object()]}):
        with pytest.raises(NotKept):
            written(bad, {}, {})
    with pytest.raises(KeyError):
        read(node, {}, placed(tensors, CPU))  # no file can name what is not known here
