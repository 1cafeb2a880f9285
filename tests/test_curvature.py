"""Curvature: the factor against the dense Fisher, the two sides of a determinant, unions, exact bounds, bad input."""

from __future__ import annotations

import pytest
import torch
from curvature_problems import functional, network, normal, problem, refused, stream
from torch import Tensor, nn

from leap.metrics.curvature import fisher_factor, gram, logdet_identity_plus, logdet_of_gram, spectrum, tagged_gram
from leap.metrics.dense import fisher_matrix, hessian_matrix, logdet_blocks, logdet_dense, logdet_diagonal
from leap.metrics.dual import fisher_gram, logdet_dual

SCALE = 0.7


def softmax_regression(theta: Tensor, x: Tensor) -> Tensor:
    return x @ theta.view(x.shape[1], -1)


def test_the_factor_makes_the_dense_fisher() -> None:
    factor = fisher_factor(*problem())
    assert factor.rows.shape == (5 * 3, len(problem()[1])) and factor.rows.dtype == torch.float64
    assert float(factor.dropped_trace) == 0
    torch.testing.assert_close(factor.rows.T @ factor.rows, fisher_matrix(*problem()), rtol=1e-10, atol=1e-12)


def test_the_dense_fisher_is_the_mean_of_outer_products_over_the_models_labels() -> None:
    logits, theta, inputs = problem()
    want = torch.zeros(len(theta), len(theta), dtype=torch.float64)
    for x in inputs:
        weights = theta.clone().requires_grad_()
        logs = logits(weights, x[None])[0].log_softmax(0)
        for log in logs:
            (grad,) = torch.autograd.grad(log, weights, retain_graph=True)
            want += log.exp().detach() * torch.outer(grad, grad)
    torch.testing.assert_close(fisher_matrix(*problem()), want, rtol=1e-10, atol=1e-12)


def test_chunks_do_not_matter() -> None:
    whole = fisher_factor(*problem()).rows
    for chunk in (1, 2, 5):
        torch.testing.assert_close(fisher_factor(*problem(), chunk=chunk).rows, whole, rtol=1e-12, atol=1e-13)


def test_rows_stand_in_the_order_of_the_inputs_also_where_fewer_are_kept() -> None:
    logits, theta, inputs = problem()
    kept = fisher_factor(logits, 3 * theta, inputs, dropped=0.2).rows
    alone = torch.cat([fisher_factor(logits, 3 * theta, x[None], dropped=0.2).rows for x in inputs])
    assert len(kept) < 15
    torch.testing.assert_close(kept.abs(), alone.abs(), rtol=1e-10, atol=1e-12)


def test_single_precision_weights_are_computed_in_double() -> None:
    logits, theta, inputs = problem()
    rows = fisher_factor(logits, theta.float(), inputs.float()).rows
    torch.testing.assert_close(rows, fisher_factor(logits, theta.float().double(), inputs.float().double()).rows)
    assert rows.dtype == torch.float64


def test_gauss_newton_is_the_hessian_of_softmax_regression_at_any_weights() -> None:
    theta, inputs, labels = normal(12), normal(6, 3, seed=1), torch.tensor([0, 1, 2, 3, 1, 1])
    fisher = fisher_matrix(softmax_regression, theta, inputs)
    torch.testing.assert_close(
        hessian_matrix(softmax_regression, theta, inputs, labels), fisher, rtol=1e-10, atol=1e-10
    )


def test_a_networks_hessian_is_not_its_fisher_and_has_no_logarithm() -> None:
    hessian = hessian_matrix(*problem(), torch.tensor([0, 1, 2, 3, 0]))
    assert float(torch.linalg.eigvalsh(hessian).min()) < -1e-3
    with pytest.raises(ValueError, match="a Hessian has"):
        spectrum(hessian)


@pytest.mark.parametrize("rows,columns", [(7, 20), (20, 7), (1, 5), (5, 1), (6, 6)])
def test_primal_and_dual_determinants_agree(rows: int, columns: int) -> None:
    factor = normal(rows, columns)
    primal = torch.linalg.slogdet(torch.eye(columns, dtype=torch.float64) + SCALE * factor.T @ factor)[1]
    dual = torch.linalg.slogdet(torch.eye(rows, dtype=torch.float64) + SCALE * factor @ factor.T)[1]
    got = logdet_identity_plus(factor, SCALE)
    torch.testing.assert_close(got, primal, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got, dual, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.log1p(SCALE * spectrum(gram(factor))).sum(), got, rtol=1e-9, atol=1e-9)


def test_the_smaller_side_is_taken_and_the_larger_never_built() -> None:
    factor = torch.zeros(2, 60_000, dtype=torch.float64)  # the other side would take 29 GB
    factor[0, 7] = factor[1, 9] = 1
    for rows in (factor, factor.T):
        assert float(logdet_identity_plus(rows, 3.0)) == pytest.approx(2 * float(torch.tensor(4.0).log()), abs=1e-6)


def test_a_scale_that_swallows_the_identity_still_has_a_determinant() -> None:
    factor = torch.ones(3, 5)  # rank one: I + c B B^T is singular to the last bit
    got = float(logdet_identity_plus(factor, 1e20))
    assert got == pytest.approx(float(torch.log1p(torch.tensor(15e20, dtype=torch.float64))), abs=30)
    assert float(logdet_identity_plus(torch.zeros(2, 3), 1e300)) == 0


def test_gram_in_blocks_is_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leap.metrics.curvature.GRAM_ROWS", 3)
    factor = normal(8, 5)
    got = gram(factor)
    torch.testing.assert_close(got, factor @ factor.T, rtol=1e-13, atol=1e-13)
    assert torch.equal(got, got.T)


def test_the_gram_matrix_in_little_memory_is_the_same() -> None:
    of_one = 8 * len(problem()[1]) * 3
    whole = fisher_gram(*problem())
    for memory in (2 * of_one, 4 * of_one):
        torch.testing.assert_close(fisher_gram(*problem(), memory=memory), whole, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="two inputs take"):
        fisher_gram(*problem(), memory=2 * of_one - 1)


def test_the_union_has_one_trunk_and_a_head_a_task() -> None:
    shared, widths = 4, (6, 7, 4)
    factors = [normal(3 + t, width, seed=t) for t, width in enumerate(widths)]
    padded, start = [], shared
    for factor in factors:
        wide = torch.zeros(len(factor), sum(widths) - 2 * shared, dtype=torch.float64)
        head = factor.shape[1] - shared
        wide[:, :shared], wide[:, start : start + head] = factor[:, :shared], factor[:, shared:]
        padded.append(wide)
        start += head
    want = torch.cat(padded) @ torch.cat(padded).T
    torch.testing.assert_close(tagged_gram(factors, shared), want, rtol=1e-12, atol=1e-12)


def test_tasks_without_a_shared_trunk_add_up() -> None:
    factors = [normal(3, 5), normal(4, 6, seed=1)]
    apart = sum(float(logdet_identity_plus(factor, SCALE)) for factor in factors)
    assert float(logdet_of_gram(tagged_gram(factors, 0), SCALE)) == pytest.approx(apart, abs=1e-10)
    assert float(logdet_of_gram(tagged_gram(factors, 5), SCALE)) < apart


def test_diagonal_is_above_blocks_above_full() -> None:
    rows, sizes = fisher_factor(*problem()).rows, functional(network())[2].sizes
    full = logdet_identity_plus(rows, SCALE)
    blocks, diagonal = logdet_blocks(rows, sizes, SCALE), logdet_diagonal(rows.square().sum(0), SCALE)
    assert float(diagonal.value) > float(blocks.value) > float(full)
    assert (diagonal.bias, blocks.bias) == ("upper", "upper")
    one_block = logdet_blocks(rows, [rows.shape[1]], SCALE).value
    torch.testing.assert_close(one_block, full, rtol=1e-12, atol=1e-12)
    single = logdet_blocks(rows, [1] * rows.shape[1], SCALE).value
    torch.testing.assert_close(single, diagonal.value, rtol=1e-12, atol=1e-12)


def test_dense_and_dual_agree() -> None:
    dual, dense = logdet_dual(*problem(), SCALE), logdet_dense(fisher_matrix(*problem()), SCALE)
    torch.testing.assert_close(dual.value, dense.value, rtol=1e-9, atol=1e-9)
    assert dual.bias == dense.bias == "none" and dual.standard_error is None


def test_what_is_dropped_bounds_the_error_and_is_measured_without_bias() -> None:
    exact = fisher_factor(*problem())
    for dropped in (0.05, 0.3, 0.8):
        runs = [fisher_factor(*problem(), dropped=dropped, generator=stream(seed)) for seed in range(200)]
        missing = exact.rows.square().sum() - runs[0].rows.square().sum()
        error = logdet_identity_plus(exact.rows, SCALE) - logdet_identity_plus(runs[0].rows, SCALE)
        rows = max(len(exact.rows) - len(runs[0].rows), 1)
        assert 0 <= float(error) <= rows * float(torch.log1p(SCALE * missing / rows)) <= SCALE * float(missing)
        traces = torch.stack([run.dropped_trace for run in runs])
        assert float((traces.mean() - missing).abs()) < 5 * float(traces.std()) / 200**0.5 + 1e-12
    assert logdet_dual(*problem(), SCALE, dropped=0.3).bias == "lower"


def test_the_share_dropped_is_kept_for_every_input() -> None:
    logits = functional(network(classes=12))[0]
    theta, inputs = functional(network(classes=12))[1], normal(6, 2, 4, 4, seed=5)
    probs = logits(theta, inputs).softmax(1)
    for dropped in (0.01, 0.1, 0.5):
        counts = [len(fisher_factor(logits, theta, x[None], dropped=dropped).rows) for x in inputs]
        for p, count in zip(probs, counts, strict=True):
            values = torch.linalg.eigvalsh(torch.diag(p) - torch.outer(p, p)).flip(0)
            assert values[count:].sum() <= dropped * values.sum()
            assert count == 1 or values[count - 1 :].sum() > dropped * values.sum()


def test_bad_weights_and_inputs_are_refused() -> None:
    logits, theta, inputs = problem()
    broken = theta.clone()
    broken[3] = torch.nan
    for measure in (fisher_factor, fisher_matrix, fisher_gram):
        refused("theta holds 1 values that are not finite", lambda m=measure: m(logits, broken, inputs))
        refused("inputs holds 160 values", lambda m=measure: m(logits, theta, inputs / 0 * 0))
        refused("needs weights and inputs", lambda m=measure: m(logits, theta, inputs[:0]))
        refused("floating-point Tensor", lambda m=measure: m(logits, theta.long(), inputs), TypeError)
        refused("at least two classes", lambda m=measure: m(lambda t, x: logits(t, x)[:, :1], theta, inputs))
    refused("overflow", lambda: fisher_factor(lambda t, x: logits(t, x) / 0, theta, inputs))
    refused("dropped is a share", lambda: fisher_factor(*problem(), dropped=1.0))
    refused("chunk must be", lambda: fisher_factor(*problem(), chunk=0))
    refused("labels must be", lambda: hessian_matrix(*problem(), torch.tensor([0, 1, 2, 3, 4])))


def test_batch_statistics_are_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)).double()
    logits, theta, _ = functional(module)

    def centred(weights: Tensor, x: Tensor) -> Tensor:
        z = x @ weights.view(3, 2)
        return z - z.mean(0)

    refused("depend on the inputs beside it", lambda: fisher_factor(centred, normal(6), normal(4, 3)))
    refused("group normalization|more than 1 value", lambda: fisher_factor(logits, theta, normal(4, 3)))


def test_bad_matrices_and_scales_are_refused() -> None:
    factor = normal(3, 5)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        refused("scale must be positive", lambda s=scale: logdet_identity_plus(factor, s))
        refused("scale must be positive", lambda s=scale: logdet_diagonal(factor[0].abs(), s))
    refused("not finite", lambda: gram(factor / 0))
    refused("is empty", lambda: gram(factor[:0]))
    refused("two axes", lambda: gram(factor[0]), TypeError)
    refused("between 0 and the narrowest", lambda: tagged_gram([factor, factor[:, :2]], 3))
    refused("at least one factor", lambda: tagged_gram([], 3))
    refused("square", lambda: spectrum(factor))
    refused("symmetric", lambda: spectrum(factor[:, :3]))
    refused("add up to 5", lambda: logdet_blocks(factor, [2, 2], 1.0))
    refused("not negative", lambda: logdet_diagonal(torch.tensor([1.0, -1.0]), 1.0))
