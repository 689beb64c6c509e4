import importlib

import numpy as np
import pytest
import torch
from support.dense import dense_full, dense_spectrum
from support.networks import piecewise_linear, smooth, warmed

from robaudit.curvature import spectrum
from robaudit.curvature.lanczos import lanczos
from robaudit.curvature.products import relative_scale
from robaudit.curvature.thick_restart import SPARE, extremes
from robaudit.errors import UsageError

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}
SPECTRA = {
    "outliers": torch.cat([torch.linspace(-0.9, 0.9, 995), torch.tensor([1.1, 1.2, 1.3, 5, -1])]),
    "clustered": torch.cat([torch.linspace(0, 1, 995), torch.tensor([4.9, 4.99, 5, -0.5, -0.49])]),
    "wide": torch.logspace(-6, 3, 1000),
}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SPECTRA)
def test_both_ends_in_few_vectors(name, dtype):
    """Many restarts lose nothing: each asked value is within its residual, and rounding, of the
    eigenvalue with the same rank."""
    diagonal = SPECTRA[name].to(dtype)
    true = np.sort(diagonal.double().numpy())
    start = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    held = 4 + SPARE + 2
    smallest = 0 if name == "wide" else 1  # 1e-6 beside 1000: below any tolerance
    found = extremes(
        lambda v: diagonal * v, start, 2000,
        largest=3, smallest=smallest, tolerance=1e-5, held=held,
    )  # fmt: skip
    assert len(found.eigenvalues) <= held
    assert found.restarts >= 2
    rounding = 16 * torch.finfo(dtype).eps * np.abs(true).max()
    for at in [-3, -2, -1, *range(smallest)]:
        assert found.residuals[at] <= 1e-5 * abs(found.eigenvalues[at])
        assert abs(found.eigenvalues[at] - true[at]) <= found.residuals[at] + rounding


def test_long_vectors_in_float32_keep_their_digits():
    """A float32 sum over so many entries is off by far more than the rounding that is granted."""
    diagonal = torch.linspace(0, 1, 300_000)
    diagonal[:3] = torch.tensor([100.0, 90.0, 80.0])
    start = torch.randn(len(diagonal), generator=torch.Generator().manual_seed(0))
    for held in (7, 40):
        found = extremes(lambda v: diagonal * v, start, 100, largest=3, tolerance=1e-4, held=held)
        off = np.abs(found.eigenvalues[-3:] - [80, 90, 100])
        assert (off <= found.residuals[-3:] + 16 * torch.finfo(torch.float32).eps * 100).all()


def test_restarts_and_a_full_basis_agree():
    diagonal = SPECTRA["clustered"].double()
    start = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ask = {"largest": 2, "smallest": 2, "tolerance": 1e-9}
    full = extremes(lambda v: diagonal * v, start, 1000, **ask)
    few = extremes(lambda v: diagonal * v, start, 5000, held=12, **ask)
    assert full.restarts == 0
    assert few.restarts > 2
    np.testing.assert_allclose(few.eigenvalues[-2:], full.eigenvalues[-2:], rtol=1e-12)
    np.testing.assert_allclose(few.eigenvalues[:2], full.eigenvalues[:2], rtol=1e-12)


def test_the_quadrature_is_that_of_the_first_basis():
    """Restarts do not disturb it: its moments are those of the start vector, exactly."""
    diagonal = SPECTRA["outliers"].double()
    start = torch.ones(1000, dtype=torch.float64)
    found = extremes(
        lambda v: diagonal * v, start, 300, largest=1, smallest=1, tolerance=1e-12, held=10
    )
    assert found.restarts > 0
    for power in range(5):
        moment = float(found.quadrature.weights @ found.quadrature.eigenvalues**power)
        assert moment == pytest.approx(float((diagonal**power).mean()), rel=1e-10)


def test_a_space_that_is_used_up_goes_on_until_there_are_enough():
    diagonal = torch.zeros(300, dtype=torch.float64)
    diagonal[:3] = 5
    start = torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = extremes(lambda v: diagonal * v, start, 50, largest=4, tolerance=1e-3)
    assert found.products == 4
    np.testing.assert_allclose(np.sort(found.eigenvalues)[-1], 5)
    assert np.isin(np.round(found.eigenvalues, 9), [0, 5]).all()


def test_a_quadrature_in_few_vectors_stays_good():
    """Ghosts share their eigenvalue's weight: 100 steps with 5 vectors in memory."""
    diagonal = SPECTRA["outliers"].double()
    start = torch.ones(1000, dtype=torch.float64)
    run = lanczos(lambda v: diagonal * v, start, 100, held=5)
    assert len(run.weights) == 100
    for power in range(12):
        moment = float(run.weights @ run.eigenvalues**power)
        assert moment == pytest.approx(float((diagonal**power).mean()), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["residual", "attention"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_small_budget_gives_the_dense_spectrum_of_a_network(name, relative, batch):
    model = warmed(NETWORKS[name], (2, 6, 6))
    want = dense_spectrum(model, *batch, relative_scale(model) if relative else None)
    found = spectrum(
        model, *batch, top=3, steps=2000, density_steps=20, tolerance=1e-7, probes=2,
        relative=relative, memory=(3 + 8) * 8 * len(want),
    )  # fmt: skip
    assert found.restarts >= 3
    assert found.converged
    assert found.note is None
    assert found.largest == pytest.approx(want[:3].tolist(), rel=1e-9)
    assert found.smallest == pytest.approx(float(want[-1]), rel=1e-7)


def test_what_did_not_converge_is_said(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    found = spectrum(model, *batch, top=2, steps=6, tolerance=1e-9, probes=1)
    true = torch.linalg.eigvalsh(dense_full(model, *batch)).numpy()
    assert not found.converged
    assert found.products == 6
    assert f"number 1 {found.largest[0]:.4g} +- {found.residuals[0]:.2g}" in found.note
    assert f"the smallest {found.smallest:.4g} +- {found.smallest_residual:.2g}" in found.note
    for value, residual in zip(found.largest, found.residuals, strict=True):
        assert np.abs(true - value).min() <= residual


def test_a_budget_for_too_few_vectors_is_refused(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    one = 8 * sum(p.numel() for p in model.parameters())
    with pytest.raises(UsageError, match=f"one vector takes {one} bytes") as refused:
        spectrum(model, *batch, top=5, memory=12 * one)
    assert f"{13 * one} bytes" in refused.value.advice
    assert spectrum(model, *batch, top=5, memory=13 * one, steps=2000).converged


def test_without_a_budget_the_vectors_needed_are_always_taken(batch, monkeypatch):
    monkeypatch.setattr(importlib.import_module("robaudit.curvature.matrices"), "MEMORY", 1)
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    found = spectrum(model, *batch, top=5, steps=2000)
    assert found.converged
    assert found.restarts > 0
