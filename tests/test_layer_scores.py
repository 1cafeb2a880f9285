"""The script that scores and probes every layer of a network on other tasks."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from families import random_sets, small_image_sets
from torch.nn import functional as F

from leap.errors import UsageError
from leap.optim import sgd
from leap.randomness import generator
from leap.walk import walk

PATH = Path(__file__).parents[1] / "scripts" / "layer_scores.py"
SETTINGS = ["--source=set-0", "--targets", "set-1", "set-3", "--source-size=18", "--epochs=2", "--batch-size=6"]
SETTINGS += ["--channels=2", "--strides", "1", "2", "1", "--grid=1", "--train-size=17", "--test-size=9"]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(PATH.parent)
    spec = importlib.util.spec_from_file_location("layer_scores", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "layer_scores", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    large = [found._replace(images=found.images.repeat(4, 1).repeat(4, 2)) for found in random_sets((3, 4, 2, 3))]
    known = {found.name: found for found in large}  # 32 x 32
    monkeypatch.setattr(module.image_sources, "load", lambda names: [known[name] for name in names])
    return module


# The network and its read-outs


def test_every_layer_has_as_many_features_averaged_over_squares(script):
    module = script.initialize(script.Layered(3, 4, (1, 2, 2), 2), generator(0))
    images = torch.randn(5, 3, 16, 16, generator=generator(1))
    found = script.read_out(module, images)
    assert [list(layer.shape) for layer in found] == [[5, 16]] * 3 and found[0].dtype == torch.float64
    plane = F.relu(module.norms[0](module.convs[0](images)))  # [5, 4, 16, 16]
    squares = torch.stack([plane[:, :, r : r + 8, c : c + 8].mean((2, 3)) for r in (0, 8) for c in (0, 8)], -1)
    torch.testing.assert_close(found[0], squares.flatten(1).double(), rtol=1e-5, atol=1e-6)
    logits = module(images)
    torch.testing.assert_close(
        logits.double(), F.linear(found[-1], module.head.weight.double(), module.head.bias.double())
    )


def test_read_outs_do_not_depend_on_how_many_pass_at_once(script, monkeypatch):
    module = script.initialize(script.Layered(3, 4, (1, 2), 1), generator(0))
    images = torch.randn(7, 3, 8, 8, generator=generator(1))
    whole = script.read_out(module, images)
    monkeypatch.setattr(script, "CHUNK", 3)
    for one, two in zip(whole, script.read_out(module, images), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_the_source_is_learned_by_this_network(script):
    family = small_image_sets(held_out="all", batch_size=11)
    module = script.initialize(script.Layered(3, 4, (1, 2), 2), generator(0))
    lesson = script.Lesson(module, family.batch([0], [1]))
    start = lesson.layout.flatten(module)[None]
    images, labels, _ = lesson.sample(start, 0)
    torch.testing.assert_close(
        lesson.loss(start[0], (images[0], labels[0], None))[0], F.cross_entropy(module(images[0]), labels[0])
    )
    end = walk(lesson, start, steps=30, optimizer=sgd(0.1, 0.9), execution="sequential").theta
    assert lesson.loss(end[0], (images[0], labels[0], None))[0] < 0.1


# Scores and probes


def test_a_probe_is_the_penalized_optimum_and_is_judged_on_test_data(script):
    g = generator(3)
    features, test = (torch.randn(n, 4, generator=g, dtype=torch.float64) * 3 + 1 for n in (60, 40))
    features[:, 3] = test[:, 3] = 0.0  # a dead feature
    labels, answers = (((part[:, 0] > 1).long() + (part[:, 1] > 2).long()) for part in (features, test))
    found = script.probe(features, labels, test, answers, 2.0)
    mean, std = features.mean(0), features.std(0)
    std[3] = 1.0
    weight, bias = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    search = torch.optim.LBFGS([weight.requires_grad_(), bias.requires_grad_()], max_iter=500, tolerance_grad=1e-10)

    def objective():
        search.zero_grad()
        logits = F.linear((features - mean) / std, weight, bias)
        value = F.cross_entropy(logits, labels, reduction="sum") + weight.square().sum()  # decay / 2 = 1
        value.backward()
        return value

    search.step(objective)
    logits = F.linear((test - mean) / std, weight, bias)
    assert found["log_loss"] == pytest.approx(F.cross_entropy(logits, answers).item(), rel=1e-3)
    assert found["error"] == pytest.approx(100 * (logits.argmax(1) != answers).double().mean().item(), abs=2.5)


def test_a_probe_of_two_classes_loses_what_its_odds_say(script):
    features = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1])
    found = script.probe(features, labels, features, labels, 1e-3)
    assert found["error"] == 0 and 0 < found["log_loss"] < 0.01
    other = script.probe(features, labels, features, 1 - labels, 1e-3)
    assert other["error"] == 100 and other["log_loss"] > 4


def test_scores_are_of_the_features_given(script):
    labels = torch.arange(60) % 3
    features = torch.randn(60, 4, generator=generator(0), dtype=torch.float64)
    blind, told = script.scores(features, labels), script.scores(features + 50 * F.one_hot(labels, 4), labels)
    assert blind["null"] == told["null"] == pytest.approx(4 * 2 / 59) and told["rank"] == 4
    assert blind["h_score"] < 4 * blind["null"] and told["h_score"] > 1.9
    assert 0 < told["shrunk"] < told["h_score"] and told["adjusted"] > 0.95


# What is made of the records


def record(seed, h, loss):
    table = {"h_score": h, "adjusted": h, "shrunk": h[::-1], "null": [0.1] * 3, "rank": [4] * 3}
    return {"seed": seed, "source_error": 10.0, "targets": {"t": {**table, "log_loss": loss, "error": [1, 2, 3]}}}


def test_agreement_is_high_where_the_better_score_has_the_smaller_loss(script):
    found = script.summary([record(0, [1.0, 2.0, 4.0], [0.9, 0.5, 0.1]), record(1, [1.0, 2.0, 3.0], [0.1, 0.2, 0.9])])
    assert found["t"]["h_score"]["values"] == [1.0, -1.0] and found["t"]["shrunk"]["values"] == [-1.0, 1.0]
    assert found["t"]["pearson"]["values"][0] == pytest.approx(1.2 / math.sqrt(14 / 3 * 0.32))


# From the command line


def test_a_run_end_to_end_and_what_is_there_is_not_measured_again(script, tmp_path, capsys, monkeypatch):
    given = [*SETTINGS, "--seeds", "0", "1", "--out", str(tmp_path / "found.json")]
    script.main(given)
    document, first = json.loads((tmp_path / "found.json").read_text()), capsys.readouterr().out
    assert list(document["agreement"]) == ["set-1", "set-3"] and len(document["runs"]) == 2
    for run in document["runs"]:
        for table in run["targets"].values():
            assert all(len(table[name]) == 3 for name in ("h_score", "adjusted", "shrunk", "log_loss", "error"))
    assert document["runs"][0]["targets"] != document["runs"][1]["targets"]
    assert "layer 3" in first and "of 4 (target, seed)" in first
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "found" / "seed1.json").unlink()
    measured, measure = [], script.measure
    monkeypatch.setattr(script, "measure", lambda *given: measured.append(given[1]) or measure(*given))
    script.main(given)
    assert measured == [1] and capsys.readouterr().out == first


def test_records_of_another_protocol_and_damaged_ones_are_refused(script, tmp_path):
    given = [*SETTINGS, "--seeds", "0", "--out", str(tmp_path)]
    script.main(given)
    with pytest.raises(UsageError, match=r"made differently \(lr: 0.02 there, 0.1 now\)"):
        script.main([*given, "--lr", "0.1"])
    (tmp_path / "layer-scores" / "seed0.json").write_text("{")
    with pytest.raises(UsageError, match=r"is damaged .*remove it, and it is made anew"):
        script.main(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--decay 0", "--decay must be above 0 and finite, got 0"),
        ("--lr nan", "got nan"),
        ("--strides 2", "at least two layers"),
        ("--grid 32", "leave fewer than 32 x 32 places"),
        ("--train-size 4", r"above twice the features of a layer \(2\)"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(script, tmp_path, given, message):
    name, value = given.split()
    with pytest.raises(UsageError, match=message):
        script.main([*SETTINGS, f"--out={tmp_path}", name, value])
