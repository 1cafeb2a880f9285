"""Meta-learned initializations: Leap and its rivals as folds over one inner loop.

Learning a task is a walk from an initialization. `leap.walk` walks many tasks at once, `leap.learners` and
`leap.metrics` are folds over that walk, and `leap.trainer` and `leap.evaluate` call it. The command `leap` does the
same from YAML files. `leap.load` gives a learned initialization as a module and a vector.

Submodules are imported when they are first used, so that `import leap` is quick::

    import leap
    leap.walk.walk(tasks, theta0, steps=5, optimizer=leap.optim.sgd(0.1), folds={"leap": leap.learners.leap()})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leap.cli.loading import load as load

__version__ = "0.1.0"

_SUBMODULES = (
    "adjoint",
    "batching",
    "errors",
    "evaluate",
    "layout",
    "learners",
    "metrics",
    "optim",
    "provenance",
    "randomness",
    "report",
    "run",
    "segments",
    "testing",
    "tracking",
    "trainer",
    "walk",
)


def __getattr__(name: str) -> Any:
    if name == "load":  # reaches for the networks of the families, as nothing else here does
        return importlib.import_module("leap.cli.loading").load
    if name in _SUBMODULES:
        return importlib.import_module(f"leap.{name}")
    raise AttributeError(f"module 'leap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, "load"})
