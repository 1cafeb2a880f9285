"""The charts of games: learning curves with bands, how often learned initializations beat random ones, profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from leap.metrics.aggregate import Estimate
from leap.report.charts import shorten
from leap.report.drawing import MUTED, Style
from leap.report.returns import Returns
from leap.report.returns_walks import Arm
from leap.report.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEVIATIONS = 2  # of the bands, as in the paper
REFERENCES = {"random": "random play", "human": "human", "best": "best known"}


def draw_learning(axes: Axes, found: Returns, game: str, look: Mapping[str, Style]) -> None:
    """A game's learning curves: mean over walks, bands of two standard deviations between walks; frames on top."""
    bands = {arm.label: found.band(arm, game) for arm in found.arms}
    if not any(bands.values()):
        axes.text(0.5, 0.5, "a walk ended no episode", transform=axes.transAxes, ha="center", color=MUTED)
    for arm in reversed(found.arms):  # the first lies on top
        band = bands[arm.label]
        if band is None:
            continue
        style, reach = look[arm.label], DEVIATIONS * band.deviation
        axes.fill_between(band.steps, band.mean - reach, band.mean + reach, color=style.colour, alpha=0.16, linewidth=0)
        axes.plot(
            band.steps, band.mean, style.marker, linestyle="-", markevery=len(band.steps) // 6, markersize=5,
            markeredgewidth=0, label=shorten(arm.label, 40), **style.line,
        )  # fmt: skip
    axes.margins(x=0.01)
    axes.set(xlabel="agent steps", ylabel="score, moving average", xlim=(0, found.budget[game]))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    _references(axes, found, game)
    if found.frame_skip:
        skip = found.frame_skip
        top = axes.secondary_xaxis("top", functions=(lambda at: np.multiply(at, skip), lambda at: np.divide(at, skip)))
        top.set_xlabel("frames")
        top.xaxis.set_major_formatter(lambda value, _: short(value))


def draw_improvement(
    axes: Axes, found: Returns, held: Mapping[tuple[str, str], Estimate], look: Mapping[str, Style]
) -> None:
    """How probable a walk is above one from the random initialization: a mark a game and learned initialization."""
    rows = list(dict.fromkeys(row for row, _ in held))
    arms: list[Arm] = [arm for arm in found.learned if any(label == arm.label for _, label in held)]
    axes.axvline(0.5, color=MUTED, linewidth=1)
    for place, row in enumerate(rows):
        for order, arm in enumerate(arms):
            one, style = held.get((row, arm.label)), look[arm.label]
            if one is None:
                continue
            y = place + 0.7 * ((order + 0.5) / len(arms) - 0.5)
            if one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [y, y], color=style.colour, linewidth=2)
            axes.plot([one.value], [y], style.marker, color=style.colour, markersize=7, markeredgewidth=0)
    axes.set_yticks(range(len(rows)), [shorten(row, 22) for row in rows])
    axes.set(xlabel="probability to be above a random initialization", xlim=(-0.02, 1.02))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def draw_profile(axes: Axes, found: Returns, key: str, look: Mapping[str, Style]) -> None:
    """The share of walks above each normalized score, with 95% bands."""
    thresholds = found.thresholds(key)
    for arm in reversed(found.arms):
        one, style = found.profile(arm, key, thresholds), look[arm.label]
        if one.low is not None and one.high is not None:
            axes.fill_between(thresholds, one.low, one.high, step="post", color=style.colour, alpha=0.16, linewidth=0)
        axes.step(thresholds, one.share, where="post", **style.line)
    axes.set(xlabel="normalized score (random play 0, human 1)", ylabel="share of walks above it", ylim=(-0.02, 1.02))
    axes.margins(x=0.01)


def short(count: float) -> str:
    """A number of steps for an axis.

    Example:
        >>> short(0), short(25_000), short(1_500_000)
        ('0', '25k', '1.5M')
    """
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"


def reference_text(found: Returns, game: str) -> str:
    """What random play, a human and the best known play score, as far as that is known; empty where nothing is."""
    held = found.references.get(game, {})
    return ", ".join(f"{label} {number(held[who])}" for who, label in REFERENCES.items() if who in held)


def _references(axes: Axes, found: Returns, game: str) -> None:
    """Lines at known scores that lie within the picture, named where rising curves are not.

    Of two that are close, the lower is named below its line.
    """
    low, high = axes.get_ylim()
    reach = high - low
    held = found.references.get(game, {})
    shown = sorted((held[who], who) for who in REFERENCES if low <= held.get(who, np.nan) <= high)
    for place, (score, who) in enumerate(shown):
        above = shown[place + 1][0] if place + 1 < len(shown) else np.inf
        at, side = (0.99, "right") if who == "random" else (0.01, "left")
        axes.axhline(score, color=MUTED, linewidth=0.9, dashes=(1.5, 2))
        axes.text(
            at, score, REFERENCES[who], transform=axes.get_yaxis_transform(), ha=side, color=MUTED, fontsize=7.5,
            va="top" if above - score < 0.07 * reach else "bottom",
        )  # fmt: skip
    if shown:
        axes.set_ylim(low, max(high, shown[-1][0] + 0.08 * reach))  # room for the name
