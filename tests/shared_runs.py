"""Finished runs of every family in no time: real settings and networks, parameters that nobody learned."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import leap
from leap.cli import configuration, lifecycle, networks
from leap.cli.settings import (
    Atari,
    Custom,
    DigitTasks,
    Glyphs,
    ImageSets,
    Model,
    MultiCV,
    Omniglot,
    Quadratic,
    Settings,
    Sinusoid,
    TinyGames,
    Train,
)
from leap.errors import RunError
from leap.layout import Layout
from leap.run import RunFolder, pack, unpack
from tasks.networks import Network

SMALL = Train(inner_steps=3, meta_steps=2, meta_batch=2)
FAMILIES: dict[str, tuple[Settings, Network]] = {
    "omniglot": (
        Settings(Omniglot(ways=4), Model(filters=3), train=SMALL),
        Network("conv4", {"classes": 4, "filters": 3, "norm": "batch", "channels": 1, "size": 28}),
    ),
    "glyphs": (
        Settings(Glyphs(ways=3), Model(filters=8, norm="group"), train=SMALL),
        Network("conv4", {"classes": 3, "filters": 8, "norm": "group", "channels": 1, "size": 28}),
    ),
    "multi_cv": (
        Settings(MultiCV(names=("digits", "shapes")), Model(filters=4, norm="none"), train=SMALL),
        Network("conv4", {"classes": 10, "filters": 4, "norm": "none", "channels": 3, "size": 32}),
    ),
    "image_sets": (
        Settings(ImageSets(names=("mnist", "cifar100")), Model(widths=(2, 3)), train=SMALL),
        Network("encoder", {"classes": 100, "widths": [2, 3], "channels": 3, "size": 32}),
    ),
    "digit_tasks": (
        Settings(DigitTasks(names=("digit", "parity")), Model(widths=(4,)), train=SMALL),
        Network("encoder", {"classes": 10, "widths": [4], "channels": 3, "size": 32}),
    ),
    "sinusoid": (Settings(Sinusoid(), Model(hidden=(5, 3)), train=SMALL), Network("mlp", {"hidden": [5, 3]})),
    "quadratic": (Settings(Quadratic(dim=4), train=SMALL), Network("point", {"dim": 4})),
    "atari": (
        Settings(Atari(train=("pong",), test=("breakout",)), train=SMALL),
        Network("agent", {"shape": [3, 84, 84], "actions": 6, "network": "mnih2013"}),
    ),
    "nature": (
        Settings(Atari(colour=False, stack=4, network="nature"), train=SMALL),
        Network("agent", {"shape": [4, 84, 84], "actions": 10, "network": "nature"}),
    ),
    "tiny_games": (
        Settings(TinyGames(), train=SMALL),
        Network("agent", {"shape": [3, 16, 16], "actions": 5, "network": "small"}),
    ),
}
OWN = Settings(Custom(source="/home/someone/secret/ellipses.py:Ellipses", options={"count": 12}), train=SMALL)


def finished(
    path: Path,
    settings: Settings,
    network: Network | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    extra: int = 0,
    seed: int = 0,
) -> RunFolder:
    """A finished run at `path`; tasks of one's own get a linear module's parameters."""
    torch.manual_seed(seed)
    module = (torch.nn.Linear(3, 2) if network is None else network.build()).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():  # biases and scales too, so that each of them matters
            parameter.add_(0.1 * torch.randn_like(parameter))
    family = settings.tasks.name
    layout = Layout.of(module, own_head=family in networks.OWN_HEADS)
    if family == "quadratic":
        layout = Layout(("theta",), ((4,),), trunk=3, shared=4)
    about = {
        "command": f"leap train x.yaml --out {path}",
        "started": "2026-01-01T10:00:00+00:00",
        "commit": "0123456789abcdef",
        "versions": {"leap": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7", "at": "/opt/place"},
        "hardware": {"platform": "Linux-6.1-somewhere", "processor": "A processor", "device": "cpu"},
        "run_id": "0a1b2c3d",
        "engine": {"cache": "/home/someone/.cache/leap"},
    }
    run = RunFolder.create(path, configuration.to_yaml(settings), about)
    (path / "metrics.jsonl").write_text(json.dumps({"step": 1, "train/loss": 1.0}) + "\n")
    meta = torch.cat([layout.flatten(module), torch.randn(extra, dtype=dtype)])
    told = {"learner": settings.learner.name, "family": family, "seed": settings.seed, "meta_steps": 2}
    run.save_initialization(meta, layout, told)
    return run


def small(path: Path, family: str = "sinusoid", **options) -> RunFolder:
    """A finished run of one of FAMILIES."""
    return finished(path, *FAMILIES[family], **options)


def evaluated_bowls(path: Path) -> RunFolder:
    """A run of bowls with an evaluation, both of them real."""
    settings = dataclasses.replace(FAMILIES["quadratic"][0], tracking="none", device="cpu")
    run = lifecycle.start(settings, path)
    lifecycle.evaluate(run, dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, steps=4)))
    return run


def front(folder: Path) -> tuple[dict, str]:
    """The card's front matter, and what stands behind it."""
    text = (folder / "README.md").read_text()
    _, head, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(head), body


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rewrite(path, tensors=None, **changes):
    """Write a file anew with other tensors or another header, and a digest that fits."""
    held, about = unpack(path)
    about = {k: v for k, v in {**about, **changes}.items() if k not in ("sha256", "format")}
    path.write_bytes(pack(held if tensors is None else tensors, about))


def refused(path, error=RunError):
    """What load has to say; nothing is changed by asking."""
    folder = path if path.is_dir() else path.parent
    before = contents(folder)
    with pytest.raises(error) as found:
        leap.load(path)
    assert contents(folder) == before
    return str(found.value)
