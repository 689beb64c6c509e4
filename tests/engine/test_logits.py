"""The one door to a network: no single image in, logits in the images' precision out."""

import copy
import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import robaudit as ra
from robaudit.attacks import autoattack, fast, pgd, square
from robaudit.checkpoints import load
from robaudit.checkpoints.suitability import check_suits
from robaudit.curvature import (
    gram_spectrum,
    layer_spreads,
    layer_traces,
    spectrum,
    top_layer_trh,
)
from robaudit.curvature.pacbayes import pac_bayes
from robaudit.engine import Runner, frozen
from robaudit.engine.logits import logits_of
from robaudit.errors import CheckpointError, NotMeasuredError
from robaudit.flatness import average, worst
from robaudit.types import Examples, ThreatModel

by_library = importlib.import_module("robaudit.attacks.autoattack")

THREAT = ThreatModel("linf", 0.1)


class Pooled(nn.Module):
    """With its batch dimension whatever the batch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1).flatten(1))


class Squeezed(Pooled):
    """The same function; it loses the batch dimension of one image, and notes what it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return self.fc(F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1).squeeze())


@pytest.fixture
def pair():
    torch.manual_seed(0)
    sound, odd = Pooled(), Squeezed()
    odd.load_state_dict(sound.state_dict())
    return sound, odd


def batch(n):
    draw = torch.Generator().manual_seed(n)
    x = (torch.rand(n, 1, 8, 8, generator=draw) * 16).round() / 16
    return x, torch.randint(10, (n,), generator=draw)


MEASURES = {
    "pgd": lambda f, x, y: pgd(f, x, y, THREAT, steps=3).loss,
    "fast": lambda f, x, y: fast(f, x, y, THREAT).x,
    "square": lambda f, x, y: square(f, x, y, THREAT, queries=20).x,
    "traces": lambda f, x, y: layer_traces(f, x, y).per_example,
    "every trace": lambda f, x, y: layer_traces(f, x, y, layers="all").per_example,
    "mixed traces": lambda f, x, y: layer_traces(f, x, y, estimator="gauss-newton").per_example,
    "probed traces": lambda f, x, y: layer_traces(f, x, y, estimator="hessian").per_example,
    "spectrum": lambda f, x, y: spectrum(f, x, y, steps=20, probes=2).largest[:1],
    "gauss-newton": lambda f, x, y: spectrum(
        f, x, y, steps=20, probes=1, operator="gauss-newton"
    ).largest[:1],
    "gram": lambda f, x, y: gram_spectrum(f, x),
    "spreads": lambda f, x, y: [v.deviation for v in layer_spreads(f, x, y, probes=2).values()],
    "top layer": lambda f, x, y: top_layer_trh(f, x, x, y, "trades").per_example,
    "pac-bayes": lambda f, x, y: pac_bayes(f, x, y).bound.value,
    "average": lambda f, x, y: average(f, x, y, THREAT, steps=2, perturbations=3).value,
    "average, stacked": lambda f, x, y: (
        average(f, x, y, THREAT, steps=2, perturbations=3, stack=3).value
    ),
    "worst": lambda f, x, y: worst(f, x, y, THREAT, steps=2, passes=2, restarts=1).value,
}


@pytest.mark.parametrize("n", [1, 2, 65])
@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
def test_no_single_image_reaches_the_network_and_no_number_changes(measure, n, pair):
    if n == 65 and measure is MEASURES["gram"]:
        n = 3
    sound, odd = pair
    expected = measure(sound, *batch(n))
    found = measure(odd, *batch(n))
    torch.testing.assert_close(
        torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-5, atol=1e-7, equal_nan=True
    )
    assert min(odd.seen) > 1


def test_the_librarys_batches_are_padded_too(pair, monkeypatch):
    def first_alone(*args):
        attack, notes = prepared(*args)
        attack.attacks_to_run = ["apgd-ce"]
        return attack, notes

    prepared = by_library._prepared
    monkeypatch.setattr(by_library, "_prepared", first_alone)
    sound, odd = pair
    x, y = batch(5)
    with torch.no_grad():
        y = sound(x).argmax(1)  # all five are attacked, two and two and one
    threat = ThreatModel("linf", 0.01)
    found = autoattack(odd, x, y, threat, batch_size=2)
    assert torch.equal(found.robust, autoattack(sound, x, y, threat, batch_size=2).robust)
    assert min(odd.seen) > 1


@pytest.mark.parametrize("n", [1, 65])
def test_a_checkpoint_is_tried_and_audited_on_any_number_of_images(n, pair):
    digits = ra.load_examples("digits", n=n)
    sound, odd = pair
    threat = ThreatModel("linf", 0.05)
    reports = [ra.run_audit(network, digits, threat, preset="quick") for network in (sound, odd)]
    ours, theirs = (
        {m.name: m.value for m in report.measurements if m.status == "ok"} for report in reports
    )
    assert len(ours) >= 10
    assert theirs == pytest.approx(ours, rel=1e-5, nan_ok=True)
    assert "failed" not in {m.status for m in reports[1].measurements}
    assert min(odd.seen) > 1


def test_padding_weighs_nothing(pair):
    """The gradient in the parameters is that of one image, not of the image and its copy."""
    sound, _ = pair
    x, y = batch(1)
    gradients = [
        torch.autograd.grad(F.cross_entropy(logits_of(f, x), y), list(f.parameters())) for f in pair
    ]
    F.cross_entropy(sound(x), y).backward()
    for mine, theirs, parameter in zip(*gradients, sound.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)
        torch.testing.assert_close(theirs, parameter.grad)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_come_out_in_the_images_precision(kind, pair):
    class Other(Pooled):
        def forward(self, x):
            return super().forward(x).to(kind)

    other = Other()
    other.load_state_dict(pair[0].state_dict())
    x, y = batch(6)
    model = load(other, device="cpu")
    assert model(x).dtype == torch.float32
    assert Runner(other, torch.device("cpu")).logits(x).dtype == torch.float32
    for name, measure in MEASURES.items():
        # Rounded logits are no layer's output, and no derivative of theirs is one in float64.
        if kind == torch.float64 or name in ("pgd", "fast", "square", "average", "worst"):
            found = torch.as_tensor(measure(other, x, y), dtype=torch.float64)
            assert bool(found.isfinite().all()), name
    exact = pgd(pair[0], x, y, THREAT, steps=3).loss.mean()
    allowed = {torch.float16: 1e-2, torch.bfloat16: 1e-1, torch.float64: 1e-5}[kind]
    assert float(pgd(other, x, y, THREAT, steps=3).loss.mean()) == pytest.approx(
        float(exact), rel=allowed
    )


def test_a_network_in_double_stays_in_double(pair):
    network = pair[0].double()
    x, _ = batch(4)
    with frozen(network):
        assert network(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: z.to(torch.complex64), "complex64"),
        (lambda z: (10 * z).long(), "int64"),
        (lambda z: z > 0, "bool"),
        (lambda z: (z, z), "tuple"),
        (lambda z: {"logits": z}, "dict"),
        (lambda z: [z], "list"),
        (lambda z: None, "NoneType"),
        (lambda z: z[:, 0], r"\(2,\)"),
        (lambda z: z[..., None], r"\(2, 10, 1\)"),
        (lambda z: z[:1], r"\(1, 10\)"),
    ],
)
def test_what_is_no_logits_is_refused_where_it_is_loaded(change, words):
    class Odd(Pooled):
        def forward(self, x):
            return change(super().forward(x))

    x, y = batch(6)
    examples = Examples(x, y, torch.arange(6), "six", "test", "0" * 64, 10)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(Odd(), device="cpu", examples=examples)
    assert caught.value.exit_code == 4
    assert "--arch factory" in caught.value.advice
    with pytest.raises(CheckpointError, match=words):
        check_suits(Odd(), examples)
    with pytest.raises(NotMeasuredError, match="logits"):
        Runner(Odd(), torch.device("cpu")).logits(x)


def test_a_module_is_left_without_a_door(pair):
    _, odd = pair
    with frozen(odd), frozen(odd):
        assert odd(batch(1)[0]).shape == (1, 10)
        copied = copy.deepcopy(odd)
    assert not odd._forward_hooks
    assert not odd._forward_pre_hooks
    assert copied(batch(1)[0]).shape == (1, 10)  # what is made of it is run behind one
