"""What can be set: one typed schema for every command, its defaults being the paper's Omniglot protocol."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
ScheduleName = Literal["constant", "cosine"]


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


@dataclass(frozen=True)
class Leap:
    """Leap: shorten the expected gradient path."""

    name: Literal["leap"] = "leap"
    """The learner."""
    metric: Literal["length", "energy"] = "length"
    """Path length (p = 1) or energy (p = 2)."""
    loss_coordinate: bool = True
    """Measure paths on the graph of the loss."""
    stabilizer: bool = True
    """Let steps that raise the loss pull no less."""
    last_segment: bool = True
    """Count the segment that ends at theta^K."""
    jacobian: Literal["identity", "exact"] = "identity"
    """`exact` is for small models."""


@dataclass(frozen=True)
class Reptile:
    """Reptile: pull towards the end of the walk."""

    name: Literal["reptile"] = "reptile"
    """The learner."""


@dataclass(frozen=True)
class Fomaml:
    """First-order MAML."""

    name: Literal["fomaml"] = "fomaml"
    """The learner."""
    engine: Literal["native", "learn2learn"] = "native"
    """Whose implementation walks."""


@dataclass(frozen=True)
class Maml:
    """MAML, second order."""

    name: Literal["maml"] = "maml"
    """The learner."""
    engine: Literal["native", "learn2learn"] = "native"
    """Whose implementation walks."""


@dataclass(frozen=True)
class Anil:
    """ANIL: inner steps move the head alone."""

    name: Literal["anil"] = "anil"
    """The learner."""
    engine: Literal["native", "learn2learn"] = "native"
    """Whose implementation walks."""


@dataclass(frozen=True)
class MetaSgd:
    """Meta-SGD: learn a rate a parameter as well."""

    name: Literal["meta_sgd"] = "meta_sgd"
    """The learner."""
    rate: Rate = 0.1
    """Where the learned rates start."""
    engine: Literal["native", "learn2learn"] = "native"
    """Whose implementation walks."""


@dataclass(frozen=True)
class Finetune:
    """Multi-headed joint training, then a fresh head."""

    name: Literal["finetune"] = "finetune"
    """The learner."""


@dataclass(frozen=True)
class NoLearner:
    """No meta-learning: the random initialization."""

    name: Literal["none"] = "none"
    """The learner."""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent."""

    name: Literal["sgd"] = "sgd"
    """The inner optimizer."""
    lr: Rate = 0.1
    """Learning rate."""
    momentum: Decay = 0.0
    """Momentum."""
    nesterov: bool = False
    """Nesterov's form of it."""
    weight_decay: NonNegative = 0.0
    """L2 weight decay."""
    schedule: ScheduleName = "constant"
    """Learning rate over the walk."""


@dataclass(frozen=True)
class Adam:
    """Adam."""

    name: Literal["adam"] = "adam"
    """The inner optimizer."""
    lr: Rate = 1e-3
    """Learning rate."""
    beta1: Decay = 0.9
    """Decay of the first moment."""
    beta2: Decay = 0.999
    """Decay of the second moment."""
    eps: Rate = 1e-8
    """Added to the root."""
    weight_decay: NonNegative = 0.0
    """Weight decay."""
    decoupled: bool = False
    """Weight decay as in AdamW."""
    schedule: ScheduleName = "constant"
    """Learning rate over the walk."""


@dataclass(frozen=True)
class Rmsprop:
    """RMSProp."""

    name: Literal["rmsprop"] = "rmsprop"
    """The inner optimizer."""
    lr: Rate = 1e-3
    """Learning rate."""
    alpha: Decay = 0.99
    """Decay of the second moment."""
    eps: Rate = 1e-8
    """Added to the root."""
    momentum: Decay = 0.0
    """Momentum."""
    weight_decay: NonNegative = 0.0
    """L2 weight decay."""
    schedule: ScheduleName = "constant"
    """Learning rate over the walk."""


@dataclass(frozen=True)
class Meta:
    """The meta-optimizer."""

    name: str = "SGD"
    """Any of torch.optim that steps on a dense vector: SGD, Adam, AdamW, RMSprop, ..."""
    lr: Rate = 0.1
    """Meta learning rate."""
    schedule: ScheduleName = "constant"
    """Meta learning rate over meta-training."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the torch class, such as momentum or betas."""


@dataclass(frozen=True)
class Train:
    """Meta-training."""

    inner_steps: Count = 100
    """K: steps a task walks."""
    meta_steps: Count = 1000
    """Updates of the initialization."""
    meta_batch: Count = 20
    """Tasks a meta-step."""
    checkpoint_every: Count = 10
    """Meta-steps between checkpoints."""
    most_bad: Share = 0.5
    """Share of a meta-batch that may be lost to NaN or infinity before the run stops."""
    execution: Literal["auto", "batched", "sequential"] = "auto"
    """Tasks of a walk in one vmap, or one after another; auto: batched on a GPU, sequential on a CPU."""
    threads: Count | None = None
    """CPU threads; by default torch's choice."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluation on held-out tasks."""

    steps: Count = 100
    """Steps each held-out task walks."""
    repetitions: Count = 3
    """Walks a task, with different batches."""
    split: Literal["validation", "test"] = "test"
    """Which tasks: `validation` for choices, `test` for results."""


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online where a key is found, else offline."""
    project: str = "leap"
    """Project."""
    entity: str | None = None
    """User or team."""
    group: str | None = None
    """Runs of one comparison share it; by default the comparison's folder, for a single run the tasks' name."""


@dataclass(frozen=True)
class Compare:
    """A comparison: every learner with every seed."""

    learners: tuple[str, ...] = ("leap", "reptile", "fomaml", "finetune", "none")
    """Names in configs/learner, other names there are (`short/leap`), or YAML files."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds."""
    jobs: Count = 2
    """Runs at a time."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    tasks: Annotated[Omniglot | Glyphs | Sinusoid | Quadratic | Custom, Field(discriminator="name")] = field(
        default_factory=Glyphs
    )
    """Where tasks come from."""
    model: Model = field(default_factory=Model)
    """The network."""
    learner: Annotated[
        Leap | Reptile | Fomaml | Maml | Anil | MetaSgd | Finetune | NoLearner, Field(discriminator="name")
    ] = field(default_factory=Leap)
    """What learns the initialization."""
    inner: Annotated[Sgd | Adam | Rmsprop, Field(discriminator="name")] = field(default_factory=Sgd)
    """What trains a task."""
    meta: Meta = field(default_factory=Meta)
    """What moves the initialization."""
    train: Train = field(default_factory=Train)
    """Meta-training."""
    evaluate: Evaluate = field(default_factory=Evaluate)
    """Evaluation."""
    compare: Compare = field(default_factory=Compare)
    """Comparison of learners (`leap compare`)."""
    tracking: Literal["wandb", "none"] = "wandb"
    """Where metrics go besides the run folder."""
    wandb: Wandb = field(default_factory=Wandb)
    """How wandb is used."""
    seed: Seed = 0
    """Root of all randomness."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""

    def problems(self) -> list[str]:
        """What cannot be, beyond a field's own range."""
        found = list(self.tasks.problems()) if hasattr(self.tasks, "problems") else []
        if getattr(self.inner, "nesterov", False) and not getattr(self.inner, "momentum", 0.0):
            found.append("inner.nesterov: needs inner.momentum above 0, got 0.0")
        if self.learner.name == "finetune" and (self.meta.name, self.meta.lr, self.meta.options) != ("SGD", 1.0, {}):
            found.append(
                "meta: finetune walks on from where it stands, so it needs name SGD, lr 1.0 and no options, "
                f"got {self.meta.name}, {self.meta.lr}, {self.meta.options}; use configs/learner/finetune.yaml"
            )
        if getattr(self.learner, "engine", "native") == "learn2learn" and self.inner != Sgd(lr=self.inner.lr):
            found.append(
                "learner.engine: learn2learn takes plain SGD inner steps only; set inner to {name: sgd, lr: ...}"
            )
        return found
