"""Kronecker-factored curvature of linear and convolution layers: log-determinants for C backward passes."""

from __future__ import annotations

import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leap.metrics.checks import as_double, check_module, positive
from leap.metrics.curvature import Estimate, softmax_roots, spectrum


class Kronecker(NamedTuple):
    """A layer's curvature summed over inputs, `H_l ~ G (x) A`; weights in the order of `cat([weight, bias], 1)`."""

    outputs: Tensor  # G [out, out]
    inputs: Tensor  # A [in (+ 1), in (+ 1)]


def kronecker_factors(module: nn.Module, inputs: Tensor) -> dict[str, Kronecker]:
    r"""Kronecker factors of the exact model Fisher of every layer.

    .. math:: A = \frac{1}{n} \sum_{i,t} a_{it} a_{it}^\top, \qquad
              G = \frac{1}{T} \sum_{i,t,k} g_{itk} g_{itk}^\top, \qquad
              g_{itk} = \partial (\sqrt{S_i}\, z_i)_k / \partial s_{it}

    with a layer's inputs a (and a 1 where it has a bias) and its outputs s at T positions, 1 for plain linear layers.

    Args:
        module: Its parameters all belong to nn.Linear and ungrouped nn.Conv2d, each called once a pass; all count as
            trained. It is copied and left as it is.
        inputs: [n, ...].

    Returns:
        By name of the layer, in the order of the module.

    Raises:
        TypeError, ValueError: other layers with parameters, a layer called twice or not at all, running statistics,
            active dropout, or values that are not finite.

    The label's expectation is taken exactly (the library curvlinops calls this "type-2"); `Martens and Grosse 2015
    <https://arxiv.org/abs/1503.05671>`_, for convolutions `Grosse and Martens 2016 <https://arxiv.org/abs/1602.01407>`_.

    Example:
        >>> factors = kronecker_factors(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), torch.ones(4, 3))
        >>> factors["1"].outputs.shape, factors["1"].inputs.shape
        (torch.Size([2, 2]), torch.Size([4, 4]))
    """
    check_module(module)
    layers = _layers(module)
    as_double(torch.cat([p.detach().reshape(-1) for p in module.parameters()]), inputs)
    calls, logits = _forward(copy.deepcopy(module).double().requires_grad_(), layers, inputs)
    roots = softmax_roots(logits.detach().softmax(1))[:, :, :-1]
    sums = [torch.zeros((), dtype=torch.float64)] * len(calls)
    for k in range(roots.shape[2]):
        grads = torch.autograd.grad((logits * roots[:, :, k]).sum(), [call.out for call in calls], retain_graph=True)
        moments = [_moment(_positions(call.part, grad)) for call, grad in zip(calls, grads, strict=True)]
        sums = [total + moment for total, moment in zip(sums, moments, strict=True)]
    return {
        name: Kronecker(total * (len(total) / call.out[0].numel()), _moment(call.rows) / len(inputs))
        for name, call, total in zip(layers, calls, sums, strict=True)
    }


def logdet_kronecker(module: nn.Module, inputs: Tensor, scale: float) -> Estimate:
    r"""Log-determinant of the identity plus the scaled Kronecker-factored Fisher.

    .. math:: \sum_l \sum_{ij} \log(1 + c\, a_{li}\, g_{lj})

    Args:
        module: As in `kronecker_factors`.
        inputs: [n, ...].
        scale: c > 0.

    Returns:
        The value in nats; bias "upper", since couplings between layers are dropped. That part is a bound; replacing the
        mean of products by the product of means is not one, but spreads the spectrum and so mostly adds.

    Raises:
        TypeError, ValueError: as `kronecker_factors`, or a scale that is not positive.

    Example:
        >>> module = nn.Linear(1, 2, bias=False)
        >>> _ = nn.init.zeros_(module.weight)
        >>> logdet_kronecker(module, torch.tensor([[2.0]]), 1.0).value          # one eigenvalue, 4 / 2: log 3
        tensor(1.0986, dtype=torch.float64)

    Built from the eigenvalues of the factors: the factors alone are singular, and their own log-determinants minus
    infinity.
    """
    scale, total = positive("scale", scale), torch.zeros((), dtype=torch.float64)
    for part in kronecker_factors(module, inputs).values():
        total = total + torch.log1p(scale * torch.outer(spectrum(part.outputs), spectrum(part.inputs))).sum()
    return Estimate(total, None, "upper")


class _Call(NamedTuple):
    part: nn.Module
    rows: Tensor  # [n T, in (+ 1)]  what the layer multiplies its weights with
    out: Tensor  # [n, ...]


def _layers(module: nn.Module) -> list[str]:
    layers = {name: part for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))}
    for name, part in layers.items():
        plain = isinstance(part, nn.Linear) or (
            isinstance(part, nn.Conv2d) and part.groups == 1 and part.padding_mode == "zeros"
        )
        if not plain:
            raise TypeError(
                f"{name or 'the module'} is {type(part).__name__}: Kronecker factors are for nn.Linear and nn.Conv2d "
                "with one group and zero padding; use logdet_dual, which takes any network"
            )
    if not layers:
        raise ValueError(f"{type(module).__name__} has no parameters, so no curvature")
    return list(layers)


def _forward(module: nn.Module, layers: list[str], inputs: Tensor) -> tuple[list[_Call], Tensor]:
    calls: dict[str, _Call] = {}

    def record(name: str, part: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        if name in calls:
            raise ValueError(f"{name} is called twice in a pass, so its weights are shared; use logdet_dual")
        calls[name] = _Call(part, _inputs(part, args[0].detach()), out)

    for name in layers:
        module.get_submodule(name).register_forward_hook(partial(record, name))
    with torch.enable_grad():
        logits = module(inputs.double() if inputs.is_floating_point() else inputs)
    if logits.dim() != 2 or logits.shape[1] < 2 or not bool(torch.isfinite(logits).all()):
        raise ValueError(f"logits must be finite, [n, C] with at least two classes, got shape {tuple(logits.shape)}")
    if missing := [name for name in layers if name not in calls]:
        raise ValueError(f"a forward pass does not use the layers {missing}; remove them, or use logdet_dual")
    return [calls[name] for name in layers], logits


def _inputs(part: nn.Module, a: Tensor) -> Tensor:
    if isinstance(part, nn.Conv2d):
        padded = F.pad(a, part._reversed_padding_repeated_twice)
        a = F.unfold(padded, part.kernel_size, part.dilation, 0, part.stride).mT
    rows = a.reshape(-1, a.shape[-1])
    return rows if part.bias is None else torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def _positions(part: nn.Module, grad: Tensor) -> Tensor:
    """Gradients by output [n, ...] as rows, one a position: [n T, out]."""
    channels_last = grad.flatten(2).mT if isinstance(part, nn.Conv2d) else grad
    return channels_last.reshape(-1, channels_last.shape[-1])


def _moment(rows: Tensor) -> Tensor:
    return rows.T @ rows
