"""What an export does not tell: folders and accounts of the machine that trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ENDS = r"\s:;,'\""  # what ends a path within a text
_NAME = rf"[^{_ENDS}/\\]{{1,255}}"
_SPACED = rf"[^{_ENDS}=/\\][^\r\n:;,'\"=/\\]{{0,253}}[^{_ENDS}=/\\]"
_ABOVE = rf"(?:[^{_ENDS}=/\\]{{1,255}}[/\\])*\.\."  # data/../..
_BEGIN = r"(?<![\w.~/\\+-])"
_WHOLE = re.compile(rf"(?:[/~]|{_ABOVE}(?:[/\\]|$)|\\\\|[A-Za-z]:[/\\]|file:)")
_INSIDE = re.compile(
    rf"(?:file:/{{1,3}}|{_BEGIN}(?:~[\w.-]*[/\\]|[A-Za-z]:[/\\]|/(?![/\s])|\\\\|{_ABOVE}[/\\]))"
    rf"(?:(?:{_NAME}|{_SPACED})[/\\])*"
)
_HOME = re.compile(
    rf"(?:file:/{{0,2}}|{_BEGIN})(?:(?:[A-Za-z]:)?[/\\](?:home|Users)[/\\]{_NAME}|(?<==)~{_NAME})[/\\]?"
    r"(?=[:;,'\"]|$|\s(?![^/\\:;,'\"=]*[/\\]))"
)
_ACCOUNT = re.compile(r"(?<=://)[^/\s@]*@|[\w.+-]{1,64}@[\w.-]{1,255}:(?=[/~])")
_SLASH = re.compile(r"[/\\]")
_FACTS = {"commit": r"[0-9a-f]{7,64}(-dirty)?", "started": r"[0-9T:+.-]{10,40}", "execution": r"[a-z]{3,20}"}
_VERSION = re.compile(r"[\w.+-]{1,60}")


def without_places(settings: Any) -> Any:
    """Settings whose paths keep their last part alone, whose data folders are left out, and whose accounts are too.

    Example:
        >>> without_places({"tasks": {"folder": "/home/me/data", "names": ["mnist", "/home/me/birds"]}})
        {'tasks': {'folder': None, 'names': ['mnist', './birds']}}
        >>> without_places({"tasks": {"source": "~/mine.py:make"}, "wandb": {"entity": "me", "mode": "auto"}})
        {'tasks': {'source': './mine.py:make'}, 'wandb': {'entity': None, 'mode': 'auto'}}
    """
    found = _bare(settings)
    if isinstance(found.get("tasks"), dict) and "folder" in found["tasks"]:
        found["tasks"]["folder"] = None
    if isinstance(found.get("wandb"), dict):
        found["wandb"] |= {key: None for key in ("entity", "group") if key in found["wandb"]}
    return found


def without_path(text: str) -> str:
    """A text without the folders of paths in it, and without accounts in addresses; of a home folder nothing is left.

    Example:
        >>> without_path("/home/me/birds.zip"), without_path("--root=/home/me/birds"), without_path("https://a.org/b")
        ('./birds.zip', '--root=birds', 'https://a.org/b')
        >>> without_path("/home/me"), without_path("data/../../me/birds"), without_path("https://me:word@a.org/b")
        ('.', './birds', 'https://a.org/b')
    """
    text = _ACCOUNT.sub("", text)
    if not _WHOLE.match(text):
        return _INSIDE.sub("", _HOME.sub(".", text))
    parts = [part for part in _SLASH.split(text) if part and not part.endswith(":")]
    if not parts or parts[-1] in (".", "..") or parts[-1].startswith("~"):
        return "."
    return "." if len(parts) == 2 and parts[0] in ("home", "Users") else f"./{parts[-1]}"


def facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's provenance what tells no machine: versions, commit, when, how walks were executed, on what."""
    found: dict[str, Any] = {}
    for key, form in _FACTS.items():
        value = provenance.get(key)
        if isinstance(value, str) and re.fullmatch(form, value):
            found[key] = value
    if isinstance(provenance.get("processes"), int):
        found["processes"] = provenance["processes"]
    hardware, versions = provenance.get("hardware"), provenance.get("versions")
    device = hardware.get("device") if isinstance(hardware, dict) else None
    if isinstance(device, str) and re.fullmatch(r"[\w .()-]{1,60}", device):
        found["device"] = device
    found["versions"] = {
        name: version
        for name, version in (versions.items() if isinstance(versions, dict) else ())
        if isinstance(version, str) and _VERSION.fullmatch(name) and _VERSION.fullmatch(version)
    }
    return found


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {_bare(key): _bare(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_bare(held) for held in value]
    return without_path(value) if isinstance(value, str) else value
