import numpy as np
import pytest
import torch
from support.dense import dense_block, dense_full
from support.gauss_newton import dense_gauss_newton
from support.networks import piecewise_linear, smooth, warmed
from torch import nn
from torch.autograd.function import once_differentiable

from robaudit.curvature import spectrum
from robaudit.curvature.products import block_products, gauss_newton_product, hessian_product
from robaudit.curvature.selection import chosen_parameters
from robaudit.errors import NotMeasuredError, UsageError

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}
CHOSEN = ["residual", "groups", "silu", "batch-norm", "attention"]


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.mark.parametrize("name", CHOSEN)
def test_gauss_newton_products_equal_the_dense_matrix(name, batch):
    model = warmed(NETWORKS[name], (2, 6, 6))
    dense = dense_gauss_newton(model, batch[0])
    v = torch.randn(len(dense), dtype=torch.float64)
    for chunk in (6, 4, 1):
        product = gauss_newton_product(model, batch[0], chunk=chunk)(v)
        torch.testing.assert_close(product, dense @ v, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CHOSEN)
def test_products_of_named_layers_are_the_dense_block(name, batch):
    model = warmed(NETWORKS[name], (2, 6, 6))
    weights = [name for name, p in model.named_parameters() if p.dim() > 1]
    first = weights[0].removesuffix(".weight")
    dense = dense_block(model, *batch, weights[0])
    v = torch.randn(len(dense), dtype=torch.float64)
    product = hessian_product(model, *batch, layers=[first])(v)
    torch.testing.assert_close(product, dense @ v, rtol=1e-9, atol=1e-12)
    dense = dense_gauss_newton(model, batch[0], weights[:2])
    v = torch.randn(len(dense), dtype=torch.float64)
    product = gauss_newton_product(model, batch[0], layers=weights[:2])(v)
    torch.testing.assert_close(product, dense @ v, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_block_products_are_those_of_each_dense_block(name, batch):
    model = warmed(NETWORKS[name], (2, 6, 6))
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    v = torch.randn(sum(sizes), dtype=torch.float64)
    want = [
        dense_block(model, *batch, name) @ part
        for name, part in zip(names, v.split(sizes), strict=True)
    ]
    found = block_products(model, *batch, v, chunk=4)
    torch.testing.assert_close(found, torch.cat(want), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["residual", "silu"])
@pytest.mark.parametrize("layers", [None, ["conv", "stem", "0", "3"]])
def test_the_gauss_newton_spectrum_is_the_dense_one(name, layers, batch):
    model = warmed(NETWORKS[name], (2, 6, 6))
    if layers:
        layers = [layer for layer in layers if layer in dict(model.named_modules())]
    names = list(chosen_parameters(model, layers))
    dense = torch.linalg.eigvalsh(dense_gauss_newton(model, batch[0], names)).flip(0)
    found = spectrum(
        model, *batch, top=4, steps=200, tolerance=1e-6, operator="gauss-newton", layers=layers
    )
    assert found.converged
    assert found.operator == "gauss-newton"
    assert found.dimension == len(dense)
    assert found.largest == pytest.approx(dense[:4].tolist(), rel=1e-9)
    # more parameters than examples times classes: rank-deficient, and known to be
    assert len(dense) > 6 * 2
    assert (found.smallest, found.smallest_residual) == (0.0, 0.0)


def test_a_gauss_newton_matrix_of_full_rank_has_its_smallest_eigenvalue_searched(batch):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 1, bias=False), nn.Linear(1, 3)).double()
    dense = torch.linalg.eigvalsh(dense_gauss_newton(model, batch[0], ["2.weight"]))
    found = spectrum(model, *batch, top=1, operator="gauss-newton", layers=["2"], probes=1)
    assert found.largest[0] == pytest.approx(float(dense[-1]), rel=1e-9)
    assert found.smallest == pytest.approx(float(dense[0]), abs=1e-12 * float(dense[-1]))


def test_the_last_layer_has_one_matrix(batch):
    """The logits are linear in its weight: Hessian and Gauss-Newton matrix agree."""
    model = warmed(NETWORKS["attention"], (2, 6, 6))
    options = {"top": 3, "layers": ["head"], "probes": 1, "tolerance": 1e-6}
    one = spectrum(model, *batch, **options)
    other = spectrum(model, *batch, operator="gauss-newton", **options)
    assert one.largest == pytest.approx(other.largest, rel=1e-9)


def test_tied_weights_answer_to_each_of_their_names(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 72), nn.ReLU(), nn.Linear(72, 72)).double()
    model[3].weight = model[1].weight
    assert list(chosen_parameters(model, ["3"])) == ["1.weight"]
    v = torch.randn(72 * 72, dtype=torch.float64)
    found = hessian_product(model, *batch, layers=["3"])(v)
    want = hessian_product(model, *batch, layers=["1.weight"])(v)
    assert torch.equal(found, want)


def test_a_parameter_that_the_loss_does_not_reach_has_no_curvature(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).double()
    model.spare = nn.Linear(2, 2).double()
    model.forward = lambda x: model[1](model[0](x))
    v = torch.ones(4, dtype=torch.float64)
    assert not hessian_product(model, *batch, layers=["spare"])(v).any()
    assert not gauss_newton_product(model, batch[0], layers=["spare"])(v).any()
    dense = torch.linalg.eigvalsh(dense_full(model, *batch))
    found = spectrum(model, *batch, top=1, probes=1)
    assert found.largest[0] == pytest.approx(float(dense[-1]), rel=1e-6)


def test_names_that_mean_nothing_are_refused(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    with pytest.raises(UsageError, match="no layer 'convv'") as refused:
        spectrum(model, *batch, layers=["convv"])
    assert "conv" in refused.value.advice
    with pytest.raises(UsageError, match="no layer was named"):
        spectrum(model, *batch, layers=[])
    with pytest.raises(UsageError, match="operator cannot be"):
        spectrum(model, *batch, operator="fisher")
    with pytest.raises(NotMeasuredError, match="no parameters"):
        spectrum(nn.Flatten(), *batch)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0)


class FirstOrder(nn.Module):
    def forward(self, x):
        return _Once.apply(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.act = FirstOrder()

    def forward(self, x):
        return self.act(self.conv(x))


@pytest.mark.parametrize("operator", ["hessian", "gauss-newton"])
def test_a_module_without_a_second_derivative_is_named(operator, batch):
    model = nn.Sequential(Block(), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 3)).double()
    with pytest.raises(NotMeasuredError, match=r"module '0.act' \(FirstOrder\)"):
        spectrum(model, *batch, operator=operator)


def test_a_network_that_cuts_the_graph_is_not_measured(batch):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(72, 3).double()

        def forward(self, x):
            with torch.no_grad():
                return self.head(x.flatten(1))

    with pytest.raises(NotMeasuredError, match="resists double backward in the forward of Cut"):
        spectrum(Cut(), *batch)


def test_other_errors_of_a_network_are_left_alone(batch):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(72, 3).double()

        def forward(self, x):
            raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match="out of cheese"):
        spectrum(Broken(), *batch)


def test_a_loss_that_is_not_finite_is_not_measured(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    x = batch[0].clone()
    x[:2] = torch.nan
    with pytest.raises(NotMeasuredError, match="the loss is not finite on 2 of 6 examples"):
        spectrum(model, x, batch[1])


@pytest.mark.slow
def test_density_errors_cover_the_dense_density(batch):
    """Gaussian-smoothed density at 256 points by 30 probes, against the dense one: the share of
    points beyond two standard errors is about 5 %, and over 25 % has a chance far under 1e-3 even
    for neighbouring points that are wholly dependent in groups of ten."""
    model = warmed(NETWORKS["silu"], (2, 6, 6))
    eigenvalues = torch.linalg.eigvalsh(dense_full(model, *batch)).numpy()
    found = spectrum(model, *batch, probes=30, steps=100, density_steps=100, top=1, tolerance=0)
    density = found.density
    z = (density.grid[:, None] - eigenvalues) / density.sigma
    want = np.exp(-0.5 * z**2).mean(1) / (density.sigma * np.sqrt(2 * np.pi))
    beyond = np.abs(density.density - want) > 2 * density.standard_error + 1e-6 * want.max()
    assert beyond.mean() < 0.25
    assert (density.standard_error > 0).any()


def test_density_errors_fall_with_probes(batch):
    model = warmed(NETWORKS["silu"], (2, 6, 6))

    def error(probes):
        found = spectrum(model, *batch, probes=probes, steps=40, top=1, tolerance=0)
        return float(np.linalg.norm(found.density.standard_error))

    assert error(40) < error(4)
    assert np.isnan(error(1))
