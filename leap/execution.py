"""How a run's walks are executed: chosen by a short measurement, kept for the machine, carried from walk to walk."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.batching import Execution
from leap.cache import cache_folder
from leap.capture import Prepared
from leap.native import compiler
from leap.precision import Precision, float32, precise
from leap.run import write_atomic
from leap.walk import TaskBatch, Walk, walk

STEPS = 4  # of a walk that is timed
ROUNDS = 2  # timed walks of each candidate, in turns; the quickest counts
SHARE = 0.02  # of the run's presumed time that measuring a candidate may take
START_UP = {"batched": 0.0, "sequential": 1.0, "captured": 2.0, "compiled": 60.0}  # seconds, presumed before measuring
WORTH = 200  # inner steps of a run that is worth measuring for
log = logging.getLogger(__name__)


class Engine:
    """`leap.walk.walk` with a precision, keeping what its walks compile and record for those that come after.

    Args:
        precision: In which losses compute.
        about: What to tell about this choice, for a run's provenance.

    Example:
        >>> from leap import optim
        >>> class Bowl:
        ...     def sample(self, theta, step): return None
        ...     def loss(self, theta, batch): return theta.square().sum() / 2, {}
        >>> engine = Engine()
        >>> engine(Bowl(), torch.ones(2), steps=3, optimizer=optim.sgd(0.5), execution="captured").theta
        tensor([[0.1250, 0.1250]])
    """

    def __init__(self, precision: Precision = "highest", about: Mapping[str, Any] | None = None) -> None:
        self.precision, self.about, self.prepared = precision, dict(about or {}), Prepared()

    def __call__(self, tasks: TaskBatch, theta0: Tensor, **options: Any) -> Walk:
        """As `leap.walk.walk`."""
        with float32(self.precision):
            return walk(precise(tasks, self.precision), theta0, prepared=self.prepared, **options)


class Cost(NamedTuple):
    """What a way to execute walks takes: seconds once, and seconds a step."""

    start_up: float
    step: float

    def total(self, steps: int) -> float:
        """Seconds for so many steps."""
        return self.start_up + self.step * steps


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        execution: How to execute walks.
        reason: In words, with the figures that decided.
        costs: What was measured, now or earlier on this machine.
    """

    execution: Execution
    reason: str
    costs: dict[Execution, Cost]


def choose(
    attempt: Callable[[Engine, Execution, int], object],
    candidates: Sequence[Execution],
    steps: int,
    *,
    make: Callable[[], Engine] = Engine,
    cache: Path | None = None,
    synchronize: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """The quickest way to execute a run, its start-up counted in.

    Args:
        attempt: `(engine, execution, steps)`: walk so many steps of the run's own kind.
        candidates: What can run here. The first is the fallback, and is measured first: it tells how long the run
            is, and so how much the others may cost; those that could not be repaid are not tried.
        steps: Inner steps of the whole run (meta-steps times K).
        make: A fresh engine, with nothing prepared.
        cache: File of earlier measurements of this kind; read where it is sound, and replaced.
        synchronize: Waits for the device.
        clock: Seconds from any origin.

    Returns:
        `Choice`. A candidate that fails is left out, with its reason.
    """
    if len(candidates) == 1:
        return Choice(candidates[0], "the only way that is tried here", {})
    if steps < WORTH:
        return Choice(candidates[0], f"not measured for a run of {steps} inner steps", {})
    timing = _Timing(attempt, make, synchronize, clock)
    known = _read(cache)
    costs = {name: known[name] for name in candidates if name in known}
    if candidates[0] not in costs:
        costs |= timing.measure(candidates[:1])
    length = costs[candidates[0]].total(steps) if candidates[0] in costs else float("inf")
    worth = [name for name in candidates if name not in costs and START_UP[name] <= SHARE * length]
    costs |= timing.measure([name for name in worth if name not in timing.failed])
    if not costs:
        return Choice(candidates[0], "nothing could be measured" + timing.failures, {})
    if timing.measured and cache is not None:
        _write(cache, {**known, **costs})
    best = min(costs, key=lambda name: costs[name].total(steps))
    return Choice(best, _told(costs, steps, timing), costs)


class _Timing:
    """Measures candidates in turns."""

    def __init__(
        self,
        attempt: Callable[[Engine, Execution, int], object],
        make: Callable[[], Engine],
        synchronize: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._attempt, self._make, self._synchronize, self._clock = attempt, make, synchronize, clock
        self.failed: dict[str, str] = {}
        self.measured: set[str] = set()

    @property
    def failures(self) -> str:
        """What failed, to end a sentence with."""
        return "".join(f"; {name} failed: {why}" for name, why in self.failed.items())

    def measure(self, names: Sequence[Execution]) -> dict[Execution, Cost]:
        """What each costs; one that fails is left out."""
        engines = {name: self._make() for name in names}
        first = {name: self._timed(engines[name], name) for name in names}
        times: dict[Execution, list[float]] = {name: [] for name in names}
        for _ in range(ROUNDS):
            for name in names:
                times[name].append(self._timed(engines[name], name))
        ran = [name for name in names if name not in self.failed]
        self.measured |= set(ran)
        return {name: Cost(max(0.0, first[name] - min(times[name])), min(times[name]) / STEPS) for name in ran}

    def _timed(self, engine: Engine, name: Execution) -> float:
        if name in self.failed:
            return float("inf")
        self._synchronize()
        began = self._clock()
        try:
            self._attempt(engine, name, STEPS)
            self._synchronize()
        except RuntimeError as error:  # no memory, no compiler, an operation that cannot be compiled
            self.failed[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        return self._clock() - began


def candidates(device: str) -> tuple[Execution, ...]:
    """What may be measured on a device, the fallback first.

    A CPU has one: a `vmap` over convolution weights is a grouped convolution, slower than a loop where it was tried,
    and equal runs shall end with equal bytes, which no measurement promises.
    """
    if not device.startswith("cuda"):
        return ("sequential",)
    compiles = has_compiler() and importlib.util.find_spec("triton") is not None
    return ("batched", "captured", "sequential", *(("compiled",) if compiles else ()))


def has_compiler() -> bool:
    """Whether a C++ compiler can be found, which `torch.compile` needs."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)


def cache_file(about: Mapping[str, Any]) -> Path:
    """Where measurements of one kind of run are kept, in the folder `leap.cache.cache_folder`.

    Args:
        about: What times depend on besides this machine and these libraries: device, tasks, network, learner.
    """
    device = str(about.get("device", "cpu"))
    here = {
        "torch": torch.__version__, "machine": platform.node(), "processor": platform.machine(),
        "threads": torch.get_num_threads(), "native": compiler(),
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps({**here, **about}, sort_keys=True, default=repr).encode()).hexdigest()
    return cache_folder() / "execution" / f"{digest[:32]}.json"


def _read(path: Path | None) -> dict[Execution, Cost]:
    """Earlier measurements; none where the file is missing or damaged."""
    try:
        document = json.loads(path.read_text()) if path is not None else {"seconds": {}}
        found = {name: Cost(float(a), float(b)) for name, (a, b) in document["seconds"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.debug("measurements in %s are not used: %s", path, error)
        return {}
    return {name: cost for name, cost in found.items() if name in START_UP and cost.start_up >= 0 and cost.step > 0}


def _write(path: Path, costs: Mapping[Execution, Cost]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps({"format": 1, "seconds": costs}) + "\n").encode())
    except OSError as error:  # a home that cannot be written to; the next run measures again
        log.warning("the choice of execution is not kept: %s", error)


def _told(costs: Mapping[Execution, Cost], steps: int, timing: _Timing) -> str:
    """Figures by candidate, the quickest first."""
    order = sorted(costs, key=lambda name: costs[name].total(steps))
    parts = [f"{n} {1e3 * costs[n].step:.3g} ms a step, {costs[n].start_up:.2g} s to start" for n in order]
    when = "measured" if timing.measured else "measured earlier"
    return f"{when} for {steps} steps: {'; '.join(parts)}{timing.failures}"
