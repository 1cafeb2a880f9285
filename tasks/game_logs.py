"""What is logged while games are learned, under the names that CleanRL gives it (docs/metrics.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from leap.records import SECOND, STEP, TOTAL, Quotient, Records
from tasks.play import Play

LOSSES = ("policy_loss", "value_loss", "entropy", "explained_variance")  # of what `actor_critic_loss` records
RETURN, LENGTH, EPISODES, ACTED = "return", "length", "episodes", "acted"


def records(names: Sequence[str]) -> Records:
    """What is logged of these games.

    A mean over games is one over the games' own means, as far as they ended an episode: a game counts as much as
    another that ends its episodes sooner. A game's own mean is over all its episodes, of whichever walk.

    Example:
        >>> list(records(["catch"]))[:5]
        ['charts/episodic_return', 'charts/episodic_length', 'charts/episodes', 'charts/SPS', 'losses/policy_loss']
    """
    own = {kind: [Quotient(_of(kind, name), _of(EPISODES, name)) for name in names] for kind in (RETURN, LENGTH)}
    return {
        "charts/episodic_return": own[RETURN],
        "charts/episodic_length": own[LENGTH],
        "charts/episodes": [Quotient(EPISODES, TOTAL)],
        "charts/SPS": [Quotient(ACTED, SECOND)],
        **{f"losses/{name}": [Quotient(name, STEP)] for name in LOSSES},
        **{f"games/{name}/episodic_return": [of] for name, of in zip(names, own[RETURN], strict=True)},
    }


def figures(names: Sequence[str], tasks: Sequence[str], plays: Sequence[Play], acted: int) -> dict[str, Tensor]:
    """What `records` sums of one walk, [T] each on the CPU.

    Args:
        names: Of all games, those of this walk among them.
        tasks: Of the T games of this walk.
        plays: Theirs; none where nothing was played.
        acted: Agent steps of each game that were chosen in this process.

    Episodes whose score is not finite are in none of it.
    """
    found = {ACTED: torch.full((len(tasks),), float(acted), dtype=torch.float64)}
    found |= {EPISODES: torch.zeros(len(tasks), dtype=torch.float64)}
    for kind in (RETURN, LENGTH, EPISODES):
        found |= {_of(kind, name): torch.zeros(len(tasks), dtype=torch.float64) for name in names}
    for row, play in enumerate(plays):
        name = tasks[row]
        ended = [(score, length) for _, score, length in play.episodes if score is not None and length is not None]
        told = {EPISODES: float(len(ended)), _of(EPISODES, name): float(len(ended))}
        told[_of(RETURN, name)] = math.fsum(score for score, _ in ended)
        told[_of(LENGTH, name)] = math.fsum(length for _, length in ended)
        for key, value in told.items():
            found[key][row] = value
    return found


def _of(kind: str, name: str) -> str:
    return f"{kind} of {name}"
