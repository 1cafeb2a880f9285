"""What can be set: one typed schema for every command, its defaults being the paper's Omniglot protocol."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from leap.cli.fields import Count, Rate, Seed, Share
from leap.cli.game_settings import Atari, TinyGames
from leap.cli.learner_settings import (
    Adam,
    Anil,
    Finetune,
    Fomaml,
    Hat,
    Leap,
    Maml,
    Meta,
    MetaSgd,
    NoLearner,
    Progressive,
    Reptile,
    Rmsprop,
    Sgd,
)
from leap.cli.measure_settings import Measure
from leap.cli.task_settings import (
    Custom,
    DigitTasks,
    Glyphs,
    ImageSets,
    Model,
    MultiCV,
    Omniglot,
    Quadratic,
    Sinusoid,
)

__all__ = [
    "Adam",
    "Anil",
    "Atari",
    "Compare",
    "Custom",
    "DigitTasks",
    "Evaluate",
    "Finetune",
    "Fomaml",
    "Glyphs",
    "Hat",
    "ImageSets",
    "Leap",
    "Maml",
    "Measure",
    "Meta",
    "MetaSgd",
    "Model",
    "MultiCV",
    "NoLearner",
    "Omniglot",
    "Progressive",
    "Quadratic",
    "Reptile",
    "Rmsprop",
    "Settings",
    "Sgd",
    "Sinusoid",
    "TinyGames",
    "Train",
    "Wandb",
]


WALK_ON = ("finetune", "hat", "progressive")
"""Learners that go on training where they stand, so that the meta-optimizer only carries them there."""
GO_BACK = ("maml", "anil", "meta_sgd")
"""Learners that walk again what was walked, to differentiate through it."""
NEED_STAGES = ("hat", "progressive")
"""Learners that need a network in stages."""


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
    keep_every: Count | None = None
    """Inner steps between checkpoints inside a walk, for walks of hours; then each meta-step is saved too. By default
    there are none. Not for hat, progressive and learn2learn, nor for captured and compiled (auto: batched on a GPU)."""
    most_bad: Share = 0.5
    """Share of a meta-batch that may be lost to NaN or infinity before the run stops."""
    execution: Literal["auto", "batched", "sequential", "compiled", "captured"] = "auto"
    """Tasks of a walk in one vmap (as it is, compiled, or recorded as a CUDA graph), or one after another; auto: the
    quickest by a short measurement on a GPU, sequential on a CPU."""
    precision: Literal["highest", "tf32", "bf16"] = "highest"
    """In which losses compute: float32, or convolutions and products in TF32 (on a GPU) or bfloat16."""
    threads: Count | None = None
    """CPU threads; by default torch's choice."""
    inner_epochs: Rate | None = None
    """Passes of a task over its own training data, instead of inner_steps (tasks that know an epoch: multi_cv)."""
    validate_every: Count | None = None
    """Inner steps between evaluations of a task's validation error, which may end its walk; by default none does."""
    patience: Count = 10
    """Evaluations in a row without a better validation error that end a walk."""
    meta_patience: Count | None = None
    """Meta-steps in a row without a better mean validation error that end meta-training; by default none does."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluation on held-out tasks."""

    steps: Count = 100
    """Steps each held-out task walks."""
    repetitions: Count = 3
    """Walks a task, with different batches."""
    split: Literal["validation", "test", "train"] = "test"
    """Which tasks: `validation` for choices, `test` for results, `train` for those that pretraining saw."""
    epochs: Rate | None = None
    """Passes over its own training data, instead of steps (tasks that know an epoch: multi_cv)."""
    validate_every: Count | None = None
    """Steps between evaluations of the validation error, which may end a walk; by default none does."""
    patience: Count = 10
    """Evaluations in a row without a better validation error that end a walk."""


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
    """A comparison: every learner with every seed, at every setting of a grid."""

    learners: tuple[str, ...] = ("leap", "reptile", "fomaml", "finetune", "none")
    """Names in configs/learner, other names there are (`short/leap`), or YAML files."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds."""
    grid: dict[str, Any] = field(default_factory=dict)
    """Other settings to vary, each with its values: {tasks.train: [1, 3, 5]}; every combination is a configuration."""
    leave_one_out: bool = False
    """Hold out each of tasks.names in turn, with a comparison of its own for each, and one table over all."""
    jobs: Count | None = None
    """Runs at a time, each on its share of the cores; by default one a GPU, without GPUs one a core."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    tasks: Annotated[
        Omniglot | Glyphs | MultiCV | Atari | TinyGames | ImageSets | DigitTasks | Sinusoid | Quadratic | Custom,
        Field(discriminator="name"),
    ] = field(default_factory=Glyphs)
    """Where tasks come from."""
    model: Model = field(default_factory=Model)
    """The network."""
    learner: Annotated[
        Leap | Reptile | Fomaml | Maml | Anil | MetaSgd | Finetune | Hat | Progressive | NoLearner,
        Field(discriminator="name"),
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
    measure: Measure = field(default_factory=Measure)
    """Task distances (`leap measure`)."""
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
        found += self.measure.problems()
        found += self.learner.problems(self.tasks.name) if isinstance(self.learner, Leap) else []
        if getattr(self.inner, "nesterov", False) and not getattr(self.inner, "momentum", 0.0):
            found.append("inner.nesterov: needs inner.momentum above 0, got 0.0")
        if self.learner.name in WALK_ON and (self.meta.name, self.meta.lr, self.meta.options) != ("SGD", 1.0, {}):
            found.append(
                f"meta: {self.learner.name} walks on from where it stands, so it needs name SGD, lr 1.0 and no "
                f"options, got {self.meta.name}, {self.meta.lr}, {self.meta.options}; "
                f"use configs/learner/{self.learner.name}.yaml"
            )
        if getattr(self.learner, "engine", "native") == "learn2learn" and self.inner != Sgd(lr=self.inner.lr):
            found.append(
                "learner.engine: learn2learn takes plain SGD inner steps only; set inner to {name: sgd, lr: ...}"
            )
        if self.tasks.name not in ("multi_cv", "custom"):
            found += self._without_epochs()
        if self.train.keep_every is not None:
            found += self._not_kept()
        if isinstance(self.tasks, Atari | TinyGames) and (
            self.learner.name in GO_BACK or getattr(self.learner, "jacobian", "identity") == "exact"
        ):
            found.append(
                f"learner.name: {self.learner.name} goes back over its walk, and what was played cannot be played "
                "again; use leap (jacobian identity), reptile, fomaml or finetune"
            )
        if self.learner.name in NEED_STAGES and self.tasks.name not in ("multi_cv", "custom"):
            found.append(
                f"learner.name: {self.learner.name} reaches between the network's layers, which {self.tasks.name} does "
                "not offer; use tasks.name multi_cv (or tasks of your own with a `network`, see leap/stages.py)"
            )
        if getattr(self.learner, "engine", "native") == "learn2learn" and self.train.validate_every is not None:
            found.append(
                "train.validate_every: learn2learn's loops do not stop early; leave it out, or use engine native"
            )
        return found

    def _without_epochs(self) -> list[str]:
        """What asks tasks for more than they have: passes over their data, and data to stop early by."""
        found = []
        for section, steps, epochs in (("train", "inner_steps", "inner_epochs"), ("evaluate", "steps", "epochs")):
            here = getattr(self, section)
            if getattr(here, epochs) is not None:
                found.append(
                    f"{section}.{epochs}: {self.tasks.name} does not say how many steps an epoch of a task has; "
                    f"leave it out, and set {section}.{steps}"
                )
            if here.validate_every is not None:
                found.append(
                    f"{section}.validate_every: {self.tasks.name} has no validation error to stop early by; leave it "
                    "out, or choose tasks with validation data (multi_cv)"
                )
        return found

    def _not_kept(self) -> list[str]:
        """Walks that cannot be kept in their middle."""
        found = []
        if self.learner.name in NEED_STAGES:
            found.append(
                f"train.keep_every: {self.learner.name} visits tasks in turns, which are not kept in the middle; "
                "leave it out"
            )
        if getattr(self.learner, "engine", "native") == "learn2learn":
            found.append("train.keep_every: learn2learn's loops are not kept in the middle; use engine native")
        if self.train.execution in ("compiled", "captured"):
            found.append(
                f"train.keep_every: steps that are {self.train.execution} are not kept; use train.execution auto, "
                "batched or sequential"
            )
        return found
