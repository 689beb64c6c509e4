"""Networks with one fault each, and the warning or refusal that names it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robaudit.audit import Plan, audit
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.errors import CheckpointError

NOTHING = Plan()


def linear(*after):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), *after)


class Stubborn(nn.Dropout):
    """Stays in training mode whatever it is told."""

    def train(self, mode=True):
        return super().train(True)


class Scaled(nn.Module):
    def forward(self, x):
        return 1e4 * x


class Rounded(nn.Module):
    """Quantises its input: right nearly everywhere, and flat nearly everywhere."""

    def forward(self, x):
        return torch.round(x * 16) / 16 + 0 * x


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


class Spoiled(nn.Module):
    def forward(self, z):
        return torch.where(z.max(1, keepdim=True).values > z.mean(), torch.nan, z)


def warnings(network, few, threat):
    """What an audit without attacks says: its doubts are about none of its numbers."""
    return audit(network, few, threat, NOTHING).report.warnings


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (linear(Stubborn(0.5)), "stay in training mode (2)"),
        (linear(Stubborn(0.5)), "output is random"),
        (linear(nn.BatchNorm1d(10, track_running_stats=False)), "depends on the batch"),
        (linear(nn.Softmax(1)), "probabilities"),
        (nn.Sequential(Rounded(), linear()), "gradients are masked"),
        (nn.Sequential(Detached(), linear()), "no gradient of the logits reaches the image"),
    ],
)
def test_a_fault_is_named(network, says, few, threat):
    assert any(says in line for line in warnings(network, few, threat))


def test_a_sound_network_has_no_findings(few, threat):
    assert warnings(linear(), few, threat) == []
    # Its cross-entropy is nought in float32, which misleads no attack of ours.
    assert warnings(linear(Scaled()), few, threat) == []


def test_outputs_beyond_the_datas_classes(few, threat):
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 1000))
    (line,) = warnings(wide, few, threat)
    beyond = int((wide(few.x[:]).argmax(1) >= 10).sum())
    assert "1000 outputs and digits has 10 classes" in line
    assert f"of 32 images {beyond} clean" in line


@pytest.mark.parametrize("where", ["weight", "bias"])
def test_weights_that_are_not_finite_are_refused(where, few, threat):
    network = linear()
    with torch.no_grad():
        getattr(network[1], where).view(-1)[3] = torch.inf
    with pytest.raises(CheckpointError, match=f"1.{where}"):
        audit(network, few, threat, NOTHING)


def test_logits_that_are_not_finite_are_refused(few, threat):
    with pytest.raises(CheckpointError, match="not finite"):
        audit(linear(Spoiled()), few, threat, NOTHING)


def claiming(robust, **said):
    origin = Origin("x.pt", None, "torch-zip", "net", "a test", "none", 1, claims=said)
    return Classifier(robust.network, robust.normalization, origin)


def test_a_recorded_accuracy_is_held_against_the_measured_one(robust, few, threat):
    measured = audit(robust, few, threat, NOTHING).report.get("accuracy.clean").value
    assert warnings(claiming(robust, acc=measured), few, threat) == []
    (line,) = warnings(claiming(robust, acc=measured, best_acc=0.3), few, threat)
    assert "records best_acc = 30.0%" in line
    assert f"{measured:.1%}" in line


def test_a_sane_model_on_other_labels_is_told_by_its_claim(robust, few, threat):
    shifted = replace(few, y=(few.y + 1) % 10)
    assert any(
        "records acc" in line for line in warnings(claiming(robust, acc=0.95), shifted, threat)
    )
