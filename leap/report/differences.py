"""Which runs repeat one configuration, and how the configurations differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leap.report.runs import Run

# What repeats a run, watches it or carries it, without changing its method. An evaluation says itself how it was done.
IGNORED = (
    "seed",
    "device",
    "tracking",
    "wandb",
    "compare",
    "evaluate",
    "train.checkpoint_every",
    "train.keep_every",
    "train.threads",
)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping by dotted names.

    Example:
        >>> flatten({"inner": {"lr": 0.1, "steps": 5}, "seed": 0})
        {'inner.lr': 0.1, 'inner.steps': 5, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def method(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that make a configuration what it is: all but IGNORED."""
    fields = flatten(config)
    return {name: fields[name] for name in fields if name not in IGNORED and name.split(".")[0] not in IGNORED}


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in the seed only, together and by seed; groups in the order of their first run."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(method(run.config).items())), []).append(run)
    return [sorted(group, key=lambda run: run.seed) for group in groups.values()]


def differing_fields(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The fields that are not the same everywhere, each with its value in every configuration.

    A field that a configuration does not have reads "".

    Example:
        >>> differing_fields([{"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}])
        {'b.c': ['2', '3']}
    """
    flat = [method(config) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one)
    table = {name: [_text(one[name]) if name in one else "" for one in flat] for name in names}
    return {name: values for name, values in table.items() if len(set(values)) > 1}


def group_labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A short, unique name for each group: its learner, and what else tells it from groups of the same learner.

    A group of one configuration needs no more than "leap"; two read "leap (inner.lr=0.1)" and "leap (inner.lr=0.3)".
    """
    labels = []
    for group in groups:
        learner = group[0].learner
        rivals = [other[0].config for other in groups if other[0].learner == learner]
        fields = differing_fields(rivals)
        own = rivals.index(group[0].config)
        own_values = ", ".join(f"{name}={values[own]}" for name, values in fields.items())
        labels.append(f"{learner} ({own_values})" if own_values else learner)
    return labels


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
