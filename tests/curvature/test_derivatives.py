"""Second derivatives that lie are refused and their module named; right ones pass."""

import math
import types

import pytest
import torch
from support.curved import Detaching, FrozenSlope, Honest, OfSaved, Swish, mlp
from support.dense import dense_block
from torch import nn
from torch.nn import functional as F

from robaudit.audit import Plan, audit
from robaudit.audit.probes import Hessian, Pgd, Wci
from robaudit.curvature import (
    gram_spectrum,
    largest_eigenvalue,
    layer_spreads,
    layer_traces,
    pyhessian,
    spectrum,
    wci,
)
from robaudit.errors import NotMeasuredError
from robaudit.types import Examples, ThreatModel

LYING = {"detaching": Detaching, "of saved tensors": OfSaved}
SECOND = {
    "spectrum": lambda *a: spectrum(*a, top=1, probes=1),
    "relative": lambda *a: spectrum(*a, top=1, probes=1, relative=True),
    "largest": largest_eigenvalue,
    "spreads": layer_spreads,
    "traces": layer_traces,
    "hessian traces": lambda *a: layer_traces(*a, estimator="hessian"),
    "pyhessian": pyhessian,
}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(12, 1, 4, 4), torch.randint(5, (12,))


@pytest.mark.parametrize("measure", SECOND)
@pytest.mark.parametrize("kind", LYING)
def test_a_wrong_second_derivative_is_refused_with_its_module(kind, measure, batch):
    with pytest.raises(NotMeasuredError, match=r"second derivative.*module 'norm' \(Norm\)"):
        SECOND[measure](mlp(LYING[kind]), *batch)


def test_an_activation_of_saved_slopes_is_refused(batch):
    with pytest.raises(NotMeasuredError, match="the forward of MLP"):
        spectrum(mlp(activation=FrozenSlope.apply), *batch, top=1)


@pytest.mark.parametrize("kind", LYING)
def test_wci_takes_gauss_newton_and_says_so(kind, batch):
    """Its traces need the first derivative alone: they are those of the true network."""
    found = wci(mlp(LYING[kind]), *batch)
    assert "module 'norm'" in found.note
    assert "Gauss-Newton" in found.note
    assert found.traces.quantity == "gauss-newton"
    plain = wci(mlp(), *batch, estimator="exact")
    assert found.value == pytest.approx(plain.value, rel=1e-5)
    with pytest.raises(NotMeasuredError, match="second derivative"):
        wci(mlp(LYING[kind]), *batch, estimator="hessian")


def test_gauss_newton_products_ask_for_what_they_need(batch):
    """Of saved tensors the product with the Jacobian is right; without a graph it is none."""
    settings = {"top": 1, "probes": 1, "operator": "gauss-newton"}
    true = spectrum(mlp(), *batch, **settings).largest
    assert spectrum(mlp(OfSaved), *batch, **settings).largest == pytest.approx(true, rel=1e-3)
    with pytest.raises(NotMeasuredError, match=r"Jacobian.*module 'norm'"):
        spectrum(mlp(Detaching), *batch, **settings)


@pytest.mark.parametrize("kind", LYING)
def test_a_whole_gauss_newton_spectrum_needs_gradients_alone(kind, batch):
    """Some functions take no several columns at once."""
    x, _ = batch
    true = gram_spectrum(mlp(), x[:4])
    assert torch.allclose(gram_spectrum(mlp(LYING[kind]), x[:4]), true, rtol=1e-4, atol=1e-6)


SOUND = {
    "layer norm": lambda: mlp(),
    "its own": lambda: mlp(Honest),
    "swish": lambda: mlp(activation=Swish.apply),
    "mish": lambda: mlp(activation=F.mish),
    "silu": lambda: mlp(activation=F.silu),
    "gelu": lambda: mlp(activation=F.gelu),
    "attention": lambda: Attending(),
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4, 5),
    ).eval(),
    "zero biases": lambda: zeroed(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    ),
    "saturated": lambda: nn.Sequential(mlp(), Times(1e4)),
    "float32 alone": lambda: nn.Sequential(nn.Flatten(), Fixed(), nn.SiLU(), nn.Linear(16, 5)),
}  # fmt: skip


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.last = nn.LayerNorm(4), nn.Linear(16, 5)

    def forward(self, x):
        rows = x.flatten(1, 2)
        return self.last(self.norm(rows + self.mix(rows, rows, rows)[0]).flatten(1))


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Fixed(nn.Module):
    """Has no other type than float32."""

    def forward(self, x):
        return x @ torch.ones(16, 16)


def zeroed(network):
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return network


@pytest.mark.parametrize("kind", SOUND)
def test_right_derivatives_pass(kind, batch):
    x, y = batch
    x[:, :, :, :2] = 0  # units that read only these sit on their kink
    model = SOUND[kind]()
    assert math.isfinite(spectrum(model, x, y, top=1, probes=1, steps=10).largest[0])
    assert layer_traces(model, x, y).quantity == "hessian"
    assert wci(model, x, y).note is None or "clearly positive" in wci(model, x, y).note


def test_a_wrong_gradient_in_the_weights_is_refused_by_everything(batch):
    class Tilted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return 1.1 * gradient

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 9), Called(Tilted.apply), nn.Linear(9, 5))
    for measure in (*SECOND.values(), wci, lambda m, x, _: gram_spectrum(m, x[:2])):
        with pytest.raises(NotMeasuredError, match=r"gradient in the weights.*module '2'"):
            measure(model, *batch)


class Called(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_other_weights_or_images_are_looked_at_anew(batch):
    """What was remembered was of the network as it stood."""
    model = mlp()
    assert math.isfinite(spectrum(model, *batch, top=1, probes=1, steps=5).largest[0])
    model.norm.function = OfSaved
    with torch.no_grad():
        model.first.weight *= 1.0
    with pytest.raises(NotMeasuredError, match="second derivative"):
        spectrum(model, *batch, top=1, probes=1, steps=5)


def test_a_report_has_failed_spectra_and_a_gauss_newton_wci(batch):
    x, y = batch
    examples = Examples(x, y, torch.arange(len(x)), "noise", "test", "0" * 64, 5)
    pgd = Pgd(steps=2)
    plan = Plan(probes=(Wci(pgd=pgd), Hessian(pgd=pgd, n=12)))
    report = audit(mlp(OfSaved), examples, ThreatModel("linf", 0.1), plan).report
    failed = report.get("hessian.largest")
    assert failed.status == "failed"
    assert "module 'norm'" in failed.reason
    measured = report.get("wci")
    assert measured.status == "ok"
    assert measured.details["quantity"] == "gauss-newton"
    assert any("Gauss-Newton" in line for line in measured.warnings)


# Linear pieces


def late(bend):
    """Bends only far out, where one image in many comes to."""
    return lambda a: torch.where(a < 3, F.relu(a), 3 + bend(a - 3))


class Late(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.first, self.last, self.activation = nn.Linear(16, 9), nn.Linear(9, 5), activation

    def forward(self, x):
        return self.last(self.activation(self.first(x.flatten(1))))


@pytest.mark.parametrize("where", [0, 11, 39, 63])
def test_an_activation_that_bends_on_one_image_alone_is_not_called_exact(where):
    torch.manual_seed(0)
    model = Late(late(lambda b: b + b * b)).double()
    x, y = 0.1 * torch.rand(64, 1, 4, 4).double(), torch.randint(5, (64,))
    x[where] = 1.0
    with torch.no_grad():
        model.first.weight[0].fill_(0.4)
        model.last.weight[:, 0].mul_(6)
    found = layer_traces(model, x, y, probes=40)
    assert found.bent
    assert (found.quantity, found.estimator) == ("hessian", "hessian")
    exact = layer_traces(model, x, y, estimator="exact")
    assert exact.quantity == "gauss-newton"
    dense = float(dense_block(model, x, y, "first.weight").trace())
    layer = found.layers["first"]
    assert abs(layer.trace - dense) < 5 * layer.standard_error + 1e-6
    assert abs(exact.layers["first"].trace - dense) > 0.01 * abs(dense)


def test_networks_of_known_pieces_need_no_second_derivatives(monkeypatch, batch):
    asked = []
    module = __import__("sys").modules["robaudit.curvature.traces"]
    assert isinstance(module, types.ModuleType)
    ask = module.bent_layers
    monkeypatch.setattr(module, "bent_layers", lambda *a: asked.append(1) or ask(*a))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()  # fmt: skip
    x = torch.rand(70, 1, 8, 8)
    assert layer_traces(model, x, torch.zeros(70).long()).quantity == "hessian"
    assert not asked
