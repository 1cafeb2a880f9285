"""Heights of Leap's path: against loops over what a walk stored, and what they do not depend on."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from families import Waves
from small_games import games
from test_bench_rows import Touched
from test_capture import recorder, same  # noqa: F401
from test_resumption import Killed, Watched, assert_same, keeper
from torch import Tensor

from leap import l2l, learners, optim
from leap.batching import map_batch
from leap.capture import Prepared
from leap.cli.settings import Leap, Quadratic, Settings, TinyGames
from leap.errors import UsageError
from leap.heights import HEIGHTS
from leap.walk import Fold, Step, walk

K, TASKS, M = 7, 2, 5
CHOICES: dict[str, dict[str, Any]] = {name: {"height": name} for name in HEIGHTS}
CHOICES["average of a few"] = {"height": "average", "height_decay": 0.6}
SHORTENED: dict[str, dict[str, Any]] = {  # some of the gradients that are stored here, and not all
    "shortened": {"gradient_clip": 2.2},
    "shortened, scaled": {"gradient_clip": 2.2, "height": "scaled"},
}


class Stored(NamedTuple):
    """A walk: theta [K + 1, T, m], losses and returns [K + 1, T], gradients [K, T, m]."""

    theta: Tensor
    loss: Tensor
    returns: Tensor
    grad: Tensor


def stored(seed: int = 0) -> Stored:
    draw = torch.Generator().manual_seed(seed)
    new = functools.partial(torch.randn, generator=draw, dtype=torch.float64)
    return Stored(new(K + 1, TASKS, M), 3 * new(K + 1, TASKS) + 1, 0.2 * new(K + 1, TASKS) - 2, new(K, TASKS, M))


def folded(fold: Fold, s: Stored) -> Tensor:
    """What a fold makes of a walk that was stored."""
    state = fold.start(s.theta[0])
    for i in range(len(s.grad)):
        state = fold.step(state, Step(s.theta[i], s.loss[i], s.grad[i], s.theta[i + 1], {"return_mean": s.returns[i]}))
    end: Any = SimpleNamespace(theta=s.theta[-1], loss=s.loss[-1], aux={"return_mean": s.returns[-1]})
    return fold.finish(state, end)


def naive(
    s: Stored, metric: str, *, height: str = "loss", height_decay: float = 0.99, stabilizer: bool = True,
    last_segment: bool = True, gradient_clip: float = np.inf,
) -> np.ndarray:  # fmt: skip
    """Equation 8 task by task and segment by segment, every height from its definition over all points so far."""
    theta, loss, returns, grad = (part.numpy() for part in s)
    p, totals = {"length": 1, "energy": 2}[metric], np.zeros_like(theta[0])
    for t in range(theta.shape[1]):
        values = -returns[:, t] if height == "return" else loss[:, t]
        for i in range(len(grad) if last_segment else len(grad) - 1):
            unit = 1.0
            if height == "average":
                weights = height_decay ** np.arange(i + 1, -1, -1.0)
                before = np.average(values[: i + 1], weights=weights[1:])
                rise = np.average(values[: i + 2], weights=weights) - before
            else:
                unit = 1.0 if height == "loss" else np.std(values[: i + 2], ddof=1)
                rise = (values[i + 1] - values[i]) / unit
            delta = theta[i + 1, t] - theta[i, t]
            length = np.sqrt(delta @ delta + rise**2)
            signed = -abs(rise) if stabilizer else rise
            size = np.sqrt(grad[i, t] @ grad[i, t])
            g = grad[i, t] * gradient_clip / size if size > gradient_clip else grad[i, t]
            totals[t] -= p * (signed * g / unit + delta) * length ** (p - 2)
    return totals


@pytest.mark.parametrize("last_segment", [True, False])
@pytest.mark.parametrize("stabilizer", [True, False])
@pytest.mark.parametrize("metric", ["length", "energy"])
@pytest.mark.parametrize("choice", CHOICES | SHORTENED)
def test_every_height_is_what_a_loop_over_the_stored_walk_says(
    choice: str, metric: Any, stabilizer: bool, last_segment: bool
) -> None:
    options = (CHOICES | SHORTENED)[choice] | {"stabilizer": stabilizer, "last_segment": last_segment}
    for seed in range(3):
        walked = stored(seed)
        found = folded(learners.leap(metric, **options), walked)
        np.testing.assert_allclose(found.numpy(), naive(walked, metric, **options), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("execution", ["batched", "sequential", "captured"])
@pytest.mark.parametrize("choice", CHOICES)
def test_the_walk_of_a_game_has_the_increments_of_what_it_stored(choice: str, execution: Any) -> None:
    family, kept = games(), []

    def keep(state: None, s: Step) -> None:
        kept.append(map_batch(torch.clone, s))

    def end(state: None, last: Any) -> Tensor:
        return torch.stack([last.loss, last.aux["return_mean"]], dim=1)

    folds = {metric: learners.leap(metric, **CHOICES[choice]) for metric in ("length", "energy")}
    found = walk(
        family.batch([0, 1], [5, 6]), family.initial(0).double(), steps=K,
        optimizer=optim.clipped(optim.rmsprop(3e-3, 0.99, 1e-5), 1e-3),
        folds=folds | {"end": Fold(lambda theta0: None, keep, end)}, execution=execution,
    )  # fmt: skip
    last = found.results["end"]
    kept = kept[-K:]  # recording tries a step before the walk
    walked = Stored(
        torch.stack([s.theta for s in kept] + [kept[-1].theta_next]),
        torch.stack([s.loss for s in kept] + [last[:, 0]]),
        torch.stack([s.aux["return_mean"] for s in kept] + [last[:, 1]]),
        torch.stack([s.grad for s in kept]),
    )
    assert torch.equal(walked.returns[:-1].T, found.aux["return_mean"]) and walked.returns.std() > 0.01
    for metric in folds:
        expected = naive(walked, metric, **CHOICES[choice])
        np.testing.assert_allclose(found.results[metric].numpy(), expected, rtol=1e-9, atol=1e-12)


# What heights do not depend on


FACTORS = torch.tensor([40.0, 0.003], dtype=torch.float64)  # of the two games


@pytest.mark.parametrize("metric", ["length", "energy"])
@pytest.mark.parametrize("name", HEIGHTS)
def test_scaled_heights_know_neither_the_unit_of_a_games_loss_nor_its_origin(name: Any, metric: Any) -> None:
    fold, plain = learners.leap(metric, height=name), stored()
    grown = plain._replace(grad=plain.grad * FACTORS[:, None])
    if name == "return":
        grown = grown._replace(returns=plain.returns * FACTORS + 7, loss=plain.loss * 3)
    else:
        grown = grown._replace(loss=plain.loss * FACTORS + 7, returns=plain.returns * 3)
    alike = torch.isclose(folded(fold, plain), folded(fold, grown), rtol=1e-9).all()
    assert bool(alike) == (name in ("scaled", "return"))


@pytest.mark.parametrize("name", HEIGHTS)
def test_no_height_knows_its_origin(name: Any) -> None:
    fold, plain = learners.leap("energy", height=name), stored()
    moved = plain._replace(loss=plain.loss - 50, returns=plain.returns + 50)
    torch.testing.assert_close(folded(fold, plain), folded(fold, moved), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("choice", SHORTENED)
@pytest.mark.parametrize("metric", ["length", "energy"])
def test_a_norm_that_no_gradient_has_changes_nothing(metric: Any, choice: str) -> None:
    plain = {key: value for key, value in SHORTENED[choice].items() if key != "gradient_clip"}
    found = [folded(learners.leap(metric, **plain, gradient_clip=clip), stored()) for clip in (None, 1e9, 2.2)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-15, atol=0)
    assert not torch.allclose(found[0], found[2], rtol=1e-2)


def test_an_outlier_weighs_no_more_than_other_segments_where_gradients_are_shortened() -> None:
    calm = stored()
    calm = calm._replace(grad=calm.grad / 100, loss=calm.loss / 100)
    wild = calm._replace(grad=calm.grad.clone(), loss=calm.loss.clone())
    wild.grad[3, 0] *= 1e6
    wild.loss[4, 0] += 1e3
    for clip, fits in ((0.5, True), (None, False)):
        one, other = (folded(learners.leap("length", gradient_clip=clip), s) for s in (calm, wild))
        apart = (one - other).norm(dim=1)
        # of its own segment and the next one, whose loss begins so high
        assert bool(apart[0] <= 4 * (1 + 0.5**2) ** 0.5) == fits and apart[1] == 0
        assert bool(apart[0] > 1)


@pytest.mark.parametrize("worth", [torch.nan, torch.inf])
def test_a_gradient_that_is_no_number_is_not_hidden_by_shortening(worth: float) -> None:
    walked = stored()
    walked.grad[2, 1, 0] = worth
    found = folded(learners.leap("energy", gradient_clip=1.0), walked)
    assert bool(found[0].isfinite().all()) and not bool(found[1].isfinite().all())


def test_what_is_averaged_over_one_step_is_the_loss() -> None:
    options: list[dict[str, Any]] = [{}, {"height": "average", "height_decay": 0.0}]
    both = [folded(learners.leap(**own), stored()) for own in options]
    torch.testing.assert_close(*both, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(both[0], folded(learners.leap(height="average"), stored()))


def test_an_average_follows_the_loss_and_not_its_noise() -> None:
    """White noise around a slope; the energy of steps that stand still, with gradients of one, sums the rises."""
    draw, steps = torch.Generator().manual_seed(0), 4000
    noise = torch.randn(steps + 1, 1, generator=draw, dtype=torch.float64)
    loss = noise - 0.01 * torch.arange(steps + 1)[:, None]
    still, ones = torch.zeros(steps + 1, 1, 1).double(), torch.ones(steps, 1, 1).double()
    walked = Stored(still, loss, loss, ones)
    weights = {name: folded(learners.leap("energy", height=name), walked) / 2 / steps for name in HEIGHTS[:2]}
    assert float(weights["loss"]) == pytest.approx(2 / np.pi**0.5, rel=0.05)  # E|x - y|
    assert 0.005 < float(weights["average"]) < 0.03
    unstable = folded(learners.leap("energy", height="average", stabilizer=False), walked)
    assert float(unstable) / -2 / steps == pytest.approx(-0.01, rel=0.15)


# What has no deviation, and what is no number


@pytest.mark.parametrize("metric", ["length", "energy"])
@pytest.mark.parametrize("name", ["scaled", "return"])
@pytest.mark.parametrize("rounding", [False, True])
def test_what_does_not_vary_has_no_loss_term(name: Any, metric: Any, rounding: bool) -> None:
    plain = Stored(*(part.float() for part in stored()))
    flat = torch.full((K + 1, TASKS), -2.3)
    if rounding:
        flat[1::2] = torch.nextafter(flat[1::2], torch.zeros(()))
        assert flat.std() > 0
    plain = plain._replace(loss=flat, returns=flat)
    found = folded(learners.leap(metric, height=name), plain)
    assert torch.equal(found, folded(learners.leap(metric, loss_coordinate=False), plain))
    begun = plain.loss.clone()
    begun[3:] += 1.0  # it varies from the third segment on
    later = folded(learners.leap(metric, height=name), plain._replace(loss=begun, returns=begun))
    assert later.isfinite().all() and not torch.allclose(later, found)
    zero = plain._replace(loss=flat * 0, returns=flat * 0)
    assert torch.equal(found, folded(learners.leap(metric, height=name), zero))


@pytest.mark.parametrize("at", [2, K])
@pytest.mark.parametrize("name", HEIGHTS)
def test_a_loss_that_is_no_number_is_not_hidden(name: Any, at: int) -> None:
    broken = stored()
    broken.loss[at, 1] = broken.returns[at, 1] = torch.nan
    found = folded(learners.leap("energy", height=name), broken)
    assert found[0].isfinite().all() and found[1].isnan().all()


# How walks are carried out


class Rewarded(Waves):
    """Waves that record a return of their own."""

    size = 3

    def loss(self, theta: Tensor, batch: Any) -> Any:
        value, aux = super().loss(theta, batch)
        return value, aux | {"return_mean": torch.sin(3 * theta[0]) - theta[1]}


@pytest.mark.parametrize("choice", CHOICES)
def test_walks_are_alike_however_they_are_carried_out(choice: str, recorder: str) -> None:  # noqa: F811
    prepared = Prepared()
    aux = Fold(  # it holds on to what a step recorded until the next one
        lambda theta0: (theta0.new_zeros(len(theta0)), None),
        lambda state, s: (state[0] * 0.5 + (0 if state[1] is None else state[1]), s.aux["return_mean"]),
        lambda state, end: state[0] * 0.5 + state[1] + end.aux["return_mean"],
    )
    for number in range(3):
        tasks = Rewarded()
        folds = {metric: learners.leap(metric, **CHOICES[choice]) for metric in ("length", "energy")} | {"aux": aux}
        go = functools.partial(
            walk, tasks, tasks.theta0 * (1 - 0.2 * number), steps=K, optimizer=optim.adam(0.05), folds=folds
        )  # fmt: skip
        captured = go(execution="captured", prepared=prepared)
        same(captured, go(execution="batched"))
        same(captured, go(execution="sequential"))
    assert prepared.notes == []  # every fold was recorded
    halves = 0.5 ** torch.arange(K - 1, -1, -1.0, dtype=torch.float64)
    ahead = captured.theta[:, 0].mul(3).sin() - captured.theta[:, 1]
    torch.testing.assert_close(captured.results["aux"], captured.aux["return_mean"] @ halves + ahead)


@pytest.mark.parametrize("execution", ["batched", "sequential"])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_walk_that_was_cut_short_goes_on_bit_for_bit(tmp_path: Any, choice: str, execution: Any) -> None:
    folds = {metric: learners.leap(metric, **CHOICES[choice]) for metric in ("length", "energy")}
    given: Any = {"steps": 11, "optimizer": optim.adam(0.05), "folds": folds, "execution": execution}
    theta = Rewarded().theta0
    whole = walk(Rewarded(), theta, **given)
    for fatal, every in ((8, 3), (2, 1), (11, 11)):
        path = tmp_path / f"walk{fatal}"
        drawn: list[Any] = []
        with pytest.raises(Killed):
            walk(Watched(Rewarded(), [], fatal), theta, **given, keep=keeper(path, every))
        resumed = walk(Watched(Rewarded(), drawn), theta, **given, keep=keeper(path, every))
        assert drawn[0][1] == fatal // every * every
        assert_same(resumed._asdict(), whole._asdict())


@pytest.mark.parametrize("choice", CHOICES | SHORTENED)
def test_where_curvature_is_nothing_the_exact_jacobian_is_the_identity(choice: str) -> None:
    class Planes(Rewarded):
        def loss(self, theta: Tensor, batch: Any) -> Any:
            return batch["slope"] @ theta, {"return_mean": theta[0] ** 3}

    tasks = Planes()
    folds = {kind: learners.leap(jacobian=kind, **(CHOICES | SHORTENED)[choice]) for kind in ("identity", "exact")}
    found = walk(tasks, tasks.theta0, steps=K, optimizer=optim.sgd(0.1), folds=folds).results
    torch.testing.assert_close(found["identity"], found["exact"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("choice", CHOICES)
def test_no_height_reads_or_writes_more_vectors_than_the_loss(choice: str) -> None:
    plain, fold = stored(), learners.leap(**CHOICES[choice])
    step = [Step(*plain[:2], plain.grad[i], plain.theta[i + 1], {"return_mean": plain.returns[i]}) for i in (0, 1)]
    step = [s._replace(theta=plain.theta[i], loss=plain.loss[i]) for i, s in enumerate(step)]
    state, touched = fold.step(fold.start(plain.theta[0]), step[0]), Touched(numel=TASKS * M)
    with touched:
        fold.step(state, step[1])
    assert touched.count == 10


def test_folds_see_what_is_recorded_in_walks_of_learn2learn() -> None:
    try:
        l2l.load()
    except l2l.NotInstalled:
        pytest.skip("learn2learn is not installed")
    tasks = Rewarded()
    seen = Fold(
        lambda theta0: theta0.new_zeros(len(theta0)),
        lambda total, s: 2 * total + s.aux["return_mean"],
        lambda total, end: 2 * total + end.aux["return_mean"],
    )
    found = [
        loop(tasks, tasks.theta0, steps=3, optimizer=optim.sgd(0.05), folds={"it": seen}).results["it"]
        for loop in (walk, l2l.walk)
    ]
    torch.testing.assert_close(*found)
    with pytest.raises(UsageError, match="is another learner"):
        fold = {"it": learners.leap(height="return")}
        l2l.walk(tasks, tasks.theta0, steps=3, optimizer=optim.sgd(0.05), folds=fold)


# What is refused


@pytest.mark.parametrize("execution", ["batched", "sequential", "captured"])
def test_tasks_that_record_no_return_are_refused_at_their_first_step(execution: Any) -> None:
    tasks, fold = Watched(Waves(), []), {"it": learners.leap(height="return")}
    with pytest.raises(
        UsageError, match=r"record 'return_mean'.*they record first\. Use height loss, average or scaled"
    ):
        walk(tasks, Waves().theta0, steps=3, optimizer=optim.sgd(0.1), folds=fold, execution=execution)
    assert {step for _, step in tasks.drawn} == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": "value"}, "height must be one of loss, average, scaled, return, got 'value'"),
        ({"height_decay": 0.9}, "height_decay is the average's, got 0.9 with height 'loss'"),
        ({"height": "average", "height_decay": 1.0}, "height_decay must be at least 0 and below 1, got 1.0"),
        ({"height": "scaled", "loss_coordinate": False}, "height 'scaled' is measured by the loss coordinate"),
        ({"gradient_clip": 0.0}, "gradient_clip must be positive and finite, got 0.0"),
        ({"gradient_clip": float("nan")}, "gradient_clip must be positive and finite, got nan"),
        ({"gradient_clip": 0.5, "loss_coordinate": False}, "gradient_clip is of the loss coordinate, which is off"),
    ],
)
def test_learners_that_cannot_be_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learners.leap(**options)


def test_settings_that_cannot_be_are_told() -> None:
    def told(tasks: Any = None, **options: Any) -> list[str]:
        return [
            line for line in Settings(tasks=tasks or TinyGames(), learner=Leap(**options)).problems()
            if line.startswith("learner")
        ]  # fmt: skip

    assert get_args(Leap.__annotations__["height"]) == HEIGHTS
    for name in HEIGHTS:
        assert told(height=name) == []
        assert bool(told(Quadratic(), height=name)) == (name == "return")
        assert bool(told(height=name, loss_coordinate=False)) == (name != "loss")
        assert bool(told(height=name, height_decay=0.9)) == (name != "average")
        assert told(height=name, gradient_clip=0.5) == []
    assert told(gradient_clip=0.5, loss_coordinate=False) == [
        "learner.gradient_clip: is of the loss coordinate, which is off; leave one of the two out"
    ]  # fmt: skip
    assert told(height="scaled", height_decay=0.9) == [
        "learner.height_decay: is the moving average's, got 0.9 with height scaled; "
        "leave it out, or use height average"
    ]  # fmt: skip
    assert "use loss, average or scaled" in told(Quadratic(), height="return")[0]
