"""`leap bench`: how fast the parts are beside reference loops, and whether the goals are met."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leap.cli.arguments import Option, help_text, split
from leap.errors import UsageError

if TYPE_CHECKING:
    from leap.bench.row import Row
    from leap.bench.rows_walk import Workload
    from tasks.drawings import Drawings
    from tasks.games import Games

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
    "Measure the contenders of each row in turns, in one process, after warm-up: medians, ratios to the row's "
    "reference with 95% intervals over rounds, memory in a process of its own, goals and whether they are met. "
    "Threads: OMP_NUM_THREADS."
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


class Conditions(NamedTuple):
    """Under what rows are measured: torch device, name of a clock, and whether sizes are tiny."""

    device: str
    clock: str
    tiny: bool


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


def _work(under: Conditions, tasks: int, steps: int) -> Workload:
    """Walks of the paper's protocol on Omniglot where it is, else on the embedded alphabets, whose images are alike."""
    from leap.bench.rows_learners import PlainConv4
    from leap.bench.rows_walk import Workload
    from leap.cli import build
    from tasks.alphabets import Alphabets, Protocol

    name, drawings = _drawings(under.tiny)
    filters, tasks, steps = (4, min(tasks, 2), 2) if under.tiny else (64, tasks, steps)
    protocol = Protocol(train=20, pool=20)
    family = Alphabets(drawings, protocol, seed=0, filters=filters, device=under.device)
    plain = PlainConv4(protocol.ways, filters, drawings.images[0].shape[-1]).to(under.device)
    execution = build.execution("auto", under.device)
    name = f"{name}, conv-4 of {filters} filters, batch {protocol.batch_size}"
    return Workload(family, plain, tasks, steps, execution, name)


def _drawings(tiny: bool) -> tuple[str, Drawings]:
    from tasks import glyphs, omniglot

    if not tiny:
        try:
            return "Omniglot", omniglot.load()
        except UsageError:  # not fetched: the row's setting says what was taken in its place
            pass
    return "glyphs", glyphs.load()


def _walk(under: Conditions) -> Row:
    from leap.bench.rows_walk import walk_row
    from leap.bench.timing import CLOCKS

    return walk_row(_work(under, tasks=1, steps=100), under.device, CLOCKS[under.clock])


def _parts(under: Conditions) -> Row:
    from leap.bench.rows_walk import parts_row
    from leap.bench.timing import CLOCKS

    return parts_row(_work(under, tasks=2, steps=50), under.device, CLOCKS[under.clock])


def _plain(under: Conditions) -> Row:
    from leap.bench.rows_learners import plain_row

    return plain_row(_work(under, tasks=4, steps=20))


def _learner(under: Conditions, name: str) -> Row:
    from leap.bench.rows_learners import learner_row

    return learner_row(name, _work(under, tasks=4, steps=20))


def _maml(under: Conditions) -> Row:
    from leap.bench.rows_learners import maml_row

    return maml_row(_work(under, tasks=20, steps=5))


def _derivatives(under: Conditions) -> Row:
    from leap.bench.rows_models import derivatives_row

    return derivatives_row(_work(under, tasks=1, steps=1))


def _maml_memory(under: Conditions) -> Row:
    from leap.bench.rows_models import maml_memory_row

    return maml_memory_row(_work(under, tasks=1, steps=1), depths=(1, 2) if under.tiny else (4, 25, 100))


def _execution(under: Conditions) -> Row:
    from leap.bench.rows_execution import execution_row
    from leap.execution import candidates

    ways = candidates(under.device) if under.device.startswith("cuda") else ("sequential", "batched")
    return execution_row(_work(under, tasks=20, steps=10), under.device, ways)


def _precision(under: Conditions) -> Row:
    from leap.bench.rows_execution import precision_row
    from leap.cli import build

    return precision_row(_work(under, tasks=4, steps=10), under.device, build.execution("auto", under.device))


def _startup(under: Conditions) -> Row:
    from leap.bench.rows_startup import startup_row

    return startup_row(under.tiny)


def _logdet(under: Conditions) -> Row:
    from leap.bench import rows_distances as rows

    return rows.logdet_row(under.device, rows.TINY if under.tiny else rows.Size())


def _fisher(under: Conditions) -> Row:
    from leap.bench import rows_distances as rows

    return rows.fisher_row(under.device, rows.TINY if under.tiny else rows.Size())


def _h_score(under: Conditions) -> Row:
    from leap.bench import rows_scores as rows

    return rows.h_score_row(under.device, rows.TINY if under.tiny else rows.Size())


def _logme(under: Conditions) -> Row:
    from leap.bench import rows_scores as rows

    return rows.logme_row(under.device, rows.TINY if under.tiny else rows.Size())


def _atari(under: Conditions, network: str) -> Row:
    """Breakout for both sides: 16 environments of 84 x 84 grey pictures, four in a stack, with sticky actions."""
    from leap.bench import sb3
    from leap.bench.rows_atari import Workload, atari_row
    from leap.bench.timing import CLOCKS
    from leap.cli import build
    from tasks.agents import NETWORKS
    from tasks.atari import Preprocessing, atari_games

    settings, count = sb3.Settings(), 4 if under.tiny else 16

    def family() -> Games:
        return atari_games(
            ["breakout"], ["pong"], seed=0, preprocessing=Preprocessing.COMMUNITY, device=under.device,
            environments=count, unroll=settings.unroll, discount=settings.discount, entropy=settings.entropy,
            value_weight=settings.value_weight, clip_reward=1.0, network=network,
        )  # fmt: skip

    def peer(own: sb3.Network | None, processes: bool) -> Any:
        env = sb3.atari("Breakout", count, processes=processes, sticky=Preprocessing.COMMUNITY.sticky, seed=0)
        return sb3.a2c(env, own, settings, seed=0)

    designs = {"SB3": None if network == "mnih2013" else NETWORKS[network]}
    if network == "mnih2013":
        designs[f"SB3 with {network}"] = NETWORKS[network]
    ways = {"DummyVecEnv": False}
    if under.clock == "wall" and not under.tiny:  # the processor's clock does not see other processes
        ways["SubprocVecEnv"] = True
    peers = {
        f"{name}, {way}": partial(peer, design and sb3.Network(design.convs, design.width), processes)
        for name, design in designs.items()
        for way, processes in ways.items()
    }
    policy = os.environ.get("OMP_WAIT_POLICY", "unset")  # threads that spin slow both sides down
    return atari_row(
        Workload(
            family, count, peers, [name for name in peers if name.startswith("SB3, ")], settings,
            2 if under.tiny else 20, build.execution("auto", under.device),
            {"game": "breakout, 84x84x4 grey", "environments": count, "network": network, "OMP_WAIT_POLICY": policy},
            least=2.5 if network == "mnih2013" else 1.6,
        ),
        under.device, CLOCKS[under.clock],
    )  # fmt: skip


ROWS: dict[str, tuple[str, Callable[[Conditions], Row]]] = {
    "walk": ("what path measures and Leap add to a walk in time and memory, beside a plain torch loop", _walk),
    "parts": ("where the time of a meta-step with Leap goes", _parts),
    "plain": ("plain training: a walk without folds, and convolutions alone, beside a plain torch loop", _plain),
    "leap": ("Leap's meta-gradient beside a loop written from its paper", partial(_learner, name="leap")),
    "fomaml": ("first-order MAML's meta-gradient beside a reference loop", partial(_learner, name="fomaml")),
    "reptile": ("Reptile's meta-gradient beside a reference loop", partial(_learner, name="reptile")),
    "maml": ("MAML's meta-gradient, second order, beside learn2learn's, 5 inner steps", _maml),
    "derivatives": ("a step's first and second derivatives beside those of plain layers", _derivatives),
    "maml-memory": ("memory of second-order MAML as inner steps grow", _maml_memory),
    "execution": ("walks of 20 tasks in every way that runs here, beside a plain torch loop", _execution),
    "precision": ("walks in every precision, and what each does to the meta-gradient", _precision),
    "start-up": ("seconds from a command to help, and to the first meta-step of the embedded job", _startup),
    "dual-logdet": ("time and memory of a Fisher's log-determinant through its Gram matrix", _logdet),
    "fisher-task-distance": ("gradients and time of a pair's Fisher distance, in epochs of training", _fisher),
    "h-score": ("time and memory of an H-score beside a covariance product of its size", _h_score),
    "logme": ("time and memory of LogME beside an H-score of the same features", _logme),
    "atari-nature": (
        "our actor-critic beside Stable-Baselines3's A2C, both with Nature's network",
        partial(_atari, network="nature"),
    ),
    "atari-mnih2013": (
        "our actor-critic with the paper's network beside Stable-Baselines3's A2C with its default",
        partial(_atari, network="mnih2013"),
    ),
}
