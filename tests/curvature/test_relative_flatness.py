"""Relative flatness against the dense Hessian of the last layer, and its invariances."""

import copy

import pytest
import torch
from support.dense import dense_block
from support.networks import piecewise_linear, smooth, warmed
from support.rescaled import batch_norm_rescaled, layer_rescaled, neuron_rescaled, relu_network
from torch import nn
from torch.nn.utils import parametrizations, prune

from robaudit.curvature import relative_flatness
from robaudit.errors import NotMeasuredError

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}


@pytest.fixture
def images():
    return torch.rand(6, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_the_definition(model, x, y, name):
    """``sum_{s,s'} <w_s, w_s'> Tr(H_{s,s'})`` from the dense Hessian."""
    weight = model.get_submodule(name).weight.detach()
    k, d = weight.shape
    blocks = dense_block(model, x, y, f"{name}.weight").view(k, d, k, d)
    traces = torch.einsum("stut->su", blocks)
    return float((weight @ weight.T * traces).sum())


@pytest.mark.parametrize("name", ["residual", "linear-only", "attention", "silu"])
def test_it_is_the_sum_over_blocks_of_the_dense_hessian(name):
    model = warmed(copy.deepcopy(NETWORKS[name]), (2, 6, 6))
    head = "head" if hasattr(model, "head") else "3"
    torch.manual_seed(1)
    with torch.no_grad():  # softmax away from uniform
        nn.init.normal_(model.get_submodule(head).weight)
    x, y = torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])
    found = relative_flatness(model, x)
    assert found.layer == head
    want = by_the_definition(model, x, y, head)
    assert found.value == pytest.approx(want, rel=1e-11)
    # labels do not enter, and examples are averaged
    assert by_the_definition(model, x, 2 - y, head) == pytest.approx(want, rel=1e-11)
    each = [by_the_definition(model, x[i : i + 1], y[i : i + 1], head) for i in range(len(x))]
    assert found.per_example.tolist() == pytest.approx(each, rel=1e-10)
    assert found.standard_error == pytest.approx(found.per_example.std().item() / 6**0.5)


def test_rescaled_layers_have_the_same_value(images):
    model = relu_network()
    want = relative_flatness(model, images).value
    assert relative_flatness(layer_rescaled(model), images).value == pytest.approx(want, rel=1e-12)
    # neurons before the features: yes; the features themselves, one by one: no
    same, other = (neuron_rescaled(model, *pair) for pair in [("2", "6"), ("6", "8")])
    assert relative_flatness(same, images).value == pytest.approx(want, rel=1e-12)
    assert torch.allclose(other(images), model(images), rtol=1e-12)
    assert relative_flatness(other, images).value != pytest.approx(want, rel=1e-3)


def test_a_convolution_before_a_batch_norm_may_have_any_scale(images):
    model, other = batch_norm_rescaled()
    want = relative_flatness(model, images).value
    assert relative_flatness(other, images).value == pytest.approx(want, rel=1e-10)


def test_one_vector_added_to_every_row_changes_nothing(images):
    model = relu_network()
    want = relative_flatness(model, images).value
    with torch.no_grad():
        model[8].weight += torch.randn(6, dtype=torch.float64)
    assert relative_flatness(model, images).value == pytest.approx(want, rel=1e-12)


def test_a_confident_network_keeps_its_digits(images):
    """Where p is nearly one, the value is p_other times ``||z||^2 ||w_s - w_o||^2``."""
    model = relu_network()
    with torch.no_grad():
        model[8].weight.mul_(30)
        model[8].bias.copy_(torch.tensor([60.0, 20.0, -400.0]))
    z = model[:8](images)
    gap = model(images)[:, 1] - model(images)[:, 0]
    rows = model[8].weight
    want = z.square().sum(1) * gap.exp() * (rows[0] - rows[1]).square().sum()
    got = relative_flatness(model, images).per_example
    assert torch.allclose(got, want, rtol=1e-9)


def test_it_does_not_depend_on_the_batch_and_one_image_is_enough(images):
    model = relu_network().float()
    x = images.float()
    whole, small = relative_flatness(model, x), relative_flatness(model, x, chunk=2)
    assert torch.allclose(whole.per_example, small.per_example, rtol=1e-5)
    alone = relative_flatness(model, x[:1])
    assert alone.value == pytest.approx(float(whole.per_example[0]), rel=1e-5)
    assert len(alone.per_example) == 1


def test_the_weights_are_the_effective_ones(images):
    model = relu_network()
    want = relative_flatness(model, images).value
    parametrizations.weight_norm(model[8])
    assert relative_flatness(model, images).value == pytest.approx(want, rel=1e-12)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x.flatten(1)).relu())


def test_what_has_no_closed_form_is_refused(images):
    pruned = relu_network()
    prune.random_unstructured(pruned[8], "weight", amount=3)
    with pytest.raises(NotMeasuredError, match="pruned"):
        relative_flatness(pruned, images)
    with pytest.raises(NotMeasuredError, match="used 2 times"):
        relative_flatness(Twice(), torch.rand(3, 1, 2, 2))
    with pytest.raises(NotMeasuredError, match="no top layer"):
        relative_flatness(
            nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU()), images[:, :, :2, :2].float()
        )
    with pytest.raises(NotMeasuredError, match="not finite"):
        relative_flatness(relu_network(), torch.full((2, 1, 6, 6), torch.nan).double())
