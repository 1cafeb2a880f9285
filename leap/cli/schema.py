"""Walks over settings and their declaration: a dataclass, and the same settings as plain mappings and lists."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from leap.cli.sources import Address


def plain(value: Any) -> Any:
    """Settings as YAML and JSON know them: dataclasses become mappings in field order, tuples lists, paths strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def defaults(schema: type) -> dict[str, Any]:
    """The plain default of every field that has one, so that a file may name no more than it changes."""
    data: dict[str, Any] = {}
    for field in (f for f in dataclasses.fields(schema) if f.init):
        if field.default is not dataclasses.MISSING:
            data[field.name] = plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            data[field.name] = plain(field.default_factory())
        elif len(found := classes(hints(schema)[field.name])) == 1:
            data[field.name] = defaults(found[0])
    return data


def leaves(schema: type, data: Any, at: Address = ()) -> Iterator[tuple[Address, Any]]:
    """Every setting that the chosen classes have, with its annotation: (address, annotation)."""
    for field in (f for f in dataclasses.fields(schema) if f.init):
        annotation = hints(schema)[field.name]
        value = data.get(field.name) if isinstance(data, dict) else None
        inner = chosen(annotation, value)
        if inner is not None and isinstance(value, dict):
            yield from leaves(inner, value, (*at, field.name))
        else:
            yield (*at, field.name), annotation


def choices(schema: type, data: dict[str, Any]) -> list[tuple[Address, str, list[str]]]:
    """Every union of dataclasses under the chosen classes: (address, the name chosen, the other names)."""
    found = []
    for address in (leaf[:-1] for leaf, _ in leaves(schema, data) if leaf[-1] == "name"):
        members = [str(name) for member in classes(annotation(schema, data, address)) for name in names(member)]
        current = str(get(data, (*address, "name")))
        if len(members) > 1:
            found.append((address, current, [name for name in members if name != current]))
    return found


def annotation(schema: type, data: Any, address: Address) -> Any:
    """The annotation at an address under the chosen classes; None where there is none."""
    found: Any = schema
    for key in address:
        owner = chosen(found, data)
        found = hints(owner).get(str(key)) if owner else None
        data = entry(data, key)
    return found


def kinds(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without constraints: `[int, NoneType]` for `Annotated[int, ...] | None`."""
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in kinds(part)]
    return [annotation]


def classes(annotation: Any) -> list[type]:
    """The dataclasses that an annotation allows: one, several for a union, none for a plain value."""
    return [kind for kind in kinds(annotation) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]


def chosen(annotation: Any, value: Any) -> type | None:
    """The dataclass that `value` means: the only one, or the one whose `name` it has."""
    found = classes(annotation)
    if len(found) == 1:
        return found[0]
    name = value.get("name") if isinstance(value, dict) else None
    return next((cls for cls in found if name in names(cls)), None)


def names(member: type) -> tuple[Any, ...]:
    """The values of `name` that select this member of a union."""
    return get_args(hints(member).get("name"))


@functools.cache
def hints(schema: type) -> dict[str, Any]:
    """The annotations of a class, constraints included."""
    return get_type_hints(schema, include_extras=True)


def get(data: Any, address: Address) -> Any:
    """The value at an address; KeyError where there is none."""
    for key in address:
        if not has(data, key):
            raise KeyError(key)
        data = data[key]
    return data


def put(data: dict[str, Any], address: Address, value: Any) -> None:
    """Set the value at an address, making the mappings on the way."""
    for key in address[:-1]:
        data = data.setdefault(str(key), {})
    data[str(address[-1])] = value


def has(data: Any, key: str | int) -> bool:
    """Whether a mapping or list has an entry."""
    if isinstance(data, list):
        return isinstance(key, int) and key < len(data)
    return isinstance(data, dict) and key in data


def entry(data: Any, key: str | int) -> Any:
    """An entry of a mapping or list, or None."""
    return data[key] if has(data, key) else None


def dotted(address: Address) -> str:
    """`("train", "lr")` as `train.lr`."""
    return ".".join(map(str, address))


def show(value: Any) -> str:
    """A value as YAML would write it, cut to a line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
