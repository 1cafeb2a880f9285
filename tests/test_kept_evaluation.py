"""An evaluation that is cut short goes on where it was, with the numbers of one that was not."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from leap import learners, optim
from leap.cli import configuration, lifecycle
from leap.cli.endings import Stopped, interruptible
from leap.cli.settings import Settings
from leap.errors import UsageError
from leap.evaluate import evaluate
from leap.resumption import Keeper
from leap.run import RunFolder
from tasks.quadratic import Quadratic
from tasks.tiny_games import tiny_games

STEPS = 7


class Cut(Exception):
    """The end of a process."""


def games() -> Any:
    return tiny_games(
        ["corridor"], ["catch", "seek"], seed=0, environments=4, unroll=3, evaluation_episodes=4, network="small"
    )


def told(family: Any, path: Path | None, every: int = 2, cut: int | None = None) -> tuple[dict[str, Any], list[int]]:
    """An evaluation, and which steps were sampled; with `cut` the process ends before that sample."""
    sampled: list[int] = []
    batch = family.batch

    def counted(ids: Any, seeds: Any) -> Any:
        tasks = batch(ids, seeds)
        sample = tasks.sample

        def once(theta: Any, step: int) -> Any:
            if cut is not None and len(sampled) == cut:
                raise Cut
            sampled.append(step)
            return sample(theta, step)

        tasks.sample = once
        return tasks

    family.batch = counted
    keeper = None if path is None else Keeper(path, every, say=lambda text: None)
    found = evaluate(
        family, family.initial(0), learner=None, inner=lambda steps: optim.adam(0.01), steps=STEPS, seed=3,
        evaluation_seeds=[0, 1, 2], execution="sequential", keep=keeper,
    )  # fmt: skip
    return found, sampled


@pytest.mark.parametrize("make", [games, lambda: Quadratic(count=4)], ids=["games", "bowls"])
@pytest.mark.parametrize("cut", [0, 1, 5, 8, 13, 20, 23])
def test_what_was_done_is_not_done_again_and_nothing_differs(make: Any, cut: int, tmp_path: Path) -> None:
    whole, steps = told(make(), None)
    path = tmp_path / "walk.safetensors"
    with pytest.raises(Cut):
        told(make(), path, cut=cut)
    again, rest = told(make(), path)
    assert again == whole
    assert len(rest) <= len(steps) - cut + 3  # at most two steps were not kept, and behind the last is another sample


def test_another_initialization_protocol_or_seed_begins_anew(tmp_path: Path) -> None:
    family, path = Quadratic(count=4), tmp_path / "walk.safetensors"
    said: list[str] = []

    def run(meta: torch.Tensor, seed: int, steps: int = STEPS) -> dict[str, Any]:
        return evaluate(
            family, meta, learner=None, inner=lambda steps: optim.sgd(0.1), steps=steps, seed=seed,
            evaluation_seeds=[0], execution="sequential", keep=Keeper(path, 2, say=said.append),
        )  # fmt: skip

    theta = family.initial(0)
    first = run(theta, 0)
    assert run(theta, 0) == first and not said
    assert run(theta + 1, 0) != first and len(said) == 1
    run(theta, 1)
    run(theta, 1, 9)
    assert len(said) == 3


def test_turns_are_not_kept(tmp_path: Path) -> None:
    from small_multi_cv import small_multi_cv

    family = small_multi_cv()
    meta = torch.cat([family.initial(0), learners.hat().visits.begin(family, 0)])
    with pytest.raises(UsageError, match=r"not kept in the middle; leave out train\.keep_every"):
        evaluate(
            family, meta, learner=learners.hat(), inner=lambda steps: optim.sgd(0.1), steps=2, seed=0,
            evaluation_seeds=[0], execution="sequential", keep=Keeper(tmp_path / "walk.safetensors", 1),
        )  # fmt: skip


def test_a_command_told_to_end_goes_on_with_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["--tracking", "none", "--train.meta-steps", "1", "--train.inner-steps", "3", "--evaluate.steps", "9"]
    overrides += ["--train.keep-every", "100", "--tasks.environments", "4", "--tasks.evaluation-episodes", "4"]
    settings = configuration.load(Settings, ["tiny-games"], [*overrides, "--train.execution", "sequential"])
    runs = [lifecycle.start(settings, tmp_path / name) for name in ("whole", "cut")]
    expected = lifecycle.evaluate(runs[0], settings)

    from tasks.game_batch import GameBatch

    sample, drawn = GameBatch.sample, []

    def signalled(batch: GameBatch, theta: torch.Tensor, step: int) -> Any:
        drawn.append(step)
        if len(drawn) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return sample(batch, theta, step)

    monkeypatch.setattr(GameBatch, "sample", signalled)
    with pytest.raises(Stopped), interruptible():
        lifecycle.evaluate(runs[1], settings)
    assert drawn == [0, 1, 2, 3, 4] and runs[1].kept_evaluation("leap").exists()
    assert not (runs[1].path / "evaluation.json").exists()
    found = lifecycle.evaluate(RunFolder.open(runs[1].path), settings)
    assert drawn[5] == 5  # the step after the one that was under way
    assert found["initializations"] == expected["initializations"]
    assert json.loads((runs[1].path / "evaluation.json").read_text()) == found
    assert not list((runs[1].path / "checkpoints").glob("walk-*"))
