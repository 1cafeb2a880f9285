"""The model card of an export: what was measured stands in it, and what comes from a run stays text."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_runs import write_run
from shared_runs import FAMILIES, OWN, evaluated_bowls, finished, front, small
from test_report_returns import _run

from leap.cli import export
from leap.errors import RunError, UsageError
from leap.report.evaluation import read_evaluation
from leap.run import pack, unpack
from leap.sharing import markdown, results
from leap.sharing.card import check_licence


@pytest.fixture
def run(tmp_path):
    return small(tmp_path / "run")


@pytest.fixture
def evaluated(tmp_path):
    return evaluated_bowls(tmp_path / "real")


def test_results_stand_beside_those_of_the_random_initialization(tmp_path, evaluated):
    body = front(export.export(evaluated.path, tmp_path / "out"))[1]
    one = read_evaluation(evaluated.path / "evaluation.json")
    table = next(line for line in body.splitlines() if line.startswith("| this one (leap)"))
    mean = one.values["leap"]["test_loss"].mean()
    assert f"{mean:.2f}" in table or f"{mean:.4f}" in table
    assert "| random initialization | " in body and "3 evaluation seeds" in body and "Brackets: 95%" in body
    assert "one training seed" in body and "bowl" in body.lower()


def test_numbers_of_the_card_are_those_of_the_file(tmp_path):
    path = write_run(tmp_path, "leap", 0, level=30.0, tasks=("Greek", "a|b <script>"))
    one = read_evaluation(path / "evaluation.json")
    lines = results.evaluated(one)
    text = "\n".join(lines)
    mean = float(one.values["leap"]["test_error"].mean())
    assert any(line.startswith(f"| this one (leap) | {mean:.1f}%") for line in lines)
    assert "<script>" not in text and "a\\|b &lt;script&gt;" in text
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (0, 4, 5) for line in lines)


def test_walks_that_diverged_and_single_seeds_are_called_so(tmp_path):
    one = read_evaluation(write_run(tmp_path, "leap", 0) / "evaluation.json")
    values = {name: {key: array[:1].copy() for key, array in held.items()} for name, held in one.values.items()}
    values["leap"]["test_error"][0, 2] = float("nan")
    text = "\n".join(results.evaluated(dataclasses.replace(one, values=values, evaluation_seeds=(0,))))
    assert "| this one (leap) | diverged |" in text and "| Ojibwe | diverged |" in text
    assert "nothing here says how sure" in text and "[" not in text


def test_measures_are_told(tmp_path, run):
    from measure_documents import document

    from leap.report.measures import parse_measures

    lines = results.measured(parse_measures(document()))
    assert len(lines) > 2 and all(line.startswith("|") for line in lines if line and "more" not in line)


def test_names_of_measures_are_code_or_left_out_and_no_table_is_endless(monkeypatch):
    from measure_documents import document

    from leap.report.measures import parse_measures

    means = {"a`b": 1.0, "a|b": 2.0, "\u00e9": 3.0, "a\x1bb": 4.0, "plain/name_1": 5.0}
    monkeypatch.setattr(results, "measure_means", lambda found: means)
    found = parse_measures(document())
    _, _, *rows = results.measured(found)
    assert len(rows) == 1 and rows[0].startswith("| `plain/name_1` | 5")
    means |= {f"m{number}": 1.0 for number in range(results.MOST)}
    lines = results.measured(found)
    assert len([line for line in lines if line.startswith("| `")]) == results.MOST
    assert lines[-1] == "1 more are left out."
    monkeypatch.setattr(results, "measure_means", lambda found: {})
    assert results.measured(found) == []


def test_names_in_an_evaluation_stay_text_and_its_tasks_are_not_endless(tmp_path):
    tasks = tuple(f"t{number}" for number in range(results.MOST + 2))
    one = read_evaluation(write_run(tmp_path, "leap", 0, tasks=tasks) / "evaluation.json")
    named = dataclasses.replace(one, split="<b>|", values={"<i>|": one.values["leap"], "none": one.values["none"]})
    text = "\n".join(results.evaluated(named))
    assert "<" not in text and "of the &lt;b&gt;\\| split" in text and "| this one (&lt;i&gt;\\|) |" in text
    assert "| t59 |" in text and "| t60 |" not in text and "2 more tasks are left out." in text
    few = read_evaluation(write_run(tmp_path, "leap", 1) / "evaluation.json")
    assert "left out" not in "\n".join(results.evaluated(few))


def test_games_in_an_evaluation_stay_text(tmp_path):
    one = read_evaluation(_run(tmp_path, "leap", 0) / "evaluation.json")
    names = tuple(f"<{task}>" for task in one.tasks)
    text = "\n".join(results.evaluated(dataclasses.replace(one, tasks=names)))
    assert "here higher is better" in text and f"&lt;{one.tasks[0]}&gt;" in text and "<" not in text


def test_without_results_it_says_so(tmp_path, run):
    assert "Nothing was measured" in front(export.export(run.path, tmp_path / "out"))[1]


def test_damaged_results_are_refused(tmp_path, evaluated):
    (evaluated.path / "evaluation.json").write_text('{"format": 1')
    with pytest.raises(RunError, match=r"evaluation.json is damaged.*leap evaluate"):
        export.export(evaluated.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


HOSTILE = ["a\nb: c\n---\nlicense: mit", "<script>alert(1)", "[x](javascript:y)", "..hidden", "# `x` *y* | z",
           "---", "\u202egnp", "x" * 200, "$(touch x)", "https:__evil.example", "- [ ] {{x}}", "\udce9"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_runs_name_stays_text(tmp_path, name):
    run = small(tmp_path / "inside" / name)
    out = export.export(run.path, tmp_path / "inside" / "out")
    head, body = front(out)
    assert head == {"license": "unknown", "library_name": "pytorch", "tags": head["tags"]}
    title = body.strip().splitlines()[0]
    assert title.startswith("# ") and "<" not in title and "\n\nAn initialization" in body
    assert not re.search(r"(?<!\\)[`\[*|]", title) and "\u202e" not in title
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inside"]
    assert sorted(os.listdir(tmp_path / "inside")) == sorted([name, "out"])


def test_a_header_and_a_provenance_stay_text(tmp_path, run):
    tensors, about = unpack(run.initialization)
    kept = {key: value for key, value in about.items() if key not in ("sha256", "format")}
    run.initialization.write_bytes(pack(tensors, {**kept, "meta_steps": "5\n---\n<script>"}))
    told = {"versions": {"torch": "2\n<script>", "<b>": "1"}, "commit": "<script>", "hardware": "<script>"}
    (run.path / "provenance.json").write_text(json.dumps(told))
    out = export.export(run.path, tmp_path / "out")
    assert "<" not in front(out)[1] and "torch" not in front(out)[1].partition("## Measured")[0].partition("Seed")[2]
    assert json.loads((out / "provenance.json").read_text())["versions"] == {}


def test_a_name_of_nothing_that_shows_is_replaced(tmp_path):
    assert "# initialization\n" in front(export.export(small(tmp_path / "\u202e \u200b").path, tmp_path / "out"))[1]


def test_a_run_is_named_by_its_folder_however_it_is_given(tmp_path, run, monkeypatch):
    monkeypatch.chdir(run.path)
    assert "# run\n" in front(export.export(Path("."), Path("../out")))[1]


def test_settings_in_the_card_stay_text_and_short(tmp_path):
    hostile = {"how": "<script>|a\n# b\n---", "long": "word " * 2000, "[x](y)": "`z`"}
    own = dataclasses.replace(OWN, tasks=dataclasses.replace(OWN.tasks, options=hostile))
    body = front(export.export(finished(tmp_path / "run", own).path, tmp_path / "out"))[1]
    (row,) = (line for line in body.splitlines() if line.startswith("| tasks | custom |"))
    assert "<" not in row and "\\|a" in row and "](y)" not in row.replace("\\]", "") and len(row) < 2000
    assert len(re.findall(r"(?<!\\)\|", row)) == 4 and not re.search(r"(?<!\\)`", row)
    (row,) = (line for line in body.splitlines() if line.startswith("| train |"))
    assert row == r"| train |  | inner\_steps 3, meta\_steps 2, meta\_batch 2, precision highest |"


def test_a_data_set_of_ones_own_stays_text(tmp_path):
    given, network = FAMILIES["multi_cv"]
    names = ("digits", "/opt/her/<b>a|b `c` [d](e)")
    run = finished(
        tmp_path / "run", dataclasses.replace(given, tasks=dataclasses.replace(given.tasks, names=names)), network
    )
    head, body = front(export.export(run.path, tmp_path / "out"))
    (row,) = (line for line in body.splitlines() if "own" in line and line.startswith("|") and "pictures" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 5 and "her" not in row and "&lt;b&gt;a\\|b" in row
    assert "](e)" not in row.replace("\\]", "") and "datasets" not in head


def test_versions_stay_text(tmp_path, run):
    (run.path / "provenance.json").write_text(json.dumps({"versions": {"torch": "2_0_1"}}))
    assert r"torch 2\_0\_1." in front(export.export(run.path, tmp_path / "out"))[1]


@pytest.mark.parametrize("given", ["", " ", "mit\n", "m\u00eft", "\u0663", "-", "a b", "a/b", "mit;gpl", "x" * 61])
def test_what_is_no_licence_is_refused(given):
    with pytest.raises(UsageError, match=r"--license needs an identifier such as mit"):
        check_licence(given)


@pytest.mark.parametrize("given", ["mit", "apache-2.0", "agpl-3.0+", "CC0-1.0", "x" * 60])
def test_licences_that_are_taken(given):
    assert check_licence(given) == given.lower()


def test_the_licence_of_the_network_is_told_where_there_is_one(tmp_path, run):
    with_network = front(export.export(run.path, tmp_path / "out"))[1]
    own = finished(tmp_path / "own", OWN)
    without = front(export.export(own.path, tmp_path / "own-out"))[1]
    told = ("`model.py` is part of leap and MIT.", "- `model.py`: the network")
    assert all(line in with_network and line not in without for line in told)


def test_limits_are_those_of_the_network_and_its_inputs_are_told(tmp_path):
    bodies = {
        name: front(export.export(small(tmp_path / name, name).path, tmp_path / f"{name}-out"))[1]
        for name in ("omniglot", "glyphs", "multi_cv")  # batch and group normalization; heads of a task's own
    }
    assert [name for name in bodies if "statistics of the batch at hand" in bodies[name]] == ["omniglot"]
    assert [name for name in bodies if "the head in the file is random" in bodies[name]] == ["multi_cv"]
    assert "Input: drawings [B, 1, 28, 28], ink in [0, 1]." in bodies["glyphs"]


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_one_line_without_markup(text):
    found = markdown.plain(text)
    assert len(found.splitlines()) <= 1 and "<" not in found and ">" not in found
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|#~$]", found) and "://" not in found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a &lt; b", r"a &amp;lt; b"),
        ("see https://a.org", r"see https:\/\/a.org"),
        ("www.a.org", r"www\.a.org"),
        ("her@a.org", r"her\@a.org"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 117 + "..."),
    ],
)
def test_addresses_are_no_links_entities_stay_and_texts_end(text, shown):
    assert markdown.plain(text) == shown
