"""H-score: how much of the labels a linear map of the features can carry; with its null, and as transferability."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.metrics.axes import Axes, axes
from leap.metrics.labelled import labelled

Shrinkage = float | str | None


class HScore(NamedTuple):
    """An H-score and what it is to be compared with; scalars are float64, without a unit."""

    score: Tensor  # H
    rank: int  # r of the centred features
    null: Tensor  # mean of H over shuffled labels
    maximum: Tensor  # the largest that any labels with as many classes could have
    adjusted: Tensor  # (score - null) / (maximum - null): 0 as chance, 1 at best
    samples: int  # n; below 2 r a score that is not shrunk is mostly chance
    classes: int  # |Y| that occur
    shrinkage: float  # weight of the identity in the covariance, 0 for the plain score
    scarce: bool  # n < 2 r; where no shrinkage was asked for, this is why there is one

    @property
    def samples_per_rank(self) -> float:
        """n / r; above 2 the order of candidates is about that of many samples, near 1 it is chance."""
        return self.samples / self.rank


def h_score(features: Any, labels: Any, *, shrinkage: Shrinkage = None) -> Tensor:
    r"""H-score: between-class covariance in the metric of the features' covariance.

    .. math:: H = \operatorname{tr}\left( \operatorname{cov}(f)^{+} \operatorname{cov}(E[f \mid Y]) \right)
              = \sum_{y} \frac1{n_y} \Big| \sum_{i: y_i = y} U_i \Big|^2, \qquad f - \bar f = U S V^\top

    With shrinkage a the covariance is mixed with a multiple of the identity and the between-class one is scaled along:

    .. math:: H_a = \operatorname{tr}\left( \left( (1 - a) \Sigma + a \tfrac{\operatorname{tr} \Sigma}k I \right)^{-1}
              (1 - a) \Sigma_B \right)

    Args:
        features: f, [m, k], in any unit.
        labels: Class of each sample, [m].
        shrinkage: None: none, and n < 2 r is refused. `"ledoit-wolf"`: a that is optimal for the covariance. A number
            a in [0, 1]: that one; 0 is the plain score, whatever the number of samples.

    Returns:
        A scalar, float64, from 0 to min(r, |Y| - 1), without a unit; larger where features transfer better. Unshrunk
        it does not change under invertible affine maps of the features; shrunk it does, save for rotations, shifts
        and a common factor. Constant columns add nothing; shrunk, they count in k. The factor 1 - a belongs to the
        definition: features whose covariance is the identity score (1 - a) H, so a is to be looked at beside H_a.

    Raises:
        ValueError: fewer samples than twice the rank without shrinkage; a shrinkage that is none of the above; and as
            `labelled` (the same features in all samples among them).

    Example:
        >>> labels = torch.tensor([0, 0, 1, 1, 2, 2])
        >>> h_score(torch.eye(3)[labels], labels)                             # all that 3 classes can have
        tensor(2., dtype=torch.float64)
        >>> h_score([[0.0], [1.0], [1.0], [2.0]], [0, 0, 1, 1])              # half of the variance is between classes
        tensor(0.5000, dtype=torch.float64)

    Reference: Bao et al. 2019, https://arxiv.org/abs/2212.10082; Ibrahim et al. 2021, https://arxiv.org/abs/2110.06893,
    for the shrunk score; Ledoit & Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4, for a.

    Variant: through singular vectors of the features, which must be centred, and never through the inverse of a
    covariance, whose small singular values are lost; what lies below round-off of the largest is no direction, where
    public code inverts it with whatever cut-off its `pinv` has. Both covariances divide by n; public code of the shrunk
    score divides one of them by n - 1. The trace is that of a matrix product, where public code has one of an
    elementwise product.
    """
    given = _Parts.of(features, labels, span=shrinkage is None)
    return given.unshrunk() if shrinkage is None else given.score(given.amount(shrinkage))


def h_score_report(features: Any, labels: Any, *, shrinkage: Shrinkage = None) -> HScore:
    r"""H-score with its rank, what chance and the best labels would score, and where it stands between them.

    .. math:: H_0 = \frac{|Y| - 1}{n - 1} \sum_i w_i, \quad H_{\max} = \sum_{i < |Y|} w_i, \quad
              H_{adj} = \frac{H - H_0}{H_{\max} - H_0}, \qquad
              w_i = \frac{(1 - a) \lambda_i}{(1 - a) \lambda_i + a \bar\lambda}

    over the r directions by falling variance, so :math:`r (|Y| - 1)/(n - 1)` and :math:`\min(r, |Y| - 1)` without
    shrinkage.

    Args, raises: as `h_score`, but with n < 2 r and no shrinkage asked for, Ledoit and Wolf's is taken in place of
        refusing: `scarce` is then true and `shrinkage` says how much.

    Returns:
        An `HScore`. The null is the exact mean over shuffled labels. Where it equals the maximum, any labels score
        alike, and the adjusted score is 0.

    Example:
        >>> features = [[0.0, 0.0], [1.0, 0.0], [4.0, 1.0], [5.0, 0.0], [5.0, 1.0]]
        >>> found = h_score_report(features, [0, 0, 1, 1, 1])
        >>> f"{found.score:.3f} of {found.maximum:.0f}, by chance {found.null:.2f}, so {found.adjusted:.3f}"
        '0.962 of 1, by chance 0.50, so 0.923'
        >>> h_score_report(features[:3], [0, 0, 1]).scarce                     # 3 samples of rank 2
        True

    Reference: as `h_score`. The adjusted score and the null of a shrunk one are ours: H grows with every column,
    random ones too, so features of different rank can be compared by the adjusted score alone.
    """
    given = _Parts.of(features, labels, span=shrinkage is None)
    if shrinkage is None and given.scarce:
        given, shrinkage = _Parts.of(features, labels), "ledoit-wolf"
    a = given.amount(shrinkage)
    score, null, maximum = given.score(a), given.null(a), given.maximum(a)
    room = maximum - null
    adjusted = torch.where(room > 1e-12 * maximum, (score - null) / room, torch.zeros_like(room))
    found = given.axes
    return HScore(score, found.rank, null, maximum, adjusted, found.samples, given.classes, a, given.scarce)


def transferability(features: Any, labels: Any, *, optimum: Any = None) -> Tensor:
    r"""Transferability: the H-score of a source's features over that of the best features for the target.

    .. math:: T = H(f_S) / H(f_{opt}), \qquad H(f_{opt}) = \|\tilde B\|_F^2 = \chi^2(P_{XY} \| P_X P_Y)

    Args:
        features: f_S on the target's samples, [m, k].
        labels: Class of each sample, [m].
        optimum: The denominator, above 0 and at most |Y| - 1. None: |Y| - 1, which is exact where labels are free of
            noise (a function of the inputs). With label noise: the sum of squared maximal correlations of inputs and
            labels (`leap.metrics.hgr`), or an estimate of it.

    Returns:
        A scalar, float64, without a unit: 0 to 1 for the default, and for the optimum of these very samples.

        An optimum that was estimated, or that is the population's while H is the samples', can be exceeded: the ratio
        is then above 1 and is returned as it is. It says that the optimum is too small, or that n is (n / r stands in
        `h_score_report`); cut to 1, or left out, it would hide that.

    Raises:
        ValueError: an optimum that no joint distribution with |Y| classes has; and as `h_score`, n < 2 r too.

    Example:
        >>> features = [[0.0], [1.0], [1.0], [2.0], [5.0], [6.0]]
        >>> transferability(features, [0, 0, 1, 1, 2, 2])                      # one feature, two could be had
        tensor(0.4746, dtype=torch.float64)

    Reference: Bao et al. 2019, https://arxiv.org/abs/2212.10082. Released code takes as denominator the score of a
    network finetuned on the target, and drops the pairs that exceed it.
    """
    given = _Parts.of(features, labels, span=True)
    most = given.classes - 1
    best = float(most if optimum is None else optimum)
    if not 0 < best <= most * (1 + 1e-9):
        raise ValueError(
            f"optimum must be above 0 and at most |Y| - 1 = {most}, got {best:g}; it is a sum of squared correlations"
        )
    return given.unshrunk() / best


class _Parts(NamedTuple):
    """What scores of any shrinkage are made of."""

    axes: Axes
    shares: Tensor  # [r]  of each axis (or of each direction of some basis), how much of it lies between classes
    classes: int

    @classmethod
    def of(cls, features: Any, labels: Any, *, span: bool = False) -> _Parts:
        data = labelled(features, labels, keep=True)
        classes = torch.arange(data.classes, device=data.labels.device)
        found = axes(data.features, data.labels[:, None] == classes, centre=True, span=span)
        shares = (found.coordinates[: found.rank].square() / data.counts).sum(1)
        return cls(found, shares, data.classes)

    @property
    def scarce(self) -> bool:
        return self.axes.samples < 2 * self.axes.rank

    def unshrunk(self) -> Tensor:
        """The plain score, where there are samples enough for it."""
        if self.scarce:
            n, r = self.axes.samples, self.axes.rank
            raise ValueError(
                f"an H-score needs at least twice as many samples as the features' rank, got n = {n} and r = {r}, "
                f"where shuffled labels score {float(self.null(0.0)):.3g} of at most {float(self.maximum(0.0)):.3g}; "
                f'take {2 * r} samples or more, fewer features, or h_score(..., shrinkage="ledoit-wolf")'
            )
        return self.score(0.0)

    def amount(self, shrinkage: Shrinkage) -> float:
        """The number that a shrinkage is."""
        if shrinkage is None:
            return 0.0
        if shrinkage == "ledoit-wolf":
            return ledoit_wolf(self.axes)
        number = math.nan if isinstance(shrinkage, str) else float(shrinkage)
        if not 0 <= number <= 1:
            raise ValueError(f'shrinkage must be None, "ledoit-wolf" or a number from 0 to 1, got {shrinkage!r}')
        return number

    def weights(self, a: float) -> Tensor:
        """w [r], descending."""
        if a == 0:
            return torch.ones_like(self.shares)
        spectrum = _spectrum(self.axes)[: self.axes.rank]
        return (1 - a) * spectrum / ((1 - a) * spectrum + a / self.axes.columns)

    def maximum(self, a: float) -> Tensor:
        return self.weights(a)[: self.classes - 1].sum()

    def null(self, a: float) -> Tensor:
        return self.weights(a).sum() * (self.classes - 1) / (self.axes.samples - 1)

    def score(self, a: float) -> Tensor:
        return torch.minimum((self.weights(a) * self.shares).sum(), self.maximum(a))  # above it by round-off alone


def ledoit_wolf(found: Axes) -> float:
    r"""Ledoit and Wolf's weight of the identity, from centred axes: the least expected squared error of a covariance.

    .. math:: a = \min(\beta, \delta) / \delta, \quad \delta = |\Sigma - \tfrac{\operatorname{tr} \Sigma}k I|_F^2,
              \quad \beta = \tfrac1{n^2} \sum_i |z_i z_i^\top - \Sigma|_F^2, \quad \Sigma = \tfrac1n Z^\top Z

    Args:
        found: Axes of centred features.

    Returns:
        A number from 0 to 1; 1 where nothing tells the covariance from a multiple of the identity, 0 for one column.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0], [1.0, 1.0], [-1.0, -1.0]])
        >>> round(ledoit_wolf(axes(z, torch.zeros(6, 1), centre=True)), 4)
        0.8205

    Reference: Ledoit & Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4; both covariances divide by n, as in
    `sklearn.covariance.LedoitWolf`, which forms them; here singular values and fourth powers of lengths suffice.
    """
    spectrum, k = _spectrum(found), found.columns
    delta = (spectrum - 1 / k).square().sum() + (k - len(spectrum)) / k**2
    beta = found.concentration - spectrum.square().sum() / found.samples  # both in units of (tr Sigma)^2
    return float((beta.clamp_min(0).minimum(delta) / delta).nan_to_num(0.0))


def _spectrum(found: Axes) -> Tensor:
    """Eigenvalues [p] of the covariance at unit trace; formed of ratios, which neither overflow nor vanish."""
    squares = (found.values / found.values[0]).square()
    return squares / squares.sum()
