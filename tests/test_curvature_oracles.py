"""Curvature and complexity against curvlinops, nngeometry and laplace-torch.

Not skipped where these are meant to be there: scripts/test installs them and sets LEAP_REQUIRE_ORACLES.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from curvature_problems import functional, network, problem
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leap import l2l
from leap.metrics.complexity import complexity
from leap.metrics.curvature import fisher_factor, gram, logdet_identity_plus, spectrum
from leap.metrics.dense import fisher_matrix, hessian_matrix, logdet_diagonal
from leap.metrics.kronecker import kronecker_factors, logdet_kronecker
from leap.metrics.lanczos import fisher_product

LABELS = torch.tensor([0, 1, 2, 3, 0])
# They import torch's compiler of scripts, and call it, at every turn.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def oracle(name: str) -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("LEAP_REQUIRE_ORACLES") == "1":
            raise
        pytest.skip(f"{name} is missing ({error}): pip install --no-deps -r requirements-oracles.txt")


def test_curvlinops_has_the_same_matrices() -> None:
    curvlinops = oracle("curvlinops")
    module, (logits, theta, inputs) = network(), problem()
    loss = nn.CrossEntropyLoss(reduction="sum")
    arguments = (module, loss, list(module.parameters()), [(inputs[:2], LABELS[:2]), (inputs[2:], LABELS[2:])])
    eye = torch.eye(len(theta), dtype=torch.float64)
    fisher = curvlinops.GGNLinearOperator(*arguments) @ eye
    torch.testing.assert_close(fisher_matrix(logits, theta, inputs), fisher, rtol=1e-9, atol=1e-12)
    rows = fisher_factor(logits, theta, inputs).rows
    torch.testing.assert_close(rows.T @ rows, fisher, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fisher_product(logits, theta, inputs)(eye[0]), fisher[0], rtol=1e-9, atol=1e-12)
    hessian = curvlinops.HessianLinearOperator(*arguments) @ eye
    torch.testing.assert_close(hessian_matrix(logits, theta, inputs, LABELS), hessian, rtol=1e-9, atol=1e-10)


def test_curvlinops_has_the_same_kronecker_factors() -> None:
    curvlinops = oracle("curvlinops")
    module, (_, theta, inputs) = network(), problem()
    operator = curvlinops.KFACLinearOperator(
        module,
        nn.CrossEntropyLoss(reduction="sum"),
        list(module.parameters()),
        [(inputs, LABELS)],
        fisher_type="type-2",
        separate_weight_and_bias=False,
    )
    dense = operator @ torch.eye(len(theta), dtype=torch.float64)
    layout = functional(module)[2]
    index = layout.unflatten(torch.arange(layout.n, dtype=torch.float64))
    for name, part in kronecker_factors(module, inputs).items():
        layer = torch.cat([index[f"{name}.weight"].flatten(1), index[f"{name}.bias"][:, None]], dim=1)
        order = layer.reshape(-1).long()
        want = dense[order][:, order]
        torch.testing.assert_close(torch.kron(part.outputs, part.inputs), want, rtol=1e-9, atol=1e-12)
    eye = torch.eye(len(theta), dtype=torch.float64)
    want = torch.linalg.slogdet(eye + 0.7 * (dense + dense.T) / 2)[1]
    torch.testing.assert_close(logdet_kronecker(module, inputs, 0.7).value, want, rtol=1e-9, atol=1e-9)


@pytest.fixture
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double")  # nngeometry makes matrices of its own, of the default type
def test_nngeometry_has_the_same_fisher_and_diagonal() -> None:
    metrics, objects = oracle("nngeometry.metrics"), oracle("nngeometry.object")
    logits, theta, inputs = problem()
    loader = DataLoader(TensorDataset(inputs, LABELS), batch_size=2)
    fisher = fisher_matrix(logits, theta, inputs) / len(inputs)  # theirs is the mean
    for representation, want in ((objects.PMatDense, fisher), (objects.PMatDiag, fisher.diag())):
        theirs = metrics.FIM(network(), loader, representation, variant="classif_logits")
        got = theirs.to_torch() if want.dim() == 2 else theirs.get_diag()
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def laplace() -> ModuleType:
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        l2l._import_torchvision()  # laplace imports it where it is there, also one that does not match torch
    return oracle("laplace")


def evidence(laplace: ModuleType, structure: str, beta: float, prior_variance: float) -> Tensor:
    """Laplace's log marginal likelihood of the problem, its model a copy, since its backends leave hooks behind."""
    posterior = laplace.Laplace(
        copy.deepcopy(network()),
        "classification",
        subset_of_weights="all",
        hessian_structure=structure,
        prior_precision=torch.tensor([1 / prior_variance], dtype=torch.float64),
        temperature=beta,
    )
    posterior.fit(DataLoader(TensorDataset(problem()[2], LABELS), batch_size=len(LABELS)))
    return posterior.log_marginal_likelihood().detach().reshape(())


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("prior_variance", [0.5, 1.0, 3.0])
def test_complexity_is_minus_beta_times_the_log_marginal_likelihood(
    laplace: ModuleType, beta: float, prior_variance: float
) -> None:
    logits, theta, inputs = problem()
    loss = F.cross_entropy(logits(theta, inputs), LABELS, reduction="sum")
    eigenvalues = spectrum(gram(fisher_factor(logits, theta, inputs).rows))
    ours = complexity(loss, theta, eigenvalues, beta=beta, prior_variance=prior_variance).total
    torch.testing.assert_close(ours, -beta * evidence(laplace, "full", beta, prior_variance), rtol=1e-6, atol=1e-6)


def test_diagonal_complexity_is_minus_the_diagonal_log_marginal_likelihood(laplace: ModuleType) -> None:
    logits, theta, inputs = problem()
    loss = F.cross_entropy(logits(theta, inputs), LABELS, reduction="sum")
    rows = fisher_factor(logits, theta, inputs).rows
    full = loss + (theta.square().sum() + logdet_identity_plus(rows, 1.0)) / 2
    diagonal = loss + (theta.square().sum() + logdet_diagonal(rows.square().sum(0), 1.0).value) / 2
    theirs = -evidence(laplace, "diag", 1.0, 1.0)
    torch.testing.assert_close(diagonal, theirs, rtol=1e-6, atol=1e-6)
    assert float(theirs) > float(full) + 1
