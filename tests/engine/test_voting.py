"""A network that draws at random, as the classifier that its draws vote for."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from robaudit.attacks import pgd
from robaudit.engine import Voted, draws_at_random, voted
from robaudit.errors import UsageError
from robaudit.types import ThreatModel


class Noisy(nn.Module):
    """A linear layer on images with normal noise."""

    def __init__(self, sigma=0.3):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(16, 5)
        self.sigma = sigma

    def forward(self, x):
        x = x.flatten(1)
        return self.layer(x + self.sigma * torch.randn_like(x))


class Sometimes(Noisy):
    """Draws by NumPy or by Python."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return self.layer(x.flatten(1) + 0.1 * self.draw())


@pytest.fixture
def x():
    return torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def test_only_what_draws_is_wrapped(x):
    plain = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    assert voted(plain, x) is plain
    found = voted(Noisy(), x)
    assert isinstance(found, Voted)
    assert found.samples == 10
    assert isinstance(voted(plain, x, samples=3), Voted)
    with pytest.raises(UsageError, match="at least 1"):
        voted(plain, x, samples=0)


@pytest.mark.parametrize("draw", [np.random.normal, random.random])
def test_draws_by_other_generators_are_noticed_and_seeded(draw, x):
    network = Sometimes(draw)
    assert draws_at_random(network, x)
    first, second = (Voted(network, 4, seed=5)(x) for _ in range(2))
    assert torch.equal(first, second)


def test_one_seed_gives_one_result_and_leaves_no_trace(x):
    numpy = np.random.get_state
    before = torch.random.get_rng_state(), numpy()[1].copy(), random.getstate()
    first = Voted(Noisy(), 10, seed=3)(x)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (numpy()[1] == before[1]).all()
    assert random.getstate() == before[2]
    torch.manual_seed(99)
    assert torch.equal(Voted(Noisy(), 10, seed=3)(x), first)
    assert not torch.equal(Voted(Noisy(), 10, seed=4)(x), first)


class Scripted(nn.Module):
    """Its k-th pass gives the k-th logits of a script."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        self.at = 0
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        self.at += 1
        return self.logits[(self.at - 1) % len(self.logits)].expand(len(x), -1)


def test_the_majority_wins_also_against_the_mean():
    # Two narrow votes for class 0, one sure one for class 1: the mean probability prefers 1.
    script = torch.tensor([[0.1, 0.0, -9.0], [0.1, 0.0, -9.0], [0.0, 9.0, -9.0]])
    found = Voted(Scripted(script), 3)(torch.zeros(2, 1, 2, 2))
    assert script.softmax(1).mean(0).argmax() == 1
    assert found.argmax(1).tolist() == [0, 0]
    # Where they agree the values are the logarithms of the mean probabilities.
    script = torch.tensor([[2.0, 0.0, 1.0], [1.0, 0.5, 0.0]])
    found = Voted(Scripted(script), 2)(torch.zeros(1, 1, 2, 2))
    assert torch.allclose(found[0], script.softmax(1).mean(0).log(), atol=1e-6)


def test_the_gradient_is_that_of_the_average_of_many_draws(x):
    """Of a linear layer's margin every draw has the same gradient, and so has their average."""
    network = Noisy(sigma=0.01)
    leaf = x.clone().requires_grad_()
    logits = Voted(network, 10)(leaf)
    (logits[:, 1] - logits[:, 0]).sum().backward()
    expected = (network.layer.weight[1] - network.layer.weight[0]).detach()
    assert torch.allclose(leaf.grad.flatten(1), expected.expand(40, -1), atol=0.02)
    other = (x + 1e-3).requires_grad_()
    logits = Voted(network, 10)(other)
    (logits[:, 1] - logits[:, 0]).sum().backward()
    assert not torch.equal(other.grad, leaf.grad)  # new draws at a new point


def test_where_nothing_can_move_the_robust_accuracy_is_the_clean_one(x):
    """At eps 1e-9 a float32 image stays where it is; a draw at each step breaks every third."""
    network = Noisy(sigma=0.5)
    x = x[:16]
    y = network.layer(x.flatten(1)).argmax(1)
    threat = ThreatModel("linf", 1e-9)
    for seed in range(2):
        found = pgd(network, x, y, threat, steps=10, seed=seed)
        assert torch.equal(found.robust, found.correct)
        assert torch.equal(pgd(network, x, y, threat, steps=10, seed=seed).robust, found.robust)
    alone = torch.stack([network(x).argmax(1) == y for _ in range(11)]).all(0)
    assert float(alone.float().mean()) < float(found.robust.float().mean()) - 0.2


def test_more_samples_break_what_the_mean_answer_is_broken_by(x):
    """With little noise the voted network is nearly the layer without it."""
    network = Noisy(sigma=0.02)
    y = network.layer(x.flatten(1)).argmax(1)
    plain = nn.Sequential(nn.Flatten(), network.layer)
    threat = ThreatModel("linf", 0.1)
    quiet = pgd(plain, x, y, threat, steps=10).robust
    found = pgd(network, x, y, threat, steps=10).robust
    assert int((quiet != found).sum()) <= 3
