"""Settings of task families and of their networks."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from leap.cli.fields import Count, NonNegative, Rate


@dataclass(frozen=True)
class AlphabetTasks:
    """Fields that both families of alphabets share."""

    ways: Annotated[int, Field(ge=2)] = 20
    """Characters of a task."""
    shots: Count = 15
    """Training drawings a character."""
    queries: Count = 5
    """Test drawings a character."""
    train: Count = 25
    """Pretraining alphabets, of the pool."""
    pool: Count = 25
    """Alphabets that pretraining may use; what is neither in the pool nor held out is for validation."""
    held_out: Count = 10
    """Alphabets of the final evaluation."""
    batch_size: Annotated[int, Field(ge=2)] = 20
    """Images an inner step."""
    augment: bool = True
    """Rotate, scale and move training images at random."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 180.0
    """Largest rotation, degrees."""
    scale_low: Rate = 0.8
    """Smallest scale."""
    scale_high: Rate = 1.2
    """Largest scale."""
    translation: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Largest shift, as a share of the image's size."""

    def problems(self) -> list[str]:
        """What cannot be, beyond a field's own range."""
        found = []
        if self.scale_low > self.scale_high:
            found.append(f"tasks.scale_low: {self.scale_low} is above tasks.scale_high ({self.scale_high})")
        if self.train > self.pool:
            found.append(f"tasks.train: {self.train} is above tasks.pool ({self.pool})")
        return found


@dataclass(frozen=True)
class Omniglot(AlphabetTasks):
    """Omniglot: an alphabet is a task."""

    name: Literal["omniglot"] = "omniglot"
    """The family."""
    folder: str | None = None
    """Folder with the two zips; by default LEAP_DATA, else where `leap fetch omniglot` puts them."""


@dataclass(frozen=True)
class Glyphs(AlphabetTasks):
    """Writing systems drawn with embedded fonts: nothing to download."""

    name: Literal["glyphs"] = "glyphs"
    """The family."""
    train: Count = 18
    """Pretraining alphabets, of the pool."""
    pool: Count = 18
    """Alphabets that pretraining may use; what is neither in the pool nor held out is for validation."""
    held_out: Count = 8
    """Alphabets of the final evaluation."""


@dataclass(frozen=True)
class Sinusoid:
    """Sine waves of random amplitude and phase; regression."""

    name: Literal["sinusoid"] = "sinusoid"
    """The family."""
    count: Count = 100
    """Tasks a split."""
    shots: Count = 10
    """Training points a task."""
    queries: Count = 50
    """Held-out points a task."""


@dataclass(frozen=True)
class Quadratic:
    """Quadratic bowls, for tests and demonstrations."""

    name: Literal["quadratic"] = "quadratic"
    """The family."""
    count: Count = 10
    """Tasks a split."""
    dim: Annotated[int, Field(ge=2)] = 5
    """Parameters."""
    spread: NonNegative = 0.3
    """Standard deviation of the minima around their common centre."""
    condition: Annotated[float, Field(ge=1)] = 10.0
    """Condition number of the curvature."""


@dataclass(frozen=True)
class Custom:
    """Your own family: a function or class of a Python file that returns one (see README)."""

    name: Literal["custom"] = "custom"
    """The family."""
    source: str = ""
    """`path/to/file.py:make`; called as make(seed=..., device=..., **options)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for it."""

    def problems(self) -> list[str]:
        """What cannot be, beyond a field's own range."""
        if ".py:" not in self.source:
            return [f"tasks.source: {self.source!r} must name a file and a function in it, as in my_tasks.py:make"]
        return []


@dataclass(frozen=True)
class Model:
    """The network."""

    filters: Count = 64
    """Channels of each of the four convolution blocks (images)."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalization of the blocks; `batch` uses the batch's own statistics."""
    hidden: tuple[Count, ...] = (40, 40)
    """Widths of the hidden layers (sinusoid)."""
