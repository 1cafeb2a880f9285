"""Task2Vec: averages over filters, and distances against independent formulas."""

import math

import pytest
import torch
from scipy.spatial.distance import cosine
from torch import nn

from leap.layout import Layout
from leap.metrics.task2vec import asymmetric_distance, cosine_distance, kl_distance, task_embedding


def embeddings(seed=0, f=30):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(2, f, generator=g, dtype=torch.float64).pow(3).add(1e-6).unbind(0)


def test_every_filter_has_its_mean():
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 5))
    layout = Layout.of(module)
    diagonal = torch.rand(layout.n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = layout.unflatten(diagonal)
    expected = [parts["0.weight"][i].mean() for i in range(4)] + [parts["3.weight"][i].mean() for i in range(3)]
    torch.testing.assert_close(task_embedding(diagonal[: layout.trunk], layout.shapes), torch.stack(expected))


@pytest.mark.parametrize(
    ("length", "shapes", "message"),
    [
        (5, [(2, 2), (2,)], "5 entries ends inside the parameter at 4 .. 5"),
        (7, [(2, 2), (2,)], "hold 6 entries, but the diagonal has 7"),
        (2, [(2,), (2, 2)], "no filter"),
        (0, [(2, 2)], "not empty"),
    ],
)
def test_a_diagonal_of_another_layout_is_refused(length, shapes, message):
    with pytest.raises(ValueError, match=message):
        task_embedding(torch.ones(length), shapes)


def test_cosine_distance_is_that_of_the_relative_embeddings():
    for seed in range(5):
        a, b = embeddings(seed)
        d = cosine_distance(a, b).item()
        assert d == pytest.approx(cosine((a / (a + b)).numpy(), (b / (a + b)).numpy()), rel=1e-10)
        assert 0 < d < 1 and d == pytest.approx(cosine_distance(b, a).item(), rel=1e-12)
    assert cosine_distance(a, a).item() == 0.0
    assert cosine_distance(a, a * 5).item() == pytest.approx(0, abs=1e-15)  # all ratios equal: one direction


def test_cosine_distance_weighs_filters_alike_and_leaves_dead_ones_out():
    a, b = embeddings()
    scale = torch.logspace(-200, 200, 30, dtype=torch.float64)
    expected = cosine_distance(a, b)
    torch.testing.assert_close(cosine_distance(a * scale, b * scale), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(cosine_distance(a * 8e307, b * 8e307), expected, rtol=1e-12, atol=0)
    dead = torch.zeros(3, dtype=torch.float64)
    assert cosine_distance(torch.cat([a, dead]), torch.cat([b, dead])) == expected


def test_kl_distance_is_that_of_gaussians():
    a, b = embeddings()
    gaussian = lambda h: torch.distributions.Normal(torch.zeros(30, dtype=torch.float64), (h + 0.1).rsqrt())  # noqa: E731
    there = torch.distributions.kl_divergence(gaussian(a), gaussian(b))
    back = torch.distributions.kl_divergence(gaussian(b), gaussian(a))
    found = kl_distance(a, b, prior_precision=0.1)
    torch.testing.assert_close(found, torch.maximum(there, back).sum(), rtol=1e-10, atol=0)
    assert found == kl_distance(b, a, prior_precision=0.1)
    assert kl_distance(a, a).item() == 0.0


def test_asymmetric_distance_prefers_the_more_complex_source():
    """Complexity is distance from the trivial task; a larger alpha counts more of it."""
    trivial = torch.full((30,), 0.1, dtype=torch.float64)
    plain, rich = trivial * 1.1, trivial.clone()
    rich[::2] *= 50
    for distance in (cosine_distance, kl_distance):
        there = asymmetric_distance(rich, plain, trivial, alpha=0.3, distance=distance)
        back = asymmetric_distance(plain, rich, trivial, alpha=0.3, distance=distance)
        gap = distance(rich, trivial) - distance(plain, trivial)
        assert there < back
        torch.testing.assert_close(back - there, 0.3 * gap, rtol=1e-10, atol=1e-12)
    assert asymmetric_distance(rich, plain, trivial, alpha=0.0) == cosine_distance(rich, plain)


@pytest.mark.parametrize("distance", [cosine_distance, kl_distance])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0, 2.0], [1.0], "one probe"),
        ([1.0, -2.0], [1.0, 1.0], "not negative"),
        ([1.0, math.nan], [1.0, 1.0], "finite"),
        ([1.0, 1.0], [0.0, 0.0], "second embedding is zero throughout"),
    ],
)
def test_what_is_no_embedding_is_refused(distance, first, second, message):
    with pytest.raises(ValueError, match=message):
        distance(torch.tensor(first), torch.tensor(second))


def test_numbers_out_of_range_are_refused():
    a, b = embeddings()
    with pytest.raises(ValueError, match="alpha must be at least 0 and finite, got -1"):
        asymmetric_distance(a, b, a, alpha=-1)
    with pytest.raises(ValueError, match="got nan"):
        kl_distance(a, b, prior_precision=math.nan)
    with pytest.raises(ValueError, match="prior_precision above 0"):
        kl_distance(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
    assert kl_distance(torch.tensor([0.0, 1.0]), torch.ones(2), prior_precision=1.0).isfinite()
