"""What games log: numbers that can be worked out by hand, whoever walked, and the same names everywhere."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from offline_run import OfflineRun
from processes import in_threads
from small_games import GAMES, Spoiled, games

from leap import learners, optim
from leap.cli import lifecycle
from leap.cli.learner_settings import Leap
from leap.cli.settings import Evaluate, Settings, TinyGames, Train
from leap.cli.train import describe
from leap.cli.wandb_sweep import specification
from leap.errors import UsageError
from leap.records import SECOND, STEP, TOTAL, Quotient
from leap.report.returns_curves import POINTS, area, level
from leap.resumption import Keeper
from leap.run import RunFolder
from leap.tally import SUMS
from leap.trainer import Plan, Trainer
from leap.visits import Turn, Visits
from leap.walk import Fold, Walk, walk
from tasks.game_batch import GameBatch
from tasks.games import Games
from tasks.quadratic import Quadratic

ROOT = Path(__file__).resolve().parents[1]
TIMED = {"time/meta_step_s", "time/inner_steps_per_s", "charts/SPS"}
LOSSES = ("policy_loss", "value_loss", "entropy", "explained_variance")
Row = dict[str, Any]


class Noted:
    """A family in float64 that keeps its batches, and ends the process where roll-out number `fatal` is asked for."""

    def __init__(self, inner: Any, fatal: int | None = None, epochs: Sequence[int] = ()) -> None:
        self.inner, self.batches, self.walks, self.left, self.epochs = inner, [], [], fatal, epochs
        self.acted = 0

    def __getattr__(self, name: str) -> Any:
        if name == "epoch" and self.epochs:
            return lambda task: self.epochs[task]
        return getattr(self.inner, name)

    def initial(self, seed: int) -> torch.Tensor:
        return self.inner.initial(seed).double()

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> GameBatch:
        batch = self.inner.batch(ids, seeds)
        roll = batch._roll

        def counted(choose: Any) -> Any:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise InterruptedError
            self.acted += type(choose).__name__ != "Again"
            return roll(choose)

        batch._roll = counted
        self.batches.append((tuple(ids), batch))
        return batch


def build(family: Any, learner: Fold | None = None, exchange: Any = None, **changes: Any) -> Trainer:
    def noted(tasks: Any, meta: Any, **options: Any) -> Walk:
        found = walk(tasks, meta, **options)
        if isinstance(family, Noted):
            family.walks.append(found)
        return found

    options = {"seed": 3, "inner_steps": 5, "meta_batch": 3, "execution": "sequential", "walk": noted}
    meta = ("SGD", optim.constant, {"lr": 1.0 if learner and learner.view else 0.1})
    plan = Plan(**(options | changes))
    return Trainer(family, learner or learners.leap(), lambda steps: optim.sgd(0.05), meta, plan, exchange)


def untimed(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in TIMED}


def by_hand(family: Noted, since: int = 0) -> Row:
    """The charts and losses of a meta-step from its batches' own outcomes, walk by walk and step by step."""
    episodes: dict[str, list[Any]] = {}
    recorded: dict[str, list[float]] = {name: [] for name in LOSSES}
    for (ids, batch), walked in zip(family.batches[since:], family.walks[since:], strict=True):
        for row, task in enumerate(ids):
            own = row if len(walked.losses) == len(ids) else 0
            if not walked.losses[own].isfinite().all():
                continue
            episodes.setdefault(family.name(task), []).extend(batch.outcomes()["episodes"][row])
        for name in LOSSES:
            for own, curve in enumerate(walked.aux[name].tolist()):
                recorded[name] += curve if walked.losses[own].isfinite().all() else []
    ended = {game: held for game, held in episodes.items() if held}
    found: Row = {f"losses/{name}": np.mean(values) for name, values in recorded.items()}
    found["charts/episodes"] = sum(map(len, ended.values()))
    for key, at in (("charts/episodic_return", 1), ("charts/episodic_length", 2)):
        found[key] = np.mean([np.mean([e[at] for e in held]) for held in ended.values()]) if ended else None
    for game in (family.name(task) for task in family.ids("train")):
        held = ended.get(game)
        found[f"games/{game}/episodic_return"] = np.mean([e[1] for e in held]) if held else None
    return found


def close(row: Row, expected: Row, rel: float = 1e-9) -> None:
    assert {key: value is None for key, value in expected.items()} == {key: row[key] is None for key in expected}
    there = {key: value for key, value in expected.items() if value is not None}
    assert {key: row[key] for key in there} == pytest.approx(there, rel=rel, abs=1e-12)


def test_a_row_is_what_can_be_worked_out_from_the_walks() -> None:
    """Three games of which one is drawn twice, and one never ends an episode."""
    long = games(("catch", "short", "long"), make=lambda name, count: GAMES["cut" if name == "long" else name](count))
    family = Noted(long)
    trainer = build(family, meta_batch=4)
    rows = []
    for step in range(3):
        row = trainer.meta_step()
        close(row, by_hand(family, step))
        rows.append(row)
        rolled = 4 * 6 * 4 * 3  # walks, roll-outs with the one at the end, steps, environments
        assert row["charts/SPS"] * row["time/meta_step_s"] == pytest.approx(rolled)
        assert list(row)[-3:] == [f"games/{name}/episodic_return" for name in ("catch", "short", "long")]
    games_twice = [len(ids) - len(set(ids)) for ids, _ in family.batches]
    assert games_twice == [1, 1, 1] and len({row["charts/episodic_return"] for row in rows}) == 3
    assert all(row["charts/episodes"] > 8 and row["losses/entropy"] > 0 for row in rows)


def test_a_game_counts_as_much_as_one_whose_episodes_are_shorter() -> None:
    family = Noted(games(("catch", "short")))
    row = build(family, meta_batch=2).meta_step()
    counts = [len(play.episodes) for play in family.batches[0][1]._plays]
    assert max(counts) >= 2 * min(counts) > 0
    own = [row[f"games/{name}/episodic_return"] for name in ("catch", "short")]
    assert row["charts/episodic_return"] == pytest.approx(sum(own) / 2)
    pooled = [e[1] for play in family.batches[0][1]._plays for e in play.episodes]
    assert row["charts/episodic_return"] != pytest.approx(np.mean(pooled))


def test_without_an_episode_there_is_no_number(tmp_path: Path) -> None:
    family = games(("cut", "short", "catch"), unroll=2)
    row = build(family, meta_batch=2, inner_steps=1).meta_step()  # four agent steps
    drawn = {family.name(task) for task in build(family, meta_batch=2).draw(0)}
    assert row["games/cut/episodic_return"] is None is row["games/catch/episodic_return"]
    assert (row["games/short/episodic_return"] is None) == ("short" not in drawn)
    none = build(games(("cut", "catch")), meta_batch=2, inner_steps=1, seed=1)
    none.family.unroll = 1
    row = none.meta_step()
    assert row["charts/episodic_return"] is None is row["charts/episodic_length"] and row["charts/episodes"] == 0
    run = RunFolder.create(tmp_path / "run", "", {})
    run.append({"step": 1, **row})
    assert '"charts/episodic_return": null' in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert describe(row).startswith("no episode has ended, ")


def test_joint_finetuning_logs_the_same_figures() -> None:
    family = Noted(games(("catch", "short")))
    row = build(family, learners.finetune(), meta_batch=2).meta_step()
    assert family.walks[0].losses.shape == (1, 10)
    close(row, by_hand(family))
    assert row["games/catch/episodic_return"] is not None is not row["games/short/episodic_return"]


@pytest.mark.parametrize("execution", ["sequential", "batched"])
def test_bad_walks_are_in_no_mean(execution: str) -> None:
    def make(name: str, count: int) -> Any:
        return Spoiled(GAMES["short"](count)) if name == "seek" else GAMES[name](count)

    family = Noted(games(make=make))
    row = build(family, learners.reptile(), meta_batch=2, execution=execution).meta_step()
    assert row["meta/bad_tasks"] == 1 and not family.walks[0].losses.isfinite().all()
    close(row, by_hand(family))
    assert row["games/seek/episodic_return"] is None
    assert row["charts/episodic_return"] == row["games/catch/episodic_return"] is not None
    spoiled = next(row for row, task in enumerate(family.batches[0][0]) if family.name(task) == "seek")
    assert family.batches[0][1].outcomes()["episodes"][spoiled]
    assert row["charts/SPS"] * row["time/meta_step_s"] == pytest.approx(2 * 6 * 4 * 3)  # it took the time


@pytest.mark.parametrize("world", [2, 5])
def test_many_processes_log_the_rows_of_one(world: int) -> None:
    """Among five, two have no task, and know all names all the same."""
    family = ("catch", "short", "seek", "corridor")

    def rows(exchange: Any) -> list[Row]:
        trainer = build(Noted(games(family)), exchange=exchange)
        return [trainer.meta_step() for _ in range(2)]

    alone = rows(None)
    found = in_threads(world, lambda exchange: (rows(exchange), exchange.sums))
    for theirs, sums in found:
        assert sums == 2
        for row, expected in zip(theirs, alone, strict=True):
            assert list(row) == list(expected)
            close(row, untimed(expected))
            assert row["charts/SPS"] * row["time/meta_step_s"] == pytest.approx(3 * 6 * 4 * 3)


UNEVEN = {"epochs": 1.0, "meta_batch": 3}
STEPS = (4, 6, 8)  # of catch, short and seek, so that each walks on its own


def uneven(fatal: int | None = None) -> Noted:
    return Noted(games(("catch", "short", "seek")), fatal, STEPS)


def kept(path: Path, said: list[str]) -> Keeper:
    return Keeper(path, every=2, say=said.append)


@pytest.mark.parametrize("fatal", [3, 5, 12, 17])
def test_a_meta_step_that_was_cut_short_logs_the_row_of_one_that_was_not(tmp_path: Path, fatal: int) -> None:
    whole = build(uneven(), **UNEVEN).meta_step()
    said: list[str] = []
    broken = build(uneven(fatal), **UNEVEN)
    broken.keeper = kept(tmp_path / "walk", said)
    with pytest.raises(InterruptedError):
        broken.meta_step()
    family = uneven()
    resumed = build(family, **UNEVEN)
    resumed.keeper = kept(tmp_path / "walk", said)
    row = resumed.meta_step()
    assert untimed(row) == untimed(whole) and said == []
    # what was played before is in the figures and not in the speed, whose time it did not take
    assert 0 < family.acted < sum(STEPS) + 3
    assert row["charts/SPS"] * row["time/meta_step_s"] == pytest.approx(family.acted * 4 * 3)


@pytest.mark.parametrize("fatal", [3, 12])
def test_what_was_kept_with_other_names_is_begun_anew(tmp_path: Path, fatal: int) -> None:
    """As by a version that logged less."""
    whole = build(uneven(), **UNEVEN).meta_step()
    said: list[str] = []
    family = uneven(fatal)
    family.records = {"losses/entropy": family.inner.records["losses/entropy"]}
    broken = build(family, **UNEVEN)
    broken.keeper = kept(tmp_path / "walk", said)
    with pytest.raises(InterruptedError):
        broken.meta_step()
    resumed = build(uneven(), **UNEVEN)
    resumed.keeper = kept(tmp_path / "walk", said)
    assert untimed(resumed.meta_step()) == untimed(whole)
    assert len(said) == 1 and "begins anew" in said[0]


# -- the method knows no games ----------------------------------------------------------------------------------------


class Weighed(Quadratic):
    """Bowls that say how deep they are, and log what the test asks for."""

    def __init__(self, records: Any) -> None:
        super().__init__(count=4)
        self.records = records

    def batch(self, ids: Sequence[int], seeds: Sequence[int]) -> Any:
        batch = super().batch(ids, seeds)
        batch.figures = lambda: {"depth": torch.tensor([float(task) for task in ids]), "one": torch.ones(len(ids))}
        return batch


def test_any_family_can_name_what_it_logs() -> None:
    trainer = build(
        Weighed(
            {
                "mine/depth": [Quotient("depth", "one")],
                "mine/sum": [Quotient("depth", TOTAL)],
                "mine/share": [Quotient("one", STEP)],
                "mine/both": [Quotient("depth", "one"), Quotient("one", "depth")],
                "mine/rate": [Quotient("one", SECOND)],
            }
        ),
        meta_batch=3,
        inner_steps=2,
    )
    ids, row = trainer.draw(0), trainer.meta_step()
    assert row["mine/sum"] == sum(ids) and row["mine/depth"] == pytest.approx(sum(ids) / 3)
    assert row["mine/share"] == 0.5
    assert row["mine/both"] == pytest.approx((sum(ids) / 3 + 3 / sum(ids)) / 2)
    assert row["mine/rate"] * row["time/meta_step_s"] == pytest.approx(3)


def test_tasks_that_are_visited_in_turn_are_summed_as_others() -> None:
    turns = Visits(
        begin=lambda family, seed: torch.zeros(0, dtype=torch.float64),
        open=lambda meta, tasks, *, optimizer, **options: Turn(tasks, meta, optimizer),
        close=lambda meta, tasks, theta: theta,
    )
    learner = learners.reptile()._replace(visits=turns)
    trainer = build(Weighed({"mine/depth": [Quotient("depth", "one")]}), learner, meta_batch=3)
    ids, row = trainer.draw(0), trainer.meta_step()
    assert row["mine/depth"] == pytest.approx(sum(ids) / 3)


def test_a_name_that_nothing_tells_is_refused() -> None:
    with pytest.raises(UsageError, match=r"records ask for 'dept', but its batches tell \['depth', 'one'\]"):
        build(Weighed({"mine/depth": [Quotient("dept", "one")]}), meta_batch=2).meta_step()


def test_families_that_name_nothing_log_what_they_did() -> None:
    trainer = build(Quadratic(), meta_batch=2)
    lengths: list[int] = []
    sum_of = trainer.exchange.sum
    trainer.exchange.sum = lambda tensor: (lengths.append(len(tensor)), sum_of(tensor))[1]
    row = trainer.meta_step()
    assert list(row) == [
        "train/loss", "train/loss_first", "train/loss_last", "train/path_length", "meta/gradient_norm",
        "meta/update_norm", "meta/bad_tasks", "meta/bad_share", "meta/lr", "time/meta_step_s", "time/inner_steps_per_s",
    ]  # fmt: skip
    assert lengths == [len(trainer.meta_parameters) + len(SUMS)]
    assert "records" not in trainer._purpose([0], [0])  # else what an older version kept would be lost


# -- where it goes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")


def explained(keys: set[str], named: Sequence[str]) -> None:
    """docs/metrics.md has every key, games as NAME or GAME, but for wandb's own and the details of tables."""
    known = set(re.findall(r"`([^`]+)`", (ROOT / "docs" / "metrics.md").read_text()))
    plain = {re.sub(r"(?:_table)?/(?:_?[a-z_]*path|_type|log_mode|n?cols|nrows|sha256|size)$", "", key) for key in keys}
    for key in plain:
        forms = {re.sub(rf"/(?:{'|'.join(named)})/", f"/{word}/", key) for word in ("NAME", "GAME")}
        assert key.startswith("_") or forms & known, key


@pytest.mark.usefixtures("_no_account")
def test_files_wandb_and_progress_hold_the_same(tmp_path: Path) -> None:
    tasks = TinyGames(
        train=("catch", "corridor"), test=("seek", "sprint"), environments=3, unroll=4, network="small",
        evaluation_episodes=3,
    )  # fmt: skip
    settings = Settings(
        tasks=tasks, learner=Leap(), train=Train(inner_steps=6, meta_steps=2, meta_batch=2),
        evaluate=Evaluate(steps=12, repetitions=2),
    )  # fmt: skip
    lines: list[str] = []
    run = lifecycle.start(
        settings, tmp_path / "run", lambda step, row: lines.append(describe(row)), say=lambda text: None
    )
    logged = OfflineRun.finished(run.path)
    rows = run.rows()
    assert len(rows) == 2 and rows[0]["charts/episodes"] > 0
    for row, sent in zip(rows, [row for row in logged.rows if "step" in row], strict=True):
        assert {k: v for k, v in sent.items() if not k.startswith("_")} == {
            k: v for k, v in row.items() if v is not None
        }
    assert {logged.axes[f"{prefix}/*"] for prefix in ("train", "charts", "losses", "games")} == {"step"}
    score, speed = rows[1]["charts/episodic_return"], rows[1]["charts/SPS"]
    assert lines[1] == f"mean episodic return {score:.4g}, {speed:.0f} agent steps/s"
    explained({key for row in rows for key in row}, ("catch", "corridor"))

    document = lifecycle.evaluate(run, settings, say=lambda text: None)
    sent = OfflineRun.finished(run.path)
    assert sent.run.job_type == "evaluate"
    budget = document["agent_steps"]
    at = np.linspace(0, budget, POINTS + 1)[1:]
    curve_rows = [row for row in sent.rows if "evaluation/agent_step" in row]
    assert [row["evaluation/agent_step"] for row in curve_rows] == pytest.approx(at.tolist())
    table = sent.table("evaluation/returns")
    held = {tuple(row[:4]): row[4] for row in table["data"]}
    for label, own in (("learned", "leap"), ("none", "none")):
        for t, game in enumerate(document["tasks"]):
            walks = [np.array(seed[t], float) for seed in document["initializations"][own]["episodes"]]
            walks = [episodes[episodes[:, 0] <= budget] for episodes in walks]
            curves = np.array([level(episodes, at) for episodes in walks])
            key = f"evaluation/{label}/{game}"
            assert sent.axes[f"{key}/episodic_return"] == "evaluation/agent_step"
            line = [row.get(f"{key}/episodic_return", math.nan) for row in curve_rows]
            assert np.isfinite(line).any()
            np.testing.assert_allclose(line, curves.mean(axis=0))
            assert sent.summary[f"{key}/return_area"] == pytest.approx(np.mean([area(e, budget) for e in walks]))
            last = np.mean([episodes[-100:, 1].mean() for episodes in walks])
            assert sent.summary[f"{key}/final_return"] == pytest.approx(last)
            tested = np.mean([seed[t] for seed in document["initializations"][own]["test_return"]])
            assert sent.summary[f"{key}/test_return"] == pytest.approx(tested)
            for seed in (0, 1):
                for step, value in zip(at, curves[seed], strict=True):
                    assert held.get((game, seed, float(step), own), math.nan) == pytest.approx(value, nan_ok=True)
    assert any("evaluation/seek/episodic_return_curves_table/path" in row for row in sent.rows)
    assert not any("evaluation/tasks/path" in row for row in sent.rows)
    losses = [row["evaluation/none/train_loss"] for row in sent.rows if "evaluation/none/train_loss" in row]
    means = np.mean(document["initializations"]["none"]["train_loss"], axis=(0, 1))
    np.testing.assert_allclose(losses, means)
    explained({key for row in [*sent.rows, sent.summary] for key in row}, ("seek", "sprint"))


def test_a_sweep_of_games_asks_for_the_highest_return() -> None:
    found = specification(["tiny-games.yaml"], [], Path("runs/x"))
    assert found["metric"] == {"name": "charts/episodic_return", "goal": "maximize"}


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"train/error": 12.34, "train/error_last": 1.0}, "training error 12.3 %, at the end 1.0 %"),
        ({"train/loss": 2.0, "train/loss_last": 1.5}, "training loss 2, at the end 1.5"),
        ({"charts/episodic_return": 123.456, "charts/SPS": 99.6}, "mean episodic return 123.5, 100 agent steps/s"),
        ({"charts/episodic_return": None, "charts/SPS": 5.0}, "no episode has ended, 5 agent steps/s"),
    ],
)
def test_a_line_of_progress(row: Row, line: str) -> None:
    assert describe(row) == line


def test_the_names_are_known_before_any_walk() -> None:
    made: list[str] = []

    def make(name: str, count: int) -> Any:
        made.append(name)
        return GAMES[name](count)

    family: Games = games(make=make)
    walked: Callable[..., Any] = build(family).meta_step
    names = set(family.records)
    assert names <= set(walked())
