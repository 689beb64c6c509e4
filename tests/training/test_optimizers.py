"""The optimizers of recipes, and weights that stay in a box."""

import pytest
import torch
from support.trained import net
from torch import nn

from robaudit.training import Standard
from robaudit.training.entropy_sgd import EntropySGD
from robaudit.training.fitting import fit
from robaudit.training.recipe import Recipe
from robaudit.training.weight_clip import WeightClip
from robaudit.types import ThreatModel

LINF = ThreatModel("linf", 0.1)
ONE_BATCH = {"objective": "standard", "epochs": 3, "batch_size": 20, "weight_decay": 0.01}


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def trained(model, settings, task):
    fit(model, *task, Recipe.model_validate(settings), LINF, on_epoch=lambda _: None)
    return model.state_dict()


def test_adam_is_its_recursion(task):
    """Kingma & Ba, Algorithm 1, with the l2 penalty's gradient added."""
    x, y = task[0].double(), task[1]
    found = trained(linear().double(), ONE_BATCH | {"optimizer": "adam"}, (x, y))
    reference = linear().double()
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in reference.parameters()]
    for step in (1, 2, 3):
        parameters = list(reference.parameters())
        gradients = torch.autograd.grad(Standard()(reference, x, y), parameters)
        with torch.no_grad():
            for p, g, (m, v) in zip(parameters, gradients, moments, strict=True):
                g = g + 0.01 * p
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g**2)
                p -= 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(found[name], value)


def test_clipped_weights_are_in_the_box_and_normalisation_is_left_alone(task):
    model = net()
    with torch.no_grad():
        model[1].weight.fill_(1.5)
        model[5].weight.mul_(10)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    WeightClip(0.1).apply(model)
    for name, p in model.named_parameters():
        expected = before[name] if name.startswith("1.") else before[name].clip(-0.1, 0.1)
        assert torch.equal(p, expected)
    assert float(model[5].weight.detach().abs().max()) == pytest.approx(0.1)
    found = trained(net(), ONE_BATCH | {"weight_clip": 0.05, "learning_rate": 1.0}, task)
    assert float(found["5.weight"].abs().max()) == pytest.approx(0.05)
    assert float(found["1.weight"].abs().max()) > 0.5


def quadratic():
    """``f(w) = (w - a)^T A (w - a) / 2``, whose gradient a plain loop can take."""
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=draw, dtype=torch.float64)
    return root @ root.T / 5, torch.randn(5, generator=draw, dtype=torch.float64)


def plain_entropy_sgd(matrix, lowest, rounds, momentum, decay):
    """Algorithm 1 without noise, in numbers: each round as many Langevin iterations as it says."""
    x, outer = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for t, iterations in enumerate(rounds):
        gamma = 0.05 * 1.5**t
        moved, mean, inner = x, x, torch.zeros(5, dtype=torch.float64)
        for _ in range(iterations):
            gradient = matrix @ (moved - lowest) + decay * moved
            inner = momentum * inner + gradient
            moved = moved - 0.2 * (gradient + momentum * inner - gamma * (x - moved))
            mean = 0.75 * mean + 0.25 * moved
        outer = momentum * outer + (x - mean)
        x = x - 0.3 * ((x - mean) + momentum * outer)
    return x


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.6, 0.1)])
def test_entropy_sgd_is_its_algorithm_on_a_quadratic(momentum, decay):
    matrix, lowest = quadratic()
    weight = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = EntropySGD(
        [weight], 0.3, langevin=4, scope=0.05, scoping=0.5, noise=0.0, step_size=0.2,
        momentum=momentum, weight_decay=decay,
    )  # fmt: skip
    for _ in range(10):
        weight.grad = matrix @ (weight.detach() - lowest)
        optimizer.step()
    optimizer.settle()  # a round of two iterations
    optimizer.settle()  # nothing is left to do
    expected = plain_entropy_sgd(matrix, lowest, (4, 4, 2), momentum, decay)
    torch.testing.assert_close(weight.detach(), expected)


def test_the_iterates_of_entropy_sgd_have_the_papers_noise_and_the_weights_do_not():
    weight = nn.Parameter(torch.zeros(40_000, dtype=torch.float64))
    draw = torch.Generator().manual_seed(0)
    optimizer = EntropySGD(
        [weight], 1.0, langevin=2, noise=0.3, step_size=0.25, scope=1e-12, generator=draw
    )
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert float(weight.detach().std()) == pytest.approx(0.5 * 0.3, rel=0.02)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    # mu = 3/4 (1/4 n) + 1/4 (n + m), and with Nesterov's first step x = 1.9 mu.
    expected = 1.9 * 0.15 * ((7 / 16) ** 2 + (1 / 4) ** 2) ** 0.5
    assert float(weight.detach().std()) == pytest.approx(expected, rel=0.02)
