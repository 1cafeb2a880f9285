"""Returns, advantages and the loss of a synchronous advantage actor-critic: pure functions of tensors [L, E].

`Mnih et al. 2016 <https://arxiv.org/abs/1602.01783>`_ (n-step returns, one gradient for policy, value and entropy), in
the synchronous form that the field calls A2C; `Schulman et al. 2016 <https://arxiv.org/abs/1506.02438>`_ (GAE).

Row t of a roll-out is what happened between the observations t and t + 1 in each of E environments. Environments start
again in the step after an end (`envs.vector`): that row is no transition and is not `valid`, and observation t + 1 of a
row that ended is the last one of its own episode. So

- a row that was truncated is followed by V of the next observation, as if the roll-out ended there;
- a row that terminated is followed by nothing, and so is a lost life where lives are to cut;
- a row that is not valid is in no sum, and nothing before it reads its reward, action or return. The observation before
  it is the truncated episode's last, and is read as such.

L is the number of agent steps of a roll-out (its "unroll"), E the number of environments. Nothing here branches on a
tensor, so all of it goes through `vmap`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["mean", "sum"]


class Edges(NamedTuple):
    """Where episodes end within a roll-out; bool [L, E] each."""

    valid: Tensor  # the row is a transition
    bootstraps: Tensor  # what follows the row has a value: it neither terminated nor lost a life that cuts
    carries: Tensor  # what follows is the next row's: it does not end the episode in any way


def edges(terminated: Tensor, truncated: Tensor, life_lost: Tensor, valid: Tensor, *, life_cuts: bool = False) -> Edges:
    """Edges of a roll-out, from what the environments say of each row; bool [L, E].

    Args:
        terminated: The game is over.
        truncated: The episode was ended from outside (a limit of its length).
        life_lost: A life was lost and the game goes on.
        valid: The row is a transition, and no start of a new episode.
        life_cuts: Take a lost life for a termination, as Mnih et al. 2015 do. The episode goes on all the same.
    """
    bootstraps = ~(terminated | life_lost) if life_cuts else ~terminated
    return Edges(valid, bootstraps, bootstraps & ~truncated)


def clip_rewards(rewards: Tensor, bound: float | None) -> Tensor:
    """Rewards within [-bound, bound], by value; None leaves them.

    Leap's experiment clips to 5, the field since Mnih et al. 2013 to 1.

    Example:
        >>> clip_rewards(torch.tensor([-7.0, 0.5, 200.0]), 5.0)
        tensor([-5.0000,  0.5000,  5.0000])
    """
    return rewards if bound is None else rewards.clamp(-bound, bound)


def nstep_returns(rewards: Tensor, values: Tensor, edges: Edges, discount: float) -> Tensor:
    r"""n-step returns with bootstrapping, Mnih et al. 2016, algorithm S3.

    .. math::
        R_t = r_t + \gamma \begin{cases}
            0 & \text{nothing follows (terminated, or a life that cuts)} \\
            V(o_{t+1}) & \text{the roll-out ends, or the episode was truncated} \\
            R_{t+1} & \text{else}
        \end{cases}

    Args:
        rewards: [L, E], clipped or not.
        values: V of the observations 0 .. L, [L + 1, E].
        edges: Of the roll-out.
        discount: gamma, in [0, 1].

    Returns:
        Returns [L, E] without a graph; V(o_t) where a row is not valid, so that its advantage is zero and nothing of it
        reaches the row before, whatever that says. n is as large as the roll-out allows: L for its first row, 1 for its
        last.

    Example:
        >>> never, always = torch.zeros(3, 1, dtype=torch.bool), torch.ones(3, 1, dtype=torch.bool)
        >>> over = torch.tensor([[False], [True], [False]])
        >>> row = edges(over, never, never, torch.tensor([[True], [True], [False]]))
        >>> nstep_returns(torch.ones(3, 1), torch.full((4, 1), 8.0), row, 0.5).squeeze(1)
        tensor([1.5000, 1.0000, 8.0000])
    """
    values = values.detach()
    ahead, found = values[-1], []
    for t in reversed(range(len(rewards))):
        future = torch.where(edges.carries[t], ahead, values[t + 1])
        ahead = rewards[t].to(values.dtype) + discount * torch.where(edges.bootstraps[t], future, 0)
        ahead = torch.where(edges.valid[t], ahead, values[t])
        found.append(ahead)
    return torch.stack(found[::-1])


def gae(rewards: Tensor, values: Tensor, edges: Edges, discount: float, decay: float) -> Tensor:
    r"""Generalized advantage estimates, Schulman et al. 2016, equation 16, cut at the end of the roll-out.

    .. math::
        A_t = \delta_t + \gamma\lambda\, c_t A_{t+1}, \quad \delta_t = r_t + \gamma\, b_t V(o_{t+1}) - V(o_t)

    b is `edges.bootstraps` and c `edges.carries`. With lambda 1, A_t + V(o_t) is the n-step return.

    Args:
        rewards: [L, E].
        values: V of the observations 0 .. L, [L + 1, E].
        edges: Of the roll-out.
        discount: gamma, in [0, 1].
        decay: lambda, in [0, 1].

    Returns:
        Advantages [L, E] without a graph; 0 where a row is not valid.
    """
    values = values.detach()
    advantage, found = torch.zeros_like(values[-1]), []
    for t in reversed(range(len(rewards))):
        ahead = torch.where(edges.bootstraps[t], values[t + 1], 0)
        delta = rewards[t].to(values.dtype) + discount * ahead - values[t]
        advantage = delta + discount * decay * torch.where(edges.carries[t], advantage, 0)
        advantage = torch.where(edges.valid[t], advantage, 0)
        found.append(advantage)
    return torch.stack(found[::-1])


def targets(rewards: Tensor, values: Tensor, edges: Edges, discount: float, decay: float) -> tuple[Tensor, Tensor]:
    """What the value is to predict and what the policy is weighted by: returns and advantages, [L, E] without a graph.

    With lambda (`decay`) 1 they are those of Mnih et al. 2016. Below it the value's target is A + V, the
    lambda-return, as in Baselines and CleanRL.
    """
    if decay == 1:
        returns = nstep_returns(rewards, values, edges, discount)
        return returns, returns - values[:-1].detach()
    advantages = gae(rewards, values, edges, discount, decay)
    return advantages + values[:-1].detach(), advantages


def legal_logits(logits: Tensor, legal: Tensor | int) -> Tensor:
    """Logits [..., A] of which the first `legal` can be chosen; the others are so low that they have no probability."""
    absent = torch.arange(logits.shape[-1], device=logits.device) >= legal
    # Finite, since infinity times zero would be NaN in the entropy and in a second derivative.
    return logits.masked_fill(absent, torch.finfo(logits.dtype).min / 2)


def actor_critic_loss(
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    returns: Tensor,
    advantages: Tensor,
    valid: Tensor,
    value_weight: float = 0.5,
    entropy_weight: float = 0.01,
    reduction: Reduction = "mean",
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Policy gradient, value error and entropy in one loss, Mnih et al. 2016.

    .. math::
        \frac{1}{N} \sum_{t, e\ \text{valid}} -\log \pi(a_{te} \mid o_{te})\, A_{te}
        + c_v (R_{te} - V(o_{te}))^2 - c_e H(\pi(\cdot \mid o_{te}))

    Args:
        logits: Of the policy, [L, E, A]; illegal ones masked (`legal_logits`).
        values: V of the observations acted on, [L, E].
        actions: What was done, int64 [L, E].
        returns: R [L, E], taken as constants.
        advantages: A [L, E], taken as constants.
        valid: Rows that are transitions, bool [L, E]. The others have no part in the loss or its gradient.
        value_weight: c_v. The squared error has no factor 1/2, as in Baselines and SB3 (their 0.5 and 0.25 are this
            c_v); CleanRL's and IMPALA's 0.5 stands before half the squared error, and is 0.25 here.
        entropy_weight: c_e, against the entropy in nats.
        reduction: `mean`: N is the number of valid rows; `sum`: N = 1, as in A3C and IMPALA.

    Returns:
        The loss, and scalars to record, which are means over valid rows whatever the reduction: `policy_loss`,
        `value_loss` (squared error), `entropy` (nats), `return_mean` (of R), and `explained_variance`,
        1 - Var(R - V) / Var(R), at most 1; 0 where R does not vary.

    A policy's loss has no meaning as a value: its gradient is the point.
    """
    log_policy = F.log_softmax(logits, dim=-1)
    chosen = log_policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    returns, advantages = returns.detach(), advantages.detach()
    count = valid.sum()

    def mean(row: Tensor) -> Tensor:
        return torch.where(valid, row, 0).sum() / count.clamp_min(1)

    policy_loss = mean(-chosen * advantages)
    value_loss = mean((returns - values).square())
    entropy = mean(-(log_policy.exp() * log_policy).sum(-1))
    loss = policy_loss + value_weight * value_loss - entropy_weight * entropy
    recorded = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "return_mean": mean(returns),
        "explained_variance": explained_variance(values, returns, valid),
    }
    return loss * count if reduction == "sum" else loss, recorded


def explained_variance(values: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    r"""How much of the returns' variance the values explain, over valid rows; a scalar without a graph.

    .. math:: 1 - \mathrm{Var}(R - V) / \mathrm{Var}(R)

    At most 1; 0 for a constant prediction and, by convention, where returns do not vary; below 0 for a worse one.

    Example:
        >>> returns, valid = torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([[True], [True], [False]])
        >>> explained_variance(returns + 5, returns, valid)
        tensor(1.)
    """
    values, returns = values.detach(), returns.detach()
    count = valid.sum().clamp_min(1)

    def variance(row: Tensor) -> Tensor:
        mean = torch.where(valid, row, 0).sum() / count
        return torch.where(valid, (row - mean).square(), 0).sum() / count

    total = variance(returns)
    constant = total == 0
    return torch.where(constant, 0, 1 - variance(returns - values) / torch.where(constant, 1, total))
