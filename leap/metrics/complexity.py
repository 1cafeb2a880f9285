"""How much a task has to be learned: the complexity of a labelled data set in nats, and what one task adds to another.

A solution is a Gaussian over weights. It pays the expected loss, and beta for every nat by which it differs from the
prior. Minimized over the Gaussian's covariance, that is `complexity`; the rest of the file compares such minima.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leap.metrics.checks import nonnegative, positive, vector_of

Convention = Literal["corrected", "printed"]


class Complexity(NamedTuple):
    """Complexity of a task at a solution and its parts, scalars in nats; `total = loss + norm + logdet`.

    Attributes:
        total: `C_beta`.
        loss: Loss at the mean of the weights, summed over the data set.
        norm: `beta / 2 |w|^2 / lambda^2`.
        logdet: `beta / 2 log|I + (lambda^2 / beta) H|`.
        information: `KL(Q || P)` of the Gaussian that attains the minimum; not multiplied by beta, not a summand.
    """

    total: Tensor
    loss: Tensor
    norm: Tensor
    logdet: Tensor
    information: Tensor


def complexity(
    loss: float | Tensor,
    weight: Tensor,
    eigenvalues: Tensor,
    *,
    beta: float,
    prior_variance: float,
    convention: Convention = "corrected",
) -> Complexity:
    r"""Complexity of a task, minimized over the covariance of a Gaussian around the weights.

    .. math:: C_\beta = \min_\Sigma\; E_{w \sim N(w_0, \Sigma)} L(w)
              + \beta\, KL(N(w_0, \Sigma) \,\|\, N(0, \lambda^2 I))
              = L(w_0) + \frac{\beta}{2} \left[ \frac{\|w_0\|^2}{\lambda^2} + \sum_j \log(1 + s_j) \right],
              \quad s_j = \frac{\lambda^2 h_j}{\beta}

    .. math:: KL = \frac{1}{2} \left[ \frac{\|w_0\|^2}{\lambda^2} + \sum_j \log(1 + s_j) - \frac{s_j}{1 + s_j} \right],
              \quad \Sigma^* = \beta \left( H + \frac{\beta}{\lambda^2} I \right)^{-1}

    with the loss to second order. Weights of no curvature cost nothing but their norm.

    Args:
        loss: L(w_0), cross-entropy summed over the data set, nats.
        weight: w_0 [K]; trunk and all heads of a union.
        eigenvalues: h_j [r] of the curvature summed over the data set (times N / n where n of N samples made it); zeros
            may be left out.
        beta: Price of a nat of information, in nats of summed loss; 1 gives the evidence lower bound.
        prior_variance: lambda^2. Weights with variances of their own go through `whiten`, and 1 here.
        convention: "printed" has twice the s_j, as the workshop paper prints; for comparison only.

    Returns:
        The parts. At the minimum of `L + beta |w|^2 / (2 lambda^2)` (in torch with the mean loss: weight decay
        `beta / (lambda^2 N)`) the total is Laplace's approximation of `-beta log E_P exp(-L / beta)`.

    Raises:
        TypeError: weight or eigenvalues are not floating-point vectors.
        ValueError: beta or prior_variance not positive, values that are not finite, eigenvalues below zero by more than
            round-off.

    Example:
        >>> parts = complexity(2.0, torch.tensor([1.0, 0.0]), torch.tensor([1.0]), beta=1.0, prior_variance=1.0)
        >>> [round(float(part), 4) for part in parts]                # 2 + 1/2 + log(2)/2; KL = 1/2 + log(2)/2 - 1/4
        [2.8466, 2.0, 0.5, 0.3466, 0.5966]

    `Achille, Mbeng and Soatto 2018 <https://arxiv.org/abs/1810.02440>`_, with the Fisher in place of the Hessian. The
    workshop version prints `2 lambda^2 / beta` in the determinant and `beta / 2` in the covariance, which is what
    remains when the 1/2 of the Taylor term is lost; and it takes any loss, where a mean loss can make what a second
    task adds negative. Here the constants follow from the definition, and the loss is summed.
    """
    beta, prior_variance = positive("beta", beta), positive("prior_variance", prior_variance)
    value, weight = _number("loss", loss), vector_of("weight", weight)
    curvature = nonnegative(vector_of("eigenvalues", eigenvalues)) if eigenvalues.numel() else weight.new_zeros(1)
    signal = curvature * (prior_variance / beta * _factor(convention))
    norm = weight.square().sum() / prior_variance
    logs = signal.log1p().sum()
    information = (norm + _divergence(signal).sum()) / 2
    norm, logdet = beta / 2 * norm, beta / 2 * logs
    return Complexity(value + norm + logdet, value, norm, logdet, information)


def sweep(
    loss: float | Tensor, weight: Tensor, eigenvalues: Tensor, betas: Sequence[float], *, prior_variance: float
) -> Complexity:
    r"""Complexity of one solution for several prices; fields [P]. Arguments and errors as `complexity`.

    The total increases with beta and is concave; its derivative is the information (envelope theorem).

    Example:
        >>> sweep(2.0, torch.ones(1), torch.ones(1), [0.5, 2.0], prior_variance=1.0).total
        tensor([2.5247, 3.4055], dtype=torch.float64)
    """
    if len(betas) == 0:
        raise ValueError("a sweep needs at least one beta, got none")
    points = [complexity(loss, weight, eigenvalues, beta=b, prior_variance=prior_variance) for b in betas]
    return Complexity(*(torch.stack(field) for field in zip(*points, strict=True)))


def expected_loss(parts: Complexity, beta: float | Tensor) -> Tensor:
    r"""Loss expected under the noise of the weights: `E_Q L = C_beta - beta KL(Q || P)`, nats, at least `parts.loss`.

    Args:
        parts: From `complexity` with this beta, or from `sweep` with these betas [P].
        beta: As there.

    Example:
        >>> expected_loss(complexity(2.0, torch.ones(1), torch.ones(1), beta=1.0, prior_variance=1.0), 1.0)
        tensor(2.2500, dtype=torch.float64)
    """
    return parts.total - torch.as_tensor(beta, dtype=torch.float64) * parts.information


def reachability(union: Complexity, source: Complexity) -> Tensor:
    r"""What a target costs once a source is known, in nats.

    .. math:: R_\beta(D_2 \mid D_1) = C_\beta(D_1 \sqcup D_2) - C_\beta(D_1)

    Args:
        union: Complexity of the tagged union of source and target, at its own solution.
        source: Complexity of the source alone, with the same beta, prior and estimator of curvature.

    Returns:
        The difference of totals. A static quantity: the path between the solutions does not enter. The exact free
        energies give `R >= 0`; a clearly negative value means that the union was trained worse than its part.

    The two directions differ by the difference of the complexities, `R(2|1) - R(1|2) = C(2) - C(1)`, and nothing else.
    A task costs something after itself: its second head and its second look at the samples.

    Example:
        >>> def at(loss): return complexity(loss, torch.zeros(1), torch.zeros(1), beta=1.0, prior_variance=1.0)
        >>> reachability(at(5.0), at(3.0))
        tensor(2., dtype=torch.float64)

    `Achille, Mbeng and Soatto 2018 <https://arxiv.org/abs/1810.02440>`_, where the word also names the dynamic factor;
    that one is `leap.metrics.dynamics` here.
    """
    return union.total - source.total


def information_distance(union: Complexity, source: Complexity) -> Tensor:
    r"""Information that a target adds to a source, in nats; the loss does not count.

    .. math:: d_I(D_1 \to D_2) = KL(Q_{12} \,\|\, P) - KL(Q_1 \,\|\, P)

    Args:
        union: Complexity of the tagged union of source and target.
        source: Complexity of the source alone, with the same beta and prior.

    Returns:
        The difference of the informations.

    Example:
        >>> def at(norm): return complexity(0.0, torch.tensor([norm]), torch.zeros(1), beta=1.0, prior_variance=1.0)
        >>> information_distance(at(2.0), at(0.0))
        tensor(2., dtype=torch.float64)

    `Achille et al. 2019 <https://arxiv.org/abs/1904.03292>`_, definition 6.1, takes the largest value over the source's
    solutions of the smallest over the union's. Here each has the one solution that training found.
    """
    return union.information - source.information


def relative_reachability(union: Complexity, source: Complexity, target: Complexity) -> Tensor:
    """`R(target | source) / C(target)`, without unit: 1 where a source is of no use, 0 where it contains the target.

    Raises:
        ValueError: a target that costs nothing, to which nothing can be relative.

    Example:
        >>> def at(loss): return complexity(loss, torch.zeros(1), torch.zeros(1), beta=1.0, prior_variance=1.0)
        >>> relative_reachability(at(5.0), source=at(3.0), target=at(4.0))
        tensor(0.5000, dtype=torch.float64)
    """
    if not float(target.total) > 0:
        raise ValueError(f"the target's complexity must be positive, got {float(target.total)}; report reachability")
    return reachability(union, source) / target.total


def pac_bayes_bound(
    error: float | Tensor, information: float | Tensor, *, samples: int, beta: float, delta: float = 0.05
) -> Tensor:
    r"""Bound on the expected test error of the noisy weights, from training error and information.

    .. math:: \frac{1}{1 - 1 / (2 \beta)} \left[ E_Q \bar L
              + \frac{\beta}{N} \left( KL(Q \,\|\, P) + \log \frac{1}{\delta} \right) \right]

    Args:
        error: Training error in [0, 1], mean over samples and over weights drawn from Q; 0-1 error or a clipped loss.
        information: KL(Q || P), nats; of the same Q.
        samples: N.
        beta: Above 1/2.
        delta: The bound fails with at most this probability over training sets.

    Returns:
        The bound, without unit; above 1 it says nothing. Prior and beta must be fixed before the data are seen: with
        the best of m pairs, ask for `delta / m`.

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> pac_bayes_bound(0.1, 50.0, samples=1000, beta=2.0)
        tensor(0.2747, dtype=torch.float64)

    `McAllester 2013 <https://arxiv.org/abs/1307.2118>`_, theorem 2; the two-term form in the slides that accompany
    Achille et al. leaves out the confidence.
    """
    mean, nats = _number("error", error), _number("information", information)
    if not 0 <= float(mean) <= 1:
        raise ValueError(
            f"error must lie in [0, 1], got {float(mean)}; a cross-entropy has no such bound unless clipped"
        )
    if float(nats) < 0:
        raise ValueError(f"information must not be negative, got {float(nats)}")
    if samples < 1 or not 0 < delta < 1:
        raise ValueError(f"samples must be at least 1 and delta in (0, 1), got {samples} and {delta}")
    if positive("beta", beta) <= 0.5:
        raise ValueError(f"beta must be above 1/2, got {beta}: at 1/2 the bound is infinite")
    return (mean + beta / samples * (nats - math.log(delta))) / (1 - 1 / (2 * beta))


def _factor(convention: Convention) -> float:
    if convention not in ("corrected", "printed"):
        raise ValueError(f"convention must be 'corrected' or 'printed', got {convention!r}")
    return 2.0 if convention == "printed" else 1.0


def _divergence(signal: Tensor) -> Tensor:
    """`log(1 + s) - s / (1 + s)` without the cancellation for small s: `s^2 / 2 - 2 s^3 / 3 + 3 s^4 / 4`."""
    series = signal.square() * (0.5 - signal * (2 / 3 - 0.75 * signal))
    return torch.where(signal < 1e-4, series, signal.log1p() - signal / (1 + signal))


def _number(name: str, value: float | Tensor) -> Tensor:
    number = torch.as_tensor(value, dtype=torch.float64).detach()
    if number.numel() != 1 or not math.isfinite(float(number)):
        raise ValueError(f"{name} must be one finite number, got {value}")
    return number.reshape(())
