"""Networks drawn at random from all layers that are certifiable, against their graphs."""

import copy
import random

import pytest
import torch
from support.networks import Applied
from torch import nn

from robaudit.certified.graph import graph_of

pytestmark = pytest.mark.slow
SHAPES = [(3, 7, 6), (3, 8, 8), (3, 9, 11)]


def convolution(draw, channels):
    groups = draw.choice([g for g in (1, 2, 3) if channels % g == 0])
    modes = ["zeros", "zeros", "reflect", "circular", "replicate"]
    kernel = draw.randint(1, 4), draw.randint(1, 3)
    sizes = draw.randint(1, 3), draw.randint(0, 2), draw.randint(1, 2)
    return nn.Conv2d(channels, groups * draw.randint(1, 3), kernel, *sizes, groups,
                     bias=draw.random() < 0.5, padding_mode=draw.choice(modes))  # fmt: skip


def batch_norm(draw, channels):
    norm = nn.BatchNorm2d(channels)
    for values in (norm.running_mean, norm.weight, norm.bias):
        nn.init.normal_(values)
    nn.init.uniform_(norm.running_var, 0.1, 2)
    return norm


def prelu(draw, channels):
    layer = nn.PReLU(channels)
    nn.init.normal_(layer.weight)
    return layer


def max_pooling(draw, channels):
    kernel = draw.randint(1, 3)
    sizes = draw.randint(1, 3), draw.randint(0, kernel // 2), draw.randint(1, 2)
    return nn.MaxPool2d(kernel, *sizes, ceil_mode=draw.random() < 0.5)


def average_pooling(draw, channels):
    kernel = draw.randint(1, 3)
    sizes = draw.randint(1, 3), draw.randint(0, kernel // 2)
    return nn.AvgPool2d(kernel, *sizes, draw.random() < 0.5, draw.random() < 0.5)


def adaptive(draw, channels):
    sizes = draw.randint(1, 5), draw.randint(1, 5)
    return draw.choice([nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])(sizes)


def activation(draw, channels):
    slope = draw.uniform(-0.5, 1.5)
    return draw.choice(
        [nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(slope), nn.ReLU6(), nn.Hardsigmoid(),
         nn.Hardtanh(-0.3, 0.7), nn.Sigmoid(), nn.Tanh()]
    )  # fmt: skip


def joining(draw, channels):
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    return draw.choice(
        [
            Applied(lambda conv, x: x + conv(x).relu(), conv),
            Applied(lambda conv, x: torch.cat([x, conv(x)], 1), conv),
            Applied(lambda x: torch.maximum(x, x.flip(3)) - x.mean((2, 3), keepdim=True)),
            Applied(lambda x: x.transpose(2, 3).abs()),
        ]
    )


def resizing(draw, channels):
    return draw.choice(
        [nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear"),
         nn.ConvTranspose2d(channels, 2, draw.randint(1, 3), draw.randint(1, 2))]
    )  # fmt: skip


LAYERS = [convolution, batch_norm, prelu, max_pooling, average_pooling, adaptive, activation]
LAYERS += [convolution, activation, joining, resizing]


def network(seed):
    torch.manual_seed(seed)
    draw = random.Random(seed)
    shape = draw.choice(SHAPES)
    layers, x = [], torch.rand(2, *shape)
    for _ in range(draw.randint(3, 8)):
        layer = draw.choice(LAYERS)(draw, x.shape[1]).eval()
        try:
            y = layer(x.clone())
        except (ValueError, RuntimeError):  # a map that is too small for the layer
            continue
        if 0 < y.numel() < 20_000 and bool(y.isfinite().all()):
            layers.append(layer)
            x = y.detach()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(x[0].numel(), 4)).eval(), shape


@pytest.mark.parametrize(
    "seed", [*range(12), *(pytest.param(s, marks=pytest.mark.slow) for s in range(12, 100))]
)
def test_graph_is_the_network(seed):
    net, shape = network(seed)
    graph = graph_of(net, shape)
    x = torch.rand(4, *shape).double()
    with torch.no_grad():
        wanted = copy.deepcopy(net).double()(x)
        torch.testing.assert_close(graph(x), wanted, rtol=1e-9, atol=1e-9)
    for node in graph.nodes:
        if node.operator is None:
            continue
        u = [torch.rand(2, *size).double() for size in node.operator.inputs]
        a = torch.randn(2, *node.shape).double()
        linear = node.operator(*u) - node.operator(*(torch.zeros_like(v) for v in u))
        pairs = zip(node.operator.adjoint(a), u, strict=True)
        torch.testing.assert_close(sum((p * q).sum() for p, q in pairs), (a * linear).sum())
        assert bool((node.operator.radius(*u) >= linear.abs() - 1e-9).all())
