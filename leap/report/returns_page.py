"""The part of the report page that games have: who learns faster, learning curves, every game, figures over games."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from leap.metrics.aggregate import Estimate
from leap.report.captioned import NOTHING
from leap.report.drawing import Style
from leap.report.markup import figure, key, section, table, tag, text
from leap.report.returns import AREA, FINAL, LABELS, Arm, Returns, gather
from leap.report.returns_charts import DEVIATIONS, draw_improvement, draw_learning, draw_profile
from leap.report.returns_text import (
    TOTAL_HEAD,
    answer,
    conditions,
    game_cells,
    game_head,
    leading,
    notes,
    signed,
    spread_cells,
    spread_head,
    total_cells,
)
from leap.report.summary import Summary
from leap.report.svg import inline_svg
from leap.report.text import protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOK = Mapping[str, Style]
WIDTH = 4.6  # inches, as the page's other pictures


def returns_parts(summary: Summary, look: LOOK) -> list[str]:
    """The head of the page and the sections about returns."""
    found = gather(summary)
    return [_head(summary, found, look), _curves(found, look), _games(found, look), _totals(found, look)]


def headline(summary: Summary) -> str:
    """The page's title."""
    return answer(gather(summary))[0]


def _head(summary: Summary, found: Returns, look: LOOK) -> str:
    first, rest = answer(found)
    arm = leading(found)
    items = [_verdict(arm, game) for game in found.games] if arm else []
    words = tag("div", tag("p", text(rest)), tag("ul", *filter(None, items), class_="verdicts"))
    eyebrow = tag("p", text(protocol(summary)), class_="eyebrow") + tag("p", text(conditions(found)), class_="eyebrow")
    return eyebrow + tag("h1", text(first)) + tag("div", words, _improvement(found, look), class_="answer")


def _verdict(arm: Arm, game: str) -> str:
    gain, own = arm.gain(game, AREA), arm.interval(game, AREA)
    if gain is None or own is None:
        return ""
    settled = gain.low is not None and gain.high is not None and (gain.low > 0 or gain.high < 0)
    sure = "clear of zero" if settled else "includes zero: may be chance" if gain.low is not None else "one seed"
    told = tag("strong", text(f"{game}: {arm.label} {signed(gain).split(' [')[0]} against none"))
    seeds = f"{gain.count} seed{'' if gain.count == 1 else 's'}"
    interval = (
        f"95% interval {signed(gain).split(' ', 1)[1].strip('[]').replace(', ', ' to ')}, "
        if gain.low is not None
        else ""
    )
    return tag("li", told, tag("small", text(f"{LABELS[AREA]}; {interval}{seeds}, paired; {sure}")), **_kind(settled))


def _kind(settled: bool) -> dict[str, str]:
    return {"class_": "settled"} if settled else {}


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
    caption = (
        f"How probable a walk's {LABELS[AREA]} is above that of a walk from the random initialization; 0.5 is no "
        f"difference. Lines are 95% intervals (stratified bootstrap). {next(iter(held.values())).caution}"
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
        caption = f"{min(lengths)} to {max(lengths)} episodes a walk." if lengths else "No walks."
        figures.append(tag("div", tag("h3", text(game)), figure(svg, f"Learning curves of {game}", caption)))
    walks = [walk for arm in found.arms for held in arm.walks.values() for walk in held.values()]
    longest = max((len(walk.episodes) for walk in walks), default=0)
    note = (
        f"Moving average over up to {found.window} episodes, mean over walks; bands are {DEVIATIONS} standard "
        "deviations between walks, as in the paper: they show how much walks differ, not how sure the mean is."
    )
    if longest <= found.window:
        note += f" No walk ended more than {longest} episodes, so each average is over all episodes so far."
    parts = (tag("p", text(note), class_="note"), _legend(found.arms, look), tag("div", *figures, class_="pair"))
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
