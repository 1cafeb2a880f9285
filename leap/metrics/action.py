"""The weight of a path: its action by either convention, and the two factors of a transition."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from leap.metrics.checks import Number, finite, positive_values


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
        >>> import torch
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
        >>> import torch
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
    return TransitionFactors(-finite("rise", rise) / (2 * d), -(kinetic + ((v[1:] + v[:-1]) / 2 * h).sum()) / (2 * d))


def stratonovich_action(path: Tensor, gradients: Tensor, laplacians: Tensor, dt: Number, temperature: Number) -> Tensor:
    r"""Action of a path, Stratonovich (midpoint) form.

    .. math:: S = \int \frac{|\dot w + \nabla U|^2}{4D} - \tfrac12 \nabla^2 U\, dt

    Args and raises: as `transition_factors`, gradients averaged over the ends of each step.

    Returns:
        S, float64 []. As dt shrinks it meets `path_action` on paths of the diffusion (whose `dw^2 = 2 D dt` supplies
        the Laplacian); on smooth paths it lies below it by half the integral of the Laplacian.

    Example:
        >>> import torch
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
    w, g, h = finite("path", path), finite("gradients", gradients), positive_values("dt", dt)
    if w.dim() != 2 or len(w) < 2:
        raise ValueError(f"path must be [n+1, d] with at least one step, got shape {tuple(w.shape)}")
    count = len(w) if nodes else len(w) - 1
    if g.shape != (count, w.shape[1]):
        raise ValueError(f"gradients must be [{count}, {w.shape[1]}] for a path {tuple(w.shape)}, got {tuple(g.shape)}")
    if h.shape not in ((), (len(w) - 1,)):
        raise ValueError(f"dt must be a number or [{len(w) - 1}], got shape {tuple(h.shape)}")
    return w, g, h.expand(len(w) - 1), positive_values("temperature", temperature)


def _laplacians(laplacians: Tensor, path: Tensor) -> Tensor:
    lap = finite("laplacians", laplacians)
    if lap.shape != path.shape[:1]:
        raise ValueError(f"laplacians must be [{len(path)}], one a point of the path, got shape {tuple(lap.shape)}")
    return lap
