"""Recorded and compiled steps against the plain ones, and what cannot be recorded."""

import functools

import pytest
import torch
from families import FAMILIES, LEARNERS, Waves
from torch.utils._python_dispatch import TorchDispatchMode

from leap import learners, optim, recording
from leap.capture import Prepared, compiled_gradient
from leap.execution import has_compiler
from leap.metrics.path import path_length, path_measures
from leap.rehearsal import leaves
from leap.walk import Fold, walk

K = 7
OPTIMIZERS = {
    "sgd": optim.sgd(0.05),
    "momentum": optim.sgd(0.03, momentum=0.8, weight_decay=0.1, nesterov=True),
    "adam": optim.adam(0.05, weight_decay=0.01, schedule=optim.cosine(K)),
    "adamw": optim.adam(0.05, weight_decay=0.01, decoupled=True),
    "rmsprop": optim.rmsprop(0.02, momentum=0.5),
    "cosine": optim.sgd(0.08, schedule=optim.cosine(K)),
}


class Tape(TorchDispatchMode):
    """What a CUDA graph does, on a CPU: operations and the tensors they ran on, run again without the Python above."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found

    def replay(self):
        for func, args, kwargs, found in self.calls:
            for static, fresh in zip(leaves(found), leaves(func(*args, **kwargs)), strict=True):
                if static.data_ptr() != fresh.data_ptr():
                    static.copy_(fresh)


def taped(body, device):
    for _ in range(recording.WARM_UP):
        body()
    tape = Tape()
    with tape:
        body()
    return tape.replay


@pytest.fixture(params=["called again", "taped"])
def recorder(request, monkeypatch):
    """A replay calls the function anew, or runs the operations on the tensors that it met when it was recorded."""
    if request.param == "taped":
        monkeypatch.setattr(recording, "recorded", taped)
    return request.param


def same(one, other, rtol=1e-9, atol=1e-11):
    for name in one.results:
        torch.testing.assert_close(one.results[name], other.results[name], rtol=rtol, atol=atol)
    torch.testing.assert_close(one.theta, other.theta, rtol=rtol, atol=atol)
    torch.testing.assert_close(one.losses, other.losses, rtol=rtol, atol=atol)
    torch.testing.assert_close(one.aux, other.aux, rtol=rtol, atol=atol)


PAIRS = [(learner, "adam") for learner in LEARNERS] + [("leap", rule) for rule in OPTIMIZERS if rule != "adam"]


@pytest.mark.parametrize(("learner", "optimizer"), PAIRS)
def test_captured_walks_are_the_walks(learner, optimizer, recorder):
    """From several starts, one after another: what is recorded in the first walk serves the others."""
    prepared = Prepared()
    for number in range(2):
        tasks = Waves()
        go = functools.partial(
            walk, tasks, tasks.theta0 * (1 - 0.2 * number), steps=K, optimizer=OPTIMIZERS[optimizer],
            folds={"it": LEARNERS[learner](), "length": path_length()},
        )  # fmt: skip
        captured = go(execution="captured", prepared=prepared)
        same(captured, go(execution="batched"))
        same(captured, go(execution="sequential"))
    assert len(prepared._made) == 1
    assert [note for note in prepared.notes if "is not captured" not in note] == []
    assert bool(prepared.notes) == (learner == "leap-exact")  # it keeps a vector more at every step


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("learner", ["leap", "maml", "meta_sgd", "finetune"])
def test_captured_walks_of_families_are_the_walks(family, learner, recorder):
    family, prepared = FAMILIES[family](), Prepared()
    ids = list(family.ids("train"))[:3]
    for number in range(2):
        go = functools.partial(
            walk, theta0=family.initial(number).double(), steps=5, optimizer=optim.sgd(0.05, 0.9),
            folds={"it": LEARNERS[learner](), "measures": path_measures()},
        )  # fmt: skip
        seeds = range(number, number + len(ids))
        captured = go(family.batch(ids, seeds), execution="captured", prepared=prepared)
        same(captured, go(family.batch(ids, seeds), execution="batched"))
        same(captured, go(family.batch(ids, seeds), execution="sequential"))
    assert prepared.notes == []


EAGER = Prepared(backend="eager")
PREPARED = Prepared(backend="aot_eager")  # compiling takes longer than all else here


@pytest.mark.parametrize("learner", LEARNERS)
def test_compiled_walks_are_the_walks(learner):
    tasks = Waves()
    go = functools.partial(
        walk, tasks, tasks.theta0, steps=K, optimizer=OPTIMIZERS["adam"], folds={"it": LEARNERS[learner]()}
    )
    same(go(execution="compiled", prepared=PREPARED), go(execution="batched"))
    assert PREPARED.notes == []


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler, and none was found")
def test_the_compiler_keeps_the_numbers():
    def bowl(theta, batch):
        return (theta - batch).square().sum() + torch.sin(theta).sum(), {"first": theta[0]}

    theta, batch = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses, aux, grad = compiled_gradient(bowl, theta.device, batch)(theta, batch)
    torch.testing.assert_close(grad, 2 * (theta - batch) + theta.cos(), rtol=1e-9, atol=1e-11)
    expected = (theta - batch).square().sum(1) + theta.sin().sum(1)
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-11)
    assert torch.equal(aux["first"], theta[:, 0])


@pytest.mark.parametrize("learner", ["leap", "fomaml"])
def test_few_steps_in_single_precision_differ_by_round_off(learner):
    """Walks part exponentially, so the bound, 1e-3 of the meta-gradient, is one for three steps."""
    family = FAMILIES["alphabets"]()
    ids, found = list(family.ids("train"))[:3], {}
    for execution in ("sequential", "batched", "captured", "compiled"):
        found[execution] = walk(
            family.batch(ids, range(3)), family.initial(0), steps=3, optimizer=optim.sgd(0.05),
            folds={"it": LEARNERS[learner]()}, execution=execution, prepared=EAGER,
        ).results["it"]  # fmt: skip
    for execution, result in found.items():
        assert result.dtype == torch.float32
        assert (result - found["sequential"]).norm() < 1e-3 * result.norm(), execution


def test_what_a_walk_returned_outlives_the_next_walk(recorder):
    tasks, prepared = Waves(), Prepared()
    folds = {"it": learners.leap(), "measures": path_measures()}
    go = functools.partial(walk, tasks, steps=K, optimizer=optim.sgd(0.05), folds=folds)
    first = go(tasks.theta0, execution="captured", prepared=prepared)
    go(-tasks.theta0, execution="captured", prepared=prepared)
    same(first, go(tasks.theta0, execution="batched"))


def test_a_replay_asks_no_schedule(monkeypatch):
    """Its numbers come from the rehearsal of the first walk."""
    monkeypatch.setattr(recording, "recorded", taped)
    asked = []

    def schedule(step):
        asked.append(step)
        return 1 / (1 + step)

    tasks, prepared, rule = Waves(), Prepared(), optim.sgd(0.1, schedule=schedule)
    for _ in range(3):
        asked.clear()
        walk(tasks, tasks.theta0, steps=K, optimizer=rule, execution="captured", prepared=prepared)
    assert asked == []
    walk(tasks, tasks.theta0, steps=K + 1, optimizer=rule, execution="captured", prepared=prepared)
    assert set(asked) == set(range(K + 1))  # another length is rehearsed anew


def counting(add):
    return Fold(
        start=lambda theta0: (torch.zeros_like(theta0), 0),
        step=lambda state, s: (add(state[0], s, state[1]), state[1] + 1),
        finish=lambda state, end: state[0] / state[1],
    )


RECORDABLE = {
    "a counter used at the end": lambda total, s, count: total + s.theta_next,
    "a running mean": lambda total, s, count: total + (s.theta_next - total) / (count + 1),
    "the last point, kept as it is": lambda total, s, count: s.theta_next,
    "in place": lambda total, s, count: total.add_(s.grad * (count + 0.5)),
}
NOT_RECORDABLE = {
    "another thing at every third step": lambda total, s, count: total if count % 3 else total + s.grad,
    "a look at values": lambda total, s, count: total + s.grad if bool((s.loss > 0).all()) else total - s.grad,
    "a power that changes": lambda total, s, count: total + s.grad.abs() ** (1 + 0.1 * count),
    "a tensor made of a number": lambda total, s, count: total + torch.tensor(float(count)),
}


@pytest.mark.parametrize("name", [*RECORDABLE, *NOT_RECORDABLE])
def test_folds_of_ones_own(name, recorder):
    tasks, prepared = Waves(), Prepared()
    fold = counting((RECORDABLE | NOT_RECORDABLE)[name])
    go = functools.partial(walk, tasks, tasks.theta0, steps=K, optimizer=optim.sgd(0.05), folds={"own": fold})
    for _ in range(2):
        same(go(execution="captured", prepared=prepared), go(execution="batched"))
    assert [note.split(":")[0] for note in prepared.notes] == (
        [] if name in RECORDABLE else ["the fold 'own' is not captured"]
    )


def test_an_update_that_looks_at_values_is_left_to_python(recorder):
    def update(state, grad, theta, step):
        return (theta - 0.1 * grad if float(grad.norm()) > 1 else theta - 0.01 * grad), state

    tasks, prepared, rule = Waves(), Prepared(), optim.Optimizer(lambda theta, extra: (), update)
    go = functools.partial(walk, tasks, tasks.theta0, steps=K, optimizer=rule, folds={"it": learners.leap()})
    same(go(execution="captured", prepared=prepared), go(execution="batched"))
    assert len(prepared.notes) == 1 and prepared.notes[0].startswith("the inner update is not captured")


def test_batches_of_another_shape_are_left_to_python(recorder):
    class Shrinking(Waves):
        def sample(self, theta, step):
            found = torch.ones(3, 4 if step % 3 else 2, 6, dtype=torch.float64) * (1 + step)
            return found

        def loss(self, theta, batch):
            return (theta - batch).square().mean(), {}

    tasks, prepared = Shrinking(), Prepared()
    go = functools.partial(walk, tasks, tasks.theta0, steps=K, optimizer=OPTIMIZERS["adam"])
    go = functools.partial(go, folds={"it": learners.leap()})
    same(go(execution="captured", prepared=prepared), go(execution="batched"))
    assert len(prepared.notes) == 1 and "shape" in prepared.notes[0]


@pytest.mark.parametrize("execution", ["captured", "compiled"])
def test_losses_that_hold_data_of_their_own_are_prepared_anew(execution, monkeypatch):
    class Heated(Waves):
        heat = 1.0

        def loss(self, theta, batch):
            value, aux = super().loss(theta, batch)
            return value * self.heat, aux

    monkeypatch.setattr(recording, "recorded", taped)
    prepared = Prepared(backend="eager")
    for heat in (1.0, 2.0, 3.0, 4.0):
        tasks = Heated()
        tasks.heat = heat
        go = functools.partial(walk, tasks, tasks.theta0, steps=3, optimizer=optim.sgd(0.05))
        same(go(execution=execution, prepared=prepared), go(execution="batched"))
    assert prepared.notes == [
        "the losses of two meta-batches differ on the same data, so steps are prepared in every walk"
    ]


def test_what_cannot_be_recorded_at_all_is_batched_and_said(monkeypatch, caplog):
    def refuse(body, device):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recording, "recorded", refuse)
    tasks, prepared = Waves(), Prepared()
    go = functools.partial(walk, tasks, tasks.theta0, steps=3, optimizer=optim.sgd(0.05))
    for _ in range(2):
        same(go(execution="captured", prepared=prepared), go(execution="batched"))
    text = "steps are batched, not captured: operation not permitted when stream is capturing"
    assert prepared.notes == [text] and caplog.messages == [text]


def test_what_cannot_be_compiled_is_batched_and_said_once():
    calls = []

    def refuse(graph, inputs):
        calls.append(graph)
        raise RuntimeError("no compiler")

    tasks, prepared = Waves(), Prepared(backend=refuse)
    go = functools.partial(walk, tasks, tasks.theta0, steps=3, optimizer=optim.sgd(0.05))
    for _ in range(2):
        same(go(execution="compiled", prepared=prepared), go(execution="batched"))
    assert len(calls) == len(prepared.notes) == 1 and "steps are batched, not compiled" in prepared.notes[0]


def test_no_memory_is_no_reason_to_go_on(monkeypatch):
    def full(body, device):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(recording, "recorded", full)
    with pytest.raises(torch.OutOfMemoryError):
        walk(Waves(), Waves().theta0, steps=2, optimizer=optim.sgd(0.1), execution="captured")


def test_another_learner_or_rule_is_another_recording():
    tasks, prepared = Waves(), Prepared()
    for folds in ({"it": learners.leap()}, {"it": learners.leap("energy")}, {"it": learners.reptile()}):
        for rate in (0.05, 0.01):
            go = functools.partial(walk, tasks, tasks.theta0, steps=3, optimizer=optim.sgd(rate), folds=folds)
            same(go(execution="captured", prepared=prepared), go(execution="batched"))
    assert len(prepared._made) == 4  # the oldest make room


def test_a_fold_that_fails_to_record_is_left_to_python(monkeypatch):
    made = []

    def once(body, device):
        made.append(body)
        if len(made) > 1:  # the first is gradient and update
            body()
            raise RuntimeError("not on this device")
        return taped(body, device)

    monkeypatch.setattr(recording, "recorded", once)
    tasks, prepared = Waves(), Prepared()
    go = functools.partial(walk, tasks, tasks.theta0, steps=K, optimizer=OPTIMIZERS["adam"])
    go = functools.partial(go, folds={"it": learners.leap()})
    for _ in range(2):
        same(go(execution="captured", prepared=prepared), go(execution="batched"))
    assert len(made) == 2 and prepared.notes == ["the fold 'it' is not captured: not on this device"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("execution", ["captured", "compiled"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_graphs_on_a_gpu_are_the_walks(learner, execution):
    tasks, prepared = Waves(), Prepared()
    for name in ("curvature", "slope", "theta0"):
        setattr(tasks, name, getattr(tasks, name).cuda())
    for number in range(3):
        go = functools.partial(
            walk, tasks, tasks.theta0 * (1 - 0.2 * number), steps=K, optimizer=OPTIMIZERS["adam"],
            folds={"it": LEARNERS[learner](), "length": path_length()},
        )  # fmt: skip
        same(go(execution=execution, prepared=prepared), go(execution="batched"))
    assert not any("batched" in note for note in prepared.notes)
