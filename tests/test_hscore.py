"""H-score: closed forms, invariances, independent forms, shrinkage, and the wrong forms that are in use elsewhere."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import eigh, subspace_angles
from scipy.stats import chi2_contingency
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LinearRegression

from leap.metrics.hscore import h_score, h_score_report, transferability


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def setting(m=120, k=6, classes=4, seed=0, noise=1.0):
    """Classes of unequal size whose means differ."""
    labels = torch.randint(classes, (m,), generator=torch.Generator().manual_seed(seed + 1))
    labels[:classes] = torch.arange(classes)
    return draw(classes, k, seed=seed + 2)[labels] + noise * draw(m, k, seed=seed + 3) + 2, labels


def covariances(z, labels, *, between_ddof=0):
    """Total and between-class covariance by their definitions, numpy."""
    z, labels = np.asarray(z), np.asarray(labels)
    means = np.stack([z[labels == y].mean(0) for y in labels])
    total = (z - z.mean(0)).T @ (z - z.mean(0)) / len(z)
    return total, (means - z.mean(0)).T @ (means - z.mean(0)) / (len(z) - between_ddof)


def close(a, b, tolerance=1e-9):
    assert float(a) == pytest.approx(float(b), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_four_forms_of_the_score_agree(seed):
    z, labels = setting(seed=10 * seed)
    found = h_score(z, labels)
    total, between = covariances(z, labels)
    close(found, np.trace(np.linalg.pinv(total) @ between))
    share, mean = np.bincount(labels) / len(labels), z.numpy().mean(0)
    gaps = np.stack([z.numpy()[np.asarray(labels) == y].mean(0) - mean for y in range(4)])
    close(found, float((share * np.einsum("yi,ij,yj->y", gaps, np.linalg.inv(total), gaps)).sum()))
    ratios = eigh(between, total - between, eigvals_only=True)
    close(found, float((ratios / (1 + ratios)).sum()))
    member = np.eye(4)[labels]
    angles = subspace_angles(z.numpy() - mean, (member - member.mean(0))[:, 1:])
    close(found, float((np.cos(angles) ** 2).sum()))


def test_the_score_of_one_feature_is_the_correlation_ratio():
    """A sum of squares between groups over the whole one, by hand, the first without any."""
    close(h_score([[0.0], [1.0], [0.0], [1.0]], [0, 0, 1, 1]), 0.0, 1e-12)
    close(h_score([[0.0], [1.0], [1.0], [2.0]], [0, 0, 1, 1]), 0.5)
    close(h_score(np.array([[0], [2], [2], [4], [2]]), [0, 1, 1, 1, 2]), (4 + 3 * (2 / 3) ** 2) / 8)


def test_two_classes_give_the_determination_of_a_linear_regression():
    z, labels = setting(classes=2)
    close(h_score(z, labels), LinearRegression().fit(z, labels).score(z, labels))


@pytest.mark.parametrize("log_cond", [0, 3, 5.9])
def test_invertible_maps_shifts_names_and_order_do_not_matter(log_cond):
    z, labels = setting()
    found = h_score(z, labels)
    left, right = (torch.linalg.qr(draw(6, 6, seed=s)).Q for s in (7, 8))
    a = left @ torch.diag(torch.logspace(0, -log_cond, 6, dtype=torch.float64)) @ right
    assert float(torch.linalg.cond(a)) == pytest.approx(10**log_cond, rel=1e-6)
    close(h_score(z @ a + draw(6, seed=9), labels), found)
    close(h_score(z, torch.tensor([3, 0, 7, 1])[labels]), found)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(1))
    close(h_score(z[order], labels[order]), found)


@pytest.mark.parametrize("extra", ["duplicates", "constant", "zero", "sum"])
def test_columns_without_a_direction_of_their_own_add_nothing(extra):
    z, labels = setting()
    columns = {
        "duplicates": z[:, [0, 0, 3]], "constant": torch.full((len(z), 2), 1e6), "zero": torch.zeros(len(z), 2),
        "sum": z.sum(1, keepdim=True),
    }  # fmt: skip
    found, more = (h_score_report(part, labels) for part in (z, torch.cat([z, columns[extra]], 1)))
    close(more.score, found.score)
    assert more.rank == found.rank == 6


@pytest.mark.parametrize(("k", "classes"), [(1, 2), (2, 5), (9, 3), (20, 20)])
def test_the_score_lies_within_its_bounds(k, classes):
    for seed in range(4):
        found = h_score_report(*setting(k=k, classes=classes, seed=100 * seed, noise=10.0 ** (1 - seed)))
        assert 0 <= found.score <= found.maximum == min(found.rank, classes - 1)


@pytest.mark.parametrize("counts", [[4, 4], [1, 9, 30], [20, 3, 3, 3, 1]])
def test_features_that_are_the_label_score_all_there_is(counts):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    found = h_score_report(torch.eye(len(counts))[labels], labels)
    close(found.score, len(counts) - 1.0, 1e-12)
    close(found.adjusted, 1.0, 1e-12)
    assert found.rank == len(counts) - 1


def test_more_columns_never_score_less():
    z, labels = setting(m=200, k=40, noise=3.0)
    scores = [float(h_score(z[:, :k], labels)) for k in range(1, 41)]
    assert all(one <= more + 1e-12 for one, more in itertools.pairwise(scores))
    assert scores[-1] > scores[0] + 0.1


@pytest.mark.parametrize("k", [29, 30, 100])
def test_as_many_directions_as_samples_fit_any_labels(k):
    """The reason for the refusal: with r = n - 1 the score is |Y| - 1 whatever the labels are."""
    labels = torch.arange(30) % 5
    report = h_score_report(draw(30, k), labels, shrinkage=0.0)
    close(report.score, 4.0, 1e-10)
    assert report.rank == 29 and report.adjusted == 0


def scarce(k):
    """30 samples of features whose variances differ, so that Ledoit and Wolf leave something of them."""
    return draw(30, k) * torch.logspace(0, -1, k, dtype=torch.float64), torch.arange(30) % 5


def test_too_few_samples_are_refused_and_the_cure_works():
    told = r"n = 30 and r = 16.*32 samples or more.*shrinkage=\"ledoit-wolf\""
    for score in (h_score, transferability):
        with pytest.raises(ValueError, match=told):
            score(*scarce(16))
    assert h_score(*scarce(15)) < 4
    assert 0 < h_score(*scarce(16), shrinkage="ledoit-wolf") < h_score(*scarce(16), shrinkage=0)


def test_a_report_shrinks_where_the_score_refuses_and_says_so():
    few, enough = h_score_report(*scarce(16)), h_score_report(*scarce(15))
    assert few.scarce and 0 < few.shrinkage < 1 and few.samples_per_rank == 30 / 16
    close(few.score, h_score(*scarce(16), shrinkage="ledoit-wolf"), 0)
    assert not enough.scarce and enough.shrinkage == 0
    close(enough.score, h_score(*scarce(15)), 0)
    assert h_score_report(*scarce(16), shrinkage=0.5).shrinkage == 0.5


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, "ledoit-wolf"])
def test_the_null_is_the_mean_over_all_orders_of_the_labels(shrinkage):
    """By enumeration of all 15 splits, which no draw can be lucky at."""
    z = draw(6, 3)
    scores = []
    for chosen in itertools.combinations(range(6), 2):
        labels = torch.zeros(6, dtype=torch.long)
        labels[list(chosen)] = 1
        report = h_score_report(z, labels, shrinkage=shrinkage)
        scores.append(float(report.score))
    close(np.mean(scores), float(report.null), 1e-12)
    if shrinkage == 0:
        close(report.null, 3 * 1 / 5, 1e-12)


@pytest.mark.parametrize("shrinkage", [0.2, 0.9])
def test_no_labels_beat_the_maximum_and_some_attain_it(shrinkage):
    """Features [u, v] with v small: labels that are the sign of u carry all of the first direction."""
    u, v = torch.tensor([1.0, 1, -1, -1, 1, 1, -1, -1]), torch.tensor([1.0, -1, 1, -1, 1, -1, 1, -1])
    z = torch.stack([u, 0.1 * v], 1).double()
    best = h_score_report(z, (u > 0).long(), shrinkage=shrinkage)
    close(best.score, best.maximum, 1e-12)
    close(best.adjusted, 1.0, 1e-12)
    other = h_score_report(z, (v > 0).long(), shrinkage=shrinkage)
    assert other.score < 0.3 * best.score


def by_inverse(z, labels, a):
    total, between = covariances(z, labels)
    mixed = (1 - a) * total + a * np.trace(total) / len(total) * np.eye(len(total))
    return np.trace(np.linalg.inv(mixed) @ ((1 - a) * between))


@pytest.mark.parametrize("k", [6, 150])
@pytest.mark.parametrize("a", [1e-3, 0.4, 1])
def test_the_shrunk_score_is_that_of_mixed_covariances(k, a):
    z, labels = setting(k=k)
    z = torch.cat([z, torch.ones(len(z), 2)], 1)  # columns that count in the identity's weight
    close(h_score(z, labels, shrinkage=a), by_inverse(z, labels, a))


def test_no_shrinkage_is_the_plain_score_and_full_shrinkage_is_nothing():
    z, labels = setting()
    close(h_score(z, labels, shrinkage=0.0), h_score(z, labels), 1e-12)
    report = h_score_report(z, labels, shrinkage=1)
    assert report.score == report.null == report.adjusted == 0


@pytest.mark.parametrize(("m", "k"), [(120, 6), (40, 60), (30, 1), (500, 3), (2, 5)])
@pytest.mark.parametrize("scale", [1.0, 1e-170, 1e100])
def test_the_amount_is_that_of_ledoit_and_wolf(m, k, scale):
    z = draw(m, k) * torch.logspace(0, 1, k, dtype=torch.float64) + 4
    labels = torch.arange(m) % 2
    expected = LedoitWolf().fit(z.numpy()).shrinkage_
    report = h_score_report(scale * z, labels, shrinkage="ledoit-wolf")
    close(report.shrinkage, float(expected), 1e-10)
    close(report.score, by_inverse(z, labels, expected) if expected else float(h_score(z, labels)))


# What is in use elsewhere, each wrong in its own way.


def test_the_product_is_not_elementwise():
    z, labels = setting()
    total, between = covariances(z, labels)
    elementwise = np.trace(np.linalg.pinv(total) * between)  # google-research, stable_transfer
    assert abs(elementwise - np.trace(np.linalg.pinv(total) @ between)) > 0.1
    close(h_score(z, labels), np.trace(np.linalg.pinv(total) @ between))


def test_both_covariances_have_one_divisor():
    """A between-class covariance over n - 1 beside a total one over n is n / (n - 1) too large, above all bounds."""
    labels = torch.arange(3).repeat(4)
    z = torch.eye(3)[labels] + 1e-4 * draw(12, 3)
    a = 0.01
    total, between = covariances(z, labels, between_ddof=1)
    mixed = (1 - a) * total + a * np.trace(total) / 3 * np.eye(3)
    mismatched = np.trace(np.linalg.inv(mixed) @ ((1 - a) * between))
    close(h_score(z, labels, shrinkage=a), mismatched * 11 / 12)
    assert np.trace(np.linalg.pinv(total) @ between) > 2 >= h_score(z, labels)


def test_features_are_centred():
    (z, labels), raw = setting(), setting()[0].numpy()
    means = np.stack([raw[np.asarray(labels) == y].mean(0) for y in labels])
    uncentred = np.trace(np.linalg.inv(raw.T @ raw) @ (means.T @ means))
    assert uncentred > h_score(z, labels) + 0.1
    close(h_score(z - z.mean(0), labels), h_score(z, labels))
    close(h_score(z + 1e4, labels), h_score(z, labels))


def test_round_off_is_no_direction_and_small_variance_is_one():
    """No cut-off of a pseudo-inverse has both: 1e-17 inverts the round-off of duplicates, 1e-2 drops labels."""
    z, labels = setting(m=300)
    doubled = torch.cat([z, z @ draw(6, 6, seed=4), z @ draw(6, 20, seed=5)], 1)
    total, between = covariances(doubled, labels)
    assert abs(np.trace(np.linalg.pinv(total, rcond=1e-17) @ between) - h_score(z, labels)) > 1e-3
    close(h_score(doubled, labels), h_score(z, labels))
    scaled = z * torch.logspace(0, -4, 6, dtype=torch.float64)
    total, between = covariances(scaled, labels)
    assert np.trace(np.linalg.pinv(total, rcond=1e-2) @ between) < h_score(z, labels) - 0.1
    close(h_score(scaled, labels), h_score(z, labels))


def test_conditions_at_which_an_inverse_fails_cost_nothing():
    """Columns at scales 1 to 1e-9, mixed: covariances have condition 1e18, singular values 1e9."""
    z, labels = setting(m=300)
    mix = torch.linalg.qr(draw(6, 6, seed=5)).Q
    graded = (z - z.mean(0)) @ torch.diag(torch.logspace(0, -9, 6, dtype=torch.float64)) @ mix
    total, between = covariances(graded, labels)
    truth, found = float(h_score(z, labels)), float(h_score(graded, labels))
    assert abs(np.trace(np.linalg.inv(total) @ between) - truth) > 1e-3
    assert abs(found - truth) < 1e-6


@pytest.mark.parametrize("classes", [2, 5])
def test_transferability_is_a_share_of_what_labels_free_of_noise_allow(classes):
    labels = torch.arange(classes).repeat(6)
    close(transferability(torch.eye(classes)[labels], labels), 1.0, 1e-12)
    z, labels = setting(classes=classes)
    found = transferability(z, labels)
    close(found, h_score(z, labels) / (classes - 1), 1e-12)
    assert 0 < found < 1


def test_round_off_takes_transferability_not_above_one():
    for seed in range(20):
        labels = torch.arange(4).repeat(5)
        mixed = torch.eye(4, dtype=torch.float64)[labels] @ draw(4, 4, seed=seed) + draw(4, seed=seed + 100)
        assert 1 - 1e-12 < transferability(mixed, labels) <= 1


def test_an_exceeded_optimum_is_not_hidden():
    z, labels = setting(noise=0.1)
    best = float(h_score(z, labels))
    close(transferability(z, labels, optimum=best), 1.0, 1e-12)
    close(transferability(z, labels, optimum=torch.tensor(best).double() / 2), 2.0, 1e-6)


def test_discrete_inputs_reach_the_chi_squared_of_their_own_table():
    """Indicators of X carry everything, so their H-score is the chi-squared of the table of counts over n."""
    table = np.array([[20, 5, 5], [3, 15, 2], [4, 4, 30], [6, 7, 8]])
    x, y = (torch.tensor(side) for side in np.repeat(np.indices(table.shape).reshape(2, -1), table.ravel(), axis=1))
    chi2 = chi2_contingency(table, correction=False).statistic / table.sum()
    close(h_score(torch.eye(4)[x], y), chi2)
    close(transferability(torch.eye(4)[x], y, optimum=chi2), 1.0)
    assert transferability(x[:, None], y, optimum=chi2) < 1


@pytest.mark.parametrize("optimum", [0, -1.0, 3.1, math.nan, math.inf])
def test_an_optimum_that_nothing_has_is_refused(optimum):
    with pytest.raises(ValueError, match=r"above 0 and at most \|Y\| - 1 = 3, got"):
        transferability(*setting(), optimum=optimum)


@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", "0.5", -0.1, 1.5, math.nan])
def test_an_unknown_shrinkage_is_refused(shrinkage):
    with pytest.raises(ValueError, match=r'None, "ledoit-wolf" or a number from 0 to 1, got'):
        h_score(*setting(), shrinkage=shrinkage)


@pytest.mark.parametrize("score", [h_score, h_score_report, transferability])
def test_constant_features_are_refused(score):
    with pytest.raises(ValueError, match="the same in all 4 samples"):
        score(torch.ones(4, 2), [0, 0, 1, 1])


def test_arrays_of_any_kind_and_classes_without_samples():
    z, labels = setting()
    found = h_score(z, labels)
    assert found.dtype == torch.float64 and found.dim() == 0
    close(h_score(z.tolist(), labels.tolist()), found, 1e-12)
    close(h_score(z.numpy(), (3 * labels).numpy()), found, 1e-12)
    single = z.float()
    close(h_score(single, labels), h_score(single.double(), labels), 0)
    close(transferability(z, 2 * labels), found / 3, 1e-12)  # of the classes that occur


def test_every_sample_a_class_of_its_own_is_no_better_than_chance():
    found = h_score_report(draw(10, 3), range(10))
    close(found.score, 3.0, 1e-12)
    assert found.adjusted == 0
