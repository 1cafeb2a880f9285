"""Feed `leap` malformed inputs at random, and tell of those that it does not refuse as it should.

Every input is one command that meets something malformed: settings, words on the command line, a damaged or forged
file of a run folder, arrays, an exported folder. It must end with exit code 0, 1 or 2, say what is wrong in one
message, never show a traceback or call itself defective, end within --limit seconds of processor time, and leave every
file as it was where it refuses; where it does not, it may write what it is for and nothing else. A page that it makes
must show text of the input as text.

    python scripts/fuzz.py --seconds 3600 --out runs/fuzz.jsonl        all kinds
    python scripts/fuzz.py --number 1234 --out again.jsonl             one input again, with its traceback

Commands run in this process, without drawing pictures (but for one in --draw) and on tasks that take no time. Input
N of a seed is always the same, for the same version of `leap`; --kinds changes that. Each line of --out is a finding,
the last one the counts. Exit code 1: something was found.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import base64
import collections
import contextlib
import faulthandler
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fuzz_box import Box, Input
from fuzz_kinds import KINDS, Inputs
from fuzz_runs import originals, read, without_expense

MOST = 2**32  # bytes of memory beyond what is there at the start


def told(number: int, given: Input, outcome: Any) -> dict[str, Any]:
    """A finding, with all that makes it happen again."""
    shown = {
        path: base64.b64encode(content).decode() if isinstance(content, bytes) and len(content) < 3000 else
        f"{len(content)} bytes" if isinstance(content, bytes) else content for path, content in given.changes.items()
    }  # fmt: skip
    return {
        "number": number, "kind": given.kind, "problem": outcome.problem, "code": outcome.code, "words": given.words,
        "changes": shown, "said": outcome.said[-600:],
    }  # fmt: skip


def carry_out(
    inputs: Inputs, box: Box, numbers: Iterator[int], until: float, say: Callable[[dict[str, Any]], None]
) -> bool:
    """Run inputs until the time is over; whether all ended as they should."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    problems: collections.Counter[str] = collections.Counter()
    for done, number in enumerate(numbers):
        if time.monotonic() > until:
            break
        if done % 500 == 499:
            print(f"{done + 1} inputs", flush=True)
        faulthandler.dump_traceback_later(600, exit=True)  # what not even a signal ends
        given = inputs[number]
        outcome = box.run(given)
        counts[given.kind][f"exit code {outcome.code}" if outcome.problem is None else "found"] += 1
        if outcome.problem is not None:
            problems[f"{given.words[0]}: {outcome.problem}"] += 1
            say(told(number, given, outcome))
    faulthandler.cancel_dump_traceback_later()
    total = sum(sum(one.values()) for one in counts.values())
    say({"seed": inputs.seed, "inputs": total, "counts": counts, "problems": dict(problems.most_common())})
    print(f"{total} inputs, seed {inputs.seed}")
    for kind, one in sorted(counts.items()):
        print(f"  {kind:<16} {', '.join(f'{name}: {count}' for name, count in sorted(one.items()))}")
    for problem, count in problems.most_common():
        print(f"{count:6} {problem}")
    return not problems


def main_(argv: Sequence[str] | None = None) -> int:
    """Run the fuzzer; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1e9, help="how long; by default until --inputs are done")
    parser.add_argument("--inputs", type=int, default=10_000, help="how many; 10000")
    parser.add_argument("--seed", type=int, default=0, help="0")
    parser.add_argument("--kinds", nargs="*", choices=sorted(KINDS), default=[], help="all")
    parser.add_argument("--number", type=int, help="this input alone")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds of processor time for a command; 10")
    parser.add_argument("--draw", type=int, default=50, help="one in so many commands draws its pictures; 50")
    parser.add_argument(
        "--runs", type=Path, help="where the run folders to damage are kept; made where there is nothing"
    )
    parser.add_argument("--out", type=Path, required=True, help="findings, a line each")
    given = parser.parse_args(argv)
    out = given.out.absolute()
    drawing = False
    until = time.monotonic() + given.seconds
    with contextlib.ExitStack() as held:
        held.enter_context(without_expense(lambda: drawing))
        scratch, root = (held.enter_context(tempfile.TemporaryDirectory()) for _ in range(2))
        handle = held.enter_context(out.open("w"))
        kept = given.runs or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        files = read(kept) if any(kept.iterdir()) else originals(kept)
        used = (
            int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            if sys.platform == "linux"
            else 0
        )
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST, -1))

        def numbers() -> Iterator[int]:
            nonlocal drawing
            for number in range(given.inputs) if given.number is None else [given.number]:
                drawing = number % given.draw == 0
                yield number

        def say(line: dict[str, Any]) -> None:
            handle.write(json.dumps(line) + "\n")
            handle.flush()

        whole = carry_out(
            Inputs(given.seed, files, given.kinds), Box(Path(root), files, given.limit), numbers(), until, say
        )
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main_())
