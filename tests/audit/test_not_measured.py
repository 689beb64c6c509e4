"""What cannot be measured, and networks and labels that cannot be audited."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robaudit.audit import Plan, audit
from robaudit.audit.probes import Average, Pgd, Wci, Worst
from robaudit.errors import CheckpointError, DataError, NotMeasuredError
from robaudit.schema import Report

PGD = Pgd(steps=10)
LIGHT = Plan(
    probes=(PGD, Wci(PGD), Average(PGD, perturbations=2), Worst(PGD, passes=2, restarts=1))
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotMeasuredError("the weights are too flat"), "the weights are too flat"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_probe_that_fails_leaves_the_others(error, reason, robust, few, threat, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("robaudit.flatness.average", fail)
    found = audit(robust, few, threat, LIGHT).report
    failed = found.get("flatness.average")
    assert (failed.status, failed.value) == ("failed", None)
    assert reason in failed.reason
    assert {
        m.status for m in found.measurements if m.name not in ("flatness.average", "pacbayes.bound")
    } == {"ok"}
    assert {m.name for m in found.measurements} >= {"accuracy.pgd", "wci", "flatness.worst"}
    assert Report.model_validate_json(found.model_dump_json()) == found


def test_an_attack_that_fails_takes_the_probes_that_need_it_along(few, threat):
    class Fragile(nn.Sequential):
        """NaN off the digits' grey levels."""

        def forward(self, x):
            off = ((16 * x - (16 * x).round()).abs() > 1e-3).flatten(1).any(1, keepdim=True)
            return torch.where(off, torch.nan, super().forward(x))

    network = Fragile(nn.Flatten(), nn.Linear(64, 10))
    found = audit(network, few, threat, LIGHT).report
    status = {m.name: m.status for m in found.measurements}
    assert status == {
        "accuracy.clean": "ok", "loss.clean": "ok", "accuracy.pgd": "failed",
        "loss.robust": "failed", "wci": "failed", "trace.total": "failed",
        "flatness.average": "failed", "flatness.worst": "failed",
    }  # fmt: skip


def test_what_the_network_raises_ends_its_own_probe_alone(few, threat):
    class Rounded(nn.Sequential):
        """Without a gradient, as a quantised or exported network is."""

        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    class Strict(nn.Sequential):
        """Refuses images that somebody differentiates by."""

        def forward(self, x):
            if x.requires_grad:
                raise RuntimeError("for inference alone")
            return super().forward(x)

    for kind, reason in (
        (Rounded, "no gradient"),
        (Strict, "the network raised RuntimeError: for inference alone"),
    ):
        network = kind(nn.Flatten(), nn.Linear(64, 10))
        found = audit(network, few, threat, LIGHT).report
        assert found.get("accuracy.clean").status == "ok"
        failed = found.get("accuracy.pgd")
        assert failed.status == "failed"
        assert reason in failed.reason


def test_a_network_with_random_output_is_told(few, threat):
    class Noisy(nn.Sequential):
        def forward(self, x):
            return super().forward(x + 0.1 * torch.rand_like(x))

    network = Noisy(nn.Flatten(), nn.Linear(64, 10))
    noisy = audit(network, few, threat, LIGHT).report
    assert any("random" in line for line in [*noisy.warnings, *noisy.get("accuracy.pgd").doubts])
    still = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert audit(still, few, threat, LIGHT).report.warnings == []


class Logits(nn.Module):
    """Returns what it is given."""

    def __init__(self, found):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.found = found

    def forward(self, x):
        return self.found(x)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda x: (torch.zeros(len(x), 10), x), "tuple"),
        (lambda x: torch.zeros(10), r"\(10,\)"),
        (lambda x: torch.zeros(len(x), 10, 1), "not logits"),
        (lambda x: torch.zeros(len(x), 9), "9 outputs"),
        (lambda x: x @ torch.zeros(3, 3), r"does not take images of shape \(1, 8, 8\)"),
    ],
)
def test_networks_that_are_no_classifiers_of_these_images(found, words, few, threat):
    with pytest.raises(CheckpointError, match=words):
        audit(Logits(found), few, threat, LIGHT)


def test_labels_that_are_no_classes(robust, few, threat):
    with pytest.raises(DataError, match="negative"):
        audit(robust, replace(few, y=few.y - 10), threat, LIGHT)
    with pytest.raises(CheckpointError, match="label 19"):
        audit(robust, replace(few, y=few.y + 10, classes=None), threat, LIGHT)


@pytest.mark.parametrize(
    ("network", "warns"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)), "probabilities"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), None),
        (Logits(lambda x: torch.arange(10.0).expand(len(x), 10)), "same output"),
    ],
)
def test_odd_outputs_are_warned_of(network, warns, few, threat):
    found = audit(network, few, threat, Plan()).report.warnings
    assert len(found) == (warns is not None)
    assert all(warns in text for text in found)
