"""Multi-CV: heads of a task's own, parts that do not meet, normalization, and epochs of each task's own length."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from small_multi_cv import blobs, small_multi_cv
from torch.nn import functional as F

from leap import learners, optim
from leap.errors import UsageError
from leap.evaluate import evaluate
from leap.layout import Layout
from leap.pieces import length, walk_pieces
from leap.testing import check_family
from leap.trainer import Plan, Trainer
from leap.walk import walk
from tasks.image_files import ImageSet
from tasks.models import Conv4
from tasks.multi_cv import STATISTICS, MultiCV
from tasks.parts import PUBLISHED, Pictures, drawn, in_proportion, normalized, pictures


def double(family: MultiCV, seed: int = 0) -> torch.Tensor:
    return family.initial(seed).double()


def test_it_keeps_the_contract_of_families() -> None:
    check_family(small_multi_cv())


def test_a_head_is_drawn_for_every_walk_and_the_encoder_is_left_alone() -> None:
    family = small_multi_cv()
    theta = family.initial(0).expand(3, -1)
    started = family.batch([0, 1, 0], [5, 6, 7]).start(theta)
    trunk = family.layout.trunk
    assert torch.equal(started[:, :trunk], theta[:, :trunk])
    heads = started[:, trunk:]
    assert not torch.equal(heads[0], heads[2]) and not torch.equal(heads[0], theta[0, trunk:])
    assert torch.equal(family.batch([0], [5]).start(theta[:1])[0], started[0])
    bound = family.width**-0.5
    assert bound / 2 < heads.abs().max() <= bound


def test_a_padded_head_is_a_head_of_the_tasks_own_width() -> None:
    family = small_multi_cv()
    batch = family.batch([1], [3])
    theta = batch.start(double(family)[None])[0]
    images, labels, _ = batch.sample(theta[None], 0)
    own = Conv4(3, filters=3, channels=3, size=16).double()
    layout, named = Layout.of(own, own_head=True), family.layout.unflatten(theta)
    narrow = layout.flatten(
        {name: v[:3] if name.startswith("head") else v for name, v in named.items()}
    ).requires_grad_()
    logits = torch.func.functional_call(own, layout.unflatten(narrow), (images[0],))
    expected = F.cross_entropy(logits, labels[0])
    wide = theta.clone().requires_grad_()
    loss, aux = batch.loss(wide, (images[0], labels[0], torch.tensor(3)))
    assert torch.allclose(loss, expected, rtol=1e-12)
    assert float(aux["error"]) == pytest.approx(100 * float((logits.argmax(-1) != labels[0]).float().mean()))
    (ours,), (theirs,) = torch.autograd.grad(loss, wide), torch.autograd.grad(expected, narrow)
    split, narrow_split = family.layout.unflatten(ours), layout.unflatten(theirs)
    for name, grad in narrow_split.items():
        torch.testing.assert_close(split[name][:3] if name.startswith("head") else split[name], grad)
    assert float(split["head.weight"][3:].abs().max()) == float(split["head.bias"][3:].abs().max()) == 0


@pytest.mark.parametrize("name", ["leap", "reptile", "fomaml", "maml", "anil", "meta_sgd"])
def test_learners_move_the_encoder_and_not_the_place_of_the_heads(name: str) -> None:
    family, learner = small_multi_cv(), getattr(learners, name)()
    plan = Plan(seed=0, inner_steps=2, meta_batch=3, execution="sequential")
    trainer = Trainer(family, learner, lambda steps: optim.sgd(0.1), ("Adam", optim.constant, {"lr": 0.01}), plan)
    before, trunk, n = trainer.meta_parameters, family.layout.trunk, family.layout.n
    trainer.meta_step()
    moved = trainer.meta_parameters != before
    assert moved[:trunk].float().mean() > 0.5
    assert not moved[trunk:n].any()
    if name == "meta_sgd":  # the rates of heads are learned as well: every task's head walks with them
        assert moved[n : n + trunk].float().mean() > 0.5 and moved[n + trunk :].any()


def test_a_second_order_gradient_goes_through_the_tasks_own_heads() -> None:
    family = small_multi_cv()
    batch, trunk = family.batch([0, 2], [1, 2]), family.layout.trunk
    theta0 = double(family)
    found = walk(batch, theta0, steps=2, optimizer=optim.sgd(0.1), folds={"maml": learners.maml()}).results["maml"]
    point = theta0[:trunk].clone().requires_grad_()
    rows = []
    for row, start in enumerate(batch.start(theta0.expand(2, -1))):
        at = torch.cat([point, start[trunk:]])
        for step in range(2):
            own = tuple(part[row] for part in batch.sample(theta0[None], step))
            (grad,) = torch.autograd.grad(batch.loss(at, own)[0], at, create_graph=True)
            at = at - 0.1 * grad
        own = tuple(part[row] for part in batch.sample(theta0[None], 2))
        rows.append(torch.autograd.grad(batch.loss(at, own)[0], point)[0])
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-9, atol=1e-12)


def test_parts_do_not_meet_and_hold_classes_in_proportion() -> None:
    whole = blobs(0, 5, per_class=60)
    whole = whole._replace(images=np.arange(len(whole.labels), dtype=np.uint16).view(np.uint8).reshape(-1, 1, 2, 1))
    found = pictures(whole, seed=3, validation=0.15)
    numbers = [
        {int.from_bytes(bytes(image.flatten().tolist()), "little") for image in part.images}
        for part in (found.train, found.validation, found.test)
    ]
    assert sum(map(len, numbers)) == len(whole.labels) == len(set.union(*numbers))
    assert numbers[2] == set(np.flatnonzero(~whole.split).tolist())
    assert len(numbers[1]) == round(0.15 * whole.split.sum())
    for part in (found.train, found.validation):
        counts = torch.bincount(part.labels, minlength=5)
        assert counts.max() - counts.min() <= 2
    for part, rows in zip((found.train, found.validation, found.test), numbers, strict=True):
        labels = {n: int(whole.labels[n]) for n in rows}
        ours = [int.from_bytes(bytes(image.flatten().tolist()), "little") for image in part.images]
        assert [labels[n] for n in ours] == part.labels.tolist()


def test_a_seed_decides_what_is_kept_and_fewer_are_a_part_of_more() -> None:
    whole = blobs(0, 4, per_class=60)
    many, few = (pictures(whole, seed=0, most=most, validation=0.2) for most in (100, 50))
    assert len(many.train.labels) == 80 and len(few.train.labels) == 40 and len(few.validation.labels) == 10
    joined = [torch.cat([p.validation.images, p.train.images]) for p in (many, few)]
    assert torch.equal(joined[0][:50], joined[1])
    assert not torch.equal(pictures(whole, seed=1, most=50).train.images, pictures(whole, seed=0, most=50).train.images)
    assert len(pictures(whole, seed=0, most_test=7).test.labels) == 7


def test_an_order_in_proportion_is_so_at_every_length() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [70, 20, 10]))
    order = in_proportion(labels, 4)
    assert sorted(order.tolist()) == list(range(100))
    shares = np.stack([np.cumsum(labels[order] == c) for c in range(3)], axis=1)
    expected = np.arange(1, 101)[:, None] * np.array([0.7, 0.2, 0.1])
    assert np.abs(shares - expected).max() <= 1


def test_too_few_images_for_a_validation_part_are_an_error() -> None:
    with pytest.raises(
        UsageError, match=r"keeps 1 training images, of which 1 would be for validation; raise tasks.most"
    ):
        pictures(blobs(0, 2), seed=0, most=1)


def test_pictures_are_normalized_by_published_constants_or_by_their_own() -> None:
    whole = blobs(0, 3, channels=3)
    found = pictures(whole, seed=0)
    known = found.train.images.double() / 255
    torch.testing.assert_close(torch.tensor(found.mean).double(), known.mean(dim=(0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        torch.tensor(found.std).double(), known.std(dim=(0, 2, 3), correction=0), rtol=1e-6, atol=0
    )
    assert pictures(whole._replace(name="cifar10"), seed=0).mean == PUBLISHED["cifar10"][0]
    grey = pictures(blobs(1, 3)._replace(name="mnist"), seed=0)
    assert (grey.mean, grey.std) == ((0.1,), (0.2752,))
    inputs = normalized(grey, grey.train.images[:2], torch.float64)
    assert inputs.shape == (2, 3, 16, 16) and torch.equal(inputs[:, 0], inputs[:, 2])
    torch.testing.assert_close(inputs[:, 0], (grey.train.images[:2, 0].double() / 255 - 0.1) / 0.2752)


def test_every_training_image_comes_once_an_epoch() -> None:
    family = small_multi_cv(batch_size=5)
    count = len(family.tasks[2].train.labels)
    batch, theta = family.batch([2], [9]), family.initial(0)[None]
    seen = torch.cat([batch.sample(theta, step)[0][0] for step in range(count)])  # five epochs
    known = normalized(family.tasks[2], family.tasks[2].train.images, torch.float32)
    matches = (seen.flatten(1)[:, None] == known.flatten(1)[None]).all(-1)
    assert matches.sum(0).tolist() == [5] * count
    assert family.epoch(2) == -(-count // 5)


def test_a_test_image_is_scored_by_training_statistics_alone() -> None:
    family = small_multi_cv()
    theta = double(family)[None]
    task = family.tasks[3]
    whole = float(family.batch([3], [0]).score(theta)["test_loss"][0])
    known = normalized(task, task.train.images[:STATISTICS], torch.float64)
    losses = []
    for image, label in zip(task.test.images, task.test.labels, strict=True):
        both = torch.cat([known, normalized(task, image[None], torch.float64)])
        logits = family.logits(theta[0], both, len(known))[-1:, : len(task.classes)]
        losses.append(float(F.cross_entropy(logits, label[None])))
    assert whole == pytest.approx(np.mean(losses), rel=1e-9)


def test_neither_test_nor_validation_images_decide_what_is_learned() -> None:
    def blank(task: Pictures) -> Pictures:
        return task._replace(
            test=task.test._replace(images=torch.zeros_like(task.test.images)),
            validation=task.validation._replace(images=torch.zeros_like(task.validation.images)),
        )

    learned = []
    for change in (lambda task: task, blank):
        family = small_multi_cv()
        family.tasks = tuple(map(change, family.tasks))
        plan = Plan(seed=0, inner_steps=3, meta_batch=3, execution="sequential", epochs=1)
        trainer = Trainer(
            family, learners.fomaml(), lambda steps: optim.sgd(0.1), ("SGD", optim.constant, {"lr": 0.5}), plan
        )
        trainer.meta_step()
        learned.append(trainer.theta)
    assert torch.equal(*learned)


def test_tasks_walk_as_far_as_their_own_data_reach() -> None:
    family = small_multi_cv(batch_size=4)
    plan = Plan(seed=0, inner_steps=99, meta_batch=3, execution="sequential", epochs=2)
    ids, seeds, meta = [0, 1, 2, 1], [5, 6, 7, 8], family.initial(0)
    pieces = walk_pieces(family, learners.leap(), lambda steps: optim.sgd(0.1), plan, meta, ids, seeds)
    steps = {task: round(2 * family.epoch(task)) for task in ids}
    assert len(set(steps.values())) == 3
    assert {piece.ids: piece.walk.losses.shape[1] for piece in pieces} == {
        (0,): steps[0], (1, 1): steps[1], (2,): steps[2]
    }  # fmt: skip
    alone = walk(
        family.batch([1], [8]), meta, steps=steps[1], optimizer=optim.sgd(0.1), folds={"it": learners.leap()}
    ).results["it"][0]
    (both,) = (piece.walk.results["learner"] for piece in pieces if piece.ids == (1, 1))
    torch.testing.assert_close(both[1, : family.layout.trunk], alone, rtol=1e-4, atol=1e-6)


def test_a_schedule_spans_each_tasks_own_walk() -> None:
    family, asked = small_multi_cv(batch_size=4), []

    def inner(steps: int) -> optim.Optimizer:
        asked.append(steps)
        return optim.sgd(0.1, schedule=optim.cosine(steps))

    plan = Plan(seed=0, inner_steps=1, meta_batch=3, execution="sequential", epochs=1)
    walk_pieces(family, learners.reptile(), inner, plan, family.initial(0), [0, 1, 2], [0, 1, 2])
    assert sorted(asked) == sorted(family.epoch(task) for task in (0, 1, 2))
    asked.clear()
    meta = torch.cat([family.initial(0), learners.finetune().extend(family.initial(0), family.layout, 3)])
    (piece,) = walk_pieces(family, learners.finetune(), inner, plan, meta, [0, 1, 2], [0, 1, 2])
    mean = round(sum(family.epoch(task) for task in (0, 1, 2)) / 3)
    assert asked == [3 * mean] and piece.walk.losses.shape == (1, 3 * mean)


def test_a_family_without_epochs_says_so() -> None:
    from tasks.quadratic import Quadratic

    with pytest.raises(UsageError, match="Quadratic does not say how many steps an epoch of a task has"):
        length(Quadratic(), 0, 5, 1.0)
    assert length(Quadratic(), 0, 5, None) == 5


def test_evaluation_walks_epochs_and_stops_early() -> None:
    family = small_multi_cv(held_out=("blobs-0", "blobs-3"), batch_size=4)
    options = {
        "learner": None, "inner": lambda steps: optim.sgd(0.2), "steps": 1, "seed": 0, "evaluation_seeds": [0, 1],
        "execution": "sequential",
    }  # fmt: skip
    whole = evaluate(family, family.initial(0), epochs=6, **options)
    steps = [6 * family.epoch(task) for task in family.ids("test")]
    assert whole["steps"] == [steps, steps]
    curves = np.array(whole["train_error"], float)
    assert curves.shape == (2, 2, max(steps))
    assert np.isnan(curves[:, 0, steps[0] :]).all() and np.isfinite(curves[:, 0, : steps[0]]).all()
    early = evaluate(family, family.initial(0), epochs=6, validate_every=2, patience=2, **options)
    taken = np.array(early["steps"], int)
    assert (taken < steps).any() and (taken % 2 == 0).all()
    for seed, task in np.ndindex(taken.shape):
        k, curve = taken[seed, task], np.array(early["train_error"][seed][task], float)
        assert np.isnan(curve[k:]).all()
        assert np.array_equal(curve[:k], curves[seed, task, :k])
        held = np.concatenate([curve[:k], np.full(steps[task] - k, curve[k - 2 : k].mean())])
        area = np.trapezoid(held) / (steps[task] - 1)
        assert early["train_error_auc"][seed][task] == pytest.approx(area, rel=1e-5)
    assert {"test_error", "validation_error", "final_train_error"} <= set(early)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="'other' is held out, but the tasks are blobs-0"):
        small_multi_cv(held_out=("other",))
    with pytest.raises(UsageError, match="0 of 4 tasks are held out"):
        small_multi_cv(held_out=())
    with pytest.raises(UsageError, match="pictures of one size"):
        MultiCV([pictures(blobs(0, 2), seed=0), pictures(blobs(1, 2, size=20), seed=0)], held_out=("blobs-1",), seed=0)
    with pytest.raises(UsageError, match="no split 'all'"):
        small_multi_cv().ids("all")


REAL = ("mnist", "fashion", "kmnist", "notmnist", "cifar10", "cifar100", "gtsrb", "usps")
DATA = Path(os.environ.get("LEAP_DATA", "")) / "gtsrb"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the image data sets in LEAP_DATA")
def test_all_data_sets_together_take_little_more_than_their_bytes() -> None:
    drawn.cache_clear()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    found = drawn(REAL, DATA.parent, 0, 0.15, None, None)
    family = MultiCV(found, held_out=("usps",), seed=0)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    parts = [part for task in family.tasks for part in (task.train, task.validation, task.test)]
    pixels = sum(part.images.numel() for part in parts)
    # Grey pictures are numpy's memory still, which is counted while it is there; coloured ones were copied by torch.
    copied = {
        p.images.untyped_storage().data_ptr(): p.images.untyped_storage().nbytes()
        for p in parts
        if p.images.shape[1] == 3
    }
    drawn.cache_clear()
    assert pixels > 200_000_000
    assert peak + sum(copied.values()) < 1.5 * pixels


def test_settings_name_the_embedded_sets() -> None:
    from leap.cli.task_settings import EMBEDDED
    from tasks import embedded_sets

    assert tuple(embedded_sets.EMBEDDED) == EMBEDDED


def test_an_image_set_is_left_as_it_was() -> None:
    whole: ImageSet = blobs(0, 3)
    before = whole.images.copy()
    found = pictures(whole, seed=0)
    found.train.images.fill_(0)
    assert np.array_equal(whole.images, before)
