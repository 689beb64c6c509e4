import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from support.dense import dense_full, dense_spectrum
from support.networks import piecewise_linear, smooth, warmed
from torch import nn

from robaudit.curvature import pyhessian, spectrum
from robaudit.curvature.lanczos import lanczos
from robaudit.curvature.products import hessian_product, relative_scale
from robaudit.curvature.thick_restart import extremes

NETWORKS = {**piecewise_linear(), **smooth()}
CHOSEN = ["residual", "groups", "attention", "silu", "batch-norm"]


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.mark.parametrize("name", CHOSEN)
def test_products_equal_the_dense_hessian(name, batch):
    model = warmed(NETWORKS[name], (2, 6, 6))
    dense = dense_full(model, *batch)
    v = torch.randn(len(dense), dtype=torch.float64)
    for chunk in (6, 4, 1):
        product = hessian_product(model, *batch, chunk=chunk)(v)
        torch.testing.assert_close(product, dense @ v, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("relative", [False, True])
def test_both_ends_equal_the_dense_spectrum(name, relative, batch):
    model = warmed(NETWORKS[name], (2, 6, 6))
    want = dense_spectrum(model, *batch, relative_scale(model) if relative else None)
    found = spectrum(
        model, *batch, top=3, steps=len(want), tolerance=1e-7, probes=1, relative=relative
    )
    assert found.converged
    assert found.largest == pytest.approx(want[:3].tolist(), rel=1e-9)
    assert found.smallest == pytest.approx(float(want[-1]), rel=1e-7, abs=1e-9)


def test_residuals_bound_the_error_of_a_short_run(batch):
    """Every Ritz value has an eigenvalue within its residual, converged or not."""
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    true = torch.linalg.eigvalsh(dense_full(model, *batch)).numpy()
    start = torch.randn(len(true), dtype=torch.float64)
    run = lanczos(hessian_product(model, *batch), start, 6)
    for value, residual in zip(run.eigenvalues, run.residuals, strict=True):
        assert np.abs(true - value).min() <= residual * (1 + 1e-9) + 1e-12


@pytest.mark.slow
def test_trace_and_density_against_the_dense_spectrum(batch):
    """Trace within 4.5 standard errors over 200 probes; the density's mass is one."""
    model = warmed(NETWORKS["silu"], (2, 6, 6))
    dense = dense_full(model, *batch)
    found = spectrum(model, *batch, probes=100, steps=40, density_steps=40, top=1, tolerance=0)
    assert abs(found.trace - float(dense.trace())) < 4.5 * found.trace_standard_error
    density = found.density
    assert trapezoid(density.density, density.grid) == pytest.approx(1, abs=1e-3)
    eigenvalues = torch.linalg.eigvalsh(dense).numpy()
    z = (density.grid[:, None] - eigenvalues) / density.sigma
    want = np.exp(-0.5 * z**2).mean(1) / (density.sigma * np.sqrt(2 * np.pi))
    distance = trapezoid(np.abs(density.density - want), density.grid)
    assert distance < 0.05  # total variation under 2.5 %


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_relative_eigenvalues_do_not_move_under_rescaling(scale, batch):
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    options = {"top": 1, "steps": 200, "tolerance": 1e-8, "probes": 1}
    plain = spectrum(model, *batch, **options).largest[0]
    own = spectrum(model, *batch, relative=True, **options).largest[0]
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
        model[3].weight.div_(scale)
    assert spectrum(model, *batch, relative=True, **options).largest[0] == pytest.approx(
        own, rel=1e-7
    )
    assert spectrum(model, *batch, **options).largest[0] != pytest.approx(plain, rel=0.1)


def test_lanczos_on_a_known_matrix_finds_each_eigenvalue_once():
    """No ghosts: 40 steps on 40 well-spread eigenvalues return exactly those."""
    eigenvalues = torch.cat([torch.linspace(-3, 5, 39), torch.tensor([100.0])]).double()
    run = lanczos(lambda v: eigenvalues * v, torch.ones(40).double(), 40)
    np.testing.assert_allclose(run.eigenvalues, eigenvalues.numpy(), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(run.weights, np.full(40, 1 / 40), rtol=1e-5)


def test_lanczos_stops_when_the_pairs_are_good():
    eigenvalues = torch.cat([torch.linspace(0, 1, 499), torch.tensor([50.0])]).double()
    spent = 0

    def product(v):
        nonlocal spent
        spent += 1
        return eigenvalues * v

    run = extremes(product, torch.ones(500).double(), 500, largest=1, tolerance=1e-3)
    assert spent < 20
    assert run.eigenvalues[-1] == pytest.approx(50, rel=1e-6)


def test_pyhessian_agrees_where_it_can(batch):
    """Its power iteration stops at 1e-3 relative change; its trace within 5 of its own errors."""
    model = warmed(NETWORKS["residual"], (2, 6, 6)).float()
    x, y = batch[0].float(), batch[1]
    dense = dense_full(model, x, y)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = pyhessian(model, x, y, chunk=4)
    assert other.eigenvalues[0] == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=0.05)
    assert abs(other.trace - float(dense.trace())) < 5 * other.trace_standard_error
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
