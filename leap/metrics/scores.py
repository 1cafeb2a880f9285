"""Every score of transferability by name, with its unit and the form in which targets can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.metrics.gbc import gbc
from leap.metrics.hscore import HScore, h_score, h_score_report, transferability
from leap.metrics.labelled import labelled
from leap.metrics.leep import label_entropy, leep, nce
from leap.metrics.logme import logme
from leap.metrics.nleep import nleep
from leap.metrics.parc import parc
from leap.metrics.probe import linear_probe
from leap.metrics.sfda import sfda
from leap.metrics.transrate import transrate
from leap.randomness import generator


class Readout:
    """What a source makes of a target's data: features, labels, and the source's own softmax where it has one.

    Args:
        features: [m, k] of the target's samples.
        labels: [m] of the target.
        probabilities: [m, Z] of the source's classes; None: the source has none.
        seed: Of what draws at random (mixtures, folds).
    """

    def __init__(self, features: Any, labels: Any, probabilities: Any = None, *, seed: int = 0) -> None:
        held = labelled(features, labels)
        self.features, self.labels, self.classes, self.seed = held.features, held.labels, held.classes, seed
        self.probabilities = probabilities

    @cached_property
    def entropy(self) -> float:
        """H(Y) of the labels, in nats."""
        return float(label_entropy(self.labels))

    @cached_property
    def h(self) -> HScore:
        """H-score with its rank and null."""
        return h_score_report(self.features, self.labels)

    @property
    def source(self) -> Any:
        """The source's softmax.

        Raises:
            ValueError: it has none.
        """
        if self.probabilities is None:
            raise ValueError("needs the source's class probabilities (source_probabilities), and there are none")
        return self.probabilities

    @property
    def guess(self) -> Any:
        """The source's most probable classes [m]."""
        return torch.as_tensor(self.source).argmax(-1)

    def stream(self, name: str) -> torch.Generator:
        """Randomness of one score."""
        return generator(self.seed, "score", name)


class Value(NamedTuple):
    """A score, its form that can be compared across targets, and the reason where there is none."""

    value: float | None
    across: float | None
    reason: str = ""


@dataclass(frozen=True)
class Score:
    """What a score is called and how it is found; larger is better for all of them."""

    label: str
    unit: str
    find: Callable[[Readout], Tensor]
    across: Callable[[float, Readout], float] = lambda value, readout: value
    """Targets differ in their number of classes, and most scores with it: this form does not."""
    baseline: bool = False

    def value(self, readout: Readout) -> Value:
        """The score of a readout; without one, the reason."""
        try:
            found = float(self.find(readout))
        except (ValueError, RuntimeError) as refused:  # no such score of these samples; a probe that did not settle
            return Value(None, None, str(refused))
        if not math.isfinite(found):
            return Value(None, None, f"is {found:g}")
        return Value(found, self.across(found, readout))


def _per_class(value: float, readout: Readout) -> float:
    return value / (readout.classes - 1)


def _gain(value: float, readout: Readout) -> float:
    return value + readout.entropy


def _per_pair(value: float, readout: Readout) -> float:
    return value / (readout.classes * (readout.classes - 1))


def _adjusted(readout: Readout) -> Tensor:
    if readout.h.scarce:
        raise ValueError(f"{readout.h.samples} samples are fewer than twice the rank {readout.h.rank}: saturated")
    return readout.h.adjusted


def _absent(readout: Readout) -> Tensor:
    raise ValueError("is the source's own and cannot be read from features")


SCORES: Mapping[str, Score] = {
    "h_score": Score("H-score", "1", lambda r: h_score(r.features, r.labels), _per_class),
    "transferability": Score(
        "Transferability T = H-score / (classes - 1)", "1", lambda r: transferability(r.features, r.labels)
    ),
    "h_score_adjusted": Score("H-score above that of random features, as a share", "1", _adjusted),
    "h_score_shrunk": Score(
        "H-score, covariance shrunk (Ledoit-Wolf)",
        "1",
        lambda r: h_score(r.features, r.labels, shrinkage="ledoit-wolf"),
        _per_class,
    ),
    "leep": Score("LEEP", "nats", lambda r: leep(r.source, r.labels), _gain),
    "nce": Score("NCE", "nats", lambda r: nce(r.guess, r.labels), _gain),
    "nleep": Score("NLEEP", "nats", lambda r: nleep(r.features, r.labels, generator=r.stream("nleep")), _gain),
    "logme": Score("LogME", "nats", lambda r: logme(r.features, r.labels)),
    "transrate": Score("TransRate", "nats", lambda r: transrate(r.features, r.labels)),
    "transrate_centred": Score(
        "TransRate, classes centred", "nats", lambda r: transrate(r.features, r.labels, class_centred=True)
    ),
    "gbc": Score("GBC", "1", lambda r: gbc(r.features, r.labels), _per_pair),
    "parc": Score("PARC", "1", lambda r: parc(r.features, r.labels)),
    "sfda": Score("SFDA", "1", lambda r: sfda(r.features, r.labels)),
    "probe": Score(
        "Linear probe: negative log-loss",
        "nats",
        lambda r: -linear_probe(r.features, r.labels, generator=r.stream("probe")).log_loss,
        _gain,
        baseline=True,
    ),
    "source_accuracy": Score("Accuracy on the source itself", "%", _absent, baseline=True),
    "log_samples": Score(
        "Logarithm of the number of samples", "1", lambda r: torch.tensor(float(len(r.labels))).log(), baseline=True
    ),
}
"""All scores in the order of tables; baselines last, which every table shows."""


def scores(readout: Readout, names: Sequence[str] | None = None) -> dict[str, Value]:
    """Scores of a readout by name, all of them by default.

    Example:
        >>> features = torch.eye(3).repeat(8, 1)
        >>> found = scores(Readout(features, torch.arange(3).repeat(8)))
        >>> round(found["transferability"].value, 12), round(found["nleep"].across, 6)
        (1.0, 1.098612)
        >>> found["leep"].value, found["leep"].reason
        (None, "needs the source's class probabilities (source_probabilities), and there are none")
    """
    return {name: SCORES[name].value(readout) for name in (SCORES if names is None else names)}
