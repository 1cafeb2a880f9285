"""The embedded image sets: the same everywhere, cleanly split, of different character, and learnable."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.ft2font import FT2Font
from torch.nn import functional as F

from leap.errors import UsageError
from leap.randomness import generator
from tasks import embedded_sets, glyphs
from tasks.embedded_sets import EMBEDDED, TEST, TRAIN, load
from tasks.image_files import check
from tasks.image_sets import ImageSets, in_order
from tasks.image_sources import SOURCES
from tasks.models import Conv4, initialize

DRAWN = [name for name in EMBEDDED if name != "digits"]


def one(name):
    return load([name])[0]


# Whatever the set


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_set_is_what_it_promises_and_every_class_is_in_both_parts(name):
    found = one(name)
    assert check(found, Path(name)) is found and found.name == name
    assert found.images.shape[1:3] == (32, 32) and len(set(found.class_names)) == len(found.class_names)
    train, test = (
        np.bincount(found.labels[found.split == part], minlength=len(found.class_names)) for part in (True, False)
    )
    assert train.min() >= 36 and test.min() >= 10 and train.sum() >= TRAIN and test.sum() >= TEST
    assert len(found.images) < 1800
    if name != "digits":
        assert len(set(train)) == len(set(test)) == 1  # and so any first rows are as balanced as they can be


@pytest.mark.parametrize("name", EMBEDDED)
def test_no_image_stands_there_twice(name):
    images = one(name).images
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("name", EMBEDDED)
def test_pictures_use_the_range_of_a_byte(name):
    images = one(name).images
    assert images.min() == 0 and images.max() == 255 and 20 < images.std() < 110
    assert images.reshape(len(images), -1).std(axis=1).min() > 5  # none is blank


def test_names_are_new_and_heads_differ_in_width():
    assert not set(EMBEDDED) & set(SOURCES) and 6 <= len(EMBEDDED) <= 8
    counts = [len(found.class_names) for found in load(list(EMBEDDED))]
    assert counts == [10, 26, 24, 20, 16, 12, 6, 9]
    assert [found.images.shape[3] for found in load(list(EMBEDDED))] == [1, 1, 1, 1, 1, 3, 3, 1]


DIGEST = """
import hashlib, sys
from tasks.embedded_sets import EMBEDDED, load
for name in sys.argv[1:]:
    print(hashlib.sha256(load([name])[0].images.tobytes()).hexdigest())
"""


def test_sets_are_the_same_in_another_process_whatever_was_drawn_before_and_leave_no_file(tmp_path):
    """No checksum is recorded: fonts and splines may be rounded differently by another version of the libraries."""
    names = [*EMBEDDED][::-1]
    here = [hashlib.sha256(found.images.tobytes()).hexdigest() for found in load(names)]
    assert len(set(here)) == len(here)
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7", "HOME": str(tmp_path)}
    environment |= {"LEAP_CACHE": str(tmp_path / "cache"), "LEAP_DATA": str(tmp_path / "none")}
    command = [sys.executable, "-c", DIGEST, *names]
    root = Path(embedded_sets.__file__).parents[1]
    there = subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True, text=True).stdout
    assert there.split() == here
    assert not (tmp_path / "cache").exists()


def test_a_set_is_drawn_once_and_shared_behind_a_lock():
    first, again = one("textures"), one("textures")
    assert first is again
    for array in (first.images, first.labels, first.split):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_wrong_names_are_refused_with_the_nearest():
    for names, message in (
        (["latin", "grek"], "no embedded image set 'grek'; did you mean 'greek'"),
        (["xyz"], "no embedded image set 'xyz'; Known: digits, latin"),
        (["latin", "latin"], "'latin' is named twice"),
    ):
        with pytest.raises(UsageError, match=message):
            load(names)
    assert load([]) == []


def test_all_sets_are_tasks_of_one_family():
    family = ImageSets(load(list(EMBEDDED)), seed=0, train_size=TRAIN, test_size=TEST, widths=(2,), choice=in_order)
    assert family.counts.tolist() == [len(found.class_names) for found in load(list(EMBEDDED))]
    for task, found in enumerate(load(list(EMBEDDED))):
        counts = np.bincount(family.train_labels[task])
        assert counts.max() - counts.min() <= (1 if found.name in DRAWN else 10)


# One by one


def test_digits_are_scikit_learns_each_pixel_sixteen():
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)
    found = one("digits")
    small = found.images[:, ::4, ::4, 0]
    assert np.array_equal(found.images[..., 0], np.kron(small, np.ones((1, 4, 4), np.uint8)))
    assert np.array_equal(np.rint(small.reshape(-1, 64) / 255 * 16), levels)
    assert np.array_equal(found.labels, labels) and (found.split.sum(), (~found.split).sum()) == (1437, 360)
    assert not np.any(np.diff(found.split.astype(int)) > 0)  # training first, in the order of the file


def test_the_fonts_have_every_character():
    wanted = {name: [ord(c) for c in one(name).class_names] for name in DRAWN if name not in ("shapes", "textures")}
    wanted["shapes"] = list(embedded_sets._SHAPES.values())
    for name, codes in wanted.items():
        fonts = glyphs.FONTS if name in ("latin", "greek", "cyrillic") else glyphs.FONTS[:1]
        for font in fonts:
            assert set(codes) <= set(FT2Font(glyphs._font_path(font)).get_charmap()), (name, font)


def middle_and_frame(name):
    """Mean brightness of all pictures' middles and of their frames, where hardly any ink comes."""
    images = one(name).images[..., 0].astype(float)
    return images[:, 8:24, 8:24].mean(), np.concatenate([images[:, :2], images[:, -2:]], axis=1).mean()


def test_ink_is_bright_or_dark_as_the_script_has_it():
    for name in ("latin", "cyrillic", "symbols"):
        middle, frame = middle_and_frame(name)
        assert middle > frame + 5 and frame < 90, name
    middle, frame = middle_and_frame("greek")
    assert middle < frame - 5 and frame > 150


def disc(count, radius=30):
    axis = (np.arange(glyphs.GRID) + 0.5) * glyphs.PAGE / glyphs.GRID - glyphs.PAGE / 2
    return np.broadcast_to(radius - np.hypot(axis[:, None], axis), (count, glyphs.GRID, glyphs.GRID))


def test_ink_covers_what_is_inside_the_outline():
    covered = embedded_sets._ink(disc(1))[0]
    assert covered.shape == (32, 32) and covered[16, 16] == 1 and not covered[:2].any() and not covered[:, -2:].any()
    assert covered.sum() == pytest.approx(np.pi * (30 / 4) ** 2, rel=0.005)  # four dots a pixel


def test_an_outline_is_bright_at_the_edge_alone():
    picture = embedded_sets._outline(np.random.default_rng(0), disc(400)).mean(axis=0)[..., 0]
    middle, edge, outside = picture[14:18, 14:18].mean(), picture[15:17, [8, 23]].mean(), picture[3:5, 3:5].mean()
    assert edge > 0.5 > 3 * max(middle, outside)


def test_inks_stand_out_from_their_ground_and_every_picture_has_its_own():
    ink, ground = embedded_sets._two_colours(np.random.default_rng(0), 1000)
    assert abs(ink - ground).min() >= 0.3 - 1e-12 and ink.min() >= 0 and ink.max() <= 1
    for name in ("painted", "shapes"):
        corners = one(name).images[:, :3, :3].astype(float).mean(axis=(1, 2))  # [N, 3]
        assert corners.std(axis=0).min() > 50
        assert abs(np.corrcoef(corners.T) - np.eye(3)).max() < 0.1  # colour, not grey
    ground = [one(name).images[:, :2].astype(float).std(axis=(1, 2)).mean() for name in ("painted", "shapes")]
    assert ground[0] > 1.5 * ground[1]  # cloth has a pattern, plain ground hardly


def test_half_of_the_shapes_are_hollow():
    pictures = embedded_sets._plain(np.random.default_rng(0), disc(1000))
    ground, middle = pictures[:, 1:4, 1:4].mean(axis=(1, 2)), pictures[:, 14:18, 14:18].mean(axis=(1, 2))
    assert 0.45 < (abs(ground - middle).min(axis=1) < 0.15).mean() < 0.55


def test_stripes_run_as_they_are_called():
    found = one("textures")
    down, right = np.gradient(found.images[..., 0].astype(float), axis=(1, 2))
    own = {name: found.labels == label for label, name in enumerate(found.class_names)}
    steepness = {name: (np.mean(down[rows] ** 2), np.mean(right[rows] ** 2)) for name, rows in own.items()}
    assert steepness["horizontal"][0] > 1.2 * steepness["horizontal"][1]
    assert steepness["vertical"][1] > 1.2 * steepness["vertical"][0]
    # A stripe that rises to the right is level where the row falls as the column grows: both slopes have one sign.
    slant = {name: np.mean(down[rows] * right[rows]) for name, rows in own.items()}
    assert slant["rising"] > 100 and slant["falling"] < -100
    assert all(abs(slant[name]) < 50 for name in found.class_names if name not in ("rising", "falling"))


def test_textures_are_told_by_no_pixel_alone():
    found = one("textures")
    means = np.stack([found.images[found.labels == label].mean(axis=0) for label in range(9)])
    assert means.std(axis=(1, 2, 3)).max() < 15  # of 255, with 135 pictures a mean


# Learning


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_few_epochs_beat_chance(name):
    found = one(name)
    images = torch.from_numpy(found.images.copy()).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float() / 255
    labels, split = torch.from_numpy(found.labels.copy()), torch.from_numpy(found.split.copy())
    images = (images - images[split].mean((0, 2, 3), keepdim=True)) / images[split].std((0, 2, 3), keepdim=True)
    network = initialize(Conv4(len(found.class_names), 8, 3, 32), generator(0, "initialization"))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    order = torch.cat([torch.randperm(TRAIN, generator=generator(0, "epoch", i)) for i in range(6)])
    for rows in order.split(32):  # 180 steps; after 90 the hardest set still hung on the seed, and on round-off
        optimizer.zero_grad()
        F.cross_entropy(network(images[split][rows]), labels[split][rows]).backward()
        optimizer.step()
    with torch.no_grad():
        right = (network(images[~split]).argmax(1) == labels[~split]).double().mean().item()
    assert right > 1 / len(found.class_names) + 0.1
