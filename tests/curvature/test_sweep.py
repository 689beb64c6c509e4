"""The batched backward sweep against autograd, column by column."""

import pytest
import torch
from support.networks import piecewise_linear, smooth, warmed
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from robaudit.curvature.exact import _squared_norms, gauss_newton_traces
from robaudit.curvature.layers import find_layers, recording
from robaudit.curvature.linear_pieces import linear_pieces
from robaudit.curvature.sweep import Sweep


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b, a + b

    @staticmethod
    def backward(ctx, g, h):
        a, b = ctx.saved_tensors
        return g * b + h, g * a + h


class Odd(nn.Module):
    """Operators with several inputs or outputs, broadcasting, and a Python autograd Function."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 6, 3, stride=2)
        self.c = nn.Linear(6, 3)
        self.unused = nn.Linear(6, 3)

    def forward(self, x):
        a = self.a(x)
        left, right = a.split(2, dim=1)
        gate = torch.cat([right.sigmoid(), F.max_pool2d(left, 3, 1, 1)], 1)
        a = torch.add(a, gate, alpha=2) + a.mean((2, 3), keepdim=True)
        b = self.b(F.leaky_relu(a, 0.1)).relu_()
        h = b.amax((2, 3))
        first, _ = Square.apply(h, h.flip(1))
        self.unused(h)
        return torch.addmm(self.c(first), first, self.c.weight.T, alpha=0.5)


class Transposed(nn.Module):
    def __init__(self, convolution, up):
        super().__init__()
        self.convolution, self.up = convolution, up

    def forward(self, x):
        x = x if isinstance(self.convolution, nn.Conv2d) else x[:, :, None]
        return self.up(self.convolution(x).relu()).flatten(2).mean(2)


NETWORKS = {
    **piecewise_linear(),
    **smooth(),
    "odd": Odd(),
    "transposed": Transposed(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 3), groups=2),
        nn.ConvTranspose2d(4, 6, 3, stride=3, padding=1, output_padding=2, dilation=2, groups=2),
    ),
    "volume": Transposed(nn.Conv3d(2, 4, (1, 3, 3), stride=2), nn.ConvTranspose3d(4, 3, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_sweep_equals_autograd(name):
    torch.manual_seed(1)
    model = warmed(NETWORKS[name], (2, 6, 6)).requires_grad_(False)
    x = torch.rand(5, 2, 6, 6, dtype=torch.float64)
    with torch.enable_grad(), recording(find_layers(model)) as record:
        logits = model(x)
    outputs = record.all_outputs()
    columns = torch.randn(4, *logits.shape, dtype=torch.float64)
    found = {}

    def deliver(at, gradient):
        assert at not in found
        found[at] = gradient

    with torch.no_grad():
        Sweep(logits, outputs)(columns, deliver)
    for column in range(4):
        want = torch.autograd.grad(
            logits, outputs, columns[column], retain_graph=True, allow_unused=True
        )
        for at, gradient in enumerate(want):
            if gradient is None:
                assert at not in found
            else:
                torch.testing.assert_close(found[at][column], gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("T", [1, 4, 40])
def test_either_way_to_the_norms_is_the_sum_over_written_gradients(T, groups):
    """Few positions are cheaper by Gram matrices, many by the product itself."""
    torch.manual_seed(0)
    a = torch.randn(2, groups, 5, T, dtype=torch.float64)
    g = torch.randn(4, 2, groups, 6, T, dtype=torch.float64)
    want = torch.einsum("ngpt,cngdt->cngpd", a, g).square().sum((0, 2, 3, 4))
    grams = {}
    for _ in range(2):
        found = _squared_norms(a, g, grams, "layer")
        torch.testing.assert_close(found, want, rtol=1e-12, atol=0)
    assert bool(grams) is (T < 40)


def test_no_gradient_is_taken_in_the_images():
    """One adjoint for each convolution but the first, whose input no weight comes before."""

    class Adjoints(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            transposed = function is torch.ops.aten.convolution.default and args[6]
            self.count += transposed or function is torch.ops.aten.convolution_backward.default
            return function(*args, **(kwargs or {}))

    model = warmed(
        nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2),
            nn.Flatten(),
        ),
        (2, 6, 6),
    ).requires_grad_(False)  # fmt: skip
    with Adjoints() as adjoints:
        gauss_newton_traces(
            model,
            find_layers(model),
            torch.rand(2, 2, 6, 6, dtype=torch.float64),
            lambda logits: torch.eye(3).double()[:, None].expand(3, *logits.shape),
            3,
        )
    assert adjoints.count == 2


def test_pooling_in_channels_last_memory_is_known_to_be_linear():
    """Else every chunk of a ResNet would be differentiated twice to find that out."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip
    x = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    out = model[0](x)
    logits = model[1:](out)
    steps = list(Sweep(logits, [out]).steps())
    assert any(node.name().startswith("AsStrided") for node, _ in steps)
    assert linear_pieces(steps)
