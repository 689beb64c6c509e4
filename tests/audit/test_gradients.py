"""What the check of the derivative says in a report, and of which measurements."""

import pytest
import torch
from support import masking
from support.masking import FLAT, HONEST, LYING, Behind

from robaudit.audit import Plan, audit
from robaudit.audit.probes import Pgd
from robaudit.checkpoints import load, samples_dir
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.types import ThreatModel

PLAN = Plan(probes=(Pgd(steps=2),))


@pytest.fixture(scope="module")
def standard():
    return load(samples_dir() / "standard.pt", device="cpu")


def audited(network, few, threat=None):
    return audit(network, few, threat or ThreatModel("linf", 0.15), PLAN).report


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (masking.NotANumber, "not finite"),
        (masking.OffTheGrid, "exactly zero"),
        (masking.Recognising, "exactly zero"),
        (masking.Rounding, "do not move as their gradient says"),
        (masking.Decided, "steps that no gradient shows"),
    ],
)
def test_attacks_are_doubted_and_nothing_else(network, says, standard, few):
    report = audited(network(standard), few)
    measured = report.get("accuracy.pgd")
    if measured.status == "ok":
        doubt, *_ = measured.doubts  # what the attack itself met comes after
        assert says in doubt
        assert "gradients are masked" in doubt
    assert report.get("accuracy.clean").doubts == []
    assert report.get("loss.clean").doubts == []


def test_the_module_goes_by_its_authors_name(standard, few):
    def of(step):
        network = Behind(standard.network, step)
        origin = Origin("x.pt", None, "torch-zip", "net", "a test", "none", 1)
        report = audited(Classifier(network, standard.normalization, origin), few)
        return report.get("accuracy.pgd").doubts[0]

    assert "try --straight-through before" in of(FLAT["round"])
    whole = Classifier(masking.OffTheGrid(standard.network), standard.normalization,
                       Origin("x.pt", None, "torch-zip", "net", "a test", "none", 1))  # fmt: skip
    (doubt, *_) = audited(whole, few).get("accuracy.pgd").doubts
    assert "the derivative of the forward of OffTheGrid is wrong" in doubt
    lying = of(LYING["uneven"])
    assert "the derivative of module 'before' (Step) is wrong" in lying
    assert "--straight-through" not in lying


@pytest.mark.parametrize("kind", HONEST)
def test_sound_networks_are_not_doubted(kind, standard, few):
    report = audited(Behind(standard, HONEST[kind]), few)
    assert report.get("accuracy.pgd").doubts == []
    assert not any("gradient" in line for line in report.warnings if kind != "clamp")


def test_gradients_just_inside_the_box_are_said(standard, few):
    report = audited(Behind(standard, torch.relu), few)
    (line,) = [line for line in report.warnings if "inside the box" in line]
    assert torch.__version__ in line
    assert report.get("accuracy.pgd").doubts == []


def test_a_saturated_cross_entropy_is_climbed_all_the_same(standard, few):
    """It is nought in float32; what attacks climb in its place goes on rising there."""
    hot, usual = (audited(Behind(standard, after=after), few).get("accuracy.pgd")
                  for after in (lambda z: 1e4 * z, lambda z: z))  # fmt: skip
    assert hot.doubts == []
    assert hot.value <= usual.value + 1 / len(few)
    small = audited(Behind(standard, after=lambda z: 1e4 * z), few, ThreatModel("linf", 1e-4))
    assert small.get("accuracy.pgd").doubts == []
