"""The backward pass of the identity through a module; the values of the network itself."""

import pytest
import torch
from torch import nn

import robaudit as ra
from robaudit.attacks import pgd
from robaudit.errors import UsageError
from robaudit.types import ThreatModel


class Step(nn.Module):
    def forward(self, x):
        return (x * 8).round() / 8


class Stepping(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.step = Step()
        self.layer = nn.Linear(16, 5)

    def forward(self, x):
        return self.layer(self.step(x).flatten(1))


@pytest.fixture
def x():
    return torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def test_values_are_the_networks_and_gradients_the_identitys(x):
    network = Stepping()
    through = ra.straight_through(network, ["step"])
    leaf = x.clone().requires_grad_()
    logits = through(leaf)
    assert torch.equal(logits, network(x))
    logits[:, 2].sum().backward()
    expected = network.layer.weight[2].detach().expand(20, -1)
    assert torch.allclose(leaf.grad.flatten(1), expected)
    assert not network.step._forward_hooks
    assert ra.straight_through(network, []) is network


def test_an_attack_then_finds_what_there_is_to_find(x):
    network = Stepping()
    y = network(x).argmax(1)
    threat = ThreatModel("linf", 0.4)
    blind = pgd(network, x, y, threat)
    found = pgd(ra.straight_through(network, ["step"]), x, y, threat)
    assert float(blind.robust.float().mean()) > 0.5
    assert float(found.robust.float().mean()) < 0.2
    assert bool((network(found.broken_x).argmax(1) != y)[~found.robust].all())


def test_what_no_identity_goes_through_is_refused(x):
    with pytest.raises(UsageError, match="no module 'stepp'; did you mean 'step'"):
        ra.straight_through(Stepping(), ["stepp"])
    with pytest.raises(UsageError, match=r"takes .16,. to .5,."):
        ra.straight_through(Stepping(), ["layer"])(x)
