"""Made-up run folders for the tests of the report: curves with known means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from leap.randomness import derive

TASKS = ("Tibetan", "Greek", "Ojibwe", "Korean", "Sanskrit", "Tagalog")


def write_run(
    root: Path,
    learner: str,
    seed: int,
    level: float = 30.0,
    *,
    tasks: tuple[str, ...] = TASKS,
    steps: int = 30,
    meta_steps: int = 40,
    evaluated: bool = True,
    error: bool = True,
    **fields: Any,
) -> Path:
    """A run folder whose learned initialization ends near `level` percent of error; `fields` go into the config."""
    name = "-".join([learner, *(f"{key}{value}".replace("/", "_") for key, value in fields.items()), f"seed{seed}"])
    folder = root / name
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "device": f"cpu:{seed}",
        "tasks": {"name": "glyphs", "ways": 20},
        "learner": {"name": learner},
        "inner": {"lr": 0.1, "steps": steps},
        "meta": {"lr": 0.1, "steps": meta_steps},
        "tracking": {"group": f"any-{seed}"},
        **fields,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    provenance = {
        "command": ["leap", "train", "configs/glyphs.yaml", f"configs/learner/{learner}.yaml", "--seed", str(seed)],
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "hardware": {"cpu": "2 cores"},
        "started": f"2026-01-0{seed + 1}T10:00:00",
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    rng = np.random.default_rng(derive(seed, learner))
    rows = []
    for step in range(1, meta_steps + 1):
        loss = 3 * np.exp(-step / 20) + 0.3 + 0.1 * rng.normal()
        row = {"step": step, "train/loss_last": loss, "train/loss": loss + 0.5}
        rows.append(row | ({"train/error": 80 * np.exp(-step / (10 + level / 2)) + 5 + rng.normal()} if error else {}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if evaluated:
        # The random initialization depends on the seed alone, as that of real runs does.
        start = np.random.default_rng(derive(seed, "none"))
        named = {learner: measured(rng, level, tasks, steps, error), "none": measured(start, 62.0, tasks, steps, error)}
        evaluation = {
            "format": 1,
            "run": name,
            "family": "glyphs",
            "split": "test",
            "steps": steps,
            "evaluation_seeds": [0, 1],
            "tasks": list(tasks),
            "learner": learner,
            "seed": seed,
            "initializations": named,
        }
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def measured(rng: np.random.Generator, level: float, tasks: tuple[str, ...], steps: int, error: bool) -> dict[str, Any]:
    """Measurements of one initialization, [2, T] and [2, T, K]: exponential curves down to `level` percent."""
    shape = (2, len(tasks))
    final = np.clip(level + rng.normal(0, 1.5) + np.linspace(-8, 8, shape[1]) + rng.normal(0, 2, shape), 0, 100)
    decay = np.exp(-np.arange(steps) / (steps * level / 150))
    curve = final[..., None] * 0.8 + (95 - final[..., None] * 0.8) * decay
    loss = curve / 30
    held = {"test_loss": final / 28, "train_loss": loss, "path_length": final / 5, "path_energy": final / 9}
    held["train_loss_auc"] = (loss[..., 1:] + loss[..., :-1]).mean(axis=-1) / 2
    if error:
        held |= {"test_error": final, "train_error": curve, "train_error_auc": 30 * held["train_loss_auc"]}
    return {key: value.tolist() for key, value in held.items()}
