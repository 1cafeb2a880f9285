"""Which execution a run takes and why, and in which precision it computes."""

import functools
import json

import pytest
import torch
from families import FAMILIES, Waves

from leap import learners, optim
from leap.cli import build, settings
from leap.errors import UsageError
from leap.execution import ROUNDS, STEPS, Cost, Engine, cache_file, candidates, choose
from leap.precision import PRECISIONS, Halved, effect, float32, precise
from leap.walk import walk


class Machine:
    """A clock that runs as walks are attempted: seconds once for each engine, and seconds a step."""

    def __init__(self, **costs):
        self.costs, self.now, self.attempts = costs, 0.0, []

    def __call__(self, engine, execution, steps):
        cost = self.costs[execution]
        if isinstance(cost, Exception):
            raise cost
        fresh = not engine.about
        engine.about["started"] = True
        self.attempts.append(execution)
        self.now += cost[1] * steps + (cost[0] if fresh else 0)

    def choose(self, names, steps, cache=None):
        return choose(self, names, steps, cache=cache, clock=lambda: self.now)


def test_the_quickest_is_chosen_start_up_counted_in():
    machine = Machine(batched=(0.0, 1.0), captured=(50.0, 0.5))
    assert machine.choose(("batched", "captured"), 10**6).execution == "captured"
    found = machine.choose(("batched", "captured"), 10**6)
    assert found.costs == {"batched": Cost(0.0, 1.0), "captured": Cost(pytest.approx(50.0), 0.5)}
    assert "captured 500 ms a step, 50 s to start; batched 1e+03 ms" in found.reason
    slow_start = Machine(batched=(0.0, 1.0), captured=(600.0, 0.5))
    assert slow_start.choose(("batched", "captured"), 1000).execution == "batched"  # 1000 s against 1100 s
    assert slow_start.choose(("batched", "captured"), 1400).execution == "captured"  # 1400 s against 1300 s


def test_candidates_take_turns():
    machine = Machine(batched=(0.0, 1.0), captured=(1.0, 1.0), sequential=(0.0, 9.0))
    machine.choose(("batched", "captured", "sequential"), 10**6)
    assert machine.attempts == ["batched"] * (1 + ROUNDS) + ["captured", "sequential"] * (1 + ROUNDS)


def test_what_could_not_be_repaid_is_not_tried():
    machine = Machine(batched=(0.0, 0.01), compiled=(30.0, 0.001))
    short = machine.choose(("batched", "compiled"), 10_000)  # 100 s in all
    assert short.execution == "batched" and "compiled" not in machine.attempts
    assert machine.choose(("batched", "compiled"), 1_000_000).execution == "compiled"
    machine.attempts.clear()
    brief = machine.choose(("batched", "compiled"), 50)
    assert brief.execution == "batched" and machine.attempts == [] and "50 inner steps" in brief.reason


def test_a_candidate_that_fails_is_left_out():
    machine = Machine(batched=RuntimeError("out of memory\nat length"), sequential=(0.0, 1.0))
    found = machine.choose(("batched", "sequential"), 1000)
    assert found.execution == "sequential" and found.reason.endswith("; batched failed: out of memory")
    nothing = Machine(batched=RuntimeError("a"), sequential=RuntimeError("b")).choose(("batched", "sequential"), 1000)
    assert nothing.execution == "batched" and "sequential failed: b" in nothing.reason


def test_measurements_are_kept_and_used_again(tmp_path):
    kept = tmp_path / "deep" / "kept.json"
    machine = Machine(batched=(0.0, 1.0), captured=(50.0, 0.5))
    first = machine.choose(("batched", "captured"), 10**6, kept)
    machine.attempts.clear()
    again = machine.choose(("batched", "captured"), 10**6, kept)
    assert machine.attempts == [] and again.execution == first.execution
    assert again.costs == first.costs and "measured earlier" in again.reason
    assert machine.choose(("batched", "captured"), 200, kept).execution == "captured"  # 150 s against 200 s
    assert [path.name for path in kept.parent.iterdir()] == ["kept.json"]


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "null", '{"seconds": 3}', '{"seconds": {"batched": 1}}', '{"seconds": {"batched": ["a", 1]}}',
     '{"seconds": {"batched": [0, -1]}}', '{"seconds": {"magic": [0, 0.1]}}', '{"seconds": {"batched": [0, NaN]}}'],
)  # fmt: skip
def test_damaged_measurements_are_taken_again(tmp_path, damage):
    kept = tmp_path / "kept.json"
    kept.write_text(damage)
    machine = Machine(batched=(0.0, 1.0), captured=(1.0, 0.5))
    assert machine.choose(("batched", "captured"), 10**6, kept).execution == "captured"
    assert "batched" in machine.attempts
    assert set(json.loads(kept.read_text())["seconds"]) >= {"batched", "captured"}


def test_a_folder_that_cannot_be_written_to_does_not_stop_a_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    machine = Machine(batched=(0.0, 1.0), captured=(1.0, 0.5))
    assert machine.choose(("batched", "captured"), 10**6, tmp_path / "file" / "kept.json").execution == "captured"
    assert "not kept" in caplog.text


def test_a_kept_measurement_belongs_to_its_kind_of_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    about = {"device": "cpu", "model": "a"}
    assert cache_file(about) == cache_file(dict(about)) != cache_file(about | {"model": "b"})
    assert cache_file(about).is_relative_to(tmp_path)


def test_real_walks_can_be_attempted():
    def attempt(engine, execution, steps):
        tasks = Waves()
        folds = {"it": learners.leap()}
        engine(tasks, tasks.theta0, steps=steps, optimizer=optim.adam(0.05), folds=folds, execution=execution)

    found = choose(attempt, ("batched", "captured", "sequential"), 10**9)
    assert set(found.costs) == {"batched", "captured", "sequential"}
    assert all(cost.step > 0 for cost in found.costs.values()) and STEPS > 2


def small(**train):
    return settings.Settings(tasks=settings.Sinusoid(count=6), train=settings.Train(5, 3, 4, **train))


def test_a_cpu_is_sequential_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert candidates("cpu") == ("sequential",)
    one = build.trainer(small(), build.family(small(), "cpu"), "cpu")
    assert one.plan.execution == "sequential" and list(tmp_path.iterdir()) == []
    assert one.plan.walk.about["precision"] == "highest"


@pytest.mark.parametrize("execution", ["batched", "sequential", "captured"])
def test_what_is_set_by_hand_is_done(execution):
    wanted = small(execution=execution)
    one = build.trainer(wanted, build.family(wanted, "cpu"), "cpu")
    assert one.plan.execution == execution and one.plan.walk.about["reason"] == "set by hand"
    for _ in range(3):
        one.meta_step()
    assert one.plan.walk.prepared.notes == []
    assert len(one.plan.walk.prepared._made) == (execution == "captured")  # one recording for the whole run
    plain = build.trainer(small(execution="batched"), build.family(small(), "cpu"), "cpu")
    for _ in range(3):
        plain.meta_step()
    torch.testing.assert_close(one.meta_parameters, plain.meta_parameters, rtol=1e-4, atol=1e-6)


def test_walks_that_stand_alone_prepare_nothing():
    assert [build.execution(name, "cpu") for name in ("auto", "captured", "compiled", "sequential")] == [
        "sequential", "batched", "batched", "sequential",
    ]  # fmt: skip
    assert build.execution("auto", "cuda:0") == "batched"


def test_a_gpu_would_be_measured_once_and_by_the_first_process(tmp_path, monkeypatch):
    """The choice of a GPU, made on a CPU: what is measured is told to the other processes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "candidates", lambda device: ("batched", "captured"))
    wanted = settings.Settings(tasks=settings.Sinusoid(count=6), train=settings.Train(5, 10**6, 4))
    told = []

    class First(build.distributed.Alone):
        def tell(self, thing):
            told.append(thing)
            return thing

    one = build.trainer(wanted, build.family(wanted, "cpu"), "cpu", First())
    assert set(told[0].costs) == {"batched", "captured"} and one.plan.execution == told[0].execution
    assert "measured for" in one.plan.walk.about["reason"]
    again = build.trainer(wanted, build.family(wanted, "cpu"), "cpu")
    assert "measured earlier" in again.plan.walk.about["reason"] and again.plan.execution == one.plan.execution

    class Second(build.distributed.Alone):
        place = build.distributed.Place(1, 2)

        def tell(self, thing):
            return told[0]

    monkeypatch.setattr(build, "choose", None)  # it measures nothing
    assert build.trainer(wanted, build.family(wanted, "cpu"), "cpu", Second()).plan.execution == told[0].execution


def walks(family, execution="batched", steps=1):
    def walked(precision):
        tasks = family.batch(list(family.ids("train"))[:2], [1, 2])
        options = {"steps": steps, "optimizer": optim.sgd(0.01), "folds": {"it": learners.leap()}}
        return Engine(precision)(tasks, family.initial(0), execution=execution, **options)

    return walked


@pytest.mark.parametrize("execution", ["batched", "sequential", "captured"])
def test_bfloat16_changes_a_meta_gradient_and_says_how_much(execution):
    found = effect(walks(FAMILIES["image sets"](), execution), "bf16", "it")
    assert 1e-5 < found < 0.3
    assert effect(walks(FAMILIES["image sets"](), execution), "highest", "it") == 0


@pytest.mark.parametrize("execution", ["batched", "sequential"])
def test_convolutions_and_products_alone_are_taken_in_bfloat16(execution):
    """Each operand rounded to 8 bits: what the same convolution does to numbers that are rounded beforehand."""
    images = torch.randn(2, 1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, 2 * 3 * 9 + 32 * 4, generator=torch.Generator().manual_seed(1))
    seen = []

    class Net:
        def sample(self, theta, step):
            return images

        def loss(self, theta, batch):
            maps = torch.nn.functional.conv2d(batch, theta[:54].unflatten(0, (2, 3, 3, 3)))
            out = maps.flatten(1).exp() @ theta[54:].unflatten(0, (32, 4))
            seen.extend([maps.dtype, out.dtype])
            return out.sum(), {"first": maps[0, 0, 0, 0]}

    walked = walk(precise(Net(), "bf16"), weights, steps=1, optimizer=optim.sgd(0.0), execution=execution)
    for t in range(2):
        kernel = weights[t, :54].unflatten(0, (2, 3, 3, 3)).bfloat16().double()
        expected = (images[t, 0, :, :3, :3].bfloat16().double() * kernel[0]).sum()
        assert walked.aux["first"][t, 0].item() == pytest.approx(expected.bfloat16().item(), rel=1e-2)
        assert walked.aux["first"][t, 0] == walked.aux["first"][t, 0].bfloat16()
    assert walked.theta.dtype == walked.losses.dtype == torch.float32
    assert set(seen) == {torch.float32, torch.bfloat16}


def test_double_precision_is_left_alone():
    tasks = Waves()
    go = functools.partial(walk, theta0=tasks.theta0, steps=3, optimizer=optim.sgd(0.1))
    assert torch.equal(go(precise(tasks, "bf16")).theta, go(tasks).theta)
    assert Halved(tasks).layout is tasks.layout and not hasattr(Halved(tasks), "size")
    assert precise(tasks, "tf32") is tasks


@pytest.mark.parametrize("precision", PRECISIONS)
def test_how_a_gpu_multiplies_is_set_for_the_walk_alone(precision):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with float32(precision):
        assert matmul.allow_tf32 == cudnn.allow_tf32 == (precision == "tf32")
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before == (False, True)  # torch's own choice
    with pytest.raises(ValueError, match="'half'"), float32("half"):
        pass


def test_the_effect_of_a_precision_is_told():
    wanted = small(precision="bf16")
    one = build.trainer(wanted, build.family(wanted, "cpu"), "cpu")
    assert 0 < one.plan.walk.about["meta_gradient_differs_by"] < 1
    assert "meta_gradient_differs_by" not in build.trainer(small(), build.family(small(), "cpu"), "cpu").plan.walk.about


def test_an_effect_on_nothing_is_none_or_without_bound():
    from leap.walk import Walk

    def found(precision):
        return Walk(None, None, {"it": torch.tensor([[float(precision == "bf16")]])}, {})

    assert effect(found, "tf32", "it") == 0 and effect(found, "bf16", "it") == float("inf")


def test_another_engine_computes_in_full_precision(monkeypatch):
    monkeypatch.setattr(build, "engine", lambda choice: lambda *arguments, **options: None)
    with pytest.raises(UsageError, match="got bf16"):
        build.trainer(small(precision="bf16"), build.family(small(), "cpu"), "cpu")
    assert not isinstance(build.trainer(small(), build.family(small(), "cpu"), "cpu").plan.walk, Engine)
