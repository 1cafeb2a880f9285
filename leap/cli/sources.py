"""Settings files: found by path or among the shipped ones, read strictly, merged in order.

The YAML is the part of YAML 1.2 that settings need: mappings, lists, strings, integers, floats (`1e-3` is one), true,
false and null. Aliases, tags and keys given twice are refused; `yes`, dates and octal numbers are strings.
"""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leap.errors import UsageError

Address = tuple[str | int, ...]

_LARGEST = 1 << 20  # bytes; settings are a page, and a data set named by mistake should not be read whole
_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    # tag: pattern of the plain scalar, its possible first characters, value
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF", lambda text: text.lower() == "true"),
    "null": (r"^(?:~|null|Null|NULL|)$", "~nN\0", lambda text: None),
    "int": (r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789", lambda text: int(text.replace("_", ""))),
    "float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
        lambda text: float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")),
    ),
}


class Document(NamedTuple):
    """What one file says, and where it says it."""

    data: dict[str, Any]
    places: dict[Address, str]
    """For each value, "FILE, line N"."""


def shipped() -> dict[str, Path]:
    """The configurations that come with leap, by name: `omniglot`, `learner/leap`."""
    root = _shipped_root()
    if root is None:
        return {}
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find(name: str | Path) -> Path:
    """The file that a name on the command line means: a path, or a shipped configuration.

    Without such a file, `configs/learner/leap.yaml`, `learner/leap.yaml` and `learner/leap` name the shipped one.

    Raises:
        UsageError: neither a file nor a shipped configuration; the message has the nearest names.
    """
    if not str(name).strip() or "\0" in str(name):
        raise UsageError(f"{str(name)!r} is not the name of a settings file; name a YAML file")
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = shipped()
    short = path.with_suffix("") if path.suffix in (".yaml", ".yml") else path
    plain = short.as_posix().removeprefix("configs/")
    if plain in known:
        return known[plain]
    if path.is_dir():
        inside = ", ".join(sorted(file.name for file in path.glob("*.y*ml"))[:8]) or "it has no .yaml file"
        raise UsageError(f"{name} is a folder, not a settings file; name a file in it ({inside})")
    if path.exists():  # a pipe or a device: whoever names one means it
        return path
    raise UsageError(f"no settings file {name}{_nearest_file(path, plain, known)}")


def read(name: str | Path) -> Document:
    """Read one settings file.

    Raises:
        UsageError: missing, unreadable, a folder, not UTF-8, not YAML, not a mapping, or with a key given twice. The
            message names the file, the line and the cure.
    """
    path = find(name)
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {name}: {error.strerror or error}; check the path and its permissions"
        ) from error
    if len(raw) > _LARGEST:
        raise UsageError(f"{name} is larger than 1 MiB, so it is not a settings file; name a YAML file")
    return parse(_decode(raw, str(name)), str(name))


def parse(text: str, name: str) -> Document:
    """Read settings from YAML text; `name` is what messages call it.

    Example:
        >>> parse("train: {lr: 1e-3}", "example").data
        {'train': {'lr': 0.001}}
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None or node.value == "":  # an empty file, or comments only, changes nothing
            return Document({}, {})
        if not isinstance(node, yaml.MappingNode):
            raise _error(node, name, "settings are `name: value` lines, not " + _KINDS.get(type(node), "this"))
        places: dict[Address, str] = {}
        return Document(_build(node, (), name, places), places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise UsageError(f"{name}{line}: not YAML: {what}; indent with spaces and write `name: value` lines") from error
    except yaml.reader.ReaderError as error:
        line = f", line {text.count(chr(10), 0, error.position) + 1}"
        raise UsageError(f"{name}{line}: not YAML: {error.reason}; save it as plain text in UTF-8") from error
    except RecursionError as error:
        raise UsageError(f"{name}: nested far too deeply for settings; check its brackets") from error


def value(text: str) -> Any:
    """What a text means as the value of a setting; the text itself where it is not YAML.

    Example:
        >>> [value(text) for text in ("1e-3", "true", "leap", "[1, 2]")]
        [0.001, True, 'leap', [1, 2]]
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _build(node, (), "", {})
    except (yaml.YAMLError, UsageError, RecursionError):
        return text


def merge(base: Document, over: Document) -> None:
    """Lay `over` onto `base`, in place.

    Mappings merge deeply, except that a mapping whose `name` changes is replaced whole: no learner's values leak into
    another's.
    """
    _merge(base, over, base.data, over.data, ())


def dump(data: dict[str, Any]) -> str:
    """YAML text that `parse` reads back to equal data; order kept, lists of values on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)


def _merge(base: Document, over: Document, old: dict[str, Any], new: dict[str, Any], at: Address) -> None:
    for key, value in new.items():
        here, current = (*at, key), old.get(key)
        if (
            isinstance(value, dict)
            and isinstance(current, dict)
            and value.get("name", current.get("name")) == current.get("name")
        ):
            _merge(base, over, current, value, here)
            continue
        for address in [a for a in base.places if a[: len(here)] == here]:
            del base.places[address]
        base.places.update({a: place for a, place in over.places.items() if a[: len(here)] == here})
        old[key] = value


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (yaml's own name)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # ten lines of them can stand for gigabytes
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias (*name): write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        # JSON writes a rare character as two halves ("\ud834\udd1e"), which YAML leaves apart
        node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes whatever this reader or one of YAML 1.1 would take for something other than a string."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, (_pattern, _first, _) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(_pattern), [c.replace("\0", "") for c in _first])
_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence(_TAG + "seq", data, flow_style=True))

# Its plain and single-quoted styles lose line separators such as U+0085.
_Dumper.add_representer(
    str, lambda dumper, data: dumper.represent_scalar(_TAG + "str", data, style=None if data.isprintable() else '"')
)

_KINDS = {yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}


def _build(node: yaml.Node, at: Address, name: str, places: dict[Address, str]) -> Any:
    places[at] = f"{name}, line {node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, at, name, places)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_build(child, (*at, index), name, places) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, name)
    raise _error(node, name, f"the tag {node.tag.replace(_TAG, '!!')} is not used in settings; remove it")


def _mapping(node: yaml.MappingNode, at: Address, name: str, places: dict[Address, str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _error(key, name, "a setting's name must be a word, not " + _KINDS.get(type(key), "a mapping"))
        if any("\ud800" <= letter <= "\udfff" for letter in key.value):
            raise _error(key, name, f"{key.value[:40]!r} is half a character; write a setting's name")
        if key.value in data:
            where = ".".join(map(str, (*at, key.value)))
            raise _error(key, name, f"{where} is given twice, first at {places[(*at, key.value)]}; keep one of them")
        data[key.value] = _build(value, (*at, key.value), name, places)
        places[(*at, key.value)] = f"{name}, line {key.start_mark.line + 1}"
    return data


def _scalar(node: yaml.ScalarNode, name: str) -> Any:
    kind = node.tag.removeprefix(_TAG)
    try:
        node.value.encode()  # "\ud800" is YAML, but no text
        return node.value if kind == "str" else _SCALARS[kind][2](node.value)
    except KeyError:
        raise _error(node, name, f"the tag {node.tag.replace(_TAG, '!!')} is not used in settings; remove it") from None
    except ValueError:
        raise _error(node, name, f"{node.value[:40]!r} cannot be read as {kind}; write a plain value") from None


def _error(node: yaml.Node, name: str, message: str) -> UsageError:
    return UsageError(f"{name}, line {node.start_mark.line + 1}: {message}")


def _decode(raw: bytes, name: str) -> str:
    if b"\0" in raw:
        raise UsageError(f"{name} is a binary file, not settings; name a YAML file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{raw[error.start]:02x}"
        raise UsageError(f"{name}, line {line}: not UTF-8 text ({byte}); save the file as UTF-8") from error


def _shipped_root() -> Path | None:
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "configs").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "configs"
    try:
        root = Path(str(importlib.resources.files("leap.configs")))
    except ModuleNotFoundError:  # an installation without them: paths still work
        return None
    return root if root.is_dir() else None


def _nearest_file(path: Path, plain: str, known: dict[str, Path]) -> str:
    beside = [str(file) for file in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), beside, n=2) + difflib.get_close_matches(plain, known, n=2)
    near += [name for name in known if Path(name).name == Path(plain).name and name not in near]
    if near:
        return f"; did you mean {' or '.join(near[:3])}?"
    return f"; shipped with leap: {', '.join(known)}" if known else "; give the path of a YAML file"
