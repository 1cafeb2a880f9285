"""The part of the report page that games have: who learns faster, learning curves, every game, figures over games."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leap.metrics.aggregate import Estimate
from leap.report.captioned import NOTHING
from leap.report.drawing import Style
from leap.report.markup import details, figure, key, section, table, tag, text
from leap.report.returns import Returns, gather
from leap.report.returns_charts import DEVIATIONS, draw_improvement, draw_learning, draw_profile, reference_text
from leap.report.returns_curves import WINDOW
from leap.report.returns_first import answer, by_game, ranking, settled
from leap.report.returns_paths_text import HEAD, path_cells, path_notes
from leap.report.returns_text import (
    TOTAL_HEAD,
    conditions,
    curve_note,
    game_cells,
    game_head,
    notes,
    spanned,
    spread_cells,
    spread_head,
    total_cells,
)
from leap.report.returns_videos import FIELDS, videos
from leap.report.returns_walks import AREA, FINAL, LABELS, Arm
from leap.report.summary import Summary
from leap.report.svg import inline_svg
from leap.report.text import protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOK = Mapping[str, Style]
WIDTH = 4.6  # inches, as the page's other pictures
OPEN = 4  # games whose verdicts are on the first screen; the others can be unfolded


def returns_parts(summary: Summary, look: LOOK, window: int = WINDOW, page: Path | None = None) -> list[str]:
    """The head of the page and the sections about returns; `page` is where it will lie, for links to videos."""
    found = gather(summary, window)
    return [
        _head(summary, found, look),
        _curves(found, look),
        _games(found, look),
        _paths(found, look),
        _totals(found, look),
        _videos(summary, page),
    ]


def headline(summary: Summary, window: int = WINDOW) -> str:
    """The page's title."""
    return answer(gather(summary, window))[0]


def _head(summary: Summary, found: Returns, look: LOOK) -> str:
    first, rest = answer(found)
    told = [(game, lines) for game in found.games if ranking(found) and (lines := by_game(found, game))]
    items = [
        tag(
            "li",
            tag("strong", text(game)),
            *(tag("small", text(line)) for line in lines),
            **_kind(settled(found, game)),
        )
        for game, lines in told
    ]
    listed = tag("ul", *items[:OPEN], class_="verdicts") + _brackets() if items else ""
    if items[OPEN:]:
        listed += details(f"{len(items) - OPEN} more games", tag("ul", *items[OPEN:], class_="verdicts"))
    words = tag("div", tag("p", text(rest), class_="lead"), listed)
    eyebrow = tag("p", text(protocol(summary)), class_="eyebrow") + tag("p", text(conditions(found)), class_="eyebrow")
    return eyebrow + tag("h1", text(first)) + tag("div", words, _improvement(found, look), class_="answer")


def _brackets() -> str:
    return tag("p", "In brackets: 95% intervals over seeds; beyond chance where they leave out zero.", class_="note")


def _kind(is_settled: bool) -> dict[str, str]:
    return {"class_": "settled"} if is_settled else {}


def _improvement(found: Returns, look: LOOK) -> str:
    held: dict[tuple[str, str], Estimate] = {}
    rows: list[tuple[str, tuple[str, ...]]] = [(game, (game,)) for game in found.complete]
    rows += [("all games", found.complete)] if len(found.complete) > 1 else []
    for name, games in rows:
        for arm in found.learned:
            one = found.improvement(arm, AREA, games)
            if one is not None:
                held[name, arm.label] = one
    if not held:
        return ""
    height = 0.75 + len(rows) * max(0.36, 0.2 * len(found.learned))
    svg = inline_svg("improvement", WIDTH, height, lambda fig: draw_improvement(fig.subplots(), found, held, look))
    caution = next(iter(held.values())).caution
    caption = (
        f"How probable a walk's {LABELS[AREA]} is above that of a walk from the random initialization; 0.5 is no "
        f"difference. Lines are 95% intervals (stratified bootstrap).{f' {caution}.' if caution else ''}"
    )
    shown = figure(svg, "Probability of improvement", caption)
    return tag("div", _legend(found.learned, look), shown) if len(found.learned) > 1 else shown


def _curves(found: Returns, look: LOOK) -> str:
    figures = []
    for place, game in enumerate(found.games):

        def draw(fig: Figure, game: str = game) -> None:
            draw_learning(fig.subplots(), found, game, look)

        svg = inline_svg(f"game{place}", WIDTH, 3.3, draw)
        lengths = [len(w.episodes) for arm in found.arms for w in arm.walks.get(game, {}).values()]
        known = reference_text(found, game)
        caption = f"{spanned(lengths)} episodes a walk." if lengths else "No walks."
        caption += f" {known[0].upper()}{known[1:]}; lines where they lie within the picture." if known else ""
        figures.append(tag("div", tag("h3", text(game)), figure(svg, f"Learning curves of {game}", caption)))
    note = (
        f"Lines are means over walks, bands {DEVIATIONS} standard deviations between walks (training and evaluation "
        "seeds), as in the paper: they show how much walks differ, not how sure the mean is."
    )
    told = [tag("p", text(one), class_="note") for one in (curve_note(found), note)]
    parts = (*told, _legend(found.arms, look), tag("div", *figures, class_="pair"))
    return section("Learning held-out games", *parts, class_="long")


def _legend(arms: Sequence[Arm], look: LOOK) -> str:
    return tag("ul", *(tag("li", key(arm.label, look[arm.label])) for arm in arms), class_="legend")


def _by_game(found: Returns, look: LOOK, name: str, head: Sequence[str], told: Callable[[Arm, str], list[str]]) -> str:
    """A table with a group of rows a game, and a row an initialization."""
    cells = [tag("th", text(one), scope="col", **({"class_": "n"} if place else {})) for place, one in enumerate(head)]
    bodies = []
    for game in found.games:
        rows = [tag("tr", tag("th", text(game), scope="rowgroup", colspan=str(len(head))), class_="set")]
        for arm in found.arms:
            row = [tag("td", stacked(cell), class_="n") for cell in told(arm, game)]
            rows.append(tag("tr", tag("th", key(arm.label, look[arm.label]), scope="row"), *row))
        bodies.append(tag("tbody", *rows))
    held = tag("table", tag("thead", tag("tr", *cells)), *bodies, class_="held")
    return tag("div", held, class_="scroll", tabindex="0", role="region", aria_label=name)


def _games(found: Returns, look: LOOK) -> str:
    head = game_head(found)[1:]
    box = _by_game(found, look, "Every game", head, lambda arm, game: game_cells(found, arm, game))
    columns = [head[0], *spread_head(found)]
    spread = _by_game(found, look, "Spread", columns, lambda arm, game: spread_cells(found, arm, game))
    about = [f"Higher is better. {NOTHING}: a walk ended no episode or diverged.", *notes(found)]
    narrow = tag("h3", "Spread between walks") + tag("div", spread, class_="pair")
    return section("Every game", box, narrow, *(tag("p", text(one), class_="note") for one in about), class_="long")


def _paths(found: Returns, look: LOOK) -> str:
    columns = ["initialization", *HEAD]
    box = _by_game(found, look, "Path lengths", columns, lambda arm, game: path_cells(found, arm, game))
    about = (tag("p", text(one), class_="note") for one in path_notes(found))
    return section("Path length and energy beside the return", box, *about, class_="long")


def _videos(summary: Summary, page: Path | None) -> str:
    """Recorded episodes, as links where the page lies beside or above them."""
    held, about = videos(run for row in summary.rows if not row.baseline for run in row.runs)
    if not held and not about:
        return ""
    rows = []
    for video in held:
        place = None if page is None else video.link(page)
        name = text(video.file.name) if place is None else tag("a", text(video.file.name), href=place)
        rows.append([name, text(video.run), *(text(video.shown[key]) for key in FIELDS if key != "file")])
    if any(page is None or video.link(page) is None for video in held):
        about.append("Names without a link are files in the folder videos of their run; the page lies elsewhere.")
    head = ["video", "run", *(key.replace("_", " ") for key in FIELDS if key != "file")]
    box = table([text(one) for one in head], rows, "Videos", kind="held") if held else ""
    return section("Videos", box, *(tag("p", text(one), class_="note") for one in about), class_="long")


def _totals(found: Returns, look: LOOK) -> str:
    if not found.normalized:
        return ""
    rows = []
    for total in found.totals():
        name, label, *cells = total_cells(total)
        rows.append([key(label, look[label]), text(name), *map(stacked, cells)])
    head = [text(one) for one in ("initialization", *TOTAL_HEAD[:1], *TOTAL_HEAD[2:])]
    svg = inline_svg("profile", WIDTH, 3.2, lambda fig: draw_profile(fig.subplots(), found, FINAL, look))
    caption = f"Share of walks whose normalized {LABELS[FINAL]} is above what the axis says; bands are pointwise 95%."
    games = ", ".join(found.normalized)
    return section(
        "Over games",
        tag("p", text(f"Normalized scores of {games}."), class_="note"),
        table(head, rows, "Over games", kind="held"),
        tag("div", figure(svg, "Performance profile", caption), class_="pair"),
        class_="long",
    )


def stacked(told: str) -> str:
    """A figure and its interval, which stands below it where the page is narrow."""
    mean, _, interval = told.partition(" [")
    return text(mean) + (" " + tag("small", text(f"[{interval}")) if interval else "")
