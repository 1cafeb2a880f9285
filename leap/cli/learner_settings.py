"""Settings of learners and optimizers: what learns the initialization, what trains a task, what moves the first."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from leap.cli.fields import Decay, NonNegative, Rate, ScheduleName


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
    height: Literal["loss", "average", "scaled", "return"] = "loss"
    """What the loss coordinate is: the loss of each step, its moving average, the loss scaled by its standard deviation
    along the walk, or minus the mean return, scaled likewise (actor-critics alone)."""
    height_decay: Decay | None = None
    """Decay of the moving average (height average); by default 0.99."""
    gradient_clip: Rate | None = None
    """Norm that a step's gradient is shortened to before it enters the sum; by default it enters as it is."""

    def problems(self, tasks: str) -> list[str]:
        """What cannot be, beyond a field's own range, with tasks of this name."""
        found = []
        if self.height_decay is not None and self.height != "average":
            found.append(
                f"learner.height_decay: is the moving average's, got {self.height_decay} with height {self.height}; "
                "leave it out, or use height average"
            )
        if self.height != "loss" and not self.loss_coordinate:
            found.append(
                f"learner.height: {self.height} needs the loss coordinate, which is off; leave one of the two out"
            )
        if self.gradient_clip is not None and not self.loss_coordinate:
            found.append("learner.gradient_clip: is of the loss coordinate, which is off; leave one of the two out")
        if self.height == "return" and tasks not in ("atari", "tiny_games", "custom"):
            found.append(
                f"learner.height: return needs tasks that record a return, which {tasks} does not; "
                "use loss, average or scaled"
            )
        return found


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
class Hat:
    """HAT: hard attention to the task, over parameters that all tasks share."""

    name: Literal["hat"] = "hat"
    """The learner."""
    pressure: NonNegative = 0.75
    """Weight of the penalty on units that no other task owns (lambda)."""
    sharpest: Annotated[float, Field(gt=1)] = 400.0
    """Slope of the gates where they are nearly binary (s_max)."""


@dataclass(frozen=True)
class Progressive:
    """Progressive Nets: a column a task, connected to all others'."""

    name: Literal["progressive"] = "progressive"
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
    clip: Rate | None = None
    """Norm to which each task's gradient is scaled down before the step; by default none."""


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
    clip: Rate | None = None
    """Norm to which each task's gradient is scaled down before the step; by default none."""


@dataclass(frozen=True)
class Rmsprop:
    """RMSProp."""

    name: Literal["rmsprop"] = "rmsprop"
    """The inner optimizer."""
    style: Literal["torch", "tf"] = "torch"
    """Where eps stands and what the second moment starts from: as in torch, or as in TensorFlow's, which most
    actor-critics were published with and which hardly moves where gradients are small."""
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
    clip: Rate | None = None
    """Norm to which each task's gradient is scaled down before the step; by default none."""


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
