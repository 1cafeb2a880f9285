"""Complexity: closed forms, the exact free energy of linear models, identities between tasks, bounds and structure."""

from __future__ import annotations

import math

import pytest
import torch
from curvature_problems import normal, refused, stream
from torch import Tensor
from torch.nn import functional as F

from leap.metrics.complexity import (
    Complexity,
    complexity,
    expected_loss,
    information_distance,
    pac_bayes_bound,
    reachability,
    relative_reachability,
    sweep,
)
from leap.metrics.curvature import fisher_factor, gram, spectrum, tagged_gram
from leap.metrics.prior import prior_variances, whiten

BETAS = (0.3, 1.0, 4.0)
WEIGHT = normal(6)
EIGENVALUES = torch.tensor([0.0, 1e-7, 0.02, 0.5, 7.0, 300.0], dtype=torch.float64)


def parts(beta: float = 1.0, prior_variance: float = 0.8, weight: Tensor = WEIGHT) -> Complexity:
    return complexity(3.0, weight, EIGENVALUES, beta=beta, prior_variance=prior_variance)


def divergence(mean: Tensor, covariance: Tensor, prior_variance: float) -> Tensor:
    """KL of two Gaussians, the second isotropic around zero, by torch's distributions."""
    prior = torch.eye(len(mean), dtype=mean.dtype) * prior_variance
    q = torch.distributions.MultivariateNormal(mean, covariance)
    p = torch.distributions.MultivariateNormal(torch.zeros_like(mean), prior)
    return torch.distributions.kl_divergence(q, p)


def curvature() -> Tensor:
    basis = torch.linalg.qr(normal(6, 6, seed=3))[0]
    return basis @ torch.diag(EIGENVALUES) @ basis.T


@pytest.mark.parametrize("beta", BETAS)
def test_parts_add_up_to_their_definitions(beta: float) -> None:
    got, h, v = parts(beta), curvature(), 0.8
    covariance = beta * torch.linalg.inv(h + beta / v * torch.eye(6, dtype=torch.float64))
    covariance = (covariance + covariance.T) / 2
    information = divergence(WEIGHT, covariance, v)
    torch.testing.assert_close(got.information, information, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        got.total, 3.0 + torch.trace(h @ covariance) / 2 + beta * information, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(got.total, got.loss + got.norm + got.logdet, rtol=1e-15, atol=0)
    torch.testing.assert_close(expected_loss(got, beta), 3.0 + torch.trace(h @ covariance) / 2, rtol=1e-9, atol=1e-9)
    assert got.total.dtype == torch.float64 and got._fields == ("total", "loss", "norm", "logdet", "information")


@pytest.mark.parametrize("beta", BETAS)
def test_no_other_covariance_costs_less(beta: float) -> None:
    h, v = curvature(), 0.8
    best = beta * torch.linalg.inv(h + beta / v * torch.eye(6, dtype=torch.float64))
    for seed in range(5):
        noise = torch.linalg.matrix_exp(0.2 * normal(6, 6, seed=seed))
        other = noise @ best @ noise.T
        cost = 3.0 + torch.trace(h @ other) / 2 + beta * divergence(WEIGHT, (other + other.T) / 2, v)
        assert cost > parts(beta).total


def test_information_agrees_with_sampling() -> None:
    v, beta, count = 0.8, 1.0, 200_000
    variance = beta / (EIGENVALUES + beta / v)
    draws = WEIGHT + torch.randn(count, 6, generator=stream(), dtype=torch.float64) * variance.sqrt()
    log_q = -(((draws - WEIGHT).square() / variance) + variance.log()).sum(1) / 2
    log_p = -((draws.square() / v) + math.log(v)).sum(1) / 2
    sample = log_q - log_p
    error = float(sample.std()) / count**0.5
    assert abs(float(sample.mean() - parts().information)) < 4 * error < 0.05


@pytest.mark.parametrize("beta", BETAS)
def test_linear_gaussian_models_attain_the_exact_free_energy(beta: float) -> None:
    x, y, v = normal(8, 3), normal(8, seed=1), 0.6  # L(w) = |y - X w|^2 / 2 + constant, P = N(0, v I)
    h = x.T @ x
    w = torch.linalg.solve(h + beta / v * torch.eye(3, dtype=torch.float64), x.T @ y)
    loss = (y - x @ w).square().sum() / 2 + 4 * math.log(2 * math.pi * beta)
    # -beta log E_P exp(-L / beta): with the constant above, y ~ N(0, beta I + v X X^T)
    noise = beta * torch.eye(8, dtype=torch.float64) + v * x @ x.T
    exact = -beta * torch.distributions.MultivariateNormal(torch.zeros(8, dtype=torch.float64), noise).log_prob(y)
    constant = 4 * math.log(2 * math.pi * beta)
    got = complexity(loss - constant, w, spectrum(h), beta=beta, prior_variance=v).total + beta * constant
    torch.testing.assert_close(got, exact, rtol=1e-10, atol=1e-10)


def test_one_weight_of_logistic_regression_is_a_little_above_the_free_energy() -> None:
    x = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=torch.float64)
    y = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    losses = F.softplus(grid[:, None] * x) - y * grid[:, None] * x
    total = losses.sum(1)
    prior = -grid.square() / 2 - math.log(2 * math.pi) / 2
    exact = -torch.logsumexp(prior - total + math.log(float(grid[1] - grid[0])), 0)
    best = int((total + grid.square() / 2).argmin())
    p = torch.sigmoid(grid[best] * x)
    got = complexity(
        total[best], grid[best : best + 1], (x.square() * p * (1 - p)).sum()[None], beta=1, prior_variance=1
    )
    # Laplace's value need not be a bound; the exact cost of the same Gaussian is
    deviation = (1 / (1 + (x.square() * p * (1 - p)).sum())).sqrt()
    q = torch.exp(-((grid - grid[best]) / deviation).square() / 2)
    bound = (total * q).sum() / q.sum() + got.information
    assert float(exact) < float(bound) < float(exact) + 0.1
    assert float(got.total) == pytest.approx(float(exact), abs=0.1)


def test_it_increases_with_beta_is_concave_and_its_slope_is_the_information() -> None:
    betas = torch.logspace(-2, 2, 41, dtype=torch.float64)
    curve = sweep(3.0, WEIGHT, EIGENVALUES, betas.tolist(), prior_variance=0.8)
    slopes = curve.total.diff() / betas.diff()
    assert bool((slopes > 0).all()) and bool((slopes.diff() < 0).all())
    for beta in BETAS:
        step = 1e-5 * beta
        slope = (parts(beta + step).total - parts(beta - step).total) / (2 * step)
        torch.testing.assert_close(slope, parts(beta).information, rtol=1e-6, atol=1e-6)


def test_limits_of_beta() -> None:
    assert float(parts(1e-12).total) == pytest.approx(3.0, abs=1e-9)
    assert float(parts(1e9).logdet) == pytest.approx(0.4 * float(EIGENVALUES.sum()), rel=1e-6)


def test_weights_without_use_cost_nothing() -> None:
    for field, wider in zip(
        parts(),
        complexity(
            3.0,
            torch.cat([WEIGHT, torch.zeros(50)]),
            torch.cat([torch.zeros(50), EIGENVALUES]),
            beta=1.0,
            prior_variance=0.8,
        ),
        strict=True,
    ):
        torch.testing.assert_close(field, wider, rtol=1e-10, atol=1e-10)
    none = complexity(3.0, torch.zeros(4), torch.zeros(0), beta=1.0, prior_variance=1.0)
    assert [float(field) for field in none] == [3.0, 3.0, 0.0, 0.0, 0.0]


def test_small_curvature_costs_its_square_in_information() -> None:
    for h in (1e-12, 1e-9, 1e-6, 0.99e-4, 1.01e-4, 1e-3):
        got = complexity(0.0, torch.zeros(1), torch.tensor([h], dtype=torch.float64), beta=1.0, prior_variance=1.0)
        want = sum((-1) ** k * (k - 1) / k * h**k for k in range(2, 8)) / 2
        assert float(got.information) == pytest.approx(want, rel=1e-7)


def test_the_printed_constants_count_curvature_twice() -> None:
    printed = complexity(3.0, WEIGHT, EIGENVALUES, beta=1.0, prior_variance=0.8, convention="printed")
    doubled = complexity(3.0, WEIGHT, 2 * EIGENVALUES, beta=1.0, prior_variance=0.8)
    torch.testing.assert_close(torch.stack(printed), torch.stack(doubled))
    assert float(printed.logdet) > float(parts().logdet)
    covariance = torch.diag(0.5 / (EIGENVALUES + 1 / 1.6))  # as printed: beta / 2 (H + beta / (2 lambda^2) I)^-1
    torch.testing.assert_close(printed.information, divergence(WEIGHT, covariance, 0.8), rtol=1e-9, atol=1e-9)


def regression(theta: Tensor, x: Tensor, classes: int) -> Tensor:
    """One shared hidden layer of two units, then a head of its own."""
    hidden = torch.tanh(x @ theta[:6].view(3, 2))
    return hidden @ theta[6:].view(2, classes)


def tasks() -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights [trunk | head], factors and summed losses of two tasks on one trunk."""
    trunk, heads, inputs = (
        normal(6),
        (normal(4, seed=1), normal(6, seed=2)),
        (normal(5, 3, seed=3), normal(7, 3, seed=4)),
    )
    thetas = [torch.cat([trunk, head]) for head in heads]
    factors, losses = [], []
    for theta, x, classes in zip(thetas, inputs, (2, 3), strict=True):
        logits = lambda t, z, c=classes: regression(t, z, c)  # noqa: E731
        factors.append(fisher_factor(logits, theta, x).rows)
        losses.append(F.cross_entropy(logits(theta, x), torch.arange(len(x)) % classes, reduction="sum"))
    return thetas, factors, losses


def test_directions_differ_by_the_difference_of_complexities() -> None:
    thetas, factors, losses = tasks()
    alone = [
        complexity(loss, theta, spectrum(gram(factor)), beta=1.0, prior_variance=1.0)
        for loss, theta, factor in zip(losses, thetas, factors, strict=True)
    ]
    both = torch.cat([thetas[0], thetas[1][6:]])
    union = complexity(sum(losses), both, spectrum(tagged_gram(factors, 6)), beta=1.0, prior_variance=1.0)
    first, second = alone
    ahead, back = reachability(union, first), reachability(union, second)
    assert float(ahead - back) == pytest.approx(float(second.total - first.total), abs=1e-12)
    ahead, back = information_distance(union, first), information_distance(union, second)
    assert float(ahead - back) == pytest.approx(float(second.information - first.information), abs=1e-12)
    # sharing a trunk is cheaper than two networks, and costs more than nothing
    assert 0 < float(reachability(union, first)) < float(second.total)
    assert 0 < float(relative_reachability(union, source=first, target=second)) < 1


def test_a_source_pays_nothing_for_the_targets_unused_head() -> None:
    thetas, factors, losses = tasks()
    alone = complexity(losses[0], thetas[0], spectrum(gram(factors[0])), beta=1.0, prior_variance=1.0)
    wide = torch.cat([factors[0], torch.zeros(len(factors[0]), 6, dtype=torch.float64)], dim=1)
    theta = torch.cat([thetas[0], torch.zeros(6, dtype=torch.float64)])
    with_head = complexity(losses[0], theta, spectrum(gram(wide)), beta=1.0, prior_variance=1.0)
    torch.testing.assert_close(torch.stack(alone), torch.stack(with_head), rtol=1e-10, atol=1e-10)


SIZES = (4, 1, 7)


def layered() -> tuple[Tensor, Tensor]:
    scales = torch.tensor([0.1, 3.0, 1.0], dtype=torch.float64).repeat_interleave(torch.tensor(SIZES))
    return normal(12) * scales, normal(5, 12, seed=1) * 2


def complexity_of(variances: Tensor, beta: float) -> Tensor:
    weight, factor = layered()
    weight, factor = whiten(weight, factor, SIZES, variances)
    return complexity(0.0, weight, spectrum(gram(factor)), beta=beta, prior_variance=1.0).total


@pytest.mark.parametrize("beta", BETAS)
def test_layer_variances_are_a_fixed_point_and_the_cheapest(beta: float) -> None:
    weight, factor = layered()
    variances = prior_variances(weight, factor, SIZES, beta=beta)
    precision = (1 / variances).repeat_interleave(torch.tensor(SIZES))
    covariance = torch.linalg.inv(factor.T @ factor / beta + torch.diag(precision))
    spread = torch.stack([part.sum() for part in covariance.diag().split(SIZES)])
    norms = torch.stack([part.square().sum() for part in weight.split(SIZES)])
    torch.testing.assert_close(variances, (norms + spread) / torch.tensor(SIZES), rtol=1e-9, atol=0)
    best = complexity_of(variances, beta)
    for seed in range(10):
        assert complexity_of(variances * torch.exp(0.5 * normal(3, seed=seed)), beta) > best


def test_whitening_does_not_change_what_one_variance_gives() -> None:
    weight, factor = layered()
    want = complexity(1.0, weight, spectrum(gram(factor)), beta=2.0, prior_variance=0.3)
    white = whiten(weight, factor, SIZES, torch.full((3,), 0.3, dtype=torch.float64))
    got = complexity(1.0, white[0], spectrum(gram(white[1])), beta=2.0, prior_variance=1.0)
    torch.testing.assert_close(torch.stack(got), torch.stack(want), rtol=1e-10, atol=1e-10)


def test_pac_bayes_bound_has_its_closed_form_and_its_limits() -> None:
    got = pac_bayes_bound(0.1, 20.0, samples=500, beta=2.0, delta=0.01)
    assert float(got) == pytest.approx((0.1 + 2 * (20 + math.log(100)) / 500) / 0.75, abs=1e-12)
    assert float(pac_bayes_bound(0.1, 20.0, samples=10**9, beta=1e3)) == pytest.approx(0.1, abs=1e-3)
    for worse in ({"beta": 0.51}, {"samples": 100}, {"delta": 1e-6}):
        arguments = {"samples": 500, "beta": 2.0, "delta": 0.01, **worse}
        assert float(pac_bayes_bound(0.1, 20.0, **arguments)) > float(got)


def test_pac_bayes_bound_holds_for_a_finite_class() -> None:
    """Guessing the better of two coins: exact frequencies of failure stay below delta."""
    samples, delta, beta, failures, runs = 40, 0.1, 1.0, 0, 2000
    for seed in range(runs):
        flips = torch.rand(samples, generator=stream(seed)) < 0.3
        best = min(float(flips.double().mean()), float((~flips).double().mean()))
        true = 0.3 if float(flips.double().mean()) == best else 0.7
        failures += float(pac_bayes_bound(best, math.log(2), samples=samples, beta=beta, delta=delta)) < true
    assert failures / runs <= delta


def test_bad_input_is_refused() -> None:
    for value in (0.0, -1.0, float("nan"), float("inf")):
        refused("beta must be positive", lambda v=value: parts(beta=v))
        refused("prior_variance must be positive", lambda v=value: parts(prior_variance=v))
        refused("beta must be positive", lambda v=value: prior_variances(*layered(), SIZES, beta=v))
    good = {"beta": 1.0, "prior_variance": 1.0}
    refused("not be negative", lambda: complexity(0.0, WEIGHT, torch.tensor([1.0, -1e-7]), **good))
    refused("not be negative", lambda: complexity(0.0, WEIGHT, torch.tensor([-1e-30]), **good))
    assert float(complexity(0.0, WEIGHT, torch.tensor([1.0, -1e-9]), **good).logdet) == pytest.approx(0.5 * math.log(2))
    refused("not finite", lambda: complexity(0.0, WEIGHT / 0, EIGENVALUES, **good))
    refused("not finite", lambda: complexity(0.0, WEIGHT, EIGENVALUES / 0, **good))
    refused("one finite number", lambda: complexity(float("nan"), WEIGHT, EIGENVALUES, **good))
    refused("one finite number", lambda: complexity(WEIGHT, WEIGHT, EIGENVALUES, **good))
    refused("one axis", lambda: complexity(0.0, WEIGHT[None], EIGENVALUES, **good), TypeError)
    refused("is empty", lambda: complexity(0.0, WEIGHT[:0], EIGENVALUES, **good))
    refused("corrected", lambda: complexity(0.0, WEIGHT, EIGENVALUES, convention="seed", **good))  # type: ignore
    refused("at least one beta", lambda: sweep(0.0, WEIGHT, EIGENVALUES, [], prior_variance=1.0))
    nothing = complexity(0.0, torch.zeros(1), torch.zeros(1), **good)
    refused("must be positive", lambda: relative_reachability(nothing, source=nothing, target=nothing))


def test_bad_layers_are_refused() -> None:
    weight, factor = layered()
    refused("add up to 12", lambda: prior_variances(weight, factor, (4, 1), beta=1.0))
    refused("add up to 12", lambda: whiten(weight, factor, (4, 1), torch.ones(2)))
    silent = factor.clone()
    silent[:, 4:5] = 0
    refused(r"layers \[1\]: curvature is zero", lambda: prior_variances(weight, silent, SIZES, beta=1.0))
    empty = weight.clone()
    empty[:4] = 0
    refused(r"layers \[0\]: weights are all zero", lambda: prior_variances(empty, factor, SIZES, beta=1.0))
    refused("variances must be positive", lambda: whiten(weight, factor, SIZES, torch.tensor([1.0, 0.0, 1.0])))


@pytest.mark.parametrize(
    "change,message",
    [
        ({"error": 1.1}, "error must lie"),
        ({"information": -1.0}, "information must not"),
        ({"samples": 0}, "samples must be"),
        ({"delta": 0.0}, "delta in"),
        ({"beta": 0.5}, "above 1/2"),
        ({"beta": float("nan")}, "beta must be positive"),
        ({"error": float("nan")}, "one finite number"),
    ],
)
def test_bad_arguments_of_the_bound_are_refused(change: dict[str, float], message: str) -> None:
    arguments = {"error": 0.1, "information": 1.0, "samples": 10, "beta": 1.0, **change}
    refused(message, lambda: pac_bayes_bound(**arguments))  # type: ignore[arg-type]
