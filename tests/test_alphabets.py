"""Alphabets as tasks: splits, batches, augmentation, scores."""

import math

import numpy as np
import pytest
import torch
from families import FAMILIES, random_drawings, small_alphabets
from torch.func import functional_call

from leap.errors import UsageError
from leap.testing import check_family
from tasks.alphabets import Alphabets, Protocol, split
from tasks.augment import Augmentation, apply_affine, draw_affine
from tasks.models import BatchNorm, Conv4


@pytest.mark.parametrize("family", FAMILIES)
def test_families_keep_their_contract(family):
    check_family(FAMILIES[family]())


@pytest.mark.parametrize("seed", range(3))
def test_held_out_alphabets_are_the_same_whatever_the_number_of_pretraining_ones(seed):
    splits = {n: split(46, Protocol(train=n), seed) for n in range(1, 26)}
    assert len({s.test for s in splits.values()}) == 1 and len({s.validation for s in splits.values()}) == 1
    for n in range(1, 26):
        s = splits[n]
        assert len(s.train) == n and len(s.test) == 10 and len(s.validation) == 11
        assert len({*s.train, *s.validation, *s.test}) == n + 21
        assert n == 1 or set(splits[n - 1].train) < set(s.train)
    assert split(46, Protocol(), seed + 1).test != splits[25].test


def test_everything_depends_on_the_seed_and_on_the_seed_alone():
    one, same, other = small_alphabets(), small_alphabets(), small_alphabets(seed=1)
    assert one.splits == same.splits and torch.equal(one.train_images, same.train_images)
    assert one.splits != other.splits or not torch.equal(one.train_images, other.train_images)
    theta = one.initial(0)[None]
    first, again = (one.batch([0], [s]).sample(theta, 2)[0] for s in (7, 7))
    assert torch.equal(first, again)
    assert not torch.equal(first, one.batch([0], [8]).sample(theta, 2)[0])
    assert not torch.equal(one.initial(0), one.initial(1))


def test_training_and_test_drawings_are_apart():
    family = small_alphabets(augmentation=None)
    for task in range(len(family.names)):
        seen = {image.tobytes() for image in family.train_images[task].numpy()}
        assert not seen & {image.tobytes() for image in family.test_images[task].numpy()}


def test_an_epoch_shows_every_training_image_once():
    family = small_alphabets(augmentation=None)  # 16 images, 6 a batch: epochs end within batches
    theta = family.initial(0).expand(2, -1)
    tasks = family.batch([1, 3], [5, 6])
    batches = [tasks.sample(theta, step) for step in range(8)]  # 48 images: three epochs
    images = torch.cat([x for x, _ in batches], dim=1)
    labels = torch.cat([y for _, y in batches], dim=1)
    for row, task in enumerate((1, 3)):
        for epoch in range(3):
            shown = images[row, 16 * epoch : 16 * epoch + 16, 0]
            whole = family.train_images[task].float() / 255
            order = [int((whole - image).abs().sum((1, 2)).argmin()) for image in shown]
            assert sorted(order) == list(range(16))
            assert labels[row, 16 * epoch : 16 * epoch + 16].tolist() == [i // 4 for i in order]
    jump = family.batch([1, 3], [5, 6]).sample(theta, 7)  # a step can be drawn without those before it
    assert torch.equal(jump[0], batches[7][0])


def test_query_images_are_the_test_drawings():
    family = small_alphabets(augmentation=None)
    images, labels = family.batch([2], [0]).query(family.initial(0)[None], 3)
    assert torch.equal(images[0, :, 0], family.test_images[2].float() / 255)
    assert labels[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_map_without_motion_leaves_images_alone_and_quarter_turns_turn():
    images = torch.rand(3, 1, 28, 28)
    still = draw_affine(3, Augmentation(0.0, (1.0, 1.0), 0.0), torch.Generator())
    torch.testing.assert_close(apply_affine(images, still), images, atol=1e-5, rtol=0)
    turn = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]]).expand(3, -1, -1)
    torch.testing.assert_close(apply_affine(images, turn), torch.rot90(images, -1, (2, 3)), atol=1e-5, rtol=0)


def test_maps_lie_within_their_ranges_and_scale_the_ink():
    augmentation = Augmentation(30.0, (0.5, 2.0), 0.1)
    maps = draw_affine(5000, augmentation, torch.Generator().manual_seed(0))
    size = 1 / torch.linalg.det(maps[:, :, :2]).sqrt()
    angle = torch.atan2(maps[:, 0, 1], maps[:, 0, 0]).rad2deg()
    move = -torch.linalg.solve(maps[:, :, :2], maps[:, :, 2:]).squeeze(-1)
    assert 0.5 <= size.min() < 0.51 and 1.99 < size.max() <= 2.0
    assert -30 <= angle.min() < -29 and 29 < angle.max() <= 30
    assert 0.199 < move.abs().max() <= 0.2 + 1e-5  # coordinates run from -1 to 1: a tenth of the size is 0.2
    dot = torch.zeros(1, 1, 28, 28)
    dot[..., 10:18, 10:18] = 1.0
    double = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])
    assert apply_affine(dot, double).sum().item() == pytest.approx(4 * dot.sum().item(), rel=0.02)


def test_what_lies_outside_the_page_is_blank():
    white = torch.ones(1, 1, 28, 28)
    away = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]])
    assert apply_affine(white, away).abs().max() == 0


def test_normalization_by_the_first_rows_uses_only_those():
    norm = BatchNorm(2).double()
    x = torch.randn(7, 2, 3, 3, dtype=torch.float64)
    whole = norm(x[:4])
    torch.testing.assert_close(norm(x, rows=4)[:4], whole, rtol=1e-12, atol=1e-12)
    other = torch.cat([x[:4], 100 * x[4:]])
    assert torch.equal(norm(other, rows=4)[:4], norm(x, rows=4)[:4])


def test_the_block_is_the_papers():
    """Rectifying after the pooling gives what rectifying before it gives."""
    module = Conv4(3, filters=4).double()
    x = torch.randn(5, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = x
    for block in module.blocks:
        expected = torch.nn.functional.max_pool2d(torch.relu(block.norm(block.conv(expected))), 2)
    torch.testing.assert_close(module.features(x), expected.flatten(1), rtol=1e-12, atol=1e-12)


def test_the_score_is_not_transductive_and_counts_right():
    family = small_alphabets()
    tasks = family.batch([0, 1], [1, 2])
    theta = torch.stack([family.initial(0), family.initial(1)])
    scores = tasks.score(theta)
    images = torch.cat([family.train_images[1], family.test_images[1][:1]]).unsqueeze(1) / 255
    for k in range(8):  # one test image at a time: the same predictions
        images[-1, 0] = family.test_images[1][k].float() / 255
        logits = functional_call(family.module, family.layout.unflatten(theta[1]), (images, 16))
        if k == 0:
            wrong = []
        wrong.append(int(logits[-1].argmax()) != k // 2)
    assert scores["test_error"][1].item() == pytest.approx(100 * np.mean(wrong))
    assert scores["test_loss"].shape == (2,)


def test_a_uniform_guess_costs_the_log_of_the_ways():
    family = small_alphabets()
    theta = torch.zeros(1, family.layout.n)
    tasks = family.batch([0], [0])
    images, labels = (part[0] for part in tasks.sample(theta, 0))
    assert tasks.loss(theta[0], (images, labels))[0].item() == pytest.approx(math.log(4), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 6}, r"no alphabet has 6 characters \(the largest has 5\)"),
        ({"shots": 5, "queries": 2}, "5 training and 2 test drawings .* there are 6"),
        ({"train": 7}, "7 pretraining and 2 held-out alphabets need 9, but only 8"),
    ],
)
def test_what_the_data_lacks_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        small_alphabets(**changes)


def test_alphabets_with_too_few_characters_are_left_out():
    drawings = random_drawings()
    images = (drawings.images[0][:3], *drawings.images[1:])
    fewer = drawings._replace(images=images, characters=(drawings.characters[0][:3], *drawings.characters[1:]))
    protocol = Protocol(ways=4, shots=4, queries=2, train=4, held_out=2, batch_size=6)
    assert Alphabets(fewer, protocol, seed=0, filters=3).names == drawings.names[1:]
