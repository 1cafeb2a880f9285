"""Diffusion on known potentials: Ornstein-Uhlenbeck, the double well, valleys of varying width, SGD on a quadratic."""

import itertools
import math

import pytest
import torch
from scipy import integrate

from leap.metrics import dynamics
from leap.metrics.complexity import complexity
from leap.randomness import generator

D = 0.1


def double_well(w):
    return (w**2 - 1) ** 2


def close(value, expected, tolerance=1e-12):
    torch.testing.assert_close(
        torch.as_tensor(value, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=tolerance,
        atol=tolerance,
    )


# Temperature


def test_sgd_on_a_quadratic_settles_at_the_exact_stationary_variance():
    """Var = eta s^2 / (B (2 - eta)) over independent runs, within four standard errors of a Gaussian's variance."""
    eta, size, s, runs = 0.5, 4, 1.5, 40_000
    draw = generator(0, "stationary variance")
    w = torch.zeros(runs, dtype=torch.float64)
    for _ in range(40):  # what is left of the start: (1 - eta)^40
        w -= eta * (w - s * torch.randn(runs, size, generator=draw, dtype=torch.float64).mean(1))
    exact = eta * s**2 / (size * (2 - eta))
    assert abs(w.var() - exact) < 4 * exact * math.sqrt(2 / runs)
    close(dynamics.sgd_temperature(eta, size, s**2, 1) / (1 - eta / 2), exact)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_momentum_heats_as_the_exact_discrete_law_says_for_small_steps(momentum):
    """The stationary covariance of (w, velocity) solves a linear equation; its variance tends to D."""
    gaps = []
    for eta in (1e-2, 1e-3, 1e-4):
        a = torch.tensor([[1 - eta, -eta * momentum], [1.0, momentum]], dtype=torch.float64)
        b = torch.tensor([-eta, 1.0], dtype=torch.float64)  # gradient w + noise: v' = mu v + g, w' = w - eta v'
        identity = torch.eye(4, dtype=torch.float64)
        covariance = torch.linalg.solve(identity - torch.kron(a, a), torch.outer(b, b).reshape(-1))
        gaps.append(abs(float(covariance[0] / dynamics.sgd_temperature(eta, 1, 1.0, 1, momentum=momentum)) - 1))
    assert gaps[-1] < 1e-4
    assert gaps[2] < gaps[1] / 9 < gaps[0] / 80


def test_drawing_without_replacement_cools_by_the_exact_finite_population_factor():
    """All batches of 3 out of 7, against the unbiased trace that `noise_trace` gives."""
    z = torch.tensor([0.3, -1.0, 2.0, 0.7, 0.0, -0.4, 1.1], dtype=torch.float64)
    trace = dynamics.noise_trace(lambda w, x, y: ((w - x) ** 2 / 2).mean(), torch.zeros(1).double(), z, z)
    means = torch.stack([z[list(batch)].mean() for batch in itertools.combinations(range(7), 3)])
    close(dynamics.sgd_temperature(0.2, 3, trace, 1, dataset_size=7), 0.2 / 2 * means.var(correction=0))
    assert dynamics.sgd_temperature(0.2, 7, trace, 1, dataset_size=7) == 0


def test_temperature_scales_as_its_formula():
    base = dynamics.sgd_temperature(0.1, 8, 3.0, 10)
    assert base.dtype == torch.float64
    close(base, 0.1 * 3.0 / (2 * 8 * 10))
    close(dynamics.sgd_temperature(0.2, 16, 3.0, 10), base)
    close(dynamics.sgd_temperature(0.1, 8, 3.0, 10, momentum=0.9), 10 * base)


def test_noise_trace_is_the_trace_of_the_covariance_of_gradients_taken_one_by_one():
    draw = generator(0, "noise trace")
    x = torch.randn(11, 3, generator=draw, dtype=torch.float64)
    y = torch.randint(4, (11,), generator=draw)
    theta = torch.randn(12, generator=draw, dtype=torch.float64)

    def loss(w, inputs, labels):
        return torch.nn.functional.cross_entropy(inputs @ w.view(3, 4), labels)

    rows = []
    for i in range(11):
        w = theta.clone().requires_grad_()
        rows.append(torch.autograd.grad(loss(w, x[i : i + 1], y[i : i + 1]), w)[0])
    expected = torch.stack(rows).T.cov().trace()
    for chunk in (1, 4, 11, 64):
        close(dynamics.noise_trace(loss, theta, x, y, chunk=chunk), expected)
    single = dynamics.noise_trace(loss, theta.float(), x.float(), y)
    assert single.dtype == torch.float64 and float(single) == pytest.approx(float(expected), rel=1e-5)


def test_noise_trace_survives_a_gradient_whose_mean_dwarfs_its_spread():
    z = 1e8 + torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    close(dynamics.noise_trace(lambda w, x, y: ((w - x) ** 2 / 2).mean(), torch.zeros(1).double(), z, z), 1.0)


# Free energy


def test_marginal_of_a_valley_of_varying_width_is_the_effective_potential():
    """Quadrature over y of exp(-U/D), U = u(x) + h(x) y^2/2: exactly U + (D/2) log h, up to one constant."""
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    u, h = double_well(x), 1 + 20 * (x + 1) ** 2
    y = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    marginal = -D * (-(u[:, None] + h[:, None] * y**2 / 2) / D).logsumexp(1)
    ours = dynamics.effective_potential(u, h[:, None], D)
    close(marginal - marginal[0], ours - ours[0])
    wrong = u + D * h.log()  # the coefficient in print
    assert (wrong - wrong[0] - (marginal - marginal[0])).abs().max() > 0.1


def test_masses_of_two_basins_of_different_width_follow_their_free_energies():
    """U = min of two parabolas at low temperature; the barrier between them holds e^-100 of the mass."""
    h, depth, d = torch.tensor([1.0, 25.0], dtype=torch.float64), torch.tensor([0.02, 0.0], dtype=torch.float64), 0.01
    w = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    left, right = (depth[i] + h[i] * (w - c) ** 2 / 2 for i, c in ((0, -4), (1, 4)))
    u = torch.minimum(left, right)
    ratio = (-u / d)[left < right].logsumexp(0) - (-u / d)[left >= right].logsumexp(0)
    free = dynamics.effective_potential(depth, h[:, None], d)
    close(ratio, dynamics.log_detailed_balance_ratio(free[0] - free[1], d), 1e-9)


def test_effective_potential_is_complexity_a_sample_up_to_its_constant():
    """beta = N D, lambda^2 = D / gamma."""
    n, gamma, k = 50, 0.02, 6
    draw = generator(0, "identity")
    for _ in range(3):
        w, h = (torch.randn(k, generator=draw, dtype=torch.float64) for _ in range(2))
        h, mean_loss = h.square(), 0.7
        static = complexity(n * mean_loss, w, n * h, beta=n * D, prior_variance=D / gamma).total / n
        ours = dynamics.effective_potential(mean_loss + gamma / 2 * w.square().sum(), h, D, weight_decay=gamma)
        close(static, ours - D / 2 * k * math.log(gamma))


def test_determinants_beyond_the_range_of_floats():
    d = 4000
    wide = torch.full((d,), 1e3, dtype=torch.float64)
    assert wide.prod() == math.inf
    close(dynamics.effective_potential(0.0, wide, D), D / 2 * d * math.log(1e3))
    saddle = torch.cat([-wide[:1], wide[1:] / 2])
    # det ratio 2^(d-1), against a barrier that nearly undoes it
    log_rate = dynamics.log_kramers_rate(wide, saddle, D * d * math.log(2) / 2, D)
    close(log_rate, math.log(1e3 / (2 * math.pi)) - math.log(2) / 2)
    assert math.isfinite(dynamics.kramers_rate(wide, saddle, D * d * math.log(2) / 2, D))


# Rates and passage times


def test_double_well_times_are_the_known_ones():
    saddle = dynamics.mean_first_passage_time(double_well, -1.0, 0.0, D)
    well = dynamics.mean_first_passage_time(double_well, -1.0, 1.0, D)
    assert float(saddle) == pytest.approx(12762.68, abs=0.005)
    assert float(well) == pytest.approx(25527.09, abs=0.005)
    log_rate = dynamics.log_kramers_rate(torch.tensor([8.0]), torch.tensor([-4.0]), 1.0, D)
    assert float(1 / dynamics.kramers_rate(torch.tensor([8.0]), torch.tensor([-4.0]), 1.0, D)) == pytest.approx(
        24465.25, abs=0.005
    )
    close(dynamics.log_escape_time(log_rate, to="well"), math.log(24465.25), 1e-6)
    close(dynamics.log_escape_time(log_rate, to="saddle"), math.log(24465.25 / 2), 1e-6)


def test_kramers_becomes_exact_as_temperature_falls_beyond_what_floats_hold():
    gaps = []
    for d in (0.1, 0.01, 0.001, 0.0001):
        log_rate = dynamics.log_kramers_rate(torch.tensor([8.0]), torch.tensor([-4.0]), 1.0, d)
        exact = dynamics.log_mean_first_passage_time(double_well, -1.0, 1.0, d)
        gaps.append(float(exact - dynamics.log_escape_time(log_rate, to="well")))
    assert float(exact) > 9000
    for gap, d in zip(gaps, (0.1, 0.01, 0.001, 0.0001), strict=True):
        assert 0 < gap < 0.5 * d  # first order in d: 3/8


def test_passage_time_agrees_with_independent_nested_quadrature():
    def tilted(w):
        return w**4 / 4 - w**2 / 2 + 0.3 * w

    def nested(a, b, d):
        def inner(y):
            return integrate.quad(lambda z: math.exp(-tilted(z) / d), -8, y, epsabs=0, epsrel=1e-11, limit=400)[0]

        return integrate.quad(lambda y: math.exp(tilted(y) / d) * inner(y), a, b, epsabs=0, epsrel=1e-9)[0] / d

    for a, b, d in ((-1.2, 0.9, 0.15), (0.2, 1.4, 0.4), (-2.0, -1.0, 0.3)):
        close(dynamics.mean_first_passage_time(tilted, a, b, d), nested(a, b, d), 1e-8)


def test_free_diffusion_between_a_wall_and_a_target_takes_the_parabola():
    for a in (0.0, 0.5, 1.5):
        close(dynamics.mean_first_passage_time(lambda w: 0 * w, a, 2.0, D, wall=0.0), (4 - a**2) / (2 * D), 1e-11)
        close(dynamics.mean_first_passage_time(lambda w: 0 * w, -a, -2.0, D, wall=0.0), (4 - a**2) / (2 * D), 1e-11)


def test_passage_times_add_along_the_line_and_mirror():
    def slope(w):
        return w**2 / 2 + 0.2 * w

    steps = [float(dynamics.mean_first_passage_time(slope, a, b, D)) for a, b in ((-1.0, 0.3), (0.3, 1.0))]
    assert sum(steps) == pytest.approx(float(dynamics.mean_first_passage_time(slope, -1.0, 1.0, D)), rel=1e-10)
    mirrored = dynamics.mean_first_passage_time(lambda w: slope(-w), 1.0, -1.0, D)
    assert float(mirrored) == pytest.approx(sum(steps), rel=1e-10)
    there, back = (dynamics.log_mean_first_passage_time(slope, a, -a, D) for a in (1.0, -1.0))
    assert abs(there - back) > 0.1
    assert dynamics.mean_first_passage_time(slope, 0.5, 0.5, D) == 0


def test_a_well_behind_a_hill_counts_however_high_the_hill():
    """Rarely visited, but for as long: the left well doubles the mean time from the right one to the right."""
    for end, d in ((1.5, 0.05), (1.1, 0.005)):
        full = dynamics.mean_first_passage_time(double_well, 1.0, end, d)
        cut = dynamics.mean_first_passage_time(double_well, 1.0, end, d, wall=0.0)
        assert float(full / cut) == pytest.approx(2.0, rel=0.01)


def test_rates_there_and_back_keep_detailed_balance_of_free_energies():
    a, b, s = torch.tensor([2.0, 3.0]), torch.tensor([5.0, 0.5]), torch.tensor([-1.5, 4.0])
    there = dynamics.log_kramers_rate(a, s, 1.0, D)
    back = dynamics.log_kramers_rate(b, s, 0.7, D)
    rise = dynamics.effective_potential(0.3, b, D) - dynamics.effective_potential(0.0, a, D)
    close(there - back, dynamics.log_detailed_balance_ratio(rise, D))
    # a transverse direction that is alike at both changes nothing
    close(
        dynamics.log_kramers_rate(a[:1], s[:1], 1.0, D),
        dynamics.log_kramers_rate(torch.tensor([2.0, 7.0]), torch.tensor([-1.5, 7.0]), 1.0, D),
    )


# Paths


def ou_log_density(b, a, t, h):
    """Transition density of dw = -h w dt + sqrt(2 D) dW."""
    variance = D / h * -math.expm1(-2 * h * t)
    return -((b - a * math.exp(-h * t)) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2


@pytest.mark.parametrize("t", [1e-3, 0.1, 1.0, 10.0])
def test_ornstein_uhlenbeck_keeps_detailed_balance_at_every_time(t):
    h, a, b = 1.7, -0.4, 0.9
    rise = h * (b**2 - a**2) / 2
    ratio = ou_log_density(b, a, t, h) - ou_log_density(a, b, t, h)
    close(dynamics.log_detailed_balance_ratio(rise, D), ratio, 1e-11 if t < 0.01 else 1e-12)
    close(dynamics.detailed_balance_ratio(rise, D).log(), ratio, 1e-11 if t < 0.01 else 1e-12)


def kernel(a, b, t, h, n):
    """log p_t(b | a) by integrating exp(static + path) over all n-step paths, and the path factor K_t alone."""

    def minus_path(inner):
        w = torch.cat([torch.tensor([a]).double(), inner, torch.tensor([b]).double()])[:, None]
        laplacians = torch.full((n + 1,), h, dtype=torch.float64)
        factors = dynamics.transition_factors(w, h * (b**2 - a**2) / 2, h * w, laplacians, t / n, D)
        return -factors.path, factors.static

    zero = torch.zeros(n - 1, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda w: minus_path(w)[0], zero)
    form = torch.autograd.functional.hessian(lambda w: minus_path(w)[0], zero)
    value, static = minus_path(zero)
    gauss = slope @ torch.linalg.solve(form, slope) / 2 - torch.linalg.slogdet(form)[1] / 2
    path = -value + gauss + (n - 1) / 2 * math.log(2 * math.pi) - n / 2 * math.log(4 * math.pi * D * t / n)
    return float(path + static), float(path)


def test_integrated_over_all_paths_the_two_factors_are_the_transition_probability():
    """Second order in the step, symmetric in its path factor to round-off: drift's sign, V and the 2D are all in it."""
    h, a, b, t = 1.3, -0.5, 0.7, 0.8
    exact = ou_log_density(b, a, t, h)
    gaps = [abs(kernel(a, b, t, h, n)[0] - exact) for n in (16, 32, 64)]
    assert gaps[2] < 2e-4
    assert gaps[1] < gaps[0] / 3.9 and gaps[2] < gaps[1] / 3.9
    close(kernel(a, b, t, h, 32)[1], kernel(b, a, t, h, 32)[1])


def random_path(n=40, d=3):
    draw = generator(0, "path")
    path = torch.randn(n + 1, d, generator=draw, dtype=torch.float64).cumsum(0) / 5
    potential = (path**4).sum(1) / 4 + (path**2).sum(1)
    return path, float(potential[-1] - potential[0]), path**3 + 2 * path, (3 * path**2 + 2).sum(1)


def test_reversing_a_path_keeps_its_path_factor_and_flips_the_static_one():
    path, rise, gradients, laplacians = random_path()
    there = dynamics.transition_factors(path, rise, gradients, laplacians, 0.05, D)
    back = dynamics.transition_factors(path.flip(0), -rise, gradients.flip(0), laplacians.flip(0), 0.05, D)
    close(there.path, back.path)
    close(there.static, -back.static)
    close(there.total - back.total, dynamics.log_detailed_balance_ratio(rise, D))


def smooth(n, t=2.0):
    """A smooth path of U = sum w^4/4 and its time step."""
    s = torch.linspace(0, t, n + 1, dtype=torch.float64)[:, None]
    path = torch.cat([torch.sin(s), 0.5 * torch.cos(2 * s)], 1)
    return path, path**3, (3 * path**2).sum(1), t / n


def test_factors_add_up_to_minus_the_stratonovich_action():
    gaps = []
    for n in (100, 200, 400):
        path, gradients, laplacians, dt = smooth(n)
        rise = float((path[-1] ** 4 - path[0] ** 4).sum() / 4)
        total = dynamics.transition_factors(path, rise, gradients, laplacians, dt, D).total
        gaps.append(float((total + dynamics.stratonovich_action(path, gradients, laplacians, dt, D)).abs()))
    assert gaps[2] < gaps[1] / 3.9 < gaps[0] / 15
    assert gaps[2] < 1e-3


def test_on_smooth_paths_the_actions_differ_by_half_the_laplacian():
    gaps = []
    for n in (400, 800, 1600):
        path, gradients, laplacians, dt = smooth(n)
        half = torch.trapezoid(laplacians, dx=dt) / 2
        ito = dynamics.path_action(path, gradients[:-1], dt, D)
        gaps.append(float((dynamics.stratonovich_action(path, gradients, laplacians, dt, D) + half - ito).abs()))
    assert gaps[1] < gaps[0] / 1.9 and gaps[2] < gaps[1] / 1.9 and gaps[2] < 0.01


def test_on_diffusing_paths_the_actions_agree():
    """Their difference has standard deviation (h/2) sqrt(2 t dt); five of them bound it, far below the Laplacian."""
    h, dt, n = 2.0, 1e-4, 50_000
    noise = math.sqrt(2 * D * dt) * torch.randn(n, generator=generator(0, "diffusion"), dtype=torch.float64)
    w, rows = 0.3, [0.3]
    for kick in noise.tolist():
        w += -h * w * dt + kick
        rows.append(w)
    path = torch.tensor(rows, dtype=torch.float64)[:, None]
    ito = dynamics.path_action(path, h * path[:-1], dt, D)
    middle = dynamics.stratonovich_action(path, h * path, torch.full((n + 1,), h), dt, D)
    bound = 5 * h / 2 * math.sqrt(2 * n * dt * dt)
    assert abs(float(middle - ito)) < bound < h * n * dt / 2 / 10
    assert float(ito) == pytest.approx(n / 2, abs=5 * math.sqrt(n / 2))  # noise alone: half a step and dimension


def test_the_action_is_the_law_whose_stationary_variance_is_known():
    """exp(-S) is the Gaussian of an Euler walk, whose variance settles at (D/h) / (1 - h dt/2)."""
    h, dt, n = 2.0, 0.1, 120

    def action(inner):
        path = torch.cat([torch.zeros(1).double(), inner])[:, None]
        return dynamics.path_action(path, h * path[:-1], dt, D)

    precision = torch.autograd.functional.hessian(action, torch.zeros(n, dtype=torch.float64))
    close(torch.linalg.inv(precision)[-1, -1], D / h / (1 - h * dt / 2), 1e-10)


def flow(n, t=1.0):
    """The exact gradient flow of U = (w1^2 + 4 w2^2)/2 from (1, 1), its gradients, its fall and its time step."""
    h = torch.tensor([1.0, 4.0], dtype=torch.float64)
    path = torch.exp(-torch.linspace(0, t, n + 1, dtype=torch.float64)[:, None] * h)
    potential = (h * path**2).sum(1) / 2
    return path, h * path, float(potential[0] - potential[-1]), t / n


def test_downhill_is_free_and_uphill_costs_twice_the_rise():
    down, up = [], []
    for n in (200, 400, 800):
        path, gradients, fall, dt = flow(n)
        down.append(2 * D * float(dynamics.path_action(path, gradients[:-1], dt, D)))
        back = dynamics.path_action(path.flip(0), gradients.flip(0)[:-1], dt, D)
        up.append(abs(2 * D * float(back) - 2 * fall))
    assert down[0] < 1e-3 and up[2] < 0.02
    for errors, shrink in ((down, 3.9), (up, 1.9)):  # second and first order in dt
        assert errors[1] < errors[0] / shrink and errors[2] < errors[1] / shrink


def test_gradient_descent_itself_has_no_action_and_steps_may_differ():
    rows, rates = [torch.tensor([1.0, -2.0], dtype=torch.float64)], torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64)
    for rate in rates:
        rows.append(rows[-1] - rate * 2 * rows[-1])
    path = torch.stack(rows)
    assert dynamics.path_action(path, 2 * path[:-1], rates, D) < 1e-28
    assert dynamics.path_action(path, 2 * path[:-1], 0.2, D) > 0.1
    single = dynamics.path_action(path.float(), 2 * path[:-1].float(), 0.2, D)
    assert single.dtype == torch.float64


# What is refused

ONE, SADDLE, ROWS = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 2.0]), torch.zeros(3, 2)
NAN = math.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dynamics.sgd_temperature(0.0, 1, 1.0, 1), "learning_rate must be positive"),
        (lambda: dynamics.sgd_temperature(0.1, 0, 1.0, 1), "batch_size must be at least 1, got 0"),
        (lambda: dynamics.sgd_temperature(0.1, 1, 1.0, 0), "dim must be at least 1"),
        (lambda: dynamics.sgd_temperature(0.1, 1, -1.0, 1), "noise_trace must not be negative"),
        (lambda: dynamics.sgd_temperature(0.1, 1, NAN, 1), "noise_trace must be finite"),
        (lambda: dynamics.sgd_temperature(0.1, 1, 1.0, 1, momentum=1.0), "momentum must lie"),
        (lambda: dynamics.sgd_temperature(0.1, 8, 1.0, 1, dataset_size=4), "at least the batch size 8, got 4"),
        (lambda: dynamics.noise_trace(lambda w, x, y: w.sum(), ONE, ONE[:1], ONE[:1]), "at least 2, got 1"),
        (lambda: dynamics.noise_trace(lambda w, x, y: w.sum(), ONE, ONE, ONE[:1]), "got 2 and 1"),
        (lambda: dynamics.noise_trace(lambda w, x, y: w.sum() * x.sum().log(), ONE, -ONE, ONE), "must be finite"),
        (lambda: dynamics.effective_potential(0.0, ONE, 0.0), "temperature must be positive, got 0"),
        (lambda: dynamics.effective_potential(0.0, torch.tensor([1.0, 0.0]), D), "must be positive, got 0.0"),
        (lambda: dynamics.effective_potential(0.0, -ONE, D, weight_decay=1.5), "must be positive, got -0.5"),
        (lambda: dynamics.effective_potential(0.0, ONE, D, weight_decay=-1.0), "weight_decay"),
        (lambda: dynamics.effective_potential(NAN, ONE, D), "loss must be finite"),
        (lambda: dynamics.effective_potential(0.0, ONE[0], D), "got a scalar"),
        (lambda: dynamics.kramers_rate(ONE, SADDLE, 1.0, -0.1), "temperature must be positive"),
        (lambda: dynamics.kramers_rate(ONE, ONE, 1.0, D), "got 0 negative"),
        (lambda: dynamics.kramers_rate(ONE, -ONE, 1.0, D), "got 2 negative"),
        (lambda: dynamics.kramers_rate(ONE, torch.tensor([-1.0, 0.0]), 1.0, D), "1 zero"),
        (lambda: dynamics.kramers_rate(SADDLE, SADDLE, 1.0, D), "curvature_minimum must be positive, got -1"),
        (lambda: dynamics.kramers_rate(ONE, SADDLE[:1], 1.0, D), "shapes"),
        (lambda: dynamics.kramers_rate(ONE, SADDLE, -1.0, D), "barrier must not be negative"),
        (lambda: dynamics.kramers_rate(ONE, SADDLE * math.inf, 1.0, D), "curvature_saddle must be finite"),
        (lambda: dynamics.log_escape_time(0.0, to="hill"), "'saddle' or 'well', got 'hill'"),
        (lambda: dynamics.mean_first_passage_time(double_well, -1.0, 1.0, 0.0), "temperature must be positive"),
        (lambda: dynamics.mean_first_passage_time(double_well, NAN, 1.0, D), "start must be finite"),
        (lambda: dynamics.mean_first_passage_time(lambda w: w, 0.0, 1.0, D), "must grow behind the start"),
        (lambda: dynamics.mean_first_passage_time(lambda w: 0 * w, 0.0, 1.0, D), "must grow behind the start"),
        (lambda: dynamics.mean_first_passage_time(double_well, -1.0, 1.0, D, wall=0.0), "stand behind the start"),
        (lambda: dynamics.mean_first_passage_time(double_well, 1.0, -1.0, D, wall=0.0), "stand behind the start"),
        (lambda: dynamics.mean_first_passage_time(lambda w: w.log(), 1.0, 2.0, D), "a number above -inf, got nan"),
        (lambda: dynamics.mean_first_passage_time(lambda w: w.sum(), 0.0, 1.0, D), r"must map \[n\] to \[n\]"),
        (
            lambda: dynamics.mean_first_passage_time(lambda w: torch.where(w > 0.5, math.inf, w**2), 0.0, 1.0, D),
            "finite between start 0.0 and end 1.0",
        ),
        (lambda: dynamics.log_detailed_balance_ratio(1.0, 0.0), "temperature must be positive"),
        (lambda: dynamics.path_action(ROWS, ROWS, 0.1, D), r"gradients must be \[2, 2\]"),
        (lambda: dynamics.path_action(ROWS, ROWS[:2], 0.0, D), "dt must be positive"),
        (lambda: dynamics.path_action(ROWS, ROWS[:2], torch.ones(3), D), "dt must be a number"),
        (lambda: dynamics.path_action(ROWS[:1], ROWS[:0], 0.1, D), "at least one step"),
        (lambda: dynamics.path_action(ROWS + NAN, ROWS[:2], 0.1, D), "path must be finite, got nan"),
        (lambda: dynamics.stratonovich_action(ROWS, ROWS[:2], ROWS[:, 0], 0.1, D), r"gradients must be \[3, 2\]"),
        (lambda: dynamics.transition_factors(ROWS, 0.0, ROWS, ROWS[0], 0.1, D), r"laplacians must be \[3\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
