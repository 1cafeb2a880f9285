"""The linear probe: scikit-learn as the other opinion, how samples are held out, and few of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import leap.metrics.probe as module
from leap.metrics.labelled import labelled
from leap.metrics.probe import assign_folds, linear_probe
from leap.randomness import generator


def draw(m: int = 120, k: int = 6, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes of unequal size, columns of unequal scale."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes).repeat(2), rng.geometric(0.5, m) % classes])[:m]
    means = rng.normal(size=(classes, k))
    return (means[labels] + rng.normal(size=(m, k))) * np.logspace(-3, 3, k) + 50, labels


def by_sklearn(x: np.ndarray, y: np.ndarray, seed: int, folds: int, decay: float) -> tuple[float, float]:
    """The same folds, standardised and fitted by scikit-learn one after the other."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fold = assign_folds(labelled(x, y), folds, generator(seed)).numpy()
    losses, wrong = [], []
    for index in range(folds):
        held = fold == index
        if not held.any():
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / decay, tol=1e-9, max_iter=10000))
        p = model.fit(x[~held], y[~held]).predict_log_proba(x[held])
        place = np.searchsorted(model.classes_, y[held])
        losses.extend(-p[np.arange(held.sum()), place])
        wrong.extend(p.argmax(1) != place)
    return float(np.mean(losses)), 100 * float(np.mean(wrong))


@pytest.mark.parametrize("folds", [2, 5])
@pytest.mark.parametrize(("m", "k", "decay"), [(120, 6, 3.0), (120, 6, 0.03), (40, 90, 1.0)])
def test_it_is_logistic_regression(monkeypatch: Any, m: int, k: int, decay: float, folds: int) -> None:
    x, y = draw(m, k)
    usual = linear_probe(x, y, generator=generator(3), folds=folds, decay=decay)
    assert linear_probe(x, y, generator=generator(3), folds=folds) != usual or decay == 3.0
    monkeypatch.setattr(module, "ARRIVED", 1e-9)
    exact = linear_probe(x, y, generator=generator(3), folds=folds, decay=decay)
    log_loss, error = by_sklearn(x, y, 3, folds, decay)
    assert float(exact.log_loss) == pytest.approx(log_loss, rel=1e-5) and float(exact.error) == pytest.approx(error)
    assert float(usual.log_loss) == pytest.approx(log_loss, rel=1e-3)


def test_a_binary_task_and_its_optimum_by_hand() -> None:
    """One column of two values, at -1 and 1 once standardised: the weight solves a scalar equation."""
    from scipy.optimize import brentq

    x = np.repeat([[3.0], [7.0]], 8, axis=0)
    y = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0])  # one sample in four is on the wrong side
    decay, training = 2.0, 8  # samples in a half
    # Logits w x and -w x: the penalty is decay w^2 and p of the likelier class 1 / (1 + exp(-2 w)).
    w = brentq(lambda w: training * 2 * (1 / (1 + math.exp(-2 * w)) - 3 / 4) + 2 * decay * w, 0, 10)
    loss = -(3 / 4 * math.log(1 / (1 + math.exp(-2 * w))) + 1 / 4 * math.log(1 / (1 + math.exp(2 * w))))
    fold = torch.tensor([0, 1] * 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "assign_folds", lambda *_: fold)
        patch.setattr(module, "ARRIVED", 1e-10)
        probe = linear_probe(x, y, generator=generator(0), folds=2, decay=decay)
    assert float(probe.log_loss) == pytest.approx(loss, rel=1e-8) and float(probe.error) == 25


def test_a_heavy_penalty_leaves_the_frequencies_of_the_classes() -> None:
    x = torch.randn(60, 3, generator=generator(0))
    probe = linear_probe(x, torch.arange(60) % 4, generator=generator(0), folds=5, decay=1e12)
    assert float(probe.log_loss) == pytest.approx(math.log(4), rel=1e-6)


def test_what_was_fitted_is_not_what_is_scored() -> None:
    """More columns than samples fit any labels; of labels that mean nothing, nothing is predicted."""
    x = torch.randn(80, 200, generator=generator(0))
    probe = linear_probe(x, torch.arange(80) % 2, generator=generator(0))
    assert 25 < float(probe.error) < 75 and float(probe.log_loss) > math.log(2) - 0.05
    easy = linear_probe(x[:, :5] + 10 * (torch.arange(80) % 2)[:, None], torch.arange(80) % 2, generator=generator(0))
    assert float(easy.error) == 0 and float(easy.log_loss) < 0.05


def test_what_does_not_change_it() -> None:
    x, y = draw()
    probe = linear_probe(x, y, generator=generator(0))
    rng = np.random.default_rng(0)
    for features, labels in (
        (x * np.exp(rng.normal(size=6) * 3) - 7, y),
        (x[:, ::-1], y),
        (np.hstack([x, np.full((len(x), 3), 0.1)]), y),  # columns that do not vary
        (x, 3 * y + 1),  # classes without samples
        (torch.tensor(x, requires_grad=True), torch.tensor(y)),
        (x * 1e200, y),
    ):
        other = linear_probe(features, labels, generator=generator(0))
        assert float(other.log_loss) == pytest.approx(float(probe.log_loss), rel=1e-4) and other.error == probe.error
    assert probe.log_loss.dtype == probe.error.dtype == torch.float64 and probe.log_loss.dim() == 0
    single = linear_probe(x.astype(np.float32), y, generator=generator(0))
    assert float(single.log_loss) == pytest.approx(float(probe.log_loss), rel=1e-3)


def test_a_column_that_is_dead_in_training_is_not_used() -> None:
    """It varies in one sample alone: where that is held out, nothing is known of it, however large it is."""
    x, y = draw()
    spike = np.zeros((len(x), 1))
    spike[7] = 1e9
    fold = assign_folds(labelled(x, y), 5, generator(0))
    with_spike = module._predict(labelled(np.hstack([x, spike]), y), fold != fold[7], fold == fold[7], 3.0)
    without = module._predict(labelled(x, y), fold != fold[7], fold == fold[7], 3.0)
    torch.testing.assert_close(with_spike, without, rtol=1e-6, atol=1e-6)


def test_folds_share_every_class_evenly_and_follow_their_seed() -> None:
    y = np.repeat([0, 1, 2, 3], [23, 7, 5, 2])
    data = labelled(np.random.default_rng(0).normal(size=(len(y), 2)), y)
    fold = assign_folds(data, 5, generator(0))
    for c in range(4):
        held = torch.bincount(fold[data.labels == c], minlength=5)
        assert held.max() - held.min() <= 1
    sizes = torch.bincount(fold, minlength=5)
    assert sizes.max() - sizes.min() <= 1
    assert torch.equal(fold, assign_folds(data, 5, generator(0)))
    assert not torch.equal(fold, assign_folds(data, 5, generator(1)))
    x, y = draw()
    assert linear_probe(x, y, generator=generator(0)).log_loss != linear_probe(x, y, generator=generator(1)).log_loss


@pytest.mark.parametrize("shots", [2, 3, 5])
def test_few_samples_a_class(shots: int) -> None:
    y = np.arange(5).repeat(shots)
    x = np.eye(5)[y] + 0.1 * np.random.default_rng(0).normal(size=(5 * shots, 5))
    probe = linear_probe(x, y, generator=generator(0), decay=0.1)
    assert float(probe.error) == 0 and float(probe.log_loss) < 0.5
    log_loss, error = by_sklearn(x, y, 0, 5, 0.1)
    assert float(probe.log_loss) == pytest.approx(log_loss, rel=1e-3) and float(probe.error) == error


def test_a_class_of_one_is_fitted_but_not_asked_for() -> None:
    x, y = draw(40, 3, classes=3)
    y[y == 2] = 1
    y[0] = 2
    fold = assign_folds(labelled(x, y), 5, generator(0))
    assert fold[0] == -1 and (fold[1:] >= 0).all()
    probe = linear_probe(x, y, generator=generator(0))
    log_loss, error = by_sklearn(x, y, 0, 5, 3.0)
    assert float(probe.log_loss) == pytest.approx(log_loss, rel=1e-3)
    assert float(probe.error) == pytest.approx(error)  # of 39 samples


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"decay": 0.0}, "decay must be above 0 and finite, got 0"),
        ({"decay": math.inf}, "decay must be above 0 and finite, got inf"),
        ({"labels": [0, 1, 2, 3]}, "each of the 4 classes has one sample"),
        ({"labels": [1, 1, 1, 1]}, "at least 2 classes"),
        ({"features": [[1.0], [math.nan], [2.0], [0.0]]}, "not finite"),
    ],
)
def test_what_cannot_be_probed_is_refused(changes: dict[str, Any], match: str) -> None:
    arguments = {"features": [[1.0], [2.0], [3.0], [4.0]], "labels": [0, 0, 1, 1], **changes}
    with pytest.raises(ValueError, match=match):
        linear_probe(**arguments, generator=generator(0))


def test_a_fit_that_does_not_settle_says_so(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "STEPS", 1)
    x, y = draw()
    with pytest.raises(RuntimeError, match=r"not settled in 1 steps.*raise decay"):
        linear_probe(x, y, generator=generator(0), decay=1e-6)
