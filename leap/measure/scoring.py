"""Scores of transferability as items of work: a source read on a target, an initialization on held-out tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leap.measure.context import Context
from leap.measure.paths import Walks
from leap.measure.plan import Item
from leap.measure.problem import Measurable, TaskData, check_task, measurable
from leap.measure.store import Result
from leap.metrics.concatenation import best_combination
from leap.metrics.scores import SCORES, Readout, Value, scores
from leap.randomness import derive

ACROSS = "across."  # before a score's name: the form in which targets can be compared


def score(context: Context, item: Item) -> Result:
    """All scores of a source's solution on the target's training data; a task's own solution among them."""
    network, task = context.network(item.source), context.task(item.target)
    trunk, head = context.solution(item.seed, item.source).tensor_split([network.shared])
    with torch.no_grad():
        features = context.family.features(trunk, task.inputs)
        probabilities = network.read(head, features).double().softmax(-1)
    found = read(features, task, probabilities, item.seed)
    values = {name: value.value for name, value in found.items()}
    values |= {f"{ACROSS}{name}": value.across for name, value in found.items()}
    return Result({}, {name: value for name, value in values.items() if value is not None})


def joint(context: Context, item: Item, tasks: Sequence[int]) -> Result:
    """Higher-order transfer: the best source of a target and the best pair of them, features side by side.

    The two are told by the adjusted H-score, since the plain one never falls when features are added.
    """
    task = context.task(item.target)
    others = [source for source in tasks if source != item.target]
    with torch.no_grad():
        trunks = (context.solution(item.seed, source)[: context.family.layout.trunk] for source in others)
        features = [context.family.features(trunk, task.inputs) for trunk in trunks]
    numbers: dict[str, float] = {}
    for size in (1, 2):
        try:
            found = best_combination(features, task.labels, size)
        except ValueError:  # the features of all sources are dead: there is no best one
            return Result({}, {})
        numbers[f"score{size}"] = float(found.score)
        numbers |= {f"source{size}.{place}": float(others[index]) for place, index in enumerate(found.members)}
    return Result({}, numbers)


def readout(walks: Walks, item: Item) -> Result:
    """All scores of an initialization (`target` counts them) on the training data of every held-out task."""
    meta, _ = list(walks.starts.values())[item.target]
    family = measurable(walks.family)
    rows = [_read_start(family, meta, check_task(family.dataset(task)), item.seed) for task in family.ids(walks.which)]
    tensors = {name: _column([row[name].value for row in rows]) for name in SCORES}
    tensors |= {f"{ACROSS}{name}": _column([row[name].across for row in rows]) for name in SCORES}
    return Result(tensors, {})


def _read_start(family: Measurable, meta: Tensor, task: TaskData, seed: int) -> dict[str, Value]:
    """Of one task. All training inputs go through together, so that batch normalization sees the task as one."""
    trunk, head = meta[: family.layout.n].tensor_split([family.layout.trunk])
    with torch.no_grad():
        features = family.features(trunk, task.inputs)
        probabilities = None
        if family.layout.shared == family.layout.n:  # the head is a part of what was learned
            weight, bias = head.tensor_split([len(head) // (family.width + 1) * family.width])
            logits = torch.nn.functional.linear(features, weight.view(-1, family.width), bias)
            probabilities = logits.double().softmax(-1)
    return read(features, task, probabilities, seed)


def read(features: Tensor, task: TaskData, probabilities: Tensor | None, seed: int) -> dict[str, Value]:
    """All scores; where the features are dead, every one is missing. Folds and mixtures are drawn by the task alone."""
    try:
        held = Readout(features, task.labels, probabilities, seed=derive(seed, "score", task.name))
    except ValueError as refused:
        return {name: Value(None, None, str(refused)) for name in SCORES}
    return scores(held)


def _column(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)
