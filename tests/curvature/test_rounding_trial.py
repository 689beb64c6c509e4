"""Backward passes in TF32 or bfloat16: the verdict on them, and what they change."""

import importlib

import pytest
import torch
from support.dense import dense_block
from support.networks import piecewise_linear, smooth, warmed
from torch import nn

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.curvature import bound_terms, layer_traces, wci
from robaudit.curvature.layers import find_layers, recording
from robaudit.curvature.losses import standard_error
from robaudit.curvature.rounding_trial import COMPARED, RoundingTrial, TraceRounding
from robaudit.curvature.sweep import Sweep
from robaudit.errors import NotMeasuredError


def traces(n=COMPARED, seed=0):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heard(trial, exact, rounded, size=8):
    """``rounded``: traces of one precision, or of several by name."""
    if not isinstance(rounded, dict):
        rounded = dict.fromkeys(("bf16", "tf32"), rounded)
    for at in range(0, len(exact), size):
        part = slice(at, at + size)
        trial.compare(exact[part], lambda precision, part=part: rounded[precision][part])
    return trial


def bf16(images):
    return RoundingTrial(("bf16", "fp32"), images)


@pytest.mark.parametrize("share", [0.1, -0.1, 0.4, -0.4])
def test_rounding_is_measured_against_the_error_of_all_images(share):
    """A few images are seen; the error that counts is that of the thousand."""
    exact = traces()
    error, mean = float(exact[:, 1].std() / 1000**0.5), float(exact[:, 1].mean())
    rounded = exact.clone()
    rounded[:, 1] *= 1 + share * error / mean
    trial = heard(bf16(1000), exact, rounded)
    if abs(share) < 0.2:
        assert (trial.used, trial.note) == ("bf16", None)
        assert trial.rounding.layer_errors() == pytest.approx(
            [0, (1 - COMPARED / 1000) * abs(share) * error, 0]
        )
    else:
        assert (trial.used, trial.rounding) == ("fp32", None)
        assert "standard errors on the first 32 images, bf16's by 0.39" in trial.note


@pytest.mark.parametrize(("bias", "spread"), [(0.003, 0.0), (0.0, 0.01), (0.002, 0.02)])
def test_the_error_covers_what_rounding_changes(bias, spread):
    """Of means over all images, a few of which have most of the trace, by simulation: its mean
    square is at least the true one, and more by what the images compared do not know."""
    n, m, draw = 200, COMPARED, torch.Generator().manual_seed(0)
    squares, estimates, unknown = [], [], []
    for _ in range(400):
        t = torch.randn(n, 1, generator=draw, dtype=torch.float64).mul(1.5).exp()
        q = bias + spread * torch.randn(n, 1, generator=draw, dtype=torch.float64)
        coarse = t * (1 + q)
        squares.append(float((coarse - t)[m:].sum() / n) ** 2)
        estimates.append(TraceRounding(t[:m], coarse[:m], n, coarse[m:]).error() ** 2)
        unknown.append(2 * spread**2 / m * float(t[m:].sum() / n) ** 2)
    true, said = sum(squares) / 400, sum(estimates) / 400
    assert 0.85 * true < said < 1.15 * (true + sum(unknown) / 400)


def test_a_weighted_sum_knows_that_layers_are_rounded_together():
    exact = torch.tensor([[2.0, 1.0], [4.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    d = torch.tensor([[0.1, -0.1], [0.2, -0.2], [-0.1, 0.1]], dtype=torch.float64)
    rounding = TraceRounding(exact, exact + d, 10)
    assert rounding.error() == pytest.approx(0, abs=1e-12)
    assert rounding.error(torch.tensor([1.0, 0.0]).double()) == rounding.layer_errors()[0] > 0


def test_the_fastest_precision_that_passes_is_used():
    exact = traces()
    coarse = {"bf16": 2 * exact, "tf32": exact * (1 + 1e-5)}
    trial = heard(RoundingTrial(("bf16", "tf32", "fp32"), 1000), exact, coarse)
    assert trial.used == "tf32"
    assert trial.note.startswith("tf32, not bf16")
    trial = heard(RoundingTrial(("bf16", "tf32", "fp32"), 1000), exact, exact * (1 + 1e-5))
    assert (trial.used, trial.note) == ("bf16", None)


def test_no_verdict_before_enough_images():
    trial = heard(bf16(1000), traces(8), traces(8))
    assert (trial.used, trial.note) == ("fp32", None)


def test_nothing_more_is_computed_twice_after_the_verdict():
    trial = heard(bf16(1000), traces(), traces())
    trial.compare(traces(8), lambda precision: pytest.fail("computed again"))
    assert trial.used == "bf16"


def test_nothing_is_computed_twice_where_it_was_not_asked_for_or_is_not_worth_it():
    for trial in (RoundingTrial(("fp32",), 1000), bf16(127)):
        trial.compare(traces(8), lambda precision: pytest.fail("computed again"))
        assert trial.used == "fp32"
    assert "of 127 images 32 would be computed both ways" in trial.note


@pytest.mark.parametrize(("trial", "first"), [(bf16(200), 32), (bf16(50), 0)])
def test_slices_hold_every_image_once_and_those_compared_first(trial, first):
    n = 200 if first else 50
    for most in (2, 7, 40, 500):
        compared, others = trial.slices(most)
        parts = compared + others
        assert sum(part.stop - part.start for part in compared) == first
        assert [at for part in parts for at in range(n)[part]] == list(range(n))
        assert max(part.stop - part.start for part in parts) <= max(most, 3)


def test_numbers_that_overflow_are_refused():
    rounded = traces()
    rounded[3, 2] = torch.nan
    trial = heard(bf16(1000), traces(), rounded)
    assert trial.used == "fp32"
    assert trial.note


def test_a_layer_without_spread_must_stay_as_it_is():
    exact = traces()
    exact[:, 0] = 0
    assert heard(bf16(1000), exact, exact.clone()).used == "bf16"
    moved = exact.clone()
    moved[:, 0] = 1e-9
    assert heard(bf16(1000), exact, moved).used == "fp32"


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
def test_rounded_traces_are_within_their_own_error_by_rounding(estimator):
    """Three times it, on all images, where the verdict saw a few."""
    model, examples = ra.load(samples_dir() / "robust.pt", device="cpu"), ra.load_examples("digits")
    options = {"estimator": estimator, "seed": 1}
    full = layer_traces(model, examples.x, examples.y, **options)
    found = layer_traces(model, examples.x, examples.y, precision="bf16", **options)
    assert (found.precision, found.precision_note) == ("bf16", None)
    assert not torch.equal(found.per_example, full.per_example)
    for name, layer in full.layers.items():
        other = found.layers[name]
        assert abs(other.trace - layer.trace) < 3 * other.rounding
        assert 0 < other.rounding < 0.2 * layer.standard_error
        assert other.standard_error == pytest.approx(
            (standard_error(found.per_example[:, [*full.layers].index(name)]) ** 2
             + other.rounding**2) ** 0.5
        )  # fmt: skip
    assert abs(found.total - full.total) < 3 * found.total_rounding
    assert (full.precision, full.precision_note, full.total_rounding) == ("fp32", None, 0)


@pytest.mark.parametrize("asked", ["auto", "tf32", "bf16"])
def test_tf32_is_tried_where_the_device_has_it(asked, monkeypatch):
    """Its twin on a CPU rounds every trace to ten bits."""
    model, examples = ra.load(samples_dir() / "robust.pt", device="cpu"), ra.load_examples("digits")
    x, y = examples.x[:160], examples.y[:160]
    full = wci(model, x, y)
    module = importlib.import_module("robaudit.curvature.trace_estimators")
    exact, ran = module.gauss_newton_traces, []

    def rounded(model, layers, x, factor, together, precision="fp32", seen=None, beside=False):
        ran.append(precision)
        found = exact(model, layers, x, factor, together, "fp32", seen)
        bits = {"fp32": 50, "tf32": 10, "bf16": 2}[precision]
        fraction, exponent = torch.frexp(found)
        return torch.ldexp((fraction * 2.0**bits).round() / 2.0**bits, exponent)

    monkeypatch.setattr(module, "gauss_newton_traces", rounded)
    order = ("tf32", "fp32") if asked == "tf32" else ("bf16", "tf32", "fp32")
    traces_module = importlib.import_module("robaudit.curvature.traces")
    monkeypatch.setattr(traces_module, "candidates", lambda asked, device: order)
    found = wci(model, x, y, precision=asked)
    assert found.traces.precision == ran[-1] == "tf32"
    assert (found.traces.precision_note is None) == (asked == "tf32")
    assert 0 < abs(found.value - full.value) < 3 * found.rounding < full.standard_error
    assert found.standard_error > found.rounding
    terms = [bound_terms(torch.zeros(160), one, 64).curvature for one in (found, full)]
    assert abs(terms[0].value - terms[1].value) < terms[0].standard_error


def test_wci_hands_the_precision_on():
    model, examples = ra.load(samples_dir() / "robust.pt", device="cpu"), ra.load_examples("digits")
    found = wci(model, examples.x[:128], examples.y[:128], precision="bf16")
    assert found.traces.precision == "bf16"


def test_second_derivatives_are_never_rounded():
    model, examples = ra.load(samples_dir() / "robust.pt", device="cpu"), ra.load_examples("digits")
    x, y = examples.x[:130], examples.y[:130]
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
