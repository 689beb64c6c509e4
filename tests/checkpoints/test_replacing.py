"""A hand-written Swish becomes nn.SiLU only where it is the same function."""

import torch
from torch import nn

from robaudit.checkpoints.replacing import replace_swish


class _Function(torch.autograd.Function):
    """As memory-saving code writes it: only the input is kept."""

    @staticmethod
    def forward(ctx, i):
        ctx.save_for_backward(i)
        return i * torch.sigmoid(i)

    @staticmethod
    def backward(ctx, gradient):
        (i,) = ctx.saved_tensors
        s = torch.sigmoid(i)
        return gradient * (s * (1 + i * (1 - s)))


class Swish(nn.Module):
    def forward(self, x):
        return _Function.apply(x)


class InPlaceSwish(nn.Module):
    def forward(self, x):
        return x.mul_(x.sigmoid())


class HardSwish(nn.Module):
    def forward(self, x):
        return x * nn.functional.relu6(x + 3) / 6


class SwishBeta(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * torch.sigmoid(self.beta * x)


class Straight(torch.autograd.Function):
    """Swish's values with another gradient, as a defence might have it."""

    @staticmethod
    def forward(ctx, i):
        return i * torch.sigmoid(i)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class SwishStraight(nn.Module):
    def forward(self, x):
        return Straight.apply(x)


def test_the_same_function_is_replaced_wherever_it_sits():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), Swish(), nn.Sequential(nn.Linear(4, 4), Swish()))
    x = torch.randn(5, 4)
    before = network(x)
    assert replace_swish(network) == 2
    assert isinstance(network[1], nn.SiLU)
    assert isinstance(network[2][1], nn.SiLU)
    torch.testing.assert_close(network(x), before)
    # The point of it: forward-mode derivatives, which the Function lacks.
    torch.func.jvp(network, (x,), (x,))


def test_other_functions_are_left_alone():
    for other in (HardSwish(), SwishBeta(), SwishStraight(), nn.SiLU(), nn.ReLU()):
        network = nn.Sequential(nn.Linear(4, 4), other)
        assert replace_swish(network) == 0
        assert network[1] is other
