"""The factorization behind H-score and LogME: against a plain SVD, in blocks, and where a Gram matrix fails."""

import pytest
import torch

from leap.metrics import axes as module
from leap.metrics.axes import axes
from leap.metrics.labelled import labelled

EPS = torch.finfo(torch.float64).eps


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(z, targets, centre):
    """Left vectors, singular values and targets, all at once."""
    if centre:
        z, targets = z - z.mean(0), targets - targets.mean(0)
    u, s, _ = torch.linalg.svd(z, full_matrices=False)
    return u, s, targets


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=[(2**24, 2**20, 128), (40, 16, 3), (1, 1, 1)], ids=["whole", "blocks", "single rows"])
def blocks(request, monkeypatch):
    for name, value in zip(("BLOCK", "PIECE", "PANEL"), request.param, strict=True):
        monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("centre", [True, False], ids=["centred", "as they are"])
@pytest.mark.parametrize(("m", "k"), [(50, 7), (12, 12), (14, 12), (9, 20), (2, 5), (3, 1)])
def test_values_and_coordinates_are_those_of_a_plain_svd(m, k, centre):
    z, targets = draw(m, k) + 3, draw(m, 4, seed=1)
    found = axes(z, targets, centre=centre)
    u, s, wanted = plain(z, targets, centre)
    rank = min(k, m - 1 if centre else m)
    assert found.rank == rank and (found.samples, found.columns) == (m, k) and len(found.values) == min(m, k)
    close(found.values, s)
    expected = (u.T @ wanted)[:rank]
    sign = torch.sign((found.coordinates[:rank] * expected).sum(1, keepdim=True))  # of a singular vector
    close(found.coordinates[:rank] * sign, expected, 1e-10)
    close(found.residuals, (wanted - u[:, :rank] @ expected).square().sum(0))


@pytest.mark.usefixtures("blocks")
def test_a_triangle_keeps_what_a_gram_matrix_loses():
    """Singular values down to 1e-10 of the largest; the Gram matrix's own round-off is 1e-8 of it."""
    left, right = (torch.linalg.qr(draw(n, 8, seed=n)).Q for n in (60, 8))
    s = torch.logspace(0, -10, 8, dtype=torch.float64)
    z, targets = (left * s) @ right.T, draw(60, 2, seed=3)
    found = axes(z, targets, centre=False)
    assert found.rank == 8
    torch.testing.assert_close(found.values, s, rtol=0, atol=20 * EPS)
    gram = torch.linalg.eigvalsh(z.T @ z).flip(0).clamp_min(0).sqrt()
    assert (gram - s).abs().max() > 1e-9


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("centre", [True, False], ids=["centred", "as they are"])
@pytest.mark.parametrize(("m", "k"), [(50, 7), (12, 12), (13, 12), (9, 20)])
def test_the_span_alone_is_the_same_space(m, k, centre):
    """Squared lengths in the space and outside it agree, and the rank; there are values where it is not certain."""
    z, targets = draw(m, k) + 3, draw(m, 4, seed=1)
    found, full = axes(z, targets, centre=centre, span=True), axes(z, targets, centre=centre)
    assert found.rank == full.rank == min(k, m - 1 if centre else m)
    close(found.coordinates[: found.rank].square().sum(0), full.coordinates[: full.rank].square().sum(0))
    close(found.residuals, full.residuals)
    close(found.concentration, full.concentration)
    assert (len(found.values) == 0) == (found.rank == k)


@pytest.mark.parametrize("least", [0.0, 1e-17, 1e-14, 1e-13, 3e-12, 1e-8])
def test_the_span_is_that_of_what_singular_values_say(least):
    """200 columns, one of them up to round-off a sum of others: wherever it begins to count, both ways agree."""
    z = draw(400, 200)
    z[:, 7] = z[:, :5].sum(1) + least * draw(400, seed=4)
    found, full = (axes(z, draw(400, 3, seed=1), centre=True, span=span) for span in (True, False))
    assert found.rank == full.rank == 199 + (full.values[-1] > 400 * EPS * full.values[0])
    close(found.residuals, full.residuals, 1e-6 if least < 1e-8 else 1e-9)
    if least == 1e-8:
        assert len(found.values) == 0 and found.rank == 200


def test_labels_that_lie_in_the_span_leave_no_residual():
    """The residual of what features interpolate is round-off squared, not a difference of nearly equal numbers."""
    z = draw(200, 10)
    targets = z @ draw(10, 3, seed=1)
    assert (axes(z, targets, centre=False).residuals <= 1e-28 * targets.square().sum(0)).all()


@pytest.mark.parametrize("offset", [0.1, 1e8, -1e15])
def test_a_constant_column_is_zero_however_large_it_is(offset):
    """Its mean is rounded; what that leaves is the same in all samples and would be a direction of its own."""
    z = 1e-3 * draw(1001, 3)
    more = torch.cat([z, torch.full((1001, 1), offset, dtype=torch.float64)], 1)
    found, alone = (axes(part, torch.eye(1001)[:, :5], centre=True) for part in (more, z))
    assert found.rank == 3 and found.values[3] == 0
    close(found.values[:3], alone.values)
    close(found.coordinates[:3].abs(), alone.coordinates.abs(), 1e-10)


@pytest.mark.parametrize("shape", [(40, 6), (5, 8)], ids=["tall", "wide"])
def test_dependent_and_empty_columns_add_round_off_alone(shape):
    z, targets = draw(*shape), draw(shape[0], 2, seed=1)
    more = torch.cat([z, z[:, :2], torch.zeros(shape[0], 3), z.sum(1, keepdim=True)], 1)
    found, alone = axes(more, targets, centre=False), axes(z, targets, centre=False)
    assert found.rank == alone.rank
    assert (found.values[found.rank :] < 1e-13 * found.values[0]).all()
    close(found.residuals, alone.residuals)


def test_the_mean_is_that_of_all_samples_not_of_a_block(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 30)
    drifting = torch.arange(40.0)[:, None] * torch.tensor([1.0, 0.3]) + draw(40, 2)
    found = axes(drifting, torch.zeros(40, 1), centre=True)
    close(found.values, torch.linalg.svdvals(drifting - drifting.mean(0)))


@pytest.mark.parametrize("offset", [1e4, 1e7])
def test_centring_is_no_worse_than_the_numbers_are(offset):
    """Numbers near 1e7 are 2e-9 apart; the factorization adds nothing to that."""
    moved = draw(500, 4) + offset
    truth = moved - offset  # exact
    found, expected = (axes(part, torch.eye(500)[:, :3], centre=True) for part in (moved, truth))
    close(found.values, expected.values)
    close(found.coordinates.abs(), expected.coordinates.abs(), 1e-10)


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
@pytest.mark.parametrize("shape", [(30, 4), (4, 6)], ids=["tall", "wide"])
def test_numbers_of_any_size_are_taken(scale, shape):
    z, targets = draw(*shape), draw(shape[0], 2, seed=1)
    found, expected = axes(scale * z, targets, centre=True), axes(z, targets, centre=True)
    close(found.values / scale, expected.values)
    close(found.concentration, expected.concentration)
    close(found.coordinates[: found.rank].abs(), expected.coordinates[: found.rank].abs(), 1e-9)


@pytest.mark.parametrize("shape", [(30, 4), (4, 6)], ids=["tall", "wide"])
def test_concentration_is_that_of_lengths_about_the_mean(shape):
    z = draw(*shape) + 5
    lengths = (z - z.mean(0)).norm(dim=1)
    close(axes(z, torch.zeros(len(z), 1), centre=True).concentration, (lengths**4).sum() / (lengths**2).sum() ** 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int16, torch.uint8])
@pytest.mark.parametrize("shape", [(30, 4), (4, 6)], ids=["tall", "wide"])
def test_every_type_is_computed_with_in_double_precision(dtype, shape):
    z = (10 * draw(*shape).abs()).to(dtype)
    member = torch.arange(len(z))[:, None] % 3 == torch.arange(3)
    found, expected = (axes(part, member, centre=True) for part in (z, z.double()))
    assert found.values.dtype == found.coordinates.dtype == found.residuals.dtype == torch.float64
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_features_keep_their_type_until_a_block_is_converted():
    z, labels = draw(6, 2).half(), [0, 1, 0, 1, 1, 0]
    assert labelled(z, labels, keep=True).features.dtype == torch.float16
    assert labelled(z, labels).features.dtype == torch.float64


def test_gradients_are_not_tracked_and_inputs_not_touched():
    z, targets = draw(10, 3).requires_grad_(), draw(10, 2)
    before = z.detach().clone()
    assert not axes(z, targets, centre=True).values.requires_grad
    assert torch.equal(z.detach(), before)


@pytest.mark.parametrize("z", [torch.zeros(4, 2), torch.tensor([[1e301], [0.0]], dtype=torch.float64)],
                         ids=["zero", "huge"])  # fmt: skip
def test_what_has_no_axes_is_refused(z):
    with pytest.raises(ValueError, match="must differ by more than 0 and less than 1e\\+300"):
        axes(z, torch.ones(len(z), 1), centre=False)
