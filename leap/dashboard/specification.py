"""What a dashboard shows: sections of panels over keys that runs log, as plain data and as JSON.

Nothing here knows wandb's own objects; `leap.dashboard.workspace` translates. The keys: docs/metrics.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

FORMAT = 1
LEARNER = "learner.name"  # keys of a wandb run's configuration by which lines are made
CONFIGURATION = "configuration"
FAMILY = "tasks.name"  # the same for all runs of a dashboard: one line over all of them

Kind = Literal["lines", "bars", "points", "pictures", "table", "table_points"]


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        kind: `lines`: keys against `x` over time; `bars`: figures of runs' ends; `points`: a point a run, of two
            figures; `pictures`: logged pictures; `table`: a logged table; `table_points`: a point a row of one, the
            first two of `columns` against each other.
        title: In words.
        description: What is seen, and how it is read.
        keys: What is drawn: metrics, figures of the summary, pictures, or the table.
        x: The metric or figure on the horizontal axis; of bars, pictures and tables none.
        x_title: That axis in words.
        y_title: The other one.
        columns: Of `table_points`, those of the table on the two axes.
        group_by: Key of the runs' configuration; runs with the same value are one line or bar. None: each alone.
        aggregate: What of a group is drawn.
        band: What the band around it is.
        log_y: Whether the vertical axis is logarithmic.
    """

    kind: Kind
    title: str
    description: str
    keys: tuple[str, ...]
    x: str | None = None
    x_title: str = ""
    y_title: str = ""
    columns: tuple[str, ...] = ()
    group_by: str | None = None
    aggregate: Literal["mean"] | None = None
    band: Literal["stddev"] | None = None
    log_y: bool = False


@dataclass(frozen=True)
class Section:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Missing:
    """A section that is not there, and why."""

    title: str
    why: str


@dataclass(frozen=True)
class Dashboard:
    """What is shown of the runs of one wandb group.

    Attributes:
        title: Of workspace and report.
        project: Of the wandb runs.
        entity: User or team; None: the key's own.
        group: The wandb group; no other runs are shown.
        family: Of their tasks.
        learners: Their names.
        seeds: Training seeds.
        runs: How many runs there are; each can be three in wandb: training, evaluation and measures.
        sections: In the order in which they are read.
        missing: What these runs have not logged.
    """

    title: str
    project: str
    entity: str | None
    group: str
    family: str
    learners: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: int
    sections: tuple[Section, ...]
    missing: tuple[Missing, ...] = ()

    def panels(self) -> Iterator[Panel]:
        """All panels."""
        for section in self.sections:
            yield from section.panels

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that a panel needs, once."""
        held = ((*panel.keys, *([panel.x] if panel.x else [])) for panel in self.panels())
        return tuple(dict.fromkeys(key for keys in held for key in keys))

    @property
    def summary(self) -> str:
        """One sentence about the runs.

        Example:
            >>> Dashboard("t", "leap", None, "first", "glyphs", ("leap", "none"), (0, 1), 4, ()).summary
            '4 runs of the group first, glyphs: leap, none; seeds 0, 1.'
        """
        seeds = ", ".join(map(str, self.seeds))
        named = f"seed{'s' if len(self.seeds) > 1 else ''} {seeds}"
        runs = f"{self.runs} run{'s' if self.runs > 1 else ''}"
        return f"{runs} of the group {self.group}, {self.family}: {', '.join(self.learners)}; {named}."

    def json(self) -> str:
        """The whole as JSON, for people and other programs."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def is_specification(text: str) -> bool:
    """Whether a file's text is a dashboard that was written before, and may be written anew.

    Example:
        >>> is_specification(Dashboard("t", "leap", None, "g", "glyphs", ("leap",), (0,), 1, ()).json())
        True
        >>> is_specification("{}"), is_specification("seed: 0")
        (False, False)
    """
    try:
        held: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    kinds: tuple[set[str], ...] = (
        {"format", "sections", "missing", "project", "group"},
        {"format", "workspace", "report"},
    )
    return isinstance(held, dict) and any(kind <= set(held) for kind in kinds)
