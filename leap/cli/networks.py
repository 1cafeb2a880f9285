"""Which network a run's settings mean, told from them and the shapes of its parameters alone: no data are needed."""

from __future__ import annotations

from collections.abc import Mapping

from leap.cli import settings as s
from leap.errors import RunError
from tasks.networks import DRAWING, PICTURE, TINY, Network

OWN_HEADS = ("multi_cv", "atari", "tiny_games")
"""Families whose tasks have heads of their own, so that the head of an initialization only holds a place."""


def network(settings: s.Settings, shapes: Mapping[str, tuple[int, ...]]) -> Network | None:
    """The network of a run; None for tasks of a person's own, which bring theirs.

    Args:
        settings: Of the run.
        shapes: Of its parameters by name; the head tells how many classes or actions the widest task had.

    Raises:
        RunError: the parameters lack the head of such a network.
    """
    tasks, model = settings.tasks, settings.model
    if isinstance(tasks, s.Custom):
        return None
    if isinstance(tasks, s.Sinusoid):
        return Network("mlp", {"hidden": list(model.hidden)})
    if isinstance(tasks, s.Quadratic):
        return Network("point", {"dim": tasks.dim})
    if isinstance(tasks, s.Atari | s.TinyGames):
        shape, actions = _shown(tasks), _rows(shapes, "head.policy.weight")
        return Network("agent", {"shape": shape, "actions": actions, "network": tasks.network})
    if isinstance(tasks, s.ImageSets | s.DigitTasks):
        return Network("encoder", {"classes": _rows(shapes, "head.weight"), "widths": list(model.widths), **PICTURE})
    blocks = {"filters": model.filters, "norm": model.norm}
    if isinstance(tasks, s.MultiCV):
        return Network("conv4", {"classes": _rows(shapes, "head.weight"), **blocks, **PICTURE})
    return Network("conv4", {"classes": tasks.ways, **blocks, **DRAWING})


def _shown(tasks: s.Atari | s.TinyGames) -> list[int]:
    """[C, H, W] of an observation."""
    if isinstance(tasks, s.TinyGames):
        return list(TINY)
    return [(3 if tasks.colour else 1) * tasks.stack, tasks.size, tasks.size]


def _rows(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    if not shapes.get(name):
        raise RunError(
            f"the initialization has no parameter {name!r}, so it is of another network than config.yaml says; "
            "restore the files of its run"
        )
    return shapes[name][0]
