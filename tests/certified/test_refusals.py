"""What is not certifiable, and in which words."""

from typing import List  # noqa: UP035 - TorchScript asks for it

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.certified.graph import graph_of
from robaudit.engine import Voted
from robaudit.errors import NotCertifiableError, NotMeasuredError

SHAPE = (3, 4, 4)
MIXED = "the network mixes the examples of a batch"
OTHER = "the graph gives other logits than the network"


class Applied(nn.Module):
    """A function of the images before a linear layer."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)
        self.head = nn.Linear(48, 4)

    def forward(self, x):
        return self.head(self.function(*self.parts, x).reshape(len(x), -1))


class Counter(nn.Module):
    """Its logits depend on how often it was called."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 4)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.head(x.flatten(1)) * (1 if self.calls < 3 else 2)


class Trained(nn.Module):
    """Switches its batch norm to training mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(48, 4)

    def forward(self, x):
        return self.head(self.norm.train()(x).flatten(1))


def attention(x):
    x = x.flatten(2)
    return F.scaled_dot_product_attention(x, x, x)


def by_hand(x):
    x = x.flatten(2)
    return torch.softmax(x @ x.mT, -1) @ x


def transformer():
    layer = nn.TransformerEncoderLayer(16, 2, 8, batch_first=True, activation="gelu")
    return Applied(lambda layer, x: layer(x.flatten(2)), layer)


def half(x):
    return x.bfloat16().to(x.dtype)


def autocast(layer, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return layer(x).to(x.dtype)


def branching(x):
    return x if x.mean() > 0.5 else -x


class Scripted(nn.Module):
    """A branch of TorchScript."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.mean() > 0.5):
            x = 2 * x
        return self.head(x.flatten(1))


class Listed(nn.Module):
    """TorchScript that reads values without an operation on tensors."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: List[float] = x.flatten().tolist()  # noqa: UP006
        return self.head(x.flatten(1)) * (2.0 if values[0] > 2 else 1.0)


def changing(x):
    return x / len(x)


def doubled(x):
    return 2 * x if len(x) == 3 else x


REFUSED = {
    "attention": (lambda: Applied(attention), "softmax attention"),
    "attention by hand": (
        lambda: Applied(by_hand), "a product of two activations and softmax"
    ),
    "transformer": (transformer, "softmax attention, layer normalisation and GELU"),
    "GELU": (lambda: Applied(F.gelu), "GELU"),
    "SiLU in place": (lambda: Applied(lambda x: F.silu(x + 1, inplace=True)), "SiLU"),
    "ELU": (lambda: Applied(F.elu), "ELU"),
    "softplus": (lambda: Applied(F.softplus), "softplus"),
    "hard swish": (lambda: Applied(F.hardswish), "hard swish"),
    "layer norm": (lambda: Applied(nn.LayerNorm(SHAPE)), "layer normalisation"),
    "group norm": (lambda: Applied(nn.GroupNorm(1, 3)), "group normalisation"),
    "instance norm": (lambda: Applied(nn.InstanceNorm2d(3)), "instance normalisation"),
    "batch norm of the batch": (
        lambda: Applied(nn.BatchNorm2d(3, track_running_stats=False)),
        "batch normalisation by the statistics of each batch",
    ),
    "batch norm in training mode": (
        Trained, "batch normalisation by the statistics of each batch"
    ),
    "softmax": (lambda: nn.Sequential(Applied(lambda x: x), nn.Softmax(1)), "softmax"),
    "log-softmax inside": (
        lambda: nn.Sequential(Applied(lambda x: x), nn.LogSoftmax(1), nn.Linear(4, 4)),
        "log-softmax inside the network",
    ),
    "product": (lambda: Applied(lambda x: x * x.mean(1, True)), "a product of two activations"),
    "square": (lambda: Applied(lambda x: x**2), "a power of activations"),
    "quotient": (lambda: Applied(lambda x: x / x.flip(1)), "a quotient of two activations"),
    "norm": (lambda: Applied(F.normalize), "a norm of activations"),
    "comparison": (
        lambda: Applied(lambda x: torch.where(x > 0.5, x, 0.0)), "a comparison of activations"
    ),
    "jump": (
        lambda: Applied(lambda x: F.threshold(x, 0.5, 0)), "a threshold, which is not continuous"
    ),
    "empty window": (
        lambda: Applied(lambda x: x + F.max_pool2d(x[:, :, :1, :1], 2, 1, 1, 2)),
        "the maximum of a window outside of its map",
    ),
    "sorting": (lambda: Applied(lambda x: x.sort(1).values), "sorting"),
    "rounding": (lambda: Applied(lambda x: (255 * x).round() / 255), "rounding"),
    "integers": (lambda: Applied(lambda x: (9 * x).to(torch.uint8).to(x.dtype)), "a cast to uint8"),
    "half precision": (lambda: Applied(half), "a cast to bfloat16"),
    "autocast": (
        lambda: Applied(autocast, nn.Conv2d(3, 3, 1)), "automatic mixed precision"
    ),
    "float32 by itself": (
        lambda: Applied(lambda x: x if x.dtype == torch.float32 else 2 * x),
        "the network's logits of float32 images differ from those of float64 images",
    ),
    "complex numbers": (lambda: Applied(lambda x: torch.fft.fft2(x).real), "a cast to complex128"),
    "noise": (lambda: Applied(lambda x: x + torch.randn_like(x)), "random numbers"),
    "dropout": (lambda: Applied(lambda x: F.dropout(x, 0.5, True)), "random numbers"),
    "vote": (lambda: Voted(Applied(lambda x: x)), "random numbers"),
    "branch": (
        lambda: Applied(branching),
        "its forward pass branches on values of tensors",
    ),
    "branch in TorchScript": (
        lambda: torch.jit.script(Scripted()),
        "torch.export cannot trace the network",
    ),
    "values read in TorchScript": (
        lambda: torch.jit.script(Listed()), "torch.export cannot trace the network"
    ),
    "values read in Python": (
        lambda: Applied(lambda x: 2 * x if x.flatten().tolist()[0] > 2 else x),
        "its forward pass branches on values of tensors",
    ),
    "members that differ in a batch": (
        lambda: Applied(lambda x: torch.stack([x, 2 * x]).flatten(0, 1)[::2]), MIXED
    ),
    "number": (lambda: Applied(lambda x: x * x.mean().item()), "a product of two activations"),
    "NumPy": (
        lambda: Applied(lambda x: torch.from_numpy(2 * x.detach().numpy())),
        "torch.export cannot trace the network",
    ),
    "mean of the batch": (lambda: Applied(lambda x: x - x.mean(0, True)), MIXED),
    "sum of everything": (lambda: Applied(lambda x: x - x.mean()), MIXED),
    "order of the batch": (lambda: Applied(lambda x: x.flip(0)), MIXED),
    "next of the batch": (lambda: Applied(lambda x: x.roll(1, 0)), MIXED),
    "first of the batch": (lambda: Applied(lambda x: x - x[:1]), MIXED),
    "transposed batch": (lambda: Applied(lambda x: x.transpose(0, 1).contiguous()), MIXED),
    "batch and channels as one": (lambda: Applied(lambda x: x.reshape(-1, 4, 4)), MIXED),
    "a matrix of the batch": (
        lambda: Applied(lambda x: (x.flatten(1).T @ x.new_ones(len(x), len(x))).T), MIXED
    ),
    "constants that differ in a batch": (
        lambda: Applied(lambda x: x + torch.arange(len(x))[:, None, None, None]), MIXED
    ),
    "size of the batch": (lambda: Applied(changing), OTHER),
    "a batch of three": (lambda: Applied(doubled), OTHER),
    "hidden state": (Counter, OTHER),
    "infinite": (lambda: Applied(lambda x: x * torch.inf), OTHER),
    "features": (
        lambda: nn.Conv2d(3, 3, 1),
        "the network's output for 2 images is (2, 3, 4, 4), not logits (n, classes)",
    ),
    "two outputs": (
        lambda: Applied(lambda x: (x, x)),
        "the network does not run on images of shape (3, 3, 4, 4)",
    ),
    "another shape": (
        lambda: nn.Linear(5, 2), "the network does not run on images of shape (3, 3, 4, 4)"
    ),
    "unknown": (lambda: Applied(lambda x: x.cumsum(1)), "the operation cumsum"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name, capfd):
    make, words = REFUSED[name]
    torch.manual_seed(0)
    network = make()
    with pytest.raises(NotCertifiableError) as refused:
        graph_of(network, SHAPE)
    assert str(refused.value) == f"not certifiable: {words}"
    assert isinstance(refused.value, NotMeasuredError)
    assert capfd.readouterr() == ("", "")


def test_a_refused_network_is_left_as_it_was():
    network = Trained().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(NotCertifiableError):
        graph_of(network, SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert network.head.weight.requires_grad


def test_a_graph_may_be_refused_before_it_is_run():
    calls = []

    def accept(graph):
        calls.append(graph.nodes[-1].shape)
        raise ValueError("too large")

    network = Applied(lambda x: x)
    with pytest.raises(ValueError, match="too large"):
        graph_of(network, SHAPE, accept=accept)
    assert calls == [(4,)]
