"""Small pieces of HTML. Whatever comes from a file passes through `escape` here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from leap.report.drawing import Style, theme


def tag(name: str, *content: str, **attributes: str) -> str:
    """An element around content that is HTML already; `class_` is class, `aria_label` aria-label.

    Example:
        >>> tag("p", text("a < b"), class_="note")
        '<p class="note">a &lt; b</p>'
    """
    named = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{named}>{''.join(content)}</{name}>"


def text(value: object) -> str:
    """A value as text that a browser shows and never runs."""
    return escape(str(value))


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    name: str,
    *,
    numeric: bool = True,
    best: int | None = None,
    kind: str = "",
) -> str:
    """A table in a box that scrolls; cells are HTML, the first of a row names it, `best` is a row's index.

    `kind` is a class of the style sheet, as `dense` for many columns.
    """
    cells_are = {"class_": "n"} if numeric else {}
    top = [tag("th", cell, scope="col", **({} if i == 0 else cells_are)) for i, cell in enumerate(head)]
    body = []
    for place, (first, *cells) in enumerate(rows):
        line = [tag("th", first, scope="row"), *(tag("td", cell, **cells_are) for cell in cells)]
        body.append(tag("tr", *line, **({"class_": "best"} if place == best else {})))
    look = {"class_": name_of} if (name_of := kind or ("" if numeric else "wide")) else {}
    held = tag("table", tag("thead", tag("tr", *top)), tag("tbody", *body), **look)
    # Reachable by keyboard, since a box that scrolls must be.
    return tag("div", held, class_="scroll", tabindex="0", role="region", aria_label=name)


def section(title: str, *content: str, **attributes: str) -> str:
    """A part of the page under its heading."""
    return tag("section", tag("h2", text(title)), *content, **attributes)


def details(summary: str, *content: str) -> str:
    """What can be unfolded."""
    return tag("details", tag("summary", text(summary)), *content)


def figure(svg: str, name: str, caption: str) -> str:
    """A picture with what it shows, in words for those who do not see it and as a caption for those who do."""
    return tag("figure", svg, tag("figcaption", text(caption)), role="group", aria_label=name)


def key(label: str, style: Style) -> str:
    """A label behind its line and marker."""
    colour = f"var(--{theme()[style.colour]})"
    dashes = " ".join(f"{length * 1.6:g}" for length in style.dashes)
    line = f'<line x1="1" x2="31" y1="7" y2="7" stroke="{colour}" stroke-width="2.4" stroke-dasharray="{dashes}"/>'
    mark = _MARKS[style.marker].format(colour)
    svg = f'<svg viewBox="0 0 32 14" aria-hidden="true">{line}{mark}</svg>'
    return tag("span", svg, tag("span", text(label)), class_="key")


_MARKS = {
    "o": '<circle cx="16" cy="7" r="4.2" fill="{}"/>',
    "s": '<rect x="12" y="3" width="8" height="8" fill="{}"/>',
    "^": '<path d="M16 2.4 20.8 11.2H11.2Z" fill="{}"/>',
    "D": '<path d="M16 1.8 21.2 7 16 12.2 10.8 7Z" fill="{}"/>',
    "v": '<path d="M16 11.6 20.8 2.8H11.2Z" fill="{}"/>',
    "P": '<path d="M14.4 2.4h3.2v3h3v3.2h-3v3h-3.2v-3h-3V5.4h3Z" fill="{}"/>',
    "X": '<path d="M12.4 3.4 19.6 10.6M19.6 3.4 12.4 10.6" stroke="{}" stroke-width="2.6"/>',
}
