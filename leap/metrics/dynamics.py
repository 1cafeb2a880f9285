r"""Training as diffusion: temperature, free energy, escape rates and passage times, and the weight of a path.

One convention throughout: `dw = -grad U dt + sqrt(2 D) dW`, so that weights settle as `exp(-U/D)`. U is the mean loss
in nats (with `gamma/2 |w|^2` under weight decay); D, the temperature, has its unit. The theory is that of Achille,
Mbeng and Soatto, `Dynamics and reachability of learning tasks <https://arxiv.org/abs/1810.02440>`_, which prints some
signs and constants that its own derivation contradicts; each function says where it departs and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.func import grad, vmap

from leap.metrics.action import TransitionFactors, path_action, stratonovich_action, transition_factors
from leap.metrics.checks import Number, finite, positive_values
from leap.metrics.passage import log_mean_first_passage_time, mean_first_passage_time

__all__ = [
    "TransitionFactors",
    "detailed_balance_ratio",
    "effective_potential",
    "kramers_rate",
    "log_detailed_balance_ratio",
    "log_escape_time",
    "log_kramers_rate",
    "log_mean_first_passage_time",
    "mean_first_passage_time",
    "noise_trace",
    "path_action",
    "sgd_temperature",
    "stratonovich_action",
    "transition_factors",
]


def sgd_temperature(
    learning_rate: Number,
    batch_size: int,
    noise_trace: Number,
    dim: int,
    *,
    momentum: float = 0.0,
    dataset_size: int | None = None,
) -> Tensor:
    r"""Temperature D of the isotropic diffusion that SGD's gradient noise amounts to.

    .. math:: D = \frac{\eta}{1 - \mu} \frac{\operatorname{tr} \Sigma_g}{2 B K} \left( 1 - \frac{B}{N} \right)

    Args:
        learning_rate: eta, the step on the gradient of the mean loss.
        batch_size: B.
        noise_trace: Trace of the centred covariance of one sample's gradient, nats^2 a weight^2; see `noise_trace`.
        dim: K, the number of weights.
        momentum: mu of heavy-ball momentum without dampening, as in `torch.optim.SGD`.
        dataset_size: N when batches are drawn without replacement; None: with replacement.

    Returns:
        D, float64 []. Zero for full batches.

    Raises:
        ValueError: a step or size that is not positive, a negative trace, momentum outside [0, 1), B above N.

    Example:
        >>> sgd_temperature(0.1, 10, 50.0, 5)
        tensor(0.0500, dtype=torch.float64)

    `Mandt et al. 2017 <https://arxiv.org/abs/1704.04289>`_ match step and diffusion in this way. It holds to first
    order in the step: on `(w - z)^2 / 2` the exact stationary variance is `D / (1 - eta/2)`. With the trace of the
    unbiased covariance the factor 1 - B/N is exact. Real gradient noise is neither isotropic nor constant.
    """
    rate, trace = positive_values("learning_rate", learning_rate), finite("noise_trace", noise_trace)
    for name, size in (("batch_size", batch_size), ("dim", dim)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if not bool((trace >= 0).all()):
        raise ValueError(f"noise_trace must not be negative, got {trace.tolist()}; it is the trace of a covariance")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    if dataset_size is not None and dataset_size < batch_size:
        raise ValueError(f"dataset_size must be at least the batch size {batch_size}, got {dataset_size}")
    kept = 1.0 if dataset_size is None else 1 - batch_size / dataset_size
    return rate / (1 - momentum) * trace / (2 * batch_size * dim) * kept


def noise_trace(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    theta: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    chunk: int = 64,
) -> Tensor:
    r"""Trace of the centred covariance of per-sample gradients, unbiased.

    .. math:: \operatorname{tr} \Sigma_g = \frac{1}{n-1} \sum_i \| g_i - \bar g \|^2, \quad g_i = \nabla \ell_i(\theta)

    Args:
        loss: `(theta [K], inputs [b, ...], labels [b, ...]) -> mean loss []` in nats, under torch.func's transforms.
        theta: Where, [K]; its precision is that of the gradients, sums are float64.
        inputs: n samples, [n, ...], n at least 2.
        labels: Their labels, [n, ...].
        chunk: Samples whose gradients are held in memory at once.

    Returns:
        The trace, float64 [].

    Raises:
        ValueError: fewer than two samples, inputs and labels of different length, gradients that are not finite.

    Example:
        >>> z = torch.tensor([0.0, 1.0, 2.0])
        >>> noise_trace(lambda w, x, y: ((w - x).square() / 2).mean(), torch.ones(1), z, z)
        tensor(1., dtype=torch.float64)
    """
    n = len(inputs)
    if n < 2 or len(labels) != n:
        raise ValueError(f"inputs and labels must be equally many and at least 2, got {n} and {len(labels)}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    each = vmap(grad(lambda w, x, y: loss(w, x[None], y[None])), in_dims=(None, 0, 0))
    theta = theta.detach()
    shift, total = each(theta, inputs[:1], labels[:1])[0].double(), torch.zeros_like(theta, dtype=torch.float64)
    square = torch.zeros((), dtype=torch.float64, device=theta.device)
    for x, y in zip(inputs.split(chunk), labels.split(chunk), strict=True):
        centred = each(theta, x, y).double() - shift  # shifted, so that a large mean gradient cancels nothing
        total, square = total + centred.sum(0), square + centred.square().sum()
    return finite("gradients", (square - total.square().sum() / n) / (n - 1)).clamp(min=0)


def effective_potential(loss: Number, eigenvalues: Tensor, temperature: Number, *, weight_decay: float = 0.0) -> Tensor:
    r"""Free energy of a valley or basin: its depth and its width.

    .. math:: U_\text{eff} = U + \frac D2 \sum_j \log (h_j + \gamma)

    Args:
        loss: U, nats, [...]: the mean loss, with its `gamma/2 |w|^2` where training has weight decay.
        eigenvalues: Curvature of the mean loss, [..., d]: transverse to the path along a path, all of it to compare
            whole basins.
        temperature: D, nats.
        weight_decay: gamma; the eigenvalues are then those of the loss without its penalty.

    Returns:
        float64 [...], defined up to a constant; differences alone have meaning.

    Raises:
        ValueError: D not positive; some `h + gamma` not positive. A flat direction without weight decay has no finite
            free energy: leave it out at every point that is compared, or give the weight decay.

    Example:
        >>> effective_potential(1.0, torch.tensor([1.0, math.e**2]), 0.1)
        tensor(1.1000, dtype=torch.float64)

    With weight decay, zeros that are left out (a dual spectrum) leave out `(D/2) log gamma` each: keep their number the
    same at all points. It is `C_beta / N` with `beta = N D` and `lambda^2 = D/gamma` up to `(D/2) K log gamma`.
    `Achille, Mbeng and Soatto 2018 <https://arxiv.org/abs/1810.02440>`_ print `U + D log|H|`, once with a minus;
    integrating the transverse Gaussian gives the plus sign and the half.
    """
    d, h = positive_values("temperature", temperature), finite("eigenvalues", eigenvalues)
    if h.dim() == 0:
        raise ValueError("eigenvalues must have a last axis, [..., d], got a scalar")
    if not weight_decay >= 0 or math.isinf(weight_decay):
        raise ValueError(f"weight_decay must be finite and not negative, got {weight_decay}")
    if not bool((h + weight_decay > 0).all()):
        raise ValueError(
            f"eigenvalues plus weight_decay must be positive, got {float(h.min() + weight_decay)} as the smallest; "
            "leave flat directions out, or give the weight decay"
        )
    return finite("loss", loss) + d / 2 * (h + weight_decay).log().sum(-1)


def log_kramers_rate(
    curvature_minimum: Tensor, curvature_saddle: Tensor, barrier: Number, temperature: Number
) -> Tensor:
    r"""Logarithm of the rate at which a diffusion leaves a minimum over a saddle (Eyring-Kramers).

    .. math:: k = \frac{|\lambda_s|}{2 \pi} \sqrt{\frac{\det H(a)}{|\det H(s)|}} \; e^{-[U(s) - U(a)]/D}

    Args:
        curvature_minimum: Eigenvalues of the Hessian at the minimum, [d], all positive.
        curvature_saddle: Those at the saddle, [d], exactly one negative and none zero.
        barrier: `U(s) - U(a)`, nats, not negative. The formula holds where it is much larger than D.
        temperature: D, nats.

    Returns:
        log k, float64; k is per unit of the diffusion's time (learning rate times steps).

    Raises:
        ValueError: D not positive, shapes that differ, a wrong number of negative eigenvalues, a negative barrier.

    Example:
        >>> rate = log_kramers_rate(torch.tensor([8.0]), torch.tensor([-4.0]), 1.0, 0.1)  # U = (w^2 - 1)^2
        >>> round(float((-rate).exp()), 2)
        24465.25

    `Kramers 1940 <https://doi.org/10.1016/S0031-8914(40)90098-2>`_. The barrier reaches to the *saddle*; the `workshop
    paper <https://arxiv.org/abs/1810.02440>`_ puts the difference of the end points there, which fixes only the ratio
    of forward and backward rates: `log_detailed_balance_ratio`.
    """
    low, saddle = finite("curvature_minimum", curvature_minimum), finite("curvature_saddle", curvature_saddle)
    height, d = finite("barrier", barrier), positive_values("temperature", temperature)
    if low.dim() != 1 or low.shape != saddle.shape or len(low) == 0:
        raise ValueError(f"curvatures must both be [d], got shapes {tuple(low.shape)} and {tuple(saddle.shape)}")
    if not bool((low > 0).all()):
        raise ValueError(f"curvature_minimum must be positive, got {float(low.min())}; add the weight decay")
    negative = int((saddle < 0).sum())
    if negative != 1 or bool((saddle == 0).any()):
        raise ValueError(
            f"curvature_saddle must have exactly one negative and no zero eigenvalue, got {negative} negative and "
            f"{int((saddle == 0).sum())} zero; Kramers' rate is for a saddle of index one"
        )
    if not bool((height >= 0).all()):
        raise ValueError(
            f"barrier must not be negative, got {height.tolist()}; it is the saddle's loss less the minimum's"
        )
    prefactor = saddle.min().abs().log() + (low.log().sum() - saddle.abs().log().sum()) / 2 - math.log(2 * math.pi)
    return prefactor - height / d


def kramers_rate(curvature_minimum: Tensor, curvature_saddle: Tensor, barrier: Number, temperature: Number) -> Tensor:
    """`log_kramers_rate` exponentiated: the rate itself, which underflows to 0 where barriers are high.

    Example:
        >>> kramers_rate(torch.tensor([8.0]), torch.tensor([-4.0]), 1.0, 0.1)
        tensor(4.0874e-05, dtype=torch.float64)
    """
    return log_kramers_rate(curvature_minimum, curvature_saddle, barrier, temperature).exp()


def log_escape_time(log_rate: Number, *, to: Literal["saddle", "well"]) -> Tensor:
    """Logarithm of the mean time to the saddle, `1/(2k)`, or into the other well, `1/k`, from log k.

    From the saddle half of the paths fall back, hence the factor of two.

    Example:
        >>> float(log_escape_time(0.0, to="well") - log_escape_time(0.0, to="saddle")) == math.log(2)
        True
    """
    if to not in ("saddle", "well"):
        raise ValueError(f"to must be 'saddle' or 'well', got {to!r}")
    return -finite("log_rate", log_rate) - (math.log(2) if to == "saddle" else 0.0)


def log_detailed_balance_ratio(rise: Number, temperature: Number) -> Tensor:
    r"""Log of how much likelier the way from a to b is than the way back, in any time t.

    .. math:: \log \frac{p_t(b \mid a)}{p_t(a \mid b)} = -\frac{U(b) - U(a)}{D}

    Args:
        rise: `U(b) - U(a)`, nats; between basins of different width, of the effective potential.
        temperature: D, nats.

    Exact at every t for `dw = -grad U dt + sqrt(2 D) dW`. The `workshop paper <https://arxiv.org/abs/1810.02440>`_
    writes a drift of +grad U, with which its own static factor would have the other sign.

    Example:
        >>> log_detailed_balance_ratio(0.2, 0.1)
        tensor(-2., dtype=torch.float64)
    """
    return -finite("rise", rise) / positive_values("temperature", temperature)


def detailed_balance_ratio(rise: Number, temperature: Number) -> Tensor:
    """`log_detailed_balance_ratio` exponentiated.

    Example:
        >>> detailed_balance_ratio(0.0, 0.1)
        tensor(1., dtype=torch.float64)
    """
    return log_detailed_balance_ratio(rise, temperature).exp()
