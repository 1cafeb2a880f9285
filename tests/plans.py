"""A small schema with every kind of field, for the tests of settings."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from leap.cli import configuration
from leap.errors import UsageError

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Pull:
    """Pull towards the path."""

    name: Literal["pull"] = "pull"
    """The rule."""
    rate: Positive = 0.1
    """How far."""
    stable: bool = True
    """Whether rises count as falls."""


@dataclass(frozen=True)
class Jump:
    """Jump to the end."""

    name: Literal["jump"] = "jump"
    """The rule."""
    rate: Positive = 0.4
    """How far."""
    height: int = 3
    """How high."""


@dataclass(frozen=True)
class Loop:
    """The loop."""

    meta_steps: Annotated[int, Field(ge=1)] = 10
    """Updates of the start."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decays."""
    widths: tuple[Annotated[int, Field(ge=1)], ...] = (4, 4)
    """Layers."""
    clip: Positive | None = None
    """Largest norm."""
    batch: int | Literal["auto"] = "auto"
    """Tasks."""
    mode: Literal["fast", "exact"] = "fast"
    """How."""


@dataclass(frozen=True)
class Rule:
    """The outer rule."""

    name: str = "SGD"
    """Any name."""
    lr: Positive = 1.0
    """Rate."""
    options: dict[str, Any] = field(default_factory=dict)
    """More."""


@dataclass(frozen=True)
class Plan:
    """A plan."""

    learner: Annotated[Pull | Jump, Field(discriminator="name")] = field(default_factory=Pull)
    """What learns."""
    loop: Loop = field(default_factory=Loop)
    """How long."""
    meta: Rule = field(default_factory=lambda: Rule(lr=0.5))
    """What moves the start."""
    title: str = "plan"
    """What to call it."""
    folder: Path | None = None
    """Where it goes."""
    seed: int = 0
    """Root of the randomness."""

    def problems(self) -> list[str]:
        if self.loop.meta_steps < self.seed:
            return [f"seed: {self.seed} is above loop.meta_steps ({self.loop.meta_steps})"]
        return []


@dataclass
class Inside:
    size: int
    scale: float = 1.0


@dataclass
class Demanding:
    """One value has no default."""

    inside: Inside
    seed: int = 0


def load(files=(), *overrides: str, schema: type = Plan, flags: tuple[str, ...] = ()) -> Any:
    """Load a plan."""
    return configuration.load(schema, files, overrides, flags=flags)


def refused(files=(), *overrides: str, **keywords: Any) -> str:
    """The message that refuses a plan."""
    with pytest.raises(UsageError) as caught:
        load(files, *overrides, **keywords)
    return str(caught.value)
