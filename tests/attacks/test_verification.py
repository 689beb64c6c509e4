"""What counts as an adversarial example is checked on the example itself."""

import math

import pytest
import torch
from torch import nn

from robaudit.attacks.verification import verify
from robaudit.types import ThreatModel


@pytest.fixture
def network():
    """Class 1 where the mean pixel exceeds one half."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[0.0] * 4, [0.25] * 4]))
        network[1].bias.copy_(torch.tensor([0.0, -0.5]))
    return network


def image(*pixels):
    return torch.tensor(pixels).reshape(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("norm", "distance"), [("linf", 0.3), ("l2", math.sqrt(4 * 0.09)), ("l1", 1.2)]
)
def test_distances_are_those_of_the_norm(network, norm, distance):
    x, y = image(0.4, 0.4, 0.4, 0.4), torch.tensor([0])
    found = verify(network, x, x + 0.3, y, ThreatModel(norm, distance))
    assert float(found.distance) == pytest.approx(distance, rel=1e-6)
    assert found.breaks.tolist() == [True]
    assert not verify(network, x, x + 0.3, y, ThreatModel(norm, 0.99 * distance)).in_ball


def test_outside_the_box_nothing_counts(network):
    x, y = image(0.9, 0.9, 0.9, 0.0), torch.tensor([0])
    found = verify(network, x, image(1.1, 1.0, 1.0, 0.0), y, ThreatModel("linf", 0.5))
    assert (found.in_ball.item(), found.in_box.item(), found.wrong.item()) == (True, False, True)
    assert not found.breaks


def test_a_right_answer_and_no_answer_are_no_break(network):
    x, y = image(0.2, 0.2, 0.2, 0.2), torch.tensor([0])
    assert not verify(network, x, x + 0.1, y, ThreatModel("linf", 0.5)).wrong
    with torch.no_grad():
        network[1].weight.fill_(torch.nan)
    assert not verify(network, x, x + 0.1, y, ThreatModel("linf", 0.5)).wrong


def test_each_example_is_judged_alone(network):
    x = torch.full((70, 1, 2, 2), 0.4)
    steps = torch.linspace(0, 0.31, 70)[:, None, None, None]
    found = verify(network, x, x + steps, torch.zeros(70).long(), ThreatModel("linf", 0.2))
    moved = steps.flatten()
    assert torch.equal(found.breaks, (moved > 0.1) & (moved <= 0.2))
