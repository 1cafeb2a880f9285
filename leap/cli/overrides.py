"""Settings given on the command line, read by tyro: `--train.meta-steps 5`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar, get_origin

import tyro

from leap.cli import checks, sources
from leap.cli import schema as declared
from leap.cli.checks import Problem
from leap.cli.sources import Address

T = TypeVar("T")

# The YAML chooses among the classes of a union, so that a flag can never leave one learner's values in another.
_STYLE = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)


class Override(NamedTuple):
    """One setting on the command line."""

    flag: str
    address: Address
    values: tuple[str, ...]


def group(tokens: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Split `--a.b 1 2 --c=3` into settings and their values; a setting given again takes the place of the earlier one.

    Returns:
        The settings, and what belongs to none.

    Example:
        >>> group(["--train.meta-steps", "5"])[0]
        [Override(flag='--train.meta-steps', address=('train', 'meta_steps'), values=('5',))]
    """
    if garbled := [token for token in tokens if not _is_text(token)]:
        return [], [f"{token!r} on the command line holds bytes that are not UTF-8; type it anew" for token in garbled]
    found: dict[Address, Override] = {}
    stray: list[str] = []
    last: Address | None = None
    for token in tokens:
        if token.startswith("--"):
            flag, equals, value = token.partition("=")
            last = tuple(flag[2:].replace("-", "_").split("."))
            found[last] = Override(flag, last, (value,) if equals else ())
        elif last is None:
            stray.append(f"{token!r} on the command line belongs to no setting; write --name {token}")
        else:
            found[last] = found[last]._replace(values=(*found[last].values, token))
    return list(found.values()), stray


def apply(
    schema: type[T], base: T, overrides: Sequence[Override], flags: Sequence[str]
) -> tuple[dict[Address, Any], list[Problem]]:
    """Read overrides.

    Args:
        schema: The dataclass of the settings.
        base: Valid settings; they say which member of each union is chosen.
        overrides: From `group`.
        flags: Options of the command itself (`--out`), which a wrong name may have meant.

    Returns:
        The plain value at each address, its constraints still to be checked; and what cannot be read.
    """
    data = declared.plain(base)
    settings = dict(declared.leaves(schema, data))
    values: dict[Address, Any] = {}
    problems: list[Problem] = []
    readable: list[Override] = []
    for override in (_spell(override, settings) for override in overrides):
        table = next((at for at in _tables(settings) if override.address[: len(at)] == at), None)
        if text := _valueless(override) if table else _misnamed(schema, data, override, settings, flags):
            problems.append(Problem(override.address, text, override.address))
        elif table or (_bracketed(override) is not None and _listed(settings[override.address])):
            values[override.address] = _untyped(override)
        else:
            readable.append(override)
    tableless = _tableless(schema, base)
    try:
        return values | _parse(schema, tableless, readable), problems
    except _Refused:  # tyro stops at the first; one by one finds them all
        for override in readable:
            try:
                values |= _parse(schema, tableless, [override])
            except _Refused:
                problems.append(_unreadable(schema, data, override))
        return values, problems


def describe(schema: type[T], base: T, prog: str) -> str:
    """Every field with its docstring and its value in `base`, as tyro shows them."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        tyro.cli(schema, prog=prog, args=["--help"], default=_tableless(schema, base), config=_STYLE)
    # The command lists its own --help.
    lines = [line for line in shown.getvalue().splitlines() if "-h, --help" not in line]
    lines.append("A list takes several words, or one as a file has it: --NAME 0 1 2, or --NAME '[0, 1, 2]'")
    data = declared.plain(base)
    for address in _tables(dict(declared.leaves(schema, data))):
        now = declared.show(declared.get(data, address))
        lines.append(f"--{declared.dotted(address)}.NAME VALUE, as many as wanted; now {now}")
    return "\n".join(lines) + "\n"


class _Refused(Exception):
    """Tyro could not read the arguments."""


def _parse(schema: type[T], base: T, overrides: Sequence[Override]) -> dict[Address, Any]:
    if not overrides:
        return {}
    args = [argument for override in overrides for argument in _arguments(override)]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it also prints what it refuses
            result = tyro.cli(schema, args=args, default=base, config=_STYLE, console_outputs=False)
    except SystemExit as error:
        raise _Refused from error
    data = declared.plain(result)
    return {o.address: declared.get(data, o.address) for o in overrides}


def _arguments(override: Override) -> list[str]:
    flag = "--" + declared.dotted(override.address)
    if len(override.values) == 1:  # tied to its flag, or a value like "-x" could be taken for an option
        return [f"{flag}={override.values[0]}"]
    return [flag, *override.values]


def _spell(override: Override, settings: dict[Address, Any]) -> Override:
    """True, False and None as tyro spells them; `--a.b` and `--a.no-b` for booleans."""
    *level, word = override.address
    opposite = (*level, str(word).removeprefix("no_"))
    if override.address not in settings and not override.values and declared.kinds(settings.get(opposite)) == [bool]:
        return override._replace(address=opposite, values=("False",))
    kinds = declared.kinds(settings.get(override.address))
    if kinds == [bool]:
        values = override.values or ("true",)
        return override._replace(values=tuple(v.title() if v.lower() in ("true", "false") else v for v in values))
    if type(None) in kinds:
        return override._replace(values=tuple("None" if value == "null" else value for value in override.values))
    return override


def _misnamed(
    schema: type, data: dict[str, Any], override: Override, settings: dict[Address, Any], flags: Sequence[str]
) -> str | None:
    """What is wrong with the name of a setting, or None."""
    address, received = override.address, " ".join(override.values) or "no value"
    union = address[:-1] if address[-1] == "name" else address
    members = declared.classes(declared.annotation(schema, data, union))
    if len(members) > 1 and override.values != (declared.get(data, (*union, "name")),):
        return _switch(union, received, [str(name) for member in members for name in declared.names(member)])
    if address in settings:
        return None
    below = [declared.dotted(leaf) for leaf in settings if leaf[: len(address)] == address]
    if below:
        return f"is a section (got {received}); its settings: {', '.join(below)}"
    flag = checks.nearest(override.flag, [flag.replace("-", "_") for flag in flags])
    hint = f"did you mean {flag.replace('_', '-')}?" if flag else checks.suggestion(address, schema, data)
    return f"there is no such setting (got {received}); {hint}"


def _switch(union: Address, received: str, known: list[str]) -> str:
    section = declared.dotted(union)
    if received not in known:
        close = checks.nearest(received, known)
        hint = f"; did you mean {close}?" if close else ""
        return f"got {received}, expected one of {', '.join(known)}{hint} (chosen by a YAML file, not by a flag)"
    file = f"{section}/{received}"
    shipped = file in sources.shipped()
    cure = f"configs/{file}.yaml" if shipped else f"a YAML file with `{section}: {{name: {received}}}`"
    return f"got {received}, but a flag cannot switch the {section}; name {cure} among the files"


def _valueless(override: Override) -> str | None:
    return None if override.values else "has no value; write one after it"


def _untyped(override: Override) -> Any:
    """A value whose type no annotation gives, read as YAML."""
    if (whole := _bracketed(override)) is not None:
        return whole
    values = [sources.value(text) for text in override.values]
    return values[0] if len(values) == 1 else values


def _bracketed(override: Override) -> list[Any] | None:
    """The list that `[a, b]` means, in one word or, unquoted, in several; None where it is something else."""
    text = " ".join(override.values)
    found = sources.value(text) if text.startswith("[") else None
    return found if isinstance(found, list) else None


def _listed(annotation: Any) -> bool:
    return any(get_origin(kind) in (tuple, list) for kind in declared.kinds(annotation))


def _unreadable(schema: type, data: dict[str, Any], override: Override) -> Problem:
    """Say in the words of the YAML check what tyro refused."""
    if text := _valueless(override):
        return Problem(override.address, text, override.address)
    trial = deepcopy(data)
    value = _untyped(override)
    alone = _listed(declared.annotation(schema, data, override.address)) and not isinstance(value, list)
    declared.put(trial, override.address, [value] if alone else value)
    for problem in checks.check(schema, trial)[1]:
        if problem.address[: len(override.address)] == override.address:
            return problem
    text = f"got {' '.join(override.values)}, which cannot be read; see --help"
    return Problem(override.address, text, override.address)


def _tables(settings: dict[Address, Any]) -> list[Address]:
    """The settings that are mappings of any names, as `meta.options`."""
    return [
        at
        for at, annotation in settings.items()
        if any(kind is dict or get_origin(kind) is dict for kind in declared.kinds(annotation))
    ]


def _tableless(schema: type[T], base: T) -> T:
    """`base` with its tables empty, since tyro would make fields of their entries."""
    data = declared.plain(base)
    for address in _tables(dict(declared.leaves(schema, data))):
        declared.put(data, address, {})
    return checks.check(schema, data)[0] or base


def _is_text(token: str) -> bool:
    try:
        token.encode()
    except UnicodeEncodeError:  # bytes that Python could not decode
        return False
    return "\0" not in token
