"""Settings of games: which are tasks, how they are shown, and how an agent learns them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from leap.cli.fields import Count, NonNegative, Rate, Share


@dataclass(frozen=True)
class GameTasks:
    """Fields that families of games share; the defaults are the paper's where it has them."""

    train: tuple[str, ...] = ()
    """Games of pretraining."""
    test: tuple[str, ...] = ()
    """Games that no pretraining sees."""
    environments: Count = 32
    """Copies of a game that are played side by side: the batch."""
    unroll: Count = 5
    """Agent steps in each copy between two inner steps; an inner step is environments x unroll agent steps."""
    discount: Share = 0.99
    """Discount of rewards, a step."""
    gae: Share | None = None
    """lambda of generalized advantage estimation; by default returns over the rest of the unroll (lambda 1)."""
    entropy: NonNegative = 0.01
    """Weight of the entropy bonus."""
    value_weight: NonNegative = 0.5
    """Weight of the value loss."""
    clip_reward: Rate | None = 5.0
    """Rewards are clipped to at most this in size for learning; scores are always of unclipped ones."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the transitions of a batch."""
    life_cuts: bool = False
    """Let a lost life end the return, though the game goes on."""
    evaluation_episodes: Count = 30
    """Whole episodes of the final score of a game."""
    network: Literal["mnih2013", "nature", "small"] = "mnih2013"
    """The agent's network; all but its heads is meta-learned."""
    acting: Literal["auto", "sequential", "batched"] = "auto"
    """How games that walk together choose actions: one after another, or in one forward pass; auto: that on a GPU."""
    reference_steps: Count = 1_000_000
    """Agent steps that the agent learns whose actions a measuring takes as labels; from a random initialization."""
    reference_examples: Count = 2000
    """States to imitate it in; half as many more for testing."""
    reference_random: Share = 0.25
    """Share of uniformly random actions in the play that makes these states."""
    reference_spacing: Count = 16
    """Steps in a row of an environment of which one state is kept."""
    reference_labels: Literal["likeliest", "drawn"] = "likeliest"
    """Its most probable action, or one drawn from its policy: where one action is always the best, that has classes."""

    def problems(self) -> list[str]:
        """What cannot be, beyond a field's own range."""
        found = []
        for setting in ("train", "test"):
            given = getattr(self, setting)
            if repeated := sorted({name for name in given if given.count(name) > 1}):
                found.append(f"tasks.{setting}: {', '.join(repeated)} stands there twice; name each game once")
        if both := sorted(set(self.train) & set(self.test)):
            found.append(
                f"tasks.test: {', '.join(both)} is in tasks.train as well; hold out games that no pretraining sees"
            )
        return found


@dataclass(frozen=True)
class Atari(GameTasks):
    """Atari 2600 games; by default the paper's pool, and its two held-out games."""

    name: Literal["atari"] = "atari"
    """The family."""
    size: Annotated[int, Field(ge=16, le=210)] = 84
    """Height and width of the pictures."""
    colour: bool = True
    """Red, green and blue, as in the paper; else grey."""
    stack: Count = 1
    """Pictures in a row that make an observation: 1 in the paper, 4 commonly."""
    frame_skip: Count = 4
    """Frames an agent step lasts."""
    sticky: Share = 0.25
    """How often the console takes the action before again."""
    noop_max: Annotated[int, Field(ge=0)] = 30
    """Most steps of doing nothing before a game begins."""
    full_actions: bool = False
    """All 18 actions in every game, instead of those that it knows."""
    most_actions: Count | None = 10
    """Most actions that a game of pretraining may know: the paper's rule."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of a game's emulators; 0: this process's share of the cores."""


@dataclass(frozen=True)
class TinyGames(GameTasks):
    """Tiny games with known best scores, for tests and a first look; nothing to install."""

    name: Literal["tiny_games"] = "tiny_games"
    """The family."""
    train: tuple[str, ...] = ("corridor", "catch", "rally", "follow", "seek")
    """Games of pretraining."""
    test: tuple[str, ...] = ("mirror", "sprint")
    """Games that no pretraining sees."""
    environments: Count = 16
    """Copies of a game that are played side by side: the batch."""
    network: Literal["mnih2013", "nature", "small"] = "small"
    """The agent's network; all but its heads is meta-learned."""
    acting: Literal["auto", "sequential", "batched"] = "auto"
    """How games that walk together choose actions: one after another, or in one forward pass; auto: that on a GPU."""
    reference_steps: Count = 60_000
    """Agent steps that the agent learns whose actions a measuring takes as labels; from a random initialization."""
    reference_examples: Count = 1000
    """States to imitate it in; half as many more for testing."""
