"""Small classifiers in float64, as functions of a vector, that the tests of curvature measure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from leap.layout import Layout
from leap.metrics.checks import Logits


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=stream(seed), dtype=torch.float64)


def network(*, classes: int = 4, bias: bool = True) -> nn.Sequential:
    body = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=bias), nn.Tanh(), nn.Flatten(), nn.Linear(12, classes)
    ).double()
    with torch.no_grad():
        for i, p in enumerate(body.parameters()):
            p.copy_(0.7 * normal(*p.shape, seed=i))
    return body


def functional(module: nn.Module) -> tuple[Logits, Tensor, Layout]:
    layout = Layout.of(module)
    return (lambda theta, x: functional_call(module, layout.unflatten(theta), (x,))), layout.flatten(module), layout


def problem() -> tuple[Logits, Tensor, Tensor]:
    """Logits of a network of 121 weights, its weights, and five inputs."""
    logits, theta, _ = functional(network())
    return logits, theta, normal(5, 2, 4, 4, seed=9)


def refused(message: str, call: Callable[[], object], error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=message):
        call()
