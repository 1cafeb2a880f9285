"""What a family of games refuses before anything is played."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from leap.errors import UsageError
from tasks.play import Space

Acting = Literal["auto", "sequential", "batched"]


def check_splits(train: Sequence[str], test: Sequence[str]) -> None:
    """Refuse splits without games, and games that stand twice."""
    for which, names in (("train", train), ("test", test)):
        if not names:
            raise UsageError(f"there are no games to {which}; name at least one")
        if twice := sorted({name for name in names if list(names).count(name) > 1}):
            raise UsageError(f"{twice[0]!r} stands twice among the games to {which}; name each once")
    if both := sorted(set(train) & set(test)):
        raise UsageError(f"{both[0]!r} is held out for test and trained on as well; leave it out of one of them")


def check_numbers(**numbers: int) -> None:
    """Refuse counts below one."""
    for name, value in numbers.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")


def check_loss(discount: float, decay: float, clip_reward: float | None, reduction: str) -> None:
    """Refuse settings of the loss that mean nothing."""
    for name, value in (("discount", discount), ("gae", decay)):
        if not 0 <= value <= 1:
            raise UsageError(f"{name} must lie in [0, 1], got {value}")
    if clip_reward is not None and not clip_reward > 0:
        raise UsageError(f"clip_reward must be above 0, or None for rewards as they are, got {clip_reward}")
    if reduction not in ("mean", "sum"):
        raise UsageError(f"reduction must be 'mean' or 'sum', got {reduction!r}")


def check_acting(acting: str) -> None:
    """Refuse a way of acting that there is not."""
    if acting not in get_args(Acting):
        raise UsageError(f"acting must be one of {', '.join(get_args(Acting))}, got {acting!r}")


def one_shape(names: Sequence[str], spaces: Sequence[Space]) -> tuple[int, int, int]:
    """The shape of all games' pictures, which must be one."""
    shapes = {name: space.shape for name, space in zip(names, spaces, strict=True)}
    if len(set(shapes.values())) != 1:
        raise UsageError(f"games need pictures of one size, got {shapes}")
    return next(iter(shapes.values()))
