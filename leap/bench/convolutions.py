"""A bound on walks: the convolutions of a plain walk alone, forwards and backwards, nothing between them.

Whatever else a walk saves, it cannot be faster than its convolutions, as long as these are torch's and in the same
precision: normalization, rectifier, pooling, the head, the update and Python come on top. Each convolution is computed
in the memory layout in which it is fastest here; the first one, whose images need no gradient, also as a product of
patches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leap.bench.rows_walk import Workload

TRIES = 5  # of each way, of which the shortest decides


class Shape(NamedTuple):
    """A convolution as a network takes it."""

    images: tuple[int, ...]  # [B, C, H, W]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    first: bool  # the network's images need no gradient


def convolutions(work: Workload) -> Callable[[], None]:
    """The convolutions of all steps of all tasks, over tensors of the sizes that the plain network meets."""
    theta0 = work.family.initial(0)
    images, _ = next(iter(work.each())).sample(theta0[None], 0)
    each = [_fastest(shape, theta0) for shape in shapes(work.module, images[0])]

    def run() -> None:
        for _ in range(work.tasks * work.steps):
            for one in each:
                one()

    return run


def shapes(module: nn.Module, images: Tensor) -> list[Shape]:
    """The convolutions that a network takes of images [B, C, H, W], in order."""
    found: list[Shape] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple)
        sizes = tuple(given[0].shape), tuple(layer.weight.shape)
        found.append(Shape(*sizes, layer.stride, layer.padding, not found))

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    try:
        with torch.no_grad():
            module.to(images)(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _fastest(shape: Shape, like: Tensor) -> Callable[[], object]:
    ways: list[Callable[[], object]] = [
        _convolution(shape, like, layout) for layout in (torch.contiguous_format, torch.channels_last)
    ]
    if shape.first:
        ways.append(_product(shape, like))
    spent = [min(_seconds(way) for _ in range(TRIES)) for way in ways]
    return ways[spent.index(min(spent))]


def _convolution(shape: Shape, like: Tensor, layout: torch.memory_format) -> Callable[[], object]:
    x, weight = (like.new_ones(size).contiguous(memory_format=layout) for size in (shape.images, shape.weight))
    rest = [list(shape.stride), list(shape.padding), [1, 1], False, [0, 0], 1]
    grad = F.conv2d(x, weight, None, shape.stride, shape.padding)
    wanted: Sequence[bool] = (not shape.first, True, False)

    def run() -> object:
        F.conv2d(x, weight, None, shape.stride, shape.padding)
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *rest, wanted)

    return run


def _product(shape: Shape, like: Tensor) -> Callable[[], object]:
    places = like.new_ones(shape.images)
    out = F.conv2d(places, like.new_ones(shape.weight), None, shape.stride, shape.padding)
    rows = out.numel() // out.shape[1]
    patches = like.new_ones(rows, like.new_ones(shape.weight)[0].numel())
    weight, grad = like.new_ones(patches.shape[1], out.shape[1]), like.new_ones(rows, out.shape[1])
    return lambda: (patches @ weight, patches.t() @ grad)


def _seconds(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began
