"""The optimizers of recipes, and weights that stay in a box."""

import pytest
import torch
from support.trained import net
from torch import nn

from robaudit.training import Standard
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
