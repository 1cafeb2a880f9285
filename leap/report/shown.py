"""Pictures with their captions as HTML, two beside each other where there is room."""

from __future__ import annotations

from collections.abc import Sequence

from leap.report.captioned import Picture
from leap.report.markup import figure, tag, text
from leap.report.svg import inline_svg


def titled(title: str, about: str, found: Sequence[Picture], key: str) -> str:
    """Pictures under a heading, with a remark on all of them; nothing without pictures."""
    if not found:
        return ""
    return tag("h3", text(title)) + (tag("p", text(about), class_="note") if about else "") + grid(found, key)


def grid(found: Sequence[Picture], key: str) -> str:
    """Pictures; `key` keeps the ids apart from those of other runs on the page. Nothing without pictures."""
    if not found:
        return ""
    boxes = (tag("div", shown(one, key), **({"class_": "whole"} if one.whole else {})) for one in found)
    return tag("div", *boxes, class_="pair")


def shown(picture: Picture, key: str) -> str:
    """One picture between its title and its caption."""
    name = f"{key}-{picture.name.replace('.', '-')}"
    draw = picture.page or (lambda: inline_svg(name, picture.width, picture.height, picture.draw))
    return tag("p", text(picture.title)) + figure(draw(), picture.title, picture.caption)
