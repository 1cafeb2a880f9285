"""SFDA: scikit-learn's discriminant as the other opinion, and each trap of the released code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from leap.metrics.sfda import sfda


def draw(
    m: int = 90, k: int = 6, classes: int = 4, spread: float = 0.4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping Gaussian classes of unequal size."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(classes).repeat(2), np.minimum(rng.geometric(0.4, m) - 1, classes - 1)])[:m]
    return spread * (rng.normal(size=(classes, k))[labels] + rng.normal(size=(m, k))) + 5, labels


def posterior(x: np.ndarray, y: np.ndarray, shrinkage: float) -> np.ndarray:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    return model.fit(x, y).predict_proba(x)


def loop(x: np.ndarray, y: np.ndarray, softmax_again: bool = False) -> tuple[float, float]:
    """The definition, sample by sample; with a second softmax it is the released code. Mean p, and mean log p."""
    x, classes = x.copy(), np.unique(y)
    within = sum((y == c).mean() * np.cov(x[y == c].T, bias=True) for c in classes)
    shrinkage = max(math.exp(-5 * np.linalg.eigvalsh(np.atleast_2d(within))[-1]), 1e-10)
    p = posterior(x, y, shrinkage)
    if softmax_again:
        p = np.exp(p) / np.exp(p).sum(1, keepdims=True)
    means = np.stack([x[y == c].mean(0) for c in classes])
    for i, c in enumerate(np.searchsorted(classes, y)):
        x[i] = p[i, c] * x[i] + (1 - p[i, c]) * np.delete(means, c, axis=0).mean(0)
    own = posterior(x, y, shrinkage)[np.arange(len(y)), np.searchsorted(classes, y)]
    return float(own.mean()), float(np.log(own).mean())


@pytest.mark.parametrize("spread", [0.05, 0.4, 3.0])  # shrinkage near 1, between, and its least
@pytest.mark.parametrize(("m", "k", "classes"), [(90, 6, 4), (60, 3, 2), (24, 40, 3), (40, 1, 2)])
def test_it_is_its_definition(m: int, k: int, classes: int, spread: float) -> None:
    x, y = draw(m, k, classes, spread)
    if m < k and spread == 3.0:
        spread = 1.0  # least squares of scikit-learn cuts what the least shrinkage keeps
        x, y = draw(m, k, classes, spread)
    mean, log = loop(x, y)
    assert float(sfda(x, y)) == pytest.approx(mean, rel=1e-7)
    assert float(sfda(x, y, log=True)) == pytest.approx(log, rel=1e-5, abs=1e-9)


def test_the_least_shrinkage_and_what_mixing_does_by_hand() -> None:
    """Classes differ where nothing varies within them; what varies is wide, so that lambda is its least, 1e-10."""
    gap, wide = 3e-5, 3.0
    x = np.array([[c * gap, s * wide] for c in (0, 1) for s in (-1, 1)])
    variance = 1e-10 * wide**2 / 2
    p = 1 / (1 + math.exp(-(gap**2) / variance / 2))
    assert 0.6 < p < 0.9
    # Every sample keeps p of itself: the gap shrinks to 2 p - 1 of it, the deviation to p.
    again = 1 / (1 + math.exp(-(((2 * p - 1) * gap / p) ** 2) / variance / 2))
    assert float(sfda(x, [0, 0, 1, 1])) == pytest.approx(again, rel=1e-5)


def test_the_probabilities_mix_and_not_a_softmax_of_them() -> None:
    """Twenty classes far apart are certain; after a second softmax at most e / (e + 19) of a sample would be left."""
    rng = np.random.default_rng(0)
    y = np.arange(20).repeat(10)
    x = rng.normal(size=(20, 30))[y] + 0.2 * rng.normal(size=(200, 30))
    assert float(sfda(x, y)) == pytest.approx(loop(x, y)[0], abs=1e-9) and float(sfda(x, y)) > 0.999
    x, y = draw(classes=4)
    assert abs(loop(x, y, softmax_again=True)[0] - float(sfda(x, y))) > 0.02


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_features_stay_as_they_were(kind: str) -> None:
    x, y = draw()
    features = x.copy() if kind == "numpy" else torch.tensor(x)
    assert sfda(features, y) == sfda(features, y)
    assert np.array_equal(np.asarray(features), x)


def test_the_two_probabilities_of_a_binary_source() -> None:
    """Their covariance has rows of sum zero, from which a power iteration gets zero divided by zero."""
    p = np.array([1, 2, 2, 3, 5, 4, 6, 7]) / 8
    x, y = np.stack([p, 1 - p], axis=1), np.repeat([0, 1], 4)
    within = sum(np.cov(x[y == c].T, bias=True) / 2 for c in (0, 1))
    assert not within.sum(1).any()
    assert 0.5 < float(sfda(x, y)) < 1 and float(sfda(x, y)) == pytest.approx(loop(x, y)[0], rel=1e-9)


def test_candidates_that_are_all_certain_of_a_binary_target() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 20)
    near, far = (rng.normal(size=(40, 2)) + gap * y[:, None] for gap in (14.0, 16.0))
    assert sfda(near, y) == sfda(far, y) == 1  # a tie: as the released code, and as probabilities must
    assert sfda(near, y, log=True) < sfda(far, y, log=True) < 0


def test_classes_without_variance_within_them() -> None:
    y = torch.arange(12) % 3
    assert sfda(torch.eye(3)[y], y) == 1
    assert sfda(torch.eye(3)[y].double() * 1e-9 + 3.0, y) == 1
    two = torch.tensor([[0.1, 0.7], [3.3, 0.2], [3.3, 0.2]])[y]  # classes 1 and 2 cannot be told apart
    assert float(sfda(two, y)) == pytest.approx(2 / 3, rel=1e-9)
    assert float(sfda(two, y, log=True)) == pytest.approx(-2 / 3 * math.log(2), rel=1e-9)


def test_classes_of_one_mean_have_their_frequencies() -> None:
    x = torch.tensor([-1.0, 1.0, -1.0, 1.0, -2.0, 2.0])[:, None]
    found = sfda(x, [0, 0, 0, 0, 1, 1])
    assert float(found) == pytest.approx((4 * 2 / 3 + 2 * 1 / 3) / 6, rel=1e-12)


def test_what_does_not_change_it() -> None:
    x, y = draw()
    score = float(sfda(x, y))
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    order = np.random.default_rng(2).permutation(len(y))
    for features, labels in ((x @ q - 40, y), (x[order], y[order]), (x, 3 - y), (x, 7 * y), (x.tolist(), y.tolist())):
        assert float(sfda(features, labels)) == pytest.approx(score, rel=1e-9)
    assert float(sfda(x.astype(np.float32), y)) == pytest.approx(score, rel=1e-5)
    assert float(sfda(100 * x, y)) != pytest.approx(score, rel=1e-4)  # less shrinkage
    assert sfda(x, y).dtype == torch.float64 and sfda(x, y).dim() == 0


def test_it_grows_as_classes_part_and_is_chance_where_they_do_not() -> None:
    rng = np.random.default_rng(0)
    noise, y = rng.normal(size=(4000, 3)), np.arange(4000) % 4
    scores = [float(sfda(noise + gap * np.eye(4)[y][:, :3], y)) for gap in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert scores == sorted(scores) and scores[0] == pytest.approx(0.25, abs=0.01) and scores[-1] > 0.9


def test_values_out_of_all_proportion_and_classes_of_one() -> None:
    x, y = draw()
    assert 0.25 < float(sfda(x * 1e200, y)) < 1 and 0.25 < float(sfda(x * 1e-200, y)) < 1
    y[0] = 9
    assert 0.25 < float(sfda(x, y)) < 1 and math.isfinite(float(sfda(x, y, log=True)))
    assert float(sfda([[0.0], [1.0]], [0, 1])) == 1


def test_what_has_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        sfda([[1.0], [2.0]], [0, 0])
    with pytest.raises(ValueError, match="not finite"):
        sfda([[1.0], [math.nan]], [0, 1])
