"""Image sets from their files: the registry, the halves of CIFAR-100, the settings, and the real images."""

import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from official_files import write_idx, write_mnist

from leap.cli import build, configuration, task_settings
from leap.cli.settings import Settings
from leap.errors import UsageError
from leap.optim import sgd
from leap.walk import walk
from tasks import cifar100, image_sources
from tasks.image_files import check
from tasks.image_sets import ImageSets


def place(home, name, train=None, test=None, seed=0, side=28):
    """A folder of idx files with random images; returns them. Labels go round ten classes."""
    return write_mnist(home / name, train or 0, test or 0, seed, side)


# From files to pictures


def test_both_parts_are_read_with_the_official_split_and_padded(tmp_path):
    made = place(tmp_path, "mnist", train=30, test=20)
    (found,) = image_sources.load(["mnist"], tmp_path)
    assert check(found, tmp_path) is found and found.images.shape == (50, 32, 32, 1)
    assert found.split.tolist() == [True] * 30 + [False] * 20
    whole = np.concatenate([made["train"][0], made["t10k"][0]])
    assert np.array_equal(found.images[:, 2:-2, 2:-2, 0], whole) and not found.images[:, :2].any()
    assert found.labels.tolist() == [i % 10 for i in range(30)] + [i % 10 for i in range(20)]


def test_an_inverted_set_has_no_frame(tmp_path):
    place(tmp_path, "fashion-mnist", train=20, test=20)
    plain, inverted = image_sources.load(["fashion", "ifashion"], tmp_path)
    assert (plain.name, inverted.name) == ("fashion", "ifashion")
    assert np.array_equal(inverted.images, 255 - plain.images) and (inverted.images[:, 0] == 255).all()
    assert image_sources.superset("ifashion") == image_sources.superset("fashion") != image_sources.superset("mnist")


def test_a_test_part_alone_is_split_evenly_and_the_same_way_each_time(tmp_path):
    made = place(tmp_path, "kmnist", test=200)
    made["t10k"][0][11] = made["t10k"][0][1]  # an image that stands there twice
    write_idx(tmp_path / "kmnist" / image_sources.IMAGES.format("t10k"), made["t10k"][0])
    (found,), (again,) = (image_sources.load(["kmnist"], tmp_path) for _ in range(2))
    assert np.array_equal(found.split, again.split) and len(found.images) == 199
    assert np.bincount(found.labels[~found.split]).tolist() == [4, 3, *[4] * 8]  # a fifth of 20, of 19
    assert np.array_equal(found.images[:, 2:-2, 2:-2, 0], np.delete(made["t10k"][0], 11, axis=0))


def test_small_images_are_doubled(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8)
    (tmp_path / "usps").mkdir()
    split = np.array(["train", "train", "test", "test"])
    np.savez(tmp_path / "usps" / "any.npz", images=images, labels=np.array([0, 1, 0, 1]), split=split)
    (found,) = image_sources.load(["usps"], tmp_path)
    assert found.images.shape == (4, 32, 32, 1) and found.class_names == ("0", "1")
    for row, column in itertools.product(range(2), range(2)):
        assert np.array_equal(found.images[:, row::2, column::2, 0], images)


@pytest.mark.parametrize("half", ["natural", "artificial"])
def test_a_half_keeps_its_classes_and_numbers_them_anew(tmp_path, half):
    names = sorted(itertools.chain(*cifar100.SUPERCLASSES.values()))[::-1]  # whatever the order in the file
    labels = np.tile(np.arange(100), 2)
    images = np.broadcast_to(labels[:, None, None, None], (200, 32, 32, 3)).astype(np.uint8)
    (tmp_path / "cifar100").mkdir()
    split, path = np.repeat(["train", "test"], 100), tmp_path / "cifar100" / "a.npz"
    np.savez(path, images=images, labels=labels, split=split, class_names=names)
    (found,) = image_sources.load([half], tmp_path)
    assert found.class_names == image_sources.SOURCES[half].chosen
    assert [found.class_names[y] for y in found.labels] == [names[image[0, 0, 0]] for image in found.images]
    np.savez(path, images=images, labels=labels, split=split, class_names=["x", "y", *names[2:]])
    with pytest.raises(UsageError, match="natural needs the classes woman, worm of cifar100"):
        image_sources.load(["natural"], tmp_path)


def test_what_is_not_there_is_named_with_the_cure(tmp_path):
    for names, message in (
        (["minst"], "no image set 'minst'; did you mean 'mnist'"),
        (["xyz"], "Known: mnist, fashion"),
        (["mnist", "mnist"], "'mnist' is named twice"),
        (["notmnist"], r"notmnist is not on this machine: no folder .*notmnist.*LEAP_DATA.*leave notmnist out"),
    ):
        with pytest.raises(UsageError, match=message):
            image_sources.load(names, tmp_path)
    place(tmp_path, "mnist", train=20, test=20)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UsageError, match=r"there is no .*train-labels-idx1-ubyte\.gz"):
        image_sources.load(["mnist"], tmp_path)
    place(tmp_path, "kmnist", test=50, side=30)
    with pytest.raises(UsageError, match=r"t10k-images.* holds images of 30 x 30; 16 x 16, 28 x 28 and 32 x 32"):
        image_sources.load(["kmnist"], tmp_path)
    (tmp_path / "usps").mkdir()
    with pytest.raises(UsageError, match=r"must hold one \.npz file, it holds \[\]"):
        image_sources.load(["usps"], tmp_path)


# CIFAR-100's halves


def test_the_halves_of_cifar100_have_thirty_and_seventy_classes_and_miss_none():
    fine = list(itertools.chain(*cifar100.SUPERCLASSES.values()))
    assert len(cifar100.SUPERCLASSES) == 20 and len(fine) == len(set(fine)) == 100
    assert all(len(members) == 5 for members in cifar100.SUPERCLASSES.values())
    artificial, natural = cifar100.half(True), cifar100.half(False)
    assert len(artificial) == 30 and len(natural) == 70 and not set(artificial) & set(natural)
    assert set(cifar100.ARTIFICIAL) <= set(cifar100.SUPERCLASSES) and list(natural) == sorted(natural)
    assert {"bicycle", "castle", "wardrobe", "can"} <= set(artificial) and {"sea", "man", "wolf"} <= set(natural)


# Settings


def test_settings_know_every_source_and_give_the_constructors_defaults():
    assert set(get_args(task_settings.ImageSetName)) == set(image_sources.SOURCES)
    settings, options = task_settings.ImageSets(), ImageSets.__init__.__kwdefaults__
    for name in ("held_out", "train_size", "test_size", "batch_size"):
        assert getattr(settings, name) == options[name]
    assert task_settings.Model().widths == options["widths"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks.names", "mnist", "minst"], "did you mean mnist"),
        (["--tasks.held-out", "usps"], r"tasks.held_out: .*usps"),
        (["--tasks.names", "mnist", "mnist"], "mnist stands there twice"),
        (["--tasks.names", "mnist", "--tasks.held-out", "mnist", "mnist"], "tasks.held_out: .*twice"),
        (["--tasks.train-size", "1"], "greater than or equal to 2"),
        (["--tasks.batch-size", "0"], "tasks.batch_size"),
        (["--model.widths", "4", "4", "4", "4", "4"], "at most 4"),
        (["--model.widths", "0"], "model.widths"),
    ],
)
def test_settings_that_cannot_be_are_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        configuration.load(Settings, ["image-sets.yaml"], flags)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": ()}, "names no task"),
        ({"held_out": ()}, "holds out 0 of 9"),
        ({"names": ("mnist", "usps"), "held_out": ("usps", "mnist")}, "holds out 2 of 2"),
        ({"names": ("mnist", "usps"), "held_out": ("gtsrb",)}, "gtsrb not among tasks.names (mnist, usps)"),
    ],
)
def test_tasks_that_leave_nothing_to_learn_or_measure_are_refused(given, message):
    problems = task_settings.ImageSets(**given).problems()
    assert any(message in problem for problem in problems), problems
    assert not task_settings.ImageSets(held_out=("mnist",)).problems() and not task_settings.ImageSets().problems()


# The real images


@pytest.fixture(scope="module")
def real():
    import os
    from pathlib import Path

    folder = Path(os.environ.get("LEAP_DATA") or pytest.skip("LEAP_DATA, the folder that holds mnist/, is not set"))
    # SVHN and FaceScrub are in no data folder that tests know of.
    names = tuple(n for n, source in image_sources.SOURCES.items() if (folder / source.folder).is_dir())
    assert set(image_sources.SOURCES) - set(names) <= {"svhn", "facescrub"}
    return {found.name: found for found in image_sources.load(names, folder)}


def test_the_real_sets_are_whole(real):
    classes = {name: len(found.class_names) for name, found in real.items()}
    assert classes == {
        **dict.fromkeys(["mnist", "fashion", "ifashion", "kmnist", "notmnist", "cifar10", "usps", "sign_digits"], 10),
        "cifar100": 100, "natural": 70, "artificial": 30, "gtsrb": 43, "orl_faces": 38,
        "cifar100_coarse": 20, "natural_coarse": 14, "artificial_coarse": 6,
    }  # fmt: skip
    for found in real.values():
        assert found.images.shape[1:3] == (32, 32) and set(np.unique(found.labels)) == set(
            range(len(found.class_names))
        )
        ends = np.unique(found.images)
        photographs = found.name in ("orl_faces", "sign_digits")
        assert (ends[0] < 20 and ends[-1] > 220) if photographs else (ends[0] == 0 and ends[-1] == 255)
    assert [int(real[n].split.sum()) for n in ("mnist", "natural", "artificial", "usps")] == [60000, 3500, 1500, 7291]
    assert np.array_equal(real["ifashion"].images, 255 - real["fashion"].images)
    assert np.array_equal(real["ifashion"].labels, real["fashion"].labels)


def test_coarse_labels_are_the_superclass_of_the_fine_ones(real):
    for name in ("cifar100", "natural", "artificial"):
        fine, coarse = real[name], real[f"{name}_coarse"]
        of_fine = {image.tobytes(): fine.class_names[y] for image, y in zip(fine.images, fine.labels, strict=True)}
        for image, label in zip(coarse.images[::97], coarse.labels[::97], strict=True):
            assert of_fine[image.tobytes()] in cifar100.SUPERCLASSES[coarse.class_names[label]]
        assert len(coarse.images) == len(fine.images)


def test_the_table_of_superclasses_covers_the_real_classes_once(real):
    assert sorted(itertools.chain(*cifar100.SUPERCLASSES.values())) == sorted(real["cifar100"].class_names)
    whole = {image.tobytes(): name for image, name in zip(
        real["cifar100"].images, np.array(real["cifar100"].class_names)[real["cifar100"].labels], strict=True
    )}  # fmt: skip
    for half in ("natural", "artificial"):
        found = real[half]
        assert [whole[image.tobytes()] for image in found.images] == [found.class_names[y] for y in found.labels]


@pytest.mark.parametrize("name", ["kmnist", "notmnist", "orl_faces", "sign_digits"])
def test_a_set_without_training_part_is_split_without_an_image_in_both_parts(real, name):
    found = real[name]
    parts = [{image.tobytes() for image in found.images[found.split == train]} for train in (True, False)]
    assert not parts[0] & parts[1] and len(parts[0]) + len(parts[1]) == len(found.images)
    share = np.bincount(found.labels[~found.split]) / np.bincount(found.labels)
    assert ((share > 0.19) & (share <= 0.2)).all()


def test_the_shipped_experiment_has_nine_tasks_of_equal_size(data_folder):
    settings = configuration.load(Settings, ["image-sets.yaml"], ["--tasks.folder", str(data_folder)])
    family = build.family(settings, "cpu")
    assert isinstance(family, ImageSets) and family.train_images.shape == (9, 1000, 3, 32, 32)
    for task, name in enumerate(family.names):
        for labels in (family.train_labels[task], family.test_labels[task]):
            counts = torch.bincount(labels, minlength=int(family.counts[task]))
            assert counts.max() - counts.min() <= 1, name
    one, two = (family.dataset(family.names.index(name)) for name in ("fashion", "ifashion"))
    # the same images inverted, as one normalization for all tasks shows them
    mean, std = (part[0][:, None, None] for part in (family.mean, family.std))
    torch.testing.assert_close(
        one.inputs * std + mean, 1 - (two.inputs * std + mean), atol=2e-5, rtol=0, check_dtype=False
    )
    assert torch.equal(family.mean[0], family.mean[-1]) and torch.equal(family.std[0], family.std[-1])


@pytest.mark.slow
def test_a_real_task_is_learned(real):
    names = ("mnist", "usps", "fashion")
    family = ImageSets([real[name] for name in names], seed=0)
    tasks = family.batch(range(3), range(3))
    theta = family.initial(0)
    before = tasks.score(theta.expand(3, -1))["test_error"]
    walked = walk(tasks, theta, steps=200, optimizer=sgd(0.1, 0.9), execution="sequential")
    after = tasks.score(walked.theta)["test_error"]
    assert (before > 70).all() and (after < 35).all()
