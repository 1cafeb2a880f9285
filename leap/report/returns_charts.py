"""The charts of games: learning curves with bands, how often learned initializations beat random ones, profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from leap.metrics.aggregate import Estimate
from leap.report.charts import shorten
from leap.report.drawing import MUTED, Style
from leap.report.returns import Arm, Returns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEVIATIONS = 2  # of the bands, as in the paper
REFERENCES = (("random", "random play"), ("human", "human"))


def draw_learning(axes: Axes, found: Returns, game: str, look: Mapping[str, Style]) -> None:
    """A game's learning curves: mean over walks, bands of two standard deviations between walks; frames on top."""
    for arm in reversed(found.arms):  # the first lies on top
        band = found.band(arm, game)
        if band is None:
            continue
        style, reach = look[arm.label], DEVIATIONS * band.deviation
        axes.fill_between(band.steps, band.mean - reach, band.mean + reach, color=style.colour, alpha=0.16, linewidth=0)
        axes.plot(
            band.steps, band.mean, style.marker, linestyle="-", markevery=len(band.steps) // 6, markersize=5,
            markeredgewidth=0, **style.line,
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


def _references(axes: Axes, found: Returns, game: str) -> None:
    """Lines where random play and a human score, if they lie within the picture."""
    low, high = axes.get_ylim()
    for who, label in REFERENCES:
        score = found.references.get(game, {}).get(who, np.nan)
        if low <= score <= high:
            axes.axhline(score, color=MUTED, linewidth=0.9, dashes=(1.5, 2))
            axes.text(
                0.99,
                score,
                label,
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="bottom",
                color=MUTED,
                fontsize=7.5,
            )
