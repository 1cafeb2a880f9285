"""Pixel-to-pixel tasks: pictures as maps of a few colours, and the H-score of features averaged over their pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leap.metrics.hscore import HScore, Shrinkage, h_score, h_score_report
from leap.metrics.labelled import features_of, labels_of

SAMPLE = 65536  # pixels that the colours are found on
ROUNDS, STARTS = 100, 4  # of k-means; it settles far earlier
CHUNK = 1 << 20  # pixels coloured together


class Palette(NamedTuple):
    """A few colours, and which of them is nearest to each pixel."""

    colours: Tensor  # [n, c]     float64, darkest first
    labels: Tensor  # [m, H, W]   long, 0 .. n - 1


class PixelScore(NamedTuple):
    """H-scores of the pixels of a task; a pixel with one class, or without features that vary, has none."""

    score: Tensor  # []          float64: mean over the pixels that have one
    adjusted: Tensor  # []       float64: mean of their adjusted scores: 0 by chance, 1 at most
    by_pixel: Tensor  # [H, W]   float64, 0 where there is none
    scored: Tensor  # [H, W]     bool: which pixels have one
    left_out: int  # how many have none


def palette(images: Any, colours: int = 16, *, generator: torch.Generator) -> Palette:
    r"""The colours that pictures are best drawn with, and the pictures in them: k-means of their pixels.

    .. math:: \min_{q_1 \dots q_n} \sum_p \min_j \| x_p - q_j \|^2

    Args:
        images: Target pictures of a task (depth, edges, a colouring), [m, H, W] or [m, H, W, c].
        colours: n, at least 2. Pictures with fewer values have a palette of just those.
        generator: Draws the pixels that the colours are found on, if there are more than 65536, and where k-means
            starts; the best of four starts counts.

    Returns:
        The colours in the unit of the images, by rising sum of channels; the nearest one to each pixel.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: other shapes, values that are not finite, fewer than 2 colours asked for or found.

    Example:
        >>> from leap.randomness import generator
        >>> found = palette([[[0, 1, 90], [91, 2, 200]]], colours=3, generator=generator(0))
        >>> found.colours.flatten(), found.labels
        (tensor([  1.0000,  90.5000, 200.0000], dtype=torch.float64), tensor([[[0, 0, 1], [1, 0, 2]]]))

    Reference: Bao et al. 2019, https://arxiv.org/abs/2212.10082, who give pixel-to-pixel tasks a palette of 16 colours
    so that the H-score of classes applies. One palette serves all pixels, as there; the released code clusters
    the values of each pixel on their own, so that a colour means something else at every place.
    """
    if colours < 2:
        raise ValueError(f"a palette must have at least 2 colours, got {colours}; the usual number is 16")
    held = _array(images)
    if held.dim() not in (3, 4) or not held.numel():
        raise ValueError(f"images must be [m, H, W] or [m, H, W, c] and not empty, got shape {list(held.shape)}")
    bad = int((~torch.isfinite(held)).sum())
    if bad:
        raise ValueError(f"images hold {bad} values that are not finite; put a value of your own in their place")
    pixels = held.reshape(-1, held.shape[3] if held.dim() == 4 else 1)
    chosen = torch.randperm(len(pixels), generator=generator, device=generator.device)[:SAMPLE].to(pixels.device)
    points, weights = pixels[chosen].to(torch.float64).unique(dim=0, return_counts=True)
    if len(points) < 2:
        raise ValueError(f"images have one colour, {points[0].tolist()}, so there is nothing to predict")
    found = points if len(points) <= colours else _k_means(points, weights.to(points.dtype), colours, generator)
    found = found[found.sum(1).argsort(stable=True)]
    nearest = [_distances(part.to(found.dtype), found).argmin(1) for part in pixels.split(CHUNK)]
    return Palette(found, torch.cat(nearest).reshape(held.shape[:3]))


def pixel_h_score(features: Any, label_maps: Any, *, superpixels: int = 1, shrinkage: Shrinkage = None) -> PixelScore:
    r"""H-score of features for a pixel-to-pixel task, pixel by pixel, and its mean over them.

    .. math:: \frac{1}{|P|} \sum_{p \in P} \mathrm{tr}\left( \mathrm{cov}(f)^{+}\, \mathrm{cov}(E[f \mid Y_p]) \right)

    Args:
        features: One vector a picture, [m, k], as in the paper; or one a pixel (or super-pixel), [m, k, H, W].
        label_maps: Y, the class of each pixel, [m, H, W], such as the labels of a `palette`.
        superpixels: Side of the blocks that share a class, dividing H and W: the class that most of a block's pixels
            have, the lowest where several do. 1: pixels.
        shrinkage: As `h_score` takes it; without it, fewer pictures than twice the rank are refused.

    Returns:
        Score, adjusted score, the map of scores, and which pixels have one. P are those: a pixel of one class in
        all pictures asks nothing of the features, and is left out and counted.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: shapes that do not fit, values that are not finite or no classes, no pixel with a score; and as
            `h_score`.

    Example:
        >>> maps = torch.tensor([[[0, 0]], [[0, 0]], [[1, 0]], [[1, 0]]])   # 4 pictures, 1 x 2 pixels
        >>> found = pixel_h_score([[0.0], [1.0], [4.0], [5.0]], maps)
        >>> found.score, found.left_out
        (tensor(0.9412, dtype=torch.float64), 1)

    Reference: Bao et al. 2019, https://arxiv.org/abs/2212.10082. Features of whole pictures are factorized once for all
    pixels; each pixel then costs its sums over classes, O(m k). The adjusted score is that of `h_score_report`.
    """
    maps = _blocks(_maps(label_maps), superpixels)
    vectors, columns = _vectors(features, maps), maps.flatten(1).mT  # [1 or P, m, k], [P, m]
    scored = (columns != columns[:, :1]).any(1).to(vectors.device)
    if len(vectors) > 1:
        scored &= (vectors != vectors[:, :1]).flatten(1).any(1)
    if not bool(scored.any()):
        raise ValueError(
            f"none of the {len(scored)} pixels has two classes and features that vary, so there is no score"
        )
    columns = columns.to(vectors.device)[scored]
    if len(vectors) > 1:
        reports = [_report(f, own, shrinkage) for f, own in zip(vectors[scored], columns, strict=True)]
        score, adjusted = (torch.stack([getattr(r, name) for r in reports]) for name in ("score", "adjusted"))
    else:
        score, adjusted = _by_one_basis(vectors[0], columns, shrinkage)
    by_pixel = torch.zeros(len(scored), dtype=torch.float64, device=scored.device).masked_scatter(scored, score)
    shape = maps.shape[1:]
    return PixelScore(
        score.mean(), adjusted.mean(), by_pixel.reshape(shape), scored.reshape(shape), int((~scored).sum())
    )


def _array(values: Any) -> Tensor:
    """Numbers as they are, on the device where they are."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"images, features and label_maps must be arrays of numbers, got {array.dtype}")
    return torch.as_tensor(array)


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")


def _k_means(points: Tensor, weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Centres [n, c] of weighted points, all of them distinct and more than n: the best of some starts."""
    best, least = points[:n], torch.inf
    for _ in range(STARTS):
        centres = _far_apart(points, weights, n, generator)
        for _ in range(ROUNDS):
            nearest = _distances(points, centres).argmin(1)
            mass = weights.new_zeros(n).index_add_(0, nearest, weights)
            sums = torch.zeros_like(centres).index_add_(0, nearest, points * weights[:, None])
            moved = torch.where(mass[:, None] > 0, sums / mass.clamp_min(1)[:, None], centres)
            if torch.equal(moved, centres):
                break
            centres = moved
        loss = float((weights * _distances(points, centres).amin(1).square()).sum())
        if loss < least:
            best, least = centres, loss
    return best


def _far_apart(points: Tensor, weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Starts of k-means++: each point drawn by its weight times its squared distance from those before."""
    chance, drawn = weights, list[Tensor]()
    for _ in range(n):
        index = torch.multinomial(chance.to(generator.device), 1, generator=generator).to(points.device)
        drawn.append(points[index])
        chance = weights * _distances(points, torch.cat(drawn)).amin(1).square()
    return torch.cat(drawn)


def _maps(label_maps: Any) -> Tensor:
    """Labels [m, H, W], compact."""
    held = _array(label_maps)
    if held.dim() != 3 or len(held) < 2 or not held.numel():
        raise ValueError(f"label_maps must be [m, H, W] with m at least 2, got shape {list(held.shape)}")
    compact: Tensor = labels_of(held.flatten(), "label_maps").unique(return_inverse=True)[1]
    return compact.reshape(held.shape)


def _blocks(maps: Tensor, side: int) -> Tensor:
    """The most frequent class [m, H / s, W / s] of each block of s x s pixels."""
    m, height, width = maps.shape
    if side < 1 or height % side or width % side:
        raise ValueError(f"superpixels must divide the {height} x {width} pixels, got {side}; cut the maps to fit")
    if side == 1:
        return maps
    blocks = maps.reshape(m, height // side, side, width // side, side).transpose(2, 3).flatten(3)
    votes = torch.stack([(blocks == c).sum(3) for c in range(int(maps.max()) + 1)])
    return votes.argmax(0)


def _vectors(features: Any, maps: Tensor) -> Tensor:
    """Features [1, m, k] of all pixels together, or [P, m, k]."""
    held = _array(features)
    if held.dim() not in (2, 4) or len(held) != len(maps) or (held.dim() == 4 and held.shape[2:] != maps.shape[1:]):
        m, height, width = maps.shape
        raise ValueError(
            f"features must be [{m}, k] or [{m}, k, {height}, {width}] for these label_maps, got {list(held.shape)}"
        )
    flat = features_of(held.flatten(1))
    return flat[None] if held.dim() == 2 else flat.reshape(len(maps), held.shape[1], -1).permute(2, 0, 1)


def _report(features: Tensor, labels: Tensor, shrinkage: Shrinkage) -> HScore:
    found = h_score_report(features, labels, shrinkage=shrinkage)
    if found.scarce and shrinkage is None:
        h_score(features, labels)  # says what is missing
    return found


def _by_one_basis(features: Tensor, columns: Tensor, shrinkage: Shrinkage) -> tuple[Tensor, Tensor]:
    """H-scores and adjusted ones, [P] each, of features [m, k] for pixels with labels [P, m], none constant."""
    report = _report(features, columns[0], shrinkage)  # rank and amount of shrinkage are those of the features alone
    u, size, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    spectrum = (size / size[0]).square()
    spectrum = (spectrum / spectrum.sum())[: report.rank]
    kept = (1 - report.shrinkage) * spectrum
    weights = kept / (kept + report.shrinkage / features.shape[1])
    basis, classes = u[:, : report.rank] * weights.sqrt(), int(columns.max()) + 1
    scores, others = basis.new_zeros(len(columns)), columns.new_zeros(len(columns))
    for p, labels in enumerate(columns):
        counts = torch.bincount(labels, minlength=classes)
        sums = basis.new_zeros(classes, report.rank).index_add_(0, labels, basis)
        scores[p] = (sums.square().sum(1) / counts.clamp_min(1)).sum()
        others[p] = (counts > 0).sum() - 1
    most = torch.nn.functional.pad(weights.cumsum(0), (1, 0))[others.clamp_max(report.rank)]
    null = weights.sum() * others / (len(features) - 1)
    room = most - null
    return scores, torch.where(room > 1e-12 * most, (scores - null) / room, 0.0)  # 0 where any labels score alike
