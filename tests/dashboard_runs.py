"""Runs for tests of the dashboard: rows under real keys, evaluations, measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from measure_documents import scored
from PIL import Image
from report_runs import write_run

from leap.report.measure_pictures import pictures
from leap.report.measures import parse_measures

LOGGED = {
    "train/loss": 1.0,
    "train/error_last": 50.0,
    "train/path_length": 3.0,
    "meta/gradient_norm": 0.5,
    "meta/bad_share": 0.0,
    "time/inner_steps_per_s": 9.0,
    "charts/episodic_return": None,
}
TASKS = ("mnist", "kmnist", "fashion", "cifar10")


def made(root: Path, learner: str, seed: int, name: str | None = None, train: int = 3, **wandb: Any) -> Path:
    """A run with rows under real keys, and an evaluation that says how many tasks there were to pretrain on."""
    folder = write_run(root, learner, seed, steps=6, meta_steps=2)
    folder = folder.rename(root / (name or f"{learner}-train={train}-seed{seed}"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"tasks": config["tasks"] | {"train": train}, "wandb": {"group": "first", "project": "ours", **wandb}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **LOGGED}) + "\n")
    document = json.loads((folder / "evaluation.json").read_text()) | {"pretraining_tasks": train}
    (folder / "evaluation.json").write_text(json.dumps(document))
    return folder


def several(root: Path, trains: tuple[int, ...] = (3,), learners: tuple[str, ...] = ("leap", "reptile")) -> list[Path]:
    return [made(root, learner, seed, train=train) for learner in learners for seed in (0, 1) for train in trains]


def measured(folder: Path) -> dict[str, Any]:
    """Measures of a run; their pictures have the names alone, since drawing them takes long."""
    document = scored(tasks=TASKS, seeds=2)
    (folder / "measures").mkdir()
    (folder / "measures" / "measures.json").write_text(json.dumps(document))
    for one in pictures(parse_measures(document)):
        Image.new("RGB", (2, 2)).save(folder / "measures" / f"{one.name}.png")
    return document
