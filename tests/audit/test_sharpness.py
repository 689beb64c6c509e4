"""Measures of sharpness in an audit: where their images come from, and what a report holds."""

import math

import pytest
import torch
from support.console import SAMPLES

import robaudit as ra
from robaudit import curvature, flatness, norms
from robaudit.audit import Plan, audit
from robaudit.audit.probes import (
    AdaptiveAverage,
    AdaptiveWorst,
    FisherRao,
    PathNorm,
    Pgd,
    RelativeFlatness,
    SpectralNorms,
)
from robaudit.measures import find

PGD = Pgd(steps=3)
THREAT = ra.ThreatModel("linf", 0.15)


@pytest.fixture(scope="module")
def model():
    return ra.load(SAMPLES / "robust.pt")


@pytest.fixture(scope="module")
def examples():
    return ra.load_examples("digits", n=48)


@pytest.fixture(scope="module")
def made(model, examples):
    plan = Plan(
        probes=(
            PGD,
            RelativeFlatness(PGD),
            FisherRao(PGD),
            AdaptiveWorst(PGD, m=20, steps=4),
            AdaptiveAverage(PGD, perturbations=3),
            PathNorm(),
            SpectralNorms(),
        )
    )
    return audit(model, examples, THREAT, plan)


@pytest.mark.parametrize("name", ["relative_flatness", "fisher_rao"])
def test_both_images_are_measured(made, model, examples, name):
    """At the very adversarial examples of the audit's PGD, and at the clean images."""
    adv = ra.attacks.pgd(model, examples.x, examples.y, THREAT, steps=3, index=examples.index)
    for measured, x in ((name, adv.x), (f"clean_{name}", examples.x)):
        want = getattr(curvature, name)(model, x)
        got = made.report.get(f"sharpness.{measured}")
        assert got.value == pytest.approx(want.value, rel=1e-9)
        assert got.standard_error == pytest.approx(want.standard_error, rel=1e-9)
        assert got.interval.low < got.value < got.interval.high
        assert torch.equal(made.outcomes[f"test.sharpness.{measured}"], want.per_example)
        assert find(got.name).section == "Sharpness"
    assert made.report.get("sharpness.relative_flatness").details["layer"] != ""


@pytest.mark.parametrize(
    ("name", "settings", "degrees"),
    [("adaptive_worst", {"m": 20, "steps": 4}, 47), ("adaptive_average", {"perturbations": 3}, 2)],
)
def test_adaptive_sharpness_has_the_defaults_of_the_function(
    made, model, examples, name, settings, degrees
):
    adv = ra.attacks.pgd(model, examples.x, examples.y, THREAT, steps=3, index=examples.index)
    for measured, x in ((name, adv.x), (f"clean_{name}", examples.x)):
        want = getattr(flatness, name)(model, x, examples.y, **settings)
        got = made.report.get(f"sharpness.{measured}")
        assert (got.value, got.unit) == (pytest.approx(want.value, rel=1e-9), "nats")
        assert got.details["reference"] == pytest.approx(want.reference)
        assert f"{degrees} degrees" in got.interval.method
        assert got.settings.items() >= settings.items()


def test_norms_are_exact_and_logarithms(made, model, examples):
    path, product = (
        made.report.get(f"sharpness.{name}") for name in ("path_norm", "spectral_norms")
    )
    assert path.value == norms.path_norm(model, examples.x).log
    assert path.details["norm"] == pytest.approx(math.exp(path.value))
    assert product.value == norms.spectral_norms(model, examples.x).log
    layers = product.details["layers"]
    assert math.log(math.prod(layer["norm"] for layer in layers)) == pytest.approx(product.value)
    assert not any(layer["name"].startswith("network.") for layer in layers)
    for exact in (path, product):
        assert (exact.interval, exact.standard_error) == (None, None)


def test_a_network_without_paths_fails_with_its_reason(examples):
    smooth = ra.load(SAMPLES / "smooth.safetensors")
    plan = Plan(probes=(PathNorm(), SpectralNorms()))
    report = audit(smooth, examples, THREAT, plan).report
    for name in ("path_norm", "spectral_norms"):
        found = report.get(f"sharpness.{name}")
        assert found.status == "failed"
        assert "layer_norm" in found.reason
