"""Draws from the post-distribution have its mean and covariance."""

import math

import pytest
import torch

from leap.metrics.posterior import posterior_draws


def test_draws_have_the_covariance_of_the_formula():
    stream = torch.Generator().manual_seed(3)
    factor = torch.randn(3, 6, generator=stream, dtype=torch.float64)
    beta, variance, count = 0.7, 0.4, 200_000
    draws = posterior_draws(
        torch.arange(6.0), factor, beta=beta, prior_variance=variance, count=count, generator=stream
    )
    exact = beta * torch.linalg.inv(factor.T @ factor + beta / variance * torch.eye(6, dtype=torch.float64))
    found = torch.cov(draws.T)
    # entries of a covariance of Gaussians have a standard error of at most variance * sqrt(2 / count)
    assert (found - exact).abs().max() < 5 * variance * math.sqrt(2 / count)
    assert (draws.mean(0) - torch.arange(6.0)).abs().max() < 5 * math.sqrt(variance / count)


def test_rows_that_repeat_or_vanish_do_no_harm():
    factor = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    one = posterior_draws(
        torch.zeros(3), factor, beta=1.0, prior_variance=1.0, count=4, generator=torch.Generator().manual_seed(1)
    )
    merged = torch.tensor([[math.sqrt(2), 0.0, 0.0]])
    two = posterior_draws(
        torch.zeros(3), merged, beta=1.0, prior_variance=1.0, count=4, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 0.0}, "beta"),
        ({"prior_variance": -1.0}, "prior_variance"),
        ({"count": 0}, "count"),
        ({"factor": torch.ones(2, 5)}, "columns"),
        ({"weight": torch.tensor([1.0, math.nan])}, "finite"),
    ],
)
def test_bad_input_is_named(change, words):
    given = {"weight": torch.zeros(2), "factor": torch.eye(2), "beta": 1.0, "prior_variance": 1.0, "count": 1} | change
    weight, factor = given.pop("weight"), given.pop("factor")
    with pytest.raises(ValueError, match=words):
        posterior_draws(weight, factor, generator=torch.Generator(), **given)
