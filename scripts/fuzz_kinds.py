"""The kinds of malformed input of `scripts/fuzz.py`: what is damaged, and which command meets it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence

from fuzz_arrays import arrays_file
from fuzz_box import FOLDER, LINK, PIPE, Input
from fuzz_inputs import (
    MARKER,
    json_file,
    lines_file,
    odd,
    safe_word,
    spoiled,
    tensors_file,
    words,
    yaml_file,
)
from fuzz_runs import BOWLS, COMPARISON

from leap.cli import configuration, sources
from leap.cli.settings import Settings

SETTINGS = (
    *("quadratic", "sinusoid/leap", "tiny-games", "quickstart", "sweep-omniglot", "multi_cv/embedded", "atari/smoke"),
    *("learner/maml", "learner/meta_sgd", "digit-tasks", "image-sets"),
)


class Inputs:
    """Malformed inputs by number."""

    def __init__(self, seed: int, files: Mapping[str, bytes], kinds: Sequence[str] = ()) -> None:
        self.seed, self.files, self.kinds = seed, files, kinds or sorted(KINDS)
        self.settings = [configuration.to_dict(configuration.load(Settings, [name])) for name in SETTINGS]
        self.flags = sorted({f"--{path}" for one in self.settings for path in configuration.flatten(one)})

    def __getitem__(self, number: int) -> Input:
        dice = random.Random(f"{self.seed} {number} {self.kinds}")
        return KINDS[dice.choices(self.kinds, [SHARES[kind] for kind in self.kinds])[0]](self, dice)


def _yaml(self: Inputs, dice: random.Random) -> Input:
    changes = {"x.yaml": yaml_file(dice.choice(self.settings), dice)}
    command = dice.choice(
        (
            ("train",),
            ("train", "sinusoid"),
            ("compare",),
            ("train", "--resume", "done"),
            ("measure", "done"),
            ("evaluate",),
        )
    )
    last = () if command[0] in ("measure", "evaluate") else ("--print-config",)
    return Input("settings", (*command, "x.yaml", *last), changes, ("done/measures/",))


def _words(self: Inputs, dice: random.Random) -> Input:
    own = {
        "train": ("--out", "--resume", "--print-config", "--help"), "compare": ("--out", "--only", "--train-only",
        "--wandb-sweep"),
        "evaluate": ("--video", "--paths", "--help"), "measure": ("--tasks", "--distances", "--transferability",
        "--out"),
        "report": ("--out", "--window"), "score": ("--scores", "--json", "--seed"), "dashboard": ("--out", "--group",
        "--title", "--project"),
        "export": ("--to", "--license", "--public"), "fetch": ("--to",), "": ("--version", "--help"),
    }  # fmt: skip
    command = dice.choice(sorted(own))
    flags = [*own[command], *self.flags] if command in ("train", "compare", "evaluate", "measure") else own[command]
    values = (
        "done",
        "games",
        "all",
        "quadratic.yaml",
        "leap",
        "path",
        "test",
        "3",
        "0.1",
        "exported",
        "half",
        "x.npz",
        "new",
    )
    found = words(dice, flags, values)
    first = {"train": ["quadratic"], "compare": ["quadratic"], "fetch": ["mnist", "--check"], "score": ["x.npz"]}.get(
        command, ["done"]
    )
    last = ["--print-config"] if command in ("train", "compare") else []
    place = (
        "new",
        "done/evaluation.json",
        "done/pictures",
        "done/measures",
        "done/checkpoints/walk",
        "report.html",
        "done/dashboard",
        "dashboard",
    )
    asked = tuple(word for word in found if not os.path.normpath(word).startswith((".", "done")) and word)
    given = (*([command] if command else []), *first, *found, *last)
    beside = tuple(f"{os.path.splitext(word)[0]}.wandb.json" for word in asked)  # where a dashboard's --out points
    return Input("words", given, {}, (*place, *asked, *beside, "../../out"))


def _start(self: Inputs, dice: random.Random) -> Input:
    """A run of two meta-steps with settings that are odd, but may be."""
    sized = (
        "steps",
        "batch",
        "count",
        "epochs",
        "repetitions",
        "name",
        "every",
        "threads",
        "dim",
        "source",
        "folder",
        "patience",
        "hidden",
    )
    known = configuration.flatten(self.settings[0])
    names = [
        name
        for name in known
        if name.split(".")[0] not in ("compare", "measure", "wandb", "tracking") and not name.endswith(sized)
    ]
    found: list[str] = []
    for name in dice.sample(names, dice.choice((1, 1, 2, 3))):
        value = odd(dice)
        found += [f"--{name}", value.replace("\0", "") if isinstance(value, str) else json.dumps(value)]
    found = [safe_word(word) for word in found]
    return Input("start", ("train", *BOWLS, *found, "--out", "new"), {}, ("new/",))


RUNS = {
    "done": (
        ("train", "--resume"),
        ("evaluate",),
        ("measure", "--distances", "path", "--"),
        ("report",),
        ("export",),
        ("load",),
        ("dashboard",),
    ),
    "half": (("train", "--resume"), ("train", "--resume"), ("evaluate",), ("report",), ("export",), ("load",)),
    "games": (("report",), ("dashboard",), ("export",), ("load",)),
    "sets": (("report",), ("report",), ("dashboard",), ("export",)),
    "exported": (("load",), ("load",), ("load",), ("evaluate",), ("report",), ("export",)),
    "all": (("report",), ("compare",), ("dashboard",)),
}
WRITES = {
    "train": ("{}/metrics.jsonl", "{}/checkpoints", "{}/initialization.safetensors"),
    "evaluate": ("{}/evaluation.json", "{}/pictures", "{}/checkpoints/walk"),
    "measure": ("{}/measures",), "report": ("report.html",), "export": ("new/",), "load": (),
    "dashboard": ("{}/dashboard", "dashboard"), "compare": ("all/",),
}  # fmt: skip
READ = (
    "config.yaml",
    "provenance.json",
    "metrics.jsonl",
    "evaluation.json",
    "measures.json",
    "measuring.json",
    "index.json",
    "layout.json",
)


def _folder(self: Inputs, dice: random.Random) -> Input:
    name = dice.choice(sorted({path.split("/")[0] for path in self.files}))
    command = dice.choice(RUNS[name])
    files = [path for path in self.files if path.startswith(f"{name}/")]
    read = [path for path in files if path.endswith((*READ, ".safetensors"))]
    changes: dict[str, bytes | str | None] = {}
    for path in dice.sample(read if dice.random() < 0.95 else files, dice.choice((1, 1, 1, 2))):
        changes[path] = _damaged(self, path, dice)
    if command[0] == "compare":
        given = COMPARISON
    elif command[0] == "export":
        given = ("export", name, "--to", "new")
    else:
        given = (*command[:-1], "--evaluate.repetitions", "1", name) if command[-1] == "--" else (*command, name)
        given = ("measure", name, "--distances", "path") if command[0] == "measure" else given
    page = "report.html" if command[0] == "report" else None
    return Input(f"folder {name}", given, changes, tuple(one.format(name) for one in WRITES[command[0]]), page, MARKER)


def _damaged(self: Inputs, path: str, dice: random.Random) -> bytes | str | None:
    content, way = self.files[path], dice.random()
    if way < 0.06:
        return dice.choice((None, FOLDER, LINK, PIPE, b""))
    if path.endswith(".yaml"):
        data = sources.parse(content.decode(), path).data
        return yaml_file(data, dice)
    if path.endswith(".jsonl"):
        return lines_file(content, dice)
    if path.endswith(".json"):
        return json_file(content, dice)
    return tensors_file(content, dice) if path.endswith(".safetensors") else spoiled(content, dice)


def _arrays(self: Inputs, dice: random.Random) -> Input:
    scores = dice.sample(
        ("h_score", "transferability", "leep", "nce", "nleep", "logme", "transrate", "gbc", "parc", "sfda", "probe"), 2
    )
    options = ("--json",) if dice.random() < 0.5 else ()
    return Input("arrays", ("score", "x.npz", "--scores", *scores, *options), {"x.npz": arrays_file(dice)})


KINDS: dict[str, Callable[[Inputs, random.Random], Input]] = {
    "settings": _yaml, "words": _words, "start": _start, "folders": _folder, "arrays": _arrays,
}  # fmt: skip
SHARES = {"settings": 3, "words": 3, "start": 1, "folders": 5, "arrays": 3}
