"""Games as labelled data: which states, which labels, who makes them, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.tiny import TINY
from envs.vector import Transition
from leap import optim
from leap.cli import build, configuration
from leap.cli.settings import Settings
from leap.errors import RunError, UsageError
from leap.measure.problem import TaskData, check_per_sample, check_task, measurable, stands_in
from leap.run import pack, unpack
from tasks import game_data
from tasks.game_data import Imitation, imitation, policy_logits
from tasks.games import Games

QUICK = Imitation(steps=400, examples=40, spacing=3, labels="drawn")


def games(how: Imitation = QUICK, names: tuple[str, ...] = ("catch", "seek"), **changes: Any) -> Games:
    make = changes.pop("make", lambda name, count: TINY[name](count))
    options: dict[str, Any] = {"seed": 0, "environments": 4, "unroll": 5, "network": "small", "evaluation_episodes": 4}
    return Games(make, names[:-1], names[-1:], imitation=how, **(options | changes))


def agent(family: Games, task: int = 0, favour: int | None = None) -> Tensor:
    """An agent of reference that nobody trained: sharp and different in every state, or one with a favourite."""
    actions, width = family.actions(task), family.width
    head = torch.randn(actions * (width + 1), generator=torch.Generator().manual_seed(5)) * (favour is None)
    if favour is not None:
        head[actions * width + favour] = 50.0
    return torch.cat([family.initial(3)[: family.layout.trunk], 5 * head])


def tensors(data: TaskData) -> list[Tensor]:
    return [part for part in data if isinstance(part, Tensor)]


def same(one: TaskData, two: TaskData) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(two), strict=True))


# What measuring needs of a family


def test_games_have_what_measuring_needs() -> None:
    family = games()
    assert measurable(family) is family and stands_in(family)
    data = check_task(family.dataset(1))
    assert (data.name, data.classes) == ("seek", 4)
    assert data.inputs.shape == (40, 3, 16, 16) and data.test_inputs.shape == (20, 3, 16, 16)
    assert data.inputs.dtype == torch.uint8 and data.labels.dtype == torch.int64
    check_per_sample(family, family.initial(1)[: family.layout.trunk], data.inputs)


def test_features_are_what_the_head_of_the_agent_sees() -> None:
    family = games()
    theta, data = family.initial(2), family.dataset(0)
    named = family.layout.unflatten(theta)
    logits, _ = torch.func.functional_call(family.module, named, (data.inputs,))
    features = family.features(theta[: family.layout.trunk], data.inputs)
    assert features.shape == (40, family.width)
    own = features @ named["head.policy.weight"].T + named["head.policy.bias"]
    torch.testing.assert_close(own, logits)


def test_features_take_bytes_and_numbers_alike_and_are_pure() -> None:
    family = games()
    trunk, inputs = family.initial(2)[: family.layout.trunk].double(), family.dataset(0).inputs[:5]
    # off the edges of rectifiers, on which black pictures stand as long as biases are zero
    trunk = trunk + 0.01 * torch.randn(trunk.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = trunk.clone()
    torch.testing.assert_close(family.features(trunk, inputs), family.features(trunk, inputs.double()))
    assert family.features(trunk, inputs).dtype == torch.float64 and torch.equal(trunk, before)
    each = torch.func.vmap(lambda one: family.features(trunk, one[None])[0])(inputs)
    torch.testing.assert_close(each, family.features(trunk, inputs))
    slope = torch.func.grad(lambda point: family.features(point, inputs).square().sum())(trunk)
    along, step = torch.nn.functional.normalize(slope, dim=0), 1e-7
    ends = [family.features(trunk + sign * step * along, inputs).square().sum() for sign in (1, -1)]
    assert float(slope @ along) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-5)


# Labels


def test_a_label_is_the_action_that_the_agent_most_likely_takes() -> None:
    family, how = games(), replace(QUICK, labels="likeliest")
    own = agent(family)
    data = imitation(family, 0, own, how)
    for inputs, labels in ((data.inputs, data.labels), (data.test_inputs, data.test_labels)):
        assert torch.equal(policy_logits(family, own, inputs).argmax(-1), labels)
    assert len(data.labels.unique()) > 1


def test_drawn_labels_follow_the_policy() -> None:
    family = games()
    own = torch.cat([family.initial(3)[: family.layout.trunk], torch.zeros(3 * (family.width + 1))])
    own[-3:] = torch.tensor([0.7, 0.2, 0.1]).log()  # in every state
    data = imitation(family, 0, own, replace(QUICK, examples=3000, spacing=1))
    shares = data.labels.bincount(minlength=3) / 3000
    assert torch.allclose(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.03)  # 3.6 standard deviations


def test_one_action_everywhere_is_refused_with_what_to_do() -> None:
    family = games()
    with pytest.raises(UsageError, match=r"catch takes one action \(2\).*reference_labels drawn"):
        imitation(family, 0, agent(family, favour=2), replace(QUICK, labels="likeliest"))


# States


class Ticker:
    """Environments whose pictures tell who they are: [environment, step of the episode, whether it is over, clock].

    Episodes last 4, 5, 6, ... steps by environment. `taken` are all actions.
    """

    shape, actions = (3, 16, 16), 3

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count
        self.taken: list[np.ndarray] = []
        self.seeds: list[int] = []

    def reset(self, seed: int) -> np.ndarray:
        self.seeds.append(seed)
        self.step, self.over = np.zeros(self.count, int), np.zeros(self.count, bool)
        self.clock = 0
        return self._obs()

    def _obs(self) -> np.ndarray:
        obs = np.zeros((self.count, *self.shape), np.uint8)
        told = (np.arange(self.count), self.step, self.over, np.full(self.count, self.clock % 256))
        for place, value in enumerate(told):
            obs[:, 0, 0, place] = value
        return obs

    def send(self, actions: np.ndarray) -> None:
        self.taken.append(actions)

    def receive(self) -> Transition:
        valid = ~self.over
        self.clock += 1
        self.step = np.where(valid, self.step + 1, 0)
        self.over = self.step == 4 + np.arange(self.count)
        no = np.zeros(self.count, bool)
        return Transition(self._obs(), np.zeros(self.count, np.float32), self.over, no, no, valid, ())

    def close(self) -> None:
        """Nothing is held."""


def ticking(how: Imitation) -> tuple[list[Ticker], Games]:
    """Games of tickers, and the environments that were made."""
    made: list[Ticker] = []

    def make(name: str, count: int) -> Any:
        made.append(Ticker(name, count))
        return made[-1]

    return made, games(how, make=make)


@pytest.mark.parametrize("spacing", [1, 2, 5, 7])
def test_of_every_stretch_of_an_environment_one_state_is_kept_and_no_end_of_an_episode(spacing: int) -> None:
    how = replace(QUICK, spacing=spacing, examples=80)
    _, family = ticking(how)
    data = imitation(family, 0, agent(family), how)
    told = data.inputs[:, 0, 0, :4].long()
    assert not bool(told[:, 2].any())  # what stands behind the end of an episode is no state to act in
    for env in range(4):
        clocks = told[told[:, 0] == env, 3]
        assert len(clocks) >= 12 and bool((clocks.diff() > 0).all())
        stretch = clocks // spacing
        assert len(stretch.unique()) == len(stretch)  # never two of one
        if spacing >= 5:  # only an end of an episode that was drawn at the end of a stretch leaves it out
            assert len(stretch) >= 0.6 * (int(stretch[-1]) + 1)
            assert len((clocks % spacing).unique()) > 2  # not the same place of each


def test_the_share_of_random_actions_is_that_of_the_behaviour() -> None:
    """The agent always takes action 1; of three actions, a random one is another in two thirds."""
    for share, other in ((0.0, 0.0), (0.3, 0.2), (1.0, 2 / 3)):
        how = replace(QUICK, random=share, examples=2000, spacing=1)
        made, family = ticking(how)
        stream: Iterator[Any] = game_data._kept(family, 0, agent(family, favour=1), how, 7)
        for _ in range(600):
            next(stream)
        taken = np.concatenate(made[0].taken)
        assert len(taken) >= 2000 and np.mean(taken != 1) == pytest.approx(other, abs=0.04)


def test_training_and_test_states_come_from_different_environments() -> None:
    made, family = ticking(QUICK)
    imitation(family, 0, agent(family), QUICK)
    assert len(made[0].seeds) == len(set(made[0].seeds)) == 2
    family = games()
    real = imitation(family, 1, agent(family, 1), QUICK)
    assert not torch.equal(real.inputs[:20], real.test_inputs)


# Randomness


def test_a_seed_decides_the_data_and_another_decides_otherwise() -> None:
    one, two, other = games().dataset(0), games().dataset(0), games(seed=1).dataset(0)
    assert same(one, two) and not same(one, other)


def test_a_games_data_depend_neither_on_other_games_nor_on_the_order() -> None:
    first, second = games(), games(names=("seek", "catch"))
    second.dataset(0)
    assert same(first.dataset(0), second.dataset(1))


def test_the_initialization_under_measure_does_not_enter() -> None:
    """Learners, meta-optimizers and inner steps of training are not among what a file is named by; the game's are."""

    folder = Path(__file__).parents[1] / "configs"

    def path(*changes: str, files: tuple[str, ...] = (), task: int = 5) -> Path:
        settings = configuration.load(Settings, [folder / "tiny-games.yaml", *(folder / f for f in files)], changes)
        found = build.family(settings, "cpu").imitations.path(task)  # type: ignore[attr-defined]
        assert found is not None
        return Path(found)

    own = path()
    assert path("--meta.lr", "0.5", "--train.inner_steps", "7", files=("learner/reptile.yaml",)) == own
    assert path("--tasks.train", "catch", task=1) == own and path("--tasks.evaluation_episodes", "3") == own
    for change in (("inner.lr", "0.1"), ("seed", "1"), ("tasks.discount", "0.9"), ("tasks.reference_steps", "5")):
        assert path(f"--{change[0]}", change[1]) != own


# What is kept


@pytest.fixture
def kept(tmp_path: Path) -> Imitation:
    return replace(QUICK, folder=tmp_path / "games", about={"inner": "adam"})


def unlearned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(game_data, "learned", lambda *given: pytest.fail("the agent learns again"))


def test_what_was_made_is_found_again(kept: Imitation, monkeypatch: pytest.MonkeyPatch) -> None:
    first = games(kept)
    one, theirs = first.dataset(0), first.imitations.of(0).agent
    unlearned(monkeypatch)
    second = games(kept)
    assert same(one, second.dataset(0)) and torch.equal(theirs, second.imitations.of(0).agent)
    assert first.dataset(0) is one  # and stays in memory
    assert [path.suffix for path in (kept.folder or Path()).iterdir()] == [".safetensors"]


def damaged(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize("spoil", [damaged, lambda data: data[:100], lambda data: b"", lambda data: b"\x80\x04N." * 50])
def test_a_damaged_file_is_made_again(kept: Imitation, spoil: Any) -> None:
    family = games(kept)
    one, path = family.dataset(0), family.imitations.path(0)
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    assert same(games(kept).dataset(0), one)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("change", ["about", "tensor", "nothing of ours"])
def test_a_foreign_file_is_made_again(kept: Imitation, change: str) -> None:
    family = games(kept)
    one, path = family.dataset(0), family.imitations.path(0)
    assert path is not None
    held, about = unpack(path)
    if change == "about":
        path.write_bytes(pack({**held, "labels": 0 * held["labels"]}, {"about": {**about["about"], "seed": 9}}))
    elif change == "tensor":
        path.write_bytes(pack({**held, "more": held["labels"].clone()}, {"about": about["about"]}))
    else:
        path.write_bytes(pack({"theta": torch.zeros(3)}, {}))
    assert same(games(kept).dataset(0), one)


def test_other_settings_are_another_file(kept: Imitation) -> None:
    paths = {
        games(how, seed=seed).imitations.path(task)
        for how, seed, task in (
            (kept, 0, 0), (kept, 0, 1), (kept, 1, 0), (replace(kept, steps=9), 0, 0), (replace(kept, random=0.1), 0, 0),
            (replace(kept, spacing=9), 0, 0), (replace(kept, labels="likeliest"), 0, 0),
            (replace(kept, examples=9), 0, 0), (replace(kept, about={"inner": "sgd"}), 0, 0),
        )
    }  # fmt: skip
    assert len(paths) == 9


def test_a_folder_that_cannot_be_written_to_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    how = replace(QUICK, folder=tmp_path / "file" / "games")
    assert same(games(how).dataset(0), games().dataset(0))


def test_an_agent_that_diverges_is_named() -> None:
    how = replace(QUICK, inner=lambda steps: optim.sgd(1e30))
    with pytest.raises(RunError, match="catch diverged"):
        games(how).dataset(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "reference_steps must be at least 1, got 0"),
        ({"examples": 0}, "reference_examples"),
        ({"spacing": 0}, "reference_spacing"),
        ({"random": 1.5}, "share from 0 to 1, got 1.5"),
        ({"labels": "best"}, "reference_labels must be one of"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(QUICK, **change)
