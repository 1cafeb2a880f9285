"""The model card of an export: what was measured stands in it, and what comes from a run stays text."""

from __future__ import annotations

import dataclasses
import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_runs import write_run
from shared_runs import FAMILIES, front, small

from leap.cli import export, lifecycle
from leap.errors import RunError
from leap.report.evaluation import read_evaluation
from leap.run import pack, unpack
from leap.sharing import markdown, results


@pytest.fixture
def run(tmp_path):
    return small(tmp_path / "run")


@pytest.fixture
def evaluated(tmp_path):
    """A run of bowls with an evaluation."""
    settings = dataclasses.replace(FAMILIES["quadratic"][0], tracking="none", device="cpu")
    run = lifecycle.start(settings, tmp_path / "real")
    lifecycle.evaluate(run, dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, steps=4)))
    return run


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


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_one_line_without_markup(text):
    found = markdown.plain(text)
    assert len(found.splitlines()) <= 1 and "<" not in found and ">" not in found
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|#~$]", found) and "://" not in found
