"""Time to a threshold: closed forms, and runs that never get there."""

import itertools
import math

import pytest
import torch

from leap.metrics.convergence import Convergence, log2_time, median_time, time_to_threshold

NAN, INF = math.nan, math.inf


def test_a_line_is_crossed_where_it_is():
    times = [0.5 * i for i in range(11)]
    for threshold in (9.9, 6.0, 5.123, 0.0):
        found = time_to_threshold(times, [10 - 2 * t for t in times], threshold)
        assert not found.censored and found.time == pytest.approx((10 - threshold) / 2, rel=1e-12)


def test_interpolation_is_within_the_interval_and_does_not_depend_on_units():
    losses = [8.0, 5.0, 5.5, 1.0, 4.0, 0.5]
    times = [0.0, 1.0, 2.5, 3.0, 7.0, 8.0]
    for threshold in (7.0, 5.0, 3.3, 1.0, 0.7):
        found = time_to_threshold(times, losses, threshold)
        scaled = time_to_threshold([4 * t for t in times], [3 * x - 9 for x in losses], 3 * threshold - 9)
        assert scaled.time == pytest.approx(4 * found.time, rel=1e-12)
    assert time_to_threshold(times, losses, 5.0) == (1.0, False)  # the first crossing, though the loss rises again
    later = [time_to_threshold(times, losses, threshold).time for threshold in (7.0, 5.0, 3.3, 1.0, 0.7)]
    assert later == sorted(later)


@pytest.mark.parametrize(
    ("losses", "threshold", "expected"),
    [
        ([1.0, 2.0, 3.0], 1.0, (0.0, False)),  # starts at the threshold
        ([0.5, 2.0, 3.0], 1.0, (0.0, False)),  # starts below
        ([3.0, 2.0, 1.5], 1.0, (4.0, True)),  # never reached
        ([3.0, 2.0, 1.0], 1.0, (4.0, False)),  # reached at the very end
        ([3.0, NAN, 0.5], 1.0, (4.0, False)),  # nothing to interpolate from
        ([INF, 0.5, 0.1], 1.0, (1.0, False)),
        ([3.0, -INF, NAN], 1.0, (4.0, True)),  # non-finite losses are not reached
        ([NAN, NAN, NAN], 1.0, (4.0, True)),
        ([1e308, -1e308, 0.0], 0.0, (0.5, False)),  # differences that overflow
        ([3.0, 3.0, 3.0], 3.0, (0.0, False)),
    ],
)
def test_where_curves_start_and_end(losses, threshold, expected):
    assert time_to_threshold([0.0, 1.0, 4.0], losses, threshold) == Convergence(*expected)


def test_tensors_are_curves_too():
    found = time_to_threshold(torch.arange(3), torch.tensor([4.0, 2.0, 0.0]), 1.0)
    assert found == (1.5, False) and isinstance(found.time, float)


@pytest.mark.parametrize(
    ("times", "losses", "threshold", "message"),
    [
        ([], [], 1.0, "got 0 and 0"),
        ([0, 1], [1.0], 1.0, "got 2 and 1"),
        ([0, 1, 1], [1.0, 1.0, 1.0], 1.0, "got 1.0 after 1.0"),
        ([-1, 1], [1.0, 1.0], 1.0, "got -1.0"),
        ([0, NAN], [1.0, 1.0], 1.0, "got nan"),
        ([0, 1], [1.0, 1.0], NAN, "threshold must be finite, got nan"),
    ],
)
def test_what_is_no_curve_is_refused(times, losses, threshold, message):
    with pytest.raises(ValueError, match=message):
        time_to_threshold(times, losses, threshold)


def done(*times):
    return [Convergence(float(t), False) for t in times]


def given_up(*times):
    return [Convergence(float(t), True) for t in times]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (done(3), (3.0, False)),
        (given_up(9), (9.0, True)),
        (done(5, 1, 3), (3.0, False)),
        (done(5, 1, 3, 4), (3.5, False)),
        (done(1, 3) + given_up(9), (3.0, False)),
        (done(1) + given_up(9, 9), (9.0, True)),  # at least half
        (done(1, 3) + given_up(9, 9), (6.0, True)),  # half: known to be at least this
        (done(1, 3, 5) + given_up(9), (4.0, False)),
        (done(10, 12) + given_up(5), (10.0, True)),  # given up before the others: 10, 12 or anything between
        (done(10, 12) + given_up(12), (12.0, False)),
    ],
)
def test_median_respects_what_was_censored(results, expected):
    for order in itertools.permutations(results):
        assert median_time(order) == Convergence(*expected)


def test_median_is_what_it_would_be_with_patience():
    """Cut runs of known length at a budget: an uncensored median is the true one, a censored one is no more than it."""
    g = torch.Generator().manual_seed(0)
    for count in (3, 4, 5):
        for _ in range(50):
            true = (10 * torch.rand(count, generator=g)).tolist()
            budget = (10 * torch.rand(count, generator=g)).tolist()
            seen = [Convergence(min(t, b), t > b) for t, b in zip(true, budget, strict=True)]
            found, exact = median_time(seen), median_time(done(*true)).time
            assert found.time <= exact + 1e-12
            if not found.censored:
                assert found.time == pytest.approx(exact, rel=1e-12)
            if 2 * sum(run.censored for run in seen) >= count:
                assert found.censored


def test_doublings():
    assert log2_time(Convergence(8.0, False), resolution=0.5) == (3.0, False)
    assert log2_time(Convergence(8.0, True), resolution=0.5) == (3.0, True)
    assert log2_time(Convergence(0.0, False), resolution=0.5) == (-1.0, False)
    for resolution in (0.0, -1.0, NAN, INF):
        with pytest.raises(ValueError, match="resolution"):
            log2_time(Convergence(1.0, False), resolution=resolution)
    with pytest.raises(ValueError, match="got nan"):
        log2_time(Convergence(NAN, False), resolution=1.0)
    with pytest.raises(ValueError, match="at least one"):
        median_time([])
