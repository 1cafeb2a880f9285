"""The rows of `leap bench`: what each measures, and at which sizes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from leap.errors import UsageError

if TYPE_CHECKING:
    from leap.bench.row import Row
    from leap.bench.rows_walk import Workload
    from tasks.drawings import Drawings
    from tasks.games import Games


class Conditions(NamedTuple):
    """Under what rows are measured: torch device, name of a clock, and whether sizes are tiny."""

    device: str
    clock: str
    tiny: bool


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


def _processes(under: Conditions) -> Row:
    from leap.bench.rows_processes import processes_row

    return processes_row(partial(_work, under, tasks=20, steps=10), _cores(under))


def _maml_processes(under: Conditions) -> Row:
    from leap.bench.rows_processes import maml_processes_row

    return maml_processes_row(partial(_work, under, tasks=20, steps=5), _cores(under))


def _cores(under: Conditions) -> int:
    from leap.bench.row import LeftOut
    from leap.distributed import cores

    if under.device != "cpu" or under.clock != "wall":
        raise LeftOut("it compares processes on the cores of a CPU, by the wall clock")
    if cores() < 2:
        raise LeftOut("one core leaves nothing to share out")
    return min(cores(), 2 if under.tiny else 20)  # a process without a task has no part in it


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
    # Leap plays one roll-out more a walk, to know the height of its end: nothing in a run, little in a slice so long
    steps, turn = (2, 1) if under.tiny else (60, 5)

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
            steps, turn, build.execution("auto", under.device),
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
    "processes": ("Leap's meta-gradient by one process and by one a core, beside a plain torch loop", _processes),
    "maml-processes": ("second-order MAML by one process and by one a core, beside learn2learn", _maml_processes),
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
