"""Features with labels, as every score of transferability takes them: checked once, in float64, classes counted."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

FINITE_ROWS = 4096  # rows looked at together: `isfinite` makes a copy


class Labelled(NamedTuple):
    """Samples with classes 0 .. C - 1, every one of which has samples."""

    features: Tensor  # [m, k]  float64, or what the caller keeps
    labels: Tensor  # [m]      long, compact: the i-th smallest label that occurs is i
    counts: Tensor  # [C]      long, at least 1 each

    @property
    def classes(self) -> int:
        """Classes that occur."""
        return len(self.counts)

    def indicators(self) -> Tensor:
        """One-hot labels [m, C] in float64."""
        return torch.nn.functional.one_hot(self.labels, self.classes).to(torch.float64)


def labelled(features: Any, labels: Any, *, keep: bool = False) -> Labelled:
    """Features [m, k] in float64 with their labels, once it is known that a score of them exists.

    Label values that do not occur (an empty class) are left out, so a score does not depend on how many classes there
    could have been. With `keep` features stay of the type they have, for scores that convert them block by block.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: shapes that do not fit, fewer than 2 samples, features that are not finite or the same for all
            samples, labels that are no whole numbers from 0 on, one class.
    """
    held, classes = features_of(features, keep=keep), labels_of(labels)
    if len(held) != len(classes):
        raise ValueError(f"features and labels must be of the same samples, got {len(held)} rows and {len(classes)}")
    _check_varying(held)
    classes = classes.to(held.device)
    found, compact, counts = classes.unique(return_inverse=True, return_counts=True)
    if len(found) < 2:
        raise ValueError(f"a score needs at least 2 classes, got {len(found)} (label {int(found[0])} everywhere)")
    return Labelled(held, compact, counts)


def features_of(features: Any, name: str = "features", *, keep: bool = False) -> Tensor:
    """A finite matrix [m, k], m at least 2, on the device where it was; in float64, unless its type is to be kept."""
    held = _tensor(features, name)
    if held.is_complex() or held.dtype == torch.bool:
        raise TypeError(f"{name} must be real numbers, got {held.dtype}")
    if held.dim() != 2:
        raise ValueError(f"{name} must be a matrix [m, k], a row a sample, got shape {list(held.shape)}")
    if len(held) < 2 or held.shape[1] < 1:
        raise ValueError(f"{name} must have at least 2 samples and 1 column, got shape {list(held.shape)}")
    ends = (float(end) for part in held.split(FINITE_ROWS) for end in torch.aminmax(part))  # a tenth of isfinite's time
    if not all(math.isfinite(end) for end in ends):
        bad = sum(int((~torch.isfinite(part)).sum()) for part in held.split(FINITE_ROWS))
        row = next(i for i, part in enumerate(held) if not bool(torch.isfinite(part).all()))
        raise ValueError(f"{name} holds {bad} values that are not finite, the first in row {row}; leave such rows out")
    return held if keep else held.to(torch.float64)


def labels_of(labels: Any, name: str = "labels") -> Tensor:
    """Whole numbers [m] from 0 on, as long; from torch, numpy or lists."""
    held = _tensor(labels, name)
    if held.dim() != 1:
        raise ValueError(f"{name} must be one class a sample, [m], got shape {list(held.shape)}; no one-hot rows")
    if held.is_complex():
        raise TypeError(f"{name} must be whole numbers, got {held.dtype}")
    if held.is_floating_point():
        off = held[held != held.round()]  # NaN and infinity among them
        if len(off) or not bool(torch.isfinite(held).all()):
            first = off[0] if len(off) else held[~torch.isfinite(held)][0]
            raise ValueError(f"{name} must be whole numbers from 0 on, got {float(first):g}")
    held = held.long()
    if len(held) and int(held.min()) < 0:
        raise ValueError(f"{name} must run from 0 on, got {int(held.min())}; leave samples without a class out")
    return held


def probabilities_of(probabilities: Any, name: str = "probabilities") -> Tensor:
    """Rows [m, Z] of class probabilities in float64, each with sum 1."""
    held = features_of(probabilities, name)
    if float(held.min()) < 0:
        raise ValueError(f"{name} must not be negative, got {float(held.min()):g}; give a softmax, not logits")
    sums = held.sum(1)
    worst = int((sums - 1).abs().argmax())
    if abs(float(sums[worst]) - 1) > 1e-3:
        raise ValueError(f"rows of {name} must sum to 1, got {float(sums[worst]):g} in row {worst}; give a softmax")
    return held / sums[:, None]  # float32 softmaxes are off by round-off


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} must be numbers, got {array.dtype}")
        if array.dtype in (np.uint16, np.uint32, np.uint64) or array.dtype.itemsize > 8:  # torch holds them at best
            array = array.astype(np.float64)
        return torch.from_numpy(np.ascontiguousarray(array))
    except ValueError as error:  # rows of different length
        raise TypeError(f"{name} must be an array of numbers: {error}") from error


def _check_varying(features: Tensor) -> None:
    first = features[0]
    if all(bool((part == first).all()) for part in features.split(FINITE_ROWS)):
        raise ValueError(
            f"features are the same in all {len(features)} samples (first value {float(first[0]):g}), so nothing "
            "depends on them; is the network dead, or the wrong layer taken?"
        )
