"""Parts of the page: the first screen's sentences, cost, commands, contents, pictures of paths, training of games."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from report_runs import write_run
from test_report import Page, _rewrite, _set
from test_report_returns import GAMES, _found, _run

from leap.report import read_runs, summarize, write_report
from leap.report.captioned import NOTHING
from leap.report.charts import training_curves, training_key
from leap.report.cost import agent_steps, cost_cells, gradients, seconds
from leap.report.first import lead
from leap.report.reproduce import commands
from leap.report.returns_first import answer, by_game, ranking, rivals
from leap.report.summary import Row, Summary

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100


def _labels(rows: list[Row]) -> list[str]:
    return [row.label for row in rows]


def _compared(root: Path, **values: tuple[float, ...]) -> Summary:
    folders = []
    for learner, levels in values.items():
        for seed, value in enumerate(levels):
            folders.append(write_run(root, learner, seed))
            _set(folders[-1], value, learner)
    return summarize(folders)


# The first screen


def test_the_first_screen_tells_the_lead_with_interval_and_verdict(tmp_path: Path) -> None:
    found = _compared(tmp_path, leap=(10, 20, 30), reptile=(12, 21, 33), fomaml=(50, 60, 71))
    rows = {row.label: row for row in found.rows}
    told = lead(found, [rows["reptile"], rows["none"]], found.measures[0])
    reach = 4.3027 / 3**0.5
    assert told.startswith("Final test error of leap: 2.00 points ahead of reptile, the next best (95% interval ")
    assert f"interval {2 - reach:.2f} to {2 + reach:.2f}, may be chance); " in told
    assert "ahead of the random initialization (95% interval" in told and told.endswith("beyond chance).")
    turned = lead(found, [rows["reptile"]], found.measures[1])
    assert turned.startswith("Area under training-error curve of leap: ")

    page = Page(
        write_report([run.folder for _, group in found.groups for run in group], tmp_path / "p.html").read_text()
    )
    before = page.text.split("All figures")[0]
    assert told in before and "Against 1 more" in before and "points better than fomaml" in before


def test_a_best_row_that_is_behind_in_area_says_so(tmp_path: Path) -> None:
    found = _compared(tmp_path, leap=(10, 10, 10), reptile=(20, 20, 20))
    for row in found.rows:
        level = 30.0 if row.label == "leap" else 25.0
        row.tables["train_error_auc"] = np.add.outer([0.0, 1.0, 2.0], np.full(6, level))
    told = lead(found, [row for row in found.rows if row.label == "reptile"], found.measures[1])
    assert "5.00 points behind reptile, the next best (95% interval 5.00 to 5.00, beyond chance)" in told


def test_one_seed_promises_nothing(tmp_path: Path) -> None:
    found = _compared(tmp_path, leap=(10,), reptile=(12,))
    assert "(one seed, nobody can say how sure)" in lead(found, [found.rows[1]], found.measures[0])


def test_the_best_on_games_is_the_one_that_ranks_first(tmp_path: Path) -> None:
    folders = [_run(tmp_path, "leap", seed, gain=1.2) for seed in range(3)]
    folders += [_run(tmp_path, "reptile", seed, gain=3.0) for seed in range(3)]
    found = _found(*folders)
    assert [arm.label for arm in ranking(found)] == ["reptile", "leap", "none"]
    assert [arm.label for arm in rivals(found)] == ["leap", "none"]
    headline, rest = answer(found)
    assert headline == "reptile learns fastest on average over 3 games."
    assert "ahead of leap, the next best, on 3 of 3 games, beyond chance on 3; " in rest
    assert "ahead of the random initialization on 3 of 3 games, beyond chance on 3." in rest
    assert "Score of the last 100 episodes: " in rest
    lines = by_game(found, GAMES[0])
    assert [line.split(":")[0] for line in lines] == ["area", "final score"]
    assert "ahead of leap (" in lines[0] and "ahead of the random initialization (" in lines[0]
    assert lines[0].count("beyond chance") == 2


def test_a_random_initialization_that_wins_is_called_so(tmp_path: Path) -> None:
    found = _found(*(_run(tmp_path, "leap", seed, gain=0.2) for seed in range(3)))
    assert [arm.label for arm in ranking(found)] == ["none", "leap"]
    headline, rest = answer(found)
    assert headline == "The random initialization learns fastest on average over 3 games."
    assert "ahead of leap, the next best, on 3 of 3 games, beyond chance on 3." in rest


# Meta-training of games


def test_meta_training_of_games_is_drawn_by_its_return_whatever_is_null(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        folder = write_run(tmp_path, "leap", seed, meta_steps=0)
        rows = [{"step": 1, "train/loss_last": 1.0, "charts/episodic_return": None}]
        rows += [{"step": i, "train/loss_last": 1.0, "charts/episodic_return": float(i)} for i in (2, 3)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        runs += read_runs([folder])
    assert training_key(runs) == "charts/episodic_return"
    curves = training_curves(runs, "charts/episodic_return")
    assert curves is not None
    np.testing.assert_array_equal(curves, [[1, 2, 3], [np.nan, 2, 3], [np.nan, 2, 3]])
    monthly = [{"step": i, "charts/episodic_return": None if i % 2 else float(i)} for i in range(1, 961)]
    (runs[0].folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in monthly))
    many = training_curves(read_runs([runs[0].folder]), "charts/episodic_return")
    assert many is not None and many[1, 0] == 3.0 and np.isfinite(many).all()  # steps 1 to 4, of which 2 and 4 count


# Cost


def test_cost_is_counted_from_what_was_logged(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0, meta_steps=0, train={"meta_batch": 4, "inner_steps": 50})
    rows = [{"step": i, "time/meta_step_s": 2.0, "charts/SPS": 100.0} for i in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run,) = read_runs([folder])
    assert gradients(run) == 600 and seconds(run) == 6.0 and agent_steps(run) == 600.0
    assert cost_cells([run]) == ["1", "3", "600", "600", "6.00 s", "2.00", NOTHING]
    page = Page(write_report([folder], tmp_path / "page.html").read_text())
    assert "What it cost" in page.text and "All runs together: 6.00 s of meta-training." in page.text

    config = yaml.safe_load((folder / "config.yaml").read_text())
    for field in ("inner_epochs", "validate_every"):
        varied = config | {"train": config["train"] | {field: 3}}
        (folder / "config.yaml").write_text(yaml.safe_dump(varied))
        assert gradients(read_runs([folder])[0]) is None


# How to reproduce, contents, paths


def test_every_run_has_a_command_of_its_own_and_its_settings(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "it's", "leap", seed) for seed in (0, 1)]
    for folder in folders:
        _rewrite(folder, lambda held: held.update(commit="abc123", command="leap compare x"), "provenance.json")
        _rewrite(folder, lambda held: held["versions"].update(leap="0.1.0"), "provenance.json")
    lines = commands(read_runs(folders))
    assert lines[:2] == ["# leap 0.1.0, git checkout abc123", "leap compare x"] and len(lines) == 3 + 4
    assert lines[3].startswith("leap train '") and lines[3].endswith("config.yaml' --out leap-seed0-again")
    assert lines[-1] == "leap evaluate leap-seed1-again"
    page = Page(write_report(folders, tmp_path / "page.html").read_text())
    assert "# seeds: 0, 1" in page.text and "meta:\n  lr: 0.1" in page.text


def test_settings_and_versions_run_nothing(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0, note="</pre><script>alert(1)</script>")
    _rewrite(folder, lambda held: held.update(commit="<img src=x onerror=alert(2)>"), "provenance.json")
    page = Page(write_report([folder], tmp_path / "page.html").read_text())
    assert not {"script", "img"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text and "onerror=alert(2)" in page.text


@pytest.mark.parametrize("content", [PNG, b"<svg onload=alert(1)>", PNG + b"x" * 400_000])
def test_pictures_of_paths_are_in_the_page_where_they_are_pictures(content: bytes, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "paths.png").write_bytes(content)
    page = Page(write_report([folder], tmp_path / "page.html").read_text())
    shown: Any = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    assert len(shown) == (content == PNG) and "Walks of held-out tasks, seen from above" in page.text
    assert (f"Not shown: {folder / 'pictures' / 'paths.png'}" in page.text) == (content != PNG)
