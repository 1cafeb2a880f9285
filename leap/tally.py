"""A share of a meta-batch as one vector, so that processes that train together add up one tensor a meta-step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from leap.records import sums_of
from leap.walk import Walk

SUMS = (
    *("good", "bad", "steps", "loss", "loss_first", "loss_last", "path_length"),
    *("scored", "error", "error_last", "validated", "validation", "mark"),
)
"""What stands behind the meta-gradient, the mark last. Walks that met NaN or infinity count in `bad` alone."""

MARKS = 4096  # so that a sum of 4096 marks is exact in float32


def finite_walks(walked: Walk) -> Tensor:
    """Which walks [T] met finite numbers only."""
    good: Tensor = walked.losses.isfinite().all(dim=1) & walked.results["learner"].isfinite().all(dim=1)
    return good


def tally(walks: Sequence[Walk], meta: Tensor) -> Tensor:
    """A share of a meta-batch as one vector, whose sum over shares is that of the whole meta-batch.

    Args:
        walks: The share's, with the results `learner` [T, m] and `path_length`; none for a process without a task.
        meta: Meta-parameters [m], as they were before the meta-step.

    Returns:
        [m + len(SUMS)], in the parameters' precision or float32, whichever is finer: the sum of the good walks'
        meta-gradients, then SUMS.

    Example:
        >>> meta = torch.zeros(2)
        >>> results = {"learner": torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]), "path_length": torch.ones(2)}
        >>> share = Walk(torch.zeros(2, 2), torch.ones(2, 3), results, {})
        >>> (tally([share], meta) + tally([], meta))[:5]     # the gradient, one good walk, one bad, three steps
        tensor([1., 2., 1., 1., 3.])
    """
    share = Tally(meta)
    for walked in walks:
        share.add(walked)
    return share.vector()


class Tally:
    """A tally as walks come in, one after another.

    Args:
        meta: Meta-parameters [m], as they were before the meta-step.
        grad: The sum of the good walks' meta-gradients so far, [m].
        sums: The numbers behind it so far, by name, float64; zero where there is none.
        own: Names of the sums that the family's records need, from `leap.records.summed`.
    """

    def __init__(
        self,
        meta: Tensor,
        grad: Tensor | None = None,
        sums: Mapping[str, Tensor] | None = None,
        own: Sequence[str] = (),
    ) -> None:
        self._meta, self._own, self._names = meta, tuple(own), (*own, *SUMS[:-1])
        self.grad = torch.zeros_like(meta) if grad is None else grad
        self.sums = dict.fromkeys(self._names, meta.new_zeros((), dtype=torch.float64)) | dict(sums or {})

    def add(self, walked: Walk, figures: Mapping[str, Tensor] = MappingProxyType({})) -> None:
        """Take in one walk, and what its tasks tell of it, [T] by name."""
        good = finite_walks(walked)
        found = _sums(walked, good) | sums_of(self._own, walked, figures, good)
        self.sums |= {name: self.sums[name] + value for name, value in found.items()}
        self.grad = self.grad + torch.where(good.unsqueeze(1), walked.results["learner"], 0).sum(dim=0)

    def vector(self) -> Tensor:
        """As `tally`, with the records' sums between the meta-gradient and SUMS."""
        finer = torch.promote_types(self._meta.dtype, torch.float32)
        values = [*(self.sums[name] for name in self._names), mark(self._meta)]
        return torch.cat([self.grad.to(finer), torch.stack([value.to(finer) for value in values])])


def _sums(walked: Walk, good: Tensor) -> dict[str, Tensor]:
    losses, count = walked.losses, good.sum()
    summed = {"loss": losses.double().sum(dim=1), "loss_first": losses[:, 0], "loss_last": losses[:, -1]}
    summed |= {"path_length": walked.results["path_length"]}
    counted = {"good": count, "bad": (~good).sum(), "steps": count * losses.shape[1]}
    if "error" in walked.aux:
        errors = walked.aux["error"]
        summed |= {"error": errors.double().sum(dim=1), "error_last": errors[:, -1]}
        counted["scored"] = count
    if "validation_error" in walked.results:
        summed["validation"] = walked.results["validation_error"]
        counted["validated"] = count
    return counted | {name: torch.where(good, value, 0).double().sum() for name, value in summed.items()}


def mark(meta: Tensor) -> Tensor:
    """A number below MARKS that parameters [m] which differ in a bit hardly share.

    Every process adds its mark to the sum; where all are equal, the sum is their number times each one's own.
    """
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[meta.element_size()]
    return meta.view(whole).sum(dtype=torch.int64) % MARKS


def read(total: Tensor, own_mark: Tensor, own: Sequence[str] = ()) -> tuple[dict[str, float], float]:
    """The records' sums and SUMS over all processes, and one's own mark, in one synchronisation with the device."""
    names = (*own, *SUMS)
    *numbers, here = torch.cat([total[-len(names) :], own_mark.reshape(1)]).tolist()
    return dict(zip(names, numbers, strict=True)), here


def logged(sums: Mapping[str, float], grad: Tensor, update: Tensor) -> dict[str, float]:
    """Means over the good walks of the whole meta-batch, under the keys of docs/metrics.md."""
    good, steps = sums["good"], sums["steps"]
    gradient_norm, update_norm = torch.stack([grad.norm(), update.norm()]).tolist()
    values = {
        "train/loss": sums["loss"] / steps,
        "train/loss_first": sums["loss_first"] / good,
        "train/loss_last": sums["loss_last"] / good,
        "train/path_length": sums["path_length"] / good,
        "meta/gradient_norm": gradient_norm,
        "meta/update_norm": update_norm,
        "meta/bad_tasks": sums["bad"],
        "meta/bad_share": sums["bad"] / (sums["bad"] + good),
    }
    if sums["scored"] > 0:
        values |= {"train/error": sums["error"] / steps, "train/error_last": sums["error_last"] / good}
    if sums["validated"] > 0:
        values["train/validation_error"] = sums["validation"] / sums["validated"]
    return values
