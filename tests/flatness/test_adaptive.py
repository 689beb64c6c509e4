"""Adaptive sharpness where the answer is known, and what it does not depend on."""

import copy
import itertools

import pytest
import torch
from support.rescaled import batch_norm_rescaled, layer_rescaled, neuron_rescaled, relu_network
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.flatness import adaptive_average, adaptive_worst
from robaudit.flatness.weights import draw_for

PLAIN = {"normalize_logits": False}


class Logistic(nn.Module):
    """Logits ``(0, <w, x>)``: the cross-entropy is ``softplus(+-<w, x>)``, convex in ``w``."""

    def __init__(self, pixels):
        super().__init__()
        self.w = nn.Parameter(torch.randn(pixels, dtype=torch.float64))

    def forward(self, x):
        z = x.flatten(1) @ self.w
        return torch.stack([torch.zeros_like(z), z], 1)


class Squares(nn.Module):
    """Cross-entropy ``1 + (||a||^2 + ||b||^2) / 2 + mean x`` for label 0."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn(40, dtype=torch.float64) / 4)
        self.b = nn.Parameter(torch.randn(5, 8, dtype=torch.float64) / 4)

    def forward(self, x):
        q = 1 + (self.a.square().sum() + self.b.square().sum()) / 2 + x.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(q), torch.log(torch.expm1(q))], 1)


@pytest.fixture
def logistic():
    torch.manual_seed(0)
    return (
        Logistic(8),
        torch.rand(6, 2, 2, 2, dtype=torch.float64),
        torch.tensor([0, 1, 0, 0, 1, 1]),
    )


@pytest.fixture
def relu():
    torch.manual_seed(1)
    x = torch.rand(7, 1, 6, 6, dtype=torch.float64)
    return relu_network(), x, torch.tensor([0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_one_example_of_a_logistic_model_it_has_a_closed_form(norm, logistic):
    """The margin falls by the dual norm: ``rho ||w x||_1`` or ``rho ||w x||_2``."""
    model, x, y = logistic
    found = adaptive_worst(model, x, y, norm=norm, rho=0.3, m=1, **PLAIN)
    flat = x.flatten(1)
    side = torch.where(y == 0, 1.0, -1.0)
    reach = 0.3 * (flat * model.w.detach()).norm(p=1 if norm == "linf" else 2, dim=1)
    z = side * (flat @ model.w.detach())
    rises = F.softplus(z + reach) - F.softplus(z)
    assert found.groups == pytest.approx(rises.tolist(), rel=1e-6)
    assert found.value == pytest.approx(float(rises.mean()), rel=1e-6)
    assert found.standard_error == pytest.approx(float(rises.std()) / 6**0.5, rel=1e-5)


def test_of_a_convex_loss_it_is_at_the_best_corner_of_the_box(logistic):
    model, x, y = logistic
    w = model.w.detach()

    def loss(at, rows):
        return F.cross_entropy(functional_call(model, {"w": at}, (x[rows],)), y[rows])

    want = []
    for rows in (slice(0, 3), slice(3, 6)):
        corners = (torch.tensor(signs) for signs in itertools.product([-1.0, 1.0], repeat=8))
        highest = max(float(loss(w + 0.4 * w.abs() * signs, rows)) for signs in corners)
        want.append(highest - float(loss(w, rows)))
    found = adaptive_worst(model, x, y, rho=0.4, m=3, **PLAIN)
    assert found.groups == pytest.approx(want, rel=1e-9)


def test_l2_agrees_with_a_fine_grid_of_the_circle(logistic):
    _, x, y = logistic
    torch.manual_seed(2)
    model, x = Logistic(2), x[:, :, :1, :1]
    w = model.w.detach()
    angles = torch.linspace(0, 2 * torch.pi, 20001, dtype=torch.float64)
    u = 0.5 * torch.stack([angles.cos(), angles.sin()], 1)
    z = (w + w.abs() * u) @ x.flatten(1).T
    losses = torch.where(y == 0, F.softplus(z), F.softplus(-z)).mean(1)
    want = float(losses.max() - F.cross_entropy(model(x).detach(), y))
    found = adaptive_worst(model, x, y, norm="l2", rho=0.5, steps=60, **PLAIN)
    assert found.value == pytest.approx(want, rel=1e-4)
    assert found.value <= want * (1 + 1e-6)


@pytest.mark.parametrize(("norm", "variance"), [("l2", 1.0), ("linf", 1 / 3)])
def test_the_average_over_a_quadratic_has_a_closed_form(norm, variance):
    torch.manual_seed(0)
    model, x = Squares(), torch.rand(5, 1, 2, 2, dtype=torch.float64)
    y = torch.zeros(5).long()
    found = adaptive_average(model, x, y, norm=norm, rho=0.5, perturbations=400, **PLAIN)
    squares = float(model.a.detach().square().sum() + model.b.detach().square().sum())
    want = 0.5**2 * variance * squares / 2
    assert abs(found.value - want) < 4 * found.standard_error_perturbations
    assert found.standard_error_perturbations < want / 10
    assert found.standard_error_examples < 1e-12


def test_every_draw_is_the_loss_at_weights_that_moved_in_proportion(relu):
    model, x, y = relu
    found = adaptive_average(model, x, y, rho=0.2, perturbations=3, seed=5, **PLAIN)
    named = {name: p.detach() for name, p in model.named_parameters()}
    for j, got in enumerate(found.perturbed):
        draw = draw_for(5, "adaptive average", j)
        moved = {
            n: w * (1 + 0.2 * w.sign() * torch.randn(w.shape, generator=draw))
            for n, w in named.items()
        }
        want = F.cross_entropy(functional_call(model, moved, (x,)), y)
        assert got == pytest.approx(float(want), rel=1e-9)


def test_a_weight_that_two_modules_share_moves_in_both():
    """One example, label 0, logits ``(0, w^2 x)``: the worst ``w`` is the largest."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
            self.a.weight = self.b.weight = nn.Parameter(torch.tensor([[1.5]]).double())

        def forward(self, x):
            z = self.b(self.a(x.flatten(1)))
            return torch.cat([0 * z, z], 1)

    x, y = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    found = adaptive_worst(Tied(), x, y, rho=0.1, **PLAIN)
    ends = F.softplus(torch.tensor([1.65**2 / 2, 1.5**2 / 2], dtype=torch.float64))
    assert found.value == pytest.approx(float(ends[0] - ends[1]), rel=1e-9)


MEASURES = [
    lambda *of, **by: adaptive_worst(*of, norm="linf", rho=0.05, **by),
    lambda *of, **by: adaptive_worst(*of, norm="l2", rho=0.5, **by),
    lambda *of, **by: adaptive_average(*of, norm="l2", rho=0.1, perturbations=3, **by),
    lambda *of, **by: adaptive_average(*of, norm="linf", rho=0.2, perturbations=3, **by),
]


@pytest.mark.parametrize("measured", MEASURES)
@pytest.mark.parametrize("normalize_logits", [True, False])
def test_rescaled_networks_are_equally_sharp(measured, normalize_logits, relu):
    """What the search finds is the same, not only the maximum."""
    model, x, y = relu
    want = measured(model, x, y, normalize_logits=normalize_logits).value
    assert abs(want) > 1e-3
    pairs = [("0", "2"), ("2", "6"), ("6", "8")]
    for other in (layer_rescaled(model), *(neuron_rescaled(model, *pair) for pair in pairs)):
        got = measured(other, x, y, normalize_logits=normalize_logits)
        assert got.value == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("measured", MEASURES)
def test_a_convolution_before_a_batch_norm_may_have_any_scale(measured, relu):
    model, other = batch_norm_rescaled()
    want = measured(model, *relu[1:]).value
    assert measured(other, *relu[1:]).value == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("measured", MEASURES)
def test_the_scale_of_the_logits_counts_unless_they_are_normalised(measured, relu):
    model, x, y = relu
    louder = copy.deepcopy(model)
    with torch.no_grad():
        louder[8].weight.mul_(3)
        louder[8].bias.mul_(3)
    same = measured(model, x, y).value
    assert measured(louder, x, y).value == pytest.approx(same, rel=1e-9)
    plain = measured(model, x, y, **PLAIN).value
    assert measured(louder, x, y, **PLAIN).value != pytest.approx(plain, rel=1e-2)


def test_groups_are_measured_alone_and_are_of_equal_size(relu):
    model, x, y = relu
    found = adaptive_worst(model, x, y, rho=0.05, m=3)
    parts = [slice(0, 2), slice(2, 4), slice(4, 7)]
    alone = [adaptive_worst(model, x[part], y[part], rho=0.05).value for part in parts]
    assert found.groups == pytest.approx(alone, rel=1e-12)
    assert found.value == pytest.approx((2 * alone[0] + 2 * alone[1] + 3 * alone[2]) / 7)


def test_smaller_groups_choose_their_own_perturbations(logistic):
    one, two, all_ = (adaptive_worst(*logistic, rho=0.4, m=m, **PLAIN).value for m in (1, 2, 6))
    assert one > two > all_


def test_nothing_depends_on_the_batch_size_and_single_images_work(relu):
    model, x, y = relu[0].float(), relu[1].float(), relu[2]
    found = [adaptive_average(model, x, y, perturbations=2, batch_size=b) for b in (1, 64, "auto")]
    assert found[0].value == found[1].value == found[2].value
    assert adaptive_worst(model, x[:1], y[:1]).value > 0
    assert adaptive_average(model, x[:1], y[:1], perturbations=2).n == 1


def test_the_weights_are_the_effective_ones_and_zeros_stay(relu):
    model, x, y = relu
    plain = copy.deepcopy(model)
    with torch.no_grad():
        plain[2].weight.mul_(plain[2].weight.abs() > 0.2)
    pruned, normed = copy.deepcopy(plain), copy.deepcopy(plain)
    prune.l1_unstructured(pruned[2], "weight", amount=int((plain[2].weight == 0).sum()))
    parametrizations.weight_norm(normed[6])
    before = copy.deepcopy(normed.state_dict())
    for measured in MEASURES:
        want = measured(plain, x, y).value
        assert measured(pruned, x, y).value == pytest.approx(want, rel=1e-9)
        assert measured(normed, x, y).value == pytest.approx(want, rel=1e-9)
    assert all(torch.equal(before[name], value) for name, value in normed.state_dict().items())


def test_more_steps_within_a_larger_ball_find_more(relu):
    model, x, y = relu
    values = [adaptive_worst(model, x, y, rho=rho, **PLAIN).value for rho in (0.01, 0.02, 0.04)]
    assert 0 < values[0] < values[1] < values[2]
    # to first order it is rho ||w g||_1
    loss = F.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    pairs = zip(gradients, model.parameters(), strict=True)
    slope = sum(float((g * p.detach()).abs().sum()) for g, p in pairs)
    tiny = adaptive_worst(model, x, y, rho=1e-6, **PLAIN).value
    assert tiny == pytest.approx(1e-6 * slope, rel=1e-4)


def test_what_cannot_be_is_refused(relu):
    model, x, y = relu
    with pytest.raises(UsageError, match="rho"):
        adaptive_worst(model, x, y, rho=0.0)
    with pytest.raises(UsageError, match="m must"):
        adaptive_worst(model, x, y, m=0)
    with pytest.raises(NotMeasuredError, match="no weights"):
        adaptive_average(nn.Flatten(), x, y.clamp_max(1))
    with torch.no_grad():
        model[8].bias.fill_(torch.inf)
    for measured in MEASURES:
        with pytest.raises(NotMeasuredError, match="not finite"):
            measured(model, x, y)
