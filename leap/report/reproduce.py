"""How to reproduce each row of a comparison: what was typed, the version, and the settings as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from leap.report.markup import details, section, tag, text
from leap.report.runs import Run


def reproduce_section(groups: Sequence[tuple[str, Sequence[Run]]]) -> str:
    """The commands of every row, and the settings of its first run, which with another seed are those of the others."""
    parts = [tag("p", text(_ABOUT), class_="note")]
    for label, runs in groups:
        parts.append(tag("h3", text(label)))
        parts.append(tag("pre", text("\n".join(commands(runs))), tabindex="0"))
        parts.append(details(f"Settings of {label}", tag("pre", text(settings(runs)), tabindex="0")))
    return section("How to reproduce each row", *parts, class_="long")


_ABOUT = (
    "First what was typed at the time, then what gives the same runs one by one. Where a run's folder is gone, save "
    "the settings below its row as config.yaml and choose the seed."
)


def commands(runs: Sequence[Run]) -> list[str]:
    """Command lines, a version above those that began with it."""
    lines: dict[str, None] = {}  # `leap compare` starts many runs, and is shown once
    for run in runs:
        lines[f"# {_version(run.provenance)}"] = None
        lines[run.command or f"# {run.folder}: its command line was not recorded"] = None
    lines["# or one by one:"] = None
    for run in runs:
        again = f"{run.folder.name}-again"
        lines[f"leap train {quote(str(run.folder / 'config.yaml'))} --out {quote(again)}"] = None
        if run.evaluation is not None:
            lines[f"leap evaluate {quote(again)}"] = None
        if run.measures is not None:
            lines[f"leap measure {quote(again)}"] = None
    return list(lines)


def settings(runs: Sequence[Run]) -> str:
    """The configuration of the first run as YAML."""
    import yaml

    seeds = ", ".join(str(run.seed) for run in runs)
    head = "" if len(runs) < 2 else f"# seeds: {seeds}\n"
    held: str = yaml.safe_dump(dict(runs[0].config), sort_keys=False, allow_unicode=True, width=120)
    return head + held


def _version(provenance: Mapping[str, Any]) -> str:
    versions = provenance.get("versions")
    version = versions.get("leap") if isinstance(versions, Mapping) else None
    commit = provenance.get("commit")
    told = [f"leap {version}"] if version else []
    told += [f"git checkout {commit}"] if commit else []
    return ", ".join(told) or "version not recorded"
