"""Backward passes in bfloat16: the verdict on them, and what they change."""

import pytest
import torch
from support.dense import dense_block
from support.networks import piecewise_linear, smooth, warmed
from torch import nn

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.curvature import layer_traces, wci
from robaudit.curvature.bf16_trial import Bf16Trial
from robaudit.curvature.layers import find_layers, recording
from robaudit.curvature.sweep import Sweep
from robaudit.errors import NotMeasuredError


def traces(n=64, seed=0):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heard(trial, exact, rounded, size=8):
    for part, coarse in zip(exact.split(size), rounded.split(size), strict=True):
        trial.compare(part, lambda dtype, coarse=coarse: coarse)
    return trial


@pytest.mark.parametrize("share", [0.05, -0.05, 0.2, -0.2])
def test_rounding_is_measured_against_the_error_of_all_images(share):
    """Sixteen images are seen; the error that counts is that of the thousand."""
    exact = traces(16)
    error = exact[:, 1].std() / 1000**0.5
    rounded = exact.clone()
    rounded[:, 1] += share * error
    trial = heard(Bf16Trial("bf16", 1000), exact, rounded)
    if abs(share) < 0.1:
        assert (trial.dtype, trial.note) == (torch.bfloat16, None)
    else:
        assert trial.dtype is None
        assert "0.2 standard errors on the first 16 images" in trial.note


def test_no_verdict_before_enough_images():
    trial = heard(Bf16Trial("bf16", 1000), traces(8), traces(8))
    assert (trial.dtype, trial.note) == (None, None)


def test_nothing_more_is_computed_twice_after_the_verdict():
    trial = heard(Bf16Trial("bf16", 1000), traces(16), traces(16))
    trial.compare(traces(8), lambda dtype: pytest.fail("computed again"))
    assert trial.dtype is torch.bfloat16


def test_nothing_is_computed_twice_where_it_was_not_asked_for_or_is_not_worth_it():
    for trial in (Bf16Trial("fp32", 1000), Bf16Trial("bf16", 16)):
        trial.compare(traces(8), lambda dtype: pytest.fail("computed again"))
        assert trial.dtype is None
    assert "16 images" in trial.note


def test_numbers_that_overflow_are_refused():
    rounded = traces(16)
    rounded[3, 2] = torch.nan
    trial = heard(Bf16Trial("bf16", 1000), traces(16), rounded)
    assert trial.dtype is None
    assert trial.note


def test_a_layer_without_spread_must_stay_as_it_is():
    exact = traces(16)
    exact[:, 0] = 0
    assert heard(Bf16Trial("bf16", 1000), exact, exact.clone()).dtype is torch.bfloat16
    moved = exact.clone()
    moved[:, 0] = 1e-9
    assert heard(Bf16Trial("bf16", 1000), exact, moved).dtype is None


@pytest.mark.parametrize("name", [*piecewise_linear(), *smooth()])
def test_a_rounded_sweep_is_autograd_up_to_rounding(name):
    """Relative to each gradient's norm; a unit of bfloat16 is 2^-8, and a few add up."""
    torch.manual_seed(1)
    network = {**piecewise_linear(), **smooth()}[name]
    model = warmed(network, (2, 6, 6)).requires_grad_(False)
    with torch.enable_grad(), recording(find_layers(model)) as record:
        logits = model(torch.rand(5, 2, 6, 6, dtype=torch.float64))
    outputs = record.all_outputs()
    columns = torch.randn(4, *logits.shape, dtype=torch.float64)
    found = {}
    with torch.no_grad():
        Sweep(logits, outputs)(columns.bfloat16(), found.__setitem__)
    for column in range(4):
        want = torch.autograd.grad(logits, outputs, columns[column], retain_graph=True)
        for at, gradient in enumerate(want):
            assert found[at].dtype is torch.bfloat16
            off = (found[at][column].double() - gradient).norm() / gradient.norm()
            assert off < 0.02


@pytest.mark.parametrize("estimator", ["exact", "gauss-newton"])
def test_rounded_traces_are_within_a_tenth_of_a_standard_error(estimator):
    """On all images, where the verdict saw sixteen: rounding is not correlated between images."""
    model, examples = ra.load(samples_dir() / "robust.pt", device="cpu"), ra.load_examples("digits")
    options = {"estimator": estimator, "seed": 1}
    full = layer_traces(model, examples.x, examples.y, **options)
    found = layer_traces(model, examples.x, examples.y, precision="bf16", **options)
    assert (found.precision, found.precision_note) == ("bf16", None)
    assert not torch.equal(found.per_example, full.per_example)
    for name, layer in full.layers.items():
        assert abs(found.layers[name].trace - layer.trace) < 0.1 * layer.standard_error
    assert (full.precision, full.precision_note) == ("fp32", None)


def test_wci_hands_the_precision_on():
    model, examples = ra.load(samples_dir() / "robust.pt", device="cpu"), ra.load_examples("digits")
    found = wci(model, examples.x[:64], examples.y[:64], precision="bf16")
    assert found.traces.precision == "bf16"


def test_second_derivatives_are_never_rounded():
    model, examples = ra.load(samples_dir() / "robust.pt", device="cpu"), ra.load_examples("digits")
    x, y = examples.x[:40], examples.y[:40]
    found = layer_traces(model, x, y, estimator="hessian", precision="bf16")
    assert (found.precision, found.precision_note) == ("fp32", None)


class Edge(nn.Module):
    """In float32 the first unit's preactivation rounds to zero, in float64 it is 3e-9."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 1.0, -1.0], [1.0, 0.0, 0.0]]))
            self.last.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).relu())


@pytest.mark.parametrize("estimator", ["exact", "gauss-newton", "hessian"])
def test_float64_knows_which_units_are_active(estimator):
    """Against the dense Hessian of the network in float64; three images of many are at the edge."""
    model = Edge()
    torch.manual_seed(0)
    x, y = torch.rand(64, 1, 1, 3), torch.zeros(64)
    x[-3:] = torch.tensor([1.0, 3e-9, 1.0])
    state = {name: p.clone() for name, p in model.state_dict().items()}
    found = layer_traces(model, x, y.long(), precision="float64", estimator=estimator, probes=200)
    assert found.precision == "float64"
    double = Edge().double()
    for name in ("first", "last"):
        want = float(dense_block(double, x.double(), y.long(), f"{name}.weight").trace())
        close = {"rel": 1e-12} if estimator == "exact" else {"rel": 0.3}
        assert found.layers[name].trace == pytest.approx(want, **close)
    plain = layer_traces(model, x, y.long(), estimator="exact").layers["first"].trace
    true = float(dense_block(double, x.double(), y.long(), "first.weight").trace())
    assert plain != pytest.approx(true, rel=1e-4)
    assert all(torch.equal(p, state[name]) for name, p in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_a_network_that_casts_to_float32_is_not_measured_in_float64():
    class Casting(nn.Sequential):
        def forward(self, x):
            return super().forward(x).float()

    model = Casting(nn.Flatten(), nn.Linear(4, 2))
    x, y = torch.rand(2, 1, 2, 2), torch.zeros(2).long()
    with pytest.raises(NotMeasuredError, match="logits are torch"):
        layer_traces(model, x, y, precision="float64")
