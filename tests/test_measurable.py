"""What measuring asks of families of images: features of a trunk, a task's data, the layout without its head."""

import itertools

import pytest
import torch
from families import random_drawings, small_alphabets, small_image_sets
from torch.func import functional_call, jvp, vjp, vmap

from leap.errors import UsageError
from leap.layout import Layout
from leap.measure.problem import check_per_sample, check_task, measurable
from tasks.alphabets import Alphabets, Protocol
from tasks.models import Conv4, Encoder


def with_norm(norm):
    def make():
        protocol = Protocol(ways=4, shots=4, queries=2, train=4, held_out=2, batch_size=6)
        return Alphabets(random_drawings(), protocol, seed=0, filters=3, norm=norm)

    return make


MEASURABLE = {
    "image sets": small_image_sets,
    **{f"alphabets, {norm}": with_norm(norm) for norm in ("batch", "group", "none")},
}


@pytest.fixture(params=MEASURABLE)
def family(request):
    return MEASURABLE[request.param]()


@pytest.fixture
def per_sample():
    return [MEASURABLE[name]() for name in ("image sets", "alphabets, group", "alphabets, none")]


def test_a_head_on_the_features_gives_the_networks_logits(family):
    measurable(family)
    theta = family.initial(3).double()
    trunk, head = theta[: family.layout.trunk], theta[family.layout.trunk :]
    inputs = family.dataset(1).inputs.double()
    features = family.features(trunk, inputs)
    assert features.shape == (len(inputs), family.width)
    bias = family.module.head.out_features
    weight = head[:-bias].reshape(-1, family.width)
    expected = functional_call(family.module, family.layout.unflatten(theta), (inputs,))
    torch.testing.assert_close(features @ weight.T + head[-bias:], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # torch imports jvp's rules so
def test_features_are_of_each_input_alone_and_go_through_the_transforms(per_sample):
    for family in per_sample:
        trunk, inputs = family.initial(0)[: family.layout.trunk].double(), family.dataset(0).inputs[:6].double()
        check_per_sample(family, trunk, inputs)
        whole = family.features(trunk, inputs)
        alone = vmap(lambda x, at=trunk, f=family: f.features(at, x[None])[0])(inputs)
        torch.testing.assert_close(alone, whole, rtol=1e-12, atol=1e-12)
        direction = torch.randn(len(trunk), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        pull = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        forward = jvp(lambda at, f=family, x=inputs: f.features(at, x), (trunk,), (direction,))[1]
        (backward,) = vjp(lambda at, f=family, x=inputs: f.features(at, x), trunk)[1](pull)
        assert (forward * pull).sum().item() == pytest.approx((backward @ direction).item(), rel=1e-9)
        moved = [family.features(trunk + e * direction, inputs) for e in (1e-6, -1e-6)]
        torch.testing.assert_close((moved[0] - moved[1]) / 2e-6, forward, rtol=1e-4, atol=1e-6)


def test_a_network_that_sees_the_whole_batch_is_told_apart():
    family = MEASURABLE["alphabets, batch"]()
    data = family.dataset(0)
    with pytest.raises(UsageError, match=r"--model\.norm group or none"):
        check_per_sample(family, family.initial(0)[: family.layout.trunk], data.inputs)


def test_a_tasks_data_are_what_its_loss_sees(family):
    for task in family.ids("test"):
        data = check_task(family.dataset(task))
        assert data.name == family.name(task) and data.inputs.dtype == torch.float32
        assert len(data.labels) == family.train_images.shape[1] and len(data.test_labels) == family.test_images.shape[1]
        for labels in (data.labels, data.test_labels):  # any first part is balanced
            for end in range(1, len(labels) + 1):
                counts = torch.bincount(labels[:end], minlength=data.classes)
                assert counts.max() - counts.min() <= 1


def test_the_data_of_a_task_and_its_batches_are_the_same_pictures():
    for family in (small_image_sets(batch_size=11), small_alphabets(augmentation=None, batch_size=16)):
        data = family.dataset(1)
        images, labels = (part[0] for part in family.batch([1], [0]).sample(family.initial(0)[None], 0)[:2])
        place = [int((data.inputs - image).flatten(1).abs().sum(1).argmin()) for image in images]
        assert sorted(place) == list(range(len(data.inputs)))
        torch.testing.assert_close(images, data.inputs[place], rtol=0, atol=1e-6)
        assert torch.equal(labels, data.labels[place])


def test_the_trunks_layout_is_the_beginning_of_the_whole():
    module = Conv4(5, filters=3)
    layout = Layout.of(module)
    bare = layout.without_head()
    assert bare.n == bare.trunk == bare.shared == layout.trunk
    assert (*bare.names, "head.weight", "head.bias") == layout.names
    theta = layout.flatten(module)
    for name, part in bare.unflatten(theta[: bare.n]).items():
        assert torch.equal(part, layout.unflatten(theta)[name])
    with pytest.raises(ValueError, match="0 entries"):
        Layout.of(torch.nn.Sequential(torch.nn.Linear(2, 1))).without_head()
    with pytest.raises(ValueError, match="3 entries"):
        Layout(("body", "head"), ((4,), (2,)), trunk=3, shared=6).without_head()


# The network


def test_the_network_for_measuring_is_small_and_refuses_what_it_cannot_pool():
    layout = Layout.of(Encoder(100))
    assert layout.trunk == 448 + 4640 + 18496 and Encoder(100).head.in_features == 256
    for widths, size in itertools.product([(2,), (2, 3), (2, 3, 4, 5)], [8, 19, 32]):
        if size >= 2 ** (len(widths) + 1):
            assert Encoder(3, widths, size=size)(torch.rand(2, 3, size, size)).shape == (2, 3)
    with pytest.raises(ValueError, match="16 x 16, got 8 x 8"):
        Encoder(3, size=8)
    with pytest.raises(ValueError, match="at least one convolution"):
        Encoder(3, ())
