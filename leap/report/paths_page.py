"""The pictures of paths that evaluations drew, on the page: walks of held-out tasks in the plane that shows most."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from leap.report.markup import figure, section, tag, text
from leap.report.runs import Run

FILE = Path("pictures") / "paths.png"
PICTURES, SIZE = 6, 400_000  # on a page, at most, and bytes of each: what is left out is named
_PNG = b"\x89PNG\r\n\x1a\n"


def paths_section(groups: Sequence[tuple[str, Sequence[Run]]]) -> str:
    """One picture a row, of its first run that has one; nothing where no evaluation drew its paths."""
    shown: list[str] = []
    left: list[str] = []
    for label, runs in groups:
        run = next((run for run in runs if (run.folder / FILE).is_file()), None)
        if run is None:
            continue
        content = _content(run.folder / FILE)
        if content is None or len(shown) == PICTURES:
            left.append(str(run.folder / FILE))
            continue
        title = label if len(runs) == 1 else f"{label}, seed {run.seed}"
        image = tag("img", src=f"data:image/png;base64,{b64encode(content).decode()}", alt=f"{_ALT} {title}")
        shown.append(tag("h3", text(title)) + figure(image.removesuffix("</img>"), title, _CAPTION))
    if not shown and not left:
        return ""
    note = tag("p", text(f"Not shown: {', '.join(left)}"), class_="note") if left else ""
    return section("Walks of held-out tasks, seen from above", *shown, note, class_="long")


_ALT = "Walks of held-out tasks in the two directions in which they vary most:"
_CAPTION = "Drawn by leap evaluate --paths; what a walk looks long is a lower bound of its length."


def _content(file: Path) -> bytes | None:
    """A PNG file of bearable size; None for any other."""
    try:
        content = file.read_bytes() if file.stat().st_size <= SIZE else b""
    except OSError:
        return None
    return content if content.startswith(_PNG) else None
