"""leap.load: a learned initialization as an ordinary module, from files that are data and nothing more."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import yaml
from shared_runs import FAMILIES, OWN, finished, refused, rewrite, small
from torch import nn
from torch.func import functional_call

import leap
from leap.cli import build, export, lifecycle
from leap.cli.settings import Leap, MetaSgd, NoLearner, Sinusoid
from leap.errors import LeapError, RunError, UsageError
from leap.run import unpack


@pytest.fixture
def run(tmp_path):
    return small(tmp_path / "run")


# What is loaded


@pytest.mark.parametrize("family", FAMILIES)
def test_run_export_and_their_files_give_the_same(tmp_path, family):
    run = small(tmp_path / "run", family)
    out = export.export(run.path, tmp_path / "out")
    tensors, about = unpack(run.initialization)
    for path in (run.path, run.initialization, out, out / "initialization.safetensors", str(out)):
        loaded = leap.load(path)
        module, vector = loaded
        named = dict(module.named_parameters())
        assert {name: t.tolist() for name, t in named.items()} == {name: t.tolist() for name, t in tensors.items()}
        assert torch.equal(vector, torch.cat([tensors[name].reshape(-1) for name in about["layout"]["names"]]))
        assert loaded.layout.n == len(vector) and loaded.about["family"] == run_family(family)
        assert all(p.requires_grad and p.is_leaf for p in named.values()) and module.training


def run_family(family):
    return FAMILIES[family][0].tasks.name


def test_the_module_is_the_network_that_was_trained(tmp_path):
    settings = dataclasses.replace(FAMILIES["glyphs"][0], learner=Leap(), tracking="none", device="cpu")
    run = lifecycle.start(settings, tmp_path / "run")
    family = build.family(settings, "cpu")
    module, theta = leap.load(run.path)
    images = torch.rand(6, 1, 28, 28)
    assert torch.equal(theta, run.load_initialization(family.layout))
    assert torch.equal(module(images), functional_call(family.module, family.layout.unflatten(theta), (images,)))
    assert leap.load(run.path).layout == family.layout


@pytest.mark.parametrize("name", ["glyphs", "multi_cv", "sinusoid", "quadratic", "tiny_games", "atari"])
def test_networks_told_from_settings_are_those_of_the_families(tmp_path, name):
    """A family that changes its network and forgets `leap.cli.networks` fails here."""
    settings, network = FAMILIES[name]
    family = build.family(settings, "cpu")
    run = finished(tmp_path / "run", settings, network)
    assert leap.load(run.path).layout == family.layout


@pytest.mark.parametrize("name", ["omniglot", "image_sets", "digit_tasks"])
def test_networks_of_real_data_are_told_without_the_data(tmp_path, data_folder, name):
    test_networks_told_from_settings_are_those_of_the_families(tmp_path, name)


def test_the_file_of_an_export_stands_alone_and_that_of_a_run_does_not(tmp_path, run):
    out = export.export(run.path, tmp_path / "out")
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((out / "initialization.safetensors").read_bytes())
    assert torch.equal(leap.load(alone).vector, leap.load(run.path).vector)
    alone.write_bytes(run.initialization.read_bytes())
    assert "needs the config.yaml of its run" in refused(alone, UsageError)


def test_module_and_vector_are_copies(run):
    one, other = leap.load(run.path), leap.load(run.path)
    with torch.no_grad():
        next(one.module.parameters()).add_(1)
    assert torch.equal(one.vector, other.vector)
    for parameter in one.module.parameters():  # so that saving one does not save the whole file with it
        assert parameter.untyped_storage().nbytes() == 4 * parameter.numel()
    assert not torch.equal(next(one.module.parameters()), next(other.module.parameters()))


def test_it_starts_an_ordinary_training_script(run):
    module, _ = leap.load(run.path)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.linspace(-1, 1, 20)[:, None]
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(module(x), x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_what_a_learner_keeps_behind_the_parameters_is_left_out(tmp_path):
    settings, network = FAMILIES["sinusoid"]
    run = finished(tmp_path / "run", dataclasses.replace(settings, learner=MetaSgd()), network, extra=7)
    assert len(leap.load(run.path).vector) == sum(p.numel() for p in network.build().parameters())


def test_double_precision_stays(tmp_path):
    run = small(tmp_path / "run", dtype=torch.float64)
    module, vector = leap.load(run.path)
    assert vector.dtype == torch.float64 == next(module.parameters()).dtype


# A network of one's own


def test_a_network_of_ones_own_is_given_and_keeps_its_parameters(tmp_path):
    run = finished(tmp_path / "run", OWN)
    mine = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(mine.parameters(), lr=0.1)
    module, _ = leap.load(run.path, module=mine)
    assert module is mine and optimizer.param_groups[0]["params"][0] is mine.weight
    assert torch.equal(mine.weight, unpack(run.initialization)[0]["weight"])
    assert "module=my_network" in refused(run.path, UsageError)
    assert "module=my_network" in refused(export.export(run.path, tmp_path / "out"), UsageError)


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (nn.Linear(3, 4), r"another network than the module given: weight is \(2, 3\) .*\(4, 3\)"),
        (nn.Sequential(nn.Linear(3, 2)), r"weight is \(2, 3\) against None.*0.weight is None against"),
        (
            nn.Linear(3, 2).double(),
            r"another type than the module given: weight is torch.float32 against torch.float64",
        ),
    ],
)
def test_a_module_that_does_not_fit_is_refused_and_left_alone(tmp_path, module, what):
    run = finished(tmp_path / "run", OWN)
    before = [p.clone() for p in module.parameters()]
    with pytest.raises(RunError, match=what):
        leap.load(run.path, module=module)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


# What is refused


def test_what_is_not_there_or_not_finished(tmp_path, run):
    assert "does not exist" in refused_anywhere(tmp_path / "nowhere")
    assert "holds no initialization.safetensors" in refused(tmp_path, UsageError)
    run.initialization.unlink()
    assert f"leap train --resume {run.path}" in refused(run.path, UsageError)


def refused_anywhere(path):
    with pytest.raises(UsageError) as found:
        leap.load(path)
    return str(found.value)


def test_a_digest_that_does_not_fit(run):
    data = bytearray(run.initialization.read_bytes())
    data[-2] ^= 1
    run.initialization.write_bytes(data)
    assert "do not match their digest" in refused(run.path)


def test_a_format_of_another_version(run):
    raw = run.initialization.read_bytes()
    assert b'\\"format\\": 1' in raw
    run.initialization.write_bytes(raw.replace(b'\\"format\\": 1', b'\\"format\\": 7'))
    assert "has format 7, and this version reads format 1" in refused(run.path)


def test_another_layout_in_the_header(run):
    layout = unpack(run.initialization)[1]["layout"]
    rewrite(run.initialization, layout={**layout, "shapes": [[9, 9], *layout["shapes"][1:]]})
    assert "is (9, 9) in its header" in refused(run.path)
    rewrite(run.initialization, layout={**layout, "names": ["other", *layout["names"][1:]]})
    assert "its header names" in refused(run.path)
    rewrite(run.initialization, layout={**layout, "shared": 3})
    assert "shared is 3 against" in refused(run.path)
    rewrite(run.initialization, layout={**layout, "trunk": 10**9})
    assert "trunk and shared must lie within" in refused(run.path)
    order = [layout["names"][1], layout["names"][0], *layout["names"][2:]]
    shapes = [layout["shapes"][1], layout["shapes"][0], *layout["shapes"][2:]]
    rewrite(run.initialization, layout={**layout, "names": order, "shapes": shapes})
    assert "names is" in refused(run.path)


@pytest.mark.parametrize("layout", [None, [], 3, "x", {}, {"names": 1}, {"names": [[]], "shapes": [[]], "trunk": 0}])
def test_a_layout_that_is_none(run, layout):
    rewrite(run.initialization, layout=layout)
    assert "does not keep its own layout" in refused(run.path)


def test_other_types(run):
    tensors, _ = unpack(run.initialization)
    rewrite(run.initialization, {name: t.to(torch.int32) for name, t in tensors.items()})
    assert "torch.int32" in refused(run.path)
    first = next(iter(tensors))
    rewrite(run.initialization, {**tensors, first: tensors[first].double()})
    assert "['torch.float32', 'torch.float64']" in refused(run.path)


def test_an_export_of_another_type_than_it_says(tmp_path, run):
    out = export.export(run.path, tmp_path / "out")
    file = out / "initialization.safetensors"
    rewrite(file, {name: t.double() for name, t in unpack(file)[0].items()})
    assert "says that it holds float32, and it holds float64" in refused(out)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"seed": 5}, "seed is 0 against 5"),
        ({"learner": {"name": "reptile"}}, "learner is 'leap' against 'reptile'"),
        ({"tasks": {"name": "quadratic"}}, "family is 'sinusoid' against 'quadratic'"),
        (
            {"model": {"hidden": [5, 4]}},
            r"another network than the network of config.yaml: .*\(3, 5\) against \(4, 5\)",
        ),
    ],
)
def test_settings_of_another_run(run, changes, what):
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    (run.path / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))
    with pytest.raises(RunError, match=what):
        leap.load(run.path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("surprise: 1\n", "surprise"),
        ("model: {filters: many}\n", "model.filters"),
        ("model: {hidden: [1000000000000]}\n", "another network"),
        ("train: !!python/object/apply:os.system ['true']\n", "line 1"),
        ("- a list\n", "not a list"),
        ("\x00", "YAML"),
    ],
)
def test_settings_that_are_none(run, text, what):
    (run.path / "config.yaml").write_text(text if ":" not in text else f"{text}tasks: {{name: sinusoid}}\n")
    assert what in refused(run.path, LeapError)


def test_a_layout_file_of_another_network(tmp_path, run):
    out = export.export(run.path, tmp_path / "out")
    other = export.export(small(tmp_path / "other", "quadratic").path, tmp_path / "other-out")
    right = (out / "layout.json").read_bytes()
    (out / "layout.json").write_bytes((other / "layout.json").read_bytes())
    assert "layout.json is of another initialization" in refused(out)
    (out / "layout.json").write_text("[1, 2]")
    assert "layout.json is of another initialization" in refused(out)
    (out / "layout.json").write_bytes(right[:-9])
    assert "damaged or cut short" in refused(out)


def test_a_header_whose_network_is_not_that_of_the_settings(tmp_path, run):
    out = export.export(run.path, tmp_path / "out")
    rewrite(out / "initialization.safetensors", network={"kind": "mlp", "arguments": {"hidden": [5, 4]}})
    assert "hidden is [5, 3] against [5, 4]" in refused(out)


@pytest.mark.parametrize(
    "network",
    [
        3, [], {}, {"kind": "nonsense", "arguments": {}}, {"kind": "mlp", "arguments": 3},
        {"kind": "mlp", "arguments": {"hidden": "wide"}}, {"kind": "mlp", "arguments": {"hidden": [-1]}},
        {"kind": "mlp", "arguments": {"hidden": [10**30]}}, {"kind": "mlp", "arguments": {"other": [1]}},
        {"kind": "conv4", "arguments": {"classes": 1, "size": 2}}, {"kind": "point", "arguments": {"dim": None}},
        {"kind": "agent", "arguments": {"shape": [1, 2], "actions": 1}},
        {"kind": "agent", "arguments": {"shape": [1, 2, 2], "actions": 1, "network": "nowhere"}},
    ],
)  # fmt: skip
def test_a_network_in_a_lone_file_that_cannot_be_made(tmp_path, run, network):
    out = export.export(run.path, tmp_path / "out")
    alone = tmp_path / "lone" / "alone.safetensors"
    alone.parent.mkdir()
    alone.write_bytes((out / "initialization.safetensors").read_bytes())
    rewrite(alone, network=network)
    assert "network that cannot be made" in refused(alone)


def test_load_is_found_without_being_imported_before_it_is_used():
    assert "load" in dir(leap)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        leap.lode  # noqa: B018


def test_no_learner_is_a_run_as_well(tmp_path):
    from leap.cli.settings import Settings

    run = lifecycle.start(Settings(Sinusoid(), learner=NoLearner(), tracking="none", device="cpu"), tmp_path / "run")
    about = leap.load(run.path).about
    assert about["learner"] == "none" and json.dumps(dict(about))
