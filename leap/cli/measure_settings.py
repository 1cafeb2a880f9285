"""Settings of `leap measure`; see leap.measure.plan.Plan, which they become."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from leap.cli.fields import Count, Decay, Rate, Seed, Share
from leap.errors import UsageError

DistanceName = Literal["path", "reachability", "fisher", "task2vec", "convergence", "dynamic", "returns"]
ScoreName = Literal[
    "all", "h_score", "transferability", "h_score_adjusted", "h_score_shrunk", "leep", "nce", "nleep", "logme",
    "transrate", "transrate_centred", "gbc", "parc", "sfda", "probe", "source_accuracy", "log_samples",
]  # fmt: skip


def check_scores(names: Sequence[str]) -> None:
    """Refuse a name that is no score, with the nearest that is.

    Raises:
        UsageError: so.
    """
    import difflib

    known = get_args(ScoreName)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"no score {name!r}.{hint} Known: {', '.join(known)}")


@dataclass(frozen=True)
class Measure:
    """Task distances."""

    distances: Annotated[tuple[DistanceName, ...], Field(min_length=1)] = (
        "path", "reachability", "fisher", "task2vec", "convergence", "dynamic",
    )  # fmt: skip
    """What is measured; `path` alone needs nothing but walks, the others learn every task and every pair. `returns`, of
    games alone, learns every game from every other one's solution."""
    transferability: tuple[ScoreName, ...] = ()
    """Scores of transferability, or `all`: of the initialization where `path` is measured, from task to task where any
    other distance is. Baselines come with any."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    """Repetitions: another random initialization, or, from a learned one, another order of examples."""
    epochs: Rate = 60.0
    """Epochs from the initialization towards a task's (or a union's) solution, annealed."""
    refine_epochs: Rate = 30.0
    """Epochs of a second annealing from there, and of a union from each of its tasks' solutions."""
    rate: Rate = 0.03
    """Learning rate of both."""
    momentum: Decay = 0.9
    """Momentum of all learning."""
    batch_size: Count = 50
    """Examples of each task a step."""
    beta: Rate = 1.0
    """Price of a nat of information in the weights, at which solutions are learned."""
    betas: Annotated[tuple[Rate, ...], Field(min_length=2)] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    """Prices at which complexity is reported."""
    prior_variance: Rate = 0.1
    """Variance of the prior over a weight."""
    prior_centre: Literal["zero", "initialization"] = "zero"
    """Where the prior lies; around a learned initialization, what it knows already costs nothing."""
    level: Rate | None = None
    """Training loss up to which walks are measured beside their whole length; by default half that of guessing."""
    samples: Annotated[int, Field(ge=2)] = 128
    """Examples of each task that its curvature is taken on."""
    dropped: Decay = 0.002
    """Share of each softmax covariance left out of the curvature, which makes many classes affordable."""
    tuning_epochs: Rate = 30.0
    """Epochs of fine-tuning from one task to another."""
    scratch_epochs: Rate = 15.0
    """Epochs from scratch, after which the loss makes the target's threshold."""
    tuning_rate: Rate = 0.01
    """Learning rate of both, constant."""
    threshold: Annotated[float, Field(ge=1)] = 1.05
    """Factor on that loss."""
    share: Share = 0.3
    """Share of the loss of guessing: a second threshold, which does not ask how learning from scratch fared."""
    points: Annotated[int, Field(ge=3)] = 48
    """Points of a learning curve."""
    barrier_points: Annotated[int, Field(ge=3)] = 21
    """Points on a curve between two solutions."""
    barrier_steps: Count = 40
    """Steps in which the curve is optimized."""
    barrier_rate: Rate = 0.03
    """Their learning rate."""
    barrier_samples: Count = 200
    """The target's examples that make its potential along the curve."""
    draws: Annotated[int, Field(ge=2)] = 10
    """Draws of the noisy weights for the PAC-Bayes bound."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Of the PAC-Bayes bound."""

    def problems(self) -> list[str]:
        """What cannot be, beyond a field's own range."""
        found = []
        if len(set(self.seeds)) < len(self.seeds):
            found.append(f"measure.seeds: {', '.join(map(str, self.seeds))} has a seed twice; name each once")
        if self.scratch_epochs > self.tuning_epochs:
            found.append(
                f"measure.scratch_epochs: {self.scratch_epochs} is above measure.tuning_epochs ({self.tuning_epochs}), "
                "where learning from scratch ends"
            )
        return found
