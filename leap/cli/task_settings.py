"""Settings of task families and of their networks."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from leap.cli.fields import Count, NonNegative, Rate

EMBEDDED = ("digits", "latin", "greek", "cyrillic", "symbols", "painted", "shapes", "textures")
"""Data sets of `tasks.embedded_sets`, which need no download."""
ImageSetName = Literal[
    "mnist",
    "fashion",
    "ifashion",
    "kmnist",
    "notmnist",
    "cifar10",
    "cifar100",
    "natural",
    "artificial",
    "cifar100_coarse",
    "natural_coarse",
    "artificial_coarse",
    "usps",
    "gtsrb",
    "svhn",
    "sign_digits",
    "orl_faces",
    "facescrub",
]
DigitTaskName = Literal[
    "digit",
    "parity",
    "at_least_five",
    "loops",
    "prime",
    "thirds",
    "rotation",
    "turned_over",
    "lying",
    "inverted",
    "digit_and_lying",
    "digit_and_rotation",
    "digit_and_inverted",
]


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
class MultiCV:
    """Multi-CV: every vision data set is a task with its own head, behind one encoder."""

    name: Literal["multi_cv"] = "multi_cv"
    """The family."""
    names: tuple[str, ...] = EMBEDDED
    """Data sets: embedded ones, those that `leap fetch` lists, or folders of class folders (names with a slash)."""
    held_out: tuple[str, ...] = ()
    """Data sets that no pretraining sees, of names; by default the last."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the training images that is for validation."""
    most: Annotated[int, Field(ge=4)] | None = None
    """Training images of a data set to use, validation counted; by default all."""
    most_test: Count | None = None
    """Test images to use; by default all."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images an inner step."""
    folder: str | None = None
    """Folder that holds a folder for each data set; by default LEAP_DATA, else where `leap fetch` puts data."""

    def problems(self) -> list[str]:
        """What cannot be, beyond a field's own range."""
        found = _repeated(self.names, self.held_out)
        if len(self.names) < 2:
            found.append(f"tasks.names: names {len(self.names)} task; name one to pretrain on and one to hold out")
        return found + _not_among(self.names, self.held_out)


@dataclass(frozen=True)
class ImageTasks:
    """Fields that families of labelled pictures share."""

    names: tuple[str, ...] = ()
    """The tasks, one head each."""
    held_out: Literal["all"] | tuple[str, ...] = "all"
    """Tasks of the final evaluation, which pretraining does not see; `all`: it sees all of them, and so nothing that is
    measured on them is about unseen tasks."""
    train_size: Annotated[int, Field(ge=2)] = 1500
    """Training images of each task, balanced over its classes."""
    test_size: Count = 300
    """Test images of each task, balanced over its classes."""
    batch_size: Count = 50
    """Images an inner step."""
    folder: str | None = None
    """Folder that holds a folder for each data set; by default LEAP_DATA, else where `leap fetch` puts data."""

    def problems(self) -> list[str]:
        """What cannot be, beyond a field's own range."""
        held_out = () if self.held_out == "all" else self.held_out
        found = _repeated(self.names, held_out)
        if not self.names:
            found.append("tasks.names: names no task; name at least one")
        if self.held_out == "all":
            return found
        found += _not_among(self.names, held_out)
        if not 0 < len(set(held_out)) < len(set(self.names)):
            found.append(
                f"tasks.held_out: holds out {len(held_out)} of {len(self.names)} tasks; "
                "hold out some and leave some to pretraining, or write all"
            )
        return found


def _repeated(names: tuple[str, ...], held_out: tuple[str, ...]) -> list[str]:
    found = []
    for setting, given in (("names", names), ("held_out", held_out)):
        if repeated := sorted({name for name in given if given.count(name) > 1}):
            found.append(f"tasks.{setting}: {', '.join(repeated)} stands there twice; name each task once")
    return found


def _not_among(names: tuple[str, ...], held_out: tuple[str, ...]) -> list[str]:
    unknown = [name for name in held_out if name not in names]
    return [f"tasks.held_out: {', '.join(unknown)} not among tasks.names ({', '.join(names)})"] if unknown else []


@dataclass(frozen=True)
class ImageSets(ImageTasks):
    """Vision data sets: MNIST and its kin, CIFAR and its halves; a data set is a task."""

    name: Literal["image_sets"] = "image_sets"
    """The family."""
    names: tuple[ImageSetName, ...] = (
        "mnist", "fashion", "ifashion", "kmnist", "notmnist", "cifar10", "cifar100", "natural", "artificial",
    )  # fmt: skip
    """The tasks, one head each."""
    held_out: Literal["all"] | tuple[ImageSetName, ...] = "all"
    """Tasks of the final evaluation, which pretraining does not see; `all`: it sees all of them, and so nothing that is
    measured on them is about unseen tasks."""
    normalization: Literal["own", "shared"] = "own"
    """By the statistics of each task's own images, or by those of all tasks together, which keeps their differences."""


@dataclass(frozen=True)
class DigitTasks(ImageTasks):
    """Many tasks on the same images: MNIST's digits turned and inverted, told apart by what they are and how shown."""

    name: Literal["digit_tasks"] = "digit_tasks"
    """The family."""
    names: tuple[DigitTaskName, ...] = (
        "digit", "parity", "at_least_five", "loops", "thirds", "rotation", "turned_over", "digit_and_rotation",
    )  # fmt: skip
    """The tasks, one head each."""
    held_out: Literal["all"] | tuple[DigitTaskName, ...] = "all"
    """Tasks of the final evaluation, which pretraining does not see (it does see their images); `all`: it sees all."""
    train_size: Annotated[int, Field(ge=2)] = 800
    """Training images, the same for every task, balanced over digits and the eight ways to show one."""
    test_size: Count = 800
    """Test images, likewise."""


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
    """Channels of each of the four convolution blocks (alphabets, multi_cv)."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalization of the blocks; `batch` uses the batch's own statistics."""
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)] = (16, 32, 64)
    """Channels of the convolutions of stride 2 (image sets, digit tasks)."""
    hidden: tuple[Count, ...] = (40, 40)
    """Widths of the hidden layers (sinusoid)."""
