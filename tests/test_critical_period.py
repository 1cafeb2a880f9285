"""The script that follows the Fisher trace through training with and without a deficit."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from families import random_sets, small_image_sets

from leap.errors import UsageError

PATH = Path(__file__).parents[1] / "scripts" / "critical_period.py"
SETTINGS = ["--epochs=4", "--train-size=18", "--test-size=9", "--probes=5", "--points=6", "--batch-size=6", "--lr=0.05"]
SETTINGS += ["--widths", "4"]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(PATH.parent)
    spec = importlib.util.spec_from_file_location("critical_period", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "critical_period", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.image_sources, "load", lambda names: random_sets((3,)))
    return module


# The deficit


def test_blurring_keeps_a_constant_image_and_every_images_mean(script):
    images = torch.rand(2, 3, 3, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blurred = script.blur(images)
    assert blurred.shape == images.shape
    torch.testing.assert_close(blurred.mean((-2, -1)), images.mean((-2, -1)), rtol=1e-13, atol=0)
    torch.testing.assert_close(script.blur(torch.full((1, 1, 8, 8), 0.7)), torch.full((1, 1, 8, 8), 0.7))


def test_blurring_averages_blocks_and_interpolates_linearly_between_their_centres(script):
    image = torch.zeros(1, 1, 4, 12, dtype=torch.float64)
    image[..., :4] = torch.tensor([0.0, 2.0, 4.0, 6.0])  # mean 3; the other two blocks are 0 and 8
    image[..., 8:] = 8.0
    weights = torch.tensor([1, 3, 5, 7], dtype=torch.float64) / 8
    expected = torch.cat([torch.tensor([3.0, 3.0]), 3 * (1 - weights), 8 * weights, torch.tensor([8.0, 8.0])])
    torch.testing.assert_close(script.blur(image), expected.expand(1, 1, 4, 12), rtol=1e-13, atol=1e-13)


def test_blurring_takes_detail_away_and_commutes_with_standardizing(script):
    images = torch.rand(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert script.blur(images).var() < 0.2 * images.var()
    torch.testing.assert_close(script.blur((images - 0.3) / 0.7), (script.blur(images) - 0.3) / 0.7)
    with pytest.raises(UsageError, match="multiples of 4, got \\(8, 6\\)"):
        script.blur(torch.zeros(1, 1, 8, 6))


def test_images_are_blurred_until_the_deficit_ends_and_in_the_same_order(script):
    tasks = small_image_sets().batch([0], [3])
    theta = torch.zeros(1, tasks.layout.n)
    deficit = script.Deficit(tasks, 2)
    for step in range(4):
        (found, labels, _), (clean, expected, _) = deficit.sample(theta, step), tasks.sample(theta, step)
        assert torch.equal(labels, expected)
        assert torch.equal(found, script.blur(clean) if step < 2 else clean) and not torch.equal(
            clean, script.blur(clean)
        )


def test_both_stages_are_measured_from_their_first_step_to_their_last(script):
    assert {0, 1, 5, 6, 105} <= set(script.checkpoints(5, 100, 20))
    for blurred, clean in ((0, 60), (60, 0), (7, 60)):
        at = script.checkpoints(blurred, clean, 24)
        assert at == sorted(set(at)) and at[0] == 0 and at[-1] == blurred + clean
        assert max(b - a for a, b in pairwise(at)) <= 8  # an eighth of the last stage


# What is made of the curves


def record(seed, deficit, trace, error):
    return {
        "seed": seed, "deficit": deficit, "epochs": [0, 1, 2, 8], "trace_train": trace, "trace_test": [1, 2, 3, 4],
        "train_loss": [2, 1, 1, 0.5], "test_error": [90, 50, 40, error],
    }  # fmt: skip


def test_peaks_verdicts_and_paired_differences(script):
    clean = [record(0, "0", [1, 4, 9, 3], 20.0), record(1, "0", [1, 2, 3, 2.9], 30.0)]
    found = script.summary([clean[0], record(0, "5", [1, 1, 1, 2], 22.0), clean[1], record(1, "5", [2, 1, 1, 1], 36.0)])
    assert script.peak(clean[0], "trace_train") == (0.25, pytest.approx(1 / 3), 1)
    assert found["early_peak_then_decay"] == {"trace_train": [True, False], "trace_test": [False, False]}
    row = found["deficits"]["5"]
    assert row["excess_error"]["mean"] == pytest.approx(4.0) and row["trace_train_peak"]["values"] == [1.0, 0.0]
    assert row["excess_error"]["high"] == pytest.approx(4 + 12.7062 * 2, rel=1e-4)  # t(1) times |6 - 2| / 2
    assert "early peak, then decay, on training images: 1 of 2 seeds" in script.table(found)


# From the command line


def test_a_run_end_to_end_and_what_is_there_is_not_trained_again(script, tmp_path, capsys, monkeypatch):
    given = [*SETTINGS, "--seeds", "0", "1", "--deficit", "0", "2", "all", "--out", str(tmp_path / "found.json")]
    script.main(given)
    out, parts = tmp_path / "found.json", tmp_path / "found"
    document, first = json.loads(out.read_text()), capsys.readouterr().out
    assert [list(document["deficits"]), len(document["runs"])] == [["0", "2", "all"], 6]
    for run in document["runs"]:
        assert run["epochs"][-1] == (6 if run["deficit"] == "2" else 4) and min(run["trace_train"]) > 0
        assert all(len(run[name]) == len(run["epochs"]) for name in ("trace_test", "train_loss", "test_error"))
    clean, short, never = document["runs"][:3]
    assert clean["trace_train"][0] == short["trace_train"][0] and clean["train_loss"] != never["train_loss"]
    assert clean["train_loss"][-1] < clean["train_loss"][0]
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    parts.joinpath("seed1-deficit-2.json").unlink()
    trained, train = [], script.train
    monkeypatch.setattr(script, "train", lambda *given: trained.append(given[1:]) or train(*given))
    script.main(given)
    assert trained == [(1, "2")]
    assert json.loads(out.read_text())["runs"] == document["runs"] and capsys.readouterr().out == first


def test_records_of_another_protocol_and_damaged_ones_are_refused(script, tmp_path):
    given = [*SETTINGS, "--seeds", "0", "--deficit", "0", "--out", str(tmp_path)]
    script.main(given)
    with pytest.raises(UsageError, match=r"made differently \(lr: 0.05 there, 0.1 now\)"):
        script.main([*given, "--lr", "0.1"])
    (tmp_path / "critical-period" / "seed0-deficit-0.json").write_text("{")
    with pytest.raises(UsageError, match=r"is damaged .*remove it, and it is made anew"):
        script.main(given)


def test_a_training_cut_short_leaves_no_record(script, tmp_path, monkeypatch):
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        script.main([*SETTINGS, "--out", str(tmp_path)])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--deficit -1", "got '-1'"),
        ("--deficit x", "got 'x'"),
        ("--epochs 0", "got 0"),
        ("--probes 10", "at most --train-size and --test-size, got 10"),
        ("--lr -1", "at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(script, tmp_path, given, message):
    name, value = given.split()
    with pytest.raises(UsageError, match=message):
        script.main([*SETTINGS, f"--out={tmp_path}", f"{name}={value}"])
