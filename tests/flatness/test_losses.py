"""The losses of perturbed networks against the attack that they come from."""

import pytest
import torch
from support.console import ROBUST
from torch import nn

import robaudit as ra
from robaudit.attacks import pgd
from robaudit.engine import frozen
from robaudit.errors import NotMeasuredError
from robaudit.flatness import average
from robaudit.flatness.losses import RobustLoss
from robaudit.types import ThreatModel

CPU = torch.device("cpu")


def losses(model, x, y, threat, index=None, restarts=1):
    loss = RobustLoss(x, y, threat, 3, threat.eps / 4 if threat else 0, 5, index, CPU, "auto")
    return loss.of(model, restarts)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.8), ("l1", 3.0)])
def test_they_are_those_of_pgd_bit_for_bit(norm, eps):
    """Though here several tiles pass through the network at once."""
    model, examples = ra.load(ROBUST, device="cpu"), ra.load_examples("digits", n=150)
    threat = ThreatModel(norm, eps)
    for restarts in (1, 2):
        want = pgd(
            model, examples.x, examples.y, threat, steps=3, restarts=restarts, seed=5,
            index=examples.index,
        ).loss  # fmt: skip
        with frozen(model):
            got = losses(model, examples.x, examples.y, threat, examples.index, restarts)
        assert torch.equal(got, want)


def test_an_example_does_not_depend_on_its_neighbours():
    model, examples = ra.load(ROBUST, device="cpu"), ra.load_examples("digits", n=300)
    threat = ThreatModel("linf", 0.15)
    some = torch.tensor([299, 7, 150])
    with frozen(model):
        whole = losses(model, examples.x, examples.y, threat)
        part = losses(model, examples.x[some], examples.y[some], threat, some)
    assert torch.equal(part, whole[some])


def test_passes_that_memory_is_too_small_for_are_noted():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            if len(x) > 64:
                raise torch.cuda.OutOfMemoryError
            return self.head(x.flatten(1))

    torch.manual_seed(0)
    x, y = torch.rand(200, 1, 2, 2), torch.zeros(200).long()
    options = {"perturbations": 2, "steps": 1}
    found = average(Wide(), x, y, ThreatModel("linf", 0.1), **options)
    assert len(found.notes) == 1
    assert "memory ran out in passes of 256 images" in found.notes[0]


@pytest.mark.parametrize("threat", [None, ThreatModel("linf", 0.1)])
def test_losses_that_are_not_finite_are_refused(threat):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(NotMeasuredError, match="not finite"):
        losses(model, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), threat)
