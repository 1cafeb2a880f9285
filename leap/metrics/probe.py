"""The linear probe: how well a linear classifier on features does on samples it was not fitted to.

The baseline of every score of transferability: it costs more than they do, and asks the question outright.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from leap.metrics.labelled import Labelled, labelled

STEPS = 1000  # at most; a fit takes tens
ARRIVED = 1e-5  # gradient of the summed loss in whitened weights, over the root of the samples, where a fit stops
ASTRAY = 1e-3  # the same where a fit has not settled
CONSTANT = 1e-12  # a column's deviation beside its size, below which it is round-off


class Probe(NamedTuple):
    """What a linear classifier does on held-out samples."""

    log_loss: Tensor  # [] float64: mean of -log p(label), nats
    error: Tensor  # [] float64: how often another class is the likelier one, percent


def linear_probe(
    features: Any, labels: Any, *, generator: torch.Generator, folds: int = 5, decay: float = 3.0
) -> Probe:
    r"""Cross-validated multinomial logistic regression on standardised features.

    .. math:: \min_{W, b} \sum_i -\log \mathrm{softmax}(W x_i + b)_{y_i} + \frac{decay}{2} \|W\|^2

    Args:
        features: [m, k]. Mean and deviation of every column are those of the training folds.
        labels: Class of each sample, [m].
        generator: Draws which samples of a class go into which fold.
        folds: Parts the samples are cut into, at least 2; each class is spread over all of them.
        decay: Weight of the penalty beside the **sum** of losses, above 0: the precision of a Gaussian prior on W; the
            bias is free. scikit-learn's default is 1 (its C is 1 / decay). Of 0.1 to 100, between 1 and 10 predicted
            best on digits and clothes, from 5 to 500 samples a class, with trained and with random features.

    Returns:
        Mean log loss (nats a sample) and error (percent), float64, over all samples held out once. Smaller is better,
        unlike a score.

    Raises:
        ValueError: folds below 2, decay not above 0 and finite, one sample in every class; and as `labelled`.
        RuntimeError: a fit that does not settle, with a cure.

    Example:
        >>> from leap.randomness import generator
        >>> x = torch.linspace(-3, 3, 40)[:, None]
        >>> probe = linear_probe(x, (x[:, 0] > 0).long(), generator=generator(0))
        >>> bool(probe.log_loss < 0.4), bool(probe.error <= 5)
        (True, True)

    Reference: Alain & Bengio 2017, https://arxiv.org/abs/1610.01644, for the probe.

    Few samples: a class with fewer samples than folds is spread over as many folds as it has samples, so that it is
    always among those fitted; with two a class, each is predicted from the other. A class with one sample cannot be
    predicted from others: its sample is in every fit and held out of none. Columns that do not vary among the training
    folds take no part. Where k exceeds the samples, the fit runs in the space they span, with the same optimum.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}; what was fitted says little of other samples")
    if not 0 < decay < float("inf"):
        raise ValueError(f"decay must be above 0 and finite, got {decay}; without it separable classes have no optimum")
    data = labelled(features, labels)
    fold = assign_folds(data, folds, generator)
    losses, wrong = [], []
    for index in fold[fold >= 0].unique():
        held = fold == index
        log_p = _predict(data, ~held, held, decay)
        truth = data.labels[held]
        losses.append(-log_p.gather(1, truth[:, None]).squeeze(1))
        wrong.append(log_p.argmax(1) != truth)
    return Probe(torch.cat(losses).mean(), 100 * torch.cat(wrong).to(torch.float64).mean())


def assign_folds(data: Labelled, folds: int, generator: torch.Generator) -> Tensor:
    """The fold [m] that holds each sample out, 0 .. folds - 1; -1 for what is never held out.

    Every class is dealt out evenly, each beginning where the one before ended, so that folds are of like size.

    Raises:
        ValueError: no class with two samples.
    """
    if int(data.counts.max()) < 2:
        raise ValueError(
            f"each of the {data.classes} classes has one sample, so none can be predicted from others; "
            "a probe needs at least two samples of a class"
        )
    m = len(data.labels)
    order = torch.randperm(m, generator=generator, device=generator.device).to(data.labels.device)
    order = order[data.labels[order].argsort(stable=True)]  # by class, at random within
    fold = torch.empty_like(data.labels)
    several = (data.counts > 1)[data.labels[order]]
    fold[order] = torch.where(several, (several.cumsum(0) - 1) % folds, -1)
    return fold


def _predict(data: Labelled, fitted: Tensor, held: Tensor, decay: float) -> Tensor:
    """Log probabilities [held, C] by the classifier of the fitted samples."""
    train, test = _standardised(data.features[fitted], data.features[held])
    if len(train) < train.shape[1]:
        basis = torch.linalg.qr(train.mT).Q  # the optimal W lies among the rows
        train, test = train @ basis, test @ basis
    values, vectors = torch.linalg.eigh(train.mT @ train)
    # In these coordinates the Hessian lies between 0 and 1, so that few steps do, however features are correlated.
    whiten = vectors / (values.clamp_min(0) / 2 + decay).sqrt()
    train, test = (
        torch.nn.functional.pad(part @ whiten, (0, 1), value=(2 / len(train)) ** 0.5) for part in (train, test)
    )
    penalty = torch.nn.functional.pad(decay / (values.clamp_min(0) / 2 + decay), (0, 1))
    truth = torch.nn.functional.one_hot(data.labels[fitted], data.classes).to(torch.float64)
    return (test @ _fit(train, truth, penalty)).log_softmax(1)


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    size = train.abs().amax(0)
    size = torch.where(size > 0, size, 1.0)
    train, test = train / size, test / size  # squares of what is left do not overflow
    deviation = train.std(0, correction=0)
    scale = torch.where(deviation > CONSTANT, 1 / deviation, 0.0)
    mean = train.mean(0)
    return (train - mean) * scale, (test - mean) * scale


def _fit(inputs: Tensor, truth: Tensor, penalty: Tensor) -> Tensor:
    """Weights [p, C] at the optimum; rows of `inputs` [n, p] begin with whitened features and end with the bias."""
    weights = torch.zeros(inputs.shape[1], truth.shape[1], dtype=torch.float64, device=inputs.device)
    weights[-1] = truth.mean(0).log() / inputs[0, -1]  # what is right without features
    root = len(inputs) ** 0.5

    def loss() -> Tensor:
        log_p = (inputs @ weights).log_softmax(1)
        shrunk = penalty[:, None] * weights
        weights.grad = inputs.mT @ (log_p.exp() - truth) + shrunk
        return (shrunk * weights).sum() / 2 - (truth * log_p).sum()

    search = torch.optim.LBFGS(
        [weights],
        max_iter=STEPS,
        history_size=20,
        tolerance_grad=ARRIVED * root,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    search.step(loss)
    loss()  # the search may end on a point that it has not kept
    slope = float(torch.as_tensor(weights.grad).abs().max()) / root
    if not slope <= ASTRAY:
        raise RuntimeError(f"the probe has not settled in {STEPS} steps (slope {slope:.1g}); raise decay")
    return weights
