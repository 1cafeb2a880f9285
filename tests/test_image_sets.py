"""Image sets as tasks: masks, balance, splits, batches, scores."""

import math

import numpy as np
import pytest
import torch
from families import random_sets, small_image_sets
from torch.func import functional_call, grad, jacrev
from torch.nn import functional as F

from leap.errors import UsageError
from leap.learners import maml
from leap.optim import sgd
from leap.randomness import generator
from leap.testing import check_tasks
from leap.walk import walk
from tasks import image_sets
from tasks.image_sets import ImageSets, balanced, in_order
from tasks.models import Encoder, initialize

# Masks


def narrow(family, task, theta):
    """The task's own network, with a head of its own width, and its parameters out of a padded theta."""
    classes = len(family.class_names[task])
    named = {k: v.clone() for k, v in family.layout.unflatten(theta).items()}
    named["head.weight"], named["head.bias"] = named["head.weight"][:classes], named["head.bias"][:classes]
    return Encoder(classes, (3, 4), size=8).double(), named


@pytest.mark.parametrize("task", range(4))
def test_loss_and_gradient_are_those_of_a_head_of_the_tasks_own_width(task):
    family = small_image_sets()
    theta = family.initial(1).double()
    tasks = family.batch([task], [5])
    images, labels, classes = (part[0] for part in tasks.sample(theta[None], 0))
    module, named = narrow(family, task, theta)
    own = grad(lambda p: F.cross_entropy(functional_call(module, p, (images,)), labels))(named)
    value = F.cross_entropy(functional_call(module, named, (images,)), labels)
    padded = grad(lambda at: tasks.loss(at, (images, labels, classes))[0])(theta)
    torch.testing.assert_close(tasks.loss(theta, (images, labels, classes))[0], value, rtol=1e-13, atol=0)
    found = family.layout.unflatten(padded)
    for name, expected in own.items():
        torch.testing.assert_close(found[name][: len(expected)], expected, rtol=1e-11, atol=1e-14)
    for name in ("head.weight", "head.bias"):
        assert not found[name][len(family.class_names[task]) :].any()


def test_masked_logits_leave_second_derivatives_finite_and_exact():
    family = small_image_sets(widths=(1,))
    theta = family.initial(1).double()
    tasks = family.batch([2], [5])  # two classes of four
    batch = tuple(part[0] for part in tasks.sample(theta[None], 0))
    curvature = jacrev(grad(lambda at: tasks.loss(at, batch)[0]))(theta)
    assert curvature.isfinite().all() and curvature.abs().max() > 0
    absent = family.layout.unflatten(torch.arange(family.layout.n))["head.bias"][2:]
    assert not curvature[absent].any()


def test_a_uniform_guess_costs_the_log_of_the_tasks_classes():
    family = small_image_sets()
    tasks = family.batch(range(4), range(4))
    theta = torch.zeros(4, family.layout.n)
    batch = tasks.sample(theta, 0)
    for task, classes in enumerate((3, 4, 2, 3)):
        loss, aux = tasks.loss(theta[task], tuple(part[task] for part in batch))
        assert loss.item() == pytest.approx(math.log(classes), rel=1e-6) and set(aux) == {"error"}
    torch.testing.assert_close(tasks.score(theta)["test_loss"], torch.tensor([3.0, 4.0, 2.0, 3.0]).log())


def test_tasks_of_different_width_walk_together():
    family = small_image_sets()
    check_tasks(family.batch(range(4), range(4)), family.initial(0).double().expand(4, -1).clone())


# Which images


def test_classes_are_balanced_and_choices_nested():
    labels = np.repeat(np.arange(4), [9, 5, 7, 6])
    classes = ("a", "b", "c", "d")
    longest = balanced(labels, classes, 23, 0)  # 4 x 5, and one more of the three that have six
    assert len(set(longest.tolist())) == 23 and sorted(np.bincount(labels[longest])) == [5, 6, 6, 6]
    for size in range(1, 24):
        assert np.array_equal(balanced(labels, classes, size, 0), longest[:size])
        counts = np.bincount(labels[longest[:size]], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(balanced(labels, classes, 23, 1), longest)
    assert not np.array_equal(balanced(labels, classes, 23, 0, "test"), longest)
    with pytest.raises(ValueError, match="27 images of 4 classes, 5 of the smallest, make 23 at most"):
        balanced(labels, classes, 24, 0)


def test_every_class_of_two_is_as_likely_to_have_the_odd_image():
    labels = np.repeat([0, 1], 5)
    more = [np.bincount(labels[balanced(labels, ("a", "b"), 3, seed)])[0] == 2 for seed in range(400)]
    assert 0.4 < np.mean(more) < 0.6


def test_everything_depends_on_the_seed_and_on_the_seed_alone():
    one, same, other = small_image_sets(), small_image_sets(), small_image_sets(seed=1)
    assert torch.equal(one.train_images, same.train_images) and torch.equal(one.test_labels, same.test_labels)
    assert not torch.equal(one.train_images, other.train_images)
    theta = one.initial(0)[None]
    first, again, apart = (one.batch([0], [s]).sample(theta, 2)[0] for s in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, apart)
    assert not torch.equal(one.initial(0), one.initial(1))
    fresh = initialize(Encoder(4, (3, 4), size=8), generator(0, "initialization"))
    assert torch.equal(one.initial(0), one.layout.flatten(fresh))


def test_training_images_come_from_the_training_part_and_test_images_from_the_other():
    family, sets = small_image_sets(), random_sets()
    for task, found in enumerate(sets):
        colour = np.broadcast_to(found.images, (*found.images.shape[:3], 3)).transpose(0, 3, 1, 2)
        whole = {
            image.tobytes(): (bool(s), int(y)) for image, s, y in zip(colour, found.split, found.labels, strict=True)
        }
        for part, images, labels in (
            (True, family.train_images[task], family.train_labels[task]),
            (False, family.test_images[task], family.test_labels[task]),
        ):
            shown = [whole[image.numpy().tobytes()] for image in images]
            assert shown == [(part, int(y)) for y in labels] and len({i.numpy().tobytes() for i in images}) == len(
                images
            )


def test_tasks_of_one_data_set_show_the_same_images_of_a_class(monkeypatch):
    first = random_sets()[0]
    part = first._replace(name="part", images=first.images[9:], labels=first.labels[9:] - 1, split=first.split[9:])
    part = part._replace(class_names=first.class_names[1:])
    monkeypatch.setattr(image_sets, "superset", lambda name: "one")
    family = ImageSets([first, part], seed=0, train_size=9, test_size=2, widths=(3, 4))
    assert family.counts.tolist() == [3, 2]
    whole = {i.numpy().tobytes() for i, y in zip(family.train_images[0], family.train_labels[0], strict=True) if y > 0}
    assert whole < {image.numpy().tobytes() for image in family.train_images[1]}


def test_a_choice_of_images_can_be_given():
    sets = random_sets()
    sizes = {"train_size": 11, "test_size": 5, "widths": (3, 4), "seed": 0}
    family = ImageSets(sets, choice=in_order, **sizes)
    for part, images, labels in (
        (True, family.train_images, family.train_labels),
        (False, family.test_images, family.test_labels),
    ):
        for task, found in enumerate(sets):
            rows = np.flatnonzero(found.split == part)[: images.shape[1]]
            shown = np.broadcast_to(found.images[rows].transpose(0, 3, 1, 2), images.shape[1:])
            assert np.array_equal(images[task].numpy(), shown) and labels[task].tolist() == found.labels[rows].tolist()
    asked = []
    ImageSets(sets, choice=lambda found, *given: asked.append((found.name, *given)) or in_order(found, *given), **sizes)
    assert asked == [(f"set-{i}", part, size, 0) for part, size in (("train", 11), ("test", 5)) for i in range(4)]
    with pytest.raises(UsageError, match=r"set-2 .* testing on 7: 6 images are there; lower tasks.test_size"):
        ImageSets(sets, choice=in_order, **(sizes | {"test_size": 7}))


def test_an_epoch_shows_every_training_image_once():
    family = small_image_sets()  # 11 images, 4 a batch: epochs end within batches
    theta = family.initial(0).expand(2, -1)
    tasks = family.batch([1, 3], [5, 6])
    batches = [tasks.sample(theta, step) for step in range(9)]  # 36 images: three epochs and a bit
    images, labels = (torch.cat([batch[i] for batch in batches], dim=1) for i in (0, 1))
    for row, task in enumerate((1, 3)):
        data = family.dataset(task)
        for epoch in range(3):
            shown = images[row, 11 * epoch : 11 * epoch + 11]
            order = [int((data.inputs - image).flatten(1).abs().sum(1).argmin()) for image in shown]
            assert sorted(order) == list(range(11))
            assert torch.equal(labels[row, 11 * epoch : 11 * epoch + 11], data.labels[order])
    jump = family.batch([1, 3], [5, 6]).sample(theta, 8)  # a step can be drawn without those before it
    assert torch.equal(jump[0], batches[8][0])


def test_inputs_are_standardized_by_the_tasks_training_images():
    blank = random_sets()[1]._replace(name="red")
    blank.images[..., 1:] = 0
    family = ImageSets([*random_sets(), blank], seed=0, train_size=11, test_size=4, widths=(3, 4))
    for task in range(5):
        data = family.dataset(task)
        kept = [0] if task == 4 else [0, 1, 2]
        assert data.inputs.isfinite().all() and not data.inputs[:, [c for c in range(3) if c not in kept]].any()
        torch.testing.assert_close(data.inputs[:, kept].mean((0, 2, 3)), torch.zeros(len(kept)), atol=1e-5, rtol=0)
        torch.testing.assert_close(data.inputs[:, kept].std((0, 2, 3), correction=0), torch.ones(len(kept)))
        raw = family.test_images[task].double() / 255
        mean, std = family.mean[task][:, None, None], family.std[task][:, None, None]
        torch.testing.assert_close(data.test_inputs.double(), (raw - mean) / std, atol=1e-5, rtol=1e-5)


# Splits and scores


def test_held_out_tasks_are_test_and_the_others_train():
    family = small_image_sets(held_out=("set-3", "set-0"))
    assert (family.ids("train"), family.ids("validation"), family.ids("test")) == ((1, 2), (), (0, 3))
    tasks = family.batch([2, 1, 0], [0, 0, 0])
    assert tasks.heads.tolist() == [1, 0, 0] and tasks.head_count == 2
    everything = small_image_sets(held_out="all")
    assert everything.ids("train") == everything.ids("test") == (0, 1, 2, 3)
    with pytest.raises(UsageError, match="no split 'dev'"):
        family.ids("dev")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": ("set-9",)}, "'set-9' is held out, but the tasks are set-0, set-1, set-2, set-3"),
        ({"held_out": ()}, "0 of 4 tasks are held out"),
        ({"held_out": ("set-0", "set-1", "set-2", "set-3")}, "4 of 4 tasks are held out"),
        ({"train_size": 13}, "set-2 .* 12 images of 2 classes, 6 of the smallest, make 12 .*lower tasks.train_size"),
        ({"test_size": 7}, "set-2 .* 6 at most; lower tasks.test_size"),
    ],
)
def test_what_the_data_lacks_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        small_image_sets(**changes)


def test_pictures_of_two_sizes_have_no_common_trunk():
    sets = random_sets()
    other = sets[1]._replace(images=sets[1].images[:, :6, :6])
    for given, message in (([sets[0], other], r"'set-0': \(8, 8\), 'set-1': \(6, 6\)"), ([], "got {}")):
        with pytest.raises(UsageError, match=message):
            ImageSets(given, seed=0, train_size=6, test_size=2, widths=(3, 4))


def test_the_score_is_error_and_loss_on_the_test_part(monkeypatch):
    family = small_image_sets()
    theta = torch.stack([family.initial(seed) for seed in range(4)]).double()
    tasks = family.batch(range(4), range(4))
    whole = tasks.score(theta)
    for task in range(4):
        data, (module, named) = family.dataset(task), narrow(family, task, theta[task])
        logits = functional_call(module, named, (data.test_inputs.double(),))
        wrong = (logits.argmax(1) != data.test_labels).double().mean().item()
        assert whole["test_error"][task].item() == pytest.approx(100 * wrong)
        loss = F.cross_entropy(logits, data.test_labels).item()
        assert whole["test_loss"][task].item() == pytest.approx(loss, rel=1e-5)
    monkeypatch.setattr(image_sets, "_CHUNK", 2)
    torch.testing.assert_close(tasks.score(theta)["test_loss"], whole["test_loss"], rtol=1e-12, atol=0)


def test_no_learner_is_shown_test_images():
    """MAML's outer loss is on a training batch: spoiling the test images changes nothing."""
    results = []
    for spoil in (False, True):
        family = small_image_sets()
        if spoil:
            family.test_images.zero_()
        tasks = family.batch([0, 2], [1, 2])
        walked = walk(tasks, family.initial(0).double(), steps=3, optimizer=sgd(0.1), folds={"it": maml()})
        results.append(walked.results["it"])
    assert torch.equal(*results) and results[0].abs().max() > 0
