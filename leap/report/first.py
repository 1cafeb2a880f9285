"""The first screen of the page: which initialization is best, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leap.metrics.statistics import Interval
from leap.report.charts import draw_final
from leap.report.drawing import Style
from leap.report.markup import details, figure, tag, text
from leap.report.summary import Measure, Row, Summary, Verdict
from leap.report.svg import inline_svg
from leap.report.text import answer, number, protocol, sureness

WIDTH = 4.6  # inches, as the page's other pictures
ROWS = 8  # of the picture, at most: more have their table


def first_screen(summary: Summary, look: Mapping[str, Style]) -> str:
    """The answer as a heading, a sentence a measure on the lead over the next and the random initialization, a picture.

    Args:
        summary: The comparison.
        look: How its rows are drawn.
    """
    rivals, measure = _rivals(summary), summary.measures[0]
    told = [sentence for one in summary.measures[:2] if (sentence := lead(summary, rivals, one))]
    words = [tag("p", text(one), class_="second" if place else "lead") for place, one in enumerate(told)]
    others = [verdict for verdict in summary.verdicts() if verdict.other not in rivals]
    shown = [*summary.rows[:ROWS], *(row for row in rivals if row not in summary.rows[:ROWS])]
    height = 0.75 + 0.36 * len(shown)
    svg = inline_svg("final", WIDTH, height, lambda fig: draw_final(fig.subplots(), shown, measure, look))
    caption = "Large marks are means over training seeds, bars their 95% intervals, small dots single seeds."
    if len(shown) < len(summary.rows):
        caption += f" {len(summary.rows) - len(shown)} more stand in the table."
    picture = figure(svg, f"{measure.label} of every initialization", caption)
    return (
        tag("p", text(protocol(summary)), class_="eyebrow")
        + tag("h1", text(answer(summary)))
        + tag("div", tag("div", *words, _others(others, measure)), picture, class_="answer")
    )


def chance(settled: bool, single: bool) -> str:
    """The verdict on a difference, in two or three words."""
    return "one seed, nobody can say how sure" if single else "beyond chance" if settled else "may be chance"


def lead(summary: Summary, rivals: Sequence[Row], measure: Measure) -> str:
    """A sentence: how far the best row is ahead of these, with interval and verdict; empty where none has a mean."""
    told = []
    for row in rivals:
        verdict = summary.verdict(row, measure)
        if verdict is not None:
            who = "the random initialization" if row.baseline else f"{row.label}, the next best"
            told.append(f"{_ahead(verdict.behind, measure)} {who} ({_sure(verdict)})")
    what = f"{measure.label[:1].upper()}{measure.label[1:]}"
    return f"{what} of {summary.rows[0].label}: {'; '.join(told)}." if told else ""


def _rivals(summary: Summary) -> list[Row]:
    """The next best initialization and the random one, where they have a mean to compare with."""
    held = [verdict.other for verdict in summary.verdicts()]
    random = [row for row in held if row.baseline][:1]
    return [*held[:1], *(row for row in random if row is not held[0])]


def _others(verdicts: Sequence[Verdict], measure: Measure) -> str:
    items = []
    for verdict in verdicts:
        kind = {"class_": "settled"} if verdict.settled else {}
        ahead, how_sure = sureness(verdict, measure)
        items.append(tag("li", tag("strong", text(ahead)), tag("small", text(how_sure)), **kind))
    return details(f"Against {len(items)} more", tag("ul", *items, class_="verdicts")) if items else ""


def _ahead(behind: Interval, measure: Measure) -> str:
    unit = " points" if measure.unit == "%" else ""
    return f"{number(abs(behind.mean))}{unit} {'behind' if behind.mean < 0 else 'ahead of'}"


def _sure(verdict: Verdict) -> str:
    behind = verdict.behind if verdict.behind.mean >= 0 else _turned(verdict.behind)
    if behind.low is None or behind.high is None:
        return chance(False, True)
    low, high = number(behind.low, behind.mean), number(behind.high, behind.mean)
    settled = behind.low > 0
    return f"95% interval {low} to {high}, {chance(settled, False)}"


def _turned(one: Interval) -> Interval:
    """The same difference the other way round."""
    return Interval(
        -one.mean, None if one.high is None else -one.high, None if one.low is None else -one.low, one.count
    )
