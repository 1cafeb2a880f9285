"""The inner loop itself: what it records, how it reads its arguments, what it refuses."""

import pytest
import torch
from families import LEARNERS, Waves, random_drawings
from torch.utils._python_dispatch import TorchDispatchMode

from leap import learners, optim
from leap.batching import map_batch
from leap.metrics.path import path_energy, path_length, path_measures
from leap.walk import Fold, paces, walk
from tasks.alphabets import Alphabets, Protocol
from tasks.augment import Augmentation


def test_losses_and_records_belong_to_the_point_before_the_step():
    tasks = Waves()
    walked = walk(tasks, tasks.theta0, steps=3, optimizer=optim.sgd(0.1))
    for t in range(3):
        expected = tasks.loss(tasks.theta0, {k: v[t] for k, v in tasks.sample(None, 0).items()})[0]
        assert walked.losses[t, 0].item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.equal(walked.aux["first"][:, 0], tasks.theta0[0].expand(3))
    assert walked.losses.shape == walked.aux["first"].shape == (3, 3)


def test_one_vector_starts_every_task_and_rows_start_their_own():
    tasks = Waves()
    rows = tasks.theta0 + torch.arange(3, dtype=torch.float64)[:, None]
    one = walk(tasks, tasks.theta0, steps=4, optimizer=optim.adam(0.1))
    own = walk(tasks, rows, steps=4, optimizer=optim.adam(0.1))
    assert torch.equal(one.theta[0], own.theta[0])
    assert not torch.allclose(one.theta[1], own.theta[1])


def test_tasks_do_not_meet():
    """A task's walk is the same alone and among others."""
    tasks = Waves()
    together = walk(tasks, tasks.theta0, steps=5, optimizer=optim.sgd(0.05), folds={"it": learners.leap()})
    alone = Waves()
    alone.curvature, alone.slope = alone.curvature[1:2], alone.slope[1:2]
    single = walk(alone, alone.theta0, steps=5, optimizer=optim.sgd(0.05), folds={"it": learners.leap()})
    torch.testing.assert_close(together.results["it"][1], single.results["it"][0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("execution", ["batched", "sequential", "captured"])
def test_walks_that_take_turns_walk_as_they_do_alone(execution):
    def settings(name):
        fold = {"leap": learners.leap, "maml": learners.maml}[name]()
        return {"steps": 4, "optimizer": optim.adam(0.05), "folds": {name: fold}, "execution": execution}

    tasks = Waves()
    going = {name: paces(tasks, tasks.theta0, **settings(name)) for name in ("leap", "maml")}
    for taken in (1, 2, 3, 4):
        assert [next(steps) for steps in going.values()] == [taken, taken]
    for name, steps in going.items():
        with pytest.raises(StopIteration) as ended:
            next(steps)
        alone = walk(tasks, tasks.theta0, **settings(name))
        assert torch.equal(ended.value.value.results[name], alone.results[name])
        assert torch.equal(ended.value.value.theta, alone.theta) and torch.equal(ended.value.value.losses, alone.losses)


def test_the_start_is_left_alone():
    tasks = Waves()
    theta0 = tasks.theta0.clone()
    for make in (learners.leap, learners.maml, learners.finetune):
        walk(tasks, theta0, steps=3, optimizer=optim.sgd(0.1, momentum=0.9), folds={"it": make()})
    assert torch.equal(theta0, tasks.theta0)


def test_many_folds_see_the_same_walk():
    tasks = Waves()
    folds = {"leap": learners.leap(), "reptile": learners.reptile(), "length": path_length()}
    both = walk(tasks, tasks.theta0, steps=5, optimizer=optim.sgd(0.05), folds=folds)
    for name, fold in folds.items():
        apart = walk(tasks, tasks.theta0, steps=5, optimizer=optim.sgd(0.05), folds={name: fold})
        assert torch.equal(both.results[name], apart.results[name])


def test_a_fold_of_ones_own():
    """The example of the design: pull towards the mean of the walk."""
    fold = Fold(
        start=lambda theta0: (torch.zeros_like(theta0), 0),
        step=lambda state, s: (state[0] + s.theta_next, state[1] + 1),
        finish=lambda state, end: end.theta0 - state[0] / state[1],
    )
    tasks = Waves()
    walked = walk(tasks, tasks.theta0, steps=4, optimizer=optim.sgd(0.05), folds={"mean": fold})
    ends = [walk(tasks, tasks.theta0, steps=k, optimizer=optim.sgd(0.05)).theta for k in range(1, 5)]
    torch.testing.assert_close(walked.results["mean"], tasks.theta0 - sum(ends) / 4, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("loss_coordinate", [False, True])
def test_path_length_and_energy_on_a_bowl(loss_coordinate):
    """f = h theta^2 / 2 in one dimension: steps are a geometric series, and so are the losses."""
    h, a, start, steps = 2.0, 0.1, 3.0, 8

    class Bowl:
        def sample(self, theta, step):
            return None

        def loss(self, theta, batch):
            return 0.5 * h * theta.square().sum(), {}

    folds = {
        "length": path_length(loss_coordinate=loss_coordinate),
        "energy": path_energy(loss_coordinate=loss_coordinate),
    }
    theta0 = torch.tensor([start], dtype=torch.float64)
    results = walk(Bowl(), theta0, steps=steps, optimizer=optim.sgd(a), folds=folds).results
    r = 1 - a * h
    if not loss_coordinate:  # sum of a h start r^i
        length, energy = start * (1 - r**steps), (a * h * start) ** 2 * (1 - r ** (2 * steps)) / (1 - r**2)
    else:
        squares = [
            (a * h * start * r**i) ** 2 + (0.5 * h * start**2 * (r**2 - 1) * r ** (2 * i)) ** 2 for i in range(steps)
        ]
        length, energy = sum(s**0.5 for s in squares), sum(squares)
    assert results["length"].item() == pytest.approx(length, rel=1e-12)
    assert results["energy"].item() == pytest.approx(energy, rel=1e-12)


def test_path_measures_obey_their_inequalities():
    tasks = Waves()
    folds = {
        "length": path_length(),
        "flat": path_length(loss_coordinate=False),
        "energy": path_energy(),
        "short": path_length(last_segment=False),
    }
    walked = walk(tasks, tasks.theta0, steps=6, optimizer=optim.sgd(0.05), folds=folds)
    chord = (walked.theta - tasks.theta0).norm(dim=1)
    r = walked.results
    assert (chord <= r["flat"] + 1e-12).all()  # a path is no shorter than its chord
    assert (r["flat"] < r["length"]).all()  # the loss coordinate only adds
    assert (r["length"].square() <= 6 * r["energy"]).all()  # Cauchy-Schwarz
    assert (r["short"] < r["length"]).all()


class Bare:
    """The protocol and nothing more."""

    def __init__(self, data):
        self.data = data

    def sample(self, theta, step):
        return self.data

    def loss(self, theta, batch):
        target = batch if isinstance(batch, torch.Tensor) else torch.ones_like(theta)
        return (theta - target).square().sum(), {}


def test_the_number_of_tasks_is_read_off_what_there_is():
    theta0 = torch.zeros(2)
    assert walk(Bare(torch.ones(5, 2)), theta0, steps=1, optimizer=optim.sgd(0.1)).theta.shape == (5, 2)
    assert walk(Bare(None), theta0, steps=1, optimizer=optim.sgd(0.1)).theta.shape == (1, 2)
    assert walk(Bare(None), theta0.expand(4, 2), steps=1, optimizer=optim.sgd(0.1)).theta.shape == (4, 2)
    sized = Bare(None)
    sized.size = 3
    assert walk(sized, theta0, steps=1, optimizer=optim.sgd(0.1)).theta.shape == (3, 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"theta0": [1.0]}, TypeError, "got list"),
        ({"theta0": torch.ones(2, dtype=torch.int64)}, TypeError, "float"),
        ({"theta0": torch.ones(1, 1, 2)}, ValueError, r"\(1, 1, 2\)"),
        ({"execution": "parallel"}, ValueError, "'parallel'"),
        ({"folds": {"a": learners.anil(1), "b": learners.meta_sgd()}}, ValueError, "only one fold"),
    ],
)
@pytest.mark.parametrize("begin", [walk, paces])
def test_wrong_arguments_are_refused(begin, changes, error, message):
    arguments = {"theta0": torch.zeros(2), "steps": 2, "folds": {}, "execution": "batched"} | changes
    theta0 = arguments.pop("theta0")
    with pytest.raises(error, match=message):
        begin(Bare(torch.ones(2, 2)), theta0, optimizer=optim.sgd(0.1), **arguments)


def test_a_loss_may_record_nothing_numbers_or_tensors():
    class Recording(Bare):
        aux = None

        def loss(self, theta, batch):
            return super().loss(theta, batch)[0], self.aux and {"number": 2.5, "tensor": theta[0]}

    for execution in ("batched", "sequential"):
        tasks = Recording(torch.ones(3, 2))
        nothing = walk(tasks, torch.zeros(2), steps=2, optimizer=optim.sgd(0.1), execution=execution)
        assert nothing.aux == {}
        tasks.aux = True
        walked = walk(tasks, torch.zeros(2), steps=2, optimizer=optim.sgd(0.1), execution=execution)
        assert torch.equal(walked.aux["number"], torch.full((3, 2), 2.5))
        torch.testing.assert_close(walked.aux["tensor"], torch.tensor([0.0, 0.2]).expand(3, 2))


def test_a_loss_that_breaks_its_contract_is_told_so():
    class NoAux(Bare):
        def loss(self, theta, batch):
            return theta.sum()

    class Unreduced(Bare):
        def loss(self, theta, batch):
            return theta, {}

    class Strange(Bare):
        def loss(self, theta, batch):
            return theta.sum(), theta

    for execution in ("batched", "sequential"):
        with pytest.raises(TypeError, match="mapping from names to scalars, got Tensor"):
            walk(Strange(None), torch.zeros(2), steps=1, optimizer=optim.sgd(0.1), execution=execution)
        with pytest.raises(TypeError, match="recorded scalars"):
            walk(NoAux(None), torch.zeros(2), steps=1, optimizer=optim.sgd(0.1), execution=execution)
        with pytest.raises(ValueError, match="scalar for one task"):
            walk(Unreduced(None), torch.zeros(2), steps=1, optimizer=optim.sgd(0.1), execution=execution)


def test_a_vector_of_another_length_than_the_layout_is_refused():
    tasks = Waves()
    with pytest.raises(ValueError, match="6 entries"):
        walk(tasks, torch.zeros(5, dtype=torch.float64), steps=1, optimizer=optim.sgd(0.1))


class Traffic(TorchDispatchMode):
    """Notes what would wait for a device or copy to it. Meta tensors stand for the device's: they have no values."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found, tensors = func(*args, **(kwargs or {})), []
        for tree in (args, kwargs or {}, found):
            map_batch(lambda leaf: tensors.append(leaf) if isinstance(leaf, torch.Tensor) else None, tree)
        copies = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        # a number beside a tensor travels with the kernel; vmap shows it as a tensor without axes
        devices = {tensor.device.type for tensor in tensors if copies or tensor.dim()}
        if len(devices) > 1 or func.overloadpacket in (torch.ops.aten.nonzero, torch.ops.aten._local_scalar_dense):
            self.seen.append(str(func))
        return found


def traffic_of(tasks, theta0, steps, learner, execution):
    folds = {"it": LEARNERS[learner](), "length": path_length(), "measures": path_measures()}
    rule = optim.adam(0.1, schedule=optim.cosine(steps))
    with Traffic() as traffic:
        walk(tasks, theta0, steps=steps, optimizer=rule, folds=folds, execution=execution)
    return traffic.seen


@pytest.mark.parametrize("execution", ["batched", "sequential"])
@pytest.mark.parametrize("learner", [name for name in LEARNERS if name != "finetune"])
def test_steps_neither_wait_for_the_device_nor_copy_to_it(learner, execution):
    tasks = Waves()
    for name in ("curvature", "slope", "theta0"):
        setattr(tasks, name, getattr(tasks, name).to("meta"))
    assert traffic_of(tasks, tasks.theta0, 3, learner, execution) == []


@pytest.mark.parametrize(
    ("learner", "execution"), [("leap", "batched"), ("maml", "batched"), ("finetune", "sequential")]
)
def test_alphabets_travel_once_an_epoch(learner, execution):
    """All traffic is the order and the augmentation of an epoch, however many steps it has."""
    moved = Augmentation(scale=(0.9, 1.1))
    protocol = Protocol(4, 4, 2, train=4, held_out=2, batch_size=2, augmentation=moved)
    family = Alphabets(random_drawings(), protocol, seed=0, filters=2, device="meta")
    seen = [
        traffic_of(family.batch(family.ids("train")[:2], [1, 2]), family.initial(0), steps, learner, execution)
        for steps in (2, 4)
    ]
    assert seen[0] == seen[1] == ["aten._to_copy.default"] * (3 if learner == "maml" else 2)  # the query's maps as well


@pytest.mark.parametrize(
    "step",
    [
        lambda state, s: state + float(s.loss[0]),
        lambda state, s: state if s.loss[0] > 0 else -state,
        lambda state, s: state + s.theta[s.theta > 0].sum(),
        lambda state, s: state + torch.zeros(state.shape).to(state.device),
    ],
)
def test_a_step_that_waits_for_the_device_is_noticed(step):
    tasks = Bare(torch.ones(3, 2, device="meta"))
    fold = Fold(lambda theta0: theta0[:, 0] * 0, step, lambda state, end: state)
    traffic = Traffic()
    try:
        with traffic:
            walk(tasks, torch.zeros(2, device="meta"), steps=2, optimizer=optim.sgd(0.1), folds={"it": fold})
    except RuntimeError:  # NotImplementedError is one
        return  # meta tensors have no values to look at
    assert traffic.seen
