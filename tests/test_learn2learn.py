"""Ours against learn2learn's: the same meta-gradients, learn2learn's algorithms in our loop, its tasksets as our tasks.

Not skipped where learn2learn is meant to be there: scripts/test installs it and sets LEAP_REQUIRE_LEARN2LEARN.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from leap import l2l, learners, optim
from leap.errors import UsageError
from leap.layout import Layout
from leap.metrics.path import path_energy, path_length
from leap.trainer import Plan, Trainer
from leap.walk import Fold, Walk, walk
from tasks.models import Conv4
from tasks.taskset import TasksetFamily, split_episode

RATE = 0.3
TASKS = 3
LEARNERS: dict[str, Callable[[], Fold]] = {
    "maml": learners.maml,
    "fomaml": learners.fomaml,
    "anil": learners.anil,
    "meta_sgd": lambda: learners.meta_sgd(RATE),
}


@pytest.fixture(scope="module")
def learn2learn() -> ModuleType:
    try:
        return l2l.load()
    except ImportError as error:
        if os.environ.get("CI") == "true" or os.environ.get("LEAP_REQUIRE_LEARN2LEARN") == "1":
            raise
        pytest.skip(str(error))


class Pictures:
    """Small classification tasks in float64; every step has a batch of its own."""

    def __init__(self) -> None:
        stream = torch.Generator().manual_seed(11)
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.Tanh(),
            nn.Conv2d(4, 6, 3),
            nn.BatchNorm2d(6, track_running_stats=False),
            nn.Tanh(),
            nn.Flatten(),
        )
        self.module = nn.Sequential(self.body, nn.Linear(6 * 9, 4)).double()
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64) / 3)
        self.layout = Layout.of(self.module)
        self.images = torch.randn(6, TASKS, 8, 1, 7, 7, generator=stream, dtype=torch.float64)
        self.asked = torch.randn(TASKS, 12, 1, 7, 7, generator=stream, dtype=torch.float64)
        self.labels = torch.randint(4, (6, TASKS, 8), generator=stream)
        self.truth = torch.randint(4, (TASKS, 12), generator=stream)

    @property
    def theta(self) -> Tensor:
        return self.layout.flatten(self.module)

    def sample(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self.images[step], self.labels[step]

    def query(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self.asked, self.truth

    def loss(self, theta: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        images, labels = batch
        logits = functional_call(self.module, self.layout.unflatten(theta), (images,))
        return F.cross_entropy(logits, labels), {"error": (logits.argmax(-1) != labels).double().mean()}


def by_learn2learn(module: ModuleType, pictures: Pictures, name: str, steps: int, t: int) -> Tensor:
    """The meta-gradient of task t as a user of learn2learn would compute it, on the network itself."""
    network = pictures.module
    body, head = network[0], network[1]
    before: Callable[[Tensor], Tensor] = body if name == "anil" else lambda x: x
    walking, rates = head if name == "anil" else network, []
    if name == "meta_sgd":
        algorithm = module.algorithms.MetaSGD(walking, lr=RATE)
        rates = list(algorithm.lrs)
    else:
        algorithm = module.algorithms.MAML(walking, lr=RATE, first_order=name == "fomaml")
    learner = algorithm.clone()
    for i in range(steps):
        learner.adapt(F.cross_entropy(learner(before(pictures.images[i, t])), pictures.labels[i, t]))
    loss = F.cross_entropy(learner(before(pictures.asked[t])), pictures.truth[t])
    parts = torch.autograd.grad(loss, [*network.parameters(), *rates])
    return torch.cat([part.reshape(-1) for part in parts])


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == torch.float64
    assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # MetaSGD reads it
@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("execution", ["batched", "sequential"])
def test_our_meta_gradients_are_learn2learns(learn2learn: ModuleType, name: str, steps: int, execution: Any) -> None:
    pictures = Pictures()
    folds = {"it": LEARNERS[name]()}
    ours = walk(
        pictures, pictures.theta, steps=steps, optimizer=optim.sgd(RATE), folds=folds, execution=execution
    ).results["it"]
    for t in range(TASKS):
        theirs = by_learn2learn(learn2learn, pictures, name, steps, t)
        assert_same(ours[t], theirs)


def test_the_parity_test_can_tell_the_learners_apart(learn2learn: ModuleType) -> None:
    pictures = Pictures()
    first, second, anil = (by_learn2learn(learn2learn, pictures, name, 3, 0) for name in ("fomaml", "maml", "anil"))
    assert (first - second).norm() > 1e-2 * second.norm()
    assert (anil - second).norm() > 1e-2 * second.norm()


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", LEARNERS)
def test_the_engine_gives_what_the_native_walk_gives(learn2learn: ModuleType, name: str, steps: int) -> None:
    pictures = Pictures()
    folds = {"it": LEARNERS[name](), "length": path_length(), "energy": path_energy(loss_coordinate=False)}
    native, theirs = (
        loop(pictures, pictures.theta, steps=steps, optimizer=optim.sgd(RATE), folds=folds) for loop in (walk, l2l.walk)
    )
    assert_walks_agree(theirs, native)


def assert_walks_agree(one: Walk, other: Walk) -> None:
    for field in ("theta", "losses"):
        assert_same(getattr(one, field), getattr(other, field))
    for field in ("results", "aux"):
        mine, reference = getattr(one, field), getattr(other, field)
        assert mine.keys() == reference.keys()
        for name, value in reference.items():
            assert_same(mine[name], value)
            assert not mine[name].requires_grad


def test_the_engine_takes_a_start_and_learned_rates_of_each_task(learn2learn: ModuleType) -> None:
    pictures = Pictures()
    stream = torch.Generator().manual_seed(3)
    meta = torch.randn(TASKS, 2 * pictures.layout.n, generator=stream, dtype=torch.float64) / 5
    folds = {"it": learners.meta_sgd()}
    native, theirs = (
        loop(pictures, meta, steps=3, optimizer=optim.adam(1.0), folds=folds) for loop in (walk, l2l.walk)
    )
    assert_walks_agree(theirs, native)


def test_the_engine_keeps_any_trunk_in_place(learn2learn: ModuleType) -> None:
    pictures = Pictures()
    trunk = pictures.layout.sizes[0] - 3  # through a parameter
    folds = {"it": learners.anil(trunk=trunk)}
    native, theirs = (
        loop(pictures, pictures.theta, steps=3, optimizer=optim.sgd(RATE), folds=folds) for loop in (walk, l2l.walk)
    )
    assert_walks_agree(theirs, native)
    assert torch.equal(theirs.theta[:, :trunk], pictures.theta[:trunk].expand(TASKS, -1))


class Bowl:
    """f(theta) = |theta|^2 / 2: no layout, no batch, no query set."""

    def sample(self, theta: Tensor, step: int) -> None:
        return None

    def loss(self, theta: Tensor, batch: None) -> tuple[Tensor, dict[str, Tensor]]:
        return theta.square().sum() / 2, {}


def test_the_engine_on_a_bowl_is_algebra(learn2learn: ModuleType) -> None:
    theta, lr, steps = torch.tensor([2.0, -1.0], dtype=torch.float64), 0.25, 3
    results = {
        name: l2l.walk(Bowl(), theta, steps=steps, optimizer=optim.sgd(lr), folds={name: LEARNERS[name]()}).results[
            name
        ]
        for name in ("maml", "fomaml")
    }
    torch.testing.assert_close(results["fomaml"][0], (1 - lr) ** steps * theta)
    torch.testing.assert_close(results["maml"][0], (1 - lr) ** (2 * steps) * theta)


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (optim.adam(0.1), "state"),
        (optim.rmsprop(0.1), "state"),
        (optim.sgd(0.1, momentum=0.9), "momentum"),
        (optim.sgd(0.1, weight_decay=0.01), "weight decay"),
        (optim.sgd(0.1, schedule=optim.cosine(4)), "schedule"),
    ],
)
def test_inner_optimizers_that_learn2learn_lacks_are_refused(
    learn2learn: ModuleType, optimizer: optim.Optimizer, named: str
) -> None:
    with pytest.raises(UsageError, match=f"plain SGD.*{named}.*native"):
        l2l.walk(Bowl(), torch.ones(2), steps=3, optimizer=optimizer, folds={"it": learners.maml()})


@pytest.mark.parametrize(
    "learner",
    [learners.leap(), learners.leap(jacobian="exact"), learners.reptile(), learners.none(), learners.finetune()],
)
def test_learners_that_learn2learn_lacks_are_refused(learn2learn: ModuleType, learner: Fold) -> None:
    with pytest.raises(UsageError, match=r"learn2learn has .*native"):
        l2l.walk(Bowl(), torch.ones(2), steps=2, optimizer=optim.sgd(0.1), folds={"other": learner})


def test_without_learn2learn_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "learn2learn", None)  # importing it fails as if it were not there
    with pytest.raises(ImportError, match=r"pip install --no-deps -r requirements-learn2learn\.txt"):
        l2l.load()
    with pytest.raises(UsageError, match="requirements-learn2learn"):
        l2l.walk(Bowl(), torch.ones(2), steps=1, optimizer=optim.sgd(0.1), folds={"it": learners.maml()})


def test_loading_it_says_nothing_and_warns_of_nothing(learn2learn: ModuleType) -> None:
    code = "from leap import l2l; print(l2l.load().__name__)"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("learn2learn\n", "")


# ---- tasksets as task families


def taskset(module: ModuleType, *, ways: int = 3, examples: int = 5, count: int = -1, size: int = 16) -> Any:
    """A Taskset of blurred prototypes: class c is its own random picture plus noise."""
    stream = torch.Generator().manual_seed(5)
    prototypes = torch.randn(8, 1, size, size, generator=stream)
    labels = torch.arange(8).repeat_interleave(10)
    images = prototypes[labels] + 0.3 * torch.randn(80, 1, size, size, generator=stream)
    data = module.data.MetaDataset(torch.utils.data.TensorDataset(images, labels.clone()))
    t = module.data.transforms
    chosen = [t.NWays(data, ways), t.KShots(data, examples), t.LoadData(data), t.RemapLabels(data)]
    return module.data.Taskset(data, chosen, num_tasks=count)


def family(module: ModuleType, **options: Any) -> TasksetFamily:
    sets = {"train": taskset(module), "test": taskset(module, count=4)}
    return TasksetFamily(sets, Conv4(3, filters=4, size=16), shots=2, episodes=20, **options)


def test_a_taskset_meta_trains(learn2learn: ModuleType) -> None:
    plan = Plan(seed=0, inner_steps=4, meta_batch=4, execution="batched")
    meta = ("SGD", lambda step: 1.0, {"lr": 0.7})
    trainer = Trainer(family(learn2learn), learners.reptile(), lambda steps: optim.sgd(0.2), meta, plan)
    losses = [trainer.meta_step()["train/loss_last"] for _ in range(12)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_both_engines_train_alike_on_a_taskset(learn2learn: ModuleType) -> None:
    thetas = []
    for loop in (walk, l2l.walk):
        plan = Plan(seed=0, inner_steps=2, meta_batch=2, execution="sequential", walk=loop)
        trainer = Trainer(
            family(learn2learn),
            learners.maml(),
            lambda steps: optim.sgd(0.1),
            ("SGD", lambda step: 1.0, {"lr": 0.1}),
            plan,
        )
        thetas += [trainer.theta]
        trainer.meta_step()
        thetas += [trainer.theta]
    start, native, _, theirs = thetas
    torch.testing.assert_close(theirs - start, native - start, rtol=1e-3, atol=1e-6)
    assert not torch.equal(native, start)


def test_episodes_follow_from_seed_and_id_alone(learn2learn: ModuleType) -> None:
    def support(seed: int, ids: list[int]) -> Tensor:
        tasks = family(learn2learn, seed=seed)
        return tasks.batch(ids, [0] * len(ids)).sample(torch.zeros(1, 1), 0)[0]

    together, state = support(0, [3, 7]), random.getstate()
    torch.manual_seed(1)
    random.seed(1)  # what others did to the global generators before does not matter
    alone = support(0, [7])
    assert torch.equal(together[1:], alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(support(1, [7]), alone)
    random.setstate(state)


def test_drawing_leaves_the_global_generators_alone(learn2learn: ModuleType) -> None:
    tasks = family(learn2learn)
    random.seed(4)
    before, drawn = random.getstate(), torch.get_rng_state()
    tasks.batch([0, 1], [0, 0])
    tasks.initial(0)
    assert random.getstate() == before
    assert torch.equal(torch.get_rng_state(), drawn)


def test_splits_names_and_scores_of_a_taskset(learn2learn: ModuleType) -> None:
    tasks = family(learn2learn)
    assert [len(tasks.ids(split)) for split in ("train", "validation", "test")] == [20, 0, 4]
    assert not set(tasks.ids("train")) & set(tasks.ids("test"))
    assert tasks.name(tasks.ids("test")[1]) == "test episode 1"
    batch = tasks.batch(tasks.ids("test"), range(4))
    score = batch.score(tasks.initial(0).expand(4, -1))
    assert score["test_error"].shape == (4,)
    assert ((score["test_error"] >= 0) & (score["test_error"] <= 100)).all()
    with pytest.raises(UsageError, match="no task 24"):
        tasks.batch([24], [0])


def test_a_network_of_learn2learn_keeps_its_weights(learn2learn: ModuleType) -> None:
    network = learn2learn.vision.models.OmniglotCNN(3, hidden_size=4, layers=2)  # registers its layers twice
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tasks = TasksetFamily({"train": taskset(learn2learn, size=28)}, network, shots=2)
    batch, theta = tasks.batch([0, 1], [0, 0]), tasks.initial(0)
    own = {name: value.clone() for name, value in tasks.module.state_dict().items()}
    walked = walk(batch, theta, steps=2, optimizer=optim.sgd(0.1), folds={"it": learners.fomaml()})
    assert walked.losses.isfinite().all()
    assert not torch.equal(walked.theta[0], theta)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, own[name]) for name, value in tasks.module.state_dict().items())


@pytest.mark.parametrize(("shots", "message"), [(5, "KShots"), (0, "shots must be at least 1")])
def test_shots_beyond_the_episode_are_refused(learn2learn: ModuleType, shots: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TasksetFamily({"train": taskset(learn2learn)}, Conv4(3, filters=4, size=16), shots=shots).batch([0], [0])


def test_something_else_than_a_taskset_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Taskset, got list"):
        TasksetFamily({"train": [1, 2]}, nn.Linear(1, 2), shots=1)
    with pytest.raises(UsageError, match="validation"):
        TasksetFamily({"training": []}, nn.Linear(1, 2), shots=1)


def test_an_episode_is_split_class_by_class() -> None:
    stream = torch.Generator().manual_seed(0)
    labels = torch.tensor([40, 7, 19]).repeat(6)[torch.randperm(18, generator=stream)]
    data = torch.randn(18, 2, generator=stream)
    support, support_labels, query, query_labels = split_episode(data, labels, shots=4)
    assert support_labels.bincount().tolist() == [4, 4, 4]
    assert query_labels.bincount().tolist() == [2, 2, 2]
    originals = {0: 7, 1: 19, 2: 40}
    for rows, own in ((support, support_labels), (query, query_labels)):
        for row, label in zip(rows, own.tolist(), strict=True):
            (place,) = (data == row).all(dim=1).nonzero()[0]
            assert labels[place] == originals[label]
    everything = torch.cat([support, query])
    assert torch.equal(everything.sort(dim=0).values, data.sort(dim=0).values)


def test_an_episode_with_uneven_classes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\{0: 1, 1: 2\}"):
        split_episode(torch.zeros(3), torch.tensor([0, 1, 1]), shots=1)
