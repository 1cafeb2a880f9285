r"""Training as diffusion: temperature, free energy, escape rates and passage times, and the weight of a path.

One convention throughout: `dw = -grad U dt + sqrt(2 D) dW`, so that weights settle as `exp(-U/D)`. U is the mean loss
in nats (with `gamma/2 |w|^2` under weight decay); D, the temperature, has its unit. The theory is that of Achille,
Mbeng and Soatto, `Dynamics and reachability of learning tasks <https://arxiv.org/abs/1810.02440>`_, which prints some
signs and constants that its own derivation contradicts; each function says where it departs and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

Number = float | Tensor

# Gauss-Legendre on [0, 1]: exact for polynomials of degree 31 on a panel.
_NODES, _WEIGHTS = (torch.from_numpy(a) / 2 for a in np.polynomial.legendre.leggauss(16))
_NODES = _NODES + 0.5


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
    rate, trace = _positive("learning_rate", learning_rate), _finite("noise_trace", noise_trace)
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
    return _finite("gradients", (square - total.square().sum() / n) / (n - 1)).clamp(min=0)


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
    d, h = _positive("temperature", temperature), _finite("eigenvalues", eigenvalues)
    if h.dim() == 0:
        raise ValueError("eigenvalues must have a last axis, [..., d], got a scalar")
    if not weight_decay >= 0 or math.isinf(weight_decay):
        raise ValueError(f"weight_decay must be finite and not negative, got {weight_decay}")
    if not bool((h + weight_decay > 0).all()):
        raise ValueError(
            f"eigenvalues plus weight_decay must be positive, got {float(h.min() + weight_decay)} as the smallest; "
            "leave flat directions out, or give the weight decay"
        )
    return _finite("loss", loss) + d / 2 * (h + weight_decay).log().sum(-1)


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
    low, saddle = _finite("curvature_minimum", curvature_minimum), _finite("curvature_saddle", curvature_saddle)
    height, d = _finite("barrier", barrier), _positive("temperature", temperature)
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
    return -_finite("log_rate", log_rate) - (math.log(2) if to == "saddle" else 0.0)


def log_mean_first_passage_time(
    potential: Callable[[Tensor], Tensor], start: float, end: float, temperature: float, *, wall: float | None = None
) -> Tensor:
    r"""Logarithm of the exact mean time in which a diffusion on the line first reaches `end` from `start`.

    .. math:: T(a \to b) = \frac1D \int_a^b dy\, e^{U(y)/D} \int_{-\infty}^y dz\, e^{-U(z)/D}, \qquad a < b

    and its mirror image for a > b. Behind the start the potential must grow, or a wall stand, to reflect the diffusion.

    Args:
        potential: U, nats, elementwise: float64 [n] -> [n].
        start: a.
        end: b.
        temperature: D, nats.
        wall: Where the inner integral begins instead of infinity, behind the start or on it.

    Returns:
        log T, float64 []; T in the diffusion's time. Minus infinity where a = b.

    Raises:
        ValueError: D not positive, a potential that does not grow behind the start or is not finite between a and b, or
            one so rough that 2048 panels an interval leave a relative error above 1e-9.

    Example:
        >>> round(float(log_mean_first_passage_time(lambda w: (w**2 - 1) ** 2, -1.0, 1.0, 0.01)), 6)
        100.108797

    Quadrature in log space on panels that double in number until the value stands; those behind the start double in
    width. A well narrower than 1/256 of its distance from the start can be missed. Gardiner, Handbook of Stochastic
    Methods, section 5.2.7; the standard formula without change.
    """
    d = float(_positive("temperature", temperature))
    a, b = float(_finite("start", start)), float(_finite("end", end))
    if wall is not None and not (-math.inf < wall <= a <= b or b <= a <= wall < math.inf):
        raise ValueError(f"wall must be finite and stand behind the start {a}, seen from the end {b}, got {wall}")
    if a > b:
        return log_mean_first_passage_time(lambda y: potential(-y), -a, -b, d, wall=None if wall is None else -wall)
    if a == b:
        return torch.tensor(-math.inf, dtype=torch.float64)

    def scaled(x: Tensor) -> Tensor:
        return _evaluate(potential, x) / d

    behind = _edges_behind(scaled, a, b - a) if wall is None else sorted({wall, a})
    edges, previous = torch.tensor([*behind, b], dtype=torch.float64), math.inf
    for panels in (2**k for k in range(3, 12)):
        value = _log_nested(scaled, edges, panels)
        if not math.isfinite(value):
            raise ValueError(
                f"potential must be finite between start {a} and end {b}, its time came out as exp({value})"
            )
        if abs(value - previous) < 1e-9 + 1e-14 * abs(value):  # the second part is the round-off of U / D
            return torch.tensor(value - math.log(d), dtype=torch.float64)
        previous = value
    raise ValueError(
        f"the quadrature did not settle at 1e-9 with 2048 panels; raise temperature {d} or smooth potential"
    )


def mean_first_passage_time(
    potential: Callable[[Tensor], Tensor], start: float, end: float, temperature: float, *, wall: float | None = None
) -> Tensor:
    """`log_mean_first_passage_time` exponentiated; infinite where that exceeds 709.

    Example:
        >>> round(float(mean_first_passage_time(lambda w: (w**2 - 1) ** 2, -1.0, 0.0, 0.1)), 2)
        12762.68
    """
    return log_mean_first_passage_time(potential, start, end, temperature, wall=wall).exp()


def _evaluate(potential: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    u = potential(x.reshape(-1))
    if not isinstance(u, Tensor) or u.shape != (x.numel(),):
        raise ValueError(
            f"potential must map [n] to [n], got {getattr(u, 'shape', type(u).__name__)} for [{x.numel()}]"
        )
    bad = u.isnan() | (u == -math.inf)
    if bool(bad.any()):
        raise ValueError(
            f"potential must be a number above -inf, got {u[bad][0].item()} at {x.reshape(-1)[bad][0].item()}"
        )
    return u.double().reshape(x.shape)


def _edges_behind(scaled: Callable[[Tensor], Tensor], a: float, width: float) -> list[float]:
    """Ascending edges of intervals of doubling width that end at a and hold all but e^-50 of the mass behind it."""
    spots = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    edges, masses = [a], []
    for k in range(60):
        left = a - width * (2.0 ** (k + 1) - 1)
        length = edges[-1] - left
        masses.append(float((-scaled(left + length * spots)).logsumexp(0)) + math.log(length / 256))
        edges.append(left)
        if k >= 10 and masses[-1] < max(masses) - 50:  # a thousand widths away at least: wells may lie behind hills
            break
    if not masses[-1] < max(masses) - 36:
        raise ValueError(
            f"potential must grow behind the start {a}, or nothing returns and the mean time is infinite; "
            "add a confining term, or give a wall"
        )
    last = max(k for k, mass in enumerate(masses) if mass >= max(masses) - 50)
    return edges[last + 1 :: -1]


def _log_nested(scaled: Callable[[Tensor], Tensor], edges: Tensor, panels: int) -> float:
    """log of int_a^b dy e^u(y) int_{edges[0]}^y dz e^-u(z), [a, b] being the last interval between edges."""
    share = torch.arange(panels, dtype=torch.float64) / panels
    left = (edges[:-1, None] + edges.diff()[:, None] * share).reshape(-1)
    width = (edges.diff() / panels).repeat_interleave(panels)
    y, weight = left[:, None] + width[:, None] * _NODES, _WEIGHTS.log()
    u = scaled(y)
    mass = (weight - u).logsumexp(1) + width.log()
    sums = torch.nn.functional.pad(mass.logcumsumexp(0), (1, 0), value=-math.inf)
    before = sums[-panels - 1 : -1]  # what lies before each panel of [a, b]
    left, y, u = left[-panels:], y[-panels:], u[-panels:]
    # A rule of its own from the panel's edge to each node: positive weights, so the logarithm exists.
    z = left[:, None, None] + (y - left[:, None])[..., None] * _NODES
    partial = (weight - scaled(z)).logsumexp(2) + (y - left[:, None]).log()
    inner = torch.logaddexp(before[:, None], partial)
    return float((u + inner + weight + width[-panels:, None].log()).reshape(-1).logsumexp(0))


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
    return -_finite("rise", rise) / _positive("temperature", temperature)


def detailed_balance_ratio(rise: Number, temperature: Number) -> Tensor:
    """`log_detailed_balance_ratio` exponentiated.

    Example:
        >>> detailed_balance_ratio(0.0, 0.1)
        tensor(1., dtype=torch.float64)
    """
    return log_detailed_balance_ratio(rise, temperature).exp()


def path_action(path: Tensor, gradients: Tensor, dt: Number, temperature: Number) -> Tensor:
    r"""Action of a path, Ito (left-point) form: minus the log of its weight, up to what all paths share.

    .. math:: S = \sum_{i=0}^{n-1} \frac{\| w^{i+1} - w^i + \nabla U(w^i)\, dt \|^2}{4 D\, dt}

    Args:
        path: w^i, [n+1, d].
        gradients: grad U at the first n points, [n, d].
        dt: Time a step, the learning rate; [] or [n].
        temperature: D, nats.

    Returns:
        S, float64 []. Zero down the gradient flow, `(U(b) - U(a)) / D` up its reverse: 2D times the action is then the
        quasi-potential, twice the rise.

    Raises:
        ValueError: shapes that do not match, dt or D not positive, values that are not finite.

    Example:
        >>> path = torch.tensor([[2.0], [1.0], [0.5]])          # U = w^2/2, gradient steps of 0.5: free
        >>> path_action(path, path[:-1], 0.5, 0.1), path_action(path.flip(0), path.flip(0)[:-1], 0.5, 0.1)
        (tensor(0., dtype=torch.float64), tensor(14.0625, dtype=torch.float64))

    For smoothed or full-batch paths: on raw SGD steps the noise makes it about d/2 a step whatever the path. `Onsager
    and Machlup 1953 <https://doi.org/10.1103/PhysRev.91.1505>`_; no divergence term belongs in this form, where
    `stratonovich_action` has one.
    """
    w, g, h, d = _path(path, gradients, dt, temperature, nodes=False)
    return ((w.diff(dim=0) + g * h[:, None]).square().sum(1) / (4 * d * h)).sum()


class TransitionFactors(NamedTuple):
    """A path's log-weight in its two factors, float64 []; only their sum says how likely the path is."""

    static: Tensor  # -[U(b) - U(a)] / (2D): changes sign when the path is reversed
    path: Tensor  # -(1/2D) int [|w'|^2 / 2 + V]: the same both ways

    @property
    def total(self) -> Tensor:
        """Minus the Stratonovich action, up to the discretization."""
        return self.static + self.path


def transition_factors(
    path: Tensor, rise: Number, gradients: Tensor, laplacians: Tensor, dt: Number, temperature: Number
) -> TransitionFactors:
    r"""Split the weight of a path into what its ends decide and what its course decides.

    .. math:: \log p = -\frac{U(b) - U(a)}{2D} - \frac{1}{2D} \int \tfrac12 |\dot w|^2 + V\, dt,
              \qquad V = \tfrac12 |\nabla U|^2 - D \nabla^2 U

    Args:
        path: w^i, [n+1, d].
        rise: `U(w^n) - U(w^0)`, nats.
        gradients: grad U at every point, [n+1, d].
        laplacians: Trace of the Hessian of U at every point, [n+1].
        dt: Time a step; [] or [n].
        temperature: D, nats.

    Returns:
        Both logarithms. V is integrated by the trapezoidal rule, which reversal leaves alone.

    Raises:
        ValueError: as `path_action`.

    Example:
        >>> down = torch.tensor([[1.0], [0.5]])                                         # U = w^2/2
        >>> factors = transition_factors(down, -0.375, down, torch.ones(2), 0.5, 0.1)
        >>> float(factors.static), round(float(factors.path), 5)
        (1.875, -1.78125)

    `Achille, Mbeng and Soatto 2018 <https://arxiv.org/abs/1810.02440>`_, with drift -grad U for the printed +grad U.
    Down the gradient flow the two exponents cancel but for the Laplacian's: the static factor bounds nothing there.
    """
    w, g, h, d = _path(path, gradients, dt, temperature, nodes=True)
    kinetic = (w.diff(dim=0).square().sum(1) / (2 * h)).sum()
    v = g.square().sum(1) / 2 - d * _laplacians(laplacians, w)
    return TransitionFactors(-_finite("rise", rise) / (2 * d), -(kinetic + ((v[1:] + v[:-1]) / 2 * h).sum()) / (2 * d))


def stratonovich_action(path: Tensor, gradients: Tensor, laplacians: Tensor, dt: Number, temperature: Number) -> Tensor:
    r"""Action of a path, Stratonovich (midpoint) form.

    .. math:: S = \int \frac{|\dot w + \nabla U|^2}{4D} - \tfrac12 \nabla^2 U\, dt

    Args and raises: as `transition_factors`, gradients averaged over the ends of each step.

    Returns:
        S, float64 []. As dt shrinks it meets `path_action` on paths of the diffusion (whose `dw^2 = 2 D dt` supplies
        the Laplacian); on smooth paths it lies below it by half the integral of the Laplacian.

    Example:
        >>> down = torch.tensor([[1.0], [0.5]])
        >>> round(float(stratonovich_action(down, down, torch.ones(2), 0.5, 0.1)), 4)  # (-0.5 + 0.375)^2/0.2 - 0.25
        -0.1719
    """
    w, g, h, d = _path(path, gradients, dt, temperature, nodes=True)
    lap, drift = _laplacians(laplacians, w), (g[1:] + g[:-1]) / 2
    weight = (w.diff(dim=0) + drift * h[:, None]).square().sum(1) / (4 * d * h)
    return (weight - (lap[1:] + lap[:-1]) / 4 * h).sum()


def _path(
    path: Tensor, gradients: Tensor, dt: Number, temperature: Number, *, nodes: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    w, g, h = _finite("path", path), _finite("gradients", gradients), _positive("dt", dt)
    if w.dim() != 2 or len(w) < 2:
        raise ValueError(f"path must be [n+1, d] with at least one step, got shape {tuple(w.shape)}")
    count = len(w) if nodes else len(w) - 1
    if g.shape != (count, w.shape[1]):
        raise ValueError(f"gradients must be [{count}, {w.shape[1]}] for a path {tuple(w.shape)}, got {tuple(g.shape)}")
    if h.shape not in ((), (len(w) - 1,)):
        raise ValueError(f"dt must be a number or [{len(w) - 1}], got shape {tuple(h.shape)}")
    return w, g, h.expand(len(w) - 1), _positive("temperature", temperature)


def _laplacians(laplacians: Tensor, path: Tensor) -> Tensor:
    lap = _finite("laplacians", laplacians)
    if lap.shape != path.shape[:1]:
        raise ValueError(f"laplacians must be [{len(path)}], one a point of the path, got shape {tuple(lap.shape)}")
    return lap


def _finite(name: str, value: Number) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            f"{name} must be finite, got {tensor[~torch.isfinite(tensor)][0].item()}; did training diverge?"
        )
    return tensor


def _positive(name: str, value: Number) -> Tensor:
    tensor = _finite(name, value)
    if not bool((tensor > 0).all()):
        raise ValueError(f"{name} must be positive, got {tensor.tolist()}")
    return tensor
