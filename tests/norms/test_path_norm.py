"""The path norm against an enumeration of all paths, its invariance, and what it refuses."""

import copy
import itertools

import pytest
import torch
from support.networks import Residual, smooth, warmed
from support.rescaled import batch_norm_rescaled, layer_rescaled, neuron_rescaled, relu_network
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from robaudit.errors import NotMeasuredError
from robaudit.norms import path_norm


class Stage:
    """A layer written out: ``units -> matrix @ units + bias``, and whether its edges are paths."""

    def __init__(self, layer, shape):
        size = int(torch.tensor(shape).prod())
        basis = torch.eye(size, dtype=torch.float64).view(size, *shape)
        if isinstance(layer, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
            # an edge wherever a single raised unit raises the output
            self.matrix = layer(basis).flatten(1).T.clamp(0, 1)
            self.bias = torch.zeros(len(self.matrix), dtype=torch.float64)
        else:
            self.bias = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
            self.matrix = layer(basis).flatten(1).T - self.bias[:, None]
        self.shape = layer(basis[:1]).shape[1:]


def enumerated(layers, shape):
    """``sum over paths of prod w^2``: every path is walked on its own."""
    stages = []
    for layer in layers:
        if not isinstance(layer, nn.ReLU | nn.LeakyReLU):
            stages.append(Stage(layer, shape))
            shape = stages[-1].shape
    found = []

    def walk(at, unit, product):
        if at == len(stages):
            found.append(product**2)
            return
        for out, weight in enumerate(stages[at].matrix[:, unit].tolist()):
            if weight:
                walk(at + 1, out, product * weight)

    for pixel in range(stages[0].matrix.shape[1]):
        walk(0, pixel, 1.0)
    for at, stage in enumerate(stages):
        for unit, bias in enumerate(stage.bias.tolist()):
            walk(at + 1, unit, bias)
    return sum(found), len(found)


def linear(*sizes):
    pairs = itertools.pairwise(sizes)
    return [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())][:-1]


CHAINS = {
    "linear": [nn.Flatten(), *linear(9, 4, 3, 2)],
    "stride-padding": [
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.LeakyReLU(0.1), nn.Flatten(), *linear(8, 2)
    ],
    "average": [
        nn.Conv2d(1, 2, 2), nn.ReLU(), nn.AvgPool2d(2, stride=1, padding=1), nn.Flatten(),
        *linear(18, 2),
    ],
    "average-borders": [
        nn.AvgPool2d(2, padding=1, ceil_mode=True, count_include_pad=False), nn.Conv2d(1, 2, 2),
        nn.ReLU(), nn.Flatten(), *linear(2, 2),
    ],
    "maximum": [
        nn.Conv2d(1, 2, 2, bias=False), nn.ReLU(), nn.MaxPool2d(2, stride=1, padding=1),
        nn.Flatten(), *linear(18, 2),
    ],
    "adaptive": [
        nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), *linear(8, 2)
    ],
    "adaptive-maximum": [
        nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool2d((1, 2)), nn.Flatten(), *linear(4, 2)
    ],
    "circular": [
        nn.Conv2d(1, 2, 2, padding=1, padding_mode="circular"), nn.ReLU(), nn.Flatten(),
        *linear(32, 2),
    ],
    "transposed": [nn.ConvTranspose2d(1, 2, 2), nn.ReLU(), nn.Flatten(), *linear(32, 2)],
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_it_is_the_sum_over_enumerated_paths(name):
    torch.manual_seed(0)
    model = nn.Sequential(*CHAINS[name]).double().eval()
    total, many = enumerated(list(model), (1, 3, 3))
    assert many > 50
    x = torch.rand(2, 1, 3, 3, dtype=torch.float64)
    assert path_norm(model, x).value == pytest.approx(total**0.5, rel=1e-12)


def test_a_batch_norm_is_part_of_the_layer_before_it():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), *linear(8, 2)]
    model = warmed(nn.Sequential(*layers), (1, 3, 3))
    x = torch.rand(2, 1, 3, 3, dtype=torch.float64)
    joined = nn.Sequential(model[:2], model[2:])
    total, _ = enumerated([joined[0], *joined[1]], (1, 3, 3))
    found = path_norm(model, x)
    assert found.value == pytest.approx(total**0.5, rel=1e-10)
    assert found.folded == 1
    # before a layer it is a layer of its own
    first = warmed(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 2), nn.Flatten()), (1, 3, 3))
    total, _ = enumerated(list(first), (1, 3, 3))
    assert path_norm(first, x).value == pytest.approx(total**0.5, rel=1e-10)


def test_branches_add_their_paths_and_constants_are_weights():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 3, bias=False)

        def forward(self, x):
            x = (x.flatten(1) - 0.5) / 0.25
            out = F.relu(self.a(x), inplace=True)
            out += x
            return self.b(torch.cat([out, 3 * out], 1)[:, 2:6])

    torch.manual_seed(0)
    model = Branches().double()
    a, b = (layer.weight.detach().square() for layer in (model.a, model.b))
    image = torch.full((4,), 1 + 0.25, dtype=torch.float64) / 0.0625
    out = a @ image + image
    total = (b @ torch.cat([out, 9 * out])[2:6]).sum()
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    found = path_norm(model, x)
    assert found.value == pytest.approx(float(total) ** 0.5, rel=1e-12)
    assert found.log == pytest.approx(float(total.log()) / 2)


@pytest.mark.parametrize("inplace", [True, False])
def test_what_is_written_in_place_is_what_the_network_writes(inplace):
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            x = 2 * x.flatten(1)
            out = F.relu(x, inplace=inplace)
            out += 3
            out.mul_(5)
            return self.a(out + x)

    torch.manual_seed(0)
    model = Writing().double()
    moved = 25 * (4 + 9)  # of the copy; where there is none x itself has moved
    want = model.a.weight.detach().square().sum() * (moved + (moved if inplace else 4))
    found = path_norm(model, torch.rand(2, 1, 2, 2, dtype=torch.float64))
    assert found.value == pytest.approx(float(want) ** 0.5, rel=1e-12)


def test_a_residual_network_is_the_sum_of_its_unrolled_paths():
    model = warmed(Residual(), (2, 6, 6))
    x = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    stem = Stage(nn.Sequential(model.stem, model.norm), (2, 6, 6))
    conv, pool = Stage(model.conv, (4, 6, 6)), Stage(nn.AvgPool2d(6), (4, 6, 6))
    u = stem.matrix.square().sum(1) + stem.bias.square()
    u = u + conv.matrix.square() @ u + conv.bias.square()
    u = model.head.weight.square() @ (pool.matrix.square() @ u) + model.head.bias.square()
    assert path_norm(model, x).value == pytest.approx(float(u.sum().detach()) ** 0.5, rel=1e-10)


def test_rescaled_networks_have_the_same_norm():
    model = relu_network()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    want = path_norm(model, x).value
    pairs = [("0", "2"), ("2", "6"), ("6", "8")]
    for other in (layer_rescaled(model), *(neuron_rescaled(model, *pair) for pair in pairs)):
        assert path_norm(other, x).value == pytest.approx(want, rel=1e-12)


def test_a_convolution_before_a_batch_norm_may_have_any_scale():
    model, other = batch_norm_rescaled()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    assert path_norm(other, x).value == pytest.approx(path_norm(model, x).value, rel=1e-10)


def test_larger_logits_have_a_larger_norm():
    model = relu_network()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    want = path_norm(model, x).value
    with torch.no_grad():
        model[8].weight.mul_(3)
        model[8].bias.mul_(3)
    assert path_norm(model, x).value == pytest.approx(3 * want, rel=1e-12)


def test_it_depends_on_shapes_and_effective_weights_alone():
    model = relu_network().float()
    x = torch.rand(2, 1, 6, 6)
    want = path_norm(model, x).value
    assert path_norm(model, 0 * x).value == want
    normed = copy.deepcopy(model)
    parametrizations.weight_norm(normed[2])
    assert path_norm(normed, x).value == pytest.approx(want, rel=1e-6)
    assert path_norm(model, x[:1]).value == want


class Gated(nn.Module):
    def forward(self, x):
        x = x.flatten(1)
        return x * x


class Signed(nn.Module):
    def forward(self, x):
        return x.flatten(1).abs()


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (smooth()["silu"], "silu"),
        (smooth()["attention"], "layer_norm"),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.Softmax(1)), "softmax"),
        (nn.Sequential(nn.Flatten(), nn.LeakyReLU(2.0)), "slope above one"),
        (Gated(), "units by units"),
        (Signed(), "abs"),
    ],
)
def test_what_has_no_paths_is_refused(network, named):
    with pytest.raises(NotMeasuredError, match=named):
        path_norm(network, torch.rand(2, 2, 6, 6))


class Holder(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_compiled_part_is_refused():
    net = relu_network().float().requires_grad_(False)
    script = torch.jit.trace(net, torch.rand(2, 1, 6, 6))
    with pytest.raises(NotMeasuredError, match="compiled part"):
        path_norm(Holder(script), torch.rand(2, 1, 6, 6))
