"""What every score takes: arrays of any framework, checked once, with words that name what is wrong."""

import numpy as np
import pytest
import torch

from leap.metrics.labelled import features_of, labelled, labels_of, probabilities_of

GOOD = [[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]]


@pytest.mark.parametrize(
    "features",
    [GOOD, np.array(GOOD), np.array(GOOD, dtype=np.float32), torch.tensor(GOOD), torch.tensor(GOOD).half(),
     np.asfortranarray(np.array(GOOD)), np.array(GOOD)[::-1][::-1], torch.tensor(GOOD, requires_grad=True),
     np.array(GOOD, dtype=np.uint64), np.array(GOOD, dtype=np.uint16), np.array(GOOD, dtype=np.longdouble)],
    ids=["list", "float64", "float32", "tensor", "half", "fortran", "strides", "grad", "uint64", "uint16", "long"],
)  # fmt: skip
def test_arrays_of_any_framework_are_taken(features):
    held = labelled(features, np.array([0, 1, 1], dtype=np.uint8))
    assert held.features.dtype == torch.float64 and not held.features.requires_grad
    torch.testing.assert_close(held.features, torch.tensor(GOOD, dtype=torch.float64))
    assert held.labels.tolist() == [0, 1, 1] and held.counts.tolist() == [1, 2]


def test_classes_without_samples_are_left_out():
    held = labelled(GOOD, [7.0, 2.0, 7.0])
    assert held.classes == 2 and held.labels.tolist() == [1, 0, 1] and held.counts.tolist() == [1, 2]
    assert held.indicators().tolist() == [[0, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("features", "labels", "told"),
    [
        (GOOD, [0, 0, 0], "at least 2 classes, got 1 \\(label 0"),
        (GOOD, [0, 1], "3 rows and 2"),
        (GOOD, [0, -1, 1], "from 0 on, got -1"),
        (GOOD, [0, 0.5, 1], "whole numbers from 0 on, got 0.5"),
        (GOOD, [0, float("nan"), 1], "got nan"),
        (GOOD, [0, float("inf"), 1], "got inf"),
        (GOOD, [[0], [1], [1]], "one class a sample"),
        ([[1.0, 2.0]] * 3, [0, 1, 1], "the same in all 3 samples"),
        ([[0.0, 1.0]], [0], "at least 2 samples"),
        ([[0.0, 1.0], [float("nan"), 0.0], [float("inf"), 0.0]], [0, 1, 1], "2 values that are not finite.*row 1"),
        ([1.0, 2.0, 3.0], [0, 1, 1], r"\[m, k\].*got shape \[3\]"),
        (np.zeros((3, 0)), [0, 1, 1], r"1 column, got shape \[3, 0\]"),
    ],
    ids=["one class", "length", "negative", "half", "nan label", "inf label", "two axes", "constant", "one sample",
         "not finite", "one axis", "no column"],
)  # fmt: skip
def test_what_has_no_score_is_refused_in_words(features, labels, told):
    with pytest.raises(ValueError, match=told):
        labelled(features, labels)


@pytest.mark.parametrize(
    "features", [np.array([["a"], ["b"]]), [[1.0], [2.0, 3.0]], np.array([[1j], [2j]]), [[True], [False]]],
    ids=["words", "ragged", "complex", "truth"],
)  # fmt: skip
def test_what_is_no_array_of_numbers_is_refused(features):
    with pytest.raises(TypeError, match="numbers"):
        features_of(features)


def test_probabilities_are_made_to_sum_to_one_and_logits_are_refused():
    held = probabilities_of(np.array([[0.5, 0.49995], [1.0, 0.0]], dtype=np.float32))
    torch.testing.assert_close(held.sum(1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match="give a softmax, not logits"):
        probabilities_of([[2.0, -1.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match=r"must sum to 1, got 1\.5 in row 1"):
        probabilities_of([[0.5, 0.5], [1.0, 0.5]])


def test_labels_may_be_of_any_whole_type():
    for labels in ([True, False], np.array([1, 0], dtype=np.int8), torch.tensor([1.0, 0.0])):
        assert labels_of(labels).tolist() == [1, 0] and labels_of(labels).dtype == torch.long
