"""The Fisher-Rao norm against the dense Fisher matrix, the closed form without biases, and its
invariances.
"""

import copy

import pytest
import torch
from support.curved import Detaching, mlp
from support.gauss_newton import dense_gauss_newton
from support.networks import piecewise_linear, smooth, warmed
from support.rescaled import batch_norm_rescaled, layer_rescaled, neuron_rescaled, relu_network
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from robaudit.curvature import fisher_rao
from robaudit.errors import NotMeasuredError

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}


@pytest.fixture
def images():
    return torch.rand(6, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name", ["residual", "batch-norm", "conv1d", "attention", "gelu-functional"]
)
def test_it_is_the_quadratic_form_of_the_dense_fisher_matrix(name):
    model = warmed(copy.deepcopy(NETWORKS[name]), (2, 6, 6))
    torch.manual_seed(1)
    x = torch.rand(4, 2, 6, 6, dtype=torch.float64)
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    want = float(w @ dense_gauss_newton(model, x) @ w) ** 0.5
    found = fisher_rao(model, x)
    assert found.value == pytest.approx(want, rel=1e-10)
    assert found.standard_error == pytest.approx(
        float(found.per_example.std()) / 4**0.5 / (2 * found.value)
    )


def test_it_is_the_expected_square_of_the_gradient_along_the_weights(images):
    """By the definition: classes drawn from p, all of them with their probabilities."""
    model = relu_network()
    named = {name: p.detach() for name, p in model.named_parameters()}
    p = model(images).detach().softmax(1)
    total = 0.0
    for i in range(len(images)):
        for c in range(3):

            def loss(t, i=i, c=c):
                at = functional_call(
                    model, {n: w * t for n, w in named.items()}, (images[i : i + 1],)
                )
                return F.cross_entropy(at, torch.tensor([c]))

            t = torch.ones((), dtype=torch.float64, requires_grad=True)
            (slope,) = torch.autograd.grad(loss(t), t)
            total += float(p[i, c] * slope**2)
    assert fisher_rao(model, images).value == pytest.approx((total / 6) ** 0.5, rel=1e-10)


def test_without_biases_it_is_the_number_of_layers_times_the_spread_of_the_logits(images):
    model = relu_network(biases=False)
    z = model(images).detach()
    p = z.softmax(1)
    spread = (p * (z - (p * z).sum(1, keepdim=True)).square()).sum(1)
    assert fisher_rao(model, images).value == pytest.approx(4 * float(spread.mean()) ** 0.5)


def test_a_weight_that_two_modules_share_grows_in_both():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x.flatten(1)).relu())

    torch.manual_seed(0)
    model, x = Tied().double(), torch.rand(5, 1, 2, 2, dtype=torch.float64)
    z = model(x).detach()
    p = z.softmax(1)
    spread = (p * (z - (p * z).sum(1, keepdim=True)).square()).sum(1)
    assert fisher_rao(model, x).value == pytest.approx(2 * float(spread.mean()) ** 0.5)


def test_rescaled_networks_have_the_same_norm(images):
    model = relu_network()
    want = fisher_rao(model, images).value
    for other in (
        layer_rescaled(model),
        *(neuron_rescaled(model, *pair) for pair in [("0", "2"), ("2", "6"), ("6", "8")]),
    ):
        assert torch.allclose(other(images), model(images), rtol=1e-10)
        assert fisher_rao(other, images).value == pytest.approx(want, rel=1e-10)


def test_a_convolution_before_a_batch_norm_may_have_any_scale(images):
    model, other = batch_norm_rescaled()
    want = fisher_rao(model, images).value
    assert fisher_rao(other, images).value == pytest.approx(want, rel=1e-10)


def test_it_does_not_depend_on_the_batch_and_one_image_is_enough(images):
    model, x = relu_network().float(), images.float()
    whole, small = fisher_rao(model, x), fisher_rao(model, x, chunk=2)
    assert torch.allclose(whole.per_example, small.per_example, rtol=1e-4)
    assert fisher_rao(model, x[:1]).per_example == pytest.approx(whole.per_example[:1], rel=1e-4)


def test_the_weights_are_the_effective_ones_and_are_left_as_they_were(images):
    model = relu_network()
    plain = relu_network()
    prune.l1_unstructured(model[2], "weight", amount=20)
    plain.load_state_dict(
        {**plain.state_dict(), "2.weight": model[2].weight_mask * model[2].weight_orig}
    )
    parametrizations.weight_norm(model[6])
    before = copy.deepcopy(model.state_dict())
    found = fisher_rao(model, images)
    assert found.value == pytest.approx(fisher_rao(plain, images).value, rel=1e-10)
    assert any("pruned" in note for note in found.notes)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_derivatives_that_are_wrong_or_not_there_are_refused():
    with pytest.raises(NotMeasuredError):
        fisher_rao(mlp(Detaching), torch.rand(6, 1, 4, 4))
    with pytest.raises(NotMeasuredError, match="not finite"):
        fisher_rao(relu_network(), torch.full((2, 1, 6, 6), torch.nan).double())


def test_a_network_that_draws_at_random_is_refused(images):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = relu_network()

        def forward(self, x):
            return self.net(x + 0.1 * torch.randn_like(x))

    with pytest.raises(NotMeasuredError, match="random"):
        fisher_rao(Noisy(), images)
