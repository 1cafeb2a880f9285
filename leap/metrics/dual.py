"""The default log-determinant: exact, on the side of the samples, within a given memory."""

from __future__ import annotations

import torch
from torch import Tensor

from leap.metrics.checks import Logits, as_double, probabilities
from leap.metrics.curvature import Estimate, fisher_factor, gram, logdet_of_gram

MEMORY = 2**30


def fisher_gram(logits: Logits, theta: Tensor, inputs: Tensor, *, dropped: float = 0.0, memory: int = MEMORY) -> Tensor:
    r"""Gram matrix `B B^T` of the Fisher's factor without ever holding the whole factor.

    Args:
        logits: As in `fisher_factor`.
        theta: Weights [K].
        inputs: [n, ...].
        dropped: As in `fisher_factor`.
        memory: Bytes that rows of the factor may take. Where they do not fit, they are computed again in blocks: with
            b blocks (b + 1) / 2 times as much differentiation, the Gram matrix itself costing the same.

    Returns:
        [r, r], float64; at most r = n (C - 1).

    Raises:
        TypeError, ValueError: as `fisher_factor`; memory that two inputs' rows do not fit into.

    Example:
        >>> softmax_regression = lambda theta, x: x @ theta.view(2, 2)
        >>> fisher_gram(softmax_regression, torch.zeros(4), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        tensor([[0.5000, 0.0000],
                [0.0000, 2.0000]], dtype=torch.float64)
    """
    theta, inputs = as_double(theta, inputs)
    classes = probabilities(logits, theta, inputs).shape[1]
    of_one = 8 * len(theta) * (classes - 1)
    if len(inputs) * of_one <= memory:
        return gram(fisher_factor(logits, theta, inputs, dropped=dropped).rows)
    held = memory // (2 * of_one)  # two blocks meet
    if held < 1:
        raise ValueError(f"memory of {memory} bytes is too little: rows of two inputs take {2 * of_one}")

    blocks = inputs.split(held)
    lines: list[list[Tensor]] = [[torch.empty(0)] * len(blocks) for _ in blocks]
    for s in range(len(blocks)):
        first = fisher_factor(logits, theta, blocks[s], dropped=dropped).rows
        lines[s][s] = gram(first)
        for t in range(s + 1, len(blocks)):
            lines[s][t] = first @ fisher_factor(logits, theta, blocks[t], dropped=dropped).rows.T
            lines[t][s] = lines[s][t].T
    return torch.cat([torch.cat(line, dim=1) for line in lines])


def logdet_dual(
    logits: Logits, theta: Tensor, inputs: Tensor, scale: float, *, dropped: float = 0.0, memory: int = MEMORY
) -> Estimate:
    r"""Log-determinant of the identity plus the scaled exact Fisher, `log|I_K + c H| = log|I_r + c B B^T|`.

    Args:
        logits: As in `fisher_factor`.
        theta: Weights [K].
        inputs: [n, ...].
        scale: c > 0; `lambda^2 / beta` for complexity, times N / n where these are n of N samples.
        dropped: As in `fisher_factor`.
        memory: As in `fisher_gram`.

    Returns:
        The value in nats; exact with `dropped` 0, otherwise too small, by at most `c` times the factor's dropped trace.

    Raises:
        TypeError, ValueError: as `fisher_gram` and `logdet_identity_plus`.

    Example:
        >>> softmax_regression = lambda theta, x: x @ theta.view(2, 3)
        >>> estimate = logdet_dual(softmax_regression, torch.zeros(6), torch.tensor([[1.0, 0.0]]), 3.0)
        >>> round(float(estimate.value), 6), estimate.bias      # two eigenvalues 1/3: 2 log 2
        (1.386294, 'none')
    """
    matrix = fisher_gram(logits, theta, inputs, dropped=dropped, memory=memory)
    return Estimate(logdet_of_gram(matrix, scale), None, "lower" if dropped > 0 else "none")
