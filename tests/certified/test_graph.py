"""Graphs against the networks that they are read from."""

import copy

import pytest
import torch
from support.identified import KNOWN, NETWORKS, REAL
from support.networks import Applied, piecewise_linear
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.transforms import Normalize

from robaudit.certified.graph import graph_of
from robaudit.checkpoints import Classifier, Origin, load, samples_dir
from robaudit.checkpoints.architectures import residual_families as families
from robaudit.checkpoints.architectures.convolutional import mobilenet_v2, vgg
from robaudit.checkpoints.normalization import NORMALIZATIONS
from robaudit.engine import straight_through

SHAPE = (3, 8, 8)


def seeded(make):
    """A network with random weights and statistics of batch norm that are not the initial ones."""
    torch.manual_seed(0)
    network = make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -1, 1)
                nn.init.uniform_(module.bias, -1, 1)
    return network


def dense(inputs, outputs=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Dropout(), *dense(64)
    )


def pre_activated():
    """A pre-activation block: batch norm and ReLU before the convolution and its shortcut."""
    first = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(inplace=True))

    def function(first, conv, shortcut, head, x):
        x = first(x)
        y = conv(x)
        y += shortcut(x)
        return head(y.relu_())

    convs = nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.Conv2d(3, 4, 1, 2, bias=False)
    return Applied(function, first, *convs, dense(64))


def densely_connected():
    def function(one, two, head, x):
        x = torch.cat([x, F.relu(one(x))], 1)
        x = torch.cat([x, F.relu(two(x))], 1)
        return head(F.avg_pool2d(x, 2))

    return Applied(function, nn.Conv2d(3, 2, 3, 1, 1), nn.Conv2d(5, 2, 3, 1, 1), dense(112))


def padded_shortcut():
    """The parameter-free shortcut of the CIFAR ResNets: strided, its new channels zero."""

    def function(conv, head, x):
        pad = x.new_zeros(len(x), 1, 4, 4)
        return head((conv(x) + torch.cat([x[:, :, ::2, ::2], pad], 1)).relu())

    return Applied(function, nn.Conv2d(3, 4, 3, 2, 1), dense(64))


def used_twice():
    return Applied(
        lambda conv, act, head, x: head(act(conv(act(conv(x))))),
        *(nn.Conv2d(3, 3, 3, padding=1), nn.PReLU(3), dense(192)),
    )


def in_parts(kind):
    network = convolutional()
    if kind == "old":
        weight_norm(network[0])
        spectral_norm(network[-1])
    else:
        parametrizations.weight_norm(network[0])
        parametrizations.spectral_norm(network[-1])
    return network


def pruned():
    network = convolutional()
    prune.l1_unstructured(network[0], "weight", 0.5)
    network(torch.rand(2, *SHAPE))
    return network


def classifier(normalization="cifar10"):
    origin = Origin("x.pt", None, "torch-zip", "net", "a test", normalization, 1)
    return Classifier(convolutional(), NORMALIZATIONS.get(normalization), origin)


MADE = {
    "convolutions": convolutional,
    "residual": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), BasicBlock(4, 4), *dense(36)
    ),
    "bottleneck": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Bottleneck(4, 1), *dense(144)),
    "pre-activated": pre_activated,
    "densely connected": densely_connected,
    "padded shortcut": padded_shortcut,
    "batch norm without weights": lambda: nn.Sequential(
        nn.BatchNorm2d(3, affine=False), nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 3)
    ),
    "groups and dilation": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3, dilation=2), nn.LeakyReLU(), nn.Conv2d(6, 4, 2), *dense(36)
    ),
    "padding modes": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, dilation=2, padding="same", padding_mode="replicate"),
        nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"), *dense(128),
    ),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 2, 3, 2, 1, 1), *dense(512)),
    "max pooling": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1), *dense(36)),
    "saturating": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.Sigmoid(), nn.Conv2d(4, 4, 2), nn.Tanh(), *dense(16)
    ),
    "clamped": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU6(), nn.Hardtanh(), nn.Hardsigmoid(), *dense(36)
    ),
    "no layers but linear ones": lambda: dense(192),
    "one logit": lambda: dense(192, 1),
    "used twice": used_twice,
    "mean over the map": lambda: Applied(
        lambda conv, head, x: head(conv(x).relu().mean((2, 3))), nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
    ),
    "a constant": lambda: Applied(lambda x: x.new_ones(len(x), 3)),
    "weight norm and spectral norm": lambda: in_parts("new"),
    "weight norm and spectral norm by hooks": lambda: in_parts("old"),
    "pruned": pruned,
    "classifier": classifier,
    "classifier of images as they are": lambda: classifier("none"),
    "classifier of a parallel network": lambda: nn.DataParallel(classifier()),
    "parallel and compiled parts": lambda: nn.Sequential(
        nn.DataParallel(nn.DataParallel(nn.Conv2d(3, 4, 3))), torch.compile(dense(144))
    ),
    "straight through": lambda: straight_through(convolutional(), ["1"]),
    "TorchScript": lambda: torch.jit.script(convolutional().eval()),
    "TorchScript by tracing": lambda: torch.jit.trace(
        convolutional().eval(), torch.rand(2, *SHAPE)
    ),
    "TorchScript frozen": lambda: torch.jit.freeze(torch.jit.script(convolutional().eval())),
    "torchvision's normalisation": lambda: nn.Sequential(
        Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.2)), *dense(192)
    ),
    "ensemble": lambda: Applied(
        lambda one, other, x: torch.stack([one(x), other(x)]).mean(0), convolutional(), dense(192)
    ),
    "largest of an ensemble": lambda: Applied(
        lambda one, other, x: torch.stack([one(x), other(x)]).max(0).values + one(x),
        *(convolutional(), dense(192)),
    ),
    "changes its images": lambda: Applied(
        lambda head, x: head(x.sub_(0.5).div_(0.25).relu_()), dense(192)
    ),
    "counts its calls": lambda: Counter(),
    "single precision inside": lambda: Applied(
        lambda head, x: head(x.to(torch.float32).to(x.dtype)), dense(192)
    ),
    "single precision only": lambda: Applied(
        lambda x: F.linear(x.flatten(1).float(), torch.linspace(-1, 1, 576).view(3, 192))
    ),
}  # fmt: skip


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = dense(192)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        return self.head(x)


def agree(network, shape=SHAPE, rounded=False):
    graph = graph_of(network, shape)
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        if rounded:
            wanted, tolerance = network.eval()(x.float()).double(), 1e-5
        else:
            wanted, tolerance = copy.deepcopy(network).double().eval()(x.clone()), 1e-9
        torch.testing.assert_close(graph(x), wanted, rtol=tolerance, atol=tolerance)
    assert graph.nodes[0].kind == "input"
    assert graph.nodes[0].shape == shape
    assert graph.nodes[-1].shape == wanted.shape[1:]
    return graph


@pytest.mark.parametrize("name", MADE)
def test_logits_are_the_networks(name):
    # Weights that are computed from others are rounded to float32, as the network has them.
    rounded = any(
        word in name for word in ("weight norm", "pruned", "single", "frozen", "torchvision")
    )
    graph = agree(seeded(MADE[name]), rounded=rounded)
    values = []
    x = torch.rand(2, *SHAPE).double()
    for node in graph.nodes:
        values.append(x if node.kind == "input" else node(*(values[i] for i in node.inputs)))
        assert values[-1].shape == (2, *node.shape)
        assert all(i < len(values) - 1 for i in node.inputs)


@pytest.mark.parametrize("name", piecewise_linear())
def test_small_networks_of_other_tests(name):
    agree(piecewise_linear()[name].float(), (2, 6, 6))


ARCHITECTURES = {
    "resnet": lambda: families.resnet(18, classes=4),
    "cifar_resnet": lambda: families.cifar_resnet(20, classes=4),
    "preact_resnet": lambda: families.preact_resnet(18, classes=4),
    "wide_resnet": lambda: families.wide_resnet(10, classes=4),
    "vgg": lambda: vgg(plan="8-M-16-M", classes=4),
    "mobilenet_v2": lambda: mobilenet_v2(classes=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_built_in_architectures(name):
    agree(seeded(ARCHITECTURES[name]), (3, 32, 32))


def test_samples():
    agree(load(samples_dir() / "robust.pt", device="cpu"), (1, 8, 8))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="ROBAUDIT_REAL_DATA is not set")
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.file)
def test_published_networks(known):
    arch = f"{NETWORKS}:{known.factory}" if known.factory else None
    path = REAL / "checkpoints" / known.file
    found = load(path, arch=arch, normalize=known.truth, device="cpu", guess=True)
    agree(found, (1, 28, 28) if known.data.startswith("mnist") else (3, 32, 32))


def test_network_is_left_as_it_was():
    network = seeded(MADE["residual"]).train()
    before = copy.deepcopy(network.state_dict())
    graph_of(network, SHAPE)
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_random_state_is_left_as_it_was():
    network = dense(192)
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    graph_of(network, SHAPE)
    assert torch.equal(torch.rand(1), wanted)


def test_graph_is_not_changed_with_the_network():
    network = seeded(MADE["convolutions"]).eval()
    graph = graph_of(network, SHAPE)
    x = torch.rand(2, *SHAPE).double()
    before = graph(x)
    with torch.no_grad():
        network[0].weight.zero_()
    assert torch.equal(graph(x), before)


def test_identities_leave_no_nodes():
    graph = graph_of(nn.Sequential(nn.Identity(), nn.Dropout(), *dense(192)), SHAPE)
    assert [node.kind for node in graph.nodes] == ["input", "affine", "affine"]


def test_nodes_are_named_by_their_modules():
    graph = graph_of(MADE["residual"](), SHAPE)
    relus = [node.name for node in graph.nodes if node.kind == "relu"]
    assert relus == ["2", "3.relu", "3.relu"]
    assert (graph.nodes[0].name, graph.nodes[1].name, graph.nodes[-1].name) == ("image", "0", "5")


def test_log_softmax_of_the_logits_is_dropped():
    torch.manual_seed(0)
    network = dense(192)
    origin = Origin("x.pt", None, "torch-zip", "net", "a test", "none", 1)
    ending = nn.Sequential(network, nn.LogSoftmax(1), nn.Flatten())
    x = torch.rand(3, *SHAPE).double()
    for whole in (ending, Classifier(ending, None, origin)):
        graph = graph_of(whole, SHAPE)
        torch.testing.assert_close(graph(x), copy.deepcopy(network).double()(x))


def test_networks_of_torch_script_have_the_same_nodes():
    network = convolutional().eval()
    scripted = graph_of(torch.jit.script(network), SHAPE)
    kinds = [type(node.operator) for node in graph_of(network, SHAPE).nodes]
    assert [type(node.operator) for node in scripted.nodes] == kinds


class Standardised(nn.Conv2d):
    """Weight standardisation, computed at each call."""

    def forward(self, x):
        spread, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / spread, self.bias)


def test_constants_are_those_that_the_network_computes_in_float32():
    torch.manual_seed(0)
    layer = Standardised(3, 4, 3)
    graph = graph_of(nn.Sequential(layer, *dense(144)), SHAPE)
    spread, mean = torch.std_mean(layer.weight, (1, 2, 3), keepdim=True)
    wanted = ((layer.weight - mean) / spread).detach()
    found = graph.nodes[1].operator.weight
    assert torch.equal(found, found.float().double())
    torch.testing.assert_close(found, wanted.double(), rtol=1e-6, atol=1e-7)


def test_in_single_precision():
    network = seeded(MADE["residual"]).eval()
    single = graph_of(network, SHAPE).to(torch.float32, "cpu")
    x = torch.rand(3, *SHAPE)
    assert single(x).dtype == torch.float32
    torch.testing.assert_close(single(x), network(x), rtol=1e-4, atol=1e-5)


def test_graph_is_differentiable():
    network = seeded(MADE["convolutions"]).eval()
    graph = graph_of(network, SHAPE)
    x = torch.rand(2, *SHAPE).double().requires_grad_()
    (found,) = torch.autograd.grad(graph(x)[:, 0].sum(), x)
    (wanted,) = torch.autograd.grad(copy.deepcopy(network).double()(x)[:, 0].sum(), x)
    torch.testing.assert_close(found, wanted)
