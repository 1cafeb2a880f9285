"""Choosing among the initializations of several runs: who is a candidate, and that figures are those of a selection."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measure_documents import scored_as
from report_runs import write_run
from test_report import Page

from leap.metrics.selection import selection
from leap.randomness import generator
from leap.report import summarize, write_report
from leap.report.choice import candidates, choice_tables
from leap.report.transfer import Table


@lru_cache
def _documents() -> tuple[dict[str, Any], ...]:
    """Two learners and the random initialization that they share."""
    return scored_as("leap", 1.0), scored_as("reptile", 1.15)


def _changed(change: Callable[[dict[str, Any]], Any], which: int = 1) -> tuple[dict[str, Any], ...]:
    held = deepcopy(_documents())
    change(held[which])
    return held


def _runs(root: Path, documents: tuple[dict[str, Any], ...]) -> list[Path]:
    folders = []
    for content in documents:
        folders.append(write_run(root, content["learner"], 0))
        (folders[-1] / "measures").mkdir()
        (folders[-1] / "measures" / "measures.json").write_text(json.dumps(content))
    return folders


def _tables(root: Path, documents: tuple[dict[str, Any], ...]) -> list[Table]:
    return choice_tables(summarize(_runs(root, documents)).groups)


def _held(key: str) -> np.ndarray:
    """[S, T, C] of leap, random, reptile."""
    one, two = (document["paths"]["initializations"] for document in _documents())
    return np.array([one["leap"][key], one["none"][key], two["reptile"][key]], dtype=float).transpose(1, 2, 0)


def test_figures_are_those_of_a_selection_with_initializations_as_candidates(tmp_path: Path) -> None:
    tables = _tables(tmp_path, _documents())
    assert [table.y for table in tables] == ["test_error", "train_error_auc"]  # reptile has no steps
    rows = {row.name: row for row in tables[0].rows}
    for name in ("h_score", "probe", "parc"):
        how: dict[str, Any] = {"kind": "similarity", "generator": generator(0, "choice", name, "test_error")}
        assert rows[name].found == selection(_held(name), _held("test_error"), same_tasks=False, **how)
    taus = [row.figure("weighted_tau") for row in tables[0].rows if not row.why]
    assert taus == sorted(taus, key=lambda tau: -(tau or 0.0)) and len(taus) == 7
    assert rows["log_samples"].why == "the same for every initialization"
    assert rows["source_accuracy"].why == "no value here" and rows["source_accuracy"].baseline


def test_a_walk_that_never_got_there_is_worse_than_all_that_did(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).uniform(2, 30, (2, 16, 3))
    steps[steps > 22] = np.nan
    held = deepcopy(_documents())
    for document, start, which in ((held[0], "leap", 0), (held[0], "none", 1), (held[1], "reptile", 2)):
        values = steps[:, :, which]
        walks = document["paths"]["initializations"][start]
        walks["steps_until"] = np.where(np.isnan(values), None, values).tolist()
    table = next(table for table in _tables(tmp_path, held) if table.y == "steps_until")
    outcomes = np.where(np.isnan(steps), np.inf, steps)
    how: dict[str, Any] = {"kind": "similarity", "generator": generator(0, "choice", "leep", "steps_until")}
    wanted = selection(_held("leep"), outcomes, same_tasks=False, **how)
    assert next(row for row in table.rows if row.name == "leep").found == wanted


def test_a_random_initialization_that_runs_share_is_one_candidate(tmp_path: Path) -> None:
    def labels(root: Path, documents: tuple[dict[str, Any], ...]) -> list[str]:
        return [one.label for one in candidates(summarize(_runs(root, documents)).groups)]

    def other(held: dict[str, Any]) -> None:
        walks = held["paths"]["initializations"]["none"]
        walks["h_score"] = (np.array(walks["h_score"]) + 1).tolist()

    assert labels(tmp_path / "same", _documents()) == ["leap", "random, seed 0", "reptile"]
    assert labels(tmp_path / "other", _changed(other)) == ["leap", "random, seed 0", "reptile", "random, seed 0"]


def test_seeds_that_hold_out_other_tasks_are_targets_of_their_own(tmp_path: Path) -> None:
    folders = []
    for seed in (0, 1):
        for content in deepcopy(_documents()):
            content["paths"]["tasks"] = [f"of seed {seed}: {task}" for task in content["paths"]["tasks"]]
            folders.append(write_run(tmp_path, content["learner"], seed))
            (folders[-1] / "measures").mkdir()
            (folders[-1] / "measures" / "measures.json").write_text(json.dumps(content))
    groups = summarize(folders).groups
    assert [one.label for one in candidates(groups)] == ["leap", "random", "reptile"]
    row = next(row for row in choice_tables(groups)[0].rows if row.name == "probe")
    twice = [np.concatenate([_held(key)] * 2, axis=1) for key in ("probe", "test_error")]
    how: dict[str, Any] = {"kind": "similarity", "generator": generator(0, "choice", "probe", "test_error")}
    assert row.found == selection(*twice, same_tasks=False, **how)
    assert row.found["targets"] == 32 and row.found["candidates"] == 3


@pytest.mark.parametrize(
    ("change", "targets", "count"),
    [
        (lambda held: None, 16, 3),
        (lambda held: held["paths"].update(tasks=[f"alphabet {i}" for i in range(8, 24)]), 8, 4),
        (lambda held: held["paths"].update(tasks=[f"alphabet {i}" for i in range(14, 30)]), None, 0),
        (lambda held: held["paths"]["initializations"].pop("reptile"), None, 0),
        (lambda held: held.update(family="other"), None, 0),
        (lambda held: held.update(seeds=[5, 6]), None, 0),
        (lambda held: held.update(seeds=[1, 6]), 16, 4),
        (lambda held: held.update(scores=[]), None, 0),
    ],
    ids=["all", "common tasks", "two tasks", "two candidates", "family", "no seed", "one seed", "no scores"],
)
def test_what_all_candidates_have_counts_and_too_little_gives_no_table(
    change: Callable[[dict[str, Any]], Any], targets: int | None, count: int, tmp_path: Path
) -> None:
    # Where tasks or seeds have other names, the random start of the two is no longer one and the same.
    tables = _tables(tmp_path, _changed(change))
    assert bool(tables) == (targets is not None)
    for table in tables:
        assert {row.found["targets"] for row in table.rows if row.found} == {targets}
        assert {row.found["candidates"] for row in table.rows if row.found} == {count}


def test_the_page_has_the_table_once_and_names_the_candidates(tmp_path: Path) -> None:
    source = write_report(_runs(tmp_path, _documents()), tmp_path / "page.html").read_text()
    page = Page(source)
    assert source.count(">Choosing an initialization</h2>") == 1
    assert "Candidates: leap; random, seed 0; reptile." in page.text
    assert "p (Mantel)" not in page.text  # these are no pairs of tasks
    assert len(page.ids) == len(set(page.ids))
    alone = write_report(_runs(tmp_path / "alone", _documents()[:1]), tmp_path / "alone.html").read_text()
    assert "Choosing an initialization" not in alone
