"""Higher-order transfer: features of several sources side by side, and which sources go together best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.metrics.hscore import HScore, h_score_report
from leap.metrics.labelled import features_of, labels_of


class Combination(NamedTuple):
    """The sources whose features together score best on a target."""

    members: tuple[int, ...]  # their places among the candidates, ascending
    score: Tensor  # [] float64: what they were compared by, 0 by chance, 1 where they tell all classes apart
    report: HScore  # the H-score of their features side by side
    left_out: int  # combinations without a score


def concatenated(*features: Any) -> Tensor:
    """Features of several sources for the same samples, side by side.

    Args:
        features: [m, k_i] each, the samples in the same order.

    Returns:
        [m, sum of k_i], float64, on the device of the first.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: none, numbers of samples that differ, values that are not finite.

    Example:
        >>> concatenated([[1.0], [2.0]], [[3.0, 4.0], [5.0, 6.0]])
        tensor([[1., 3., 4.],
                [2., 5., 6.]], dtype=torch.float64)

    Reference: Bao et al. 2019, https://arxiv.org/abs/2212.10082, transfer of higher order.
    """
    held = [features_of(one, f"features of source {i}") for i, one in enumerate(features)]
    if not held:
        raise ValueError("there are no features to put side by side, got no source")
    sizes = [len(one) for one in held]
    if len(set(sizes)) > 1:
        raise ValueError(f"features must be of the same samples, got {sizes} rows; put the same inputs through each")
    return torch.cat([one.to(held[0].device) for one in held], dim=1)


def best_combination(candidates: Sequence[Any], labels: Any, size: int) -> Combination:
    r"""The sources, so many together, whose features side by side have most of the target's labels beyond chance.

    .. math:: \arg\max_{|S| = size} \frac{H(f_S) - H_0(f_S)}{|Y| - 1 - H_0(f_S)}, \qquad
              H_0 = \frac{r\, (|Y| - 1)}{m - 1}, \quad r = \mathrm{rank}(f_S)

    Args:
        candidates: Features of the target's samples by each source, [m, k_i] each.
        labels: The target's classes, [m].
        size: How many sources go together, 1 to all. All combinations are tried.

    Returns:
        The best combination, the first where several are. Its score is a share, without unit: the adjusted H-score
        where the features have a rank of |Y| - 1 or more.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: a size out of range, samples that do not fit, no combination with a score.

    Example:
        >>> y = torch.arange(12) % 3
        >>> found = best_combination([(y == 0)[:, None].float(), torch.eye(12)[:, :1], (y == 1)[:, None].float()], y, 2)
        >>> found.members, f"{found.score:.3f}"                     # which of the three classes, told by two bits
        ((0, 2), '1.000')

    Reference: Bao et al. 2019, https://arxiv.org/abs/2212.10082.

    Variant: the paper compares H-scores. These never fall when features are added, so that wide sources and large
    combinations would win whatever they hold. Here is taken away what as many random features get, as the adjusted
    coefficient of determination does, so that sizes may be compared as well. The most there is to get is that of the
    target, |Y| - 1, for all of them: features of low rank that get the little they could are not the best. What has
    fewer samples than twice its rank is shrunk, as in `h_score_report`, and compared with the largest shrunk score.
    Features that are the same for all samples add nothing to others, and have no score by themselves.
    """
    if not 1 <= size <= len(candidates):
        raise ValueError(f"size must be from 1 to the {len(candidates)} candidates, got {size}")
    held, classes = [features_of(one, f"features of source {i}") for i, one in enumerate(candidates)], labels_of(labels)
    best: Combination | None = None
    reasons = []
    for members in itertools.combinations(range(len(held)), size):
        together = concatenated(*(held[i] for i in members))
        try:
            report = h_score_report(together, classes)
        except ValueError as refused:  # dead features
            reasons.append(str(refused))
            continue
        score = _share(report)
        if best is None or score > best.score:
            best = Combination(members, score, report, 0)
    if best is None:
        raise ValueError(f"none of {len(reasons)} combinations has a score; of the first: {reasons[0]}")
    return best._replace(left_out=len(reasons))


def best_pair(candidates: Sequence[Any], labels: Any) -> Combination:
    """The two sources that go together best, `best_combination` of size 2: transfer of the second order.

    Example:
        >>> y = torch.arange(12) % 3
        >>> best_pair([(y == 0)[:, None].float(), (y == 0)[:, None].float(), (y == 1)[:, None].float()], y).members
        (0, 2)
    """
    return best_combination(candidates, labels, 2)


def _share(found: HScore) -> Tensor:
    """The H-score beyond chance as a share of what is left to get; the adjusted one if the rank allows all of it."""
    missing = max(found.classes - 1 - found.rank, 0)
    room = found.maximum + missing - found.null
    return (found.score - found.null) / room if missing else found.adjusted
