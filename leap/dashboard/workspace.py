"""A dashboard as objects of the package wandb-workspaces, which is imported when used: a workspace and a report."""

from __future__ import annotations

import importlib
import re
import unicodedata
import warnings
from collections.abc import Callable
from typing import Any

from leap.dashboard.specification import FORMAT, Dashboard, Panel
from leap.errors import RunError, UsageError

PACKAGE = "wandb-workspaces"
WIDTH, HEIGHT = 12, 8  # of a panel in a report, whose grid is 24 wide
JOBS = 3  # wandb runs of one run: training, evaluation, measures
SCATTER = "wandb/scatter/v0"  # wandb's own chart, which every account has
TITLE = 128  # characters that wandb takes


def available() -> bool:
    """Whether the package is installed."""
    try:
        importlib.import_module("wandb_workspaces")
    except ModuleNotFoundError:
        return False
    return True


def workspace(held: Dashboard, entity: str | None = None) -> Any:
    """The dashboard as `wandb_workspaces.workspaces.Workspace`.

    Args:
        held: What it shows.
        entity: User or team, where the dashboard names none.

    Raises:
        RunError: this version of the package cannot say which runs to show.
    """
    ws = _room("workspaces")
    sections = [
        ws.Section(
            name=section.title,
            panels=[_panel(panel, held) for panel in section.panels],
            is_open=True,
            layout_settings=ws.SectionLayoutSettings(columns=2, rows=2),
        )
        for section in held.sections
    ]
    made = ws.Workspace(
        entity=held.entity or entity or "",
        project=held.project,
        name=workspace_name(held.title),
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=_wandb_runs(held)),
    )
    _show_group(made, held.group)
    _check(made._to_model().spec.section.run_sets[0], held.group)
    return made


def report(held: Dashboard, entity: str | None = None) -> Any:
    """The same panels as `wandb_workspaces.reports.v2.Report`, under what each shows in words; raises likewise."""
    wr = _room("reports.v2")
    blocks = [wr.P(held.summary), wr.TableOfContents()]
    for section in held.sections:
        runs = wr.Runset(name=held.group)
        _show_group(runs, held.group)
        _check(runs._to_model(), held.group)
        panels = [_panel(panel, held) for panel in section.panels]
        for place, panel in enumerate(panels):
            panel.layout = wr.Layout(x=WIDTH * (place % 2), y=HEIGHT * (place // 2), w=WIDTH, h=HEIGHT)
        told = wr.UnorderedList(items=[f"{panel.title}. {panel.description}" for panel in section.panels])
        blocks += [wr.H2(section.title), told, wr.PanelGrid(runsets=[runs], panels=panels)]
    if held.missing:
        told = wr.UnorderedList(items=[f"{one.title}: {one.why}." for one in held.missing])
        blocks += [wr.H2("What is not here"), told]
    title = printable(held.title)[:TITLE]
    entity = held.entity or entity or ""
    return wr.Report(
        project=held.project, entity=entity, title=title, description=held.summary, blocks=blocks, width="fluid"
    )


def specification(held: Dashboard) -> dict[str, Any]:
    """What the package would send, as plain data."""
    made = {"workspace": workspace(held), "report": report(held)}
    told = {"by_alias": True, "exclude_none": True, "mode": "json"}
    return {"format": FORMAT} | {name: one._to_model().model_dump(**told) for name, one in made.items()}


def send(held: Dashboard) -> tuple[str, str]:
    """Make workspace and report in the account whose key is found.

    Returns:
        Their addresses.

    Raises:
        UsageError: no package or no key.
        RunError: wandb cannot be reached, or did not take it.
    """
    if not available():
        raise UsageError(f"--send needs the package {PACKAGE}; install it: pip install {PACKAGE}")
    import wandb

    try:
        known = wandb.login(prompt=False)
    except Exception as error:
        raise RunError(f"wandb cannot be reached ({_cause(error)}); repeat the command with a network") from error
    if not known:
        raise UsageError("no wandb key was found; run wandb login, or set WANDB_API_KEY, and repeat the command")
    try:
        entity = held.entity or wandb.Api().default_entity
        saved = [one.save() for one in (workspace(held, entity), report(held, entity))]
        return saved[0].url, saved[1].url
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"wandb did not take the dashboard ({_cause(error)}); repeat the command") from error


def workspace_name(title: str) -> str:
    """A title as wandb takes it for a workspace, which is without symbols such as = and emoji.

    Example:
        >>> workspace_name("lr=0.1 <b>")
        'lr-0.1 -b-'
    """
    symbols = ("So", "Sk", "Sm", "Sc", "Cs")
    return "".join("-" if unicodedata.category(one) in symbols else one for one in printable(title))[:TITLE]


def printable(title: str) -> str:
    """A title in one line.

    Example:
        >>> printable("two" + chr(10) + "lines" + chr(0))
        'two lines'
    """
    return re.sub(r"\s+", " ", "".join(c for c in title if c.isprintable() or c.isspace())).strip()


def _room(name: str) -> Any:
    """A module of the package, which itself uses what its libraries have deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"wandb_workspaces.{name}")


def _wandb_runs(held: Dashboard) -> int:
    return max(10, JOBS * held.runs)


def _panel(panel: Panel, held: Dashboard) -> Any:
    wr = _room("reports.v2")
    return KINDS[panel.kind](wr, panel, held)


def _drawn(wr: Any, panel: Panel, held: Dashboard) -> dict[str, Any]:
    """What lines and bars have in common."""
    by = None if panel.group_by is None else wr.Config(panel.group_by)
    over = {"groupby": by, "groupby_aggfunc": panel.aggregate, "groupby_rangefunc": panel.band}
    named = {"title": panel.title, "title_x": panel.x_title, "title_y": panel.y_title or None}
    return {**named, **over, "max_runs_to_show": _wandb_runs(held)}


def _lines(wr: Any, panel: Panel, held: Dashboard) -> Any:
    return wr.LinePlot(x=panel.x, y=list(panel.keys), log_y=panel.log_y or None, **_drawn(wr, panel, held))


def _bars(wr: Any, panel: Panel, held: Dashboard) -> Any:
    return wr.BarPlot(metrics=list(panel.keys), **_drawn(wr, panel, held))


def _points(wr: Any, panel: Panel, held: Dashboard) -> Any:
    x, y = (wr.SummaryMetric(key) for key in (panel.x, panel.keys[0]))
    return wr.ScatterPlot(title=panel.title, x=x, y=y)


def _pictures(wr: Any, panel: Panel, held: Dashboard) -> Any:
    return wr.MediaBrowser(title=panel.title, media_keys=list(panel.keys))


def _table(wr: Any, panel: Panel, held: Dashboard) -> Any:
    return wr.WeavePanelSummaryTable(table_name=panel.keys[0])


def _table_points(wr: Any, panel: Panel, held: Dashboard) -> Any:
    x, y = panel.columns
    made = wr.CustomChart.from_table(panel.keys[0], chart_fields={"x": x, "y": y}, chart_strings={"title": panel.title})
    made.chart_name = SCATTER
    return made


KINDS: dict[str, Callable[[Any, Panel, Dashboard], Any]] = {
    "lines": _lines,
    "bars": _bars,
    "points": _points,
    "pictures": _pictures,
    "table": _table,
    "table_points": _table_points,
}


def _show_group(made: Any, group: str) -> None:
    """Show the runs of one group alone.

    The package writes filters as a language of its own and reads them back before it sends them, which changes names
    that hold a quote, =, < or >. What it keeps of filters that wandb gave it is sent as it is; this uses that place.
    """
    rule = {"key": {"section": "run", "name": "group"}, "op": "=", "value": group, "disabled": False}
    made._stashed_filters_v2 = {"filterFormat": "filterV2", "filters": [rule]}
    made._stashed_filter_string = ""


def _check(runs: Any, group: str) -> None:
    """Refuse to show all runs of a project as those of a group."""
    rules = runs.filters.get("filters", ()) if isinstance(runs.filters, dict) else ()
    if [rule.get("value") for rule in rules] != [group]:
        raise RunError(f"this version of {PACKAGE} does not take the group {group!r} as a filter; try another version")


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
