"""A picture with the words that belong to it, for files and for the page, and how names and figures are worded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leap.report.charts import shorten
from leap.report.drawing import INK, MUTED, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTHING = "\u2013"  # where there is no figure
WIDTH = 4.6  # inches, as the page's other pictures


@dataclass(frozen=True)
class Picture:
    """A picture by name, its heading, what it shows in words, its size in inches and how it is drawn.

    `page` makes what the page shows in its place, as HTML; `whole`: over the page's whole width.
    """

    name: str
    title: str
    caption: str
    width: float
    height: float
    draw: Callable[[Figure], None]
    page: Callable[[], str] | None = None
    whole: bool = False


def write_picture(picture: Picture, folder: Path) -> Path:
    """Write one picture as PNG, between its title and its caption."""
    title, caption = _lines(picture.title, 58), _lines(picture.caption, 86)
    heights = (0.1 + 0.19 * len(title), picture.height, 0.12 + 0.14 * len(caption))

    def draw(figure: Figure) -> None:
        top, middle, bottom = figure.subfigures(3, 1, squeeze=False, height_ratios=heights)[:, 0]
        top.text(0.012, 0.5, "\n".join(title), va="center", fontsize=10, color=INK)
        bottom.text(0.012, 0.6, "\n".join(caption), va="center", fontsize=7.2, color=MUTED, linespacing=1.3)
        picture.draw(middle)

    return write_png(folder / f"{picture.name}.png", picture.width, sum(heights), draw)


def correlation_text(value: float | None) -> str:
    r"""A correlation as it is read.

    Example:
        >>> correlation_text(0.634), correlation_text(-0.001), correlation_text(-0.2) == "\u2212" + "0.20"
        ('0.63', '0.00', True)
    """
    return NOTHING if value is None else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "\u2212")


def p_text(value: float | None) -> str:
    """A p-value as it is read.

    Example:
        >>> p_text(0.0005), p_text(0.0312), p_text(0.4)
        ('0.0005', '0.031', '0.40')
    """
    if value is None:
        return NOTHING
    return f"{value:.4f}" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def plain(name: str) -> str:
    """A name of the document as words.

    Example:
        >>> plain("information_distance")
        'information distance'
    """
    return name.replace("_", " ")


def _lines(text: str, width: int) -> list[str]:
    from textwrap import wrap

    return wrap(shorten(text, 8 * width), width)
