"""`leap toy`: pull-forward in one picture, on surfaces over a plane."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leap.cli.arguments import Option, help_text, split
from leap.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from leap.walk import Fold
    from tasks.surfaces import Surfaces

RATES = {"leap": 0.015, "leap-length": 0.004, "reptile": 0.1, "fomaml": 0.1, "maml": 0.1}
"""Learners, and the meta learning rate at which each settles within META_STEPS; a meta-gradient's scale is its own."""
META_STEPS, INNER_STEPS, INNER_RATE = 40, 50, 0.1
MEASURE_EVERY = 4  # meta-steps
MOST_STEPS = 2000
OPTIONS = (
    Option("--out", "path", "The folder for toy.png and toy.json; by default this one.", "FOLDER"),
    Option("--seed", "value", "Decides the random initialization; 0 by default.", "SEED"),
    Option("--learner", "value", f"One of {', '.join(RATES)}; leap by default, by path energy.", "NAME"),
    Option("--steps", "value", f"Inner steps of every walk; {INNER_STEPS} by default.", "K"),
)
USAGE = "leap toy [--out FOLDER] [--seed SEED] [--learner NAME] [--steps K]"
ABOUT = """Meta-learn where to start on loss surfaces over a plane, and draw it: surfaces, walks before and after,
what each step of a walk adds to the meta-gradient, and how the initialization moves. Writes toy.png and
toy.json, in seconds on a CPU."""


def main(argv: Sequence[str]) -> int:
    """Learn, draw and tell; see `leap toy --help`."""
    given = split(argv, OPTIONS, fields=False)
    if given.options["help"]:
        print(help_text(USAGE, ABOUT, OPTIONS))
        return 0
    if given.files:
        raise UsageError(f"leap toy takes no files, got {given.files[0]!r}: {USAGE}")
    learner = given.options["learner"] or "leap"
    if learner not in RATES:
        near = difflib.get_close_matches(learner, RATES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"--learner must be one of {', '.join(RATES)}, got {learner!r}{hint}")
    seed = _whole("--seed", given.options["seed"], 0, 0, 2**63 - 1)
    steps = _whole("--steps", given.options["steps"], INNER_STEPS, 2, MOST_STEPS)
    out = given.options["out"] or Path()
    from leap.report.drawing import write_file
    from leap.report.toy_picture import toy_picture
    from tasks.surfaces import SPAN, Surfaces

    surfaces = Surfaces()
    document = learn(surfaces, learner, seed=seed, steps=steps)
    picture = toy_picture(document, partial(_height, surfaces), SPAN, out / "toy.png")
    write_file(out / "toy.json", (json.dumps(document) + "\n").encode())
    print(_text(document))
    print(f"picture  {picture}\nnumbers  {out / 'toy.json'}")
    return 0


def learn(surfaces: Surfaces, learner: str = "leap", *, seed: int = 0, steps: int = INNER_STEPS) -> dict[str, Any]:
    """Meta-learn an initialization on the training surfaces and measure all along the way.

    Args:
        surfaces: Tasks.
        learner: A name in RATES.
        seed: Decides the random initialization; nothing else is random.
        steps: K.

    Returns:
        The content of toy.json. `theta0` are initializations by meta-step; `measured` says at which of them `length`
        and `energy` (means over the training surfaces) were taken. `tasks` hold each surface's walk from the first and
        from the last of them, `pulls` what each step of the first meta-step's walks adds to minus the meta-gradient.
        `shortened` says whether the expected length came down.
    """
    from leap import optim
    from leap.trainer import Plan, Trainer

    ids, held_out = list(surfaces.ids("train")), list(surfaces.ids("test"))
    plan = Plan(seed=seed, inner_steps=steps, meta_batch=len(ids), execution="batched")
    fold, rate = _learner(learner), RATES[learner]
    if learner.startswith("leap"):  # its sums grow with the number of steps
        rate *= INNER_STEPS / steps if learner == "leap-length" else 1.0
    trainer = Trainer(surfaces, fold, lambda k: optim.sgd(INNER_RATE), ("SGD", lambda step: 1.0, {"lr": rate}), plan)
    theta0, means = [trainer.theta], {}
    before = _walked(surfaces, [*ids, *held_out], trainer.theta, steps)
    for step in range(META_STEPS + 1):
        if step % MEASURE_EVERY == 0 or step == META_STEPS:
            found = before if step == 0 else _walked(surfaces, [*ids, *held_out], trainer.theta, steps)
            means[step] = found.means(len(ids))
        if step < META_STEPS:
            trainer.meta_step()
            theta0.append(trainer.theta)
    rows = []
    for place, task in enumerate([*ids, *held_out]):
        named = {"task": surfaces.name(task), "split": "train" if place < len(ids) else "test", "id": task}
        rows.append(
            {**named, "minimum": surfaces.minimum[task].tolist(), "before": before.of(place), "after": found.of(place)}
        )
    return {
        "format": 1,
        "learner": learner,
        "metric": {"leap": "energy", "leap-length": "length"}.get(learner),
        "seed": seed,
        "inner": {"optimizer": "SGD", "lr": INNER_RATE, "steps": steps},
        "meta": {"optimizer": "SGD", "lr": rate, "steps": META_STEPS, "tasks": len(ids)},
        "theta0": [point.tolist() for point in theta0],
        "measured": list(means),
        **{name: [row[name] for row in means.values()] for name in ("length", "energy", "length_held_out")},
        "pulls": _pulls(surfaces, learner, theta0[0], steps),
        "tasks": rows,
        "shortened": means[META_STEPS]["length"] < means[0]["length"],
    }


class _Walked(NamedTuple):
    length: Tensor  # [T]
    energy: Tensor  # [T]
    path: Tensor  # [T, K + 1, 2]
    losses: Tensor  # [T, K + 1]

    def of(self, place: int) -> dict[str, Any]:
        return {
            "length": float(self.length[place]),
            "energy": float(self.energy[place]),
            "loss_first": float(self.losses[place, 0]),
            "loss_last": float(self.losses[place, -1]),
            "path": self.path[place].tolist(),
        }

    def means(self, training: int) -> dict[str, float]:
        return {
            "length": float(self.length[:training].mean()),
            "energy": float(self.energy[:training].mean()),
            "length_held_out": float(self.length[training:].mean()),
        }


def _walked(surfaces: Surfaces, ids: Sequence[int], theta0: Tensor, steps: int) -> _Walked:
    """The walks of surfaces from one initialization, with their lengths on the graph of the loss."""
    from leap import optim
    from leap.metrics.path import path_measures
    from leap.metrics.trajectory import trajectory
    from leap.walk import walk

    folds = {"measures": path_measures(), "path": trajectory(max(3, steps + 1))}
    tasks = surfaces.batch(ids, [0] * len(ids))
    found = walk(tasks, theta0, steps=steps, optimizer=optim.sgd(INNER_RATE), folds=folds).results
    path = found["path"]
    losses = surfaces.heights(path.transpose(0, 1), ids).T
    return _Walked(found["measures"][:, 0], found["measures"][:, 1], path, losses)


def _learner(name: str) -> Fold:
    from leap import learners

    makers = {
        "leap": lambda: learners.leap("energy"),
        "leap-length": lambda: learners.leap("length"),
        "reptile": learners.reptile,
        "fomaml": learners.fomaml,
        "maml": learners.maml,
    }
    return makers[name]()


def _pulls(surfaces: Surfaces, learner: str, theta0: Tensor, steps: int) -> dict[str, Any]:
    """Minus the first meta-gradient, and of Leap what each step adds to it: {sum [2], increments [T, K, 2] or None}."""
    from leap import optim
    from leap.walk import walk

    ids = list(surfaces.ids("train"))
    fold, increments = _learner(learner), learner.startswith("leap")
    walked = walk(
        surfaces.batch(ids, ids), theta0, steps=steps, optimizer=optim.sgd(INNER_RATE),
        folds={"learner": summands(fold) if increments else fold},
    ).results["learner"]  # fmt: skip
    total = walked.sum(dim=1) if increments else walked
    return {"sum": (-total.mean(dim=0)).tolist(), "increments": (-walked).tolist() if increments else None}


def summands(fold: Fold) -> Fold:
    """Leap's fold with its meta-gradient in summands: [T, K, m], one a segment, which add up to what it gives."""
    import torch

    from leap.walk import End, Step

    def start(theta0: Tensor) -> tuple[Any, list[Tensor]]:
        return fold.start(theta0), []

    def step(state: tuple[Any, list[Tensor]], s: Step) -> tuple[Any, list[Tensor]]:
        own = fold.step(state[0], s)
        return own, [*state[1], own.total.clone()]  # the sum over the segments before this step

    def finish(state: tuple[Any, list[Tensor]], end: End) -> Tensor:
        sums = torch.stack([*state[1], fold.finish(state[0], end)], dim=1)  # [T, K + 1, m], zero at first
        return sums.diff(dim=1)

    return fold._replace(start=start, step=step, finish=finish)


def _height(surfaces: Surfaces, x: np.ndarray, y: np.ndarray, task: int) -> np.ndarray:
    """A surface over a grid; x, y and what comes back are of one shape."""
    import numpy as np
    import torch

    points = torch.from_numpy(np.stack([x, y], axis=-1)).unsqueeze(-2)
    found: np.ndarray = surfaces.heights(points, [task]).squeeze(-1).numpy()
    return found


def _text(document: Mapping[str, Any]) -> str:
    from leap.cli.measure_text import columns

    rows = [["surface", "", "path length", "->", "energy", "->", "loss at the end", "->"]]
    for task in document["tasks"]:
        figures = [
            f"{task[when][key]:.3g}" for key in ("length", "energy", "loss_last") for when in ("before", "after")
        ]
        rows.append([task["task"], "held out" if task["split"] == "test" else "", *figures])
    inner, meta, length = document["inner"], document["meta"], document["length"]
    way = "shorter" if document["shortened"] else "NOT shorter"
    return "\n".join([
        f"{document['learner']}, seed {document['seed']}: {meta['steps']} meta-steps of {inner['steps']} inner steps, "
        f"from {_point(document['theta0'][0])} to {_point(document['theta0'][-1])}",
        "",
        *columns(rows),
        "",
        f"expected path length {length[0]:.3g} -> {length[-1]:.3g}: {way}",
    ])  # fmt: skip


def _point(point: Sequence[float]) -> str:
    return f"({point[0]:.2f}, {point[1]:.2f})"


def _whole(name: str, given: str | None, default: int, least: int, most: int) -> int:
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) < 20) or not least <= int(given) <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most}, got {given!r}")
    return int(given)
