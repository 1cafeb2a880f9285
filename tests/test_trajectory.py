"""The points that are kept of walks, and the plane they are drawn in."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from families import Waves, small_alphabets
from hypothesis import given, settings
from hypothesis import strategies as st

from leap import learners, optim
from leap.metrics import trajectory as module
from leap.metrics.path import path_measures
from leap.metrics.trajectory import kept_steps, principal_plane, trajectory
from leap.walk import Fold, walk


def all_points() -> Fold:
    """Every theta^i, kept as naively as can be."""
    return Fold(
        lambda theta0: [theta0.clone()],
        lambda state, s: [*state, s.theta_next.clone()],
        lambda state, end: torch.stack(state, dim=1),
    )


def walked(steps: int, folds: dict[str, Fold], execution: str = "batched", tasks=None):
    tasks = tasks or Waves(with_layout=False)
    return walk(tasks, tasks.theta0, steps=steps, optimizer=optim.sgd(0.02, 0.5), folds=folds, execution=execution)


@pytest.mark.parametrize("execution", ["batched", "sequential"])
@pytest.mark.parametrize(("steps", "points"), [(1, 3), (2, 3), (5, 3), (5, 6), (5, 26), (8, 5), (9, 5), (37, 7)])
def test_the_fold_keeps_the_thetas_of_the_walk(steps: int, points: int, execution: str) -> None:
    found = walked(steps, {"kept": trajectory(points), "all": all_points()}, execution).results
    assert torch.equal(found["kept"], found["all"][:, kept_steps(steps, points)])
    assert found["kept"].shape == (3, len(kept_steps(steps, points)), 6)


@given(steps=st.integers(1, 4000), points=st.integers(3, 60))
@settings(max_examples=200, deadline=None)
def test_points_are_even_with_both_ends_among_them_and_no_more_than_asked_for(steps: int, points: int) -> None:
    at = kept_steps(steps, points)
    gaps = [b - a for a, b in pairwise(at)]
    assert at[0] == 0 and at[-1] == steps and len(at) <= points
    assert len(set(gaps[:-1])) <= 1 and 0 < gaps[-1] <= gaps[0]
    assert len(at) > points / 2 or gaps[0] == 1


@pytest.mark.parametrize("execution", ["batched", "sequential"])
def test_a_watched_walk_gives_the_same_numbers_and_keeps_copies(execution: str) -> None:
    folds = {"path": path_measures(), "learner": learners.leap()}
    alone = walked(9, folds, execution)
    watched = walked(9, {"kept": trajectory(4), **folds}, execution)
    assert torch.equal(alone.theta, watched.theta) and torch.equal(alone.losses, watched.losses)
    assert all(torch.equal(alone.results[name], watched.results[name]) for name in folds)
    kept = watched.results["kept"]
    assert not kept.requires_grad and kept.device.type == "cpu" and kept.dtype == torch.float64
    watched.theta.zero_()
    assert bool(kept[:, -1].any())


def test_only_what_tasks_share_is_kept() -> None:
    family = small_alphabets()
    tasks = family.batch([0, 1], [0, 0])
    theta = family.initial(0)
    found = walk(tasks, theta, steps=2, optimizer=optim.sgd(0.1), folds={"kept": trajectory()}).results["kept"]
    assert found.shape == (2, 3, family.layout.shared) and found.dtype == theta.dtype


def test_the_plane_is_that_of_a_singular_value_decomposition() -> None:
    g = torch.Generator().manual_seed(0)
    walks = [torch.randn(p, 40, generator=g, dtype=torch.float64).cumsum(0) + 7 for p in (9, 14, 5)]
    plane = principal_plane(walks)
    points = torch.cat([walk - walk[0] for walk in walks])
    _, spread, axes = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    expected = points @ axes[:2].mT
    expected = expected * expected.gather(0, expected.abs().argmax(0, keepdim=True)).sign()
    torch.testing.assert_close(torch.cat(plane.walks), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.tensor(plane.shares, dtype=torch.float64), (spread.square() / spread.square().sum())[:2]
    )
    assert [len(walk) for walk in plane.walks] == [9, 14, 5]
    assert all(walk[0].abs().max() < 1e-12 for walk in plane.walks)
    assert bool((torch.cat(plane.walks).amax(0) >= -torch.cat(plane.walks).amin(0)).all())


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 12), width=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_no_distance_in_the_plane_is_longer_than_the_true_one(seed: int, rows: int, width: int) -> None:
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(rows, width, generator=g) * 10 ** float(torch.randn((), generator=g))
    plane = principal_plane([points])
    true, seen = torch.cdist(points.double(), points.double()), torch.cdist(plane.walks[0], plane.walks[0])
    assert bool((seen <= true + 1e-6 * true.max()).all())
    assert 0 <= plane.shares[1] <= plane.shares[0] and sum(plane.shares) <= 1 + 1e-9
    if width <= 2 and rows > width:  # nothing is lost
        torch.testing.assert_close(seen, true, rtol=1e-5, atol=1e-5 * float(true.max()))


def test_the_plane_does_not_depend_on_how_columns_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = [torch.randn(8, 25, generator=torch.Generator().manual_seed(3))]
    whole = principal_plane(walks)
    monkeypatch.setattr(module, "COLUMNS", 7)
    pieces = principal_plane(walks)
    torch.testing.assert_close(pieces.walks[0], whole.walks[0], rtol=1e-9, atol=1e-9)


def test_points_that_span_no_plane_leave_coordinates_at_zero() -> None:
    still = principal_plane([torch.ones(4, 5)])
    assert not still.walks[0].any() and still.shares == (0.0, 0.0)
    line = principal_plane([3 + torch.arange(4.0)[:, None] * torch.ones(1, 5)])
    torch.testing.assert_close(line.walks[0][:, 0], 5**0.5 * torch.arange(4.0, dtype=torch.float64))
    assert not line.walks[0][:, 1].any() and line.shares == (pytest.approx(1.0), 0.0)


def test_what_cannot_be_kept_or_projected_is_refused() -> None:
    with pytest.raises(ValueError, match=r"points must be at least 3, got 2"):
        trajectory(2)
    with pytest.raises(ValueError, match=r"of one width, got \[\(3, 4\), \(3, 5\)\]"):
        principal_plane([torch.ones(3, 4), torch.ones(3, 5)])
    with pytest.raises(ValueError, match="of one width"):
        principal_plane([])
    with pytest.raises(ValueError, match="must be finite"):
        principal_plane([torch.tensor([[1.0, float("nan")]])])
