"""The arguments of a command: files, the command's own options, and settings (`--train.meta-steps 5`)."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from leap.errors import UsageError

OF_FILES = ("--compare.learners",)
"""Settings that list YAML files: every word up to the next option is theirs."""
_NEGATIVE = re.compile(r"-(\d|\.\d|\.?inf|\.?nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Option:
    """An option of a command's own, such as `--out DIR`."""

    name: str
    """As typed: `--out`."""
    kind: Literal["flag", "value", "path", "values"]
    """A flag has no value, `values` has one or more."""
    help: str
    """One line."""
    metavar: str = "VALUE"
    """What stands for the value in the help."""


HELP = Option("--help", "flag", "Show this help.")


@dataclass
class Arguments:
    """Arguments told apart.

    Example:
        >>> split(["a.yaml", "--out", "x", "--seed", "3"], [Option("--out", "value", "Run folder.")])
        Arguments(files=['a.yaml'], options={'out': 'x', 'help': False}, overrides=['--seed', '3'])
    """

    files: list[str] = field(default_factory=list)
    """Arguments that belong to no option, in order."""
    options: dict[str, Any] = field(default_factory=dict)
    """Every declared option by its name without dashes (`print_config`), and `help`; False or None where not given."""
    overrides: list[str] = field(default_factory=list)
    """The rest, for `configuration.load`."""


def split(argv: Sequence[str], options: Sequence[Option], *, fields: bool = True) -> Arguments:
    """Tell the arguments of a command apart.

    A setting takes the values that follow it; a YAML file after its first value is a file again, so that files may
    stand anywhere, except behind one of `OF_FILES`, which takes it.

    Args:
        argv: What follows the command's name.
        options: The command's own; `--help` and `-h` are always there.
        fields: Whether any other `--name` is a setting; otherwise it is refused.

    Raises:
        UsageError: an option that is given twice, has no value, has one too many, or does not exist.
    """
    declared = {option.name: option for option in (*options, HELP)}
    empty: dict[str, Any] = {_key(o): False if o.kind == "flag" else None for o in declared.values()}
    found = Arguments(options=empty)
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = "--help" if name == "-h" else name.replace("_", "-")
        if word == "--":
            found.files += words
            break
        if option := declared.get(name):
            _take(option, [value] if equals else None, words, found.options)
        elif word.startswith("--") and fields:
            found.overrides += [word, *([] if equals else _values(words, files=name in OF_FILES))]
        elif word.startswith("-") and word != "-":
            raise UsageError(_unknown(word, declared))
        else:
            found.files.append(word)
    return found


def help_text(usage: str, about: str, options: Sequence[Option], fields: str = "") -> str:
    """The help of a command: its own options, then the settings (from `configuration.help_for`)."""
    left = [o.name if o.kind == "flag" else f"{o.name} {o.metavar}{' ...' * (o.kind == 'values')}" for o in options]
    rows = [
        *zip(left, (o.help for o in options), strict=True),
        ("-h, --help", HELP.help),
        ("--debug", "Show tracebacks."),
    ]
    width = max(len(name) for name, _ in rows) + 4
    lines = [
        textwrap.fill(text, 100, initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2))
        for name, text in rows
    ]
    text = f"usage: {usage}\n\n{about}\n\noptions:\n" + "\n".join(lines) + "\n"
    # tyro heads its help with a usage line and the schema's description; one usage line is enough.
    settings = fields[fields.index("\n\n") + 2 :] if fields.startswith("usage:") else fields
    return f"{text}\n{settings}" if settings else text


def _take(option: Option, given: list[str] | None, words: list[str], into: dict[str, Any]) -> None:
    """Read an option's value from the words that follow it."""
    key = _key(option)
    if into[key] not in (None, False):
        raise UsageError(f"{option.name} is given twice; keep one of them")
    if option.kind == "flag":
        if given is not None:
            raise UsageError(f"{option.name} takes no value, got {given[0]!r}; write {option.name} alone")
        into[key] = True
        return
    if given is None:
        given = (
            _values(words) if option.kind == "values" else [words.pop(0)] if words and not _is_option(words[0]) else []
        )
    if not given or not all(value.strip() for value in given):
        raise UsageError(f"{option.name} needs a value; write {option.name} {option.metavar} ({option.help})")
    if option.kind == "path" and given[0].startswith("-"):
        raise UsageError(f"{option.name} needs a path, got {given[0]!r}; for a file of that name write ./{given[0]}")
    into[key] = given if option.kind == "values" else Path(given[0]).expanduser() if option.kind == "path" else given[0]


def _values(words: list[str], *, files: bool = False) -> list[str]:
    """The words that belong to the option before them; `files`: YAML files too."""
    values: list[str] = []
    while words and not _is_option(words[0]) and (files or not (values and words[0].endswith((".yaml", ".yml")))):
        values.append(words.pop(0))
    return values


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _NEGATIVE.match(word)


def _key(option: Option) -> str:
    return option.name.lstrip("-").replace("-", "_")


def _unknown(word: str, declared: dict[str, Option]) -> str:
    known = [*declared, "--debug"]
    close = difflib.get_close_matches(word.partition("=")[0], known, n=1)
    return f"unknown option {word}; " + (f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}")
