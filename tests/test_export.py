"""leap export: a folder that stands for itself and tells no machine."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from shared_runs import FAMILIES, OWN, contents, finished, front, small

import leap
from leap.cli import configuration, export
from leap.cli.settings import Finetune, Meta, MetaSgd, Settings
from leap.cli.terms import terms
from leap.run import unpack
from leap.sharing import folder as shared_folder
from leap.sharing import markdown
from tasks.networks import Network


@pytest.fixture
def run(tmp_path):
    return small(tmp_path / "run")


def plain_network(network, dtype="float64"):
    names = {}
    exec(compile(export.source(network.told(), dtype), "model.py", "exec"), names)
    return names["model"]()


NETWORKS = {
    **{name: network for name, (_, network) in FAMILIES.items()},
    "batch 32": Network("conv4", {"classes": 7, "filters": 5, "norm": "batch", "channels": 3, "size": 32}),
    "group 12": Network("conv4", {"classes": 7, "filters": 12, "norm": "group", "channels": 1, "size": 28}),
    "three": Network("encoder", {"classes": 2, "widths": [2, 3, 4], "channels": 3, "size": 32}),
}


def inputs(network):
    arguments, stream = network.arguments, torch.Generator().manual_seed(1)
    if network.kind == "point":
        return ()
    if network.kind == "agent":
        return (torch.randint(0, 256, (4, *arguments["shape"]), generator=stream, dtype=torch.uint8),)
    shape = (9, 1) if network.kind == "mlp" else (9, arguments["channels"], *[arguments["size"]] * 2)
    return (torch.randn(shape, generator=stream, dtype=torch.float64),)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plain_network_is_the_trained_one(name):
    network = NETWORKS[name]
    torch.manual_seed(0)
    ours, plain = network.build().double(), plain_network(network)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert ours.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(ours.state_dict())
    given = [inputs(network)]
    if network.arguments.get("norm") == "batch":
        given.append((*inputs(network), 4))
    for x in given:
        pairs = [(y,) if torch.is_tensor(y) else y for y in (ours(*x), plain(*x))]
        for one, other in zip(*pairs, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
            assert one.std() > 0
        if len(x) < 2:  # with rows it is for scores
            for outputs in pairs:
                sum((y * torch.arange(y.numel()).view_as(y).sin()).sum() for y in outputs).backward()
            for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=1e-11)


def test_rows_make_the_statistics_of_the_plain_network_too():
    plain = plain_network(NETWORKS["batch 32"])
    (x,) = inputs(NETWORKS["batch 32"])
    other = torch.cat([x[:6], torch.zeros_like(x[6:])])
    assert torch.equal(plain(x, 4)[:6], plain(other, 4)[:6])
    assert not torch.allclose(plain(x)[:6], plain(other)[:6])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plain_network_imports_torch_and_nothing_of_ours(name):
    source = export.source(NETWORKS[name].told())
    found = set(re.findall(r"^(?:from|import) ([\w.]+)", source, re.MULTILINE))
    assert found <= {"__future__", "itertools", "math", "torch", "torch.nn"} and "MIT licence" in source


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_exports_and_its_card_runs_without_leap(tmp_path, family):
    run = small(tmp_path / "run", family)
    out = export.export(run.path, tmp_path / "out")
    assert sorted(contents(out)) == sorted(set(shared_folder.NAMES) - {"rates.safetensors"})
    read = safetensors.torch.load_file(out / "initialization.safetensors")
    held, _ = unpack(run.initialization)
    assert read.keys() == held.keys() and all(torch.equal(read[k], held[k]) for k in held)
    if family in ("glyphs", "tiny_games"):  # a process takes seconds to start
        assert told_by(out, "print(sum(p.numel() for p in net.parameters()))") == str(
            sum(map(torch.numel, held.values()))
        )
    else:
        plain = plain_network(FAMILIES[family][1], "float32")
        plain.load_state_dict(read)


def told_by(out, last):
    """What the card's own code prints in a process that knows nothing of this project."""
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    check = "import sys\nassert not [m for m in sys.modules if m.split('.')[0] in ('leap', 'tasks', 'envs')]\n"
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}{last}"], cwd=out, env=clean, capture_output=True, text=True, check=True
    )
    assert len(code.strip().splitlines()) == 5
    return done.stdout.strip()


def test_equal_runs_have_equal_exports(tmp_path, run):
    one, two = (export.export(run.path, tmp_path / name) for name in ("one", "two"))
    assert contents(one) == contents(two)


def test_what_it_tells_of_itself(tmp_path, run):
    out = export.export(run.path, tmp_path / "out")
    layout = json.loads((out / "layout.json").read_text())
    assert layout["n"] == leap.load(run.path).layout.n and layout["dtype"] == "float32"
    assert layout["network"] == {"kind": "mlp", "arguments": {"hidden": [5, 3]}}
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance == {
        "format": 1, "learner": "leap", "family": "sinusoid", "seed": 0, "meta_steps": 2, "commit": "0123456789abcdef",
        "started": "2026-01-01T10:00:00+00:00", "device": "cpu",
        "versions": {"leap": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7"},
    }  # fmt: skip


def test_settings_without_places_are_as_they_were(tmp_path, run):
    out = export.export(run.path, tmp_path / "out")
    own, read = (configuration.load(Settings, [path / "config.yaml"]) for path in (run.path, out))
    assert read == own


@pytest.mark.parametrize(("licence", "expected"), [(None, "unknown"), ("MIT", "mit"), ("cc-by-4.0", "cc-by-4.0")])
def test_the_licence(tmp_path, run, licence, expected):
    head, body = front(export.export(run.path, tmp_path / "out", export_licence(licence)))
    assert head["license"] == expected and head["library_name"] == "pytorch" and "leap" in head["tags"]
    assert ("`leap export ... --license ID`" in body) == (licence is None)


def export_licence(given):
    from leap.sharing.card import check_licence

    return check_licence(given)


@pytest.mark.parametrize(
    ("family", "names", "said"),
    [
        ("omniglot", ["omniglot"], "MIT (c) 2015 Brenden Lake"),
        ("image_sets", ["mnist", "cifar100"], "none stated; cite Krizhevsky 2009"),
        ("digit_tasks", ["mnist"], "CC BY-SA 3.0"),
        ("multi_cv", None, "not known to this project"),
        ("glyphs", None, "free licence of their own"),
        ("atari", None, "GPL-2.0"),
    ],
)
def test_the_terms_of_the_data(tmp_path, family, names, said):
    head, body = front(export.export(small(tmp_path / "run", family).path, tmp_path / "out"))
    assert head.get("datasets") == names
    assert markdown.plain(said) in body


def test_every_data_set_that_can_be_named_has_terms():
    from typing import get_args

    from leap.cli.settings import ImageSets, MultiCV
    from leap.cli.task_settings import EMBEDDED, ImageSetName

    names = get_args(ImageSetName)
    assert (
        len(terms(Settings(ImageSets(names=names)))) == len({n.partition("_")[0] for n in names} - {"natural"}) - 4 + 2
    )
    assert all(data.terms for data in terms(Settings(MultiCV(names=(*EMBEDDED, *names, "./mine")))))


def test_rates_of_meta_sgd_go_with_it_and_heads_of_finetuning_do_not(tmp_path):
    settings, network = FAMILIES["sinusoid"]
    n = sum(p.numel() for p in network.build().parameters())
    sgd = finished(tmp_path / "sgd", dataclasses.replace(settings, learner=MetaSgd()), network, extra=n)
    out = export.export(sgd.path, tmp_path / "sgd-out")
    rates = safetensors.torch.load_file(out / "rates.safetensors")
    module, theta = leap.load(out)
    assert {k: v.shape for k, v in rates.items()} == {k: v.shape for k, v in module.named_parameters()}
    held = unpack(sgd.initialization)[0]["learner/extra"]
    assert torch.equal(torch.cat([rates[k].reshape(-1) for k, _ in module.named_parameters()]), held)
    assert "rates.safetensors" in front(out)[1] and len(theta) == n
    joint = finished(
        tmp_path / "joint", dataclasses.replace(settings, learner=Finetune(), meta=Meta(lr=1.0)), network, extra=40
    )
    out = export.export(joint.path, tmp_path / "joint-out")
    assert "kept 40 numbers" in front(out)[1] and not (out / "rates.safetensors").exists()
    assert safetensors.torch.load_file(out / "initialization.safetensors").keys() == rates.keys()


def test_only_rates_are_written_as_rates(tmp_path):
    """As many numbers as parameters are rates of Meta-SGD, and of no one else; other numbers are rates of no one."""
    settings, network = FAMILIES["sinusoid"]
    n = sum(p.numel() for p in network.build().parameters())
    for name, learner, extra in (("joint", Finetune(), n), ("sgd", MetaSgd(), n + 1)):
        own = dataclasses.replace(settings, learner=learner, meta=Meta(lr=1.0))
        out = export.export(finished(tmp_path / name, own, network, extra=extra).path, tmp_path / f"{name}-out")
        assert not (out / "rates.safetensors").exists()


def test_tasks_of_ones_own_have_no_model_file(tmp_path):
    out = export.export(finished(tmp_path / "run", OWN).path, tmp_path / "out")
    assert not (out / "model.py").exists() and "YourNetwork()" in front(out)[1]
    assert json.loads((out / "layout.json").read_text())["network"] is None
