"""PARC: whether samples of one class lie closer in a source's features than samples of different classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from leap.metrics.labelled import labelled
from leap.metrics.principal import principal_coordinates

EXACT = 2000  # samples up to which distances are sorted; with more they are counted in cells
CELLS = 2**20  # over the range of a distance's root
BLOCK = 2**22  # pairs looked at together
DECIMALS = 12  # of a distance; what differs beyond them is round-off, and tied


def parc(features: Any, labels: Any, *, components: int = 32) -> Tensor:
    r"""Pairwise annotation representation comparison: rank correlation of distances of features and of labels.

    .. math:: \rho_{\text{Spearman}} \bigl( \{ 1 - \operatorname{corr}(s_i, s_j) \}_{i<j},\;
              \{ [y_i \neq y_j] \}_{i<j} \bigr)

    with s the leading principal coordinates of the features, each divided by its standard deviation, and corr Pearson's
    correlation of two samples over their coordinates.

    Args:
        features: [m, k].
        labels: Target classes, [m], whole numbers from 0 on; some class has two samples.
        components: Principal coordinates to take at most, 2 or more; fewer where the features have a lower rank.

    Returns:
        A scalar in [-1, 1], float64, without unit; larger is better, and 0 is expected of features that know nothing of
        the labels (papers print 100 times it). It does not reach 1: the labels have two distances only, and with a
        share q of all pairs in different classes the most that distinct distances of features can reach is
        sqrt(3 q (1 - q)), 0.87 for two balanced classes and 0.52 for ten. Compare sources of one target.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: as `leap.metrics.labelled.labelled`; fewer than 2 components or features that vary along a single
            line, of which two samples have no correlation; no class with two samples; distances that are all equal.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> centres = torch.randn(5, 8, generator=draw).repeat_interleave(4, 0)
        >>> features = centres + 0.01 * torch.randn(20, 8, generator=draw)
        >>> parc(features, torch.arange(20) // 4, components=4)         # sqrt(3 q (1 - q)) for q = 160 / 190
        tensor(0.6316, dtype=torch.float64)

    Reference: Bolya, Mittapalli & Hoffman 2021, https://arxiv.org/abs/2111.06977.

    Variant: in the order of the released code, principal coordinates first, standardised after, so that all 32 count
    alike. One-hot labels have distance 0 within a class and C / (C - 1) between classes, which ranks as 0 and 1 do.
    Differences and choices:

    - The two distances of labels are told apart by the labels. The released code computes them as correlations, whose
      round-off splits equal distances into ranks of their own: with 7 or 37 classes that can halve the score.
    - The principal axes are exact; the released code finds them by one step of a random projection.
    - Correlations over coordinates depend on the sign of each axis, which is arbitrary and which the released code
      leaves to its library. Here the coordinate of largest size is positive: no rotation or reflection of the features
      changes the score.
    - Axes whose spread is round-off are left out, where dividing by it would make noise count as much as the rest.
    - A sample whose coordinates are all equal has no correlation: its distance to all others is 1, where the released
      code returns NaN. Equal distances share their mean rank, and those that agree to 12 decimals are equal.
    - The paper's optional bonus for depth (layers / 50, after the scores of all sources were standardised) is left out.

    Cost: quadratic in the number of samples, O(m^2) in time, since all pairs are compared; the paper takes 500 samples.
    Memory is O(m): above 2000 samples distances are counted in 2^20 cells (of their root) in place of sorted, and ranks
    within a cell are shared, which moves the score by less than 1e-6.
    """
    if components < 2:
        raise ValueError(f"components must be at least 2, got {components}: over one there is no correlation")
    held = labelled(features, labels)
    if int(held.counts.max()) < 2:
        raise ValueError(f"PARC needs a class with two samples, got {held.classes} classes of one sample each")
    directions = _directions(principal_coordinates(held.features, components=components))
    same, different = _counts(directions, held.labels)
    return _rank_correlation(same, different)


def _directions(coordinates: Tensor) -> Tensor:
    """Standardised coordinates [m, p], less each sample's mean and of unit length: products are correlations."""
    if coordinates.shape[1] < 2:
        raise ValueError(
            f"features vary along {coordinates.shape[1]} line only, and over one coordinate samples have no "
            "correlation; take features of a wider layer"
        )
    scaled = coordinates / coordinates.abs().amax(0)  # squares could overflow
    scaled = scaled / scaled.square().mean(0).sqrt()
    scaled = scaled - scaled.mean(1, keepdim=True)
    length = scaled.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-10, scaled / length.clamp_min(1e-10), 0.0)


def _counts(directions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of one class, and of two, at each distance that occurs, by rising distance."""
    if len(directions) <= EXACT:
        distances, apart = (torch.cat(parts) for parts in zip(*_pairs(directions, labels), strict=True))
        levels, place = distances.round(decimals=DECIMALS).unique(return_inverse=True)
        table = torch.bincount(2 * place + apart, minlength=2 * len(levels))
    else:
        table = torch.zeros(2 * CELLS + 2, dtype=torch.long, device=directions.device)
        for distances, apart in _pairs(directions, labels):
            # Of the root, which keeps apart the small distances within classes that have collapsed.
            cell = (distances / 2).clamp_(0, 1).sqrt_().mul_(CELLS).long()
            table += torch.bincount(2 * cell + apart, minlength=len(table))
    same, different = table.view(-1, 2).unbind(1)
    return same, different


def _pairs(directions: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Distances of the pairs i < j, and 1 for those of different classes, in blocks."""
    rows = max(1, BLOCK // len(labels))
    for start in range(0, len(labels), rows):
        own, others = directions[start : start + rows], directions[start:]
        apart = labels[start : start + rows, None] != labels[start:]
        yield _upper(1 - own @ others.T), _upper(apart).long()


def _upper(block: Tensor) -> Tensor:
    """Entries right of the diagonal of a block of rows [r, n], as a list, selected among the first r alone."""
    rows = len(block)
    here = torch.ones(rows, rows, dtype=torch.bool, device=block.device).triu(1)
    return torch.cat([block[:, :rows][here], block[:, rows:].flatten()])


def _rank_correlation(same: Tensor, different: Tensor) -> Tensor:
    """Spearman's correlation of distances with whether classes differ, from counts by rising distance.

    With two values on one side it needs no list of ranks: their sum over the pairs that differ, and their variance.
    """
    both = (same + different).to(torch.float64)
    total, apart = float(both.sum()), float(different.sum())
    ranks = both.cumsum(0) - (both - 1) / 2 - (total + 1) / 2  # mean rank of a level less the mean of all
    spread = (both * ranks.square()).sum() * apart * (1 - apart / total)
    if not float(spread) > 0:
        raise ValueError(
            f"all {total:.0f} pairs of samples are equally far from each other, so distances have no order"
        )
    return ((different * ranks).sum() / spread.sqrt()).clamp(-1, 1)
