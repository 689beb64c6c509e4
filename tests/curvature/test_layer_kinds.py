"""Every kind of layer against dense Hessians."""

import math

import pytest
import torch
from support.dense import dense_block
from support.networks import warmed
from torch import nn
from torch.nn import functional as F

from robaudit.curvature import layer_traces
from robaudit.errors import NotMeasuredError


class Pooled(nn.Module):
    """Images through some layers, then the mean over positions: ``(n, 3)`` logits."""

    def __init__(self, *layers, shape=(2, 6, 6)):
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.shape = shape

    def forward(self, x):
        return self.body(x.reshape(len(x), *self.shape)).flatten(2).tanh().mean(2)


class Shared(nn.Module):
    """One weight in two branches that are added: piecewise linear. ``deep``: one after another."""

    def __init__(self, deep, activation=F.relu):
        super().__init__()
        self.a = nn.Conv2d(2, 2, 3, padding=1)
        self.b = nn.Conv2d(2, 2, 3, padding=2, dilation=2)
        self.b.weight = self.a.weight
        self.head = nn.Linear(2, 3)
        self.deep, self.activation = deep, activation

    def forward(self, x):
        first = self.activation(self.a(x))
        second = self.activation(self.b(first if self.deep else x))
        return self.head((second if self.deep else first + second).mean((2, 3)))


def up(kind, *args, **options):
    return {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[kind](
        *args, **options
    )


def linear_networks():
    networks = {
        "conv3d": [nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, 2, padding=1, stride=(1, 2, 3))],
        "conv3d-groups": [
            nn.Unflatten(2, (2, 3)), nn.Conv3d(2, 4, (2, 3, 2), groups=2, dilation=(1, 1, 2)),
        ],
        "transposed-1d": [nn.Flatten(2), up(1, 2, 3, 4, stride=3, padding=2, output_padding=1)],
        "transposed-2d": [up(2, 2, 3, (3, 2), stride=2, padding=1, output_padding=1)],
        "transposed-groups": [
            up(2, 2, 4, 3, stride=2, groups=2, dilation=3, output_padding=2, bias=False),
        ],
        "transposed-3d": [nn.Unflatten(1, (1, 2)), up(3, 1, 2, 2, stride=(1, 2, 2))],
        "depthwise-1d": [nn.Flatten(2), nn.Conv1d(2, 4, 5, groups=2, dilation=2, stride=3)],
    }  # fmt: skip
    made = {}
    for name, layers in networks.items():
        torch.manual_seed(0)
        model = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
        model(torch.zeros(1, 2, 6, 6))
        made[name] = model
    return made


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(4, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1])


def dense_trace(model, x, y, layer):
    return dense_block(model, x, y, f"{layer}.weight").trace().item()


@pytest.mark.parametrize("name", linear_networks())
def test_exact_traces_equal_the_dense_hessian(name, batch):
    model = warmed(linear_networks()[name], (2, 6, 6))
    found = layer_traces(model, *batch)
    assert found.estimator == "exact"
    assert found.uncovered == ()
    assert len(found.layers) == 2
    for layer, trace in found.layers.items():
        assert trace.trace == pytest.approx(dense_trace(model, *batch, layer), rel=1e-10), layer


def smooth_networks():
    torch.manual_seed(0)
    return {
        "conv3d": Pooled(nn.Conv3d(1, 3, 2, stride=2), shape=(1, 2, 6, 6)),
        "shared-branches": Shared(deep=False, activation=torch.tanh),
        "shared-in-turn": Shared(deep=True, activation=torch.tanh),
        "shared-in-turn-relu": Shared(deep=True),
    }  # fmt: skip


@pytest.mark.parametrize("name", smooth_networks())
def test_output_probes_are_unbiased(name, batch):
    """Mean of 4000 probes an example within 4.5 standard errors of the dense trace.

    With at most 2 layers a network the false-alarm rate is below 2e-5 a network.
    """
    model = warmed(smooth_networks()[name], (2, 6, 6))
    x, y = batch
    copies = 400
    found = layer_traces(
        model, x.repeat(copies, 1, 1, 1), y.repeat(copies), estimator="hessian", probes=10
    )
    grouped = found.per_example.reshape(copies, len(x), -1)
    error = (grouped.var(0).sum(0) / copies).sqrt() / len(x)
    for (layer, trace), spread in zip(found.layers.items(), error.tolist(), strict=True):
        dense = dense_trace(model, x, y, layer)
        assert abs(trace.trace - dense) < 4.5 * spread + 1e-12, layer


@pytest.mark.parametrize("deep", [False, True])
def test_a_shared_weight_sums_its_gradients(deep, batch):
    """Exact Gauss-Newton trace of a weight in two modules, with the Jacobian written out."""
    model = warmed(Shared(deep), (2, 6, 6))
    x, y = batch
    found = layer_traces(model, x, y, estimator="exact")
    assert list(found.layers) == ["a", "head"]
    assert found.uncovered == ()
    want = 0.0
    for image in x:
        logits = model(image[None])[0]
        jacobian = torch.stack(
            [torch.autograd.grad(z, model.a.weight, retain_graph=True)[0].flatten() for z in logits]
        )
        p = logits.softmax(0)
        want += float((jacobian.T @ (p.diag() - p.outer(p)) @ jacobian).trace().detach()) / len(x)
    assert found.layers["a"].trace == pytest.approx(want, rel=1e-10)


def test_branches_that_share_a_weight_are_exactly_the_hessian(batch):
    """Both uses see the input: the network is piecewise linear in the weight, and found so."""
    model = warmed(Shared(deep=False), (2, 6, 6))
    found = layer_traces(model, *batch)
    assert (found.quantity, found.estimator, found.bent) == ("hessian", "exact", ())
    for layer in ("a", "head"):
        want = dense_trace(model, *batch, layer)
        assert found.layers[layer].trace == pytest.approx(want, rel=1e-10)


def test_a_weight_used_twice_in_turn_is_bent(batch):
    found = layer_traces(warmed(Shared(deep=True), (2, 6, 6)), *batch)
    assert found.estimator == "hessian"
    assert found.bent == ("layer a is called more than once",)


def test_attention_is_measured_and_what_is_never_used_is_left_out(batch):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(12, 6)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.head = nn.Linear(6, 3)
            self.spare = nn.Linear(6, 3)

        def forward(self, x):
            tokens = self.embed(x.transpose(1, 2).flatten(2))
            return self.head((tokens + self.attention(tokens, tokens, tokens)[0]).mean(1))

    torch.manual_seed(0)
    model = Mixed().double()
    for estimator in ("hessian", "exact", "gauss-newton"):
        found = layer_traces(model, *batch, estimator=estimator)
        assert list(found.layers) == [
            "embed", "attention.in_proj_weight", "attention.out_proj", "head",
        ]  # fmt: skip
        assert found.uncovered == ()
        assert found.idle == ("spare",)
        assert found.layers["attention.in_proj_weight"].trace != 0
        assert math.isfinite(found.total)


def test_functions_and_custom_gradients_are_not_missed(batch):
    """No smooth module is there to be seen: only the numbers tell."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            ctx.save_for_backward(a)
            return a**3

        @staticmethod
        def backward(ctx, g):
            (a,) = ctx.saved_tensors
            return 3 * a**2 * g

    class Bent(nn.Module):
        def __init__(self, activation):
            super().__init__()
            self.body, self.head, self.activation = nn.Linear(72, 4), nn.Linear(4, 3), activation

        def forward(self, x):
            return self.head(self.activation(self.body(x.flatten(1))))

    torch.manual_seed(0)
    for activation in (F.silu, Cube.apply, torch.tanh):
        found = layer_traces(Bent(activation).double(), *batch)
        assert found.estimator == "hessian"
        assert found.bent == ("the network is curved in the output of layer body",)
    assert layer_traces(Bent(F.hardtanh).double(), *batch).bent == ()
    with pytest.raises(NotMeasuredError, match="gradient in the weights is not its derivative"):
        layer_traces(Bent(lambda a: a * a.sigmoid().detach() * a).double(), *batch)
