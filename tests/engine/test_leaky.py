"""Leaky gradients, against operations that have such a backward pass themselves."""

import copy

import pytest
import torch
from support.attacks import examples, network
from support.recorders import Again
from torch import nn
from torch.nn import functional as F

from robaudit.engine import Runner, accelerate, captured, frozen
from robaudit.engine.leaky import leaky

CPU = torch.device("cpu")


class LeakyBackward(torch.autograd.Function):
    """A clamp that passes a share of the gradient where it is constant."""

    @staticmethod
    def forward(ctx, x, low, high, slope):
        ctx.save_for_backward((x > low) & (x < high))
        ctx.slope = slope
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):
        (on,) = ctx.saved_tensors
        return torch.where(on, gradient, ctx.slope * gradient), None, None, None


class Net(nn.Module):
    """Two convolutions with a switch between and after them."""

    def __init__(self, switch):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3)
        self.head, self.switch = nn.Linear(24, 5), switch

    def forward(self, x):
        z = self.switch(4 * self.first(x))
        return self.head(self.switch(self.second(z)).flatten(1))


SWITCHES = {
    "relu": (torch.relu, (0, torch.inf)),
    "in place": (lambda z: F.relu(z, inplace=True), (0, torch.inf)),
    "threshold": (lambda z: F.threshold(z, 0.0, 0.0), (0, torch.inf)),
    "relu6": (F.relu6, (0, 6)),
    "clamp": (lambda z: z.clamp(-0.5, 0.5), (-0.5, 0.5)),
    "clamp from below": (lambda z: z.clamp(min=0), (0, torch.inf)),
    "clamp from above": (lambda z: z.clamp(max=0.25), (-torch.inf, 0.25)),
}


def first_logit(logits, _):
    return logits[:, 0].square()


@pytest.mark.parametrize("name", SWITCHES)
def test_the_gradient_is_that_of_operations_which_leak(name):
    switch, bounds = SWITCHES[name]
    torch.manual_seed(0)
    model = Net(switch)
    other = copy.deepcopy(model)
    other.switch = lambda z: LeakyBackward.apply(z, *bounds, 0.3)
    x, y = torch.rand(9, 1, 6, 6), torch.zeros(9).long()
    with frozen(model), frozen(other):
        plain, theirs = Runner(model, CPU), Runner(other, CPU)
        soft = leaky(plain, 0.3)
        values, gradient, logits = soft.gradient(first_logit, x, y)
        expected = theirs.gradient(first_logit, x, y)
        own = plain.gradient(first_logit, x, y)
    for got, wanted in zip((values, gradient, logits), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(logits, own[2])
    assert not torch.allclose(gradient, own[1], rtol=0.01)
    assert (soft.forwards, plain.forwards) == (9, 9)


def test_without_a_slope_it_is_the_networks_own_and_with_one_a_relu_is_the_identity():
    torch.manual_seed(0)
    model = Net(torch.relu)
    linear = copy.deepcopy(model)
    linear.switch = lambda z: z
    x, y = torch.rand(5, 1, 6, 6), torch.zeros(5).long()
    with frozen(model), frozen(linear):
        plain, identity = Runner(model, CPU), Runner(linear, CPU)
        own = plain.gradient(first_logit, x, y)[1]
        assert torch.equal(leaky(plain, 0.0).gradient(first_logit, x, y)[1], own)

        def slope(logits, _):  # one that does not depend on the logits, which differ
            return logits[:, 0]

        through = leaky(plain, 1.0).gradient(slope, x, y)[1]
        torch.testing.assert_close(through, identity.gradient(slope, x, y)[1], rtol=1e-5, atol=1e-6)


def test_a_fast_form_leaks_as_its_network_does():
    model = network(classes=10)
    x, y = examples(model, 20)
    with frozen(model):
        form = accelerate(model, x.shape[1:])
        fast = leaky(Runner(form.forward, CPU), 0.2).gradient(first_logit, x, y)
        plain = leaky(Runner(model, CPU), 0.2).gradient(first_logit, x, y)
    torch.testing.assert_close(fast[1], plain[1], rtol=1e-3, atol=1e-5)


def test_a_network_without_a_graph_is_left_alone():
    class Blind(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :5]

    model = Blind()
    with frozen(model):
        soft = leaky(Runner(model, CPU), 0.2)
        assert soft.logits(torch.rand(3, 1, 4, 4)).shape == (3, 5)


def test_recorded_passes_leak_too(monkeypatch):
    recorder = Again()
    monkeypatch.setattr(captured, "recorder_for", lambda device: recorder)
    torch.manual_seed(0)
    model = Net(torch.relu)
    x, y = torch.rand(50, 1, 6, 6), torch.arange(50) % 5
    with frozen(model):
        recorded = leaky(Runner(model, CPU), 0.3)
        plain = leaky(Runner(lambda images: model(images), CPU), 0.3)  # functions are not recorded
        for _ in range(12):
            found, other = (r.gradient(first_logit, x, y) for r in (recorded, plain))
            assert torch.equal(found[1], other[1])
    assert recorder.replayed > 5
