"""Estimates of log-determinants that are not exact: Lanczos quadrature and Kronecker factors."""

from __future__ import annotations

import pytest
import torch
from curvature_problems import functional, network, normal, problem, refused, stream
from torch import Tensor, nn

from leap.layout import Layout
from leap.metrics.checks import check_module
from leap.metrics.dense import fisher_matrix
from leap.metrics.dual import logdet_dual
from leap.metrics.kronecker import kronecker_factors, logdet_kronecker
from leap.metrics.lanczos import fisher_product, logdet_lanczos

SCALE = 0.7


def test_products_with_the_fisher() -> None:
    v = normal(len(problem()[1]), seed=4)
    want = fisher_matrix(*problem()) @ v
    for chunk in (2, 128):
        torch.testing.assert_close(fisher_product(*problem(), chunk=chunk)(v), want, rtol=1e-10, atol=1e-12)


def test_lanczos_is_near_the_exact_value_and_says_how_near() -> None:
    exact = float(logdet_dual(*problem(), SCALE).value)
    product, size = fisher_product(*problem()), len(problem()[1])
    got = logdet_lanczos(product, size, SCALE, generator=stream(), probes=40, steps=16)
    assert got.standard_error is not None and 0 < float(got.standard_error) < 0.3 * exact
    assert abs(float(got.value) - exact) < 4 * float(got.standard_error)
    again = logdet_lanczos(product, size, SCALE, generator=stream(), probes=40, steps=16)
    other = logdet_lanczos(product, size, SCALE, generator=stream(1), probes=40, steps=16)
    assert float(again.value) == float(got.value) != float(other.value)


def test_lanczos_with_few_steps_errs_upwards_and_with_all_is_exact_a_probe() -> None:
    eigenvalues = torch.logspace(-2, 3, 12, dtype=torch.float64)
    exact = float(torch.log1p(eigenvalues).sum())  # signs of a diagonal matrix's probes do not matter
    values = []
    for steps in (1, 2, 4, 8, 12):
        got = logdet_lanczos(lambda v: eigenvalues * v, 12, 1.0, generator=stream(), probes=2, steps=steps)
        values.append(float(got.value))
        assert got.bias == ("none" if steps == 12 else "upper")
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(exact, abs=1e-9) and values[0] > exact + 1


def test_lanczos_stops_where_the_space_is_exhausted() -> None:
    eigenvalues = torch.tensor([3.0] * 5 + [0.0] * 5, dtype=torch.float64)
    got = logdet_lanczos(lambda v: eigenvalues * v, 10, 1.0, generator=stream(), probes=3, steps=9)
    assert float(got.value) == pytest.approx(5 * float(torch.tensor(4.0).log()), abs=1e-6) and got.bias == "none"
    zero = logdet_lanczos(torch.zeros_like, 10, 1.0, generator=stream(), probes=3, steps=9)
    assert float(zero.value) == 0 and zero.standard_error is not None and float(zero.standard_error) == 0


def blocks_of(matrix: Tensor, layout: Layout, name: str) -> Tensor:
    """The block of a layer, its weights in the order of cat([weight, bias], 1)."""
    index = layout.unflatten(torch.arange(layout.n, dtype=torch.float64))
    parts = [index[f"{name}.weight"].flatten(1)]
    if f"{name}.bias" in index:
        parts.append(index[f"{name}.bias"][:, None])
    order = torch.cat(parts, dim=1).reshape(-1).long()
    return matrix[order][:, order]


@pytest.mark.parametrize("bias", [True, False])
def test_kronecker_factors_of_one_input_are_exact_in_linear_layers(bias: bool) -> None:
    module = network(bias=bias)
    logits, theta, layout = functional(module)
    inputs = normal(1, 2, 4, 4, seed=3)
    part = kronecker_factors(module, inputs)["3"]
    want = blocks_of(fisher_matrix(logits, theta, inputs), layout, "3")
    torch.testing.assert_close(torch.kron(part.outputs, part.inputs), want, rtol=1e-10, atol=1e-12)


def test_kronecker_factors_keep_the_trace_of_a_convolution_with_one_position() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()).double()
    logits, theta, layout = functional(module)
    inputs = normal(1, 2, 3, 3)
    part = kronecker_factors(module, inputs)["0"]
    want = blocks_of(fisher_matrix(logits, theta, inputs), layout, "0")
    torch.testing.assert_close(torch.kron(part.outputs, part.inputs), want, rtol=1e-10, atol=1e-12)


def test_kronecker_factors_average_over_the_positions_of_a_convolution() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.Flatten()
    )  # one weight, four positions that are the logits
    part = kronecker_factors(module, torch.full((1, 1, 2, 2), 3.0))["0"]
    assert float(torch.kron(part.outputs, part.inputs)) == pytest.approx(9 * (1 - 1 / 4), abs=1e-12)  # a^2 tr S


def test_kronecker_is_above_full_on_a_network_and_leaves_it_alone() -> None:
    module = network().float()
    before = {name: p.clone() for name, p in module.named_parameters()}
    got = logdet_kronecker(module, problem()[2], SCALE)
    assert float(got.value) > float(logdet_dual(*problem(), SCALE).value) and got.bias == "upper"
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in module.named_parameters())
    assert not module[0]._forward_hooks


def test_bad_weights_and_counts_are_refused() -> None:
    logits, theta, inputs = problem()
    refused("theta holds", lambda: fisher_product(logits, theta / 0, inputs))
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        refused("scale must be positive", lambda s=scale: logdet_kronecker(nn.Linear(3, 2), normal(3, 3), s))
        refused("scale must be positive", lambda s=scale: logdet_lanczos(lambda v: v, 3, s, generator=stream()))
    refused("probes 2", lambda: logdet_lanczos(lambda v: v, 3, 1.0, generator=stream(), probes=1))
    refused("product with the curvature", lambda: logdet_lanczos(lambda v: v / 0, 3, 1.0, generator=stream()))


def test_modules_that_kronecker_factors_do_not_describe_are_refused() -> None:
    x = normal(4, 3)
    shared = nn.Linear(3, 3)
    refused("running statistics", lambda: check_module(nn.BatchNorm1d(3)))
    refused("drops at random", lambda: check_module(nn.Sequential(nn.Dropout(0.5))))
    check_module(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, track_running_stats=False)).eval())
    refused("LayerNorm", lambda: kronecker_factors(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), x), TypeError)
    refused("called twice", lambda: kronecker_factors(nn.Sequential(shared, nn.Tanh(), shared), x))
    refused("has no parameters", lambda: kronecker_factors(nn.Tanh(), x))
    refused("two classes", lambda: kronecker_factors(nn.Linear(3, 1), x))
