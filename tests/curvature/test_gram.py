import pytest
import torch
from support.gauss_newton import dense_gauss_newton
from support.networks import piecewise_linear, smooth, warmed

from robaudit.curvature import gram_spectrum, small_spectrum, spectrum
from robaudit.curvature.products import relative_scale
from robaudit.curvature.selection import chosen_parameters
from robaudit.errors import NotMeasuredError, UsageError

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_dense_spectrum(name, batch):
    """To 1e-10 of the largest; what the Gram matrix does not have is zero."""
    model = warmed(NETWORKS[name], (2, 6, 6))
    dense = torch.linalg.eigvalsh(dense_gauss_newton(model, batch[0])).flip(0)
    found = gram_spectrum(model, batch[0])
    assert len(found) == min(len(dense), 6 * 2)
    tolerance = 1e-10 * float(dense[0])
    torch.testing.assert_close(found, dense[: len(found)], rtol=0, atol=tolerance)
    assert dense[len(found) :].abs().max() < tolerance


@pytest.mark.parametrize("layers", [["head"], ["stem", "conv.bias"]])
@pytest.mark.parametrize("relative", [False, True])
def test_named_layers_and_relative_values(layers, relative, batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    dense = dense_gauss_newton(model, batch[0], list(chosen_parameters(model, layers)))
    if relative:
        scale = relative_scale(model, layers)
        dense = scale[:, None] * dense * scale
    want = torch.linalg.eigvalsh(dense).flip(0)[:12]
    found = gram_spectrum(model, batch[0], layers=layers, relative=relative)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-10 * float(want[0]))


def test_the_budget_changes_the_blocks_and_not_the_values(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    one = 2 * 8 * sum(p.numel() for p in model.parameters())
    square = 3 * 8 * 12**2
    whole = gram_spectrum(model, batch[0])
    for examples in (1, 4):
        memory = square + 3 * one * examples
        torch.testing.assert_close(gram_spectrum(model, batch[0], memory=memory), whole)
    with pytest.raises(UsageError, match=f"one image's gradients {one}"):
        gram_spectrum(model, batch[0], memory=square + 3 * one - 1)


def test_it_agrees_with_lanczos_in_float32(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6)).float()
    x = batch[0].float()
    found = gram_spectrum(model, x)
    other = spectrum(model, x, batch[1], operator="gauss-newton", top=3, tolerance=1e-4, probes=1)
    assert found[:3].tolist() == pytest.approx(other.largest, rel=1e-5)


def test_images_without_finite_gradients_are_not_measured(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    with pytest.raises(NotMeasuredError, match="not finite"):
        gram_spectrum(model, batch[0] * torch.nan)


@pytest.mark.parametrize("relative", [False, True])
def test_the_whole_spectrum_is_the_dense_matrix_s(batch, relative):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    dense = dense_gauss_newton(model, batch[0])
    if relative:
        norms = torch.cat([p.detach().norm().expand(p.numel()) for p in model.parameters()])
        dense = norms[:, None] * dense * norms
    want = torch.linalg.eigvalsh(dense).flip(0)
    found = small_spectrum(model, batch[0], top=4, relative=relative)
    assert found.largest == pytest.approx(want[:4].tolist(), rel=1e-9)
    assert found.trace == pytest.approx(float(dense.trace()), rel=1e-9)
    assert found.smallest == 0.0
    assert found.dimension == len(dense)
    grid, heights = found.density.grid, found.density.density
    assert float(heights.sum() * (grid[1] - grid[0])) == pytest.approx(1, abs=1e-3)
    assert not found.density.standard_error.any()


def test_a_matrix_of_full_rank_has_its_own_smallest_eigenvalue(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    name = next(name for name, p in model.named_parameters() if p.numel() < 6)
    want = torch.linalg.eigvalsh(dense_gauss_newton(model, batch[0], [name]))
    found = small_spectrum(model, batch[0], layers=[name])
    assert found.smallest == pytest.approx(float(want[0]), abs=1e-10 * float(want[-1]))
