"""How pictures look and how they are written: colours that colour-blind people tell apart, equal bytes every time."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.errors import RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1d21", "#666b73", "#e3e4e8"
# Okabe and Ito's colours, without the yellow that white paper swallows.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DARK_PALETTE = ("#5cb3f0", "#ff8a4c", "#35cfa0", "#eba3cb", "#f5bf4a", "#a5dcff")
GREY, DARK_GREY = "#85898f", "#9aa0a8"
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1.5), (9, 3))

_RC: Any = {
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlesize": 10.0,
    "axes.formatter.use_mathtext": False,
    "figure.constrained_layout.use": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a task named "$x" is a name, not mathematics
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
}


@dataclass(frozen=True)
class Style:
    """What tells one initialization from another, in every picture and in the page: colour, marker and dashes."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib's `plot`."""
        return {"color": self.colour, "dashes": self.dashes} if self.dashes else {"color": self.colour}


def styles(labels: Sequence[str], baselines: Sequence[str]) -> dict[str, Style]:
    """A style a label: learners in colour, random initializations in grey."""
    count = len(PALETTE)
    named = {
        label: Style(PALETTE[i % count], MARKERS[(i + i // count) % count], DASHES[(i + i // count) % len(DASHES)])
        for i, label in enumerate(labels)
    }
    greys = {label: Style(GREY, "X", DASHES[(i + 2) % len(DASHES)]) for i, label in enumerate(baselines)}
    return named | greys


def picture(width: float, height: float, draw: Callable[[Figure], None], save: Callable[[Figure], None]) -> None:
    """Draw and save a figure of this size, in inches, in the project's look; never through pyplot."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has the font
        figure = Figure(figsize=(width, height))
        draw(figure)
        save(figure)


def write_png(out: Path, width: float, height: float, draw: Callable[[Figure], None]) -> Path:
    """Write a picture as PNG; the same picture gives the same bytes."""
    held = BytesIO()
    plain = {"Software": None}  # a version in the file would change its bytes
    picture(width, height, draw, lambda figure: figure.savefig(held, format="png", dpi=150, metadata=plain))
    return write_file(out, held.getvalue())


def theme() -> dict[str, str]:
    """The CSS variable that stands for each colour in the page."""
    return {INK: "ink", MUTED: "muted", GRID: "grid", GREY: "none"} | {c: f"c{i}" for i, c in enumerate(PALETTE)}


def write_file(out: Path, content: bytes) -> Path:
    """Write a whole file or nothing; raises RunError, naming the cause, where it cannot be written."""
    out = Path(out)
    temporary: str | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp's files are for their owner alone
        os.replace(temporary, out)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise RunError(f"Cannot write {out}: {error.strerror or error}. Choose a place that can be written.") from None
    return out
