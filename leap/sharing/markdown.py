"""Small pieces of Markdown. Whatever comes from a run passes through `plain` here, and nowhere else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$@-])")
_LONGEST = 120


def plain(value: object) -> str:
    r"""A value as text on one line that shows as it is: nothing in it is markup, an address or an end of a line.

    Example:
        >>> print(plain("a_b | <script>\n# c"))
        a\_b \| &lt;script&gt; \# c
    """
    kept = "".join(one if unicodedata.category(one)[0] != "C" else " " for one in str(value))
    text = " ".join(kept.split())
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # an address in plain text would become a link
    return _SPECIAL.sub(r"\\\1", text).replace("://", r":\/\/").replace("www.", r"www\.")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, a line each; all but the first column are numbers. Cells are Markdown already."""
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---', *['---:'] * (len(head) - 1)])} |"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]
