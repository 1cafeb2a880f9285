"""The report: figures that were worked out by hand, comparisons that are refused, and a page that runs nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import TASKS, write_run

from leap.errors import RunError, UsageError
from leap.metrics.statistics import difference_interval, mean_interval
from leap.report import comparison_text, summarize, write_report
from leap.report.pictures import comparison, learning_curves
from leap.report.summary import Row, Summary


def _rewrite(folder: Path, change: Any, name: str = "evaluation.json") -> None:
    """Change the JSON of a run in place."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def _set(folder: Path, value: float, name: str = "leap", key: str = "test_error") -> None:
    def change(content: dict[str, Any]) -> None:
        content["initializations"][name][key] = np.full((2, len(TASKS)), value).tolist()

    _rewrite(folder, change)


def _row(summary: Summary, label: str) -> Row:
    return next(row for row in summary.rows if row.label == label)


# Intervals


def test_the_interval_is_students() -> None:
    # t(0.975, 3) = 3.1824; the deviation of 1, 2, 3, 4 is 1.29099.
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert interval.mean == 2.5 and interval.count == 4
    assert interval.low == pytest.approx(2.5 - 3.18245 * 1.29099 / 2, abs=1e-4)
    assert interval.high == pytest.approx(2.5 + 3.18245 * 1.29099 / 2, abs=1e-4)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [mean_interval(list(rng.normal(5, 2, 3)), 0.8) for _ in range(1500)]
    inside = [one.low <= 5 <= one.high for one in held if one.low is not None and one.high is not None]
    assert np.mean(inside) == pytest.approx(0.8, abs=0.035)


def test_welch_agrees_with_scipy() -> None:
    from scipy.stats import ttest_ind

    x, y = [1.0, 2.0, 4.0, 8.0], [3.0, 3.5, 5.5]
    mine = difference_interval(x, y, paired=False)
    theirs = ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_an_interval_of_nothing_or_of_what_is_not_finite_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="got"):
        mean_interval(values)


# The table


def test_rows_are_means_over_tasks_and_repetitions_with_intervals_over_seeds(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "leap", seed) for seed in range(3)]
    for folder, value in zip(folders, (10.0, 12.0, 14.0), strict=True):
        _set(folder, value)

    summary = summarize(folders)

    interval = _row(summary, "leap").interval("test_error")
    assert interval is not None and interval.low is not None
    assert (interval.mean, interval.count) == (12.0, 3)
    assert interval.low == pytest.approx(12 - 4.3027 * 2 / 3**0.5, abs=1e-3)
    assert [row.label for row in summary.rows] == ["leap", "none"]
    assert "12.0 [7.0, 17.0]" in comparison_text(summary)


def test_seed_device_and_tracking_do_not_split_a_group_and_anything_else_does(tmp_path: Path) -> None:
    # The made-up runs differ in device and tracking from seed to seed.
    folders = [write_run(tmp_path, "leap", seed, meta={"lr": lr}) for lr in (0.1, 0.5) for seed in (0, 1)]

    summary = summarize(folders)

    assert {label: len(runs) for label, runs in summary.groups} == {"leap (meta.lr=0.1)": 2, "leap (meta.lr=0.5)": 2}
    assert summary.differences == {"meta.lr": ["0.1", "0.5"]}


def test_learners_that_share_a_seed_share_its_random_initialization(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, learner, seed) for learner in ("leap", "reptile") for seed in (0, 1, 2)]
    folders.append(write_run(tmp_path, "none", 3))

    none = _row(summarize(folders), "none")

    assert none.seeds == (0, 1, 2, 3)
    held = json.loads((folders[5] / "evaluation.json").read_text())["initializations"]["none"]["test_error"]
    assert none.values("test_error")[2] == pytest.approx(np.mean(held))


def test_random_initializations_that_walk_differently_are_not_pooled(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "leap", 0, inner={"lr": lr}) for lr in (0.1, 0.5)]

    def faster(content: dict[str, Any]) -> None:
        losses = np.array(content["initializations"]["none"]["train_loss"])
        content["initializations"]["none"]["train_loss"] = (losses * 0.9).tolist()

    _rewrite(folders[1], faster)

    labels = [row.label for row in summarize(folders).rows if row.baseline]
    assert labels == ["none [beside leap (inner.lr=0.1)]", "none [beside leap (inner.lr=0.5)]"]


def test_the_verdict_pairs_seeds_and_says_when_the_order_may_be_chance(tmp_path: Path) -> None:
    folders = {}
    for learner, values in {"leap": (10, 20, 30), "reptile": (12, 21, 33), "fomaml": (11, 30, 20)}.items():
        for seed, value in enumerate(values):
            folder = folders[learner, seed] = write_run(tmp_path, learner, seed)
            _set(folder, value, learner)

    summary = summarize(folders.values())
    verdicts = {verdict.other.label: verdict for verdict in summary.verdicts()}

    # Unpaired, spreads of 10 between seeds would hide the steady difference of 2.
    behind = verdicts["reptile"].behind
    assert behind.mean == pytest.approx(2) and behind.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-3)
    assert verdicts["reptile"].paired and not verdicts["reptile"].settled
    assert verdicts["none"].settled
    assert "leap leads with final test error 20.0%, but fomaml and reptile may be as good." in comparison_text(summary)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    text = comparison_text(summarize([write_run(tmp_path, "leap", 0)]))
    assert "[" not in text.split("Brackets")[0]
    assert "one seed cannot say how surely" in text


def test_a_family_without_error_is_compared_by_its_loss(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "leap", seed, error=False) for seed in (0, 1)]
    summary = summarize(folders)
    assert [measure.key for measure in summary.measures] == ["test_loss", "train_loss_auc", "path_length"]
    assert write_report(folders, tmp_path / "report.html").read_text().count("final test error") == 0


def test_a_walk_that_diverged_leaves_no_mean_behind(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, learner, seed) for learner in ("leap", "reptile") for seed in (0, 1)]
    _rewrite(folders[0], lambda held: held["initializations"]["leap"]["path_length"][0].__setitem__(1, None))
    _rewrite(folders[0], lambda held: held["initializations"]["leap"]["test_error"][0].__setitem__(1, None))

    summary = summarize(folders)

    assert _row(summary, "leap").interval("test_error") is None
    assert summary.rows[-1].label == "leap"
    assert "diverged" in comparison_text(summary)
    assert "diverged" in write_report(folders, tmp_path / "report.html").read_text()


def test_a_comparison_in_which_everything_diverged_is_still_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0)

    def lose(content: dict[str, Any]) -> None:
        for held in content["initializations"].values():
            held.update(test_error=[[None] * len(TASKS)] * 2, train_error=[[[None] * 30] * len(TASKS)] * 2)

    _rewrite(folder, lose)
    assert "No initialization can be called best" in write_report([folder], tmp_path / "report.html").read_text()
    comparison(summarize([folder]), tmp_path / "comparison.png")


def test_runs_without_an_evaluation_are_listed(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "leap", 0), write_run(tmp_path, "maml", 0, evaluated=False)]
    assert f"Not evaluated yet: {folders[1]}" in comparison_text(summarize(folders))
    assert f"leap evaluate {folders[1]}" in write_report(folders, tmp_path / "report.html").read_text()


# What is refused


def test_a_comparison_of_different_protocols_is_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path, "leap", 0)
    for name, change in {
        "family": lambda held: held.update(family="omniglot"),
        "split": lambda held: held.update(split="validation"),
        "tasks": lambda held: held.update(tasks=["another", *TASKS[1:]]),
        "evaluation_seeds": lambda held: held.update(evaluation_seeds=[4, 5]),
    }.items():
        other = write_run(tmp_path / name, "reptile", 0)
        _rewrite(other, change)
        with pytest.raises(UsageError, match=f"{re.escape(str(other))} cannot be compared: {name} is"):
            summarize([one, other])
    with pytest.raises(UsageError, match="steps is 30 in the one and 20"):
        summarize([one, write_run(tmp_path / "steps", "reptile", 0, steps=20)])


def test_seeds_may_hold_out_different_tasks(tmp_path: Path) -> None:
    """Splits depend on the seed: a seed's mean is over its own tasks, a task's over the seeds that held it out."""
    first, second = TASKS, ("Tibetan", "Latin", "Mongolian", "Braille", "N_Ko", "Balinese")
    folders = [
        write_run(tmp_path, learner, seed, level, tasks=tasks)
        for learner, level in (("leap", 20.0), ("reptile", 40.0))
        for seed, tasks in ((0, first), (1, second))
    ]
    summary = summarize(folders)
    row = _row(summary, "leap")
    by_task = row.by_task("test_error")
    assert set(by_task) == {*first, *second} and row.tasks == (first, second)
    assert by_task["Tibetan"] == pytest.approx(row.tables["test_error"][:, 0].mean())
    assert by_task["Latin"] == pytest.approx(row.tables["test_error"][1, 1])
    page = write_report(folders, tmp_path / "report.html").read_text()
    assert all(name in page for name in (*first, *second))
    with pytest.raises(UsageError, match="tasks is"):
        summarize([*folders, write_run(tmp_path, "maml", 1, tasks=first)])


def test_one_configuration_and_seed_twice_is_refused_and_one_folder_twice_counts_once(tmp_path: Path) -> None:
    one, again = write_run(tmp_path, "leap", 0), write_run(tmp_path / "again", "leap", 0)
    with pytest.raises(UsageError, match=r"one configuration with one seed \(0\)"):
        summarize([one, again])
    assert _row(summarize([one, one / ".." / one.name]), "leap").seeds == (0,)


@pytest.mark.parametrize(
    ("damage", "kind", "match"),
    [
        (lambda folder: (folder / "config.yaml").unlink(), UsageError, r"is not a run folder: it has no config\.yaml"),
        (lambda folder: (folder / "evaluation.json").unlink(), UsageError, "None of the 1 runs has been evaluated"),
        (lambda folder: _cut(folder / "evaluation.json"), RunError, r"evaluation\.json is damaged.*leap evaluate"),
        (lambda folder: _cut(folder / "provenance.json"), RunError, r"provenance\.json is damaged"),
        (lambda folder: (folder / "config.yaml").write_text("a: [1"), RunError, r"config\.yaml cannot be read"),
        (lambda folder: (folder / "config.yaml").write_text("- 1"), RunError, "holds list, not a mapping"),
        (lambda folder: (folder / "config.yaml").write_text("learner: leap"), RunError, "seed None, which is not"),
        (lambda folder: (folder / "metrics.jsonl").write_text("{}\n{}\n"), RunError, r"metrics\.jsonl, line 1"),
        (lambda folder: _rewrite(folder, lambda held: held.update(format=2)), RunError, "format 2.*reads format 1"),
        (lambda folder: _rewrite(folder, lambda held: held.pop("tasks")), RunError, "lacks a field.*tasks"),
        (lambda folder: _rewrite(folder, lambda held: held["tasks"].pop()), RunError, r"shape \[2, 6\], expected"),
        (lambda folder: _rewrite(folder, lambda held: held.update(seed=7)), RunError, r"seed 7, but config\.yaml"),
        (lambda folder: _set(folder, 170.0), RunError, "reaches 170; errors are percent"),
    ],
)
def test_damaged_input_is_named_with_its_cure(damage: Any, kind: type, match: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0)
    damage(folder)
    with pytest.raises(kind, match=match):
        summarize([folder])


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:-40])


def test_a_line_that_a_stopped_run_left_half_written_does_not_matter(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0, meta_steps=5)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "train/')
    assert len(summarize([folder]).groups[0][1][0].metrics) == 5


def test_folders_that_do_not_exist_and_pages_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere is not a run folder: it does not exist"):
        summarize([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="No run folders"):
        summarize([])
    folder = write_run(tmp_path, "leap", 0)
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match=r"Cannot write .*taken"):
        write_report([folder], tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name, "taken"]  # nothing half-written


# The page and the pictures


class Page(HTMLParser):
    """What a browser would see: elements, addresses, and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = (
    "<script>alert(1)</script>",
    "--><img src=x onerror=alert(1)>",
    "$x_{$",
    "日本語",
    '"><b id="q',
    "#0072b2&amp;",
)


def test_the_page_holds_everything_and_runs_nothing(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path, learner, s, tasks=HOSTILE) for learner in ("leap", "</title><script>") for s in (0, 1)
    ]
    _rewrite(folders[0], lambda held: held.update(command="leap train <i>x</i>"), "provenance.json")

    source = write_report(folders, tmp_path / "out" / "report.html").read_text()
    page = Page(source)

    assert not {"script", "img", "iframe", "object", "b", "i"} & set(page.tags)
    assert page.tags.count("link") == 1 and "data:," in page.addresses
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import", source)
    assert len(page.ids) == len(set(page.ids))
    for task in HOSTILE:
        assert task in page.text
    for words in ("learner.name", "leap train <i>x</i>", "2.13.0", "Meta-training", "Learning held-out tasks"):
        assert words in page.text
    assert len(source) < 400_000


def test_the_same_runs_give_the_same_page_and_pictures(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, learner, seed) for learner in ("leap", "reptile") for seed in (0, 1)]
    pages = [write_report(folders, tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    pictures = [comparison(summarize(folders), tmp_path / name).read_bytes() for name in ("a.png", "b.png")]
    assert pages[0] == pages[1] and pictures[0] == pictures[1]


def test_the_pictures_show_the_curves_they_are_given(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "leap", 0)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    good = learning_curves(evaluation, tmp_path / "good.png").read_bytes()
    evaluation["initializations"]["leap"]["train_error"] = np.full((2, len(TASKS), 30), 90.0).tolist()
    bad = learning_curves(evaluation, tmp_path / "bad.png").read_bytes()
    assert good[:4] == b"\x89PNG" and good != bad


def test_importing_the_report_draws_in_no_heavy_library() -> None:
    import subprocess
    import sys

    code = "import sys, leap.report, leap.tracking; print({'matplotlib', 'scipy', 'wandb', 'torch'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[1]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
