"""The largest eigenvalue alone."""

import pytest
import torch
from support.dense import dense_block, dense_full
from support.networks import piecewise_linear, smooth, warmed
from torch import nn

from robaudit.curvature import largest_eigenvalue
from robaudit.curvature.largest import curved_direction
from robaudit.errors import NotMeasuredError

NETWORKS = {**piecewise_linear(), **smooth()}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_dense_hessians(name, batch):
    model = warmed(NETWORKS[name], (2, 6, 6))
    want = torch.linalg.eigvalsh(dense_full(model, *batch))[-1]
    found = largest_eigenvalue(model, *batch, tolerance=1e-6, steps=200)
    assert found.converged
    assert found.value == pytest.approx(float(want), rel=1e-9)
    loose = largest_eigenvalue(model, *batch)
    assert abs(loose.value - float(want)) <= loose.residual + 1e-12
    assert loose.products <= found.products


def test_it_is_a_named_layers_own(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    want = torch.linalg.eigvalsh(dense_block(model, *batch, "conv.weight"))[-1]
    found = largest_eigenvalue(model, *batch, layers=["conv"], tolerance=1e-6)
    assert found.value == pytest.approx(float(want), rel=1e-9)


def test_too_few_steps_are_said(batch):
    model = warmed(NETWORKS["silu"], (2, 6, 6))
    found = largest_eigenvalue(model, *batch, steps=1)
    assert (found.converged, found.products) == (False, 1)
    assert found.residual > 1e-3 * found.value


def test_the_direction_is_the_one_of_the_formula(batch):
    """Against Jacobians that are written out, and in chunks or not."""
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    x, _ = batch
    named = {name: p.detach() for name, p in model.named_parameters()}
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(named)
    J = torch.cat([jacobian[name].flatten(2) for name in named], dim=2)
    p = model(x).softmax(1).detach()
    Lambda = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    z = torch.linalg.eigh(Lambda.mean(0)).eigenvectors[:, -1]
    want = torch.einsum("nkp,nkl,l->p", J, Lambda, z) / len(x)
    for chunk in (6, 4):
        found = curved_direction(model, x, chunk)
        found = found * torch.sign(found @ want)  # of an eigenvector the sign is free
        torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-14)


def test_a_network_that_is_sure_of_everything_has_a_start_all_the_same(batch):
    """Where all probabilities are zero or one in floating point, the direction vanishes."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).double()
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([0.0, 2000.0, 0.0]))
    assert not curved_direction(model, batch[0]).any()
    found = largest_eigenvalue(model, *batch)
    assert (found.value, found.residual) == (0.0, 0.0)
    assert found.converged


def test_a_loss_that_is_not_finite_is_not_measured(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    x = batch[0].clone()
    x[:2] = torch.nan
    with pytest.raises(NotMeasuredError, match="the loss is not finite on 2 of 6 examples"):
        largest_eigenvalue(model, x, batch[1])
