"""The bound of walks: the convolutions of the plain network, all of them, each as often as a walk takes it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from families import small_alphabets

from leap.bench import convolutions as bound
from leap.bench import rows_learners as rows
from leap.bench.rows_walk import Workload


@pytest.fixture(scope="module")
def work() -> Workload:
    family = small_alphabets()
    plain = rows.PlainConv4(family.protocol.ways, filters=3)
    return Workload(family, plain, tasks=3, steps=4, execution="sequential", name="tiny", lr=0.1)


def test_the_convolutions_are_those_that_the_network_takes() -> None:
    found = bound.shapes(rows.PlainConv4(5, filters=3), torch.rand(7, 1, 28, 28))
    assert [shape.images for shape in found] == [(7, 1, 28, 28), (7, 3, 14, 14), (7, 3, 7, 7), (7, 3, 3, 3)]
    assert [shape.weight for shape in found] == [(3, 1, 3, 3)] + [(3, 3, 3, 3)] * 3
    assert [shape.first for shape in found] == [True, False, False, False]
    assert {(shape.stride, shape.padding) for shape in found} == {((1, 1), (1, 1))}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("first", [True, False])
def test_a_convolution_is_taken_forwards_and_backwards(layout: torch.memory_format, first: bool) -> None:
    shape = bound.Shape((2, 1, 6, 6), (4, 1, 3, 3), (1, 1), (1, 1), first)
    found = bound._convolution(shape, torch.zeros(1, dtype=torch.float64), layout)()
    images, weight = (torch.ones(size, dtype=torch.float64, requires_grad=True) for size in shape[:2])
    out = torch.conv2d(images, weight, padding=1)
    expected = torch.autograd.grad(out, (images, weight), out.detach())
    assert isinstance(found, tuple)
    assert (found[0] is None) == first
    torch.testing.assert_close(found[1], expected[1])
    if not first:
        torch.testing.assert_close(found[0], expected[0])


def test_a_product_of_patches_is_the_same_convolution_of_ones() -> None:
    shape = bound.Shape((2, 1, 6, 6), (4, 1, 3, 3), (1, 1), (1, 1), True)
    found = bound._product(shape, torch.zeros(1))()
    assert isinstance(found, tuple) and [tuple(part.shape) for part in found] == [(2 * 6 * 6, 4), (9, 4)]


def test_as_many_are_taken_as_in_a_walk(work: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bound.Shape] = []
    monkeypatch.setattr(bound, "_fastest", lambda shape, like: lambda: taken.append(shape))
    bound.convolutions(work)()
    assert len(taken) == 3 * 4 * 4 and len(set(taken)) == 4
    bound.convolutions(dataclasses.replace(work, steps=1))()
    assert len(taken) == 48 + 12


def test_the_fastest_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = {"plain": 3.0, "last": 2.0, "product": 1.0}
    names = {torch.contiguous_format: "plain", torch.channels_last: "last"}
    monkeypatch.setattr(bound, "_convolution", lambda shape, like, layout: lambda: names[layout])
    monkeypatch.setattr(bound, "_product", lambda shape, like: lambda: "product")
    monkeypatch.setattr(bound, "_seconds", lambda way: spent[way()])
    shape = bound.Shape((2, 1, 6, 6), (4, 1, 3, 3), (1, 1), (1, 1), True)
    assert bound._fastest(shape, torch.zeros(1))() == "product"
    assert bound._fastest(shape._replace(first=False), torch.zeros(1))() == "last"
