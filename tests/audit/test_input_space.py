"""Margins, input gradients, local linearity and calibration in an audit."""

import dataclasses

import pytest
import torch
from support.console import SAMPLES

import robaudit as ra
from robaudit import attacks
from robaudit.audit import Plan, audit
from robaudit.audit.probes import (
    Alignment,
    Calibration,
    InputGradient,
    Linearity,
    Margins,
    Pgd,
)
from robaudit.measures import find
from robaudit.statistics import clustered_mean

PGD = Pgd(steps=3)
PROBES = (
    Margins(PGD),
    InputGradient(PGD),
    Alignment(PGD),
    Linearity(PGD, steps=2),
    Calibration(PGD),
)
THREAT = ra.ThreatModel("linf", 0.15)


@pytest.fixture(scope="module")
def model():
    return ra.load(SAMPLES / "robust.pt", device="cpu")


@pytest.fixture(scope="module")
def examples():
    return ra.load_examples("digits", n=100)


@pytest.fixture(scope="module")
def made(model, examples):
    """With the titles of all work that has a progress display."""
    titles = []

    def watch(title):
        titles.append(title)
        return ra.display.no_watch(title)

    return audit(model, examples, THREAT, Plan(probes=(PGD, *PROBES)), watch=watch), titles


@pytest.fixture(scope="module")
def images(model, examples):
    """Clean and adversarial images, by what names of measures begin with."""
    adv = attacks.pgd(model, examples.x, examples.y, THREAT, steps=3, index=examples.index)
    return {"": examples.x, "adversarial_": adv.x}


def test_no_further_attack_is_run(made):
    assert len([title for title in made[1] if title.startswith("PGD")]) == 1


@pytest.mark.parametrize("prefix", ["", "adversarial_"])
def test_margins_are_those_of_the_logits(made, model, examples, images, prefix):
    with torch.no_grad():
        z = model(images[prefix])
    own = z.gather(1, examples.y[:, None])[:, 0]
    others = z.clone().scatter(1, examples.y[:, None], -torch.inf).amax(1)
    margins = (own - others).double()
    report, outcomes = made[0].report, made[0].outcomes
    for name, values, probability in (
        ("median", margins, 0.5),
        ("p10", margins, 0.1),
        ("normalized", margins / z.double().std(1, correction=0), 0.5),
    ):
        found = report.get(f"margin.{prefix}{name}")
        want = float(torch.quantile(values, probability))
        assert found.value == pytest.approx(want, rel=1e-5)
        assert found.interval.low <= found.value <= found.interval.high
    right = (outcomes[f"test.{prefix}margin"] > 0).float().mean()
    accuracy = (z.argmax(1) == examples.y).float().mean()
    assert float(right) == pytest.approx(float(accuracy))


def test_what_a_norm_of_the_gradient_allows_is_what_a_small_attack_does(made, model, examples):
    """For a tiny radius the mean loss rises by eps times the mean dual norm."""
    eps = 1e-3
    logits = model(examples.x).detach()
    near = attacks.pgd(model, examples.x, examples.y, ra.ThreatModel("linf", eps), steps=10)
    rise = near.loss - torch.nn.functional.cross_entropy(logits, examples.y, reduction="none")
    found = made[0].report.get("gradient.norm")
    # The box stops some pixels, so that the rise is smaller.
    assert 0.3 * eps * found.value < float(rise.mean()) < 1.05 * eps * found.value


@pytest.mark.parametrize("prefix", ["", "adversarial_"])
def test_measures_of_the_ball_are_the_functions_of_attacks(made, model, examples, images, prefix):
    report, outcomes = made[0].report, made[0].outcomes
    given = model, images[prefix], examples.y, THREAT
    cosines = attacks.gradient_alignment(*given, index=examples.index)
    linearity = attacks.local_linearity(*given, steps=2, index=examples.index)
    for name, values in (
        ("gradient.{}norm", attacks.input_gradient_norm(*given)),
        ("gradient.{}alignment", cosines),
        ("linearity.{}error", linearity.error),
    ):
        found = report.get(name.format(prefix))
        assert torch.equal(outcomes[f"test.{found.name}"], values)
        assert found.value == pytest.approx(float(values.mean()))
        assert found.standard_error == pytest.approx(float(values.std()) / 10)
    relative = report.get(f"linearity.{prefix}relative_error")
    assert relative.value == pytest.approx(
        float(linearity.error.sum() / linearity.first_order.sum())
    )


@pytest.mark.parametrize("prefix", ["", "adversarial_"])
def test_calibration_is_that_of_the_softmax(made, model, examples, images, prefix):
    report = made[0].report
    with torch.no_grad():
        p = model(images[prefix]).double().softmax(1)
    brier = ((p - torch.nn.functional.one_hot(examples.y, 10)) ** 2).sum(1)
    assert report.get(f"calibration.{prefix}brier").value == pytest.approx(float(brier.mean()))
    loss = report.get("loss.robust" if prefix else "loss.clean")
    nll = report.get(f"calibration.{prefix}nll")
    assert nll.value == pytest.approx(loss.value, rel=1e-5)
    assert nll.standard_error == pytest.approx(loss.standard_error, rel=1e-5)
    found = report.get(f"calibration.{prefix}ece")
    assert found.interval.low <= found.value <= found.interval.high
    bins = found.details["bins"]
    assert sum(one["n"] for one in bins) == 100
    right = (p.argmax(1) == examples.y).sum()
    assert sum(one["correct"] for one in bins) == int(right)
    confidence = sum(one["n"] * one["confidence"] for one in bins) / 100
    assert confidence == pytest.approx(float(p.amax(1).mean()))


def test_the_order_of_examples_does_not_matter(made, model, examples, numbers):
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    again = audit(model, examples.taken(order), THREAT, Plan(probes=PROBES)).report
    for found in again.measurements:
        if find(found.name).section in ("Sharpness", "Calibration"):
            want = made[0].report.get(found.name)
            assert found.value == pytest.approx(want.value, rel=1e-12), found.name
            assert found.interval.high == pytest.approx(want.interval.high, rel=1e-9)


def test_copies_of_an_image_are_one(model, examples):
    few = examples.taken(slice(0, 20))
    copied = dataclasses.replace(few, groups=few.index // 2)
    report = audit(model, copied, THREAT, Plan(probes=(PGD, InputGradient(PGD)))).report
    found = report.get("gradient.norm")
    values = attacks.input_gradient_norm(model, few.x, few.y, THREAT)
    want = clustered_mean(values.numpy(), copied.groups.numpy()).standard_error
    assert found.standard_error == pytest.approx(want)


class Noisy(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x + 0.1 * torch.randn_like(x)).clamp(0, 1))


class Saturated(torch.nn.Module):
    """Some images meet a constant."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        z = self.net(x)
        flat = x.flatten(1).mean(1, keepdim=True) < 0.3
        return torch.where(flat, z.detach() * 0, z)


def test_images_without_a_gradient_are_named_and_left_out(model, examples):
    found = audit(Saturated(model), examples, THREAT, Plan(probes=(Alignment(PGD),)))
    aligned = found.report.get("gradient.alignment")
    lost = int(found.outcomes["test.gradient.alignment"].isnan().sum())
    assert 0 < lost < 100
    assert aligned.n == 100 - lost
    assert f"{lost} images with a gradient of zero are left out" in aligned.warnings


def test_a_network_that_draws_at_random_has_a_calibration_and_no_gradient(model, examples):
    few = examples.taken(slice(0, 24))
    plan = Plan(probes=(InputGradient(PGD), Calibration(PGD)))
    report = audit(Noisy(model), few, THREAT, plan, samples=3).report
    assert report.get("gradient.norm").status == "failed"
    assert report.get("calibration.brier").status == "ok"
    assert report.get("calibration.brier").settings["samples"] == 3
