"""What a document of measures says of its own numbers, checked: relations, selections of sources, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leap.report.reader import NAME, Reader

CORRELATED = ("spearman", "kendall", "weighted_tau")
TOPS = ("top1", "top3")


@dataclass(frozen=True)
class Score:
    """A score of transferability: the name of its matrix and of its measure of held-out tasks; larger is better."""

    name: str
    label: str
    unit: str
    baseline: bool


def scores(reader: Reader, known: Mapping[str, str], walks: set[str]) -> tuple[Score, ...]:
    """The scores of a document, in its order.

    Args:
        reader: Of the document.
        known: Matrices and what kind each is of.
        walks: Measures of the walks to held-out tasks.

    Raises:
        RunError: a name that is twice there or cannot be a file's, a matrix of another kind, or a score, other than a
            baseline, without any number. (Baselines stand in every table, if only to say that they were not measured.)
    """
    found: dict[str, Score] = {}
    for place, one in enumerate(_listed(reader, "scores")):
        where = f"scores[{place}]"
        name, label, unit = (reader.word(one, key, f"{where}.") for key in ("name", "label", "unit"))
        baseline = one.get("baseline", False)
        if not NAME.fullmatch(name) or name in found:
            why = "there twice" if name in found else "not a name of letters, digits, - and _"
            raise reader.fail(f"{where}.name", f"is {name[:60]!r}, which is {why}")
        if not isinstance(baseline, bool):
            raise reader.fail(f"{where}.baseline", f"is {baseline!r}, neither true nor false")
        if known.get(name, "similarity") != "similarity":
            raise reader.fail(f"matrices.{name}.kind", f"is {known[name]!r}, but scores are similarities")
        if not baseline and name not in known and name not in walks:
            raise reader.fail(f"{where}.name", f"is {name!r}, which is neither a matrix nor a measure of a walk here")
        found[name] = Score(name, label, unit, baseline)
    return tuple(found.values())


def relations(reader: Reader, known: set[str]) -> list[Mapping[str, Any]]:
    """How matrices and singles, named in `known`, go with each other; raises RunError where one is damaged."""
    held = _listed(reader, "relations")
    for place, one in enumerate(held):
        where = f"relations[{place}]"
        for key in ("x", "y"):
            if reader.word(one, key, f"{where}.") not in known:
                raise reader.fail(f"{where}.{key}", f"is {one[key]!r}, which is neither a matrix nor a single here")
        _check(reader, where, one, _RELATION, "relation:mantel_p", reader.shape[1])
        chosen = one.get("selection") or {}
        _check(reader, f"{where}.selection", chosen, _SELECTION, "selection:targets", reader.shape[1])
    return held


def predictions(reader: Reader, walks: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What tells how a held-out task will end, by initialization; raises RunError where one is damaged."""
    held = _listed(reader, "predictions")
    for place, one in enumerate(held):
        where = f"predictions[{place}]"
        start = reader.word(one, "initialization", f"{where}.")
        if start not in walks:
            raise reader.fail(f"{where}.initialization", f"is {start!r}, from which no walk was measured")
        for key in ("x", "y"):
            if reader.word(one, key, f"{where}.") not in walks[start]:
                raise reader.fail(f"{where}.{key}", f"is {one[key]!r}, which is no measure of the walks from {start}")
        _check(reader, where, one, _PREDICTION, "prediction:p_value", None)
    return held


def setting(relation: Mapping[str, Any]) -> str:
    """What a relation of a sweep was found at, as in `beta 0.1`; empty for one at the document's own settings.

    Example:
        >>> setting({"x": "reachability", "y": "epochs", "beta": 0.1, "mantel_p": 0.02})
        'beta 0.1'
    """
    extra = {key: value for key, value in relation.items() if key not in _OWN and is_number(value)}
    return ", ".join(f"{key} {value:g}" for key, value in extra.items())


def is_number(value: Any) -> bool:
    """Whether a value of a parsed file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _listed(reader: Reader, section: str) -> list[Any]:
    held = reader.content.get(section) or []
    if not isinstance(held, list):
        raise reader.fail(section, f"is {type(held).__name__}, not a list")
    return held


def _check(reader: Reader, where: str, held: Any, parts: _Parts, named: str, targets: int | None) -> None:
    """Refuse what is no number, interval [low, high] or list of a number a target where `parts` wants one.

    `named` says what is checked, and the place that is named where the fault lies in none of the parts.
    """
    what, first = named.split(":")
    for part, keys in parts.items():
        section = (held.get(part) or {}) if part and isinstance(held, dict) else held
        sound = isinstance(section, dict) and all(_sound(part, key, section.get(key)) for key in keys)
        rows = section.get("by_target") if sound and "by_target" in keys else None
        if not sound or (rows is not None and targets is not None and len(rows) != targets):
            raise reader.fail(f"{where}.{part or first}", f"is not what a {what} holds there")


def _sound(part: str, key: str, value: Any) -> bool:
    if value is None:  # whatever does not exist
        return True
    if key == "interval" or (part and key in ("tasks", "seeds")):
        return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
    if key == "by_target":
        return isinstance(value, list) and all(one is None or is_number(one) for one in value)
    return is_number(value)


_Parts = Mapping[str, tuple[str, ...]]
# What a page shows of each.
_RELATION: _Parts = {
    "": ("mantel_p", "pairs", "censored_pairs"),
    "pooled": ("spearman", "tasks", "seeds"),
    "within": ("spearman", "count", "tasks", "seeds", "by_target"),
    "symmetric": ("spearman", "mantel_p", "tasks"),
    "direction": ("agree", "pairs"),
    "ceiling": ("pooled", "within"),
}
_SELECTION: _Parts = {
    "": ("targets", "candidates", "seeds"),
    **dict.fromkeys((*CORRELATED, "regret"), ("mean", "count", "interval", "by_target")),
    **dict.fromkeys(TOPS, ("hits", "targets", "rate", "chance", "interval")),
    "ceiling": (*CORRELATED, *TOPS, "regret"),
}
_PREDICTION: _Parts = {
    "": ("p_value", "tasks", "seeds"),
    **dict.fromkeys(CORRELATED, ("value", "interval")),
    "ceiling": CORRELATED,
}
# Numbers of a relation that are no setting.
_OWN = {"tasks", "seeds", "pairs", "censored_pairs", "permutations", "resamples", "level", "mantel_p"}
