"""A module's parameters as a vector and back."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from leap.layout import Layout
from tasks.models import MLP, Conv4


class Headed(nn.Module):
    """The head is registered first, and must still stand last in the vector."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.body = nn.Linear(4, 3)


def test_flatten_and_unflatten_are_inverse_and_views():
    module = Conv4(5, filters=3)
    layout = Layout.of(module)
    theta = layout.flatten(module)
    named = layout.unflatten(theta)
    for name, parameter in module.named_parameters():
        assert torch.equal(named[name], parameter)
    named["head.bias"][0] = 42.0
    assert 42.0 in theta  # a view, not a copy
    assert torch.equal(layout.flatten(named), theta)


def test_leading_axes_are_kept():
    layout = Layout.of(MLP((4,)))
    stacked = torch.randn(2, 3, layout.n)
    named = layout.unflatten(stacked)
    assert named["layers.0.weight"].shape == (2, 3, 4, 1)
    assert torch.equal(named["head.bias"][1, 2], layout.unflatten(stacked[1, 2])["head.bias"])


def test_the_head_stands_last_and_bounds_trunk_and_shared():
    layout = Layout.of(Headed())
    assert layout.names == ("body.weight", "body.bias", "head.weight", "head.bias")
    assert (layout.n, layout.trunk, layout.shared) == (23, 15, 23)
    assert Layout.of(Headed(), own_head=True).shared == 15
    assert Layout.of(Headed(), head="body").names[-1] == "body.bias"


def test_frozen_parameters_stay_outside():
    module = Headed()
    module.body.requires_grad_(False)
    assert Layout.of(module).names == ("head.weight", "head.bias")


@pytest.mark.parametrize("module", [Conv4(3, filters=2), Conv4(3, filters=2, norm="group"), MLP((3,))])
def test_a_functional_call_leaves_the_module_alone(module):
    layout = Layout.of(module)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    x = torch.rand(4, 1) if isinstance(module, MLP) else torch.rand(4, 1, 28, 28)
    functional_call(module, layout.unflatten(torch.randn(layout.n)), (x,))
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_wrong_input_is_refused_with_the_value():
    layout = Layout.of(nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"3 entries .* \(4,\)"):
        layout.unflatten(torch.zeros(4))
    with pytest.raises(ValueError, match=r"'weight' must have shape \(1, 2\), got \(2, 2\)"):
        layout.flatten(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="missing"):
        layout.flatten({"weight": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match="nothing to learn"):
        Layout.of(nn.ReLU())
    with pytest.raises(ValueError, match="'top'"):
        Layout.of(nn.Linear(2, 1), head="top")
