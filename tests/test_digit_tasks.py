"""Tasks on the same images: what is drawn, how it is shown, what each task calls it; the settings, and real digits."""

import itertools
import json
from typing import get_args

import numpy as np
import pytest
import torch
from families import random_sets
from test_image_sources import place

from leap.cli import build, configuration, main, task_settings
from leap.cli.settings import Settings
from leap.errors import UsageError
from leap.testing import check_family, check_tasks
from tasks.digit_tasks import TASKS, WAYS, Shown, digit_tasks, draw, sets, show
from tasks.image_sets import ImageSets, in_order

NAMES = ("loops", "rotation", "inverted", "digit_and_lying")


def ten_classes():
    """Sixty training and thirty test images of ten classes, 8 x 8."""
    return random_sets((10,))[0]


def small_family(names=NAMES, seed=0, **changes):
    sizes = {"train_size": 24, "test_size": 12}
    made = sets(ten_classes(), names, seed=seed, **sizes)
    options = {"batch_size": 5, "widths": (3, 4), "held_out": ("inverted",)} | changes
    return ImageSets(made, seed=seed, choice=in_order, **sizes, **options)


# What tasks call an image

PRIMES = (2, 3, 5, 7)
LOOPS = {0: 1, 6: 1, 8: 2, 9: 1}
RULES = {
    "digit": lambda d, t, i: d,
    "parity": lambda d, t, i: d % 2,
    "at_least_five": lambda d, t, i: int(d >= 5),
    "loops": lambda d, t, i: LOOPS.get(d, 0),
    "prime": lambda d, t, i: int(d not in PRIMES),
    "thirds": lambda d, t, i: d % 3,
    "rotation": lambda d, t, i: t,
    "turned_over": lambda d, t, i: int(t >= 2),
    "lying": lambda d, t, i: int(t in (1, 3)),
    "inverted": lambda d, t, i: i,
    "digit_and_lying": lambda d, t, i: 2 * d + t % 2,
    "digit_and_rotation": lambda d, t, i: 4 * d + t,
    "digit_and_inverted": lambda d, t, i: 2 * d + i,
}


@pytest.mark.parametrize("name", TASKS)
def test_a_label_is_what_the_tasks_name_says(name):
    ways = list(itertools.product(range(10), range(4), range(2)))
    labels = TASKS[name].label(Shown(*(np.array(column) for column in zip(*ways, strict=True))))
    assert labels.dtype == np.int64 and labels.tolist() == [RULES[name](*way) for way in ways]
    assert sorted(set(labels.tolist())) == list(range(len(TASKS[name].classes)))
    assert len(set(TASKS[name].classes)) == len(TASKS[name].classes)


def test_classes_of_a_pair_are_named_by_both():
    assert TASKS["digit_and_inverted"].classes[7] == "3, dark on bright"
    assert TASKS["digit_and_lying"].classes[2] == "1, upright"


# Which images, and how they are shown


def test_any_first_part_is_balanced_over_digits_and_each_digit_over_the_ways():
    digits = np.repeat(np.arange(10), [30, 40, 35, 50, 41, 33, 60, 32, 31, 30])
    rows, shown = draw(digits, 300, 0, "train")
    assert len(set(rows.tolist())) == 300 and np.array_equal(digits[rows], shown.digit)
    way = shown.turn + 4 * shown.inverted
    for size in range(1, 301):
        cells = np.bincount(shown.digit[:size] * WAYS + way[:size], minlength=80).reshape(10, WAYS)
        assert np.ptp(cells.sum(1)) <= 1 and np.ptp(cells, axis=1).max() <= 1
        if size % 80 == 0:
            assert (cells == size // 80).all()
    shorter, ways = draw(digits, 111, 0, "train")
    assert np.array_equal(shorter, rows[:111]) and all(
        np.array_equal(a, b[:111]) for a, b in zip(ways, shown, strict=True)
    )


def test_the_draw_depends_on_seed_and_part_alone():
    digits = np.tile(np.arange(10), 20)
    first, again, other, test = (
        draw(digits, 160, s, p) for s, p in ((0, "train"), (0, "train"), (1, "train"), (0, "test"))
    )
    assert all(np.array_equal(a, b) for a, b in zip((first[0], *first[1]), (again[0], *again[1]), strict=True))
    for changed in (other, test):
        assert not np.array_equal(first[0], changed[0]) and not np.array_equal(first[1].turn, changed[1].turn)
    turns = [draw(digits, 80, s, "train")[1].turn[0] for s in range(200)]
    assert np.bincount(turns, minlength=4).min() > 25  # the first image is as likely turned one way as another


def test_pictures_are_turned_counter_clockwise_and_inverted():
    image = np.zeros((1, 4, 4, 1), np.uint8)
    image[0, 0, 1] = 200  # near the upper left
    places = {0: (0, 1), 1: (2, 0), 2: (3, 2), 3: (1, 3)}
    for turn, inverted in itertools.product(range(4), range(2)):
        found = show(image, Shown(np.array([5]), np.array([turn]), np.array([inverted])))[0, :, :, 0]
        expected = np.full((4, 4), 255 * inverted)
        expected[places[turn]] = 55 if inverted else 200
        assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert image.sum() == 200  # what was given stays as it is


def test_all_tasks_have_the_same_images_in_the_same_order():
    family = small_family(tuple(TASKS), held_out="all")
    for task in range(len(TASKS)):
        assert torch.equal(family.train_images[task], family.train_images[0])
        assert torch.equal(family.test_images[task], family.test_images[0])
    by = dict(zip(TASKS, family.train_labels, strict=True))
    shown = [by[name].tolist() for name in ("digit", "rotation", "inverted")]
    for name, labels in by.items():
        assert labels.tolist() == [RULES[name](*one) for one in zip(*shown, strict=True)]


def test_labels_are_those_of_the_pictures_and_parts_are_kept_apart():
    whole, family = ten_classes(), small_family(("digit", "rotation", "inverted"))
    known = {
        image.tobytes(): (bool(s), int(y)) for image, s, y in zip(whole.images, whole.split, whole.labels, strict=True)
    }
    for train, images, labels in (
        (True, family.train_images[0], family.train_labels), (False, family.test_images[0], family.test_labels),
    ):  # fmt: skip
        seen = set()
        for image, digit, turn, inverted in zip(
            images[:, :1].permute(0, 2, 3, 1).numpy(), *labels.tolist(), strict=True
        ):
            upright = np.rot90(255 - image if inverted else image, -turn).tobytes()
            assert known[upright] == (train, digit)
            seen.add(upright)
        assert len(seen) == len(images)


def test_walks_of_two_tasks_see_the_same_batches():
    family = small_family()
    theta = family.initial(0).expand(2, -1)
    images, labels, classes = family.batch([0, 3], [7, 7]).sample(theta, 2)
    assert torch.equal(images[0], images[1]) and not torch.equal(labels[0], labels[1])
    assert classes.tolist() == [3, 20]


def test_the_family_keeps_every_contract():
    family = small_family()
    check_family(family)
    check_tasks(family.batch(range(4), range(4)), family.initial(0).double().expand(4, -1).clone())
    data = family.dataset(3)
    assert (data.name, data.classes, len(data.labels), len(data.test_labels)) == ("digit_and_lying", 20, 24, 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("digit", "loop")}, "no digit task 'loop'; did you mean 'loops'"),
        ({"names": ("x",)}, "Known: digit, parity"),
        ({"names": ("digit", "digit")}, "'digit' is named twice"),
        ({"train_size": 61}, "60 images of 10 classes, 6 of the smallest, make 60 at most; lower tasks.train_size"),
        ({"test_size": 31}, "30 at most; lower tasks.test_size"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        sets(ten_classes(), **({"names": ("digit",), "seed": 0, "train_size": 20, "test_size": 10} | changes))


# Settings and files


def test_settings_know_every_task_and_give_the_functions_defaults():
    assert get_args(task_settings.DigitTaskName) == tuple(TASKS)
    settings = task_settings.DigitTasks()
    assert (settings.train_size, settings.test_size) == tuple(
        digit_tasks.__kwdefaults__[name] for name in ("train_size", "test_size")
    )
    assert settings.batch_size == ImageSets.__init__.__kwdefaults__["batch_size"] and not settings.problems()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks.names", "digit", "parrity"], "did you mean parity"),
        (["--tasks.names", "digit", "digit"], "digit stands there twice"),
        (["--tasks.held-out", "prime"], r"tasks.held_out: prime not among tasks.names"),
        (["--tasks.train-size", "1"], "greater than or equal to 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        configuration.load(Settings, ["digit-tasks.yaml"], flags)


def test_tasks_are_measured_against_each_other(tmp_path, capsys):
    place(tmp_path, "mnist", train=100, test=60)
    flags = f"--tasks.folder {tmp_path} --tasks.train-size 20 --tasks.test-size 10 --model.widths 3 4 --tracking none"
    flags += " --tasks digit loops rotation --distances convergence --measure.seeds 0 --out " + str(tmp_path / "run")
    for name in ("epochs", "refine-epochs", "scratch-epochs", "tuning-epochs"):
        flags += f" --measure.{name} 0.5"
    assert main.main(["measure", "digit-tasks.yaml", *flags.split()]) == 0
    document = json.loads((tmp_path / "run" / "measures" / "measures.json").read_text())
    assert document["family"] == "digit_tasks" and document["tasks"] == ["digit", "loops", "rotation"]
    (errors,) = document["matrices"]["tuned_error"]["values"]
    assert all(0 <= errors[t][s] <= 100 for t, s in itertools.permutations(range(3), 2))


def test_the_shipped_experiment_shows_every_digit_in_every_way_equally_often(data_folder):
    settings = configuration.load(Settings, ["digit-tasks.yaml"], ["--tasks.folder", str(data_folder)])
    family = build.family(settings, "cpu")
    assert isinstance(family, ImageSets) and len(family.names) == 8
    whole = digit_tasks(
        ("digit", "rotation", "inverted"), data_folder, seed=settings.seed, train_size=settings.tasks.train_size,
        test_size=settings.tasks.test_size,
    )  # fmt: skip
    for images, ours, labels in (
        (family.train_images, whole.train_images, whole.train_labels),
        (family.test_images, whole.test_images, whole.test_labels),
    ):
        assert torch.equal(images[0], ours[0])
        cells = torch.bincount(8 * labels[0] + 2 * labels[1] + labels[2], minlength=80)
        assert (cells == images.shape[1] // 80).all()
    bright = whole.test_images[0].float().mean((1, 2, 3))
    assert ((bright > 127) == (whole.test_labels[2] == 1)).all()
