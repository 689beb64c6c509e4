"""Two threads of the CPU, which stand for two devices, have the certificates of one."""

import math

import pytest
import torch
from support.recorders import noted_rounds
from torch import nn

import robaudit as ra
from robaudit.certified import certified_radii, certify, margins
from robaudit.engine import spread

CPU = torch.device("cpu")


@pytest.fixture
def rounds(monkeypatch):
    """How many pieces each round had; a batch is two images."""
    monkeypatch.setattr(margins, "_ELEMENTS", {"cpu": 80})
    return noted_rounds(monkeypatch)


def network():
    torch.manual_seed(4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 3))
    with torch.no_grad():
        net[1].weight.mul_(3)
        net[3].weight.mul_(3)
    return net


def test_bounds_and_branches(rounds):
    x = torch.rand(7, 1, 2, 2, generator=torch.Generator().manual_seed(4))
    y, threat = network()(x).argmax(1), ra.ThreatModel("linf", 0.12)
    told = []

    def found(net, progress=None):
        return certify(net, x, y, threat, splits=100, budget=math.inf, progress=progress)

    alone = found(network())
    assert set(rounds) == {1}
    assert "crown" in alone.method
    assert (alone.splits > 0).sum() > 1
    shared = found(spread(network(), (CPU, CPU)), lambda *done: told.append(done))
    assert 2 in rounds
    assert shared.lower.equal(alone.lower)
    assert (shared.method, shared.splits.tolist()) == (alone.method, alone.splits.tolist())
    assert told == sorted(told)
    assert told[-1] == (7, 7)


def test_radii(rounds):
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(4))
    y = network()(x).argmax(1)
    alone = certified_radii(network(), x, y, "l2", largest=0.3)
    shared = certified_radii(spread(network(), (CPU, CPU)), x, y, "l2", largest=0.3)
    assert 2 in rounds
    assert shared.equal(alone)
    assert len(set(alone.tolist())) > 2
