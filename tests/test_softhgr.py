"""Soft-HGR: its objective against the table's, its networks against closed forms, what it returns and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leap.metrics.canonical import canonical, correlations
from leap.metrics.hgr import ace, chi_square, label_noise_optimum, maximal_correlations
from leap.metrics.softhgr import SoftHGR, soft_correlation, soft_hgr
from leap.randomness import generator

COUNTS = torch.tensor([[19.0, 5, 6], [5, 19, 6], [6, 6, 18]])  # singular values 7/15 and 2/5


def _gaussian(samples: int, rho: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    x, noise = torch.randn(2, samples, 1, generator=draw, dtype=torch.float64)
    return x, rho * x + (1 - rho**2) ** 0.5 * noise


def _discrete(samples: int, joint: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """X as one-hot rows, Y as classes."""
    cell = torch.multinomial(joint.reshape(-1).double(), samples, replacement=True, generator=draw)
    return nn.functional.one_hot(cell // joint.shape[1], joint.shape[0]), cell % joint.shape[1]


def _every_pair(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Samples that are the joint itself, as it holds counts: cell by cell."""
    cell = torch.arange(joint.numel()).repeat_interleave(joint.reshape(-1).long())
    return cell // joint.shape[1], cell % joint.shape[1]


def _quick(x: Any, y: Any, k: int = 1, seed: int = 0, **settings: Any) -> SoftHGR:
    return soft_hgr(x, y, k, generator=generator(seed, "soft"), **{"steps": 20, **settings})


# The objective


def test_at_the_functions_of_ace_the_objective_is_half_the_squared_correlations() -> None:
    x, y = _every_pair(COUNTS)
    best = ace(COUNTS, 2)
    f, g = best.f[x], (best.g * best.sigma)[y]  # g = E[f | Y]
    assert float(soft_correlation(f, g)) == pytest.approx(17 / 45 / 2, abs=1e-12)
    assert float(soft_correlation(f[:, :1], g[:, :1])) == pytest.approx((7 / 15) ** 2 / 2, abs=1e-12)
    draw = generator(0, "moves")
    for _ in range(20):
        df = 1e-2 * torch.randn(3, 2, generator=draw, dtype=torch.float64)
        dg = 1e-2 * torch.randn(3, 2, generator=draw, dtype=torch.float64)
        assert float(soft_correlation(f + df[x], g + dg[y])) < 17 / 45 / 2


def test_the_objective_is_its_formula_and_sees_neither_offset_nor_basis() -> None:
    draw = generator(0, "objective")
    f, g = torch.randn(2, 50, 3, generator=draw, dtype=torch.float64)
    one, two = f.numpy() - f.numpy().mean(0), g.numpy() - g.numpy().mean(0)
    cross = np.mean([a @ b for a, b in zip(one, two, strict=True)])
    expected = cross - np.trace(np.cov(one.T, ddof=0) @ np.cov(two.T, ddof=0)) / 2
    assert float(soft_correlation(f, g)) == pytest.approx(expected, abs=1e-12)
    turn = torch.randn(3, 3, generator=draw, dtype=torch.float64)
    moved = soft_correlation(f @ turn + 100, g @ torch.linalg.inv(turn).T - 7)
    assert float(moved) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match=r"\[50, 3\] and \[50, 2\]"):
        soft_correlation(f, g[:, :2])


def test_canonical_maps_find_what_linear_maps_can() -> None:
    draw = generator(0, "canonical")
    hidden = torch.randn(5000, 2, generator=draw, dtype=torch.float64)
    noise = torch.randn(5000, 6, generator=draw, dtype=torch.float64)
    f = torch.cat([hidden[:, :1] + noise[:, :1], noise[:, 1:3]], 1) @ torch.randn(3, 3, generator=draw).double() + 5
    g = torch.stack([hidden[:, 0], noise[:, 3], torch.full((5000,), 3.0, dtype=torch.float64)], 1)
    maps = canonical(f, g)
    one, two = maps.paired(f, g)
    joint = torch.corrcoef(torch.cat([f, g[:, :2]], 1).T)
    a, b = (torch.linalg.inv(torch.linalg.cholesky(part)) for part in (joint[:3, :3], joint[3:, 3:]))
    whitened = a @ joint[:3, 3:] @ b.T
    assert maps.sigma.tolist() == pytest.approx([*torch.linalg.svdvals(whitened).tolist(), 0], abs=1e-10)
    assert (one.T @ one / 5000 - torch.eye(3)).abs().max() < 1e-10
    assert correlations(one, two).tolist() == pytest.approx(maps.sigma.tolist(), abs=1e-10)
    assert float(2 * soft_correlation(one, two * maps.sigma)) == pytest.approx(
        float(maps.sigma.square().sum()), abs=1e-10
    )
    assert bool((two[:, 2] == 0).all())  # the constant has no correlation, and is no division by zero
    same = canonical(torch.ones(9, 2).double(), torch.ones(9, 2).double())
    assert all(bool(torch.isfinite(part).all()) for part in same) and float(same.sigma.sum()) == 0


# Closed forms


def test_gaussians_have_rho_squared_over_one_less_rho_squared() -> None:
    draw, rho = generator(0, "gaussian"), 0.5
    found = soft_hgr(*_gaussian(40_000, rho, draw), 3, generator=draw, held_out=_gaussian(100_000, rho, draw))
    assert float(found.chi_square) == pytest.approx(rho**2 / (1 - rho**2), rel=0.05)
    assert found.sigma.tolist() == pytest.approx([rho, rho**2, rho**3], abs=0.03)


@pytest.mark.parametrize("shape", ["3x3", "20x6"])
def test_a_discrete_joint_has_the_table_of_ace(shape: str) -> None:
    draw = generator(1, "discrete", shape)
    joint = COUNTS if shape == "3x3" else torch.rand(20, 6, generator=draw) ** 4
    k = joint.shape[1] - 1
    found = soft_hgr(*_discrete(12_000, joint, draw), k, generator=draw, held_out=_discrete(100_000, joint, draw))
    assert float(found.chi_square) == pytest.approx(float(chi_square(joint)), rel=0.05)
    assert (found.sigma - maximal_correlations(joint, k)).abs().max() < 0.03
    learned, best = found.features(torch.eye(len(joint))), ace(joint, 1).f[:, 0]  # the first function, up to its sign
    root = (joint.sum(1) / joint.sum()).sqrt().double()
    assert float((root * learned[:, 0]) @ (root * best)) ** 2 > 0.9


def test_noisy_labels_of_what_no_linear_map_tells_apart() -> None:
    draw, eps = generator(0, "noise"), 0.2

    def rings(count: int) -> tuple[Tensor, Tensor]:
        clean = torch.randint(0, 2, (count,), generator=draw)
        angle = 6.2832 * torch.rand(count, generator=draw)
        x = (1 + clean)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
        return x, clean ^ (torch.rand(count, generator=draw) < eps).long()

    found = soft_hgr(*rings(8000), 1, generator=draw, held_out=rings(50_000))
    assert float(found.chi_square) == pytest.approx(float(label_noise_optimum(2, eps)), rel=0.05)


def test_held_out_samples_tell_what_is_learned_by_heart() -> None:
    draw = generator(0, "heart")
    x, y = torch.randn(600, 20, generator=draw), torch.randint(0, 4, (600,), generator=draw)
    nothing = soft_hgr(x, y, 3, generator=draw, steps=100)
    assert abs(float(nothing.chi_square)) < 0.15 and nothing.sigma.abs().max() < 0.3
    some = soft_hgr(x, (x[:, 0] + 2 * torch.randn(600, generator=draw) > 0).long(), 1, generator=draw, steps=100)
    assert float(some.chi_square) < 0.3 < float(some.learned)


# What it returns


def test_equal_draws_give_equal_results_and_the_global_generator_is_left_alone() -> None:
    draw = generator(0, "data")
    x, y = _discrete(400, COUNTS, draw)
    state = torch.get_rng_state()
    first, second, other = _quick(x, y), _quick(x, y), _quick(x, y, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.chi_square, second.chi_square) and torch.equal(first.features(x), second.features(x))
    assert not torch.equal(first.chi_square, other.chi_square)


def test_results_are_float64_whatever_the_arrays_are() -> None:
    x, y = _gaussian(2000, 0.9, generator(0, "arrays"))
    wanted = _quick(x, y)
    with torch.no_grad():  # learns all the same
        given = _quick(x.numpy(), y.tolist())
    assert float(given.chi_square) == float(wanted.chi_square) and float(given.sigma[0]) > 0.8
    for value in (wanted.chi_square, wanted.selected, wanted.learned):
        assert value.shape == () and value.dtype == torch.float64 and not value.requires_grad
    features = wanted.features(x.float())
    assert features.shape == (2000, 1) and features.dtype == torch.float64 and not features.requires_grad
    assert float(features.var()) == pytest.approx(1, abs=0.2)


def test_scale_and_offset_of_inputs_do_not_matter() -> None:
    x, y = _gaussian(2000, 0.8, generator(0, "units"))
    wide = torch.cat([x, torch.full_like(x, 7.0)], 1)  # a column that does not vary
    plain = _quick(wide, y)
    moved = _quick(wide * torch.tensor([1e-6, 1.0]) + 3, 1e5 * y)
    assert float(moved.chi_square) == pytest.approx(float(plain.chi_square), abs=1e-3)


def test_more_functions_than_classes_less_one_add_nothing() -> None:
    draw = generator(0, "more")
    joint = torch.tensor([[40.0, 10], [10, 40]])
    found = soft_hgr(*_discrete(4000, joint, draw), 3, generator=draw, steps=60)
    assert found.sigma.tolist() == pytest.approx([0.6, 0, 0], abs=0.1) and found.sigma[1:].tolist() == [0, 0]
    assert float(found.chi_square) == pytest.approx(0.36, abs=0.08)


def test_a_network_of_ones_own_is_copied_and_its_batches_are_drawn() -> None:
    draw = generator(0, "own")
    x, y = _gaussian(1000, 0.9, draw)
    own, label = (
        nn.Linear(1, 1, dtype=torch.float64),
        nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
    )
    before = own.weight.clone()
    found = _quick(x, y, network=own, label_network=label, batch=64)
    assert torch.equal(own.weight, before) and own.weight.requires_grad and own.training
    assert float(found.sigma[0]) == pytest.approx(0.9, abs=0.05)
    with torch.no_grad():
        flat = nn.Linear(1, 1)
        flat.weight.zero_()
    dead = _quick(x, y, network=nn.Sequential(flat, nn.ReLU(), nn.Hardtanh(0.0, 1e-30)))
    assert float(dead.chi_square) == 0 and float(dead.sigma[0]) == 0  # found nothing: no NaN


def test_every_class_is_learned_from_and_evaluated_on() -> None:
    """Empty classes take no part, and samples sorted by class are shuffled."""
    y = torch.tensor([0, 5, 9]).repeat_interleave(200)
    x = y[:, None] + 0.01 * torch.randn(600, 1, generator=generator(0, "sorted"))
    found = soft_hgr(x, y, 2, generator=generator(0, "soft"), steps=200, held_out=None)
    assert float(found.chi_square) == pytest.approx(2, abs=0.05)  # |Y| - 1
    again = soft_hgr(x, y, 2, generator=generator(0, "soft"), steps=200, held_out=(x[:300], y[:300]))
    assert float(again.sigma[0]) > 0.9


# What is refused


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"k": 0}, "k must be an integer of at least 1, got 0"),
        (
            {"k": 11},
            "need 110 samples in every part, got 200 to learn from, 100 to choose by and 100 held out; lower k to 10",
        ),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"learning_rate": -1.0}, r"learning_rate must be positive and finite, got -1\.0"),
        ({"batch": 5}, "batch must be at least 10 k = 10, got 5"),
        ({"y": torch.zeros(400)}, "at least 2 classes, got 1"),
        ({"y": torch.zeros(399)}, "400 rows and 399"),
        ({"y": torch.rand(400)}, "whole numbers"),
        ({"y": torch.full((400, 1), 2.5)}, "labels are the same in all 200 samples"),
        ({"x": torch.full((400, 1), 2.5)}, "the same in all"),
        ({"x": torch.full((400, 1), torch.nan)}, "not finite"),
        ({"label_network": nn.Linear(1, 1)}, "leave label_network out"),
        ({"network": nn.Linear(1, 2)}, r"must return \[b, k\], \[100, 1\] for these samples, got \[100, 2\]"),
        ({"network": nn.Linear(1, 1), "learning_rate": 1e30}, "lower learning_rate"),
        ({"held_out": (torch.zeros(50, 1), torch.full((50,), 7))}, "held-out label 7 does not occur"),
        ({"held_out": (torch.zeros(50, 1), torch.zeros(50, 1))}, r"must be classes \[m\].* got shape \[50, 1\]"),
        ({"held_out": (torch.zeros(50, 2), torch.zeros(50))}, r"the 1 columns learned from, got \[50, 2\]"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_learned_from_is_refused(change: dict[str, Any], match: str) -> None:
    draw = generator(0, "refused")
    x = torch.randn(400, 1, generator=draw)
    settings = {"x": x, "y": (x[:, 0] > 0).long(), **change}
    with pytest.raises(ValueError, match=match):
        _quick(**settings)
