"""Leave-one-out comparisons: which runs there are and in which order, figures worked out by hand, and the page."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from report_runs import write_run

from leap.cli import build, compare, leave_one_out, main, sweep
from leap.errors import UsageError
from leap.report import gather, leave_one_out_text, summarize, write_leave_one_out, write_leave_one_out_rows
from leap.report.evaluation import kept
from leap.report.leave_one_out import LeaveOneOut, Method, answer
from leap.report.leave_one_out_charts import blocks
from leap.run import RunFolder

TINY = {
    "tasks": {"name": "multi_cv", "names": ["digits", "latin", "shapes"], "most": 40, "most_test": 20, "batch_size": 8},
    "model": {"filters": 4},
    "train": {"inner_steps": 3, "meta_steps": 2, "meta_batch": 2},
    "evaluate": {"epochs": 2, "validate_every": 2, "patience": 1, "repetitions": 1},
    "inner": {"lr": 0.05},
    "tracking": "none",
    "compare": {"learners": ["leap", "none"], "seeds": [3, 1], "leave_one_out": True},
}


def leap(*arguments: object) -> int:
    return main.main([str(a) for a in arguments])


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return str(tmp_path / "tiny.yaml")


# -- which runs there are ----------------------------------------------------------------------------------------------


def test_every_task_is_held_out_with_every_learner_and_whole_seeds_come_first(tiny: str) -> None:
    runs = compare.plan([tiny], ["--compare.grid.meta.lr", "0.1", "0.2"])
    assert [name.split("/")[0] for name in runs][:4] == ["digits"] * 4
    assert list(runs)[:2] == ["digits/leap-lr=0.1-seed3", "digits/leap-lr=0.2-seed3"] and len(runs) == 3 * 2 * 2 * 2
    assert [settings.seed for settings in runs.values()] == [3] * 12 + [1] * 12
    for name, settings in runs.items():
        tasks: Any = settings.tasks
        assert tasks.held_out == (name.split("/")[0],) and tasks.names == ("digits", "latin", "shapes")


def test_print_config_shows_the_runs_that_only_chooses(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leap("compare", tiny, "--only", "latin", "shapes", "--print-config") == 0
    shown = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [(one["tasks"]["held_out"], one["seed"]) for one in shown] == [
        (["latin"], 3), (["latin"], 3), (["shapes"], 3), (["shapes"], 3),
        (["latin"], 1), (["latin"], 1), (["shapes"], 1), (["shapes"], 1),
    ]  # fmt: skip


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_folders_are_safe_on_any_system_and_two_names_have_two(names: list[str]) -> None:
    one, two = map(leave_one_out.folder_name, names)
    assert one.casefold() != two.casefold()
    assert re.fullmatch(r"[a-z0-9][a-z0-9._+-]{0,60}", one)


def test_folders_say_what_they_hold_and_stay_where_they_are() -> None:
    assert leave_one_out.folder_name("cifar100_coarse") == "cifar100_coarse"
    folders = [leave_one_out.folder_name(name) for name in ("~/a/Birds", "~/b/Birds", "Birds", "birds", "..", "a/..")]
    assert len(set(folders)) == 6 and all(name.startswith("birds") for name in folders[:4]) and folders[3] == "birds"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["quadratic.yaml"], "named one by one .digit_tasks, image_sets, multi_cv.*quadratic has no tasks.names"),
        (["--tasks.held-out", "2"], "glyphs has no tasks.names"),
        (["TINY", "--tasks.held-out", "latin"], "tasks.held_out names latin.*held out in turn"),
        (["digit-tasks.yaml", "--tasks.names", "digit"], "tasks.names is digit; with one held out"),
        (["TINY", "--compare.grid.tasks.held-out", "[latin]"], "tasks.held_out is what compare.leave_one_out is about"),
        (["TINY", "--compare.grid.tasks.names", "[digits, latin]"], "tasks.names is what"),
        (["TINY", "--compare.learners", "leap", "OWN"], "tasks.names differ between runs:\n  leap.*\n  own.*latin"),
    ],
)
def test_what_cannot_be_held_out_in_turn_is_refused(arguments: list[str], told: str, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("tasks: {names: [digits, latin]}")
    places = {"TINY": tiny, "OWN": str(tmp_path / "own.yaml")}
    words = [places.get(word, word) for word in arguments]
    files, overrides = ([words[0]], words[1:]) if not words[0].startswith("--") else ([], words)
    with pytest.raises(UsageError, match=told):
        compare.plan(files, [*overrides, "--compare.leave-one-out", "True"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "latn"], "latn is not among tasks.names; did you mean latin?"),
        (["--only", "latin", "--compare.leave-one-out", "False"], "which is off here"),
        (["--wandb-sweep", "sweep.yaml"], "--only NAME` on each machine instead"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], told: str, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leap("compare", tiny, *arguments) == 2
    assert told in capsys.readouterr().err


def test_settings_are_tried_once_for_all_that_is_held_out(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    family = build.family
    monkeypatch.setattr(build, "family", lambda settings, on: built.append(settings) or family(settings, on))  # type: ignore[func-returns-value]
    unfinished = compare.check(tmp_path / "all", compare.plan([tiny], []))
    assert len(unfinished) == 12 and len(built) == 1
    with pytest.raises(UsageError, match=r"(?i)optim"):
        compare.check(tmp_path / "all", compare.plan([tiny], ["--meta.name", "Adm"]))


# -- from the command to the page --------------------------------------------------------------------------------------


def test_a_command_that_was_stopped_leaves_whole_seeds_and_goes_on(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all"
    done: list[str] = []

    def stops(path: Path, *rest: Any, **more: Any) -> None:
        if len(done) == 8:
            raise KeyboardInterrupt
        work(path, *rest, **more)
        done.append(str(path.relative_to(out)))

    work = sweep.work
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    monkeypatch.setattr(sweep, "work", stops)
    assert leap("compare", tiny, "--out", out) == 130
    assert done[:6] == [f"{name}/{one}-seed3" for name in ("digits", "latin", "shapes") for one in ("leap", "none")]
    assert not (out / "report.html").exists()

    before = {name: (out / name / "evaluation.json").stat().st_mtime_ns for name in done}
    monkeypatch.setattr(sweep, "work", work)
    assert leap("compare", tiny, "--only", "latin", "--out", out) == 0
    told = capsys.readouterr().out
    assert "Not counted" not in told and "Not evaluated yet: shapes/leap-seed1, shapes/none-seed1; repeat" in told
    assert "(1 of 2 seeds)" in told
    assert leap("compare", tiny, "--out", out) == 0
    told = capsys.readouterr().out
    assert "Not evaluated yet" not in told and "seeds)" not in told
    assert {name: (out / name / "evaluation.json").stat().st_mtime_ns for name in done} == before

    rows = list(csv.DictReader((out / "leave-one-out.csv").read_text().splitlines()))
    assert len(rows) == 3 * 2 * 2
    for row in rows:
        document = json.loads((out / row["held_out"] / row["run"] / "evaluation.json").read_text())
        held = document["initializations"][row["learner"]]
        assert document["tasks"] == [row["held_out"]] and document["seed"] == int(row["seed"])
        for key in ("test_error", "final_train_error", "train_error_auc", "validation_error", "steps"):
            assert float(row[key]) == pytest.approx(np.mean(held[key]))
    page = (out / "report.html").read_text()
    for name in ("digits", "latin", "shapes"):
        assert f'<a href="{name}/report.html">{name}</a>' in page and (out / name / "report.html").exists()
    config = yaml.safe_load((out / "latin" / "leap-seed1" / "config.yaml").read_text())
    assert config["wandb"]["group"] == "all-latin" and config["tasks"]["held_out"] == ["latin"]


def test_train_only_trains_every_run_and_reports_nothing(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "carry_out", in_process.carry_out)
    assert leap("compare", tiny, "--compare.seeds", "0", "--train-only", "--out", tmp_path / "all") == 0
    runs = [RunFolder(path.parent) for path in (tmp_path / "all").glob("*/*/config.yaml")]
    assert len(runs) == 6 and all(run.initialization.exists() for run in runs)
    assert not list((tmp_path / "all").rglob("evaluation.json")) and not (tmp_path / "all" / "report.html").exists()


@pytest.mark.slow
def test_workers_carry_out_runs_in_folders_of_folders_and_name_the_one_that_failed(
    tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all"
    runs = compare.plan([tiny], ["--compare.seeds", "0", "--compare.learners", "leap"])
    del runs["digits/leap-seed0"]
    (out / "latin" / "leap-seed0").mkdir(parents=True)
    (out / "latin" / "leap-seed0" / "mine.txt").touch()
    failures = sweep.carry_out(out, runs, 1)
    assert list(failures) == ["latin/leap-seed0"] and "mine.txt" in failures["latin/leap-seed0"]
    assert [path.parent.parent.name for path in out.glob("*/*/evaluation.json")] == ["shapes"]
    assert "failed    latin/leap-seed0" in capfd.readouterr().err


# -- figures -----------------------------------------------------------------------------------------------------------


def held_out(
    root: Path, name: str, learner: str, seed: int, error: float, *, none: float = 50.0, area: float | None = None,
    steps: int = 30, taken: tuple[int, int] | None = None, **fields: Any,
) -> Path:  # fmt: skip
    """A run with this test error; train error half of it, and an area twice it unless another is given."""
    folder = write_run(root / leave_one_out.folder_name(name), learner, seed, tasks=(name,), steps=steps, **fields)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["tasks"] |= {"held_out": [name], "names": ["several"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    document = json.loads((folder / "evaluation.json").read_text())
    for key, own in ((learner, error), ("none", none)):
        held = document["initializations"][key]
        held |= {"test_error": [[own - 1], [own + 1]], "final_train_error": [[own / 2]] * 2}
        held["train_error_auc"] = [[min(2 * own, 100) if area is None or key == "none" else area]] * 2
        held["steps"] = [[k] for k in taken or (steps, steps)]
    (folder / "evaluation.json").write_text(json.dumps(document))
    return folder


def of(found: LeaveOneOut, title: str) -> Method:
    return next(one for one in found.methods if one.title == title)


def test_means_intervals_and_differences_are_those_of_seeds(tmp_path: Path) -> None:
    folders = [
        held_out(tmp_path, "mnist", learner, seed, error, none=20.0 + seed)
        for learner, errors in {"leap": (1.0, 2.0, 3.0), "hat": (3.0, 5.0, 4.0)}.items()
        for seed, error in enumerate(errors)
    ]
    found = gather(folders)
    assert [one.title for one in found.methods] == ["Leap", "HAT", "No pretraining"]
    leap, hat, none = found.methods
    # t(0.975, 2) = 4.30265; the deviation of 1, 2, 3 is 1.
    reach = 4.30265 / math.sqrt(3)
    mine = found.interval("mnist", leap, "test_error")
    assert mine is not None and mine.low is not None and mine.high is not None
    assert (mine.mean, mine.low, mine.high) == pytest.approx((2.0, 2 - reach, 2 + reach), abs=1e-4)
    assert found.interval("mnist", leap, "final_train_error").mean == pytest.approx(1.0)  # type: ignore[union-attr]
    assert found.interval("mnist", none, "test_error").mean == pytest.approx(21.0)  # type: ignore[union-attr]
    behind = found.behind("mnist", hat, leap)  # differences 2, 3, 1
    assert behind is not None and behind.low is not None
    assert (behind.mean, behind.low) == pytest.approx((2.0, 2 - reach), abs=1e-4)
    assert found.behind("mnist", leap, leap) is None
    told = leave_one_out_text(found)
    assert re.search(
        r"mnist +Leap +2\.00 \[-0\.48, 4\.48\]\* +1\.00 \[-0\.24, 2\.24\]\* +4\.00 \[-0\.97, 8\.97\]\*\n", told
    )
    assert re.search(r"HAT +4\.00 \[1\.52, 6\.48\] .*\+2\.00 \[-0\.48, 4\.48\]\n", told)


def test_ranks_and_counts_over_data_sets(tmp_path: Path) -> None:
    errors = {"a": (10, 20, 30), "b": (30, 20, 20), "c": (10, 30, 40)}  # leap, reptile, finetune
    areas = {"a": (50, 40, 60), "b": (50, 60, 70), "c": (50, 60, 70)}
    folders = [
        # Leap's errors spread over seeds, so that the mean ranks otherwise than a seed alone.
        held_out(
            tmp_path, name, learner, seed, errors[name][place] + (6 * (2 * seed - 1) if learner == "leap" else 0),
            area=areas[name][place], none=25.0,
        )
        for name in errors
        for place, learner in enumerate(("leap", "reptile", "finetune"))
        for seed in (0, 1)
    ]  # fmt: skip
    found = gather(folders)
    standings = {one.method.title: one for one in found.standings()}
    leap, reptile, none = standings["Leap"], standings["Reptile"], standings["No pretraining"]
    # test errors with none's 25: a 10 20 30 25, b 30 20 20 25, c 10 30 40 25; areas with its 50: 50 40 60 50, ...
    assert (leap.lowest["test_error"], leap.lowest["train_error_auc"], leap.both) == (2, 2, 1)
    assert (reptile.lowest["test_error"], reptile.lowest["train_error_auc"], reptile.both) == (1, 1, 0)
    assert none.lowest == {"test_error": 0, "train_error_auc": 2}  # it ties on b and c
    assert leap.rank["test_error"] == pytest.approx((1 + 4 + 1) / 3)
    assert reptile.rank["test_error"] == pytest.approx((2 + 1.5 + 3) / 3)
    assert leap.rank["train_error_auc"] == pytest.approx((2.5 + 1.5 + 1.5) / 3)
    assert leap.gain is not None and leap.gain.mean == pytest.approx((-15 + 5 - 15) / 3) and leap.gain.count == 3
    assert none.gain is None
    assert answer(found) == (
        "Leap has the lowest test error on 2 of 3 held-out data sets.",
        "It has the lowest area under the training-error curve on 2, and both on 1.",
    )
    assert {one.title for one in found.best("b", "test_error")} == {"Reptile", "Finetuning"}


def test_what_is_missing_is_said_and_never_averaged_away(tmp_path: Path) -> None:
    folders = [held_out(tmp_path, name, "leap", seed, 10.0 + seed) for name in "ab" for seed in (0, 1)]
    folders += [held_out(tmp_path, "a", "hat", 1, 10.5)]
    found = gather(folders, names=["c", "b", "a"], seeds=[1, 0], missing=[tmp_path / "c" / "leap-seed0"])
    assert found.names == ("c", "b", "a") and found.counted == ("a",)
    leap, hat = of(found, "Leap"), of(found, "HAT")
    assert found.interval("a", leap, "test_error").mean == 10.5  # type: ignore[union-attr]
    assert found.means("a", "test_error")[leap] == 11.0  # with seed 1, which is all that HAT has
    assert found.best("a", "test_error") == {hat}
    assert found.behind("a", hat, leap).mean == pytest.approx(-0.5)  # type: ignore[union-attr]
    assert found.best("b", "test_error") == set() and found.interval("c", leap, "test_error") is None
    told = leave_one_out_text(found)
    assert re.search(r"c +Leap +missing +missing +missing\n", told) and "10.5* (1 of 2 seeds)" in told
    assert "Not counted, since no seed is there for every method: c, b." in told
    assert "Not evaluated yet: c/leap-seed0; repeat the command" in told
    page = write_leave_one_out(found, tmp_path / "report.html").read_text()
    assert "<small>missing</small>" in page and "1 of 2 seeds" in page and "2 more cannot be counted yet" in page


def test_a_walk_that_diverged_is_no_mean_and_ranks_last(tmp_path: Path) -> None:
    folders = [held_out(tmp_path, name, learner, 0, 10.0) for name in "ab" for learner in ("leap", "hat")]
    document = json.loads((folders[0] / "evaluation.json").read_text())
    document["initializations"]["leap"]["test_error"] = [[None], [1.0]]
    (folders[0] / "evaluation.json").write_text(json.dumps(document))
    found = gather(folders)
    leap, hat, _ = found.standings()
    assert found.interval("a", leap.method, "test_error") is None
    assert (leap.rank["test_error"], hat.rank["test_error"]) == ((3 + 1.5) / 2, (1 + 1.5) / 2)
    assert (leap.lowest["test_error"], hat.lowest["test_error"], leap.gain) == (1, 2, None)
    assert re.search(r"a +Leap +diverged +5\.00\*", leave_one_out_text(found))
    rows = list(csv.DictReader(write_leave_one_out_rows(found, tmp_path / "rows.csv").read_text().splitlines()))
    assert [row["test_error"] for row in rows if row["learner"] == "leap"] == ["", "10.0"]
    assert "<script" not in write_leave_one_out(found, tmp_path / "report.html").read_text()


def test_no_pretraining_is_that_of_its_own_runs_where_there_are_some(tmp_path: Path) -> None:
    folders = [held_out(tmp_path, "a", "leap", 0, 10.0, none=60.0, inner={"lr": 0.5})]
    alone = gather(folders)
    assert alone.interval("a", of(alone, "No pretraining"), "test_error").mean == 60.0  # type: ignore[union-attr]
    own = held_out(tmp_path, "a", "none", 0, 40.0, none=40.0, inner={"lr": 0.1})
    both = gather([*folders, own])
    assert [one.title for one in both.methods] == ["Leap", "No pretraining"]
    assert both.interval("a", both.methods[1], "test_error").mean == 40.0  # type: ignore[union-attr]
    other = held_out(tmp_path, "a", "hat", 0, 10.0, none=70.0, inner={"lr": 0.9})
    several = gather([*folders, other])
    assert [one.title for one in several.methods[2:]] == [
        "No pretraining (inner.lr=0.5)",
        "No pretraining (inner.lr=0.9)",
    ]
    assert several.sole("none") is None and all(one.gain is None for one in several.standings())


def test_configurations_of_one_learner_are_rows_of_their_own(tmp_path: Path) -> None:
    folders = [held_out(tmp_path, name, "leap", 0, 10.0, meta={"lr": lr}) for name in "ab" for lr in (0.1, 0.2)]
    found = gather(folders)
    titles = ["Leap (meta.lr=0.1)", "Leap (meta.lr=0.2)", "No pretraining"]
    assert [one.title for one in found.methods] == titles and found.sole("leap") is None
    assert "above Leap's" not in leave_one_out_text(found)


def test_runs_that_do_not_belong_in_one_table_are_refused(tmp_path: Path) -> None:
    good = held_out(tmp_path, "a", "leap", 0, 10.0)
    with pytest.raises(UsageError, match="holds out None"):
        gather([write_run(tmp_path, "leap", 0)])
    with pytest.raises(UsageError, match="one configuration with one seed"):
        gather([good, held_out(tmp_path / "copy", "a", "leap", 0, 10.0)])
    with pytest.raises(UsageError, match="steps is 30 in the one and 40"):
        gather([good, held_out(tmp_path, "a", "hat", 0, 10.0, steps=40)])
    assert gather([good, held_out(tmp_path, "b", "leap", 0, 10.0, steps=40)]).names == ("a", "b")  # another size
    (good / "evaluation.json").unlink()
    with pytest.raises(UsageError, match="has not been evaluated"):
        gather([good])


# -- curves ------------------------------------------------------------------------------------------------------------


def test_a_curve_ends_with_its_longest_walk_and_others_keep_their_last_level(tmp_path: Path) -> None:
    folder = held_out(tmp_path, "a", "leap", 0, 10.0, steps=6, taken=(4, 2), evaluate={"validate_every": 2})
    document = json.loads((folder / "evaluation.json").read_text())
    curves = [[[90, 80, 40, 20, None, None]], [[70, 50, None, None, None, None]]]
    document["initializations"]["leap"]["train_error"] = curves
    (folder / "evaluation.json").write_text(json.dumps(document))
    found = gather([folder])
    (walks,) = found.at("a", of(found, "Leap")).values()
    assert walks.curve.tolist() == [80, 65, 50, 40] and walks.values["steps"] == 3.0  # 60 is kept by the second
    row = next(row for row in summarize([folder]).rows if row.label == "leap")
    assert row.curves.tolist() == [[80, 65, 50, 40]]
    longer = np.array([100.0, 90.0, 80.0, 70.0, 60.0])
    steps, mean = blocks([walks, type(walks)(walks.run, walks.values, longer)])
    assert steps.tolist() == [1, 2, 3, 4, 5] and mean.tolist() == [90, 77.5, 65, 55, 50]


def test_a_walk_that_diverged_has_no_level_to_keep() -> None:
    curves = np.array([[5.0, np.nan, np.nan, np.nan], [5.0, 4.0, 3.0, 2.0], [5.0, 4.0, np.nan, np.nan]])
    found = kept(curves, np.array([3, 4, 2]), last=1)
    assert np.isnan(found[0, 1:]).all() and found[1:].tolist() == [[5, 4, 3, 2], [5, 4, 4, 4]]
    assert np.isnan(curves[2, 2])  # the caller's


# -- the page ----------------------------------------------------------------------------------------------------------


def test_names_are_shown_and_never_run(tmp_path: Path) -> None:
    name = "~/<script>alert(1)</script>/$x"
    folders = [held_out(tmp_path, name, learner, 0, 10.0) for learner in ("leap", "=2*3")]
    found = gather(folders)
    page = write_leave_one_out(found, tmp_path / "report.html", {name: Path("a b/javascript:x.html")}).read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;/$x" in page
    assert 'href="a%20b/javascript%3Ax.html"' in page and "default-src &#x27;none&#x27;" not in page
    assert not re.search(r'(src|href)="(?!#|data:|a%20b/)', page)  # asks nothing of the network
    rows = list(csv.DictReader(write_leave_one_out_rows(found, tmp_path / "rows.csv").read_text().splitlines()))
    assert {row["held_out"] for row in rows} == {name} and {row["learner"] for row in rows} == {"leap", "'=2*3", "none"}


def test_the_page_says_all_that_the_table_says_and_is_the_same_twice(tmp_path: Path) -> None:
    folders = [
        held_out(tmp_path, name, learner, seed, 10.0 + seed + place)
        for name in "ab"
        for place, learner in enumerate(("leap", "fomaml", "progressive"))
        for seed in (0, 1)
    ]
    page = write_leave_one_out(gather(folders), tmp_path / "report.html").read_text()
    assert page == write_leave_one_out(gather(folders), tmp_path / "other.html").read_text()
    assert "What it cost" in page
    for what in ("Leap has the lowest test error on 2 of 2", "Progressive Nets", "FOMAML", "10.5", "95% t-interval"):
        assert what in page
    assert page.count('class="n best"') == 2 * 3 and page.count("<svg") >= 2
    assert "leap train configs/glyphs.yaml configs/learner/progressive.yaml --seed 1" in page
