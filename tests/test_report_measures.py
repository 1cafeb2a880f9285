"""Measures in files and on the page: numbers that can be read back, names that do nothing, damage that is named."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measure_documents import TASKS, document
from PIL import Image
from report_runs import write_run
from test_report import HOSTILE, Page

from leap.cli.main import main
from leap.errors import RunError
from leap.report import summarize, write_measures, write_report
from leap.report.measure_page import measures_section
from leap.report.measure_pictures import pictures
from leap.report.measures import parse_measures
from leap.report.tables import measure_means, write_tables
from leap.report.transfer_page import transfer_section

WHOLE = document()
SMALL = document(1, tasks=TASKS[:4], seeds=2)


def _with(change: Callable[[dict[str, Any]], Any], content: dict[str, Any] = SMALL) -> dict[str, Any]:
    held = deepcopy(content)
    change(held)
    return held


def _measured_run(root: Path, content: dict[str, Any], learner: str = "leap") -> Path:
    folder = write_run(root, learner, 0)
    (folder / "measures").mkdir()
    (folder / "measures" / "measures.json").write_text(json.dumps(content))
    return folder


def _only(*sections: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"paths": {}, "singles": {}, "matrices": {}, "curves": {}, "relations": []}
    return SMALL | {name: value for name, value in empty.items() if name not in sections}


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _named(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Files


def test_a_matrix_goes_through_its_files_unchanged(tmp_path: Path) -> None:
    write_tables(parse_measures(SMALL), tmp_path)
    for name, matrix in SMALL["matrices"].items():
        values = np.array(matrix["values"], dtype=float)
        rows = _rows(tmp_path / f"{name}.csv")
        assert rows[0] == ["target", *SMALL["tasks"]] and [row[0] for row in rows[1:]] == SMALL["tasks"]
        read = np.array([[float(cell) if cell else np.nan for cell in row[1:]] for row in rows[1:]])
        np.testing.assert_allclose(read, values.mean(axis=0), rtol=1e-15)

        held = _named(tmp_path / f"{name}.seeds.csv")
        assert len(held) == values.size
        for row in held:
            s, t, o = int(row["seed"]), SMALL["tasks"].index(row["target"]), SMALL["tasks"].index(row["source"])
            assert row[name] == ("" if np.isnan(values[s, t, o]) else repr(float(values[s, t, o])))
            cut = matrix["censored"] is not None and matrix["censored"][s][t][o]
            assert row["censored"] == str(int(cut))


def test_walks_numbers_and_curves_have_files_too(tmp_path: Path) -> None:
    written = {path.name for path in write_tables(parse_measures(SMALL), tmp_path)}
    assert written == {path.name for path in tmp_path.iterdir()}
    paths = _named(tmp_path / "paths.csv")
    held = SMALL["paths"]["initializations"]
    assert len(paths) == 2 * 2 * 16 and "test_loss" not in paths[0]
    assert float(paths[-1]["path_length"]) == held["none"]["path_length"][1][15]
    singles = _named(tmp_path / "singles.csv")
    assert float(singles[5]["complexity"]) == SMALL["singles"]["complexity"]["values"][1][1]
    curve = _named(tmp_path / "curve-structure.csv")
    assert float(curve[-1]["structure"]) == SMALL["curves"]["structure"]["values"][1][3][8]
    assert float(curve[-1]["information in the weights (nats)"]) == SMALL["curves"]["structure"]["x"][1][3][8]


def test_names_reach_no_spreadsheet_as_formulas_and_survive_as_names(tmp_path: Path) -> None:
    tasks = ['=HYPERLINK("x")', "-1+1", 'a "b", c', "two\nlines"]
    write_tables(parse_measures(SMALL | {"tasks": tasks}), tmp_path)
    rows = _rows(tmp_path / "fisher.csv")
    assert [row[0] for row in rows[1:]] == ['\'=HYPERLINK("x")', "'-1+1", 'a "b", c', "two\nlines"]
    assert not any(cell.startswith(("=", "+", "@")) for row in rows for cell in row)
    assert float(rows[1][2]) == pytest.approx(np.mean([seed[0][1] for seed in SMALL["matrices"]["fisher"]["values"]]))
    score = _rows(tmp_path / "score.csv")
    assert any(cell.startswith("-") for row in score[1:] for cell in row[1:])  # numbers stay numbers


def test_the_pictures_are_the_ones_that_were_asked_for(tmp_path: Path) -> None:
    matrices, trees = ["reachability", "fisher", "score", "epochs"], ["reachability.tree", "fisher.tree", "score.tree"]
    scatters, curves = [f"{name}-epochs" for name in matrices[:3]], ["curve-complexity_beta", "curve-structure"]
    spanning = ["reachability.spanning"]
    wanted = ["epochs.predictors", *matrices, *spanning, *trees, *scatters, "paths", "path-and-end", *curves]
    assert [one.name for one in pictures(parse_measures(SMALL))] == wanted
    assert [one.name for one in pictures(parse_measures(_only("paths")))] == ["paths", "path-and-end"]
    drawn = [*matrices, *spanning, *trees, *scatters]
    assert [one.name for one in pictures(parse_measures(_only("matrices")))] == drawn
    assert pictures(parse_measures(_only())) == []
    assert write_measures(_only(), tmp_path) == []

    for path in write_measures(_only("matrices", "paths"), tmp_path):
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width == round(4.6 * 150) and image.height > 200


def test_the_same_document_gives_the_same_pictures_and_another_one_others(tmp_path: Path) -> None:
    content = _only("matrices") | {"matrices": {name: SMALL["matrices"][name] for name in ("fisher", "epochs")}}
    one, again = (write_measures(content, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in again]

    def swap(held: dict[str, Any]) -> None:
        for values in held["matrices"]["fisher"]["values"]:
            values[0][1], values[1][0] = values[1][0], values[0][1]

    changed = {path.name for path in write_measures(_with(swap, content), tmp_path / "c")}
    differ = {name for name in changed if (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()}
    assert {"fisher.png", "fisher.csv", "fisher-epochs.png"} <= differ
    assert "fisher.tree.png" not in differ and "epochs.png" not in differ  # the tree has no direction


# The page


def _without_contents(page: str) -> str:
    """A page without the list of its sections and their ids."""
    return re.sub(r' id="s\d+"|<nav .*?</nav>|<a [^>]*class="skip">.*?</a>', "", page)


def test_a_page_without_measures_is_as_it_was_and_one_with_them_has_a_section_more(tmp_path: Path) -> None:
    plain = write_run(tmp_path / "plain", "leap", 0)
    before = _without_contents(write_report([plain], tmp_path / "before.html").read_text())
    assert "Task distances" not in before

    (plain / "measures").mkdir()
    (plain / "measures" / "measures.json").write_text(json.dumps(SMALL))
    after = _without_contents(write_report([plain], tmp_path / "after.html").read_text())

    measures = parse_measures(SMALL)
    for added in (transfer_section(measures, "leap", "t0"), measures_section(measures, "leap", "m0")):
        assert added.startswith("<section") and after.count(added) == 1
        after = after.replace(added, "")
    assert after.replace(f"\nleap measure {plain.name}-again", "") == before  # how to reproduce it


def test_every_picture_and_relation_is_on_the_page(tmp_path: Path) -> None:
    other = _only("matrices") | {"learner": "fomaml"}
    folders = [_measured_run(tmp_path, SMALL), _measured_run(tmp_path / "other", other, "fomaml")]
    source = write_report(folders, tmp_path / "report.html").read_text()
    page = Page(source)
    for one in pictures(parse_measures(SMALL)):
        assert one.caption in page.text and one.title in page.text
    assert len(page.ids) == len(set(page.ids))
    assert source.count(">Task distances: ") == 2 and ">Task distances: fomaml</h2>" in source
    pooled = SMALL["relations"][0]["pooled"]
    assert f"{pooled['spearman']:.2f}" in page.text
    assert f"[{pooled['tasks'][0]:.2f}".replace("-", "\u2212") in page.text
    assert not {"script", "img", "iframe", "object"} & set(page.tags)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)


def test_names_of_tasks_are_shown_and_never_run(tmp_path: Path) -> None:
    content = document(tasks=HOSTILE, seeds=1, relations=False)
    del content["matrices"]["score"]
    content["paths"]["tasks"] = [f"{i}{HOSTILE[0]}" for i in range(16)]
    content["matrices"]["fisher"]["label"] = content["family"] = "<script>alert(2)</script>$x_{$"
    content["singles"]["complexity"]["unit"] = "</table><script>"
    source = write_report([_measured_run(tmp_path, content)], tmp_path / "report.html").read_text()
    page = Page(source)
    assert not {"script", "img", "iframe", "object", "b", "i"} & set(page.tags)
    for task in HOSTILE:
        assert task[:19] in page.text
    assert "alert(2)" in page.text
    for picture in pictures(parse_measures(content)):
        assert not re.search(r"[<>$]", picture.name)


def test_a_sweep_is_in_the_table_and_not_in_the_scatter() -> None:
    def sweep(held: dict[str, Any]) -> None:
        one = deepcopy(held["relations"][0])
        one["beta"], one["pooled"]["spearman"] = 0.1, -0.77
        held["relations"].append(one)

    measures = parse_measures(_with(sweep))
    section = measures_section(measures, "leap", "m0")
    assert "and epochs, beta 0.1" in section and "\u22120.77" in section
    assert not any("-0.77" in one.caption for one in pictures(measures))
    means = measure_means(measures)
    assert means["relation/reachability/epochs/spearman"] == SMALL["relations"][0]["pooled"]["spearman"]


def test_relations_without_all_parts_are_still_shown() -> None:
    bare = {"x": "reachability", "y": "epochs", "pooled": {"spearman": 0.5}, "within": None, "mantel_p": None}
    target_alone = {"x": "complexity", "y": "epochs", "pooled": {"spearman": 0.25}}
    measures = parse_measures(SMALL | {"relations": [bare, target_alone]})
    section = measures_section(measures, "leap", "m0")
    assert "0.50" in section and "0.25" in section
    assert [one.name for one in pictures(measures) if one.name.endswith("-epochs")] == ["reachability-epochs"]


# Means for trackers


def test_means_are_over_seeds_and_tasks() -> None:
    means = measure_means(parse_measures(SMALL))
    held = SMALL["paths"]["initializations"]
    assert means["learned/path_length"] == pytest.approx(np.mean(held["leap"]["path_length"]))
    assert means["none/test_error"] == pytest.approx(np.mean(held["none"]["test_error"]))
    assert means["mean/complexity"] == pytest.approx(np.mean(SMALL["singles"]["complexity"]["values"]))
    assert means["relation/fisher/epochs/mantel_p"] == SMALL["relations"][1]["mantel_p"]
    assert "learned/test_loss" not in means


# What is refused


def test_a_file_cut_short_and_one_of_another_run_are_named(tmp_path: Path) -> None:
    folder = _measured_run(tmp_path, SMALL)
    file = folder / "measures" / "measures.json"
    whole = file.read_text()
    file.write_text(whole[:-30])
    with pytest.raises(RunError, match=r"measures\.json is damaged or cut short"):
        summarize([folder])
    file.write_text(json.dumps(SMALL | {"learner": "reptile"}))
    with pytest.raises(RunError, match=r"is of learner 'reptile', but config\.yaml says 'leap'"):
        summarize([folder])
    file.write_text(whole.replace('"format": 1', '"format": 1, "unknown": {"later": 1}'))
    assert summarize([folder]).groups[0][1][0].measures is not None


def test_files_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match=r"Cannot write .*taken"):
        write_measures(SMALL, tmp_path / "taken")


def test_a_run_that_was_measured_and_never_evaluated_has_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _measured_run(tmp_path, SMALL)
    (folder / "evaluation.json").unlink()
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    told = capsys.readouterr().out
    assert "measured 4 tasks, 2 seeds; not evaluated" in told and f"leap evaluate {folder}" in told
    page = (tmp_path / "page.html").read_text()
    assert (
        f"Measured: {folder.name}" in page and "Task distances" in page and f"leap measure {folder.name}-again" in page
    )
    (folder / "measures" / "measures.json").unlink()
    assert main(["report", str(folder)]) == 2
    assert "None of the 1 runs has been evaluated" in capsys.readouterr().err
