"""Rows about transferability: H-score beside one covariance product of its size, its memory, and LogME beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.bench.memory import peak_memory
from leap.bench.row import Figure, Goal, Row
from leap.bench.timing import Contender
from leap.metrics.hscore import h_score
from leap.metrics.logme import logme
from leap.randomness import generator

Score = Callable[[Tensor, Tensor], Tensor]


class Size(NamedTuple):
    """Sizes of a row about scores of features: those of a residual network on the training images of CIFAR-100."""

    samples: int = 50_000
    columns: int = 2048
    classes: int = 100


TINY = Size(samples=200, columns=16, classes=4)


def data(size: Size, device: str) -> tuple[Tensor, Tensor]:
    """Features [m, k] in float32, as networks give them, that carry something of the labels [m]."""
    stream = generator(0, "benchmark")
    labels = torch.arange(size.samples) % size.classes
    features = torch.randn(size.samples, size.columns, generator=stream)
    features += torch.randn(size.classes, size.columns, generator=stream)[labels]
    return features.to(device), labels.to(device)


def score_work(score: Score, size: Size, device: str) -> Callable[[], object]:
    """A score of features that stand there already."""
    features, labels = data(size, device)
    return lambda: score(features, labels)


def product_work(size: Size, device: str, dtype: torch.dtype) -> Callable[[], object]:
    """A product Z^T Z of features that are of that type already."""
    features = data(size, device)[0].to(dtype)
    return lambda: features.mT @ features


def h_score_row(device: str, size: Size = Size()) -> Row:  # noqa: B008  an immutable tuple
    """Seconds and peak memory of an H-score, beside a covariance product of its size."""
    contenders = [
        _contender("H-score", partial(score_work, h_score), size, device),
        _contender("one float64 product", partial(product_work, dtype=torch.float64), size, device),
        _contender("one float32 product", partial(product_work, dtype=torch.float32), size, device),
    ]
    goals = [
        Goal("at most 3 covariance products", "H-score", "ratio", 3.0),
        Goal("memory of at most 3 times the features", "memory, H-score", "figure", 3.0),
    ]
    figures = [Figure("memory, H-score", "times the features", partial(memory, h_score, size, device))]
    return Row(contenders, "one float64 product", _setting(size, device), goals, figures)


def logme_row(device: str, size: Size = Size()) -> Row:  # noqa: B008
    """Seconds and peak memory of LogME, beside an H-score of the same features."""
    contenders = [
        _contender("H-score", partial(score_work, h_score), size, device),
        _contender("LogME", partial(score_work, logme), size, device),
    ]
    goals = [Goal("at most 1.5 times an H-score", "LogME", "ratio", 1.5)]
    figures = [Figure("memory, LogME", "times the features", partial(memory, logme, size, device))]
    return Row(contenders, "H-score", _setting(size, device), goals, figures)


def memory(score: Score, size: Size, device: str) -> float:
    """Peak memory of a score beyond its features, in sizes of the features."""
    features = size.samples * size.columns * torch.float32.itemsize
    return peak_memory(partial(score_work, score, size, device), device=device) / features


def _contender(name: str, work: Callable[..., Callable[[], object]], size: Size, device: str) -> Contender:
    small = size._replace(samples=min(size.samples, 4 * size.classes), columns=min(size.columns, size.classes))
    return Contender(name, work(size=size, device=device), warm=work(size=small, device=device))


def _setting(size: Size, device: str) -> dict[str, Any]:
    return {**size._asdict(), "features": "float32", "device": device}
