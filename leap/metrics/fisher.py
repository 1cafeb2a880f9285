"""The Fisher information of a classifier, its trace, and distances between tasks that are made of it.

Everywhere the labels come from the model, not from the dataset (Kunstner et al. 2019,
https://arxiv.org/abs/1905.12558, tell what goes wrong otherwise). So no measurement here needs labels, and none
changes when classes are renamed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from leap.metrics.checks import FORWARD_ROWS, ROUND_OFF, Logits, as_double, matrix_of, probabilities

Method = Literal["exact", "sampled", "batch"]

_CHUNK_ENTRIES = 2**20  # of per-sample gradients in memory; larger chunks leave the cache and are slower on a CPU


def fisher_diagonal(
    logits: Logits,
    theta: Tensor,
    inputs: Tensor,
    *,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""Diagonal of the model's Fisher information, the mean over inputs.

    .. math:: F_{kk} = \frac1n \sum_i \sum_c p_\theta(c \mid x_i)
              \left( \frac{\partial \log p_\theta(c \mid x_i)}{\partial \theta_k} \right)^2

    Args:
        logits: `(theta [K], inputs [n, ...]) -> [n, C]`; row i depends on input i alone, and `torch.func.vmap` maps it.
        theta: Parameters, [K].
        inputs: n of them, [n, ...]. Floating ones are converted to float64, as theta is.
        generator: None for the exact sum over labels, C backward passes an input; a generator for one label an input,
            drawn from the model: one backward pass, unbiased. The draws do not depend on `chunk`.
        chunk: Inputs whose gradients are in memory at once, chunk * K numbers; None chooses about a million numbers.

    Returns:
        [K], float64, not negative. Unit: nats over the square of the parameters' unit. The mean over inputs, so N times
        it belongs to the summed loss of N samples.

    Raises:
        TypeError: theta is no float tensor [K].
        ValueError: no inputs, fewer than two classes, parameters, inputs or logits that are not finite, a chunk below
            1, or logits of an input that depend on the rest of the batch (batch statistics, dropout).

    Example:
        >>> coin = lambda theta, inputs: torch.stack([theta[0] * inputs, 0 * inputs], dim=1)   # p = sigmoid(theta x)
        >>> fisher_diagonal(coin, torch.zeros(1), torch.tensor([1.0, 2.0]))                    # mean of x^2 p (1 - p)
        tensor([0.6250], dtype=torch.float64)

    Reference: Amari 1998, https://doi.org/10.1162/089976698300017746.

    This is the Fisher of the model. The squared gradients of the dataset's labels ("empirical Fisher"), and squares of
    a batch's mean gradient without the factor of `batch_fisher_diagonal`, are other quantities, and vanish where
    training has converged.
    """
    theta, inputs = as_double(theta, inputs)
    p = probabilities(logits, theta, inputs)
    if chunk is None:
        chunk = max(1, _CHUNK_ENTRIES // len(theta))
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    if generator is None:
        labels, weights = torch.arange(p.shape[1], device=p.device).expand_as(p), p
    else:
        labels = _draw(p, generator)[:, None]
        weights = torch.ones_like(p[:, :1])
    total = torch.zeros_like(theta)
    for part, own, weight in zip(inputs.split(chunk), labels.split(chunk), weights.split(chunk), strict=True):
        total += _squared_scores(logits, theta, part, own, weight)
    return total / len(inputs)


def batch_fisher_diagonal(logits: Logits, theta: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    r"""Estimate of `fisher_diagonal` from the one gradient of a whole batch.

    .. math:: \hat F_{kk} = n \left( \frac1n \sum_{i=1}^n \frac{\partial \log p_\theta(y_i \mid x_i)}{\partial \theta_k}
              \right)^2, \qquad y_i \sim p_\theta(\cdot \mid x_i)

    Args:
        logits: As `fisher_diagonal`.
        theta: Parameters, [K].
        inputs: n of them, [n, ...].
        labels: Drawn from the model, [n], as `sample_labels` does. The score has mean zero under the model, so the
            mixed terms vanish in expectation and the estimate is unbiased; with a dataset's labels it is not.

    Returns:
        [K], float64; unit as `fisher_diagonal`. One backward pass in all, and much more noise: a single draw of the
        trace has a relative standard error of about sqrt(2 / effective rank of F).

    Raises:
        ValueError, TypeError: as `fisher_diagonal`; labels that are not integers [n] in 0 .. C - 1.

    Example:
        >>> coin = lambda theta, inputs: torch.stack([theta[0] * inputs, 0 * inputs], dim=1)
        >>> batch_fisher_diagonal(coin, torch.zeros(1), torch.ones(2), torch.tensor([0, 0]))
        tensor([0.5000], dtype=torch.float64)

    Reference: Martens 2020, https://arxiv.org/abs/1412.1193, on labels drawn from the model. Code that squares a
    batch's mean gradient and leaves out the factor n estimates F / n, which depends on the batch size.
    """
    theta, inputs = as_double(theta, inputs)
    classes = probabilities(logits, theta, inputs).shape[1]
    if labels.shape != (len(inputs),) or labels.is_floating_point():
        raise ValueError(f"labels must be integers [{len(inputs)}], got {labels.dtype} of shape {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0 .. {classes - 1}, got {int(labels.min())} .. {int(labels.max())}")
    total = torch.zeros_like(theta)
    with torch.enable_grad():
        point = theta.requires_grad_()
        for part, own in zip(inputs.split(FORWARD_ROWS), labels.split(FORWARD_ROWS), strict=True):
            loss = torch.nn.functional.cross_entropy(logits(point, part), own.to(theta.device), reduction="sum")
            total += torch.autograd.grad(loss, point)[0]
    return total.square() / len(inputs)


def sample_labels(logits: Logits, theta: Tensor, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """One label an input, drawn from the model's own distribution.

    Args:
        logits: As `fisher_diagonal`.
        theta: Parameters, [K].
        inputs: n of them, [n, ...].
        generator: What draws; n numbers are taken from it.

    Returns:
        [n], integers in 0 .. C - 1, on the device of theta.

    Raises:
        ValueError, TypeError: as `fisher_diagonal`.

    Example:
        >>> sure = lambda theta, inputs: theta.expand(len(inputs), -1)
        >>> sample_labels(sure, torch.tensor([0.0, 99.0]), torch.zeros(3), torch.Generator().manual_seed(0))
        tensor([1, 1, 1])
    """
    theta, inputs = as_double(theta, inputs)
    return _draw(probabilities(logits, theta, inputs), generator)


def fisher_trace(
    logits: Logits,
    theta: Tensor,
    inputs: Tensor,
    *,
    generator: torch.Generator | None = None,
    method: Method | None = None,
    chunk: int | None = None,
) -> Tensor:
    r"""Trace of the model's Fisher information, the mean over inputs.

    .. math:: \operatorname{tr} F = \frac1n \sum_i \mathbb{E}_{y \sim p_\theta(\cdot \mid x_i)}
              \left\| \nabla_\theta \log p_\theta(y \mid x_i) \right\|^2

    Args:
        logits: As `fisher_diagonal`.
        theta: Parameters, [K]. For the trace over a trunk alone take `fisher_diagonal(...)[:m].sum()`.
        inputs: n of them, [n, ...].
        generator: What draws labels; needed by `sampled` and `batch`.
        method: `exact` sums over labels, C backward passes an input; `sampled` draws one label an input; `batch` is
            `batch_fisher_diagonal`, one backward pass in all. None: `sampled` with a generator and `exact` without.
        chunk: As `fisher_diagonal`; `batch` does not use it.

    Returns:
        A scalar, float64, not negative; unit as `fisher_diagonal`. All three have the same expectation.

    Raises:
        ValueError, TypeError: as `fisher_diagonal`; an unknown method, a method that draws without a generator, or
            `exact` with one.

    Example:
        >>> coin = lambda theta, inputs: torch.stack([theta[0] * inputs, 0 * inputs], dim=1)
        >>> fisher_trace(coin, torch.zeros(1), torch.tensor([1.0, 2.0]))
        tensor(0.6250, dtype=torch.float64)

    Reference: Achille, Rovere & Soatto 2019, https://arxiv.org/abs/1711.08856, who follow this number through training.
    """
    method = method or ("exact" if generator is None else "sampled")
    if method not in ("exact", "sampled", "batch"):
        raise ValueError(f"method must be 'exact', 'sampled' or 'batch', got {method!r}")
    if (method == "exact") != (generator is None):
        cure = "leave the generator out" if method == "exact" else "pass a torch.Generator"
        raise ValueError(f"method {method!r} {'draws no' if method == 'exact' else 'draws'} labels; {cure}")
    if method == "batch" and generator is not None:
        labels = sample_labels(logits, theta, inputs, generator)
        return batch_fisher_diagonal(logits, theta, inputs, labels).sum()
    return fisher_diagonal(logits, theta, inputs, generator=generator, chunk=chunk).sum()


def fisher_task_distance(source_on_target: Tensor, target_on_target: Tensor) -> Tensor:
    r"""Fisher task distance from a source task to a target task, from two diagonals.

    .. math:: d[a, b] = \frac{1}{\sqrt 2} \left\| \hat F_{a,b}^{1/2} - \hat F_{b,b}^{1/2} \right\|_F
              = \sqrt{1 - \sum_k \sqrt{\hat F_{a,b}^{kk} \hat F_{b,b}^{kk}}}, \qquad \operatorname{tr} \hat F = 1

    Args:
        source_on_target: Diagonal Fisher of the network trained on the source, on inputs of the target, [K].
        target_on_target: Diagonal Fisher of the network trained on the target, on the same inputs, [K].

    Returns:
        A scalar in [0, 1], float64, without unit: the Hellinger distance of two distributions over parameters. Exactly
        0 for equal diagonals, 1 for disjoint ones. Not symmetric in the tasks; neither a factor of the loss nor the
        names of the labels change it.

    Raises:
        ValueError: lengths that differ, entries that are negative or not finite, a diagonal that is zero throughout.

    Example:
        >>> d = fisher_task_distance(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]))
        >>> torch.allclose(d**2, 1 - torch.tensor(0.5, dtype=torch.float64).sqrt())
        True

    Reference: Le, Soltani, Dong & Tarokh 2022, https://arxiv.org/abs/2103.12827.

    Variant. The distance itself: the authors' scripts print its square. Three things are the caller's to hold to.
    The Fisher is the model's (`fisher_diagonal`), where the scripts square batch-mean gradients of dataset labels,
    which is no Fisher and vanishes at convergence. Only the trunk counts: slice the heads off first, since heads of
    different width do not correspond and padding them with zeros compares unlike units. And both networks start from
    one initialization: d[a, a] is 0 only for one and the same network, as two runs permute their units.
    """
    if source_on_target.shape != target_on_target.shape:
        shapes = f"{tuple(source_on_target.shape)} and {tuple(target_on_target.shape)}"
        raise ValueError(
            f"both diagonals must run over the same parameters, got shapes {shapes}; slice both to the trunk"
        )
    roots = [_unit_trace(d, n).sqrt() for d, n in ((source_on_target, "source"), (target_on_target, "target"))]
    # Half the squared difference, not 1 minus the overlap: that would lose half of the digits near 0.
    return (0.5 * (roots[0] - roots[1]).square().sum()).clamp_max(1).sqrt()


def bures_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Bures (Fréchet) distance of two full Fisher matrices at unit trace.

    .. math:: d^2 = \tfrac12 \operatorname{tr}( \hat A + \hat B - 2 (\hat A^{1/2} \hat B \hat A^{1/2})^{1/2} )
              = \tfrac12 \min_{U^T U = I} \left\| \hat A^{1/2} - \hat B^{1/2} U \right\|_F^2

    Args:
        a: Symmetric positive semi-definite matrix, [K, K].
        b: The same for the other task.

    Returns:
        A scalar in [0, 1], float64, without unit; symmetric. For matrices that commute it is `fisher_task_distance` of
        their eigenvalues in a common basis.

    Raises:
        TypeError: what is not a matrix of floating-point numbers.
        ValueError: shapes that differ or are not square, entries that are not finite, a matrix that is not symmetric,
            not positive semi-definite or has no trace.

    Example:
        >>> bures_distance(torch.eye(2), torch.diag(torch.tensor([1.0, 0.0]))) ** 2   # 1 - sqrt(1/2)
        tensor(0.2929, dtype=torch.float64)

    Reference: Le et al. 2022, https://arxiv.org/abs/2103.12827, general form; Bhatia, Jain & Lim 2019,
    https://arxiv.org/abs/1712.01504, for the minimum over U. For matrices that do not commute neither the diagonals
    alone nor the difference of the roots gives the same number. Computed by the right-hand side, which keeps its digits
    for nearly equal matrices where the trace formula cancels.
    """
    if a.shape != b.shape:
        raise ValueError(f"both matrices must be of one size, got shapes {tuple(a.shape)} and {tuple(b.shape)}")
    root_a, root_b = _root(a, "a"), _root(b, "b")
    left, _, right = torch.linalg.svd(root_b @ root_a)
    return (0.5 * (root_a - root_b @ (left @ right)).square().sum()).clamp_max(1).sqrt()


def _unit_trace(diagonal: Tensor, name: str) -> Tensor:
    diagonal = diagonal.detach().to(torch.float64)
    if diagonal.dim() != 1 or not diagonal.isfinite().all():
        raise ValueError(
            f"the {name} diagonal must be [K] and finite, got shape {tuple(diagonal.shape)}; see that it converged"
        )
    if len(diagonal) == 0 or diagonal.min() < 0:
        raise ValueError(
            f"the {name} diagonal must be non-negative and not empty, got {diagonal}; it is a mean of squares"
        )
    if diagonal.max() == 0:
        raise ValueError(
            f"the {name} diagonal has trace 0: nothing in it tells parameters apart; is its softmax saturated?"
        )
    diagonal = diagonal / diagonal.max()  # a sum of huge entries could overflow
    return diagonal / diagonal.sum()


def _root(matrix: Tensor, name: str) -> Tensor:
    """Symmetric root [K, K] of a positive semi-definite matrix at unit trace."""
    matrix = matrix_of(name, matrix)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be square, [K, K], got shape {tuple(matrix.shape)}")
    scale, skew = float(matrix.abs().max()), float((matrix / 2 - matrix.mT / 2).abs().max())
    if skew > ROUND_OFF * scale:
        raise ValueError(f"{name} must be symmetric, got entries {2 * skew:.3g} apart from their mirror images")
    if scale == 0:
        raise ValueError(
            f"{name} has trace 0: nothing in it tells parameters apart; is the network's softmax saturated?"
        )
    values, vectors = torch.linalg.eigh(matrix / scale / 2 + matrix.mT / scale / 2)
    if values[0] < -ROUND_OFF * values[-1].abs():
        raise ValueError(f"{name} must be positive semi-definite, got the eigenvalue {float(values[0]) * scale:.3g}")
    # What is round-off of the largest eigenvalue would be 1e-8 of it in the root.
    noise = len(values) * torch.finfo(torch.float64).eps * values[-1]
    values = torch.where(values > noise, values, 0.0)
    return (vectors * (values / values.sum()).sqrt()) @ vectors.mT


def _draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """The class [n] in whose part of [0, 1) a uniform number falls; one number an input, whatever the device."""
    uniform = torch.rand(len(p), 1, generator=generator, dtype=torch.float64, device=generator.device).to(p.device)
    return (p.cumsum(dim=1) <= uniform).sum(dim=1).clamp_max(p.shape[1] - 1)


def _squared_scores(logits: Logits, theta: Tensor, inputs: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum [K] over inputs and labels [b, L] of the squares of the gradients of log p(label).

    Every input has a copy of theta of its own, so that one backward pass leaves one gradient an input: less than half
    the time of a `vmap` over vector-Jacobian products, and memory that does not grow with the number of classes.
    """
    with torch.enable_grad():
        copies = theta.expand(len(inputs), -1).clone().requires_grad_()
        z = torch.func.vmap(lambda point, x: logits(point, x[None])[0])(copies, inputs)
    p = z.detach().softmax(dim=1)
    total = torch.zeros_like(theta)
    for own, weight in zip(labels.T, weights.T, strict=True):
        score = torch.nn.functional.one_hot(own, p.shape[1]) - p  # gradient of log p(own) in the logits
        (gradient,) = torch.autograd.grad(z, copies, score * weight.sqrt()[:, None], retain_graph=True)
        total += gradient.square().sum(dim=0)
    return total
