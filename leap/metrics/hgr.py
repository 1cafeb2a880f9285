"""Maximal correlation of two discrete variables: how much the best functions of the one say about the other.

A joint is a matrix [|X|, |Y|] of probabilities or counts, a row a value of X; it is divided by its sum. Values that
never occur have no functions: their rows of the divergence transition matrix, and their entries in functions, are 0.

Where X is what a network sees and Y the label, this is the theory behind the H-score: no feature of X scores more than
the squared correlations add up to, and the minimum-error-probability feature reaches that. It is the denominator of
transferability.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.metrics.labelled import features_of, labels_of
from leap.metrics.singular import singular_functions

CELLS = 2**27  # of a joint: 1 GiB in float64


class Functions(NamedTuple):
    """Maximally correlated functions of X and of Y; each with mean 0 and variance 1, uncorrelated with the others."""

    f: Tensor  # [|X|, k]
    g: Tensor  # [|Y|, k]
    sigma: Tensor  # [k]     correlation of f_i(X) with g_i(Y), descending


def divergence_transition_matrix(joint: Any) -> Tensor:
    r"""Divergence transition matrix: how the joint departs from independence, in units in which X and Y are white.

    .. math:: \tilde B(y, x) = \frac{P(x, y)}{\sqrt{P(x) P(y)}} - \sqrt{P(x) P(y)}

    Args:
        joint: Probabilities or counts, [|X|, |Y|], a row a value of X; at least 2 rows.

    Returns:
        [|Y|, |X|], float64, without unit, transposed against the joint. Its singular values are the maximal
        correlations, all in [0, 1]. Rows and columns of values without mass are 0.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: no matrix, entries that are negative or not finite, no mass at all.

    Example:
        >>> divergence_transition_matrix([[0.4, 0.1], [0.1, 0.4]])
        tensor([[ 0.3000, -0.3000],
                [-0.3000,  0.3000]], dtype=torch.float64)

    Reference: Huang, Makur, Wornell & Zheng 2019, https://arxiv.org/abs/1911.09105; Bao et al. 2019,
    https://arxiv.org/abs/2212.10082, whose softmax has its exponent's sign reversed, which turns the functions'
    sign and nothing else.
    """
    p = _probabilities(joint)
    x, y = p.sum(1).sqrt(), p.sum(0).sqrt()
    # Divided by the roots one after the other: the product of two small masses could underflow.
    divided = p / torch.where(x > 0, x, 1.0)[:, None] / torch.where(y > 0, y, 1.0)
    return (divided - x[:, None] * y).mT.contiguous()


def chi_square(joint: Any) -> Tensor:
    r"""Pearson's chi-square divergence of the joint from independence: the sum of all squared maximal correlations.

    .. math:: \chi^2(P_{XY} \| P_X P_Y) = \| \tilde B \|_F^2 = \sum_i \sigma_i^2 \le \min(|X|, |Y|) - 1

    Args, raises: as `divergence_transition_matrix`.

    Returns:
        A scalar, float64, without unit. No feature of X has a larger H-score. Equal to |Y| - 1 where Y is a function
        of X.

    Example:
        >>> chi_square([[0.5, 0.0], [0.25, 0.0], [0.0, 0.25]])
        tensor(1., dtype=torch.float64)
    """
    return divergence_transition_matrix(joint).square().sum()


def ace(joint: Any, k: int) -> Functions:
    r"""The k pairs of functions with the largest correlations, by alternating conditional expectations.

    .. math:: g \leftarrow \operatorname{white}(E[f(X) \mid Y]), \quad
              f \leftarrow \operatorname{white}(E[g(Y) \mid X]), \quad \sigma_i = E[f_i(X) g_i(Y)]

    Args:
        joint: As `divergence_transition_matrix`.
        k: Pairs, 1 to one less than the smaller number of values that occur; there are no more functions with mean 0
            and variance 1 that are uncorrelated.

    Returns:
        `Functions`, float64, without unit. The first entry of an f_i above half of its largest is positive, times the
        root of its mass; functions of equal correlation are one basis of many.

    Raises:
        TypeError: a k that is no integer.
        ValueError: a k out of range; and as `divergence_transition_matrix`.

    Example:
        >>> pairs = ace([[19, 5, 6], [5, 19, 6], [6, 6, 18]], 2)
        >>> pairs.sigma                                                     # 7/15 and 2/5
        tensor([0.4667, 0.4000], dtype=torch.float64)
        >>> pairs.f.mean(0).abs() < 1e-12                                   # all rows have the same mass here
        tensor([True, True])

    Reference: Breiman & Friedman 1985, https://doi.org/10.1080/01621459.1985.10478157.

    Variant: weighted by the roots of the marginals, the alternation is orthogonal iteration on the divergence
    transition matrix, whitening is a QR decomposition, and the pairs are its singular vectors. A block of more than k
    functions is carried along, rotated to its singular vectors in every step (Rayleigh-Ritz), and widened while the
    residual is above 1e-12: plain ACE stalls where correlations beyond the k-th are close to it.
    """
    p = _probabilities(joint)
    x, y = p.sum(1).sqrt(), p.sum(0).sqrt()
    seen_x, seen_y = x > 0, y > 0
    limit = min(int(seen_x.sum()), int(seen_y.sum())) - 1
    _check_k(k, limit, f"{int(seen_x.sum())} values of X and {int(seen_y.sum())} of Y occur")
    b = divergence_transition_matrix(p)[seen_y][:, seen_x]
    f, g, sigma = singular_functions(b, x[seen_x], y[seen_y], k)
    pairs = Functions(p.new_zeros(len(x), k), p.new_zeros(len(y), k), sigma.clamp(0, 1))
    pairs.f[seen_x], pairs.g[seen_y] = f / x[seen_x, None], g / y[seen_y, None]
    return pairs


def maximal_correlations(joint: Any, k: int) -> Tensor:
    r"""The k largest Hirschfeld-Gebelein-Renyi maximal correlations of two discrete variables.

    .. math:: \sigma_i = \max_{f_i, g_i} E[f_i(X) g_i(Y)],

    over functions of mean 0 and variance 1, uncorrelated with the i - 1 before them.

    Args:
        joint: As `divergence_transition_matrix`.
        k: How many, 1 to min(|X|, |Y|) - 1.

    Returns:
        [k], float64, in [0, 1], descending: the singular values of the divergence transition matrix, by `ace`, to
        1e-12. Those for which too few values occur are 0.

    Raises: as `ace`.

    Example:
        >>> maximal_correlations([[0.4, 0.1], [0.1, 0.4]], 1)               # 1 - 2 eps of a channel that flips 1 in 5
        tensor([0.6000], dtype=torch.float64)

    Reference: Renyi 1959, https://doi.org/10.1007/BF02024507; Huang et al. 2019, https://arxiv.org/abs/1911.09105.
    """
    p = _probabilities(joint)
    _check_k(k, min(p.shape) - 1, f"the joint is {list(p.shape)}")
    sigma = p.new_zeros(k)
    found = min(k, int((p.sum(1) > 0).sum()) - 1, int((p.sum(0) > 0).sum()) - 1)
    if found:
        sigma[:found] = ace(joint, found).sigma
    return sigma


def hgr(joint: Any, k: int, *, normalise_g: bool) -> Tensor:
    r"""Correlation of k functions of X with k functions of Y, at its largest.

    .. math:: E[f(X)^T g(Y)] = \sum_{i \le k} \sigma_i \;\text{ or }\; \sum_{i \le k} \sigma_i^2

    Args:
        joint: As `divergence_transition_matrix`.
        k: As `maximal_correlations`.
        normalise_g: True: f and g are both white, and the sum is that of the correlations. False: f is white and
            g(y) = E[f(X) | Y = y] is what it is; the sum is that of their squares.

    Returns:
        A scalar, float64, without unit.

    Raises: as `ace`.

    Example:
        >>> joint = [[19, 5, 6], [5, 19, 6], [6, 6, 18]]                    # correlations 7/15 and 2/5
        >>> hgr(joint, 2, normalise_g=True), hgr(joint, 2, normalise_g=False)   # 13/15 and 17/45
        (tensor(0.8667, dtype=torch.float64), tensor(0.3778, dtype=torch.float64))

    Reference: Bao et al. 2019, https://arxiv.org/abs/2212.10082. The paper has both functions white and then equates
    the expectation with the squared norm of the divergence transition matrix, which holds for the second form alone.
    """
    sigma = maximal_correlations(joint, k)
    return (sigma if normalise_g else sigma.square()).sum()


def minimum_error_feature(joint: Any, k: int) -> Tensor:
    r"""The minimum-error-probability feature: of all features of X with k entries, the one with the largest H-score.

    .. math:: f_i(x) = \frac{v_i(x)}{\sqrt{P(x)}}, \quad \tilde B v_i = \sigma_i u_i, \quad
              H(f) = \sum_{i \le k} \sigma_i^2

    Args: as `ace`.

    Returns:
        [|X|, k], float64: a row a value of X, 0 for values without mass; mean 0, variance 1, uncorrelated under P(x).
        Any invertible map of it scores the same.

    Raises: as `ace`.

    Example:
        >>> minimum_error_feature([[0.4, 0.1], [0.1, 0.4]], 1).T
        tensor([[ 1.0000, -1.0000]], dtype=torch.float64)

    Reference: Bao et al. 2019, https://arxiv.org/abs/2212.10082.
    """
    return ace(joint, k).f


def optimal_h_score(joint: Any, k: int | None = None) -> Tensor:
    r"""The largest H-score that a feature of X with k entries has: the exact denominator of transferability.

    .. math:: \max_f H(f) = \sum_{i \le k} \sigma_i^2

    Args:
        joint: As `divergence_transition_matrix`.
        k: As `maximal_correlations`; None: as many as there are, then the sum is `chi_square`.

    Returns:
        A scalar, float64, without unit.

    Raises: as `ace`.

    Example:
        >>> optimal_h_score([[0.4, 0.1], [0.1, 0.4]])
        tensor(0.3600, dtype=torch.float64)
    """
    return chi_square(joint) if k is None else hgr(joint, k, normalise_g=False)


def noise_free_optimum(labels: Any) -> Tensor:
    r"""The largest H-score of a task whose labels are a function of the input: the number of classes less one.

    .. math:: \max_f H(f) = \| \tilde B \|_F^2 = |Y| - 1

    Args:
        labels: Class ids, [m], from 0 on; those that do not occur do not count.

    Returns:
        A scalar, float64, without unit.

    Raises:
        TypeError, ValueError: what is no vector of labels; fewer than 2 classes, which nothing can tell apart.

    Example:
        >>> noise_free_optimum([0, 0, 1, 5])
        tensor(2., dtype=torch.float64)
    """
    held = labels_of(labels)
    classes = len(held.unique())
    if classes < 2:
        raise ValueError(f"an optimum above 0 needs at least 2 classes, got {classes} in {len(held)} labels")
    return torch.tensor(float(classes - 1), dtype=torch.float64, device=held.device)


def label_noise_optimum(classes: int, noise: float) -> Tensor:
    r"""The largest H-score of a task with balanced classes, some of whose labels were exchanged for another at random.

    .. math:: \max_f H(f) = (|Y| - 1) \left( 1 - \epsilon \frac{|Y|}{|Y| - 1} \right)^2

    Args:
        classes: |Y|, at least 2.
        noise: epsilon in [0, 1], the share of labels that were exchanged, each for one of the |Y| - 1 others alike.

    Returns:
        A scalar, float64, without unit; 0 at (|Y| - 1) / |Y|, where labels say nothing any more.

    Raises:
        ValueError: fewer than 2 classes, a share that is not in [0, 1].

    Example:
        >>> label_noise_optimum(2, 0.2), label_noise_optimum(10, 0.0)
        (tensor(0.3600, dtype=torch.float64), tensor(9., dtype=torch.float64))
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(f"classes must be an integer of at least 2, got {classes!r}")
    if not 0 <= noise <= 1:
        raise ValueError(f"noise must be a share in [0, 1], got {noise}")
    kept = 1 - noise * classes / (classes - 1)
    return torch.tensor((classes - 1) * kept**2, dtype=torch.float64)


def joint_of(x: Any, y: Any) -> Tensor:
    r"""Empirical joint distribution of two lists of labels.

    .. math:: \hat P(x, y) = \frac1m \#\{ i : x_i = x, y_i = y \}

    Args:
        x: Labels of m samples, from 0 on, [m].
        y: Other labels of the same samples, [m].

    Returns:
        [max x + 1, max y + 1], float64, with sum 1; labels that do not occur have rows and columns of 0.

    Raises:
        TypeError, ValueError: what is no vector of labels; different lengths; no samples; labels so large that the
            matrix would have more than 2^27 cells.

    Example:
        >>> joint_of([0, 0, 1, 1], [0, 0, 0, 2])
        tensor([[0.5000, 0.0000, 0.0000],
                [0.2500, 0.0000, 0.2500]], dtype=torch.float64)
    """
    one, two = labels_of(x, "x"), labels_of(y, "y")
    if len(one) != len(two) or len(one) == 0:
        raise ValueError(f"x and y must be labels of the same samples, at least one, got {len(one)} and {len(two)}")
    rows, columns = int(one.max()) + 1, int(two.max()) + 1
    if rows * columns > CELLS:
        raise ValueError(f"a joint of {rows} x {columns} values is too large; number the values 0, 1, 2, ...")
    counts = torch.bincount(one * columns + two.to(one.device), minlength=rows * columns)
    return counts.reshape(rows, columns).to(torch.float64) / len(one)


def _probabilities(joint: Any) -> Tensor:
    held = features_of(joint, "joint")
    low, high = float(held.min()), float(held.max())
    if low < 0:
        raise ValueError(f"a joint must not be negative, got {low:g}; give probabilities or counts, not logarithms")
    if high == 0:
        raise ValueError(f"a joint must have mass somewhere, got 0 in all {held.numel()} cells")
    held = held / high  # a sum of huge counts could overflow
    return held / held.sum()


def _check_k(k: int, limit: int, why: str) -> None:
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an integer, got {k!r}")
    if not 1 <= k <= limit:
        raise ValueError(f"k must be at least 1 and at most {limit}, as {why}, got {k}; the constant does not count")
