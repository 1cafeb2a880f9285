"""The contents of a page: a list of sections behind the first screen, and a link to it for those without a mouse."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from leap.report.markup import tag

_SECTION = re.compile(r"<h2>(.*?)</h2>")
FEWEST = 4  # sections worth a list


def with_contents(page: str) -> str:
    """The page's main part with ids on its sections, the list of them, and the link that leads there first.

    Args:
        page: The parts of the page one after another, in which every `h2` heads a section.

    Example:
        >>> with_contents("<h1>A</h1><section><h2>B</h2></section>")
        '<main><h1>A</h1><section><h2 id="s0">B</h2></section></main>'
    """
    names: list[str] = []

    def named(found: re.Match[str]) -> str:
        names.append(found[1])
        return f'<h2 id="s{len(names) - 1}">{found[1]}</h2>'

    page = _SECTION.sub(named, page)
    if len(names) < FEWEST:
        return tag("main", page)
    items = (tag("li", tag("a", name, href=f"#s{place}")) for name, place in _listed(names))
    listed = tag("nav", tag("ul", *items), id="contents", aria_label="On this page")
    first, section, rest = page.partition("<section")
    skip = tag("a", "Skip to the contents", href="#contents", class_="skip")
    return skip + tag("main", first, listed, section, rest)


def _listed(names: Sequence[str]) -> list[tuple[str, int]]:
    """Names and places; of several sections of one kind, as "Task distances: leap, seed 0", the first, and how many.

    Example:
        >>> _listed(["All figures", "Measured: a", "Measured: b", "Cost"])
        [('All figures', 0), ('Measured (2)', 1), ('Cost', 3)]
    """
    kinds = [name.partition(": ")[0] if ": " in name else name for name in names]
    many = Counter(kinds)
    first = {kind: place for place, kind in reversed(list(enumerate(kinds)))}
    return [
        (names[first[kind]] if many[kind] == 1 else f"{kind} ({many[kind]})", first[kind])
        for kind in dict.fromkeys(kinds)
    ]
