"""Settings: dataclasses filled by YAML files, then by the command line, and checked whole before anything starts.

A schema is a standard dataclass with a docstring below each field. Fields may be numbers with limits
(`Annotated[float, pydantic.Field(gt=0)]`), `Literal`s, optionals, tuples, tables (`dict[str, Any]`), dataclasses, and
unions of dataclasses told apart by a `name` (`Annotated[Leap | Reptile, pydantic.Field(discriminator="name")]`). It may
have a method `problems(self) -> list[str]` for what no single field can say; its lines join the same error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from leap.cli import overrides as command_line
from leap.cli import schema as declared
from leap.cli import sources
from leap.cli.checks import Problem, repaired
from leap.cli.sources import Address
from leap.errors import UsageError

T = TypeVar("T")


def load(
    schema: type[T], files: Sequence[str | Path], overrides: Sequence[str] = (), *, flags: Sequence[str] = ()
) -> T:
    """Settings from the defaults, then the files in order, then the command line.

    Args:
        schema: The dataclass to fill.
        files: Paths of YAML files, or names of shipped ones (`learner/leap`); later ones win. Mappings merge
            deeply, except that a mapping whose `name` changes is replaced whole.
        overrides: `--train.meta-steps 5` and the like; they can change a value, not the class that a `name` chose.
        flags: Options of the command itself, which a misspelt setting may have meant.

    Raises:
        UsageError: with everything that is wrong at once: where it stands, the value, what is expected and the nearest
            right name.
    """
    base = sources.Document(declared.defaults(schema), {})
    given, stray = command_line.group(overrides)
    lines = [*_lay(base, files), *stray]
    from_files, in_files = repaired(schema, base.data)
    lines += [_line(problem, _place(base.places, problem.address)) for problem in in_files]
    if from_files is None:  # nothing whole to hold the command line against
        raise _error(lines)

    # A learner that could not be told leaves its flags unchecked: they would be held against another one's fields.
    unknown = [problem.unusable for problem in in_files if problem.address != problem.unusable]
    given = [override for override in given if not any(_below(override.address, union) for union in unknown)]
    values, misread = command_line.apply(schema, from_files, given, flags)
    for address, value in values.items():
        declared.put(base.data, address, value)
    settings, out_of_range = repaired(schema, base.data)
    lines += [_line(problem, "command line") for problem in misread + out_of_range]

    wrong = [declared.dotted(problem.address) for problem in in_files + misread + out_of_range]
    lines += [text for text in _crossed(settings or from_files) if not any(path in text for path in wrong)]
    if lines or settings is None:
        raise _error(lines)
    return settings


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain mappings, lists, strings and numbers, in field order."""
    return declared.plain(settings)


def to_yaml(settings: Any) -> str:
    """Settings as YAML, every field, in field order; `load` of it gives equal settings."""
    return sources.dump(to_dict(settings))


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths.

    Example:
        >>> flatten({"train": {"meta_steps": 5}, "seed": 0})
        {'train.meta_steps': 5, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def difference(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """Where two settings (dataclasses or plain mappings) differ: (path, value in a, value in b); None for no such path.

    Example:
        >>> difference({"seed": 0, "lr": 0.1}, {"seed": 1, "lr": 0.1})
        [('seed', 0, 1)]
    """
    one, two = flatten(declared.plain(a)), flatten(declared.plain(b))
    return [(path, one.get(path), two.get(path)) for path in one | two if one.get(path) != two.get(path)]


def help_for(schema: type[T], settings: T | None = None, *, prog: str = "leap") -> str:
    """Every field with its docstring and its value in `settings` (else default), and what a YAML file can choose."""
    settings = load(schema, ()) if settings is None else settings
    lines = [
        f"{declared.dotted(address)} is {current}, chosen by a YAML file; others: {', '.join(others)}\n"
        for address, current, others in declared.choices(schema, declared.plain(settings))
    ]
    return command_line.describe(schema, settings, prog) + "".join(lines)


def _lay(base: sources.Document, files: Sequence[str | Path]) -> list[str]:
    """Lay the files onto the defaults; what is wrong with those that cannot be read."""
    lines = []
    for file in files:
        try:
            sources.merge(base, sources.read(file))
        except UsageError as error:
            lines.append(str(error))
    return lines


def _place(places: dict[Address, str], address: Address) -> str:
    """Where the value at an address, or the nearest mapping around it, was given."""
    inside = (address[:length] for length in range(len(address), 0, -1))
    return next((places[part] for part in inside if part in places), "default")


def _below(address: Address, part: Address) -> bool:
    return address[: len(part)] == part


def _line(problem: Problem, place: str) -> str:
    return f"{declared.dotted(problem.address)} ({place}): {problem.text}"


def _crossed(settings: Any) -> list[str]:
    return list(settings.problems()) if hasattr(settings, "problems") else []


def _error(lines: Sequence[str]) -> UsageError:
    if len(lines) == 1:
        return UsageError(lines[0])
    return UsageError(
        "\n".join([f"{len(lines)} things are wrong with the settings:", *(f"  {line}" for line in lines)])
    )
