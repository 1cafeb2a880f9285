"""LEEP and NCE: how well a source classifier's own outputs foretell the labels of a target, without any training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leap.metrics.labelled import labels_of, probabilities_of

ROWS = 4096  # samples looked at together: what is gathered by label is as wide as the source has classes


def leep(probabilities: Any, labels: Any) -> Tensor:
    r"""Log expected empirical prediction: mean log-likelihood of the labels, predicted through the source's classes.

    .. math:: \frac1m \sum_i \log \sum_z \hat P(y_i \mid z)\, \theta(x_i)_z, \qquad
              \hat P(y, z) = \frac1m \sum_{i:\, y_i = y} \theta(x_i)_z

    Args:
        probabilities: Softmax outputs theta of the source's network on the target's samples, [m, Z]; rows sum to 1.
        labels: Target classes, [m], whole numbers from 0 on.

    Returns:
        A scalar in [-H(Y), 0], float64, in nats; larger is better. Outputs that are the same for all samples have
        exactly -H(Y), and one-hot outputs the value of `nce`. Across targets compare `leep + label_entropy`, since
        targets with few classes have larger values whatever the source.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: logits in place of probabilities, lengths that differ, one class among the labels.

    Example:
        >>> leep(torch.eye(2)[[0, 0, 1, 1]], torch.tensor([1, 1, 0, 0]))      # classes renamed, still perfect
        tensor(0., dtype=torch.float64)
        >>> leep([[0.7, 0.3], [0.3, 0.7]], [0, 1])                            # log 0.58
        tensor(-0.5447, dtype=torch.float64)

    Reference: Nguyen et al. 2020, https://arxiv.org/abs/2002.12462.

    Variant: the paper's. Source classes to which no sample gives any mass are left out; common code divides by their
    mass, 0, and returns NaN. Some public code leaves the logarithm out and reports a mean probability, which is another
    score. LEEP moves with the calibration (temperature) of the source's softmax.

    Why at least -H(Y), so that no logarithm of 0 occurs: fit P(y | z) by expectation maximization to make the labels
    likely, from the start P(y | z) = P(y), which has log-likelihood -H(Y). At that start the posterior of z given x
    and y is theta(x), hence the first step is the empirical P(y | z) above, and no step lowers the likelihood.
    """
    theta = probabilities_of(probabilities)
    own, classes = _compact(labels, len(theta), "probabilities", theta.device)
    joint = theta.new_zeros(classes, theta.shape[1]).index_add_(0, own, theta)  # [C, Z], m times P(y, z)
    mass = joint.sum(0)
    conditional = joint / torch.where(mass > 0, mass, 1)  # a class without mass meets theta = 0 in every sample
    blocks = zip(theta.split(ROWS), own.split(ROWS), strict=True)
    predicted = torch.cat([(conditional[label] * part).sum(1) for part, label in blocks])
    return predicted.clamp_max(1).log().mean()


def nce(source_labels: Any, labels: Any) -> Tensor:
    r"""Negative conditional entropy of the target's labels, given what the source calls the same samples.

    .. math:: -H(Y \mid Z) = \sum_{y,z} \hat P(y, z) \log \hat P(y \mid z), \qquad 0 \log 0 = 0

    Args:
        source_labels: Source classes of the samples, [m], whole numbers from 0 on: labels, or argmax of a softmax.
        labels: Target classes of the same samples, [m].

    Returns:
        A scalar in [-H(Y), 0], float64, in nats; larger is better. 0 where the source class determines the target's,
        -H(Y) where they are independent (also where there is one source class). Across targets compare
        `nce + label_entropy`, the mutual information.

    Raises:
        TypeError: what is no array of whole numbers.
        ValueError: negative or fractional labels, lengths that differ, one class among the target's labels.

    Example:
        >>> nce([0, 0, 1, 1], [1, 1, 0, 0])
        tensor(0., dtype=torch.float64)
        >>> nce([0, 0, 0, 0], [1, 1, 0, 0])                                   # -log 2
        tensor(-0.6931, dtype=torch.float64)

    Reference: Tran, Nguyen & Hassner 2019, https://arxiv.org/abs/1908.08142.

    Variant: the paper's, on exact counts. Public code adds 1e-20 or 1e-5 to all cells of the table; the latter is a
    bias that grows with the number of classes, and its value need not be a conditional entropy. The plug-in estimate
    itself is too large by about (|Z| - 1)(|Y| - 1) / (2 m) where Y and Z are independent: with many source classes and
    few samples every source seems to transfer.
    """
    source = labels_of(source_labels, "source_labels")
    own, classes = _compact(labels, len(source), "source_labels", source.device)
    source, mass = source.unique(return_inverse=True, return_counts=True)[1:]
    # Pairs that occur, at most m of them: the table of all pairs could be larger than the data.
    pairs, counts = (source * classes + own).unique(return_counts=True)
    share = counts.double() / mass[pairs // classes]
    return (counts * share.log()).sum() / len(source)


def label_entropy(labels: Any) -> Tensor:
    r"""Entropy of the labels' own frequencies: what there is to know of them.

    .. math:: H(Y) = -\sum_y \hat P(y) \log \hat P(y)

    Args:
        labels: Classes, [m], m at least 1, whole numbers from 0 on.

    Returns:
        A scalar in [0, log C], float64, in nats; 0 for one class.

    Raises:
        TypeError: what is no array of whole numbers.
        ValueError: no labels, or negative or fractional ones.

    Example:
        >>> label_entropy([0, 0, 1, 1])                                       # log 2
        tensor(0.6931, dtype=torch.float64)

    Reference: Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x. The plug-in estimate, without a
    correction for its bias: it is what `leep` and `nce` have for a source that knows nothing.
    """
    held = labels_of(labels)
    if not len(held):
        raise ValueError("an entropy needs at least 1 label, got 0")
    share = held.unique(return_counts=True)[1].double() / len(held)
    return (share * -share.log()).sum()  # the sign inside: a single class has 0, not -0


def _compact(labels: Any, samples: int, name: str, device: torch.device) -> tuple[Tensor, int]:
    """Labels [m] as indices of the classes that occur, and how many those are; at least two."""
    held = labels_of(labels).to(device)
    if len(held) != samples:
        raise ValueError(f"{name} and labels must be of the same samples, got {samples} and {len(held)}")
    found, compact = held.unique(return_inverse=True)
    if len(found) < 2:
        at = f" (label {int(found[0])} everywhere)" if len(found) else ""
        raise ValueError(f"a score needs at least 2 classes, got {len(found)}{at}")
    return compact, len(found)
