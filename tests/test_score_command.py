"""`leap score` as a person with arrays of their own meets it."""

import json
from typing import get_args

import numpy as np
import pytest

from leap.cli import main
from leap.cli.measure_settings import ScoreName
from leap.cli.score import NAMES
from leap.metrics.scores import SCORES


def leap(*arguments):
    return main.main([str(a) for a in arguments])


@pytest.fixture
def arrays():
    """Features of three classes, some of them told apart, and a softmax over four source classes."""
    stream = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = stream.normal(size=(60, 5)) + 2 * np.eye(3, 5)[labels]
    logits = stream.normal(size=(60, 4)) + 2 * np.eye(3, 4)[labels]
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {"features": features, "labels": labels, "source_probabilities": softmax}


@pytest.fixture
def file(arrays, tmp_path):
    np.savez(tmp_path / "features.npz", **arrays)
    return tmp_path / "features.npz"


def test_the_settings_name_every_score():
    assert set(get_args(ScoreName)) == {"all", *SCORES}
    assert set(NAMES) == set(SCORES) - {"source_accuracy"}


def test_all_scores_are_printed_with_what_they_depend_on(file, capsys):
    assert leap("score", file) == 0
    told = capsys.readouterr().out
    assert "60 samples, 5 features of rank 5, 3 classes, label entropy 1.099 nats" in told
    assert "H-score of random features 0.1695" in told  # 5 * 2 / 59
    rows = {line.split()[0]: line.split() for line in told.splitlines()[3:] if line}
    assert set(NAMES) == set(rows)
    assert all(np.isfinite(float(row[1])) for row in rows.values())
    assert float(rows["h_score"][-1]) == pytest.approx(float(rows["transferability"][1]), rel=1e-4)
    assert float(rows["leep"][-1]) == pytest.approx(float(rows["leep"][1]) + np.log(3), rel=1e-3)


def test_json_holds_the_same_numbers_and_they_are_the_functions_own(file, arrays, capsys):
    from leap.metrics.hscore import h_score
    from leap.metrics.leep import leep
    from leap.metrics.logme import logme

    assert leap("score", file, "--json", "--seed", 3) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["classes"] == 3 and one["rank"] == 5
    assert list(one["scores"]) == list(NAMES)
    for name, expected in (
        ("h_score", h_score(arrays["features"], arrays["labels"])),
        ("logme", logme(arrays["features"], arrays["labels"])),
        ("leep", leep(arrays["source_probabilities"], arrays["labels"])),
    ):
        assert one["scores"][name]["value"] == pytest.approx(float(expected), rel=1e-12)
    assert leap("score", file, "--json", "--seed", 3) == 0
    assert json.loads(capsys.readouterr().out) == [one]  # same seed, same numbers


def test_several_files_are_candidates_side_by_side(file, arrays, tmp_path, capsys):
    better = arrays | {"features": arrays["features"] + 3 * np.eye(3, 5)[arrays["labels"]]}
    np.savez(tmp_path / "better.npz", **better)
    assert leap("score", file, tmp_path / "better.npz", "--scores", "h_score,logme", "sfda") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["score", "features", "better", "unit"] in rows
    found = {row[0]: row[1:3] for row in rows if row and row[0] in ("h_score", "logme", "sfda", "leep")}
    assert set(found) == {"h_score", "logme", "sfda"}
    assert all(float(two) > float(one) for one, two in found.values())


def test_what_cannot_be_scored_says_why(arrays, tmp_path, capsys):
    few = {"features": np.random.default_rng(1).normal(size=(12, 20)), "labels": np.arange(12) % 2}
    np.savez(tmp_path / "few.npz", **few)
    assert leap("score", tmp_path / "few.npz") == 0
    told = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in told.splitlines()[3:] if line}
    assert rows["h_score"][1] == "-" and float(rows["h_score_shrunk"][1]) > 0
    assert "h_score: " in told and "12" in told.split("h_score: ")[1]
    assert "leep: needs the source's class probabilities" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": None}, "no array 'labels'"),
        ({"labels": None, "label": np.arange(60) % 3}, "did you mean 'labels'"),
        ({"source_probabilities": None, "source_probs": np.ones((60, 1))}, "did you mean 'source_probabilities'"),
        ({"labels": np.zeros(60, int)}, "at least 2 classes"),
        ({"features": np.ones((60, 2))}, "the same in all 60 samples"),
        ({"features": np.full((60, 2), np.nan)}, "not finite"),
        ({"labels": np.arange(59) % 3}, "60 rows and 59"),
        ({"source_probabilities": np.ones((60, 3))}, "must sum to 1, got 3"),
        ({"source_probabilities": np.ones((3, 1))}, "got 3 rows and 60"),
        ({"features": np.array([{"a": 1}] * 60, dtype=object)}, "allow_pickle"),
    ],
    ids=["missing", "slip", "other slip", "one class", "constant", "nan", "length", "logits", "rows", "pickle"],
)
def test_bad_files_are_refused_in_words(change, told, arrays, tmp_path, capsys):
    np.savez(tmp_path / "bad.npz", **{name: value for name, value in (arrays | change).items() if value is not None})
    assert leap("score", tmp_path / "bad.npz") in (1, 2)
    said = capsys.readouterr().err
    assert told in said and "bad.npz" in said and "defect" not in said


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut"], ids=["empty", "text", "cut"])
def test_what_is_no_archive_is_refused(content, tmp_path, capsys):
    (tmp_path / "x.npz").write_bytes(content)
    assert leap("score", tmp_path / "x.npz") == 1
    said = capsys.readouterr().err
    assert "cannot be read as .npz" in said and "defect" not in said


def test_an_archive_that_is_cut_is_refused(file, tmp_path, capsys):
    data = file.read_bytes()
    for length in range(100, len(data), 397):
        (tmp_path / "cut.npz").write_bytes(data[:length])
        assert leap("score", tmp_path / "cut.npz") == 1
        assert "cannot be read as .npz" in capsys.readouterr().err


def test_a_single_array_is_refused(arrays, tmp_path, capsys):
    np.save(tmp_path / "one.npy", arrays["features"])
    assert leap("score", tmp_path / "one.npy") == 1
    assert "single array" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name a file"),
        (("absent.npz",), "absent.npz"),
        (("x.npz", "--scores", "hscore"), "Did you mean 'h_score'"),
        (("x.npz", "--seed", "one"), "got 'one'"),
        (("x.npz", "--sedd", "1"), "did you mean --seed"),
    ],
    ids=["nothing", "absent", "score", "seed", "option"],
)
def test_bad_arguments_are_refused_in_words(arguments, told, capsys):
    assert leap("score", *arguments) in (1, 2)
    said = capsys.readouterr().err
    assert told in said and "defect" not in said


def test_help_names_every_score(capsys):
    assert leap("score", "--help") == 0
    told = capsys.readouterr().out
    assert all(name in told for name in NAMES)
