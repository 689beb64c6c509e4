"""Spectral norms against dense singular values of the layers written out as matrices."""

import copy
import math

import pytest
import torch
from support.networks import Applied, piecewise_linear, smooth, warmed
from support.rescaled import batch_norm_rescaled, layer_rescaled, neuron_rescaled, relu_network
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from robaudit.errors import NotMeasuredError
from robaudit.norms import spectral_norms


def dense_norm(layer, shape):
    """The largest singular value of the layer's matrix on inputs of that shape."""
    size = math.prod(shape)
    basis = torch.eye(size, dtype=torch.float64).view(size, *shape)
    matrix = layer(basis) - layer(torch.zeros(1, *shape, dtype=torch.float64))
    return float(torch.linalg.svdvals(matrix.detach().flatten(1))[0])


@pytest.mark.parametrize(
    "name", ["stride-padding", "groups", "dilation-same", "circular", "conv1d"]
)
def test_every_layer_is_the_operator_on_its_actual_input(name):
    torch.manual_seed(0)
    model = warmed(copy.deepcopy(piecewise_linear()[name]), (2, 6, 6))
    x = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    want = {}
    for at, layer in enumerate(model):
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            want[str(at)] = dense_norm(layer, x.shape[1:])
        x = layer(x)
    found = spectral_norms(model, torch.rand(2, 2, 6, 6, dtype=torch.float64))
    assert found.layers == pytest.approx(want, rel=1e-6)
    assert list(found.layers) == list(want)
    assert found.product == pytest.approx(math.prod(want.values()), rel=1e-5)
    assert found.log == pytest.approx(math.log(found.product))
    assert abs(found.product / math.prod(want.values()) - 1) <= found.error + 1e-9


def test_it_is_not_the_norm_of_the_reshaped_kernel():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(108, 3)).double()
    found = spectral_norms(model, torch.rand(2, 2, 6, 6)).layers["0"]
    reshaped = float(torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2))
    assert found == pytest.approx(dense_norm(conv, (2, 6, 6)), rel=1e-6)
    assert reshaped < found <= 3 * reshaped * (1 + 1e-6)


def test_batch_norms_are_folded_or_count_by_themselves():
    model = warmed(copy.deepcopy(piecewise_linear()["batch-norm"]), (2, 6, 6))
    x = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    found = spectral_norms(model, x)
    assert found.folded == 1
    assert found.layers["0"] == pytest.approx(dense_norm(model[:2], (2, 6, 6)), rel=1e-6)
    first = warmed(nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3)), (2, 6, 6))
    found = spectral_norms(first, x)
    assert found.layers["0"] == pytest.approx(dense_norm(first[0], (2, 6, 6)), rel=1e-12)


def test_a_large_matrix_is_multiplied_with():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(600, 520), nn.ReLU(), nn.Linear(520, 3))
    found = spectral_norms(model, torch.rand(2, 6, 10, 10))
    want = torch.linalg.matrix_norm(model[1].weight.detach().double(), 2)
    assert found.layers["1"] == pytest.approx(float(want), rel=1e-6)


def test_every_call_is_a_factor():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)
            self.head = nn.Linear(18, 3)

        def forward(self, x):
            x = self.conv(x).relu()
            return self.head(self.conv(x[:, :, ::2, ::2]).flatten(1))

    torch.manual_seed(0)
    model = Twice().double()
    found = spectral_norms(model, torch.rand(2, 2, 6, 6))
    assert list(found.layers) == ["conv", "conv (call 2)", "head"]
    want = [dense_norm(model.conv, (2, 6, 6)), dense_norm(model.conv, (2, 3, 3))]
    assert list(found.layers.values())[:2] == pytest.approx(want, rel=1e-6)


def test_it_bounds_the_lipschitz_constant_of_a_chain():
    model = relu_network()
    found = spectral_norms(model, torch.rand(2, 1, 6, 6))
    x = torch.rand(20, 1, 6, 6, dtype=torch.float64)
    steps = 1e-4 * torch.randn_like(x)
    moved = (model(x + steps) - model(x)).detach().norm(dim=1) / steps.flatten(1).norm(dim=1)
    assert float(moved.max()) <= found.product


def test_layers_rescaled_as_a_whole_have_the_same_product_and_single_units_do_not():
    model = relu_network()
    x = torch.rand(2, 1, 6, 6)
    want = spectral_norms(model, x).log
    assert spectral_norms(layer_rescaled(model), x).log == pytest.approx(want, abs=1e-5)
    other = neuron_rescaled(model, "6", "8")
    assert abs(spectral_norms(other, x).log - want) > 0.01


def test_a_convolution_before_a_batch_norm_may_have_any_scale():
    model, other = batch_norm_rescaled()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    want = spectral_norms(model, x).log
    assert spectral_norms(other, x).log == pytest.approx(want, abs=1e-5)


def test_the_weights_are_the_effective_ones():
    model = relu_network()
    normed = copy.deepcopy(model)
    parametrizations.weight_norm(normed[2])
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    assert spectral_norms(normed, x).log == pytest.approx(spectral_norms(model, x).log, abs=1e-6)


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (smooth()["attention"], "layer_norm"),
        (Applied(lambda x: F.layer_norm(x.flatten(1), (72,))), "layer_norm"),
        (
            Applied(lambda a, x: F.linear(x.flatten(1), a.weight), nn.Linear(72, 3)),
            "parts.0.weight",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.Softmax(1)), "softmax"),
        (nn.Sequential(nn.Flatten(), nn.PReLU(), nn.Linear(72, 3)), "1.weight"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2), nn.Flatten()), "group_norm"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "no convolutions"),
    ],
)
def test_what_has_no_operators_is_refused(network, named):
    with pytest.raises(NotMeasuredError, match=named):
        spectral_norms(network, torch.rand(2, 2, 6, 6))


def test_a_layer_of_zeros_is_refused():
    model = relu_network()
    with torch.no_grad():
        model[2].weight.zero_()
    with pytest.raises(NotMeasuredError, match="layer 2 is 0"):
        spectral_norms(model, torch.rand(2, 1, 6, 6))
