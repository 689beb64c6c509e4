"""Networks that hide their gradients, and others that only look as if they did.

Each holds an honest network that gradients break; what it says of images is the honest network's
answer, or near it.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def clean(x):
    """The digits' grey levels are multiples of 1/16; attacked images are none."""
    away = (16 * x - (16 * x).round()).abs()
    return away.flatten(1).amax(1) < 1e-4


class Around(nn.Module):
    """A network with something done to its input, to its output, or in its place."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        draw = torch.Generator().manual_seed(3)
        self.register_buffer("tilt", torch.randn(64, 10, generator=draw))

    def linear(self, x):
        return x.flatten(1) @ self.tilt.to(x)


class NotANumber(Around):
    """The outputs are right; the derivative of a square root at nought is infinite."""

    def forward(self, x):
        nothing = (x - x.detach()).abs().sqrt().flatten(1).sum(1, keepdim=True)
        return self.network(x) + 0 * nothing


class OffTheGrid(Around):
    """Honest gradients on clean images alone."""

    def forward(self, x):
        z = self.network(x)
        return torch.where(clean(x)[:, None], z, z.detach() + 0 * z)


class Recognising(Around):
    """Attacked images are answered by a function that is flat."""

    def forward(self, x):
        z = self.network(x)
        coarse = self.network((2 * x).round() / 2).detach()
        return torch.where(clean(x)[:, None], z, coarse + 0 * z)


class Infinite(Around):
    """All other logits are minus infinity on attacked images."""

    def forward(self, x):
        z = self.network(x)
        alone = torch.full_like(z, -math.inf).scatter(1, z.argmax(1, keepdim=True), 0.0)
        return torch.where(clean(x)[:, None], z, alone)


class Refusing(Around):
    """Raises on attacked images."""

    def forward(self, x):
        if not bool(clean(x).all()):
            raise ValueError("no image of mine")
        return self.network(x)


class Rounding(Around):
    """Rounds its input, beside a faint linear term with a gradient that leads nowhere."""

    def forward(self, x):
        return self.network((16 * x).round() / 16) + 1e-4 * self.linear(x)


class Decided(Around):
    """A hard decision, beside a linear term that raises losses and decides nothing."""

    def forward(self, x):
        return 3 * F.one_hot(self.network(x).argmax(1), 10).to(x) + 0.03 * self.linear(x)


class HardOnly(Around):
    """A hard decision alone: constant in the ball around nearly every image."""

    def forward(self, x):
        z = self.network(x)
        return F.one_hot(z.argmax(1), 10).to(z) + 0 * z


class Winners(Around):
    """Only the brightest pixels count."""

    def forward(self, x):
        least = x.flatten(1).topk(20, 1).values[:, -1:]
        return self.network(x * (x >= least[..., None, None]))


def function(backward, forward=None):
    """An identity, or ``forward``, with a gradient of its own making."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone() if forward is None else forward(x)

        @staticmethod
        def backward(ctx, gradient):
            return backward(gradient)

    return Own.apply


def grey(x):
    return (16 * x).round() / 16


def projected(gradient):
    draw = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, 8, generator=draw))[0].to(gradient)
    return (gradient.flatten(1) @ basis @ basis.T).view_as(gradient)


def uneven(gradient):
    draw = torch.Generator().manual_seed(0)
    return gradient * torch.randn(gradient.shape[1:], generator=draw).mul(2).exp().to(gradient)


class Step(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        return self.step(x)


LYING = {
    "turned": function(lambda g: -g, grey),
    "negated": function(lambda g: -g),
    "projected": function(projected),
    "uneven": function(uneven),
    "huge": function(lambda g: 1e15 * g),
    "tiny": function(lambda g: 1e-15 * g),
    "half": function(lambda g: g * (torch.arange(64).view(8, 8) % 2).to(g)),
    "detached": lambda x: x.detach() + 0 * x,
}
FLAT = {"round": grey, "round and nothing": lambda x: grey(x) + 0 * x}
HONEST = {
    "identity": lambda x: x,
    "straight through": function(lambda g: g, grey),
    "half precision": lambda x: x.half().float(),
    "brain floats": lambda x: x.bfloat16().float(),
    "clamp": lambda x: x.clamp(0, 1),
    "float32 alone": lambda x: x @ torch.eye(8),
}
AFTER = {
    "temperature": lambda z: 1e4 * z,
    "probabilities": lambda z: z.softmax(1),
    "log probabilities": lambda z: z.log_softmax(1),
    "half logits": lambda z: z.half(),
    "shift": lambda z: z + 1e3,
    "constant": lambda z: 0 * z + torch.arange(10).to(z),
}


class Behind(nn.Module):
    """A network behind a named step, or before one."""

    def __init__(self, network, before=None, after=None):
        super().__init__()
        self.before = Step(before or (lambda x: x))
        self.network = network
        self.after = Step(after or (lambda z: z))

    def forward(self, x):
        return self.after(self.network(self.before(x)))
