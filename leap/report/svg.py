"""Pictures as SVG elements of a page: its font and colours, ids that do not meet, no character too many."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

from leap.report.drawing import picture, theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def inline_svg(name: str, width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """A picture as an SVG element for a page; colours follow the page's theme, `name` keeps its ids apart."""
    import matplotlib

    def save(figure: Figure) -> None:
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(held, format="svg", transparent=True, metadata={"Date": None, "Creator": None})

    held = BytesIO()
    picture(width, height, draw, save)
    text = held.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    head, rest = text.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)  # as wide as the page lets it
    return _restyled(compact(f'{head} aria-hidden="true">{rest}'), name)


def compact(svg: str) -> str:
    r"""The same picture in half of the characters or fewer: a page may hold a hundred.

    Coordinates keep two decimals, 1/7000 of an inch. Ids that nothing points at, groups that say nothing, shapes that
    are not painted and the space between elements go; of styles, what the style sheet says of every picture. Text is
    left alone: only what stands between `<` and `>` is rewritten.

    Example:
        >>> compact('<g id="a">\n <g id="b"/>\n <text x="1.23456">1.23456</text></g>')
        '<text x="1.23">1.23456</text>'
    """
    used = set(_POINTED.findall(svg))
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    kept, groups = [], []  # of every open group, whether it is kept
    for part in re.split(r"(<[^>]+>)", svg):
        shown = _shorter(part, used) if part.startswith("<") else "" if part.isspace() else part
        if shown.startswith("<g") and not shown.endswith("/>"):
            groups.append(shown != "<g>")
            shown = shown if groups[-1] else ""
        elif shown == "</g>":
            shown = shown if groups.pop() else ""
        kept.append(shown)
    return re.sub(r"<g([^>]*)>((?:<use [^>]*>)+)</g>", _styled_once, "".join(kept))


def _styled_once(group: re.Match[str]) -> str:
    """Marks of one style have it from their group."""
    found = set(re.findall(r' style="[^"]*"', group[2]))
    if len(found) != 1 or "style=" in group[1]:
        return group[0]
    style = found.pop()
    return f"<g{group[1]}{style}>{group[2].replace(style, '')}</g>"


def _shorter(element: str, used: set[str]) -> str:
    element = re.sub(r' id="([^"]*)"', lambda found: found.group() if found[1] in used else "", element)
    element = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found.group()):.2f}".rstrip("0").rstrip("."), element)
    element = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", element)
    element = re.sub(r' d="([^"]*)"', lambda found: f' d="{re.sub(_SPARE, "", found[1])}"', element)
    element = re.sub(r"(?<=[:;]) | (?=/?>)|xlink:", "", element)
    unpainted = element.startswith("<path") and element.endswith('"fill:none"/>')
    return "" if unpainted or element in ("<g/>", "<defs/>") else element


def _restyled(svg: str, name: str) -> str:
    """The picture with short ids of its own, the page's font and the page's colours; text stays as it is."""
    short = {old: f"{name}-{place}" for place, old in enumerate(dict.fromkeys(_POINTED.findall(svg)))}
    return re.sub(r"<[^>]+>", lambda found: _restyle(found.group(), short), svg)


def _restyle(element: str, short: dict[str, str]) -> str:
    element = re.sub(r'( id="|url\(#|href="#)([^")]+)', lambda found: found[1] + short[found[2]], element)
    element = re.sub(r"(font:[^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--font)", element)
    element = re.sub(r"font-family:'DejaVu Sans'[^;\"]*;?", "", element)
    for colour, variable in theme().items():
        element = element.replace(colour, f"var(--{variable})")
    return element


_SPARE = re.compile(r"\s+(?=[A-Za-z]|$)|(?<=[A-Za-z])\s+")  # space around the letters of a path
_POINTED = re.compile(r'(?:url\(#|href="#)([^")]+)')
