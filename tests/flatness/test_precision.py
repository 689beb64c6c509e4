"""Flatness searched in bfloat16: losses of float32, and a reference searched alike."""

import math

import pytest
import torch
from support.console import ROBUST, SAMPLES
from torch import nn
from torch.func import functional_call

import robaudit as ra
from robaudit.attacks import pgd
from robaudit.engine import frozen
from robaudit.flatness import (
    Adversary,
    around,
    average,
    between,
    landscape,
    random_direction,
    symmetric_places,
    worst,
)
from robaudit.flatness.losses import ImpreciseSearchError, RobustLoss
from robaudit.flatness.perturbed import Perturbed
from robaudit.flatness.weights import draw_for, movable_weights, on_sphere
from robaudit.types import ThreatModel

CPU, THREAT = torch.device("cpu"), ThreatModel("linf", 0.15)


@pytest.fixture(scope="module")
def model():
    return ra.load(ROBUST, device="cpu")


@pytest.fixture(scope="module")
def digits():
    return ra.load_examples("digits", n=70)


@pytest.fixture
def perturbed(model, digits):
    """The weights, a draw of a perturbation, and the form that searches run."""
    with frozen(model):
        weights = movable_weights(model)
        nu = on_sphere(weights, 0.5, draw_for(0, "t", 0))
        yield (
            weights,
            nu,
            Perturbed(model, weights, (1, 8, 8), "bf16", examples=digits.x, threat=THREAT),
        )


def robust_loss(digits, precision):
    return RobustLoss(digits.x, digits.y, THREAT, 5, 0.04, 0, digits.index, CPU, "auto", precision)


def test_the_form_follows_the_perturbation_in_bfloat16(model, digits, perturbed):
    weights, nu, form = perturbed
    assert form.precision == "bf16"
    moved = {name: weight + nu[name] for name, weight in weights.items()}
    want = functional_call(model, moved, (digits.x,))
    rounding = 0.05 * float(want.abs().max())  # as far as the engine lets bfloat16 be off
    for got in (form.at(nu)(digits.x), form.logits(moved, digits.x)):
        assert got.dtype == torch.float32
        assert not torch.equal(got, want)
        torch.testing.assert_close(got, want, rtol=0, atol=rounding)
    (judge,) = form.judges(nu)
    assert torch.equal(judge(digits.x), want)


def test_losses_are_float32s_at_points_of_the_ball(model, digits, perturbed):
    weights, nu, form = perturbed
    found = digits.x.clone()
    (losses,) = robust_loss(digits, "bf16").of_all(
        form.at(nu), 1, judges=form.judges(nu), found=found
    )
    assert float((found - digits.x).abs().max()) <= THREAT.eps + 1e-6
    moved = {name: weight + nu[name] for name, weight in weights.items()}
    own = [
        nn.functional.cross_entropy(functional_call(model, moved, (x,)), digits.y, reduction="none")
        for x in (digits.x, found)
    ]
    torch.testing.assert_close(losses, torch.maximum(*own), rtol=1e-5, atol=1e-6)
    exact = robust_loss(digits, "fp32").of(form.judges(nu)[0])
    assert float(losses.mean()) == pytest.approx(float(exact.mean()), rel=0.02)


def test_several_networks_in_a_pass_give_the_losses_of_each(digits, perturbed):
    weights, _, form = perturbed
    nus = [on_sphere(weights, 0.5, draw_for(0, "t", j)) for j in range(2)]
    loss = robust_loss(digits, "bf16")
    together = loss.of_all(form.at(*nus), 2, judges=form.judges(*nus))
    for losses, nu in zip(together, nus, strict=True):
        alone = loss.of(form.at(nu), judges=form.judges(nu))
        assert float(losses.mean()) == pytest.approx(float(alone.mean()), rel=0.01)


def test_a_search_of_another_network_is_noticed(model, digits, perturbed):
    _, nu, form = perturbed
    judges = form.judges(nu)
    with pytest.raises(ImpreciseSearchError):
        robust_loss(digits, "bf16").of_all(form.at({}), 1, judges=judges)


def test_where_bfloat16_is_too_coarse_everything_is_searched_in_float32(model, digits, monkeypatch):
    how = {"perturbations": 2, "steps": 2, "index": digits.index}
    exact = average(model, digits.x, digits.y, THREAT, precision="fp32", **how)
    monkeypatch.setattr("robaudit.flatness.losses._OFF", 0.0)
    monkeypatch.setattr("robaudit.flatness.losses._OFF_LOSSES", 0.0)
    found = average(model, digits.x, digits.y, THREAT, precision="bf16", **how)
    assert found.searched == "fp32"
    assert found.perturbed == exact.perturbed
    assert found.value == exact.value
    assert "searched in float32" in " ".join(found.notes)


def test_average_flatness_agrees_with_that_of_float32(model, digits):
    how = {"perturbations": 2, "steps": 5, "index": digits.index}
    rounded, exact = (
        average(model, digits.x, digits.y, THREAT, precision=precision, **how)
        for precision in ("bf16", "fp32")
    )
    assert (rounded.searched, exact.searched) == ("bf16", "fp32")
    assert rounded.value == pytest.approx(exact.value, abs=0.1 * exact.standard_error)


def test_a_reference_of_another_arithmetic_is_not_used(model, digits):
    how = {"steps": 2, "index": digits.index, "precision": "fp32"}
    given = pgd(model, digits.x, digits.y, THREAT, **how)
    assert given.searched == "fp32"
    how = {"perturbations": 1, "steps": 2, "index": digits.index, "precision": "bf16"}
    own, other = (
        average(model, digits.x, digits.y, THREAT, reference=reference, **how)
        for reference in (None, given)
    )
    assert own.value == other.value


def test_a_reference_searched_in_the_same_arithmetic_is_used(model, digits):
    """PGD judges its finds as flatness does: the reference's losses are the same but for a few."""
    how = {"steps": 5, "index": digits.index, "precision": "bf16"}
    given = pgd(model, digits.x, digits.y, THREAT, **how)
    assert given.searched == "bf16"
    own = average(model, digits.x, digits.y, THREAT, perturbations=1, **how)
    found = average(model, digits.x, digits.y, THREAT, perturbations=1, reference=given, **how)
    assert own.reference == pytest.approx(float(given.loss.double().mean()), rel=1e-4)
    assert found.reference == float(given.loss.double().mean())
    assert found.perturbed == own.perturbed


def test_the_worst_weights_are_compared_and_judged_in_float32(model, digits):
    how = {"restarts": 1, "passes": 4, "steps": 2, "index": digits.index}
    rounded, exact = (
        worst(model, digits.x, digits.y, THREAT, precision=precision, **how)
        for precision in ("bf16", "fp32")
    )
    assert rounded.searched == "bf16"
    assert rounded.reference == exact.reference
    # Gradients of bfloat16 find what those of float32 do, up to the path that examples take.
    assert rounded.restarts[0] == pytest.approx(exact.restarts[0], rel=0.02)
    assert math.isfinite(rounded.standard_error)


def test_in_float32_the_clean_loss_needs_no_search(model, digits):
    how = {"perturbations": 2, "index": digits.index}
    rounded, exact = (
        average(model, digits.x, digits.y, None, precision=precision, **how)
        for precision in ("bf16", "fp32")
    )
    assert rounded.perturbed == exact.perturbed


@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize("kind", ["around", "between"])
def test_a_landscape_agrees_with_that_of_float32(kind, stack, model, digits):
    other = ra.load(SAMPLES / "overfit.pt", device="cpu")
    line = around(model, random_direction(model)) if kind == "around" else between(model, other)
    x, y, s = digits.x[:32], digits.y[:32], symmetric_places(3, 0.3)
    how = {"adversary": Adversary(steps=4), "index": digits.index[:32], "stack": stack}
    rounded, exact = (
        landscape(model, [line], s, x, y, THREAT, precision=precision, **how)
        for precision in ("bf16", "fp32")
    )
    assert (rounded.searched, exact.searched) == ("bf16", "fp32")
    torch.testing.assert_close(rounded.clean, exact.clean, rtol=1e-4, atol=1e-5)
    assert bool((rounded.robust >= rounded.clean - 1e-5).all())
    torch.testing.assert_close(rounded.robust.mean(-1), exact.robust.mean(-1), rtol=0.03, atol=0)
