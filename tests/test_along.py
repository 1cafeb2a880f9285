"""Measurements at chosen points of a walk: the right points, nothing elsewhere, and curves with known ends."""

import itertools

import pytest
import torch
from families import Waves

from leap import optim
from leap.metrics.along import along, fisher_trace_along, log_spaced
from leap.metrics.fisher import fisher_trace
from leap.walk import walk


def measured(tasks, at, measure, steps=6):
    return walk(tasks, tasks.theta0, steps=steps, optimizer=optim.sgd(0.05), folds={"it": along(measure, at)})


def first(theta):
    return theta[:, 0]


def test_each_value_belongs_to_its_step():
    tasks = Waves()
    ends = [walk(tasks, tasks.theta0, steps=k, optimizer=optim.sgd(0.05)).theta for k in range(1, 7)]
    path = torch.stack([tasks.theta0.expand(3, -1), *ends])  # [K + 1, T, n]
    for at in ([0], [6], [0, 6], [1, 4], range(7)):
        found = measured(tasks, at, first).results["it"]
        assert torch.equal(found, path[list(at), :, 0].T)
        assert found.shape == (3, len(at))


def test_nothing_is_measured_at_other_steps():
    seen = []

    def measure(theta):
        seen.append(theta.clone())
        return theta.square().sum(1)

    measured(Waves(), [2, 5], measure)
    assert len(seen) == 2
    walked = measured(Waves(), [0], first)
    assert torch.equal(walked.theta, walk(Waves(), Waves().theta0, steps=6, optimizer=optim.sgd(0.05)).theta)


def test_a_fold_serves_many_walks():
    fold, tasks = along(first, [0, 3]), Waves()
    runs = [walk(tasks, tasks.theta0, steps=3, optimizer=optim.sgd(0.05), folds={"it": fold}) for _ in range(2)]
    assert torch.equal(runs[0].results["it"], runs[1].results["it"])


def test_distance_from_the_start_and_loss_curve():
    """On f = |theta|^2 / 2 both are powers of 1 - a."""

    class Bowl:
        def sample(self, theta, step):
            return None

        def loss(self, theta, batch):
            return theta.square().sum() / 2, {}

    theta0, at = torch.tensor([3.0, 4.0], dtype=torch.float64), [0, 1, 5]
    folds = {
        "distance": along(lambda theta: (theta - theta0).norm(dim=1), at),
        "loss": along(lambda theta: theta.square().sum(1) / 2, at),
    }
    results = walk(Bowl(), theta0, steps=5, optimizer=optim.sgd(0.1), folds=folds).results
    left = torch.tensor([[0.9**k for k in at]], dtype=torch.float64)
    torch.testing.assert_close(results["distance"], 5 * (1 - left), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(results["loss"], 12.5 * left**2, rtol=1e-12, atol=0)


def softmax_regression(theta, x):
    return x @ theta.view(2, 3)


class Regression:
    """Two tasks of softmax regression on the same loss as their Fisher's model."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.x = torch.randn(2, 20, 2, generator=g, dtype=torch.float64)
        self.y = torch.randint(3, (2, 20), generator=g)

    def sample(self, theta, step):
        return self.x, self.y

    def loss(self, theta, batch):
        return torch.nn.functional.cross_entropy(softmax_regression(theta, batch[0]), batch[1]), {}


@pytest.mark.parametrize("sampled", [False, True])
def test_fisher_trace_along_a_walk(sampled):
    tasks, theta0 = Regression(), torch.zeros(6, dtype=torch.float64)
    draws = lambda: torch.Generator().manual_seed(3) if sampled else None  # noqa: E731
    fold = fisher_trace_along(softmax_regression, tasks.x, [0, 4, 9], generator=draws())
    found = walk(tasks, theta0, steps=9, optimizer=optim.sgd(0.5), folds={"trace": fold}).results["trace"]
    own = draws()
    for column, steps in enumerate([0, 4, 9]):
        theta = (
            walk(tasks, theta0, steps=max(steps, 1), optimizer=optim.sgd(0.5)).theta if steps else theta0.expand(2, -1)
        )
        expected = [fisher_trace(softmax_regression, theta[t], tasks.x[t], generator=own) for t in range(2)]
        torch.testing.assert_close(found[:, column], torch.stack(expected), rtol=1e-12, atol=0)
    at_start = tasks.x.square().sum(-1).mean(1) * (1 - 1 / 3)  # uniform predictions: tr S = 1 - 1/C
    if not sampled:
        torch.testing.assert_close(found[:, 0], at_start, rtol=1e-12, atol=0)


def test_inputs_of_other_tasks_are_refused():
    tasks = Regression()
    fold = fisher_trace_along(softmax_regression, tasks.x[:1], [0])
    with pytest.raises(ValueError, match="inputs are of 1 tasks"):
        walk(tasks, torch.zeros(6).double(), steps=1, optimizer=optim.sgd(0.5), folds={"trace": fold})


@pytest.mark.parametrize(
    ("at", "error", "message"),
    [
        ([], ValueError, "at least one step"),
        ([-1, 2], ValueError, r"\[-1, 2\]"),
        ([2, 2], ValueError, "rising"),
        ([3, 1], ValueError, "rising"),
        ([0.5], TypeError, "0.5"),
        ([True], TypeError, "bool"),
    ],
)
def test_steps_that_make_no_sense_are_refused(at, error, message):
    with pytest.raises(error, match=message):
        along(first, at)


def test_a_walk_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="last step 6 or before, got 7"):
        measured(Waves(), [0, 7], first)


def test_a_measure_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(3,\), got \(\)"):
        measured(Waves(), [1], lambda theta: theta.sum())
    with pytest.raises(ValueError, match=r"\(3,\), got \(3, 6\)"):
        measured(Waves(), [6], lambda theta: theta)


def test_spread_steps_rise_from_start_to_end():
    for steps in (1, 2, 5, 100, 12345):
        for count in (3, 4, 20):
            at = log_spaced(steps, count)
            assert at[0] == 0 and at[-1] == steps and at == sorted(set(at)) and len(at) <= count
    at = log_spaced(10**6, 20)
    ratios = [b / a for a, b in itertools.pairwise(at[8:])]
    assert max(ratios) / min(ratios) < 1.02
    for steps, count in ((0, 5), (5, 2)):
        with pytest.raises(ValueError, match=f"got {steps} and {count}"):
            log_spaced(steps, count)
