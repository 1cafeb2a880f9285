"""Ways between two points: lines, bent curves, strings, and what is read off their losses."""

import math

import pytest
import torch

from leap.metrics import connect as connecting
from leap.metrics.connect import barrier, connect, line, string, uphill
from leap.metrics.dynamics import effective_potential
from leap.metrics.profile import free_energy_profile
from leap.randomness import generator

A, B = torch.tensor([-1.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)


def hill(w):
    """A hill on the straight way, in a shallow bowl."""
    return torch.exp(-6 * w.square().sum()) + 0.02 * w.square().sum()


def banana(w):
    """Minima of loss 0 at A and B, and between them a bent valley whose saddle (0, 1) has loss 1."""
    return (w[0] ** 2 - 1) ** 2 + 10 * (w[1] - 1 + w[0] ** 2) ** 2


def winding(w):
    """The same minima, and a valley that follows a sine: its saddle, of loss 1, lies at 0."""
    return (w[0] ** 2 - 1) ** 2 + 4 * (w[1] - torch.sin(math.pi * w[0])) ** 2


def find(loss=hill, seed=0, **settings):
    return connect(
        loss, A, B, **{"steps": 150, "learning_rate": 0.1, "generator": generator(seed, "curve"), **settings}
    )


def test_a_line_is_even_and_keeps_its_ends_to_the_bit():
    draw = generator(0, "line")
    a, b = (torch.randn(50, generator=draw) for _ in range(2))
    points = line(a, b, 7)
    assert points.shape == (7, 50) and points.dtype == torch.float32
    assert torch.equal(points[0], a) and torch.equal(points[-1], b)
    torch.testing.assert_close(points.diff(dim=0), ((b - a) / 6).expand(6, 50), rtol=1e-5, atol=1e-6)


def test_a_convex_loss_has_no_barrier_between_its_level_points_or_downhill():
    convex = lambda w: w.square().sum() + w[0].exp()  # noqa: E731
    start, low = torch.tensor([2.0, 2.0]), torch.tensor([-0.35, 0.0])
    losses = torch.stack([convex(w) for w in line(start, low, 21)])
    down = barrier(losses)
    assert down.height == 0 and down.uphill == 0 and down.quasi_potential == 0 and down.end < down.start
    sphere = torch.stack([w.square().sum() for w in line(A, B, 21)])
    assert barrier(sphere).height == 0
    assert barrier(sphere).uphill == pytest.approx(1.0)


def test_barrier_of_the_double_well_and_of_many_curves_at_once():
    w = torch.linspace(-1, 1, 41, dtype=torch.float64)
    losses = torch.stack([(w**2 - 1) ** 2, 3 + w, 3 - w])
    found = barrier(losses)
    torch.testing.assert_close(found.height, torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found.quasi_potential, torch.tensor([2.0, 4.0, 0.0], dtype=torch.float64))
    assert torch.equal(found.start, losses[:, 0]) and torch.equal(found.end, losses[:, -1])
    assert barrier(losses.float()).height.dtype == torch.float64


def test_uphill_there_less_uphill_back_is_the_rise():
    losses = torch.randn(30, generator=generator(0, "uphill"), dtype=torch.float64)
    assert float(uphill(losses) - uphill(losses.flip(0))) == pytest.approx(float(losses[-1] - losses[0]), abs=1e-12)
    assert barrier(losses).height <= uphill(losses)


def test_connect_finds_a_way_around_a_hill():
    way = find()
    assert way.kind == "bezier" and way.points.shape == (21, 2)
    assert way.reference.height > 0.95
    assert way.barrier.height < 0.1
    assert torch.equal(way.points[0], A) and torch.equal(way.points[-1], B)
    torch.testing.assert_close(way.losses, torch.stack([hill(w) for w in way.points]))
    assert way.barrier.height == barrier(way.losses).height


def test_the_curve_is_the_quadratic_bezier_of_one_control_point():
    """Second differences in t of a quadratic are constant: (a - 2c + b) * 2 / 20^2."""
    second = find().points.diff(n=2, dim=0)
    torch.testing.assert_close(second, second[:1].expand_as(second), rtol=0, atol=1e-12)
    assert second[0].norm() > 1e-3


def test_the_control_point_minimizes_the_mean_loss_where_that_is_known():
    """f = (y - 1)^2 on y(t) = 2 t (1-t) c: c = int 2t(1-t) / int 4t^2(1-t)^2 = 5/2. A bump far off bars the line."""

    def trough(w):
        return (w[1] - 1) ** 2 + 1e-3 * torch.exp(-100 * w.square().sum())

    way = find(trough, steps=500, learning_rate=0.05, count=3)
    assert way.kind == "bezier"
    assert 2 * float(way.points[1, 1]) == pytest.approx(2.5, abs=0.1)


def test_same_generator_same_curve_and_another_seed_another():
    assert torch.equal(find().points, find().points)
    assert not torch.equal(find().points, find(seed=1).points)


def test_no_way_is_worse_than_the_line():
    for seed in range(6):
        draw = generator(seed, "landscape")
        centres = torch.randn(8, 2, generator=draw, dtype=torch.float64)
        heights = torch.randn(8, generator=draw, dtype=torch.float64)

        def bumps(w, centres=centres, heights=heights):
            return (heights * torch.exp(-3 * (w - centres).square().sum(1))).sum()

        way = find(bumps, seed, steps=30, learning_rate=0.3)
        straight = barrier(torch.stack([bumps(w) for w in line(A, B, 21)]))
        assert way.reference.height == pytest.approx(float(straight.height))
        assert way.barrier.height <= straight.height
        relaxed = string(bumps, way.points, steps=10, learning_rate=0.02)
        assert relaxed.barrier.height <= way.barrier.height


def test_the_line_stays_where_nothing_is_lower():
    way = find(lambda w: w.square().sum())
    assert way.kind == "line" and torch.equal(way.points, line(A, B, 21))


def test_the_string_passes_through_the_saddle():
    straight = line(A, B, 41)
    relaxed = string(banana, straight, steps=400, learning_rate=0.01)
    assert relaxed.kind == "string" and relaxed.reference.height > 10
    assert float(relaxed.barrier.height) == pytest.approx(1.0, abs=5e-3)
    top = relaxed.points[relaxed.losses.argmax()]
    torch.testing.assert_close(top, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=0.02)
    assert torch.equal(relaxed.points[0], A) and torch.equal(relaxed.points[-1], B)
    lengths = relaxed.points.diff(dim=0).norm(dim=1)
    assert lengths.max() / lengths.min() < 1.02


def test_the_string_follows_a_valley_that_no_quadratic_curve_can():
    bent = find(winding)
    relaxed = string(winding, bent.points, steps=300, learning_rate=0.01)
    assert bent.barrier.height > 1.5
    assert float(relaxed.barrier.height) == pytest.approx(1.0, abs=0.02)
    assert relaxed.reference.height == bent.barrier.height


def test_spreading_an_uneven_line_makes_it_even():
    uneven = torch.tensor([0.0, 0.1, 0.15, 2.0, 3.0], dtype=torch.float64)[:, None] * torch.ones(1, 4)
    torch.testing.assert_close(connecting._spread(uneven), line(uneven[0], uneven[-1], 5))


def test_single_precision_ends_give_single_precision_points_and_double_losses():
    with torch.no_grad():  # measuring runs without gradients; the search turns them on for itself
        way = connect(
            lambda w: hill(w).float(), A.float(), B.float(), steps=60, learning_rate=0.1, generator=generator(0, "f")
        )
        relaxed = string(lambda w: hill(w).float(), way.points, steps=3, learning_rate=0.01)
    assert way.points.dtype == relaxed.points.dtype == torch.float32
    assert way.losses.dtype == relaxed.losses.dtype == torch.float64
    assert way.kind == "bezier"


def test_ends_are_not_written_to():
    a, b = A.clone(), B.clone()
    initial = line(a, b, 5)
    kept = initial.clone()
    connect(hill, a, b, steps=3, learning_rate=0.1, generator=generator(0, "x"))
    string(banana, initial, steps=3, learning_rate=0.01)
    assert torch.equal(a, A) and torch.equal(b, B) and torch.equal(initial, kept)


def test_free_energy_profile_is_the_effective_potential_along_the_curve():
    losses = torch.tensor([0.0, 0.5, 0.2], dtype=torch.float64)
    spectra = torch.tensor([[1.0, 2.0], [8.0, 3.0], [0.5, 0.5]], dtype=torch.float64)
    found = free_energy_profile(losses, spectra, 0.2)
    torch.testing.assert_close(found.profile, losses + 0.1 * spectra.log().sum(1), rtol=1e-12, atol=1e-12)
    assert float(found.barrier.height) == pytest.approx(0.5 + 0.1 * math.log(12), abs=1e-12)
    torch.testing.assert_close(found.profile, effective_potential(losses, spectra, 0.2))


def test_left_out_zeros_count_as_zeros_under_weight_decay():
    losses, full = torch.zeros(2), torch.tensor([[0.0, 3.0], [1.0, 2.0]])
    ragged = free_energy_profile(losses, [full[0, 1:], full[1]], 0.2, weight_decay=0.1)
    whole = free_energy_profile(losses, full, 0.2, weight_decay=0.1)
    torch.testing.assert_close(ragged.profile, whole.profile, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: line(A, B, 1), ValueError, "count must be at least 2, got 1"),
        (lambda: line(A, B[:1], 3), ValueError, "agree in length"),
        (lambda: line(A, B.float(), 3), ValueError, "agree in length and precision"),
        (lambda: line(A, B + math.nan, 3), ValueError, "end must be a finite vector"),
        (lambda: line([0.0], B, 3), TypeError, "start must be a float Tensor"),
        (lambda: line(A.long(), B, 3), TypeError, "start must be a float Tensor"),
        (lambda: barrier(torch.zeros(1)), ValueError, "at least two points"),
        (lambda: barrier(torch.tensor([0.0, math.inf])), ValueError, "losses must be finite, got inf"),
        (lambda: find(steps=0), ValueError, "steps must be at least 1"),
        (lambda: find(learning_rate=0.0), ValueError, "learning_rate must be positive"),
        (lambda: find(draws=0), ValueError, "draws must be at least 1"),
        (lambda: find(lambda w: w), ValueError, "loss must return a scalar"),
        (lambda: find(lambda w: w.sum().sqrt() * math.nan), ValueError, "loss must be finite along the way, got nan"),
        (lambda: string(hill, line(A, B, 2), steps=1, learning_rate=0.1), ValueError, "at least three points"),
        (lambda: string(hill, A, steps=1, learning_rate=0.1), ValueError, r"initial must be \[count, K\]"),
        (lambda: string(hill, A.expand(4, 2), steps=1, learning_rate=0.1), ValueError, "coincide"),
        (lambda: string(banana, line(A, B, 5), steps=50, learning_rate=9.0), ValueError, "lower learning_rate"),
        (lambda: free_energy_profile(torch.zeros(2), torch.ones(3, 1), 0.1), ValueError, "one spectrum a loss"),
        (lambda: free_energy_profile(torch.zeros(2), torch.zeros(2, 1), 0.1), ValueError, "must be positive"),
        (lambda: free_energy_profile(torch.zeros(2), torch.ones(2, 1), 0.0), ValueError, "temperature"),
        (
            lambda: free_energy_profile(torch.zeros(2), [torch.ones(1), torch.ones(2)], 0.1),
            ValueError,
            "equally long without weight decay",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
