"""Damaged documents of measures are refused, with the place, what is wrong there and the cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from measure_documents import TASKS, document, scored
from report_runs import write_run

from leap.errors import RunError
from leap.report import summarize
from leap.report.measures import parse_measures

SMALL = document(1, tasks=TASKS[:4], seeds=2)
SCORED = scored(1, tasks=TASKS[:4], seeds=2, only=True)


def _with(change: Callable[[dict[str, Any]], Any], content: dict[str, Any]) -> dict[str, Any]:
    held = deepcopy(content)
    change(held)
    return held


def _matrix(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda held: held["matrices"]["fisher"].update(fields)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda held: held.update(format=2), "format 2, this program reads format 1"),
        (lambda held: held.pop("tasks"), "tasks is not a list of names"),
        (lambda held: held.update(tasks=["a", "b", "a", "c"]), "tasks names 'a' twice"),
        (lambda held: held.update(seeds=["x", "y"]), "seeds is missing or wrong"),
        (
            lambda held: held.update(seeds=[0]),
            r"matrices\.reachability\.values has shape \[2, 4, 4\], expected \[1, 4, 4\]",
        ),
        (lambda held: held.update(learner=None), "learner is None"),
        (lambda held: held.update(matrices=[]), None),
        (lambda held: held.update(matrices=[1]), "matrices is list, not a mapping"),
        (lambda held: held["matrices"].update({"../x": {}}), r"'\.\./x' is not a name"),
        (lambda held: held["matrices"].update(x=3), r"matrices\.x is int"),
        (_matrix(kind="speed"), r"matrices\.fisher\.kind is 'speed', not distance, similarity, outcome"),
        (_matrix(unit=None), r"matrices\.fisher\.unit is None, not a text"),
        (_matrix(values=[[["a"]]]), r"matrices\.fisher\.values is not a table of numbers"),
        (_matrix(censored=[[True]]), r"matrices\.fisher\.censored has shape \[1, 1\]"),
        (lambda held: held["curves"]["structure"].pop("x"), r"curves\.structure\.x is missing"),
        (lambda held: held["curves"]["structure"].update(x=[1, 2]), r"curves\.structure\.values has shape"),
        (lambda held: held["singles"]["complexity"].update(values=[1]), r"singles\.complexity\.values has shape \[1\]"),
        (lambda held: held.update(paths={"tasks": ["a"]}), r"paths\.initializations is missing"),
        (lambda held: held["paths"]["initializations"].update(leap=3), r"paths\.initializations\.leap is int"),
        (lambda held: held["paths"]["tasks"].pop(), r"paths\.initializations\.leap\.path_length has shape"),
        (lambda held: held.update(relations={"a": 1}), "relations is dict, not a list"),
        (lambda held: held["relations"][0].update(x="other"), r"relations\[0\]\.x is 'other'"),
        (lambda held: held["relations"][0].update(mantel_p="small"), r"relations\[0\]\.mantel_p is not"),
        (lambda held: held["relations"][1]["pooled"].update(spearman=[1, 2]), r"relations\[1\]\.pooled is not"),
        (lambda held: held["relations"][1]["pooled"].update(tasks=[1]), r"relations\[1\]\.pooled is not"),
        (lambda held: held["relations"][1]["within"].update(by_target=[0.5]), r"relations\[1\]\.within is not"),
        (lambda held: held["relations"].append(3), r"relations\[3\]\.x is None"),
    ],
)
def test_damage_is_named_with_its_place_and_cure(damage: Any, match: str | None, tmp_path: Path) -> None:
    content = _with(damage, SMALL)
    if match is None:  # nothing was asked for: an empty list is as good as an empty mapping
        content["relations"] = []
        assert parse_measures(content).matrices == {}
        return
    folder = write_run(tmp_path, "leap", 0)
    (folder / "measures").mkdir()
    (folder / "measures" / "measures.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=match) as failed:
        summarize([folder])
    assert f"leap measure {folder}" in str(failed.value)


def _score(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda held: held["scores"][0].update(fields)


def _selection(part: str, **fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda held: held["relations"][0]["selection"][part].update(fields)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda held: held.update(scores={}), None),
        (lambda held: held.update(scores={"h_score": 1}), "scores is dict, not a list"),
        (lambda held: held["scores"].append("leep"), r"scores\[9\]\.name is None, not a text"),
        (_score(name="leep"), r"scores\[3\]\.name is 'leep', which is there twice"),
        (_score(name="../x"), r"scores\[0\]\.name is '\.\./x', which is not a name of letters"),
        (_score(name="other"), r"scores\[0\]\.name is 'other', which is neither a matrix nor a measure of a walk"),
        (_score(name="epochs"), r"matrices\.epochs\.kind is 'outcome', but scores are similarities"),
        (_score(baseline="yes"), r"scores\[0\]\.baseline is 'yes', neither true nor false"),
        (_score(label=3), r"scores\[0\]\.label is 3, not a text"),
        (_selection("spearman", mean="high"), r"relations\[0\]\.selection\.spearman is not what a selection holds"),
        (_selection("kendall", interval=[0.1]), r"relations\[0\]\.selection\.kendall is not"),
        (_selection("weighted_tau", by_target=[0.5]), r"relations\[0\]\.selection\.weighted_tau is not"),
        (_selection("top1", hits=[1]), r"relations\[0\]\.selection\.top1 is not"),
        (_selection("ceiling", regret="?"), r"relations\[0\]\.selection\.ceiling is not"),
        (lambda held: held["relations"][0].update(selection=3), r"relations\[0\]\.selection\.targets is not"),
        (lambda held: held["predictions"][0].update(y="score"), r"predictions\[0\]\.y is 'score', which is no measure"),
        (lambda held: held["predictions"][0].update(initialization="x"), r"predictions\[0\]\.initialization is 'x'"),
        (
            lambda held: held["predictions"][0].update(p_value="?"),
            r"predictions\[0\]\.p_value is not what a predict",
        ),
        (lambda held: held["predictions"][0]["spearman"].update(interval=3), r"predictions\[0\]\.spearman is not"),
        (lambda held: held.update(higher_order=[1]), "higher_order is list, not a mapping"),
        (lambda held: held["higher_order"].pop("pair"), r"higher_order\.pair has shape \[\], expected \[2, 4, 2\]"),
        (
            lambda held: held["higher_order"].update(single=[[0, 1, 2, 4]] * 2),
            r"higher_order\.single names sources that",
        ),
    ],
)
def test_damage_of_scores_is_named_with_its_place(damage: Any, match: str | None) -> None:
    content = _with(damage, SCORED)
    if match is None:
        assert parse_measures(content).scores == ()
        return
    with pytest.raises(RunError, match=match):
        parse_measures(content)


def test_a_baseline_without_any_number_is_no_damage() -> None:
    unknown = _with(_score(name="anything", baseline=True), SCORED)
    assert parse_measures(unknown).scores[0].name == "anything"
