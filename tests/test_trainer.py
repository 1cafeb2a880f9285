"""Meta-training: what it draws, what it averages, and how it meets NaN."""

import math

import pytest
import torch
from families import small_alphabets

from leap import learners, optim
from leap.errors import RunError, UsageError
from leap.evaluate import area_under_curve, evaluate
from leap.trainer import Plan, Trainer
from tasks.quadratic import Quadratic, QuadraticBatch
from tasks.sinusoid import Sinusoid

SGD = ("SGD", optim.constant, {"lr": 1.0})


def trainer(family=None, learner=None, meta=SGD, **changes):
    plan = Plan(**({"seed": 0, "inner_steps": 5, "meta_batch": 4, "execution": "batched"} | changes))
    return Trainer(family or Quadratic(), learner or learners.reptile(), lambda steps: optim.sgd(0.1), meta, plan)


def test_a_meta_step_descends_the_mean_meta_gradient():
    one = trainer(meta=("SGD", optim.constant, {"lr": 0.5}))
    before, ids = one.theta, one.draw(0)
    minima, curvature = one.family.minimum[ids], one.family.curvature[ids]
    power = torch.linalg.matrix_power(torch.eye(5, dtype=torch.float64) - 0.1 * curvature, 5)
    away = before - minima
    expected = before - 0.5 * (away - (power @ away.unsqueeze(-1)).squeeze(-1)).mean(0)
    metrics = one.meta_step()
    torch.testing.assert_close(one.theta, expected, rtol=1e-12, atol=1e-13)
    assert metrics["meta/update_norm"] == pytest.approx((expected - before).norm().item())
    assert metrics["meta/gradient_norm"] == pytest.approx(2 * metrics["meta/update_norm"])
    assert metrics["meta/lr"] == 0.5 and metrics["meta/bad_tasks"] == 0
    assert metrics["time/inner_steps_per_s"] * metrics["time/meta_step_s"] == pytest.approx(4 * 5)


def test_draws_pass_over_all_tasks_and_depend_on_step_and_seed():
    one = trainer(Quadratic(count=3), meta_batch=7)
    drawn = one.draw(0)
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
    assert trainer(Quadratic(count=3), meta_batch=7).draw(0) == drawn
    assert len({tuple(one.draw(step)) for step in range(20)}) > 10
    assert any(trainer(Quadratic(count=3), meta_batch=7, seed=1).draw(s) != one.draw(s) for s in range(3))


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    def ends(seed):
        one = trainer(Sinusoid(count=8, hidden=(5,)), learners.leap(), ("SGD", optim.constant, {"lr": 0.1}), seed=seed)
        for _ in range(3):
            one.meta_step()
        return one.theta

    assert torch.equal(ends(0), ends(0))
    assert not torch.equal(ends(0), ends(1))


def test_the_meta_schedule_sets_the_rate_of_each_step():
    one = trainer(meta=("SGD", optim.cosine(4), {"lr": 2.0}))
    assert [one.meta_step()["meta/lr"] for _ in range(4)] == pytest.approx([2 * optim.cosine(4)(i) for i in range(4)])


TORCHS = [
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ASGD",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
]


@pytest.mark.parametrize("name", TORCHS)
def test_any_of_torchs_optimizers_goes_on_exactly_from_its_state(name):
    meta = (name, optim.constant, {"lr": 0.01})
    whole, part = trainer(meta=meta), trainer(meta=meta)
    for _ in range(5):
        whole.meta_step()
    for _ in range(3):
        part.meta_step()
    resumed = trainer(meta=meta)
    resumed.restore(part.step, part.state())
    for _ in range(2):
        resumed.meta_step()
    assert torch.equal(whole.theta, resumed.theta)
    assert not torch.equal(whole.theta, trainer(meta=meta).theta)


def test_unusable_meta_optimizers_are_refused():
    with pytest.raises(UsageError, match=r"no meta-optimizer 'Adm'\. Did you mean 'Adam'"):
        trainer(meta=("Adm", optim.constant, {"lr": 0.1}))
    with pytest.raises(UsageError, match="no meta-optimizer 'LBFGS'"):
        trainer(meta=("LBFGS", optim.constant, {"lr": 0.1}))
    with pytest.raises(UsageError, match=r"refuses.*momentu"):
        trainer(meta=("SGD", optim.constant, {"lr": 0.1, "momentu": 0.9}))


def test_a_state_of_another_model_is_refused():
    one, other = trainer(), trainer(Quadratic(dim=4))
    with pytest.raises(RunError, match=r"\(4,\), expected \(5,\)"):
        one.restore(0, other.state())


class Diseased(Quadratic):
    """Some tasks meet a bad number at inner step 2."""

    sick: tuple[int, ...] = ()
    value = math.nan

    def batch(self, ids, seeds):
        healthy = super().batch(ids, seeds)
        sick, value = torch.tensor([task in self.sick for task in ids]), self.value

        class Batch(QuadraticBatch):
            def sample(self, theta, step):
                curvature, minimum = super().sample(theta, step)
                bad = torch.where(sick & (step == 2), value, 1.0)
                return curvature * bad[:, None, None], minimum

        return Batch(healthy.curvature, healthy.minimum, healthy.layout, healthy.heads, healthy.head_count)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("execution", ["batched", "sequential"])
def test_a_bad_task_is_left_out_and_counted(value, execution):
    family = Diseased(count=4)
    ids = trainer(family).draw(0)
    family.sick, family.value = (ids[1],), value
    one = trainer(family, execution=execution)
    metrics = one.meta_step()
    assert (metrics["meta/bad_tasks"], metrics["meta/bad_share"]) == (1, 0.25)
    assert all(math.isfinite(v) for v in metrics.values())
    healthy = [task for task in ids if task != ids[1]]
    away = one.family.initial(0) - family.minimum[healthy]
    power = torch.linalg.matrix_power(torch.eye(5, dtype=torch.float64) - 0.1 * family.curvature[healthy], 5)
    grad = (away - (power @ away.unsqueeze(-1)).squeeze(-1)).mean(0)
    torch.testing.assert_close(one.theta, one.family.initial(0) - grad, rtol=1e-11, atol=1e-12)


def test_too_many_bad_tasks_stop_the_run_and_name_task_step_and_value():
    family = Diseased(count=4)
    ids = trainer(family).draw(0)
    family.sick = tuple(ids[1:])
    one = trainer(family)
    before = one.theta
    with pytest.raises(RunError, match=rf"meta-step 0: 3 of 4 walks.*bowl {ids[1]}: loss nan at inner step 2"):
        one.meta_step()
    assert torch.equal(one.theta, before) and one.step == 0
    assert trainer(family, most_bad=0.75).meta_step()["meta/bad_tasks"] == 3
    family.sick = tuple(ids)
    with pytest.raises(RunError, match="4 of 4"):
        trainer(family, most_bad=1.0).meta_step()


def test_a_joint_walk_that_diverges_says_so():
    family = Diseased(count=4)
    family.sick = (0,)
    with pytest.raises(RunError, match="1 of 1 walks"):
        trainer(family, learners.finetune()).meta_step()


def test_finetuning_hands_on_the_trunk_with_a_fresh_head():
    family = small_alphabets()
    one = trainer(family, learners.finetune(), meta_batch=2, execution="sequential")
    start = family.initial(0)
    for _ in range(2):
        one.meta_step()
    trunk = family.layout.trunk
    assert torch.equal(one.theta[trunk:], start[trunk:]) and not torch.equal(one.theta[:trunk], start[:trunk])
    heads = one.meta_parameters[family.layout.n :].unflatten(0, (4, -1))
    trained = {family.ids("train").index(task) for step in range(2) for task in one.draw(step)}
    moved = {i for i in range(4) if not torch.equal(heads[i], start[trunk:])}
    assert moved == trained


@pytest.mark.parametrize(
    ("curve", "area"), [([100.0] * 7, 100.0), ([100.0, 0.0], 50.0), ([4.0, 2.0, 6.0], 3.5), ([3.0], 3.0)]
)
def test_area_under_a_curve(curve, area):
    assert area_under_curve(torch.tensor(curve)).item() == pytest.approx(area)


def test_evaluation_meets_the_same_batches_from_every_initialization():
    family = small_alphabets()
    options = {"inner": lambda steps: optim.sgd(0.1), "steps": 4, "seed": 0, "evaluation_seeds": [0, 1]}
    theta = family.initial(0)
    plain = evaluate(family, theta, learner=learners.reptile(), **options)
    again = evaluate(family, theta, learner=None, **options)
    assert plain == again
    assert len(plain["test_error"]) == 2 and len(plain["train_error"][0][0]) == 4
    assert plain["train_loss"][0] != plain["train_loss"][1]  # another repetition, other batches
    auc = area_under_curve(torch.tensor(plain["train_error"][1][0])).item()
    assert plain["train_error_auc"][1][0] == pytest.approx(auc, rel=1e-6)


def test_evaluation_walks_as_the_learner_does():
    """ANIL leaves the trunk where it is, Meta-SGD walks at its own rates: with rates of zero, nowhere."""
    family = small_alphabets()
    options = {"inner": lambda steps: optim.sgd(0.1), "steps": 4, "seed": 0, "evaluation_seeds": [0]}
    theta = family.initial(0)
    still = evaluate(family, torch.cat([theta, torch.zeros_like(theta)]), learner=learners.meta_sgd(), **options)
    plain = evaluate(family, torch.cat([theta, torch.full_like(theta, 0.1)]), learner=learners.meta_sgd(), **options)
    sgd = evaluate(family, theta, learner=None, **options)
    assert plain["test_loss"] == sgd["test_loss"] != still["test_loss"]
    assert evaluate(family, theta, learner=learners.anil(), **options)["test_loss"] != sgd["test_loss"]


def test_a_split_without_tasks_is_refused():
    with pytest.raises(UsageError, match="'validation' holds no tasks"):
        family = small_alphabets()
        evaluate(
            family, family.initial(0), learner=None, inner=lambda steps: optim.sgd(0.1), steps=1, seed=0,
            evaluation_seeds=[0], which="validation",
        )  # fmt: skip


def test_numbers_that_are_not_finite_become_none():
    family = Diseased(count=2)
    family.sick = (4,)
    found = evaluate(
        family,
        family.initial(0),
        learner=None,
        inner=lambda steps: optim.sgd(0.1),
        steps=4,
        seed=0,
        evaluation_seeds=[0],
    )
    assert found["test_loss"][0][0] is None and found["test_loss"][0][1] is not None
    assert found["train_loss"][0][0][1] is not None and found["train_loss"][0][0][2] is None
