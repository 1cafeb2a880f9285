"""LogME: the evidence of a Gaussian with a full covariance, closed forms, invariances, and public code's extra term."""

import math

import numpy as np
import pytest
import torch

from leap.metrics.logme import NOISE, evidence, logme


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def setting(n=60, k=5, classes=3, seed=0, noise=1.0):
    labels = torch.arange(n) % classes
    return draw(classes, k, seed=seed + 2)[labels] + noise * draw(n, k, seed=seed + 3), labels


def gaussian(z, y, alpha, beta):
    """log N(y; 0, F F^T / alpha + I / beta) / n, the covariance in full."""
    covariance = z @ z.T / alpha + torch.eye(len(z), dtype=torch.float64) / beta
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(z), dtype=torch.float64), covariance)
    return float(normal.log_prob(y.double())) / len(z)


def published(z, y, alpha, beta, columns):
    """The evidence as the paper writes it, with `columns` in D / 2 log alpha, over n."""
    n, d = z.shape
    a = alpha * torch.eye(d, dtype=torch.float64) + beta * z.T @ z
    m = beta * torch.linalg.solve(a, z.T @ y)
    fit, size = beta * (z @ m - y).square().sum() + alpha * m.square().sum(), torch.linalg.eigvalsh(a)
    logdet = size.sort().values[d - columns :].log().sum()
    return float(columns * math.log(alpha) + n * math.log(beta / (2 * math.pi)) - fit - logdet) / (2 * n)


def one_hot(labels):
    return torch.nn.functional.one_hot(torch.as_tensor(labels)).double().T


def close(a, b, tolerance=1e-10):
    assert float(a) == pytest.approx(float(b), rel=tolerance, abs=tolerance)


CASES = {
    "tall": dict(n=60, k=5), "many classes": dict(n=40, k=3, classes=9), "square": dict(n=20, k=20, noise=3.0),
    "wide": dict(n=20, k=30, noise=3.0), "noisy": dict(n=80, k=8, noise=30.0), "clear": dict(n=50, k=4, noise=0.05),
    "one column": dict(n=30, k=1),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 50])
def test_the_score_is_a_gaussian_s_log_density_at_its_alpha_and_beta(case, seed):
    z, labels = setting(**CASES[case], seed=seed)
    found = evidence(z, labels)
    expected = [gaussian(z, y, *at) for y, *at in zip(one_hot(labels), found.alpha, found.beta, strict=True)]
    for value, own in zip(found.values, expected, strict=True):
        close(value, own)
    close(logme(z, labels), np.mean(expected))


@pytest.mark.parametrize("case", ["tall", "many classes", "noisy", "clear", "one column"])
def test_no_alpha_and_beta_give_more(case):
    """Against a grid over 30 decades of both, finer about the optimum."""
    z, labels = setting(**CASES[case])
    found = evidence(z, labels)
    values, vectors = torch.linalg.eigh(z @ z.T)
    for y, best, alpha, beta in zip(one_hot(labels), found.values, found.alpha, found.beta, strict=True):
        squares = (vectors.T @ y).square()
        centre = alpha if alpha.isfinite() else torch.tensor(1e15)
        for decades in (15.0, 1.0, 0.01):
            steps = torch.logspace(-decades, decades, 201, dtype=torch.float64)
            variance = values.clamp_min(0) / (centre * steps)[:, None, None] + 1 / (beta * steps)[:, None]  # [a, b, n]
            density = -0.5 * ((2 * math.pi * variance).log() + squares / variance).mean(-1)
            assert density.max() <= best + 1e-12
        if alpha.isfinite():
            assert density.max() > best - 1e-9


@pytest.mark.parametrize("case", ["tall", "noisy", "clear"])
def test_the_paper_s_equations_hold_at_the_optimum(case):
    z, labels = setting(**CASES[case])
    found = evidence(z, labels)
    for y, alpha, beta in zip(one_hot(labels), found.alpha, found.beta, strict=True):
        if not alpha.isfinite():
            continue
        m = beta * torch.linalg.solve(alpha * torch.eye(z.shape[1], dtype=torch.float64) + beta * z.T @ z, z.T @ y)
        squares = torch.linalg.svdvals(z).square()
        gamma = (squares / (squares + alpha / beta)).sum()
        close(alpha * m.square().sum(), gamma, 1e-8)
        close(beta * (z @ m - y).square().sum(), len(z) - gamma, 1e-8)


def test_the_paper_s_iteration_ends_there():
    z, labels = setting()
    y = one_hot(labels)[0]
    alpha = beta = torch.tensor(1.0, dtype=torch.float64)
    squares = torch.linalg.svdvals(z).square()
    for _ in range(2000):
        m = beta * torch.linalg.solve(alpha * torch.eye(5, dtype=torch.float64) + beta * z.T @ z, z.T @ y)
        gamma = (squares / (squares + alpha / beta)).sum()
        alpha, beta = gamma / m.square().sum(), (len(z) - gamma) / (z @ m - y).square().sum()
    found = evidence(z, labels)
    close(found.alpha[0], alpha, 1e-8)
    close(found.beta[0], beta, 1e-8)


@pytest.mark.parametrize("length", [1.0, 1e-3])
def test_orthogonal_columns_of_equal_length_have_a_closed_form(length):
    """With P = |F^T y|^2 / s and rest rho: 1 + t s = P (n - k) / (k rho), or t = 0 where that is less than 1."""
    n, k = 40, 3
    z = length * torch.linalg.qr(torch.cat([torch.ones(n, 1), draw(n, k - 1)], 1)).Q
    labels = torch.arange(n) % 4 // 3  # 30 and 10 samples
    found, s = evidence(z, labels), length**2
    for y, *own in zip(one_hot(labels), *found, strict=True):
        inside = (z.T @ y).square().sum() / s
        outside = y.sum() - inside
        gain = max(1.0, float(inside * (n - k) / (k * outside)))
        beta = n / float(outside + inside / gain)
        expected = (math.log(beta / (2 * math.pi)) - 1 - k * math.log(gain) / n) / 2
        for value, wanted in zip(own, (expected, beta * s / (gain - 1) if gain > 1 else math.inf, beta), strict=True):
            close(value, wanted, 1e-9)
    assert found.alpha[0].isfinite()


def test_features_that_say_nothing_of_a_class_are_not_used():
    """The evidence then falls from t = 0 on, where the paper's alpha grows without end."""
    z = torch.tensor([1.0, -1.0]).repeat(10)[:, None]
    labels = torch.arange(20) // 10
    found = evidence(z, labels)
    assert torch.isinf(found.alpha).all()
    for value, beta in zip(found.values, found.beta, strict=True):
        close(beta, 2.0)
        close(value, -0.5 * (math.log(math.pi) + 1))


@pytest.mark.parametrize("case", CASES)
def test_empty_columns_rotations_and_a_common_factor_do_not_matter(case):
    z, labels = setting(**CASES[case])
    found, k = float(logme(z, labels)), z.shape[1]
    close(logme(torch.cat([z, torch.zeros(len(z), 4)], 1), labels), found, 1e-9)
    close(logme(z @ torch.linalg.qr(draw(k, k, seed=9)).Q, labels), found, 1e-9)
    close(logme(torch.cat([z, z], 1) / math.sqrt(2), labels), found, 1e-9)
    for factor in (1e-6, -3.0, 1e8):
        close(logme(factor * z, labels), found, 1e-9)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(1))
    close(logme(z[order], labels[order]), found, 1e-9)
    close(evidence(3 * z, labels).alpha[0], 9 * evidence(z, labels).alpha[0], 1e-5)


@pytest.mark.parametrize("factor", [1e-170, 1e170])
def test_features_of_any_size_give_no_nan(factor):
    z, labels = torch.tensor([1.0, -1.0]).repeat(10)[:, None].double(), torch.arange(20) % 10 // 3
    found, same = evidence(factor * z, labels), evidence(z, labels)
    torch.testing.assert_close(found.values, same.values)
    assert not found.alpha.isnan().any()


def test_other_linear_maps_and_centring_do_matter():
    z, labels = setting()
    found = float(logme(z, labels))
    assert abs(float(logme(z * torch.logspace(0, 2, 5, dtype=torch.float64), labels)) - found) > 1e-4
    assert abs(float(logme(z - z.mean(0), labels)) - found) > 1e-2
    assert float(logme(torch.cat([z, torch.ones(60, 1)], 1), labels)) > found + 1e-2  # no intercept of its own


@pytest.mark.parametrize(("n", "d"), [(50, 80), (50, 7)])
def test_alpha_counts_directions_not_columns(n, d):
    """Public code has D / 2 log alpha beside a determinant over r < D values: (D - r) / (2 n) log alpha too much."""
    z, labels = setting(n=n, k=5, noise=3.0)
    z = draw(n, d, seed=5) if d > n else torch.cat([z, torch.zeros(n, d - 5)], 1)
    rank = min(n, 5 if d < n else d)
    found = evidence(z, labels)
    alpha, beta = 7.0, 3.0
    y = one_hot(labels)[0]
    close(published(z, y, alpha, beta, d), gaussian(z, y, alpha, beta))
    wrong = published(z, y, alpha, beta, rank) + (d - rank) / (2 * n) * math.log(alpha)
    assert wrong > gaussian(z, y, alpha, beta) + 0.01
    for y, value, *at in zip(one_hot(labels), found.values, found.alpha, found.beta, strict=True):
        if at[0].isfinite():
            close(value, published(z, y, float(at[0]), float(at[1]), rank), 1e-9)


@pytest.mark.parametrize("k", [3, 5, 12, 30], ids=["labels", "more", "as many", "wide"])
def test_features_that_interpolate_have_a_finite_score(k):
    labels = torch.arange(12) % 3
    z = torch.eye(3, dtype=torch.float64)[labels] if k == 3 else draw(12, k)
    if k == 5:
        z[:, :3] = torch.eye(3, dtype=torch.float64)[labels]
    found = evidence(z, labels)
    assert found.values.isfinite().all() and found.beta.isfinite().all() and not found.alpha.isnan().any()
    assert (found.beta <= 12 / (NOISE * 4) * (1 + 1e-12)).all()
    rest = -0.5 * (math.log(2 * math.pi * 4 / 12) + 1)
    assert (found.values < rest + 14.4).all()
    if k <= 5:
        close(found.beta[0], 12 / (NOISE * 4))
        assert found.values.min() > rest + 5
    mixed = logme(z @ torch.linalg.qr(draw(k, k, seed=2)).Q * 7, labels)
    close(mixed, found.values.mean(), 1e-9)


def test_interpolating_features_are_still_ordered():
    """The same labels from weights of length 1, and of length 100: the first are what a prior finds simple."""
    labels = torch.arange(12) % 3
    near = torch.eye(3, dtype=torch.float64)[labels]
    far = torch.cat([near[:, :1] * 100, near[:, 1:] + near[:, :1] * 100], 1)
    assert logme(near, labels) > logme(far, labels) + 0.01


def test_the_limit_of_the_noise_is_a_limit_not_a_change():
    """Above it a tenth of the residual adds log 10 a sample, to first order; below it nothing."""
    labels = torch.arange(3000) % 3
    signal, noise = torch.eye(3, dtype=torch.float64)[labels], draw(3000, 3)
    values = [float(logme(signal + 10.0**-e * noise, labels)) for e in (2, 3, 4, 8, 9)]
    assert values[1] - values[0] == pytest.approx(math.log(10), abs=5e-3)
    assert values[2] - values[1] == pytest.approx(math.log(10), abs=5e-3)
    assert abs(values[4] - values[3]) < 1e-3


def test_better_features_score_more():
    scores = [float(logme(*setting(n=300, noise=noise))) for noise in (0.1, 0.5, 2.0, 10.0)]
    assert scores == sorted(scores, reverse=True)


def test_arrays_of_any_kind_and_classes_without_samples():
    z, labels = setting()
    found = logme(z, labels)
    assert found.dtype == torch.float64 and found.dim() == 0
    close(logme(z.tolist(), labels.tolist()), found, 1e-12)
    close(logme(z.numpy(), (5 * labels).numpy()), found, 1e-12)
    assert logme(z.float(), labels) == logme(z.float().double(), labels)


def test_a_class_of_one_sample_and_a_constant_column_are_allowed():
    z, labels = setting()
    labels[7] = 3
    z[:, 0] = 1
    assert evidence(z, labels).values.shape == (4,) and logme(z, labels).isfinite()


def test_constant_features_and_one_class_are_refused():
    with pytest.raises(ValueError, match="the same in all 4 samples"):
        logme(torch.ones(4, 2), [0, 0, 1, 1])
    with pytest.raises(ValueError, match="at least 2 classes"):
        logme(torch.eye(4), [1, 1, 1, 1])
