"""Settings against their declaration, checked by pydantic: every problem at once, in words."""

from __future__ import annotations

import difflib
import functools
import json
import re
from typing import Any, NamedTuple, TypeVar

import pydantic

from leap.cli.schema import chosen, classes, dotted, entry, get, has, hints, leaves, names, show
from leap.cli.sources import Address

T = TypeVar("T")

_EXPECTED = {
    "dataclass_type": "a mapping of settings (`name: value` lines)",
    "dict_type": "a mapping of settings (`name: value` lines)",
    "tuple_type": "a list",
    "list_type": "a list",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "none_required": "null",
}


_NUMBER = re.compile(r"[-+]?[\d.]*\d\.?([eE][-+]?\d+)?")


class Problem(NamedTuple):
    """One thing wrong with the settings."""

    address: Address
    text: str
    """What was received, what is expected, and the nearest right name."""
    unusable: Address
    """The part of the settings that has to be left out to check the rest."""


def check(schema: type[T], data: dict[str, Any]) -> tuple[T | None, list[Problem]]:
    """Build the settings, strictly: an instance, or None and every problem.

    Strings and true are no numbers, an integer is a float too, NaN and infinity are neither; unknown names are refused.
    """
    whole: type = schema
    try:
        # JSON mode is where pydantic's strictness still lets a list be a tuple and a mapping a dataclass.
        return _adapter(whole).validate_json(json.dumps([data]))[0], []
    except pydantic.ValidationError as error:
        return None, _problems(schema, data, error)


def repaired(schema: type[T], data: dict[str, Any]) -> tuple[T | None, list[Problem]]:
    """Build the settings and list every problem; what is wrong is taken out of `data`, to check the rest.

    Returns:
        The settings, with defaults in the place of what was taken out, and the problems. None where that is not enough:
        a setting without a default is missing.
    """
    settings, problems = check(schema, data)
    left = problems
    while left:
        before = json.dumps(data)
        for problem in left:
            _remove(data, problem.unusable)
        if json.dumps(data) == before:
            return None, problems
        settings, left = check(schema, data)
    return settings, problems


def suggestion(address: Address, schema: type, data: dict[str, Any]) -> str:
    """For a name that does not exist: the setting that was probably meant, else the names there are."""
    known = [leaf for leaf, _ in leaves(schema, data)]
    *level, word = address
    for leaf in known:
        if "_".join(map(str, leaf)) == str(word).replace("-", "_"):  # meta_lr for meta.lr
            return f"did you mean {dotted(leaf)}?"
    inside = [leaf for leaf in known if list(leaf[: len(level)]) == level and len(leaf) > len(level)]
    siblings = list(dict.fromkeys(str(leaf[len(level)]) for leaf in inside))  # none below a field that holds a value
    if close := nearest(str(word), siblings):
        return f"did you mean {dotted((*level, close))}?"
    elsewhere = [dotted(leaf) for leaf in known if leaf[-1] == str(word).replace("-", "_")]
    if found := elsewhere[0] if elsewhere else nearest(dotted(address), [dotted(leaf) for leaf in known]):
        return f"did you mean {found}?"
    return f"known: {', '.join(siblings or map(dotted, known))}"


def nearest(name: str, names: list[str]) -> str | None:
    """The closest of `names`, or None."""
    close = difflib.get_close_matches(name.replace("-", "_"), names, n=1)
    return close[0] if close else None


@functools.cache
def _adapter(schema: type) -> pydantic.TypeAdapter[Any]:
    # pydantic takes no configuration for a bare dataclass, and hands a tuple's on to what is inside.
    config = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return pydantic.TypeAdapter(tuple[schema], config=config)  # type: ignore[valid-type]


def _problems(schema: type, data: dict[str, Any], error: pydantic.ValidationError) -> list[Problem]:
    settings = dict(leaves(schema, data))
    found: dict[Address, Problem] = {}
    for detail in error.errors(include_url=False, include_input=False):
        address = _address(schema, data, detail["loc"][1:])
        if detail["type"] == "unexpected_keyword_argument":
            text = f"there is no such setting (got {show(get(data, address))}); {suggestion(address, schema, data)}"
            problem = Problem(address, text, address)
        elif detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
            problem = _wrong_member(settings.get(address), data, address)
        else:
            problem = _wrong_value(data, address, detail)
        if (first := found.get(problem.address)) and detail["type"] != "missing":
            # Each member of `int | "auto"` says what it takes.
            problem = problem._replace(text=f"{first.text} or {_expected(detail)}")
        found[problem.address] = problem
    return list(found.values())


def _address(annotation: Any, data: Any, loc: tuple[str | int, ...]) -> Address:
    """Pydantic's location without the labels of union members in it."""
    cls = chosen(annotation, data)
    if len(classes(annotation)) > 1:
        loc = loc[1:]
    if loc and cls is not None:
        return (loc[0], *_address(hints(cls).get(str(loc[0])), entry(data, loc[0]), loc[1:]))
    if loc and (has(data, loc[0]) or isinstance(loc[0], int)):
        return (loc[0], *_address(None, entry(data, loc[0]), loc[1:]))
    return ()


def _wrong_member(annotation: Any, data: dict[str, Any], address: Address) -> Problem:
    known = [str(name) for member in classes(annotation) for name in names(member)]
    received = entry(get(data, address), "name")
    text = f"got {show(received)}, expected one of {', '.join(known)}"
    if close := nearest(str(received), known):
        text += f"; did you mean {close}?"
    return Problem((*address, "name"), text, address)


def _wrong_value(data: dict[str, Any], address: Address, detail: Any) -> Problem:
    if detail["type"] == "missing" and not isinstance(address[-1], int):
        return Problem(address, "is missing and has no default; give it a value", address)
    if detail["type"] == "missing":  # an entry of a tuple
        received = get(data, address[:-1])
        return Problem(address[:-1], f"got {show(received)}, expected {int(address[-1]) + 1} values", address)
    received = get(data, address)
    if detail["type"] in ("value_error", "assertion_error"):
        return Problem(address, f"got {show(received)}: {detail['msg'].partition(', ')[2]}", address)
    text = f"got {show(received)}, expected {_expected(detail)}"
    if isinstance(received, str) and detail["type"] in ("int_type", "float_type") and _NUMBER.fullmatch(received):
        text += " (a number stands without quotes)"
    if isinstance(received, str) and detail["type"] == "literal_error":
        close = nearest(received, re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
        text += f"; did you mean {close}?" if close else ""
    return Problem(address, text, address)


def _expected(detail: Any) -> str:
    if detail["type"] in _EXPECTED:
        return _EXPECTED[detail["type"]]
    text = re.sub(r"^Input should be |^\w+ should have | after validation, not .*$", "", detail["msg"])
    return re.sub(r"^(?=greater|less|a multiple)", "a number ", text)


def _remove(data: Any, address: Address) -> None:
    """Take out a setting; for an entry of a list, the whole list."""
    for position, key in enumerate(address):
        if not isinstance(data, dict):
            return
        if position == len(address) - 1 or not isinstance(data.get(str(key)), dict):
            data.pop(str(key), None)
            return
        data = data[str(key)]
