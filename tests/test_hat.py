"""HAT against hand numbers, against a naive loop written from the paper, and that nothing is forgotten."""

import functools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from leap import optim
from leap.batching import loss_and_gradient
from leap.capture import Prepared
from leap.evaluate import evaluate
from leap.gates import claim, compensated, gates, mobility, owned, sharpness
from leap.learners.hat import hat
from leap.testing import check_tasks
from leap.trainer import Plan, Trainer
from leap.walk import walk
from tasks.image_files import ImageSet
from tasks.multi_cv import MultiCV
from tasks.parts import pictures

OPTIMIZERS = {
    "sgd": optim.sgd(0.05),
    "momentum": optim.sgd(0.05, momentum=0.9, weight_decay=0.1),
    "adam": optim.adam(0.01, weight_decay=0.1),
    "adamw": optim.adam(0.01, weight_decay=0.1, decoupled=True),
}
DOUBLE = {"dtype": torch.float64}


@functools.cache
def blobs(share, classes=(3, 4, 2, 3), size=16):
    """Sets of pictures, grey or coloured, 20 and 5 a class; a share of each is its class's, the rest is noise."""
    sets = []
    for number, count in enumerate(classes):
        rng, channels = np.random.default_rng([7, number]), (1, 3)[number % 2]
        own, noise = rng.random((count, 1, size, size, channels)), rng.random((count, 25, size, size, channels))
        images = ((share * own + (1 - share) * noise) * 255).astype(np.uint8).reshape(-1, size, size, channels)
        split, names = np.tile(np.arange(25) < 20, count), tuple(f"c{i}" for i in range(count))
        sets.append(pictures(ImageSet(f"set-{number}", images, np.repeat(np.arange(count), 25), split, names), seed=0))
    return sets


def family(filters=3, batch_size=9, share=0.7):
    return MultiCV(blobs(share), held_out=("set-3",), seed=0, batch_size=batch_size, filters=filters)


def begun(source, learner=None, seed=0, dtype=torch.float64):
    learner = learner or hat()
    return torch.cat([source.initial(seed), learner.visits.begin(source, seed)]).to(dtype)


def parts(source, meta):
    """Views of the meta-parameters: trunk, heads [M, h], embeddings [M, U], visited [M]."""
    layout, count = source.layout, len(source.ids("train"))
    units = sum(source.network.channels)
    theta, heads, embeddings, visited = meta.split([layout.n, count * (layout.n - layout.trunk), count * units, count])
    return theta[: layout.trunk], heads.view(count, -1), embeddings.view(count, -1), visited


def opened(source, meta, task, learner=None, optimizer=OPTIMIZERS["sgd"], steps=6, seed=5, new=False, tasks=None):
    tasks = tasks or source.batch([task], [seed])
    return (learner or hat()).visits.open(meta, tasks, steps=steps, optimizer=optimizer, seed=seed, new=new)


def visited(source, meta, task, learner=None, optimizer=OPTIMIZERS["sgd"], steps=6, seed=5, execution="batched"):
    """The meta-parameters after a visit."""
    learner, tasks = learner or hat(), source.batch([task], [seed])
    turn = opened(source, meta, task, learner, optimizer, steps, seed)
    walked = walk(turn.tasks, turn.theta0, steps=steps, optimizer=turn.optimizer, execution=execution)
    return learner.visits.close(meta, tasks, walked.theta[0])


def logits_of(source, meta, task, images):
    """A pretraining task's logits with gates at s_max, from the meta-parameters alone."""
    trunk, heads, embeddings, _ = parts(source, meta)
    named = source.layout.unflatten(torch.cat([trunk, heads[task]]))
    x = images
    for number, own in enumerate(torch.sigmoid(400.0 * embeddings[task]).split(source.network.channels)):
        x = source.network.stage(number, named, x) * own.view(-1, 1, 1)
    return source.network.head(named, x)


# ---- the functions of vectors


def test_sharpness_rises_over_every_epoch():
    found = [sharpness(i, 5, 400.0) for i in range(10)]
    assert found[0] == 1 / 400 and found[4] == 400.0
    assert np.diff(found[:5]) == pytest.approx([(400 - 1 / 400) / 4] * 4)
    assert found[5:] == found[:5]
    assert sharpness(3, 1, 400.0) == 400.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_are_a_sigmoid_and_binary_at_the_end(dtype):
    e = torch.linspace(-6, 6, 1201, dtype=dtype)
    torch.testing.assert_close(gates(e, 1.7), torch.sigmoid(1.7 * e))
    away = e[e.abs() >= 14 / 400]
    torch.testing.assert_close(gates(away, 400.0), (away > 0).to(dtype), rtol=0, atol=1e-6)
    assert gates(torch.zeros(1, dtype=dtype), 400.0) == 0.5


def test_open_and_closed_gates_pass_on_the_same_gradient_in_float32():
    e = torch.tensor([-0.1, -0.06, 0.0, 0.06, 0.1], requires_grad=True)
    gates(e, 400.0).sum().backward()
    wide = e.detach().double()
    torch.testing.assert_close(e.grad.double(), 200 / (torch.cosh(400 * wide) + 1), rtol=1e-4, atol=0)
    assert torch.equal(e.grad, e.grad.flip(0)) and e.grad.min() > 0


def test_what_tasks_own_is_the_largest_gate_of_those_that_count():
    embeddings = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 0.001, -1.0], [1.0, 1.0, 1.0]], **DOUBLE)
    found = owned(embeddings, torch.tensor([True, True, False]), 400.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 1 / (1 + np.exp(-0.4)), 0.0], **DOUBLE))
    assert torch.equal(owned(embeddings, torch.zeros(3, dtype=torch.bool), 400.0), torch.zeros(3, **DOUBLE))


def test_the_claim_by_hand():
    own, others = torch.tensor([0.9, 0.5, 0.2], **DOUBLE), torch.tensor([1.0, 0.5, 0.0], **DOUBLE)
    assert claim(own, others) == pytest.approx((0.5 * 0.5 + 0.2) / 1.5)
    assert claim(own, torch.zeros(3, **DOUBLE)) == pytest.approx(1.6 / 3)


def test_where_everything_is_owned_the_claim_and_its_gradient_are_zero():
    own = torch.tensor([0.9, 0.5], requires_grad=True)
    found = claim(own, torch.ones(2))
    found.backward()
    assert found == 0 and torch.equal(own.grad, torch.zeros(2))


def test_a_weight_is_held_where_both_its_units_are_owned():
    source = family()
    others = torch.tensor([1.0, 0.0, 0.3, 0.0, 1.0, 0.6, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], **DOUBLE)
    found = mobility(others, *source.network.units())
    named = source.layout.unflatten(torch.cat([found, found.new_zeros(source.layout.n - source.layout.trunk)]))
    for stage in range(4):
        made = others[3 * stage : 3 * stage + 3]
        read = others[3 * stage - 3 : 3 * stage] if stage else torch.ones(3, **DOUBLE)
        for i in range(3):
            for j in range(3):
                expected = torch.full((3, 3), 1 - min(made[i], read[j]), **DOUBLE)
                assert torch.equal(named[f"blocks.{stage}.conv.weight"][i, j], expected)
            for name in ("conv.bias", "norm.weight", "norm.bias"):
                assert named[f"blocks.{stage}.{name}"][i] == 1 - made[i]


@pytest.mark.parametrize("s", [1 / 400, 0.3, 1.0, 7.0])
def test_compensation_makes_up_for_the_sharpness(s):
    e = torch.linspace(-6, 6, 25, **DOUBLE)
    weights = torch.randn(25, generator=torch.Generator().manual_seed(0), **DOUBLE)

    def gradient(sharp):
        point = e.clone().requires_grad_()
        (gates(point, sharp) * weights).sum().backward()
        return point.grad

    found = compensated(gradient(s), e, s, 400.0)
    torch.testing.assert_close(found, 400 * gradient(1.0))
    assert found[12] / gradient(s)[12] == pytest.approx(400 / s)  # at e = 0


def test_compensation_is_cut_off_where_cosh_would_overflow():
    e, grad = torch.tensor([-6.0, 0.2, 6.0]), torch.tensor([1.0, 2.0, 3.0])
    expected = (np.cosh(50.0) + 1) / (torch.cosh(e.double()) + 1) * grad
    torch.testing.assert_close(compensated(grad, e, 400.0, 400.0), expected.float())


# ---- turns against the paper


def naive_visit(source, meta, task, steps, rate, momentum, c, top, seed=5):
    """A visit by SGD with momentum, parameter by parameter: network, masks and compensation as the paper has them."""
    layout, channels = source.layout, source.network.channels
    trunk, heads, embeddings, flags = (part.clone() for part in parts(source, meta))
    tasks = source.batch([task], [seed])
    others = [t for t in range(len(flags)) if flags[t] and t != task]
    before = torch.stack([torch.sigmoid(top * embeddings[t]) for t in others]).amax(0) if others else None
    owned_by_stage = before.split(channels) if others else [torch.zeros(k, **DOUBLE) for k in channels]
    weights = {k: v.clone() for k, v in layout.unflatten(torch.cat([trunk, heads[task]])).items()}
    e = embeddings[task].clone()
    epoch, velocity = min(tasks.epoch, steps), dict.fromkeys([*weights, "e"], 0.0)
    for i in range(steps):
        s = 1 / top + (top - 1 / top) * (i % epoch) / (epoch - 1)
        a = torch.sigmoid(s * e)
        for value in (*weights.values(), a):
            value.requires_grad_()
        (x,), (y,), (classes,) = tasks.sample(trunk[None], i)
        claimed, free = 0.0, 0.0
        for stage, (gate, o) in enumerate(zip(a.split(channels), owned_by_stage, strict=True)):
            own = {k.split(".", 2)[2]: v for k, v in weights.items() if k.startswith(f"blocks.{stage}.")}
            x = F.conv2d(x, own["conv.weight"], own["conv.bias"], padding=1)
            x = F.batch_norm(x, None, None, own["norm.weight"], own["norm.bias"], training=True)
            x = F.max_pool2d(F.relu(x), 2) * gate.view(1, -1, 1, 1)
            claimed, free = claimed + (gate * (1 - o)).sum(), free + (1 - o).sum()
        logits = F.linear(x.flatten(1), weights["head.weight"], weights["head.bias"])[:, :classes]
        loss = F.cross_entropy(logits, y) + c * claimed / free
        grads = dict(zip([*weights, "a"], torch.autograd.grad(loss, [*weights.values(), a]), strict=True))
        for name in weights:
            keep = 1.0
            if name.startswith("blocks."):
                stage = int(name.split(".")[1])
                keep = 1 - owned_by_stage[stage]
                if name.endswith("conv.weight"):
                    read = owned_by_stage[stage - 1] if stage else torch.ones(weights[name].shape[1], **DOUBLE)
                    keep = 1 - torch.minimum(owned_by_stage[stage][:, None], read[None])[:, :, None, None]
            velocity[name] = momentum * velocity[name] + keep * grads[name]
            weights[name] = (weights[name] - rate * velocity[name]).detach()
        q = grads["a"] * s / (2 * torch.cosh(s * e) + 2)  # autograd's a (1 - a) would round to zero where s e is large
        q = top / s * (torch.cosh((s * e).clamp(-50, 50)) + 1) / (torch.cosh(e) + 1) * q
        velocity["e"] = momentum * velocity["e"] + q
        e = (e - rate * velocity["e"]).clamp(-6, 6)
    flat = layout.flatten(weights)
    heads[task], embeddings[task], flags[task] = flat[layout.trunk :], e, 1
    own_head = meta[layout.trunk : layout.n]
    return torch.cat([flat[: layout.trunk], own_head, heads.flatten(), embeddings.flatten(), flags])


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize(("pressure", "sharpest"), [(0.75, 400.0), (2.0, 3.0)])
def test_visits_are_those_of_the_paper(pressure, sharpest, momentum):
    source, learner = family(), hat(pressure, sharpest)
    ours = theirs = begun(source, learner)
    for task, steps in ((0, 7), (1, 4), (0, 6), (2, 6)):  # 6, 8 and 4 steps are an epoch: more, fewer, and as many
        ours = visited(source, ours, task, learner, optim.sgd(0.02, momentum), steps)
        theirs = naive_visit(source, theirs, task, steps, 0.02, momentum, pressure, sharpest)
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert parts(source, ours)[3].tolist() == [1, 1, 1]


# ---- what it is for


def with_embedding(source, meta, task, embedding, was_visited=True):
    """The meta-parameters with a task's embedding made by hand."""
    meta = meta.clone()
    _, _, embeddings, flags = parts(source, meta)
    embeddings[task], flags[task] = embedding.to(meta.dtype), float(was_visited)
    return meta


def alternating(source, sign=1.0):
    """An embedding that opens every other unit, or (-1) the rest."""
    return sign * (1.0 - 2.0 * (torch.arange(sum(source.network.channels)) % 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_forgotten(name, new, dtype):
    source, learner, optimizer = family(filters=4), hat(), OPTIMIZERS[name]
    first = visited(source, begun(source, learner, dtype=dtype), 0, learner, optimizer)
    before = with_embedding(source, first, 0, alternating(source))
    task = 3 if new else 1
    turn = opened(source, before, task, learner, optimizer, steps=8, new=new)
    after = walk(turn.tasks, turn.theta0, steps=8, optimizer=turn.optimizer).theta[0]
    trunk, units = source.layout.trunk, sum(source.network.channels)
    assert torch.equal(after[-units:], turn.theta0[-units:])  # what others own is not trained
    torch.testing.assert_close(after[-units:], (alternating(source) > 0).to(dtype))
    out, into = source.network.units()
    own = torch.cat([alternating(source) > 0, torch.tensor([True])])
    held = own[out] & own[into]
    assert 0 < held.sum() < trunk
    assert torch.equal(after[:trunk][held], before[:trunk][held])
    assert (after[:trunk][~held] != before[:trunk][~held]).float().mean() > 0.9
    now = before.clone()
    now[:trunk] = after[:trunk]
    images = source.batch([0], [9]).sample(before[None], 0)[0][0]
    assert torch.equal(logits_of(source, now, 0, images), logits_of(source, before, 0, images))


def moved(source, before, task):
    """Which weights of the trunk a visit changed; without the biases that batch normalization takes out again."""
    after, trunk = visited(source, before, task), source.layout.trunk
    names = source.layout.without_head().names
    kept = torch.cat([
        torch.full((size,), not name.endswith("conv.bias"))
        for name, size in zip(names, source.layout.sizes, strict=False)
    ])  # fmt: skip
    return (after[:trunk] != before[:trunk])[kept], kept


def test_a_task_visited_again_may_change_what_it_alone_owns():
    source = family(filters=4)
    mine = torch.cat([alternating(source) > 0, torch.tensor([True])])
    out, into = source.network.units()
    before = with_embedding(source, begun(source), 0, alternating(source))
    alone, kept = moved(source, before, 0)
    assert alone.float().mean() > 0.98  # all, but for units that never fire
    assert not moved(source, before, 1)[0][(mine[out] & mine[into])[kept]].any()
    also = with_embedding(source, before, 1, alternating(source))  # task 1 uses the same units
    shared, _ = moved(source, also, 0)
    assert torch.equal(shared, alone & ~(mine[out] & mine[into])[kept])
    apart = with_embedding(source, before, 1, alternating(source, -1.0))  # or the other ones
    theirs = torch.cat([alternating(source) < 0, torch.tensor([True])])
    beside, _ = moved(source, apart, 0)
    assert torch.equal(beside, alone & ~(theirs[out] & theirs[into])[kept])
    assert beside[(mine[out] & mine[into])[kept]].float().mean() > 0.98


def test_nothing_is_held_for_tasks_that_were_not_visited():
    source = family()
    before = with_embedding(source, begun(source), 0, torch.ones(12), was_visited=False)
    assert moved(source, before, 1)[0].float().mean() > 0.9
    before = with_embedding(source, begun(source), 0, torch.ones(12))
    assert not moved(source, before, 1)[0].any()


def test_a_held_out_task_is_held_off_all_that_pretraining_owns():
    source = family()
    meta = begun(source)
    for task, sign in ((0, 1.0), (1, -1.0)):
        meta = with_embedding(source, meta, task, alternating(source, sign))
    turn = opened(source, meta, 3, new=True)
    after = walk(turn.tasks, turn.theta0, steps=4, optimizer=turn.optimizer).theta[0]
    out, into = source.network.units()
    padded = torch.cat([torch.arange(12) % 2, torch.tensor([2])])
    across = (padded[out] != padded[into]) & (padded[into] < 2)  # owned by two tasks, and needed by none
    assert torch.equal(after[: source.layout.trunk][~across], meta[: source.layout.trunk][~across])
    layout = source.layout
    assert (after[layout.trunk : layout.n] != turn.theta0[layout.trunk : layout.n]).any()


def training_error(source, meta, task, learner):
    turn = opened(source, meta, task, learner)
    return float(turn.tasks.score(turn.theta0[None])["final_train_error"])


def test_a_task_is_still_known_after_others_were_learned():
    """Trained gates, not made by hand; and the same visits with nothing held, which do forget."""
    source, learner, optimizer = family(filters=8, batch_size=12, share=0.1), hat(pressure=0.1), optim.sgd(0.05)
    errors = {}
    for held in (True, False):
        meta = begun(source, learner, dtype=torch.float32)
        for task in (0, 1, 2):
            meta = visited(source, meta, task, learner, optimizer, steps=100)
            assert training_error(source, meta, task, learner) < 30
            errors[held, task] = training_error(source, meta, 0, learner)
            if not held:
                parts(source, meta)[3].zero_()
    assert errors[True, 0] == errors[False, 0]
    assert errors[True, 1] < 10 and errors[True, 2] < 10
    assert errors[False, 2] > 25


# ---- a turn


def test_a_turn_opened_and_closed_changes_the_flag_alone():
    source, learner = family(), hat()
    meta = begun(source, learner)
    tasks = source.batch([1], [5])
    closed = learner.visits.close(meta, tasks, opened(source, meta, 1, learner, tasks=tasks).theta0)
    expected = meta.clone()
    parts(source, expected)[3][1] = 1
    assert torch.equal(closed, expected) and not torch.equal(closed, meta)


def test_closing_leaves_other_tasks_and_the_given_tensor_alone():
    source, learner = family(), hat()
    meta = begun(source, learner)
    before, after = meta.clone(), visited(source, meta, 1, learner)
    assert torch.equal(meta, before)
    for was, now in zip(parts(source, before)[1:], parts(source, after)[1:], strict=True):
        assert torch.equal(was[[0, 2]], now[[0, 2]]) and not torch.equal(was[1], now[1])
    layout = source.layout
    assert torch.equal(before[layout.trunk : layout.n], after[layout.trunk : layout.n])


def test_tasks_begin_with_heads_and_embeddings_of_their_own():
    source = family(filters=16)
    _, heads, embeddings, flags = parts(source, begun(source))
    assert len(heads.unique(dim=0)) == 3 and not flags.any()
    assert embeddings.mean().abs() < 0.3 and 0.8 < embeddings.std() < 1.2
    assert not torch.equal(begun(source, seed=1), begun(source))


def test_seeds_decide():
    source = family()
    meta = begun(source)
    assert torch.equal(begun(source), meta)
    assert torch.equal(visited(source, meta, 1), visited(source, meta, 1))
    assert not torch.equal(visited(source, meta, 1, seed=6), visited(source, meta, 1))
    new = [opened(source, meta, 3, seed=seed, new=True).theta0 for seed in (5, 5, 6)]
    assert torch.equal(new[0], new[1])
    layout = source.layout
    assert torch.equal(new[0][: layout.trunk], new[2][: layout.trunk])
    assert (new[0][layout.trunk : layout.n + 12] != new[2][layout.trunk : layout.n + 12]).float().mean() > 0.9


def test_a_new_task_has_a_head_of_its_own():
    source = family()
    meta, tasks = begun(source), source.batch([3], [8])
    turn, layout = opened(source, meta, 3, new=True, tasks=tasks), source.layout
    assert torch.equal(turn.theta0[: layout.n], tasks.start(meta[None, : layout.n])[0])


def test_a_turn_keeps_the_contract_of_tasks():
    source = family()
    meta = with_embedding(source, begun(source), 0, alternating(source))
    turn = opened(source, meta, 1)
    check_tasks(turn.tasks, turn.theta0[None])
    batch = turn.tasks.sample(turn.theta0[None], 0)
    _, _, grad = loss_and_gradient(turn.tasks.loss, turn.theta0[None], batch, "batched")
    assert grad.isfinite().all() and not grad[:, -12:].any() and grad[:, -24:-12].all()
    assert not hasattr(turn.tasks, "layout")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("execution", ["sequential", "captured"])
def test_visits_are_the_same_however_they_are_executed(name, execution):
    source = family()
    meta = with_embedding(source, begun(source), 0, 0.01 * alternating(source))
    expected = visited(source, meta, 1, optimizer=OPTIMIZERS[name], steps=10)
    found = visited(source, meta, 1, optimizer=OPTIMIZERS[name], steps=10, execution=execution)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)  # Adam blows up rounding


def test_what_was_recorded_of_a_visit_serves_the_next():
    source, learner, prepared = family(), hat(), Prepared()
    meta = begun(source, learner)
    for task in (1, 2, 1):
        tasks = source.batch([task], [5])
        turn = opened(source, meta, task, learner, steps=4, tasks=tasks)
        options = {"steps": 4, "optimizer": turn.optimizer}
        walked = walk(turn.tasks, turn.theta0, execution="captured", prepared=prepared, **options)
        torch.testing.assert_close(walked.theta, walk(turn.tasks, turn.theta0, **options).theta)
        meta = learner.visits.close(meta, tasks, walked.theta[0])
    assert len(prepared._made) == 1 and prepared.notes == []


def test_embeddings_stay_in_bounds():
    source = family()
    meta = begun(source)
    for step in range(3):
        meta = visited(source, meta, 1, optimizer=optim.sgd(50.0), steps=2)
        embedding = parts(source, meta)[2][1]
        assert embedding.abs().max() <= 6, step
    assert (embedding.abs() == 6).any()


def test_embeddings_move_from_the_first_step_on():
    """Where s is 1 / 400 the gradient itself is next to nothing."""
    source = family()
    turn = opened(source, begun(source), 1, steps=6)
    stepped = walk(turn.tasks, turn.theta0, steps=1, optimizer=turn.optimizer)
    plain = walk(turn.tasks, turn.theta0, steps=1, optimizer=OPTIMIZERS["sgd"])
    place = slice(source.layout.n, source.layout.n + 12)
    ours, theirs = (w.theta[0, place] - turn.theta0[place] for w in (stepped, plain))
    assert theirs.norm() < 1e-3 and ours.norm() > 1e4 * theirs.norm()


def test_scores_are_those_of_the_sharpest_gates():
    source = family()
    meta = visited(source, begun(source), 1)
    tasks = source.batch([1], [5])
    turn = opened(source, meta, 1, tasks=tasks)
    binary = with_embedding(source, meta, 1, 6 * parts(source, meta)[2][1].sign())
    other = opened(source, binary, 1, tasks=tasks)
    found, expected = (t.tasks.score(t.theta0[None]) for t in (turn, other))
    assert found.keys() == tasks.score(meta[None, : source.layout.n]).keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3)
    assert torch.equal(turn.tasks.validation_error(turn.theta0[None]), found["validation_error"])
    closed = opened(source, with_embedding(source, meta, 1, -torch.ones(12)), 1, tasks=tasks)
    trunk_and_head = torch.cat([meta[: source.layout.trunk], parts(source, meta)[1][1]])
    bias = source.layout.unflatten(trunk_and_head)["head.bias"]
    labels, classes = source.tasks[1].test.labels, len(source.tasks[1].classes)
    assert closed.tasks.score(closed.theta0[None])["test_loss"] == pytest.approx(
        float(F.cross_entropy(bias[:classes].expand(len(labels), -1), labels))
    )  # with all gates closed the head sees nothing


def test_beyond_the_visit_gates_are_sharp():
    turn = opened(family(), begun(family()), 1, steps=4)
    sharp = [turn.tasks.sample(turn.theta0[None], i)[1].item() for i in range(6)]
    assert sharp[0] == 1 / 400 and sharp[3:] == [400, 400, 400]


def test_meta_training_visits_tasks_and_hands_on_what_they_own():
    source, learner = family(filters=8, batch_size=12), hat(pressure=0.1)
    plan = Plan(seed=0, inner_steps=20, meta_batch=3, execution="batched", validate_every=5, patience=10)
    trainer = Trainer(source, learner, lambda steps: optim.sgd(0.05), ("SGD", lambda step: 1.0, {"lr": 1.0}), plan)
    for _ in range(3):
        trainer.meta_step()
    meta = trainer.meta_parameters
    assert parts(source, meta)[3].tolist() == [1, 1, 1]
    assert max(training_error(source, meta, task, learner) for task in range(3)) < 10
    options = {"learner": learner, "inner": trainer.inner, "steps": 20, "seed": 0, "evaluation_seeds": (0, 1)}
    found = evaluate(source, meta, **options)
    assert found == evaluate(source, meta, **options)
    curves = torch.tensor(found["train_error"])
    assert curves.shape == (2, 1, 20) and curves.isfinite().all()
    assert torch.equal(trainer.meta_parameters, meta)


def test_as_a_fold_it_is_the_walk():
    source = family()
    tasks, theta = source.batch([0, 1], [1, 2]), source.initial(0).double()
    found = walk(tasks, theta, steps=3, optimizer=optim.sgd(0.1), folds={"it": hat()})
    assert torch.equal(found.results["it"], theta[: source.layout.shared] - found.theta[:, : source.layout.shared])


def test_what_cannot_be_is_refused():
    for options in ({"pressure": -1.0}, {"pressure": float("nan")}, {"sharpest": 1.0}, {"sharpest": float("inf")}):
        with pytest.raises(ValueError, match=next(iter(options))):
            hat(**options)
    source = family()
    with pytest.raises(ValueError, match=r"for 3 tasks are \[\d+\], got \(\d+,\)"):
        opened(source, source.initial(0), 0)
