"""Randomness derived from `(seed, ids)`, never stored.

A stream is named, not carried along: `generator(seed, "batch", meta_step, slot)` is the same stream in every process
and after every restart, so a resumed run and a run on another number of processes see the same numbers.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *ids: int | str) -> int:
    """A 63-bit seed from a root seed and the names of a stream.

    Args:
        seed: The root seed of a run.
        ids: What the stream is for, from general to particular; integers and strings.

    Returns:
        An integer in [0, 2^63): the head of a SHA-256 digest, so that neighbouring ids give unrelated streams.

    Raises:
        TypeError: an id that is neither an integer nor a string, whose text could differ between machines.

    Example:
        >>> derive(0, "batch", 3) == derive(0, "batch", 3)
        True
        >>> derive(0, "batch", 3) == derive(0, "batch", 4)
        False
    """
    for value in (seed, *ids):
        if not isinstance(value, int | str) or isinstance(value, bool):
            raise TypeError(f"a stream is named by integers and strings, got {value!r} ({type(value).__name__})")
    # repr keeps 1 and "1" apart, and the separator keeps ("ab", "c") and ("a", "bc") apart.
    text = "\x1f".join(repr(value) for value in (seed, *ids))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *ids: int | str) -> torch.Generator:
    """A torch generator on the CPU for the stream named `(seed, *ids)`.

    The CPU's generator is the same everywhere; what it draws is small (indices, angles) and travels to the device.

    Example:
        >>> import torch
        >>> torch.rand((), generator=generator(0, "a")) == torch.rand((), generator=generator(0, "a"))
        tensor(True)
    """
    import torch

    return torch.Generator().manual_seed(derive(seed, *ids))
