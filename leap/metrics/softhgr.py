"""Soft-HGR: maximal correlation of a general X with labels, by networks where no table of the joint exists.

An estimate of what the best feature of X would score, hence a denominator for transferability where labels are not a
function of the input, and a check of the exact one where they are.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from leap.metrics.canonical import Canonical, canonical, correlations
from leap.metrics.labelled import features_of, labelled, labels_of

SAMPLES_A_FEATURE = 10  # at least, in every part and every batch: the product of covariances of fewer is biased
FULL_BATCH = 4096  # samples up to which every step sees all of them
BATCH = 2048
CHECKS = 20  # of the networks on the way, by samples that they do not learn from
ROWS = 8192  # evaluated together
HIDDEN = 64


class Scaling(NamedTuple):
    """Columns to mean 0 and variance 1, as they were in the samples that were learned from."""

    centre: Tensor  # [d]
    scale: Tensor  # [d]

    def __call__(self, values: Tensor) -> Tensor:
        """Scaled values [m, d] in float32."""
        if values.dim() != 2 or values.shape[1] != len(self.centre):
            raise ValueError(f"samples must have the {len(self.centre)} columns learned from, got {list(values.shape)}")
        return ((values.to(self.centre.device) - self.centre) / self.scale).float()


class FeatureMap(NamedTuple):
    """The learned feature f of X: a network of scaled inputs, then the maps map that makes it white."""

    network: nn.Module
    scaling: Scaling
    mean: Tensor  # [k]      of the network's outputs
    white: Tensor  # [k, k]

    def __call__(self, inputs: Any) -> Tensor:
        """Features [m, k] in float64 of inputs [m, d]: variance about 1, uncorrelated, most correlated with Y first."""
        scaled = self.scaling(features_of(inputs, "inputs"))
        return (_outputs(self.network, scaled, len(self.mean)) - self.mean) @ self.white


class SoftHGR(NamedTuple):
    """What soft-HGR found. Numbers are float64, without unit."""

    chi_square: Tensor  # 2 J on held-out samples: what the functions reach of the sum of squared correlations
    sigma: Tensor  # [k]     correlation of f_i(X) with g_i(Y) on held-out samples; below 0 only by chance
    selected: Tensor  # 2 J on the samples that chose step and linear maps; above `chi_square` by what these overfit
    learned: Tensor  # its largest value on the samples that the networks learned from; far above if they overfit
    features: FeatureMap
    step: int  # the one after which the networks were best


def soft_hgr(
    inputs: Any,
    labels: Any,
    k: int,
    *,
    generator: torch.Generator,
    network: nn.Module | None = None,
    label_network: nn.Module | None = None,
    held_out: tuple[Any, Any] | None = None,
    steps: int = 400,
    learning_rate: float = 1e-2,
    batch: int | None = None,
) -> SoftHGR:
    r"""Sum of the squared maximal correlations of X and Y, and the feature of X that has them, from samples.

    .. math:: \max_{f, g} J(f, g) = \tfrac12 \sum_{i \le k} \sigma_i^2

    with J of `soft_correlation`.

    Args:
        inputs: X of m samples, [m, d], in any unit; columns are scaled to mean 0 and variance 1.
        labels: Y: classes from 0 on, [m], for which g is a table; or anything else as a matrix [m, c].
        k: Functions in f and in g, at least 1. For classes, k = |Y| - 1 is all there is, and more change nothing.
        generator: Draws the division of the samples, the weights and the batches. Equal draws give equal results.
        network: f, from scaled inputs [b, d] to [b, k]; a copy is trained, in float32, from the weights it has, but
            for frozen ones. None: two hidden layers of 64 tanh units. Dropout draws from torch's global generator.
        label_network: g, from scaled labels [b, c] to [b, k], where these are a matrix. None: as for f.
        held_out: Inputs and labels to evaluate on. None: a quarter of the samples, of every class alike. Another
            quarter chooses the step and solves for the last linear maps; the networks learn from the rest.
        steps: Of Adam, with a rate that falls to 0 along a cosine.
        learning_rate: Of the first step.
        batch: Samples a step, at least 10 k. None: all up to 4096, otherwise 2048.

    Returns:
        `SoftHGR`: `chi_square` for the denominator of transferability, `features` for the feature. On held-out samples
        J is that of fixed functions, so beside the noise of the samples it is at most the true value, and what it lacks
        is what the networks did not find.

    Raises:
        TypeError: what is no array of numbers.
        ValueError: what `labelled` refuses; a k, steps, rate or batch out of range; fewer than 10 k samples in a part;
            held-out classes that do not occur in labels; a network whose outputs are not [b, k] or not finite.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> x = torch.randn(4000, 1, generator=draw)
        >>> y = 0.8 * x + 0.6 * torch.randn(4000, 1, generator=draw)
        >>> bool((soft_hgr(x, y, 1, generator=draw, steps=100).sigma - 0.8).abs() < 0.03)
        True

    Reference: Wang et al. 2019, https://arxiv.org/abs/1811.08979.

    Variant: the objective is the paper's. In addition the step is chosen, and the best linear maps of f and g are
    solved for, on samples that the networks did not learn from: J does not change under f -> A f, g -> A^-T g, so
    outputs come at any scale, and networks that overfit would claim correlations near 1. With few samples the estimate
    stays well below the true value (`learned` tells), and a transferability that is divided by it can exceed 1.
    """
    _check_range(k, steps, learning_rate)
    x, y = _matched(inputs, labels)
    if y.dim() == 1 and label_network is not None:
        raise ValueError("labels are classes, for which g is a table; leave label_network out, or pass a matrix [m, c]")
    parts = _divide(y, (0, 0, 1, 2) if held_out is None else (0, 0, 1), generator)
    see = _scaling(x[parts[0]], "inputs")
    read = _classes(x, y) if y.dim() == 1 else _scaling(y[parts[0]], "labels")
    pieces = [(x[rows], y[rows]) for rows in parts] + ([] if held_out is None else [_matched(*held_out)])
    samples = [_Samples(see(one), read(two)) for one, two in pieces]
    _check_sizes(k, batch, samples)
    f = _network(network, x.shape[1], k, generator).to(x.device)
    g = _table(len(read[0]), k, generator) if y.dim() == 1 else _network(label_network, y.shape[1], k, generator)
    pair = _Pair(f, g.to(x.device), k)
    maps, step = _learn(pair, samples, _Schedule(steps, learning_rate, batch), generator)
    chi_square, sigma = _evaluate(pair, maps, samples[2])
    learned = canonical(*pair.outputs(samples[0])).sigma.square().sum()
    features = FeatureMap(f, see, maps.mean_f, maps.white_f)
    return SoftHGR(chi_square, sigma, maps.sigma.square().sum(), learned, features, step)


def soft_correlation(f: Tensor, g: Tensor) -> Tensor:
    r"""The objective of soft-HGR: correlation of f with g, less a penalty in place of whitening.

    .. math:: J(f, g) = E[f^T g] - \tfrac12 \operatorname{tr}( \operatorname{cov} f \operatorname{cov} g )

    Args:
        f: f(x_i), [m, k], float; centred here.
        g: g(y_i), [m, k].

    Returns:
        A scalar, differentiable. At most half the sum of the squared maximal correlations, up to the bias of the
        product of two covariances of one sample, which is of order k / m.

    Raises:
        ValueError: shapes that differ.

    Example:
        >>> f = torch.tensor([[1.0], [-1.0]])
        >>> soft_correlation(f, f), soft_correlation(3 * f, f / 3)           # correlation 1, at any scale
        (tensor(0.5000), tensor(0.5000))

    Reference: Wang et al. 2019, https://arxiv.org/abs/1811.08979. Xu & Zheng write H(f, g) for J and call it H-score;
    it is half of what compares with an H-score.
    """
    if f.dim() != 2 or f.shape != g.shape:
        raise ValueError(f"f and g must be [m, k] alike, got shapes {list(f.shape)} and {list(g.shape)}")
    f, g = f - f.mean(0), g - g.mean(0)
    return (f * g).sum() / len(f) - 0.5 * ((f.mT @ f) * (g.mT @ g)).sum() / len(f) ** 2


class _Classes(NamedTuple):
    ids: Tensor  # [C] labels that occur, ascending

    def __call__(self, labels: Tensor) -> Tensor:
        if labels.dim() != 1:
            raise ValueError(f"held-out labels must be classes [m], as the labels are, got shape {list(labels.shape)}")
        labels = labels.to(self.ids.device)
        place = torch.searchsorted(self.ids, labels).clamp_max(len(self.ids) - 1)
        strange = labels[self.ids[place] != labels]
        if len(strange):
            raise ValueError(f"held-out label {int(strange[0])} does not occur among the labels; leave it out")
        return place


class _Samples(NamedTuple):
    x: Tensor  # [n, d] float32
    y: Tensor  # [n] long, or [n, c] float32


class _Pair(NamedTuple):
    f: nn.Module
    g: nn.Module
    k: int

    def outputs(self, samples: _Samples) -> tuple[Tensor, Tensor]:
        return _outputs(self.f, samples.x, self.k), _outputs(self.g, samples.y, self.k)

    def modules(self) -> nn.ModuleList:
        return nn.ModuleList([self.f, self.g])


class _Schedule(NamedTuple):
    steps: int
    rate: float
    batch: int | None


def _learn(
    pair: _Pair, samples: list[_Samples], schedule: _Schedule, generator: torch.Generator
) -> tuple[Canonical, int]:
    learn, choose = samples[:2]
    size = schedule.batch or (len(learn.x) if len(learn.x) <= FULL_BATCH else max(BATCH, SAMPLES_A_FEATURE * pair.k))
    both = pair.modules()
    optimizer = torch.optim.Adam(both.parameters(), schedule.rate)
    best, maps, kept = 0, canonical(*pair.outputs(choose)), copy.deepcopy(both.state_dict())
    for step in range(1, schedule.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * (1 + math.cos(math.pi * (step - 1) / schedule.steps)) / 2
        _ascend(pair, _drawn(learn, size, generator), optimizer)
        if step % max(1, schedule.steps // CHECKS) == 0 or step == schedule.steps:
            found = canonical(*pair.outputs(choose))
            if found.sigma.square().sum() > maps.sigma.square().sum():  # CPU-GPU sync
                best, maps, kept = step, found, copy.deepcopy(both.state_dict())
    both.load_state_dict(kept)
    both.eval().requires_grad_(False)
    return maps, best


def _ascend(pair: _Pair, samples: _Samples, optimizer: torch.optim.Optimizer) -> None:
    pair.modules().train()
    with torch.enable_grad():
        optimizer.zero_grad()
        (-soft_correlation(pair.f(samples.x), pair.g(samples.y))).backward()
    optimizer.step()


def _drawn(samples: _Samples, size: int, generator: torch.Generator) -> _Samples:
    if size >= len(samples.x):
        return samples
    rows = torch.randint(len(samples.x), (size,), generator=generator, device=generator.device).to(samples.x.device)
    return _Samples(samples.x[rows], samples.y[rows])


@torch.no_grad()
def _outputs(network: nn.Module, values: Tensor, k: int) -> Tensor:
    """Outputs [n, k] in float64, in evaluation mode."""
    network.eval()
    out = torch.cat([network(part) for part in values.split(ROWS)]).double()
    if out.shape != (len(values), k):
        raise ValueError(f"a network must return [b, k], {[len(values), k]} for these samples, got {list(out.shape)}")
    if not bool(torch.isfinite(out).all()):
        raise ValueError("outputs of a network are not finite: it diverged; lower learning_rate")
    return out


def _evaluate(pair: _Pair, maps: Canonical, samples: _Samples) -> tuple[Tensor, Tensor]:
    """Twice J, with g at the scale of E[f | Y] at which J is largest, and the correlations [k]."""
    f, g = maps.paired(*pair.outputs(samples))
    return 2 * soft_correlation(f, g * maps.sigma), correlations(f, g)


def _matched(inputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """X [m, d] in float64, and Y as classes [m] or as a matrix [m, c] in float64, of the same samples."""
    x, y = features_of(inputs, "inputs"), labels_of(labels) if np.ndim(labels) == 1 else features_of(labels, "labels")
    if len(x) != len(y):
        raise ValueError(f"inputs and labels must be of the same samples, got {len(x)} rows and {len(y)}")
    return x, y.to(x.device)


def _divide(y: Tensor, pattern: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    """Rows of each part, dealt out by the pattern from shuffled samples, class by class."""
    order = torch.randperm(len(y), generator=generator, device=generator.device).to(y.device)
    if y.dim() == 1:
        order = order[y[order].argsort(stable=True)]
    dealt = torch.tensor(pattern, device=y.device)[torch.arange(len(y), device=y.device) % len(pattern)]
    return [order[dealt == part] for part in range(max(pattern) + 1)]


def _classes(x: Tensor, y: Tensor) -> _Classes:
    labelled(x, y)  # refuses a single class
    return _Classes(y.unique())


def _scaling(values: Tensor, name: str) -> Scaling:
    centre, spread = values.mean(0), values.std(0, correction=0)
    varies = spread > 1e-12 * values.abs().amax(0)
    if not bool(varies.any()):
        raise ValueError(f"{name} are the same in all {len(values)} samples learned from, so nothing depends on them")
    return Scaling(centre, torch.where(varies, spread, 1.0))


def _network(given: nn.Module | None, width: int, k: int, generator: torch.Generator) -> nn.Module:
    if given is not None:
        return copy.deepcopy(given).float()
    layers: list[nn.Module] = []
    for size, out in ((width, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, k)):
        linear = nn.utils.skip_init(nn.Linear, size, out)  # a usual one would draw from the global generator
        nn.init.normal_(linear.weight, std=size**-0.5, generator=generator)
        nn.init.normal_(linear.bias, generator=generator)  # from zero, the even functions of X come late
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _table(classes: int, k: int, generator: torch.Generator) -> nn.Module:
    table = nn.utils.skip_init(nn.Embedding, classes, k)
    nn.init.normal_(table.weight, std=1.0, generator=generator)
    return table


def _check_range(k: int, steps: int, rate: float) -> None:
    for name, value in (("k", k), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    if not 0 < rate < math.inf:
        raise ValueError(f"learning_rate must be positive and finite, got {rate}")


def _check_sizes(k: int, batch: int | None, samples: list[_Samples]) -> None:
    least = SAMPLES_A_FEATURE * k
    sizes = [len(part.x) for part in samples]
    if min(sizes) < least:
        raise ValueError(
            f"k = {k} functions need {least} samples in every part, got {sizes[0]} to learn from, {sizes[1]} to choose "
            f"by and {sizes[2]} held out; lower k to {min(sizes) // SAMPLES_A_FEATURE} or add samples"
        )
    if batch is not None and batch < least:
        raise ValueError(f"batch must be at least 10 k = {least}, got {batch}")
