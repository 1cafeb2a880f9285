"""LEEP and NCE against loops written from the papers, their bounds, and what public code gets wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leap.metrics import leep as module
from leap.metrics.leep import label_entropy, leep, nce


def problem(
    m: int = 60, z: int = 7, c: int = 4, seed: int = 0, sharp: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(m, z, generator=g, dtype=torch.float64)
    labels = torch.randint(c, (m,), generator=g)
    labels[:c] = torch.arange(c)
    return logits.softmax(1), labels


def one_hot(source: torch.Tensor, z: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(source, z).double()


def leep_by_loops(theta: Any, labels: Any) -> float:
    """The three steps of the paper: the joint, the conditional, the mean log of the expected prediction."""
    m, z = len(theta), len(theta[0])
    joint = {
        (y, k): sum(float(theta[i][k]) for i in range(m) if labels[i] == y) / m for y in set(labels) for k in range(z)
    }
    marginal = [sum(joint[y, k] for y in set(labels)) for k in range(z)]
    total = 0.0
    for i in range(m):
        total += math.log(
            sum(joint[labels[i], k] / marginal[k] * float(theta[i][k]) for k in range(z) if marginal[k] > 0)
        )
    return total / m


def nce_by_loops(source: list[int], labels: list[int]) -> float:
    m, total = len(labels), 0.0
    for y in set(labels):
        for z in set(source):
            both = sum(a == z and b == y for a, b in zip(source, labels, strict=True))
            if both:
                total += both / m * math.log(both / source.count(z))
    return total


# Values


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_leep_is_the_loop_of_the_paper(seed: int) -> None:
    theta, labels = problem(seed=seed)
    assert leep(theta, labels).item() == pytest.approx(leep_by_loops(theta.tolist(), labels.tolist()), abs=1e-12)


def test_samples_are_taken_in_blocks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, labels = problem()
    whole = leep(theta, labels)
    monkeypatch.setattr(module, "ROWS", 7)
    assert leep(theta, labels).item() == pytest.approx(whole.item(), abs=1e-14)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nce_is_the_loop_of_the_paper(seed: int) -> None:
    theta, labels = problem(seed=seed)
    source = theta.argmax(1)
    assert nce(source, labels).item() == pytest.approx(nce_by_loops(source.tolist(), labels.tolist()), abs=1e-12)


def test_entropy_is_scipys() -> None:
    from scipy.stats import entropy

    _, labels = problem(c=5)
    assert label_entropy(labels).item() == pytest.approx(entropy(np.bincount(labels)), abs=1e-12)
    assert label_entropy(torch.arange(8)).item() == pytest.approx(math.log(8), abs=1e-12)
    alone = label_entropy([3, 3, 3])
    assert alone.item() == 0 and not alone.signbit()


@pytest.mark.parametrize("z", [1, 2, 9])
def test_outputs_that_know_nothing_have_the_negative_entropy(z: int) -> None:
    _, labels = problem()
    constant = problem(m=1, z=z, c=1)[0].expand(60, -1)
    assert leep(constant, labels).item() == pytest.approx(-label_entropy(labels).item(), abs=1e-12)
    assert nce([z] * 60, labels).item() == pytest.approx(-label_entropy(labels).item(), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_leep_of_one_hot_outputs_is_nce(seed: int) -> None:
    theta, labels = problem(seed=seed)
    source = theta.argmax(1)
    assert leep(one_hot(source, 7), labels).item() == pytest.approx(nce(source, labels).item(), abs=1e-12)


def test_nce_and_entropy_make_the_mutual_information() -> None:
    from sklearn.metrics import mutual_info_score

    theta, labels = problem()
    information = nce(theta.argmax(1), labels) + label_entropy(labels)
    assert information.item() == pytest.approx(mutual_info_score(theta.argmax(1), labels), abs=1e-12)


# Bounds and invariances


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.integers(2, 12),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.1, 1.0, 10.0, 500.0]),
)
def test_leep_lies_between_the_negative_entropy_and_zero(seed: int, m: int, z: int, sharp: float) -> None:
    """It is the likelihood after one step of expectation maximization from -H(Y); so it cannot be -inf either."""
    theta, labels = problem(m, z, 2, seed, sharp)
    value, entropy = leep(theta, labels).item(), label_entropy(labels).item()
    assert -entropy - 1e-12 <= value <= 0
    assert -entropy - 1e-12 <= nce(theta.argmax(1), labels).item() <= 0


def test_leep_is_finite_where_the_true_class_has_next_to_no_probability() -> None:
    """Each sample adds its own output to the joint, so that the sum over z is at least 1 / m."""
    theta = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0 - 1e-15, 1e-300]])
    value = leep(theta, [0, 0, 0, 1]).item()
    assert value == pytest.approx(-label_entropy([0, 0, 0, 1]).item(), abs=1e-12)


def test_the_second_property_of_the_paper_does_not_hold_in_general() -> None:
    """LEEP is not at least NCE plus the mean log-output of the source's own choice."""
    theta, labels = torch.tensor([[0.7, 0.3], [0.3, 0.7]], dtype=torch.float64), torch.tensor([0, 1])
    source = theta.argmax(1)
    assert leep(theta, labels).item() == pytest.approx(math.log(0.58), abs=1e-12)
    bound = nce(source, labels) + theta.gather(1, source[:, None]).log().mean()
    assert bound.item() == pytest.approx(math.log(0.7), abs=1e-12)
    assert leep(theta, labels) < bound


def test_names_of_classes_and_order_of_samples_do_not_matter() -> None:
    theta, labels = problem()
    order, source = torch.randperm(60, generator=torch.Generator().manual_seed(1)), theta.argmax(1)
    for renamed in (labels, 3 - labels, 5 * labels + 2):  # the last has empty classes
        assert leep(theta[order].flip(1), renamed[order]).item() == pytest.approx(leep(theta, labels).item(), abs=1e-12)
        found = nce(10**12 * source[order] + 7, renamed[order])
        assert found.item() == pytest.approx(nce(source, labels).item(), abs=1e-12)


def test_leep_moves_with_the_temperature() -> None:
    theta, labels = problem()
    warm = (theta.log() / 3).softmax(1)
    assert abs(leep(theta, labels).item() - leep(warm, labels).item()) > 0.01


def test_splitting_a_source_class_in_proportion_changes_nothing() -> None:
    theta, labels = problem()
    split = torch.cat([theta[:, :1] * 0.3, theta[:, :1] * 0.7, theta[:, 1:]], dim=1)
    assert leep(split, labels).item() == pytest.approx(leep(theta, labels).item(), abs=1e-12)


# What public code gets wrong


def test_a_source_class_without_mass_takes_no_part() -> None:
    theta, labels = problem()
    wide = torch.cat([torch.zeros(60, 2, dtype=torch.float64), theta, torch.zeros(60, 1, dtype=torch.float64)], dim=1)
    assert leep(wide, labels).item() == pytest.approx(leep(theta, labels).item(), abs=1e-12)
    mass = wide.sum(0)
    joint = one_hot(labels, 4).T @ wide
    assert (joint / mass)[labels].mul(wide).sum(1).log().mean().isnan()  # dividing by it


def test_nce_of_a_table_with_empty_cells_has_no_offset() -> None:
    source, labels = torch.arange(40), torch.arange(40) % 20  # determines the labels
    assert nce(source, labels).item() == 0
    joint = one_hot(labels, 20).T @ one_hot(source, 40) / 40 + 1e-5
    padded = (joint * (joint / (1 / 40 + 1e-5)).log()).sum()
    assert padded < -0.02  # 1e-5 in each of 800 cells


def test_leep_is_a_mean_logarithm_not_a_mean_probability() -> None:
    theta, labels = problem()
    joint = one_hot(labels, 4).T @ theta
    predicted = (joint / joint.sum(0))[labels].mul(theta).sum(1)
    assert 0 < predicted.mean() < 1 and leep(theta, labels) < predicted.mean().log() < 0  # Jensen


def test_the_plug_in_bias_of_nce_is_as_stated() -> None:
    g = torch.Generator().manual_seed(0)
    draws = [
        nce(torch.randint(10, (1000,), generator=g), own) + label_entropy(own)
        for own in torch.randint(4, (200, 1000), generator=g)
    ]
    assert torch.stack(draws).mean().item() == pytest.approx(9 * 3 / 2000, rel=0.1)


# Inputs


@pytest.mark.parametrize("kind", ["list", "numpy", "float32", "grad"])
def test_any_kind_of_array_is_taken(kind: str) -> None:
    theta, labels = problem()
    forms: dict[str, tuple[Any, Any]] = {
        "list": (theta.tolist(), labels.tolist()),
        "numpy": (theta.numpy(), labels.numpy().astype(np.uint8)),
        "float32": (theta.float(), labels.float()),
        "grad": (theta.clone().requires_grad_(), labels.int()),
    }
    given_theta, given_labels = forms[kind]
    found = leep(given_theta, given_labels)
    assert found.dtype == torch.float64 and found.dim() == 0 and not found.requires_grad
    assert found.item() == pytest.approx(leep(theta, labels).item(), abs=1e-6 if kind == "float32" else 1e-14)
    hard = nce(theta.argmax(1).numpy(), given_labels)
    assert hard.dtype == torch.float64 and hard.item() == nce(theta.argmax(1), labels).item()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: leep([[0.5, 0.5]] * 3, [0, 1]), "probabilities and labels .* got 3 and 2"),
        (lambda: leep([[0.5, 0.5]] * 3, [4, 4, 4]), r"2 classes, got 1 \(label 4 everywhere\)"),
        (lambda: leep([[2.0, -1.0]] * 2, [0, 1]), "softmax, not logits"),
        (lambda: leep([[0.5, 0.6]] * 2, [0, 1]), "sum to 1, got 1.1"),
        (lambda: leep([[0.5, math.nan]] * 2, [0, 1]), "not finite"),
        (lambda: leep([[1.0]], [0]), "at least 2 samples"),
        (lambda: leep([[0.5, 0.5]] * 2, [0.5, 1]), "whole numbers from 0 on, got 0.5"),
        (lambda: leep([[0.5, 0.5]] * 2, [-1, 1]), "got -1"),
        (lambda: nce([0, 1, 2], [0, 1]), "source_labels and labels .* got 3 and 2"),
        (lambda: nce([0, 1], [2, 2]), r"got 1 \(label 2 everywhere\)"),
        (lambda: nce([], []), "got 0"),
        (lambda: nce([0, -3], [0, 1]), "source_labels must run from 0 on, got -3"),
        (lambda: label_entropy([]), "at least 1 label, got 0"),
    ],
)
def test_what_has_no_score_is_refused(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
