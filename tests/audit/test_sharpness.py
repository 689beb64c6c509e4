"""Measures of sharpness in an audit: where their images come from, and what a report holds."""

import pytest
import torch
from support.console import SAMPLES

import robaudit as ra
from robaudit import curvature
from robaudit.audit import Plan, audit
from robaudit.audit.probes import FisherRao, Pgd, RelativeFlatness
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
    plan = Plan(probes=(PGD, RelativeFlatness(PGD), FisherRao(PGD)))
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
