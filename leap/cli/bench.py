"""`leap bench`: how fast the parts are beside reference loops, and whether the goals are met."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leap.cli.arguments import Option, help_text, split
from leap.cli.bench_rows import ROWS, Conditions
from leap.errors import UsageError

OPTIONS = [
    Option("--rows", "values", "Rows to measure; by default all.", "NAME"),
    Option(
        "--seconds",
        "value",
        "Budget for the rounds of a row, by the clock chosen; at least one round. By default 60.",
        "S",
    ),
    Option("--out", "path", "Write the result as JSON, row by row.", "FILE"),
    Option("--compare", "path", "An older result: print what moved beyond both intervals.", "FILE"),
    Option("--clock", "value", "wall, or cpu: this process's own work, on a machine that others use too.", "NAME"),
    Option("--device", "value", "Where to compute: cpu, cuda, ...; by default auto, a GPU where there is one.", "NAME"),
    Option("--tiny", "flag", "Tiny sizes, to see that every row runs; no goal is judged, figures mean nothing."),
    Option("--list", "flag", "List the rows and stop."),
]
USAGE = "leap bench [--rows NAME ...] [--seconds S] [--out FILE.json] [--compare OLD.json]"
CLOCK_NAMES = ("wall", "cpu")
ABOUT = (
    "Measure the contenders of each row in turns, in one process, after warm-up: median seconds, median ratios to the "
    "row's reference round by round, with 95% intervals, memory in a process of its own, goals and whether they are "
    "met. Threads: OMP_NUM_THREADS."
)


def main(argv: Sequence[str]) -> int:
    """Measure; see `leap bench --help`."""
    given = split(argv, OPTIONS, fields=False)
    if given.options["help"] or given.options["list"]:
        rows = "\n".join(f"  {name}: {about}" for name, (about, _) in ROWS.items())
        print(help_text(USAGE, f"{ABOUT}\n\nrows:\n{rows}", OPTIONS) if given.options["help"] else rows)
        return 0
    if given.files:
        raise UsageError(f"leap bench takes no files, got {given.files[0]!r}; name rows with --rows")
    names, seconds = choose(given.options["rows"]), budget(given.options["seconds"])
    clock = given.options["clock"] or "wall"
    if clock not in CLOCK_NAMES:
        raise UsageError(f"--clock must be one of {', '.join(CLOCK_NAMES)}, got {clock!r}")
    out: Path | None = given.options["out"]
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise UsageError(f"--out {out}: name a file in a folder that exists")

    from leap.bench import comparison
    from leap.cli import build

    old = comparison.load(given.options["compare"]) if given.options["compare"] else None
    device = build.device(given.options["device"] or "auto")
    if clock == "cpu" and device != "cpu":
        raise UsageError(f"--clock cpu does not see what {device} computes; leave it out, or add --device cpu")
    document = run(names, seconds, Conditions(device, clock, given.options["tiny"]), out)
    if old is not None:
        print(comparison.comparison_text(comparison.compare(old, document)), end="")
    if out is not None:
        print(f"result  {out}")
    return 0


def run(names: Sequence[str], seconds: float, under: Conditions, out: Path | None) -> dict[str, Any]:
    """Measure rows, print each as soon as it is there, and return the document of all."""
    from leap.bench.comparison import FORMAT
    from leap.bench.row import Goal, LeftOut, carry_out, synchronizer
    from leap.bench.table import machine_text, row_text
    from leap.bench.timing import CLOCKS
    from leap.provenance import provenance
    from leap.run import write_atomic

    about_machine = provenance(under.device)
    threads = about_machine["hardware"]["threads"]
    document: dict[str, Any] = {
        "kind": "leap bench", "format": FORMAT, "provenance": about_machine, "budget": seconds, "clock": under.clock,
        "tiny": under.tiny, "rows": {}, "left_out": {},
    }  # fmt: skip

    def applies(goal: Goal) -> bool:
        return not under.tiny and (goal.threads is None or (under.clock == "wall" and goal.threads == threads))

    print(f"{machine_text(about_machine)}; {under.clock} clock", flush=True)

    def keep() -> None:
        if out is not None:
            write_atomic(out, (json.dumps(document, indent=1) + "\n").encode())

    for name in names:
        about, make = ROWS[name]
        try:
            row = make(under)
        except LeftOut as reason:
            document["left_out"][name] = str(reason)
            print(f"\n{name}: left out: {reason}", flush=True)
            keep()
            continue
        found = carry_out(
            row, seconds=seconds, judged=applies, synchronize=synchronizer(under.device), clock=CLOCKS[under.clock]
        )
        document["rows"][name] = {"about": about, **found}
        print(f"\n{row_text(name, about, found)}", end="", flush=True)
        keep()
    return document


def choose(names: Sequence[str] | None) -> list[str]:
    """The rows asked for, in the order of the benchmark; all of them for None.

    Raises:
        UsageError: a row that does not exist.

    Example:
        >>> choose(["parts", "walk"])
        ['walk', 'parts']
    """
    for name in names or ():
        if name not in ROWS:
            close = difflib.get_close_matches(name, ROWS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(ROWS)}"
            raise UsageError(f"--rows: no row {name!r}; {hint} (see leap bench --list)")
    return [name for name in ROWS if names is None or name in names]


def budget(text: str | None) -> float:
    """Seconds a row.

    Raises:
        UsageError: not a positive number.
    """
    try:
        seconds = float(text or 60)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"--seconds must be a number above 0, got {text!r}")
    return seconds
