"""What predicts transfer on the page and in files: figures as they were found, baselines in every table, trees."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measure_documents import BASELINES, SCORES, TASKS, scored
from report_runs import write_run
from test_report import HOSTILE, Page

from leap.report import write_measures, write_report
from leap.report.findings import CORRELATED
from leap.report.markup import tag, text
from leap.report.measure_page import measures_section
from leap.report.measure_pictures import pictures, score_scatters
from leap.report.measures import Measures, parse_measures
from leap.report.svg import inline_svg
from leap.report.transfer import outcomes, source_tables, task_tables
from leap.report.transfer_page import told, transfer_section

NAMES = [name for name, *_ in SCORES]


@lru_cache
def _document() -> dict[str, Any]:
    return scored(tasks=TASKS[:5], seeds=2)


@lru_cache
def _section() -> str:
    return transfer_section(_measures(), "leap", "t0")


@lru_cache
def _measures() -> Measures:
    return parse_measures(_document())


def _with(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    held = deepcopy(_document())
    change(held)
    return held


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Rows


def test_rows_are_the_relations_best_first() -> None:
    tables = source_tables(_measures())
    assert [table.y for table in tables] == ["tuned_error", "epochs"]
    for table in tables:
        related = {one["x"]: one for one in _document()["relations"] if one["y"] == table.y}
        figured = [row for row in table.rows if not row.why]
        for row in figured:
            assert row.found == related[row.name]["selection"] and row.p_value == related[row.name]["mantel_p"]
        order = [row.figure("weighted_tau") for row in figured]
        assert order == sorted(order, key=lambda value: -(value or 0.0)) and None not in order
        assert {row.name for row in table.rows} == {
            name for name, matrix in _measures().matrices.items() if matrix.kind != "outcome"
        }
        assert table.rows[: len(figured)] == tuple(figured)
        ceiling = next(iter(related.values()))["selection"]["ceiling"]
        assert table.ceiling == ceiling


def test_scores_and_distances_that_predict_are_positive() -> None:
    rows = {row.name: row for row in source_tables(_measures())[0].rows}
    for name in ("transferability", "reachability", "probe"):  # similarities and a distance
        assert (rows[name].figure("spearman") or 0) > 0.3


def test_baselines_stand_in_every_table_and_say_why_they_have_no_figures() -> None:
    tables = [*source_tables(_measures()), *task_tables(_measures())]
    assert len(tables) == 6
    for table in tables:
        baselines = {row.name: row for row in table.rows if row.baseline}
        assert set(baselines) == set(BASELINES)
        constant = baselines["log_samples"]
        assert constant.why == f"the same for every {'task' if table.initialization else 'source'}"
        assert constant.figure("spearman") is None
        assert baselines["source_accuracy"].why == ("no value here" if table.initialization else "")
    text = Page(_section()).text
    assert text.count("baseline: the same for every source") == 2
    assert text.count("baseline: the same for every task") == 4


def test_a_matrix_that_tells_of_the_target_alone_chooses_no_source() -> None:
    def hardness(held: dict[str, Any]) -> None:
        values = np.repeat(np.arange(5.0)[:, None], 5, axis=1)
        matrix = held["matrices"]["fisher"] | {"values": [values.tolist()] * 2}
        held["matrices"] = {"target_complexity": matrix, **held["matrices"]}
        known = next(one for one in held["relations"] if one["x"] == "fisher")
        held["relations"].append(known | {"x": "target_complexity"})

    row = {row.name: row for row in source_tables(parse_measures(_with(hardness)))[0].rows}["target_complexity"]
    assert row.baseline and row.why == "the same for every source" and row.found == {}


def test_a_relation_at_another_setting_is_no_row() -> None:
    def sweep(held: dict[str, Any]) -> None:
        known = next(one for one in held["relations"] if (one["x"], one["y"]) == ("reachability", "tuned_error"))
        held["relations"].append(known | {"beta": 0.1, "selection": {"weighted_tau": {"mean": -1.0}}})

    assert source_tables(parse_measures(_with(sweep))) == source_tables(_measures())


def test_the_main_outcome_is_the_error_and_else_epochs() -> None:
    def without(*names: str) -> list[str]:
        def change(held: dict[str, Any]) -> None:
            held["relations"] = [one for one in held["relations"] if one["y"] not in names]
            for name in names:
                del held["matrices"][name]

        measures = parse_measures(_with(change))
        assert all(one.name.endswith("-epochs") for one in score_scatters(measures)) or not names
        return [one.name for one in outcomes(measures)]

    assert without() == ["tuned_error", "epochs"] and without("tuned_error") == ["epochs"]
    assert without("tuned_error", "epochs") == []


def test_held_out_tasks_have_a_table_an_initialization_and_end_learned_ones_first() -> None:
    tables = task_tables(_measures())
    assert [(table.initialization, table.y) for table in tables] == [
        ("leap", "test_error"), ("leap", "steps_until"), ("none", "test_error"), ("none", "steps_until"),
    ]  # fmt: skip
    found = {(one["initialization"], one["y"], one["x"]): one for one in _document()["predictions"]}
    for table in tables:
        for row in table.rows:
            known = found.get((table.initialization, table.y, row.name))
            assert (known is None) == bool(row.why)
            for name in CORRELATED if known else ():
                assert (row.figure(name), row.ends(name)) == (known[name]["value"], known[name]["interval"])
        walked = [row.name for row in table.rows if row.walked]
        assert walked == ["path_length"] and table.best is not None and table.best.name in NAMES
    assert "Path length<br><small>known only after training</small>" in _section()


# The page


def _measured_run(root: Path, content: dict[str, Any]) -> Path:
    folder = write_run(root, content["learner"], 0)
    (folder / "measures").mkdir()
    (folder / "measures" / "measures.json").write_text(json.dumps(content))
    return folder


def _shown(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "\u2212")


def test_the_table_shows_every_figure_that_was_found() -> None:
    source = _section()
    head, *rows = re.findall(r"<tr>.*?</tr>", source[source.index('aria-label="What predicts tuned error">') :])
    assert re.findall(r"<th[^>]*>(.*?)</th>", head)[1:] == [
        "Spearman", "Kendall tau-b", "weighted tau \u2193", "p (Mantel)", "top-1", "top-3", "regret (%)",
    ]  # fmt: skip
    table = source_tables(_measures())[0]
    for row, line in zip(table.rows, rows, strict=False):
        assert row.label in line
        if row.why:
            assert f"<small>baseline: {row.why}</small>" in line and line.count("<td") == 7
            continue
        for name in CORRELATED:
            low, high = row.ends(name) or (0.0, 0.0)
            assert f"{_shown(row.figure(name) or 0.0)}<br><small>[{_shown(low)}, {_shown(high)}]</small>" in line
        top = row.found["top1"]
        assert re.search(rf">{top['hits']:.0f}(\.\d)? of {top['targets']}<br><small>by lot {5 / 4:.1f}<", line)
        assert ("<small>baseline</small>" in line) == row.baseline
    assert "Ceiling" in rows[len(table.rows)] and _shown(table.ceiling["spearman"] or 0.0) in rows[len(table.rows)]
    assert "<details" in source and len(Page(source).ids) == len(set(Page(source).ids))


def test_the_best_predictor_is_held_against_the_best_baseline() -> None:
    def answer(best: float, ends: list[float], simple: float) -> str:
        def change(held: dict[str, Any]) -> None:
            for one in held["relations"]:
                value = {"transferability": best, "probe": simple}.get(one["x"], -0.5)
                reach = ends if one["x"] == "transferability" else [simple - 0.1, simple + 0.1]
                one["selection"]["weighted_tau"] |= {"mean": value, "interval": reach}

        return Page(told(source_tables(parse_measures(_with(change)))[0])).text

    assert "weighted tau 0.80 [0.70, 0.90]. Best baseline: Linear probe: negative log-loss, 0.40 [0.30, 0.50]; the " \
        "intervals lie apart" in answer(0.8, [0.7, 0.9], 0.4)  # fmt: skip
    assert "the intervals overlap" in answer(0.8, [0.45, 0.9], 0.4)
    assert "0.80 [\u22120.10, 1.00], which may be chance." in answer(0.8, [-0.1, 1.0], 0.4)
    assert "Nothing beats the baseline Linear probe: negative log-loss: weighted tau 0.85" in answer(0.8, [0, 1], 0.85)


def test_scores_are_drawn_against_the_main_outcome_and_distances_against_all() -> None:
    drawn = [one.name for one in pictures(_measures())]
    scatters = {name for name in drawn if name.endswith(("-epochs", "-tuned_error"))}
    alone = {name for name in NAMES if name != "log_samples"}  # it goes with nothing
    assert {name for name in scatters if name.split("-")[0] in NAMES} == {f"{name}-tuned_error" for name in alone}
    assert {"reachability-epochs", "reachability-tuned_error", "fisher-epochs"} <= scatters
    assert {name.removesuffix(".tree") for name in drawn if name.endswith(".tree")} == {
        "reachability", "fisher", "score", "transferability",
    }  # fmt: skip
    assert [name for name in drawn if name.endswith(".spanning")] == [
        "transferability.spanning", "reachability.spanning",
    ]  # fmt: skip
    assert set(NAMES) <= set(drawn) and "tuned_error.predictors" in drawn


def test_scores_and_distances_each_have_their_own_part_of_the_page() -> None:
    here, there = _section(), measures_section(_measures(), "leap", "m0")
    for one in pictures(_measures()):
        title = tag("p", text(one.title))
        where = title in here, title in there
        if not one.name.endswith((".tree", ".spanning")):
            ours = one.name.split("-")[0] in NAMES or one.name.endswith(".predictors")
            assert where == (ours, not ours), one.name
        assert any(where)
    shown = sum(part.count("<svg") + part.count('class="matrix"') for part in (here, there))
    assert shown == len(pictures(_measures()))


def test_a_document_without_scores_and_relations_has_no_such_part(tmp_path: Path) -> None:
    def old(held: dict[str, Any]) -> None:
        for key in ("scores", "predictions", "higher_order"):
            del held[key]
        held["matrices"] = {name: one for name, one in held["matrices"].items() if name not in NAMES}
        held["relations"] = [
            {key: value for key, value in one.items() if key != "selection"}
            for one in held["relations"]
            if one["x"] not in NAMES
        ]

    measures = parse_measures(_with(old))
    assert measures.scores == () and measures.higher_order is None
    assert transfer_section(measures, "leap", "t0") == ""
    assert "Spanning tree of" in measures_section(measures, "leap", "m0")


def test_names_and_labels_are_shown_and_never_run(tmp_path: Path) -> None:
    content = scored(tasks=HOSTILE, seeds=1, only=True)
    content["scores"] = content["scores"][:4]
    for name in NAMES[4:]:
        del content["matrices"][name]
    content["relations"] = [one for one in content["relations"] if one["x"] in NAMES[:4]]
    for score in content["scores"]:
        score["label"], score["unit"] = f"<script>alert({score['name']!r})</script>", "</table><b>$x_{$"
    start = content["paths"]["initializations"].pop("leap")
    content["paths"]["initializations"]["<i>start</i>"] = start
    content["predictions"] = [
        one | {"initialization": "<i>start</i>"} for one in content["predictions"] if one["initialization"] == "leap"
    ]
    page = Page(write_report([_measured_run(tmp_path, content)], tmp_path / "page.html").read_text())
    assert not {"script", "img", "iframe", "object", "b", "i"} & set(page.tags)
    assert "<script>alert('leep')</script>" in page.text and "<i>start</i> initialization" in page.text


def test_a_page_of_nine_tasks_and_sixteen_scores_is_light() -> None:
    measures = parse_measures(scored(tasks=TASKS[:9], seeds=1, only=True))
    drawn = {one.name: one for one in pictures(measures)}
    often = {"leep": 16, "leep-tuned_error": 16, "tuned_error": 3, "tuned_error.predictors": 2, "epochs": 1, "paths": 1}
    often |= {"transferability.spanning": 2, "transferability.tree": 2, "path-and-end": 1}
    alike = {re.sub(f"^({'|'.join(sorted(NAMES, key=len, reverse=True))})(?=$|-)", "leep", name) for name in drawn}
    assert alike == {*often}
    size = 0
    for name, times in often.items():
        one = drawn[name]
        size += times * len(inline_svg("t0", one.width, one.height, one.draw))
    assert 300_000 < size < 1_000_000


# Files


def test_tables_and_trees_have_files_that_can_be_read_back(tmp_path: Path) -> None:
    written = {path.name for path in write_measures(_document(), tmp_path)}
    assert {"selection.csv", "predictions.csv", "pairs.csv", "transferability.spanning.csv"} <= written
    assert {"tuned_error.predictors.png", "transferability.spanning.png", "leep-tuned_error.png"} <= written
    rows = {(row["outcome"], row["predictor"]): row for row in _rows(tmp_path / "selection.csv")}
    for one in _document()["relations"]:
        row, found = rows[one["y"], one["x"]], one["selection"]
        assert float(row["weighted_tau"]) == found["weighted_tau"]["mean"]
        assert float(row["spearman_low"]) == found["spearman"]["interval"][0]
        assert (
            float(row["top3"]) == found["top3"]["rate"] and float(row["regret_high"]) == found["regret"]["interval"][1]
        )
        assert float(row["mantel_p"]) == one["mantel_p"] and row["baseline"] == str(int(one["x"] in BASELINES))
    assert rows["epochs", "log_samples"]["note"] == "the same for every source"
    assert float(rows["epochs", "ceiling"]["kendall"]) == source_tables(_measures())[1].ceiling["kendall"]
    predicted = _rows(tmp_path / "predictions.csv")
    assert len(predicted) == sum(len(table.rows) + 1 for table in task_tables(_measures()))
    pair, known = _rows(tmp_path / "pairs.csv")[-1], _document()["higher_order"]
    assert [pair["first"], pair["second"]] == [TASKS[place] for place in known["pair"][1][4]]
    assert float(pair["pair_score"]) == known["pair_score"][1][4]
    links = _rows(tmp_path / "transferability.spanning.csv")
    held = np.mean(_document()["matrices"]["transferability"]["values"], axis=0)
    larger = {(TASKS[i], TASKS[j]): max(held[i, j], held[j, i]) for i, j in combinations(range(5), 2)}
    assert len(links) == 4
    for link in links:
        assert float(link["transferability"]) == pytest.approx(larger[link["one"], link["other"]])
        assert 0 <= float(link["share_of_seeds"]) <= 1
